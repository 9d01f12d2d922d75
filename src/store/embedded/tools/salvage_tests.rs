//! Proves that a repair of damaged files keeps what can be read, names what is lost, and lets a server start again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fjall::Slice;

use super::super::commit_log;
use super::super::tables::Space;
use super::super::tests::{append, commit, copy};
use super::super::{EmbeddedBackend, EmbeddedSettings};
use super::gaps::{self, Gap};
use super::salvage::Salvaged;
use super::*;
use crate::store::Backend;
use crate::store::conformance::{device, group, private, range, user};
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{Answer, GroupChange, NoteName, RangeQuery, Read, Write};
use crate::types::{ConversationId, Millis, Seq};

const MESSAGES: u64 = 400;

fn ids() -> [ConversationId; 2] {
    [private("a", "b"), private("a", "c")]
}

/// Users of whom much is kept besides messages: enough for many blocks of every table.
const USERS: u64 = 500;
/// More than a block and its last record hold.
const BLOCK_BYTES_MAX: u64 = 6_000;
/// More than one of the younger commits writes.
const COMMIT_RECORDS_MAX: usize = 24;

fn name(number: u64) -> String {
    format!("user-{number:04}")
}

/// Something of every kind, of each of the users.
fn people() -> Vec<Write> {
    let mut writes = Vec::new();
    for number in 0..USERS {
        let (one, id) = (user(&name(number)), private("a", &name(number)));
        writes.push(append(&id, 100_000 + number));
        writes.push(Write::Device { user: one.clone(), device: device("phone"), at: Millis(number), deliveries: Vec::new() });
        writes.push(Write::LastSeen { user: one.clone(), at: Millis(number) });
        writes.push(Write::Hide { user: one.clone(), conversation: id, seq: Seq(1) });
        writes.push(Write::Note { name: NoteName { kind: "test", id: name(number) }, text: Some("noted".to_owned()) });
        let group = group(&format!("group-{number:04}"));
        let record = Group { id: group.clone(), name: "title".into(), open: true, created_at: Millis(5) };
        let member = Member { user: one, role: Role::Owner, joined_seq: Seq(0), joined_at: Millis(7) };
        let (record, members_put) = (Some(record), vec![member]);
        writes.push(Write::Group(Box::new(GroupChange { group, record, members_put, members_removed: vec![], delete: false })));
    }
    writes
}

/// Two logs, and much else, of which the older part lies in tables and the newer one in journals, as a kill leaves them.
fn killed(folder: &Path) -> PathBuf {
    left_by(folder, |_| ())
}

/// The same after something else has happened before the kill.
fn left_by(folder: &Path, end: impl Fn(&EmbeddedBackend)) -> PathBuf {
    let (data, left) = (folder.join("data"), folder.join("left"));
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(&data)).unwrap();
    assert!(commit(&mut backend, people()).iter().all(Result::is_ok));
    for seq in 1..=MESSAGES {
        let mut writes: Vec<Write> = ids().iter().zip(0..).map(|(id, place)| append(id, seq * 2 + place)).collect();
        // What lies in tables is written anew here and there, so that the journals hold the newer record.
        let one = user(&name(seq));
        writes.push(Write::Device { user: one.clone(), device: device("phone"), at: Millis(9_000), deliveries: Vec::new() });
        writes.push(Write::MarkRead { user: one.clone(), conversation: private("a", &name(seq)), seq: Seq(1) });
        assert!(commit(&mut backend, writes).iter().all(Result::is_ok));
        if seq == MESSAGES - 60 {
            backend.shared.with_tables(|tables| {
                for space in Space::TABLES {
                    tables.keyspace(space).rotate_memtable_and_wait().unwrap();
                }
            });
            // From here on the commit log has nothing of what came before.
            drop(backend);
            backend = EmbeddedBackend::open(EmbeddedSettings::new(&data)).unwrap();
        }
    }
    end(&backend);
    backend.tend();
    copy(&data, &left);
    left
}

