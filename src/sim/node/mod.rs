//! Owns a whole node on virtual time: its shards, the rings between them, its disk, its connections, and the driver's part of
//! the work (collect, step, apply, flush).
//!
//! Never decides what the engine decides. All chance comes from the plan's seed, so the same plan and the same calls give the
//! same run.

mod clients;
mod driver;
mod storage;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::agenda::{Agenda, Happening};
use super::disk::Disk;
use super::ledger::Ledger;
use super::seat::{Incoming, Seat};
use super::socket::{Heard, Line, LineId, Said, Server};
use crate::auth::{AuthRules, NewToken, Verifier, issue};
use crate::engine::shard::Leftovers;
use crate::engine::{Counters, Event, Settings, Shard};
use crate::store::Outcome;
use crate::types::envelope::{Body, Envelope};
use crate::types::storage::Read;
use crate::types::{Millis, SessionId, SessionKey, ShardId, UserId};
use crate::wire::json::{JsonEncoder, Scratch};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: u16,
    pub settings: Settings,
    pub pace: Pace,
}

/// How long things take, in microseconds, each drawn anew.
#[derive(Clone, Debug)]
pub struct Pace {
    pub turn_us: RangeInclusive<u64>,
    pub mesh_us: RangeInclusive<u64>,
    pub socket_us: RangeInclusive<u64>,
    pub commit_us: RangeInclusive<u64>,
    pub read_us: RangeInclusive<u64>,
    /// Events that one turn takes in at most.
    pub events_per_turn_max: usize,
    /// Frames of one flight at most.
    pub flight_frames_max: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            turn_us: 1..=50,
            mesh_us: 1..=500,
            socket_us: 10..=2_000,
            commit_us: 50..=3_000,
            read_us: 10..=2_000,
            events_per_turn_max: 16,
            flight_frames_max: 8,
        }
    }
}

impl Plan {
    /// A plan with default settings and paces.
    pub fn new(seed: u64, shards: u16) -> Plan {
        Plan { seed, shards, settings: Settings { placement_seed: seed, ..Settings::default() }, pace: Pace::default() }
    }
}

/// What takes time.
#[derive(Clone, Copy, Debug)]
enum Delay {
    Turn,
    Mesh,
    Socket,
    Commit,
    Read,
}

/// A node and everything around it.
pub struct Node {
    plan: Plan,
    settings: Arc<Settings>,
    verifier: Arc<Verifier>,
    now_us: u64,
    /// What the wall clock is ahead of the monotonic one, beyond [`EPOCH_MS`].
    skew_ms: i64,
    agenda: Agenda,
    random: fastrand::Rng,
    delays: [fastrand::Rng; 5],
    seats: Vec<Seat>,
    /// By `from * shards + to`: what is on its way, and when the last of it arrives.
    rings: Vec<(VecDeque<Envelope>, u64)>,
    disk: Disk,
    lines: Vec<Line>,
    scratch: Scratch,
    /// Sessions that operators see.
    directory: BTreeMap<(usize, SessionKey), SessionId>,
    /// Happenings in the present microsecond.
    in_this_moment: u32,
    restarts: u64,
    /// What clients said and heard, when somebody wants to know.
    trace: Option<Trace>,
}

/// Lines of what has happened, which outlive the node.
pub type Trace = Rc<RefCell<Vec<String>>>;

/// What happens from outside.
impl Node {
    pub fn new(plan: Plan) -> Node {
        let rules = AuthRules { hmac_secrets: vec![SECRET.to_vec()], ..AuthRules::default() };
        let shards = usize::from(plan.shards);
        let mut node = Node {
            settings: Arc::new(plan.settings.clone()),
            verifier: Arc::new(Verifier::new(rules).expect("a secret is all that HS256 needs")),
            now_us: 0,
            skew_ms: 0,
            agenda: Agenda::default(),
            random: fastrand::Rng::with_seed(plan.seed),
            delays: std::array::from_fn(|kind| fastrand::Rng::with_seed(plan.seed ^ ((kind as u64 + 1) << 56))),
            seats: Vec::new(),
            rings: Vec::new(),
            disk: Disk::new(plan.seed, shards),
            lines: Vec::new(),
            scratch: Scratch::new(),
            directory: BTreeMap::new(),
            in_this_moment: 0,
            restarts: 0,
            trace: None,
            plan,
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let seed = self.plan.seed.wrapping_add(self.restarts << 32);
        for shard in 0..self.plan.shards {
            let encoder = Box::new(JsonEncoder::new());
            let (settings, verifier) = (self.settings.clone(), self.verifier.clone());
            let engine = Shard::new(ShardId(shard), self.plan.shards, settings, encoder, verifier, seed);
            self.seats.push(Seat::new(engine));
        }
        let pairs = usize::from(self.plan.shards).pow(2);
        self.rings = (0..pairs).map(|_| (VecDeque::new(), 0)).collect();
    }

    /// Writes down from now on what clients say and hear.
    pub fn trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// Adds a line to the trace.
    pub fn remark(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(format!("{:>9}.{:03} {}", self.now_us / 1_000, self.now_us % 1_000, text()));
        }
    }

