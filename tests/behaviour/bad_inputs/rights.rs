//! Well-formed requests for what is not theirs, or not there, or out of bounds.

use serde_json::{Value, json};

use super::Neighbours;
use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::{Client, eventually, frames};

const CONFIG: &str = "[limits]\nerrors_per_minute = 1000000\n";

at_shards!(what_belongs_to_others_stays_closed, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let (mut owner, mut carol) = (Client::connect(server, "owner"), Client::connect(server, "carol"));
    for (group, open) in [("closed", false), ("open", true)] {
        owner.acked("create_group", json!({"group_id": group, "open": open, "members": ["carol"]}));
        owner.tell_group(group, "secret");
    }
    let private = owner.tell("carol", "secret");
    let mut mallory = Client::connect(server, "mallory");
    for group in ["closed", "never-made", "open"] {
        let name = if group == "open" { "NOT_A_MEMBER" } else { "NO_SUCH_GROUP" };
        for (kind, data) in [
            ("send_message", json!({"group_id": group, "content": "x"})),
            ("typing", json!({"group_id": group, "state": "start"})),
            ("get_history", json!({"group_id": group})),
            ("get_presence", json!({"group_id": group})),
            ("subscribe_presence", json!({"group_id": group})),
            ("mark_read", json!({"group_id": group, "seq": 1})),
            ("sync", json!({"cursors": {format!("g:{group}"): 0}})),
        ] {
            assert_error(&mallory.request(kind, data), name, &format!("{kind} {group}"));
        }
    }
    for (kind, data, names) in [
        ("get_history", json!({"conversation_id": "p:carol:owner"}), &["FORBIDDEN"][..]),
        ("mark_read", json!({"conversation_id": "p:carol:owner", "seq": 1}), &["FORBIDDEN"]),
        ("search", json!({"query": "secret", "conversation_id": "p:carol:owner"}), &["FORBIDDEN"]),
        ("sync", json!({"cursors": {"p:carol:owner": 0}}), &["FORBIDDEN", "NOT_A_MEMBER"]),
        ("recall_message", json!({"message_id": private["message_id"]}), &["NO_SUCH_MESSAGE", "FORBIDDEN"]),
        ("delete_message", json!({"message_id": private["message_id"]}), &["NO_SUCH_MESSAGE", "FORBIDDEN"]),
        ("mark_read", json!({"user_id": "owner", "message_id": private["message_id"]}), &["NO_SUCH_MESSAGE", "FORBIDDEN"]),
    ] {
        let reply = mallory.request(kind, data);
        assert!(names.iter().any(|name| reply["data"]["name"] == **name), "{kind}: {reply}");
    }
    let found = mallory.ask("search", json!({"query": "secret"}));
    assert_eq!(found["messages"], json!([]));
    mallory.expect_none("new_message");
    carol.expect_none("message_recalled");
    assert_eq!(carol.ask("get_history", json!({"user_id": "owner"}))["messages"][0]["content"], "secret");
    neighbours.assert_undisturbed("requests for what is not theirs");
});

at_shards!(positions_out_of_bounds_skip_nothing, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut owner = Client::connect(server, "owner");
    let mut carol = Client::open(server, &crate::support::Login::of("carol").acks());
    owner.tell("carol", "one");
    carol.expect("new_message");
    for (conversation, seq) in [("p:carol:owner", 1u64 << 60), ("p:carol:owner", 1), ("p:owner:owner", 5), ("g:never-made", 5)] {
        carol.send("recv_ack", json!({"conversation_id": conversation, "seq": seq}));
    }
    carol.acked("mark_read", json!({"user_id": "owner", "seq": 1u64 << 60}));
    carol.acked("mark_read", json!({"user_id": "owner", "seq": 1}));
    owner.tell("carol", "two");
    assert_eq!(carol.expect("new_message")["content"], "two");
    assert_eq!(carol.ask("get_unread", json!({}))["total"], 1, "past the end means the end of that time");
    for (data, name) in [
        (json!({"user_id": "owner", "limit": 0}), "BAD_REQUEST"),
        (json!({"user_id": "owner", "limit": -1}), "BAD_REQUEST"),
        (json!({"user_id": "owner", "before_seq": 0}), "BAD_REQUEST"),
        (json!({"user_id": "owner", "cursor": "a99999999999999999999"}), "BAD_REQUEST"),
    ] {
        carol.ask_refused(name, "get_history", data);
    }
    let page = carol.ask("get_history", json!({"user_id": "owner", "limit": 1e9, "after_seq": 0, "before_seq": 3}));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(2));
    neighbours.assert_undisturbed("positions out of bounds");
});

