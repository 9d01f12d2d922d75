//! Bad envelopes: each is answered by its name and closes nothing.

use serde_json::{Value, json};

use super::Neighbours;
use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::{Client, token};

const CONFIG: &str = "[limits]\nerrors_per_minute = 1000000\n";

at_shards!(bad_envelopes_are_answered_by_name, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut client = Client::connect(server, "mallory");
    for (what, text, names) in texts() {
        client.send_text(&text);
        let answer = client.take("error");
        let name = names.iter().find(|name| answer["data"]["name"] == **name);
        let name = name.unwrap_or_else(|| panic!("{what}: {answer}, expected one of {names:?}"));
        assert_error(&answer, name, what);
        assert!(answer.to_string().len() < 1_000, "{what}: echoes too much");
        client.assert_alive();
        neighbours.assert_undisturbed(what);
    }
    client.expect_none("error");
});

at_shards!(bad_members_are_answered_with_the_request_they_belong_to, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut client = Client::connect(server, "mallory");
    for (kind, data, name) in requests() {
        let reply = client.request(kind, data.clone());
        assert_error(&reply, name, &format!("{kind} {}", data.to_string().chars().take(200).collect::<String>()));
    }
    client.expect_none("new_message");
    neighbours.assert_undisturbed("bad members");
});

at_shards!(what_is_strange_but_allowed_is_taken, CONFIG, |server| {
    let mut client = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for (index, text) in [
        r#"{"type":"send_message","message_id":"0","timestamp":-1,"data":{"to_user_id":"bob","content":"x"}}"#,
        r#"{"type":"send_message","message_id":"1","timestamp":253402300799000,"data":{"to_user_id":"bob","content":"x"}}"#,
        r#"{"type":"send_message","message_id":"2","timestamp":"yesterday","data":{"to_user_id":"bob","content":"x"}}"#,
        r#"{"u":{"a":[1]},"u":2,"data":{"content":"x","v":null,"to_user_id":"bob"},"message_id":"3","type":"send_message"}"#,
        " \t\r\n{ \"type\": \"send_message\" ,\"message_id\" :\"4\", \"data\":{ \"to_user_id\":\"bob\", \"content\":\"x\" } } \n",
        r#"{"\u0074ype":"send\u005fmessage","message_id":"\u0035","data":{"to_user_id":"b\u006fb","content":"x"}}"#,
    ]
    .iter()
    .enumerate()
    {
        client.send_text(text);
        assert_eq!(client.reply_to(&index.to_string())["type"], "ack", "{text}");
        assert_eq!(bob.expect("new_message")["seq"], index + 1);
    }
});

