//! Owns the data folder: making it, its lock, its format. Never opens a folder that another process uses or a newer version
//! wrote.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::acknowledged::Acknowledged;
use super::commit_log::CommitLogFault;
use super::files::FileFault;
use super::journal::JournalFault;
use super::keyring::KeyFileFault;
use super::tables::Trouble;

/// Why the store cannot be opened. Every message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenFault {
    #[error("there is no data folder at {}: name it with --data or store.path", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not empty: name an empty folder, or one that is not there yet", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{} was being filled by an import or a backup that did not finish: delete it and begin again", path.display())]
    Unfinished { path: PathBuf },
    #[error("{} is in use by {holder}: stop it first, or set another store.path", path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("no permission for the data folder {}: let this user own it (chown -R), or set store.path", path.display())]
    Permission { path: PathBuf },
    #[error(
        "the file system of {} is read-only: mount it writable (mount -o remount,rw; after disk errors run fsck first), \
         or set store.path",
        path.display()
    )]
    ReadOnly { path: PathBuf },
    #[error("cannot use {} for data: {source}; set store.path to a folder on a local disk", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error(
        "{} names data format {found}, this version knows formats up to {known}: start a newer version, or set store.path \
         to another folder",
        path.display()
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error(
        "{} is no format file of this program: it is damaged, then restore it from a backup, or store.path is of something else",
        path.display()
    )]
    Format { path: PathBuf },
    #[error(
        "messages in {} are sealed with {ids}: set store.encryption_key_file to the file that holds these keys",
        path.display()
    )]
    Sealed { path: PathBuf, ids: String },
    #[error(
        "messages in {} are sealed with {ids}, of which {} holds none: put these keys into it, or name the right file in \
         store.encryption_key_file",
        path.display(),
        file.display()
    )]
    NoneOfTheKeys { path: PathBuf, ids: String, file: PathBuf },
    #[error(
        "key {id} of {} is not the one that messages in {} are sealed with: put that one back, or give the new one another id",
        file.display(),
        path.display()
    )]
    WrongKey { path: PathBuf, id: String, file: PathBuf },
    #[error(transparent)]
    KeyFile(#[from] KeyFileFault),
    #[error(
        "{fault}; restore the data folder from a backup, have `corehub store check --repair` keep what can be read, or move it \
         away to start empty"
    )]
    Journal { fault: JournalFault },
    #[error(
        "{fault}; restore the data folder from a backup, have `corehub store check --repair` keep what can be read, or move it \
         away to start empty"
    )]
    CommitLog { fault: CommitLogFault },
    #[error("{fault}; restore the data folder from a backup, or move it away to start empty")]
    File { fault: FileFault },
    #[error("the database in {} cannot be opened: {reason}; restore a backup, or move it away to start empty", path.display())]
    Database { path: PathBuf, reason: String },
}

impl StoreOpenFault {
    /// What the system says about a data folder.
    fn of(path: &Path, source: io::Error) -> StoreOpenFault {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => StoreOpenFault::Permission { path },
            io::ErrorKind::ReadOnlyFilesystem => StoreOpenFault::ReadOnly { path },
            _ => StoreOpenFault::Unusable { path, source },
        }
    }

    pub(super) fn trouble(path: &Path, trouble: &Trouble) -> StoreOpenFault {
        StoreOpenFault::Database { path: path.to_owned(), reason: trouble.to_string() }
    }
}

