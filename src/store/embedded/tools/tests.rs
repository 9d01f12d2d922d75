//! Proves that damage of every kind is found, and what a repair makes of it.

use std::path::Path;

use fjall::{PersistMode, Slice};
use proptest::prelude::*;

use super::super::codec::{self, ConversationRecord, FirstUse, RowRecord};
use super::super::tables::{Look, Space};
use super::super::tests::{append, commit, everything, populate};
use super::super::{EmbeddedBackend, EmbeddedSettings, keys};
use super::*;
use crate::store::Backend;
use crate::store::conformance::{group, private, range, user};
use crate::types::storage::{Answer, RangeQuery, Read};
use crate::types::{ConversationId, MessageId, Millis, Seq};

/// A data folder with something of every kind.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    populate(&mut EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).unwrap());
    folder
}

fn bench(path: &Path) -> Workbench {
    Workbench::open(&EmbeddedSettings::new(path)).unwrap()
}

/// Does to the tables what no server would.
fn harm(path: &Path, change: impl FnOnce(&Tables)) {
    let bench = bench(path);
    change(&bench.tables);
    bench.tables.database().persist(PersistMode::SyncAll).unwrap();
}

/// Flips a bit of a record.
fn flip(tables: &Tables, space: Space, key: &[u8]) {
    let mut bytes = tables.get(space, key).unwrap().unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    tables.keyspace(space).insert(key, bytes).unwrap();
}

#[test]
fn a_sound_folder_has_no_faults() {
    let folder = folder();
    let report = bench(folder.path()).check(false);
    assert_eq!((report.faults_total, &report.faults), (0, &Vec::new()));
    let counts = report.counts;
    assert_eq!((counts.conversations, counts.messages, counts.message_ids, counts.first_uses), (2, 37, 37, 40));
    assert_eq!((counts.groups, counts.members, counts.rows, counts.devices, counts.hidden, counts.last_seen), (1, 3, 5, 1, 1, 1));
    assert_eq!((counts.users, counts.notes), (4, 0));
}

#[test]
fn a_folder_is_counted() {
    let folder = folder();
    let bench = bench(folder.path());
    // On its way out.
    let _ = std::fs::create_dir(folder.path().join("store.removing"));
    std::fs::File::create(folder.path().join("store.removing").join("1")).unwrap().set_len(1 << 30).unwrap();
    let stats = bench.stats().unwrap();
    assert!(stats.disk_bytes < 1 << 30, "{stats:?}");
    assert_eq!((stats.conversations, stats.messages, stats.groups, stats.members, stats.users), (2, 37, 1, 3, 4));
    assert_eq!((stats.oldest, stats.newest), (Some(Millis(1_004)), Some(Millis(1_040))));
    assert!(stats.disk_bytes > 1_000 && stats.tables.iter().any(|table| table.name == "rows" && table.records == 5));
}

#[test]
fn nothing_is_opened_that_is_not_there_or_in_use() {
    let empty = tempfile::tempdir().unwrap();
    let told = |path: &Path| Workbench::open(&EmbeddedSettings::new(path)).err().unwrap().to_string();
    assert!(told(empty.path()).contains("no data folder"));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "and nothing was made");
    let folder = folder();
    let _server = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).unwrap();
    assert!(told(folder.path()).contains(&format!("process {}", std::process::id())));
}

/// Checks that one kind of harm is found and mended, and that the store works afterwards.
fn mended(what: &str, change: impl FnOnce(&Tables)) -> (CheckReport, EmbeddedBackend, tempfile::TempDir) {
    let folder = folder();
    harm(folder.path(), change);
    let bench = bench(folder.path());
    let report = bench.check(false);
    assert!(report.faults_total > 0 && report.mendable == report.faults_total, "{what}: {report:?}");
    assert!(report.faults_total < 8 || what == "an empty log", "{what} alone is told: {report:?}");
    assert_eq!(bench.check(false), report, "{what}: looking changes nothing");
    bench.check(true);
    let after = bench.check(false);
    assert_eq!((after.faults_total, &after.faults), (0, &Vec::new()), "{what}, after {report:?}");
    drop(bench);
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).unwrap();
    everything(&mut backend);
    (report, backend, folder)
}

