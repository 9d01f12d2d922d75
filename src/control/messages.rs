//! Owns sending over REST: as a user, or as the system. The form of a message is judged by the decoder of the clients' own
//! verbs, so that the two cannot differ. Lives on the control thread.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use compact_str::CompactString;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::RestFault;
use super::body::{self, Body, named};
use super::{State as Shared, announcements, calls};
use crate::types::command::Draft;
use crate::types::id::{IdFault, check_id};
use crate::types::{Call, Command, ErrorName, RawJson, RequestId, UserId};
use crate::wire::json;

/// The body of `POST /v1/messages`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    sender_id: Option<Cow<'a, str>>,
    to_user_id: Option<Cow<'a, str>>,
    group_id: Option<Cow<'a, str>>,
    announcement: Option<bool>,
    kind: Option<Cow<'a, str>>,
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    msg_type: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    mentions: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_to: Option<&'a RawValue>,
    #[serde(borrow)]
    loss_time: Option<&'a RawValue>,
    #[serde(borrow)]
    ext: Option<&'a RawValue>,
}

/// `POST /v1/messages`: answered when it is durable.
pub(super) async fn post(State(state): State<Arc<Shared>>, body: Body) -> Result<Json<Value>, RestFault> {
    let bytes = body::bytes(body)?;
    let message: Message<'_> = body::object(&bytes)?;
    let request = message.message_id.as_deref().map(|id| named(id, "message_id", RequestId::new)).transpose()?;
    if message.announcement == Some(true) {
        let content = to_all(&state, &message)?;
        return announcements::announce(&state, content, request).await;
    }
    let call = match &message.sender_id {
        Some(sender) => as_user(&message, named(sender, "sender_id", UserId::new)?, request)?,
        None => as_system(&state, &message, request)?,
    };
    calls::send(&state, call).await.map(|ack| calls::as_sent(&ack))
}

fn as_user(message: &Message<'_>, sender: UserId, request: Option<RequestId>) -> Result<Call, RestFault> {
    if message.kind.is_some() {
        return Err(RestFault::bad_request("kind is for notifications, which have no sender_id"));
    }
    Ok(Call::Send { sender, request, draft: draft(message)? })
}

fn as_system(state: &Shared, message: &Message<'_>, request: Option<RequestId>) -> Result<Call, RestFault> {
    let Some(user) = &message.to_user_id else {
        return Err(RestFault::bad_request("give sender_id, or to_user_id alone for a notification"));
    };
    if message.group_id.is_some() {
        return Err(RestFault::bad_request("a notification is for one user: leave group_id out, or give sender_id"));
    }
    let user = named(user, "to_user_id", UserId::new)?;
    let kind = message.kind.as_deref().unwrap_or(KIND_DEFAULT);
    let kind = named(kind, "kind", read_kind)?;
    Ok(Call::Notify { user, request, kind, content: notice(state, message)? })
}

/// The content of an announcement.
fn to_all(state: &Shared, message: &Message<'_>) -> Result<RawJson, RestFault> {
    let targets = [&message.sender_id, &message.to_user_id, &message.group_id];
    if targets.into_iter().any(Option::is_some) || message.kind.as_deref().is_some_and(|kind| kind != announcements::KIND) {
        return Err(RestFault::bad_request("an announcement goes to everybody, from the system: give content only"));
    }
    notice(state, message)
}

/// The content of what the system says.
fn notice(state: &Shared, message: &Message<'_>) -> Result<RawJson, RestFault> {
    let others = [&message.msg_type, &message.mentions, &message.reply_to, &message.loss_time, &message.ext];
    if others.into_iter().any(Option::is_some) {
        return Err(RestFault::bad_request("a notification has kind and content only"));
    }
    let draft = draft(&Message { to_user_id: Some("-".into()), content: message.content, ..Message::default() })?;
    if draft.content_bytes as usize > state.content_bytes_max {
        let text = format!("content has {} bytes; at most {} are allowed", draft.content_bytes, state.content_bytes_max);
        return Err(RestFault::new(ErrorName::TooLarge, text));
    }
    Ok(draft.content)
}

/// What a client's `send_message` with these members would be taken for.
fn draft(message: &Message<'_>) -> Result<Box<Draft>, RestFault> {
    let mut text = String::from(r#"{"type":"send_message","data":{"#);
    let mut put = |name: &str, value: &str| {
        let comma = if text.ends_with('{') { "" } else { "," };
        text.push_str(&format!("{comma}\"{name}\":{value}"));
    };
    for (name, id) in [("to_user_id", &message.to_user_id), ("group_id", &message.group_id)] {
        id.iter().for_each(|id| put(name, RawJson::string(id).as_str()));
    }
    for (name, value) in [
        ("msg_type", &message.msg_type),
        ("content", &message.content),
        ("mentions", &message.mentions),
        ("reply_to", &message.reply_to),
        ("loss_time", &message.loss_time),
        ("ext", &message.ext),
    ] {
        value.iter().for_each(|value| put(name, value.get()));
    }
    text.push_str("}}");
    match json::decode(text.as_bytes(), &mut json::Scratch::new()) {
        Ok(request) => match request.command {
            Command::Send(draft) => Ok(draft),
            _ => Err(calls::unexpected()),
        },
        Err(fault) => Err(RestFault::from(fault.fault)),
    }
}

fn read_kind(text: &str) -> Result<CompactString, IdFault> {
    check_id(text)?;
    if text.len() > KIND_BYTES_MAX {
        return Err(IdFault::TooLong);
    }
    Ok(text.into())
}

const KIND_DEFAULT: &str = "custom";
const KIND_BYTES_MAX: usize = 128;
