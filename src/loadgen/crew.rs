//! Owns the generator's threads: starts them, gives them orders, adds up what they say.
//!
//! Orders and answers go through queues of one entry, since the measuring thread waits for every answer; between orders each
//! thread keeps its connections alive.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use mio::{Events, Waker};

use super::dial::{Dial, Partition};
use super::error::{BenchError, BenchResult};
use super::fleet::{Fleet, FleetCounts};
use super::plan::{Layout, Plan};
use super::process::Cpus;
use super::tally::{Account, Tally};
use super::traffic::{Progress, Traffic};
use crate::scheduling::run_promptly;

/// All threads that load one target.
pub struct Crew {
    partition: Partition,
    layout: Layout,
    workers: Vec<Worker>,
    /// A client that reads nothing for now: [`Crew::drain`] does not wait for it.
    pub absent: Option<usize>,
}

struct Worker {
    orders: Sender<Order>,
    answers: Receiver<BenchResult<Answer>>,
    waker: Waker,
    join: Option<JoinHandle<()>>,
}

enum Order {
    Open { total: usize },
    Ask { create: bool, from: usize, until: usize },
    Begin(Box<Plan>),
    Reading { local: usize, reading: bool },
    Reopen { local: usize },
    IsClosed { local: usize },
    Report,
    Collect,
    Accounts,
}

enum Answer {
    Done,
    Closed(bool),
    Report(Box<CrewReport>),
    Tally(Box<Tally>),
    Accounts(Vec<Account>),
}

/// Sums over all threads.
#[derive(Clone, Debug, Default)]
pub struct CrewReport {
    pub counts: FleetCounts,
    pub progress: Progress,
    pub ended: bool,
    pub first_failure: Option<String>,
}

impl Crew {
    /// Starts the threads, without connections yet.
    pub fn start(dial: Dial, layout: Layout, cpus: &Cpus, epoch: Instant) -> BenchResult<Crew> {
        let partition = dial.partition;
        let dial = Arc::new(dial);
        let workers = (0..partition.threads).map(|thread| {
            let (fleet, waker) = Fleet::new(thread, Arc::clone(&dial), epoch)?;
            let (orders, orders_in) = bounded(1);
            let (answers_out, answers) = bounded(1);
            let cpus = cpus.clone();
            let join = std::thread::Builder::new()
                .name(format!("bench-{thread}"))
                .spawn(move || {
                    // What it waits for the processor itself is nothing that the server does.
                    run_promptly();
                    let pinned = cpus.pin_this_thread();
                    let worked = pinned.and_then(|()| work(fleet, Traffic::new(layout), &orders_in, &answers_out));
                    if let Err(fault) = worked
                        && orders_in.recv().is_ok()
                    {
                        // The measuring thread learns of it by its next order; when it has gone, nobody needs to know.
                        let _ = answers_out.send(Err(fault));
                    }
                })
                .map_err(BenchError::io("start a generator thread"))?;
            Ok(Worker { orders, answers, waker, join: Some(join) })
        });
        Ok(Crew { partition, layout, workers: workers.collect::<BenchResult<_>>()?, absent: None })
    }

    /// Who talks with whom.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Opens connections until `total` exist; `tell` is called with how many do. Fails when one fails or nothing moves.
    pub fn open(&mut self, total: usize, mut tell: impl FnMut(u64)) -> BenchResult<()> {
        self.all(|_| Order::Open { total })?;
        self.settle("connections opened", |report| {
            tell(report.counts.opened);
            if let Some(failure) = &report.first_failure {
                return Err(BenchError::Server(format!("{} connections failed, the first: {failure}", report.counts.failed)));
            }
            Ok((report.counts.opened, report.counts.opened >= total as u64))
        })
    }

