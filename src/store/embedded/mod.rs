//! Owns everything on disk: the store of servers that must lose nothing. One batch of the writer is one atomic commit, and `Ok`
//! means that it is on disk (`durability = "commit"`): in the commit log, from where the applier brings it to the tables.
//!
//! Never believes a disk that has failed once: after a failed commit nothing is written until the database has been opened anew
//! from what is on disk, without the commit that failed. Reads go on meanwhile. The backend lives on the writer's thread, its
//! [`ReadSide`] on the readers'.

mod acknowledged;
mod applier;
mod backlog;
mod backup;
mod cache;
pub(crate) mod codec;
pub(crate) mod commit_log;
mod contacts;
mod draft;
mod files;
mod find;
mod heads;
pub(crate) mod journal;
pub(crate) mod keyring;
mod keys;
mod leftovers;
mod lists;
mod open;
mod patience;
mod prune;
mod read;
mod removal;
mod rewrite;
mod room;
mod search;
mod tables;
mod tools;
mod write;

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod sealing_tests;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fjall::{PersistMode, Slice};

use super::backend::{Backend, Outcome, ReadSide};
use crate::types::storage::{Answer, Read, StoreFault, Write};
use crate::types::{Millis, UserId};

use acknowledged::Acknowledged;
use applier::{Applier, Replaying};
use backlog::Backlog;
use commit_log::{CommitLog, Found};
use draft::Ledger;
use journal::{JournalFault, Keep, MARK, Mark};
use keyring::Keyring;
use open::Folder;
use prune::Sweep;
use room::Room;
use search::{IndexSettings, Indexing, Notes, Search};
use tables::{Look, Tables, Trouble, Tuning};

pub(crate) use tables::Space;

pub use backup::{BackupFault, BackupReport, Backups, Copied};
pub use keyring::{KeyFileFault, new_key_line};
pub use open::StoreOpenFault;
pub use search::{SearchLag, SearchSettings};
pub use tools::{CheckReport, ExportFault, FolderStats, ImportFault, TableStats, Workbench, import};

/// How to keep things on disk.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The data folder; made when it is missing. It belongs to one process.
    pub path: PathBuf,
    pub durability: Durability,
    /// Memory for blocks that were read.
    pub cache_bytes: u64,
    /// Memory about which what was written goes from memory to tables. A burst may take some times as much.
    pub write_buffer_bytes: u64,
    /// Keys that bodies are sealed with; None: bodies are kept as they are.
    pub encryption_key_file: Option<PathBuf>,
    /// The search index; None: there is none, searches look through the log. It holds words as they are, so there is none either
    /// where bodies are sealed.
    pub search: Option<SearchSettings>,
}

impl EmbeddedSettings {
    pub fn new(path: impl Into<PathBuf>) -> EmbeddedSettings {
        EmbeddedSettings {
            path: path.into(),
            durability: Durability::Commit,
            cache_bytes: CACHE_BYTES,
            write_buffer_bytes: WRITE_BUFFER_BYTES,
            encryption_key_file: None,
            search: Some(SearchSettings::default()),
        }
    }
}

/// What `Ok` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk.
    Commit,
    /// The operating system has it; it is on disk within about half a second.
    Memory,
}

/// The store on disk.
pub struct EmbeddedBackend {
    settings: EmbeddedSettings,
    keyring: Arc<Keyring>,
    shared: Arc<Shared>,
    ledger: Ledger,
    /// What [`Tables::open`] drops first uses by.
    first_uses_since: Arc<AtomicU64>,
    log: CommitLog,
    /// None only while the store has failed.
    applier: Option<Applier>,
    /// The last commit that was acknowledged.
    number: u64,
    acknowledged: Acknowledged,
    failed: Option<Failed>,
    room: Room,
    /// First uses from before no longer count, whatever a write says; None until that was said.
    first_uses_before: Option<Millis>,
    sweep: Sweep,
    backups: Backups,
    /// The thread that makes the search index.
    indexing: Option<Indexing>,
    /// Dropped last.
    folder: Folder,
}

