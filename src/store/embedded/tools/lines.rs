//! Owns how exported data are spelt: JSON lines, each an object with one member that names its kind. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::types::record::{Mentions, Message, MessageExtra, MessageKind, MessageType, RawJson};
use crate::types::{ConversationId, MessageId, Millis, RequestId, Seq, SessionId, UserId};

/// One line. Their order: `corehub_export`; conversations by id, each followed by its messages by `seq`; groups by id, each
/// followed by its members in order of joining; rows, devices, hidden marks, last seen, each by user; users; notes;
/// `end`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one, with the version of this format.
    CorehubExport(u32),
    Conversation(ConversationLine),
    Message(Box<MessageLine>),
    Group(GroupLine),
    Member(MemberLine),
    Row(RowLine),
    Device(DeviceLine),
    Hidden(HiddenLine),
    LastSeen(LastSeenLine),
    /// Somebody who has been here.
    User(String),
    Note(NoteLine),
    /// The last one, with how many were before it.
    End(u64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversationLine {
    pub id: String,
    pub first_kept: u64,
    pub slack_ms: u64,
    pub newest: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageLine {
    pub seq: u64,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    pub origin: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Name of a chat message's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Kind of a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<String>,
    pub created_at: u64,
    pub content: Body,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<MentionsLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_time_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Body>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recalled_by: Option<String>,
}

/// JSON as the client spelt it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Json(Box<RawValue>),
    /// With line breaks, so quoted.
    Quoted(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MentionsLine {
    All,
    Users(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupLine {
    pub id: String,
    pub name: String,
    pub open: bool,
    pub created_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberLine {
    pub user: String,
    pub role: String,
    pub joined_seq: u64,
    pub joined_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowLine {
    pub user: String,
    pub conversation: String,
    pub start_seq: u64,
    pub read_seq: u64,
    /// By hash of the device.
    pub delivered: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceLine {
    pub user: String,
    pub device: String,
    pub since: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiddenLine {
    pub user: String,
    pub conversation: String,
    pub seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastSeenLine {
    pub user: String,
    pub at: u64,
}

/// What the server itself keeps, such as revoked tokens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteLine {
    pub kind: String,
    pub id: String,
    pub text: String,
}

impl Body {
    fn of(json: &RawJson) -> Body {
        let text = json.as_str();
        match RawValue::from_string(text.to_owned()) {
            Ok(raw) if !text.contains(['\n', '\r']) && raw.get() == text => Body::Json(raw),
            _ => Body::Quoted(text.to_owned()),
        }
    }

    fn json(&self) -> Result<RawJson, String> {
        match self {
            Body::Json(raw) => Ok(RawJson::from_validated(raw.get())),
            Body::Quoted(text) => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Ok(RawJson::from_validated(text)),
                Err(error) => Err(format!("what is quoted is no JSON: {error}")),
            },
        }
    }
}

impl MessageLine {
    pub fn of(message: &Message) -> MessageLine {
        let extra = message.extra.as_deref();
        let (kind, notification) = match &message.kind {
            MessageKind::Chat(kind) => (Some(kind.name().to_owned()), None),
            MessageKind::Notification(kind) => (None, Some(kind.to_string())),
        };
        let mentions = extra.and_then(|extra| extra.mentions.as_ref()).map(|mentions| match mentions {
            Mentions::All => MentionsLine::All,
            Mentions::Users(users) => MentionsLine::Users(users.iter().map(ToString::to_string).collect()),
        });
        MessageLine {
            seq: message.seq.0,
            id: message.id.to_string(),
            sender: message.sender.as_ref().map(ToString::to_string),
            origin: message.origin.0,
            client_id: message.client_id.as_ref().map(|id| id.as_str().to_owned()),
            r#type: kind,
            notification,
            created_at: message.created_at.0,
            content: Body::of(&message.content),
            mentions,
            reply_to: extra.and_then(|extra| extra.reply_to).map(|id| id.to_string()),
            loss_time_ms: message.loss_time_ms(),
            ext: extra.and_then(|extra| extra.ext.as_ref()).map(Body::of),
            recalled_by: message.recalled_by().map(ToString::to_string),
        }
    }

    /// The message of `conversation`.
    ///
    /// # Errors
    /// Says which member is none.
    pub fn message(&self, conversation: &ConversationId) -> Result<Message, String> {
        let kind = match (&self.r#type, &self.notification) {
            (Some(kind), None) => {
                MessageKind::Chat(MessageType::from_name(kind).ok_or_else(|| format!("type {kind:?} is none"))?)
            }
            (None, Some(kind)) => MessageKind::Notification(kind.as_str().into()),
            _ => return Err("a message has either type or notification".to_owned()),
        };
        let mentions = match &self.mentions {
            None => None,
            Some(MentionsLine::All) => Some(Mentions::All),
            Some(MentionsLine::Users(users)) => {
                Some(Mentions::Users(users.iter().map(|id| user(id)).collect::<Result<Vec<_>, _>>()?))
            }
        };
        let extra = MessageExtra {
            mentions,
            reply_to: self.reply_to.as_deref().map(message_id).transpose()?,
            loss_time_ms: self.loss_time_ms,
            ext: self.ext.as_ref().map(Body::json).transpose()?,
            recalled_by: self.recalled_by.as_deref().map(user).transpose()?,
        };
        let client_id = self.client_id.as_deref().map(RequestId::new).transpose();
        Ok(Message {
            conversation: conversation.clone(),
            seq: Seq(self.seq),
            id: message_id(&self.id)?,
            sender: self.sender.as_deref().map(user).transpose()?,
            origin: SessionId(self.origin),
            client_id: client_id.map_err(|fault| format!("client_id {fault}"))?,
            kind,
            content: self.content.json()?,
            created_at: Millis(self.created_at),
            extra: (extra != MessageExtra::default()).then(|| Box::new(extra)),
        })
    }
}

/// An id of a user as a line has it.
pub fn user(text: &str) -> Result<UserId, String> {
    UserId::new(text).map_err(|fault| format!("user {text:?} {fault}"))
}

/// An id of a conversation as a line has it.
pub fn conversation(text: &str) -> Result<ConversationId, String> {
    ConversationId::parse(text).map_err(|fault| format!("conversation {text:?} {fault}"))
}

fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text).ok_or_else(|| format!("message id {text:?} is none"))
}

pub const EXPORT_VERSION: u32 = 1;
