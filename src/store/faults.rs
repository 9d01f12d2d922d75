//! Owns making a store misbehave on request: slow, stalled, failing. For tests and simulations; never part of a server. The
//! handle lives on any thread, the backend on the writer's.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backend::{Backend, Outcome};
use crate::types::Millis;
use crate::types::storage::{Read, StoreFault, Write};

/// The handle: what the store is to do wrong from now on.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    commit_latency: Duration,
    commits_to_fail: usize,
    reads_to_fail: usize,
    stalled: bool,
    /// Commits that have begun, those that wait or fail included.
    commits: u64,
}

impl Faults {
    /// Every commit takes at least this long.
    pub fn slow(&self, commit_latency: Duration) {
        self.plan().commit_latency = commit_latency;
    }

    /// The next `commits` commits write nothing and fail.
    pub fn fail_commits(&self, commits: usize) {
        self.plan().commits_to_fail = commits;
    }

    /// The next `reads` reads fail.
    pub fn fail_reads(&self, reads: usize) {
        self.plan().reads_to_fail = reads;
    }

    /// The next commit waits for [`release`](Faults::release).
    pub fn stall(&self) {
        self.plan().stalled = true;
    }

    /// Ends a stall.
    pub fn release(&self) {
        self.plan().stalled = false;
        self.shared.released.notify_all();
    }

    /// Commits that have begun so far.
    pub fn commits(&self) -> u64 {
        self.plan().commits
    }

    /// True when the next commit must fail. Waits as told.
    fn commit_fails(&self) -> bool {
        let mut plan = self.plan();
        plan.commits += 1;
        let latency = plan.commit_latency;
        if !latency.is_zero() {
            drop(plan);
            std::thread::sleep(latency);
            plan = self.plan();
        }
        while plan.stalled {
            plan = self.shared.released.wait(plan).unwrap_or_else(PoisonError::into_inner);
        }
        take_one(&mut plan.commits_to_fail)
    }

    fn read_fails(&self) -> bool {
        take_one(&mut self.plan().reads_to_fail)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_one(left: &mut usize) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

/// A backend that does what its [`Faults`] say, and else what the backend within does. It offers no reading beside the
/// writer, so that every read can be made to fail.
#[derive(Debug)]
pub struct FaultyBackend<B> {
    inner: B,
    faults: Faults,
}

impl<B: Backend> FaultyBackend<B> {
    pub fn new(inner: B, faults: Faults) -> FaultyBackend<B> {
        FaultyBackend { inner, faults }
    }
}

impl<B: Backend> Backend for FaultyBackend<B> {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        if self.faults.commit_fails() {
            outcomes.extend(writes.drain(..).map(|_| Err(injected())));
        } else {
            self.inner.commit(writes, outcomes);
        }
    }

    fn read(&mut self, read: &Read) -> Outcome {
        if self.faults.read_fails() { Err(injected()) } else { self.inner.read(read) }
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        self.inner.prune(before, messages_max)
    }

    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        self.inner.expire(first_uses_before, entries_max)
    }

    fn tend(&mut self) {
        self.inner.tend();
    }
}

fn injected() -> StoreFault {
    StoreFault::Unavailable("injected fault".to_owned())
}
