//! Owns bringing up all shards together and knowing when one has ended.
//!
//! Never runs a turn on the caller's thread. [`Shards`] lives with whoever started the server.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{LocalExecutorBuilder, Placement};

use crate::engine::{Effects, Shard};
use crate::metrics::ShardMetrics;
use crate::scheduling::run_promptly;
use crate::types::ShardId;
use crate::wire::frame::FrameLimits;
use crate::wire::json;

use super::admission::ConnectRate;
use super::connection::Connections;
use super::core::Core;
use super::deadlines::Deadlines;
use super::handshake::Greeter;
use super::ring::Ring;
use super::turn::{Driver, LEAVE_MS_MAX};
use super::upkeep::Survey;
use super::{Parts, descriptors};

/// Why a shard could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ShardFault {
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("cannot start an executor: {0} (the limit of locked memory, ulimit -l, should be at least 8 MiB)")]
    Executor(String),
    #[error("cannot make an io_uring: {0} (Linux 6.1 or newer is needed, with kernel.io_uring_disabled = 0)")]
    Ring(io::Error),
    #[error("cannot have an own table of open files: {0}")]
    Descriptors(io::Error),
    #[error("the io_uring failed: {0}")]
    Enter(io::Error),
    #[error("the store's threads have ended")]
    StoreLost,
    #[error("the shard's thread panicked: {0}")]
    Panic(String),
    #[error("another shard could not start")]
    CalledOff,
}

/// All running shards.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    ended: Receiver<(ShardId, Result<(), ShardFault>)>,
}

impl Shards {
    /// Tells of every shard once, when it has ended: with Ok after [`super::Order::Stop`].
    pub fn ended(&self) -> &Receiver<(ShardId, Result<(), ShardFault>)> {
        &self.ended
    }

    /// Waits until all have ended; the first fault wins.
    pub fn join(self) -> Result<(), ShardFault> {
        let mut verdict = Ok(());
        for thread in self.threads {
            // Panics are caught inside the thread.
            let _ = thread.join();
        }
        while let Ok((_, result)) = self.ended.try_recv() {
            verdict = verdict.and(result);
        }
        verdict
    }
}

/// Starts all shards of a process, in order of their ids. They listen when this returns. When one cannot start none does.
pub fn start(parts: Vec<Parts>) -> Result<Shards, ShardFault> {
    let count = parts.len();
    let (ready_sender, ready) = bounded(count);
    let (ended_sender, ended) = bounded(count);
    let mut threads = Vec::with_capacity(count);
    let mut go = Vec::with_capacity(count);
    for parts in parts {
        let (go_sender, go_receiver) = bounded::<Vec<OwnedFd>>(1);
        go.push(go_sender);
        let (ready_sender, ended_sender, id) = (ready_sender.clone(), ended_sender.clone(), parts.id);
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(|| live(parts, &ready_sender, &go_receiver)));
            let result = result.unwrap_or_else(|cause| Err(ShardFault::Panic(cause_text(&*cause))));
            // Both hold as many as there are shards; a starter that is gone wants to know nothing.
            let _ = match result {
                Err(fault) if go_receiver.is_empty() => ended_sender.send((id, Err(fault))),
                other => ended_sender.send((id, other)),
            };
            drop(ready_sender);
        };
        threads.push(std::thread::Builder::new().name(format!("shard-{}", id.0)).spawn(body).map_err(ShardFault::Thread)?);
    }
    drop(ready_sender);
    let shards = Shards { threads, ended };
    let Some(handles) = gather(&ready, count) else {
        // Dropping the senders calls the others off.
        drop(go);
        return Err(shards.first_fault());
    };
    for sender in go {
        let copies = handles.iter().map(|handle| handle.as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>();
        // A shard that has died since has said so.
        let _ = sender.send(copies.map_err(ShardFault::Ring)?);
    }
    Ok(shards)
}

impl Shards {
    fn first_fault(self) -> ShardFault {
        for thread in self.threads {
            let _ = thread.join();
        }
        let faults = self.ended.try_iter().filter_map(|(_, result)| result.err());
        let mut first = ShardFault::CalledOff;
        for fault in faults {
            if matches!(first, ShardFault::CalledOff) {
                first = fault;
            }
        }
        first
    }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    let Ok(allowed) = allowed else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// The handles of all rings in order of ids, or None when a shard ended before it had one.
fn gather(ready: &Receiver<(ShardId, OwnedFd)>, count: usize) -> Option<Vec<OwnedFd>> {
    let mut handles: Vec<Option<OwnedFd>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let (id, handle) = ready.recv().ok()?;
        handles[id.index()] = Some(handle);
    }
    handles.into_iter().collect()
}

