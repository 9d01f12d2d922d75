//! Stories of messages: who gets them, how often, in which order, and what can be asked about them later.

use serde_json::{Value, json};

use super::World;
use super::{Plan, on_all_shards, on_all_shards_with};

#[test]
fn a_private_message_reaches_all_devices_but_the_one_that_sent_it() {
    on_all_shards(|mut world| {
        let (ann, ann2) = (world.online("ann", "phone"), world.online("ann", "desk"));
        let (bob, bob2) = (world.online("bob", "phone"), world.online("bob", "desk"));
        for at in 0..20 {
            let (line, to) = if at % 2 == 0 { (ann, "bob") } else { (bob, "ann") };
            world.send(line, &format!("m{at}"), json!({"to_user_id": to, "content": at.to_string()}));
        }
        world.settle();
        let seqs =
            |line| -> Vec<u64> { world.of_kind(line, "new_message").iter().map(|data| data["seq"].as_u64().unwrap()).collect() };
        assert_eq!(seqs(ann2), (1..=20).collect::<Vec<_>>());
        assert_eq!(world.contents(ann2), world.contents(bob2));
        assert_eq!((world.contents(ann).len(), world.contents(bob).len()), (10, 10));
        let acks = world.of_kind(ann, "ack");
        assert_eq!(acks.len(), 10);
        assert!(acks.iter().all(|ack| ack["duplicate"] == false && ack["conversation_id"] == "p:ann:bob"));
        world.end();
    });
}

#[test]
fn a_repeat_is_stored_once() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        for _ in 0..3 {
            world.send(ann, "same", json!({"to_user_id": "bob", "content": "once"}));
        }
        world.settle();
        world.send(ann, "same", json!({"to_user_id": "cid", "content": "elsewhere"}));
        world.settle();
        let acks = world.of_kind(ann, "ack");
        assert_eq!(acks.len(), 4);
        assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == false).count(), 1);
        assert!(acks.iter().all(|ack| ack["message_id"] == acks[0]["message_id"] && ack["seq"] == 1));
        assert_eq!(world.contents(bob), ["once"]);
        world.end();
    });
}

#[test]
fn a_repeat_is_acknowledged_also_after_leaving() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        world.send(bob, "same", json!({"group_id": "g", "content": "once"}));
        world.settle();
        world.ask(bob, "leave_group", json!({"group_id": "g"}));
        for (id, kind) in [("same", "ack"), ("new", "error")] {
            world.send(bob, id, json!({"group_id": "g", "content": "again"}));
            world.settle();
            assert_eq!(world.kinds(bob).last().map(String::as_str), Some(kind));
        }
        let acks = world.of_kind(bob, "ack");
        assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == true && ack["seq"] == 1).count(), 1);
        assert_eq!(world.contents(ann), ["once"]);
        world.end();
    });
}

#[test]
fn what_came_while_away_is_pushed_at_connect_then_sync_done() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        world.node.close(bob);
        world.settle();
        assert!(world.node.line(bob).is_lost());
        for at in 0..600 {
            world.send(ann, &format!("p{at}"), json!({"to_user_id": "bob", "content": format!("p{at}")}));
            world.send(ann, &format!("g{at}"), json!({"group_id": "g", "content": format!("g{at}")}));
        }
        world.node.run_ms(3_000);
        let bob = world.auth("bob", "phone", json!({}));
        world.node.run_ms(1_000);
        let contents = world.contents(bob);
        assert_eq!(contents.len(), 1_200);
        for (letter, of) in [("p", 0..600), ("g", 0..600)] {
            let mine: Vec<&String> = contents.iter().filter(|content| content.starts_with(letter)).collect();
            assert!(mine.iter().zip(of).all(|(content, at)| **content == format!("{letter}{at}")));
        }
        assert_eq!(world.of_kind(bob, "sync_done").len(), 1);
        assert_eq!(world.kinds(bob).last().unwrap(), "sync_done");
        // Nothing of it comes again at the next visit.
        world.node.close(bob);
        world.settle();
        let bob = world.online("bob", "phone");
        assert_eq!(world.kinds(bob), ["auth_success", "sync_done"]);
        // A new device starts at the present.
        let desk = world.online("bob", "desk");
        assert_eq!(world.kinds(desk), ["auth_success", "sync_done"]);
        world.end();
    });
}