#[derive(Debug)]
struct Failed {
    reason: String,
    retry_at: Instant,
}

/// What writer, applier and readers share: the open database, which is away while it is opened anew.
struct Shared {
    tables: RwLock<Option<Tables>>,
    reason: Mutex<String>,
    search: Option<Arc<Search>>,
    backlog: Arc<Backlog>,
    #[cfg(test)]
    rewriting: std::sync::atomic::AtomicBool,
    /// Makes the applier fail as if the database had.
    #[cfg(test)]
    apply_fails: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn read(&self, read: &Read) -> Outcome {
        self.backlog.wait().map_err(StoreFault::Unavailable)?;
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tables) = &*tables else {
            return Err(StoreFault::Unavailable(self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()));
        };
        if let (Read::Search { .. }, Some(search)) = (read, &self.search) {
            match catch_unwind(AssertUnwindSafe(|| tables.view().read(read, Some(search)))) {
                Ok(Err(Trouble::Index(fault))) => search.damaged(fault.to_string()),
                Err(_) => search.damaged("a search met something unreadable".to_owned()),
                Ok(answer) => return answer.map_err(unavailable),
            }
        }
        guarded(|| tables.view().read(read, None))
    }
}

#[cfg(test)]
impl Shared {
    /// Waits until the tables hold everything that was acknowledged, and lets a test at them.
    fn with_tables<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        self.backlog.wait().unwrap();
        look(self.tables.read().unwrap().as_ref().unwrap())
    }

    fn rewrites(&self) -> bool {
        self.rewriting.load(Ordering::Relaxed)
    }
}

impl ReadSide for Shared {
    fn read(&self, read: &Read) -> Outcome {
        Shared::read(self, read)
    }
}

impl EmbeddedBackend {
    /// Opens the store, which may be empty, and recovers what was acknowledged before the last end, however that came.
    ///
    /// # Errors
    /// When the folder cannot be used, another process has it, a newer version wrote it, its files are damaged, or its keys are
    /// not at hand.
    pub fn open(settings: EmbeddedSettings) -> Result<EmbeddedBackend, StoreOpenFault> {
        let keyring = Arc::new(Keyring::of(&settings)?);
        let folder = Folder::open(&settings.path)?;
        let first_uses_since = Arc::new(AtomicU64::new(0));
        let acknowledged = folder.acknowledged()?;
        let Opened { tables, log, number } =
            open_store(&folder, &settings, &keyring, &first_uses_since, acknowledged.commit(), None)?;
        let how = search::settings(&settings, &folder.search());
        let search = how.as_ref().map(|_| Arc::new(Search::default()));
        let backlog = Arc::new(Backlog::default());
        backlog.begin(number);
        let loaded = seed(&tables).and_then(|seed| {
            know_users(&tables)?;
            let notes = match &search {
                Some(search) => Some(Notes::open(&tables, number, search.clone())?),
                None => search::clear_notes(&tables).map(|()| None)?,
            };
            Ok((Ledger::load(&tables, &backlog, seed)?, notes))
        });
        let (ledger, notes) = match loaded {
            Ok(loaded) => loaded,
            Err(trouble) => {
                drop(tables);
                return Err(blame(&folder.database(), StoreOpenFault::trouble(&folder.database(), &trouble)));
            }
        };
        let tables = RwLock::new(Some(tables));
        let shared = Arc::new(Shared {
            tables,
            reason: Mutex::new(String::new()),
            search: search.clone(),
            backlog,
            #[cfg(test)]
            rewriting: Default::default(),
            #[cfg(test)]
            apply_fails: Default::default(),
        });
        let indexing = search.zip(how).map(|(search, how)| {
            let settings = IndexSettings { folder: folder.search(), store: ledger.seed, how };
            Indexing::start(search, shared.clone(), settings)
        });
        let applier = Applier::start(&shared, notes, settings.write_buffer_bytes);
        let applier = applier.map_err(|source| StoreOpenFault::Unusable { path: settings.path.clone(), source })?;
        Ok(EmbeddedBackend {
            backups: Backups::new(shared.clone(), settings.path.clone()),
            settings,
            keyring,
            shared,
            ledger,
            first_uses_since,
            log,
            applier: Some(applier),
            number,
            acknowledged,
            failed: None,
            room: Room::new(folder.path()),
            first_uses_before: None,
            sweep: Sweep::default(),
            indexing,
            folder,
        })
    }