/// A shard's whole life on its thread.
fn live(parts: Parts, ready: &Sender<(ShardId, OwnedFd)>, go: &Receiver<Vec<OwnedFd>>) -> Result<(), ShardFault> {
    run_promptly();
    let placement = parts.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("shard")
        .io_memory(EXECUTOR_MEMORY_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .make()
        .map_err(|fault| ShardFault::Executor(fault.to_string()))?;
    executor.run(async move {
        let ring = Ring::new(&parts.driver.ring).map_err(ShardFault::Ring)?;
        let handle = ring.handle().map_err(ShardFault::Ring)?;
        if ready.send((parts.id, handle)).is_err() {
            return Err(ShardFault::CalledOff);
        }
        let neighbours = go.recv().map_err(|_| ShardFault::CalledOff)?;
        if parts.driver.private_descriptors {
            // All that threads share is open by now: every executor and ring exists, and their handles are here.
            descriptors::make_private().map_err(ShardFault::Descriptors)?;
        }
        let driver = assemble(parts, ring, neighbours).map_err(ShardFault::Ring)?;
        drive(driver)
    })
}

/// Turn after turn until the end. Nothing is ever awaited: an executor that is held up for as long as its preemption takes parks
/// although there is work, and knows nothing of what waits in this ring.
fn drive(mut driver: Driver) -> Result<(), ShardFault> {
    loop {
        driver.turn();
        driver.keep_up();
        if driver.stopped {
            return if driver.store_lost { Err(ShardFault::StoreLost) } else { Ok(()) };
        }
        driver.rest().map_err(ShardFault::Enter)?;
    }
}

pub(super) fn assemble(parts: Parts, mut ring: Ring, neighbours: Vec<OwnedFd>) -> io::Result<Driver> {
    ring.know_neighbours(neighbours);
    ring.watch_bell(parts.waker.as_fd().try_clone_to_owned()?);
    for listener in parts.listeners {
        ring.listen(listener);
    }
    let engine = Shard::new(parts.id, parts.shards, parts.engine, parts.encoder, parts.verifier.clone(), parts.seed);
    let core = Core {
        engine,
        effects: Effects::default(),
        connections: Connections::default(),
        now: parts.clock.now(),
        greeter: Greeter { rules: parts.rules, verifier: parts.verifier, frontpage: parts.frontpage.clone() },
        limits: parts.driver.frames,
        limits_unproven: FrameLimits { message_bytes_max: parts.driver.unproven_bytes_max, ..parts.driver.frames },
        assembly_timeout_ms: u32::try_from(parts.driver.assembly_timeout_ms).unwrap_or(u32::MAX),
        greetings_left: 0,
        echo: parts.driver.echo,
        watched: Deadlines::new(parts.driver.assembly_timeout_ms.div_ceil(4)),
        answers: Vec::new(),
        broken: Vec::new(),
        events: 0,
        scratch: json::Scratch::new(),
        metrics: Box::new(ShardMetrics::new(usize::from(parts.shards))),
        peers_lost: 0,
    };
    Ok(Driver {
        ring,
        core,
        clock: parts.clock,
        port: parts.port,
        inbox: parts.inbox,
        calls: Default::default(),
        store: parts.store,
        directory: parts.directory,
        frontpage: parts.frontpage,
        late: HashMap::new(),
        late_ready: false,
        rate: ConnectRate::new(parts.admission.caps().connects_per_second, parts.shards),
        admission: parts.admission,
        handshakes: Deadlines::new(parts.driver.handshake_timeout_ms),
        leaving: Deadlines::new(LEAVE_MS_MAX),
        rearm: Vec::new(),
        held: Default::default(),
        accept_again_ms: 0,
        idle_listeners: Vec::new(),
        refusing: 0,
        scratch: Vec::new(),
        heard: Vec::new(),
        draining: false,
        stopped: false,
        store_lost: false,
        survey: Survey::default(),
        settings: parts.driver,
        spin: (0, 0),
    })
}

fn cause_text(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("unknown cause").to_owned()
}

/// glommio registers this much; it counts against the limit of locked memory.
const EXECUTOR_MEMORY_BYTES: usize = 64 << 10;
const EXECUTOR_RING_DEPTH: usize = 64;
