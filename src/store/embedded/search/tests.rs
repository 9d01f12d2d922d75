//! Proves that the index finds what the log holds, whatever happens to the index, and that it never decides what is seen.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::store::conformance::{self, message, private, user};
use crate::store::embedded::tests::copy;
use crate::store::embedded::{EmbeddedBackend, EmbeddedSettings, SearchLag, SearchSettings, new_key_line};
use crate::store::{Backend, Outcome};
use crate::types::record::RawJson;
use crate::types::storage::{Answer, Append, Read, StoreFault, Write};
use crate::types::{ConversationId, MessageId, Millis, Seq};

/// Returns when there is an index.
fn wait_for_an_empty_index(backend: &EmbeddedBackend) {
    let begun = Instant::now();
    while !backend.shared.search.as_ref().unwrap().has_index() {
        assert!(begun.elapsed() < PATIENCE, "there is no index");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns when the index has all that was committed.
pub fn wait_for_index(backend: &EmbeddedBackend) {
    let begun = Instant::now();
    while !indexed(backend) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "gave up waiting for the index: {:?}",
            backend.search_lag().unwrap()()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn indexed(backend: &EmbeddedBackend) -> bool {
    backend.shared.backlog.wait().unwrap();
    let search = backend.shared.search.as_ref().unwrap();
    let state = search.state();
    let tail_is_empty = state.tail.as_ref().is_some_and(|tail| tail.is_empty());
    drop(state);
    tail_is_empty && search.has_index() && backend.search_lag().unwrap()() == SearchLag::default()
}

fn open(path: &Path) -> EmbeddedBackend {
    let search = SearchSettings { commit_every: Duration::from_millis(1), ..SearchSettings::default() };
    EmbeddedBackend::open(EmbeddedSettings { search: Some(search), ..EmbeddedSettings::new(path) }).unwrap()
}

fn commit(backend: &mut EmbeddedBackend, mut writes: Vec<Write>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    backend.commit(&mut writes, &mut outcomes);
    outcomes
}

fn say(conversation: &ConversationId, number: u64, content: &str) -> Write {
    let mut draft = message(conversation, Some("b"), None, 1_000 + number);
    draft.id = MessageId(u128::from(number));
    draft.content = RawJson::string(content);
    Write::Append(Box::new(Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false }))
}

/// The `seq`s of all pages.
fn found(backend: &mut EmbeddedBackend, query: &str, limit: u32) -> Vec<u64> {
    let (mut seqs, mut cursor) = (Vec::new(), None);
    loop {
        let read =
            Read::Search { user: user("a"), query: query.to_owned(), conversation: None, whole_groups: false, limit, cursor };
        match backend.read(&read) {
            Ok(Answer::Found { messages, next }) => {
                seqs.extend(messages.iter().map(|message| message.seq.0));
                cursor = next;
            }
            other => panic!("{other:?}"),
        }
        if cursor.is_none() {
            return seqs;
        }
    }
}

/// Fills a conversation with `count` messages; every hundredth has a word of its own.
fn fill(backend: &mut EmbeddedBackend, conversation: &ConversationId, count: u64) {
    for from in (1..=count).step_by(500) {
        let content = |number: u64| if number.is_multiple_of(100) { format!("common rare{number}") } else { "common".to_owned() };
        let writes = (from..=count.min(from + 499)).map(|number| say(conversation, number, &content(number))).collect();
        assert!(commit(backend, writes).iter().all(Result::is_ok));
    }
}

/// A backend whose searches wait until the index has everything, when there is one.
struct Indexed {
    backend: EmbeddedBackend,
    _folder: tempfile::TempDir,
}

impl Backend for Indexed {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        self.backend.commit(writes, outcomes);
    }

    fn read(&mut self, read: &Read) -> Outcome {
        if matches!(read, Read::Search { .. }) && self.backend.search_lag().is_some() {
            wait_for_index(&self.backend);
        }
        self.backend.read(read)
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        self.backend.prune(before, messages_max)
    }

    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        self.backend.expire(first_uses_before, entries_max)
    }
}

#[test]
fn embedded_conforms_with_everything_indexed() {
    conformance::suite(|| {
        let folder = tempfile::tempdir().unwrap();
        Box::new(Indexed { backend: open(folder.path()), _folder: folder })
    });
}

