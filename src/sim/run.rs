//! Owns one run from a seed: a phase of work and faults, a phase in which all is healed and must converge, and the judgement.
//! When a run fails, finds a shorter script that fails too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;

use super::node::{Node, Plan, Trace};
use super::oracle;
use super::orders::Orders;
use super::pass::{GRACE_MS, HEARTBEAT_MS};
use super::people::Device;
use super::script::{Action, Step, Wildness, draw};
use super::tally::Tally;
use crate::engine::settings::SessionPolicy;
use crate::types::envelope::Body;
#[cfg(any(test, feature = "planted-faults"))]
use crate::types::planted::take_reached;
use crate::types::{CloseCode, ConversationId, ConversationKind, GroupId, RawJson};

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
pub fn run(seed: u64, ms: u64) -> Result<Tally, Box<Failure>> {
    let steps = steps(seed, ms);
    attempt(seed, &steps, None).map_err(|why| {
        let steps = shrink(seed, steps, &why);
        let trace = Trace::default();
        let why = attempt(seed, &steps, Some(trace.clone())).err().unwrap_or(why);
        Box::new(Failure { seed, why, steps, trace: trace.take() })
    })
}

/// The same without looking for a shorter script.
///
/// # Errors
/// Why the seed fails.
pub fn run_once(seed: u64, ms: u64) -> Result<Tally, String> {
    attempt(seed, &steps(seed, ms), None)
}

fn steps(seed: u64, ms: u64) -> Vec<Step> {
    let wildness = Wildness { faults: !seed.is_multiple_of(4), crashes: seed % 2 == 1 };
    draw(&mut fastrand::Rng::with_seed(seed), ms, wildness)
}

fn attempt(seed: u64, steps: &[Step], trace: Option<Trace>) -> Result<Tally, String> {
    let play = || {
        #[cfg(any(test, feature = "planted-faults"))]
        take_reached();
        let mut run = Run::new(seed);
        if let Some(trace) = trace {
            run.node.trace(trace);
        }
        run.play(steps)
    };
    quiet_panics();
    ATTEMPTING.set(true);
    let result = catch_unwind(AssertUnwindSafe(play)).map_err(|_| WHY.take());
    ATTEMPTING.set(false);
    result
}

/// Keeps panics of attempts from being printed at every one; failures tell them once. For the whole process.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| if ATTEMPTING.get() { WHY.set(panic.to_string()) } else { loud(panic) }));
    });
}

