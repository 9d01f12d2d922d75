//! Groups: how they come to be, who may do what in them, who is told, and who is a stranger.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, Server};

at_shards!(a_created_group_reaches_every_member_once, |server| {
    let mut owner = Client::connect(server, "owner");
    let mut members = ["bob", "carol"].map(|user| Client::connect(server, user));
    let mut tablet = Client::connect_on(server, "bob", "tablet");
    let created = owner.acked("create_group", json!({"group_id": "team", "name": "Team", "members": ["bob", "carol"]}));
    assert_eq!(created["group_id"], "team");
    for client in members.iter_mut().chain([&mut tablet]) {
        let invited = client.expect("notification");
        assert_eq!(invited["kind"], "group_invite");
        assert_eq!(invited["conversation_id"], format!("s:{}", client.user));
        assert_eq!(invited["seq"], 1);
        assert_eq!((&invited["content"]["group_id"], &invited["content"]["by"]), (&json!("team"), &json!("owner")));
    }
    owner.expect_none("notification");
    let ack = owner.acked("send_message", json!({"group_id": "team", "content": "welcome"}));
    assert_eq!((&ack["conversation_id"], &ack["seq"]), (&json!("g:team"), &json!(1)));
    for client in members.iter_mut().chain([&mut tablet]) {
        let message = client.expect("new_message");
        assert_eq!((&message["group_id"], &message["seq"], &message["content"]), (&json!("team"), &json!(1), &json!("welcome")));
        assert_eq!(message["sender_id"], "owner");
        assert!(message.get("to_user_id").is_none_or(Value::is_null));
        client.expect_none("new_message");
    }
    owner.expect_none("new_message");
});

at_shards!(both_verbs_send_to_groups, |server| {
    let (mut owner, mut bob) = pair(server, true);
    owner.acked("send_group_message", json!({"group_id": "team", "content": "one", "mentions": "all"}));
    owner.acked("send_message", json!({"group_id": "team", "content": "two"}));
    let messages = bob.expect_many("new_message", 2);
    assert_eq!((&messages[0]["content"], &messages[0]["mentions"]), (&json!("one"), &json!("all")));
    assert_eq!((&messages[1]["content"], &messages[1]["seq"]), (&json!("two"), &json!(2)));
    owner.ask_refused("BAD_REQUEST", "send_group_message", json!({"content": "nowhere"}));
});

at_shards!(a_group_without_a_name_gets_one, |server| {
    let mut owner = Client::connect(server, "owner");
    let one = owner.acked("create_group", json!({}))["group_id"].clone();
    let other = owner.acked("create_group", json!({"name": "x"}))["group_id"].clone();
    assert!(one.as_str().is_some_and(|id| !id.is_empty()) && one != other, "{one} {other}");
    assert_eq!(
        owner.tell_group(one.as_str().expect("checked"), "hi")["conversation_id"],
        format!("g:{}", one.as_str().expect("checked"))
    );
});

at_shards!(a_taken_id_is_refused, |server| {
    let (mut owner, mut bob) = pair(server, true);
    owner.ask_refused("ALREADY_EXISTS", "create_group", json!({"group_id": "team"}));
    bob.ask_refused("ALREADY_EXISTS", "create_group", json!({"group_id": "team"}));
    let mut stranger = Client::connect(server, "mallory");
    stranger.ask_refused("ALREADY_EXISTS", "create_group", json!({"group_id": "team"}));
    owner.tell_group("team", "unchanged");
    assert_eq!(bob.expect("new_message")["content"], "unchanged");
});

at_shards!(anyone_joins_an_open_group, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let mut carol = Client::connect(server, "carol");
    carol.ask_refused("NOT_A_MEMBER", "send_group_message", json!({"group_id": "team", "content": "x"}));
    carol.acked("join_group", json!({"group_id": "team"}));
    for client in [&mut owner, &mut bob] {
        let event = next_event(client, "joined");
        assert_eq!((&event["group_id"], &event["user_ids"]), (&json!("team"), &json!(["carol"])));
    }
    carol.tell_group("team", "hello");
    assert_eq!(bob.expect("new_message")["sender_id"], "carol");
    owner.tell_group("team", "welcome");
    assert_eq!(carol.expect("new_message")["content"], "welcome");
});

at_shards!(a_closed_group_does_not_exist_for_strangers, |server| {
    let (_owner, _bob) = pair(server, false);
    let mut stranger = Client::connect(server, "mallory");
    for group in ["team", "never-made"] {
        for (kind, data) in [
            ("join_group", json!({"group_id": group})),
            ("leave_group", json!({"group_id": group})),
            ("send_group_message", json!({"group_id": group, "content": "x"})),
            ("get_group_history", json!({"group_id": group})),
            ("get_history", json!({"conversation_id": format!("g:{group}")})),
            ("get_presence", json!({"group_id": group})),
            ("subscribe_presence", json!({"group_id": group})),
            ("mark_read", json!({"group_id": group, "seq": 1})),
            ("invite_to_group", json!({"group_id": group, "user_ids": ["mallory"]})),
            ("remove_from_group", json!({"group_id": group, "user_ids": ["bob"]})),
        ] {
            stranger.ask_refused("NO_SUCH_GROUP", kind, data);
        }
    }
});

