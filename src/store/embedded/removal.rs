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
    /// Of files that had a first name when that was last looked at.
    named: Vec<PathBuf>,
    nameless: VecDeque<Nameless>,
    shortening: Option<(File, Nameless)>,
    journals: HashSet<OsString>,
}

/// A file whose first name is gone, and what is left of it.
struct Nameless {
    path: PathBuf,
    bytes: u64,
}

impl Removal {
    /// Of the database in `database`, beside it. What an earlier end left there is taken over.
    pub fn new(database: &Path) -> Removal {
        let folder = folder_of(database);
        let nameless = take_over(&folder);
        let database = database.to_owned();
        Removal { database, folder, named: Vec::new(), nameless, shortening: None, journals: HashSet::new() }
    }

    /// Gives a second name to a file that the database is about to remove; a file that has one gets no third.
    pub fn keep(&mut self, path: &Path) {
        let Ok(found) = path.metadata() else { return };
        // Nobody else has this number as long as the name is there, but in a folder that was copied: such a file ends as the
        // database removes it.
        let name = self.folder.join(found.ino().to_string());
        let linked = match std::fs::hard_link(path, &name) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                // Made for the first one, and left: to make and remove folders again and again is work for nothing.
                let _ = std::fs::create_dir(&self.folder);
                std::fs::hard_link(path, &name)
            }
            linked => linked,
        };
        // Where the system does not count names, it could not be told later that nobody reads the file any more.
        let is_counted = || name.metadata().is_ok_and(|found| found.nlink() > 1);
        if linked.is_ok() && !is_counted() {
            let _ = std::fs::remove_file(&name);
        } else if linked.is_ok() {
            self.named.push(name);
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

    /// Looks which files have lost their first names. They never get one again.
    pub fn find_nameless(&mut self) {
        let nameless = &mut self.nameless;
        self.named.retain(|path| match path.symlink_metadata() {
            Ok(found) if found.nlink() == 1 => {
                nameless.push_back(Nameless { path: path.clone(), bytes: found.len() });
                false
            }
            Ok(_) => true,
            Err(fault) => fault.kind() != ErrorKind::NotFound,
        });
    }

    /// What files hold that were found without their first names. A small one counts as more: its end costs as much as that of a
    /// piece, and not too many are to wait.
    pub fn waiting_bytes(&self) -> u64 {
        let shortening = self.shortening.as_ref().map(|(_, file)| file);
        self.nameless.iter().chain(shortening).map(|file| file.bytes.max(FILE_BYTES_MIN)).sum()
    }

    /// Makes one file a piece shorter. False when there is none whose first name is gone.
    pub fn step(&mut self) -> bool {
        if self.shortening.is_none() {
            self.shortening = self.next();
        }
        let Some((file, Nameless { path, bytes })) = &mut self.shortening else { return false };
        *bytes = bytes.saturating_sub(PIECE_BYTES);
        if *bytes == 0 || file.set_len(*bytes).is_err() {
            let _ = std::fs::remove_file(path);
            self.shortening = None;
        }
        true
    }

    fn next(&mut self) -> Option<(File, Nameless)> {
        if self.nameless.is_empty() {
            self.find_nameless();
        }
        let file = self.nameless.pop_front()?;
        match OpenOptions::new().write(true).open(&file.path) {
            Ok(opened) => Some((opened, file)),
            Err(_) => {
                // Better at once than never.
                let _ = std::fs::remove_file(&file.path);
                None
            }
        }
    }
}

impl Drop for Removal {
    /// Everything goes at once: nothing is written any more, and pieces would only take longer. With `discard`
    /// a gibibyte takes about two seconds.
    fn drop(&mut self) {
        let Ok(names) = std::fs::read_dir(&self.folder) else { return };
        names.flatten().for_each(|name| drop(std::fs::remove_file(name.path())));
    }
}

/// Where the second names of a database's files are.
pub fn folder_of(database: &Path) -> PathBuf {
    let mut folder = database.as_os_str().to_owned();
    folder.push(".removing");
    PathBuf::from(folder)
}

