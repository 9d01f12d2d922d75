//! Owns copying a store to another folder, while a server uses it or not: all of it as it was at one moment, at a bounded pace.
//!
//! Never holds anything that a commit waits for: it reads a piece of a view at a time and lets the database be opened anew or
//! closed between two of them, which ends the backup. A copy that is not whole bears a mark, nobody opens it, and it is removed.
//! Lives on a thread of its own (`store-backup`) with less of the processor than others.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fjall::{PersistMode, Slice, Snapshot};

use super::journal::{MARK, Mark};
use super::keyring::Keyring;
use super::open::Folder;
use super::tables::{Look, Space, Tables, Trouble, View};
use super::tools::Workbench;
use super::{EmbeddedSettings, Shared, StoreOpenFault, codec, open};
use crate::scheduling::be_nice;
use crate::types::Millis;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    #[error("a backup to {} is under way: wait for its end", to.display())]
    Busy { to: PathBuf },
    #[error("{} is no absolute path: name the folder from the root on", to.display())]
    Relative { to: PathBuf },
    #[error("{} lies in the data folder itself: name a folder elsewhere", to.display())]
    Inside { to: PathBuf },
    #[error("{} has {free} bytes free, of which a backup needs about {needed}: make room, or name another folder", to.display())]
    NoRoom { to: PathBuf, free: u64, needed: u64 },
    #[error("the disk of {} is full: make room, or name another folder", to.display())]
    Full { to: PathBuf },
    #[error(transparent)]
    Target(#[from] StoreOpenFault),
    #[error("cannot read what is to be copied: {0}")]
    Source(Trouble),
    #[error("cannot write the backup: {0}")]
    Write(Trouble),
    #[error("cannot write the backup: {0}")]
    Io(#[from] std::io::Error),
    #[error("the store was closed or opened anew meanwhile: begin again")]
    Closed,
}

/// What has been copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    /// The last commit that is in the copy.
    pub commit: u64,
}

/// A backup that was asked for.
#[derive(Clone, Debug)]
pub struct BackupReport {
    pub to: PathBuf,
    pub begun_at: Millis,
    /// None: it is under way. Else why it failed, if it did.
    pub ended: Option<(Millis, Result<(), String>)>,
    pub copied: Copied,
}

/// Makes backups of an open store, one at a time.
#[derive(Clone)]
pub struct Backups {
    shared: Arc<Shared>,
    folder: PathBuf,
    pub(super) desk: Arc<Desk>,
}

/// What is known of the one place for a backup.
#[derive(Default)]
pub(super) struct Desk {
    backup: Mutex<Latest>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: AtomicBool,
}

#[derive(Default)]
pub(super) struct Latest {
    /// Where one is to go of which it is not known yet whether that can be.
    pub asked: Option<PathBuf>,
    /// Of the last one that was begun.
    report: Option<BackupReport>,
}

impl Backups {
    pub(super) fn new(shared: Arc<Shared>, folder: PathBuf) -> Backups {
        Backups { shared, folder, desk: Arc::default() }
    }

    /// Begins one, which holds all that was acknowledged before this call; [`report`](Backups::report) tells of its end.
    /// `bytes_per_second` bounds what is read, and about what is written. Waits until its thread has made the folder, which takes
    /// as long as the disk does: not for a thread that others wait for.
    ///
    /// # Errors
    /// When another one is under way, `to` cannot take it, or the store is closed.
    pub fn begin(&self, to: PathBuf, bytes_per_second: u64) -> Result<(), BackupFault> {
        self.desk.ask(&to)?;
        let (told, hears) = mpsc::sync_channel(1);
        let (this, desk) = (self.clone(), self.desk.clone());
        let run = move || {
            be_nice(NICENESS);
            let begun = this.prepare(&to);
            desk.answer(begun.is_ok().then_some(to));
            // Whoever asked may have gone.
            let (source, target) = match begun {
                Ok(begun) => {
                    let _ = told.send(Ok(()));
                    begun
                }
                Err(fault) => return drop(told.send(Err(fault))),
            };
            let result = target.fill(&source, bytes_per_second, &desk.stop, &|copied| desk.note(|report| report.copied = copied));
            desk.end(result.map(drop));
        };
        {
            // Who ends it finds the thread, or there is none.
            let mut slot = self.desk.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if self.desk.stop.load(Ordering::Relaxed) {
                self.desk.answer(None);
                return Err(BackupFault::Closed);
            }
            match std::thread::Builder::new().name("store-backup".to_owned()).spawn(run) {
                Ok(thread) => *slot = Some(thread),
                Err(error) => {
                    self.desk.answer(None);
                    return Err(error.into());
                }
            }
        }
        hears.recv().unwrap_or_else(|_| {
            // It has panicked.
            self.desk.answer(None);
            Err(BackupFault::Closed)
        })
    }

