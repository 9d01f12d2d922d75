//! Stories of time: clocks that are set, messages that age, a disk that is slow, what is written and how often.

use serde_json::{Value, json};

use super::{on_all_shards, on_all_shards_with};

/// Two hours.
const STEP_MS: i64 = 7_200_000;

#[test]
fn a_clock_that_steps_back_moves_no_seq_and_loses_nothing() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        for (at, jump) in [0, -STEP_MS, STEP_MS * 13, -STEP_MS * 12].into_iter().enumerate() {
            world.node.jump_clock(jump);
            world.send(ann, &format!("m{at}"), json!({"to_user_id": "bob", "content": at.to_string()}));
            world.settle();
        }
        assert_eq!(world.contents(bob), ["0", "1", "2", "3"]);
        let pushed = world.of_kind(bob, "new_message");
        let seqs: Vec<&Value> = pushed.iter().map(|data| &data["seq"]).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
        let times: Vec<u64> = pushed.iter().map(|data| data["created_at"].as_u64().unwrap()).collect();
        assert!(times[1] < times[0] && times[3] < times[2], "the wall clock is told as it is: {times:?}");
        // Nobody was closed, and nobody will be: beats and deadlines run by another clock.
        world.node.run_ms(30_000);
        for line in [ann, bob] {
            assert_eq!(world.ask(line, "ping", json!({}))["type"], "pong");
        }
        // Time bounds find exactly what they name, in whatever order the times are.
        for (since, until) in [(times[1], times[0]), (times[0], times[0] + 1), (times[3], times[2]), (0, u64::MAX >> 12)] {
            let wanted: Vec<u64> =
                (0..4).filter(|at| times[*at] >= since && times[*at] < until).map(|at| at as u64 + 1).collect();
            let page = world.ask(ann, "get_history", json!({"user_id": "bob", "since": since, "until": until}));
            let messages = page["data"]["messages"].as_array().unwrap();
            let found: Vec<u64> = messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
            assert_eq!(found, wanted, "since {since} until {until} of {times:?}");
        }
        world.end();
    });
}

#[test]
fn a_repeat_counts_once_when_the_clock_has_stepped_back() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        for jump in [0, -STEP_MS, -STEP_MS, STEP_MS, STEP_MS] {
            world.node.jump_clock(jump);
            world.send(ann, "same", json!({"to_user_id": "bob", "content": "once"}));
            world.settle();
        }
        let acks = world.of_kind(ann, "ack");
        assert_eq!(acks.iter().map(|ack| ack["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1; 5]);
        assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == false).count(), 1);
        world.end();
    });
}

#[test]
fn what_ages_under_a_cursor_is_explained_once_and_in_its_place() {
    on_all_shards_with(
        |plan| plan.settings.ack_timeout_ms = 1_000,
        |mut world| {
            let ann = world.online("ann", "phone");
            let held = world.auth("bob", "phone", json!({"acks": true}));
            world.settle();
            for at in 1..=3 {
                world.send(ann, &format!("m{at}"), json!({"to_user_id": "bob", "content": at.to_string()}));
            }
            world.settle();
            assert_eq!(world.contents(held), ["1", "2", "3"]);
            // None is confirmed; two of them go, then they are due to be sent again.
            world.node.say(held, &json!({"type": "recv_ack", "data": {"conversation_id": "p:ann:bob", "seq": 1}}));
            world.settle();
            world.node.forget_first("p:ann:bob", 2);
            world.node.run_ms(1_500);
            assert_eq!(world.contents(held), ["1", "2", "3", "3!"]);
            world.node.say(held, &json!({"type": "recv_ack", "data": {"conversation_id": "p:ann:bob", "seq": 3}}));
            world.send(ann, "m4", json!({"to_user_id": "bob", "content": "4"}));
            world.node.run_ms(500);
            assert_eq!(world.contents(held), ["1", "2", "3", "3!", "4"]);
            let skipped = world.of_kind(held, "messages_skipped");
            assert_eq!(skipped.len(), 1, "{skipped:?}");
            assert_eq!((&skipped[0]["from_seq"], &skipped[0]["to_seq"]), (&json!(2), &json!(2)));
            assert_eq!(skipped[0]["reason"], "retention");
            // Whoever asks for all of it gets one explanation.
            world.node.forget_first("p:ann:bob", 1);
            let late = world.online("bob", "desk");
            let before = world.of_kind(late, "messages_skipped").len();
            world.ask(late, "sync", json!({"cursors": {"p:ann:bob": 0}}));
            let skipped = world.of_kind(late, "messages_skipped");
            assert_eq!(skipped.len(), before + 1, "{skipped:?}");
            assert_eq!((&skipped[before]["from_seq"], &skipped[before]["to_seq"]), (&json!(1), &json!(3)));
            assert_eq!(skipped[before]["reason"], "retention");
            world.end();
        },
    );
}

