//! History: pages, bounds and who may read what.

use serde_json::{Value, json};

use super::groups::pair;
use crate::at_shards;
use crate::support::{Client, Server};

at_shards!(without_bounds_it_is_the_newest_page_and_leads_back, |server| {
    let mut alice = with_log(server, 120);
    let mut page = alice.request("get_history", json!({"user_id": "bob"}));
    assert_eq!(page["type"], "history");
    let mut ranges = Vec::new();
    loop {
        let data = &page["data"];
        assert_eq!(data["conversation_id"], "p:alice:bob");
        ranges.push(seqs(data));
        if data["has_more"] == false {
            assert!(data.get("next").is_none_or(Value::is_null), "{}", data["next"]);
            break;
        }
        page = alice.request("get_history", json!({"user_id": "bob", "cursor": data["next"]}));
    }
    assert_eq!(ranges, [(71..=120).collect::<Vec<u64>>(), (21..=70).collect(), (1..=20).collect()]);
});

at_shards!(after_a_seq_it_is_the_oldest_page_and_leads_on, |server| {
    let mut alice = with_log(server, 25);
    let query = |after: Value, extra: &str| json!({"user_id": "bob", "limit": 10, extra: after});
    let first = alice.ask("get_history", query(json!(3), "after_seq"));
    assert_eq!((seqs(&first), &first["has_more"]), ((4..=13).collect(), &json!(true)));
    let mut following = query(json!(3), "after_seq");
    following["cursor"] = first["next"].clone();
    let second = alice.ask("get_history", following);
    assert_eq!((seqs(&second), &second["has_more"]), ((14..=23).collect(), &json!(true)));
    let mut following = query(json!(3), "after_seq");
    following["cursor"] = second["next"].clone();
    let third = alice.ask("get_history", following);
    assert_eq!((seqs(&third), &third["has_more"]), (vec![24, 25], &json!(false)));
});

at_shards!(bounds_are_exclusive_and_combine, |server| {
    let mut alice = with_log(server, 20);
    for (bounds, expected) in [
        (json!({"before_seq": 6}), vec![1, 2, 3, 4, 5]),
        (json!({"after_seq": 17}), vec![18, 19, 20]),
        (json!({"after_seq": 5, "before_seq": 9}), vec![6, 7, 8]),
        (json!({"after_seq": 5, "before_seq": 6}), vec![]),
        (json!({"before_seq": 1}), vec![]),
        (json!({"after_seq": 20}), vec![]),
        (json!({"before_seq": 1_000_000, "limit": 2}), vec![19, 20]),
        (json!({"before_seq": 10, "limit": 3}), vec![7, 8, 9]),
        (json!({"after_seq": 10, "limit": 3}), vec![11, 12, 13]),
    ] {
        let mut query = bounds.clone();
        query["user_id"] = json!("bob");
        assert_eq!(seqs(&alice.ask("get_history", query)), expected, "{bounds}");
    }
});

at_shards!(time_bounds_take_the_first_and_leave_the_last, |server| {
    let mut alice = Client::connect(server, "alice");
    let times: Vec<u64> = (0..4)
        .map(|index| {
            std::thread::sleep(std::time::Duration::from_millis(15));
            alice.tell("bob", &format!("m{index}"))["created_at"].as_u64().expect("milliseconds")
        })
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    for (bounds, expected) in [
        (json!({"since": times[1]}), vec![2, 3, 4]),
        (json!({"since": times[1] + 1}), vec![3, 4]),
        (json!({"until": times[2]}), vec![1, 2]),
        (json!({"until": times[2] + 1}), vec![1, 2, 3]),
        (json!({"since": times[1], "until": times[3]}), vec![2, 3]),
        (json!({"since": times[3] + 10_000}), vec![]),
    ] {
        let mut query = bounds.clone();
        query["user_id"] = json!("bob");
        assert_eq!(seqs(&alice.ask("get_history", query)), expected, "{bounds}");
    }
});

