//! Acknowledged delivery: what is not acknowledged comes again, at last the offline way, and what is acknowledged never does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, Login, Server, eventually};

const SHORT: &str = "[delivery]\nack_timeout = \"1s\"\nattempts = 3\n";
/// Whoever is slow to acknowledge is not closed for it.
const PATIENT: &str = "[delivery]\nack_timeout = \"1s\"\nattempts = 100\n";
/// Nothing is sent again while a test runs.
const LONG: &str = "[delivery]\nack_timeout = \"1h\"\n";

at_shards!(what_is_not_acknowledged_comes_again_and_then_later, SHORT, |server| {
    let mut alice = Client::connect(server, "alice");
    let login = Login::of("bob").device("phone").acks();
    let mut bob = Client::open(server, &login);
    let ack = alice.tell("bob", "hello?");
    bob.expect_close_as(4201, "no_pong_or_ack");
    let received = bob.queued("new_message");
    assert_eq!(received.len(), 3, "attempts: {received:?}");
    for (attempt, message) in received.iter().enumerate() {
        assert_eq!(message["message_id"], ack["message_id"]);
        assert_eq!(redelivered(message), attempt > 0, "{message}");
    }
    let mut back = Client::open(server, &login);
    assert_eq!(back.expect("new_message")["message_id"], ack["message_id"]);
});

at_shards!(an_acknowledgement_is_cumulative_and_final, PATIENT, |server| {
    let mut alice = Client::connect(server, "alice");
    let login = Login::of("bob").device("phone").acks();
    let mut bob = Client::open(server, &login);
    for content in ["one", "two", "three"] {
        alice.tell("bob", content);
    }
    // They come, and come again.
    while !redelivered(&bob.expect("new_message")) {}
    acknowledge(&mut bob, &json!("p:alice:bob"), 3);
    nothing_comes_again(&mut bob, &mut [&mut alice]);
    bob.vanish();
    gone(server, "bob");
    let mut bob = Client::open(server, &login);
    bob.expect_none("new_message");
    bob.assert_alive();
});

at_shards!(several_conversations_are_acknowledged_at_once, PATIENT, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut carol = Client::connect(server, "carol");
    let login = Login::of("bob").device("phone").acks();
    let mut bob = Client::open(server, &login);
    alice.tell("bob", "from alice");
    carol.tell("bob", "from carol");
    bob.expect_many("new_message", 2);
    let acks = json!([{"conversation_id": "p:alice:bob", "seq": 1}, {"conversation_id": "p:bob:carol", "seq": 1}]);
    bob.send("recv_ack", json!({"acks": acks}));
    nothing_comes_again(&mut bob, &mut [&mut alice, &mut carol]);
    bob.vanish();
    gone(server, "bob");
    Client::open(server, &login).expect_none("new_message");
});

at_shards!(a_part_that_is_acknowledged_stays_acknowledged, LONG, |server| {
    let mut alice = Client::connect(server, "alice");
    let login = Login::of("bob").device("phone").acks();
    let mut bob = Client::open(server, &login);
    for content in ["one", "two", "three"] {
        alice.tell("bob", content);
    }
    bob.expect_many("new_message", 3);
    acknowledge(&mut bob, &json!("p:alice:bob"), 2);
    // Going back is ignored, and so is what belongs to others.
    acknowledge(&mut bob, &json!("p:alice:bob"), 1);
    bob.send("recv_ack", json!({"conversation_id": "p:alice:carol", "seq": 9}));
    bob.assert_alive();
    bob.vanish();
    gone(server, "bob");
    let mut bob = Client::open(server, &login);
    assert_eq!(bob.expect("new_message")["content"], "three");
    bob.expect_none("new_message");
});

at_shards!(acknowledging_the_future_skips_nothing, LONG, |server| {
    let mut alice = Client::connect(server, "alice");
    let login = Login::of("bob").device("phone").acks();
    let mut bob = Client::open(server, &login);
    alice.tell("bob", "one");
    bob.expect("new_message");
    acknowledge(&mut bob, &json!("p:alice:bob"), 1_000_000);
    bob.assert_alive();
    alice.tell("bob", "two");
    assert_eq!(bob.expect("new_message")["content"], "two");
    bob.vanish();
    alice.tell("bob", "three");
    let mut bob = Client::open(server, &login);
    let rest: Vec<Value> = std::iter::repeat_with(|| bob.expect("new_message")["seq"].clone()).take(1).collect();
    assert!(rest[0] == 2 || rest[0] == 1, "nothing unacknowledged is skipped: {rest:?}");
    while bob.expect("new_message")["content"] != "three" {}
});