at_shards!(a_stranger_of_an_open_group_is_not_a_member, |server| {
    let (mut owner, _bob) = pair(server, true);
    owner.tell_group("team", "secret");
    let mut stranger = Client::connect(server, "mallory");
    for (kind, data) in [
        ("send_group_message", json!({"group_id": "team", "content": "x"})),
        ("get_group_history", json!({"group_id": "team"})),
        ("get_presence", json!({"group_id": "team"})),
        ("invite_to_group", json!({"group_id": "team", "user_ids": ["mallory"]})),
        ("remove_from_group", json!({"group_id": "team", "user_ids": ["bob"]})),
        ("leave_group", json!({"group_id": "team"})),
    ] {
        stranger.ask_refused("NOT_A_MEMBER", kind, data);
    }
    owner.tell_group("team", "more");
    stranger.expect_none("new_message");
});

at_shards!(whoever_leaves_is_out, |server| {
    let (mut owner, mut bob) = pair(server, false);
    bob.acked("leave_group", json!({"group_id": "team"}));
    let event = next_event(&mut owner, "left");
    assert_eq!((&event["group_id"], &event["user_ids"]), (&json!("team"), &json!(["bob"])));
    owner.tell_group("team", "without bob");
    bob.expect_none("new_message");
    // A former member is told the truth, also about a group that is not open.
    bob.ask_refused("NOT_A_MEMBER", "send_group_message", json!({"group_id": "team", "content": "x"}));
    bob.ask_refused("NOT_A_MEMBER", "get_group_history", json!({"group_id": "team"}));
    bob.leave();
    let mut bob = Client::connect(server, "bob");
    bob.expect_none("new_message");
});

at_shards!(leaving_and_sending_in_one_packet_happen_in_order, |server| {
    let (mut owner, mut bob) = pair(server, true);
    bob.send_json(&json!({"type": "leave_group", "message_id": "1", "data": {"group_id": "team"}}));
    bob.send_json(&json!({"type": "send_group_message", "message_id": "2", "data": {"group_id": "team", "content": "late"}}));
    assert_eq!(bob.reply_to("1")["type"], "ack");
    assert_eq!(bob.reply_to("2")["data"]["name"], "NOT_A_MEMBER");
    owner.expect_none("new_message");
});

at_shards!(only_owner_and_admins_invite_and_remove, |server| {
    let (mut owner, mut bob) = pair(server, false);
    let mut carol = Client::connect(server, "carol");
    bob.ask_refused("FORBIDDEN", "invite_to_group", json!({"group_id": "team", "user_ids": ["carol"]}));
    bob.ask_refused("FORBIDDEN", "remove_from_group", json!({"group_id": "team", "user_ids": ["owner"]}));
    server.rest_ok("PUT", "/v1/groups/team/members/bob", Some(json!({"role": "admin"})));
    bob.acked("invite_to_group", json!({"group_id": "team", "user_ids": ["carol"]}));
    let invited = carol.expect("notification");
    assert_eq!((&invited["kind"], &invited["content"]["by"]), (&json!("group_invite"), &json!("bob")));
    let event = next_event(&mut owner, "joined");
    assert_eq!((&event["user_ids"], &event["by"]), (&json!(["carol"]), &json!("bob")));
    owner.tell_group("team", "hello carol");
    assert_eq!(carol.expect("new_message")["content"], "hello carol");

    bob.acked("remove_from_group", json!({"group_id": "team", "user_ids": ["carol"]}));
    let event = next_event(&mut owner, "removed");
    assert_eq!((&event["user_ids"], &event["by"]), (&json!(["carol"]), &json!("bob")));
    owner.tell_group("team", "without carol");
    carol.expect_none("new_message");
    carol.ask_refused("NOT_A_MEMBER", "send_group_message", json!({"group_id": "team", "content": "x"}));
});

at_shards!(an_invited_member_who_is_away_learns_of_it_later, |server| {
    let (mut owner, _bob) = pair(server, false);
    owner.tell_group("team", "before");
    owner.acked("invite_to_group", json!({"group_id": "team", "user_ids": ["dave"]}));
    owner.tell_group("team", "after");
    let mut dave = Client::connect(server, "dave");
    assert_eq!(dave.expect("notification")["content"]["group_id"], "team");
    let message = dave.expect("new_message");
    assert_eq!((&message["content"], &message["seq"]), (&json!("after"), &json!(2)));
    dave.expect_none("new_message");
});

at_shards!(whoever_joins_starts_at_the_present, |server| {
    let (mut owner, _bob) = pair(server, true);
    owner.tell_group("team", "before");
    let mut carol = Client::connect(server, "carol");
    carol.acked("join_group", json!({"group_id": "team"}));
    owner.tell_group("team", "after");
    assert_eq!(carol.expect("new_message")["seq"], 2);
    let page = carol.ask("get_group_history", json!({"group_id": "team"}));
    assert_eq!(contents(&page), ["after"]);
    carol.leave();
    let mut carol = Client::connect(server, "carol");
    carol.expect_none("new_message");
});

