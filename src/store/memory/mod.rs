//! Owns everything in memory: the store of tests, of the simulator, and of servers that need no disk. Never reads a clock and
//! never iterates in an order that depends on chance: the same writes under the same seed give the same answers. Lives on the
//! writer's thread.

mod duplicates;
mod groups;
mod lists;
mod log;
mod users;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use indexmap::IndexMap;

use super::backend::{Backend, Outcome};
use crate::store::listing::Wanted;
use crate::types::planted::{Planted, planted};
use crate::types::record::{Delivery, SharedMessage, UserConversation};
use crate::types::storage::{
    Answer, Append, GroupChange, GroupState, NoteName, RangePage, RangeQuery, Read, StoreFault, UserState, Write,
};
use crate::types::{ConversationId, ConversationKind, DeviceId, GroupId, MessageId, Millis, Seq, UserId};

use duplicates::Duplicates;
use groups::Groups;
use log::{Log, NOTHING};
use users::{Row, Users};

/// The store in memory. Everything is gone with the process.
#[derive(Debug)]
pub struct MemoryBackend {
    hasher: FixedState,
    /// Numbered in order of their first mention; never removed, since a `seq` is never given twice.
    logs: IndexMap<ConversationId, Log, FixedState>,
    /// Each with its hash, so that growing touches no message.
    by_id: HashTable<(u64, SharedMessage)>,
    duplicates: Duplicates,
    users: Users,
    groups: Groups,
    notes: BTreeMap<NoteName, String>,
    /// The log at which pruning goes on.
    prune_at: usize,
    /// First uses from before no longer count, whatever a write says.
    first_uses_before: Option<Millis>,
}

impl MemoryBackend {
    /// An empty store. `seed` keys its hash tables: random in a server, fixed in a simulation.
    pub fn new(seed: u64) -> MemoryBackend {
        let hasher = FixedState::with_seed(seed);
        MemoryBackend {
            logs: IndexMap::with_hasher(hasher.clone()),
            by_id: HashTable::new(),
            duplicates: Duplicates::new(hasher.clone()),
            users: Users::new(hasher.clone()),
            groups: Groups::new(hasher.clone()),
            notes: BTreeMap::new(),
            prune_at: 0,
            first_uses_before: None,
            hasher,
        }
    }

    /// What a damaged disk might lose: the newest message of a log, with all that is known of it or only from the log itself.
    #[cfg(any(test, feature = "planted-faults"))]
    pub fn lose_newest(&mut self, conversation: &ConversationId, traces_too: bool) {
        let Some(message) = self.logs.get_mut(conversation).and_then(Log::lose_newest) else { return };
        if traces_too {
            self.by_id.retain(|(_, known)| known.id != message.id);
            self.duplicates.forget(&message);
        }
    }

    /// As [`MemoryBackend::lose_newest`], for the uses of client ids.
    #[cfg(any(test, feature = "planted-faults"))]
    pub fn forget_duplicates(&mut self) {
        self.duplicates = Duplicates::new(self.hasher.clone());
    }

    fn write(&mut self, write: Write) -> Answer {
        match write {
            Write::Append(append) => return self.append(*append),
            Write::Group(change) => self.change_group(*change),
            Write::Device { user, device, deliveries, .. } => {
                self.users.entry(&user).put_device(&device);
                deliveries.iter().for_each(|delivery| self.deliver(delivery));
            }
            Write::Deliveries(deliveries) => deliveries.iter().for_each(|delivery| self.deliver(delivery)),
            Write::MarkRead { user, conversation, seq } => return self.mark_read(&user, &conversation, seq),
            Write::Recall { conversation, seq, by } => self.recall(&conversation, seq, &by),
            Write::Hide { user, conversation, seq } => self.hide(&user, &conversation, seq),
            Write::LastSeen { user, at } => self.users.entry(&user).last_seen = Some(at),
            Write::Know(users) => users.iter().for_each(|user| {
                self.users.number(user);
            }),
            Write::Note { name, text: Some(text) } => {
                self.notes.insert(name, text);
            }
            Write::Note { name, text: None } => {
                self.notes.remove(&name);
            }
        }
        Answer::Done
    }

