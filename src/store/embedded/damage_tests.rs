//! Proves that damage keeps from users only what is damaged.

use std::path::Path;

use super::tables::{Look, Space, Tables};
use super::*;
use crate::store::conformance::{device, group, message, private, range, user};
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{Append, GroupChange, RangeQuery, UserState};
use crate::types::{ConversationId, MessageId, Seq};

const PEERS: u64 = 400;

/// A user with many conversations, whose rows fill several blocks, and a group.
fn populated(path: &Path) -> EmbeddedBackend {
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(path)).unwrap();
    let append = |conversation: &ConversationId, number: u64| {
        let mut draft = message(conversation, Some("a"), Some(&number.to_string()), 1_000 + number);
        draft.id = MessageId(u128::from(number));
        Write::Append(Box::new(Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false }))
    };
    let record = Group { id: group("g"), name: "title".into(), open: true, created_at: Millis(5) };
    let member = Member { user: user("a"), role: Role::Owner, joined_seq: Seq(0), joined_at: Millis(7) };
    let (group, members_put) = (group("g"), vec![member]);
    let change = GroupChange { group, record: Some(record), members_put, members_removed: Vec::new(), delete: false };
    let mut writes = vec![Write::Group(Box::new(change))];
    writes.extend((0..PEERS).map(|number| append(&private("a", &format!("peer-{number}")), number + 1)));
    writes.extend((0..9).map(|number| append(&private("a", "b"), PEERS + number + 1)));
    writes.push(Write::Device { user: user("a"), device: device("d"), at: Millis(1), deliveries: Vec::new() });
    let mut outcomes = Vec::new();
    backend.commit(&mut writes, &mut outcomes);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    backend
}

fn with_tables(backend: &EmbeddedBackend, change: impl FnOnce(&Tables)) {
    backend.shared.with_tables(change);
}

fn flip(tables: &Tables, space: Space, key: &[u8]) {
    let mut bytes = tables.get(space, key).unwrap().unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    tables.keyspace(space).insert(key, bytes).unwrap();
}

fn state(backend: &mut EmbeddedBackend) -> UserState {
    match backend.read(&Read::User { user: user("a"), device: device("d"), recent_since: None }).unwrap() {
        Answer::User(state) => *state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_row_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = populated(folder.path());
    let whole = state(&mut backend);
    assert_eq!((whole.conversations.len() as u64, whole.damaged, whole.device_known), (PEERS + 2, 0, true));
    with_tables(&backend, |tables| {
        flip(tables, Space::Rows, &keys::row(&user("a"), &private("a", "peer-7")));
        flip(tables, Space::Devices, &keys::device(&user("a"), &device("d")));
    });
    let found = state(&mut backend);
    assert_eq!((found.conversations.len() as u64, found.damaged), (PEERS + 1, 1));
    assert!(found.device_known, "that there is a record says enough");
    assert!(found.conversations.iter().all(|row| row.conversation != private("a", "peer-7")));
}

#[test]
fn a_damaged_block_of_rows_keeps_those_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let backend = populated(folder.path());
    let mut tables = std::path::PathBuf::new();
    with_tables(&backend, |open| {
        open.keyspace(Space::Rows).rotate_memtable_and_wait().unwrap();
        tables = open.keyspace(Space::Rows).path().join("tables");
    });
    drop(backend);
    let table =
        std::fs::read_dir(tables).unwrap().map(|entry| entry.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len());
    let table = table.expect("a table was written");
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 4;
    std::fs::write(&table, &bytes).unwrap();
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).unwrap();
    let found = state(&mut backend);
    let (kept, total) = (found.conversations.len() as u64, PEERS + 2);
    assert!(found.damaged > 0 && kept < total && kept > total / 4, "{kept} of {total}, damaged {}", found.damaged);
    let mut ids: Vec<_> = found.conversations.iter().map(|row| row.conversation.to_string()).collect();
    let as_found = ids.clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids, as_found, "in order, none twice");
}

#[test]
fn a_group_that_cannot_be_read_is_told_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = populated(folder.path());
    with_tables(&backend, |tables| flip(tables, Space::Groups, &keys::group(&group("g"))));
    let fault = backend.read(&Read::Group { group: group("g") }).unwrap_err();
    assert!(matches!(fault, StoreFault::Damaged(_)), "{fault}");
}

#[test]
fn a_page_ends_before_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = populated(folder.path());
    let id = private("a", "b");
    with_tables(&backend, |tables| {
        let number = tables.conversation_record(&id).unwrap().unwrap().number;
        flip(tables, Space::Messages, &keys::message(number, Seq(5)));
    });
    let mut page = |after, newest| match backend.read(&Read::Range(RangeQuery { after, newest, ..range(&id) })) {
        Ok(Answer::Range(page)) => {
            Ok((page.messages.iter().map(|message| message.seq.0).collect::<Vec<_>>(), page.covered, page.has_more))
        }
        Err(StoreFault::Damaged(reason)) => Err(reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(page(None, false), Ok((vec![1, 2, 3, 4], (Seq(1), Seq(4)), true)));
    assert!(page(Some(Seq(4)), false).unwrap_err().contains("seq 5"));
    assert_eq!(page(None, true), Ok((vec![6, 7, 8, 9], (Seq(6), Seq(9)), true)));
    assert_eq!(page(Some(Seq(5)), false), Ok((vec![6, 7, 8, 9], (Seq(6), Seq(9)), false)));
}
