//! Owns what an operator's program asks of the shards and wants an answer to, and the way that answer takes. Never says who may
//! ask: `control/` does.

use compact_str::CompactString;

use super::command::{Draft, NewGroup};
use super::id::{GroupId, RequestId, SessionAddress, SessionId, SessionKey, ShardId, UserId};
use super::outcome::Fault;
use super::push::Push;
use super::record::{RawJson, Role};

/// One question to whichever shard takes it.
#[derive(Debug)]
pub enum Call {
    /// A message of a user's, as if they had sent it; `request` is the key of de-duplication. Answered with `Push::Ack`.
    Send { sender: UserId, request: Option<RequestId>, draft: Box<Draft> },
    /// A notification in `s:<user>`; `request` is the key of de-duplication there. Answered with `Push::Ack`.
    Notify { user: UserId, request: Option<RequestId>, kind: CompactString, content: RawJson },
    /// A group of a user's. Answered with `Push::Ack`, which names the group.
    CreateGroup { owner: UserId, group: NewGroup },
    /// A change of a group. Answered with `Push::Ack`.
    Group { group: GroupId, order: GroupOrder },
    /// Whether users are online. Answered with `Push::PresenceUsers`, of users of one owner at least one each.
    Presence { user: UserId },
}

/// What an operator does to a group, whoever its owner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOrder {
    /// Makes users members, who get a `group_invite`; those who are members stay what they are.
    Add(Vec<UserId>),
    /// Ends memberships. When the owner goes another one follows; when all go, the group is deleted.
    Remove(Vec<UserId>),
    /// Makes a user a member of this role; None: of the role they have, `member` when they are new.
    Put {
        user: UserId,
        role: Option<Role>,
    },
    Delete,
}

/// What a call ends with.
pub type CallOutcome = Result<Push, Fault>;

/// Takes the outcome of a call. Called once, from a shard's thread: it must not wait. Dropped without a call when there is no
/// outcome to be had.
pub type AnswerTo = Box<dyn FnOnce(CallOutcome) + Send>;

impl SessionAddress {
    /// Where the answer to a call goes: to the shard that took it, under the number it gave.
    pub fn of_call(shard: ShardId, number: u32) -> SessionAddress {
        SessionAddress { shard, key: SessionKey { slot: CALL_SLOT, generation: number } }
    }
}

impl SessionKey {
    /// The number of the call that this stands for, when it is no session's.
    pub fn call(self) -> Option<u32> {
        (self.slot == CALL_SLOT).then_some(self.generation)
    }
}

/// What calls carry in place of a session's name.
pub const CALL_SESSION: SessionId = SessionId::NONE;

/// No connection has this slot: descriptors are far fewer.
const CALL_SLOT: u32 = u32::MAX;
