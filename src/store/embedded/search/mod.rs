//! Owns searching by index: what is known of the index's state, shared by three sides. The applier says what has come to the
//! tables, the indexer what can be found by the index, a reader asks which part of each log is left to look through.
//!
//! Never an authority: a hit is believed when the log says so, and without an index everything is looked through. Nobody holds
//! the lock while waiting for a disk.

mod changes;
mod index;
mod indexer;
mod note;

#[cfg(test)]
pub mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{EmbeddedSettings, Shared};
use crate::types::{Millis, Seq};

use changes::Change;
use index::{Glance, Lookup, Rebuild};

pub use changes::{Change as LogChange, decode as decode_changes, encode as encode_changes, join as join_changes};
pub use index::{Hits, IndexFault, block_begin, block_of};
pub use note::{Notes, NotesReplay, clear as clear_notes};

/// How to index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchSettings {
    /// Memory in which new parts of the index are made, from 15 MB on.
    pub memory_bytes: usize,
    /// How long a message waits at most until the index has it on disk; meanwhile it is found by looking through the log.
    pub commit_every: Duration,
}

impl Default for SearchSettings {
    fn default() -> SearchSettings {
        SearchSettings { memory_bytes: 32 << 20, commit_every: Duration::from_secs(3) }
    }
}

/// How this store is indexed: not at all where bodies are sealed. An index from before they were goes, for it holds their words.
pub fn settings(store: &EmbeddedSettings, folder: &Path) -> Option<SearchSettings> {
    if store.encryption_key_file.is_none() {
        return store.search.clone();
    }
    match std::fs::remove_dir_all(folder) {
        Ok(()) => tracing::info!("message bodies are sealed: the search index was removed, searches look through the log"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, folder = %folder.display(), "the search index holds plain words: remove it"),
    }
    None
}

/// What the indexer is given.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// Everything in it may be deleted while the store is closed.
    pub folder: PathBuf,
    /// Names the store that the index belongs to.
    pub store: u64,
    pub how: SearchSettings,
}

/// A running indexer; dropping it ends the thread, which first puts on disk what it has.
pub struct Indexing {
    pub search: Arc<Search>,
    thread: Option<JoinHandle<()>>,
}

impl Indexing {
    /// Starts the thread. Without one, which is logged, all searches look through the logs.
    pub fn start(search: Arc<Search>, shared: Arc<Shared>, settings: IndexSettings) -> Indexing {
        let for_thread = search.clone();
        let run = move || indexer::run(&for_thread, &shared, &settings);
        let thread = std::thread::Builder::new().name("store-indexer".to_owned()).spawn(run);
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread for the search index: searches look through the log");
        }
        Indexing { search, thread: thread.ok() }
    }
}

impl Drop for Indexing {
    fn drop(&mut self) {
        self.search.state().stopping = true;
        self.search.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It catches its panics and tells them.
            let _ = thread.join();
        }
    }
}

/// What applier, indexer and readers share.
#[derive(Default)]
pub struct Search {
    state: Mutex<State>,
    /// The indexer waits for it.
    wake: Condvar,
    /// The last commit that no crash takes back; only so far is indexed.
    synced: AtomicU64,
    /// The last commit before the lists of changes begin.
    lists_since: AtomicU64,
    /// The last commit that the index has on its disk: lists up to it are needed no more.
    indexed: AtomicU64,
    /// How often the index has put something on its disk.
    commits: AtomicU64,
    /// Messages from before this time are gone.
    pruned_before: AtomicU64,
}

#[derive(Default)]
struct State {
    lookup: Option<Lookup>,
    rebuild: Option<Rebuild>,
    /// By conversation number: first and last `seq` of messages that the index may lack. None: unknown.
    tail: Option<HashMap<u64, (Seq, Seq), RandomState>>,
    lag_messages: u64,
    /// Since the tail began: the newest commit that was read from the lists, the oldest that the applier told of. A commit that
    /// is visible before it is told of would count twice.
    loaded: u64,
    noted_from: Option<u64>,
    /// Why the index is to be made anew.
    damage: Option<String>,
    stopping: bool,
}

impl State {
    fn note(&mut self, changes: &[Change]) {
        let Some(known) = &mut self.tail else { return };
        for change in changes.iter().filter(|change| !change.recalled) {
            note_tail(known, change);
            self.lag_messages += change.messages();
        }
        if known.len() > TAIL_CONVERSATIONS_MAX {
            self.tail = None;
        }
    }
}

/// How far the index is behind, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchLag {
    /// Appended and not yet in the index, which is why searches look through them.
    pub messages: u64,
    /// Conversations that a rebuild has still to read; at least 1 without an index.
    pub rebuild_conversations: u64,
}

/// The index and what it lacks, for one search.
pub struct Sight {
    glance: Glance,
    /// By conversation number: the `seq` from which on the log itself is to be looked through.
    scan_from: HashMap<u64, Seq, RandomState>,
}

impl Sight {
    /// From this `seq` on the log itself is to be looked through; before it, the index knows.
    pub fn scan_from(&self, number: u64) -> Seq {
        self.scan_from.get(&number).copied().unwrap_or_default()
    }

