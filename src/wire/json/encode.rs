//! Owns the spelling of everything the server says (PROTOCOL, "Server to client"): one pass from value to finished frame.
//!
//! Never reads a clock: envelopes of the server carry no `timestamp`; what has a time carries it in its data. Lives on a
//! shard thread; the one buffer it reuses is behind a `RefCell` that is never borrowed across a call out.

use std::cell::RefCell;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::encode_message::{push_type, write_message};
use super::text::{Object, write_string};
use crate::types::outcome::Fault;
use crate::types::push::{Ack, AuthSuccess, ConversationSummary, HistoryNext, PresenceEntry, UnreadEntry};
use crate::types::record::SharedMessage;
use crate::types::{CloseCode, Encode, Frame, Push, RequestId, SharedFrame};
use crate::wire::frame::{HEADER_BYTES_MAX, header_len, write_close, write_header};

/// Makes frames for clients of `corehub.v1.json`. One per shard.
#[derive(Default)]
pub struct JsonEncoder {
    /// Room for a header, then the payload. Keeps at most [`SCRATCH_BYTES_KEPT`] between calls.
    scratch: RefCell<Vec<u8>>,
}

impl JsonEncoder {
    pub fn new() -> JsonEncoder {
        JsonEncoder::default()
    }

    /// The JSON text of a push, without a frame around it: for logs of tests and for other transports.
    pub fn text(&self, push: &Push, reply_to: Option<&RequestId>) -> String {
        let mut out = Vec::new();
        write_envelope(&mut out, push, reply_to);
        String::from_utf8(out).expect("the encoder writes UTF-8 only")
    }

    /// The JSON text of a push's data alone: what a list or an entry is to those who do not speak in envelopes.
    pub fn data(&self, push: &Push) -> String {
        let mut out = Vec::new();
        write_data(&mut out, push);
        String::from_utf8(out).expect("the encoder writes UTF-8 only")
    }

    /// The JSON text of one user's presence alone.
    pub fn presence(&self, entry: &PresenceEntry) -> String {
        let mut out = Vec::new();
        write_presence(&mut out, entry);
        String::from_utf8(out).expect("the encoder writes UTF-8 only")
    }

    /// Writes a payload behind room for its header, puts the header right before it, and hands out the whole.
    fn frame<T>(&self, opcode: OpCode, write: impl FnOnce(&mut Vec<u8>), finish: impl FnOnce(&[u8]) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch.extend_from_slice(&[0; HEADER_BYTES_MAX]);
        write(&mut scratch);
        let payload_bytes = scratch.len() - HEADER_BYTES_MAX;
        let start = HEADER_BYTES_MAX - header_len(payload_bytes);
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header
            .format(payload_bytes as u64, &mut &mut scratch[start..HEADER_BYTES_MAX])
            .expect("the room before the payload has the length of this very header");
        let finished = finish(&scratch[start..]);
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = Vec::new();
        }
        finished
    }
}

impl Encode for JsonEncoder {
    fn push(&self, push: &Push, reply_to: Option<&RequestId>) -> Frame {
        self.frame(OpCode::Data(Data::Text), |out| write_envelope(out, push, reply_to), Frame::own)
    }

    fn shared(&self, push: &Push) -> SharedFrame {
        self.frame(OpCode::Data(Data::Text), |out| write_envelope(out, push, None), |bytes| SharedFrame::from(bytes))
    }

    fn ping(&self) -> Frame {
        Frame::own(&[0x89, 0])
    }

    fn pong(&self, payload: &[u8]) -> Frame {
        let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
        self.frame(OpCode::Control(Control::Pong), |out| out.extend_from_slice(payload), Frame::own)
    }

    fn close(&self, code: CloseCode, reason: &str) -> Frame {
        let mut bytes = Vec::with_capacity(CONTROL_BYTES_MAX + 2);
        write_close(&mut bytes, code.code(), reason);
        Frame::own(&bytes)
    }

    fn raw(&self, text: bool, payload: &[u8]) -> Frame {
        let opcode = OpCode::Data(if text { Data::Text } else { Data::Binary });
        let mut bytes = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
        write_header(&mut bytes, opcode, payload.len());
        bytes.extend_from_slice(payload);
        Frame::own(&bytes)
    }
}

