//! Checks the encoder: whatever a push holds, serde_json reads it and finds exactly that, under a frame header that is right.

use std::sync::Arc;

use compact_str::CompactString;
use serde_json::{Value, json};

use super::input::Input;
use crate::types::outcome::Fault;
use crate::types::push::{Ack, ConversationSummary, GroupEvent, HistoryNext, PresenceEntry, SentAck, SkipReason, UnreadEntry};
use crate::types::record::{Mentions, MessageExtra, MessageType, SharedMessage};
use crate::types::{
    ConversationId, Encode, ErrorName, GroupId, Message, MessageId, MessageKind, Millis, Push, RawJson, RequestId, Seq,
    SessionId, UserId,
};
use crate::wire::json::{JsonEncoder, write_string};

/// The values of one push.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let reply_to = input.some(|input| id(input, RequestId::new)).flatten();
    let (push, kind, data) = push(&mut input);
    let encoder = JsonEncoder::new();
    let text = encoder.text(&push, reply_to.as_ref());
    let read: Value = serde_json::from_str(&text).expect("what the encoder writes is JSON");
    let mut expected = json!({"type": kind, "data": data});
    if let Some(reply_to) = &reply_to {
        expected["message_id"] = json!(reply_to.as_str());
    }
    assert_eq!(read, expected);
    let frame = encoder.push(&push, reply_to.as_ref());
    assert_eq!(payload(frame.bytes()), text.as_bytes());
    if reply_to.is_none() {
        assert_eq!(&encoder.shared(&push)[..], frame.bytes());
    }
    let rest = input.text();
    let mut written = Vec::new();
    write_string(&mut written, &rest);
    assert_eq!(serde_json::from_slice::<String>(&written).ok(), Some(rest));
}

fn payload(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0x81, "a whole text message");
    let (size, length) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, frame[2..10].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))),
        length => (2, usize::from(length)),
    };
    assert_eq!(frame.len(), size + length);
    assert!(length > 65_535 || size < 10, "the shortest form of the length");
    &frame[size..]
}

fn push(input: &mut Input<'_>) -> (Push, &'static str, Value) {
    match input.below(12) {
        0..4 => {
            let (message, mut value) = message(input);
            let redelivered = input.flag();
            if redelivered {
                value["redelivered"] = json!(true);
            }
            let kind = if matches!(message.kind, MessageKind::Chat(_)) { "new_message" } else { "notification" };
            (Push::Message { message, redelivered }, kind, value)
        }
        4 => {
            let (name, message, after) =
                (ErrorName::ALL[input.below(ErrorName::ALL.len())], input.text(), input.some(Input::number));
            let mut fault = Fault::new(name, message.clone());
            fault.retry_after_ms = after;
            let told = if message.is_empty() { name.text() } else { &message };
            let mut value = json!({"code": name.code(), "name": name.name(), "message": told, "temporary": name.temporary()});
            if let Some(after) = after {
                value["retry_after_ms"] = json!(after);
            }
            (Push::Error(fault), "error", value)
        }
        5 => ack(input),
        6 => {
            let (group, users, by) = (group(input), input.list(4, user), input.some(user));
            let mut value = json!({"group_id": group.as_str(), "event": "joined", "user_ids": names(&users)});
            if let Some(by) = &by {
                value["by"] = json!(by.as_str());
            }
            (Push::GroupEvent { group, event: GroupEvent::Joined, users, by }, "group_event", value)
        }
        7 => {
            let (retry_after_ms, reason, targets) = (input.number(), input.text(), input.list(3, Input::text));
            let mut value = json!({"retry_after_ms": retry_after_ms, "reason": reason});
            if !targets.is_empty() {
                value["targets"] = json!(targets);
            }
            (Push::Reconnect { retry_after_ms, reason: reason.into(), targets }, "reconnect", value)
        }
        8 => {
            let (conversation, from, to) = (conversation(input), Seq(input.number()), Seq(input.number()));
            let value =
                json!({"conversation_id": conversation.as_str(), "from_seq": from.0, "to_seq": to.0, "reason": "retention"});
            (Push::Skipped { conversation, from, to, reason: SkipReason::Retention }, "messages_skipped", value)
        }
        _ => list(input),
    }
}

