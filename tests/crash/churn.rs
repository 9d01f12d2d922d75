//! Connections that come and go by the hundred thousand, in every way in which connections come and go: when all are gone,
//! everything that the server held for them is gone too.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};

use super::number;
use crate::support::{Client, PATIENCE, RawConnection, Server, eventually, frames, http, token};

/// Rounds of churn on one server; after each everything is counted.
fn come_and_go(shards: u16, connections: u64) {
    let seed = number("COREHUB_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("churn, {shards} shards: COREHUB_CRASH_SEED={seed}");
    let server = Server::start(shards, CONFIG);
    make_groups(&server);
    let tokens: Vec<String> = (0..USERS).map(|user| token::for_user(&format!("user-{user}"))).collect();
    let tally = Tally::default();
    let mut rng = Rng::with_seed(seed);
    let per_round = connections.div_ceil(ROUNDS).max(1);
    // The first connections make what stays for good.
    round(&server, &tokens, per_round.min(WARM_UP), &tally, rng.u64(..));
    let before = settled(&server);
    println!("churn, {shards} shards: at first {before:?}");
    let mut states = Vec::new();
    for number in 1..=ROUNDS {
        let begun = Instant::now();
        round(&server, &tokens, per_round, &tally, rng.u64(..));
        let took = begun.elapsed();
        let state = eventually("sockets are closed and threads are as many as before", || {
            Some(settled(&server)).filter(|state| state.sockets <= before.sockets && state.tasks == before.tasks)
        });
        println!("churn, {shards} shards: round {number}: {per_round} connections in {} ms, then {state:?}", took.as_millis());
        assert!(state.files <= before.files + SPARE_FILES, "files stay open: {before:?}, now {state:?}");
        states.push(state.resident_bytes);
    }
    println!("churn, {shards} shards: {tally:?}");
    assert!(tally.failed.load(Ordering::Relaxed) * 1_000 <= connections, "more than one in a thousand failed");
    // Tables of the allocator and of the engine are as large as they get by the middle; the store's buffers go up and down.
    let least = |rounds: &[u64]| rounds.iter().copied().min().unwrap_or_default();
    let third = states.len() / 3;
    let count = per_round * (states.len() - 2 * third) as u64;
    let grown = least(&states[states.len() - third..]).saturating_sub(least(&states[third..2 * third]));
    println!("churn, {shards} shards: {grown} bytes more after {count} connections, {} a connection", grown / count.max(1));
    assert!(grown <= SPARE_BYTES + count * BYTES_PER_CONNECTION_MAX, "memory stays behind: {states:?}");
}

#[test]
fn nothing_of_connections_stays_with_1_shard() {
    come_and_go(1, number("COREHUB_CRASH_CHURN").unwrap_or(CONNECTIONS_DEFAULT));
}

#[test]
fn nothing_of_connections_stays_with_4_shards() {
    come_and_go(4, number("COREHUB_CRASH_CHURN").unwrap_or(CONNECTIONS_DEFAULT));
}

/// What a server holds when nobody is connected.
#[derive(Debug)]
struct State {
    resident_bytes: u64,
    /// In the tables of all threads: each may have one of its own, or share one and count again.
    sockets: usize,
    /// Of the first thread; the store's files are among them.
    files: usize,
    tasks: usize,
}

/// Waits until the server knows nobody any more.
fn settled(server: &Server) -> State {
    let begun = Instant::now();
    while let Some(left) = left(server) {
        assert!(begun.elapsed() < PATIENCE, "not everything goes: {left}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let folder = format!("/proc/{}/task", server.process_id());
    let tasks: Vec<_> = std::fs::read_dir(&folder).expect("the process runs").flatten().map(|task| task.path()).collect();
    let links = |table: PathBuf| {
        std::fs::read_dir(table).into_iter().flatten().flatten().filter_map(|entry| entry.path().read_link().ok())
    };
    let is_socket = |link: &PathBuf| link.to_string_lossy().starts_with("socket:");
    let sockets = tasks.iter().flat_map(|task| links(task.join("fd"))).filter(is_socket).count();
    let files = links(format!("/proc/{}/fd", server.process_id()).into()).filter(|link| !is_socket(link)).count();
    // The search index has one of its own now and then, while it gathers.
    let now_and_then =
        |task: &&PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("docstore-"));
    let tasks = tasks.len() - tasks.iter().filter(now_and_then).count();
    State { resident_bytes: server.resident_bytes(), sockets, files, tasks }
}

/// What the server still counts of connections; None when that is nothing.
fn left(server: &Server) -> Option<String> {
    let mut left = Vec::new();
    let shown = server.fetch("/stats").json();
    if shown["online_users"] != 0 {
        left.push(format!("/stats of clients {shown}"));
    }
    let stats = server.rest_ok("GET", "/v1/stats", None);
    for name in ["connections", "sessions", "online_users"] {
        let shards = stats["shards"].as_array().expect("statistics list shards").iter();
        if stats[name] != 0 || shards.clone().any(|shard| shard[name] != 0) {
            left.push(format!("/stats {name} {} {:?}", stats[name], shards.map(|shard| &shard[name]).collect::<Vec<_>>()));
        }
    }
    for name in ["corehub_connections", "corehub_sessions", "corehub_online_users", "corehub_outbox_bytes"] {
        let value = server.metric(name, "");
        if value != 0.0 {
            left.push(format!("{name} {value}"));
        }
    }
    (!left.is_empty()).then(|| left.join(", "))
}

/// What the connections were.
#[derive(Debug, Default)]
struct Tally {
    authenticated: AtomicU64,
    messages: AtomicU64,
    anonymous: AtomicU64,
    refused: AtomicU64,
    half_handshakes: AtomicU64,
    resets: AtomicU64,
    ends: AtomicU64,
    closes: AtomicU64,
    /// Not connected, or not answered.
    failed: AtomicU64,
}

fn round(server: &Server, tokens: &[String], connections: u64, tally: &Tally, seed: u64) {
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let worker = Worker {
                address: server.client_address(),
                tokens,
                tally,
                rng: Rng::with_seed(seed.wrapping_add(worker)),
                held: Vec::new(),
                seed,
            };
            let share = connections.div_ceil(WORKERS);
            scope.spawn(move || worker.work(share));
        }
    });
}

