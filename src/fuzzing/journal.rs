//! Checks the look through the database's journals: whatever lies there, it ends, it cuts only tails, it finds nothing more to
//! cut the second time, and nothing is cut that an undamaged commit says to have been on disk.

use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::folder::Folder;
use super::input::Input;
use crate::store::embedded::journal::{JournalFault, Keep, MARK, Mark, mend};

/// What to keep, damages, then what lies in the journals.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let keep = match input.byte() {
        number @ 0..128 => Keep::All { synced: u64::from(number.saturating_sub(100)) },
        number => Keep::UpTo { synced: u64::from(number - 128), end: u64::from(number - 128) + u64::from(input.byte()) },
    };
    let damages = input.list(4, |input| (input.number(), input.byte()));
    let mut journals = Journals::write(&mut input);
    for (at, how) in damages {
        journals.damage(at, how);
    }
    let folder = Folder::new();
    for (place, bytes) in journals.files.iter().enumerate() {
        std::fs::write(journal(&folder.path, place), bytes).expect("a temporary folder is writable");
    }
    let mended = mend(&folder.path, keep);
    let after: Vec<Vec<u8>> = (0..journals.files.len())
        .map(|place| std::fs::read(journal(&folder.path, place)).expect("no journal is removed"))
        .collect();
    match mended {
        Ok(cut) => journals.judge(&after, cut, keep),
        Err(JournalFault::Damaged { .. }) => {
            assert!(!journals.sound, "sound journals are called damaged");
            assert_eq!(after, journals.files, "what is damaged is left for others to look at");
        }
        Err(JournalFault::EndsEarly { synced, .. }) => {
            let last = journals.commits.iter().map(|commit| commit.number).max().unwrap_or(0);
            // A batch that reaches beyond what is known to be on disk has nothing to do in a sound one.
            assert!(
                !journals.sound || last < synced || matches!(keep, Keep::UpTo { .. }),
                "sound journals with all that was acknowledged are called short"
            );
            assert_eq!(after, journals.files, "what ends too early is left for others to look at");
        }
        Err(JournalFault::AheadOfLog { last, end }) => {
            assert!(last > end && matches!(keep, Keep::UpTo { .. }));
            assert_eq!(after, journals.files, "what the log lacks is left for others to look at");
        }
        Err(fault) => panic!("{fault}"),
    }
    if mended.is_ok() {
        assert!(matches!(mend(&folder.path, keep), Ok(0)), "mending twice");
    }
}

/// The journals as they lie on disk, and what is known of them.
struct Journals {
    files: Vec<Vec<u8>>,
    commits: Vec<Commit>,
    /// Nothing but whole commits, one after the other.
    sound: bool,
}

struct Commit {
    number: u64,
    synced: u64,
    file: usize,
    bytes: Range<usize>,
    damaged: bool,
}

impl Journals {
    fn write(input: &mut Input<'_>) -> Journals {
        let mut journals = Journals { files: vec![Vec::new()], commits: Vec::new(), sound: true };
        let (mut number, mut order) = (0, 0);
        while !input.is_empty() && journals.files.iter().map(Vec::len).sum::<usize>() < BYTES_MAX {
            let how = input.byte();
            let file = journals.files.len() - 1;
            let bytes = journals.files.last_mut().expect("there is always one");
            match how & 7 {
                0..4 => {
                    let previous = number;
                    number += 1 + u64::from(how >> 3 & 1);
                    let synced = previous - u64::from(how >> 6).min(previous);
                    let begin = bytes.len();
                    batch(bytes, order, Some(Mark { number, previous, synced }), input);
                    order += 1 + u64::from(how >> 4 & 1);
                    journals.commits.push(Commit { number, synced, file, bytes: begin..bytes.len(), damaged: false });
                }
                4 => {
                    batch(bytes, order, None, input);
                    order += 1;
                }
                5 => {
                    bytes.extend_from_slice(&input.some_bytes().repeat(1 + usize::from(how >> 3)));
                    journals.sound = false;
                }
                6 => {
                    bytes.resize(bytes.len() + 16 * input.below(256), 0);
                    journals.sound = false;
                }
                _ if journals.files.len() < FILES_MAX => journals.files.push(Vec::new()),
                _ => {}
            }
        }
        journals
    }

