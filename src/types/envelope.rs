//! Owns what shards say to each other. Never more than [`HOPS_MAX`] hops for one client request: home, owner, owner, home.
//!
//! Everything here crosses threads by value; frames cross as one reference.

use std::sync::Arc;

use compact_str::CompactString;

use super::call::GroupOrder;
use super::command::{Command, Wishes};
use super::frame::SharedFrame;
use super::id::{ConversationId, DeviceId, GroupId, RequestId, Seq, SessionAddress, SessionId, SessionKey, ShardId, UserId};
use super::outcome::{CloseCode, Fault};
use super::push::{PresenceEntry, Push};
use super::record::{RawJson, SharedMessage};
use super::revocation::Revocation;
use super::storage::{UserState, Write};
use super::time::Millis;

/// The longest way of a message: home → conversation owner → user owner → home.
pub const HOPS_MAX: u8 = 3;

/// One message between shards.
#[derive(Debug)]
pub struct Envelope {
    /// Rings crossed so far, this one included.
    pub hops: u8,
    /// Monotonic microseconds of the turn that sent it: between rings, what was said first is heard first.
    pub sent_us: u64,
    pub body: Body,
}

/// Who asked, and where the answer goes.
#[derive(Clone, Debug)]
pub struct Asker {
    pub address: SessionAddress,
    pub session: SessionId,
    pub user: UserId,
    pub device: DeviceId,
    /// `message_id` of the request.
    pub request: Option<RequestId>,
    /// Monotonic microseconds when the request was received, for latency histograms.
    pub received_us: u64,
}

/// A request on its way to the owner of a conversation. Boxed, as is its asker: bodies are moved at every hop.
#[derive(Debug)]
pub struct Question {
    pub asker: Box<Asker>,
    pub conversation: ConversationId,
    pub command: Command,
}

/// What is said.
#[derive(Debug)]
pub enum Body {
    // Home → owner of a conversation.
    /// A request that the conversation's owner decides.
    Ask(Box<Question>),
    /// The same about a message that was looked up.
    AskAbout {
        asker: Box<Asker>,
        message: SharedMessage,
        command: Box<Command>,
    },
    /// A session of a member wants this group's messages from now on.
    AttachGroup {
        group: GroupId,
        asker: Box<Asker>,
    },
    /// A session that was attached is gone, or was taken out because its user was removed.
    DetachGroup {
        group: GroupId,
        user: UserId,
        shard: ShardId,
    },
    /// Writes a notification into `s:<user>`; its outcome is told to `asker` when there is one.
    Notify {
        user: UserId,
        kind: CompactString,
        content: RawJson,
        asker: Option<Box<Asker>>,
    },

    // Home → owner of a user.
    /// A session has proven to be this user's.
    AttachUser {
        asker: Box<Asker>,
        wishes: Wishes,
    },
    DetachUser {
        user: UserId,
        device: DeviceId,
        address: SessionAddress,
        at: Millis,
    },
    /// Writes something of a user's own (devices, delivery state); the user's owner lets no reading of it overtake it.
    PersistUser {
        user: UserId,
        write: Box<Write>,
    },
    /// Presence of users: once, and on every change when `watch`.
    AskPresence {
        asker: Box<Asker>,
        users: Vec<UserId>,
        watch: bool,
        gather: u64,
    },
    /// Watch on behalf of a session, without an answer now.
    Watch {
        users: Vec<UserId>,
        address: SessionAddress,
        session: SessionId,
    },
    Unwatch {
        users: Vec<UserId>,
        address: SessionAddress,
    },

