//! Checks what decoded commands do to real shards: a node of the simulator (engine, codec, memory store, virtual time) takes
//! scripts of requests and small disasters. Nothing panics, every request has its one documented answer, what is caused stays
//! in proportion, and when everybody has left nothing is left behind.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::input::Input;
use crate::engine::shard::Leftovers;
use crate::sim::node::{Node, Plan};
use crate::sim::{Heard, LineId};
use crate::types::Command;

/// The node, then what happens in it.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let mut plan = Plan::new(u64::from(input.byte()), if input.flag() { 3 } else { 1 });
    plan.settings.outbox_bytes_max = [2_000, 256 << 10][input.below(2)];
    plan.settings.errors_per_minute = 1_000;
    plan.settings.group_members_max = 4;
    plan.settings.groups_per_user_max = 3;
    plan.settings.presence_watches_max = 3;
    plan.settings.conversations_cached_max = 2;
    let mut world = World::new(plan);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end();
}

/// A node, its clients, and what they wait for.
struct World {
    node: Node,
    seats: [LineId; PEOPLE.len()],
    /// By connection and `message_id`: the verb asked.
    asked: HashMap<(usize, String), &'static str>,
    steps: usize,
    /// Server's ids that were heard of.
    messages: Vec<String>,
    next: u64,
}

impl World {
    fn new(plan: Plan) -> World {
        let node = Node::new(plan);
        let (asked, messages) = (HashMap::new(), vec![A_MESSAGE.to_owned(), "none".to_owned()]);
        let mut world = World { node, seats: [LineId(0); PEOPLE.len()], asked, steps: 0, messages, next: 0 };
        for seat in 0..PEOPLE.len() {
            world.join(seat, json!({"acks": seat == 1}));
        }
        world.node.run_ms(100);
        world
    }

    fn join(&mut self, seat: usize, mut wishes: Value) {
        self.seats[seat] = self.node.connect(seat % self.node.shards());
        wishes["token"] = Value::from(self.node.token(PEOPLE[seat], 3_600_000));
        self.ask(seat, "auth", wishes);
    }

    fn ask(&mut self, seat: usize, verb: &'static str, data: Value) {
        self.next += 1;
        let (line, id) = (self.seats[seat], format!("corehub-fuzz-{}", self.next));
        self.node.say(line, &json!({"type": verb, "message_id": id, "data": data}));
        self.asked.insert((line.0, id), verb);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        self.steps += 1;
        let (what, seat) = (input.byte(), input.below(PEOPLE.len()));
        let line = self.seats[seat];
        match what {
            0..192 => {
                let (verb, data) = request(input, &self.messages);
                self.ask(seat, verb, data);
            }
            192..208 => self.node.say_text(line, &input.text()),
            208..216 => self.node.run_ms(input.number() % 20_000),
            216..220 => self.node.ping(line),
            220 => self.node.say_garbage(line),
            221 => self.node.close(line),
            222..226 => {
                self.node.tear(line);
                let wishes = json!({"acks": input.flag(), "presence": input.flag()});
                self.join(seat, wishes);
            }
            226..230 => self.node.set_reading(line, input.flag()),
            230 => self.node.fail_store(1, 0),
            231 => self.node.fail_store(0, 1),
            232 => self.node.stall_store(input.number() % 3_000),
            233 => self.node.limit_store(input.below(4)),
            234 => self.node.heal_store(),
            235 => self.node.jump_clock(input.number() as i64 % 7_200_000 - 3_600_000),
            236 => self.node.set_answering(line, input.flag()),
            237 => {
                self.node.crash();
                (0..PEOPLE.len()).for_each(|seat| self.join(seat, json!({})));
            }
            _ => self.learn(),
        }
    }

    /// Lets everything be done, and looks at what was heard for ids of messages.
    fn learn(&mut self) {
        self.node.run_ms(300);
        let ids = self.node.lines().iter().flat_map(|line| line.pushes().filter_map(|push| push["data"]["message_id"].as_str()));
        let mut messages: Vec<String> = ids.map(str::to_owned).collect();
        messages.dedup();
        messages.truncate(8);
        self.messages.splice(2.., messages);
    }

