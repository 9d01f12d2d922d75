//! Owns the end of what the database has replaced: memory that has been written to tables, tables that were merged into others.
//! To free many thousands of records or to remove a large file takes tens of milliseconds, and the database does both under a
//! lock that every batch and every read waits for. Whoever holds on to them a little longer lets them end beside all that.
//! Never looks into them. The applier's thread holds them, a thread of its own lets them go.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use fjall::{AbstractTree, Keyspace};

use super::patience::Patience;
use super::removal::Removal;
use super::room::Disk;
use crate::scheduling::be_nice;

/// What somebody may still hold. Dropped with the database, and before it: a file that ended later could be another's by then.
pub struct Leftovers {
    held: Mutex<Vec<Held>>,
    /// What has come to the tables so far: how busy it is.
    brought_bytes: Arc<AtomicU64>,
    /// None only while it ends.
    sender: Option<Sender<Replaced>>,
    thread: Option<JoinHandle<()>>,
}

/// Of one keyspace.
#[derive(Default)]
struct Held {
    /// The last one is written to now.
    memory: Vec<Arc<dyn Any + Send + Sync>>,
    /// Lists of tables with their numbers; the last one counts now.
    tables: Vec<(u64, Replaced)>,
}

/// Ends what it holds; files among it are to be kept first.
type Replaced = Box<dyn FnOnce(&mut Removal) + Send>;

impl Leftovers {
    /// Of the database in this folder.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(database: &Path) -> std::io::Result<Leftovers> {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        let brought_bytes = Arc::new(AtomicU64::new(0));
        let freeing = Freeing {
            database: database.to_owned(),
            removal: Removal::new(database),
            patience: Patience::new(Instant::now()),
            brought_bytes: brought_bytes.clone(),
        };
        let thread = std::thread::Builder::new().name("store-freeing".to_owned()).spawn(move || freeing.run(&receiver))?;
        Ok(Leftovers { held: Mutex::default(), brought_bytes, sender: Some(sender), thread: Some(thread) })
    }

    /// To be called after every commit, with its bytes, and now and then when there is none: holds what counts now, before the
    /// database could replace it, and lets go of what it has replaced and nobody else looks at any more.
    pub fn hold(&self, keyspaces: &[Keyspace], brought_bytes: usize) {
        self.brought_bytes.fetch_add(brought_bytes as u64, Ordering::Relaxed);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.resize_with(keyspaces.len(), Held::default);
        for (held, keyspace) in held.iter_mut().zip(keyspaces) {
            let active: Arc<dyn Any + Send + Sync> = keyspace.tree.active_memtable();
            if held.memory.last().is_none_or(|last| !Arc::ptr_eq(last, &active)) {
                held.memory.push(active);
            }
            // Nobody can come to hold it again but by way of somebody who does.
            while held.memory.first().is_some_and(|oldest| Arc::strong_count(oldest) == 1) {
                let memory = held.memory.remove(0);
                self.let_go(Box::new(move |_: &mut Removal| drop(memory)));
            }
            let tables = keyspace.tree.current_version();
            let number = tables.id();
            if held.tables.last().is_none_or(|(last, _)| *last != number) {
                let keep = move |removal: &mut Removal| {
                    let removed = tables.iter_tables().filter(|table| table.is_deleted.load(Ordering::Acquire));
                    removed.for_each(|table| removal.keep(&table.path));
                };
                held.tables.push((number, Box::new(keep)));
            }
            if held.tables.len() > 1 {
                let replaced = match keyspace.tree.version_free_list_len() {
                    0 => held.tables.len() - 1,
                    // The database may hold them for long; it need not be longer than that because of us.
                    _ => held.tables.len().saturating_sub(LISTS_MAX),
                };
                held.tables.drain(..replaced).for_each(|(_, tables)| self.let_go(tables));
            }
        }
    }

    /// With too much waiting already it ends right here: memory and disk have bounds, and a commit may wait.
    fn let_go(&self, replaced: Replaced) {
        if let Some(sender) = &self.sender {
            drop(sender.try_send(replaced));
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.held.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // What it holds ends all the same when it panics.
            let _ = thread.join();
        }
    }
}

/// The thread that lets go.
struct Freeing {
    database: PathBuf,
    removal: Removal,
    patience: Patience,
    brought_bytes: Arc<AtomicU64>,
}

