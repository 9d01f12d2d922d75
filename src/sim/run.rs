//! Owns one run from a seed: a phase of work and faults, a phase in which all is healed and must converge, and the judgement.
//! When a run fails, finds a shorter script that fails too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;

use super::node::{Node, Plan, Trace};
use super::oracle;
use super::people::Device;
use super::script::{Action, Step, Wildness, draw};
use crate::engine::settings::SessionPolicy;
use crate::engine::shard::Leftovers;
use crate::types::envelope::Body;
use crate::types::{CloseCode, ConversationId, ConversationKind, GroupId, RawJson};

/// What one run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: usize,
    pub connections: usize,
    pub messages: usize,
    pub heard: usize,
    pub virtual_ms: u64,
}

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub why: String,
    /// The shortest script found that still fails.
    pub steps: Vec<Step>,
    /// What clients said and heard in it.
    pub trace: Vec<String>,
}

/// Runs a seed for about `ms` milliseconds of virtual time.
///
/// # Errors
/// When anything that must hold does not: with a shrunken script.
pub fn run(seed: u64, ms: u64) -> Result<Summary, Box<Failure>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let wildness = Wildness { faults: !seed.is_multiple_of(4), crashes: seed % 4 == 3 };
    let steps = draw(&mut random, ms, wildness);
    attempt(seed, &steps, None).map_err(|why| {
        let steps = shrink(seed, steps, &why);
        let trace = Trace::default();
        let why = attempt(seed, &steps, Some(trace.clone())).err().unwrap_or(why);
        Box::new(Failure { seed, why, steps, trace: trace.take() })
    })
}

fn attempt(seed: u64, steps: &[Step], trace: Option<Trace>) -> Result<Summary, String> {
    let play = || {
        let mut run = Run::new(seed);
        if let Some(trace) = trace {
            run.node.trace(trace);
        }
        run.play(steps)
    };
    catch_unwind(AssertUnwindSafe(play)).map_err(|_| WHY.take())
}

/// Keeps panics from being printed at every attempt; failures tell them once. For the whole process.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| WHY.set(panic.to_string())));
}

thread_local! {
    /// What the last panic of this thread said.
    static WHY: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Leaves out as much as possible while the run fails for the same kind of reason.
fn shrink(seed: u64, mut steps: Vec<Step>, why: &str) -> Vec<Step> {
    let kind = kind(why);
    let mut part = steps.len() / 2;
    let mut attempts = SHRINK_ATTEMPTS_MAX;
    while part > 0 && attempts > 0 {
        let mut at = 0;
        while at < steps.len() && attempts > 0 {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + part).min(steps.len()));
            attempts -= 1;
            match attempt(seed, &shorter, None) {
                Err(other) if self::kind(&other) == kind => steps = shorter,
                _ => at += part,
            }
        }
        part /= 2;
    }
    steps
}

/// Where it failed.
fn kind(why: &str) -> String {
    why.lines().next().unwrap_or_default().to_owned()
}

