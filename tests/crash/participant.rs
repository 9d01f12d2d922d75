//! Owns one client that lives through the server's deaths: it connects again, repeats what was not acknowledged, and records
//! everything. Lives on a thread of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use super::facts::{Ack, Facts, Sent, Session, Stored, content};
use super::link::{Break, Heard, Link};
use crate::support::Server;

/// How a client remembers what it has.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// Acknowledges pushes and leaves the rest to the server.
    Acknowledging,
    /// The same, but often comes back as a device that the server has never seen.
    Forgetful,
    /// Acknowledges nothing and says with `sync` what it has.
    Syncing,
}

/// What all clients of a run share.
pub struct Stage {
    pub server: Server,
    pub phase: AtomicU8,
    /// Between two sends of one writer.
    pub pause: Duration,
    /// Clients break off now and then.
    pub breaking: bool,
    /// Connections that were left without a word.
    pub graves: Mutex<Vec<TcpStream>>,
}

/// Writers write.
pub const TALKING: u8 = 0;
/// Writers finish what they have begun.
pub const SETTLING: u8 = 1;
/// Everybody leaves.
pub const OVER: u8 = 2;

/// A place to write to: the conversation and the members that name it in a `send_message`.
#[derive(Clone)]
pub struct Target {
    pub conversation: String,
    pub address: (&'static str, String),
}

/// What a client is to do.
pub struct Role {
    pub user: String,
    pub manner: Manner,
    /// Empty for one that only reads.
    pub targets: Vec<Target>,
    /// Everything the user may read.
    pub reads: Vec<String>,
}

pub struct Participant {
    stage: Arc<Stage>,
    facts: Arc<Mutex<Facts>>,
    rng: Rng,
    user: String,
    manner: Manner,
    targets: Vec<Target>,
    device: String,
    link: Option<Link>,
    ready: bool,
    /// The server has said that it ends.
    told: bool,
    break_at: Instant,
    /// Of the next send, and of the next `recv_ack`.
    send_at: Instant,
    ack_at: Instant,
    index: HashMap<String, usize>,
    /// To be sent again, oldest first.
    again: VecDeque<usize>,
    /// Sent on this connection and not answered yet, how often each.
    waiting: BTreeMap<usize, u32>,
    /// The highest `seq` of this connection that was not acknowledged yet, per conversation.
    unacknowledged: HashMap<String, u64>,
    /// What a syncing client has without gaps, and what it has beyond, per conversation.
    have: HashMap<String, (u64, BTreeSet<u64>)>,
    sync_at: Option<Instant>,
}

impl Participant {
    /// Of the conversations in `reads` the client knows without having heard of them.
    pub fn new(stage: Arc<Stage>, role: Role, seed: u64) -> Participant {
        let Role { user, manner, targets, reads } = role;
        let facts = Facts { user: user.clone(), settled: targets.is_empty(), ..Facts::default() };
        let now = Instant::now();
        Participant {
            stage,
            facts: Arc::new(Mutex::new(facts)),
            rng: Rng::with_seed(seed),
            user,
            manner,
            targets,
            device: "first".to_owned(),
            link: None,
            ready: false,
            told: false,
            break_at: now,
            send_at: now,
            ack_at: now,
            index: HashMap::new(),
            again: VecDeque::new(),
            waiting: BTreeMap::new(),
            unacknowledged: HashMap::new(),
            have: reads.into_iter().map(|conversation| (conversation, Default::default())).collect(),
            sync_at: None,
        }
    }

    pub fn facts(&self) -> Arc<Mutex<Facts>> {
        self.facts.clone()
    }

    pub fn live(mut self) {
        while self.phase() != OVER {
            let Some(link) = &mut self.link else {
                self.connect();
                continue;
            };
            match link.hear() {
                Heard::Envelope(envelope) => self.hear(&envelope),
                Heard::Nothing => {}
                Heard::Ended(code) => {
                    *self.lock().closes.entry(code.unwrap_or(0)).or_default() += 1;
                    if code == Some(DRAINED) && self.ready && !self.told {
                        self.fault("was closed for a drain without being told".to_owned());
                    }
                    if code.is_some_and(|code| (1002..=1010).contains(&code) || (4000..=4099).contains(&code)) {
                        self.fault(format!("was closed with {code:?}"));
                    }
                    self.link = None;
                    continue;
                }
            }
            if self.ready && !self.act() {
                self.link = None;
            }
            if self.stage.breaking && self.phase() == TALKING && self.break_at <= Instant::now() {
                self.break_off();
            }
        }
    }