fn ack(input: &mut Input<'_>) -> (Push, &'static str, Value) {
    let mut value = json!({"success": true});
    let sent = input.some(|input| SentAck {
        message_id: message_id(input),
        conversation: conversation(input),
        seq: Seq(input.number()),
        created_at: Millis(input.number()),
        duplicate: input.flag(),
    });
    if let Some(sent) = &sent {
        value["message_id"] = json!(sent.message_id.to_string());
        value["conversation_id"] = json!(sent.conversation.as_str());
        value["seq"] = json!(sent.seq.0);
        value["created_at"] = json!(sent.created_at.0);
        value["duplicate"] = json!(sent.duplicate);
    }
    let group = input.some(group);
    if let Some(group) = &group {
        value["group_id"] = json!(group.as_str());
    }
    (Push::Ack(Ack { sent, group }), "ack", value)
}

fn list(input: &mut Input<'_>) -> (Push, &'static str, Value) {
    match input.below(5) {
        0 => {
            let (conversation, has_more) = (conversation(input), input.flag());
            let (messages, values) = messages(input);
            let next = input.some(|input| (input.flag(), input.number()));
            let told = next.map(|(older, seq)| format!("{}{seq}", if older { 'b' } else { 'a' }));
            let next = next.map(|(older, seq)| if older { HistoryNext::Before(Seq(seq)) } else { HistoryNext::After(Seq(seq)) });
            let value = json!({"conversation_id": conversation.as_str(), "messages": values, "has_more": has_more, "next": told});
            (Push::History { conversation, messages, has_more, next }, "history", value)
        }
        1 => {
            let ((messages, values), has_more, next) = (messages(input), input.flag(), input.some(Input::text));
            let value = json!({"messages": values, "has_more": has_more, "next": next});
            (Push::SearchResult { messages, has_more, next }, "search_result", value)
        }
        2 => {
            let users = input.list(4, presence);
            let values: Vec<Value> = users.iter().map(|(_, value)| value.clone()).collect();
            (Push::PresenceUsers(users.into_iter().map(|(entry, _)| entry).collect()), "presence", json!({"users": values}))
        }
        3 => {
            let entries = input.list(4, |input| (conversation(input), input.number(), input.flag()));
            let told = entries
                .iter()
                .map(|(id, unread, mentioned)| json!({"conversation_id": id.as_str(), "unread": unread, "mentioned": mentioned}));
            let (total, told) = (input.number(), told.collect::<Vec<_>>());
            let conversations = entries
                .into_iter()
                .map(|(conversation, unread, mentioned)| UnreadEntry { conversation, unread, mentioned })
                .collect();
            (Push::Unread { total, conversations }, "unread", json!({"total": total, "conversations": told}))
        }
        _ => {
            let (has_more, next) = (input.flag(), input.some(Input::text));
            let rows = input.list(3, summary);
            let values: Vec<Value> = rows.iter().map(|(_, value)| value.clone()).collect();
            let conversations = rows.into_iter().map(|(row, _)| row).collect();
            let value = json!({"conversations": values, "has_more": has_more, "next": next});
            (Push::Conversations { conversations, has_more, next }, "conversations", value)
        }
    }
}

fn summary(input: &mut Input<'_>) -> (ConversationSummary, Value) {
    let (conversation, last, numbers) = (conversation(input), input.some(message), [(); 3].map(|()| input.number()));
    let (last_message, told) = last.unzip();
    let [last_seq, read_seq, unread] = numbers;
    let value = json!({
        "conversation_id": conversation.as_str(), "last_message": told, "last_seq": last_seq, "read_seq": read_seq,
        "unread": unread
    });
    (ConversationSummary { conversation, last_message, last_seq: Seq(last_seq), read_seq: Seq(read_seq), unread }, value)
}

fn presence(input: &mut Input<'_>) -> (PresenceEntry, Value) {
    let (user, online, last_seen, devices) = (user(input), input.flag(), input.some(Input::number), input.byte());
    let status = if online { "online" } else { "offline" };
    let value = json!({"user_id": user.as_str(), "status": status, "last_seen": last_seen, "devices": devices});
    (PresenceEntry { user, online, last_seen: last_seen.map(Millis), devices: u32::from(devices) }, value)
}