impl Freeing {
    fn run(mut self, receiver: &Receiver<Replaced>) {
        be_nice(NICENESS);
        let mut wait = IDLE;
        loop {
            match receiver.recv_timeout(wait) {
                Ok(replaced) => replaced(&mut self.removal),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            wait = self.turn(Instant::now());
        }
    }

    /// Takes a piece off a file, if there is one and it is time to; returns how long to rest.
    fn turn(&mut self, now: Instant) -> Duration {
        if self.patience.is_due(now) {
            self.removal.keep_journals();
            self.removal.find_nameless();
            self.patience.look(now, self.brought_bytes.load(Ordering::Relaxed), Disk::of(&self.database));
        }
        let goes_on = self.patience.ends(self.removal.waiting_bytes()) && self.removal.step();
        if goes_on { BETWEEN_PIECES } else { IDLE }
    }
}

/// Of one keyspace.
const LISTS_MAX: usize = 32;
const WAITING_MAX: usize = 16;
const NICENESS: i32 = 10;
/// A journal lives for seconds at the least.
const IDLE: Duration = Duration::from_millis(250);
/// With the size of a piece: faster than tables are written.
const BETWEEN_PIECES: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::conformance::private;
    use crate::store::embedded::removal::folder_of;
    use crate::store::embedded::tests::{append, commit, contents};
    use crate::store::embedded::{EmbeddedBackend, EmbeddedSettings};

    /// Second names of files that have no other name outside, and all second names.
    fn names(folder: &Path) -> (usize, usize) {
        // It is made for the first one.
        let entries = std::fs::read_dir(folder.join("store.removing")).into_iter().flatten();
        let found: Vec<(u64, u64)> =
            entries.filter_map(|entry| entry.unwrap().metadata().ok()).map(|found| (found.ino(), found.nlink())).collect();
        let own = |number: u64| found.iter().filter(|(other, _)| *other == number).count() as u64;
        (found.iter().filter(|(number, links)| own(*number) >= *links).count(), found.len())
    }

    #[test]
    fn pieces_wait_for_calm() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        let left = folder_of(&database).join("1");
        std::fs::create_dir_all(&database).unwrap();
        std::fs::create_dir(folder_of(&database)).unwrap();
        std::fs::write(&left, vec![7; 3 << 20]).unwrap();
        let begun = Instant::now();
        let mut freeing =
            Freeing { removal: Removal::new(&database), patience: Patience::new(begun), brought_bytes: Arc::default(), database };
        let mut turn = |brought_bytes, millis| {
            freeing.brought_bytes.fetch_add(brought_bytes, Ordering::Relaxed);
            let rest = freeing.turn(begun + Duration::from_millis(millis));
            (rest, left.metadata().map_or(0, |left| left.len() >> 20))
        };
        assert_eq!(turn(0, 0), (BETWEEN_PIECES, 2));
        for millis in [250, 260, 500, 740, 750] {
            assert_eq!(turn(4 << 20, millis), (IDLE, 2), "busy at {millis}");
        }
        assert_eq!(turn(0, 990), (IDLE, 2), "not yet known to be calm");
        assert_eq!(turn(0, 1_000), (BETWEEN_PIECES, 1));
        assert_eq!(turn(0, 1_004), (BETWEEN_PIECES, 0));
        assert_eq!(turn(0, 1_008), (IDLE, 0));
    }

    #[test]
    fn what_was_replaced_ends_and_what_counts_stays() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { write_buffer_bytes: 1 << 20, search: None, ..EmbeddedSettings::new(folder.path()) };
        let mut backend = EmbeddedBackend::open(settings).unwrap();
        let conversation = private("a", "b");
        let count = 40_000;
        for first in (1..=count).step_by(400) {
            let writes = (first..first + 400).map(|number| append(&conversation, number)).collect();
            assert!(commit(&mut backend, writes).iter().all(Result::is_ok));
        }
        {
            let tables = backend.shared.tables.read().unwrap();
            let leftovers = tables.as_ref().unwrap().leftovers();
            assert!(leftovers.brought_bytes.load(Ordering::Relaxed) > count * 20, "it knows how much came");
            let held = leftovers.held.lock().unwrap();
            let counts: Vec<(usize, usize)> = held.iter().map(|held| (held.memory.len(), held.tables.len())).collect();
            assert!(counts.iter().all(|(memory, tables)| *memory <= 8 && *tables <= 32), "{counts:?}");
            assert!(held.iter().any(|held| held.tables.last().is_some_and(|(number, _)| *number > 4)));
        }
        let until = Instant::now() + Duration::from_secs(60);
        while names(folder.path()).0 > 0 || names(folder.path()).1 == 0 {
            assert!(Instant::now() < until, "{:?}", names(folder.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(contents(&mut backend, &conversation).unwrap().len(), count as usize);
        drop(backend);
        assert_eq!(names(folder.path()).1, 0);
        let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).unwrap();
        assert_eq!(contents(&mut backend, &conversation).unwrap().len(), count as usize);
    }
}