    fn break_off(&mut self) {
        let Some(link) = self.link.take() else { return };
        self.lock().breaks += 1;
        let grave = link.break_off(Break::ALL[self.rng.usize(..Break::ALL.len())]);
        let mut graves = self.stage.graves.lock().unwrap_or_else(PoisonError::into_inner);
        if graves.len() < GRAVES_MAX {
            graves.extend(grave);
        }
    }

    fn connect(&mut self) {
        if self.manner == Manner::Forgetful && self.rng.bool() {
            self.device = format!("device-{}", self.rng.u32(..));
        }
        let acks = self.manner != Manner::Syncing;
        self.link = Link::open(self.stage.server.client_address(), &self.user, &self.device, acks);
        if self.link.is_none() {
            std::thread::sleep(Duration::from_millis(20));
            return;
        }
        (self.ready, self.told) = (false, false);
        self.break_at = Instant::now() + Duration::from_millis(self.rng.u64(20..2_000));
        self.unacknowledged.clear();
        self.sync_at = None;
        let session = Session { device: self.device.clone(), ..Session::default() };
        let mut facts = self.lock();
        facts.sessions.push(session);
        facts.settled = self.targets.is_empty();
        drop(facts);
        self.take_up();
    }

    /// Repeats what was left without an answer, gives some of it up, and asks again about a few that were acknowledged.
    fn take_up(&mut self) {
        self.waiting.clear();
        self.again.clear();
        let settling = self.phase() != TALKING;
        let count = self.index.len();
        for at in 0..count {
            let open = self.lock().sends[at].acks.is_empty();
            // A message that is given up may be stored or not.
            if open && (settling || self.rng.u8(..10) > 0) {
                self.again.push_back(at);
            }
        }
        if count > 0 {
            self.again.extend((0..3).map(|_| self.rng.usize(..count)));
        }
    }

    fn hear(&mut self, envelope: &Value) {
        let data = &envelope["data"];
        match envelope["type"].as_str().unwrap_or_default() {
            "auth_success" => {
                self.ready = true;
                self.sync_at = (self.manner == Manner::Syncing).then(Instant::now);
            }
            "new_message" => self.hear_push(Stored::read(data)),
            "ack" => self.hear_ack(envelope),
            "error" => self.hear_refusal(envelope),
            "reconnect" => {
                self.told = true;
                self.lock().reconnects += 1;
            }
            "auth_failed" | "messages_skipped" => self.fault(format!("was told {envelope}")),
            _ => {}
        }
    }

    fn hear_push(&mut self, message: Stored) {
        if self.manner == Manner::Syncing {
            let (through, beyond) = self.have.entry(message.conversation.clone()).or_default();
            beyond.insert(message.seq);
            while beyond.first().is_some_and(|seq| *seq <= *through + 1) {
                *through = beyond.pop_first().map_or(*through, |seq| seq.max(*through));
            }
        } else {
            let highest = self.unacknowledged.entry(message.conversation.clone()).or_default();
            *highest = message.seq.max(*highest);
        }
        let mut facts = self.lock();
        facts.sessions.last_mut().expect("a push comes over a connection").pushes.push(message);
    }

    fn hear_ack(&mut self, envelope: &Value) {
        let Some(at) = self.answered(envelope) else { return };
        self.lock().sends[at].acks.push(Ack::read(&envelope["data"]));
        if self.rng.u8(..40) == 0 {
            self.again.push_back(at);
        }
    }