    // Owner of a conversation → home.
    /// The group's log ended at `head` when the session was attached; all after it will be delivered.
    GroupAttached {
        group: GroupId,
        address: SessionAddress,
        user: UserId,
        head: Seq,
        joined: Seq,
    },
    /// The session's user is no member, or (`damaged`) nobody can tell, because the group cannot be read.
    GroupRefused {
        group: GroupId,
        address: SessionAddress,
        damaged: bool,
    },
    /// The user is no member any more: nothing that follows is for them.
    GroupDetached {
        group: GroupId,
        user: UserId,
        /// End of the log then.
        last: Seq,
    },
    /// One message for all local members of a group.
    DeliverGroup {
        group: GroupId,
        parcel: Parcel,
    },
    /// Something without `seq` for all local members.
    EphemeralGroup {
        group: GroupId,
        whisper: Whisper,
    },

    // Owner of a conversation → owner of a user.
    /// One message for all devices of a user.
    DeliverUser {
        user: UserId,
        conversation: ConversationId,
        parcel: Parcel,
    },
    EphemeralUser {
        user: UserId,
        whisper: Whisper,
    },
    /// The user became a member: their sessions attach.
    MemberAdded {
        group: GroupId,
        user: UserId,
    },

    // Owner of a user → home.
    Attached {
        address: SessionAddress,
        state: Box<UserState>,
        sessions: u32,
    },
    /// The session may not stay (or not open): close it so.
    Refused {
        address: SessionAddress,
        close: CloseCode,
    },
    /// How many sessions share the user's rate.
    SessionsShare {
        address: SessionAddress,
        sessions: u32,
    },
    DeliverSessions {
        sessions: SessionList,
        conversation: ConversationId,
        parcel: Parcel,
    },
    EphemeralSessions {
        sessions: SessionList,
        whisper: Whisper,
    },
    AttachSessions {
        sessions: SessionList,
        group: GroupId,
    },

    // Any owner → home.
    Reply {
        address: SessionAddress,
        session: SessionId,
        request: Option<RequestId>,
        push: Box<Push>,
        received_us: u64,
    },
    Failure {
        address: SessionAddress,
        session: SessionId,
        request: Option<RequestId>,
        fault: Fault,
    },
    /// Part of an answer that the home puts together.
    PresencePart {
        address: SessionAddress,
        gather: u64,
        entries: Vec<PresenceEntry>,
    },
    /// A group's owner names the users a session asked to watch.
    WatchFor {
        address: SessionAddress,
        session: SessionId,
        users: Vec<UserId>,
    },
    PresenceChanged {
        address: SessionAddress,
        entry: Arc<PresenceEntry>,
    },

    // Operators.
    /// Closes sessions of a user (all, or one device).
    Kick {
        user: UserId,
        device: Option<DeviceId>,
        close: CloseCode,
    },
    KickSession {
        address: SessionAddress,
        close: CloseCode,
    },
    /// These tokens open nothing any more; told to every shard.
    Revoke(Arc<Revocation>),
    /// Changes a group, whoever its owner is.
    Order {
        asker: Box<Asker>,
        group: GroupId,
        order: GroupOrder,
    },
}

/// A log entry on its way to connections: encoded once, one reference per shard.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub seq: Seq,
    /// The session that sent it, which gets no push of it.
    pub origin: SessionId,
    pub frame: SharedFrame,
    /// Monotonic microseconds when the message was received, for latency histograms.
    pub received_us: u64,
}

/// Something without `seq` on its way to connections.
#[derive(Clone, Debug)]
pub struct Whisper {
    /// The session that caused it, which does not hear it.
    pub except: SessionId,
    pub lane: EphemeralLane,
    /// Tells which older one it replaces while it waits; 0 = none.
    pub key: u64,
    pub frame: SharedFrame,
}

/// Sessions of one home shard.
pub type SessionList = smallvec::SmallVec<[SessionKey; 2]>;

/// In which lane something without `seq` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EphemeralLane {
    /// Receipts and group events: after acks, before messages.
    Receipt,
    /// Recalls: in order with messages, so that a recall never comes before what it recalls.
    Message,
    /// Typing and presence: last, and the only lane that is ever shed.
    Ephemeral,
}
