//! Owns the applier's part of indexing: each commit's list of changes, and trimming what the indexer is done with. Never reads a
//! message. Lives on the applier's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjall::{OwnedWriteBatch, PersistMode};

use super::Search;
use super::changes::{self, Change, EXTENT, Extent};
use crate::store::embedded::tables::{Look, Space, Tables, Trouble};

/// What the applier knows of the lists.
pub struct Notes {
    search: Arc<Search>,
    extent: Extent,
    /// How far the lists are trimmed with the batch that is being written.
    since: u64,
}

impl Notes {
    /// The lists of a store that is at `commit`. What is left of lists that are not whole goes.
    pub fn open(tables: &Tables, commit: u64, search: Arc<Search>) -> Result<Notes, Trouble> {
        let known = tables.get(Space::Meta, EXTENT)?.and_then(|bytes| Extent::decode(&bytes));
        let extent = match known {
            Some(extent) if extent.until == commit => extent,
            _ => {
                clear(tables)?;
                Extent { since: commit, until: commit }
            }
        };
        search.set_synced(commit);
        search.opened_at(commit);
        search.lists_since.store(extent.since, Ordering::Release);
        Ok(Notes { search, extent, since: extent.since })
    }

    /// Puts the lists of commits up to `commit` into their batch.
    pub fn write(&mut self, tables: &Tables, batch: &mut OwnedWriteBatch, commit: u64, changed: &[(u64, Vec<Change>)]) {
        let lists = tables.keyspace(Space::Changes);
        for (number, changed) in changed {
            batch.insert(lists, changes::key(*number), changes::encode(changed));
        }
        let done = self.search.indexed.load(Ordering::Acquire).max(commit.saturating_sub(COMMITS_MAX));
        // More than come, or they would be ever more.
        let some = TRIMMED_AT_ONCE + 2 * (commit - self.extent.until.min(commit));
        self.since = done.min(self.extent.since + some).max(self.extent.since);
        for trimmed in self.extent.since + 1..=self.since {
            batch.remove(lists, changes::key(trimmed));
        }
        batch.insert(tables.keyspace(Space::Meta), EXTENT, Extent { since: self.since, until: commit }.encode());
    }

    /// The batch of commits up to `commit` is in the tables. They stay, whatever happens.
    pub fn written(&mut self, commit: u64, changed: &[(u64, Vec<Change>)]) {
        self.extent = Extent { since: self.since, until: commit };
        self.search.lists_since.store(self.since, Ordering::Release);
        changed.iter().for_each(|(number, changed)| self.search.committed(*number, changed));
        self.search.set_synced(commit);
    }
}

/// Lists of commits that a store is given again when it is opened.
pub struct NotesReplay {
    /// None: they are not whole, and are made no longer.
    since: Option<u64>,
}

impl NotesReplay {
    /// Of a store that is at `commit`.
    pub fn of(tables: &Tables, commit: u64) -> Result<NotesReplay, Trouble> {
        let known = tables.get(Space::Meta, EXTENT)?.and_then(|bytes| Extent::decode(&bytes));
        Ok(NotesReplay { since: known.filter(|extent| extent.until == commit).map(|extent| extent.since) })
    }

    /// Puts the lists of commits up to `commit` into their batch.
    pub fn write(&self, tables: &Tables, batch: &mut OwnedWriteBatch, commit: u64, changed: &[(u64, Vec<Change>)]) {
        let Some(since) = self.since else { return };
        for (number, changed) in changed.iter().filter(|(number, _)| *number > since) {
            batch.insert(tables.keyspace(Space::Changes), changes::key(*number), changes::encode(changed));
        }
        batch.insert(tables.keyspace(Space::Meta), EXTENT, Extent { since, until: commit }.encode());
    }
}

/// Removes all lists, in batches. From the first one on nothing is said to be whole.
pub fn clear(tables: &Tables) -> Result<(), Trouble> {
    let lists = tables.keyspace(Space::Changes);
    if tables.get(Space::Meta, EXTENT)?.is_some() {
        tables.keyspace(Space::Meta).remove(EXTENT)?;
    }
    loop {
        let mut batch = tables.database().batch();
        for guard in tables.range(Space::Changes, changes::key(0), None).take(CLEARED_AT_ONCE) {
            batch.remove(lists, guard.key()?);
        }
        if batch.is_empty() {
            // A power cut that brought it back would make lists look whole that lack what comes now.
            return Ok(tables.database().persist(PersistMode::SyncAll)?);
        }
        batch.commit()?;
    }
}

/// Commits for which lists are kept at most. An index that is further behind is made anew.
const COMMITS_MAX: u64 = 1_000_000;
const TRIMMED_AT_ONCE: u64 = 64;
const CLEARED_AT_ONCE: usize = 4_096;
