//! Owns the proof of the decoder: every verb, every bad envelope, and random damage judged by serde_json.

use serde_json::Value;

use super::{Scratch, decode};
use crate::types::command::{Auth, ConversationRef, HistoryQuery, NewGroup, PresenceTarget, ReadUpTo, Target, Wishes};
use crate::types::record::{Mentions, MessageType};
use crate::types::{Command, ConversationId, DeviceId, ErrorName, GroupId, MessageId, Millis, RequestId, Seq, UserId};

fn ok(text: &str) -> Command {
    decode(text.as_bytes(), &mut Scratch::new()).unwrap_or_else(|fault| panic!("{text}: {fault}")).command
}

/// Error name and `message_id` that a text is refused with.
fn refused(text: &str) -> (ErrorName, Option<String>) {
    let fault = decode(text.as_bytes(), &mut Scratch::new()).expect_err(text);
    (fault.fault.name, fault.request.map(|id| id.as_str().to_owned()))
}

fn assert_bad(text: &str) {
    assert_eq!(refused(text).0, ErrorName::BadRequest, "{text}");
}

/// An envelope of `kind` with request id `r`.
fn envelope(kind: &str, data: &str) -> String {
    format!(r#"{{"type":"{kind}","message_id":"r","timestamp":1734567890123,"data":{data}}}"#)
}

fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn group(text: &str) -> GroupId {
    GroupId::new(text).unwrap()
}

const ID: &str = "0193e2a4-7d5c-7c3b-8b1a-0123456789ab";

#[test]
fn a_send_is_read_whole() {
    let content = r#"{ "body" : "a\u0041\"}{[" , "n":123456789012345678901234567890, "deep":[{"x":[]}] }"#;
    let data = format!(
        r#"{{"ext":{{"k":[1,2]}} , "to_user_id":"bob","msg_type":"custom","content" : {content} ,{rest}}}"#,
        rest = format_args!(r#""mentions":["a","b"],"reply_to":"{ID}","loss_time":5000"#),
    );
    let request = decode(envelope("send_message", &data).as_bytes(), &mut Scratch::new()).unwrap();
    assert_eq!(request.id, Some(RequestId::new("r").unwrap()));
    let Command::Send(draft) = request.command else { panic!("not a send") };
    assert_eq!(draft.target, Target::User(user("bob")));
    assert_eq!(draft.kind, MessageType::Custom);
    assert_eq!(draft.content.as_str(), content);
    assert_eq!(draft.content_bytes as usize, content.len());
    assert_eq!(draft.mentions, Some(Mentions::Users(vec![user("a"), user("b")])));
    assert_eq!(draft.reply_to, MessageId::parse(ID));
    assert_eq!(draft.loss_time_ms, Some(5000));
    assert_eq!(draft.ext.unwrap().as_str(), r#"{"k":[1,2]}"#);
}

#[test]
fn string_content_is_kept_as_sent_and_counted_unescaped() {
    let strings = [
        (r#""""#, 0),
        (r#""hello""#, 5),
        (r#""a\u0000b""#, 3),
        (r#""\"\\\/\b\f\n\r\t""#, 8),
        (r#""\ud83d\ude00 \u00e4""#, 7),
        ("\"\u{e4}, } ] : \u{1f600}\"", 14),
    ];
    for (raw, bytes) in strings {
        let Command::Send(draft) = ok(&envelope("send_message", &format!(r#"{{"group_id":"g","content":{raw}}}"#))) else {
            panic!("not a send")
        };
        assert_eq!((draft.content.as_str(), draft.content_bytes), (raw, bytes));
        assert_eq!(draft.target, Target::Group(group("g")));
        assert_eq!((draft.kind, draft.mentions, draft.loss_time_ms), (MessageType::Text, None, None));
    }
}

#[test]
fn content_is_found_under_an_escaped_key_and_among_lookalikes() {
    let text =
        r#"{"x":"\"content\":\"no\"","data":{"a":{"content":"no"},"to_user_id":"u","cont\u0065nt":"yes"},"type":"send_message"}"#;
    let Command::Send(draft) = ok(text) else { panic!("not a send") };
    assert_eq!(draft.content.as_str(), r#""yes""#);
}

#[test]
fn message_types_are_names_or_numbers() {
    let kind = |kind: &str| format!(r#"{{"to_user_id":"u","content":"","msg_type":{kind}}}"#);
    for (number, expected) in MessageType::ALL.into_iter().enumerate() {
        for spelling in [format!("{}", number + 1), format!("{:?}", expected.name())] {
            let Command::Send(draft) = ok(&envelope("send_message", &kind(&spelling))) else { panic!("not a send") };
            assert_eq!(draft.kind, expected);
        }
    }
    for bad in ["0", "8", "-1", "1.5", "\"TEXT\"", "\"\"", "[]", "true"] {
        assert_bad(&envelope("send_message", &kind(bad)));
    }
    for server in ["\"system\"", "\"notification\""] {
        assert_eq!(refused(&envelope("send_message", &kind(server))), (ErrorName::Forbidden, Some("r".to_owned())));
    }
}

#[test]
fn bad_sends_are_refused() {
    let ids = |count: usize| format!("[{}]", vec!["\"u\""; count].join(","));
    let members: Vec<String> = (0..10_000).map(|at| format!("\"k{at}\":1")).collect();
    let cases = [
        r#"{"content":"x"}"#.to_owned(),
        r#"{"to_user_id":"u","group_id":"g","content":"x"}"#.to_owned(),
        r#"{"to_user_id":"u"}"#.to_owned(),
        r#"{"to_user_id":"u","content":null}"#.to_owned(),
        r#"{"to_user_id":"u","content":7}"#.to_owned(),
        r#"{"to_user_id":"u","content":["x"]}"#.to_owned(),
        r#"{"to_user_id":"","content":"x"}"#.to_owned(),
        r#"{"to_user_id":7,"content":"x"}"#.to_owned(),
        r#"{"to_user_id":"a\u0000b","content":"x"}"#.to_owned(),
        format!(r#"{{"to_user_id":"{}","content":"x"}}"#, "u".repeat(129)),
        r#"{"to_user_id":"u","to_user_id":"v","content":"x"}"#.to_owned(),
        r#"{"to_user_id":"u","to_user_i\u0064":"u","content":"x"}"#.to_owned(),
        r#"{"to_user_id":"u","content":"x","ext":"text"}"#.to_owned(),
        format!(r#"{{"to_user_id":"u","content":"x","ext":{{{}}}}}"#, members.join(",")),
        r#"{"to_user_id":"u","content":"x","mentions":"bob"}"#.to_owned(),
        r#"{"to_user_id":"u","content":"x","mentions":[7]}"#.to_owned(),
        format!(r#"{{"to_user_id":"u","content":"x","mentions":{}}}"#, ids(1_001)),
        r#"{"to_user_id":"u","content":"x","reply_to":"7"}"#.to_owned(),
        r#"{"to_user_id":"u","content":"x","loss_time":-1}"#.to_owned(),
        "7".to_owned(),
        "[]".to_owned(),
    ];
    for data in cases {
        assert_eq!(refused(&envelope("send_message", &data)), (ErrorName::BadRequest, Some("r".to_owned())), "{data:.200}");
    }
    assert_bad(r#"{"type":"send_message"}"#);
    assert_bad(&envelope("send_group_message", r#"{"to_user_id":"u","content":"x"}"#));
    ok(&envelope("send_group_message", r#"{"group_id":"g","content":"x"}"#));
    ok(&envelope("send_message", &format!(r#"{{"to_user_id":"u","content":"x","mentions":{}}}"#, ids(1_000))));
    let Command::Send(draft) =
        ok(&envelope("send_message", r#"{"to_user_id":"u","content":"x","mentions":"all","loss_time":0,"ext":null}"#))
    else {
        panic!("not a send")
    };
    assert_eq!((draft.mentions, draft.loss_time_ms, draft.ext), (Some(Mentions::All), None, None));
}

#[test]
fn texts_that_are_no_envelope_are_refused() {
    for text in
        ["", " ", "{", "{\"type\":\"ping\"", "{\"type\":\"ping\"}x", "{\"type\":\"ping\"}{}", "{'type':'ping'}", "\u{feff}{}"]
    {
        assert_eq!(refused(text), (ErrorName::BadJson, None), "{text:?}");
    }
    for text in ["null", "7", "[]", "\"x\"", "true", "{}"] {
        assert_bad(text);
    }
    assert_eq!(refused(r#"{"type":"ping","x":"\ud800"}"#).0, ErrorName::BadJson);
    assert_eq!(refused(r#"{"type":"ping","x":"\udc00\ud800"}"#).0, ErrorName::BadJson);
    assert_eq!(decode(b"{\"type\":\"p\xffng\"}", &mut Scratch::new()).unwrap_err().fault.name, ErrorName::BadJson);
}

#[test]
fn nesting_is_bounded_the_envelope_counted() {
    let nested = |depth: usize| format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(ok(&nested(63)), Command::Ping);
    assert_eq!(refused(&nested(64)).0, ErrorName::BadJson);
    assert_eq!(refused(&nested(100_000)).0, ErrorName::BadJson);
    assert_eq!(refused(&"[".repeat(100_000)).0, ErrorName::BadJson);
    assert_eq!(refused(&"{\"a\":".repeat(100_000)).0, ErrorName::BadJson);
}

#[test]
fn types_and_request_ids_are_judged() {
    assert_bad(r#"{"data":{}}"#);
    assert_bad(r#"{"type":7}"#);
    assert_bad(r#"{"type":"ping","type":"ping"}"#);
    assert_eq!(refused(r#"{"type":"ping","message_id":"m","type":"auth"}"#), (ErrorName::BadRequest, Some("m".to_owned())));
    assert_eq!(refused(r#"{"type":"fly","message_id":"m"}"#), (ErrorName::UnknownMessageType, Some("m".to_owned())));
    let long = decode(format!(r#"{{"type":"{}"}}"#, "\u{e4}".repeat(500_000)).as_bytes(), &mut Scratch::new()).unwrap_err();
    assert_eq!(long.fault.name, ErrorName::UnknownMessageType);
    assert!(long.fault.message.len() < 160 && long.fault.message.contains(&"\u{e4}".repeat(64)));
    for id in ["\"\"", "7", "{}", "true", "\"a\\u0007\"", &format!("\"{}\"", "i".repeat(129))] {
        assert_eq!(refused(&format!(r#"{{"type":"ping","message_id":{id}}}"#)), (ErrorName::BadRequest, None), "{id}");
    }
    for timestamp in ["-5", "253402300799000", "\"soon\"", "null", "1e10", "[]"] {
        assert_eq!(ok(&format!(r#"{{"type":"ping","timestamp":{timestamp}}}"#)), Command::Ping);
    }
    assert_eq!(ok(r#"{"unknown":{"a":[1]},"type":"ping","unknown":2,"message_id":null}"#), Command::Ping);
}

#[test]
fn positions_are_integers_from_1_to_2_63() {
    let ack = |seq: &str| envelope("recv_ack", &format!(r#"{{"conversation_id":"g:x","seq":{seq}}}"#));
    for (spelling, seq) in [("1", 1), ("9223372036854775808", 1 << 63)] {
        assert_eq!(ok(&ack(spelling)), Command::RecvAck(vec![(ConversationId::parse("g:x").unwrap(), Seq(seq))]));
    }
    for bad in
        ["0", "-1", "1.5", "1e400", "-1e400", "NaN", "18446744073709551616", "9223372036854775809", "\"7\"", "null", "[]", "-0"]
    {
        assert_bad(&ack(bad));
    }
    for bad in ["p:b:a", "x:1", "g:", "g:a:b", ""] {
        assert_bad(&envelope("recv_ack", &format!(r#"{{"conversation_id":"{bad}","seq":1}}"#)));
    }
}

#[test]
fn receipts_come_alone_or_in_lists() {
    let list = ok(&envelope("recv_ack", r#"{"acks":[{"conversation_id":"g:a","seq":1},{"seq":2,"conversation_id":"s:u"}]}"#));
    let expected = vec![(ConversationId::parse("g:a").unwrap(), Seq(1)), (ConversationId::parse("s:u").unwrap(), Seq(2))];
    assert_eq!(list, Command::RecvAck(expected));
    assert_bad(&envelope("recv_ack", r#"{"acks":[{"conversation_id":"g:a","seq":1,"seq":2}]}"#));
    assert_bad(&envelope("recv_ack", r#"{"acks":[7]}"#));
    assert_bad(&envelope("recv_ack", r#"{"acks":[],"seq":1}"#));
    assert_bad(&envelope("recv_ack", "{}"));
    let many = |count: usize| format!(r#"{{"acks":[{}]}}"#, vec![r#"{"conversation_id":"g:a","seq":1}"#; count].join(","));
    ok(&envelope("recv_ack", &many(1_000)));
    assert_bad(&envelope("recv_ack", &many(1_001)));
}

#[test]
fn identity_verbs_are_read() {
    let wishes = Wishes { device: Some(DeviceId::new("phone").unwrap()), acks: true, presence: false };
    let auth = ok(&envelope("auth", r#"{"token":"t.t.t","device_id":"phone","acks":true}"#));
    assert!(matches!(auth, Command::Auth(Auth { token, wishes: found }) if token.0 == "t.t.t" && found == wishes));
    assert!(matches!(ok(&envelope("refresh", r#"{"token":"t"}"#)), Command::Refresh { token } if token.0 == "t"));
    for bad in
        ["{}", r#"{"token":7}"#, r#"{"token":"a","token":"b"}"#, r#"{"token":"a","acks":1}"#, r#"{"token":"a","device_id":""}"#]
    {
        assert_bad(&envelope("auth", bad));
    }
    assert_bad(r#"{"type":"refresh"}"#);
}

#[test]
fn group_verbs_are_read() {
    assert_eq!(ok(&envelope("join_group", r#"{"group_id":"g"}"#)), Command::JoinGroup(group("g")));
    assert_eq!(ok(&envelope("leave_group", r#"{"group_id":"g"}"#)), Command::LeaveGroup(group("g")));
    let made = NewGroup { group: None, name: String::new(), members: vec![], open: true };
    assert_eq!(ok(r#"{"type":"create_group"}"#), Command::CreateGroup(made));
    let made = NewGroup { group: Some(group("g")), name: "G".to_owned(), members: vec![user("a")], open: false };
    let text = envelope("create_group", r#"{"group_id":"g","name":"G","members":["a"],"open":false}"#);
    assert_eq!(ok(&text), Command::CreateGroup(made));
    let data = r#"{"group_id":"g","user_ids":["a"]}"#;
    assert_eq!(ok(&envelope("invite_to_group", data)), Command::Invite { group: group("g"), users: vec![user("a")] });
    assert_eq!(ok(&envelope("remove_from_group", data)), Command::Remove { group: group("g"), users: vec![user("a")] });
    let many = format!(r#"{{"members":[{0}],"user_ids":[{0}],"group_id":"g"}}"#, vec!["\"u\""; 10_001].join(","));
    for verb in ["create_group", "invite_to_group", "remove_from_group"] {
        assert_bad(&envelope(verb, &many));
    }
    for verb in ["join_group", "leave_group", "invite_to_group", "remove_from_group"] {
        assert_bad(&envelope(verb, "{}"));
        assert_bad(&envelope(verb, r#"{"group_id":"a\u0000"}"#));
    }
    assert_bad(&envelope("create_group", &format!(r#"{{"name":"{}"}}"#, "n".repeat(257))));
}

#[test]
fn conversation_verbs_are_read() {
    let read = ok(&envelope("mark_read", r#"{"user_id":"u","seq":7}"#));
    assert_eq!(read, Command::MarkRead { conversation: ConversationRef::User(user("u")), upto: ReadUpTo::Seq(Seq(7)) });
    let read = ok(&envelope("mark_read", &format!(r#"{{"group_id":"g","message_id":"{ID}"}}"#)));
    let upto = ReadUpTo::Message(MessageId::parse(ID).unwrap());
    assert_eq!(read, Command::MarkRead { conversation: ConversationRef::Group(group("g")), upto });
    for bad in [r#"{"seq":7}"#, r#"{"user_id":"u"}"#, r#"{"user_id":"u","group_id":"g","seq":7}"#, r#"{"user_id":"u","seq":0}"#] {
        assert_bad(&envelope("mark_read", bad));
    }
    assert_bad(&envelope("mark_read", &format!(r#"{{"user_id":"u","seq":7,"message_id":"{ID}"}}"#)));
    let typing = ok(&envelope("typing", r#"{"to_user_id":"u","state":"start"}"#));
    assert_eq!(typing, Command::Typing { target: Target::User(user("u")), active: true });
    for bad in [r#"{"to_user_id":"u"}"#, r#"{"to_user_id":"u","state":"go"}"#, r#"{"state":"stop"}"#] {
        assert_bad(&envelope("typing", bad));
    }
    assert_eq!(
        ok(&envelope("recall_message", &format!(r#"{{"message_id":"{ID}"}}"#))),
        Command::Recall(MessageId::parse(ID).unwrap())
    );
    assert_eq!(
        ok(&envelope("delete_message", &format!(r#"{{"message_id":"{ID}"}}"#))),
        Command::Delete(MessageId::parse(ID).unwrap())
    );
    assert_bad(&envelope("recall_message", r#"{"message_id":"x"}"#));
    assert_bad(&envelope("delete_message", "{}"));
    assert_eq!(ok(r#"{"type":"get_unread"}"#), Command::GetUnread);
}

#[test]
fn history_is_bounded_and_continued() {
    let query = |data: &str| match ok(&envelope("get_history", data)) {
        Command::GetHistory(query) => query,
        other => panic!("{other:?}"),
    };
    let expected = HistoryQuery {
        conversation: ConversationRef::Id(ConversationId::parse("p:a:b").unwrap()),
        before: Some(Seq(9)),
        after: Some(Seq(0)),
        since: Some(Millis(5)),
        until: Some(Millis(6)),
        limit: 3,
    };
    let data = r#"{"conversation_id":"p:a:b","before_seq":9,"after_seq":0,"since":5,"until":6,"limit":3}"#;
    assert_eq!(query(data), expected);
    assert!(matches!(ok(&envelope("get_group_history", r#"{"group_id":"g"}"#)), Command::GetHistory(_)));
    for (limit, found) in [("null", 50), ("1", 1), ("200", 200), ("201", 200), ("1000000000", 200), ("1e9", 200), ("1e300", 200)]
    {
        assert_eq!(query(&format!(r#"{{"user_id":"u","limit":{limit}}}"#)).limit, found, "{limit}");
    }
    for bad in [
        r#""limit":0"#,
        r#""limit":-1"#,
        r#""limit":1.5"#,
        r#""limit":"5""#,
        r#""before_seq":0"#,
        r#""since":-1"#,
        r#""cursor":"7""#,
    ] {
        assert_bad(&envelope("get_history", &format!(r#"{{"user_id":"u",{bad}}}"#)));
    }
    assert_bad(&envelope("get_history", "{}"));
    let bounds = |data: &str| {
        let query = query(&format!(r#"{{"user_id":"u",{data}}}"#));
        (query.before, query.after)
    };
    assert_eq!(bounds(r#""cursor":"b40""#), (Some(Seq(40)), None));
    assert_eq!(bounds(r#""before_seq":90,"cursor":"b40""#), (Some(Seq(40)), None));
    assert_eq!(bounds(r#""after_seq":3,"before_seq":90,"cursor":"a40""#), (Some(Seq(90)), Some(Seq(40))));
    for bad in
        [r#""after_seq":3,"cursor":"b4""#, r#""cursor":"c4""#, r#""cursor":"b""#, r#""cursor":"b-4""#, r#""cursor":"\u00e4""#]
    {
        assert_bad(&envelope("get_history", &format!(r#"{{"user_id":"u",{bad}}}"#)));
    }
}

#[test]
fn list_verbs_are_read() {
    let list = ok(&envelope("get_conversations", r#"{"limit":7,"cursor":"c"}"#));
    assert_eq!(list, Command::GetConversations { limit: 7, cursor: Some("c".to_owned()) });
    assert_eq!(ok(r#"{"type":"get_conversations"}"#), Command::GetConversations { limit: 50, cursor: None });
    let Command::Sync { cursors } = ok(&envelope("sync", r#"{"cursors":{"g:a":0,"p:a:b":7,"g:a":4}}"#)) else {
        panic!("not a sync")
    };
    let expected = [(ConversationId::parse("g:a").unwrap(), Seq(0)), (ConversationId::parse("p:a:b").unwrap(), Seq(7))];
    assert_eq!(cursors.into_iter().collect::<Vec<_>>(), expected);
    assert!(matches!(ok(r#"{"type":"sync"}"#), Command::Sync { cursors } if cursors.is_empty()));
    assert_bad(&envelope("sync", r#"{"cursors":{"x":1}}"#));
    assert_bad(&envelope("sync", r#"{"cursors":{"g:a":-1}}"#));
    let many = |count: usize| {
        let cursors: Vec<String> = (0..count).map(|at| format!("\"g:{at}\":1")).collect();
        format!(r#"{{"cursors":{{{}}}}}"#, cursors.join(","))
    };
    ok(&envelope("sync", &many(10_000)));
    assert_bad(&envelope("sync", &many(10_001)));
    let users = PresenceTarget::Users(vec![user("a")]);
    assert_eq!(ok(&envelope("get_presence", r#"{"user_ids":["a"]}"#)), Command::GetPresence(users.clone()));
    assert_eq!(ok(&envelope("subscribe_presence", r#"{"user_ids":["a"]}"#)), Command::SubscribePresence(users));
    let target = PresenceTarget::Group(group("g"));
    assert_eq!(ok(&envelope("unsubscribe_presence", r#"{"group_id":"g"}"#)), Command::UnsubscribePresence(target));
    for bad in ["{}", r#"{"user_ids":["a"],"group_id":"g"}"#, r#"{"user_ids":"a"}"#] {
        assert_bad(&envelope("get_presence", bad));
    }
}

#[test]
fn searches_are_bounded() {
    let Command::Search { query, conversation, limit, cursor } = ok(&envelope("search", r#"{"query":"a \"b\"","user_id":"u"}"#))
    else {
        panic!("not a search")
    };
    assert_eq!((query.as_str(), conversation, limit, cursor), ("a \"b\"", Some(ConversationRef::User(user("u"))), 50, None));
    let search = |query: &str| envelope("search", &format!(r#"{{"query":"{query}"}}"#));
    ok(&search(&"x".repeat(1_024)));
    ok(&search(&"x ".repeat(32)));
    for bad in ["", "   ", &"x".repeat(1_025), &"x ".repeat(33)] {
        assert_bad(&search(bad));
    }
    assert_bad(&envelope("search", "{}"));
}

#[test]
fn random_damage_never_passes_what_serde_json_refuses() {
    let seeds = [
        envelope("send_message", r#"{"to_user_id":"bob","content":{"a":[1,2.5e3,-0,true,null],"b":"\u00e4\n"},"ext":{}}"#),
        envelope(
            "send_message",
            r#"{"group_id":"g","content":"hello \ud83d\ude00","mentions":["a"],"loss_time":12345678901234567890}"#,
        ),
        envelope("recv_ack", r#"{"acks":[{"conversation_id":"g:a","seq":1}]}"#),
        envelope("sync", r#"{"cursors":{"g:a":0,"p:a:b":7}}"#),
        envelope("get_history", r#"{"user_id":"u","before_seq":18446744073709551615,"limit":1e2}"#),
    ];
    let mut scratch = Scratch::new();
    let (mut accepted, mut refused) = (0, 0);
    const TEXTS: u64 = if cfg!(miri) { 100 } else { 20_000 };
    for seed in 0..TEXTS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = random.choice(&seeds).unwrap().clone().into_bytes();
        for _ in 0..random.usize(0..4) {
            damage(&mut text, &mut random);
        }
        match decode(&text, &mut scratch) {
            Ok(request) => {
                accepted += 1;
                let value: Value = serde_json::from_slice(&text).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
                if let Command::Send(draft) = request.command {
                    let kept: Value = serde_json::from_str(draft.content.as_str()).unwrap();
                    assert_eq!(kept, value["data"]["content"], "seed {seed}");
                }
            }
            Err(fault) => {
                refused += 1;
                let is_json = serde_json::from_slice::<Value>(&text).is_ok();
                assert!(!is_json || fault.fault.name != ErrorName::BadJson, "seed {seed}: {}", String::from_utf8_lossy(&text));
            }
        }
    }
    assert!(accepted > TEXTS / 7 && refused > TEXTS / 7, "{accepted} accepted, {refused} refused");
}

fn damage(text: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let at = random.usize(0..text.len());
    match random.u8(0..7) {
        0 => text[at] ^= 1 << random.u8(0..8),
        1 => drop(text.remove(at)),
        2 => text.insert(at, *random.choice(b" \t\n,:{}[]\"\\0159-+eE.tfnu\x00\x0c\xff").unwrap()),
        3 => text.truncate(at.max(1)),
        4 => {
            let piece = text[at..(at + random.usize(0..20)).min(text.len())].to_vec();
            let to = random.usize(0..text.len());
            text.splice(to..to, piece);
        }
        5 => text
            .splice(at..at, random.choice(["\\u0041", "\\ud83d\\ude00", "01", "1e5", "  ", "\u{e4}"]).unwrap().bytes())
            .for_each(drop),
        _ => text.swap(at, 0),
    }
}

#[test]
fn a_reused_scratch_is_bounded_and_forgets() {
    let mut scratch = Scratch::new();
    let large = envelope("send_message", &format!(r#"{{"to_user_id":"u","content":"{}"}}"#, "x".repeat(400 << 10)));
    decode(large.as_bytes(), &mut scratch).unwrap();
    let small = envelope("send_message", r#"{"to_user_id":"u","content":{"a":1}}"#);
    for _ in 0..3 {
        let Command::Send(draft) = decode(small.as_bytes(), &mut scratch).unwrap().command else { panic!("not a send") };
        assert_eq!(draft.content.as_str(), r#"{"a":1}"#);
        decode(b"[", &mut scratch).unwrap_err();
    }
}
