//! Announcements to everybody: online or later, once each, whatever happens to the process meanwhile.

use serde_json::{Value, json};

use super::control::pages;
use super::delivery::drop_out;
use crate::at_shards;
use crate::support::{Client, Server, eventually};

at_shards!(an_announcement_is_for_everyone_who_is_known, |server| {
    drop_out(server, "away");
    let mut alice = Client::connect_on(server, "alice", "phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    alice.tell("never connected", "x");
    let sent = announce(server, json!({"content": {"text": "maintenance"}, "kind": "announcement"}));
    assert_eq!(sent["recipients"], 3, "{sent}");
    for client in [&mut alice, &mut laptop] {
        let told = client.expect("notification");
        assert_eq!((&told["kind"], &told["content"]), (&json!("announcement"), &json!({"text": "maintenance"})));
        assert_eq!((&told["conversation_id"], &told["seq"]), (&json!("s:alice"), &json!(1)));
    }
    finished(server, &sent);
    for user in ["away", "never connected"] {
        let mut client = Client::connect(server, user);
        assert_eq!(client.expect("notification")["content"]["text"], "maintenance");
        client.expect_none("notification");
    }
    let mut late = Client::connect(server, "came later");
    late.expect_none("notification");
});

at_shards!(a_repeated_announcement_is_the_same, |server| {
    let mut alice = Client::connect(server, "alice");
    let body = json!({"content": "once", "message_id": "notice-1"});
    let first = announce(server, body.clone());
    alice.expect("notification");
    finished(server, &first);
    let again = announce(server, body.clone());
    assert_eq!((&again["message_id"], &again["recipients"]), (&first["message_id"], &first["recipients"]));
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    server.crash_and_restart();
    let mut alice = Client::connect(server, "alice");
    // How far a device had got is written lazily: after a kill it may be told once more what it has had.
    alice.queued("notification");
    let again = announce(server, body);
    assert_eq!((&again["message_id"], &again["duplicate"]), (&first["message_id"], &json!(true)));
    let other = announce(server, json!({"content": "another", "message_id": "notice-2"}));
    assert_ne!(other["message_id"], first["message_id"]);
    assert_eq!(alice.expect("notification")["content"], "another");
    finished(server, &other);
    alice.expect_none("notification");
    assert_eq!(contents(server, "alice"), ["once", "another"]);
});

at_shards!(an_announcement_survives_kills_half_way, "[messages]\nannouncements_per_second = 8\n", |server| {
    let mut names: Vec<String> = (0..90).map(|number| format!("user-{number:03}")).collect();
    {
        let mut maker = Client::connect(server, "maker");
        for name in &names {
            maker.tell(name, "so that there is such a user");
        }
    }
    names.push("maker".to_owned());
    let sent = announce(server, json!({"content": "to all", "message_id": "n"}));
    assert_eq!(sent["recipients"], 91);
    for at_least in [5, 20] {
        eventually("a part has been told", || (progress(server, &sent)["told"].as_u64() >= Some(at_least)).then_some(()));
        assert_eq!(progress(server, &sent)["done"], false, "half way");
        server.crash_and_restart();
    }
    let mut online = Client::connect(server, "user-089");
    finished(server, &sent);
    assert_eq!(online.expect("notification")["content"], "to all");
    online.expect_none("notification");
    for name in &names {
        assert_eq!(contents(server, name), ["to all"], "{name} has it exactly once");
    }
    assert_eq!(announce(server, json!({"content": "to all", "message_id": "n"}))["message_id"], sent["message_id"]);
});

at_shards!(an_announcement_holds_nobody_up, "[messages]\nannouncements_per_second = 1\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for number in 0..60 {
        alice.tell(&format!("user-{number}"), "x");
    }
    let sent = announce(server, json!({"content": "slowly"}));
    alice.tell("bob", "hello");
    assert_eq!(bob.expect("new_message")["content"], "hello");
    server.rest_ok("POST", "/v1/messages", Some(json!({"to_user_id": "bob", "content": "between"})));
    assert_eq!(progress(server, &sent)["done"], false, "it is still being worked off");
});

at_shards!(what_is_no_announcement_is_refused, |server| {
    for body in [
        json!({"announcement": true}),
        json!({"announcement": true, "content": 7}),
        json!({"announcement": true, "content": "x", "to_user_id": "bob"}),
        json!({"announcement": true, "content": "x", "group_id": "g"}),
        json!({"announcement": true, "content": "x", "sender_id": "a"}),
        json!({"announcement": true, "content": "x", "kind": "custom"}),
        json!({"announcement": true, "content": "x", "msg_type": "text"}),
        json!({"announcement": "yes", "content": "x"}),
        json!({"announcement": true, "content": "x", "message_id": ""}),
    ] {
        let response = server.rest("POST", "/v1/messages", Some(body.clone()));
        assert_eq!((response.status, response.error_name().as_str()), (400, "BAD_REQUEST"), "{body}");
    }
    assert_eq!(server.rest_ok("GET", "/v1/announcements", None)["announcements"], json!([]));
});

fn announce(server: &Server, mut body: Value) -> Value {
    body["announcement"] = json!(true);
    server.rest_ok("POST", "/v1/messages", Some(body))
}

fn progress(server: &Server, sent: &Value) -> Value {
    let listed = server.rest_ok("GET", "/v1/announcements", None)["announcements"].clone();
    let listed = listed.as_array().expect("a list");
    listed.iter().find(|one| one["message_id"] == sent["message_id"]).expect("it is listed").clone()
}

fn finished(server: &Server, sent: &Value) {
    eventually("everybody has been told", || (progress(server, sent)["done"] == true).then_some(()));
}

/// What a user's system conversation holds, after checking that its `seq` has no gaps.
fn contents(server: &Server, user: &str) -> Vec<String> {
    let messages = pages(server, &format!("/v1/conversations/s:{user}/messages?after_seq=0"), "messages");
    for (at, message) in messages.iter().enumerate() {
        assert_eq!(message["seq"], at as u64 + 1);
    }
    messages.iter().map(|message| message["content"].as_str().expect("text").to_owned()).collect()
}
