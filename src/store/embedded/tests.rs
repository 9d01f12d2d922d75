//! Proves what only a store on disk has to do: to come back, to refuse, to fail without lying.

use std::path::Path;

use super::*;
use crate::store::conformance::{self, device, group, message, private, range, user};
use crate::types::record::{Delivery, Group, Member, MessageExtra, RawJson, Role};
use crate::types::storage::{Answer, Append, GroupChange, RangeQuery};
use crate::types::{ConversationId, MessageId, Seq};

pub(super) fn open(path: &Path) -> EmbeddedBackend {
    open_with(path, Durability::Commit).unwrap()
}

pub(super) fn open_with(path: &Path, durability: Durability) -> Result<EmbeddedBackend, StoreOpenFault> {
    EmbeddedBackend::open(EmbeddedSettings { durability, ..EmbeddedSettings::new(path) })
}

fn refusal(path: &Path) -> String {
    match EmbeddedBackend::open(EmbeddedSettings::new(path)) {
        Ok(_) => panic!("opened"),
        Err(fault) => fault.to_string(),
    }
}

/// A backend whose folder goes with it.
pub(super) struct Temporary<F> {
    pub backend: EmbeddedBackend,
    pub _folder: F,
}

impl<F: Send> Backend for Temporary<F> {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        self.backend.commit(writes, outcomes);
    }

    fn read(&mut self, read: &Read) -> Outcome {
        self.backend.read(read)
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        self.backend.prune(before, messages_max)
    }

    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        self.backend.expire(first_uses_before, entries_max)
    }
}

fn conforms(durability: Durability) {
    conformance::suite(|| {
        let folder = tempfile::tempdir().unwrap();
        Box::new(Temporary { backend: open_with(folder.path(), durability).unwrap(), _folder: folder })
    });
}

#[test]
fn embedded_conforms() {
    conforms(Durability::Commit);
}

#[test]
fn embedded_conforms_in_memory_durability() {
    conforms(Durability::Memory);
}

pub(super) fn commit(backend: &mut EmbeddedBackend, mut writes: Vec<Write>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    backend.commit(&mut writes, &mut outcomes);
    outcomes
}

pub(super) fn append(conversation: &ConversationId, number: u64) -> Write {
    let mut draft = message(conversation, Some("a"), Some(&number.to_string()), 1_000 + number);
    draft.id = MessageId(u128::from(number));
    draft.content = RawJson::string(&format!("message {number}"));
    Write::Append(Box::new(Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false }))
}

/// Appends messages `from` to `to`, each its own commit.
pub(super) fn fill(backend: &mut EmbeddedBackend, conversation: &ConversationId, from: u64, to: u64) {
    for number in from..=to {
        let outcome = commit(backend, vec![append(conversation, number)]).remove(0);
        assert!(matches!(outcome, Ok(Answer::Appended(_))), "{outcome:?}");
    }
}

pub(super) fn contents(backend: &mut EmbeddedBackend, conversation: &ConversationId) -> Result<Vec<String>, StoreFault> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        match backend.read(&Read::Range(RangeQuery { limit: 10_000, after, ..range(conversation) }))? {
            Answer::Range(page) => {
                found.extend(page.messages.iter().map(|message| message.content.as_str().to_owned()));
                after = page.messages.last().map(|message| message.seq);
                if !page.has_more {
                    return Ok(found);
                }
            }
            other => panic!("no page: {other:?}"),
        }
    }
}

pub(super) fn expected(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("\"message {number}\"")).collect()
}

/// What a crash at this moment would leave. The index and the tables replace files beside it, so a listed file may be gone:
/// whoever needs it after that is not the one that a crash would have left.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => match std::fs::copy(entry.path(), to.join(entry.file_name())) {
                Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

