//! Stories of connections: how they begin and end, what is remembered of them, and what survives a store or a node that fails.

use serde_json::json;

use super::{LineId, Plan, on_all_shards, on_all_shards_with};
use crate::engine::settings::SessionPolicy;
use crate::types::envelope::Body;
use crate::types::{CloseCode, UserId};

#[test]
fn a_good_token_opens_and_a_bad_one_closes() {
    on_all_shards(|mut world| {
        let line = world.online("ann", "phone");
        let success = world.reply(line, "auth");
        assert_eq!(success["data"]["user_id"], "ann");
        assert_eq!(success["data"]["device_id"], "phone");
        assert_eq!(world.kinds(line), ["auth_success", "sync_done"]);
        let again = world.ask(line, "auth", json!({"token": "x"}));
        assert_eq!(again["data"]["name"], "ALREADY_AUTHENTICATED");

        let stranger = world.node.connect(0);
        world.node.say(stranger, &json!({"type": "auth", "data": {"token": "no.good.token"}}));
        world.node.run_ms(3_000);
        assert_eq!(world.kinds(stranger), ["auth_failed"]);
        assert_eq!(world.node.line(stranger).close_code(), Some(4001));
        assert!(world.node.line(stranger).is_lost());

        let silent = world.node.connect(0);
        let early = world.ask(silent, "send_message", json!({"to_user_id": "ann", "content": "hi"}));
        assert_eq!(early["data"]["name"], "UNAUTHENTICATED");
        assert_eq!(world.ask(silent, "ping", json!({}))["type"], "pong");
        world.node.run_ms(12_000);
        assert_eq!(world.node.line(silent).close_code(), Some(4001));
        world.end();
    });
}

#[test]
fn presence_is_told_to_those_who_watch() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let now = world.ask(ann, "subscribe_presence", json!({"user_ids": ["bob", "eve"]}));
        assert_eq!(now["data"]["users"][0]["status"], "offline");
        assert_eq!(now["data"]["users"][1]["user_id"], "eve");
        let bob = world.online("bob", "phone");
        let bob2 = world.online("bob", "desk");
        world.node.close(bob);
        world.settle();
        world.node.tear(bob2);
        world.settle();
        let seen: Vec<(bool, u64)> = world.of_kind(ann, "presence")[1..]
            .iter()
            .map(|data| (data["users"][0]["status"] == "online", data["users"][0]["devices"].as_u64().unwrap()))
            .collect();
        assert_eq!(seen, [(true, 1), (true, 2), (true, 1), (false, 0)]);
        let now = world.ask(ann, "get_presence", json!({"user_ids": ["bob", "ann"]}));
        assert!(now["data"]["users"][0]["last_seen"].is_u64());
        assert_eq!(now["data"]["users"][1]["status"], "online");
        world.ask(ann, "unsubscribe_presence", json!({"user_ids": ["bob", "eve"]}));
        let before = world.of_kind(ann, "presence").len();
        world.online("bob", "phone");
        assert_eq!(world.of_kind(ann, "presence").len(), before);
        world.end();
    });
}

#[test]
fn a_subscription_that_has_ended_tells_nothing_more() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        // Bob comes while it ends: a little earlier each time.
        for delay_ms in 0..6 {
            world.ask(ann, "subscribe_presence", json!({"user_ids": ["bob", "eve"]}));
            let bob = world.auth("bob", "phone", json!({}));
            world.node.run_ms(delay_ms);
            let ack = world.ask(ann, "unsubscribe_presence", json!({"user_ids": ["bob"]}));
            assert_eq!(ack["type"], "ack");
            let late = world.node.line(ann).pushes().skip_while(|push| push["message_id"] != ack["message_id"]);
            assert!(late.skip(1).all(|push| push["type"] != "presence"), "{:?}", world.node.line(ann).heard);
            world.node.tear(bob);
            world.settle();
        }
        world.end();
    });
}

#[test]
fn one_session_too_many_evicts_is_refused_or_replaces() {
    for (policy, closed) in [
        (SessionPolicy::EvictOldest, vec![(0, 4010), (1, 4010)]),
        (SessionPolicy::Reject, vec![(2, 4004), (3, 4004)]),
        (SessionPolicy::ReplaceDevice, vec![(0, 4010), (3, 4004)]),
    ] {
        let change = |plan: &mut Plan| {
            plan.settings.sessions_per_user = 2;
            plan.settings.session_policy = policy;
        };
        on_all_shards_with(change, |mut world| {
            let lines: Vec<LineId> = ["a", "b", "a", "c"]
                .iter()
                .map(|device| {
                    let line = world.auth("ann", device, json!({}));
                    world.settle();
                    line
                })
                .collect();
            world.node.run_ms(3_000);
            for (at, line) in lines.iter().enumerate() {
                let expected = closed.iter().find(|(which, _)| *which == at).map(|(_, code)| *code);
                assert_eq!(world.node.line(*line).close_code(), expected, "{policy:?} {at}");
                assert_eq!(world.node.line(*line).is_lost(), expected.is_some());
            }
            world.end();
        });
    }
}

#[test]
fn a_drain_tells_and_closes_everybody() {
    on_all_shards(|mut world| {
        let lines: Vec<LineId> = ["ann", "bob", "cid", "eve"].iter().map(|user| world.online(user, "phone")).collect();
        let opening = world.node.connect(0);
        world.settle();
        world.node.drain(3_000);
        world.node.run_ms(20);
        let refused = world.ask(lines[0], "send_message", json!({"to_user_id": "bob", "content": "late"}));
        assert_eq!(refused["data"]["name"], "DRAINING");
        let late = world.node.connect(0);
        world.node.run_ms(6_000);
        for line in lines.into_iter().chain([opening]) {
            assert_eq!(world.of_kind(line, "reconnect").len(), 1);
            assert_eq!(world.node.line(line).close_code(), Some(4202));
            assert!(world.node.line(line).is_lost());
        }
        assert_eq!(world.node.line(late).close_code(), Some(4202));
        world.end();
    });
}

