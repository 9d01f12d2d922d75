//! Checks the commit log: whatever is written, noted, begun anew and then damaged, a start finds what was written, in order and
//! without a gap, and all that is known to have been acknowledged, or it refuses; and after a salvage it does not refuse again.

use std::collections::BTreeMap;

use fjall::Slice;

use super::folder::Folder;
use super::input::Input;
use crate::store::embedded::Space;
use crate::store::embedded::commit_log::{CommitLog, CommitLogFault, Found, Record, find, salvage};

/// What is done, then damages, then what is known to have been acknowledged.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let steps = input.list(40, |input| (input.byte(), input.some_bytes().to_vec()));
    let damages = input.list(3, |input| (input.byte(), input.number(), input.byte()));
    let folder = Folder::new();
    let path = folder.path.join("log");
    let written = write(&path, &steps);
    let last = written.keys().next_back().copied().unwrap_or(0);
    let acknowledged = input.number().min(last);
    let is_damaged = damages.into_iter().filter(|(file, at, how)| damage(&path, *file, *at, *how)).count() > 0;
    match find(&path, acknowledged, None) {
        Ok(found) => {
            assert!(found.end >= acknowledged && (is_damaged || found.end == last), "{} of {last}", found.end);
            let expected: Vec<u64> = (found.checkpoint + 1..=found.end).collect();
            assert_eq!(judge(&found, &written), expected);
        }
        Err(fault) => {
            assert!(is_damaged, "{fault}");
            let (found, told) = salvage(&path, acknowledged).expect("it can be read");
            assert!(!told.is_empty() || found.end >= acknowledged);
            let end = found.end;
            found.put_aside(&path).expect("a temporary folder is writable");
            drop(CommitLog::begin(&path, &found, end).expect("a temporary folder is writable"));
            assert_eq!(find(&path, acknowledged, None).expect("it is mended").end, end);
        }
    }
}

type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Each commit by its number.
fn write(path: &std::path::Path, steps: &[(u8, Vec<u8>)]) -> BTreeMap<u64, Rows> {
    let mut written = BTreeMap::new();
    let (mut last, mut checkpoint) = (0, 0);
    let begin = |base| {
        let found = find(path, base, None).expect("what was written is found");
        assert_eq!(found.end, base);
        CommitLog::begin(path, &found, base).expect("a temporary folder is writable")
    };
    let mut log = begin(0);
    for (how, bytes) in steps {
        match how & 7 {
            0 => {
                drop(log);
                (log, checkpoint) = (begin(last), last);
            }
            1 => {
                checkpoint = last - u64::from(how >> 5).min(last - checkpoint);
                log.note(checkpoint).expect("a temporary folder is writable");
            }
            _ => {
                let rows: Rows = bytes.chunks(9).map(|key| (key.to_vec(), (key.len() > 4).then(|| bytes.clone()))).collect();
                let slices: Vec<(Slice, Option<Slice>)> =
                    rows.iter().map(|(key, value)| (Slice::from(key.as_slice()), value.as_deref().map(Slice::from))).collect();
                let records = slices.iter().map(|(key, value)| (Space::Rows, key, value.as_ref()));
                last = log.write(records, None, checkpoint, how & 8 == 0).expect("a temporary folder is writable");
                written.insert(last, rows);
            }
        }
    }
    written
}

/// Every commit is what was written; returns their numbers.
fn judge(found: &Found, written: &BTreeMap<u64, Rows>) -> Vec<u64> {
    let mut numbers = Vec::new();
    let replayed = found.replay(|number, records| -> Result<(), CommitLogFault> {
        let rows: Rows = records
            .into_iter()
            .map(|record| match record {
                Record::Put(_, key, value) => (key.to_vec(), Some(value.to_vec())),
                Record::Delete(_, key) => (key.to_vec(), None),
                Record::Changes(_) => panic!("there were none"),
            })
            .collect();
        assert_eq!(Some(&rows), written.get(&number), "commit {number}");
        numbers.push(number);
        Ok(())
    });
    replayed.expect("it was read before");
    numbers
}

/// Changes a byte of a file, or cuts it off; false where there is nothing.
fn damage(path: &std::path::Path, file: u8, at: u64, how: u8) -> bool {
    let mut files: Vec<_> = std::fs::read_dir(path).expect("it is there").map(|entry| entry.expect("listed").path()).collect();
    files.sort();
    let Some(file) = files.get(usize::from(file) % files.len().max(1)) else { return false };
    let mut bytes = std::fs::read(file).expect("readable");
    if bytes.is_empty() {
        return false;
    }
    let at = (at.wrapping_mul(97) % bytes.len() as u64) as usize;
    if how & 1 == 0 {
        bytes[at] ^= how | 1;
    } else {
        bytes.truncate(at);
    }
    std::fs::write(file, bytes).expect("writable");
    true
}
