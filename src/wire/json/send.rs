//! Owns reading `send_message` and `send_group_message` (PROTOCOL, "Client to server").
//!
//! Never measures against `limits.content_bytes`: the engine does, from `content_bytes`.

use simd_json::{Node, StaticNode};

use super::command::{message_id, one_target, user_ids};
use super::decode::{Required, bad_request};
use super::tape::Field;
use crate::types::command::{Draft, Target};
use crate::types::outcome::Fault;
use crate::types::record::{Mentions, MessageType, RawJson};
use crate::types::{Command, ErrorName};

/// Reads the draft; `group_only` for `send_group_message`.
pub fn read(data: Field<'_, '_>, group_only: bool) -> Result<Command, Fault> {
    let [user, group, kind, content, mentions, reply_to, loss_time, ext] =
        data.data(["to_user_id", "group_id", "msg_type", "content", "mentions", "reply_to", "loss_time", "ext"])?;
    let target = one_target(user, group)?;
    if group_only && matches!(target, Target::User(_)) {
        return Err(Fault::new(ErrorName::BadRequest, "`send_group_message` takes `group_id`"));
    }
    let kind = message_type(kind)?;
    let (content, content_bytes) = read_content(content)?;
    Ok(Command::Send(Box::new(Draft {
        target,
        kind,
        content,
        content_bytes,
        mentions: read_mentions(mentions)?,
        reply_to: message_id(reply_to)?,
        loss_time_ms: loss_time.number()?.filter(|after| *after > 0),
        ext: read_ext(ext)?,
    })))
}

fn message_type(field: Field<'_, '_>) -> Result<MessageType, Fault> {
    let found = match field.node() {
        None => Some(MessageType::Text),
        Some(Node::String("system" | "notification")) => {
            return Err(Fault::new(ErrorName::Forbidden, "messages of this type come from the server only"));
        }
        Some(Node::String(name)) => MessageType::from_name(name),
        Some(Node::Static(StaticNode::U64(number))) => MessageType::from_number(number),
        Some(_) => None,
    };
    found.ok_or_else(|| field.wrong("text, image, file, audio, video, location, custom, or a number from 1 to 7"))
}

/// The content as it was sent, and the bytes that `limits.content_bytes` counts.
fn read_content(field: Field<'_, '_>) -> Result<(RawJson, u32), Fault> {
    let node = field.node().required(field.name())?;
    let raw = match node {
        Node::String(_) | Node::Object { .. } => field.raw().required(field.name())?,
        _ => return Err(field.wrong("a string or an object")),
    };
    let bytes = match node {
        Node::String(text) => text.len(),
        _ => raw.as_str().len(),
    };
    Ok((raw, u32::try_from(bytes).unwrap_or(u32::MAX)))
}

fn read_mentions(field: Field<'_, '_>) -> Result<Option<Mentions>, Fault> {
    match field.node() {
        Some(Node::String("all")) => Ok(Some(Mentions::All)),
        Some(Node::String(_)) => Err(field.wrong("a list of user ids, or \"all\"")),
        _ => Ok(user_ids(field, MENTIONS_MAX)?.filter(|users| !users.is_empty()).map(Mentions::Users)),
    }
}

fn read_ext(field: Field<'_, '_>) -> Result<Option<RawJson>, Fault> {
    match field.node() {
        None => Ok(None),
        Some(Node::Object { len, .. }) if len > EXT_MEMBERS_MAX => {
            Err(bad_request(format!("`ext` has more than {EXT_MEMBERS_MAX} members")))
        }
        Some(Node::Object { .. }) => field.raw().required(field.name()).map(Some),
        Some(_) => Err(field.wrong("an object")),
    }
}

/// Members of `ext` at most; what is larger belongs into `content`.
const EXT_MEMBERS_MAX: usize = 1_000;
const MENTIONS_MAX: usize = 1_000;