at_shards!(a_sync_of_ten_thousand_conversations_holds_up_nobody, CONFIG, |server| {
    let mut mallory = Client::connect(server, "mallory");
    mallory.tell("n", "mine");
    let cursors = |count: usize| -> Value {
        let ids = (0..count).map(|index| (format!("p:mallory:n{index}"), json!(index)));
        Value::Object(ids.collect())
    };
    // The first one makes room that the later ones use again.
    mallory.request("sync", json!({"cursors": cursors(10_000)}));
    let mut neighbours = Neighbours::of(server);
    for _ in 0..6 {
        let reply = mallory.request("sync", json!({"cursors": cursors(10_000)}));
        let name = reply["data"]["name"].as_str().unwrap_or("");
        assert!(reply["type"] == "sync_done" || matches!(name, "FORBIDDEN" | "NOT_A_MEMBER"), "{reply}");
        neighbours.exchange("a huge sync");
    }
    mallory.ask_refused("BAD_REQUEST", "sync", json!({"cursors": cursors(10_001)}));
    let twice = r#"{"type":"sync","message_id":"t","data":{"cursors":{"p:mallory:n":0,"p:mallory:n":1}}}"#;
    mallory.send_text(twice);
    let reply = mallory.reply_to("t");
    assert!(reply["type"] == "sync_done" || reply["data"]["name"] == "BAD_REQUEST", "{reply}");
    mallory.assert_alive();
    neighbours.assert_undisturbed("huge syncs");
});

at_shards!(searches_take_words_and_nothing_more, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut mallory = Client::connect(server, "mallory");
    mallory.tell("carol", "one needle in here");
    for query in ["x".repeat(100_000), vec!["word"; 1_000].join(" "), String::new(), "  \n".to_owned()] {
        mallory.ask_refused("BAD_REQUEST", "search", json!({"query": query}));
    }
    for query in [
        "*",
        "needle*",
        "need?e",
        "\"",
        "\"needle",
        "(",
        ")",
        "needle AND",
        "OR",
        "NOT x",
        "-needle",
        "+",
        "content:needle",
        "needle~2",
        "needle^9",
        "/.*/",
        "[a TO z]",
        "{a TO z}",
        "%",
        "_",
        "\\",
        "'; DROP TABLE messages; --",
        "\u{0}",
        "\u{202e}",
    ] {
        let reply = mallory.request("search", json!({"query": query}));
        assert!(reply["type"] == "search_result" || reply["data"]["name"] == "BAD_REQUEST", "{query:?}: {reply}");
    }
    eventually("the word itself is found", || {
        let found = mallory.ask("search", json!({"query": "needle"}));
        (found["messages"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    neighbours.assert_undisturbed("odd searches");
});

at_shards!(a_kick_while_sends_are_on_their_way_leaves_no_half, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut reader = Client::connect(server, "reader");
    for round in 0..5 {
        let mut kicked = crate::support::RawConnection::authenticated(server, "kicked");
        let sends: Vec<u8> = (0..200)
            .flat_map(|index| {
                let content = json!({"to_user_id": "reader", "content": format!("{round}-{index}")});
                frames::text(
                    &json!({"type": "send_message", "message_id": format!("{round}-{index}"), "data": content}).to_string(),
                )
            })
            .collect();
        kicked.send(&sends).expect("the connection is open");
        assert!(server.rest("POST", "/v1/users/kicked/kick", None).status < 300);
        assert_eq!(kicked.close_code(), Some(4011));
    }
    // A message behind all of theirs: whatever of them is stored has its place before it.
    let last = Client::connect(server, "kicked").tell("reader", "the last one")["seq"].as_u64().expect("a number");
    for seq in 1..=last {
        assert_eq!(reader.expect("new_message")["seq"], seq, "what is stored is delivered, in order");
    }
    reader.expect_none("new_message");
    neighbours.assert_undisturbed("kicks");
});