    fn append(&mut self, append: Append) -> Answer {
        let Append { mut message, dedupe_since, repeat_only, .. } = append;
        let dedupe_since = self.first_uses_before.map_or(dedupe_since, |before| dedupe_since.min(before));
        if let Some(first) = self.duplicates.first_use(&message, dedupe_since).filter(|_| !planted(Planted::DedupeSkipped)) {
            return Answer::Duplicate {
                message_id: first.id,
                conversation: first.conversation.clone(),
                seq: first.seq,
                created_at: first.created_at,
            };
        }
        if repeat_only {
            return Answer::Done;
        }
        let number = self.log_number(&message.conversation);
        let log = &mut self.logs[number as usize];
        message.seq = log.head().next();
        let message = Arc::new(message);
        log.push(message.clone());
        if message.seq == Seq(1) {
            self.make_rows(number, &message.conversation);
        }
        let hash = self.hasher.hash_one(message.id);
        self.by_id.insert_unique(hash, (hash, message.clone()), |(known, _)| *known);
        self.duplicates.remember(&message, dedupe_since);
        Answer::Appended(message)
    }

    /// Rows of the first message's readers; those of a group come with its members.
    fn make_rows(&mut self, log: u32, conversation: &ConversationId) {
        match conversation.kind() {
            ConversationKind::Private(one, other) => {
                self.users.entry(&one).put_row(log, Seq::NONE);
                self.users.entry(&other).put_row(log, Seq::NONE);
            }
            ConversationKind::System(user) => self.users.entry(&user).put_row(log, Seq::NONE),
            ConversationKind::Group(_) => {}
        }
    }

    fn change_group(&mut self, change: GroupChange) {
        let log = self.log_number(&ConversationId::group(&change.group));
        if change.delete {
            if let Some(members) = self.groups.remove(&change.group) {
                members.numbers().for_each(|user| self.users.by_number(user).remove_row(log));
            }
            return;
        }
        if let Some(record) = change.record {
            self.groups.put(record);
        }
        let Some(members) = self.groups.members_mut(&change.group) else {
            return;
        };
        for user in change.members_removed.iter().filter_map(|user| self.users.known(user)).collect::<Vec<_>>() {
            if members.remove(user) && !planted(Planted::RowKept) {
                self.users.by_number(user).remove_row(log);
            }
        }
        for member in &change.members_put {
            let user = self.users.number(&member.user);
            members.put(user, member);
            self.users.by_number(user).put_row(log, member.joined_seq);
        }
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let Some(number) = self.logs.get_index_of(&delivery.conversation) else {
            return;
        };
        let seq = delivery.seq.min(self.logs[number].head());
        let Some(user) = self.users.user_mut(&delivery.user) else {
            return;
        };
        if user.row(number as u32).is_some() {
            let device = user.put_device(&delivery.device);
            if planted(Planted::DeliveredForAll) {
                let row = user.row_mut(number as u32).expect("the row was just seen to exist");
                (0..=9).for_each(|device| row.deliver(device, seq));
            }
            user.row_mut(number as u32).expect("the row was just seen to exist").deliver(device, seq);
        }
    }

    fn mark_read(&mut self, user: &UserId, conversation: &ConversationId, seq: Seq) -> Answer {
        let row = self.logs.get_full(conversation).and_then(|(number, _, log)| {
            let row = self.users.user_mut(user)?.row_mut(number as u32)?;
            Some((row, log.head()))
        });
        let Some((row, head)) = row else {
            return Answer::ReadAt { seq: Seq::NONE, moved: false, senders: Vec::new() };
        };
        let seq = seq.min(head);
        let before = row.read_seq;
        row.read_seq = before.max(seq);
        let read_seq = row.read_seq;
        let senders = self.senders(conversation, before, read_seq);
        Answer::ReadAt { seq: read_seq, moved: read_seq > before, senders }
    }

