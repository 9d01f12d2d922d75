//! Owns every capacity the code uses, derived from the configuration and the machine, and the relations between them.
//!
//! Never a place where a user's mistake shows up first: `check` and the table's bounds come before, so a relation that fails
//! here is a fault of the program. Plain fields: `server/` hands them on one by one. Computed once on the main thread.

use std::time::Duration;

use super::choice::{GroupHistory, Pin, PresenceVisible, SessionPolicy};
use super::options::Config;
use super::value::{ByteSize, ShardCount};

/// Capacities in force. Durations in the unit of their name, sizes in bytes; 0 = unlimited where a limit may be off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub cores: usize,
    pub shards: u16,
    /// Bind shard N to core N.
    pub pin: bool,

    // Connections: of the process, then of one shard.
    pub connections_max: usize,
    /// Above the fair share, because the kernel spreads connections by hash.
    pub connections_per_shard_max: usize,
    pub connections_per_ip_max: u32,
    /// Of the process.
    pub connects_per_second_max: u32,
    pub unauthenticated_connections_max: usize,
    pub unauthenticated_per_shard_max: usize,
    pub unauthenticated_bytes_max: usize,
    pub listen_backlog: u32,
    pub handshakes_per_turn_max: usize,
    pub handshake_bytes_max: usize,
    pub handshake_timeout_ms: u64,

    // A shard's ring and its way to the others.
    /// A power of two.
    pub ring_entries: u32,
    /// A power of two; multishot operations complete more often than they are submitted.
    pub ring_completions: u32,
    /// A power of two, at most 32,768: a rule of the kernel for provided buffers.
    pub receive_buffers: u16,
    pub receive_buffer_bytes: usize,
    pub spin_us: u64,
    pub flush_delay_us: u64,
    /// Envelopes of one ring between two shards; a power of two.
    pub mesh_capacity: usize,

    // Messages on the wire.
    pub message_bytes_max: usize,
    pub fragments_max: u32,
    pub assembly_timeout_ms: u64,

    pub engine: EngineLimits,
    pub store: StoreLimits,
    pub drain_deadline_ms: u64,
}

/// What the engine is given, under the engine's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    pub node: String,
    pub auth_timeout_ms: u64,
    pub expiry_grace_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub heartbeat_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub sessions_per_user: u32,
    pub session_policy: SessionPolicy,
    pub message_bytes_max: usize,
    pub content_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub messages_per_second: u32,
    pub user_messages_per_second: u32,
    pub errors_per_minute: u32,
    pub dedupe_window_ms: u64,
    pub recall_window_ms: u64,
    pub new_device_window_ms: u64,
    pub ack_timeout_ms: u64,
    pub delivery_attempts: u32,
    pub group_members_max: u32,
    pub groups_per_user_max: u32,
    pub group_history_all: bool,
    pub receipts_max: u32,
    pub presence_contacts_only: bool,
    pub presence_watches_max: u32,
    /// Per shard.
    pub conversations_cached_max: usize,
    pub loading_requests_max: usize,
    /// Requests of one shard in the store.
    pub store_requests_max: usize,
}

/// What the store is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// The queue into the store: room for every shard's share, so that a shard within its share is never refused.
    pub queue_max: usize,
    /// The ring of answers to one shard; a power of two with room for every request it may have, so that an answer never waits.
    pub completions: usize,
    pub readers: usize,
    pub batch_messages_max: usize,
    pub cache_bytes: usize,
    pub write_buffer_bytes: usize,
    /// 0 keeps messages for ever.
    pub retention_ms: u64,
    pub dedupe_window_ms: u64,
    /// In which the search index is made; 0 without one.
    pub search_memory_bytes: usize,
}

impl Limits {
    /// Capacities for a configuration that was checked, on a machine with so many cores.
    pub fn derive(config: &Config, cores: usize) -> Limits {
        let cores = cores.max(1);
        let shards = shards_of(config, cores);
        let share = |total: usize| total.div_ceil(usize::from(shards));
        let connections_max = config.limits.connections as usize;
        let connections_per_shard_max = connections_max.min(uneven(share(connections_max)));
        let unauthenticated_connections_max = connections_max.min(config.limits.unauthenticated_connections as usize);
        let engine = EngineLimits::derive(config);
        let ring_entries = config.shards.ring_entries.next_power_of_two();
        let limits = Limits {
            cores,
            shards,
            pin: match config.shards.pin {
                Pin::On => true,
                Pin::Off => false,
                Pin::Auto => usize::from(shards) <= cores,
            },
            connections_max,
            connections_per_shard_max,
            connections_per_ip_max: config.limits.connections_per_ip,
            connects_per_second_max: config.limits.connects_per_second,
            unauthenticated_connections_max,
            unauthenticated_per_shard_max: unauthenticated_connections_max
                .min(uneven(share(unauthenticated_connections_max)))
                .min(connections_per_shard_max),
            unauthenticated_bytes_max: bytes(config.limits.unauthenticated_bytes).min(engine.message_bytes_max),
            listen_backlog: config.listen.backlog,
            handshakes_per_turn_max: config.listen.handshakes_per_turn as usize,
            handshake_bytes_max: HANDSHAKE_BYTES_MAX,
            handshake_timeout_ms: millis(config.listen.handshake_timeout),
            ring_entries,
            ring_completions: ring_entries * COMPLETIONS_PER_SUBMISSION,
            receive_buffers: u16::try_from(config.shards.receive_buffers.next_power_of_two())
                .expect("the table bounds it by 32,768, which is a power of two"),
            receive_buffer_bytes: bytes(config.shards.receive_buffer_bytes),
            spin_us: micros(config.shards.spin),
            flush_delay_us: micros(config.shards.flush_delay),
            mesh_capacity: (config.shards.mesh_capacity as usize).next_power_of_two(),
            message_bytes_max: engine.message_bytes_max,
            fragments_max: config.limits.fragments,
            assembly_timeout_ms: millis(config.limits.assembly_timeout),
            store: StoreLimits {
                queue_max: engine.store_requests_max * usize::from(shards),
                completions: engine.store_requests_max.next_power_of_two(),
                readers: config.store.readers as usize,
                batch_messages_max: config.store.batch_messages as usize,
                cache_bytes: bytes(config.store.cache_bytes),
                write_buffer_bytes: bytes(config.store.write_buffer_bytes),
                retention_ms: millis(config.messages.retention),
                dedupe_window_ms: engine.dedupe_window_ms,
                search_memory_bytes: if config.store.search { bytes(config.store.search_memory_bytes) } else { 0 },
            },
            engine,
            drain_deadline_ms: millis(config.server.drain_deadline),
        };
        limits.invariants();
        limits
    }