/// Every record, by space and key, but for the marks that every opening writes.
type Records = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

fn records(tables: &Tables) -> Records {
    let mut found = BTreeMap::new();
    for space in Space::ALL.into_iter().filter(|space| !matches!(space, Space::Meta | Space::Changes)) {
        for guard in tables.prefix(space, Slice::from(space.prefix())) {
            let (key, value) = guard.into_inner().unwrap();
            found.insert((space.name(), key.to_vec()), value.to_vec());
        }
    }
    found
}

fn whole(left: &Path) -> Records {
    let copied = left.with_extension("whole");
    copy(left, &copied);
    records(&Workbench::open(&EmbeddedSettings::new(&copied)).unwrap().tables)
}

/// What a repair has left of `whole`: everything but what lies in a gap that is told, or in one commit of a damaged journal;
/// nothing older than it was.
fn judge(whole: &Records, salvaged: &Salvaged, blocks: u64, what: &str) -> u64 {
    let left = records(&salvaged.bench.tables);
    let (mut in_gaps, mut bytes, mut in_journal) = (0, 0, 0);
    for ((space, key), value) in whole {
        let found = left.get(&(*space, key.clone()));
        if found == Some(value) {
            continue;
        }
        let within = |gap: &&Gap| gap.from.as_ref() <= key.as_slice() && key.as_slice() <= gap.to.as_ref();
        let gap = salvaged
            .gaps
            .iter()
            .filter(within)
            .find(|gap| Space::ALL.into_iter().any(|it| it.name() == *space && it.shares_table_with(gap.space)));
        match gap {
            Some(_) if found.is_none() => {
                in_gaps += 1;
                bytes += (key.len() + value.len()) as u64;
            }
            _ => {
                assert!(
                    salvaged.told.iter().any(|told| told.contains("journal") || told.contains("commit log")),
                    "{what}: {space} {key:?} is {found:?}"
                );
                in_journal += 1;
            }
        }
    }
    assert!(bytes <= blocks * BLOCK_BYTES_MAX, "{what}: {in_gaps} records of {bytes} bytes are gone: {:?}", salvaged.gaps);
    assert!(in_journal <= COMMIT_RECORDS_MAX, "{what}: {in_journal} records of the journal are gone");
    assert!(left.keys().all(|key| whole.contains_key(key)), "{what}: something is there again");
    in_gaps + in_journal as u64
}

struct Repaired {
    told: Vec<String>,
    lost: BTreeMap<ConversationId, Vec<(Seq, Seq)>>,
    /// Records of any kind that are gone.
    gone: u64,
}

fn repair(path: &Path, whole: &Records, blocks: u64, what: &str) -> Result<Repaired, StoreOpenFault> {
    let salvaged = Workbench::salvage(&EmbeddedSettings::new(path))?;
    let gone = judge(whole, &salvaged, blocks, what);
    let Salvaged { bench, mut told, gaps } = salvaged;
    told.extend(gaps::tell(&gaps, &bench.tables));
    Ok(mended(bench, told, gone))
}

fn mended(bench: Workbench, told: Vec<String>, gone: u64) -> Repaired {
    let lost = bench.check(true).lost;
    // A repair may bring other faults to light.
    let _ = (0..4).find(|_| bench.check(true).mendable == 0);
    let after = bench.check(false);
    assert_eq!((after.faults_total, &after.faults), (0, &Vec::new()), "after {told:?}");
    Repaired { told, lost, gone }
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

/// The files of tables and the journals.
fn damageable(left: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&left.join("store"), &mut found);
    found.retain(|path| {
        path.parent().is_some_and(|parent| parent.ends_with("tables")) || path.extension().is_some_and(|it| it == "jnl")
    });
    files(&left.join("log"), &mut found);
    // Of the list of tables, the files that are no longer in force have no say.
    let meta = |path: &Path| path.ancestors().any(|folder| folder.ends_with("keyspaces/0"));
    let listed = found.iter().filter(|path| meta(path)).max_by_key(|path| path.metadata().unwrap().len()).cloned();
    found.retain(|path| !meta(path) || Some(path) == listed.as_ref());
    found.sort();
    found
}

