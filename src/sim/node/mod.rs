//! Owns a whole node on virtual time: its shards, the rings between them, its disk, its connections, and the driver's part of
//! the work (collect, step, apply, flush).
//!
//! Never decides what the engine decides. All chance comes from the plan's seed, so the same plan and the same calls give the
//! same run.

mod clients;
mod driver;
mod mesh;
mod operators;
mod storage;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use self::operators::Desk;
use super::agenda::{Agenda, Happening};
use super::disk::Disk;
use super::ledger::Ledger;
use super::seat::{Incoming, Seat};
use super::socket::{Heard, Line, LineId, Said, Server};
use super::tally::Tally;
use crate::auth::{AuthRules, Verifier};
use crate::engine::shard::Leftovers;
use crate::engine::{Counters, Event, Settings, Shard};
use crate::store::Outcome;
use crate::types::storage::Read;
use crate::types::{Millis, SessionId, SessionKey};
use crate::wire::json::{JsonEncoder, Scratch};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: u16,
    pub settings: Settings,
    pub pace: Pace,
    /// Values that one ring between two shards holds.
    pub ring_capacity: usize,
    /// Bytes that the kernels at both ends of a connection hold.
    pub kernel_bytes: usize,
}

/// How long things take, in microseconds, each drawn anew.
#[derive(Clone, Debug)]
pub struct Pace {
    pub turn_us: RangeInclusive<u64>,
    /// Until a doorbell is heard.
    pub mesh_us: RangeInclusive<u64>,
    pub socket_us: RangeInclusive<u64>,
    pub commit_us: RangeInclusive<u64>,
    pub read_us: RangeInclusive<u64>,
    /// Events that one turn takes in at most.
    pub events_per_turn_max: usize,
    /// Values of other shards that one turn takes in at most.
    pub mesh_per_turn_max: usize,
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
            mesh_per_turn_max: 64,
            flight_frames_max: 8,
        }
    }
}

impl Plan {
    /// A plan with default settings and paces.
    pub fn new(seed: u64, shards: u16) -> Plan {
        let settings = Settings { placement_seed: seed, ..Settings::default() };
        Plan { seed, shards, settings, pace: Pace::default(), ring_capacity: 64, kernel_bytes: 8 << 10 }
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
    /// When that changed, in monotonic milliseconds, and to what.
    clock_sets: Vec<(u64, i64)>,
    agenda: Agenda,
    random: fastrand::Rng,
    delays: [fastrand::Rng; 5],
    seats: Vec<Seat>,
    disk: Disk,
    lines: Vec<Line>,
    scratch: Scratch,
    /// Sessions that operators see.
    directory: BTreeMap<(usize, SessionKey), SessionId>,
    /// Happenings in the present microsecond.
    in_this_moment: u32,
    restarts: u64,
    turns: u64,
    desk: Desk,
    pub tally: Tally,
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
            clock_sets: Vec::new(),
            agenda: Agenda::default(),
            random: fastrand::Rng::with_seed(plan.seed),
            delays: std::array::from_fn(|kind| fastrand::Rng::with_seed(plan.seed ^ ((kind as u64 + 1) << 56))),
            seats: Vec::new(),
            disk: Disk::new(plan.seed, shards),
            lines: Vec::new(),
            scratch: Scratch::new(),
            directory: BTreeMap::new(),
            in_this_moment: 0,
            restarts: 0,
            turns: 0,
            desk: Desk::default(),
            tally: Tally::default(),
            trace: None,
            plan,
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let seed = self.plan.seed.wrapping_add(self.restarts << 32);
        for port in crate::mesh::build(self.plan.shards, self.plan.ring_capacity) {
            let shard = port.shard();
            let encoder = Box::new(JsonEncoder::new());
            let (settings, verifier) = (self.settings_now(), self.verifier.clone());
            let engine = Shard::new(shard, self.plan.shards, settings, encoder, verifier, seed);
            self.seats.push(Seat::new(engine, port));
        }
        // Each looks around once and then sleeps.
        (0..self.seats.len()).for_each(|shard| self.plan_turn(shard));
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
        self.lines.push(Line::new(shard, key, self.plan.kernel_bytes));
        self.deliver(shard, Incoming::Open(id));
        id
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
        self.tally.fault("torn connection");
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
            self.tally.fault("half-open connection");
        }
    }

    /// The client stops or goes on reading.
    pub fn set_reading(&mut self, line: LineId, reads: bool) {
        if self.lines[line.0].reads && !reads {
            self.tally.fault("reader that stops");
        }
        self.lines[line.0].reads = reads;
        self.plan_download(line);
    }

    /// Whether the client answers pings and close frames.
    pub fn set_answering(&mut self, line: LineId, answers: bool) {
        self.lines[line.0].answers = answers;
    }

    /// All shards begin to drain.
    pub fn drain(&mut self, window_ms: u64) {
        self.tally.fault("drain");
        for shard in 0..self.seats.len() {
            self.hand_over(shard, Event::Drain { window_ms });
        }
    }

    /// The wall clock is set.
    pub fn jump_clock(&mut self, by_ms: i64) {
        self.tally.fault(if by_ms < 0 { "clock set back" } else { "clock set forward" });
        self.skew_ms += by_ms;
        self.clock_sets.push((self.now_ms(), self.skew_ms));
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
        self.tally.fault("stalled store");
        self.disk.stalled_until_us = self.now_us + ms * 1_000;
    }

    /// A shard takes no turn for so long.
    pub fn stall_shard(&mut self, shard: usize, ms: u64) {
        self.tally.fault("stalled shard");
        self.seats[shard].stalled_until_us = self.now_us + ms * 1_000;
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
        self.forget_calls();
        self.tally.fault("crash");
        let kept = self.random.usize(0..=self.disk.writes_waiting());
        if kept > 0 {
            self.tally.fault("crash in the midst of a commit");
        }
        self.disk.crash(kept);
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

    /// When the wall clock was set, in monotonic milliseconds, and by how much it has differed from then on.
    pub fn clock_sets(&self) -> &[(u64, i64)] {
        &self.clock_sets
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

    /// Strangers do not learn who is online.
    pub fn has_contacts_only(&self) -> bool {
        self.settings.presence_contacts_only
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
            self.tally.events += 1;
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
            Happening::Ring(shard) => {
                self.seats[shard].rung = false;
                if self.seats[shard].parked {
                    self.plan_turn(shard);
                }
            }
            Happening::Commit => self.commit(),
            Happening::Look { shard, request } => self.look(shard, *request),
            Happening::Answer { shard, reply } => {
                self.disk.under_way -= 1;
                self.hand_over(shard, Event::Store(*reply));
            }
            Happening::Upload(line) => self.uploaded(LineId(line)),
            Happening::Sent(line) => {
                self.deliver(self.lines[line].shard, Incoming::Sent(LineId(line)));
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

    /// The kernel has something for a shard.
    fn deliver(&mut self, shard: usize, incoming: Incoming) {
        self.seats[shard].inbox.push_back(incoming);
        self.plan_turn(shard);
    }

    /// Another thread has something for a shard.
    fn hand_over(&mut self, shard: usize, event: Event) {
        self.seats[shard].inbox.push_back(Incoming::Event(Box::new(event)));
        self.wake_if_parked(shard);
    }
}

/// Wall time at the beginning of every run.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
const SECRET: &[u8] = b"a secret that is only used in simulations";
/// Happenings in one microsecond beyond which something spins.
const MOMENT_MAX: u32 = 1_000_000;