    /// Relations that the code relies on.
    fn invariants(&self) {
        let shards = usize::from(self.shards);
        assert!((1..=SHARDS_MAX).contains(&shards));
        // Rings index by masking.
        assert!(self.mesh_capacity.is_power_of_two() && self.store.completions.is_power_of_two());
        assert!(self.ring_entries.is_power_of_two() && self.ring_completions.is_power_of_two());
        assert!(self.ring_completions > self.ring_entries, "multishot completions outnumber submissions");
        assert!(self.receive_buffers.is_power_of_two() && self.receive_buffers <= 1 << 15, "a rule of the kernel");
        // Every connection the node may have finds room on some shard, whichever way the kernel spreads them within the slack.
        assert!(self.connections_per_shard_max * shards >= self.connections_max);
        assert!(self.connections_per_shard_max <= self.connections_max);
        assert!(self.unauthenticated_connections_max <= self.connections_max);
        assert!(self.unauthenticated_per_shard_max <= self.connections_per_shard_max);
        // What passes the wire fits the next stage.
        assert!(self.unauthenticated_bytes_max <= self.message_bytes_max);
        assert!(self.engine.content_bytes_max <= self.engine.message_bytes_max);
        // A shard within its share is never refused, and an answer always has a place.
        assert!(self.store.queue_max >= self.engine.store_requests_max * shards);
        assert!(self.store.completions >= self.engine.store_requests_max);
        assert!(self.engine.heartbeat_timeout_ms > self.engine.heartbeat_interval_ms);
        assert!(self.engine.sessions_per_user >= 1 && self.engine.delivery_attempts >= 1 && self.fragments_max >= 1);
    }
}

impl EngineLimits {
    fn derive(config: &Config) -> EngineLimits {
        let message_bytes_max = bytes(config.limits.message_bytes);
        EngineLimits {
            node: config.server.node_id.clone(),
            auth_timeout_ms: millis(config.auth.timeout),
            expiry_grace_ms: millis(config.auth.expiry_grace),
            heartbeat_interval_ms: millis(config.heartbeat.interval),
            heartbeat_timeout_ms: millis(config.heartbeat.timeout),
            write_timeout_ms: millis(config.heartbeat.write_timeout),
            sessions_per_user: config.sessions.per_user,
            session_policy: config.sessions.policy,
            message_bytes_max,
            content_bytes_max: config.limits.content_bytes.map_or(message_bytes_max, bytes),
            outbox_bytes_max: bytes(config.limits.outbox_bytes),
            messages_per_second: config.limits.messages_per_second,
            user_messages_per_second: config.limits.user_messages_per_second,
            errors_per_minute: config.limits.errors_per_minute,
            dedupe_window_ms: millis(config.messages.dedupe_window),
            recall_window_ms: millis(config.messages.recall_window),
            new_device_window_ms: millis(config.messages.new_device_window),
            ack_timeout_ms: millis(config.delivery.ack_timeout),
            delivery_attempts: config.delivery.attempts,
            group_members_max: config.limits.group_members,
            groups_per_user_max: config.limits.groups_per_user,
            group_history_all: config.groups.history == GroupHistory::All,
            receipts_max: config.groups.receipts_max,
            presence_contacts_only: config.presence.visible == PresenceVisible::Contacts,
            presence_watches_max: config.presence.watches_max,
            conversations_cached_max: config.limits.conversations_cached as usize,
            loading_requests_max: config.limits.loading_requests as usize,
            store_requests_max: config.store.queue as usize,
        }
    }
}

fn shards_of(config: &Config, cores: usize) -> u16 {
    let count = match config.shards.count {
        ShardCount::Auto => cores.min(SHARDS_MAX),
        ShardCount::Exactly(count) => count as usize,
    };
    u16::try_from(count).expect("the table bounds it by 256")
}

/// A share with room for the unevenness of hashing: an eighth and a few for small numbers.
fn uneven(share: usize) -> usize {
    share + share / 8 + 64
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).expect("sizes are bounded far below the address space")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("durations are bounded by a hundred years")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("durations are bounded by a hundred years")
}

/// More shards than this would need rings in the tens of thousands.
pub const SHARDS_MAX: usize = 256;

/// Request line and headers of an upgrade; more is answered 431.
pub const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

const COMPLETIONS_PER_SUBMISSION: u32 = 4;

const _: () = assert!(COMPLETIONS_PER_SUBMISSION.is_power_of_two() && COMPLETIONS_PER_SUBMISSION > 1);
const _: () = assert!(SHARDS_MAX <= u16::MAX as usize);