/// Files without another name, which an earlier end left in the folder: up to a gibibyte, for which a start is not to wait. Names
/// of files that have others go at once, which costs nothing.
fn take_over(folder: &Path) -> VecDeque<Nameless> {
    let mut nameless = VecDeque::new();
    for name in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = name.path();
        match path.symlink_metadata() {
            Ok(found) if found.is_file() && found.nlink() == 1 => nameless.push_back(Nameless { path, bytes: found.len() }),
            _ => drop(std::fs::remove_file(path)),
        }
    }
    nameless
}

/// What a file loses at once: with more a sync waits longer, with less all syncs together do.
const PIECE_BYTES: u64 = 1 << 20;
const FILE_BYTES_MIN: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all second names, in mebibytes.
    fn lengths(database: &Path) -> Vec<u64> {
        let names = folder_of(database).read_dir().unwrap();
        let mut lengths: Vec<u64> = names.map(|entry| entry.unwrap().metadata().unwrap().len() >> 20).collect();
        lengths.sort_unstable();
        lengths
    }

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
        let lengths = || lengths(&database);
        let mut seen = Vec::new();
        while removal.step() {
            seen.push((lengths(), removal.waiting_bytes() >> 20));
        }
        assert_eq!(seen, [(vec![2, 3], 2), (vec![1, 3], 1), (vec![3], 0)]);
        assert_eq!(std::fs::read(&read).unwrap(), vec![7; 3 << 20]);
        drop(removal);
        assert!(lengths().is_empty() && read.exists());
    }

    #[test]
    fn files_that_wait_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        std::fs::create_dir(&database).unwrap();
        let mut removal = Removal::new(&database);
        for (name, length) in [("1", 3 << 20), ("2", 2 << 20), ("3", 1)] {
            std::fs::write(database.join(name), vec![7; length]).unwrap();
            removal.keep(&database.join(name));
            removal.find_nameless();
            assert_eq!(removal.waiting_bytes(), 0, "it has its name");
        }
        ["1", "2", "3"].iter().for_each(|name| std::fs::remove_file(database.join(name)).unwrap());
        removal.find_nameless();
        removal.find_nameless();
        assert_eq!(removal.waiting_bytes(), (5 << 20) + FILE_BYTES_MIN);
        drop(removal);
        assert!(lengths(&database).is_empty(), "all go at the end");
    }

    #[test]
    fn what_an_earlier_end_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        let left = folder_of(&database);
        [&database, &left].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        std::fs::write(left.join("1"), vec![7; 3 << 20]).unwrap();
        std::fs::write(left.join("2"), "").unwrap();
        std::fs::write(database.join("used"), "used").unwrap();
        std::fs::hard_link(database.join("used"), left.join("3")).unwrap();
        std::os::unix::fs::symlink(database.join("used"), left.join("4")).unwrap();
        let mut removal = Removal::new(&database);
        assert_eq!(lengths(&database), [0, 3], "only what has no other name is left");
        assert_eq!(removal.waiting_bytes(), (3 << 20) + FILE_BYTES_MIN);
        let mut seen = Vec::new();
        while removal.step() {
            seen.extend(lengths(&database).into_iter().filter(|length| *length > 0));
        }
        assert!(seen.ends_with(&[2, 1]), "{seen:?}: piece by piece");
        assert!(lengths(&database).is_empty() && removal.waiting_bytes() == 0);
        assert_eq!(std::fs::read(database.join("used")).unwrap(), b"used");
    }

    #[test]
    fn journals_get_one_second_name_each() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("store");
        std::fs::create_dir(&database).unwrap();
        let mut removal = Removal::new(&database);
        for name in ["0.jnl", "1.jnl", "version"] {
            std::fs::write(database.join(name), name).unwrap();
        }
        removal.keep_journals();
        removal.keep_journals();
        assert_eq!(removal.named.len(), 2);
        std::fs::remove_file(database.join("0.jnl")).unwrap();
        removal.keep_journals();
        assert!(removal.step() && !removal.step());
        assert_eq!(removal.named.len(), 1);
        assert_eq!(std::fs::read_dir(folder_of(&database)).unwrap().count(), 1);
    }
}