thread_local! {
    /// What the last panic of this thread said.
    static WHY: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
    /// This thread runs an attempt, whose panics are its result.
    static ATTEMPTING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
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

/// One run: the node, who uses it, and chance.
pub(super) struct Run {
    pub node: Node,
    pub random: fastrand::Rng,
    pub devices: Vec<Device>,
    pub users: Vec<String>,
    pub groups: Vec<GroupId>,
    pub orders: Orders,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        // Now and then a crowd, close together, so that rooms are large for their slices.
        let crowd = seed % CROWD_EVERY == CROWD_EVERY - 2;
        let shards = [1, 2, 2, 3, 4, 5, 6, 7, 8][random.usize(..if crowd { 2 } else { 9 })];
        let mut plan = Plan::new(seed, shards);
        let settings = &mut plan.settings;
        settings.outbox_bytes_max = [1_500, 2_500, 6_000][random.usize(..3)];
        settings.sessions_per_user = [0, 1, 2, 3, 5][random.usize(..5)];
        settings.session_policy =
            [SessionPolicy::EvictOldest, SessionPolicy::Reject, SessionPolicy::ReplaceDevice][random.usize(..3)];
        settings.presence_contacts_only = random.u8(..3) == 0;
        settings.expiry_grace_ms = GRACE_MS;
        settings.ack_timeout_ms = 2_000;
        settings.heartbeat_interval_ms = HEARTBEAT_MS;
        settings.heartbeat_timeout_ms = 5_000;
        settings.write_timeout_ms = 3_000;
        settings.conversations_cached_max = [1, 4, 1_000][random.usize(..3)];
        settings.errors_per_minute = 100_000;
        settings.messages_per_second = 100_000;
        settings.user_messages_per_second = [0, 100_000][random.usize(..2)];
        settings.loading_requests_max = [1, 4, 1_024][random.usize(..3)];
        settings.walk_members_max = [1, 2, 4_096][random.usize(..3)];
        settings.walks_max = [1, 3, 1_024][random.usize(..3)];
        plan.kernel_bytes = [500, 8 << 10][random.usize(..2)];
        plan.ring_capacity = [1, 2, 8, 256][random.usize(..4)];
        let pace = &mut plan.pace;
        pace.mesh_us = 1..=[10, 500, 20_000][random.usize(..3)];
        pace.read_us = 1..=[10, 2_000, 50_000][random.usize(..3)];
        pace.commit_us = 1..=[100, 3_000, 50_000][random.usize(..3)];
        pace.turn_us = 1..=[10, 1_000][random.usize(..2)];
        pace.socket_us = 1..=[10, 2_000, 50_000][random.usize(..3)];
        pace.events_per_turn_max = [1, 4, 64][random.usize(..3)];
        pace.mesh_per_turn_max = [1, 8, 4_096][random.usize(..3)];
        if crowd {
            plan.settings.walk_members_max = random.usize(1..=2);
            plan.pace.turn_us = 500..=2_000;
        }
        let users: Vec<String> =
            (0..if crowd { random.usize(12..24) } else { random.usize(2..7) }).map(|user| format!("u{user}")).collect();
        let mut devices = Vec::new();
        for user in &users {
            for name in ["a", "b"].iter().take(if crowd { 1 } else { random.usize(1..=2) }) {
                devices.push(Device::new(user.clone(), (*name).to_owned(), random.bool(), random.u8(..3) > 0));
            }
        }
        let groups =
            (0..3).map(|group| GroupId::new(&format!("g{group}")).expect("a letter and a digit are an identifier")).collect();
        let mut run = Run { node: Node::new(plan), random, devices, users, groups, orders: Orders::default() };
        for at in 0..run.devices.len() {
            run.devices[at].conversations = run.conversations_of(at);
            run.devices[at].forgetful = run.random.u8(..4) == 0;
            run.devices[at].curious = run.random.u8(..3) == 0;
        }
        run
    }

    fn play(mut self, steps: &[Step]) -> Tally {
        self.introduce();
        for step in steps {
            self.pass(step.wait_ms);
            self.node.remark(|| format!("{:?}", step.action));
            self.act(&step.action);
        }
        self.stampede();
        self.calm();
        self.heal();
        oracle::judge(&mut self.node, &self.devices, &self.groups, &self.orders.drafts);
        self.watch();
        self.leave()
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
        let crowd = self.users.len() > 8;
        for group in self.groups.clone() {
            let members: Vec<&String> = self.users.iter().skip(1).filter(|_| crowd || self.random.bool()).collect();
            let data = json!({"group_id": group.as_str(), "members": members, "open": self.random.bool()});
            self.devices[0].ask(&mut self.node, "create_group", data);
        }
        self.pass(1_000);
    }

    /// Lets time pass, in slices after which the clients react.
    pub(super) fn pass(&mut self, ms: u64) {
        self.pass_and(ms, |_, _| {});
    }

    /// The same, and looks at what has become of it after every slice; `look` is told what is left of `ms`.
    pub(super) fn pass_and(&mut self, ms: u64, look: impl Fn(&Run, u64)) {
        let mut left = ms;
        while left > 0 {
            let slice = self.random.u64(1..=20).min(left);
            left -= slice;
            self.node.run_ms(slice);
            self.listen();
            look(self, left);
        }
    }

    fn listen(&mut self) {
        self.orders.listen(&mut self.node);
        for device in &mut self.devices {
            let confirm = self.random.u8(..40) == 0;
            device.listen(&mut self.node, confirm);
        }
    }

    pub(super) fn connect(&mut self, device: usize) {
        let shard = self.random.usize(..self.node.shards());
        let device = &mut self.devices[device];
        device.connect(&mut self.node, shard, None);
        if self.random.u8(..6) == 0 {
            // Without waiting to be let in.
            device.ask(&mut self.node, "get_unread", json!({}));
        }
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
            Action::StallShard { shard, ms } => node.stall_shard(shard % node.shards(), ms),
            Action::Restart => {
                node.drain(2_000);
                self.pass(3_000);
                self.node.crash();
            }
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
            Action::Recall { .. }
            | Action::Delete { .. }
            | Action::ConfirmBeyond { .. }
            | Action::Flicker { .. }
            | Action::AskForLists(_) => self.request_oddly(action),
            Action::ConnectBriefly { .. }
            | Action::Refresh { .. }
            | Action::Revoke(_)
            | Action::Age { .. }
            | Action::Order { .. }
            | Action::Arrange { .. } => self.operate(action),
            ref request => self.request(request),
        }
    }

    /// What a device does that is more than one plain request.
    fn request_oddly(&mut self, action: &Action) {
        let group = |at: usize| json!(self.groups[at % self.groups.len()].as_str());
        let user = |at: usize| json!(self.users[at % self.users.len()]);
        match *action {
            Action::Recall { device, which } | Action::Delete { device, which } => {
                let hidden = matches!(action, Action::Delete { .. });
                self.with(device, |device, node| {
                    let Some(entry) = device.entries.get(which % device.entries.len().max(1)).cloned() else { return };
                    device.erase(node, entry.message_id, hidden);
                });
            }
            Action::ConfirmBeyond { device, which, by } => {
                self.with(device, |device, node| device.confirm_beyond(node, which, by));
            }
            Action::Flicker { device, group: which, user: member } => {
                let data = json!({"group_id": group(which), "user_ids": [user(member)]});
                let named = self.users[member % self.users.len()].clone();
                self.with(device, |device, node| {
                    device.ask(node, "remove_from_group", data.clone());
                    device.ask(node, "invite_to_group", data);
                });
                for at in 0..self.devices.len() {
                    if self.devices[at].user == named {
                        self.connect(at);
                    }
                }
            }
            Action::AskForLists(device) => {
                self.with(device, |device, node| {
                    (0..8).for_each(|_| device.ask(node, "get_conversations", json!({})));
                });
            }
            ref other => unreachable!("{other:?} is done elsewhere"),
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
            Action::History { device, group: which } => {
                let data = json!({"group_id": group(which)});
                return self.with(device, |device, node| device.read_history(node, data));
            }
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
    pub(super) fn with(&mut self, device: usize, act: impl FnOnce(&mut Device, &mut Node)) {
        let count = self.devices.len();
        let device = &mut self.devices[device % count];
        if device.is_ready() {
            act(device, &mut self.node);
        }
    }

    /// The conversations that a device's user may be in.
    pub(super) fn conversations_of(&self, device: usize) -> Vec<ConversationId> {
        let user = oracle::user(&self.devices[device % self.devices.len()].user);
        let private = self.users.iter().map(|other| ConversationId::private(&user, &oracle::user(other)));
        let groups = self.groups.iter().map(ConversationId::group);
        private.chain(groups).chain([ConversationId::system(&user)]).collect()
    }
}

impl Device {
    /// Asks for what it lacks: by the server's own record, or by what it has of every conversation that may be its own.
    pub(super) fn sync(&mut self, node: &mut Node, named: &[ConversationId]) {
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
const CROWD_EVERY: u64 = 10;
const SHRINK_ATTEMPTS_MAX: usize = 2_000;
