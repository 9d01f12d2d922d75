//! What age takes away: messages go, their conversations go on counting, and every gap is explained once.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, Login, PATIENCE, Server, eventually};

const SHORT: &str = "[messages]\nretention = \"2s\"\n";
const RESENT: &str = "[delivery]\nack_timeout = \"1s\"\nattempts = 100\n";
const CONVERSATION: &str = "p:alice:bob";

at_shards!(old_messages_go_and_the_count_goes_on, SHORT, |server| {
    let mut alice = with_old_messages(server, 5);
    assert_eq!(alice.tell("bob", "new")["seq"], 6, "no number is given twice");
    assert_eq!(alice.tell("bob", "newer")["seq"], 7);
    let conversations = alice.ask("get_conversations", json!({}));
    assert_eq!(conversations["conversations"][0]["last_seq"], 7);
    gone(&mut alice);
    server.crash_and_restart();
    let mut alice = Client::connect(server, "alice");
    assert_eq!(alice.tell("bob", "newest")["seq"], 8, "also when nothing is left and the server starts anew");
});

at_shards!(a_returning_device_is_told_once_what_it_missed, SHORT, |server| {
    let mut alice = with_old_messages(server, 5);
    alice.tell("bob", "new");
    let mut bob = Client::connect(server, "bob");
    // The new one may be too old by now as well.
    assert_eq!(told(&mut bob), (1..=6).collect::<Vec<_>>());
    bob.leave();
    let mut bob = Client::connect(server, "bob");
    assert_eq!(told(&mut bob), [0; 0]);
    // Asking again for all of it is answered with the same explanation.
    assert_eq!(bob.request("sync", json!({"cursors": {CONVERSATION: 2}}))["type"], "sync_done");
    assert_eq!(told(&mut bob), (3..=6).collect::<Vec<_>>());
});

at_shards!(what_is_gone_is_neither_unread_nor_in_the_way, SHORT, |server| {
    let mut alice = with_old_messages(server, 4);
    // The new message must not go as well before it is looked at.
    keep_from_now_on(server);
    let mut bob = Client::connect(server, "bob");
    assert_eq!(bob.ask("get_unread", json!({}))["total"], 0);
    assert_eq!(bob.acked("mark_read", json!({"conversation_id": CONVERSATION, "seq": 2}))["success"], true);
    assert_eq!(bob.acked("mark_read", json!({"conversation_id": CONVERSATION, "seq": 99}))["success"], true);
    let found = bob.ask("search", json!({"query": "old"}));
    assert_eq!(found["messages"], json!([]));
    alice.tell("bob", "new");
    assert_eq!(bob.expect("new_message")["seq"], 5);
    assert_eq!(bob.ask("get_unread", json!({}))["total"], 1);
});

at_shards!(history_begins_at_what_is_kept, "[messages]\nretention = \"6s\"\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let first = Instant::now();
    for number in 0..4 {
        alice.tell("bob", &format!("old {number}"));
    }
    std::thread::sleep(Duration::from_secs(3));
    for number in 0..4 {
        alice.tell("bob", &format!("young {number}"));
    }
    // They go oldest first: what is left is always the end of the log.
    let kept_from = |page: Vec<u64>| {
        let first = page.first().copied().unwrap_or(9);
        assert_eq!(page, (first..=8).collect::<Vec<_>>());
        first
    };
    eventually("the oldest is gone", || (kept_from(history(&mut alice, json!({}))) > 1).then_some(()));
    assert!(first.elapsed() >= Duration::from_secs(6), "nothing goes early");
    eventually("half is gone", || (kept_from(history(&mut alice, json!({"after_seq": 1}))) >= 5).then_some(()));
    assert_eq!(history(&mut alice, json!({"before_seq": 5})), [0; 0]);
});