/// Something of every kind.
pub(super) fn populate(backend: &mut EmbeddedBackend) {
    let (one, room) = (private("a", "b"), ConversationId::group(&group("g")));
    fill(backend, &one, 1, 40);
    let record = Group { id: group("g"), name: "title".into(), open: true, created_at: Millis(5) };
    let member = |name: &str, role| Member { user: user(name), role, joined_seq: Seq(0), joined_at: Millis(7) };
    let members_put = vec![member("z", Role::Owner), member("a", Role::Member), member("m", Role::Admin)];
    let change =
        GroupChange { group: group("g"), record: Some(record), members_put, members_removed: vec![user("m")], delete: false };
    let mut mentioning = message(&room, Some("z"), None, 5);
    mentioning.id = MessageId(1_000);
    mentioning.extra = Some(Box::new(MessageExtra { loss_time_ms: Some(9), ..MessageExtra::default() }));
    let delivery = Delivery { user: user("a"), device: device("d"), conversation: one.clone(), seq: Seq(8) };
    let outcomes = commit(
        backend,
        vec![
            Write::Group(Box::new(change)),
            Write::Append(Box::new(Append { message: mentioning, head: None, dedupe_since: Millis(0), repeat_only: false })),
            Write::Device { user: user("a"), device: device("d"), at: Millis(5), deliveries: vec![delivery] },
            Write::MarkRead { user: user("b"), conversation: one.clone(), seq: Seq(20) },
            Write::Recall { conversation: one.clone(), seq: Seq(30), by: user("a") },
            Write::Hide { user: user("a"), conversation: one.clone(), seq: Seq(31) },
            Write::LastSeen { user: user("a"), at: Millis(77) },
        ],
    );
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    backend.shared.backlog.wait().unwrap();
    assert_eq!(backend.prune(Millis(1_004), 100), Ok(4));
}

/// Everything that can be read of it.
pub(super) fn everything(backend: &mut EmbeddedBackend) -> Vec<String> {
    let (one, room) = (private("a", "b"), ConversationId::group(&group("g")));
    let mut reads = vec![
        Read::Group { group: group("g") },
        Read::Head { conversation: one.clone() },
        Read::Range(RangeQuery { viewer: Some(user("a")), ..range(&one) }),
        Read::Range(range(&room)),
        Read::LastSeen { users: vec![user("a"), user("b")] },
        Read::Locate { message_id: MessageId(17) },
        Read::Search {
            user: user("a"),
            query: "message".into(),
            conversation: None,
            whole_groups: false,
            limit: 100,
            cursor: None,
        },
    ];
    for name in ["a", "b", "z", "m"] {
        reads.push(Read::User { user: user(name), device: device("d"), recent_since: None });
        reads.push(Read::Unread { user: user(name) });
        reads.push(Read::Summaries { user: user(name), limit: 10, cursor: None });
    }
    reads.iter().map(|read| format!("{:?}", backend.read(read).unwrap())).collect()
}

#[test]
fn everything_comes_back() {
    for crash in [false, true] {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut backend = open(folder.path());
        populate(&mut backend);
        let before = everything(&mut backend);
        assert!(before[0].contains("Owner") && before[2].contains("seq: Seq(30)"), "{before:?}");
        let path = if crash {
            copy(folder.path(), elsewhere.path());
            elsewhere.path()
        } else {
            folder.path()
        };
        drop(backend);
        let mut backend = open(path);
        assert_eq!(everything(&mut backend), before);
        // And goes on where it was.
        assert!(matches!(
            commit(&mut backend, vec![append(&private("a", "c"), 40)])[0],
            Ok(Answer::Duplicate { seq: Seq(40), .. })
        ));
        match &commit(&mut backend, vec![append(&private("a", "b"), 41)])[0] {
            Ok(Answer::Appended(message)) => assert_eq!(message.seq, Seq(41)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_crash_at_any_moment_keeps_what_was_acknowledged() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    for round in 0..5 {
        fill(&mut backend, &conversation, round * 20 + 1, round * 20 + 20);
        let path = elsewhere.path().join(round.to_string());
        copy(folder.path(), &path);
        assert_eq!(contents(&mut open(&path), &conversation), Ok(expected(round * 20 + 20)));
    }
}

#[test]
fn damage_in_a_table_is_told_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 1, 200);
    let flushed = |backend: &EmbeddedBackend| {
        backend.shared.backlog.wait().unwrap();
        let tables = backend.shared.tables.read().unwrap();
        for space in [Space::Messages, Space::Conversations] {
            tables.as_ref().unwrap().keyspace(space).rotate_memtable_and_wait().unwrap();
        }
        tables.as_ref().unwrap().keyspace(Space::Messages).path().join("tables")
    };
    let tables = flushed(&backend);
    drop(backend);
    let table = std::fs::read_dir(tables).unwrap().map(|entry| entry.unwrap().path()).next().expect("a table was written");
    let whole = std::fs::read(&table).unwrap();
    let mut told = 0;
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        std::fs::write(&table, &bytes).unwrap();
        match open_with(folder.path(), Durability::Commit) {
            Ok(mut backend) => match contents(&mut backend, &conversation) {
                Ok(found) => assert_eq!(found, expected(200), "at {at}"),
                Err(_) => told += 1,
            },
            Err(_) => told += 1,
        }
    }
    assert!(told > 20, "{told}");
    std::fs::write(&table, &whole).unwrap();
    assert_eq!(contents(&mut open(folder.path()), &conversation), Ok(expected(200)));
}

