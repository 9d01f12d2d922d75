//! Owns what was acknowledged and is not in the tables yet: the commit log has it on disk, the applier brings it to the tables,
//! and until then only the writer sees it here. Whoever reads waits for what was acknowledged before, so nobody reads less than
//! they were told of. Bounded: when it is full the writer waits. Never touches a disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fjall::Slice;

use super::search::LogChange;
use super::tables::Space;
use crate::types::Seq;

/// Records by table; None: deleted.
pub type Rows = [BTreeMap<Slice, Option<Slice>>; Space::ALL.len()];

/// One commit, or several that go to the tables together.
#[derive(Debug, Default)]
pub struct Stretch {
    /// The last commit of it.
    pub number: u64,
    pub rows: Rows,
    /// Where logs end after it.
    pub heads: Vec<(u64, Seq)>,
    /// What each commit does to logs, where that is of interest.
    pub changes: Vec<(u64, Vec<LogChange>)>,
    pub bytes: usize,
}

impl Stretch {
    /// Takes the commits that follow these.
    pub fn append(&mut self, mut next: Stretch) {
        for (rows, next) in self.rows.iter_mut().zip(&mut next.rows) {
            if rows.is_empty() { std::mem::swap(rows, next) } else { rows.extend(std::mem::take(next)) }
        }
        self.heads.append(&mut next.heads);
        self.changes.append(&mut next.changes);
        self.bytes += next.bytes;
        self.number = next.number;
    }

    /// Records that it deletes from a table.
    pub fn removed(&self, space: Space) -> u64 {
        self.rows[space as usize].values().filter(|value| value.is_none()).count() as u64
    }
}

/// Shared by the writer, who adds, the applier, who takes, and readers, who wait.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<State>,
    /// The applier waits for the one, everybody else for the other.
    added: Condvar,
    applied_more: Condvar,
    /// The last commit that was acknowledged, that is in the tables, that is on disk in the tables.
    acknowledged: AtomicU64,
    applied: AtomicU64,
    checkpoint: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: Stretch,
    /// Where `next` was written to, when it may not be on disk yet.
    unsynced: Option<Arc<File>>,
    under_way: Option<Arc<Stretch>>,
    applier: Applier,
    /// How many wait for it.
    waiting: usize,
    /// Why nothing is applied any more; it is only shown.
    failed: Option<String>,
    /// Not even that: nobody is to wait any longer.
    closed: bool,
    ending: bool,
}

/// What the applier is doing.
#[derive(Debug, Default, PartialEq, Eq)]
enum Applier {
    #[default]
    Busy,
    /// Whatever comes wakes it.
    Idle,
    /// Only much wakes it, or somebody who waits.
    Gathering,
}

/// What there is for the applier to do.
pub enum Work {
    /// To be put into the tables; before that, the file is to be on disk.
    Apply(Arc<Stretch>, Option<Arc<File>>),
    Nothing,
    End,
}

impl Backlog {
    /// Begins anew: the tables hold everything up to `number`, on disk.
    pub fn begin(&self, number: u64) {
        let mut state = self.state();
        // Whoever waits goes on waiting.
        *state = State { waiting: state.waiting, ..State::default() };
        for place in [&self.acknowledged, &self.applied, &self.checkpoint] {
            place.store(number, Ordering::Release);
        }
        drop(state);
        self.applied_more.notify_all();
    }

    /// What a record will be, when it is in here.
    pub fn get(&self, space: Space, key: &[u8]) -> Option<Option<Slice>> {
        let state = self.state();
        let known = state.next.rows[space as usize].get(key);
        known.or_else(|| state.under_way.as_ref()?.rows[space as usize].get(key)).cloned()
    }

    /// What records from `from` to before `to` will be, those that are in here. To be asked before the tables are.
    pub fn range(&self, space: Space, from: &Slice, to: Option<&Slice>) -> BTreeMap<Slice, Option<Slice>> {
        let state = self.state();
        let mut found = BTreeMap::new();
        for stretch in state.under_way.as_deref().into_iter().chain([&state.next]) {
            let rows = stretch.rows[space as usize].range::<Slice, _>(from..);
            let rows = rows.take_while(|(key, _)| to.is_none_or(|to| *key < to));
            found.extend(rows.map(|(key, value)| (key.clone(), value.clone())));
        }
        found
    }