    fn hear_refusal(&mut self, envelope: &Value) {
        let data = &envelope["data"];
        let name = data["name"].as_str().unwrap_or_default().to_owned();
        if data["temporary"] != true {
            self.fault(format!("was refused: {envelope}"));
        }
        *self.lock().refusals.entry(name).or_default() += 1;
        let wait = Duration::from_millis(data["retry_after_ms"].as_u64().unwrap_or(100).clamp(20, 1_000));
        if let Some(at) = self.answered(envelope) {
            if self.lock().sends[at].acks.is_empty() {
                self.again.push_back(at);
            }
            self.send_at = Instant::now() + wait;
        } else if envelope["message_id"] == SYNC {
            self.sync_at = Some(Instant::now() + wait);
        }
    }

    /// The send that this reply answers.
    fn answered(&mut self, envelope: &Value) -> Option<usize> {
        let at = *self.index.get(envelope["message_id"].as_str()?)?;
        if let Some(count) = self.waiting.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&at);
            }
        }
        Some(at)
    }

    /// Whatever is due; false when the connection has ended.
    fn act(&mut self) -> bool {
        let now = Instant::now();
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            let cursors: HashMap<String, u64> = self.have.iter().map(|(id, (through, _))| (id.clone(), *through)).collect();
            let sync = json!({"type": "sync", "message_id": SYNC, "data": {"cursors": cursors}});
            self.lock().sessions.last_mut().expect("a connection is open").cursors = cursors;
            if !self.say(&sync) {
                return false;
            }
        }
        if self.ack_at <= now && !self.unacknowledged.is_empty() {
            self.ack_at = now + ACK_EVERY;
            let acks = self.unacknowledged.drain().map(|(id, seq)| json!({"conversation_id": id, "seq": seq}));
            let acks = json!({"type": "recv_ack", "data": {"acks": acks.collect::<Vec<_>>()}});
            if !self.say(&acks) {
                return false;
            }
        }
        self.targets.is_empty() || self.send_at > now || self.waiting.len() >= WINDOW || self.send()
    }

    fn send(&mut self) -> bool {
        self.send_at += self.stage.pause;
        self.send_at = self.send_at.max(Instant::now() - self.stage.pause * 4);
        let talking = self.phase() == TALKING;
        let at = match self.again.pop_front() {
            Some(at) => at,
            None if talking => self.make(),
            None => {
                let done = self.waiting.is_empty();
                self.lock().settled = done;
                return true;
            }
        };
        let twice = talking && self.rng.u8(..40) == 0;
        self.send_one(at) && (!twice || self.send_one(at))
    }

    fn make(&mut self) -> usize {
        let at = self.index.len();
        let target = self.rng.usize(..self.targets.len());
        let client_id = format!("{}-{at}", self.user);
        self.index.insert(client_id.clone(), at);
        let conversation = self.targets[target].conversation.clone();
        let first_sent = Instant::now();
        self.lock().sends.push(Sent { client_id, conversation, attempts: 0, first_sent, acks: Vec::new() });
        at
    }

    fn send_one(&mut self, at: usize) -> bool {
        let (client_id, conversation) = {
            let mut facts = self.lock();
            let sent = &mut facts.sends[at];
            sent.attempts += 1;
            (sent.client_id.clone(), sent.conversation.clone())
        };
        *self.waiting.entry(at).or_default() += 1;
        let target = self.targets.iter().find(|target| target.conversation == conversation).expect("targets stay");
        let mut data = json!({"content": content(&client_id)});
        data[target.address.0] = json!(target.address.1);
        self.say(&json!({"type": "send_message", "message_id": client_id, "data": data}))
    }

    fn say(&mut self, envelope: &Value) -> bool {
        self.link.as_mut().is_some_and(|link| link.say(envelope))
    }

    fn fault(&self, what: String) {
        self.lock().faults.push(format!("{} {what}", self.user));
    }

    fn phase(&self) -> u8 {
        self.stage.phase.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SYNC: &str = "catching up";

/// Messages of one writer that may wait for their acknowledgement.
const WINDOW: usize = 24;
/// More silent connections than this are not kept.
const GRAVES_MAX: usize = 200;
const DRAINED: u16 = 4202;
const ACK_EVERY: Duration = Duration::from_millis(40);