at_shards!(depth_is_counted_from_the_envelope, CONFIG, |server| {
    let mut client = Client::connect(server, "alice");
    // The envelope is the first level; in `content` two more are taken by `data` and the object itself.
    let unknown =
        |arrays: usize| format!(r#"{{"type":"ping","message_id":"d","x":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays));
    let content = |arrays: usize| {
        let nested = format!("{}{}", "[".repeat(arrays), "]".repeat(arrays));
        format!(r#"{{"type":"send_message","message_id":"d","data":{{"to_user_id":"bob","content":{{"a":{nested}}}}}}}"#)
    };
    for text in [unknown(63), content(61)] {
        client.send_text(&text);
        assert_ne!(client.reply_to("d")["type"], "error", "64 levels are allowed");
    }
    for text in [unknown(64), content(62), unknown(100_000), content(100_000), "[".repeat(100_000), r#"{"a":"#.repeat(50_000)] {
        client.send_text(&text);
        assert_error(&client.take("error"), "BAD_JSON", "65 levels are not");
    }
    client.assert_alive();
});

/// What is wrong, the text, and the names that may answer it.
fn texts() -> Vec<(&'static str, String, &'static [&'static str])> {
    const JSON: &[&str] = &["BAD_JSON"];
    const REQUEST: &[&str] = &["BAD_REQUEST"];
    const EITHER: &[&str] = &["BAD_JSON", "BAD_REQUEST"];
    const TYPE: &[&str] = &["UNKNOWN_MESSAGE_TYPE", "BAD_REQUEST"];
    let ping = |member: &str| format!(r#"{{"type":"ping",{member}}}"#);
    let send = |members: &str| format!(r#"{{"type":"send_message","data":{{{members}}}}}"#);
    let read = |seq: &str| format!(r#"{{"type":"mark_read","data":{{"user_id":"bob","seq":{seq}}}}}"#);
    vec![
        ("nothing", String::new(), EITHER),
        ("white space", "  \n".into(), EITHER),
        ("null", "null".into(), EITHER),
        ("a number", "7".into(), EITHER),
        ("a list", "[]".into(), EITHER),
        ("a string", "\"x\"".into(), EITHER),
        ("cut off", r#"{"type":"ping""#.into(), JSON),
        ("text after it", r#"{"type":"ping"} x"#.into(), JSON),
        ("a second envelope", r#"{"type":"ping"}{"type":"ping"}"#.into(), JSON),
        ("byte order mark", "\u{feff}{\"type\":\"ping\"}".into(), EITHER),
        ("single quotes", "{'type':'ping'}".into(), JSON),
        ("a comment", r#"{"type":"ping"/**/}"#.into(), JSON),
        ("a trailing comma", r#"{"type":"ping",}"#.into(), JSON),
        ("a raw control character", "{\"type\":\"ping\",\"x\":\"\u{1}\"}".into(), JSON),
        ("a lone surrogate", ping(r#""message_id":"\ud800""#), JSON),
        ("NaN", read("NaN"), EITHER),
        ("type twice", r#"{"type":"ping","type":"auth"}"#.into(), REQUEST),
        ("type twice, once escaped", r#"{"type":"ping","\u0074ype":"auth"}"#.into(), REQUEST),
        ("message_id twice", ping(r#""message_id":"a","message_id":"b""#), REQUEST),
        ("data twice", r#"{"type":"get_unread","data":{},"data":{}}"#.into(), REQUEST),
        ("receiver twice", send(r#""to_user_id":"bob","to_user_id":"carol","content":"x""#), REQUEST),
        ("content twice", send(r#""to_user_id":"bob","content":"x","content":"y""#), REQUEST),
        ("token twice", r#"{"type":"refresh","data":{"token":"a","token":"b"}}"#.into(), REQUEST),
        ("no type", "{}".into(), REQUEST),
        ("type is a number", r#"{"type":7}"#.into(), REQUEST),
        ("type is null", r#"{"type":null}"#.into(), REQUEST),
        ("type is unknown", r#"{"type":"rubbish"}"#.into(), &["UNKNOWN_MESSAGE_TYPE"]),
        ("type in capitals", r#"{"type":"PING"}"#.into(), &["UNKNOWN_MESSAGE_TYPE"]),
        ("type of the server's", r#"{"type":"new_message"}"#.into(), &["UNKNOWN_MESSAGE_TYPE"]),
        ("type of 100 KB", format!(r#"{{"type":"{}"}}"#, "x".repeat(100_000)), TYPE),
        ("message_id of 129 bytes", ping(&format!(r#""message_id":"{}""#, "x".repeat(129))), REQUEST),
        ("message_id empty", ping(r#""message_id":"""#), REQUEST),
        ("message_id with a control", ping(r#""message_id":"a\u0000b""#), REQUEST),
        ("message_id is a number", ping(r#""message_id":7"#), REQUEST),
        ("message_id is an object", ping(r#""message_id":{}"#), REQUEST),
        ("data is a list", r#"{"type":"send_message","data":[]}"#.into(), REQUEST),
        ("data is a string", r#"{"type":"send_message","data":"x"}"#.into(), REQUEST),
        ("data is missing", r#"{"type":"send_message"}"#.into(), REQUEST),
        ("seq 1e400", read("1e400"), EITHER),
        ("seq 2^64", read("18446744073709551616"), REQUEST),
    ]
}

/// The type, its bad data, and the name of the answer.
fn requests() -> Vec<(&'static str, Value, &'static str)> {
    let many: Vec<String> = (0..10_000).map(|index| format!("u{index}")).collect();
    let wide: serde_json::Map<String, Value> = many.iter().map(|name| (name.clone(), json!(1))).collect();
    let mut rows = vec![
        ("send_message", json!({"to_user_id": "bob", "content": "x", "ext": wide}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "ext": "text"}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "mentions": many}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "mentions": "some"}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "mentions": [7]}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "loss_time": -1}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob", "content": "x", "reply_to": 7}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "a\u{0}b", "content": "x"}), "BAD_REQUEST"),
        ("send_message", json!({"to_user_id": "bob"}), "BAD_REQUEST"),
        ("refresh", json!({}), "BAD_REQUEST"),
        ("refresh", json!({"token": token::for_user("mallory") + "x"}), "BAD_TOKEN"),
        ("create_group", json!({"members": "bob"}), "BAD_REQUEST"),
        ("create_group", json!({"members": [7]}), "BAD_REQUEST"),
        ("create_group", json!({"open": "yes"}), "BAD_REQUEST"),
        ("join_group", json!({}), "BAD_REQUEST"),
        ("invite_to_group", json!({"group_id": "g"}), "BAD_REQUEST"),
        ("recall_message", json!({}), "BAD_REQUEST"),
        ("get_presence", json!({}), "BAD_REQUEST"),
        ("get_presence", json!({"user_ids": ["bob"], "group_id": "g"}), "BAD_REQUEST"),
        ("recv_ack", json!({}), "BAD_REQUEST"),
        ("recv_ack", json!({"conversation_id": "p:bob:mallory"}), "BAD_REQUEST"),
        ("recv_ack", json!({"acks": [{"conversation_id": "p:bob:mallory"}]}), "BAD_REQUEST"),
    ];
    rows.extend(
        [json!(7), json!(null), json!(true), json!([])]
            .map(|content| ("send_message", json!({"to_user_id": "bob", "content": content}), "BAD_REQUEST")),
    );
    rows.extend(
        [json!(0), json!(8), json!(-1), json!(1.5), json!("TEXT"), json!(""), json!([])]
            .map(|kind| ("send_message", json!({"to_user_id": "bob", "content": "x", "msg_type": kind}), "BAD_REQUEST")),
    );
    rows.extend(
        [json!(-1), json!(0), json!(1.5), json!("7"), json!(null)]
            .map(|seq| ("recv_ack", json!({"conversation_id": "p:bob:mallory", "seq": seq}), "BAD_REQUEST")),
    );
    for conversation in ["", "x", "p:", "p:a", "p:b:a", "p:a:b:c", "p:a%3ab:c", "q:a:b", "p:a%41:b"] {
        rows.push(("get_history", json!({"conversation_id": conversation}), "BAD_REQUEST"));
    }
    rows
}
