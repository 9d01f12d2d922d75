//! Owns the closed set of what the server says to a client (PROTOCOL, "Server to client"). Never knows how it is spelt: that
//! is `wire::json`.

use compact_str::CompactString;

use super::id::{ConversationId, DeviceId, GroupId, MessageId, Seq, SessionId, UserId};
use super::outcome::Fault;
use super::record::SharedMessage;
use super::time::Millis;

/// Everything the server may say.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    AuthSuccess(Box<AuthSuccess>),
    AuthFailed(Fault),
    Pong {
        server_time: Millis,
    },
    Ack(Ack),
    /// `new_message`, or `notification` when the entry is one. `redelivered` is set on repeats within a connection.
    Message {
        message: SharedMessage,
        redelivered: bool,
    },
    ReadReceipt {
        conversation: ConversationId,
        user: UserId,
        read_seq: Seq,
    },
    Typing {
        conversation: ConversationId,
        user: UserId,
        active: bool,
    },
    Recalled {
        conversation: ConversationId,
        message_id: MessageId,
        seq: Seq,
        by: UserId,
    },
    Skipped {
        conversation: ConversationId,
        from: Seq,
        to: Seq,
        reason: SkipReason,
    },
    GroupEvent {
        group: GroupId,
        event: GroupEvent,
        users: Vec<UserId>,
        by: Option<UserId>,
    },
    PresenceUsers(Vec<PresenceEntry>),
    PresenceGroup {
        group: GroupId,
        online: u64,
        users: Vec<PresenceEntry>,
    },
    History {
        conversation: ConversationId,
        messages: Vec<SharedMessage>,
        has_more: bool,
        /// Where the page after this one begins; goes back in as `cursor`.
        next: Option<HistoryNext>,
    },
    Conversations {
        conversations: Vec<ConversationSummary>,
        has_more: bool,
        next: Option<String>,
    },
    Unread {
        total: u64,
        conversations: Vec<UnreadEntry>,
    },
    SearchResult {
        messages: Vec<SharedMessage>,
        has_more: bool,
        next: Option<String>,
    },
    SyncDone,
    Reconnect {
        retry_after_ms: u64,
        reason: CompactString,
        targets: Vec<String>,
    },
    Error(Fault),
}

/// Where the next page of a history begins, and in which direction it lies; the bound is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryNext {
    /// Older messages: the next page is asked for as with `before_seq`.
    Before(Seq),
    /// Newer messages: the next page is asked for as with `after_seq`.
    After(Seq),
}

/// Data of `auth_success`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthSuccess {
    pub user: UserId,
    pub device: DeviceId,
    pub session: SessionId,
    pub node: CompactString,
    pub server_time: Millis,
    pub heartbeat_ms: u64,
    pub token_expires_at: Option<Millis>,
    pub limits: ClientLimits,
}

/// The limits a client should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    pub message_bytes: u64,
    pub content_bytes: u64,
    /// 0 = unlimited.
    pub messages_per_second: u64,
}

/// Data of `ack`; every member but `success` is for the verbs that have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ack {
    pub sent: Option<SentAck>,
    /// `create_group`.
    pub group: Option<GroupId>,
}

/// Where a sent message ended up.
#[derive(Clone, Debug, PartialEq)]
pub struct SentAck {
    pub message_id: MessageId,
    pub conversation: ConversationId,
    pub seq: Seq,
    pub created_at: Millis,
    pub duplicate: bool,
}

/// Why a stretch of a log is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    Expired,
    Retention,
    NotAMember,
    Deleted,
}

impl SkipReason {
    pub fn name(self) -> &'static str {
        match self {
            SkipReason::Expired => "expired",
            SkipReason::Retention => "retention",
            SkipReason::NotAMember => "not_a_member",
            SkipReason::Deleted => "deleted",
        }
    }
}

/// What happened to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    Created,
    Joined,
    Left,
    Removed,
    RoleChanged,
    OwnerChanged,
    Deleted,
}

impl GroupEvent {
    pub fn name(self) -> &'static str {
        match self {
            GroupEvent::Created => "created",
            GroupEvent::Joined => "joined",
            GroupEvent::Left => "left",
            GroupEvent::Removed => "removed",
            GroupEvent::RoleChanged => "role_changed",
            GroupEvent::OwnerChanged => "owner_changed",
            GroupEvent::Deleted => "deleted",
        }
    }
}

/// One user's online state.
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceEntry {
    pub user: UserId,
    pub online: bool,
    /// Wall time of the last disconnect; None when never seen or online.
    pub last_seen: Option<Millis>,
    /// Distinct devices connected.
    pub devices: u32,
}

/// One row of `conversations`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationSummary {
    pub conversation: ConversationId,
    pub last_message: Option<SharedMessage>,
    pub last_seq: Seq,
    pub read_seq: Seq,
    pub unread: u64,
}

/// One row of `unread`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnreadEntry {
    pub conversation: ConversationId,
    pub unread: u64,
    pub mentioned: bool,
}
