//! `sync`: asking again for what a client may have missed.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::{Client, Login, RawConnection, Server, frames};

const COUNT: usize = 100;

at_shards!(a_cursor_brings_all_that_follows_it, |server| {
    let (mut alice, mut bob) = with_messages(server, 5);
    let done = bob.request("sync", json!({"cursors": {"p:alice:bob": 2}}));
    assert_eq!(done["type"], "sync_done");
    let repeated = bob.queued("new_message");
    assert_eq!(seqs(&repeated), [3, 4, 5]);
    assert!(repeated.iter().all(|message| message["redelivered"] == true), "{repeated:?}");
    alice.tell("bob", "live again");
    let live = bob.expect("new_message");
    assert_eq!(live["seq"], 6);
    assert!(live.get("redelivered").is_none_or(|flag| flag == false));
});

at_shards!(own_messages_are_part_of_a_sync, |server| {
    let (alice, _bob) = with_messages(server, 2);
    let laptop = Client::connect_on(server, "alice", "laptop");
    // Also those that were sent on the asking connection: a client that names what it has lacks all the rest.
    for mut client in [alice, laptop] {
        client.queued("new_message");
        assert_eq!(client.request("sync", json!({"cursors": {"p:alice:bob": 0}}))["type"], "sync_done");
        assert_eq!(seqs(&client.queued("new_message")), [1, 2]);
    }
});

at_shards!(no_cursors_mean_the_stored_state, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::open(server, &Login::of("bob").device("phone").acks());
    for content in ["one", "two", "three"] {
        alice.tell("bob", content);
    }
    bob.expect_many("new_message", 3);
    bob.send("recv_ack", json!({"conversation_id": "p:alice:bob", "seq": 1}));
    assert_eq!(bob.request("sync", json!({"cursors": {}}))["type"], "sync_done");
    assert_eq!(seqs(&bob.queued("new_message")), [2, 3]);
});

at_shards!(cursors_at_or_past_the_end_bring_nothing, |server| {
    let (mut alice, mut bob) = with_messages(server, 3);
    for cursor in [3u64, 4, 1_000_000, u64::MAX >> 12] {
        assert_eq!(bob.request("sync", json!({"cursors": {"p:alice:bob": cursor}}))["type"], "sync_done");
        bob.expect_none("new_message");
    }
    alice.tell("bob", "not skipped");
    assert_eq!(bob.expect("new_message")["seq"], 4);
});

at_shards!(foreign_conversations_stay_closed, |server| {
    let (_alice, _bob) = with_messages(server, 3);
    let mut mallory = Client::connect(server, "mallory");
    let reply = mallory.request("sync", json!({"cursors": {"p:alice:bob": 0}}));
    let name = reply["data"]["name"].as_str().unwrap_or("");
    assert!(reply["type"] == "sync_done" || matches!(name, "NOT_A_MEMBER" | "FORBIDDEN"), "{reply}");
    mallory.expect_none("new_message");
});

at_shards!(a_bad_cursor_is_refused, |server| {
    let (_alice, mut bob) = with_messages(server, 1);
    for cursors in [json!({"p:alice:bob": -1}), json!({"p:alice:bob": "1"}), json!({"nonsense": 1}), json!([1]), json!(7)] {
        bob.ask_refused("BAD_REQUEST", "sync", json!({"cursors": cursors}));
    }
});

at_shards!(each_of_many_at_once_has_its_answer, |server| {
    let (mut alice, bob) = with_messages(server, 3);
    bob.leave();
    let mut bob = RawConnection::authenticated(server, "bob");
    let ask = |number| json!({"type": "sync", "message_id": format!("sync-{number}"), "data": {}}).to_string();
    let asked: Vec<u8> = (0..COUNT).flat_map(|number| frames::text(&ask(number))).collect();
    bob.send(&asked).expect("the server reads");
    let (mut done, mut refused) = (HashSet::new(), HashSet::new());
    while done.len() + refused.len() < COUNT {
        let heard = bob.receive_json();
        let Some(id) = heard["message_id"].as_str().filter(|id| id.starts_with("sync-")) else { continue };
        let is_new = match heard["type"].as_str() {
            Some("sync_done") => done.insert(id.to_owned()),
            _ => {
                assert_error(&heard, "OVERLOADED", "one more than can be owed");
                refused.insert(id.to_owned())
            }
        };
        assert!(is_new && done.is_disjoint(&refused), "{id} is answered once");
    }
    assert!(done.len() >= 16, "{} were done", done.len());
    // It was a matter of that moment.
    bob.send_text(&ask(COUNT));
    assert_eq!(bob.read_until("sync_done")["message_id"], format!("sync-{COUNT}"));
    alice.tell("bob", "and live");
    bob.read_until("new_message");
});

/// Alice and Bob online, with `count` messages from her that he has had.
fn with_messages(server: &Server, count: usize) -> (Client, Client) {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for index in 1..=count {
        alice.tell("bob", &format!("m{index}"));
    }
    bob.expect_many("new_message", count);
    (alice, bob)
}

fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["seq"].as_u64().expect("a number")).collect()
}
