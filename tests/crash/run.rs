//! Owns one run: the server, the clients, the ends it is put through, and the verdict over it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::json;

use super::disk::LossyDisk;
use super::facts::{Conversations, Facts};
use super::participant::{Manner, OVER, Participant, Role, SETTLING, Stage, TALKING, Target};
use super::verdict::{self, Evidence, Verdict};
use super::{histories, number};
use crate::support::{Client, PATIENCE, Server, eventually};

/// How the server ends in the middle of its work.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// The process dies; what it wrote is with the operating system.
    Kill,
    /// The power goes: of what was not synced nothing is left.
    CutAll,
    /// A beginning of it is left, the last write cut short.
    CutTorn,
    /// Any pages of it are left.
    CutRandom,
    /// It is told to end and takes its leave.
    Drain,
}

impl Ending {
    pub const CUTS: [Ending; 3] = [Ending::CutAll, Ending::CutTorn, Ending::CutRandom];

    /// What the disk calls it.
    fn how(self) -> Option<&'static str> {
        match self {
            Ending::Kill | Ending::Drain => None,
            Ending::CutAll => Some("all"),
            Ending::CutTorn => Some("torn"),
            Ending::CutRandom => Some("random"),
        }
    }
}

pub struct Run {
    title: String,
    pub stage: Arc<Stage>,
    pub disk: Option<LossyDisk>,
    conversations: Conversations,
    facts: Vec<Arc<Mutex<Facts>>>,
    threads: Vec<JoinHandle<()>>,
    rng: Rng,
    counts: Counts,
    restarts: Vec<Duration>,
    drains: Vec<Duration>,
}

/// What the server was put through.
#[derive(Default, Debug)]
struct Counts {
    kills: usize,
    cuts: usize,
    drains: usize,
    pauses: usize,
}

/// What makes a run different from others.
#[derive(Clone, Copy)]
pub struct Manners {
    pub durability: &'static str,
    /// Clients break off now and then, and signs of life are asked for soon.
    pub breaking: bool,
}

impl Run {
    /// A server with clients that talk.
    pub fn start(what: &str, shards: u16, disk: Option<LossyDisk>) -> Run {
        Run::start_with(Manners { durability: "commit", breaking: false }, what, shards, disk)
    }

    /// The same with other manners.
    pub fn start_with(manners: Manners, what: &str, shards: u16, disk: Option<LossyDisk>) -> Run {
        let seed = number("COREHUB_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        let title = format!("{what}, {shards} shards");
        println!("{title}: COREHUB_CRASH_SEED={seed}");
        let mut config = CONFIG.replace("commit", manners.durability);
        if manners.breaking {
            config.push_str("timeout = \"2s\"\n");
        }
        let server = match &disk {
            Some(disk) => Server::start_in(shards, &config, &disk.folder.join(format!("{}-{shards}", what.replace(' ', "-")))),
            None => Server::start(shards, &config),
        };
        let conversations = conversations();
        make_groups(&server, &conversations);
        let rate = number("COREHUB_CRASH_RATE").unwrap_or(RATE_DEFAULT).max(1);
        let pause = Duration::from_micros(1_000_000 * WRITERS.len() as u64 / rate);
        let graves = Mutex::new(Vec::new());
        let stage = Arc::new(Stage { server, phase: AtomicU8::new(TALKING), pause, breaking: manners.breaking, graves });
        let mut rng = Rng::with_seed(seed);
        let (mut facts, mut threads) = (Vec::new(), Vec::new());
        for user in WRITERS.into_iter().chain(READERS) {
            let participant = Participant::new(stage.clone(), role(user, &conversations), rng.u64(..));
            facts.push(participant.facts());
            threads.push(std::thread::spawn(|| participant.live()));
        }
        Run {
            title,
            stage,
            disk,
            conversations,
            facts,
            threads,
            rng,
            counts: Counts::default(),
            restarts: Vec::new(),
            drains: Vec::new(),
        }
    }

    /// Ends the server so many times, each time in the midst of traffic, and starts it again.
    pub fn through(mut self, times: u64, endings: &[Ending]) -> Run {
        for number in 0..times as usize {
            // Mostly there is new traffic to lose, sometimes the end comes while clients are still on their way back.
            if self.rng.u8(..10) < 7 {
                self.wait_for_acks(20);
            }
            std::thread::sleep(Duration::from_millis(self.rng.u64(10..900)));
            let ending = endings[number % endings.len()];
            self.end(ending);
            // Now and then it ends again while it starts; then there is nobody to take leave of.
            if self.rng.u8(..5) == 0 && !matches!(ending, Ending::Drain) {
                self.stage.server.begin_again();
                std::thread::sleep(Duration::from_millis(self.rng.u64(..60)));
                self.end(ending);
            }
            self.start_again();
        }
        let Counts { kills, cuts, drains, .. } = self.counts;
        // As many as the verdict asks for and more, also when most ends came before anybody was back.
        while self.acks() < (kills + cuts + drains + 1) * (ACKS_PER_ENDING_MIN + 5) {
            self.wait_for_acks(20);
        }
        self
    }

    /// Holds the server's process so many times for up to some seconds, longer than signs of life may take.
    pub fn through_pauses(mut self, times: u64) -> Run {
        for _ in 0..times {
            self.wait_for_acks(20);
            self.stage.server.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(self.rng.u64(300..5_000)));
            self.stage.server.signal(Signal::CONT);
            self.counts.pauses += 1;
        }
        self.wait_for_acks(20);
        self
    }