    /// Copies it to another folder while it is used; for any thread.
    pub fn backups(&self) -> Backups {
        self.backups.clone()
    }

    /// Tells how far the search index is behind, from any thread; None without one.
    pub fn search_lag(&self) -> Option<impl Fn() -> SearchLag + Send + Sync + use<>> {
        let search = self.shared.search.clone()?;
        Some(move || search.lag())
    }

    /// Writes what the ledger holds as one commit.
    fn flush(&mut self) -> Result<(), String> {
        let backlog = &self.shared.backlog;
        backlog.wait_for_room()?;
        let changes = self.ledger.changes();
        let list = (self.shared.search.is_some() && !changes.is_empty()).then(|| {
            search::join_changes(changes);
            search::encode_changes(changes)
        });
        if list.is_none() {
            changes.clear();
        }
        let sync = self.settings.durability == Durability::Commit;
        let written = self.log.write(self.ledger.records(), list.as_deref(), backlog.checkpoint(), sync);
        self.number = written.map_err(|error| format!("the commit log takes nothing: {error}"))?;
        let unsynced = (!sync).then(|| self.log.file());
        backlog.add(self.ledger.pour(self.number), unsynced);
        Ok(())
    }

    /// Removes what `sweep` finds, as one commit.
    fn forget(
        &mut self,
        sweep: impl FnOnce(&mut Sweep, &mut Ledger, &Tables) -> Result<usize, Trouble>,
    ) -> Result<usize, StoreFault> {
        self.recover()?;
        let swept = {
            let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            let tables = tables.as_ref().expect("a store that has not failed is open");
            sweep(&mut self.sweep, &mut self.ledger, tables)
        };
        // What was found before a trouble goes all the same.
        if !self.ledger.is_empty() {
            self.flush().map_err(|reason| self.fail(reason))?;
        }
        swept.map_err(unavailable)
    }

    fn fail(&mut self, reason: String) -> StoreFault {
        tracing::error!(%reason, "the store has failed: nothing is accepted until its disk works again");
        self.failed = Some(Failed { reason: reason.clone(), retry_at: Instant::now() + RETRY_EVERY });
        StoreFault::Unavailable(reason)
    }