#[test]
fn embedded_conforms_without_an_index() {
    conformance::suite(|| {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { search: None, ..EmbeddedSettings::new(folder.path()) };
        let backend = EmbeddedBackend::open(settings).unwrap();
        assert!(backend.search_lag().is_none());
        Box::new(Indexed { backend, _folder: folder })
    });
}

#[test]
fn what_was_just_committed_is_found_at_once_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, conversation) = (open(folder.path()), private("a", "b"));
    for number in 1..=200 {
        commit(&mut backend, vec![say(&conversation, number, "common")]);
        // The indexer is somewhere between.
        assert_eq!(found(&mut backend, "common", 1_000), (1..=number).rev().collect::<Vec<_>>());
    }
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "common", 7), (1..=200).rev().collect::<Vec<_>>());
}

#[test]
fn an_index_goes_on_where_it_was_and_a_lost_one_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 2_000);
    wait_for_index(&backend);
    drop(backend);
    let mut backend = open(folder.path());
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "rare1900", 10), [1_900]);
    commit(&mut backend, vec![say(&conversation, 2_001, "rare2001 common")]);
    wait_for_index(&backend);
    drop(backend);

    std::fs::remove_dir_all(folder.path().join("search")).unwrap();
    let mut backend = open(folder.path());
    assert_eq!(found(&mut backend, "rare2001", 10), [2_001], "without waiting");
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "rare100", 10), [100]);
    assert_eq!(found(&mut backend, "common", 100).len(), 2_001);
}

/// Everything of a store with an index; then `harm` is done to the index's folder, and it must still be found.
fn survives(harm: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    fill(&mut backend, &private("a", "b"), 1_000);
    wait_for_index(&backend);
    drop(backend);
    harm(&folder.path().join("search"));
    let mut backend = open(folder.path());
    for _ in 0..3 {
        assert_eq!(found(&mut backend, "rare300", 10), [300]);
        wait_for_index(&backend);
    }
    let files = std::fs::read_dir(folder.path().join("search")).unwrap().count();
    assert!(files > 5, "there is an index again");
}

fn each_file(folder: &Path, harm: impl Fn(&Path)) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| std::fs::metadata(file).unwrap().len() > 0).for_each(|file| harm(&file));
}

#[test]
fn a_file_that_is_too_short_is_told_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    fill(&mut backend, &private("a", "b"), 300);
    wait_for_index(&backend);
    drop(backend);
    let search = folder.path().join("search");
    let memory_bytes = SearchSettings::default().memory_bytes;
    assert!(matches!(super::index::Index::open(&search, memory_bytes), Ok(Some(_))), "whole");
    each_file(&search, |file| {
        if file.extension().is_some_and(|kind| kind == "store") {
            std::fs::File::options().write(true).open(file).unwrap().set_len(5).unwrap();
        }
    });
    assert!(super::index::Index::open(&search, memory_bytes).is_err());
}

#[test]
fn a_damaged_or_foreign_index_is_made_anew() {
    survives(|folder| each_file(folder, |file| std::fs::write(file, b"this is no index").unwrap()));
    survives(|folder| each_file(folder, |file| std::fs::File::options().write(true).open(file).unwrap().set_len(7).unwrap()));
    survives(|folder| std::fs::write(folder.join("meta.json"), b"{}").unwrap());
    survives(|folder| std::fs::remove_file(folder.join("meta.json")).unwrap());
    survives(|folder| {
        let parts = |file: &Path| file.extension().is_some_and(|extension| extension != "json" && extension != "lock");
        each_file(folder, |file| {
            if parts(file) {
                std::fs::remove_file(file).unwrap();
            }
        });
    });
    // Another store's: its cursor lies ahead.
    survives(|folder| {
        let other = tempfile::tempdir().unwrap();
        let mut backend = open(other.path());
        fill(&mut backend, &private("x", "y"), 3_000);
        wait_for_index(&backend);
        drop(backend);
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::rename(other.path().join("search"), folder).unwrap();
    });
}