fn write_envelope(out: &mut Vec<u8>, push: &Push, reply_to: Option<&RequestId>) {
    let mut envelope = Object::begin(out);
    envelope.plain("type", type_name(push));
    if let Some(id) = reply_to {
        envelope.text("message_id", id.as_str());
    }
    write_data(envelope.key("data"), push);
    envelope.end();
}

fn type_name(push: &Push) -> &'static str {
    match push {
        Push::AuthSuccess(_) => "auth_success",
        Push::AuthFailed(_) => "auth_failed",
        Push::Pong { .. } => "pong",
        Push::Ack(_) => "ack",
        Push::Message { message, .. } => push_type(message),
        Push::ReadReceipt { .. } => "read_receipt",
        Push::Typing { .. } => "typing",
        Push::Recalled { .. } => "message_recalled",
        Push::Skipped { .. } => "messages_skipped",
        Push::GroupEvent { .. } => "group_event",
        Push::PresenceUsers(_) | Push::PresenceGroup { .. } => "presence",
        Push::History { .. } => "history",
        Push::Conversations { .. } => "conversations",
        Push::Unread { .. } => "unread",
        Push::SearchResult { .. } => "search_result",
        Push::SyncDone => "sync_done",
        Push::Reconnect { .. } => "reconnect",
        Push::Error(_) => "error",
    }
}

/// Writes `data`; lists have functions of their own, everything else is flat.
fn write_data(out: &mut Vec<u8>, push: &Push) {
    if let Push::Message { message, redelivered } = push {
        return write_message(out, message, *redelivered);
    }
    let mut data = Object::begin(out);
    match push {
        Push::AuthSuccess(success) => write_auth_success(&mut data, success),
        Push::AuthFailed(fault) => write_fault(&mut data, fault),
        Push::Error(fault) => {
            write_fault(&mut data, fault);
            data.flag("temporary", fault.name.temporary());
            if let Some(after_ms) = fault.retry_after_ms {
                data.number("retry_after_ms", after_ms);
            }
        }
        Push::Pong { server_time } => {
            data.number("server_time", server_time.0);
        }
        Push::Ack(ack) => write_ack(&mut data, ack),
        Push::ReadReceipt { conversation, user, read_seq } => {
            data.text("conversation_id", conversation.as_str()).text("user_id", user.as_str());
            data.number("read_seq", read_seq.0);
        }
        Push::Typing { conversation, user, active } => {
            data.text("conversation_id", conversation.as_str()).text("user_id", user.as_str());
            data.plain("state", if *active { "start" } else { "stop" });
        }
        Push::Recalled { conversation, message_id, seq, by } => {
            data.text("conversation_id", conversation.as_str()).shown("message_id", message_id);
            data.number("seq", seq.0).text("by", by.as_str());
        }
        Push::Skipped { conversation, from, to, reason } => {
            data.text("conversation_id", conversation.as_str());
            data.number("from_seq", from.0).number("to_seq", to.0).plain("reason", reason.name());
        }
        Push::GroupEvent { group, event, users, by } => {
            data.text("group_id", group.as_str()).plain("event", event.name());
            data.list("user_ids", users, |out, user| write_string(out, user.as_str()));
            if let Some(by) = by {
                data.text("by", by.as_str());
            }
        }
        Push::Reconnect { retry_after_ms, reason, targets } => {
            data.number("retry_after_ms", *retry_after_ms).text("reason", reason);
            if !targets.is_empty() {
                data.list("targets", targets, |out, target| write_string(out, target));
            }
        }
        Push::SyncDone | Push::Message { .. } => {}
        lists => write_lists(&mut data, lists),
    }
    data.end();
}