    /// Opens the database anew after a failure, when it is time to. What was written by the commit that failed is not believed.
    fn recover(&mut self) -> Result<(), StoreFault> {
        let Some(failed) = &self.failed else { return Ok(()) };
        if Instant::now() < failed.retry_at {
            return Err(StoreFault::Unavailable(failed.reason.clone()));
        }
        match self.reopen() {
            Ok(()) => {
                tracing::info!(commit = self.number, "the store works again");
                self.failed = None;
                Ok(())
            }
            Err(reason) => {
                *self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
                self.failed = Some(Failed { reason: reason.clone(), retry_at: Instant::now() + RETRY_EVERY });
                Err(StoreFault::Unavailable(reason))
            }
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        // As long as the disk takes nothing, what is open can still be read.
        self.folder.probe().map_err(|error| format!("the disk takes nothing: {error}"))?;
        // Whoever was told of a commit, in the one way of durability or the other, is to find it.
        let acknowledged = self.number;
        self.applier = None;
        // Nobody else is to write in its folder from here on.
        self.log.settle();
        let mut open = self.shared.tables.write().unwrap_or_else(PoisonError::into_inner);
        drop(open.take());
        let kept = Some(acknowledged);
        let opened = open_store(&self.folder, &self.settings, &self.keyring, &self.first_uses_since, acknowledged, kept);
        let Opened { tables, log, number } = opened.map_err(|fault| fault.to_string())?;
        let (backlog, seed) = (&self.shared.backlog, self.ledger.seed);
        backlog.begin(number);
        self.ledger = Ledger::load(&tables, backlog, seed).map_err(|trouble| trouble.to_string())?;
        let notes = self.shared.search.as_ref().map(|search| Notes::open(&tables, number, search.clone()));
        let notes = notes.transpose().map_err(|trouble| trouble.to_string())?;
        (self.log, self.number) = (log, number);
        *open = Some(tables);
        drop(open);
        let applier = Applier::start(&self.shared, notes, self.settings.write_buffer_bytes);
        self.applier = Some(applier.map_err(|error| error.to_string())?);
        Ok(())
    }
}

/// A store whose tables hold everything, on disk.
struct Opened {
    tables: Tables,
    log: CommitLog,
    /// The last commit.
    number: u64,
}

/// Opens the database and brings to it what the commit log has, up to `kept_max` if something failed after that.
fn open_store(
    folder: &Folder,
    settings: &EmbeddedSettings,
    keyring: &Arc<Keyring>,
    first_uses_since: &Arc<AtomicU64>,
    acknowledged: u64,
    kept_max: Option<u64>,
) -> Result<Opened, StoreOpenFault> {
    let log_fault = |fault| StoreOpenFault::CommitLog { fault };
    let found = commit_log::find(&folder.log(), acknowledged, kept_max).map_err(log_fault)?;
    let keep = match found.exists() {
        true => Keep::UpTo { synced: found.checkpoint, end: found.end },
        false => Keep::All { synced: found.checkpoint },
    };
    let (tables, mark) = open_tables(folder, settings, keyring, first_uses_since, keep)?;
    folder.sync()?;
    if mark.number < found.checkpoint {
        let fault = journal::ends_early(&folder.database(), mark.number, found.checkpoint);
        return Err(StoreOpenFault::Journal { fault });
    }
    if found.exists() && mark.number > found.end {
        // It never has what the log does not.
        let fault = JournalFault::AheadOfLog { last: mark.number, end: found.end };
        return Err(StoreOpenFault::Journal { fault });
    }
    let number = catch_up(&tables, &found, mark, settings).map_err(|fault| match fault {
        Replaying::Log(fault) => log_fault(fault),
        Replaying::Tables(trouble) => StoreOpenFault::trouble(&folder.database(), &trouble),
    })?;
    let begun = CommitLog::begin(&folder.log(), &found, number);
    let log = begun.map_err(|source| StoreOpenFault::Unusable { path: folder.log(), source })?;
    Ok(Opened { tables, log, number })
}

/// Brings to the tables what the log has and they may lack, and has them put it on disk; returns the last commit.
fn catch_up(tables: &Tables, found: &Found, mark: Mark, settings: &EmbeddedSettings) -> Result<u64, Replaying> {
    let replay = || applier::replay(tables, found, mark, settings.write_buffer_bytes);
    let number = catch_unwind(AssertUnwindSafe(replay)).unwrap_or_else(|_| {
        let reason = std::io::Error::other("the database could not read what it holds: a file is damaged");
        Err(Trouble::Engine(reason.into()).into())
    })?;
    if found.has_commits() {
        tables.database().persist(PersistMode::SyncAll).map_err(Trouble::from)?;
    }
    Ok(number)
}

/// Opens the database, without what `keep` leaves out, and makes sure that what it has read is on disk.
fn open_tables(
    folder: &Folder,
    settings: &EmbeddedSettings,
    keyring: &Arc<Keyring>,
    first_uses_since: &Arc<AtomicU64>,
    keep: Keep,
) -> Result<(Tables, Mark), StoreOpenFault> {
    let path = folder.database();
    files::check_lists(&path).map_err(|fault| StoreOpenFault::File { fault })?;
    let cut = journal::mend(&path, keep).map_err(|fault| StoreOpenFault::Journal { fault })?;
    if cut > 0 {
        tracing::info!(bytes = cut, "cut an unfinished batch from the journal; the commit log has what was acknowledged");
    }
    let EmbeddedSettings { cache_bytes, write_buffer_bytes, .. } = *settings;
    let tuning = Tuning { cache_bytes, write_buffer_bytes, keyring: keyring.clone() };
    let open = || -> Result<(Tables, Mark), Trouble> {
        let tables = Tables::open(&path, &tuning, first_uses_since)?;
        tables.database().persist(PersistMode::SyncAll)?;
        let mark = match tables.get(Space::Meta, MARK)? {
            Some(bytes) => Mark::decode(&bytes).ok_or(codec::Damaged).map_err(Trouble::at(Space::Meta, "commit"))?,
            None => Mark::default(),
        };
        Ok((tables, mark))
    };
    let fault = match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => {
            keyring.admit(&opened.0, &settings.path)?;
            return Ok(opened);
        }
        Ok(Err(trouble)) => StoreOpenFault::trouble(&path, &trouble),
        Err(_) => StoreOpenFault::Database { path: path.clone(), reason: "its files are damaged".to_owned() },
    };
    Err(blame(&path, fault))
}

