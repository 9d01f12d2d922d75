//! Typing: shown to those it concerns, never stored.

use serde_json::json;

use super::groups::pair;
use crate::at_shards;
use crate::support::Client;

at_shards!(the_peer_sees_typing_start_and_stop, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bobs = ["phone", "tablet"].map(|device| Client::connect_on(server, "bob", device));
    for state in ["start", "stop"] {
        alice.send("typing", json!({"to_user_id": "bob", "state": state}));
        for bob in &mut bobs {
            let typing = bob.expect("typing");
            assert_eq!((&typing["conversation_id"], &typing["user_id"]), (&json!("p:alice:bob"), &json!("alice")));
            assert_eq!(typing["state"], state);
        }
    }
    alice.expect_none("typing");
    alice.expect_none("ack");
});

at_shards!(members_see_typing_in_their_group, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let mut stranger = Client::connect(server, "mallory");
    owner.send("typing", json!({"group_id": "team", "state": "start"}));
    let typing = bob.expect("typing");
    assert_eq!((&typing["conversation_id"], &typing["user_id"]), (&json!("g:team"), &json!("owner")));
    stranger.expect_none("typing");
    stranger.ask_refused("NOT_A_MEMBER", "typing", json!({"group_id": "team", "state": "start"}));
    bob.expect_none("typing");
});

at_shards!(typing_is_never_stored, |server| {
    let mut alice = Client::connect(server, "alice");
    Client::connect(server, "bob").leave();
    alice.send("typing", json!({"to_user_id": "bob", "state": "start"}));
    assert_eq!(alice.tell("bob", "x")["seq"], 1);
    let mut bob = Client::connect(server, "bob");
    bob.expect_none("typing");
    assert_eq!(bob.ask("get_history", json!({"user_id": "alice"}))["messages"].as_array().map(Vec::len), Some(1));
});

at_shards!(a_state_is_start_or_stop, |server| {
    let mut alice = Client::connect(server, "alice");
    for data in
        [json!({"to_user_id": "bob", "state": "maybe"}), json!({"to_user_id": "bob", "state": 1}), json!({"state": "start"})]
    {
        alice.ask_refused("BAD_REQUEST", "typing", data);
    }
});