at_shards!(all_history_is_open_when_configured, "[groups]\nhistory = \"all\"\n", |server| {
    let (mut owner, _bob) = pair(server, true);
    owner.tell_group("team", "before");
    let mut carol = Client::connect(server, "carol");
    carol.acked("join_group", json!({"group_id": "team"}));
    owner.tell_group("team", "after");
    assert_eq!(carol.expect("new_message")["seq"], 2, "pushes still start at the present");
    assert_eq!(contents(&carol.ask("get_group_history", json!({"group_id": "team"}))), ["before", "after"]);
});

at_shards!(ownership_passes_to_the_oldest_admin_else_member, |server| {
    let mut users = ["owner", "bob", "carol", "dave"].map(|user| Client::connect(server, user));
    users[0].acked("create_group", json!({"group_id": "team", "open": false}));
    for user in ["bob", "carol", "dave"] {
        users[0].acked("invite_to_group", json!({"group_id": "team", "user_ids": [user]}));
    }
    server.rest_ok("PUT", "/v1/groups/team/members/carol", Some(json!({"role": "admin"})));
    users[0].acked("leave_group", json!({"group_id": "team"}));
    assert_eq!(role_of(server, "carol"), "owner", "the only admin");
    assert_eq!(role_of(server, "bob"), "member");
    users[2].acked("leave_group", json!({"group_id": "team"}));
    assert_eq!(role_of(server, "bob"), "owner", "the longest-standing member");
    users[1].acked("invite_to_group", json!({"group_id": "team", "user_ids": ["erin"]}));
});

at_shards!(an_empty_group_is_gone, |server| {
    let (mut owner, mut bob) = pair(server, true);
    bob.acked("leave_group", json!({"group_id": "team"}));
    owner.acked("leave_group", json!({"group_id": "team"}));
    let mut carol = Client::connect(server, "carol");
    carol.ask_refused("NO_SUCH_GROUP", "join_group", json!({"group_id": "team"}));
    assert_eq!(server.rest("GET", "/v1/groups/team", None).status, 404);
});

at_shards!(groups_and_members_survive_a_crash, |server| {
    {
        let (mut owner, _bob) = pair(server, false);
        owner.tell_group("team", "one");
    }
    server.crash_and_restart();
    let mut owner = Client::connect(server, "owner");
    let mut bob = Client::connect(server, "bob");
    assert_eq!(owner.tell_group("team", "two")["seq"], 2);
    let last = std::iter::repeat_with(|| bob.expect("new_message")).find(|message| message["seq"] == 2);
    assert_eq!(last.expect("repeat never ends")["content"], "two");
    owner.acked("invite_to_group", json!({"group_id": "team", "user_ids": ["carol"]}));
});

at_shards!(group_repeats_are_stored_once, |server| {
    let (mut owner, mut bob) = pair(server, true);
    let data = json!({"group_id": "team", "content": "once"});
    let first = owner.request_as("same", "send_group_message", data.clone())["data"].clone();
    let again = owner.request_as("same", "send_message", data)["data"].clone();
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!((&first["message_id"], &first["seq"]), (&again["message_id"], &again["seq"]));
    bob.expect("new_message");
    bob.expect_none("new_message");
});

at_shards!(group_ids_may_be_odd, |server| {
    let mut owner = Client::connect(server, "owner");
    let mut bob = Client::connect(server, "bob");
    for id in ["a:b", "100%", "名前/..", &"é".repeat(64)] {
        owner.acked("create_group", json!({"group_id": id, "members": ["bob"]}));
        let ack = owner.tell_group(id, "x");
        assert_eq!(ack["conversation_id"], format!("g:{}", id.replace('%', "%25").replace(':', "%3A")));
        assert_eq!(bob.expect("new_message")["group_id"], id);
    }
    for id in [String::new(), "x".repeat(129), "a\nb".to_owned()] {
        owner.ask_refused("BAD_REQUEST", "create_group", json!({"group_id": id}));
    }
});

/// The group `team` of `owner` and `bob`, both online and past the news of its creation.
pub fn pair(server: &Server, open: bool) -> (Client, Client) {
    let mut owner = Client::connect(server, "owner");
    let mut bob = Client::connect(server, "bob");
    owner.acked("create_group", json!({"group_id": "team", "members": ["bob"], "open": open}));
    bob.expect("notification");
    (owner, bob)
}

/// The next `group_event` of this kind.
fn next_event(client: &mut Client, event: &str) -> Value {
    let wanted = |message: &Value| message["type"] == "group_event" && message["data"]["event"] == event;
    client.take_where(event, wanted)["data"].clone()
}

fn contents(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().expect("a page has messages");
    messages.iter().map(|message| message["content"].as_str().expect("text")).collect()
}

fn role_of(server: &Server, user: &str) -> String {
    let members = server.rest_ok("GET", "/v1/groups/team/members", None);
    let members = members["members"].as_array().expect("a list of members");
    let member = members.iter().find(|member| member["user_id"] == user).unwrap_or_else(|| panic!("{user} is no member"));
    member["role"].as_str().expect("a role").to_owned()
}