/// Says which file is to blame for a fault, where one can be found.
fn blame(database: &Path, fault: StoreOpenFault) -> StoreOpenFault {
    files::find_damaged(database).map_or(fault, |fault| StoreOpenFault::File { fault })
}

/// Of the hashes that name first uses: chosen once, kept with the data.
fn seed(tables: &Tables) -> Result<u64, Trouble> {
    if let Some(bytes) = tables.get(Space::Meta, SEED)? {
        let [seed] = codec::decode_numbers(SEED, &bytes).map_err(Trouble::at(Space::Meta, "seed"))?;
        return Ok(seed);
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| fjall::Error::Io(std::io::Error::other(error)))?;
    let seed = u64::from_le_bytes(bytes);
    tables.keyspace(Space::Meta).insert(SEED, codec::encode_numbers([seed], SEED))?;
    tables.database().persist(PersistMode::SyncAll)?;
    Ok(seed)
}

/// Lists the users of a folder that was made before they were listed; once.
fn know_users(tables: &Tables) -> Result<(), Trouble> {
    if tables.get(Space::Meta, USERS)?.is_some() {
        return Ok(());
    }
    let listed = tables.keyspace(Space::Users);
    let ids = [
        (Space::Rows, Slice::from(b""), false),
        (Space::Devices, keys::tag(b'd'), true),
        (Space::LastSeen, keys::tag(b'l'), true),
    ];
    for (space, prefix, tagged) in ids {
        let mut last = None;
        for guard in tables.prefix(space, prefix) {
            let key = guard.key()?;
            let Some(user) = keys::first_id(&key, tagged).and_then(|id| UserId::new(id).ok()) else { continue };
            if last.as_ref() != Some(&user) {
                listed.insert(keys::user(&user), b"")?;
                last = Some(user);
            }
        }
    }
    tables.keyspace(Space::Meta).insert(USERS, codec::encode_numbers([1], USERS))?;
    tables.database().persist(PersistMode::SyncAll)?;
    Ok(())
}

/// The database may meet a damaged table with a panic; that is to end one answer, not the thread.
fn guarded(answer: impl FnOnce() -> Result<Answer, Trouble>) -> Outcome {
    match catch_unwind(AssertUnwindSafe(answer)) {
        Ok(answer) => answer.map_err(unavailable),
        Err(_) => Err(damaged("the database could not read what it holds: a file is damaged".to_owned())),
    }
}

fn unavailable(trouble: Trouble) -> StoreFault {
    let reason = trouble.to_string();
    if trouble.is_damage() {
        return damaged(reason);
    }
    tracing::error!(%reason, "the store cannot answer");
    StoreFault::Unavailable(reason)
}

fn damaged(reason: String) -> StoreFault {
    tracing::error!(%reason, "the store cannot answer: stop the server and run `corehub store check --repair`");
    StoreFault::Damaged(reason)
}