    /// Waits until clients have broken off so many times.
    pub fn through_breaks(self, times: u64) -> Run {
        while self.sum(|facts| facts.breaks) < times {
            self.wait_for_acks(5);
        }
        self
    }

    fn sum(&self, count: impl Fn(&Facts) -> u64) -> u64 {
        self.facts.iter().map(|facts| count(&lock(facts))).sum()
    }

    fn drain(&mut self) {
        // Somebody is connected, to be told.
        self.wait_for_acks(1);
        let told = self.sum(|facts| facts.reconnects);
        let begun = Instant::now();
        self.stage.server.signal(Signal::TERM);
        let status = self.stage.server.wait_for_exit();
        let took = begun.elapsed();
        assert_eq!(status.code(), Some(0), "{}: the end of a drain; the log:\n{}", self.title, self.stage.server.log());
        assert!(took < DRAIN_MAX, "{}: a drain took {took:?}; the log:\n{}", self.title, self.stage.server.log());
        self.drains.push(took);
        self.counts.drains += 1;
        // What was sent before the end may not have been read yet.
        eventually("somebody is told to connect elsewhere", || (self.sum(|facts| facts.reconnects) > told).then_some(()));
    }

    pub fn end(&mut self, ending: Ending) {
        if matches!(ending, Ending::Drain) {
            return self.drain();
        }
        if let Some(disk) = self.disk.as_ref().filter(|_| ending.how().is_some()) {
            // Mostly the power goes while a commit is under way.
            if self.rng.u8(..5) > 0 {
                disk.freeze(self.rng.u32(1..6));
            }
        }
        self.stage.server.signal(Signal::KILL);
        self.forget(ending);
        self.stage.server.wait_for_exit();
        self.power_on(ending);
        match ending.how() {
            Some(_) => self.counts.cuts += 1,
            None => self.counts.kills += 1,
        }
    }

    fn forget(&mut self, ending: Ending) {
        if let Some(how) = ending.how() {
            let order = format!("cut {how} {}", self.rng.u32(..));
            self.disk.as_ref().expect("only a disk that forgets loses its power").tell(&order);
        }
    }

    fn power_on(&self, ending: Ending) {
        if let Some(disk) = self.disk.as_ref().filter(|_| ending.how().is_some()) {
            disk.tell("on");
        }
    }

    pub fn start_again(&mut self) {
        let begun = Instant::now();
        self.stage.server.start_again();
        self.restarts.push(begun.elapsed());
    }

