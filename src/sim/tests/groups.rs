//! Stories of groups: who is in them when, and what that entitles them to.

use serde_json::{Value, json};

use super::{Plan, on_all_shards, on_all_shards_with};

#[test]
fn a_group_message_reaches_every_member_once() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        let created = world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob", "cid"]}));
        assert_eq!(created["data"]["group_id"], "g");
        world.send(ann, "1", json!({"group_id": "g", "content": "one"}));
        world.settle();
        let cid = world.online("cid", "phone");
        world.send(bob, "2", json!({"group_id": "g", "content": "two"}));
        world.send(cid, "3", json!({"group_id": "g", "content": "three"}));
        world.settle();
        let both = |line| {
            let mut contents = world.contents(line);
            contents.sort();
            contents
        };
        assert_eq!(both(ann), ["three", "two"]);
        assert_eq!(both(bob), ["one", "three"]);
        assert_eq!(both(cid), ["one", "two"]);
        assert_eq!(world.of_kind(bob, "notification").len(), 1);
        assert_eq!(world.of_kind(cid, "notification")[0]["kind"], "group_invite");
        assert_eq!(world.of_kind(bob, "group_event")[0]["event"], "created");
        let stranger = world.online("eve", "phone");
        let refused = world.ask(stranger, "send_message", json!({"group_id": "g", "content": "x"}));
        assert_eq!(refused["data"]["name"], "NOT_A_MEMBER");
        world.end();
    });
}

#[test]
fn a_sync_that_knows_of_a_new_membership_before_the_end_of_the_last_repeats_nothing_unmarked() {
    // Reads are quicker than it takes to work off what other shards have said, one thing a turn.
    let slow = |plan: &mut Plan| {
        plan.pace.read_us = 60_000..=80_000;
        plan.pace.turn_us = 900..=1_000;
        plan.pace.mesh_per_turn_max = 1;
    };
    on_all_shards_with(slow, |mut world| {
        let (ann, desk) = (world.online("ann", "phone"), world.online("bob", "desk"));
        let home = world.connected % world.node.shards();
        let phone = world.online("bob", "phone");
        world.node.say(ann, &json!({"type": "create_group", "data": {"group_id": "g", "members": ["bob"]}}));
        world.node.run_ms(2_000);
        world.node.stall_shard(home, 1_500);
        for at in 1..=500 {
            world.send(ann, &at.to_string(), json!({"group_id": "g", "content": at.to_string()}));
        }
        world.node.run_ms(1_500);
        for change in ["remove_from_group", "invite_to_group"] {
            world.node.say(ann, &json!({"type": change, "data": {"group_id": "g", "user_ids": ["bob"]}}));
        }
        for at in 501..=502 {
            world.send(ann, &at.to_string(), json!({"group_id": "g", "content": at.to_string()}));
        }
        world.node.run_ms(100);
        world.node.say(phone, &json!({"type": "sync", "message_id": "sync", "data": {"cursors": {}}}));
        world.node.run_ms(5_000);
        for line in [desk, phone] {
            // What the first membership had not delivered has ended with it.
            let first: Vec<u64> = world.contents(line).iter().filter_map(|content| content.parse().ok()).collect();
            assert!(first.is_sorted_by(|one, next| one < next), "{first:?}");
            assert!(first.ends_with(&[501, 502]), "{first:?}");
        }
        world.reply(phone, "sync");
        world.end();
    });
}