fn page(backend: &mut EmbeddedBackend, id: &ConversationId) -> (Vec<u64>, (Seq, Seq)) {
    match backend.read(&Read::Range(RangeQuery { ..range(id) })).unwrap() {
        Answer::Range(page) => (page.messages.iter().map(|message| message.seq.0).collect(), page.covered),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_message_becomes_a_gap_that_is_told() {
    let (one, seq) = (private("a", "b"), Seq(20));
    let (report, mut backend, _folder) =
        mended("damaged message", |tables| flip(tables, Space::Messages, &keys::message(1, seq)));
    assert!(report.faults[0].starts_with("p:a:b seq 20: damaged"), "{report:?}");
    let (found, covered) = page(&mut backend, &one);
    assert_eq!(covered, (Seq(1), Seq(40)), "it is covered, so that clients are told");
    assert_eq!(found, (4..=40).filter(|seq| *seq != 20).collect::<Vec<_>>());
    assert!(matches!(backend.read(&Read::Locate { message_id: MessageId(20) }), Ok(Answer::Located(None))));
    assert!(matches!(backend.read(&Read::Head { conversation: one }), Ok(Answer::Head(Seq(40)))));
}

#[test]
fn the_last_message_may_be_lost_too() {
    let (_, mut backend, _folder) = mended("last message", |tables| flip(tables, Space::Messages, &keys::message(1, Seq(40))));
    assert!(matches!(backend.read(&Read::Head { conversation: private("a", "b") }), Ok(Answer::Head(Seq(40)))));
    match backend.read(&Read::Summaries { user: user("b"), limit: 10, cursor: None }).unwrap() {
        Answer::Summaries { conversations, .. } => assert!(conversations[0].last_message.is_none(), "{conversations:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_in_a_log_is_filled_with_lost_messages() {
    let (report, mut backend, _folder) = mended("gap", |tables| {
        (10..=12).for_each(|seq| tables.keyspace(Space::Messages).remove(keys::message(1, Seq(seq))).unwrap());
    });
    assert!(report.faults[0].starts_with("p:a:b seq 10 to 12: missing"), "{report:?}");
    assert_eq!(page(&mut backend, &private("a", "b")).0.len(), 34);
}

#[test]
fn indexes_are_rebuilt_from_messages() {
    let seed = |tables: &Tables| super::super::seed(tables).unwrap();
    let first_use = |tables: &Tables, seq: u64| {
        let key = keys::message(1, Seq(seq));
        let bytes = tables.get(Space::Messages, &key).unwrap().unwrap();
        let message = codec::decode_outline(&key, &bytes, &private("a", "b"), Seq(seq)).unwrap();
        keys::first_use(&message, seed(tables)).unwrap()
    };
    let (_, mut backend, _folder) = mended("message ids", |tables| {
        flip(tables, Space::Ids, &keys::message_id(MessageId(17)));
        tables.keyspace(Space::Ids).remove(keys::message_id(MessageId(18))).unwrap();
        let key = keys::message_id(MessageId(555));
        tables.keyspace(Space::Ids).insert(key.clone(), codec::encode_numbers([1, 19], &key)).unwrap();
    });
    for id in [17, 18] {
        assert!(matches!(backend.read(&Read::Locate { message_id: MessageId(id) }), Ok(Answer::Located(Some(_)))));
    }
    let (report, _, _folder) = mended("duplicate index", |tables| {
        flip(tables, Space::FirstUses, &first_use(tables, 20));
        let key = first_use(tables, 21);
        let other = FirstUse { number: 1, seq: Seq(22), message_id: MessageId(22), created_at: Millis(1) };
        tables.keyspace(Space::FirstUses).insert(key.clone(), other.encode(&key)).unwrap();
    });
    assert_eq!(report.faults_total, 2, "{report:?}");
}

#[test]
fn conversations_are_rebuilt_from_their_logs() {
    let id = keys::conversation(&private("a", "b"));
    let (_, mut backend, _folder) = mended("damaged conversation", |tables| flip(tables, Space::Conversations, &id));
    assert_eq!(page(&mut backend, &private("a", "b")).0.len(), 37);
    let (_, mut backend, _folder) =
        mended("missing conversation", |tables| tables.keyspace(Space::Conversations).remove(id.clone()).unwrap());
    assert_eq!(page(&mut backend, &private("a", "b")).0.len(), 37);
    mended("damaged number", |tables| flip(tables, Space::Numbers, &keys::number(1)));
    let (_, mut backend, _folder) = mended("a conversation that only rows name", |tables| {
        flip(tables, Space::Numbers, &keys::number(1));
        flip(tables, Space::Conversations, &id);
    });
    assert_eq!(page(&mut backend, &private("a", "b")).0.len(), 37);
    mended("a message under a number of nobody's", |tables| {
        let bytes = tables.get(Space::Messages, &keys::message(1, Seq(20))).unwrap().unwrap();
        tables.keyspace(Space::Messages).insert(keys::message(9, Seq(20)), bytes).unwrap();
    });
    let (_, mut backend, _folder) = mended("an empty log", |tables| {
        (4..=40).for_each(|seq| tables.keyspace(Space::Messages).remove(keys::message(1, Seq(seq))).unwrap());
        (4..=40).for_each(|id| tables.keyspace(Space::Ids).remove(keys::message_id(MessageId(id))).unwrap());
        tables.keyspace(Space::Conversations).remove(id.clone()).unwrap();
    });
    // Ada's device had 8, Bob had read 20: nothing is numbered below that again.
    assert!(matches!(backend.read(&Read::Head { conversation: private("a", "b") }), Ok(Answer::Head(Seq(20)))));
    mended("times that step back", |tables| {
        let record = tables.conversation_record(&private("a", "b")).unwrap().unwrap();
        let key = keys::message(1, Seq(30));
        let bytes = tables.get(Space::Messages, &key).unwrap().unwrap();
        let mut message = codec::decode_outline(&key, &bytes, &private("a", "b"), Seq(30)).unwrap();
        message.created_at = Millis(1);
        tables.keyspace(Space::Messages).insert(key.clone(), codec::encode_message(&message, &key, tables.keyring())).unwrap();
        assert_eq!(record, ConversationRecord { slack_ms: 0, ..record });
    });
}

#[test]
fn rows_and_members_are_set_right() {
    let (g, one) = (group("g"), private("a", "b"));
    for (what, space, key) in [
        ("row", Space::Rows, keys::row(&user("b"), &one)),
        ("group row", Space::Rows, keys::row(&user("z"), &ConversationId::group(&g))),
        ("group", Space::Groups, keys::group(&g)),
        ("member", Space::Groups, keys::member(&g, 2)),
        ("member order", Space::Groups, keys::member_order(&g, &user("z"))),
        ("device", Space::Devices, keys::device(&user("a"), &crate::store::conformance::device("d"))),
        ("last seen", Space::LastSeen, keys::last_seen(&user("a"))),
    ] {
        mended(what, |tables| flip(tables, space, &key));
        mended_or_unseen(what, |tables| tables.keyspace(space).remove(key.clone()).unwrap());
    }
    let (_, mut backend, _folder) = mended("damaged member", |tables| flip(tables, Space::Groups, &keys::member(&g, 1)));
    match backend.read(&Read::Group { group: g.clone() }).unwrap() {
        Answer::Group(Some(state)) => assert_eq!(state.members.len(), 3, "{state:?}"),
        other => panic!("{other:?}"),
    }
    mended("a row ahead of its log", |tables| {
        let key = keys::row(&user("b"), &one);
        let row = RowRecord { number: 1, start_seq: Seq(0), read_seq: Seq(99), delivered: Default::default() };
        tables.keyspace(Space::Rows).insert(key.clone(), row.encode(&key)).unwrap();
    });
    mended("a row of a stranger", |tables| {
        let key = keys::row(&user("x"), &one);
        let row = RowRecord { number: 1, start_seq: Seq(0), read_seq: Seq(0), delivered: Default::default() };
        tables.keyspace(Space::Rows).insert(key.clone(), row.encode(&key)).unwrap();
    });
    mended("hidden mark of nobody", |tables| {
        tables.keyspace(Space::Hidden).insert(keys::hidden(&user("a"), 99, Seq(1)), b"").unwrap();
    });
}

/// As [`mended`], for what may also leave no trace.
fn mended_or_unseen(what: &str, change: impl FnOnce(&Tables)) {
    let folder = folder();
    harm(folder.path(), change);
    let bench = bench(folder.path());
    bench.check(true);
    assert_eq!(bench.check(false).faults, Vec::<String>::new(), "{what}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_damage_is_found_and_nothing_panics(
        harms in prop::collection::vec((0..Space::ALL.len() - 2, any::<prop::sample::Index>(), any::<bool>()), 1..12)
    ) {
        let folder = folder();
        // One that was flipped twice is whole again; one that is removed later is gone.
        let mut flipped = std::collections::HashSet::new();
        harm(folder.path(), |tables| {
            for (space, at, remove) in harms {
                let space = Space::ALL[space];
                let all = tables.prefix(space, Slice::from(space.prefix()));
                let all: Vec<Slice> = all.map(|guard| guard.key().unwrap()).collect();
                if all.is_empty() {
                    continue;
                }
                let key = &all[at.index(all.len())];
                // Of these the key says everything.
                if remove || matches!(space, Space::Hidden | Space::Users) {
                    tables.keyspace(space).remove(key.clone()).unwrap();
                    flipped.remove(&(space.name(), key.clone()));
                } else {
                    flip(tables, space, key);
                    if !flipped.remove(&(space.name(), key.clone())) {
                        flipped.insert((space.name(), key.clone()));
                    }
                }
            }
        });
        let bench = bench(folder.path());
        let report = bench.check(false);
        prop_assert!(flipped.is_empty() || report.faults_total > 0, "{report:?}");
        // Each time may bring a little more to light.
        let after = (0..4).fold(CheckReport::default(), |_, _| bench.check(true));
        prop_assert_eq!(after.mendable, 0, "{:?}, then {:?}", report, after);
    }
}

/// An end of which little is known but how far it went is not written a second time, however long it was.
#[test]
fn a_long_end_that_is_lost_is_not_given_again() {
    let (one, last) = (private("a", "b"), 25_000);
    let (report, mut backend, folder) = mended("a lost end", |tables| {
        let key = keys::message_id(MessageId(777));
        tables.keyspace(Space::Ids).insert(key.clone(), codec::encode_numbers([1, last], &key)).unwrap();
    });
    assert_eq!(report.lost.get(&one), Some(&vec![(Seq(41), Seq(last))]), "{report:?}");
    assert!(matches!(backend.read(&Read::Head { conversation: one.clone() }), Ok(Answer::Head(Seq(25_000)))));
    let outcome = commit(&mut backend, vec![append(&one, 5_000)]).remove(0);
    assert!(matches!(&outcome, Ok(Answer::Appended(message)) if message.seq == Seq(last + 1)), "{outcome:?}");
    drop(backend);
    // Nor does a long gap in the midst stay one.
    harm(folder.path(), |tables| {
        for seq in 100..=15_000 {
            tables.keyspace(Space::Messages).remove(keys::message(1, Seq(seq))).unwrap();
        }
    });
    let bench = bench(folder.path());
    assert_eq!(bench.check(true).lost.get(&one), Some(&vec![(Seq(100), Seq(15_000))]));
    assert_eq!(bench.check(false).faults, Vec::<String>::new());
}