fn write_lists(data: &mut Object<'_>, push: &Push) {
    match push {
        Push::PresenceUsers(users) => {
            data.list("users", users, write_presence);
        }
        Push::PresenceGroup { group, online, users } => {
            data.text("group_id", group.as_str()).number("online", *online).list("users", users, write_presence);
        }
        Push::History { conversation, messages, has_more, next } => {
            data.text("conversation_id", conversation.as_str());
            write_messages(data, messages);
            data.flag("has_more", *has_more);
            match next {
                Some(HistoryNext::Before(seq)) => data.shown("next", format_args!("b{}", seq.0)),
                Some(HistoryNext::After(seq)) => data.shown("next", format_args!("a{}", seq.0)),
                None => data.raw("next", "null"),
            };
        }
        Push::Conversations { conversations, has_more, next } => {
            data.list("conversations", conversations, write_summary);
            write_more(data, *has_more, next.as_deref());
        }
        Push::Unread { total, conversations } => {
            data.number("total", *total).list("conversations", conversations, write_unread);
        }
        Push::SearchResult { messages, has_more, next } => {
            write_messages(data, messages);
            write_more(data, *has_more, next.as_deref());
        }
        _ => {}
    }
}

fn write_auth_success(data: &mut Object<'_>, success: &AuthSuccess) {
    data.text("user_id", success.user.as_str()).text("device_id", success.device.as_str());
    data.shown("session_id", success.session).text("node_id", &success.node);
    data.number("server_time", success.server_time.0).number("heartbeat_ms", success.heartbeat_ms);
    data.number_or_null("token_expires_at", success.token_expires_at.map(|at| at.0));
    let mut limits = Object::begin(data.key("limits"));
    limits.number("message_bytes", success.limits.message_bytes).number("content_bytes", success.limits.content_bytes);
    limits.number("messages_per_second", success.limits.messages_per_second);
    limits.end();
}

fn write_ack(data: &mut Object<'_>, ack: &Ack) {
    data.flag("success", true);
    if let Some(sent) = &ack.sent {
        data.plain("message_id", sent.message_id.write_hyphenated(&mut [0; 36]));
        data.text("conversation_id", sent.conversation.as_str()).number("seq", sent.seq.0);
        data.number("created_at", sent.created_at.0).flag("duplicate", sent.duplicate);
    }
    if let Some(group) = &ack.group {
        data.text("group_id", group.as_str());
    }
}

fn write_fault(data: &mut Object<'_>, fault: &Fault) {
    let message = if fault.message.is_empty() { fault.name.text() } else { &fault.message };
    data.number("code", u64::from(fault.name.code())).plain("name", fault.name.name()).text("message", message);
}

fn write_messages(data: &mut Object<'_>, messages: &[SharedMessage]) {
    data.list("messages", messages, |out, message| write_message(out, message, false));
}

fn write_more(data: &mut Object<'_>, has_more: bool, next: Option<&str>) {
    data.flag("has_more", has_more);
    match next {
        Some(next) => data.text("next", next),
        None => data.raw("next", "null"),
    };
}

fn write_presence(out: &mut Vec<u8>, entry: &PresenceEntry) {
    let mut object = Object::begin(out);
    object.text("user_id", entry.user.as_str()).plain("status", if entry.online { "online" } else { "offline" });
    object.number_or_null("last_seen", entry.last_seen.map(|at| at.0)).number("devices", u64::from(entry.devices));
    object.end();
}

fn write_summary(out: &mut Vec<u8>, summary: &ConversationSummary) {
    let mut object = Object::begin(out);
    object.text("conversation_id", summary.conversation.as_str());
    match &summary.last_message {
        Some(message) => write_message(object.key("last_message"), message, false),
        None => {
            object.raw("last_message", "null");
        }
    }
    object.number("last_seq", summary.last_seq.0).number("read_seq", summary.read_seq.0).number("unread", summary.unread);
    object.end();
}

fn write_unread(out: &mut Vec<u8>, entry: &UnreadEntry) {
    let mut object = Object::begin(out);
    object.text("conversation_id", entry.conversation.as_str()).number("unread", entry.unread).flag("mentioned", entry.mentioned);
    object.end();
}

const CONTROL_BYTES_MAX: usize = 125;
/// Larger frames (pages of history) are made in memory of their own.
const SCRATCH_BYTES_KEPT: usize = 256 << 10;
