//! Owns the store's threads: one writer that commits in groups, and readers where the backend can be read beside it. They are
//! the only threads that wait for a disk. Never touches a shard but through its reply ring and one wake per shard and batch.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rtrb::{Producer, RingBuffer};

use super::backend::{Backend, ReadSide};
use super::client::{ClientLimits, Route, StoreClient};
use super::submission::{Desk, Served, Submission};
use super::upkeep::{Retention, Upkeep};
use crate::scheduling::run_promptly;
use crate::types::storage::{Operation, StoreFault, StoreReply};

/// Wakes the thread that owns a client, when it sleeps. Called after its replies were made visible.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Called by the writer after every batch. Must not wait.
pub type Observer = Box<dyn FnMut(&CommitSample) + Send>;

/// What the store is made of.
pub struct StoreParts {
    pub backend: Box<dyn Backend>,
    /// One client is made for each: shards in their order, then whoever else reads or writes.
    pub wakes: Vec<Wake>,
    pub settings: StoreSettings,
    pub observer: Option<Observer>,
}

/// Bounds of the store's queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Requests of one client without a reply; more are refused.
    pub client_requests_max: usize,
    /// Submissions of one client under way; what comes meanwhile leaves together with the next one.
    pub client_submissions_max: usize,
    /// Requests at about which a commit stops gathering.
    pub batch_requests: usize,
    /// Threads that read where the backend can be read beside the writer.
    pub reader_threads: usize,
    /// Messages older than this are forgotten at first; 0 keeps all.
    pub retention_ms: u64,
    /// Client ids first used longer ago than this are forgotten; None keeps all.
    pub dedupe_window_ms: Option<u64>,
    /// What a refused client is told to wait.
    pub retry_after_ms: u64,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            client_requests_max: 65_536,
            client_submissions_max: 64,
            batch_requests: 4_096,
            reader_threads: 2,
            retention_ms: 0,
            dedupe_window_ms: None,
            retry_after_ms: 100,
        }
    }
}

/// One batch of the writer.
#[derive(Clone, Copy, Debug)]
pub struct CommitSample {
    pub served: Served,
    /// From the batch being gathered until its replies were on their way.
    pub elapsed: Duration,
    /// The first write's fault, when the commit failed.
    pub failed: bool,
}

/// A running store.
#[derive(Debug)]
#[must_use]
pub struct Store {
    /// In the order of [`StoreParts::wakes`]; to be taken out and handed to their threads.
    pub clients: Vec<StoreClient>,
    pub threads: StoreThreads,
    pub retention: Retention,
}

/// The threads, for their end.
#[derive(Debug)]
pub struct StoreThreads {
    handles: Vec<JoinHandle<()>>,
}

impl StoreThreads {
    /// True once a thread has ended; before all clients are dropped that is a fault of the store.
    pub fn any_finished(&self) -> bool {
        self.handles.iter().any(JoinHandle::is_finished)
    }

    /// Waits until everything asked is answered and the backend is closed. All clients must have been dropped, or this waits
    /// for them. False when a thread panicked.
    pub fn join(self) -> bool {
        self.handles.into_iter().map(JoinHandle::join).filter(Result::is_err).count() == 0
    }
}

/// Starts the threads. They end when all clients are gone and everything is answered.
///
/// # Errors
/// When the system refuses a thread.
pub fn spawn(parts: StoreParts) -> io::Result<Store> {
    let StoreParts { backend, wakes, settings, observer } = parts;
    let read_side = backend.read_side();
    let readers = read_side.as_ref().map_or(0, |_| settings.reader_threads.max(1));
    // Room for all that all clients may have under way, so that sending never fails.
    let room = (wakes.len() * settings.client_submissions_max).max(1);
    let (writer_sender, writer_receiver) = crossbeam_channel::bounded(room);
    let (reader_sender, reader_receiver) = crossbeam_channel::bounded(room);
    let mut desks: Vec<Counter> = (0..=readers).map(|_| Counter { rings: Vec::new(), wakes: wakes.clone() }).collect();
    let mut clients = Vec::new();
    for client in 0..wakes.len() {
        let mut replies = Vec::new();
        for desk in &mut desks {
            let (producer, consumer) = RingBuffer::new(settings.client_submissions_max);
            desk.rings.push(producer);
            replies.push(consumer);
        }
        let route = |sender, submission_requests_max| Route {
            sender,
            waiting: Vec::new(),
            submissions_under_way: 0,
            submissions_max: settings.client_submissions_max,
            submission_requests_max,
        };
        let writer = route(writer_sender.clone(), settings.batch_requests.max(1));
        let reads = (readers > 0).then(|| route(reader_sender.clone(), READS_TOGETHER_MAX));
        let limits = ClientLimits { requests_max: settings.client_requests_max, retry_after_ms: settings.retry_after_ms };
        clients.push(StoreClient::new(client, writer, reads, replies, limits));
    }
    let mut desks = desks.into_iter();
    let counter = desks.next().expect("the writer has a counter");
    let retention = Retention::new(settings.retention_ms);
    let upkeep = Upkeep::new(retention.clone(), settings.dedupe_window_ms);
    let batch_requests = settings.batch_requests;
    let tended_at = Instant::now();
    let pace = Pace::new(backend.is_paced());
    let writer = Writer {
        backend,
        receiver: writer_receiver,
        counter,
        desk: Desk::default(),
        batch_requests,
        observer,
        upkeep,
        pace,
        tended_at,
    };
    let mut handles = vec![start("store-writer".to_owned(), move || writer.run())?];
    for (number, (counter, read_side)) in desks.zip(read_side.into_iter().cycle()).enumerate() {
        let receiver = reader_receiver.clone();
        handles.push(start(format!("store-reader-{number}"), move || run_reader(&*read_side, &receiver, counter))?);
    }
    Ok(Store { clients, threads: StoreThreads { handles }, retention })
}