#[test]
fn a_damaged_record_stops_its_conversation_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    let (one, other) = (private("a", "b"), private("a", "c"));
    fill(&mut backend, &one, 1, 3);
    fill(&mut backend, &other, 4, 6);
    {
        backend.shared.backlog.wait().unwrap();
        let tables = backend.shared.tables.read().unwrap();
        let messages = tables.as_ref().unwrap().keyspace(Space::Messages);
        let key = keys::message(1, Seq(2));
        let mut bytes = messages.get(&key).unwrap().unwrap().to_vec();
        bytes[9] ^= 1;
        messages.insert(key, bytes).unwrap();
    }
    let fault = contents(&mut backend, &one).unwrap_err().to_string();
    assert!(fault.contains("p:a:b seq 2") && fault.contains("--repair"), "{fault}");
    assert_eq!(contents(&mut backend, &other).unwrap().len(), 3);
    let recall = Write::Recall { conversation: one.clone(), seq: Seq(2), by: user("a") };
    let outcomes = commit(&mut backend, vec![recall, append(&other, 7)]);
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
}

#[test]
fn a_failed_write_leaves_nothing_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    let one = private("a", "b");
    fill(&mut backend, &one, 1, 3);
    {
        backend.shared.backlog.wait().unwrap();
        let tables = backend.shared.tables.read().unwrap();
        tables.as_ref().unwrap().keyspace(Space::Rows).insert(keys::row(&user("b"), &private("b", "x")), b"junk").unwrap();
    }
    // The first message is put before its rows are made; the second row cannot be read.
    let outcomes = commit(&mut backend, vec![append(&one, 4), append(&private("b", "x"), 5), append(&one, 6)]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok(), "{outcomes:?}");
    assert!(matches!(backend.read(&Read::Head { conversation: private("b", "x") }), Ok(Answer::Head(Seq::NONE))));
    assert!(matches!(backend.read(&Read::Locate { message_id: MessageId(5) }), Ok(Answer::Located(None))));
    assert!(matches!(backend.read(&Read::Head { conversation: one }), Ok(Answer::Head(Seq(5)))));
}

/// Tries until the store works again; it looks at its disk twice a second.
fn recovered(backend: &mut EmbeddedBackend) {
    while backend.failed.is_some() {
        std::thread::sleep(Duration::from_millis(20));
        backend.tend();
    }
}

#[test]
fn a_commit_that_failed_is_acknowledged_never() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    fill(&mut backend, &conversation, 1, 5);
    let reader = backend.read_side().unwrap();
    backend.log.fails = true;
    let outcomes = commit(&mut backend, vec![append(&conversation, 6), append(&conversation, 1), append(&conversation, 7)]);
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    let retry_at = backend.failed.as_ref().unwrap().retry_at;
    backend.failed.as_mut().unwrap().retry_at += PATIENCE;
    let outcomes = commit(&mut backend, vec![append(&conversation, 6)]);
    backend.failed.as_mut().unwrap().retry_at = retry_at;
    assert!(outcomes[0].is_err(), "not before the database was opened anew: {outcomes:?}");
    assert!(matches!(reader.read(&Read::Head { conversation: conversation.clone() }), Ok(Answer::Head(_))), "reads go on");
    recovered(&mut backend);
    assert_eq!(contents(&mut backend, &conversation), Ok(expected(5)), "what failed is not there");
    assert!(matches!(reader.read(&Read::Head { conversation: conversation.clone() }), Ok(Answer::Head(Seq(5)))));
    fill(&mut backend, &conversation, 6, 8);
    drop(backend);
    assert_eq!(contents(&mut open(folder.path()), &conversation), Ok(expected(8)));
}