at_shards!(without_acks_what_has_left_is_delivered, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect_on(server, "bob", "phone");
    alice.tell("bob", "one");
    assert!(!redelivered(&bob.expect("new_message")));
    bob.expect_none_for("new_message", Duration::from_secs(1));
    bob.leave();
    let mut bob = Client::connect_on(server, "bob", "phone");
    bob.expect_none("new_message");
});

at_shards!(each_device_acknowledges_for_itself, LONG, |server| {
    let mut alice = Client::connect(server, "alice");
    let logins = ["phone", "tablet"].map(|device| Login::of("bob").device(device).acks());
    let mut bobs = logins.each_ref().map(|login| Client::open(server, login));
    alice.tell("bob", "one");
    for bob in &mut bobs {
        bob.expect("new_message");
    }
    acknowledge(&mut bobs[0], &json!("p:alice:bob"), 1);
    bobs[0].assert_alive();
    bobs.into_iter().for_each(Client::vanish);
    gone(server, "bob");
    Client::open(server, &logins[0]).expect_none("new_message");
    assert_eq!(Client::open(server, &logins[1]).expect("new_message")["content"], "one");
});

at_shards!(a_message_that_may_be_lost_is_dropped_in_time, |server| {
    let mut alice = Client::connect(server, "alice");
    drop_out(server, "bob");
    alice.acked("send_message", json!({"to_user_id": "bob", "content": "stale", "loss_time": 1}));
    alice.acked("send_message", json!({"to_user_id": "bob", "content": "lasting", "loss_time": 0}));
    std::thread::sleep(Duration::from_millis(50));
    let mut bob = Client::connect(server, "bob");
    let skipped = bob.expect("messages_skipped");
    assert_eq!(skipped["conversation_id"], "p:alice:bob");
    assert_eq!((&skipped["from_seq"], &skipped["to_seq"], &skipped["reason"]), (&json!(1), &json!(1), &json!("expired")));
    let message = bob.expect("new_message");
    assert_eq!((&message["content"], &message["seq"]), (&json!("lasting"), &json!(2)));
    bob.expect_none("new_message");
});

/// Makes the user and its device known, and offline.
pub fn drop_out(server: &Server, user: &str) {
    Client::connect(server, user).leave();
    gone(server, user);
}

/// Waits until the server has noticed; what its devices acknowledged is on its way to the store by then.
fn gone(server: &Server, user: &str) {
    eventually("the connection is gone", || {
        let list = server.rest_ok("GET", &format!("/v1/connections?user={user}"), None);
        list["connections"].as_array().expect("a list").is_empty().then_some(())
    });
}

/// Shows that what the receiver has acknowledged comes no more, however slow everybody was: what was sent again before the server
/// heard of it may still be on its way, but not behind what is sent now. Acknowledges the one message that each sender sends.
fn nothing_comes_again(receiver: &mut Client, senders: &mut [&mut Client]) {
    receiver.assert_alive();
    let mut last: Vec<Value> = Vec::new();
    for sender in senders {
        let ack = sender.tell(&receiver.user.clone(), "the next one");
        while receiver.expect("new_message")["message_id"] != ack["message_id"] {}
        acknowledge(receiver, &ack["conversation_id"], ack["seq"].as_u64().expect("a number"));
        last.push(ack["message_id"].clone());
    }
    receiver.assert_alive();
    // What of these was sent again before it was acknowledged is here at the latest when the answer is; nothing older may be.
    receiver.listen(Duration::from_secs(3));
    let again = receiver.queued("new_message");
    assert!(again.iter().all(|message| redelivered(message) && last.contains(&message["message_id"])), "{again:?}");
}

fn acknowledge(client: &mut Client, conversation: &Value, seq: u64) {
    client.send("recv_ack", json!({"conversation_id": conversation, "seq": seq}));
}

fn redelivered(message: &Value) -> bool {
    message.get("redelivered").is_some_and(|flag| flag == true)
}

at_shards!(a_kill_repeats_little_for_those_who_confirm_nothing, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for number in 0..20 {
        alice.tell("bob", &number.to_string());
    }
    bob.expect_many("new_message", 20);
    // What was delivered some seconds before a kill is known after it; a server's pings are further apart than our patience.
    let mut wait = Duration::from_millis(500);
    eventually("deliveries are kept", || {
        bob.listen(wait);
        wait += Duration::from_millis(1_500);
        server.crash_and_restart();
        bob = Client::connect(server, "bob");
        bob.queued("new_message").is_empty().then_some(())
    });
});
