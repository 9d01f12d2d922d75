//! Taking back and hiding: what stays, what goes, and who may.

use serde_json::{Value, json};

use super::delivery::drop_out;
use super::groups::pair;
use crate::at_shards;
use crate::support::{Client, token};

at_shards!(a_recalled_message_keeps_its_place_and_loses_its_content, |server| {
    drop_out(server, "bob");
    let mut alice = Client::connect(server, "alice");
    let mut carol = Client::connect_on(server, "alice", "laptop");
    let ack = alice.acked("send_message", json!({"to_user_id": "bob", "content": "SECRET", "ext": {"k": "SECRET"}}));
    alice.tell("bob", "after");
    alice.acked("recall_message", json!({"message_id": ack["message_id"]}));
    let recalled = carol.expect("message_recalled");
    assert_eq!((&recalled["conversation_id"], &recalled["seq"]), (&json!("p:alice:bob"), &json!(1)));
    assert_eq!((&recalled["message_id"], &recalled["by"]), (&ack["message_id"], &json!("alice")));
    let mut bob = Client::connect(server, "bob");
    let first = bob.expect("new_message");
    assert_eq!((&first["seq"], &first["recalled"]), (&json!(1), &json!(true)));
    assert_eq!(bob.expect("new_message")["content"], "after");
    let history = bob.ask("get_history", json!({"user_id": "alice"}));
    assert_eq!(history["messages"][0]["recalled"], true);
    for place in [&first, &history] {
        assert!(!place.to_string().contains("SECRET"), "{place}");
    }
    assert_eq!(bob.ask("get_unread", json!({}))["total"], 1, "a recalled message is not unread");
    server.crash_and_restart();
    let history = Client::connect(server, "bob").ask("get_history", json!({"user_id": "alice"}));
    assert!(!history.to_string().contains("SECRET"), "{history}");
});

at_shards!(everyone_in_the_conversation_learns_of_it, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let id = owner.tell_group("team", "x")["message_id"].clone();
    bob.expect("new_message");
    owner.acked("recall_message", json!({"message_id": id}));
    assert_eq!(bob.expect("message_recalled")["message_id"], id);
});

at_shards!(only_the_sender_or_a_group_admin_may_recall, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let private = owner.tell("bob", "x")["message_id"].clone();
    bob.ask_refused("FORBIDDEN", "recall_message", json!({"message_id": private}));
    let public = owner.tell_group("team", "x")["message_id"].clone();
    bob.ask_refused("FORBIDDEN", "recall_message", json!({"message_id": public}));
    let own = bob.tell_group("team", "y")["message_id"].clone();
    owner.acked("recall_message", json!({"message_id": own}));
    let mut stranger = Client::connect(server, "mallory");
    for id in [&private, &public] {
        let reply = stranger.request("recall_message", json!({"message_id": id}));
        let name = reply["data"]["name"].as_str().unwrap_or("none");
        assert!(matches!(name, "FORBIDDEN" | "NOT_A_MEMBER" | "NO_SUCH_MESSAGE"), "{reply}");
    }
    let unknown = json!({"message_id": "0190a6e0-0000-7000-8000-000000000000"});
    owner.ask_refused("NO_SUCH_MESSAGE", "recall_message", unknown);
    for id in [json!("no uuid"), json!(7), json!("")] {
        let reply = owner.request("recall_message", json!({"message_id": id}));
        assert!(matches!(reply["data"]["name"].as_str(), Some("BAD_REQUEST" | "NO_SUCH_MESSAGE")), "{reply}");
    }
});

at_shards!(after_the_window_it_is_too_late, "[messages]\nrecall_window = \"1s\"\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let ack = alice.tell("bob", "x");
    while token::now_millis() <= ack["created_at"].as_u64().expect("milliseconds") + 1_100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    alice.ask_refused("RECALL_WINDOW_PASSED", "recall_message", json!({"message_id": ack["message_id"]}));
});

at_shards!(a_deleted_message_is_hidden_from_its_deleter_only, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let ids: Vec<Value> = (0..3).map(|index| alice.tell("bob", &format!("m{index}"))["message_id"].clone()).collect();
    bob.expect_many("new_message", 3);
    bob.acked("delete_message", json!({"message_id": ids[1]}));
    let mut tablet = Client::connect_on(server, "bob", "tablet");
    for client in [&mut bob, &mut tablet] {
        assert_eq!(contents(&client.ask("get_history", json!({"user_id": "alice"}))), ["m0", "m2"]);
    }
    assert_eq!(contents(&alice.ask("get_history", json!({"user_id": "bob"}))), ["m0", "m1", "m2"]);
    let mut mallory = Client::connect(server, "mallory");
    let reply = mallory.request("delete_message", json!({"message_id": ids[0]}));
    let name = reply["data"]["name"].as_str().unwrap_or("none");
    assert!(matches!(name, "FORBIDDEN" | "NOT_A_MEMBER" | "NO_SUCH_MESSAGE"), "{reply}");
});

fn contents(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().expect("a page has messages");
    messages.iter().map(|message| message["content"].as_str().expect("text")).collect()
}