#[test]
fn readers_never_see_an_end_before_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_with(folder.path(), Durability::Memory).unwrap();
    let conversations: Vec<ConversationId> = (0..4).map(|place| private("a", &format!("b{place}"))).collect();
    let acknowledged: Vec<AtomicU64> = conversations.iter().map(|_| AtomicU64::new(0)).collect();
    let (reader, ended) = (backend.read_side().unwrap(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    for (conversation, acknowledged) in conversations.iter().zip(&acknowledged) {
                        let least = acknowledged.load(Ordering::Acquire);
                        let read = reader.read(&Read::Head { conversation: conversation.clone() });
                        assert!(matches!(read, Ok(Answer::Head(head)) if head.0 >= least), "{read:?} after {least}");
                    }
                }
            });
        }
        for number in 1..=300 {
            // Client ids of their own: a repeat would be answered, not written.
            let writes = conversations.iter().zip(0..).map(|(conversation, place)| append(conversation, 4 * number + place));
            let outcomes = commit(&mut backend, writes.collect());
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Answer::Appended(_)))), "{outcomes:?}");
            acknowledged.iter().for_each(|acknowledged| acknowledged.store(number, Ordering::Release));
        }
        ended.store(true, Ordering::Release);
    });
}

#[test]
fn an_end_newer_than_the_view_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open(folder.path());
    let conversation = private("a", "b");
    fill(&mut backend, &conversation, 1, 5);
    let shared = backend.shared.clone();
    backend.shared.backlog.wait().unwrap();
    let tables = shared.tables.read().unwrap();
    let view = tables.as_ref().unwrap().view();
    fill(&mut backend, &conversation, 6, 9);
    shared.backlog.wait().unwrap();
    let user = user("b");
    let reads = [
        Read::User { user: user.clone(), device: device("new"), recent_since: Some(Millis(0)) },
        Read::Summaries { user: user.clone(), limit: 10, cursor: None },
        Read::Unread { user: user.clone() },
        Read::Search { user, query: "message".to_owned(), conversation: None, whole_groups: false, limit: 10, cursor: None },
        Read::Range(range(&conversation)),
    ];
    for read in reads {
        let answer = view.read(&read, None);
        assert!(answer.is_ok(), "{read:?}: {answer:?}");
    }
    assert!(matches!(view.read(&Read::Head { conversation }, None), Ok(Answer::Head(Seq(9)))));
}

#[test]
fn memory_durability_reaches_the_disk_when_tended() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = open_with(folder.path(), Durability::Memory).unwrap();
    fill(&mut backend, &private("a", "b"), 1, 5);
    assert!(backend.log.synced() < backend.number);
    backend.tend();
    assert_eq!(backend.log.synced(), backend.number);
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(folder.path());
    let fault = refusal(folder.path());
    assert!(fault.contains(&format!("process {}", std::process::id())) && fault.contains("store.path"), "{fault}");
    drop(backend);
    drop(open(folder.path()));
}

#[test]
fn a_newer_or_foreign_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let format = folder.path().join("corehub.format");
    std::fs::write(&format, "corehub data format 4\n").unwrap();
    let fault = refusal(folder.path());
    assert!(fault.contains("format 4") && fault.contains("up to 3") && fault.contains("newer version"), "{fault}");
    for text in ["", "something else", "corehub data format x"] {
        std::fs::write(&format, text).unwrap();
        assert!(refusal(folder.path()).contains("no format file"), "{text}");
    }
    std::fs::remove_file(&format).unwrap();
    assert!(refusal(folder.path()).contains("no format file"), "a database without a format is nobody's");
    std::fs::write(&format, "corehub data format 1\n").unwrap();
    drop(open(folder.path()));
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "corehub data format 3\n", "an older one is brought up to date");
}

/// Of files that may go meanwhile.
fn bytes_in(folder: &Path) -> u64 {
    let bytes = |entry: std::fs::DirEntry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        true => bytes_in(&entry.path()),
        false => entry.metadata().map_or(0, |found| found.len()),
    };
    std::fs::read_dir(folder).map_or(0, |entries| entries.map(|entry| bytes(entry.unwrap())).sum())
}

