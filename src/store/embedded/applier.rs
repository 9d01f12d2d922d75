//! Owns bringing commits from the log to the tables, in their order and several at a time, and saying how far the tables are on
//! disk. Nobody who sends waits for it, unless the tables fall far behind; whoever reads does. Also looks after the tables, since
//! whatever holds them up is to hold up only this thread, `store-applier`. Never sees a commit that was not acknowledged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, PersistMode};

use super::Shared;
use super::backlog::{Rows, Stretch, Work};
use super::commit_log::{CommitLogFault, Found, Record};
use super::journal::{MARK, Mark};
use super::rewrite::Rewriter;
use super::search::{Notes, NotesReplay, decode_changes};
use super::tables::{Space, Tables, Trouble};

/// The thread; dropping it ends it when all is applied and on disk in the tables.
#[derive(Debug)]
pub struct Applier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    /// Starts it. The backlog begins with what the tables hold.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(shared: &Arc<Shared>, notes: Option<Notes>, write_buffer_bytes: u64) -> std::io::Result<Applier> {
        let number = shared.backlog.applied();
        let work = Applying {
            shared: shared.clone(),
            notes,
            rewriter: Rewriter::new(),
            write_buffer_bytes,
            number,
            checkpoint: number,
            unpersisted_bytes: 0,
            persisted_at: Instant::now(),
            tended_at: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("store-applier".to_owned()).spawn(move || work.run())?;
        Ok(Applier { shared: shared.clone(), thread: Some(thread) })
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.shared.backlog.end();
        if let Some(thread) = self.thread.take() {
            // It catches its panics and tells them.
            let _ = thread.join();
        }
    }
}

struct Applying {
    shared: Arc<Shared>,
    /// What commits leave for the search index.
    notes: Option<Notes>,
    rewriter: Rewriter,
    write_buffer_bytes: u64,
    /// The last commit in the tables, and the last that is on disk there.
    number: u64,
    checkpoint: u64,
    unpersisted_bytes: usize,
    persisted_at: Instant,
    tended_at: Instant,
}

impl Applying {
    fn run(mut self) {
        let ended = match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(ended) => ended,
            Err(_) => Err("the database could not read what it holds: a file is damaged".to_owned()),
        };
        self.rewriter.stop();
        if let Err(reason) = ended {
            self.shared.backlog.fail(reason);
            let _ = catch_unwind(AssertUnwindSafe(|| self.show()));
        }
        self.shared.backlog.close();
    }

    /// Shows readers what the tables lack, until the database is opened anew: it is in the log, and whoever knows of it asks.
    fn show(&self) {
        let backlog = &self.shared.backlog;
        while let Some(stretch) = backlog.take_failed() {
            let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            let Some(tables) = tables.as_ref() else { return };
            tables.show(&stretch.rows);
            stretch.heads.iter().for_each(|(number, head)| tables.heads().moved(*number, *head));
            backlog.applied_up_to(stretch.number);
        }
    }

    fn work(&mut self) -> Result<(), String> {
        let shared = self.shared.clone();
        loop {
            let work = shared.backlog.take(TEND_EVERY, GATHER);
            let tables = shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            let tables = tables.as_ref().ok_or("the database is closed")?;
            match work {
                Work::Apply(stretch, unsynced) => {
                    if let Some(file) = unsynced {
                        file.sync_data().map_err(|error| error.to_string())?;
                    }
                    self.apply(tables, &stretch)?;
                    drop(stretch);
                    shared.backlog.applied_up_to(self.number);
                }
                Work::Nothing => {}
                Work::End => return self.persist(tables),
            }
            let is_due = self.unpersisted_bytes >= UNPERSISTED_BYTES_MAX || self.persisted_at.elapsed() >= PERSIST_EVERY;
            if self.number > self.checkpoint && is_due {
                self.persist(tables)?;
            }
            if self.tended_at.elapsed() >= TEND_EVERY {
                self.tend(tables)?;
            }
        }
    }

    fn apply(&mut self, tables: &Tables, stretch: &Stretch) -> Result<(), String> {
        #[cfg(test)]
        if self.shared.apply_fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("injected".to_owned());
        }
        tables.wait_for_room(self.write_buffer_bytes);
        tables.wait_for_tables().map_err(|error| error.to_string())?;
        self.rewriter.written(stretch.bytes, |space| stretch.removed(space));
        let mut batch = tables.database().batch().durability(Some(PersistMode::Buffer));
        pour(tables, &mut batch, &stretch.rows);
        if let Some(notes) = &mut self.notes {
            notes.write(tables, &mut batch, stretch.number, &stretch.changes);
        }
        let mark = Mark { number: stretch.number, previous: self.number, synced: self.checkpoint };
        batch.insert(tables.keyspace(Space::Meta), MARK, mark.encode());
        batch.commit().map_err(|error| error.to_string())?;
        tables.hold(stretch.bytes);
        stretch.heads.iter().for_each(|(number, head)| tables.heads().moved(*number, *head));
        if let Some(notes) = &mut self.notes {
            notes.written(stretch.number, &stretch.changes);
        }
        if self.number == self.checkpoint {
            self.persisted_at = Instant::now();
        }
        self.number = stretch.number;
        self.unpersisted_bytes += stretch.bytes;
        Ok(())
    }

    /// Has the tables put everything on disk: the log need not keep it any longer.
    fn persist(&mut self, tables: &Tables) -> Result<(), String> {
        if self.number > self.checkpoint {
            tables.database().persist(PersistMode::SyncData).map_err(|error| error.to_string())?;
            self.checkpoint = self.number;
            self.shared.backlog.set_checkpoint(self.number);
        }
        (self.unpersisted_bytes, self.persisted_at) = (0, Instant::now());
        Ok(())
    }

    fn tend(&mut self, tables: &Tables) -> Result<(), String> {
        self.tended_at = Instant::now();
        self.rewriter.tend(tables, self.write_buffer_bytes);
        #[cfg(test)]
        self.shared.rewriting.store(self.rewriter.is_running(), std::sync::atomic::Ordering::Relaxed);
        tables.hold(0);
        if self.rewriter.has_ended() {
            // The database removes files that a rewriting has made useless when it moves something to a table, beyond which there
            // is nothing old.
            self.apply(tables, &Stretch { number: self.number, ..Stretch::default() })?;
            // It happens with the next table that memory fills, if not now.
            let _ = tables.keyspace(Space::Meta).rotate_memtable();
            tables.hold(0);
        }
        Ok(())
    }
}