#[test]
fn flipped_bits_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    fill(&mut backend, &private("a", "b"), 1_000);
    wait_for_index(&backend);
    drop(backend);
    let index = folder.path().join("search");
    let parts: Vec<_> = std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path()).collect();
    let terms = parts.iter().filter(|file| file.extension().is_some_and(|extension| extension != "json" && extension != "lock"));
    let largest = terms.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    bytes[20..40].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(largest, bytes).unwrap();
    let mut backend = open(folder.path());
    let begun = Instant::now();
    // It is wrong until its checksum was looked at.
    while largest.exists() {
        assert!(begun.elapsed() < PATIENCE, "nobody noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(found(&mut backend, "rare300", 10), [300]);
}

#[test]
fn a_recalled_message_leaves_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, conversation) = (open(folder.path()), private("a", "b"));
    // What comes while an index is made may be in it twice, and this counts.
    wait_for_an_empty_index(&backend);
    fill(&mut backend, &conversation, 1_000);
    wait_for_index(&backend);
    let documents = |backend: &EmbeddedBackend| backend.shared.search.as_ref().unwrap().documents();
    assert_eq!(documents(&backend), 1_000);
    commit(&mut backend, vec![Write::Recall { conversation: conversation.clone(), seq: Seq(500), by: user("b") }]);
    assert!(found(&mut backend, "rare500", 10).is_empty(), "at once");
    let begun = Instant::now();
    while documents(&backend) != 999 {
        assert!(begun.elapsed() < PATIENCE, "it stays in the index");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(found(&mut backend, "common", 300).len(), 999);
    backend.shared.backlog.wait().unwrap();
    assert_eq!(backend.prune(Millis(1_000 + 400), 2_000), Ok(399));
    assert_eq!(found(&mut backend, "common", 300).len(), 600);
}

#[test]
fn turning_the_index_off_and_on_again_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 500);
    wait_for_index(&backend);
    drop(backend);
    let mut backend = EmbeddedBackend::open(EmbeddedSettings { search: None, ..EmbeddedSettings::new(folder.path()) }).unwrap();
    commit(&mut backend, vec![say(&conversation, 501, "between")]);
    assert_eq!(found(&mut backend, "between", 10), [501]);
    drop(backend);
    let mut backend = open(folder.path());
    commit(&mut backend, vec![say(&conversation, 502, "after")]);
    wait_for_index(&backend);
    assert_eq!((found(&mut backend, "between", 10), found(&mut backend, "after", 10)), (vec![501], vec![502]));
}

#[test]
fn crashes_around_a_moment_without_an_index_miss_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one", "two", "three"].map(|name| folder.path().join(name));
    let conversation = private("a", "b");
    let search = SearchSettings { commit_every: Duration::from_secs(3_600), ..SearchSettings::default() };
    let settings = EmbeddedSettings { search: Some(search), ..EmbeddedSettings::new(&paths[0]) };
    let mut backend = EmbeddedBackend::open(settings).unwrap();
    wait_for_an_empty_index(&backend);
    fill(&mut backend, &conversation, 200);
    copy(&paths[0], &paths[1]);
    drop(backend);
    // The index is empty, and what it lacks is named by lists, which whoever does without an index forgets.
    let without = EmbeddedBackend::open(EmbeddedSettings { search: None, ..EmbeddedSettings::new(&paths[1]) }).unwrap();
    copy(&paths[1], &paths[2]);
    drop(without);
    let mut backend = open(&paths[2]);
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "rare100", 10), [100]);
    assert_eq!(found(&mut backend, "common", 100).len(), 200);
}

#[test]
fn a_match_at_the_beginning_of_a_block_hides_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, conversation) = (open(folder.path()), private("a", "b"));
    const BLOCK: u64 = 1 << 16;
    for from in (1..=BLOCK + 2).step_by(4_096) {
        let content = |number: u64| if [7, BLOCK - 9, BLOCK, BLOCK + 1].contains(&number) { "needle" } else { "hay" };
        let writes = (from..=(BLOCK + 2).min(from + 4_095)).map(|number| say(&conversation, number, content(number))).collect();
        assert!(commit(&mut backend, writes).iter().all(Result::is_ok));
    }
    wait_for_index(&backend);
    for limit in [10, 1] {
        assert_eq!(found(&mut backend, "needle", limit), [BLOCK + 1, BLOCK, BLOCK - 9, 7], "{limit} on a page");
    }
}

