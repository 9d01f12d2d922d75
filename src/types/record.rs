//! Owns what a log holds: messages, groups, members, and a user's own row per conversation. These are the values the store
//! keeps and the engine reads; never a wire format.

use std::sync::Arc;

use compact_str::CompactString;

use super::id::{ConversationId, DeviceId, GroupId, MessageId, RequestId, Seq, SessionId, UserId};
use super::time::Millis;

/// A JSON value as the client spelt it (a string with its quotes and escapes, or an object), already known to be valid.
///
/// Kept and sent verbatim: nothing is lost on the way (numbers, escapes, member order) and nothing is encoded twice.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Box<str>);

impl RawJson {
    /// Takes text that the decoder has validated as one JSON value.
    pub fn from_validated(text: &str) -> RawJson {
        RawJson(Box::from(text))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Encodes a plain string as a JSON string.
    pub fn string(plain: &str) -> RawJson {
        RawJson(serde_json::to_string(plain).expect("a string is always JSON").into_boxed_str())
    }

    /// The empty string, in quotes: what a recalled message holds.
    pub fn empty() -> RawJson {
        RawJson(Box::from("\"\""))
    }
}

impl std::fmt::Debug for RawJson {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Content never reaches a log.
        write!(out, "RawJson({} bytes)", self.0.len())
    }
}

/// `msg_type` on the wire; numbers 1 to 7 are the clients' in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    Text = 1,
    Image = 2,
    File = 3,
    Audio = 4,
    Video = 5,
    Location = 6,
    Custom = 7,
}

impl MessageType {
    pub const ALL: [MessageType; 7] = [
        MessageType::Text,
        MessageType::Image,
        MessageType::File,
        MessageType::Audio,
        MessageType::Video,
        MessageType::Location,
        MessageType::Custom,
    ];

    pub fn name(self) -> &'static str {
        match self {
            MessageType::Text => "text",
            MessageType::Image => "image",
            MessageType::File => "file",
            MessageType::Audio => "audio",
            MessageType::Video => "video",
            MessageType::Location => "location",
            MessageType::Custom => "custom",
        }
    }

    pub fn from_name(name: &str) -> Option<MessageType> {
        MessageType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn from_number(number: u64) -> Option<MessageType> {
        MessageType::ALL.into_iter().find(|kind| *kind as u64 == number)
    }
}

/// What a log entry is to its receivers: a chat message, or a notification in `s:<user>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Chat(MessageType),
    /// `kind` of a `notification`: `friend_request`, `group_invite`, `announcement`, `custom`, ...
    Notification(CompactString),
}

/// Who is mentioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mentions {
    Users(Vec<UserId>),
    All,
}

/// One entry of a conversation's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub conversation: ConversationId,
    pub seq: Seq,
    pub id: MessageId,
    /// None: written by the system.
    pub sender: Option<UserId>,
    /// The session that sent it, which gets no push of it.
    pub origin: SessionId,
    /// The sender's own id; key of de-duplication together with `sender`.
    pub client_id: Option<RequestId>,
    pub kind: MessageKind,
    pub content: RawJson,
    pub created_at: Millis,
    /// Members that few messages carry, together behind one pointer.
    pub extra: Option<Box<MessageExtra>>,
}

/// The rarely used members of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageExtra {
    pub mentions: Option<Mentions>,
    pub reply_to: Option<MessageId>,
    /// Milliseconds after `created_at` from which it may be dropped instead of delivered; None = must be delivered.
    pub loss_time_ms: Option<u64>,
    /// Opaque object of the client.
    pub ext: Option<RawJson>,
    /// Set when recalled: by whom. `content`, `mentions` and `ext` are gone then.
    pub recalled_by: Option<UserId>,
}

impl Message {
    /// True when `loss_time` allows dropping this message at `now`.
    pub fn expired(&self, now: Millis) -> bool {
        self.loss_time_ms().is_some_and(|after| now.0 >= self.created_at.0.saturating_add(after))
    }

    pub fn loss_time_ms(&self) -> Option<u64> {
        self.extra.as_ref().and_then(|extra| extra.loss_time_ms)
    }

    pub fn recalled_by(&self) -> Option<&UserId> {
        self.extra.as_ref().and_then(|extra| extra.recalled_by.as_ref())
    }

    /// The tombstone that takes a recalled message's place under its `seq`.
    pub fn recalled(&self, by: &UserId) -> Message {
        let reply_to = self.extra.as_ref().and_then(|extra| extra.reply_to);
        Message {
            content: RawJson::empty(),
            extra: Some(Box::new(MessageExtra { recalled_by: Some(by.clone()), reply_to, ..MessageExtra::default() })),
            ..self.clone()
        }
    }

    /// Approximate memory it holds, in bytes; what queues and pages are bounded by.
    pub fn weight_bytes(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| {
            64 + extra.ext.as_ref().map_or(0, |ext| ext.as_str().len())
                + match &extra.mentions {
                    Some(Mentions::Users(users)) => users.len() * 32,
                    _ => 0,
                }
        });
        256 + self.content.as_str().len() + extra
    }
}

/// Role of a member, ascending in power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Member,
    Admin,
    Owner,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }

    pub fn from_name(name: &str) -> Option<Role> {
        [Role::Member, Role::Admin, Role::Owner].into_iter().find(|role| role.name() == name)
    }
}

/// A group without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: GroupId,
    pub name: CompactString,
    /// Anyone may join.
    pub open: bool,
    pub created_at: Millis,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    pub role: Role,
    /// The group's last `seq` when they joined: what they may read (`groups.history = "join"`) and receive begins after it.
    pub joined_seq: Seq,
    pub joined_at: Millis,
}

/// One user's own row of one conversation: where they stand in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConversation {
    pub conversation: ConversationId,
    /// Last `seq` of the log when this row was read.
    pub head: Seq,
    /// Nothing at or before it is delivered or unread (joining time in groups, 0 otherwise).
    pub start_seq: Seq,
    pub read_seq: Seq,
    /// What the asking device has had; None when this device has no state here.
    pub delivered_device: Option<Seq>,
    /// The furthest that any device of the user has had.
    pub delivered_any: Seq,
    /// Where the messages begin that are as recent as was asked for: the last `seq` before them. None when it was not asked for,
    /// or the device is known. When a clock has stepped back, some that are older may come after it, never the other way round.
    pub recent_from: Option<Seq>,
}

impl UserConversation {
    /// Where a device begins that was never seen before: what no device has had comes, and what is recent.
    pub fn new_device_from(&self) -> Seq {
        self.recent_from.map_or(self.delivered_any, |recent| recent.min(self.delivered_any)).max(self.start_seq)
    }
}

/// A message shared by store, engine and encoder.
pub type SharedMessage = Arc<Message>;

/// Key of a device's delivery state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub user: UserId,
    pub device: DeviceId,
    pub conversation: ConversationId,
    pub seq: Seq,
}