    /// Has the clients `from..until` create and join their groups.
    pub fn enter(&mut self, from: usize, until: usize, mut tell: impl FnMut(u64)) -> BenchResult<()> {
        for create in [true, false] {
            let partition = self.partition;
            self.all(|thread| Order::Ask { create, from: partition.share(thread, from), until: partition.share(thread, until) })?;
            self.settle("group requests answered", |report| {
                tell(report.progress.asks_open);
                if let Some(trouble) = report.progress.first_trouble.as_ref() {
                    return Err(BenchError::Server(format!("while groups were made: {trouble}")));
                }
                Ok((u64::MAX - report.progress.asks_open, report.progress.asks_open == 0))
            })?;
        }
        Ok(())
    }

    /// Begins a plan on all threads.
    pub fn begin(&mut self, plan: Plan) -> BenchResult<()> {
        self.all(|_| Order::Begin(Box::new(plan)))
    }

    /// After a plan's end: waits until everything acknowledged has been delivered everywhere. False when something is missing
    /// and nothing has moved for `patience`.
    pub fn drain(&mut self, patience: Duration) -> BenchResult<bool> {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let report = self.report()?;
            let Progress { sent, acks, refused, .. } = report.progress;
            let left = sent.saturating_sub(acks + refused) + self.outstanding()?;
            if report.ended && left == 0 {
                return Ok(true);
            }
            if left != last.0 {
                last = (left, Instant::now());
            }
            if last.1.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(SETTLE_POLL);
        }
    }

    /// Deliveries of acknowledged messages that have not arrived yet, without those to the absent client.
    pub fn outstanding(&self) -> BenchResult<u64> {
        let Some(absent) = self.absent else {
            let progress = self.report()?.progress;
            return Ok((progress.acks * (self.layout.size() as u64 - 1)).saturating_sub(progress.pushes));
        };
        let mut accounts = self.accounts()?;
        accounts.swap_remove(absent);
        let sums = accounts.iter().fold((0, 0), |(acks, pushes), account| (acks + account.acks, pushes + account.pushes));
        Ok((sums.0 * (self.layout.size() as u64 - 2)).saturating_sub(sums.1))
    }

    /// What the last plan counted.
    pub fn collect(&mut self) -> BenchResult<Tally> {
        let mut sum = Tally::new();
        for worker in &self.workers {
            if let Answer::Tally(tally) = worker.ask(Order::Collect)? {
                sum.merge(&tally);
            }
        }
        Ok(sum)
    }

    /// Every client's account, by global index.
    pub fn accounts(&self) -> BenchResult<Vec<Account>> {
        let mut all = vec![Account::default(); self.layout.clients()];
        for (thread, worker) in self.workers.iter().enumerate() {
            if let Answer::Accounts(accounts) = worker.ask(Order::Accounts)? {
                for (local, account) in accounts.into_iter().enumerate() {
                    all[self.partition.global(thread, local)] = account;
                }
            }
        }
        Ok(all)
    }

    /// Stops or resumes reading on one client's connection.
    pub fn set_reading(&mut self, global: usize, reading: bool) -> BenchResult<()> {
        let local = self.partition.local(global);
        self.workers[self.partition.owner(global)].ask(Order::Reading { local, reading }).map(drop)
    }

    /// Opens a client's connection again when the server has closed it; true when it had.
    pub fn reopen_if_closed(&mut self, global: usize) -> BenchResult<bool> {
        let local = self.partition.local(global);
        let worker = &self.workers[self.partition.owner(global)];
        if !matches!(worker.ask(Order::IsClosed { local })?, Answer::Closed(true)) {
            return Ok(false);
        }
        worker.ask(Order::Reopen { local })?;
        Ok(true)
    }

    /// Sums of all threads.
    pub fn report(&self) -> BenchResult<CrewReport> {
        let mut sum = CrewReport { ended: true, ..CrewReport::default() };
        for worker in &self.workers {
            if let Answer::Report(part) = worker.ask(Order::Report)? {
                sum.add(*part);
            }
        }
        Ok(sum)
    }

    fn all(&self, order: impl Fn(usize) -> Order) -> BenchResult<()> {
        for (thread, worker) in self.workers.iter().enumerate() {
            worker.ask(order(thread))?;
        }
        Ok(())
    }

    /// Polls until `done` says so; a figure that does not move for [`STUCK_AFTER`] is an error.
    fn settle(&self, what: &str, mut done: impl FnMut(&CrewReport) -> BenchResult<(u64, bool)>) -> BenchResult<()> {
        let mut last = (0, Instant::now());
        loop {
            let report = self.report()?;
            let (moved, finished) = done(&report)?;
            if finished {
                return Ok(());
            }
            if moved != last.0 {
                last = (moved, Instant::now());
            }
            if last.1.elapsed() > STUCK_AFTER {
                return Err(BenchError::Server(format!("no {what} for {} s", STUCK_AFTER.as_secs())));
            }
            std::thread::sleep(SETTLE_POLL);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            // Dropping the sender is the order to stop.
            let Worker { orders, waker, join, answers } = worker;
            drop((orders, answers));
            let _ = waker.wake();
            if let Some(join) = join {
                let _ = join.join();
            }
        }
    }
}

