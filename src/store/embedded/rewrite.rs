//! Owns giving space back to the disk: a table most of whose entries have been removed is written anew without them. The database
//! does so by itself only where new entries press the removed ones down, and removals alone weigh next to nothing.
//!
//! Never begins while more is being written than memory can hold until it ends, since nothing else is moved to tables meanwhile.
//! One rewriting at a time, on a thread of its own (`store-rewriter`); the rest lives on the applier's.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

use super::tables::{Space, Tables};

/// When what is rewritten.
#[derive(Debug)]
pub struct Rewriter {
    tables: [Worn; REWRITTEN.len()],
    running: Option<Running>,
    /// A rewriting has ended, and the files that it made useless are still there.
    ended: bool,
    looked_at: Instant,
    /// What was written since `looked_at`, and how much a second before that.
    written_bytes: u64,
    bytes_per_second: u64,
}

/// What is known of one table.
#[derive(Debug, Default)]
struct Worn {
    /// Entries removed that have not been moved from memory to tables.
    removed: u64,
    rewritten_at: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Rewriter {
    pub fn new() -> Rewriter {
        Rewriter {
            tables: Default::default(),
            running: None,
            ended: false,
            looked_at: Instant::now(),
            written_bytes: 0,
            bytes_per_second: 0,
        }
    }

    /// A commit has gone to the database.
    pub fn written(&mut self, bytes: usize, removed: impl Fn(Space) -> u64) {
        self.written_bytes += bytes as u64;
        for (worn, space) in self.tables.iter_mut().zip(REWRITTEN) {
            worn.removed += removed(space);
        }
    }

    /// Called a few times a second: begins or ends a rewriting when it is time to.
    pub fn tend(&mut self, tables: &Tables, write_buffer_bytes: u64) {
        if self.running.as_ref().is_some_and(|running| running.thread.is_finished()) {
            self.stop();
            self.ended = true;
        }
        let elapsed = self.looked_at.elapsed();
        if elapsed < LOOK_EVERY {
            return;
        }
        self.bytes_per_second = self.written_bytes * 1_000 / elapsed.as_millis().max(1) as u64;
        (self.written_bytes, self.looked_at) = (0, Instant::now());
        if self.running.is_some() {
            return;
        }
        for (worn, space) in self.tables.iter_mut().zip(REWRITTEN) {
            let keyspace = tables.keyspace(space);
            let gone = keyspace.tree.tombstone_count() + worn.removed;
            if gone < GONE_MIN || gone * GONE_SHARE < keyspace.approximate_len() as u64 {
                continue;
            }
            if worn.removed > 0 {
                // The next look finds it in a table.
                worn.removed = 0;
                let _ = keyspace.rotate_memtable();
                continue;
            }
            let seconds = keyspace.disk_space() / REWRITTEN_BYTES_PER_SECOND;
            let rested = worn.rewritten_at.is_none_or(|at| at.elapsed() >= REST);
            if rested && self.bytes_per_second.saturating_mul(seconds) < write_buffer_bytes {
                worn.rewritten_at = Some(Instant::now());
                self.running = begin(keyspace.clone(), space);
                return;
            }
        }
    }

    /// True once after a rewriting: the database lets go of old files when something was written after it.
    pub fn has_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// Ends a rewriting that is under way: what it has not finished stays as it was. To be called before the database is closed,
    /// which it keeps open.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.store(true, Ordering::Relaxed);
        if running.thread.join().is_err() {
            tracing::error!("a rewriting of a table panicked; the table stays as it was");
        }
    }

    #[cfg(test)]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

fn begin(keyspace: Keyspace, space: Space) -> Option<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let run = move || {
        STOP.set(Some(stopped.clone()));
        let (begun, before) = (Instant::now(), keyspace.disk_space());
        match keyspace.major_compact() {
            Ok(()) => {
                let (after, ms) = (keyspace.disk_space(), begun.elapsed().as_millis() as u64);
                tracing::info!(table = space.name(), before, after, ms, "gave space back to the disk");
            }
            Err(_) if stopped.load(Ordering::Relaxed) => {}
            Err(fault) => tracing::warn!(table = space.name(), %fault, "could not give space back to the disk"),
        }
    };
    match std::thread::Builder::new().name("store-rewriter".to_owned()).spawn(run) {
        Ok(thread) => Some(Running { thread, stop }),
        Err(error) => {
            tracing::warn!(%error, "cannot start a thread to give space back to the disk");
            None
        }
    }
}

/// True on a rewriter's thread that is to end. Asked for every entry that is rewritten.
pub fn is_stopped() -> bool {
    STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)))
}

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// The tables that grow with every message.
const REWRITTEN: [Space; 3] = [Space::Messages, Space::Ids, Space::FirstUses];
const LOOK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// A table is rewritten when one of so many of its entries says that another is gone: then about half of what it had is.
const GONE_SHARE: u64 = 3;
const GONE_MIN: u64 = 1_000;
/// What a rewriting gets through at least, for the guess how long it takes.
const REWRITTEN_BYTES_PER_SECOND: u64 = 64 << 20;
const REST: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 60 });
