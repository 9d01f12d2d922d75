//! Who is online, on how many devices, since when not, and who is told.

use serde_json::{Value, json};

use super::groups::pair;
use crate::at_shards;
use crate::support::{Client, Login, eventually, token};

at_shards!(presence_counts_devices_and_remembers_the_last, |server| {
    let mut watcher = Client::connect(server, "watcher");
    let ask = |client: &mut Client| client.ask("get_presence", json!({"user_ids": ["alice", "unknown"]}))["users"].clone();
    let never = entry(&ask(&mut watcher), "unknown");
    assert_eq!((&never["status"], &never["devices"]), (&json!("offline"), &json!(0)));
    assert!(never.get("last_seen").is_none_or(Value::is_null), "{never}");

    let phone = Client::connect_on(server, "alice", "phone");
    let again = Client::connect_on(server, "alice", "phone");
    let laptop = Client::connect_on(server, "alice", "laptop");
    let online = entry(&ask(&mut watcher), "alice");
    assert_eq!((&online["status"], &online["devices"]), (&json!("online"), &json!(2)), "three connections, two devices");

    let before = token::now_millis();
    for client in [phone, again, laptop] {
        client.leave();
    }
    let offline =
        eventually("alice is offline", || Some(entry(&ask(&mut watcher), "alice")).filter(|own| own["status"] == "offline"));
    assert_eq!(offline["devices"], 0);
    assert!(offline["last_seen"].as_u64().is_some_and(|at| at + 1_000 >= before), "{offline}");
});

at_shards!(the_last_time_survives_a_restart, |server| {
    crate::delivery::drop_out(server, "alice");
    server.terminate();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.start_again();
    let mut watcher = Client::connect(server, "watcher");
    let users = watcher.ask("get_presence", json!({"user_ids": ["alice"]}))["users"].clone();
    assert!(entry(&users, "alice")["last_seen"].is_u64(), "{users}");
});

at_shards!(subscribers_are_told_of_changes, |server| {
    let mut watcher = Client::connect(server, "watcher");
    let now = watcher.ask("subscribe_presence", json!({"user_ids": ["alice"]}));
    assert_eq!(entry(&now["users"], "alice")["status"], "offline");
    let alice = Client::connect(server, "alice");
    expect_status(&mut watcher, "alice", "online");
    alice.leave();
    let offline = expect_status(&mut watcher, "alice", "offline");
    assert!(offline["last_seen"].is_u64(), "{offline}");
    watcher.acked("unsubscribe_presence", json!({"user_ids": ["alice"]}));
    let _alice = Client::connect(server, "alice");
    watcher.expect_none("presence");
});

at_shards!(a_lost_connection_counts_as_offline, |server| {
    let mut watcher = Client::connect(server, "watcher");
    watcher.ask("subscribe_presence", json!({"user_ids": ["alice"]}));
    let alice = Client::connect(server, "alice");
    expect_status(&mut watcher, "alice", "online");
    alice.vanish();
    expect_status(&mut watcher, "alice", "offline");
});

at_shards!(a_group_tells_how_many_are_online, |server| {
    let (mut owner, bob) = pair(server, true);
    let _tablet = Client::connect_on(server, "owner", "tablet");
    owner.acked("invite_to_group", json!({"group_id": "team", "user_ids": ["never-here"]}));
    let presence = eventually("both are counted", || {
        let presence = owner.ask("get_presence", json!({"group_id": "team"}));
        (presence["online"] == 2).then_some(presence)
    });
    assert_eq!(presence["group_id"], "team");
    assert_eq!(entry(&presence["users"], "bob")["status"], "online");
    bob.leave();
    eventually("one is left", || (owner.ask("get_presence", json!({"group_id": "team"}))["online"] == 1).then_some(()));
});

at_shards!(contacts_are_subscribed_on_wish, |server| {
    let mut alice = Client::connect(server, "alice");
    alice.tell("bob", "now we share a conversation");
    alice.leave();
    let mut bob = Client::open(server, &Login::of("bob").presence());
    let _stranger = Client::connect(server, "carol");
    let _alice = Client::connect(server, "alice");
    let online = expect_status(&mut bob, "alice", "online");
    assert_eq!(online["devices"], 1);
    bob.listen(crate::support::SILENCE);
    let told = bob.queued("presence");
    assert!(!told.iter().any(|data| data["users"].to_string().contains("carol")), "{told:?}");
});

at_shards!(only_contacts_see_it_when_configured, "[presence]\nvisible = \"contacts\"\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let mut stranger = Client::connect(server, "mallory");
    let mut bob = Client::connect(server, "bob");
    alice.tell("bob", "now we share a conversation");
    bob.expect("new_message");
    let seen = |client: &mut Client| client.ask("get_presence", json!({"user_ids": ["alice"]}))["users"].clone();
    eventually("bob sees alice", || (entry(&seen(&mut bob), "alice")["status"] == "online").then_some(()));
    let users = seen(&mut stranger);
    let hidden = users.as_array().expect("a list").iter().all(|own| own["status"] == "offline");
    assert!(hidden, "a stranger cannot tell online from never seen: {users}");
});

/// Waits for the push that says so.
fn expect_status(watcher: &mut Client, user: &str, status: &str) -> Value {
    loop {
        let data = watcher.expect("presence");
        let users = data["users"].as_array().expect("users").clone();
        if let Some(own) = users.into_iter().find(|own| own["user_id"] == user && own["status"] == status) {
            return own;
        }
    }
}

fn entry(users: &Value, user: &str) -> Value {
    let list = users.as_array().expect("a list of users");
    list.iter().find(|own| own["user_id"] == user).unwrap_or_else(|| panic!("{user} is missing in {users}")).clone()
}