#[test]
fn what_is_gone_and_what_is_hidden_are_told_apart() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        for at in 1..=5 {
            world.send(ann, &format!("m{at}"), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.settle();
        let third = world.of_kind(bob, "new_message")[2]["message_id"].clone();
        assert_eq!(world.ask(bob, "delete_message", json!({"message_id": third}))["type"], "ack");
        world.node.forget_first("p:ann:bob", 2);
        world.ask(bob, "sync", json!({"cursors": {"p:ann:bob": 0}}));
        let skipped = world.of_kind(bob, "messages_skipped");
        let told: Vec<(u64, u64, &str)> = skipped
            .iter()
            .map(|data| (data["from_seq"].as_u64().unwrap(), data["to_seq"].as_u64().unwrap(), data["reason"].as_str().unwrap()))
            .collect();
        assert_eq!(told, [(1, 2, "retention"), (3, 3, "deleted")]);
        world.end();
    });
}

#[test]
fn a_crash_repeats_only_what_was_delivered_just_before() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let bob = world.online("bob", "phone");
        world.send(ann, "early", json!({"to_user_id": "bob", "content": "early"}));
        world.node.run_ms(5_000);
        world.send(ann, "late", json!({"to_user_id": "bob", "content": "late"}));
        world.settle();
        assert_eq!(world.contents(bob), ["early", "late"]);
        world.node.crash();
        for user in ["ann", "bob"] {
            let again = world.online(user, "phone");
            assert_eq!(world.contents(again), ["late"], "{user} had the first one long ago");
        }
        world.end();
    });
}

#[test]
fn delivery_state_costs_few_writes_however_much_is_delivered() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let members: Vec<String> = (0..20).map(|at| format!("u{at}")).collect();
        for member in &members {
            world.online(member, "phone");
        }
        world.ask(ann, "create_group", json!({"group_id": "g", "members": members}));
        world.node.run_ms(10_000);
        let before = world.node.writes_committed();
        for at in 0..300 {
            world.send(ann, &format!("m{at}"), json!({"group_id": "g", "content": "x"}));
            world.node.run_ms(100);
        }
        let written = world.node.writes_committed() - before;
        // 300 messages, and in 30 seconds at most one write every three for each of 21 sessions.
        assert!(written <= 300 + 21 * 11, "{written} writes");
        world.end();
    });
}

#[test]
fn a_disk_that_takes_nothing_holds_up_only_who_writes() {
    on_all_shards_with(
        |plan| plan.settings.store_requests_max = 64,
        |mut world| {
            let (ann, bob, cid) = (world.online("ann", "phone"), world.online("bob", "phone"), world.online("cid", "phone"));
            world.send(ann, "first", json!({"to_user_id": "bob", "content": "first"}));
            world.settle();
            world.node.stall_store(10_000);
            for at in 0..200 {
                world.send(ann, &format!("m{at}"), json!({"to_user_id": "bob", "content": at.to_string()}));
            }
            world.settle();
            assert_eq!(world.of_kind(ann, "ack").len(), 1, "no ack before it is on disk");
            let refused = world.of_kind(ann, "error");
            assert_eq!(refused.len(), 200 - 48, "the queue is bounded");
            assert!(refused.iter().all(|fault| fault["name"] == "OVERLOADED" && fault["retry_after_ms"].as_u64() > Some(0)));
            assert_eq!(world.ask(cid, "ping", json!({}))["type"], "pong");
            world.node.say(cid, &json!({"type": "typing", "data": {"to_user_id": "bob", "state": "start"}}));
            let page = world.ask(bob, "get_history", json!({"user_id": "ann"}));
            assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 1, "what is on disk can be read: {page}");
            assert_eq!(world.of_kind(bob, "typing").len(), 1);
            world.node.run_ms(12_000);
            assert_eq!(world.of_kind(ann, "ack").len(), 1 + 48, "and what was taken is done");
            world.send(ann, "last", json!({"to_user_id": "bob", "content": "last"}));
            world.settle();
            assert_eq!(world.contents(bob).last().map(String::as_str), Some("last"));
            world.end();
        },
    );
}
