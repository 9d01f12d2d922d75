//! Messages between two users: who gets them, what they carry, and that a repeat is stored once.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, token};

at_shards!(every_device_of_both_sides_gets_it_but_the_sending_connection, |server| {
    let mut sender = Client::connect_on(server, "alice", "phone");
    let mut others = [
        Client::connect_on(server, "alice", "laptop"),
        Client::connect_on(server, "bob", "phone"),
        Client::connect_on(server, "bob", "tablet"),
    ];
    let before = token::now_millis();
    let ack = sender.request_as("first", "send_message", json!({"to_user_id": "bob", "content": "hello"}))["data"].clone();
    assert_eq!(ack["success"], true);
    assert_eq!((&ack["conversation_id"], &ack["seq"], &ack["duplicate"]), (&json!("p:alice:bob"), &json!(1), &json!(false)));
    assert!(ack["created_at"].as_u64().is_some_and(|at| at + 5_000 >= before && at <= token::now_millis() + 5_000));
    let id = ack["message_id"].as_str().expect("the server's id");
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "a UUID of version 7: {id}");
    for client in &mut others {
        let message = client.expect("new_message");
        for member in ["message_id", "conversation_id", "seq", "created_at"] {
            assert_eq!(message[member], ack[member], "{member}");
        }
        assert_eq!(message["sender_id"], "alice");
        assert_eq!(message["to_user_id"], "bob");
        assert_eq!(message["msg_type"], "text");
        assert_eq!(message["content"], "hello");
        assert_eq!(message["client_message_id"], "first");
        assert!(message.get("group_id").is_none_or(Value::is_null));
        client.expect_none("new_message");
    }
    sender.expect_none("new_message");
});

at_shards!(only_replies_carry_a_message_id, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    assert_eq!(alice.request_as("mine", "send_message", json!({"to_user_id": "bob", "content": "x"}))["message_id"], "mine");
    let push = bob.take("new_message");
    assert!(push.get("message_id").is_none_or(Value::is_null), "a push answers no request: {push}");
});

at_shards!(everything_the_sender_wrote_arrives, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let first = alice.tell("bob", "to be replied to")["message_id"].clone();
    bob.expect("new_message");
    let content =
        json!({"url": "https://example.org/ü.png", "size": [640, 480], "n": 12345678901234567890u64, "deep": {"a": null}});
    alice.acked(
        "send_message",
        json!({"to_user_id": "bob", "msg_type": "image", "content": content, "mentions": ["bob", "carol"], "reply_to": first,
               "loss_time": 3_600_000, "ext": {"colour": "red", "list": [1, 2.5, false]}}),
    );
    let message = bob.expect("new_message");
    assert_eq!(message["msg_type"], "image");
    assert_eq!(message["content"], content);
    assert_eq!(message["mentions"], json!(["bob", "carol"]));
    assert_eq!(message["reply_to"], first);
    assert_eq!(message["loss_time"], 3_600_000);
    assert_eq!(message["ext"], json!({"colour": "red", "list": [1, 2.5, false]}));
});

at_shards!(message_types_travel_by_name, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let names = ["text", "image", "file", "audio", "video", "location", "custom"];
    for (index, name) in names.iter().enumerate() {
        for spelling in [json!(name), json!(index + 1)] {
            alice.acked("send_message", json!({"to_user_id": "bob", "msg_type": spelling, "content": "x"}));
            assert_eq!(bob.expect("new_message")["msg_type"], *name);
        }
    }
    alice.ask_refused("FORBIDDEN", "send_message", json!({"to_user_id": "bob", "msg_type": "system", "content": "x"}));
    bob.expect_none("new_message");
});

at_shards!(content_may_be_empty_or_strange, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for content in ["", " ", "\u{0}", "a\u{0}b", "\u{1F600}\u{2028}\u{FEFF}", "\"\\/\u{8}\n\r\t\u{7f}", "</script>"] {
        alice.tell("bob", content);
        assert_eq!(bob.expect("new_message")["content"], content);
    }
});

at_shards!(a_repeat_is_stored_once, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let data = json!({"to_user_id": "bob", "content": "once"});
    let first = alice.request_as("same", "send_message", data.clone())["data"].clone();
    assert_eq!(first["duplicate"], false);
    let mut expected = first.clone();
    expected["duplicate"] = json!(true);
    // The same again; with other content; with another target; from another device; after a return.
    assert_eq!(alice.request_as("same", "send_message", data.clone())["data"], expected);
    assert_eq!(alice.request_as("same", "send_message", json!({"to_user_id": "bob", "content": "other"}))["data"], expected);
    assert_eq!(alice.request_as("same", "send_message", json!({"to_user_id": "carol", "content": "once"}))["data"], expected);
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    assert_eq!(laptop.request_as("same", "send_message", data.clone())["data"], expected);
    alice.leave();
    let mut alice = Client::connect(server, "alice");
    assert_eq!(alice.request_as("same", "send_message", data.clone())["data"], expected);
    // The id is the sender's own: bob's message of the same id is another one.
    let own = bob.request_as("same", "send_message", json!({"to_user_id": "alice", "content": "mine"}))["data"].clone();
    assert_eq!((&own["duplicate"], &own["seq"]), (&json!(false), &json!(2)));
    assert_eq!(bob.expect("new_message")["content"], "once");
    bob.expect_none("new_message");
    assert_eq!(alice.ask("get_history", json!({"user_id": "bob"}))["messages"].as_array().map(Vec::len), Some(2));
});