    /// Takes a commit that is acknowledged from now on. `unsynced`: only once this file is on disk may the tables have it.
    pub fn add(&self, commit: Stretch, unsynced: Option<Arc<File>>) {
        let number = commit.number;
        let mut state = self.state();
        state.next.append(commit);
        state.unsynced = unsynced;
        self.acknowledged.store(number, Ordering::Release);
        let wakes = match state.applier {
            Applier::Busy => false,
            Applier::Idle => true,
            Applier::Gathering => state.next.bytes >= GATHERED_BYTES,
        };
        drop(state);
        if wakes {
            self.added.notify_one();
        }
    }

    /// Waits until there is room for one more commit.
    ///
    /// # Errors
    /// Why nothing is applied any more.
    pub fn wait_for_room(&self) -> Result<(), String> {
        self.wait_until(|state| match &state.failed {
            Some(reason) => Some(Err(reason.clone())),
            None => (state.next.bytes < BYTES_MAX).then_some(Ok(())),
        })
    }

    /// Waits until everything acknowledged by now is in the tables, or at least shown there.
    ///
    /// # Errors
    /// Why it never will be.
    pub fn wait(&self) -> Result<(), String> {
        let wanted = self.acknowledged.load(Ordering::Acquire);
        if self.applied() >= wanted {
            return Ok(());
        }
        self.wait_until(|state| match &state.failed {
            _ if self.applied() >= wanted => Some(Ok(())),
            Some(reason) if state.closed => Some(Err(reason.clone())),
            _ => None,
        })
    }

    fn wait_until(&self, is_over: impl Fn(&State) -> Option<Result<(), String>>) -> Result<(), String> {
        let mut state = self.state();
        if let Some(ended) = is_over(&state) {
            return ended;
        }
        state.waiting += 1;
        self.added.notify_one();
        let ended = loop {
            if let Some(ended) = is_over(&state) {
                break ended;
            }
            state = self.applied_more.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting -= 1;
        ended
    }

    /// For the applier: what is to be done, for which it waits up to `patience`. A little is left to gather while nobody waits.
    pub fn take(&self, patience: Duration, gather: Duration) -> Work {
        let mut state = self.state();
        let idle = |state: &mut State| state.next.number == 0 && !state.ending;
        state.applier = Applier::Idle;
        state = self.added.wait_timeout_while(state, patience, idle).unwrap_or_else(PoisonError::into_inner).0;
        if state.next.number == 0 {
            state.applier = Applier::Busy;
            return if state.ending { Work::End } else { Work::Nothing };
        }
        let alone = |state: &mut State| state.waiting == 0 && !state.ending && state.next.bytes < GATHERED_BYTES;
        state.applier = Applier::Gathering;
        state = self.added.wait_timeout_while(state, gather, alone).unwrap_or_else(PoisonError::into_inner).0;
        state.applier = Applier::Busy;
        let stretch = Arc::new(std::mem::take(&mut state.next));
        state.under_way = Some(stretch.clone());
        if state.waiting > 0 {
            // There is room again.
            self.applied_more.notify_all();
        }
        Work::Apply(stretch, state.unsynced.take())
    }

    /// By the applier: what it took is in the tables.
    pub fn applied_up_to(&self, number: u64) {
        let mut state = self.state();
        let stretch = state.under_way.take();
        self.applied.store(number, Ordering::Release);
        drop(state);
        self.applied_more.notify_all();
        // That may take a while.
        drop(stretch);
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The last commit that the tables have on disk.
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint.load(Ordering::Acquire)
    }

    pub fn set_checkpoint(&self, number: u64) {
        self.checkpoint.store(number, Ordering::Release);
    }

    /// For the applier when it has failed: what is to be shown, the stretch that failed first. None when it is to end.
    pub fn take_failed(&self) -> Option<Arc<Stretch>> {
        let mut state = self.state();
        if let Some(failed) = &state.under_way {
            return Some(failed.clone());
        }
        loop {
            if state.next.number > 0 {
                let stretch = Arc::new(std::mem::take(&mut state.next));
                state.under_way = Some(stretch.clone());
                return Some(stretch);
            }
            if state.ending {
                return None;
            }
            state.applier = Applier::Idle;
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// By the applier, which ends.
    pub fn close(&self) {
        self.state().closed = true;
        self.applied_more.notify_all();
    }

    /// By the applier: nothing more comes to the tables.
    pub fn fail(&self, reason: String) {
        self.state().failed = Some(reason);
        self.applied_more.notify_all();
    }

    pub fn failed(&self) -> Option<String> {
        self.state().failed.clone()
    }

    /// Tells the applier to end when all is applied.
    pub fn end(&self) {
        self.state().ending = true;
        self.added.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer waits when so much waits to be applied, beside what is being applied.
const BYTES_MAX: usize = 8 << 20;
/// With so much there is no gathering.
const GATHERED_BYTES: usize = 256 << 10;