struct Worker<'a> {
    address: SocketAddr,
    tokens: &'a [String],
    tally: &'a Tally,
    rng: Rng,
    /// Open connections, each of which ends some time later.
    held: Vec<RawConnection>,
    seed: u64,
}

impl Worker<'_> {
    fn work(mut self, connections: u64) {
        for number in 0..connections {
            match self.come(number) {
                Ok(connection) => self.held.extend(connection),
                Err(_) => count(&self.tally.failed),
            }
            while self.held.len() > HELD_MAX || (!self.held.is_empty() && self.rng.u8(..4) == 0) {
                let connection = self.held.swap_remove(self.rng.usize(..self.held.len()));
                self.go(connection);
            }
        }
        while let Some(connection) = self.held.pop() {
            self.go(connection);
        }
    }

    /// One connection of some kind; None when it has ended again already.
    fn come(&mut self, number: u64) -> io::Result<Option<RawConnection>> {
        let mut connection = self.connect()?;
        let kind = self.rng.u8(..20);
        let fresh = format!("fresh-{}-{number}-{}", self.seed, self.rng.u32(..));
        match kind {
            0..=1 => {
                count(&self.tally.half_handshakes);
                let part = &HANDSHAKE.as_bytes()[..self.rng.usize(..HANDSHAKE.len())];
                connection.stream.write_all(part)?;
                return Ok(Some(connection));
            }
            2..=3 => {
                count(&self.tally.refused);
                let status = upgrade(&mut connection, Some("not.a.token"))?;
                assert_eq!(status, 401);
                return Ok(None);
            }
            4 => {
                count(&self.tally.anonymous);
                assert_eq!(upgrade(&mut connection, None)?, 101);
                if self.rng.bool() {
                    connection.stream.write_all(&frames::text(r#"{"type":"auth","data":{"token":"not.a.token"}}"#))?;
                }
            }
            5..=6 => self.enter(&mut connection, &token::for_user(&fresh))?,
            _ => {
                let user = self.rng.usize(..self.tokens.len());
                self.enter(&mut connection, &self.tokens[user])?;
                if user < MEMBERS && self.rng.u8(..4) == 0 {
                    count(&self.tally.messages);
                    let data = json!({"group_id": format!("group-{}", user % GROUPS), "content": "x"});
                    let send = json!({"type": "send_message", "message_id": fresh, "data": data});
                    connection.stream.write_all(&frames::text(&send.to_string()))?;
                }
            }
        }
        Ok(Some(connection))
    }

    fn enter(&self, connection: &mut RawConnection, token: &str) -> io::Result<()> {
        count(&self.tally.authenticated);
        assert_eq!(upgrade(connection, Some(token))?, 101);
        Ok(())
    }

    fn go(&mut self, mut connection: RawConnection) {
        match self.rng.u8(..4) {
            0..=1 => {
                count(&self.tally.resets);
                connection.reset();
            }
            2 => {
                count(&self.tally.ends);
            }
            _ => {
                count(&self.tally.closes);
                // Whether the answer still comes is of no matter.
                let _ = connection.send(&frames::masked(frames::FIN | frames::CLOSE, &1000_u16.to_be_bytes()));
                let _ = connection.stream.set_read_timeout(Some(Duration::from_millis(50)));
                let _ = connection.stream.read(&mut [0; 512]);
            }
        }
    }

    /// From any of several addresses: each has only so many ports.
    fn connect(&mut self) -> io::Result<RawConnection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let own = Ipv4Addr::new(127, 0, 1, self.rng.u8(1..=ADDRESSES));
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        socket.connect(&self.address.into())?;
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(RawConnection { stream, received: Vec::new() })
    }
}