#[test]
fn a_peer_that_vanished_is_found_by_its_silence() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.node.vanish(bob);
        for at in 0..50 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.node.run_ms(200_000);
        assert!(!world.node.line(ann).is_lost(), "who answers pings stays");
        let sessions: u64 = (0..world.node.shards()).map(|shard| world.node.counters(shard).sessions).sum();
        assert_eq!(sessions, 1);
        world.end();
    });
}

#[test]
fn who_only_answers_is_pinged_every_interval() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let interval_ms = crate::engine::Settings::default().heartbeat_interval_ms;
        world.node.run_ms(20 * interval_ms);
        let line = world.node.line(ann);
        let pings = line.heard.iter().filter(|heard| matches!(heard, crate::sim::socket::Heard::Ping)).count();
        assert!((19..=21).contains(&pings), "{pings} pings in 20 intervals");
        world.end();
    });
}

#[test]
fn operators_kick_and_notify() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let user = UserId::new("ann").unwrap();
        let content = crate::types::RawJson::string("news");
        world.node.operate(0, Body::Notify { user: user.clone(), kind: "announcement".into(), content, asker: None });
        world.settle();
        assert_eq!(world.of_kind(ann, "notification")[0]["content"], "news");
        world.node.operate(0, Body::Kick { user, device: None, close: CloseCode::Kicked });
        world.node.run_ms(3_000);
        assert_eq!(world.node.line(ann).close_code(), Some(4011));
        assert!(world.node.line(ann).is_lost());
        world.end();
    });
}

#[test]
fn a_revocation_closes_whoever_is_there_also_while_others_come() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let user = UserId::new("ann").unwrap();
        world.node.revoke(&user);
        let shards = world.node.shards();
        let others: Vec<LineId> = (0..shards).map(|shard| world.node.connect(shard)).collect();
        world.node.run_ms(3_000);
        assert_eq!(world.node.line(ann).close_code(), Some(4009));
        assert!(others.iter().all(|line| !world.node.line(*line).is_lost()), "they have shown no token yet");
        // A token that is issued afterwards is good, here and after a restart, which knows the revocation, too.
        world.online("ann", "phone");
        world.node.crash();
        world.online("ann", "phone");
        world.end();
    });
}

#[test]
fn a_store_that_fails_is_reported_and_nothing_is_acked() {
    on_all_shards(|mut world| {
        let (ann, bob) = (world.online("ann", "phone"), world.online("bob", "phone"));
        world.node.fail_store(1, 0);
        assert_eq!(
            world.ask(ann, "send_message", json!({"to_user_id": "bob", "content": "lost"}))["data"]["name"],
            "STORE_UNAVAILABLE"
        );
        assert_eq!(world.ask(ann, "send_message", json!({"to_user_id": "bob", "content": "kept"}))["data"]["seq"], 1);
        assert_eq!(world.contents(bob), ["kept"]);
        world.node.limit_store(0);
        assert_eq!(world.ask(ann, "send_message", json!({"to_user_id": "bob", "content": "full"}))["data"]["name"], "OVERLOADED");
        world.node.heal_store();
        world.end();
    });
}

#[test]
fn what_was_acked_outlives_a_crash() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        for at in 0..50 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.node.run_ms(4);
        world.node.crash();
        let acked = world.of_kind(ann, "ack").len();
        let bob = world.online("bob", "phone");
        let contents = world.contents(bob);
        assert!(contents.len() >= acked, "{} of {acked}", contents.len());
        let ann = world.online("ann", "phone");
        for at in 0..50 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": at.to_string()}));
        }
        world.settle();
        let duplicates = world.of_kind(ann, "ack").iter().filter(|ack| ack["duplicate"] == true).count();
        assert_eq!(duplicates, contents.len());
        assert_eq!(world.contents(bob), (0..50).map(|at| at.to_string()).collect::<Vec<_>>());
        world.end();
    });
}

#[test]
fn a_single_sign_on_is_one_user_online() {
    let one = |plan: &mut Plan| plan.settings.sessions_per_user = 1;
    on_all_shards_with(one, |mut world| {
        for _ in 0..3 {
            world.online("ann", "phone");
        }
        let online: u64 = (0..world.node.shards()).map(|shard| world.node.counters(shard).online_users).sum();
        assert_eq!(online, 1);
        world.end();
    });
}

#[test]
fn a_busy_connection_keeps_few_timers() {
    on_all_shards(|mut world| {
        let ann = world.online("ann", "phone");
        let bob = world.auth("bob", "phone", json!({"acks": true}));
        world.settle();
        for at in 1..=200 {
            world.send(ann, &at.to_string(), json!({"to_user_id": "bob", "content": "x"}));
            world.node.run_ms(1_500);
            world.node.say(bob, &json!({"type": "recv_ack", "data": {"conversation_id": "p:ann:bob", "seq": at}}));
        }
        assert!(world.node.timers_waiting() < 60, "{}", world.node.timers_waiting());
        world.node.run_ms(200_000);
        assert!(world.node.timers_waiting() < 6, "{}", world.node.timers_waiting());
        assert!(!world.node.line(bob).is_lost());
        world.end();
    });
}