    /// All that has to wait for a disk or for the store before a backup can be promised.
    fn prepare(&self, to: &Path) -> Result<(Online, Target), BackupFault> {
        outside(&self.folder, to)?;
        // What was acknowledged before is to be in it.
        self.shared.backlog.wait().map_err(|_| BackupFault::Closed)?;
        let (snapshot, opening, needed) = {
            let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
            let tables = tables.as_ref().filter(|_| !self.desk.stop.load(Ordering::Relaxed)).ok_or(BackupFault::Closed)?;
            (tables.database().snapshot(), tables.opening(), tables.database().disk_space().unwrap_or(0))
        };
        Ok((Online { shared: self.shared.clone(), snapshot, opening }, Target::make(to, needed)?))
    }

    /// The last one that was begun.
    pub fn report(&self) -> Option<BackupReport> {
        self.desk.latest().report.clone()
    }

    /// Ends one that is under way and waits until its folder is gone; none begins any more.
    pub(super) fn stop(&self) {
        self.desk.stop.store(true, Ordering::Relaxed);
        let thread = self.desk.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a backup panicked; its folder is of no use");
        }
    }
}

impl Desk {
    pub(super) fn latest(&self) -> MutexGuard<'_, Latest> {
        self.backup.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the only place there is.
    fn ask(&self, to: &Path) -> Result<(), BackupFault> {
        let mut latest = self.latest();
        let running = latest.report.as_ref().filter(|report| report.ended.is_none()).map(|report| &report.to);
        if let Some(to) = latest.asked.as_ref().or(running) {
            return Err(BackupFault::Busy { to: to.clone() });
        }
        latest.asked = Some(to.to_owned());
        Ok(())
    }

    /// What was asked for has begun, or cannot be.
    fn answer(&self, begun: Option<PathBuf>) {
        let mut latest = self.latest();
        latest.asked = None;
        if let Some(to) = begun {
            latest.report = Some(BackupReport { to, begun_at: wall(), ended: None, copied: Copied::default() });
        }
    }

    fn note(&self, change: impl FnOnce(&mut BackupReport)) {
        self.latest().report.as_mut().map(change);
    }

    fn end(&self, result: Result<(), BackupFault>) {
        self.note(|report| {
            let Copied { records, bytes, commit } = report.copied;
            let to = report.to.display();
            match &result {
                Ok(()) => tracing::info!(%to, records, bytes, commit, "a backup is whole"),
                Err(fault) => tracing::error!(%to, %fault, "a backup failed; what it had written is removed"),
            }
            report.ended = Some((wall(), result.map_err(|fault| fault.to_string())));
        });
    }
}