/// The status of the answer.
fn upgrade(connection: &mut RawConnection, token: Option<&str>) -> io::Result<u16> {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    connection.stream.write_all(format!("{HANDSHAKE}{bearer}\r\n").as_bytes())?;
    let answer = http::read_response(&mut connection.stream, &mut connection.received)?;
    Ok(answer.map_or(0, |answer| answer.status))
}

fn make_groups(server: &Server) {
    let mut owner = Client::connect(server, "owner");
    for group in 0..GROUPS {
        let members: Vec<String> = (group..MEMBERS).step_by(GROUPS).map(|user| format!("user-{user}")).collect();
        owner.acked("create_group", json!({"group_id": format!("group-{group}"), "members": members}));
    }
    owner.leave();
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const CONNECTIONS_DEFAULT: u64 = 2_000;
const ROUNDS: u64 = 10;
const WARM_UP: u64 = 2_000;
const WORKERS: u64 = 4;
const HELD_MAX: usize = 60;
const ADDRESSES: u8 = 16;
const USERS: usize = 500;
/// Users that are in a group.
const MEMBERS: usize = 100;
const GROUPS: usize = 10;
/// What the store may open meanwhile.
const SPARE_FILES: usize = 64;
/// What a server takes once and not for each connection.
const SPARE_BYTES: u64 = 8 << 20;
const BYTES_PER_CONNECTION_MAX: u64 = 64;

const CONFIG: &str = r#"
[store]
write_buffer_bytes = "1MiB"
cache_bytes = "1MiB"
search = false

[limits]
connects_per_second = 0
errors_per_minute = 0
# Conversations at hand are a cache, which need not fill during a test.
conversations_cached = 1000

[auth]
timeout = "2s"
"#;
