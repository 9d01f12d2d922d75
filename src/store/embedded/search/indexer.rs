//! Owns the indexer's thread: it reads what commits have changed, puts it into the index, and reads all logs where an index has
//! to be made anew. Its share of the processor is small, its work comes in small pieces, and its own commits are seconds apart.
//!
//! Never writes to the store and never makes whoever does wait. Whatever fails here costs searches their speed, nothing else.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fjall::Slice;

use super::changes::{self, Change, EXTENT, Extent};
use super::index::{Cursor, DAY_MS, Index, IndexFault, Rebuild};
use super::{IndexSettings, Search};
use crate::scheduling::be_nice;
use crate::store::embedded::Shared;
use crate::store::embedded::keys;
use crate::store::embedded::tables::{Look, Space, Trouble, View};
use crate::store::text;
use crate::types::{ConversationId, Millis, Seq, UserId};

/// Indexes until it is told to stop. A fault is logged and tried again.
pub fn run(search: &Search, shared: &Arc<Shared>, settings: &IndexSettings) {
    be_nice(NICENESS);
    let mut faults = 0;
    while !search.is_stopping() {
        let commits = search.commits.load(Ordering::Relaxed);
        let session = || Session::open(search, shared, settings)?.run();
        let halt = match catch_unwind(AssertUnwindSafe(session)) {
            Ok(Ok(())) => break,
            Ok(Err(halt)) => halt,
            Err(_) => Halt::Damaged("the index could not be read".to_owned()),
        };
        search.close();
        let moved_on = search.commits.load(Ordering::Relaxed) > commits;
        faults = if moved_on { 1 } else { faults + 1 };
        match halt {
            Halt::Index(reason) if faults % FAULTS_MAX != 0 => {
                tracing::warn!(%reason, "the search index cannot be written: searches look through the log");
            }
            Halt::Failed(reason) => tracing::warn!(%reason, "the search index waits: searches look through the log"),
            Halt::Damaged(reason) | Halt::Index(reason) => {
                tracing::warn!(%reason, "the search index is damaged and made anew: searches look through the log meanwhile");
                if let Err(error) = std::fs::remove_dir_all(&settings.folder) {
                    tracing::warn!(%error, folder = %settings.folder.display(), "the damaged search index cannot be removed");
                }
            }
        }
        search.wait(RETRY_EVERY * (1 << faults.min(RETRY_DOUBLINGS_MAX)));
    }
    search.close();
}

/// Why a session ended before it was told to.
enum Halt {
    /// The store cannot be read: to be tried again.
    Failed(String),
    /// The index cannot be read or written, perhaps for want of space: to be tried again, and when that does not help, anew.
    Index(String),
    Damaged(String),
}

impl From<IndexFault> for Halt {
    fn from(fault: IndexFault) -> Halt {
        Halt::Index(fault.0)
    }
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Halt {
        Halt::Failed(trouble.to_string())
    }
}

/// An open index and what it has taken since its last commit.
struct Session<'a> {
    search: &'a Search,
    shared: &'a Shared,
    commit_every: Duration,
    index: Index,
    cursor: Cursor,
    /// [`Cursor::commit`] as it is on the index's disk.
    durable: u64,
    /// Since when something waits for a commit of the index, and since when a change of the store does.
    waiting_since: Option<Instant>,
    changed_since: Option<Instant>,
    taken: usize,
    /// Messages from the list; of each conversation the last one, and how many.
    listed: u64,
    last: HashMap<u64, (Seq, u64)>,
    /// The most messages of one conversation.
    most: u64,
    /// Files whose checksum is still to be looked at.
    unchecked: Vec<PathBuf>,
    /// As whose every message is decoded: terms do not depend on it.
    nobody: ConversationId,
}