/// Lets a backend whose rewriter looks at every call do all it has to.
fn rest(backend: &mut EmbeddedBackend) {
    let mut quiet = 0;
    while quiet < 20 {
        backend.tend();
        quiet = if backend.shared.rewrites() { 0 } else { quiet + 1 };
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_is_forgotten_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let tables = folder.path().join("store").join("keyspaces");
    let conversation = private("a", "b");
    let mut settings = EmbeddedSettings::new(folder.path());
    settings.write_buffer_bytes = 1 << 20;
    let mut backend = EmbeddedBackend::open(settings).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for batch in 0..40 {
        let write = |number: u64| match append(&conversation, batch * 500 + number) {
            Write::Append(mut append) => {
                let content: String = (0..600).map(|_| random.alphanumeric()).collect();
                append.message.content = RawJson::string(&content);
                Write::Append(append)
            }
            other => other,
        };
        assert!(commit(&mut backend, (1..=500).map(write).collect()).iter().all(Result::is_ok));
    }
    let begun = std::time::Instant::now();
    while bytes_in(&tables) <= 20_000 * 600 {
        rest(&mut backend);
        assert!(begun.elapsed() < PATIENCE, "{} bytes hold them all", bytes_in(&tables));
    }
    let before = bytes_in(&tables);
    let mut pruned = 0;
    while pruned < 19_000 {
        pruned += backend.prune(Millis(1_000 + 19_001), 500).unwrap();
    }
    for _ in 0..40 {
        backend.expire(Millis(1_000 + 19_001), 2_000).unwrap();
    }
    let begun = std::time::Instant::now();
    while bytes_in(&tables) >= before / 5 {
        rest(&mut backend);
        assert!(begun.elapsed() < PATIENCE, "{before} bytes before, {} after", bytes_in(&tables));
    }
    drop(backend);
    let mut backend = open(folder.path());
    assert_eq!(contents(&mut backend, &conversation).unwrap().len(), 1_000);
    fill(&mut backend, &conversation, 20_001, 20_001);
}

#[test]
fn an_end_does_not_wait_for_space_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    for batch in 0..10 {
        let writes = (1..=1_000).map(|number| append(&conversation, batch * 1_000 + number)).collect();
        assert!(commit(&mut backend, writes).iter().all(Result::is_ok));
    }
    while backend.prune(Millis(1_000 + 9_001), 1_000).unwrap() > 0 {}
    while !backend.shared.rewrites() {
        backend.tend();
    }
    drop(backend);
    assert_eq!(contents(&mut open(folder.path()), &conversation).unwrap().len(), 1_000);
}

#[test]
fn a_damaged_message_holds_up_no_other_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (private("a", "b"), private("a", "c"));
    let mut backend = open(folder.path());
    fill(&mut backend, &one, 1, 5);
    fill(&mut backend, &other, 6, 9);
    {
        backend.shared.backlog.wait().unwrap();
        let tables = backend.shared.tables.read().unwrap();
        let tables = tables.as_ref().unwrap();
        tables.keyspace(Space::Messages).insert(keys::message(1, Seq(3)), b"damaged").unwrap();
    }
    for _ in 0..3 {
        backend.prune(Millis(9_000), 100).unwrap();
    }
    assert_eq!(contents(&mut backend, &other), Ok(vec![]));
    assert!(contents(&mut backend, &one).is_err(), "what cannot be read is not thrown away");
}

#[test]
fn a_path_that_cannot_be_used_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let fault = refusal(&file);
    assert!(fault.contains("store.path") && fault.contains("file"), "{fault}");
    assert!(refusal(&file.join("below")).contains("store.path"));
}

/// COREHUB_SMALL_DISK names a folder on a file system of about 100 MB that nobody else uses:
/// `mount -t tmpfs -o size=96m none FOLDER`.
#[test]
#[ignore = "needs a small file system, see its comment"]
fn a_full_disk_refuses_sends_serves_reads_and_recovers() {
    let disk = std::path::PathBuf::from(std::env::var_os("COREHUB_SMALL_DISK").expect("COREHUB_SMALL_DISK is set"));
    let folder = tempfile::tempdir_in(&disk).unwrap();
    let conversation = private("a", "b");
    let mut backend = open(folder.path());
    let mut acknowledged = 0;
    for round in 0..3 {
        fill(&mut backend, &conversation, acknowledged + 1, acknowledged + 50);
        acknowledged += 50;
        let ballast = disk.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 4_096]).is_ok() {}
        drop(file);
        // It is looked at again after a moment.
        std::thread::sleep(Duration::from_millis(100));
        // Room that was there before is used up, then nothing is acknowledged any more.
        while commit(&mut backend, vec![append(&conversation, acknowledged + 1)])[0].is_ok() {
            acknowledged += 1;
        }
        for _ in 0..5 {
            std::thread::sleep(RETRY_EVERY / 2);
            backend.tend();
            assert!(commit(&mut backend, vec![append(&conversation, acknowledged + 1)])[0].is_err());
            assert_eq!(contents(&mut backend, &conversation), Ok(expected(acknowledged)), "reads go on, round {round}");
        }
        std::fs::remove_file(&ballast).unwrap();
        recovered(&mut backend);
        assert_eq!(contents(&mut backend, &conversation), Ok(expected(acknowledged)));
    }
    drop(backend);
    assert_eq!(contents(&mut open(folder.path()), &conversation), Ok(expected(acknowledged)));
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