fn messages(input: &mut Input<'_>) -> (Vec<SharedMessage>, Vec<Value>) {
    input.list(3, message).into_iter().unzip()
}

fn message(input: &mut Input<'_>) -> (SharedMessage, Value) {
    let (conversation, told_place) = match input.below(3) {
        0 => {
            let (one, other) = (user(input), user(input));
            let told = json!({"sender_id": one.as_str(), "to_user_id": other.as_str()});
            (ConversationId::private(&one, &other), (Some(one), told))
        }
        1 => {
            let (group, sender) = (group(input), user(input));
            let told = json!({"sender_id": sender.as_str(), "group_id": group.as_str()});
            (ConversationId::group(&group), (Some(sender), told))
        }
        _ => (ConversationId::system(&user(input)), (None, json!({}))),
    };
    let (sender, mut value) = told_place;
    let kind = match &sender {
        Some(_) => MessageKind::Chat(MessageType::ALL[input.below(7)]),
        None => MessageKind::Notification(CompactString::new(input.text())),
    };
    match &kind {
        MessageKind::Chat(kind) => value["msg_type"] = json!(kind.name()),
        MessageKind::Notification(kind) => value["kind"] = json!(kind.as_str()),
    }
    let content = input.text();
    let message = Message {
        seq: Seq(input.number()),
        id: message_id(input),
        origin: SessionId(1),
        client_id: if sender.is_some() { input.some(|input| id(input, RequestId::new)).flatten() } else { None },
        content: RawJson::string(&content),
        created_at: Millis(input.number()),
        extra: if sender.is_some() { input.some(|input| extra(input, &mut value)) } else { None },
        conversation,
        sender,
        kind,
    };
    value["message_id"] = json!(message.id.to_string());
    value["conversation_id"] = json!(message.conversation.as_str());
    value["seq"] = json!(message.seq.0);
    value["content"] = json!(content);
    value["created_at"] = json!(message.created_at.0);
    if let Some(client_id) = &message.client_id {
        value["client_message_id"] = json!(client_id.as_str());
    }
    (Arc::new(message), value)
}

fn extra(input: &mut Input<'_>, value: &mut Value) -> Box<MessageExtra> {
    let mentions = input.some(|input| if input.flag() { Mentions::All } else { Mentions::Users(input.list(3, user)) });
    match &mentions {
        Some(Mentions::All) => value["mentions"] = json!("all"),
        Some(Mentions::Users(users)) => value["mentions"] = json!(names(users)),
        None => {}
    }
    let (reply_to, loss_time_ms) = (input.some(message_id), input.some(Input::number));
    if let Some(reply_to) = reply_to {
        value["reply_to"] = json!(reply_to.to_string());
    }
    if let Some(after) = loss_time_ms {
        value["loss_time"] = json!(after);
    }
    let ext = input.some(|input| json!({"e": input.text()}));
    if let Some(ext) = &ext {
        value["ext"] = ext.clone();
    }
    let recalled_by = input.some(user);
    if recalled_by.is_some() {
        value["recalled"] = json!(true);
    }
    let ext = ext.map(|ext| RawJson::from_validated(&ext.to_string()));
    Box::new(MessageExtra { mentions, reply_to, loss_time_ms, ext, recalled_by })
}

/// An identifier, when the text is one.
fn id<T, E>(input: &mut Input<'_>, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
    read(&input.text()).ok()
}

fn user(input: &mut Input<'_>) -> UserId {
    id(input, UserId::new).unwrap_or_else(|| UserId::new("u").expect("a letter is an id"))
}

fn group(input: &mut Input<'_>) -> GroupId {
    id(input, GroupId::new).unwrap_or_else(|| GroupId::new("g").expect("a letter is an id"))
}

fn conversation(input: &mut Input<'_>) -> ConversationId {
    match input.below(3) {
        0 => ConversationId::private(&user(input), &user(input)),
        1 => ConversationId::group(&group(input)),
        _ => ConversationId::system(&user(input)),
    }
}

fn message_id(input: &mut Input<'_>) -> MessageId {
    MessageId(u128::from(input.number()) << 64 | u128::from(input.number()))
}

fn names(users: &[UserId]) -> Vec<&str> {
    users.iter().map(UserId::as_str).collect()
}