impl<'a> Session<'a> {
    fn open(search: &'a Search, shared: &'a Shared, settings: &IndexSettings) -> Result<Session<'a>, Halt> {
        let synced = search.synced.load(Ordering::Acquire);
        let since = search.lists_since.load(Ordering::Acquire);
        let open = || Index::open(&settings.folder, settings.how.memory_bytes);
        let found = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(IndexFault("it cannot be read".to_owned())));
        let fits = |cursor: &Cursor| cursor.store == settings.store && (since..=synced).contains(&cursor.commit);
        let (index, cursor) = match found {
            Ok(Some((index, cursor))) if fits(&cursor) => (index, cursor),
            other => {
                match &other {
                    Ok(None) => tracing::info!(folder = %settings.folder.display(), "the search index is made"),
                    Ok(Some(_)) => tracing::warn!("the search index does not fit the store and is made anew"),
                    Err(fault) => tracing::warn!(%fault, "the search index is damaged and is made anew"),
                }
                // Before its folder goes.
                drop(other);
                let last = view(shared, |view| Ok(view.last_number()?))?;
                let cursor = Cursor::fresh(settings.store, synced, last);
                (Index::create(&settings.folder, settings.how.memory_bytes, &cursor)?, cursor)
            }
        };
        let unchecked = index.files();
        let nobody = ConversationId::system(&UserId::new("nobody").map_err(|_| Halt::Failed("no user".to_owned()))?);
        let durable = cursor.commit;
        let mut session = Session {
            search,
            shared,
            commit_every: settings.how.commit_every,
            index,
            cursor,
            durable,
            waiting_since: None,
            changed_since: None,
            taken: 0,
            listed: 0,
            last: HashMap::new(),
            most: 0,
            unchecked,
            nobody,
        };
        session.load_tail()?;
        session.publish();
        Ok(session)
    }

    fn run(mut self) -> Result<(), Halt> {
        loop {
            let damage = self.search.state().damage.take();
            if let Some(reason) = damage {
                return Err(Halt::Damaged(reason));
            }
            if self.search.is_stopping() {
                return if self.waiting_since.is_some() { self.commit() } else { Ok(()) };
            }
            let begun = Instant::now();
            let more = self.follow()?;
            let rebuilding = self.rebuild()?;
            self.prune()?;
            if self.is_due(more) {
                self.commit()?;
            }
            if !more && !self.search.has_tail() && self.search.state().lookup.is_some() {
                self.commit()?;
                self.load_tail()?;
            }
            let rest = match (rebuilding, more) {
                (true, _) => begun.elapsed(),
                (false, true) => begun.elapsed() / 8,
                (false, false) => {
                    self.check_one()?;
                    IDLE.min(self.commit_every)
                }
            };
            self.search.wait(rest);
        }
    }

    /// Takes a piece of what the lists name; true when there is more.
    fn follow(&mut self) -> Result<bool, Halt> {
        let synced = self.search.synced.load(Ordering::Acquire);
        if synced <= self.cursor.commit {
            return Ok(false);
        }
        let shared = self.shared;
        let (from, to) = (changes::key(self.cursor.commit + 1), changes::key(synced + 1));
        view(shared, |view| {
            lists_reach_back(view, self.cursor.commit)?;
            let (mut changed, mut messages, mut reached) = (Vec::new(), 0, synced);
            for guard in view.range(Space::Changes, from, Some(to)) {
                let (key, bytes) = guard.into_inner().map_err(Trouble::from)?;
                let commit = changes::commit_of(&key).unwrap_or(reached);
                let list = changes::decode(&bytes).map_err(|_| damaged_list(commit))?;
                messages += list.iter().map(Change::messages).sum::<u64>();
                changed.extend(list);
                if messages >= PIECE_MESSAGES {
                    reached = commit;
                    break;
                }
            }
            changes::join(&mut changed);
            for change in &changed {
                self.take_change(view, change)?;
            }
            self.cursor.commit = reached;
            Ok(reached < synced)
        })
    }

    fn take_change(&mut self, view: &View<'_>, change: &Change) -> Result<(), Halt> {
        let now = Instant::now();
        self.waiting_since.get_or_insert(now);
        self.changed_since.get_or_insert(now);
        let Change { recalled, number, first, last } = *change;
        if recalled {
            for seq in first.0..=last.0 {
                self.index.remove(number, Seq(seq))?;
            }
            self.taken += change.messages() as usize;
            return Ok(());
        }
        let log = Log::of(view, number)?;
        if change.messages() <= LOOK_UPS_MAX {
            for seq in (first.0..=last.0).map(Seq) {
                let key = keys::message(number, seq);
                if let Some(bytes) = view.get(Space::Messages, &key)? {
                    self.take(view, log, seq, (&key, &bytes))?;
                }
            }
        } else {
            self.take_log(view, log, (first, last), usize::MAX)?;
        }
        self.listed += change.messages();
        let (reached, messages) = self.last.entry(number).or_default();
        *reached = last.max(*reached);
        *messages += change.messages();
        self.most = self.most.max(*messages);
        Ok(())
    }

    /// Takes up to `count` messages of a log; the `seq` to go on at, when that was not the end of it.
    fn take_log(&mut self, view: &View<'_>, log: Log, (first, last): (Seq, Seq), count: usize) -> Result<Option<Seq>, Halt> {
        for (taken, guard) in view.log(log.number, first, last).enumerate() {
            let (key, bytes) = guard.into_inner().map_err(Trouble::from)?;
            let seq = keys::seq_of(&key).unwrap_or(last);
            if taken == count {
                return Ok(Some(seq));
            }
            self.take(view, log, seq, (&key, &bytes))?;
        }
        Ok(None)
    }

    fn take(&mut self, view: &View<'_>, log: Log, seq: Seq, (key, bytes): (&Slice, &Slice)) -> Result<(), Halt> {
        // What is damaged cannot be found; whoever reads it is told.
        let Ok(message) = view.decode(key, bytes, &self.nobody, seq) else { return Ok(()) };
        let terms = text::terms(&message);
        if !terms.is_empty() {
            self.index.add(log.number, seq, Millis(message.created_at.0.saturating_add(log.slack_ms)), &terms)?;
        }
        self.taken += 1;
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Reads a piece of the logs that were there before the index; true when it did.
    fn rebuild(&mut self) -> Result<bool, Halt> {
        let Some(Rebuild { mut number, mut seq, last }) = self.cursor.rebuild else { return Ok(false) };
        let shared = self.shared;
        view(shared, |view| {
            let until = self.taken + PIECE_MESSAGES as usize;
            for _ in 0..PIECE_CONVERSATIONS {
                let left = until.saturating_sub(self.taken);
                match self.take_log(view, Log::of(view, number)?, (Seq(seq), Seq(u64::MAX)), left)? {
                    Some(next) => {
                        seq = next.0;
                        break;
                    }
                    None => (number, seq) = (number + 1, 1),
                }
                if number > last {
                    break;
                }
            }
            Ok(())
        })?;
        self.waiting_since.get_or_insert_with(Instant::now);
        self.cursor.rebuild = (number <= last).then_some(Rebuild { number, seq, last });
        if self.cursor.rebuild.is_none() {
            self.commit()?;
            tracing::info!("the search index has all messages");
        }
        Ok(true)
    }

    /// Lets go of the days that retention has removed.
    fn prune(&mut self) -> Result<(), Halt> {
        let days = self.search.pruned_before.load(Ordering::Relaxed) / DAY_MS;
        if days > self.cursor.pruned_days {
            self.index.remove_days_before(days)?;
            self.cursor.pruned_days = days;
            self.taken += 1;
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// `more`: it is behind, so it does not hasten.
    fn is_due(&self, more: bool) -> bool {
        let waits = |since: Option<Instant>, most: Duration| since.is_some_and(|since| since.elapsed() >= most);
        self.taken >= COMMIT_MESSAGES
            || (!more && self.most >= TAIL_MESSAGES && waits(self.changed_since, self.commit_every / TAIL_COMMITS_SOONER))
            || waits(self.changed_since, self.commit_every)
            || waits(self.waiting_since, self.commit_every * REBUILD_COMMITS_LATER)
            || self.cursor.commit - self.durable >= COMMIT_COMMITS
    }

    fn commit(&mut self) -> Result<(), Halt> {
        self.index.commit(&self.cursor)?;
        self.search.commits.fetch_add(1, Ordering::Relaxed);
        self.durable = self.cursor.commit;
        (self.waiting_since, self.changed_since, self.taken) = (None, None, 0);
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let indexed = self.last.drain().map(|(number, (reached, _))| (number, reached)).collect();
        self.most = 0;
        let listed = std::mem::take(&mut self.listed);
        self.search.publish(self.index.lookup(), self.cursor.rebuild, self.durable, indexed, listed);
    }

    /// Tells the readers what the index lacks, from the lists: at start, and when it was more than can be noted.
    fn load_tail(&mut self) -> Result<(), Halt> {
        self.search.begin_tail();
        let from = changes::key(self.durable + 1);
        // Taken after the applier began to note: nothing falls between.
        view(self.shared, |view| {
            lists_reach_back(view, self.durable)?;
            for guard in view.range(Space::Changes, from, None) {
                let (key, bytes) = guard.into_inner().map_err(Trouble::from)?;
                let commit = changes::commit_of(&key).unwrap_or_default();
                self.search.loaded(commit, &changes::decode(&bytes).map_err(|_| damaged_list(commit))?);
            }
            Ok(())
        })
    }

    /// Compares the checksum of one file that was there at the start.
    fn check_one(&mut self) -> Result<(), Halt> {
        let Some(file) = self.unchecked.pop() else { return Ok(()) };
        match self.index.is_whole(&file) {
            true => Ok(()),
            false => Err(Halt::Damaged(format!("{} is not as it was written", file.display()))),
        }
    }
}

/// A log of which messages are taken.
#[derive(Clone, Copy)]
struct Log {
    number: u64,
    /// How far its times step back: retention keeps a message as long as everything before it.
    slack_ms: u64,
}

impl Log {
    fn of(view: &View<'_>, number: u64) -> Result<Log, Halt> {
        let id = match view.conversation_id(number) {
            Ok(id) => id,
            // A damaged record stops its own conversation only; whoever reads it is told.
            Err(Trouble::Damaged { .. }) => return Ok(Log { number, slack_ms: 0 }),
            Err(trouble) => return Err(trouble.into()),
        };
        let record = match view.conversation_record(&id) {
            Err(Trouble::Damaged { .. }) => None,
            record => record?,
        };
        Ok(Log { number, slack_ms: record.map_or(0, |record| record.slack_ms) })
    }
}

/// Looks into the store as it is now. No lock outlives the look, so that the store can be opened anew.
fn view<T>(shared: &Shared, look: impl FnOnce(&View<'_>) -> Result<T, Halt>) -> Result<T, Halt> {
    let tables = shared.tables.read().unwrap_or_else(PoisonError::into_inner);
    match &*tables {
        Some(tables) => look(&tables.view()),
        None => Err(Halt::Failed("the store is closed".to_owned())),
    }
}

/// Lists older than a bound go, whether the indexer has followed or not: what they named would never be indexed.
fn lists_reach_back(view: &View<'_>, commit: u64) -> Result<(), Halt> {
    match view.get(Space::Meta, EXTENT)?.and_then(|bytes| Extent::decode(&bytes)) {
        Some(extent) if extent.since > commit => Err(Halt::Damaged(format!(
            "it is at commit {commit} of the store, and changes are listed from {} on only",
            extent.since
        ))),
        _ => Ok(()),
    }
}

/// What the list named is in the logs: an index that begins behind it needs no list.
fn damaged_list(commit: u64) -> Halt {
    Halt::Damaged(format!("the list of what commit {commit} of the store has changed cannot be read"))
}

const NICENESS: i32 = 10;
const IDLE: Duration = Duration::from_millis(200);
/// The first wait after a fault; it doubles while faults follow each other without a commit of the index between.
const RETRY_EVERY: Duration = Duration::from_secs(5);
const RETRY_DOUBLINGS_MAX: u32 = 6;
/// After so many faults in a row the index is made anew.
const FAULTS_MAX: u32 = 3;
/// Messages and conversations of one piece of work.
const PIECE_MESSAGES: u64 = 512;
const PIECE_CONVERSATIONS: usize = 64;
/// Up to so many messages of a log are looked up one by one.
const LOOK_UPS_MAX: u64 = 4;
/// The index commits when this much waits, or when the oldest has waited long enough, in a rebuild some times as long.
const COMMIT_MESSAGES: usize = 100_000;
const REBUILD_COMMITS_LATER: u32 = 5;
/// What waits is looked through by every search of its conversation: so much of one does not wait that long.
const TAIL_MESSAGES: u64 = 8_192;
const TAIL_COMMITS_SOONER: u32 = 8;
/// Commits of the store without anything for the index.
const COMMIT_COMMITS: u64 = 65_536;
