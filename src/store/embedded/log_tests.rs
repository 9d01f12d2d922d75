//! Proves what a start makes of a commit log that was torn or harmed.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Durability;
use super::tests::{append, commit, contents, copy, expected, fill, open, open_with};
use crate::store::Backend;
use crate::store::conformance::private;

/// The segment of the commit log that is written to, and where its content ends.
fn segment(path: &Path) -> (std::path::PathBuf, Vec<u8>, usize) {
    let segments = std::fs::read_dir(path.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.max().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    // Frames begin at multiples of eight.
    let end = (bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(8);
    (segment, bytes, end)
}

#[test]
fn a_torn_tail_is_cut_and_damage_before_it_is_refused() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let left = elsewhere.path().join("left");
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 1, 9);
    let whole = segment(folder.path()).2;
    fill(&mut backend, &conversation, 10, 10);
    copy(folder.path(), &left);
    drop(backend);
    let (path, bytes, end) = segment(&left);
    let scratch = elsewhere.path().join("scratch");
    let (mut cut, mut refused) = (0, 0);
    for at in (whole..end).step_by(3).chain((4_104..whole).step_by(41)) {
        for torn in [false, true] {
            let mut bytes = bytes.clone();
            match torn {
                true => bytes[at..].fill(0),
                false => bytes[at] ^= 0x10,
            }
            bytes.truncate(end + 100);
            let _ = std::fs::remove_dir_all(&scratch);
            copy(&left, &scratch);
            std::fs::write(scratch.join(path.strip_prefix(&left).unwrap()), &bytes).unwrap();
            // Of the last round's commits nobody was told.
            std::fs::remove_file(scratch.join("corehub.acknowledged")).unwrap();
            match open_with(&scratch, Durability::Commit) {
                Ok(mut backend) => {
                    cut += 1;
                    let found = contents(&mut backend, &conversation).unwrap();
                    assert!(torn || at >= whole, "damage at {at} before {whole} was overlooked");
                    assert!(at < whole || found == expected(9), "at {at}: {found:?}");
                    // What is written behind the cut is found again.
                    let count = found.len() as u64;
                    commit(&mut backend, vec![append(&conversation, count + 1)]);
                    drop(backend);
                    assert_eq!(contents(&mut open(&scratch), &conversation), Ok(expected(count + 1)));
                }
                Err(fault) => {
                    refused += 1;
                    assert!(at < whole && !torn && fault.to_string().contains("damaged at byte"), "at {at}: {fault}");
                }
            }
        }
    }
    assert!(cut > 20 && refused > 10, "{cut} {refused}");
}

#[test]
fn a_log_that_lost_its_acknowledged_end_is_refused() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 1, 9);
    let earlier = segment(folder.path()).2;
    fill(&mut backend, &conversation, 10, 10);
    backend.tend();
    copy(folder.path(), elsewhere.path());
    drop(backend);
    let (path, whole, end) = segment(elsewhere.path());
    for length in [0, earlier / 3, earlier, earlier + 1, end - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let fault = open_with(elsewhere.path(), Durability::Commit).err().expect("its end is missing").to_string();
        assert!(fault.contains("0.log") && fault.contains("acknowledged"), "{length} of {end}: {fault}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(contents(&mut open(elsewhere.path()), &conversation), Ok(expected(10)));
}

#[test]
fn a_database_that_fails_is_read_on_and_lacks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 1, 5);
    backend.shared.backlog.wait().unwrap();
    fill(&mut backend, &conversation, 6, 9);
    backend.shared.apply_fails.store(true, Ordering::Relaxed);
    // The first one to read finds out.
    for _ in 0..3 {
        assert_eq!(contents(&mut backend, &conversation), Ok(expected(9)), "what was acknowledged is there");
    }
    assert!(commit(&mut backend, vec![append(&conversation, 10)])[0].is_err(), "nothing more is taken");
    assert_eq!(contents(&mut backend, &conversation), Ok(expected(9)));
    backend.shared.apply_fails.store(false, Ordering::Relaxed);
    while commit(&mut backend, vec![append(&conversation, 10)])[0].is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(contents(&mut backend, &conversation), Ok(expected(10)));
    drop(backend);
    assert_eq!(contents(&mut open(folder.path()), &conversation), Ok(expected(10)));
}