    fn recall(&mut self, conversation: &ConversationId, seq: Seq, by: &UserId) {
        let Some(log) = self.logs.get_mut(conversation) else {
            return;
        };
        let Some(message) = log.message(seq).filter(|message| message.recalled_by().is_none()) else {
            return;
        };
        let tombstone = Arc::new(message.recalled(by));
        if planted(Planted::RecallKeepsContent) {
            return;
        }
        log.replace(tombstone.clone());
        self.duplicates.replace(&tombstone);
        let hash = self.hasher.hash_one(tombstone.id);
        if let Some((_, known)) = self.by_id.find_mut(hash, |(known, message)| *known == hash && message.id == tombstone.id) {
            *known = tombstone;
        }
    }

    fn hide(&mut self, user: &UserId, conversation: &ConversationId, seq: Seq) {
        if let Some((number, _, log)) = self.logs.get_full(conversation)
            && log.message(seq).is_some()
        {
            self.users.entry(user).hide(number as u32, seq);
        }
    }

    fn log_number(&mut self, conversation: &ConversationId) -> u32 {
        match self.logs.get_index_of(conversation) {
            Some(number) => number as u32,
            None => self.logs.insert_full(conversation.clone(), Log::default()).0 as u32,
        }
    }

    fn head(&self, conversation: &ConversationId) -> Seq {
        self.logs.get(conversation).map_or(Seq::NONE, Log::head)
    }

    fn group(&self, group: &GroupId) -> Option<Box<GroupState>> {
        let members = self.groups.members(group)?;
        let head = self.head(&ConversationId::group(group));
        Some(Box::new(GroupState { group: members.record.clone(), members: members.listed(&self.users), head }))
    }

    fn user(&self, user: &UserId, device: &DeviceId, recent_since: Option<Millis>) -> UserState {
        let Some(user) = self.users.user(user) else {
            return UserState { device_known: false, conversations: Vec::new(), last_seen: None, damaged: 0 };
        };
        let device = user.device(device);
        let mut conversations: Vec<UserConversation> = user.rows().iter().map(|row| self.row_of(row, device)).collect();
        if let Some(since) = recent_since.filter(|_| device.is_none()) {
            for (row, seen) in user.rows().iter().zip(&mut conversations) {
                seen.recent_from = Some(self.logs[row.log as usize].before(since));
            }
        }
        UserState { device_known: device.is_some(), conversations, last_seen: user.last_seen, damaged: 0 }
    }

    fn row(&self, user: &UserId, device: &DeviceId, conversation: &ConversationId) -> Option<Box<UserConversation>> {
        let number = self.logs.get_index_of(conversation)?;
        let user = self.users.user(user)?;
        Some(Box::new(self.row_of(user.row(number as u32)?, user.device(device))))
    }

    fn row_of(&self, row: &Row, device: Option<u32>) -> UserConversation {
        let (conversation, log) = self.logs.get_index(row.log as usize).expect("logs are never removed");
        UserConversation {
            conversation: conversation.clone(),
            head: log.head(),
            start_seq: row.start_seq,
            read_seq: row.read_seq,
            delivered_device: device.and_then(|device| row.delivered(device)),
            delivered_any: row.delivered_any(),
            recent_from: None,
        }
    }

    fn range(&self, query: &RangeQuery) -> RangePage {
        let Some((number, _, log)) = self.logs.get_full(&query.conversation) else {
            return RangePage { messages: Vec::new(), has_more: false, covered: NOTHING, first_kept: Seq(1) };
        };
        let viewer = query.viewer.as_ref().and_then(|viewer| self.users.user(viewer));
        log.page(query, |seq| !planted(Planted::HiddenShown) && viewer.is_some_and(|viewer| viewer.hides(number as u32, seq)))
    }

