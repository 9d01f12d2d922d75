//! Read state: unread counts, the list of conversations, and who learns that something was read.

use serde_json::{Value, json};

use super::groups::pair;
use crate::at_shards;
use crate::support::{Client, Server};

at_shards!(unread_counts_rise_with_messages_and_fall_with_reading, |server| {
    let (mut alice, mut bob) = (Client::connect(server, "alice"), Client::connect(server, "bob"));
    let mut carol = Client::connect(server, "carol");
    for _ in 0..3 {
        alice.tell("bob", "x");
    }
    carol.acked("send_message", json!({"to_user_id": "bob", "content": "x", "mentions": ["bob"]}));
    bob.expect_many("new_message", 4);
    let unread = bob.request("get_unread", json!({}));
    assert_eq!((&unread["type"], &unread["data"]["total"]), (&json!("unread"), &json!(4)));
    assert_eq!(row(&unread["data"], "p:alice:bob"), (3, false));
    assert_eq!(row(&unread["data"], "p:bob:carol"), (1, true));
    bob.acked("mark_read", json!({"conversation_id": "p:alice:bob", "seq": 2}));
    assert_eq!(total(&mut bob), 2);
    // It never goes back, and past the end means the end.
    bob.acked("mark_read", json!({"user_id": "alice", "seq": 1}));
    assert_eq!(total(&mut bob), 2);
    bob.acked("mark_read", json!({"user_id": "alice", "seq": 1_000}));
    assert_eq!(total(&mut bob), 1);
    alice.tell("bob", "y");
    bob.expect("new_message");
    assert_eq!(total(&mut bob), 2, "reading past the end did not read the future");
});

at_shards!(ones_own_messages_are_never_unread, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    alice.tell("bob", "one");
    bob.expect("new_message");
    bob.tell("alice", "two");
    assert_eq!(total(&mut bob), 1, "sending does not mark as read");
    assert_eq!(total(&mut alice), 1);
});

at_shards!(the_peer_and_the_readers_devices_get_a_receipt, |server| {
    let mut alices = ["phone", "laptop"].map(|device| Client::connect_on(server, "alice", device));
    let mut phone = Client::connect_on(server, "bob", "phone");
    let mut tablet = Client::connect_on(server, "bob", "tablet");
    let id = alices[0].tell("bob", "x")["message_id"].clone();
    phone.expect("new_message");
    phone.acked("mark_read", json!({"user_id": "alice", "message_id": id}));
    for client in alices.iter_mut().chain([&mut tablet]) {
        let receipt = client.expect("read_receipt");
        assert_eq!((&receipt["conversation_id"], &receipt["user_id"]), (&json!("p:alice:bob"), &json!("bob")));
        assert_eq!(receipt["read_seq"], 1);
    }
    phone.expect_none("read_receipt");
});

at_shards!(in_groups_only_the_senders_of_what_was_read_learn_it, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let mut carol = Client::connect(server, "carol");
    carol.acked("join_group", json!({"group_id": "team"}));
    owner.tell_group("team", "x");
    bob.expect("new_message");
    bob.acked("mark_read", json!({"group_id": "team", "seq": 1}));
    assert_eq!(owner.expect("read_receipt")["conversation_id"], "g:team");
    carol.expect_none("read_receipt");
});

at_shards!(large_groups_send_no_receipts, "[groups]\nreceipts_max = 1\n", |server| {
    let (mut owner, mut bob) = pair(server, true);
    owner.tell_group("team", "x");
    bob.expect("new_message");
    bob.acked("mark_read", json!({"group_id": "team", "seq": 1}));
    owner.expect_none("read_receipt");
});

at_shards!(conversations_come_newest_first_and_by_page, |server| {
    let mut alice = Client::connect(server, "alice");
    for index in 0..5 {
        alice.tell(&format!("u{index}"), &format!("to {index}"));
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let all = alice.request("get_conversations", json!({}));
    assert_eq!(all["type"], "conversations");
    assert_eq!(names(&all["data"]), ["p:alice:u4", "p:alice:u3", "p:alice:u2", "p:alice:u1", "p:alice:u0"]);
    let newest = &all["data"]["conversations"][0];
    assert_eq!((&newest["last_seq"], &newest["read_seq"], &newest["unread"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(newest["last_message"]["content"], "to 4");
    let mut found = Vec::new();
    let mut page = alice.ask("get_conversations", json!({"limit": 2}));
    loop {
        found.extend(names(&page));
        if page["has_more"] == false {
            break;
        }
        page = alice.ask("get_conversations", json!({"limit": 2, "cursor": page["next"]}));
    }
    assert_eq!(found, names(&all["data"]));
});

at_shards!(read_state_survives_a_crash, |server| {
    {
        let mut alice = Client::connect(server, "alice");
        let mut bob = Client::connect(server, "bob");
        for _ in 0..3 {
            alice.tell("bob", "x");
        }
        bob.expect_many("new_message", 3);
        bob.acked("mark_read", json!({"user_id": "alice", "seq": 2}));
    }
    server.crash_and_restart();
    assert_eq!(total(&mut Client::connect(server, "bob")), 1);
});

at_shards!(what_cannot_be_read_is_refused, |server| {
    let (mut alice, _) = talk(server);
    for data in [
        json!({"user_id": "bob"}),
        json!({"seq": 1}),
        json!({"user_id": "bob", "seq": -1}),
        json!({"user_id": "bob", "seq": 0}),
        json!({"user_id": "bob", "seq": 1.5}),
        json!({"user_id": "bob", "seq": "1"}),
        json!({"conversation_id": "x:y", "seq": 1}),
    ] {
        alice.ask_refused("BAD_REQUEST", "mark_read", data);
    }
    let unknown = json!({"user_id": "bob", "message_id": "0190a6e0-0000-7000-8000-000000000000"});
    alice.ask_refused("NO_SUCH_MESSAGE", "mark_read", unknown);
});

fn talk(server: &Server) -> (Client, Client) {
    let (mut alice, mut bob) = (Client::connect(server, "alice"), Client::connect(server, "bob"));
    alice.tell("bob", "x");
    bob.expect("new_message");
    (alice, bob)
}

fn total(client: &mut Client) -> u64 {
    client.ask("get_unread", json!({}))["total"].as_u64().expect("a number")
}

fn row(unread: &Value, conversation: &str) -> (u64, bool) {
    let rows = unread["conversations"].as_array().expect("a list");
    let row =
        rows.iter().find(|row| row["conversation_id"] == conversation).unwrap_or_else(|| panic!("{conversation}: {unread}"));
    (row["unread"].as_u64().expect("a number"), row["mentioned"].as_bool().expect("a flag"))
}

fn names(page: &Value) -> Vec<String> {
    let rows = page["conversations"].as_array().expect("a list");
    rows.iter().map(|row| row["conversation_id"].as_str().expect("an id").to_owned()).collect()
}
