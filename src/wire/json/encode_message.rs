//! Owns the spelling of one log entry: the same object as data of `new_message` and `notification` and inside lists.
//!
//! Never re-encodes `content` and `ext`: they leave as they came.

use super::text::{Object, write_string};
use crate::types::id::ConversationKind;
use crate::types::planted::{Planted, planted};
use crate::types::record::{Mentions, MessageExtra};
use crate::types::{ConversationId, Message, MessageKind, UserId};

/// The `type` under which the entry is pushed.
pub fn push_type(message: &Message) -> &'static str {
    match message.kind {
        MessageKind::Chat(_) => "new_message",
        MessageKind::Notification(_) => "notification",
    }
}

/// Writes the entry as an object.
pub fn write_message(out: &mut Vec<u8>, message: &Message, redelivered: bool) {
    let mut buffer = [0; 36];
    let mut object = Object::begin(out);
    object.plain("message_id", message.id.write_hyphenated(&mut buffer));
    object.text("conversation_id", message.conversation.as_str());
    object.number("seq", message.seq.0);
    if let Some(sender) = &message.sender {
        object.text("sender_id", sender.as_str());
    }
    match &message.kind {
        MessageKind::Chat(kind) => {
            write_target(&mut object, &message.conversation, message.sender.as_ref());
            object.plain("msg_type", kind.name());
        }
        MessageKind::Notification(kind) => {
            object.text("kind", kind);
        }
    }
    object.raw("content", message.content.as_str());
    if let Some(extra) = &message.extra {
        write_extra(&mut object, extra);
    }
    object.number("created_at", message.created_at.0);
    if let Some(client_id) = &message.client_id {
        object.text("client_message_id", client_id.as_str());
    }
    if redelivered {
        object.flag("redelivered", true);
    }
    object.end();
}

fn write_extra(object: &mut Object<'_>, extra: &MessageExtra) {
    match &extra.mentions {
        Some(Mentions::All) => {
            object.plain("mentions", "all");
        }
        Some(Mentions::Users(users)) => {
            object.list("mentions", users, |out, user| write_string(out, user.as_str()));
        }
        None => {}
    }
    if let Some(reply_to) = extra.reply_to {
        object.plain("reply_to", reply_to.write_hyphenated(&mut [0; 36]));
    }
    if let Some(after_ms) = extra.loss_time_ms {
        object.number("loss_time", after_ms);
    }
    if let Some(ext) = &extra.ext {
        object.raw("ext", ext.as_str());
    }
    if extra.recalled_by.is_some() && !planted(Planted::RecallUnmarked) {
        object.flag("recalled", true);
    }
}

/// `group_id`, or `to_user_id`: the one of the two users who is not the sender.
fn write_target(object: &mut Object<'_>, conversation: &ConversationId, sender: Option<&UserId>) {
    let id = conversation.as_str();
    // Ids without escapes, which is nearly all of them, are read where they stand.
    let plain = if id.contains('%') { None } else { id.split_once(':') };
    match (plain, sender) {
        (Some(("g", group)), _) => {
            object.text("group_id", group);
        }
        (Some(("s", user)), _) => {
            object.text("to_user_id", user);
        }
        (Some((_, pair)), Some(sender)) => {
            if let Some((low, high)) = pair.split_once(':') {
                object.text("to_user_id", if low == sender.as_str() { high } else { low });
            }
        }
        (Some(_), None) => {}
        (None, sender) => write_escaped_target(object, conversation, sender),
    }
}

#[cold]
fn write_escaped_target(object: &mut Object<'_>, conversation: &ConversationId, sender: Option<&UserId>) {
    match (conversation.kind(), sender) {
        (ConversationKind::Group(group), _) => {
            object.text("group_id", group.as_str());
        }
        (ConversationKind::System(user), _) => {
            object.text("to_user_id", user.as_str());
        }
        (ConversationKind::Private(low, high), Some(sender)) => {
            object.text("to_user_id", if low == *sender { high.as_str() } else { low.as_str() });
        }
        (ConversationKind::Private(..), None) => {}
    }
}
