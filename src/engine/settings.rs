//! Owns what the engine needs to know of the configuration, resolved. Never read from a file here: `server/` fills it.

use std::sync::Arc;

use crate::types::revocation::Revocation;

/// What to do with one session too many of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPolicy {
    EvictOldest,
    Reject,
    ReplaceDevice,
}

/// Resolved settings of a shard. Durations in milliseconds, sizes in bytes; 0 = unlimited where a limit may be off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// The same on all shards of a process: which shard owns what follows from it.
    pub placement_seed: u64,
    pub auth_timeout_ms: u64,
    pub expiry_grace_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub heartbeat_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub sessions_per_user: u32,
    pub session_policy: SessionPolicy,
    pub message_bytes_max: usize,
    pub content_bytes_max: usize,
    /// Durable frames waiting for one connection beyond which it reads from the log instead.
    pub outbox_bytes_max: usize,
    pub messages_per_second: u32,
    pub user_messages_per_second: u32,
    pub errors_per_minute: u32,
    pub dedupe_window_ms: u64,
    pub recall_window_ms: u64,
    pub new_device_window_ms: u64,
    pub ack_timeout_ms: u64,
    pub delivery_attempts: u32,
    /// Members at most of one group.
    pub group_members_max: u32,
    pub groups_per_user_max: u32,
    /// `groups.history = "all"`.
    pub group_history_all: bool,
    pub receipts_max: u32,
    /// `presence.visible = "contacts"`.
    pub presence_contacts_only: bool,
    pub presence_watches_max: u32,
    /// Conversations an owner keeps at hand without anyone online in them.
    pub conversations_cached_max: usize,
    /// Requests of one conversation that may wait for its state to be loaded.
    pub loading_requests_max: usize,
    /// Requests in the store per shard.
    pub store_requests_max: usize,
    /// Those in force at the start.
    pub revocations: Arc<[Revocation]>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node: "node-1".to_owned(),
            placement_seed: 0,
            auth_timeout_ms: 10_000,
            expiry_grace_ms: 30_000,
            heartbeat_interval_ms: 54_000,
            heartbeat_timeout_ms: 60_000,
            write_timeout_ms: 10_000,
            sessions_per_user: 5,
            session_policy: SessionPolicy::EvictOldest,
            message_bytes_max: 512 << 10,
            content_bytes_max: 512 << 10,
            outbox_bytes_max: 256 << 10,
            messages_per_second: 1_000,
            user_messages_per_second: 2_000,
            errors_per_minute: 60,
            dedupe_window_ms: 24 * 3_600_000,
            recall_window_ms: 120_000,
            new_device_window_ms: 0,
            ack_timeout_ms: 10_000,
            delivery_attempts: 3,
            group_members_max: 200_000,
            groups_per_user_max: 5_000,
            group_history_all: false,
            receipts_max: 200,
            presence_contacts_only: false,
            presence_watches_max: 1_000,
            conversations_cached_max: 100_000,
            loading_requests_max: 1_024,
            store_requests_max: 65_536,
            revocations: Arc::default(),
        }
    }
}