/// A copy of `left` in which a file has some of its bits flipped.
fn harmed(left: &Path, file: &Path, places: &[usize]) -> PathBuf {
    let harmed = left.with_extension("harmed");
    let _ = std::fs::remove_dir_all(&harmed);
    copy(left, &harmed);
    let mut bytes = std::fs::read(file).unwrap();
    places.iter().for_each(|at| bytes[*at] ^= 0x10);
    std::fs::write(harmed.join(file.strip_prefix(left).unwrap()), bytes).unwrap();
    harmed
}

fn content_end(file: &Path) -> usize {
    std::fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

#[test]
fn a_folder_without_damage_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let repaired = repair(&left, &whole(&left), 0, "nothing").unwrap();
    assert_eq!((repaired.told.len(), repaired.lost.len(), repaired.gone), (0, 0, 0), "{:?}", repaired.told);
    assert_eq!(serves(&left, &repaired, "nothing"), 0);
}

#[test]
fn damage_to_any_table_or_journal_costs_only_what_it_hits() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let whole = whole(&left);
    let (mut repaired_count, mut refused, mut lost_total, mut gone) = (0, 0, 0, 0);
    for file in damageable(&left) {
        let end = content_end(&file);
        for at in (0..6).map(|part| end * part / 6 + 17).filter(|at| *at < end) {
            let harmed = harmed(&left, &file, &[at]);
            let what = format!("byte {at} of {}", file.display());
            match repair(&harmed, &whole, 1, &what) {
                Ok(repaired) => {
                    repaired_count += 1;
                    lost_total += serves(&harmed, &repaired, &what);
                    gone += repaired.gone;
                }
                Err(fault) => {
                    refused += 1;
                    assert!(fault.to_string().contains("restore"), "{what}: {fault}");
                }
            }
        }
    }
    println!("{repaired_count} repaired, {refused} refused, {lost_total} messages lost, {gone} records of all kinds");
    assert!(repaired_count > 20 && lost_total > 0 && gone > lost_total, "{repaired_count}, {refused}, {lost_total}, {gone}");
}

/// Of the commit log.
fn newest_segment(left: &Path) -> PathBuf {
    let segments = damageable(left).into_iter().filter(|path| path.extension().is_some_and(|it| it == "log"));
    segments.max_by_key(|path| commit_log::extent(path)).unwrap()
}

#[test]
fn a_damaged_log_costs_nothing_that_the_tables_have() {
    let folder = tempfile::tempdir().unwrap();
    let left = left_by(folder.path(), |backend| backend.shared.backlog.wait().unwrap());
    let whole = whole(&left);
    let segment = newest_segment(&left);
    let end = commit_log::extent(&segment).1;
    // Both copies of its head; the head of its first commit; in the midst; near the end.
    for places in [vec![3, 2_051], vec![4_100], vec![4_096 + (end - 4_096) / 2], vec![4_300, end - 300]] {
        let harmed = harmed(&left, &segment, &places);
        let what = format!("bytes {places:?} of the log");
        let refusal = EmbeddedBackend::open(EmbeddedSettings::new(&harmed)).err().expect(&what).to_string();
        assert!(refusal.contains("--repair"), "{refusal}");
        let repaired = repair(&harmed, &whole, 0, &what).unwrap();
        assert_eq!((repaired.gone, serves(&harmed, &repaired, &what)), (0, 0), "{what}: {:?}", repaired.told);
    }
    // The end alone: nothing in the log says that there was one, but the tables do.
    let harmed = harmed(&left, &segment, &[end - 100]);
    std::fs::remove_file(harmed.join("corehub.acknowledged")).unwrap();
    assert!(EmbeddedBackend::open(EmbeddedSettings::new(&harmed)).is_err());
    let repaired = repair(&harmed, &whole, 0, "the end").unwrap();
    assert_eq!((repaired.gone, serves(&harmed, &repaired, "the end")), (0, 0), "{:?}", repaired.told);
}

