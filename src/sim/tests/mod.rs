//! Small stories, each told on one, two and four shards. They are about what clients see, never about timing.

mod connections;
mod groups;
mod messages;
mod proof;
mod time;
mod tokens;

use serde_json::{Value, json};

use super::node::Plan;
use super::{LineId, Node};
use crate::engine::shard::Leftovers;
use crate::types::ConversationId;

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

    fn forget_first(&mut self, conversation: &str, count: usize) {
        self.node.forget_first(&ConversationId::parse(conversation).unwrap(), count);
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

/// Seeds per story and number of shards.
const SEEDS: u64 = 10;