    /// A client connects to a shard.
    pub fn connect(&mut self, shard: usize) -> LineId {
        let id = LineId(self.lines.len());
        let key = self.seats[shard].enter(id);
        self.lines.push(Line::new(shard, key));
        self.seats[shard].inbox.push_back(Incoming::Open(id));
        self.plan_turn(shard);
        id
    }

    /// A token that is good for `ttl_ms` from the beginning of the run.
    pub fn token(&self, user: &str, ttl_ms: u64) -> String {
        let user = UserId::new(user).expect("the workload names users well");
        issue(SECRET, &NewToken::for_user(user, ttl_ms), Millis(EPOCH_MS))
    }

    /// A client says a JSON envelope.
    pub fn say(&mut self, line: LineId, envelope: &Value) {
        self.upload(line, Said::Text(envelope.to_string().into_bytes()));
    }

    /// A client says any text.
    pub fn say_text(&mut self, line: LineId, text: &str) {
        self.upload(line, Said::Text(text.as_bytes().to_vec()));
    }

    pub fn ping(&mut self, line: LineId) {
        self.upload(line, Said::Ping(b"mark".to_vec()));
    }

    /// A client breaks the WebSocket protocol.
    pub fn say_garbage(&mut self, line: LineId) {
        self.upload(line, Said::Garbage);
    }

    /// A client says goodbye.
    pub fn close(&mut self, line: LineId) {
        self.upload(line, Said::Close(1000));
    }

    /// The connection is torn: both ends learn of it, and what was on the way to the client is lost.
    pub fn tear(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        if !found.present {
            return;
        }
        found.downward.clear();
        found.downward_bytes = 0;
        self.upload(line, Said::End);
        let found = &mut self.lines[line.0];
        found.present = false;
        found.heard.push(Heard::Lost);
    }

    /// The client vanishes without a sign: the server has to find out.
    pub fn vanish(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        if found.present {
            found.present = false;
            found.heard.push(Heard::Lost);
        }
    }

    /// The client stops or goes on reading.
    pub fn set_reading(&mut self, line: LineId, reads: bool) {
        self.lines[line.0].reads = reads;
        self.plan_download(line);
    }

    /// Whether the client answers pings and close frames.
    pub fn set_answering(&mut self, line: LineId, answers: bool) {
        self.lines[line.0].answers = answers;
    }

    /// An operator wants something of a shard.
    pub fn operate(&mut self, shard: usize, body: Body) {
        self.enqueue(shard, Incoming::Event(Box::new(Event::Operator(Box::new(body)))));
    }

    /// All shards begin to drain.
    pub fn drain(&mut self, window_ms: u64) {
        for shard in 0..self.seats.len() {
            self.enqueue(shard, Incoming::Event(Box::new(Event::Drain { window_ms })));
        }
    }

