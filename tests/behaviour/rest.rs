//! The REST API as other programs use it: sending, groups, and what users would find.

use serde_json::{Value, json};

use super::control::pages;
use super::delivery::drop_out;
use crate::at_shards;
use crate::support::{Client, eventually};

at_shards!(a_program_sends_as_a_user, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let body = json!({"sender_id": "alice", "to_user_id": "bob", "content": "by program", "message_id": "r1"});
    let sent = server.rest_ok("POST", "/v1/messages", Some(body.clone()));
    assert_eq!((&sent["conversation_id"], &sent["seq"], &sent["duplicate"]), (&json!("p:alice:bob"), &json!(1), &json!(false)));
    for client in [&mut alice, &mut bob] {
        let message = client.expect("new_message");
        assert_eq!((&message["message_id"], &message["content"]), (&sent["message_id"], &json!("by program")));
        assert_eq!((&message["sender_id"], &message["created_at"]), (&json!("alice"), &sent["created_at"]));
    }
    let again = server.rest_ok("POST", "/v1/messages", Some(body));
    assert_eq!((&again["duplicate"], &again["message_id"]), (&json!(true), &sent["message_id"]));
    bob.expect_none("new_message");
});

at_shards!(a_program_notifies_as_the_system, |server| {
    let mut bob = Client::connect(server, "bob");
    let body = json!({"to_user_id": "bob", "kind": "friend_request", "content": {"from": "alice"}});
    let sent = server.rest_ok("POST", "/v1/messages", Some(body));
    assert_eq!(sent["conversation_id"], "s:bob");
    let notification = bob.expect("notification");
    assert_eq!((&notification["kind"], &notification["seq"]), (&json!("friend_request"), &json!(1)));
    assert_eq!((&notification["conversation_id"], &notification["content"]), (&json!("s:bob"), &json!({"from": "alice"})));
    assert_eq!(bob.ask("get_unread", json!({}))["total"], 1, "notifications are unread");
});

at_shards!(an_announcement_reaches_everybody, |server| {
    drop_out(server, "away");
    let mut clients = ["alice", "bob"].map(|user| Client::connect(server, user));
    let sent = server.rest_ok("POST", "/v1/messages", Some(json!({"announcement": true, "content": "maintenance at noon"})));
    assert!(sent["message_id"].is_string() && sent["recipients"].as_u64().is_some_and(|count| count >= 2), "{sent}");
    for client in &mut clients {
        let notification = client.expect("notification");
        assert_eq!((&notification["kind"], &notification["content"]), (&json!("announcement"), &json!("maintenance at noon")));
    }
});

at_shards!(what_cannot_be_sent_is_refused, |server| {
    for body in [
        json!({}),
        json!({"content": "x"}),
        json!({"to_user_id": "bob"}),
        json!({"to_user_id": "bob", "group_id": "g", "sender_id": "a", "content": "x"}),
        json!({"sender_id": "alice", "to_user_id": "", "content": "x"}),
        json!({"sender_id": "alice", "to_user_id": "bob", "content": 7}),
    ] {
        let response = server.rest("POST", "/v1/messages", Some(body.clone()));
        assert_eq!((response.status, response.error_name().as_str()), (400, "BAD_REQUEST"), "{body}");
    }
    let response = server.rest("POST", "/v1/messages", Some(json!({"sender_id": "a", "group_id": "none", "content": "x"})));
    assert_eq!((response.status, response.error_name().as_str()), (404, "NO_SUCH_GROUP"));
});

at_shards!(groups_are_made_changed_and_deleted, |server| {
    let mut bob = Client::connect(server, "bob");
    let body = json!({"group_id": "team", "name": "Team", "owner_id": "alice", "members": ["bob"]});
    assert_eq!(server.rest_ok("POST", "/v1/groups", Some(body.clone()))["group_id"], "team");
    assert_eq!(server.rest("POST", "/v1/groups", Some(body)).error_name(), "ALREADY_EXISTS");
    assert_eq!(bob.expect("notification")["content"]["group_id"], "team");
    let group = server.rest_ok("GET", "/v1/groups/team", None);
    assert_eq!((&group["group_id"], &group["name"]), (&json!("team"), &json!("Team")));

    server.rest_ok("POST", "/v1/groups/team/members", Some(json!({"user_ids": ["carol", "dave"]})));
    server.rest_ok("PUT", "/v1/groups/team/members/carol", Some(json!({"role": "admin"})));
    assert_eq!(
        roles(&pages(server, "/v1/groups/team/members?limit=2", "members")),
        [("alice", "owner"), ("bob", "member"), ("carol", "admin"), ("dave", "member"),]
    );
    assert!(server.rest("DELETE", "/v1/groups/team/members/dave", None).status < 300);
    assert!(server.rest("DELETE", "/v1/groups/team/members", Some(json!({"user_ids": ["carol"]}))).status < 300);
    assert_eq!(roles(&pages(server, "/v1/groups/team/members?limit=9", "members")), [("alice", "owner"), ("bob", "member")]);
    assert!(server.rest("DELETE", "/v1/groups/team", None).status < 300);
    assert_eq!(server.rest("GET", "/v1/groups/team", None).error_name(), "NO_SUCH_GROUP");
    bob.ask_refused("NO_SUCH_GROUP", "join_group", json!({"group_id": "team"}));
});

at_shards!(what_users_would_find_can_be_looked_up, |server| {
    drop_out(server, "bob");
    let mut alice = Client::connect(server, "alice");
    for index in 1..=5 {
        alice.tell("bob", &format!("m{index}"));
    }
    let presence = server.rest_ok("GET", "/v1/users/alice/presence", None);
    assert_eq!((&presence["status"], &presence["devices"]), (&json!("online"), &json!(1)), "{presence}");
    let unread = server.rest_ok("GET", "/v1/users/bob/unread", None);
    assert_eq!((&unread["total"], &unread["conversations"][0]["unread"]), (&json!(5), &json!(5)));
    let conversations = server.rest_ok("GET", "/v1/users/bob/conversations", None);
    assert_eq!(conversations["conversations"][0]["conversation_id"], "p:alice:bob");
    for path in ["/v1/users/bob/offline?limit=2", "/v1/conversations/p:alice:bob/messages?after_seq=0&limit=2"] {
        let seqs: Vec<Value> = pages(server, path, "messages").iter().map(|message| message["seq"].clone()).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5], "{path}");
    }
    let newest = server.rest_ok("GET", "/v1/conversations/p%3Aalice%3Abob/messages?limit=2", None);
    assert_eq!((&newest["messages"][0]["seq"], &newest["has_more"]), (&json!(4), &json!(true)));
    Client::connect(server, "bob").leave();
    eventually("nothing is left to be pushed", || {
        let offline = server.rest_ok("GET", "/v1/users/bob/offline", None);
        (offline["messages"] == json!([])).then_some(())
    });
});

fn roles(members: &[Value]) -> Vec<(&str, &str)> {
    let mut roles: Vec<(&str, &str)> = members
        .iter()
        .map(|member| (member["user_id"].as_str().expect("an id"), member["role"].as_str().expect("a role")))
        .collect();
    roles.sort_unstable();
    roles
}