at_shards!(an_unconfirmed_message_that_goes_is_explained, RESENT, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::open(server, &Login::of("bob").acks());
    alice.tell("bob", "never confirmed");
    assert_eq!(bob.expect("new_message")["seq"], 1);
    // It is sent again until it is gone.
    let again = bob.expect("new_message");
    assert_eq!((&again["seq"], &again["redelivered"]), (&json!(1), &json!(true)));
    server.configure(&format!("{SHORT}{RESENT}"));
    server.signal(Signal::HUP);
    let skipped = bob.expect("messages_skipped");
    assert_eq!((&skipped["from_seq"], &skipped["to_seq"], &skipped["reason"]), (&json!(1), &json!(1), &json!("retention")));
    assert!(bob.queued("new_message").iter().all(|message| message["redelivered"] == true));
    server.configure(RESENT);
    server.signal(Signal::HUP);
    unchanged(server);
    alice.tell("bob", "next");
    assert_eq!(bob.expect("new_message")["seq"], 2);
    bob.send("recv_ack", json!({"conversation_id": CONVERSATION, "seq": 2}));
    bob.expect_none_for("messages_skipped", Duration::from_secs(2));
});

at_shards!(it_can_be_changed_while_running, |server| {
    let mut alice = Client::connect(server, "alice");
    for number in 0..3 {
        alice.tell("bob", &format!("old {number}"));
    }
    assert_eq!(history(&mut alice, json!({})), [1, 2, 3]);
    server.configure(SHORT);
    server.signal(Signal::HUP);
    gone(&mut alice);
    eventually("the change is told", || server.log().contains("messages.retention").then_some(()));
    server.configure("");
    server.signal(Signal::HUP);
    unchanged(server);
    alice.tell("bob", "stays");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(history(&mut alice, json!({})), [4]);
});

at_shards!(a_new_device_gets_what_is_recent, "[messages]\nnew_device_window = \"1h\"\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let mut phone = Client::connect_on(server, "bob", "phone");
    for number in 0..3 {
        alice.tell("bob", &format!("{number}"));
    }
    phone.expect_many("new_message", 3);
    phone.leave();
    alice.tell("bob", "nobody had it");
    let mut laptop = Client::connect_on(server, "bob", "laptop");
    assert_eq!(told(&mut laptop), [1, 2, 3, 4], "what the phone has had is recent");
    laptop.leave();
    let mut laptop = Client::connect_on(server, "bob", "laptop");
    assert_eq!(told(&mut laptop), [0; 0], "it is no new device any more");
    let mut phone = Client::connect_on(server, "bob", "phone");
    assert_eq!(told(&mut phone), [4]);
});

at_shards!(a_new_device_without_a_window_gets_what_nobody_had, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut phone = Client::connect_on(server, "bob", "phone");
    alice.tell("bob", "had");
    phone.expect("new_message");
    phone.leave();
    alice.tell("bob", "nobody had it");
    let mut laptop = Client::connect_on(server, "bob", "laptop");
    assert_eq!(told(&mut laptop), [2]);
});

/// Some messages of Alice's to Bob that have gone by age.
fn with_old_messages(server: &Server, count: u64) -> Client {
    let mut alice = Client::connect(server, "alice");
    for number in 0..count {
        alice.tell("bob", &format!("old {number}"));
    }
    gone(&mut alice);
    alice
}

/// Has nothing go by age any more, on a server that began with [`SHORT`].
fn keep_from_now_on(server: &Server) {
    server.configure("");
    server.signal(Signal::HUP);
    eventually("the change is told", || server.log().contains("messages.retention").then_some(()));
}

/// Waits until the server has read a configuration that is what it began with.
fn unchanged(server: &Server) {
    eventually("the change back is told", || server.log().contains("nothing has changed").then_some(()));
}

/// Waits until nothing is left of the conversation.
fn gone(alice: &mut Client) {
    let begun = Instant::now();
    while !history(alice, json!({})).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing goes");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn history(client: &mut Client, mut query: Value) -> Vec<u64> {
    query["conversation_id"] = json!(CONVERSATION);
    let page = client.ask("get_history", query);
    page["messages"].as_array().expect("a list").iter().map(|message| message["seq"].as_u64().expect("a number")).collect()
}

/// Every `seq` that the client was told of, in the order in which it was: pushed, or explained as gone by age.
fn told(client: &mut Client) -> Vec<u64> {
    client.listen(Duration::from_millis(300));
    let mut told = Vec::new();
    for envelope in client.drain(&["new_message", "messages_skipped"]) {
        let data = &envelope["data"];
        if envelope["type"] == "new_message" {
            told.push(data["seq"].as_u64().expect("a number"));
        } else {
            assert_eq!(data["reason"], "retention", "{data}");
            told.extend(data["from_seq"].as_u64().expect("a number")..=data["to_seq"].as_u64().expect("a number"));
        }
    }
    told
}