/// Where a copy is taken from: one view, a piece at a time.
trait Source {
    fn look<T>(&self, look: impl FnOnce(&View<'_>) -> Result<T, Trouble>) -> Result<T, BackupFault>;
}

/// A store that is in use.
struct Online {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    /// Which opening of the database the view is of.
    opening: u64,
}

impl Source for Online {
    fn look<T>(&self, look: impl FnOnce(&View<'_>) -> Result<T, Trouble>) -> Result<T, BackupFault> {
        let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().filter(|tables| tables.opening() == self.opening).ok_or(BackupFault::Closed)?;
        super::tools::guarded(|| look(&tables.view_at(self.snapshot.clone()))).map_err(BackupFault::Source)
    }
}

/// A store that nobody else uses.
struct Offline<'a>(&'a Tables);

impl Source for Offline<'_> {
    fn look<T>(&self, look: impl FnOnce(&View<'_>) -> Result<T, Trouble>) -> Result<T, BackupFault> {
        super::tools::guarded(|| look(&self.0.view())).map_err(BackupFault::Source)
    }
}

impl Workbench {
    /// Copies everything to a folder that is empty or not there yet.
    ///
    /// # Errors
    /// When `to` cannot take it, or something cannot be read.
    pub fn backup(&self, to: &Path, bytes_per_second: u64) -> Result<Copied, BackupFault> {
        let to = std::path::absolute(to)?;
        outside(&self.path, &to)?;
        let needed = self.tables.database().disk_space().unwrap_or(0);
        Target::make(&to, needed)?.fill(&Offline(&self.tables), bytes_per_second, &AtomicBool::new(false), &|_| ())
    }
}

/// A folder that is being filled.
struct Target {
    folder: Folder,
    to: PathBuf,
}

impl Target {
    fn make(to: &Path, needed: u64) -> Result<Target, BackupFault> {
        let folder = Folder::create(to)?;
        let target = Target { folder, to: to.to_owned() };
        let free = rustix::fs::statvfs(to).map(|room| room.f_bavail.saturating_mul(room.f_frsize));
        match free {
            Ok(free) if free < needed => {
                target.discard();
                Err(BackupFault::NoRoom { to: to.to_owned(), free, needed })
            }
            _ => Ok(target),
        }
    }

    fn fill(
        self,
        source: &impl Source,
        bytes_per_second: u64,
        stop: &AtomicBool,
        tell: &dyn Fn(Copied),
    ) -> Result<Copied, BackupFault> {
        let Target { folder, to } = self;
        let copy = || -> Result<Copied, BackupFault> {
            let settings = EmbeddedSettings {
                cache_bytes: CACHE_BYTES,
                write_buffer_bytes: WRITE_BUFFER_BYTES,
                ..EmbeddedSettings::new(&to)
            };
            // Bodies stay sealed as they are, so no key is needed.
            let bench = Workbench::take(folder, &settings, &Arc::new(Keyring::default()))?;
            let mut copy = Copy { bench: &bench, copied: Copied::default(), begun: Instant::now(), unsynced: 0 };
            copy.copied.commit = source.look(mark)?.number;
            for space in Space::TABLES {
                let mut from = Slice::from(b"");
                loop {
                    let piece = source.look(|view| piece(view, space, from.clone()))?;
                    let Some((last, _)) = piece.last() else { break };
                    from = Slice::from([last.as_ref(), &[0]].concat());
                    copy.write(space, piece)?;
                    tell(copy.copied);
                    copy.rest(bytes_per_second, stop)?;
                }
            }
            let copied = copy.copied;
            bench.finish()?;
            Ok(copied)
        };
        copy().map_err(|fault| {
            let full = match &fault {
                BackupFault::Write(trouble) => trouble.is_full() || open::has_no_room(&to),
                BackupFault::Io(error) => open::is_full(error.kind()) || open::has_no_room(&to),
                BackupFault::Target(_) => open::has_no_room(&to),
                _ => false,
            };
            discard(&to);
            if full { BackupFault::Full { to } } else { fault }
        })
    }

    fn discard(self) {
        discard(&self.to);
    }
}

struct Copy<'a> {
    bench: &'a Workbench,
    copied: Copied,
    begun: Instant,
    unsynced: u64,
}

impl Copy<'_> {
    fn write(&mut self, space: Space, piece: Vec<(Slice, Slice)>) -> Result<(), BackupFault> {
        let mut batch = self.bench.batch();
        let keyspace = self.bench.tables.keyspace(space);
        for (key, value) in piece {
            let bytes = (key.len() + value.len()) as u64;
            self.copied.records += 1;
            self.copied.bytes += bytes;
            self.unsynced += bytes;
            batch.insert(keyspace, key, value);
        }
        self.bench.commit(batch).map_err(BackupFault::Write)?;
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            // A commit of the server's must not find much of this in its way to the disk.
            let synced = self.bench.tables.database().persist(PersistMode::SyncData);
            synced.map_err(|error| BackupFault::Write(error.into()))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Until the pace allows the next piece.
    fn rest(&self, bytes_per_second: u64, stop: &AtomicBool) -> Result<(), BackupFault> {
        let due = Duration::from_secs_f64(self.copied.bytes as f64 / bytes_per_second.max(1) as f64);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(BackupFault::Closed);
            }
            let wait = due.saturating_sub(self.begun.elapsed());
            if wait.is_zero() {
                return Ok(());
            }
            std::thread::sleep(wait.min(LOOK_EVERY));
        }
    }
}

fn mark(view: &View<'_>) -> Result<Mark, Trouble> {
    match view.get(Space::Meta, MARK)? {
        Some(bytes) => Mark::decode(&bytes).ok_or(codec::Damaged).map_err(Trouble::at(Space::Meta, "commit")),
        None => Ok(Mark::default()),
    }
}

/// What follows in a table: so much that looking takes some milliseconds.
fn piece(view: &View<'_>, space: Space, from: Slice) -> Result<Vec<(Slice, Slice)>, Trouble> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for guard in view.range(space, from, None) {
        let (key, value) = guard.into_inner()?;
        bytes += key.len() + value.len();
        piece.push((key, value));
        if bytes >= PIECE_BYTES || piece.len() >= PIECE_RECORDS {
            break;
        }
    }
    Ok(piece)
}

fn outside(folder: &Path, to: &Path) -> Result<(), BackupFault> {
    if !to.is_absolute() {
        return Err(BackupFault::Relative { to: to.to_owned() });
    }
    let folder = std::fs::canonicalize(folder)?;
    // Of what is not there yet, the part that is.
    let there = to.ancestors().find_map(|part| std::fs::canonicalize(part).ok()).unwrap_or_default();
    if there.starts_with(&folder) || to.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(BackupFault::Inside { to: to.to_owned() });
    }
    Ok(())
}

/// It was empty or not there.
fn discard(to: &Path) {
    if let Err(error) = std::fs::remove_dir_all(to) {
        tracing::warn!(to = %to.display(), %error, "cannot remove what a failed backup has left: nobody can open it");
    }
}

fn wall() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

const PIECE_BYTES: usize = 256 << 10;
const PIECE_RECORDS: usize = 2_000;
const UNSYNCED_BYTES_MAX: u64 = 2 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const CACHE_BYTES: u64 = 1 << 20;
const WRITE_BUFFER_BYTES: u64 = 8 << 20;
const NICENESS: i32 = 10;