    /// Removes a log's oldest message when it is older than `before`. Returns whether it was.
    fn prune_one(&mut self, log: usize, before: Millis) -> bool {
        let Some(message) = self.logs[log].prune_one(before) else { return false };
        let hash = self.hasher.hash_one(message.id);
        if let Ok(known) = self.by_id.find_entry(hash, |(known, kept)| *known == hash && kept.id == message.id) {
            known.remove();
        }
        true
    }

    fn locate(&self, id: MessageId) -> Option<SharedMessage> {
        let hash = self.hasher.hash_one(id);
        let (_, message) = self.by_id.find(hash, |(known, message)| *known == hash && message.id == id)?;
        Some(message.clone())
    }
}

impl MemoryBackend {
    /// Removes a conversation's oldest messages, whatever their age, and answers with them: for simulations of what retention
    /// does.
    pub fn prune_first(&mut self, conversation: &ConversationId, count: usize) -> Vec<SharedMessage> {
        let Some(number) = self.logs.get_index_of(conversation) else { return Vec::new() };
        let gone: Vec<SharedMessage> = self.logs[number].after(Seq::NONE).take(count).cloned().collect();
        for _ in 0..gone.len() {
            self.prune_one(number, Millis(u64::MAX));
        }
        gone
    }
}

impl Backend for MemoryBackend {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        outcomes.extend(writes.drain(..).map(|write| Ok(self.write(write))));
    }

    fn read(&mut self, read: &Read) -> Outcome {
        Ok(match read {
            Read::Head { conversation } => Answer::Head(self.head(conversation)),
            Read::Group { group } => Answer::Group(self.group(group)),
            Read::User { user, device, recent_since } => Answer::User(Box::new(self.user(user, device, *recent_since))),
            Read::Contacts { user, others } => Answer::Contacts(self.users.contacts(user, others)),
            Read::Row { user, device, conversation } => Answer::Row(self.row(user, device, conversation)),
            Read::Range(query) => Answer::Range(self.range(query)),
            Read::Locate { message_id } => Answer::Located(self.locate(*message_id)),
            Read::Summaries { user, limit, cursor } => self.summaries(user, *limit, cursor.as_deref()),
            Read::Unread { user } => self.unread(user),
            Read::Search { user, query, conversation, whole_groups, limit, cursor } => {
                let (only, cursor) = (conversation.as_ref(), cursor.as_deref());
                self.search(&Wanted { user, query, only, whole_groups: *whole_groups, limit: *limit, cursor })
            }
            Read::Users { after, limit } => Answer::Users(self.users.listed(after.as_ref(), *limit as usize)),
            Read::UserCount => Answer::Count(self.users.count() as u64),
            Read::Groups { after, limit } => Answer::Groups(self.groups.records(after.as_ref(), *limit as usize)),
            Read::Notes { kind } => {
                let of_kind = self.notes.iter().filter(|(name, _)| name.kind == *kind);
                Answer::Notes(of_kind.map(|(name, text)| (name.id.clone(), text.clone())).collect())
            }
            Read::LastSeen { users } => {
                let last_seen = |user: &UserId| self.users.user(user).and_then(|user| user.last_seen);
                Answer::LastSeen(users.iter().map(|user| (user.clone(), last_seen(user))).collect())
            }
        })
    }

    /// The next first use forgets those that no longer count; hidden marks are few and go with the process.
    fn expire(&mut self, first_uses_before: Millis, _: usize) -> Result<usize, StoreFault> {
        self.first_uses_before = Some(first_uses_before);
        Ok(0)
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        let mut pruned = 0;
        for _ in 0..self.logs.len().min(messages_max) {
            if self.prune_at >= self.logs.len() {
                self.prune_at = 0;
            }
            while pruned < messages_max {
                if !self.prune_one(self.prune_at, before) {
                    break;
                }
                pruned += 1;
            }
            if pruned >= messages_max {
                break;
            }
            self.prune_at += 1;
        }
        Ok(pruned)
    }
}
