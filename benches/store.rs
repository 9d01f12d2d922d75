//! What durable appends cost: the embedded store on the disk of the current folder, batch by batch, with the tables growing and
//! compacting meanwhile. Run with `cargo bench --bench store [-- MESSAGES]`; `-- search [MESSAGES]` measures searches in one
//! conversation of a million messages.

#[path = "measure/searches.rs"]
mod searches;

use std::time::{Duration, Instant};

use corehub::store::{Backend, EmbeddedBackend, EmbeddedSettings};
use corehub::types::record::MessageType;
use corehub::types::storage::{Answer, Append, RangeQuery, Read, Write};
use corehub::types::{
    ConversationId, DeviceId, Message, MessageId, MessageKind, Millis, RawJson, RequestId, Seq, SessionId, UserId,
};

fn main() {
    let number: Option<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    if std::env::args().any(|argument| argument == "search") {
        return searches::run(number.unwrap_or(1_000_000));
    }
    let messages = number.unwrap_or(400_000) as usize;
    println!(
        "{:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "batch", "messages", "msg/s", "p50 µs", "p99 µs", "worst µs", "RSS MiB"
    );
    for batch in [1, 16, 128, 1_024] {
        let folder = tempfile::tempdir_in(".").expect("a writable folder");
        let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).expect("an empty folder");
        let total = messages.min(batch * 20_000);
        let mut bench = Bench { made: 0, heads: vec![0; CONVERSATIONS] };
        let (mut times, mut outcomes) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while bench.made < total {
            let mut writes: Vec<Write> = (0..batch).map(|_| bench.append()).collect();
            let started = Instant::now();
            backend.commit(&mut writes, &mut outcomes);
            times.push(started.elapsed());
            assert!(outcomes.drain(..).all(|outcome| matches!(outcome, Ok(Answer::Appended(_)))), "all are new");
        }
        let elapsed = begun.elapsed();
        times.sort_unstable();
        let at = |part: f64| micros(times[((times.len() - 1) as f64 * part) as usize]);
        let rate = bench.made as f64 / elapsed.as_secs_f64();
        let (made, rss) = (bench.made, resident_mib());
        println!("{batch:>6} {made:>10} {rate:>10.0} {:>10} {:>10} {:>10} {rss:>8}", at(0.5), at(0.99), at(1.0));
        if batch == 1_024 {
            reads(&mut backend);
            let mut writes: Vec<Write> = (0..BUSY_CONVERSATIONS).map(|number| bench.append_to_busy(number)).collect();
            backend.commit(&mut writes, &mut outcomes);
            let begun = Instant::now();
            drop(backend);
            let closed = begun.elapsed();
            let mut backend = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).expect("just closed");
            let opened = begun.elapsed() - closed;
            println!("{:>10.1} ms to close, {:.1} ms to open", millis(closed), millis(opened));
            busy_user(&mut backend);
        }
    }
}

/// What looking costs then, on one thread.
fn reads(backend: &mut EmbeddedBackend) {
    let conversation = |place: usize| ConversationId::private(&user(place), &user(place + 1));
    let device = DeviceId::unnamed();
    let newest = |place: usize| RangeQuery {
        conversation: conversation(place),
        viewer: Some(user(place)),
        after: None,
        before: None,
        since: None,
        until: None,
        newest: true,
        limit: 50,
        bytes_max: usize::MAX,
    };
    let mut measure = |what: &str, make: &dyn Fn(usize) -> Read| {
        let begun = Instant::now();
        for number in 0..READS {
            backend.read(&make(number.wrapping_mul(7_919) % CONVERSATIONS)).expect("readable");
        }
        println!("{:>10.1} µs a read: {what}", begun.elapsed().as_secs_f64() * 1e6 / READS as f64);
    };
    measure("the end of a log", &|place| Read::Head { conversation: conversation(place) });
    measure("a user of two conversations", &|place| Read::User { user: user(place), device: device.clone(), recent_since: None });
    measure("the newest 50 messages", &|place| Read::Range(newest(place)));
    measure("unread counts", &|place| Read::Unread { user: user(place) });
}

/// A user with very many conversations, before the store remembers where their logs end and after.
fn busy_user(backend: &mut EmbeddedBackend) {
    let read = Read::User { user: user(BUSY), device: DeviceId::unnamed(), recent_since: None };
    for when in ["for the first time", "again"] {
        let begun = Instant::now();
        assert!(matches!(backend.read(&read), Ok(Answer::User(state)) if state.conversations.len() == BUSY_CONVERSATIONS));
        println!("{:>10} µs: a user of {BUSY_CONVERSATIONS} conversations, {when}", micros(begun.elapsed()));
    }
}

struct Bench {
    made: usize,
    heads: Vec<u64>,
}

impl Bench {
    /// The next private message of 100 bytes, in one of [`CONVERSATIONS`] conversations.
    fn append(&mut self) -> Write {
        let place = (self.made.wrapping_mul(2_654_435_761)) % CONVERSATIONS;
        let head = Some(Seq(self.heads[place]));
        self.heads[place] += 1;
        self.message(user(place), user(place + 1), head)
    }

    /// The first message to the user with very many conversations from another one.
    fn append_to_busy(&mut self, number: usize) -> Write {
        self.message(user(number), user(BUSY), Some(Seq::NONE))
    }

    fn message(&mut self, one: UserId, other: UserId, head: Option<Seq>) -> Write {
        self.made += 1;
        let at = 1_734_567_890_000 + self.made as u64 / 50;
        let random = (self.made as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let message = Message {
            conversation: ConversationId::private(&one, &other),
            seq: Seq::NONE,
            id: MessageId::from_parts(at, random),
            sender: Some(one),
            origin: SessionId(7),
            client_id: Some(RequestId::new(&format!("{random:032x}")).expect("a good id")),
            kind: MessageKind::Chat(MessageType::Text),
            content: RawJson::string(&"x".repeat(100)),
            created_at: Millis(at),
            extra: None,
        };
        Write::Append(Box::new(Append { message, head, dedupe_since: Millis(0), repeat_only: false }))
    }
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number:06}")).expect("a good id")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1_024
}

const CONVERSATIONS: usize = 10_000;
const BUSY: usize = 900_000;
const BUSY_CONVERSATIONS: usize = 1_000;
const READS: usize = 5_000;