    /// Waits until this many more messages were acknowledged: after a restart that is the proof that it works.
    pub fn wait_for_acks(&self, more: usize) {
        let (begun, before) = (Instant::now(), self.acks());
        while self.acks() < before + more {
            assert!(begun.elapsed() < PATIENCE * 2, "{}: no acknowledgements; refused: {:?}", self.title, self.refusals());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn acks(&self) -> usize {
        self.facts.iter().map(|facts| lock(facts).acks()).sum()
    }

    pub fn refusals(&self) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = Vec::new();
        for facts in &self.facts {
            all.extend(lock(facts).refusals.iter().map(|(name, count)| (name.clone(), *count)));
        }
        all.sort();
        all.dedup_by(|next, kept| {
            next.0 == kept.0 && {
                kept.1 += next.1;
                true
            }
        });
        all
    }

    pub fn refused(&self, name: &str) -> u64 {
        self.refusals().iter().filter(|(found, _)| found == name).map(|(_, count)| count).sum()
    }

    /// Lets writers finish and readers receive, at most for as long as patience lasts.
    pub fn settle(self) -> Run {
        self.stage.phase.store(SETTLING, Ordering::Relaxed);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE * 2 {
            std::thread::sleep(Duration::from_millis(200));
            if self.facts.iter().all(|facts| lock(facts).settled) && self.everything_arrived() {
                break;
            }
        }
        // What comes now is too much.
        std::thread::sleep(Duration::from_millis(300));
        self
    }

    fn everything_arrived(&self) -> bool {
        let all: Vec<MutexGuard<'_, Facts>> = self.facts.iter().map(lock).collect();
        let all: Vec<&Facts> = all.iter().map(|facts| &**facts).collect();
        verdict::missing(&self.conversations, &all).is_empty()
    }

    /// Fails when a promise was broken.
    pub fn judge(self) {
        let title = self.title.clone();
        let Verdict { violations, .. } = self.verdict();
        let shown: Vec<&String> = violations.iter().take(VIOLATIONS_SHOWN).collect();
        assert!(shown.is_empty(), "{title}: {} violations, such as\n{shown:#?}", violations.len());
    }

    /// Reads what the server has kept, and compares.
    pub fn verdict(mut self) -> Verdict {
        self.stage.phase.store(OVER, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client does not fail");
        }
        let silent = self.reaped();
        let read = |(id, members): (&String, &Vec<String>)| (id.clone(), histories::read(&self.stage.server, &members[0], id));
        let histories = self.conversations.iter().map(read).collect();
        let refused = self.refusals();
        let facts: Vec<MutexGuard<'_, Facts>> = self.facts.iter().map(lock).collect();
        let facts: Vec<&Facts> = facts.iter().map(|facts| &**facts).collect();
        let Counts { kills, cuts, drains, pauses } = self.counts;
        let acks_min = (kills + cuts + drains + pauses) * ACKS_PER_ENDING_MIN;
        let verdict = verdict::judge(&Evidence { conversations: &self.conversations, facts: &facts, histories, acks_min });
        let sum = |count: fn(&Facts) -> u64| facts.iter().map(|facts| count(facts)).sum::<u64>();
        let (breaks, told) = (sum(|facts| facts.breaks), sum(|facts| facts.reconnects));
        let mut closes: BTreeMap<u16, u64> = BTreeMap::new();
        facts.iter().flat_map(|facts| &facts.closes).for_each(|(code, count)| *closes.entry(*code).or_default() += count);
        println!("{}: kills={kills} cuts={cuts} drains={drains} pauses={pauses} breaks={breaks} {}", self.title, verdict.counts);
        println!("{}: silent={silent} told={told} closes={closes:?} refused={refused:?}", self.title);
        println!("{}: restarts: {}; drains: {}", self.title, times(&mut self.restarts), times(&mut self.drains));
        if let Some(disk) = &self.disk {
            println!("{}: disk {}", self.title, disk.tell("count"));
        }
        verdict
    }

    /// Waits until the server has given up everybody who left without a word; how many that were. They have not ended here.
    fn reaped(&self) -> usize {
        let graves = std::mem::take(&mut *self.stage.graves.lock().unwrap_or_else(PoisonError::into_inner));
        if !graves.is_empty() {
            let connections = || self.stage.server.metric("corehub_connections", "") as u64;
            eventually("the silent are given up", || (connections() == 0).then_some(()));
        }
        graves.len()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stage.phase.store(OVER, Ordering::Relaxed);
    }
}

fn lock(facts: &Arc<Mutex<Facts>>) -> MutexGuard<'_, Facts> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn times(restarts: &mut [Duration]) -> String {
    restarts.sort();
    match restarts {
        [] => "none".to_owned(),
        [.., worst] => {
            let worst = worst.as_millis();
            format!("median {} ms, worst {worst} ms", restarts[restarts.len() / 2].as_millis())
        }
    }
}

