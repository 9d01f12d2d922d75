//! Owns the proof of the encoder: every push against the JSON that PROTOCOL promises, read back by serde_json, and every
//! frame against its header.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{JsonEncoder, write_string};
use crate::types::outcome::Fault;
use crate::types::push::{
    Ack, AuthSuccess, ClientLimits, ConversationSummary, GroupEvent, HistoryNext, PresenceEntry, SentAck, SkipReason, UnreadEntry,
};
use crate::types::record::{Mentions, MessageExtra, MessageType};
use crate::types::{
    CloseCode, ConversationId, DeviceId, Encode, ErrorName, Frame, GroupId, Message, MessageId, MessageKind, Millis, Push,
    RawJson, RequestId, Seq, SessionId, UserId,
};

const ID: &str = "0193e2a4-7d5c-7c3b-8b1a-0123456789ab";

fn id() -> MessageId {
    MessageId::parse(ID).unwrap()
}

fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn group(text: &str) -> GroupId {
    GroupId::new(text).unwrap()
}

fn conversation(text: &str) -> ConversationId {
    ConversationId::parse(text).unwrap()
}

fn message(of: &str, sender: Option<&str>) -> Message {
    Message {
        conversation: conversation(of),
        seq: Seq(7),
        id: id(),
        sender: sender.map(user),
        origin: SessionId(1),
        client_id: None,
        kind: MessageKind::Chat(MessageType::Text),
        content: RawJson::from_validated(r#""hi \u00e4""#),
        created_at: Millis(1_734_567_890_123),
        extra: None,
    }
}

/// Payload of a text frame, its header checked.
fn payload(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0x81);
    let (size, length) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    assert_eq!(frame.len(), size + length);
    &frame[size..]
}

/// The envelope of a push, and the same from `shared`.
fn said(push: Push) -> Value {
    let encoder = JsonEncoder::new();
    let frame = encoder.push(&push, None);
    assert_eq!(frame.bytes(), &encoder.shared(&push)[..]);
    assert_eq!(payload(frame.bytes()), encoder.text(&push, None).as_bytes());
    serde_json::from_slice(payload(frame.bytes())).unwrap()
}

fn check(push: Push, kind: &str, data: Value) {
    assert_eq!(said(push), json!({"type": kind, "data": data}));
}

