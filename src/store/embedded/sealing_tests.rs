//! Proves on whole data folders that bodies are sealed wherever they lie, and that keys come, change and go without loss.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::keyring::new_key_line;
use super::tests::Temporary;
use super::*;
use crate::store::conformance::{self, message, private, range, user};
use crate::types::record::{MessageExtra, RawJson};
use crate::types::storage::{Append, RangeQuery};
use crate::types::{ConversationId, MessageId, Seq};

/// A data folder beside its key file.
struct Vault {
    folder: tempfile::TempDir,
}

impl Vault {
    fn new(keys: &[&str]) -> Vault {
        let vault = Vault { folder: tempfile::tempdir().unwrap() };
        vault.set_keys(keys);
        vault
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn set_keys(&self, lines: &[&str]) {
        std::fs::write(self.keys(), lines.join("\n")).unwrap();
        std::fs::set_permissions(self.keys(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn open(&self) -> Result<EmbeddedBackend, StoreOpenFault> {
        let encryption_key_file = Some(self.keys());
        EmbeddedBackend::open(EmbeddedSettings { encryption_key_file, ..EmbeddedSettings::new(self.data()) })
    }

    fn open_plain(&self) -> Result<EmbeddedBackend, StoreOpenFault> {
        EmbeddedBackend::open(EmbeddedSettings::new(self.data()))
    }
}

fn write(backend: &mut EmbeddedBackend, conversation: &ConversationId, from: u64, to: u64) {
    for number in from..=to {
        let mut draft = message(conversation, Some("a"), Some(&number.to_string()), 1_000 + number);
        draft.id = MessageId(u128::from(number));
        draft.content = RawJson::string(&format!("{MARKER} {number}"));
        let ext = Some(RawJson::string(MARKER));
        draft.extra = Some(Box::new(MessageExtra { ext, ..MessageExtra::default() }));
        let mut outcomes = Vec::new();
        backend.commit(
            &mut vec![Write::Append(Box::new(Append {
                message: draft,
                head: None,
                dedupe_since: Millis(0),
                repeat_only: false,
            }))],
            &mut outcomes,
        );
        assert!(matches!(outcomes[0], Ok(Answer::Appended(_))), "{outcomes:?}");
    }
}

fn read(backend: &mut EmbeddedBackend, conversation: &ConversationId) -> Result<usize, String> {
    match backend.read(&Read::Range(RangeQuery { limit: 10_000, ..range(conversation) })) {
        Ok(Answer::Range(page)) => {
            for message in &page.messages {
                let ext = message.extra.as_ref().and_then(|extra| extra.ext.as_ref());
                let whole = message.content.as_str() == format!("\"{MARKER} {}\"", message.id.0) && ext.is_some();
                assert!(whole || message.recalled_by().is_some(), "{message:?}");
            }
            Ok(page.messages.len())
        }
        Ok(other) => panic!("no page: {other:?}"),
        Err(fault) => Err(fault.to_string()),
    }
}

fn refusal(opened: Result<EmbeddedBackend, StoreOpenFault>) -> String {
    opened.err().expect("it must not open").to_string()
}

/// Files below `folder` that contain the marker.
fn files_with_marker(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_marker(&path));
        // One that went meanwhile holds nothing.
        } else if std::fs::read(&path).unwrap_or_default().windows(MARKER.len()).any(|window| window == MARKER.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Moves what is in memory to tables.
fn flush(backend: &EmbeddedBackend) {
    backend.shared.backlog.wait().unwrap();
    let tables = backend.shared.tables.read().unwrap();
    for space in Space::ALL {
        tables.as_ref().unwrap().keyspace(space).rotate_memtable_and_wait().unwrap();
    }
}

#[test]
fn a_sealed_store_conforms() {
    let line = new_key_line("k").unwrap();
    conformance::suite(|| {
        let vault = Vault::new(&[&line]);
        Box::new(Temporary { backend: vault.open().unwrap(), _folder: vault })
    });
}

#[test]
fn no_file_shows_a_body() {
    let line = new_key_line("k").unwrap();
    let (vault, plain) = (Vault::new(&[&line]), Vault::new(&[&line]));
    let (one, mut sealed, mut open) = (private("a", "b"), vault.open().unwrap(), plain.open_plain().unwrap());
    for round in 0..2 {
        for backend in [&mut sealed, &mut open] {
            write(backend, &one, round * 50 + 1, round * 50 + 50);
            let mut outcomes = Vec::new();
            backend.commit(
                &mut vec![Write::Recall { conversation: one.clone(), seq: Seq(round * 50 + 7), by: user("a") }],
                &mut outcomes,
            );
            assert!(outcomes[0].is_ok());
            // The second round stays in the journal.
            if round == 0 {
                flush(backend);
            }
        }
        assert!(!files_with_marker(&plain.data()).is_empty(), "the search would find it");
        assert_eq!(files_with_marker(&vault.data()), Vec::<PathBuf>::new());
    }
    drop((sealed, open));
    assert_eq!(files_with_marker(&vault.data()), Vec::<PathBuf>::new());
    assert_eq!(read(&mut vault.open().unwrap(), &one), Ok(100));
}

#[test]
fn keys_come_and_change_without_loss() {
    let (first, second) = (new_key_line("first").unwrap(), new_key_line("second").unwrap());
    let vault = Vault::new(&[&first]);
    let one = private("a", "b");
    write(&mut vault.open_plain().unwrap(), &one, 1, 10);
    // What is plain stays plain and readable.
    let mut backend = vault.open().unwrap();
    assert_eq!(read(&mut backend, &one), Ok(10));
    write(&mut backend, &one, 11, 20);
    drop(backend);
    vault.set_keys(&[&second, &first]);
    let mut backend = vault.open().unwrap();
    write(&mut backend, &one, 21, 30);
    assert_eq!(read(&mut backend, &one), Ok(30));
    drop(backend);
    vault.set_keys(&[&first, &second]);
    assert_eq!(read(&mut vault.open().unwrap(), &one), Ok(30), "the order does not matter to reading");
}

#[test]
fn a_missing_or_wrong_key_stops_the_start_and_says_what_to_do() {
    let (key, other) = (new_key_line("k").unwrap(), new_key_line("other").unwrap());
    let vault = Vault::new(&[&key]);
    write(&mut vault.open().unwrap(), &private("a", "b"), 1, 3);
    let told = refusal(vault.open_plain());
    assert!(told.contains("sealed with k:") && told.contains("store.encryption_key_file"), "{told}");
    vault.set_keys(&[&other]);
    let told = refusal(vault.open());
    assert!(told.contains("sealed with k,") && told.contains("holds none") && told.contains("keys"), "{told}");
    let impostor = new_key_line("k").unwrap();
    vault.set_keys(&[&impostor, &other]);
    let told = refusal(vault.open());
    assert!(told.contains("key k of") && told.contains("not the one"), "{told}");
    std::fs::remove_file(vault.keys()).unwrap();
    assert!(refusal(vault.open()).contains("cannot read the key file"));
    vault.set_keys(&[&key]);
    assert_eq!(read(&mut vault.open().unwrap(), &private("a", "b")), Ok(3), "and nothing was harmed");
}

#[test]
fn a_lost_key_stops_only_the_conversations_that_need_it() {
    let (old, new) = (new_key_line("old").unwrap(), new_key_line("new").unwrap());
    let vault = Vault::new(&[&old]);
    let (lost, kept) = (private("a", "b"), private("a", "c"));
    write(&mut vault.open().unwrap(), &lost, 1, 5);
    vault.set_keys(&[&new, &old]);
    write(&mut vault.open().unwrap(), &kept, 6, 10);
    vault.set_keys(&[&new]);
    let mut backend = vault.open().unwrap();
    let told = read(&mut backend, &lost).unwrap_err();
    assert!(told.contains("p:a:b seq 1") && told.contains("key old") && told.contains("keys"), "{told}");
    assert_eq!(read(&mut backend, &kept), Ok(5));
    write(&mut backend, &lost, 11, 12);
    // Recall and retention look at no body.
    let mut outcomes = Vec::new();
    backend.commit(&mut vec![Write::Recall { conversation: lost.clone(), seq: Seq(5), by: user("a") }], &mut outcomes);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    backend.shared.backlog.wait().unwrap();
    assert_eq!(backend.prune(Millis(1_005), 100), Ok(4));
    assert_eq!(read(&mut backend, &lost), Ok(3));
}

#[test]
fn a_failed_commit_under_a_key_leaves_a_store_that_works() {
    let line = new_key_line("k").unwrap();
    let vault = Vault::new(&[&line]);
    let one = private("a", "b");
    let mut backend = vault.open().unwrap();
    write(&mut backend, &one, 1, 5);
    backend.log.fails = true;
    let draft = message(&one, Some("a"), Some("6"), 1_006);
    let mut outcomes = Vec::new();
    backend.commit(
        &mut vec![Write::Append(Box::new(Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false }))],
        &mut outcomes,
    );
    assert!(outcomes[0].is_err());
    while backend.failed.is_some() {
        std::thread::sleep(Duration::from_millis(20));
        backend.tend();
    }
    write(&mut backend, &one, 6, 8);
    assert_eq!(read(&mut backend, &one), Ok(8));
}

const MARKER: &str = "marker-of-a-body-7f3a";