/// Who shares what: two groups, a private conversation of every writer with every reader, and a ring of the writers.
fn conversations() -> Conversations {
    let mut all = Conversations::new();
    let everybody = WRITERS.into_iter().chain(READERS).map(str::to_owned).collect();
    all.insert("g:all".to_owned(), everybody);
    let half = [&WRITERS[..2], &READERS[..2]].concat().into_iter().map(str::to_owned).collect();
    all.insert("g:half".to_owned(), half);
    let mut private = |one: &str, other: &str| {
        let mut pair = [one.to_owned(), other.to_owned()];
        pair.sort();
        all.insert(format!("p:{}:{}", pair[0], pair[1]), pair.to_vec());
    };
    for (number, writer) in WRITERS.into_iter().enumerate() {
        READERS.into_iter().for_each(|reader| private(writer, reader));
        private(writer, WRITERS[(number + 1) % WRITERS.len()]);
    }
    all
}

fn make_groups(server: &Server, conversations: &Conversations) {
    let mut owner = Client::connect_on(server, WRITERS[0], "owner");
    for (id, members) in conversations {
        if let Some(group) = id.strip_prefix("g:") {
            owner.acked("create_group", json!({"group_id": group, "members": members}));
        }
    }
    owner.leave();
}

fn role(user: &str, conversations: &Conversations) -> Role {
    let mut own: Vec<(&String, &Vec<String>)> =
        conversations.iter().filter(|(_, members)| members.iter().any(|member| member == user)).collect();
    own.sort();
    let reads = own.iter().map(|(id, _)| (*id).clone()).collect();
    let target = |(id, members): &(&String, &Vec<String>)| {
        let peer = members.iter().find(|member| *member != user).expect("nobody is alone");
        let address = id.strip_prefix("g:").map_or(("to_user_id", peer.clone()), |group| ("group_id", group.to_owned()));
        Target { conversation: (*id).clone(), address }
    };
    let targets = if WRITERS.contains(&user) { own.iter().map(target).collect() } else { Vec::new() };
    let manner = match user {
        "forgetful" | "wanda" => Manner::Forgetful,
        "syncing" | "second-syncing" => Manner::Syncing,
        _ => Manner::Acknowledging,
    };
    Role { user: user.to_owned(), manner, targets, reads }
}

const WRITERS: [&str; 4] = ["walter", "wanda", "wendy", "wilma"];
const READERS: [&str; 4] = ["attentive", "forgetful", "second-syncing", "syncing"];
const RATE_DEFAULT: u64 = 200;
const ACKS_PER_ENDING_MIN: usize = 15;
/// Far beyond what taking leave of a few clients takes; a wait for something that never ends is longer.
const DRAIN_MAX: Duration = Duration::from_secs(25);
const VIOLATIONS_SHOWN: usize = 20;

/// Clients that are told of a failed disk a thousand times are no strangers to be protected against.
const CONFIG: &str = r#"
[store]
kind = "embedded"
durability = "commit"
# Small, so that tables are written and merged all the time.
write_buffer_bytes = "1MiB"
cache_bytes = "1MiB"

[limits]
errors_per_minute = 0

# The delivery state of clients without `acks` is written with every ping: often, or each return repeats the whole run.
[heartbeat]
interval = "1s"
"#;