#[test]
fn a_reader_who_stops_is_refilled_from_the_log() {
    let small = |plan: &mut Plan| plan.settings.outbox_bytes_max = 4_000;
    on_all_shards_with(small, |mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        world.node.set_reading(bob, false);
        for at in 0..300 {
            let to = if at % 2 == 0 {
                json!({"to_user_id": "bob", "content": at.to_string()})
            } else {
                json!({"group_id": "g", "content": at.to_string()})
            };
            world.send(ann, &at.to_string(), to);
        }
        world.node.run_ms(2_000);
        let lagging: u64 = (0..world.node.shards()).map(|shard| world.node.counters(shard).lagging).sum();
        assert_eq!(lagging, 1);
        assert!(world.contents(bob).is_empty());
        world.node.set_reading(bob, true);
        world.node.run_ms(3_000);
        let contents = world.contents(bob);
        assert_eq!(contents.len(), 300);
        for parity in 0..2 {
            let mine: Vec<u64> = contents.iter().map(|content| content.parse().unwrap()).filter(|at| at % 2 == parity).collect();
            assert!(mine.is_sorted_by(|one, other| one < other));
        }
        let lagging: u64 = (0..world.node.shards()).map(|shard| world.node.counters(shard).lagging).sum();
        assert_eq!(lagging, 0);
        world.end();
    });
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_then_the_connection_is_given_up() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let bob = world.auth("bob", "phone", json!({"acks": true}));
        world.settle();
        for at in ["a", "b", "c"] {
            world.send(ann, at, json!({"to_user_id": "bob", "content": at}));
        }
        world.settle();
        assert_eq!(world.contents(bob), ["a", "b", "c"]);
        world.node.say(bob, &json!({"type": "recv_ack", "data": {"conversation_id": "p:ann:bob", "seq": 1}}));
        world.node.run_ms(11_000);
        assert_eq!(world.contents(bob), ["a", "b", "c", "b!", "c!"]);
        world.node.say(bob, &json!({"type": "recv_ack", "data": {"conversation_id": "p:ann:bob", "seq": 2}}));
        world.node.run_ms(40_000);
        assert_eq!(world.contents(bob), ["a", "b", "c", "b!", "c!", "c!", "c!"]);
        assert_eq!(world.node.line(bob).close_code(), Some(4201));
        let bob = world.auth("bob", "phone", json!({"acks": true}));
        world.settle();
        assert_eq!(world.contents(bob), ["c"]);
        world.node.say(bob, &json!({"type": "recv_ack", "data": {"acks": [{"conversation_id": "p:ann:bob", "seq": 3}]}}));
        world.node.run_ms(40_000);
        assert_eq!(world.contents(bob), ["c"]);
        world.end();
    });
}

#[test]
fn sync_sends_again_what_the_client_says_it_lacks() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        for at in ["a", "b", "c"] {
            world.send(ann, at, json!({"to_user_id": "bob", "content": at}));
            world.send(ann, &format!("g{at}"), json!({"group_id": "g", "content": format!("g{at}")}));
        }
        world.settle();
        assert_eq!(world.contents(bob).len(), 6);
        world.ask(bob, "sync", json!({"cursors": {"p:ann:bob": 1}}));
        assert_eq!(world.contents(bob)[6..], ["b!", "c!"]);
        assert_eq!(world.kinds(bob).last().unwrap(), "sync_done");
        world.ask(bob, "sync", json!({"cursors": {"g:g": 2}}));
        assert_eq!(world.contents(bob)[8..], ["gc!"]);
        world.ask(bob, "sync", json!({}));
        assert_eq!(world.ask(bob, "sync", json!({"cursors": {"p:ann:cid": 0}}))["data"]["name"], "FORBIDDEN");
        assert_eq!(world.ask(bob, "sync", json!({"cursors": {"g:other": 0}}))["data"]["name"], "NO_SUCH_GROUP");
        world.send(ann, "d", json!({"to_user_id": "bob", "content": "d"}));
        world.settle();
        assert_eq!(world.contents(bob).last().unwrap(), "d");
        world.end();
    });
}

#[test]
fn history_is_read_page_by_page_in_both_directions() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        for at in 1..=10 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.settle();
        let page = |world: &mut World, data: Value| {
            let page = world.ask(ann, "get_history", data);
            let contents: Vec<u64> =
                page["data"]["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_u64().unwrap()).collect();
            (contents, page["data"]["next"].clone())
        };
        let (newest, next) = page(&mut world, json!({"user_id": "bob", "limit": 4}));
        assert_eq!(newest, [7, 8, 9, 10]);
        let (older, next) = page(&mut world, json!({"user_id": "bob", "limit": 4, "cursor": next}));
        assert_eq!(older, [3, 4, 5, 6]);
        let (oldest, next) = page(&mut world, json!({"user_id": "bob", "limit": 4, "cursor": next}));
        assert_eq!((oldest, next), (vec![1, 2], Value::Null));
        let (first, next) = page(&mut world, json!({"user_id": "bob", "limit": 6, "after_seq": 0}));
        assert_eq!(first, [1, 2, 3, 4, 5, 6]);
        let (rest, next) = page(&mut world, json!({"user_id": "bob", "limit": 6, "after_seq": 0, "cursor": next}));
        assert_eq!((rest, next), (vec![7, 8, 9, 10], Value::Null));
        let (within, _) = page(&mut world, json!({"user_id": "bob", "after_seq": 2, "before_seq": 5}));
        assert_eq!(within, [3, 4]);
        world.end();
    });
}