/// True for what a disk without room says.
pub fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// True when a disk has next to no room: the database does not always say why it has failed.
pub fn has_no_room(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < ROOM_BYTES_MIN)
}

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Its lock goes with the descriptor, however the process ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder when it is missing, takes its lock, and checks its format.
    pub fn open(path: &Path) -> Result<Folder, StoreOpenFault> {
        Folder::take(path, false)
    }

    fn take(path: &Path, unfinished: bool) -> Result<Folder, StoreOpenFault> {
        let unusable = |source: io::Error| StoreOpenFault::of(path, source);
        make(path).map_err(unusable)?;
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
        let mut lock = lock.map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Whoever holds it may not have written its number yet.
                let _ = lock.read_to_string(&mut pid);
                let holder = match pid.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(StoreOpenFault::InUse { path: path.to_owned(), holder });
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        if path.join(UNFINISHED).exists() != unfinished {
            return Err(StoreOpenFault::Unfinished { path: path.to_owned() });
        }
        let folder = Folder { path: path.to_owned(), _lock: lock };
        folder.sign().map_err(unusable)?;
        folder.check_format(unusable)?;
        Ok(folder)
    }

    /// Takes a folder that is empty or not there yet. Until [`finish`](Folder::finish) nobody can open it.
    pub fn create(path: &Path) -> Result<Folder, StoreOpenFault> {
        let unusable = |source: io::Error| StoreOpenFault::of(path, source);
        make(path).map_err(unusable)?;
        if std::fs::read_dir(path).map_err(unusable)?.next().is_some() {
            return Err(StoreOpenFault::NotEmpty { path: path.to_owned() });
        }
        // It may have been made for everybody to read.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        let mark = File::create(path.join(UNFINISHED)).and_then(|file| file.sync_all());
        mark.and_then(|()| File::open(path)?.sync_all()).map_err(unusable)?;
        Folder::take(path, true)
    }

    /// What was put into the folder is whole and on disk.
    pub fn finish(self) -> io::Result<()> {
        std::fs::remove_file(self.path.join(UNFINISHED))?;
        File::open(&self.path)?.sync_all()
    }

    /// True when `path` is a data folder.
    pub fn exists(path: &Path) -> bool {
        path.join(FORMAT).exists()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database lies.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the commit log lies.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the search index lies.
    pub fn search(&self) -> PathBuf {
        self.path.join(SEARCH)
    }

    /// Makes sure that the names of what lies in the folder are on disk.
    pub fn sync(&self) -> Result<(), StoreOpenFault> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StoreOpenFault::of(&self.path, source))
    }

    /// Puts a database that was made beside the one in use into its place; returns where that lies now.
    pub fn exchange(&self, fresh: &Path) -> io::Result<PathBuf> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        File::open(fresh)?.sync_all()?;
        // At no moment there is none: a start would take that for an empty store.
        renameat_with(CWD, fresh, CWD, self.database(), RenameFlags::EXCHANGE)?;
        let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let aside = self.path.join(format!("{DATABASE}.damaged-{millis}"));
        std::fs::rename(fresh, &aside)?;
        File::open(&self.path)?.sync_all()?;
        Ok(aside)
    }

    /// How far acknowledgements have come.
    pub fn acknowledged(&self) -> Result<Acknowledged, StoreOpenFault> {
        let path = self.path.join(ACKNOWLEDGED);
        Acknowledged::open(&path).map_err(|source| StoreOpenFault::Unusable { path, source })
    }

    /// An error when the disk does not take what starting again needs.
    pub fn probe(&self) -> io::Result<()> {
        let path = self.path.join(PROBE);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&vec![1; PROBE_BYTES])?;
            file.sync_all()
        };
        let written = write();
        std::fs::remove_file(&path)?;
        written
    }

    fn sign(&self) -> io::Result<()> {
        let mut lock = &self._lock;
        lock.set_len(0)?;
        lock.seek(SeekFrom::Start(0))?;
        writeln!(lock, "{}", std::process::id())
    }

    /// Writes the format where nothing is yet, refuses what a newer version wrote, and brings up to date what an older one did:
    /// in format 1 no message is sealed, and up to 2 there is no commit log.
    fn check_format(&self, unusable: impl Fn(io::Error) -> StoreOpenFault) -> Result<(), StoreOpenFault> {
        let path = self.path.join(FORMAT);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.database().exists() => {
                return self.write_format().map_err(unusable);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Err(StoreOpenFault::Format { path });
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(unusable(error)),
            Err(source) => return Err(StoreOpenFault::Unusable { path, source }),
        };
        match text.trim_end().strip_prefix(FORMAT_TEXT).and_then(|number| number.parse::<u64>().ok()) {
            Some(FORMAT_NUMBER) => Ok(()),
            Some(1 | 2) => self.write_format().map_err(unusable),
            Some(found) if found > FORMAT_NUMBER => {
                Err(StoreOpenFault::Newer { path: self.path.clone(), found, known: FORMAT_NUMBER })
            }
            _ => Err(StoreOpenFault::Format { path }),
        }
    }

    fn write_format(&self) -> io::Result<()> {
        let fresh = self.path.join(FORMAT_FRESH);
        let mut file = File::create(&fresh)?;
        writeln!(file, "{FORMAT_TEXT}{FORMAT_NUMBER}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.path.join(FORMAT))?;
        File::open(&self.path)?.sync_all()
    }
}

/// Makes the folder with those above it that are missing, each on disk before what it holds: a folder whose name is lost in a
/// power cut takes everything with it.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent != path {
        make(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Who may not read the folder above may still make one in it; there is nobody who could do more.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

const ACKNOWLEDGED: &str = "corehub.acknowledged";
const LOCK: &str = "corehub.lock";
const FORMAT: &str = "corehub.format";
const FORMAT_FRESH: &str = "corehub.format.new";
const FORMAT_TEXT: &str = "corehub data format ";
const FORMAT_NUMBER: u64 = 3;
const UNFINISHED: &str = "corehub.unfinished";
const DATABASE: &str = "store";
const LOG: &str = "log";
const SEARCH: &str = "search";
const ROOM_BYTES_MIN: u64 = 1 << 20;
const PROBE: &str = "corehub.probe";
const PROBE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_folder_says_what_to_do() {
        for (errno, advice) in [
            (rustix::io::Errno::ACCESS, "chown"),
            (rustix::io::Errno::PERM, "chown"),
            (rustix::io::Errno::ROFS, "remount,rw"),
            (rustix::io::Errno::NOTDIR, "set store.path"),
            (rustix::io::Errno::NOSPC, "set store.path"),
        ] {
            let told = StoreOpenFault::of(Path::new("/srv/data"), errno.into()).to_string();
            assert!(told.contains("/srv/data") && told.contains(advice), "{told}");
        }
    }

    #[test]
    fn missing_folders_are_made_for_us_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("one").join("two").join("three");
        make(&path).expect("all are made");
        make(&path).expect("and found");
        for made in [path.as_path(), path.parent().expect("two")] {
            assert_eq!(made.metadata().expect("it is there").permissions().mode() & 0o777, 0o700);
        }
        assert!(make(Path::new("/proc/nowhere/at/all")).is_err());
    }
}