struct Run {
    node: Node,
    random: fastrand::Rng,
    devices: Vec<Device>,
    users: Vec<String>,
    groups: Vec<GroupId>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut plan = Plan::new(seed, [1, 1, 2, 2, 3, 4, 8][random.usize(..7)]);
        let settings = &mut plan.settings;
        settings.outbox_bytes_max = [2_000, 6_000, 64_000][random.usize(..3)];
        settings.sessions_per_user = [0, 1, 2, 3, 5][random.usize(..5)];
        settings.session_policy =
            [SessionPolicy::EvictOldest, SessionPolicy::Reject, SessionPolicy::ReplaceDevice][random.usize(..3)];
        settings.ack_timeout_ms = 2_000;
        settings.heartbeat_interval_ms = 4_000;
        settings.heartbeat_timeout_ms = 5_000;
        settings.write_timeout_ms = 3_000;
        settings.conversations_cached_max = [1, 4, 1_000][random.usize(..3)];
        settings.errors_per_minute = 100_000;
        settings.messages_per_second = 100_000;
        settings.user_messages_per_second = [0, 100_000][random.usize(..2)];
        let pace = &mut plan.pace;
        pace.mesh_us = 1..=[10, 500, 20_000][random.usize(..3)];
        pace.read_us = 1..=[10, 2_000, 50_000][random.usize(..3)];
        pace.commit_us = 1..=[100, 3_000, 50_000][random.usize(..3)];
        pace.turn_us = 1..=[10, 1_000][random.usize(..2)];
        pace.socket_us = 1..=[10, 2_000, 50_000][random.usize(..3)];
        pace.events_per_turn_max = [1, 4, 64][random.usize(..3)];
        let users: Vec<String> = (0..random.usize(2..7)).map(|user| format!("u{user}")).collect();
        let mut devices = Vec::new();
        for user in &users {
            for name in ["a", "b"].iter().take(random.usize(1..=2)) {
                devices.push(Device::new(user.clone(), (*name).to_owned(), random.bool(), random.u8(..3) > 0));
            }
        }
        let groups =
            (0..3).map(|group| GroupId::new(&format!("g{group}")).expect("a letter and a digit are an identifier")).collect();
        Run { node: Node::new(plan), random, devices, users, groups }
    }

    fn play(mut self, steps: &[Step]) -> Summary {
        self.introduce();
        for step in steps {
            self.pass(step.wait_ms);
            self.node.remark(|| format!("{:?}", step.action));
            self.act(&step.action);
        }
        self.heal();
        oracle::judge(&mut self.node, &self.devices, &self.groups);
        let summary = Summary {
            steps: steps.len(),
            connections: self.node.lines().len(),
            messages: self.devices.iter().map(|device| device.drafts.len()).sum(),
            heard: self.devices.iter().map(|device| device.entries.len()).sum(),
            virtual_ms: self.node.now_ms(),
        };
        self.leave();
        summary
    }

    /// Every device shows itself once, so that everything that follows is for it; and there are groups.
    fn introduce(&mut self) {
        for at in 0..self.devices.len() {
            self.connect(at);
            self.pass(1_000);
            let line = self.devices[at].line().expect("alone it gets in");
            self.node.tear(line);
            self.pass(1_000);
        }
        self.connect(0);
        self.pass(1_000);
        for group in self.groups.clone() {
            let members: Vec<&String> = self.users.iter().skip(1).filter(|_| self.random.bool()).collect();
            let data = json!({"group_id": group.as_str(), "members": members, "open": self.random.bool()});
            self.devices[0].ask(&mut self.node, "create_group", data);
        }
        self.pass(1_000);
    }

    /// Lets time pass, in slices after which the clients react.
    fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let slice = self.random.u64(1..=20).min(left);
            left -= slice;
            self.node.run_ms(slice);
            self.listen();
        }
    }

    fn listen(&mut self) {
        for device in &mut self.devices {
            let confirm = self.random.u8(..40) == 0;
            device.listen(&mut self.node, confirm);
        }
    }

    fn connect(&mut self, device: usize) {
        let shard = self.random.usize(..self.node.shards());
        let device = &mut self.devices[device];
        device.connect(&mut self.node, shard);
        let (name, line) = (device.name(), device.line());
        self.node.remark(|| format!("{name} is on {line:?}, shard {shard}"));
    }

    fn act(&mut self, action: &Action) {
        let node = &mut self.node;
        let count = self.devices.len();
        let group = |at: usize| json!(self.groups[at % self.groups.len()].as_str());
        let user = |at: usize| json!(self.users[at % self.users.len()]);
        match *action {
            Action::Connect(device) => self.connect(device % count),
            Action::Close(device) | Action::Tear(device) | Action::Vanish(device) => {
                let Some(line) = self.devices[device % count].line() else { return };
                match action {
                    Action::Close(_) => node.close(line),
                    Action::Tear(_) => node.tear(line),
                    _ => node.vanish(line),
                }
            }
            Action::StopReading(device) | Action::GoOnReading(device) => {
                if let Some(line) = self.devices[device % count].line() {
                    node.set_reading(line, matches!(action, Action::GoOnReading(_)));
                }
            }
            Action::SendToUser { device, user: to, loss_time_ms } => {
                let data = json!({"to_user_id": user(to), "loss_time": loss_time_ms.unwrap_or(0)});
                self.with(device, |device, node| device.write(node, data))
            }
            Action::SendToGroup { device, group: to } => {
                let data = json!({"group_id": group(to)});
                self.with(device, |device, node| device.write(node, data))
            }
            Action::FailCommits(commits) => node.fail_store(commits, 0),
            Action::FailReads(reads) => node.fail_store(0, reads),
            Action::Stall(ms) => node.stall_store(ms),
            Action::LimitStore(requests_max) => node.limit_store(requests_max),
            Action::HealStore => node.heal_store(),
            Action::JumpClock(by_ms) => node.jump_clock(by_ms),
            Action::Crash => node.crash(),
            Action::Garbage(device) => {
                if let Some(line) = self.devices[device % count].line() {
                    node.say_garbage(line);
                }
            }
            Action::Kick(at) => {
                let user = oracle::user(&self.users[at % self.users.len()]);
                node.operate(at % node.shards(), Body::Kick { user, device: None, close: CloseCode::Kicked });
            }
            Action::Notify(at) => {
                let user = oracle::user(&self.users[at % self.users.len()]);
                let content = RawJson::string("note");
                node.operate(at % node.shards(), Body::Notify { user, kind: "custom".into(), content, asker: None });
            }
            ref request => self.request(request),
        }
    }

    /// What one device asks of the server.
    fn request(&mut self, action: &Action) {
        let group = |at: usize| json!(self.groups[at % self.groups.len()].as_str());
        let user = |at: usize| json!(self.users[at % self.users.len()]);
        let (device, kind, data) = match *action {
            Action::Repeat { device, which } => {
                return self.with(device, |device, node| {
                    let which = which % device.drafts.len().max(1);
                    device.write_again(node, which);
                });
            }
            Action::MarkRead { device, which } => {
                return self.with(device, |device, node| {
                    let Some(entry) = device.entries.get(which % device.entries.len().max(1)).cloned() else { return };
                    device.ask(node, "mark_read", json!({"conversation_id": entry.conversation, "seq": entry.seq}));
                });
            }
            Action::Recall { device, which } | Action::Delete { device, which } => {
                let kind = if matches!(action, Action::Recall { .. }) { "recall_message" } else { "delete_message" };
                return self.with(device, |device, node| {
                    let Some(entry) = device.entries.get(which % device.entries.len().max(1)).cloned() else { return };
                    device.ask(node, kind, json!({"message_id": entry.message_id}));
                });
            }
            Action::Sync { device, everything } => {
                let named = if everything { Vec::new() } else { self.conversations_of(device) };
                return self.with(device, |device, node| device.sync(node, &named));
            }
            Action::Nonsense { device, which } => {
                return self.with(device, |device, node| {
                    let Some(line) = device.line() else { return };
                    node.say_text(line, NONSENSE[which % NONSENSE.len()]);
                });
            }
            Action::Ping(device) => (device, "ping", json!({})),
            Action::Join { device, group: which } => (device, "join_group", json!({"group_id": group(which)})),
            Action::Leave { device, group: which } => (device, "leave_group", json!({"group_id": group(which)})),
            Action::Create { device, group: which, user: member } => {
                (device, "create_group", json!({"group_id": group(which), "members": [user(member)]}))
            }
            Action::Invite { device, group: which, user: member } => {
                (device, "invite_to_group", json!({"group_id": group(which), "user_ids": [user(member)]}))
            }
            Action::Remove { device, group: which, user: member } => {
                (device, "remove_from_group", json!({"group_id": group(which), "user_ids": [user(member)]}))
            }
            Action::History { device, group: which } => (device, "get_history", json!({"group_id": group(which)})),
            Action::Watch { device, user: whom } => (device, "subscribe_presence", json!({"user_ids": [user(whom)]})),
            Action::WatchGroup { device, group: which } => (device, "subscribe_presence", json!({"group_id": group(which)})),
            Action::Typing { device, user: whom } => {
                let data = json!({"to_user_id": user(whom), "state": "start"});
                return self.with(device, |device, node| {
                    let Some(line) = device.line() else { return };
                    node.say(line, &json!({"type": "typing", "data": data}));
                });
            }
            ref other => unreachable!("{other:?} is done elsewhere"),
        };
        self.with(device, |device, node| device.ask(node, kind, data));
    }

    /// Does something with a device that is let in.
    fn with(&mut self, device: usize, act: impl FnOnce(&mut Device, &mut Node)) {
        let count = self.devices.len();
        let device = &mut self.devices[device % count];
        if device.is_ready() {
            act(device, &mut self.node);
        }
    }

    /// The conversations that a device's user may be in.
    fn conversations_of(&self, device: usize) -> Vec<ConversationId> {
        let user = oracle::user(&self.devices[device % self.devices.len()].user);
        let private = self.users.iter().map(|other| ConversationId::private(&user, &oracle::user(other)));
        let groups = self.groups.iter().map(ConversationId::group);
        private.chain(groups).chain([ConversationId::system(&user)]).collect()
    }

    /// All is well again: everybody comes back, one after the other where only few may, says again what was not acknowledged,
    /// and is told everything.
    fn heal(&mut self) {
        self.node.heal_store();
        for device in &mut self.devices {
            if let Some(line) = device.line() {
                self.node.tear(line);
            }
            device.diligent = true;
        }
        self.pass(20_000);
        // What was not acknowledged is settled first, so that the rest hears of it.
        for round in ["write", "hear"] {
            for at in 0..self.devices.len() {
                self.visit(at, round == "hear");
            }
        }
    }

    fn visit(&mut self, at: usize, lacking: bool) {
        self.connect(at);
        self.settle(at);
        for which in 0..self.devices[at].drafts.len() {
            if self.devices[at].drafts[which].ack.is_none() && !self.devices[at].drafts[which].refused {
                self.with(at, |device, node| device.write_again(node, which));
            }
        }
        // What broke with a connection has to be asked for by those who do not confirm.
        if lacking && !self.devices[at].acks {
            let named = self.conversations_of(at);
            self.with(at, |device, node| device.sync(node, &named));
        }
        self.settle(at);
        if lacking {
            self.judge_lists(at);
        }
        let line = self.devices[at].line().expect("a settled device is connected");
        self.node.close(line);
        self.pass(8_000);
        assert!(self.devices[at].line().is_none(), "{} said goodbye and was not let go", self.devices[at].name());
    }

    /// Alone on the node, with everything read.
    fn judge_lists(&mut self, at: usize) {
        let (users, conversations) = (self.users.clone(), self.conversations_of(at));
        self.with(at, |device, node| {
            for conversation in conversations {
                device.ask(node, "mark_read", json!({"conversation_id": conversation.as_str(), "seq": 1_000_000}));
            }
            device.expect_alone(node, &users);
        });
        self.settle(at);
        self.with(at, |device, node| device.expect_nothing_unread(node));
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.pass(500);
            if self.devices[at].line().is_none() {
                self.connect(at);
            }
            if self.devices[at].is_settled() {
                // What was pushed last is confirmed, too.
                return self.pass(200);
            }
        }
        panic!("{} does not come to rest: {:?}", self.devices[at].name(), self.devices[at].line());
    }

    /// Everybody goes, of themselves or because the node is drained: nothing of them may be left.
    fn leave(mut self) {
        if self.random.bool() {
            (0..self.devices.len()).for_each(|at| self.connect(at));
            let ms = self.random.u64(..200);
            self.pass(ms);
            self.node.drain(2_000);
            self.pass(8_000);
            assert!(self.devices.iter().all(|device| device.line().is_none()), "a drained node holds connections");
        }
        self.pass(15_000);
        for (shard, left) in self.node.leftovers().into_iter().enumerate() {
            assert_eq!(left, Leftovers::default(), "left behind on shard {shard}");
            let counters = self.node.counters(shard);
            let counts = (counters.sessions, counters.ready, counters.lagging, counters.online_users);
            assert_eq!(counts, (0, 0, 0, 0), "counted on shard {shard}: sessions, ready, lagging, users");
        }
        assert_eq!(self.node.directory_len(), 0, "sessions are left in the directory");
        self.node.run_ms(200_000);
        assert_eq!(self.node.timers_waiting(), 0, "timers are left");
    }
}

impl Device {
    /// Asks for what it lacks: by the server's own record, or by what it has of every conversation that may be its own.
    fn sync(&mut self, node: &mut Node, named: &[ConversationId]) {
        let mut cursors = serde_json::Map::new();
        for conversation in named {
            let after = match conversation.kind() {
                ConversationKind::Group(group) => match node.ledger().present(&group, &oracle::user(&self.user)) {
                    Some(stay) => stay.after,
                    None => continue,
                },
                _ => 0,
            };
            let at = self.contiguous(conversation.as_str(), after);
            cursors.insert(conversation.to_string(), json!(at));
        }
        self.ask(node, "sync", json!({"cursors": cursors}));
    }
}

const NONSENSE: [&str; 6] = [
    "",
    "{",
    "[]",
    "{\"type\": \"nothing\"}",
    "{\"type\": \"send_message\", \"data\": {}}",
    "{\"type\": \"mark_read\", \"message_id\": \"\", \"data\": {\"seq\": 0}}",
];
const SHRINK_ATTEMPTS_MAX: usize = 2_000;
const SETTLE_ROUNDS_MAX: usize = 200;
