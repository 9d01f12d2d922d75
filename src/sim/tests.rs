//! Small stories, each told on one, two and four shards. They are about what clients see, never about timing.

use serde_json::{Value, json};

use super::node::Plan;
use super::{LineId, Node};
use crate::engine::settings::SessionPolicy;
use crate::engine::shard::Leftovers;
use crate::types::envelope::Body;
use crate::types::{CloseCode, UserId};

/// A node and shorthand for what clients say.
struct World {
    node: Node,
    connected: usize,
    said: u64,
}

fn on_all_shards(story: impl Fn(World)) {
    on_all_shards_with(|_| {}, story);
}

fn on_all_shards_with(change: impl Fn(&mut Plan), story: impl Fn(World)) {
    for shards in [1, 2, 4] {
        for seed in 0..SEEDS {
            let mut plan = Plan::new(seed, shards);
            change(&mut plan);
            story(World { node: Node::new(plan), connected: seed as usize, said: 0 });
        }
    }
}

impl World {
    /// Connects to the next shard and authenticates; `data` adds to the message.
    fn auth(&mut self, user: &str, device: &str, data: Value) -> LineId {
        let line = self.node.connect(self.connected % self.node.shards());
        self.connected += 1;
        let mut auth = json!({"token": self.node.token(user, 3_600_000_000), "device_id": device});
        auth.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        self.node.say(line, &json!({"type": "auth", "message_id": "auth", "data": auth}));
        line
    }

    /// The same, and lets it be done.
    fn online(&mut self, user: &str, device: &str) -> LineId {
        let line = self.auth(user, device, json!({}));
        self.settle();
        assert_eq!(self.kinds(line)[..1], ["auth_success"], "{:?}", self.node.line(line).heard);
        line
    }

    fn settle(&mut self) {
        self.node.run_ms(300);
    }

    /// Asks and answers with the reply.
    fn ask(&mut self, line: LineId, kind: &str, data: Value) -> Value {
        self.said += 1;
        let id = format!("ask-{}", self.said);
        self.node.say(line, &json!({"type": kind, "message_id": id, "data": data}));
        self.settle();
        self.reply(line, &id)
    }

    fn reply(&self, line: LineId, id: &str) -> Value {
        let replies: Vec<&Value> = self.node.line(line).pushes().filter(|push| push["message_id"] == id).collect();
        assert_eq!(replies.len(), 1, "one reply to {id}: {:?}", self.node.line(line).heard);
        replies[0].clone()
    }

    fn send(&mut self, line: LineId, id: &str, data: Value) {
        self.node.say(line, &json!({"type": "send_message", "message_id": id, "data": data}));
    }

    fn kinds(&self, line: LineId) -> Vec<String> {
        self.node.line(line).pushes().map(|push| push["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Contents of the messages pushed, in order; repeats are marked with `!`.
    fn contents(&self, line: LineId) -> Vec<String> {
        let messages = self.node.line(line).pushes().filter(|push| push["type"] == "new_message");
        messages
            .map(|push| {
                let mark = if push["data"]["redelivered"] == true { "!" } else { "" };
                format!("{}{mark}", push["data"]["content"].as_str().unwrap())
            })
            .collect()
    }

    fn of_kind(&self, line: LineId, kind: &str) -> Vec<Value> {
        self.node.line(line).pushes().filter(|push| push["type"] == kind).map(|push| push["data"].clone()).collect()
    }

    /// Everybody leaves; nothing of them may stay.
    fn end(mut self) {
        for line in 0..self.node.lines().len() {
            self.node.tear(LineId(line));
        }
        self.node.run_ms(5_000);
        for (shard, left) in self.node.leftovers().into_iter().enumerate() {
            assert_eq!(left, Leftovers::default(), "shard {shard}");
            let counters = self.node.counters(shard);
            assert_eq!((counters.sessions, counters.ready, counters.lagging, counters.online_users), (0, 0, 0, 0));
        }
        assert_eq!(self.node.directory_len(), 0);
    }
}

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

#[test]
fn seeds_hold() {
    for seed in 0..24 {
        if let Err(failure) = super::run::run(seed, 4_000) {
            panic!("seed {seed}: {}\n{:#?}", failure.why, failure.steps);
        }
    }
}

/// Seeds per story and number of shards.
const SEEDS: u64 = 10;