#[test]
fn who_is_removed_gets_nothing_more() {
    on_all_shards(|mut world| {
        let (ann, bob, cid) = (world.online("ann", "phone"), world.online("bob", "phone"), world.online("cid", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob", "cid"]}));
        world.send(ann, "1", json!({"group_id": "g", "content": "1"}));
        world.node.say(ann, &json!({"type": "remove_from_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
        world.send(ann, "2", json!({"group_id": "g", "content": "2"}));
        world.settle();
        assert_eq!(world.contents(bob), ["1"]);
        assert_eq!(world.contents(cid), ["1", "2"]);
        assert_eq!(world.ask(bob, "send_message", json!({"group_id": "g", "content": "x"}))["data"]["name"], "NOT_A_MEMBER");
        assert_eq!(world.ask(bob, "get_history", json!({"group_id": "g"}))["data"]["name"], "NOT_A_MEMBER");
        // Back again: from now on, without what was written in between.
        world.node.say(ann, &json!({"type": "invite_to_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
        world.send(ann, "3", json!({"group_id": "g", "content": "3"}));
        world.settle();
        assert_eq!(world.contents(bob), ["1", "3"]);
        assert_eq!(world.contents(cid), ["1", "2", "3"]);
        let page = world.ask(bob, "get_history", json!({"group_id": "g"}));
        assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 1);
        world.end();
    });
}

#[test]
fn membership_may_change_as_fast_as_messages_are_written() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        let bob2 = world.online("bob", "desk");
        world.ask(ann, "create_group", json!({"group_id": "g"}));
        for round in 0..10 {
            world.node.say(ann, &json!({"type": "invite_to_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.send(ann, &format!("in{round}"), json!({"group_id": "g", "content": format!("in{round}")}));
            world.node.say(ann, &json!({"type": "remove_from_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.send(ann, &format!("out{round}"), json!({"group_id": "g", "content": format!("out{round}")}));
            if round % 3 == 0 {
                world.settle();
            }
        }
        world.node.run_ms(2_000);
        world.node.say(ann, &json!({"type": "invite_to_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
        world.settle();
        world.send(ann, "last", json!({"group_id": "g", "content": "last"}));
        world.settle();
        for line in [bob, bob2] {
            let contents = world.contents(line);
            assert!(contents.iter().all(|content| !content.starts_with("out")), "{contents:?}");
            assert_eq!(contents.last().unwrap(), "last");
            let mut distinct = contents.clone();
            distinct.dedup();
            assert_eq!(distinct, contents);
        }
        assert_eq!(world.of_kind(ann, "error"), [] as [Value; 0]);
        world.end();
    });
}

#[test]
fn who_is_added_while_connecting_is_in_the_group() {
    let slow = |plan: &mut Plan| {
        plan.pace.read_us = 10..=20_000;
        plan.pace.mesh_us = 1..=20_000;
    };
    on_all_shards_with(slow, |mut world| {
        let ann = world.online("ann", "phone");
        world.ask(ann, "create_group", json!({"group_id": "g"}));
        let mut expected = Vec::new();
        for round in 0..8 {
            world.node.say(ann, &json!({"type": "invite_to_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.node.run_ms(round * 3);
            let bob = world.auth("bob", "phone", json!({}));
            if round % 2 == 1 {
                // Out and in again while it is attaching.
                world.node.run_ms(round * 4);
                for kind in ["remove_from_group", "invite_to_group"] {
                    world.node.say(ann, &json!({"type": kind, "data": {"group_id": "g", "user_ids": ["bob"]}}));
                }
            }
            world.node.run_ms(1_000);
            world.send(ann, &round.to_string(), json!({"group_id": "g", "content": round.to_string()}));
            world.node.run_ms(1_000);
            expected.push(round.to_string());
            assert_eq!(world.contents(bob).last(), expected.last());
            world.node.tear(bob);
            world.node.say(ann, &json!({"type": "remove_from_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.node.run_ms(1_000);
        }
        world.end();
    });
}

#[test]
fn counts_of_a_group_survive_leaving_and_coming_back() {
    let slow = |plan: &mut Plan| plan.pace.mesh_us = 1..=20_000;
    on_all_shards_with(slow, |mut world| {
        let ann = world.online("ann", "phone");
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        for round in 0..6 {
            let bobs = [world.online("bob", "a"), world.online("bob", "b")];
            world.node.say(ann, &json!({"type": "remove_from_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.node.run_ms(round);
            world.node.tear(bobs[0]);
            world.node.say(ann, &json!({"type": "invite_to_group", "data": {"group_id": "g", "user_ids": ["bob"]}}));
            world.node.run_ms(1_000);
            let presence = world.ask(ann, "get_presence", json!({"group_id": "g"}));
            assert_eq!(presence["data"]["online"], 2, "{presence}");
            world.node.tear(bobs[1]);
            world.node.run_ms(500);
            let presence = world.ask(ann, "get_presence", json!({"group_id": "g"}));
            assert_eq!(presence["data"]["online"], 1, "{presence}");
        }
        world.end();
    });
}

#[test]
fn a_group_made_again_goes_on_behind_its_old_log() {
    let forgetful = |plan: &mut Plan| plan.settings.conversations_cached_max = 0;
    on_all_shards_with(forgetful, |mut world| {
        let ann = world.online("ann", "phone");
        world.ask(ann, "create_group", json!({"group_id": "g"}));
        world.ask(ann, "send_message", json!({"group_id": "g", "content": "old"}));
        world.ask(ann, "leave_group", json!({"group_id": "g"}));
        for at in 0..20 {
            world.ask(ann, "send_message", json!({"to_user_id": format!("u{at}"), "content": "else"}));
        }
        let eve = world.online("eve", "phone");
        world.ask(eve, "create_group", json!({"group_id": "g"}));
        assert_eq!(world.ask(eve, "send_message", json!({"group_id": "g", "content": "new"}))["data"]["seq"], 2);
        let page = world.ask(eve, "get_history", json!({"group_id": "g"}));
        assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 1);
        world.end();
    });
}

#[test]
fn what_was_written_between_two_memberships_stays_unread() {
    let small = |plan: &mut Plan| plan.settings.outbox_bytes_max = 2_000;
    on_all_shards_with(small, |mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.ask(ann, "create_group", json!({"group_id": "g", "members": ["bob"]}));
        world.ask(ann, "send_message", json!({"group_id": "g", "content": "before"}));
        world.node.close(bob);
        world.settle();
        world.ask(ann, "remove_from_group", json!({"group_id": "g", "user_ids": ["bob"]}));
        world.ask(ann, "send_message", json!({"group_id": "g", "content": "secret"}));
        world.ask(ann, "invite_to_group", json!({"group_id": "g", "user_ids": ["bob"]}));
        let bob = world.auth("bob", "phone", json!({}));
        world.node.set_reading(bob, false);
        world.settle();
        for at in 0..60 {
            world.send(ann, &at.to_string(), json!({"group_id": "g", "content": at.to_string()}));
        }
        world.settle();
        world.node.set_reading(bob, true);
        world.node.run_ms(1_000);
        assert_eq!(world.contents(bob), (0..60).map(|at| at.to_string()).collect::<Vec<_>>());
        world.end();
    });
}
