//! What searching costs: one conversation of many messages, words of every frequency, newest first, alone and beside a steady
//! stream of writes; and how fast the index follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corehub::store::{Backend, EmbeddedBackend, EmbeddedSettings, ReadSide, SearchLag};
use corehub::types::record::MessageType;
use corehub::types::storage::{Answer, Append, Read, Write};
use corehub::types::{ConversationId, Message, MessageId, MessageKind, Millis, RawJson, Seq, SessionId, UserId};

pub fn run(messages: u64) {
    let folder = tempfile::tempdir_in(".").expect("a writable folder");
    let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).expect("an empty folder");
    let lag = backend.search_lag().expect("there is an index");
    let mut made = 0;
    let begun = Instant::now();
    let mut worst_lag = 0;
    while made < messages {
        let count = 512.min(messages - made);
        commit(&mut backend, &mut made, count);
        worst_lag = worst_lag.max(lag().messages);
    }
    let written = begun.elapsed();
    wait(&lag);
    let followed = begun.elapsed();
    let rate = |time: Duration| made as f64 / time.as_secs_f64();
    println!("{made} messages: {:.0} msg/s written at full speed, {:.0} msg/s indexed,", rate(written), rate(followed));
    println!(
        "worst lag {worst_lag} messages, index {} MiB, store {} MiB",
        size(folder.path(), "search"),
        size(folder.path(), "store")
    );

    let reads = backend.read_side().expect("it can be read beside the writer");
    println!("\n{:>28} {:>8} {:>9} {:>9} {:>9}", "alone", "found", "p50 ms", "p99 ms", "worst ms");
    QUERIES.iter().for_each(|query| measure(&*reads, query));

    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::scope(|scope| {
        let (ask, backend, made) = (stop.clone(), &mut backend, &mut made);
        let writer = scope.spawn(move || {
            let (begun, before) = (Instant::now(), *made);
            let mut worst = 0;
            while !ask.load(Ordering::Relaxed) {
                commit(backend, made, 100);
                worst = worst.max(backend.search_lag().expect("there is an index")().messages);
                let due = Duration::from_micros((*made - before) * 1_000_000 / STREAM_RATE);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            ((*made - before) as f64 / begun.elapsed().as_secs_f64(), worst)
        });
        std::thread::sleep(Duration::from_secs(5));
        println!("\n{:>28} {:>8} {:>9} {:>9} {:>9}", "beside writes", "found", "p50 ms", "p99 ms", "worst ms");
        QUERIES.iter().for_each(|query| measure(&*reads, query));
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("it writes")
    });
    println!("{:.0} msg/s meanwhile, worst lag {} messages", writing.0, writing.1);
    drop(backend);

    std::fs::remove_dir_all(folder.path().join("search")).expect("it is there");
    let begun = Instant::now();
    let backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).expect("just closed");
    let opened = begun.elapsed();
    wait(&backend.search_lag().expect("there is an index"));
    println!(
        "opened in {:.0} ms, index made again at {:.0} msg/s",
        opened.as_secs_f64() * 1e3,
        made as f64 / begun.elapsed().as_secs_f64()
    );
}

fn measure(reads: &dyn ReadSide, query: &str) {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        let read = Read::Search {
            user: user("a"),
            query: query.to_owned(),
            conversation: None,
            whole_groups: false,
            limit: 50,
            cursor: None,
        };
        let begun = Instant::now();
        let Ok(Answer::Found { messages, .. }) = reads.read(&read) else { panic!("not searched") };
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        found = messages.len();
    }
    times.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{query:>28} {found:>8} {:>9.2} {:>9.2} {:>9.2}", at(0.5), at(0.99), at(1.0));
}

/// Twelve words: one in all messages, some in one of ten, a hundred, and a hundred thousand.
fn commit(backend: &mut EmbeddedBackend, made: &mut u64, count: u64) {
    let mut writes = Vec::new();
    for _ in 0..count {
        *made += 1;
        let number = *made;
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let words = [random >> 20, random >> 30, random >> 40].map(|word| word % 20_000);
        let mut text = format!(
            "common half{} tenth{} 明天开会议吗 word{} word{} word{}",
            number % 2,
            number % 10,
            words[0],
            words[1],
            words[2]
        );
        if number % 100_000 == 77 {
            text.push_str(" rare 季度总结");
        }
        let at = 1_734_567_890_000 + number;
        let message = Message {
            conversation: ConversationId::private(&user("a"), &user("b")),
            seq: Seq::NONE,
            id: MessageId::from_parts(at, u128::from(random)),
            sender: Some(user("a")),
            origin: SessionId(7),
            client_id: None,
            kind: MessageKind::Chat(MessageType::Text),
            content: RawJson::string(&text),
            created_at: Millis(at),
            extra: None,
        };
        writes.push(Write::Append(Box::new(Append {
            message,
            head: Some(Seq(number - 1)),
            dedupe_since: Millis(0),
            repeat_only: false,
        })));
    }
    let mut outcomes = Vec::new();
    backend.commit(&mut writes, &mut outcomes);
    assert!(outcomes.iter().all(Result::is_ok), "all are new");
}

fn wait(lag: &impl Fn() -> SearchLag) {
    while lag() != SearchLag::default() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a good id")
}

fn size(folder: &std::path::Path, part: &str) -> u64 {
    fn bytes(folder: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().map_or(0, |file| file.len()) })
            .sum()
    }
    bytes(&folder.join(part)) >> 20
}

const QUERIES: [&str; 9] =
    ["common", "half1 tenth3", "rare", "common rare", "word7", "word7 word8", "会议", "季度总结", "common nowhere"];
const ROUNDS: usize = 200;
/// Messages per second beside which is searched.
const STREAM_RATE: u64 = 20_000;
