//! Owns the truth of the conversations this shard was given: where their logs end, who is a member, who of them is online.
//!
//! Never holds messages: the log does. Lives on the conversation's owner shard.

use std::collections::VecDeque;

use indexmap::IndexMap;

use crate::types::record::{Group, Role, SharedMessage};
use crate::types::{Command, ConversationId, GroupId, Millis, Seq, ShardId, UserId};

use super::Hasher;
use crate::types::call::GroupOrder;
use crate::types::envelope::Asker;

/// All conversations at hand.
#[derive(Debug)]
pub struct Conversations {
    pub table: IndexMap<ConversationId, Conversation, Hasher>,
    /// Where the search for one to forget goes on.
    hand: usize,
}

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    pub state: State,
    /// End of the log as the store last said.
    pub head: Seq,
    /// Appends the store has not answered.
    pub appends: u32,
    /// Requests that wait for `state` to become `Ready`, in order.
    pub waiting: VecDeque<Waiting>,
    pub group: Option<Box<OwnedGroup>>,
    /// Used since the hand last passed.
    pub used: bool,
}

/// Whether requests can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its state is being read.
    Loading,
    Ready,
    /// A change of group or members is being written: what comes after it is decided after it.
    Changing,
}

/// A request that waits.
#[derive(Debug)]
pub enum Waiting {
    Ask(Box<Asker>, Command),
    Attach(Box<Asker>),
    Recall(Box<Asker>, SharedMessage),
    Order(Box<Asker>, GroupOrder),
    Notify { kind: compact_str::CompactString, content: crate::types::RawJson, asker: Option<Box<Asker>> },
}

/// A group as its owner holds it; `record` is None while there is no such group.
#[derive(Debug)]
pub struct OwnedGroup {
    pub id: GroupId,
    pub record: Option<Group>,
    /// In order of joining, as long as nobody was removed from the middle; `joined_at` tells.
    pub members: IndexMap<UserId, OwnedMember, Hasher>,
    /// The last who left or were removed, oldest first.
    pub former: Vec<UserId>,
    /// Attached sessions per shard.
    pub online_by_shard: Vec<u32>,
    /// Sessions of memberships that have ended, whose homes have not reported them detached yet.
    pub leaving: Vec<(UserId, u32)>,
}

/// A member as the owner holds them.
#[derive(Clone, Debug)]
pub struct OwnedMember {
    pub role: Role,
    pub joined_seq: Seq,
    pub joined_at: Millis,
    /// Attached sessions.
    pub online: u32,
}

impl Conversations {
    pub fn new(hasher: Hasher) -> Conversations {
        Conversations { table: IndexMap::with_hasher(hasher), hand: 0 }
    }

    /// Forgets one conversation that nobody needs when there are more than `cached_max`; looks at a few only.
    pub fn forget_one(&mut self, cached_max: usize) {
        if self.table.len() <= cached_max {
            return;
        }
        for _ in 0..FORGET_STEPS {
            if self.hand >= self.table.len() {
                self.hand = 0;
            }
            let (_, conversation) = self.table.get_index_mut(self.hand).expect("the hand is within the table");
            if !conversation.is_idle() || std::mem::take(&mut conversation.used) {
                self.hand += 1;
                continue;
            }
            self.table.swap_remove_index(self.hand);
            return;
        }
    }
}

impl Conversation {
    pub fn loading() -> Conversation {
        Conversation { state: State::Loading, head: Seq::NONE, appends: 0, waiting: VecDeque::new(), group: None, used: true }
    }

    /// What the next append tells the store of the log's end.
    pub fn head_hint(&self) -> Option<Seq> {
        (self.appends == 0).then_some(self.head)
    }

    /// Nothing is under way and nobody is attached: it can be read again when needed.
    fn is_idle(&self) -> bool {
        self.state == State::Ready
            && self.appends == 0
            && self.waiting.is_empty()
            && self.group.as_ref().is_none_or(|group| group.online_by_shard.iter().all(|online| *online == 0))
    }
}

impl OwnedGroup {
    pub fn role(&self, user: &UserId) -> Option<Role> {
        self.members.get(user).map(|member| member.role)
    }

    /// One session of a user is detached: of a membership that has ended if any of those is left, else of the present one.
    pub fn detach(&mut self, user: &UserId, shard: ShardId) {
        let count = &mut self.online_by_shard[shard.index()];
        debug_assert!(*count > 0, "a session is detached once");
        *count = count.saturating_sub(1);
        if let Some(at) = self.leaving.iter().position(|(leaver, _)| leaver == user) {
            self.leaving[at].1 -= 1;
            if self.leaving[at].1 == 0 {
                self.leaving.swap_remove(at);
            }
        } else if let Some(member) = self.members.get_mut(user) {
            debug_assert!(member.online > 0, "a session is detached once");
            member.online = member.online.saturating_sub(1);
        }
    }

    /// Ends a membership; its sessions are counted until their homes have let them go.
    pub fn end_membership(&mut self, user: &UserId) {
        let Some(member) = self.members.swap_remove(user).filter(|member| member.online > 0) else { return };
        match self.leaving.iter_mut().find(|(leaver, _)| leaver == user) {
            Some((_, sessions)) => *sessions += member.online,
            None => self.leaving.push((user.clone(), member.online)),
        }
    }

    /// Shards that have attached sessions.
    pub fn shards_online(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.online_by_shard.iter().enumerate().filter(|(_, online)| **online > 0).map(|(shard, _)| ShardId(shard as u16))
    }
}

const FORGET_STEPS: usize = 8;