at_shards!(a_limit_is_from_1_and_held_to_200, |server| {
    let mut alice = with_log(server, 230);
    assert_eq!(seqs(&alice.ask("get_history", json!({"user_id": "bob"}))).len(), 50);
    assert_eq!(seqs(&alice.ask("get_history", json!({"user_id": "bob", "limit": 1}))), [230]);
    assert_eq!(seqs(&alice.ask("get_history", json!({"user_id": "bob", "limit": 200}))).len(), 200);
    assert_eq!(seqs(&alice.ask("get_history", json!({"user_id": "bob", "limit": 1_000_000_000}))).len(), 200);
    for limit in [json!(0), json!(-1), json!(1.5), json!("10")] {
        alice.ask_refused("BAD_REQUEST", "get_history", json!({"user_id": "bob", "limit": limit}));
    }
});

at_shards!(a_conversation_has_three_names, |server| {
    let (mut owner, mut bob) = pair(server, true);
    owner.tell("bob", "private");
    owner.tell_group("team", "public");
    for (kind, query, expected) in [
        ("get_history", json!({"user_id": "bob"}), "private"),
        ("get_history", json!({"conversation_id": "p:bob:owner"}), "private"),
        ("get_history", json!({"group_id": "team"}), "public"),
        ("get_group_history", json!({"group_id": "team"}), "public"),
        ("get_history", json!({"conversation_id": "g:team"}), "public"),
    ] {
        let page = owner.ask(kind, query.clone());
        assert_eq!(page["messages"][0]["content"], expected, "{query}");
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(1), "{query}");
    }
    for query in [json!({}), json!({"user_id": "bob", "group_id": "team"}), json!({"conversation_id": "p:owner:bob"})] {
        owner.ask_refused("BAD_REQUEST", "get_history", query);
    }
    let system = bob.ask("get_history", json!({"conversation_id": "s:bob"}));
    assert_eq!(system["messages"][0]["kind"], "group_invite");
});

at_shards!(an_unused_conversation_is_empty, |server| {
    let mut alice = Client::connect(server, "alice");
    let page = alice.ask("get_history", json!({"user_id": "nobody-yet"}));
    assert_eq!((&page["messages"], &page["has_more"]), (&json!([]), &json!(false)));
});

at_shards!(others_cannot_read_it, |server| {
    let _alice = with_log(server, 3);
    let mut mallory = Client::connect(server, "mallory");
    for conversation in ["p:alice:bob", "s:alice"] {
        let reply = mallory.request("get_history", json!({"conversation_id": conversation}));
        let name = reply["data"]["name"].as_str().unwrap_or("none");
        assert!(matches!(name, "NOT_A_MEMBER" | "FORBIDDEN"), "{conversation}: {reply}");
    }
});

at_shards!(entries_are_what_was_delivered, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let data =
        json!({"to_user_id": "bob", "msg_type": "location", "content": {"lat": 1.5}, "ext": {"a": 1}, "mentions": ["bob"]});
    alice.request_as("mine", "send_message", data);
    let pushed = bob.expect("new_message");
    assert_eq!(bob.ask("get_history", json!({"user_id": "alice"}))["messages"][0], pushed);
});

/// Alice, with a conversation with Bob of `count` messages.
fn with_log(server: &Server, count: usize) -> Client {
    let mut alice = Client::connect(server, "alice");
    for index in 1..=count {
        let data = json!({"to_user_id": "bob", "content": format!("m{index}")});
        alice.send_json(&json!({"type": "send_message", "message_id": format!("m{index}"), "data": data}));
        if index % 50 == 0 || index == count {
            assert_eq!(alice.reply_to(&format!("m{index}"))["data"]["seq"], index);
        }
    }
    alice
}

fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("no messages in {page}"));
    messages.iter().map(|message| message["seq"].as_u64().expect("a number")).collect()
}
