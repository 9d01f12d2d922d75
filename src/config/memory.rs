//! Owns the sum of every place where memory can rest, from `Limits`. Never measures anything: each line is a size times a
//! count that some limit bounds. Computed on the main thread for `config check`.

use super::limits::Limits;

/// When the memory of a line is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// At the start.
    Start,
    /// By each connection that exists, idle or not.
    Connected,
    /// Only if every connection, queue and cache is at its limit at the same moment.
    Full,
}

/// One place where memory can rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLine {
    pub what: &'static str,
    pub taken: Taken,
    pub each_bytes: u64,
    /// Of one shard; of the process when `shared`.
    pub count: u64,
    pub shared: bool,
}

/// The sum, by line.
#[derive(Clone, Debug)]
pub struct MemorySum {
    pub lines: Vec<MemoryLine>,
    shards: u64,
}

impl MemoryLine {
    /// 0 for what the process has once.
    pub fn shard_bytes(&self) -> u64 {
        if self.shared { 0 } else { self.each_bytes.saturating_mul(self.count) }
    }
}

impl MemorySum {
    pub fn of(limits: &Limits) -> MemorySum {
        let mut lines = at_start(limits);
        lines.extend(connected(limits));
        lines.extend(full(limits));
        MemorySum { lines, shards: u64::from(limits.shards) }
    }

    /// Bytes of one line for the whole process.
    pub fn line_bytes(&self, line: &MemoryLine) -> u64 {
        let times = if line.shared { 1 } else { self.shards };
        line.each_bytes.saturating_mul(line.count).saturating_mul(times)
    }

    /// Bytes of all lines taken at that time, for the whole process.
    pub fn bytes(&self, taken: Taken) -> u64 {
        let lines = self.lines.iter().filter(|line| line.taken == taken);
        lines.fold(0, |sum, line| sum.saturating_add(self.line_bytes(line)))
    }

    /// Bytes of all lines of one shard.
    pub fn shard_bytes(&self) -> u64 {
        self.lines.iter().fold(0, |sum, line| sum.saturating_add(line.shard_bytes()))
    }

    /// Everything.
    pub fn total_bytes(&self) -> u64 {
        [Taken::Start, Taken::Connected, Taken::Full].into_iter().fold(0, |sum, taken| sum.saturating_add(self.bytes(taken)))
    }
}

fn at_start(limits: &Limits) -> Vec<MemoryLine> {
    let line = |what, each, count, shared| entry(Taken::Start, what, each, count, shared);
    vec![
        // Provided buffers: the only place where bytes from sockets arrive.
        line("receive buffers", limits.receive_buffer_bytes, limits.receive_buffers.into(), false),
        line("io_uring submissions", SUBMISSION_BYTES, limits.ring_entries as usize, false),
        line("io_uring completions", COMPLETION_BYTES, limits.ring_completions as usize, false),
        // Each shard has one ring from every other.
        line("rings between shards", ENVELOPE_BYTES, limits.mesh_capacity * usize::from(limits.shards - 1), false),
        line("rings from the store", STORE_REPLY_BYTES, limits.store.completions, false),
        line("executor", EXECUTOR_BYTES, 1, false),
        line("cache of the store", limits.store.cache_bytes, 1, true),
        line("search index being made", limits.store.search_memory_bytes, 1, true),
    ]
}

fn connected(limits: &Limits) -> Vec<MemoryLine> {
    let line = |what, each, count, shared| entry(Taken::Connected, what, each, count, shared);
    vec![
        line("connections and sessions", CONNECTION_BYTES, limits.connections_max, true),
        line("directory of sessions", DIRECTORY_ENTRY_BYTES, limits.connections_max, true),
        line("sockets in the kernel", SOCKET_BYTES, limits.connections_max, true),
    ]
}

fn full(limits: &Limits) -> Vec<MemoryLine> {
    let line = |what, each, count, shared| entry(Taken::Full, what, each, count, shared);
    let message = limits.message_bytes_max;
    let (connections, unauthenticated) = (limits.connections_max, limits.unauthenticated_connections_max);
    vec![
        // An outbox stops at its limit, but the frame that passes it may be a largest message. Frames that several connections
        // wait for exist once; the sum counts them each time.
        line("outboxes", limits.engine.outbox_bytes_max + message, connections, true),
        // The start of a message whose rest has not come, for authenticated connections and the others.
        line("unfinished messages", message, connections - unauthenticated, true),
        line("unfinished messages before auth", limits.unauthenticated_bytes_max, unauthenticated, true),
        line(
            "presence subscriptions",
            WATCH_BYTES,
            connections.saturating_mul(limits.engine.presence_watches_max as usize),
            true,
        ),
        line("cached conversations", CONVERSATION_BYTES, limits.engine.conversations_cached_max, false),
        // What a request carries while the store has it; the batch being committed is part of the same requests, encoded.
        line("requests in the store", message + STORE_REQUEST_BYTES, limits.engine.store_requests_max, false),
        line("write buffers of the store", limits.store.write_buffer_bytes, WRITE_BUFFERS, true),
        line("batch being committed", message, limits.store.batch_messages_max, true),
        line("commits on their way to tables", BACKLOG_BYTES, usize::from(limits.store.write_buffer_bytes > 0), true),
        // Payloads that envelopes refer to; most are also in an outbox.
        line("payloads between shards", message, limits.mesh_capacity * usize::from(limits.shards - 1), false),
    ]
}

fn entry(taken: Taken, what: &'static str, each: usize, count: usize, shared: bool) -> MemoryLine {
    MemoryLine { what, taken, each_bytes: each as u64, count: count as u64, shared }
}

/// What waits to be brought to tables and what is being brought there, at most.
const BACKLOG_BYTES: usize = 16 << 20;
/// `struct io_uring_sqe` and its index.
const SUBMISSION_BYTES: usize = 64 + 4;
/// `struct io_uring_cqe`.
const COMPLETION_BYTES: usize = 16;
/// An envelope without what it refers to.
const ENVELOPE_BYTES: usize = 256;
/// An answer of the store without what it refers to.
const STORE_REPLY_BYTES: usize = 256;
/// A request to the store without its message.
const STORE_REQUEST_BYTES: usize = 512;
/// An executor with its own rings and registered memory.
const EXECUTOR_BYTES: usize = 5 << 20;
/// Commits wait for the disk when three buffers are full; the fourth is what a commit may still add.
const WRITE_BUFFERS: usize = 4;
/// Session, cursors of a few conversations, timers and table entries of an idle connection.
const CONNECTION_BYTES: usize = 2 << 10;
/// An entry of the directory that control threads read.
const DIRECTORY_ENTRY_BYTES: usize = 256;
/// Measured for an idle TCP socket on Linux 6.18.
const SOCKET_BYTES: usize = 4_600;
/// One subscription, both ends.
const WATCH_BYTES: usize = 128;
/// A conversation at hand: head, members at home on other shards, recent client ids.
const CONVERSATION_BYTES: usize = 1 << 10;
