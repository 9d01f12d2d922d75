//! Owns files that are on their way out. A file system that gives back tens of megabytes at once makes every synced write wait
//! for that (40 ms for 32 MiB where it also tells the disk, mount option `discard`), so what the database removes keeps a second
//! name here and is shortened piece by piece. Never touches a file that still has its first name: somebody may read it. Lives
//! on the freeing thread.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Second names, in a folder of their own. Where there are no second names, files end as the database removes them.
pub struct Removal {
    database: PathBuf,
    folder: PathBuf,
    waiting: VecDeque<PathBuf>,
    shortening: Option<(File, u64, PathBuf)>,
    journals: HashSet<OsString>,
}

impl Removal {
    /// Of the database in `database`, beside it. What an earlier end left there goes at once.
    pub fn new(database: &Path) -> Removal {
        let mut folder = database.as_os_str().to_owned();
        folder.push(".removing");
        let folder = PathBuf::from(folder);
        clear(&folder);
        Removal { database: database.to_owned(), folder, waiting: VecDeque::new(), shortening: None, journals: HashSet::new() }
    }

    /// Gives a second name to a file that the database is about to remove; a file that has one gets no third.
    pub fn keep(&mut self, path: &Path) {
        let Ok(found) = path.metadata() else { return };
        // Nobody else has this number as long as the name is there.
        let name = self.folder.join(found.ino().to_string());
        let linked = match std::fs::hard_link(path, &name) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                // Made for the first one, and left: to make and remove folders again and again is work for nothing.
                let _ = std::fs::create_dir(&self.folder);
                std::fs::hard_link(path, &name)
            }
            linked => linked,
        };
        if linked.is_ok() {
            self.waiting.push_back(name);
        }
    }

    /// Gives one to every journal that has none yet: the database removes them without a word.
    pub fn keep_journals(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.database) else { return };
        let mut seen = HashSet::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "jnl") {
                if !self.journals.contains(&name) {
                    self.keep(&entry.path());
                }
                seen.insert(name);
            }
        }
        self.journals = seen;
    }

    /// Makes one file a piece shorter. False when there is none whose first name is gone.
    pub fn step(&mut self) -> bool {
        if self.shortening.is_none() {
            self.shortening = self.next();
        }
        let Some((file, length, _)) = &mut self.shortening else { return false };
        *length = length.saturating_sub(PIECE_BYTES);
        if *length == 0 || file.set_len(*length).is_err() {
            let ended = self.shortening.take();
            ended.into_iter().for_each(|(_, _, path)| drop(std::fs::remove_file(path)));
        }
        true
    }

    fn next(&mut self) -> Option<(File, u64, PathBuf)> {
        let at = self.waiting.iter().position(|path| path.metadata().is_ok_and(|found| found.nlink() == 1))?;
        let path = self.waiting.remove(at)?;
        let opened = OpenOptions::new().write(true).open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        opened.map(|(file, length)| (file, length, path)).ok()
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

/// Takes all second names; files without another one go with them.
fn clear(folder: &Path) {
    let Ok(names) = std::fs::read_dir(folder) else { return };
    names.flatten().for_each(|name| drop(std::fs::remove_file(name.path())));
}

/// What a file loses at once: about a millisecond of the disk's time.
const PIECE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shortened_once_its_first_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        std::fs::create_dir(&database).unwrap();
        let (read, gone) = (database.join("1"), database.join("2"));
        std::fs::write(&read, vec![7; 3 << 20]).unwrap();
        std::fs::write(&gone, vec![7; 3 << 20]).unwrap();
        let mut removal = Removal::new(&database);
        removal.keep(&read);
        removal.keep(&gone);
        removal.keep(&gone);
        assert!(!removal.step());
        std::fs::remove_file(&gone).unwrap();
        let names = database.with_extension("removing");
        let lengths = || {
            let mut lengths: Vec<u64> =
                names.read_dir().unwrap().map(|entry| entry.unwrap().metadata().unwrap().len() >> 20).collect();
            lengths.sort_unstable();
            lengths
        };
        let mut seen = Vec::new();
        while removal.step() {
            seen.push(lengths());
        }
        assert_eq!(seen, [vec![2, 3], vec![1, 3], vec![3]]);
        assert_eq!(std::fs::read(&read).unwrap(), vec![7; 3 << 20]);
        drop(removal);
        assert!(lengths().is_empty() && read.exists());
    }

    #[test]
    fn journals_get_one_second_name_each() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        std::fs::create_dir(&database).unwrap();
        // Left by an earlier end.
        std::fs::create_dir(database.with_extension("removing")).unwrap();
        std::fs::write(database.with_extension("removing").join("1"), "old").unwrap();
        let mut removal = Removal::new(&database);
        for name in ["0.jnl", "1.jnl", "version"] {
            std::fs::write(database.join(name), name).unwrap();
        }
        removal.keep_journals();
        removal.keep_journals();
        assert_eq!(removal.waiting.len(), 2);
        std::fs::remove_file(database.join("0.jnl")).unwrap();
        removal.keep_journals();
        assert!(removal.step() && !removal.step());
        assert_eq!(removal.waiting.len(), 1);
        assert_eq!(std::fs::read_dir(database.with_extension("removing")).unwrap().count(), 1);
    }
}