impl Backend for EmbeddedBackend {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        if let Err(fault) = self.recover() {
            outcomes.extend(writes.drain(..).map(|_| Err(fault.clone())));
            return;
        }
        if let Some(reason) = self.room.refusal() {
            let fault = StoreFault::Unavailable(reason.to_owned());
            outcomes.extend(writes.drain(..).map(|_| Err(fault.clone())));
            return;
        }
        let begun = outcomes.len();
        {
            let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            let tables = tables.as_ref().expect("a store that has not failed is open");
            for mut write in writes.drain(..) {
                if let (Write::Append(append), Some(before)) = (&mut write, self.first_uses_before) {
                    // A wall clock that has leapt ahead makes no repeat a new message.
                    append.dedupe_since = append.dedupe_since.min(before);
                }
                let outcome = guarded(|| self.ledger.draft(tables).write(write));
                if outcome.is_err() {
                    self.ledger.take_back();
                }
                outcomes.push(outcome);
            }
        }
        if self.ledger.is_empty() {
            return;
        }
        if let Err(reason) = self.flush() {
            let fault = self.fail(reason);
            outcomes[begun..].iter_mut().for_each(|outcome| *outcome = Err(fault.clone()));
        }
    }

    fn read(&mut self, read: &Read) -> Outcome {
        self.shared.read(read)
    }

    fn read_side(&self) -> Option<Arc<dyn ReadSide>> {
        Some(self.shared.clone())
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        let pruned = self.forget(|sweep, ledger, tables| sweep.messages(ledger, tables, before, messages_max))?;
        // Not before: retention may be prolonged again while much of what it would have removed is still there.
        if let (Some(search), Some(gone_before)) = (&self.shared.search, self.sweep.gone_before()) {
            search.set_pruned_before(gone_before);
        }
        Ok(pruned)
    }

    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        self.first_uses_before = Some(first_uses_before);
        self.first_uses_since.store(first_uses_before.0, Ordering::Relaxed);
        self.forget(|sweep, ledger, tables| {
            let expired = sweep.first_uses(ledger, tables, first_uses_before, entries_max)?;
            Ok(expired + sweep.hidden(ledger, tables, entries_max)?)
        })
    }

    fn is_paced(&self) -> bool {
        self.settings.durability == Durability::Commit
    }

    fn tend(&mut self) {
        if self.recover().is_err() {
            return;
        }
        if let Some(reason) = self.shared.backlog.failed() {
            self.fail(reason);
            return;
        }
        // With the next commit it comes to disk, or with the next start it is found out again.
        let noted = self.log.note(self.shared.backlog.checkpoint());
        let synced = if self.log.synced() < self.number { self.log.sync() } else { Ok(()) };
        self.log.tend();
        if let Err(error) = noted.and(synced) {
            self.fail(format!("the commit log takes nothing: {error}"));
            return;
        }
        self.acknowledged.raise(self.log.synced());
    }
}

impl Drop for EmbeddedBackend {
    /// Leaves all of it in the tables, and a note of that in the log: the next start has nothing to read there, and damage to
    /// the last commit cannot be taken for something unfinished.
    fn drop(&mut self) {
        self.indexing = None;
        self.applier = None;
        if self.failed.is_none() {
            match self.log.note(self.shared.backlog.checkpoint()).and_then(|()| self.log.sync()) {
                Ok(()) => self.acknowledged.raise(self.log.synced()),
                Err(error) => tracing::error!(%error, "the store could not write its last note"),
            }
        }
        self.backups.stop();
        // Readers may live on; the folder is to be free.
        "the store has ended".clone_into(&mut self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner));
        drop(self.shared.tables.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

const SEED: &[u8] = b"m\x01seed";
/// Present when all users are listed.
const USERS: &[u8] = b"m\x01users";
const CACHE_BYTES: u64 = 32 << 20;
const WRITE_BUFFER_BYTES: u64 = 32 << 20;
/// How often a failed database is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(500);
