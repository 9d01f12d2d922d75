//! Owns asking the shards: one call, one answer, within a time. Never holds a shard up: a full queue is a refusal, and a shard
//! whose answer nobody waits for any more throws it away. Lives on the control thread.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::State as Shared;
use super::answer::RestFault;
use crate::types::call::AnswerTo;
use crate::types::push::{PresenceEntry, SentAck};
use crate::types::{Call, ErrorName, Push};
use crate::wire::json::JsonEncoder;

/// Asks and waits, at most [`CALL_TIMEOUT`].
pub(super) async fn call(state: &Shared, call: Call) -> Result<Push, RestFault> {
    let (sender, receiver) = oneshot::channel();
    let answer: AnswerTo = Box::new(move |outcome| {
        // Nobody waits any more: the request has timed out or its connection is gone.
        let _ = sender.send(outcome);
    });
    if !(state.call)(call, answer) {
        return Err(RestFault::new(ErrorName::Overloaded, "the shards' queues are full; try again"));
    }
    match tokio::time::timeout(CALL_TIMEOUT, receiver).await {
        Ok(Ok(outcome)) => outcome.map_err(RestFault::from),
        Ok(Err(_)) | Err(_) => Err(RestFault::new(
            ErrorName::Overloaded,
            "no answer came in time: it may have been done or not; the same message_id again stores it once",
        )),
    }
}

/// Asks for something that is acknowledged with a message's place.
pub(super) async fn send(state: &Shared, request: Call) -> Result<SentAck, RestFault> {
    match call(state, request).await? {
        Push::Ack(ack) => ack.sent.ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

/// The data that a client would get, as a response.
pub(super) fn as_data(push: &Push) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (kind, JsonEncoder::new().data(push)).into_response()
}

/// One user's presence, as a response.
pub(super) fn as_entry(entry: &PresenceEntry) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (kind, JsonEncoder::new().presence(entry)).into_response()
}

/// What is said of a message that is durable.
pub(super) fn as_sent(ack: &SentAck) -> Json<Value> {
    Json(json!({
        "message_id": ack.message_id.to_string(),
        "conversation_id": ack.conversation.as_str(),
        "seq": ack.seq.0,
        "created_at": ack.created_at.0,
        "duplicate": ack.duplicate,
    }))
}

pub(super) fn unexpected() -> RestFault {
    RestFault::new(ErrorName::Internal, "the answer was not to this question")
}

/// Shorter than what a request as a whole may take, so that its refusal still leaves.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