fn start(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(run)
}

/// Where one thread hands out replies.
struct Counter {
    /// By client.
    rings: Vec<Producer<Submission>>,
    wakes: Vec<Wake>,
}

impl Counter {
    /// Returns all submissions, then wakes each of their clients once.
    fn hand_out(&mut self, submissions: &mut Vec<Submission>, served_clients: &mut Vec<usize>) {
        for submission in submissions.drain(..) {
            let client = submission.client;
            if !served_clients.contains(&client) {
                served_clients.push(client);
            }
            // A client that is gone wants no reply; one that lives has a place for each of its submissions.
            let given = self.rings[client].push(submission);
            debug_assert!(given.is_ok() || self.rings[client].is_abandoned(), "a client has a place for every reply");
        }
        served_clients.drain(..).for_each(|client| (self.wakes[client])());
    }
}

struct Writer {
    backend: Box<dyn Backend>,
    receiver: Receiver<Submission>,
    counter: Counter,
    desk: Desk,
    batch_requests: usize,
    observer: Option<Observer>,
    upkeep: Upkeep,
    pace: Pace,
    tended_at: Instant,
}

impl Writer {
    fn run(mut self) {
        run_promptly();
        let mut batch = Vec::new();
        let mut served_clients = Vec::new();
        loop {
            match self.receiver.recv_timeout(TEND_EVERY.min(self.upkeep.wait())) {
                Ok(first) => {
                    self.pace.rest();
                    let begun = Instant::now();
                    self.gather(first, &mut batch);
                    self.pace.begin(begun, batch.iter().map(|submission| submission.requests.len()).sum());
                    let served = self.desk.serve(&mut *self.backend, &mut batch);
                    let failed = batch.iter().flat_map(|submission| &submission.replies).any(|reply| reply.result.is_err());
                    self.counter.hand_out(&mut batch, &mut served_clients);
                    if let Some(observer) = &mut self.observer {
                        observer(&CommitSample { served, elapsed: begun.elapsed(), failed });
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.tended_at.elapsed() >= TEND_EVERY {
                self.backend.tend();
                self.tended_at = Instant::now();
            }
            self.upkeep.work(&mut *self.backend, !self.receiver.is_empty());
        }
    }

    /// Everything that waits, up to the size of a batch: while one commit is on its way the next one gathers here.
    fn gather(&mut self, first: Submission, batch: &mut Vec<Submission>) {
        let mut requests = first.requests.len();
        batch.push(first);
        while requests < self.batch_requests {
            let Ok(next) = self.receiver.try_recv() else {
                break;
            };
            requests += next.requests.len();
            batch.push(next);
        }
    }
}

/// Keeps commits a little apart while there is much to write: each costs its writer, the disk and every shard that waits for it
/// the same, however little it holds. What comes alone is never held up.
struct Pace {
    is_wanted: bool,
    begun: Instant,
    /// Since when requests are counted, how many there were, and whether they were many the last time.
    counted_since: Instant,
    requests: usize,
    is_busy: bool,
}

impl Pace {
    fn new(is_wanted: bool) -> Pace {
        let now = Instant::now();
        Pace { is_wanted, begun: now, counted_since: now, requests: 0, is_busy: false }
    }

    /// Until the next commit may begin.
    fn rest(&self) {
        if self.is_wanted
            && self.is_busy
            && let Some(rest) = COMMIT_EVERY.checked_sub(self.begun.elapsed())
        {
            std::thread::sleep(rest);
        }
    }

    /// A commit of so many requests begins.
    fn begin(&mut self, now: Instant, requests: usize) {
        self.begun = now;
        self.requests += requests;
        let counted = now - self.counted_since;
        if counted >= COUNTED {
            self.is_busy = self.requests as u128 * COMMIT_EVERY.as_nanos() >= BUSY_REQUESTS * counted.as_nanos();
            (self.counted_since, self.requests) = (now, 0);
        }
    }
}

fn run_reader(read_side: &dyn ReadSide, receiver: &Receiver<Submission>, mut counter: Counter) {
    run_promptly();
    let mut batch = Vec::new();
    let mut served_clients = Vec::new();
    while let Ok(mut submission) = receiver.recv() {
        for request in submission.requests.drain(..) {
            let result = match &request.operation {
                Operation::Read(read) => read_side.read(read),
                Operation::Write(_) => Err(StoreFault::Unavailable("a write was sent to a reader".to_owned())),
            };
            submission.replies.push(StoreReply { ticket: request.ticket, result });
        }
        batch.push(submission);
        counter.hand_out(&mut batch, &mut served_clients);
    }
}

/// Reads that travel together to one reader: few, so that several readers share a turn's reads.
const READS_TOGETHER_MAX: usize = 8;
/// The least time from one commit's beginning to the next one's, when so many requests come in it.
const COMMIT_EVERY: Duration = Duration::from_micros(250);
const BUSY_REQUESTS: u128 = 4;
const COUNTED: Duration = Duration::from_millis(5);
const TEND_EVERY: Duration = Duration::from_millis(250);
