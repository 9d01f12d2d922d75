//! Proves that a repair of damaged files keeps what can be read, names what is lost, and lets a server start again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::tables::Space;
use super::super::tests::{append, commit, copy};
use super::super::{EmbeddedBackend, EmbeddedSettings};
use super::*;
use crate::store::Backend;
use crate::store::conformance::{private, range};
use crate::types::storage::{Answer, RangeQuery, Read};
use crate::types::{ConversationId, Seq};

const MESSAGES: u64 = 400;

fn ids() -> [ConversationId; 2] {
    [private("a", "b"), private("a", "c")]
}

/// Two logs of which the older part lies in tables and the newer one in journals, as a kill leaves them.
fn killed(folder: &Path) -> PathBuf {
    let (data, left) = (folder.join("data"), folder.join("left"));
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(&data)).unwrap();
    for seq in 1..=MESSAGES {
        let writes = ids().iter().zip(0..).map(|(id, place)| append(id, seq * 2 + place)).collect();
        assert!(commit(&mut backend, writes).iter().all(|outcome| matches!(outcome, Ok(Answer::Appended(_)))));
        if seq == MESSAGES - 60 {
            let tables = backend.shared.tables.read().unwrap();
            for space in Space::TABLES {
                tables.as_ref().unwrap().keyspace(space).rotate_memtable_and_wait().unwrap();
            }
        }
    }
    backend.tend();
    copy(&data, &left);
    left
}

struct Repaired {
    told: Vec<String>,
    lost: BTreeMap<ConversationId, Vec<(Seq, Seq)>>,
}

fn repair(path: &Path) -> Result<Repaired, StoreOpenFault> {
    let (bench, told) = Workbench::open_to_repair(&EmbeddedSettings::new(path))?;
    let lost = bench.check(true).lost;
    (0..4).for_each(|_| drop(bench.check(true)));
    let after = bench.check(false);
    assert_eq!((after.faults_total, &after.faults), (0, &Vec::new()), "after {told:?}");
    Ok(Repaired { told, lost })
}

/// All that a server then shows, by conversation: `seq` and content.
fn shown(backend: &mut EmbeddedBackend, id: &ConversationId) -> BTreeMap<u64, String> {
    match backend.read(&Read::Range(RangeQuery { limit: 100_000, bytes_max: usize::MAX, ..range(id) })).unwrap() {
        Answer::Range(page) => page.messages.iter().map(|it| (it.seq.0, it.content.as_str().to_owned())).collect(),
        other => panic!("{other:?}"),
    }
}

/// What is not named as lost is there and right; returns how many are lost.
fn serves(path: &Path, repaired: &Repaired, what: &str) -> u64 {
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(path)).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let mut missing = 0;
    for (id, place) in ids().iter().zip(0..) {
        let found = shown(&mut backend, id);
        let lost =
            |seq: u64| repaired.lost.get(id).is_some_and(|all| all.iter().any(|(from, to)| (from.0..=to.0).contains(&seq)));
        let Ok(Answer::Head(head)) = backend.read(&Read::Head { conversation: id.clone() }) else { panic!("{what}") };
        // Only what went with a whole commit of the journal may leave no trace.
        assert!(
            head.0 == MESSAGES || repaired.told.iter().any(|told| told.contains("journal")),
            "{what}: {id} ends at {}",
            head.0
        );
        for seq in 1..=head.0 {
            let expected = format!("\"message {}\"", seq * 2 + place);
            match found.get(&seq) {
                Some(content) => assert_eq!(*content, expected, "{what}: {id} seq {seq}"),
                None => assert!(lost(seq), "{what}: {id} seq {seq} is gone and nobody says so: {:?}", repaired.lost),
            }
        }
        missing += MESSAGES - found.len() as u64;
        let outcome = commit(&mut backend, vec![append(id, 9_000 + place)]).remove(0);
        assert!(matches!(&outcome, Ok(Answer::Appended(message)) if message.seq == head.next()), "{what}: {outcome:?}");
    }
    missing
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_folder_without_damage_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let repaired = repair(&left).unwrap();
    assert_eq!((repaired.told.len(), repaired.lost.len()), (0, 0), "{:?}", repaired.told);
    assert_eq!(serves(&left, &repaired, "nothing"), 0);
}

#[test]
fn damage_to_any_table_or_journal_costs_only_what_it_hits() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let mut found = Vec::new();
    files(&left.join("store"), &mut found);
    found.retain(|path| {
        path.parent().is_some_and(|parent| parent.ends_with("tables")) || path.extension().is_some_and(|it| it == "jnl")
    });
    found.sort();
    let (mut repaired_count, mut refused, mut lost_total) = (0, 0, 0);
    for file in found {
        let bytes = std::fs::read(&file).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        for part in 0..6 {
            let at = end * part / 6 + 17;
            if at >= end {
                continue;
            }
            let harmed = folder.path().join("harmed");
            let _ = std::fs::remove_dir_all(&harmed);
            copy(&left, &harmed);
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            std::fs::write(harmed.join(file.strip_prefix(&left).unwrap()), bytes).unwrap();
            let what = format!("byte {at} of {}", file.display());
            match repair(&harmed) {
                Ok(repaired) => {
                    repaired_count += 1;
                    let lost = serves(&harmed, &repaired, &what);
                    assert!(lost < MESSAGES, "{what}: {lost} are lost");
                    lost_total += lost;
                }
                Err(fault) => {
                    refused += 1;
                    assert!(fault.to_string().contains("restore"), "{what}: {fault}");
                }
            }
        }
    }
    assert!(repaired_count > 10 && lost_total > 0, "{repaired_count} repaired, {refused} refused, {lost_total} lost");
}

#[test]
fn a_journal_without_its_end_is_let_go_of_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let mut found = Vec::new();
    files(&left.join("store"), &mut found);
    let journal = found.into_iter().filter(|path| path.extension().is_some_and(|it| it == "jnl")).max().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(&journal, &bytes[..end - 2_000]).unwrap();
    let refusal = EmbeddedBackend::open(EmbeddedSettings::new(&left)).err().expect("its end is missing").to_string();
    assert!(refusal.contains("--repair"), "{refusal}");
    let repaired = repair(&left).unwrap();
    assert!(repaired.told.iter().any(|told| told.contains("had been acknowledged and are lost")), "{:?}", repaired.told);
    let lost = serves(&left, &repaired, "no end");
    assert!(lost > 0 && lost < 40, "{lost}");
    assert!(
        std::fs::read_dir(&left)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("store.damaged-") })
    );
    // A second repair finds nothing any more.
    assert_eq!(repair(&left).unwrap().told, Vec::<String>::new());
}