#[test]
fn retention_is_not_ahead_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, conversation) = (open(folder.path()), private("a", "b"));
    let day = 24 * 60 * 60 * 1_000;
    for at in 1..=6 {
        commit(&mut backend, vec![say(&conversation, at * day, "needle")]);
    }
    wait_for_index(&backend);
    // Prolonged again before more than two of them have gone.
    backend.shared.backlog.wait().unwrap();
    assert_eq!(backend.prune(Millis(5 * day), 2), Ok(2));
    commit(&mut backend, vec![say(&conversation, 7 * day, "needle")]);
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "needle", 10), [7, 6, 5, 4, 3]);
}

#[test]
fn retention_takes_from_the_index_what_is_gone_from_the_log_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mut backend, conversation) = (open(folder.path()), private("a", "b"));
    let day = 24 * 60 * 60 * 1_000;
    // What comes while an index is made may be in it twice, and this counts.
    wait_for_an_empty_index(&backend);
    // The clock was ahead by days and stepped back: what came after is kept as long as what came before.
    for at in [2 * day, 9 * day, 3 * day, 4 * day] {
        commit(&mut backend, vec![say(&conversation, at, "needle")]);
        // One by one: what the index is told together, it keeps as long as the one of them that stays longest.
        wait_for_index(&backend);
    }
    let documents = |backend: &EmbeddedBackend| backend.shared.search.as_ref().unwrap().documents();
    assert_eq!(documents(&backend), 4);
    backend.shared.backlog.wait().unwrap();
    assert_eq!(backend.prune(Millis(6 * day), 100), Ok(1));
    commit(&mut backend, vec![say(&conversation, 10 * day, "needle")]);
    wait_for_index(&backend);
    let begun = Instant::now();
    while documents(&backend) != 4 {
        assert!(begun.elapsed() < PATIENCE, "{} messages in the index", documents(&backend));
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for_index(&backend);
    assert_eq!(found(&mut backend, "needle", 10), [5, 4, 3, 2]);
}

#[test]
fn many_conversations_are_merged_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    let partners: Vec<ConversationId> = (0..40).map(|number| private("a", &format!("partner{number}"))).collect();
    let needle = |number: &u64| number.is_multiple_of(3);
    for from in (0..600).step_by(30) {
        let content = |number: u64| if needle(&number) { "needle hay" } else { "hay" };
        let writes = (from..from + 30).map(|number| say(&partners[(number * 7_919 % 40) as usize], number, content(number)));
        commit(&mut backend, writes.collect());
    }
    let expected: Vec<u64> = (0..600).filter(needle).map(|number| 1_000 + number).rev().collect();
    for wait in [false, true] {
        if wait {
            wait_for_index(&backend);
        }
        for limit in [1, 50, 200] {
            let (mut times, mut cursor) = (Vec::new(), None);
            loop {
                let read = Read::Search {
                    user: user("a"),
                    query: "needle".into(),
                    conversation: None,
                    whole_groups: false,
                    limit,
                    cursor,
                };
                let Ok(Answer::Found { messages, next }) = backend.read(&read) else { panic!("not found") };
                times.extend(messages.iter().map(|message| message.created_at.0));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(times, expected, "pages of {limit}");
        }
    }
}

#[test]
fn sealed_bodies_have_no_index() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut backend, conversation) = (open(&data), private("a", "b"));
    commit(&mut backend, vec![say(&conversation, 1, "before 会议")]);
    wait_for_index(&backend);
    drop(backend);
    assert!(data.join("search").exists());
    let keys = folder.path().join("keys");
    std::fs::write(&keys, new_key_line("one").unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = EmbeddedSettings { encryption_key_file: Some(keys), ..EmbeddedSettings::new(&data) };
    let mut backend = EmbeddedBackend::open(settings).unwrap();
    commit(&mut backend, vec![say(&conversation, 2, "sealed 会议")]);
    assert_eq!(found(&mut backend, "会议", 10), [2, 1]);
    assert!(backend.search_lag().is_none() && !data.join("search").exists(), "no plain words on disk");
}

/// The index is made by a thread that is nice, and that waits after a fault.
const PATIENCE: Duration = Duration::from_secs(120);