impl Worker {
    fn ask(&self, order: Order) -> BenchResult<Answer> {
        let gone = |()| BenchError::Worker("it no longer answers".to_owned());
        self.orders.send(order).map_err(|_| gone(()))?;
        self.waker.wake().map_err(BenchError::io("wake a generator thread"))?;
        self.answers.recv().map_err(|_| gone(()))?
    }
}

impl CrewReport {
    fn add(&mut self, other: CrewReport) {
        self.counts.reads += other.counts.reads;
        self.counts.frames += other.counts.frames;
        self.counts.bytes += other.counts.bytes;
        self.counts.opened += other.counts.opened;
        self.counts.failed += other.counts.failed;
        self.counts.blocked += other.counts.blocked;
        self.progress.sent += other.progress.sent;
        self.progress.acks += other.progress.acks;
        self.progress.pushes += other.progress.pushes;
        self.progress.asks_open += other.progress.asks_open;
        self.progress.refused += other.progress.refused;
        self.progress.skipped += other.progress.skipped;
        self.progress.closed += other.progress.closed;
        self.progress.first_trouble = self.progress.first_trouble.take().or(other.progress.first_trouble);
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.ended &= other.ended;
    }
}

fn work(
    mut fleet: Fleet,
    mut traffic: Traffic,
    orders: &Receiver<Order>,
    answers: &Sender<BenchResult<Answer>>,
) -> BenchResult<()> {
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    loop {
        let wake_ns = traffic.wake_ns(fleet.now_ns());
        fleet.poll(&mut events, wake_ns, &mut traffic)?;
        traffic.polled(events.iter().count());
        traffic.tick(&mut fleet);
        match orders.try_recv() {
            Ok(order) => {
                if answers.send(obey(order, &mut fleet, &mut traffic)).is_err() {
                    return Ok(());
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn obey(order: Order, fleet: &mut Fleet, traffic: &mut Traffic) -> BenchResult<Answer> {
    match order {
        Order::Open { total } => fleet.open_until(total),
        Order::Ask { create, from, until } => {
            traffic.ask(create, from, until);
            traffic.tick(fleet);
        }
        Order::Begin(plan) => traffic.begin(*plan, fleet.len()),
        Order::Reading { local, reading } => fleet.set_reading(local, reading, traffic),
        Order::Reopen { local } => {
            traffic.accounts[local].reopened = true;
            fleet.reopen(local)?;
        }
        Order::IsClosed { local } => return Ok(Answer::Closed(fleet.is_closed(local))),
        Order::Report => {
            return Ok(Answer::Report(Box::new(CrewReport {
                counts: fleet.counts,
                progress: traffic.progress.clone(),
                ended: traffic.ended(),
                first_failure: fleet.first_failure.clone(),
            })));
        }
        Order::Collect => return Ok(Answer::Tally(Box::new(traffic.tally.clone()))),
        Order::Accounts => return Ok(Answer::Accounts(traffic.accounts.clone())),
    }
    Ok(Answer::Done)
}

const EVENTS_PER_POLL: usize = 1_024;
const SETTLE_POLL: Duration = Duration::from_millis(5);
const STUCK_AFTER: Duration = Duration::from_secs(60);