#[test]
fn reading_and_typing_and_recall_are_told() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        let sent = world.ask(ann, "send_message", json!({"to_user_id": "bob", "content": "oops"}));
        assert_eq!(world.ask(bob, "mark_read", json!({"user_id": "ann", "seq": 99}))["type"], "ack");
        assert_eq!(world.of_kind(ann, "read_receipt")[0]["read_seq"], 1);
        world.node.say(bob, &json!({"type": "typing", "data": {"to_user_id": "ann", "state": "start"}}));
        world.settle();
        assert_eq!(world.of_kind(ann, "typing").len(), 1);
        let id = sent["data"]["message_id"].clone();
        assert_eq!(world.ask(bob, "recall_message", json!({"message_id": id}))["data"]["name"], "FORBIDDEN");
        assert_eq!(world.ask(ann, "recall_message", json!({"message_id": id}))["type"], "ack");
        assert_eq!(world.of_kind(bob, "message_recalled")[0]["seq"], 1);
        let page = world.ask(bob, "get_history", json!({"user_id": "ann"}));
        assert_eq!(page["data"]["messages"][0]["recalled"], true);
        assert_eq!(world.ask(bob, "delete_message", json!({"message_id": id}))["type"], "ack");
        let page = world.ask(bob, "get_history", json!({"user_id": "ann"}));
        assert_eq!(page["data"]["messages"], json!([]));
        world.end();
    });
}

#[test]
fn confirmations_in_one_list_all_count() {
    on_all_shards(|mut world| {
        let (ann, cid) = (world.online("ann", "phone"), world.online("cid", "phone"));
        let bob = world.auth("bob", "phone", json!({"acks": true}));
        world.settle();
        world.send(ann, "a", json!({"to_user_id": "bob", "content": "a"}));
        world.node.run_ms(5_000);
        world.send(cid, "c", json!({"to_user_id": "bob", "content": "c"}));
        world.node.run_ms(4_800);
        // The first one's repetition cannot be read just now, and then is not needed.
        world.node.fail_store(0, 1);
        world.node.run_ms(400);
        let acks = json!([{"conversation_id": "p:ann:bob", "seq": 1}, {"conversation_id": "p:bob:cid", "seq": 1}]);
        world.node.say(bob, &json!({"type": "recv_ack", "data": {"acks": acks}}));
        world.node.run_ms(20_000);
        assert_eq!(world.contents(bob), ["a", "c"]);
        world.end();
    });
}

#[test]
fn sync_done_comes_once_and_after_what_it_speaks_of() {
    let small = |plan: &mut Plan| plan.settings.outbox_bytes_max = 16_000;
    on_all_shards_with(small, |mut world| {
        let ann = world.online("ann", "phone");
        for at in 0..40 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.settle();
        let bob = world.auth("bob", "phone", json!({}));
        world.node.set_reading(bob, false);
        world.settle();
        for at in 40..140 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.node.run_ms(1_000);
        world.node.set_reading(bob, true);
        world.node.run_ms(1_000);
        let kinds = world.kinds(bob);
        assert_eq!(world.contents(bob), (0..140).map(|at| at.to_string()).collect::<Vec<_>>());
        let done: Vec<usize> = (0..kinds.len()).filter(|at| kinds[*at] == "sync_done").collect();
        assert!(done.len() == 1 && done[0] > 40, "{done:?}");
        world.end();
    });
}

#[test]
fn a_sync_on_the_heels_of_another_marks_its_repeats() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.send(ann, "a", json!({"to_user_id": "bob", "content": "a"}));
        world.settle();
        world.node.close(bob);
        world.settle();
        let bob = world.online("bob", "phone");
        for id in ["one", "two"] {
            world.node.say(bob, &json!({"type": "sync", "message_id": id, "data": {"cursors": {"p:ann:bob": 0}}}));
        }
        world.settle();
        let contents = world.contents(bob);
        assert!(contents == ["a", "a!"] || contents == ["a"], "{contents:?}");
        assert_eq!(world.of_kind(bob, "sync_done").len(), 3);
        world.end();
    });
}