#[test]
fn replies_echo_the_request_and_pushes_do_not() {
    let request = RequestId::new("q\"1").unwrap();
    let frame = JsonEncoder::new().push(&Push::Pong { server_time: Millis(5) }, Some(&request));
    assert_eq!(payload(frame.bytes()), br#"{"type":"pong","message_id":"q\"1","data":{"server_time":5}}"#);
    check(Push::SyncDone, "sync_done", json!({}));
}

#[test]
fn private_messages_name_the_peer_of_the_sender() {
    let of = |conversation: &str, sender: &str| {
        said(Push::Message { message: Arc::new(message(conversation, Some(sender))), redelivered: false })["data"]["to_user_id"]
            .clone()
    };
    assert_eq!(of("p:alice:bob", "alice"), "bob");
    assert_eq!(of("p:alice:bob", "bob"), "alice");
    assert_eq!(of("p:bob:bob", "bob"), "bob");
    assert_eq!(of("p:a%3Ab:c%25", "a:b"), "c%");
    assert_eq!(of("p:a%3Ab:c%25", "c%"), "a:b");
}

#[test]
fn messages_carry_what_they_have() {
    let expected = json!({
        "message_id": ID, "conversation_id": "g:x%3Ay", "seq": 7, "sender_id": "alice", "group_id": "x:y", "msg_type": "text",
        "content": "hi \u{e4}", "created_at": 1_734_567_890_123u64,
    });
    check(Push::Message { message: Arc::new(message("g:x%3Ay", Some("alice"))), redelivered: false }, "new_message", expected);

    let mut full = message("g:g", Some("al\"ice"));
    full.kind = MessageKind::Chat(MessageType::Location);
    full.content = RawJson::from_validated(r#"{ "x" : 1.50 }"#);
    full.client_id = Some(RequestId::new("c1").unwrap());
    full.extra = Some(Box::new(MessageExtra {
        mentions: Some(Mentions::Users(vec![user("a"), user("b\\")])),
        reply_to: Some(id()),
        loss_time_ms: Some(5),
        ext: Some(RawJson::from_validated(r#"{"k":[]}"#)),
        recalled_by: None,
    }));
    let expected = json!({
        "message_id": ID, "conversation_id": "g:g", "seq": 7, "sender_id": "al\"ice", "group_id": "g", "msg_type": "location",
        "content": {"x": 1.5}, "mentions": ["a", "b\\"], "reply_to": ID, "loss_time": 5, "ext": {"k": []},
        "created_at": 1_734_567_890_123u64, "client_message_id": "c1", "redelivered": true,
    });
    let push = Push::Message { message: Arc::new(full.clone()), redelivered: true };
    assert!(JsonEncoder::new().text(&push, None).contains(r#""content":{ "x" : 1.50 },"#), "content is sent as it came");
    check(push, "new_message", expected);

    let recalled = said(Push::Message { message: Arc::new(full.recalled(&user("a"))), redelivered: false });
    assert_eq!((&recalled["data"]["recalled"], &recalled["data"]["content"]), (&json!(true), &json!("")));
    full.extra.as_mut().unwrap().mentions = Some(Mentions::All);
    assert_eq!(said(Push::Message { message: Arc::new(full), redelivered: false })["data"]["mentions"], "all");
}

#[test]
fn notifications_have_a_kind() {
    let mut entry = message("s:alice", None);
    entry.kind = MessageKind::Notification("friend_request".into());
    let expected = json!({
        "message_id": ID, "conversation_id": "s:alice", "seq": 7, "kind": "friend_request", "content": "hi \u{e4}",
        "created_at": 1_734_567_890_123u64,
    });
    check(Push::Message { message: Arc::new(entry), redelivered: false }, "notification", expected);
}

#[test]
fn authentication_and_acks() {
    let success = AuthSuccess {
        user: user("a"),
        device: DeviceId::unnamed(),
        session: SessionId(255),
        node: "n1".into(),
        server_time: Millis(9),
        heartbeat_ms: 54_000,
        token_expires_at: None,
        limits: ClientLimits { message_bytes: 1, content_bytes: 2, messages_per_second: 0 },
    };
    let expected = json!({
        "user_id": "a", "device_id": "default", "session_id": "00000000000000ff", "node_id": "n1", "server_time": 9,
        "heartbeat_ms": 54_000, "token_expires_at": null,
        "limits": {"message_bytes": 1, "content_bytes": 2, "messages_per_second": 0},
    });
    check(Push::AuthSuccess(Box::new(success.clone())), "auth_success", expected);
    let later = said(Push::AuthSuccess(Box::new(AuthSuccess { token_expires_at: Some(Millis(77)), ..success })));
    assert_eq!(later["data"]["token_expires_at"], 77);

    let fault = Fault::new(ErrorName::TokenExpired, "");
    let expected = json!({"code": 401, "name": "TOKEN_EXPIRED", "message": "the token has expired"});
    check(Push::AuthFailed(fault), "auth_failed", expected);

    let sent =
        SentAck { message_id: id(), conversation: conversation("p:a:b"), seq: Seq(3), created_at: Millis(4), duplicate: false };
    let expected =
        json!({"success": true, "message_id": ID, "conversation_id": "p:a:b", "seq": 3, "created_at": 4, "duplicate": false});
    check(Push::Ack(Ack { sent: Some(sent), group: None }), "ack", expected);
    check(Push::Ack(Ack::default()), "ack", json!({"success": true}));
    check(Push::Ack(Ack { sent: None, group: Some(group("g")) }), "ack", json!({"success": true, "group_id": "g"}));
}

#[test]
fn errors_say_whether_to_retry() {
    let fault = Fault::retry(ErrorName::RateLimited, "slow \"down\"", 250);
    let expected =
        json!({"code": 429, "name": "RATE_LIMITED", "message": "slow \"down\"", "temporary": true, "retry_after_ms": 250});
    check(Push::Error(fault), "error", expected);
    let expected = json!({"code": 400, "name": "BAD_JSON", "message": "no", "temporary": false});
    check(Push::Error(Fault::new(ErrorName::BadJson, "no")), "error", expected);
}

#[test]
fn small_pushes() {
    let of = conversation("p:a:b");
    let receipt = Push::ReadReceipt { conversation: of.clone(), user: user("a"), read_seq: Seq(3) };
    check(receipt, "read_receipt", json!({"conversation_id": "p:a:b", "user_id": "a", "read_seq": 3}));
    let typing = Push::Typing { conversation: of.clone(), user: user("a"), active: false };
    check(typing, "typing", json!({"conversation_id": "p:a:b", "user_id": "a", "state": "stop"}));
    let recalled = Push::Recalled { conversation: of.clone(), message_id: id(), seq: Seq(2), by: user("a") };
    check(recalled, "message_recalled", json!({"conversation_id": "p:a:b", "message_id": ID, "seq": 2, "by": "a"}));
    let skipped = Push::Skipped { conversation: of, from: Seq(1), to: Seq(2), reason: SkipReason::NotAMember };
    let expected = json!({"conversation_id": "p:a:b", "from_seq": 1, "to_seq": 2, "reason": "not_a_member"});
    check(skipped, "messages_skipped", expected);
    let event = Push::GroupEvent { group: group("g"), event: GroupEvent::Joined, users: vec![user("a"), user("b")], by: None };
    check(event, "group_event", json!({"group_id": "g", "event": "joined", "user_ids": ["a", "b"]}));
    let event = Push::GroupEvent { group: group("g"), event: GroupEvent::Removed, users: vec![], by: Some(user("o")) };
    check(event, "group_event", json!({"group_id": "g", "event": "removed", "user_ids": [], "by": "o"}));
    let reconnect = Push::Reconnect { retry_after_ms: 5, reason: "shutdown".into(), targets: vec![] };
    check(reconnect, "reconnect", json!({"retry_after_ms": 5, "reason": "shutdown"}));
    let reconnect = Push::Reconnect { retry_after_ms: 5, reason: "shutdown".into(), targets: vec!["ws://h/ws".to_owned()] };
    check(reconnect, "reconnect", json!({"retry_after_ms": 5, "reason": "shutdown", "targets": ["ws://h/ws"]}));
}

#[test]
fn lists() {
    let entry = PresenceEntry { user: user("a"), online: false, last_seen: Some(Millis(5)), devices: 0 };
    let shown = json!({"user_id": "a", "status": "offline", "last_seen": 5, "devices": 0});
    check(Push::PresenceUsers(vec![entry.clone(), entry.clone()]), "presence", json!({"users": [shown, shown]}));
    let online = PresenceEntry { online: true, last_seen: None, devices: 2, ..entry };
    let shown = json!({"user_id": "a", "status": "online", "last_seen": null, "devices": 2});
    let push = Push::PresenceGroup { group: group("g"), online: 900, users: vec![online] };
    check(push, "presence", json!({"group_id": "g", "online": 900, "users": [shown]}));

    let one = Arc::new(message("g:g", Some("a")));
    let shown = said(Push::Message { message: one.clone(), redelivered: false })["data"].clone();
    for (next, spelt) in
        [(None, json!(null)), (Some(HistoryNext::Before(Seq(4))), json!("b4")), (Some(HistoryNext::After(Seq(9))), json!("a9"))]
    {
        let push =
            Push::History { conversation: conversation("g:g"), messages: vec![one.clone(); 2], has_more: next.is_some(), next };
        let expected = json!({"conversation_id": "g:g", "messages": [shown, shown], "has_more": next.is_some(), "next": spelt});
        check(push, "history", expected);
    }
    let push = Push::SearchResult { messages: vec![one.clone()], has_more: true, next: Some("n".to_owned()) };
    check(push, "search_result", json!({"messages": [shown], "has_more": true, "next": "n"}));
    let row = |last_message| ConversationSummary {
        conversation: conversation("g:g"),
        last_message,
        last_seq: Seq(7),
        read_seq: Seq(5),
        unread: 2,
    };
    let push = Push::Conversations { conversations: vec![row(Some(one)), row(None)], has_more: false, next: None };
    let first = json!({"conversation_id": "g:g", "last_message": shown, "last_seq": 7, "read_seq": 5, "unread": 2});
    let second = json!({"conversation_id": "g:g", "last_message": null, "last_seq": 7, "read_seq": 5, "unread": 2});
    check(push, "conversations", json!({"conversations": [first, second], "has_more": false, "next": null}));
    let row = UnreadEntry { conversation: conversation("g:g"), unread: 2, mentioned: true };
    let expected = json!({"total": 2, "conversations": [{"conversation_id": "g:g", "unread": 2, "mentioned": true}]});
    check(Push::Unread { total: 2, conversations: vec![row] }, "unread", expected);
}

#[test]
fn a_history_page_leads_to_the_request_that_continues_it() {
    let push = Push::History {
        conversation: conversation("g:g"),
        messages: vec![],
        has_more: true,
        next: Some(HistoryNext::Before(Seq(u64::from(u32::MAX)))),
    };
    let next = said(push)["data"]["next"].clone();
    let request = json!({"type": "get_history", "data": {"group_id": "g", "cursor": next}}).to_string();
    let request = super::decode(request.as_bytes(), &mut super::Scratch::new()).unwrap();
    assert!(
        matches!(request.command, crate::types::Command::GetHistory(query) if query.before == Some(Seq(u64::from(u32::MAX))))
    );
}

#[test]
fn any_text_is_escaped_so_that_it_reads_back() {
    let all: String = (0..0x250u32).filter_map(char::from_u32).chain(['\u{2028}', '\u{fffd}', '\u{1f600}']).collect();
    for text in [all.as_str(), "", "\"", "plain", "\n", "x\u{0}y"] {
        let mut out = Vec::new();
        write_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
    for seed in 0..if cfg!(miri) { 40 } else { 2_000 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let text: String = (0..random.usize(0..40)).map(|_| random.char(..)).collect();
        let mut out = Vec::new();
        write_string(&mut out, &text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text, "seed {seed}");
    }
}

#[test]
fn frames_of_every_size_have_the_right_header() {
    let encoder = JsonEncoder::new();
    let base = encoder.text(&Push::Error(Fault::new(ErrorName::Internal, "x")), None).len() - 1;
    for size in [base + 1, 125, 126, 127, 65_535, 65_536, 300_000, 126] {
        let push = Push::Error(Fault::new(ErrorName::Internal, "x".repeat(size - base)));
        assert_eq!(payload(encoder.push(&push, None).bytes()).len(), size);
    }
}

#[test]
fn control_and_raw_frames() {
    let encoder = JsonEncoder::new();
    let bytes = |frame: Frame| frame.bytes().to_vec();
    assert_eq!(bytes(encoder.ping()), [0x89, 0]);
    assert_eq!(bytes(encoder.pong(b"abc")), b"\x8a\x03abc");
    assert_eq!(bytes(encoder.pong(&[1; 125])).len(), 127);
    assert_eq!(bytes(encoder.close(CloseCode::Kicked, "kicked")), b"\x88\x08\x0f\xabkicked");
    assert_eq!(bytes(encoder.close(CloseCode::Kicked, &"x".repeat(500))).len(), 127);
    assert_eq!(bytes(encoder.raw(true, b"t")), b"\x81\x01t");
    assert_eq!(bytes(encoder.raw(false, &[0; 200]))[..4], [0x82, 126, 0, 200]);
}