    fn end(mut self) {
        self.node.heal_store();
        for line in self.seats {
            self.node.set_reading(line, true);
            self.node.set_answering(line, true);
        }
        self.node.run_ms(5_000);
        self.judge_replies();
        self.judge_order();
        let heard: usize = self.node.lines().iter().map(|line| line.heard.len()).sum();
        let reasonable = (self.steps + 4) * (self.steps + 4) * PEOPLE.len() * 4;
        assert!(heard <= reasonable, "{heard} things were heard after {} steps", self.steps);
        for line in 0..self.node.lines().len() {
            self.node.tear(LineId(line));
        }
        self.node.run_ms(10_000);
        for left in self.node.leftovers() {
            assert_eq!(left, Leftovers::default());
        }
        assert_eq!(self.node.directory_len(), 0);
    }

    /// Every request of a connection that lives has one answer, of a type that the protocol names.
    fn judge_replies(&self) {
        let mut answers: HashMap<(usize, &str), Vec<&str>> = HashMap::new();
        for (at, line) in self.node.lines().iter().enumerate() {
            for push in line.pushes() {
                let kind = push["type"].as_str().expect("whatever is said has a type");
                if let Some(id) = push["message_id"].as_str() {
                    answers.entry((at, id)).or_default().push(kind);
                }
            }
        }
        for ((at, id), verb) in &self.asked {
            let line = &self.node.lines()[*at];
            let answers = answers.remove(&(*at, id.as_str())).unwrap_or_default();
            let expected = reply(verb);
            for answer in &answers {
                assert!(
                    *answer == "error" || Some(*answer) == expected || (*verb == "auth" && *answer == "auth_failed"),
                    "{answer}"
                );
            }
            assert!(answers.len() <= 1, "{verb} is answered by {answers:?}");
            let ended = line.is_lost() || line.heard.iter().any(|heard| matches!(heard, Heard::Close(..)));
            assert!(ended || expected.is_none() || answers.len() == 1, "{verb} has no answer: {:?}", line.heard);
        }
        let own = |id: &str| id.starts_with("corehub-fuzz-");
        assert!(!answers.keys().any(|(_, id)| own(id)), "an answer to nobody's request");
    }

    /// Messages that are not repeats come in the order of their log.
    fn judge_order(&self) {
        for (at, line) in self.node.lines().iter().enumerate() {
            if self.asked.iter().any(|((line, _), verb)| *line == at && *verb == "sync") {
                continue;
            }
            let mut last: HashMap<&str, u64> = HashMap::new();
            for push in line.pushes().filter(|push| push["type"] == "new_message" && push["data"]["redelivered"] != true) {
                let (conversation, seq) = (push["data"]["conversation_id"].as_str(), push["data"]["seq"].as_u64());
                let (Some(conversation), Some(seq)) = (conversation, seq) else { panic!("{push}") };
                let before = last.insert(conversation, seq).unwrap_or(0);
                assert!(before < seq, "{conversation}: {seq} after {before}");
            }
        }
    }
}

/// The type of the answer, when there is one.
fn reply(verb: &str) -> Option<&'static str> {
    match verb {
        "auth" | "refresh" => Some("auth_success"),
        "ping" => Some("pong"),
        "recv_ack" | "typing" => None,
        "get_history" => Some("history"),
        "get_conversations" => Some("conversations"),
        "get_unread" => Some("unread"),
        "sync" => Some("sync_done"),
        "get_presence" | "subscribe_presence" => Some("presence"),
        "search" => Some("search_result"),
        _ => Some("ack"),
    }
}