    /// The wall clock is set.
    pub fn jump_clock(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Retention removes a conversation's oldest messages.
    #[cfg(test)]
    pub fn forget_first(&mut self, conversation: &str, count: usize) {
        let conversation = crate::types::ConversationId::parse(conversation).expect("a story names a conversation");
        self.disk.forget_first(&conversation, count);
    }

    /// Writes that are durable so far.
    pub fn writes_committed(&self) -> u64 {
        self.disk.committed
    }

    /// The next commits and reads fail.
    pub fn fail_store(&mut self, commits: u32, reads: u32) {
        self.disk.commits_to_fail += commits;
        self.disk.reads_to_fail += reads;
    }

    /// No commit begins for so long.
    pub fn stall_store(&mut self, ms: u64) {
        self.disk.stalled_until_us = self.now_us + ms * 1_000;
    }

    /// The store refuses what would exceed so many requests under way.
    pub fn limit_store(&mut self, requests_max: usize) {
        self.disk.requests_max = requests_max;
    }

    /// The store is well again.
    pub fn heal_store(&mut self) {
        self.disk.commits_to_fail = 0;
        self.disk.reads_to_fail = 0;
        self.disk.stalled_until_us = 0;
        self.disk.requests_max = usize::MAX;
    }

    /// The process dies and is started anew: only what was committed is left.
    pub fn crash(&mut self) {
        self.agenda.clear();
        self.seats.clear();
        self.directory.clear();
        self.disk.crash();
        for line in &mut self.lines {
            if line.present {
                line.present = false;
                line.heard.push(Heard::Lost);
            }
            line.server = Server::Closed;
            line.upward.clear();
            line.downward.clear();
        }
        self.restarts += 1;
        self.start();
    }
}

/// What is seen from outside.
impl Node {
    pub fn line(&self, line: LineId) -> &Line {
        &self.lines[line.0]
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub fn shards(&self) -> usize {
        self.seats.len()
    }

    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    pub fn wall(&self) -> Millis {
        Millis((EPOCH_MS + self.now_us / 1_000).saturating_add_signed(self.skew_ms))
    }

    pub fn counters(&self, shard: usize) -> &Counters {
        self.seats[shard].engine.counters()
    }

    pub fn leftovers(&self) -> Vec<Leftovers> {
        self.seats.iter().map(|seat| seat.engine.leftovers()).collect()
    }

    /// Entries of all timing wheels.
    pub fn timers_waiting(&self) -> usize {
        self.seats.iter().map(|seat| seat.engine.timers_waiting()).sum()
    }

    /// Sessions that operators see.
    pub fn directory_len(&self) -> usize {
        self.directory.len()
    }

    /// Who was a member when.
    pub fn ledger(&self) -> &Ledger {
        &self.disk.ledger
    }

    /// Bytes that wait for a client in its session.
    pub fn outbox_bytes(&mut self, line: LineId) -> usize {
        let found = &self.lines[line.0];
        let (shard, key) = (found.shard, found.key);
        if found.server != Server::Open { 0 } else { self.seats[shard].engine.outbox(key).map_or(0, |outbox| outbox.bytes()) }
    }

    /// What the disk holds.
    pub fn inspect(&mut self, read: &Read) -> Outcome {
        self.disk.inspect(read)
    }

    /// Lets time pass.
    pub fn run_ms(&mut self, ms: u64) {
        let until_us = self.now_us + ms * 1_000;
        while let Some((at_us, what)) = self.agenda.take(until_us) {
            self.in_this_moment = if at_us > self.now_us { 0 } else { self.in_this_moment + 1 };
            assert!(self.in_this_moment < MOMENT_MAX, "time stands still at {at_us} us: {what:?}");
            self.now_us = self.now_us.max(at_us);
            self.happen(what);
        }
        self.now_us = until_us;
    }
}

/// The agenda.
impl Node {
    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Turn(shard) => self.turn(shard),
            Happening::Wake(shard) => {
                if self.seats[shard].wake_at_us.is_some_and(|at_us| at_us <= self.now_us) {
                    self.seats[shard].wake_at_us = None;
                    self.plan_turn(shard);
                }
            }
            Happening::Arrive { from, to } => {
                let ring = from * self.seats.len() + to;
                let envelope = self.rings[ring].0.pop_front().expect("as many arrive as were sent");
                self.enqueue(to, Incoming::Event(Box::new(Event::Mesh { from: ShardId(from as u16), envelope })));
            }
            Happening::Commit => self.commit(),
            Happening::Look { shard, request } => self.look(shard, *request),
            Happening::Answer { shard, reply } => {
                self.disk.under_way -= 1;
                self.enqueue(shard, Incoming::Event(Box::new(Event::Store(*reply))));
            }
            Happening::Upload(line) => self.uploaded(LineId(line)),
            Happening::Sent(line) => {
                self.enqueue(self.lines[line].shard, Incoming::Sent(LineId(line)));
            }
            Happening::Download(line) => self.download(LineId(line)),
            Happening::Linger(line) => self.end(LineId(line)),
        }
    }

    /// How long something takes. Each kind of thing draws from its own stream, so that they disturb each other little.
    fn draw(&mut self, what: Delay) -> u64 {
        let pace = &self.plan.pace;
        let range = match what {
            Delay::Turn => &pace.turn_us,
            Delay::Mesh => &pace.mesh_us,
            Delay::Socket => &pace.socket_us,
            Delay::Commit => &pace.commit_us,
            Delay::Read => &pace.read_us,
        };
        self.delays[what as usize].u64(range.clone())
    }

    fn plan_turn(&mut self, shard: usize) {
        if !self.seats[shard].turn_planned {
            self.seats[shard].turn_planned = true;
            let at_us = self.now_us + self.draw(Delay::Turn);
            self.agenda.put(at_us, Happening::Turn(shard));
        }
    }

    fn enqueue(&mut self, shard: usize, incoming: Incoming) {
        self.seats[shard].inbox.push_back(incoming);
        self.plan_turn(shard);
    }
}

/// Wall time at the beginning of every run.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
const SECRET: &[u8] = b"a secret that is only used in simulations";
/// Happenings in one microsecond beyond which something spins.
const MOMENT_MAX: u32 = 1_000_000;
