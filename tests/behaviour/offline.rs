//! What was sent to a user who was away arrives at the next authentication: all of it, oldest first, then `sync_done`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::delivery::drop_out;
use crate::at_shards;
use crate::support::{Client, Login, eventually};

at_shards!(all_that_was_missed_comes_before_sync_done, |server| {
    drop_out(server, "bob");
    let mut alice = Client::connect(server, "alice");
    let mut carol = Client::connect(server, "carol");
    alice.acked("create_group", json!({"group_id": "team", "members": ["bob", "carol"]}));
    for index in 1..=5 {
        alice.tell("bob", &format!("alice {index}"));
        carol.tell("bob", &format!("carol {index}"));
        carol.tell_group("team", &format!("team {index}"));
    }
    let mut bob = Client::enter(server, &Login::of("bob"));
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    loop {
        let push = bob.take_where("anything", |_| true);
        let data = &push["data"];
        match push["type"].as_str().expect("a type") {
            "new_message" => {
                let log = seen.entry(data["conversation_id"].as_str().expect("an id").to_owned()).or_default();
                assert_eq!(data["seq"], log.len() + 1, "oldest first: {data}");
                log.push(data["content"].as_str().expect("text").to_owned());
            }
            "notification" => assert_eq!(data["kind"], "group_invite"),
            "sync_done" => break,
            _ => {}
        }
    }
    for (conversation, name) in [("p:alice:bob", "alice"), ("p:bob:carol", "carol"), ("g:team", "team")] {
        assert_eq!(seen[conversation], (1..=5).map(|index| format!("{name} {index}")).collect::<Vec<_>>());
    }
    bob.leave();
    let mut bob = Client::connect(server, "bob");
    for kind in ["new_message", "notification"] {
        bob.expect_none(kind);
    }
});

at_shards!(many_pages_arrive_in_order, |server| {
    drop_out(server, "bob");
    let mut alice = Client::connect(server, "alice");
    let content = "x".repeat(1_000);
    for window in 0..10 {
        let ids: Vec<String> = (0..100).map(|index| format!("{window}-{index}")).collect();
        for id in &ids {
            let data = json!({"to_user_id": "bob", "content": content});
            alice.send_json(&json!({"type": "send_message", "message_id": id, "data": data}));
        }
        ids.iter().for_each(|id| assert_eq!(alice.reply_to(id)["type"], "ack"));
    }
    let mut bob = Client::connect(server, "bob");
    let messages = bob.queued("new_message");
    let seqs: Vec<u64> = messages.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=1_000).collect::<Vec<u64>>());
});

at_shards!(a_new_device_gets_what_no_device_has_had, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut phone = Client::connect_on(server, "bob", "phone");
    for content in ["one", "two", "three"] {
        alice.tell("bob", content);
    }
    phone.expect_many("new_message", 3);
    phone.leave();
    eventually("bob is away", || (server.fetch("/stats").json()["online_users"] == 1).then_some(()));
    for content in ["four", "five"] {
        alice.tell("bob", content);
    }
    let mut tablet = Client::connect_on(server, "bob", "tablet");
    assert_eq!(seqs(&tablet.queued("new_message")), [4, 5]);
    tablet.expect_none("new_message");
    // The old device has its own state: it has not had them.
    let mut phone = Client::connect_on(server, "bob", "phone");
    assert_eq!(seqs(&phone.queued("new_message")), [4, 5]);
});

at_shards!(the_first_device_of_all_gets_everything, |server| {
    let mut alice = Client::connect(server, "alice");
    for content in ["one", "two"] {
        alice.tell("never-seen", content);
    }
    let mut first = Client::connect(server, "never-seen");
    assert_eq!(seqs(&first.queued("new_message")), [1, 2]);
});

at_shards!(another_device_of_the_sender_gets_what_was_sent_meanwhile, |server| {
    Client::connect_on(server, "alice", "laptop").leave();
    let mut phone = Client::connect_on(server, "alice", "phone");
    phone.tell("bob", "sent from the phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    assert_eq!(laptop.expect("new_message")["content"], "sent from the phone");
});

at_shards!(what_was_acknowledged_survives_a_crash, |server| {
    drop_out(server, "bob");
    let acked: Vec<Value> = {
        let mut alice = Client::connect(server, "alice");
        (0..50).map(|index| alice.tell("bob", &format!("m{index}"))["message_id"].clone()).collect()
    };
    server.crash_and_restart();
    let mut bob = Client::connect(server, "bob");
    let found: Vec<Value> = bob.queued("new_message").iter().map(|message| message["message_id"].clone()).collect();
    assert_eq!(found, acked);
    let mut alice = Client::connect(server, "alice");
    assert_eq!(alice.tell("bob", "after")["seq"], 51);
});

at_shards!(live_messages_do_not_overtake_the_backlog, |server| {
    drop_out(server, "bob");
    let mut alice = Client::connect(server, "alice");
    for index in 0..300 {
        alice.send("send_message", json!({"to_user_id": "bob", "content": format!("m{index}")}));
    }
    alice.expect_many("ack", 300);
    let mut bob = Client::enter(server, &Login::of("bob"));
    for index in 300..400 {
        alice.send("send_message", json!({"to_user_id": "bob", "content": format!("m{index}")}));
    }
    for seq in 1..=400 {
        let message = bob.expect("new_message");
        assert_eq!((&message["seq"], &message["content"]), (&json!(seq), &json!(format!("m{}", seq - 1))));
    }
    bob.expect("sync_done");
    bob.expect_none("new_message");
});

fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["seq"].as_u64().expect("a number")).collect()
}
