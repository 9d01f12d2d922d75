//! Owns the closed set of what a client may ask (PROTOCOL, "Client to server"). Values here are decoded and checked: ids are
//! valid, numbers in range, choices exclusive. Never borrows from the receive buffer.

use indexmap::IndexMap;

use super::id::{ConversationId, DeviceId, GroupId, MessageId, RequestId, Seq, UserId};
use super::record::{Mentions, MessageType, RawJson};
use super::time::Millis;

/// One decoded envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `message_id` of the envelope, echoed in the reply.
    pub id: Option<RequestId>,
    pub command: Command,
}

/// Everything a client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Auth(Auth),
    Refresh { token: Secret },
    Ping,
    Send(Box<Draft>),
    RecvAck(Vec<(ConversationId, Seq)>),
    MarkRead { conversation: ConversationRef, upto: ReadUpTo },
    JoinGroup(GroupId),
    LeaveGroup(GroupId),
    CreateGroup(NewGroup),
    Invite { group: GroupId, users: Vec<UserId> },
    Remove { group: GroupId, users: Vec<UserId> },
    Typing { target: Target, active: bool },
    Recall(MessageId),
    Delete(MessageId),
    GetHistory(HistoryQuery),
    GetConversations { limit: u32, cursor: Option<String> },
    GetUnread,
    Sync { cursors: IndexMap<ConversationId, Seq> },
    GetPresence(PresenceTarget),
    SubscribePresence(PresenceTarget),
    UnsubscribePresence(PresenceTarget),
    Search { query: String, conversation: Option<ConversationRef>, limit: u32, cursor: Option<String> },
}

impl Command {
    /// Metric label and document anchor: the `type` on the wire, in the order of [`Command::NAMES`].
    pub fn name(&self) -> &'static str {
        Command::NAMES[self.index()]
    }

    /// Every name, for counters that exist from the start.
    pub const NAMES: [&'static str; 22] = [
        "auth",
        "refresh",
        "ping",
        "send_message",
        "recv_ack",
        "mark_read",
        "join_group",
        "leave_group",
        "create_group",
        "invite_to_group",
        "remove_from_group",
        "typing",
        "recall_message",
        "delete_message",
        "get_history",
        "get_conversations",
        "get_unread",
        "sync",
        "get_presence",
        "subscribe_presence",
        "unsubscribe_presence",
        "search",
    ];

    /// Position in [`Command::NAMES`].
    pub fn index(&self) -> usize {
        match self {
            Command::Auth(_) => 0,
            Command::Refresh { .. } => 1,
            Command::Ping => 2,
            Command::Send(_) => 3,
            Command::RecvAck(_) => 4,
            Command::MarkRead { .. } => 5,
            Command::JoinGroup(_) => 6,
            Command::LeaveGroup(_) => 7,
            Command::CreateGroup(_) => 8,
            Command::Invite { .. } => 9,
            Command::Remove { .. } => 10,
            Command::Typing { .. } => 11,
            Command::Recall(_) => 12,
            Command::Delete(_) => 13,
            Command::GetHistory(_) => 14,
            Command::GetConversations { .. } => 15,
            Command::GetUnread => 16,
            Command::Sync { .. } => 17,
            Command::GetPresence(_) => 18,
            Command::SubscribePresence(_) => 19,
            Command::UnsubscribePresence(_) => 20,
            Command::Search { .. } => 21,
        }
    }
}

/// A token, which no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// `auth`, or the same wishes given at the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub token: Secret,
    pub wishes: Wishes,
}

/// What a client may ask for when it authenticates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Named by the message or the query; the token's claim wins over it.
    pub device: Option<DeviceId>,
    /// The client sends `recv_ack`.
    pub acks: bool,
    /// Subscribe to everyone who shares a conversation.
    pub presence: bool,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    User(UserId),
    Group(GroupId),
}

/// A message as its sender wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub target: Target,
    pub kind: MessageType,
    pub content: RawJson,
    /// What `limits.content_bytes` counts: UTF-8 bytes of the string after unescaping, or of the object as sent.
    pub content_bytes: u32,
    pub mentions: Option<Mentions>,
    pub reply_to: Option<MessageId>,
    /// None = must be delivered.
    pub loss_time_ms: Option<u64>,
    pub ext: Option<RawJson>,
}

/// A conversation as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversationRef {
    Id(ConversationId),
    Group(GroupId),
    User(UserId),
}

/// Up to where a conversation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUpTo {
    Seq(Seq),
    Message(MessageId),
}

/// `create_group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGroup {
    /// None: the server makes one.
    pub group: Option<GroupId>,
    pub name: String,
    pub members: Vec<UserId>,
    pub open: bool,
}

/// `get_history`: both bounds exclusive; `since` inclusive, `until` exclusive. `limit` is already within 1..=200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    pub conversation: ConversationRef,
    pub before: Option<Seq>,
    pub after: Option<Seq>,
    pub since: Option<Millis>,
    pub until: Option<Millis>,
    pub limit: u32,
}

/// Whose presence is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceTarget {
    Users(Vec<UserId>),
    Group(GroupId),
}
