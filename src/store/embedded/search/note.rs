//! Owns the writer's part of indexing: each commit's list of changes, and trimming what the indexer is done with. Never reads a
//! message. Lives on the writer's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjall::OwnedWriteBatch;

use super::Search;
use super::changes::{self, Change, EXTENT, Extent};
use crate::store::embedded::tables::{Look, Space, Tables, Trouble};

/// What the writer knows of the lists.
pub struct Notes {
    search: Arc<Search>,
    extent: Extent,
    /// Changes of the batch that is being written, and how far the lists are trimmed with it.
    written: Vec<Change>,
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
        Ok(Notes { search, extent, written: Vec::new(), since: extent.since })
    }

    /// Puts the list of `commit` into its batch.
    pub fn write(&mut self, tables: &Tables, batch: &mut OwnedWriteBatch, commit: u64, mut changed: Vec<Change>) {
        let lists = tables.keyspace(Space::Changes);
        if !changed.is_empty() {
            changes::join(&mut changed);
            batch.insert(lists, changes::key(commit), changes::encode(&changed));
        }
        let done = self.search.indexed.load(Ordering::Acquire).max(commit.saturating_sub(COMMITS_MAX));
        self.since = done.min(self.extent.since + TRIMMED_AT_ONCE).max(self.extent.since);
        for trimmed in self.extent.since + 1..=self.since {
            batch.remove(lists, changes::key(trimmed));
        }
        batch.insert(tables.keyspace(Space::Meta), EXTENT, Extent { since: self.since, until: commit }.encode());
        self.written = changed;
    }

    /// The batch of `commit` is written.
    pub fn written(&mut self, commit: u64) {
        self.extent = Extent { since: self.since, until: commit };
        self.search.lists_since.store(self.since, Ordering::Release);
        self.search.committed(commit, &std::mem::take(&mut self.written));
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
            return Ok(());
        }
        batch.commit()?;
    }
}

/// Commits for which lists are kept at most. An index that is further behind is made anew.
const COMMITS_MAX: u64 = 1_000_000;
const TRIMMED_AT_ONCE: u64 = 64;
const CLEARED_AT_ONCE: usize = 4_096;