/// A request that is mostly well formed.
fn request(input: &mut Input<'_>, messages: &[String]) -> (&'static str, Value) {
    let verb = Command::NAMES[input.below(Command::NAMES.len())];
    let mut data = json!({});
    match verb {
        "auth" | "refresh" => data["token"] = text(input),
        "send_message" => {
            target(input, &mut data, "to_user_id");
            data["content"] = if input.flag() { text(input) } else { json!({"n": input.number()}) };
            optional(input, &mut data, "mentions", users);
            optional(input, &mut data, "loss_time", |input| json!(input.number()));
            optional(input, &mut data, "reply_to", |input| message(input, messages));
            optional(input, &mut data, "ext", |input| json!({"e": input.number()}));
        }
        "recv_ack" => {
            data["conversation_id"] = conversation(input);
            data["seq"] = json!(input.number());
        }
        "mark_read" => {
            place(input, &mut data);
            if input.flag() {
                data["seq"] = json!(input.number());
            } else {
                data["message_id"] = message(input, messages);
            }
        }
        "join_group" | "leave_group" => data["group_id"] = group(input),
        "create_group" => {
            optional(input, &mut data, "group_id", group);
            optional(input, &mut data, "members", users);
            optional(input, &mut data, "open", |input| json!(input.flag()));
        }
        "invite_to_group" | "remove_from_group" => {
            data["group_id"] = group(input);
            data["user_ids"] = users(input);
        }
        "typing" => {
            target(input, &mut data, "to_user_id");
            data["state"] = json!(["start", "stop"][input.below(2)]);
        }
        "recall_message" | "delete_message" => data["message_id"] = message(input, messages),
        "get_history" => {
            place(input, &mut data);
            for name in ["before_seq", "after_seq", "since", "until", "limit"] {
                optional(input, &mut data, name, |input| json!(input.number()));
            }
            optional(input, &mut data, "cursor", |input| json!(format!("{}{}", ["a", "b", ""][input.below(3)], input.number())));
        }
        "get_conversations" => {
            optional(input, &mut data, "limit", |input| json!(input.number()));
            optional(input, &mut data, "cursor", text);
        }
        "sync" => {
            let cursors = input.list(3, |input| (conversation(input), json!(input.number())));
            data["cursors"] = cursors.into_iter().map(|(id, seq)| (id.as_str().unwrap_or_default().to_owned(), seq)).collect();
        }
        "search" => search(input, &mut data),
        _ if verb.ends_with("_presence") => {
            if input.flag() {
                data["user_ids"] = users(input);
            } else {
                data["group_id"] = group(input);
            }
        }
        _ => {}
    }
    (verb, data)
}

fn search(input: &mut Input<'_>, data: &mut Value) {
    data["query"] = text(input);
    optional(input, data, "conversation_id", conversation);
    optional(input, data, "limit", |input| json!(input.number()));
    optional(input, data, "cursor", text);
}

fn optional(input: &mut Input<'_>, data: &mut Value, name: &str, read: impl FnOnce(&mut Input<'_>) -> Value) {
    if let Some(value) = input.some(read) {
        data[name] = value;
    }
}

fn target(input: &mut Input<'_>, data: &mut Value, user_name: &str) {
    if input.flag() {
        data[user_name] = user(input);
    } else {
        data["group_id"] = group(input);
    }
}

fn place(input: &mut Input<'_>, data: &mut Value) {
    match input.below(3) {
        0 => data["conversation_id"] = conversation(input),
        1 => data["group_id"] = group(input),
        _ => data["user_id"] = user(input),
    }
}

fn user(input: &mut Input<'_>) -> Value {
    match input.below(8) {
        at @ 0..3 => json!(PEOPLE[at]),
        3 => json!("dave"),
        4 => json!("a:b%"),
        5 => json!("\u{e9}".repeat(64)),
        _ => text(input),
    }
}

fn users(input: &mut Input<'_>) -> Value {
    json!(input.list(5, user))
}

fn group(input: &mut Input<'_>) -> Value {
    match input.below(6) {
        at @ 0..4 => json!(["g", "h", "i:%", "j"][at]),
        _ => text(input),
    }
}

fn conversation(input: &mut Input<'_>) -> Value {
    const IDS: [&str; 8] =
        ["p:alice:bob", "p:alice:carol", "p:bob:carol", "g:g", "g:i%3A%25", "s:alice", "p:alice:alice", "p:bob:alice"];
    match input.below(10) {
        at @ 0..8 => json!(IDS[at]),
        _ => text(input),
    }
}

fn message(input: &mut Input<'_>, messages: &[String]) -> Value {
    json!(messages[input.below(messages.len())])
}

fn text(input: &mut Input<'_>) -> Value {
    json!(input.text())
}

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const A_MESSAGE: &str = "0193e2a4-7d5c-7c3b-8b1a-0123456789ab";
const STEPS_MAX: usize = 64;