    /// The messages of a block that may match.
    pub fn block(&self, number: u64, block: u64) -> Result<Option<Hits>, IndexFault> {
        self.glance.block(number, block)
    }
}

impl Search {
    /// The index as it is now, for a search of these conversations; they were listed in a view taken before. None: there is
    /// none.
    pub fn sight(&self, terms: &[String], numbers: impl Iterator<Item = u64>) -> Option<Result<Sight, IndexFault>> {
        let state = self.state();
        let (lookup, tail) = (state.lookup.as_ref()?, state.tail.as_ref()?);
        let scan_from = |number: u64| match (&state.rebuild, tail.get(&number)) {
            (Some(rebuild), _) if (rebuild.number..=rebuild.last).contains(&number) => Seq::NONE,
            (_, Some((first, _))) => *first,
            _ => Seq(u64::MAX),
        };
        let scan_from = numbers.map(|number| (number, scan_from(number))).collect();
        let lookup = lookup.clone();
        // What leaves the tail from here on is in the index that is looked into after it.
        drop(state);
        Some(lookup.look(terms).map(|glance| Sight { glance, scan_from }))
    }

    /// The index cannot be used: it is to be made anew. Until then everything is looked through.
    pub fn damaged(&self, reason: String) {
        let mut state = self.state();
        (state.lookup, state.tail, state.damage) = (None, None, Some(reason));
        self.wake.notify_all();
    }

    /// The index lacks these: the applier has brought them to the tables, and no reader was let on yet.
    pub fn committed(&self, commit: u64, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.state();
        if commit > state.loaded {
            state.noted_from.get_or_insert(commit);
            state.note(changes);
        }
    }

    /// The database was opened with this as its newest commit: later ones come again, as others.
    fn opened_at(&self, commit: u64) {
        let mut state = self.state();
        state.loaded = state.loaded.min(commit);
    }

    /// The same of a list that the indexer has read.
    fn loaded(&self, commit: u64, changes: &[Change]) {
        let mut state = self.state();
        if state.noted_from.is_none_or(|from| commit < from) {
            state.loaded = commit;
            state.note(changes);
        }
    }

    /// What was committed up to here stays, whatever happens.
    pub fn set_synced(&self, commit: u64) {
        self.synced.store(commit, Ordering::Release);
    }

    /// Retention removes what is older.
    pub fn set_pruned_before(&self, before: Millis) {
        self.pruned_before.fetch_max(before.0, Ordering::Relaxed);
    }

    pub fn lag(&self) -> SearchLag {
        let state = self.state();
        let rebuild_conversations = match state.rebuild {
            Some(rebuild) => rebuild.last + 1 - rebuild.number,
            None => u64::from(state.lookup.is_none()),
        };
        SearchLag { messages: state.lag_messages, rebuild_conversations }
    }

    #[cfg(test)]
    fn has_index(&self) -> bool {
        self.state().lookup.is_some()
    }

    /// Messages in the index.
    #[cfg(test)]
    fn documents(&self) -> u64 {
        self.state().lookup.as_ref().map_or(0, Lookup::documents)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Waits, but not when something has to be done at once.
    fn wait(&self, duration: Duration) {
        let busy = |state: &mut State| !state.stopping && state.damage.is_none();
        drop(self.wake.wait_timeout_while(self.state(), duration, busy));
    }

    /// From now on the applier notes what the index lacks.
    fn begin_tail(&self) {
        let mut state = self.state();
        (state.tail, state.lag_messages) = (Some(HashMap::default()), 0);
        (state.loaded, state.noted_from) = (0, None);
    }

    fn has_tail(&self) -> bool {
        self.state().tail.is_some()
    }

    /// The index has these and can be looked into.
    fn publish(&self, lookup: Lookup, rebuild: Option<Rebuild>, commit: u64, indexed: Vec<(u64, Seq)>, messages: u64) {
        for some in indexed.chunks(TAIL_UPDATES_AT_ONCE) {
            let mut state = self.state();
            let Some(tail) = &mut state.tail else { continue };
            for (number, seq) in some {
                match tail.get_mut(number) {
                    Some((_, last)) if *last <= *seq => {
                        tail.remove(number);
                    }
                    Some((first, _)) => *first = (*first).max(seq.next()),
                    None => {}
                }
            }
        }
        let mut state = self.state();
        if state.damage.is_some() {
            return;
        }
        (state.lookup, state.rebuild) = (Some(lookup), rebuild);
        state.lag_messages = state.lag_messages.saturating_sub(messages);
        self.indexed.store(commit, Ordering::Release);
    }

    /// There is no index for the time being.
    fn close(&self) {
        let mut state = self.state();
        (state.lookup, state.tail, state.rebuild, state.damage) = (None, None, None, None);
    }
}

fn note_tail(tail: &mut HashMap<u64, (Seq, Seq), RandomState>, change: &Change) {
    let (first, last) = tail.entry(change.number).or_insert((change.first, change.last));
    (*first, *last) = ((*first).min(change.first), (*last).max(change.last));
}

/// Beyond so many conversations with messages that the index lacks, all are looked through until it has caught up.
const TAIL_CONVERSATIONS_MAX: usize = 200_000;
/// The applier waits no longer than this takes.
const TAIL_UPDATES_AT_ONCE: usize = 2_048;
