//! Proves that a backup is a whole and sound store of one moment, or none at all.

use std::path::Path;

use super::tests::{append, commit, copy, everything, fill, open, populate};
use super::*;
use crate::store::conformance::{private, range};
use crate::types::ConversationId;
use crate::types::storage::RangeQuery;

const FAST: u64 = u64::MAX;
/// So slow that nothing ends before it is told to.
const SLOW: u64 = 1;

fn ended(backups: &Backups) -> (BackupReport, Result<(), String>) {
    loop {
        let report = backups.report().expect("one was begun");
        if let Some((_, result)) = report.ended.clone() {
            return (report, result);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn seqs(backend: &mut EmbeddedBackend, id: &ConversationId) -> Vec<u64> {
    match backend.read(&Read::Range(RangeQuery { limit: 100_000, bytes_max: usize::MAX, ..range(id) })).unwrap() {
        Answer::Range(page) => page.messages.iter().map(|message| message.seq.0).collect(),
        other => panic!("{other:?}"),
    }
}

fn sound(path: &Path) {
    let report = Workbench::open(&EmbeddedSettings::new(path)).unwrap().check(false);
    assert_eq!((report.faults_total, &report.faults), (0, &Vec::new()));
}

#[test]
fn a_backup_is_all_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (data, to) = (folder.path().join("data"), folder.path().join("to/there"));
    let mut backend = open(&data);
    populate(&mut backend);
    let before = everything(&mut backend);
    let backups = backend.backups();
    backups.begin(to.clone(), FAST).unwrap();
    // What is written from now on is not in it.
    fill(&mut backend, &private("a", "b"), 41, 60);
    let (report, result) = ended(&backups);
    assert_eq!((result, report.to), (Ok(()), to.clone()));
    assert!(report.copied.records > 100 && report.copied.bytes > 5_000, "{:?}", report.copied);
    sound(&to);
    let mut copied = open(&to);
    assert_eq!(everything(&mut copied), before);
    // It goes on by itself, with commits that follow its own.
    assert_eq!(copied.number, report.copied.commit + 1);
    fill(&mut copied, &private("a", "b"), 70, 80);
    drop(copied);
    sound(&to);
}

#[test]
fn what_was_written_before_is_in_it_and_is_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(&folder.path().join("data"));
    let (backups, id) = (backend.backups(), private("a", "b"));
    let mut written = 0;
    for round in 0..4 {
        fill(&mut backend, &id, written + 1, written + 150);
        written += 150;
        let to = folder.path().join(round.to_string());
        backups.begin(to.clone(), 400_000).unwrap();
        let least = written;
        while backups.report().unwrap().ended.is_none() {
            // As many as a slow disk takes, however fast this one is: all of them are in the next round's copy.
            if written < least + 300 {
                written += 1;
                commit(&mut backend, vec![append(&id, written)]);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(ended(&backups).1, Ok(()));
        sound(&to);
        let found = seqs(&mut open(&to), &id);
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
        assert_eq!(found.len() as u64, least, "as of its beginning");
    }
}

#[test]
fn a_backup_that_does_not_end_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    let mut backend = open(&data);
    fill(&mut backend, &private("a", "b"), 1, 50);
    let backups = backend.backups();
    backups.begin(to.clone(), SLOW).unwrap();
    let busy = backups.begin(folder.path().join("other"), SLOW).unwrap_err().to_string();
    assert!(busy.contains("under way") && !folder.path().join("other").exists(), "{busy}");
    // As a crash would leave it: nobody opens it.
    let torn = folder.path().join("torn");
    copy(&to, &torn);
    let told = EmbeddedBackend::open(EmbeddedSettings::new(&torn)).err().expect("it is not whole").to_string();
    assert!(told.contains("did not finish"), "{told}");
    drop(backend);
    assert!(ended(&backups).1.unwrap_err().contains("begin again"));
    assert!(!to.exists());
    assert!(matches!(backups.begin(to.clone(), FAST), Err(BackupFault::Closed)));
    assert!(!to.exists());
}

#[test]
fn a_store_that_is_opened_anew_ends_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(&folder.path().join("data"));
    let (backups, id, to) = (backend.backups(), private("a", "b"), folder.path().join("to"));
    fill(&mut backend, &id, 1, 50);
    backups.begin(to.clone(), 20_000).unwrap();
    backend.log.fails = true;
    assert!(commit(&mut backend, vec![append(&id, 51)])[0].is_err());
    std::thread::sleep(RETRY_EVERY);
    fill(&mut backend, &id, 51, 60);
    let (_, result) = ended(&backups);
    assert!(result.is_ok() && to.exists() || result.unwrap_err().contains("begin again") && !to.exists());
    backups.begin(folder.path().join("again"), FAST).unwrap();
    assert_eq!(ended(&backups).1, Ok(()));
    assert_eq!(seqs(&mut open(&folder.path().join("again")), &id).len(), 60);
}

#[test]
fn whoever_asks_meanwhile_does_not_wait_for_one_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(&folder.path().join("data"));
    fill(&mut backend, &private("a", "b"), 1, 5);
    let (backups, to) = (backend.backups(), folder.path().join("to"));
    // As while the database is opened anew.
    let closed = backend.shared.tables.write().unwrap();
    let (asked, first) = (backups.clone(), to.clone());
    let asking = std::thread::spawn(move || asked.begin(first, FAST));
    while backups.desk.latest().asked.is_none() {
        std::thread::yield_now();
    }
    assert!(backups.report().is_none(), "nothing has begun");
    let busy = backups.begin(folder.path().join("other"), FAST).unwrap_err();
    assert!(matches!(&busy, BackupFault::Busy { to: known } if *known == to), "{busy}");
    assert!(!asking.is_finished() && !to.exists());
    drop(closed);
    asking.join().unwrap().unwrap();
    assert_eq!(ended(&backups).1, Ok(()));
    sound(&to);
    // One that was refused is in nobody's way.
    backups.begin(to, FAST).unwrap_err();
    backups.begin(folder.path().join("other"), FAST).unwrap();
    assert_eq!(ended(&backups).1, Ok(()));
}

#[test]
fn a_folder_that_cannot_be_taken_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut backend = open(&data);
    fill(&mut backend, &private("a", "b"), 1, 5);
    let backups = backend.backups();
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/file"), "mine").unwrap();
    for (to, told) in [
        (folder.path().join("full"), "not empty"),
        (data.join("inside/it"), "data folder itself"),
        (folder.path().join("new/../data/inside"), "data folder itself"),
        (Path::new("relative").to_owned(), "absolute"),
        (Path::new("/proc/nowhere").to_owned(), "/proc/nowhere"),
    ] {
        let fault = backups.begin(to, FAST).unwrap_err().to_string();
        assert!(fault.contains(told), "{fault}");
    }
    assert_eq!(std::fs::read(folder.path().join("full/file")).unwrap(), b"mine");
    assert!(!data.join("inside").exists() && backups.report().is_none());
}

#[test]
fn a_folder_that_no_server_has_is_copied_too() {
    let folder = tempfile::tempdir().unwrap();
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    let mut backend = open(&data);
    populate(&mut backend);
    let before = everything(&mut backend);
    drop(backend);
    let bench = Workbench::open(&EmbeddedSettings::new(&data)).unwrap();
    let copied = bench.backup(&to, FAST).unwrap();
    assert!(copied.records > 100);
    assert!(matches!(bench.backup(&to, FAST), Err(BackupFault::Target(StoreOpenFault::NotEmpty { .. }))));
    sound(&to);
    assert_eq!(everything(&mut open(&to)), before);
}