at_shards!(a_repeat_survives_a_crash, |server| {
    let data = json!({"to_user_id": "bob", "content": "once"});
    let first = Client::connect(server, "alice").request_as("same", "send_message", data.clone())["data"].clone();
    server.crash_and_restart();
    let again = Client::connect(server, "alice").request_as("same", "send_message", data)["data"].clone();
    assert_eq!(again["duplicate"], true);
    for member in ["message_id", "conversation_id", "seq", "created_at"] {
        assert_eq!(again[member], first[member], "{member}");
    }
});

at_shards!(the_same_id_on_two_connections_at_once_is_stored_once, |server| {
    let mut phone = Client::connect_on(server, "alice", "phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    let mut bob = Client::connect(server, "bob");
    for round in 0..20 {
        let id = format!("race-{round}");
        for client in [&mut phone, &mut laptop] {
            let data = json!({"to_user_id": "bob", "content": id});
            client.send_json(&json!({"type": "send_message", "message_id": id, "data": data}));
        }
        let (one, other) = (phone.reply_to(&id)["data"].clone(), laptop.reply_to(&id)["data"].clone());
        assert_eq!((&one["message_id"], &one["seq"]), (&other["message_id"], &other["seq"]));
        assert_ne!(one["duplicate"], other["duplicate"], "one of the two was first");
        assert_eq!(bob.expect("new_message")["seq"], round + 1);
    }
    bob.expect_none("new_message");
});

at_shards!(both_sides_see_one_order_without_gaps, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let mut watchers = [Client::connect_on(server, "alice", "laptop"), Client::connect_on(server, "bob", "tablet")];
    for round in 0..50 {
        let id = format!("m{round}");
        alice.send_json(&json!({"type": "send_message", "message_id": id, "data": {"to_user_id": "bob", "content": id}}));
        bob.send_json(&json!({"type": "send_message", "message_id": id, "data": {"to_user_id": "alice", "content": id}}));
    }
    let orders = watchers.each_mut().map(|client| client.expect_many("new_message", 100));
    assert_eq!(orders[0], orders[1]);
    for (index, message) in orders[0].iter().enumerate() {
        assert_eq!(message["seq"], index + 1);
    }
    for sender in ["alice", "bob"] {
        let own: Vec<&Value> = orders[0].iter().filter(|message| message["sender_id"] == sender).collect();
        let sent: Vec<String> = own.iter().map(|message| message["content"].as_str().expect("text").to_owned()).collect();
        assert_eq!(sent, (0..50).map(|round| format!("m{round}")).collect::<Vec<_>>(), "{sender}'s messages keep their order");
    }
});

at_shards!(a_message_to_oneself_reaches_the_other_devices_once, |server| {
    let mut phone = Client::connect_on(server, "alice", "phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    let ack = phone.tell("alice", "note");
    assert_eq!(ack["conversation_id"], "p:alice:alice");
    assert_eq!(laptop.expect("new_message")["content"], "note");
    laptop.expect_none("new_message");
    phone.expect_none("new_message");
    assert_eq!(phone.ask("get_history", json!({"conversation_id": "p:alice:alice"}))["messages"][0]["content"], "note");
});

at_shards!(odd_ids_round_trip, |server| {
    let long = "é".repeat(64);
    let ids = ["a:b", "a%3Ab", "%", ":", "a/../b", "two words", "名前", "\"quoted\\\"", long.as_str()];
    // One connection throughout: one that comes back at once after an abrupt end may be told its own last message again.
    let mut plain = Client::connect(server, "m");
    for id in ids {
        let mut odd = Client::connect(server, id);
        assert_eq!(odd.success["user_id"], id);
        let ack = plain.tell(id, "to odd");
        let escaped = id.replace('%', "%25").replace(':', "%3A");
        let mut pair = [(id, escaped.as_str()), ("m", "m")];
        pair.sort();
        assert_eq!(ack["conversation_id"], format!("p:{}:{}", pair[0].1, pair[1].1), "{id}");
        let message = odd.expect("new_message");
        assert_eq!((&message["to_user_id"], &message["conversation_id"]), (&json!(id), &ack["conversation_id"]));
        odd.tell("m", "from odd");
        assert_eq!(plain.expect("new_message")["sender_id"], id);
        for conversation in [json!({"user_id": id}), json!({"conversation_id": ack["conversation_id"]})] {
            assert_eq!(plain.ask("get_history", conversation)["messages"].as_array().map(Vec::len), Some(2), "{id}");
        }
    }
});

at_shards!(similar_ids_never_share_a_conversation, |server| {
    let mut plain = Client::connect(server, "m");
    let mut seen = std::collections::HashSet::new();
    for id in ["a:b", "a%3Ab", "a%3ab", "a%253Ab", "A:b", "é", "e\u{301}"] {
        let ack = plain.tell(id, "x");
        assert_eq!(ack["seq"], 1, "{id}");
        assert!(seen.insert(ack["conversation_id"].clone()), "{id}");
    }
});

at_shards!(a_message_needs_exactly_one_target, |server| {
    let mut alice = Client::connect(server, "alice");
    for data in [
        json!({"content": "x"}),
        json!({"to_user_id": "bob", "group_id": "g", "content": "x"}),
        json!({"to_user_id": "", "content": "x"}),
        json!({"to_user_id": "x".repeat(129), "content": "x"}),
        json!({"to_user_id": "a\u{7}b", "content": "x"}),
        json!({"to_user_id": 7, "content": "x"}),
    ] {
        alice.ask_refused("BAD_REQUEST", "send_message", data);
    }
    alice.tell("nobody-has-heard-of-them", "an unknown user is one who has not come yet");
});