#[test]
fn no_record_is_made_of_a_damaged_commit_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let whole = whole(&left);
    let segment = newest_segment(&left);
    // Keys, values and lengths of the first commit, by turns.
    for at in (4_144..commit_log::extent(&segment).1.min(4_700)).step_by(29) {
        let what = format!("byte {at} of the log");
        repair(&harmed(&left, &segment, &[at]), &whole, 0, &what).unwrap();
    }
}

#[test]
fn what_lies_between_two_damaged_blocks_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let whole = whole(&left);
    let (mut tables, mut told) = (0, Vec::new());
    for file in damageable(&left) {
        let end = content_end(&file);
        if file.extension().is_some() || end < 30_000 {
            continue;
        }
        tables += 1;
        // The first half of a file is all data.
        let places: Vec<usize> = (0..4).map(|part| end * part / 8 + 17).collect();
        let harmed = harmed(&left, &file, &places);
        let what = format!("bytes {places:?} of {}", file.display());
        let repaired = repair(&harmed, &whole, 4, &what).unwrap();
        assert!(repaired.gone > 4, "{what}: nothing was hit");
        serves(&harmed, &repaired, &what);
        told.extend(repaired.told);
    }
    assert!(tables >= 4, "{tables}");
    // Everyone whose records may be missing is named.
    let names = |table: &str, person: &str| told.iter().any(|it| it.contains(&format!("table {table}: ")) && it.contains(person));
    for (table, person) in
        [("messages", "p:a:"), ("rows", "user-"), ("devices", "user-"), ("groups", "group-"), ("conversations", "p:a:user-")]
    {
        assert!(names(table, person), "{table}: {told:#?}");
    }
}

#[test]
fn a_flipped_order_number_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let whole = whole(&left);
    let journal = damageable(&left).into_iter().find(|path| path.extension().is_some_and(|it| it == "jnl")).unwrap();
    // In the head of the first commit: all that follow have lower numbers then.
    let harmed = harmed(&left, &journal, &[10]);
    assert!(EmbeddedBackend::open(EmbeddedSettings::new(&harmed)).is_err());
    let repaired = repair(&harmed, &whole, 0, "an order number").unwrap();
    assert!(repaired.gone == 0 && repaired.told.iter().any(|told| told.contains("does not fit")), "{:?}", repaired.told);
    assert_eq!(serves(&harmed, &repaired, "an order number"), 0);
}

#[test]
fn an_end_that_is_missing_is_let_go_of_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let left = killed(folder.path());
    let of = |kind: &str| {
        damageable(&left).into_iter().filter(|path| path.extension().is_some_and(|it| it == kind)).collect::<Vec<_>>()
    };
    let journal = of("jnl").into_iter().max().unwrap();
    let segment = of("log").into_iter().max_by_key(|path| commit_log::extent(path)).unwrap();
    for (path, end) in [(&journal, content_end(&journal) - 16_000), (&segment, commit_log::extent(&segment).1 - 8_000)] {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..end]).unwrap();
    }
    let refusal = EmbeddedBackend::open(EmbeddedSettings::new(&left)).err().expect("its end is missing").to_string();
    assert!(refusal.contains("--repair"), "{refusal}");
    let salvaged = Workbench::open_to_repair(&EmbeddedSettings::new(&left)).unwrap();
    let repaired = mended(salvaged.0, salvaged.1, 0);
    assert!(repaired.told.iter().any(|told| told.contains("had been acknowledged and are lost")), "{:?}", repaired.told);
    let lost = serves(&left, &repaired, "no end");
    assert!(lost > 0 && lost < 40, "{lost}");
    assert!(
        std::fs::read_dir(&left)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("store.damaged-") })
    );
    // A second repair finds nothing any more.
    let (_, told) = Workbench::open_to_repair(&EmbeddedSettings::new(&left)).unwrap();
    assert_eq!(told, Vec::<String>::new());
}