    /// Changes a byte, or cuts a journal off.
    fn damage(&mut self, at: u64, how: u8) {
        let file = usize::from(how & 1) % self.files.len();
        let bytes = &mut self.files[file];
        if bytes.is_empty() || how < 2 {
            return;
        }
        self.sound = false;
        let at = (at % bytes.len() as u64) as usize;
        let touched = if how & 2 == 0 {
            bytes[at] ^= how >> 2 | 1;
            at..at + 1
        } else {
            let touched = at..bytes.len();
            bytes.truncate(at);
            touched
        };
        for commit in self.commits.iter_mut().filter(|commit| commit.file == file) {
            commit.damaged |= commit.bytes.start < touched.end && touched.start < commit.bytes.end;
        }
    }

    /// Only commits up to that one are left.
    fn judge_up_to(&self, after: &[Vec<u8>], number: u64) {
        let there = |commit: &Commit| commit.bytes.end <= after[commit.file].len();
        for commit in self.commits.iter().filter(|commit| !commit.damaged && commit.number > number) {
            assert!(!there(commit), "commit {} is still there", commit.number);
        }
    }

    fn judge(&self, after: &[Vec<u8>], cut: u64, keep: Keep) {
        for (before, after) in self.files.iter().zip(after) {
            assert!(before.starts_with(after), "only a tail is cut");
        }
        let (before, left) = (self.files.iter().map(Vec::len).sum::<usize>(), after.iter().map(Vec::len).sum::<usize>());
        assert_eq!((before - left) as u64, cut, "the bytes cut are told");
        if let Keep::UpTo { synced: number, .. } = keep {
            self.judge_up_to(after, number);
        }
        let intact = |commit: &&Commit| !commit.damaged;
        if let Keep::All { synced: known } = keep {
            assert!(!self.sound || cut == 0, "sound journals are left alone");
            let synced = self.commits.iter().filter(intact).map(|commit| commit.synced).max().unwrap_or(0);
            let there = |commit: &Commit| commit.bytes.end <= after[commit.file].len();
            // Journals go, oldest first, when all of theirs is in tables: what came before the first that is left is not missed.
            let first = self.commits.iter().filter(intact).filter(|commit| there(commit)).map(|commit| commit.number).min();
            // With nothing left, what was acknowledged may all be in tables.
            let synced = first.map_or(synced, |_| synced.max(known));
            for commit in self.commits.iter().filter(|commit| commit.number <= synced && Some(commit.number) >= first) {
                // A number that replay needs, but that no checksum covers, may have changed in it: then it is still there.
                assert!(there(commit), "commit {} is gone, though {synced} was on disk", commit.number);
            }
        }
    }
}

/// A commit as the database writes it.
fn batch(out: &mut Vec<u8>, order: u64, mark: Option<Mark>, input: &mut Input<'_>) {
    let mut items = Vec::new();
    let others = input.list(3, |input| (input.some_bytes().to_vec(), input.some_bytes().to_vec()));
    for (key, value) in &others {
        item(&mut items, key, value);
    }
    if let Some(mark) = mark {
        item(&mut items, MARK, &mark.encode());
    }
    let count = others.len() as u32 + u32::from(mark.is_some());
    out.push(1);
    out.extend(count.to_le_bytes());
    out.extend(order.to_le_bytes());
    out.extend(&items);
    out.push(3);
    out.extend(xxh3_64(&items).to_le_bytes());
    out.extend(b"FJL\x03");
}

fn item(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let mut header = [0; 20];
    header[10..12].copy_from_slice(&(key.len() as u16).to_le_bytes());
    header[16..].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out.push(2);
    out.extend(header);
    out.extend(key);
    out.extend(value);
}

const BYTES_MAX: usize = 1 << 18;
const FILES_MAX: usize = 3;

fn journal(folder: &Path, place: usize) -> PathBuf {
    folder.join(format!("{place}.jnl"))
}