/// Brings to the tables what the log has and they may lack; returns the last commit in them. What they have already they are
/// given again, which changes nothing once all of it is there.
pub fn replay(tables: &Tables, found: &Found, mark: Mark, write_buffer_bytes: u64) -> Result<u64, Replaying> {
    let notes = NotesReplay::of(tables, mark.number)?;
    let (mut previous, mut stretch) = (found.checkpoint, Stretch::default());
    let put = |stretch: Stretch, previous: &mut u64| -> Result<(), Replaying> {
        tables.wait_for_room(write_buffer_bytes);
        let mut batch = tables.database().batch().durability(Some(PersistMode::Buffer));
        pour(tables, &mut batch, &stretch.rows);
        notes.write(tables, &mut batch, stretch.number, &stretch.changes);
        // Tools write to the tables without the log: it may be behind them.
        let mark = Mark { number: stretch.number.max(mark.number), previous: *previous, synced: found.checkpoint };
        batch.insert(tables.keyspace(Space::Meta), MARK, mark.encode());
        batch.commit().map_err(Trouble::from)?;
        *previous = stretch.number;
        Ok(())
    };
    found.replay(|number, records| -> Result<(), Replaying> {
        stretch.append(commit_of(number, records));
        if stretch.bytes >= REPLAYED_BYTES {
            put(std::mem::take(&mut stretch), &mut previous)?;
        }
        Ok(())
    })?;
    if stretch.number > 0 {
        put(stretch, &mut previous)?;
    }
    Ok(previous.max(mark.number))
}

/// Why a log could not be brought to the tables.
#[derive(Debug, thiserror::Error)]
pub enum Replaying {
    #[error(transparent)]
    Log(#[from] CommitLogFault),
    #[error(transparent)]
    Tables(#[from] Trouble),
}

fn commit_of(number: u64, records: Vec<Record>) -> Stretch {
    let mut commit = Stretch { number, ..Stretch::default() };
    for record in records {
        match record {
            Record::Put(space, key, value) => {
                commit.bytes += key.len() + value.len();
                commit.rows[space as usize].insert(key, Some(value));
            }
            Record::Delete(space, key) => {
                commit.bytes += key.len();
                commit.rows[space as usize].insert(key, None);
            }
            // Lists that cannot be read are not whole, which is seen later.
            Record::Changes(list) => commit.changes.extend(decode_changes(&list).ok().map(|list| (number, list))),
        }
    }
    commit
}

fn pour(tables: &Tables, batch: &mut OwnedWriteBatch, rows: &Rows) {
    for space in Space::ALL {
        let keyspace = tables.keyspace(space);
        for (key, value) in &rows[space as usize] {
            match value {
                Some(value) => batch.insert(keyspace, key.clone(), value.clone()),
                None => batch.remove(keyspace, key.clone()),
            }
        }
    }
}

const TEND_EVERY: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 250 });
/// How long commits gather while nobody waits for them: together they cost the tables less.
const GATHER: Duration = Duration::from_millis(if cfg!(test) { 5_000 } else { 5 });
/// When the tables are to be on disk: the log keeps about so much, and a start reads it.
const UNPERSISTED_BYTES_MAX: usize = 8 << 20;
const PERSIST_EVERY: Duration = Duration::from_secs(2);
const REPLAYED_BYTES: usize = 1 << 20;
