//! Owns the plain counters of one shard. Never shared while it counts: one shard's thread writes it, copies are published.

use crate::types::{CloseCode, Command, ErrorName};

use super::Histogram;

/// Who or what ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This server, with this code.
    Server(CloseCode),
    /// The client's close frame.
    Client,
    /// The peer closed or reset the socket without a close frame.
    PeerReset,
    /// A write took longer than `heartbeat.write_timeout`.
    WriteTimeout,
}

impl CloseReason {
    /// How many there are.
    pub const COUNT: usize = CloseCode::ALL.len() + 3;

    /// Position in [`ShardMetrics::connections_closed`].
    pub fn index(self) -> usize {
        match self {
            CloseReason::Server(code) => code.index(),
            CloseReason::Client => CloseCode::ALL.len(),
            CloseReason::PeerReset => CloseCode::ALL.len() + 1,
            CloseReason::WriteTimeout => CloseCode::ALL.len() + 2,
        }
    }

    /// Every reason, in the order of [`CloseReason::index`].
    pub fn all() -> impl Iterator<Item = CloseReason> {
        let ours = [CloseReason::Client, CloseReason::PeerReset, CloseReason::WriteTimeout];
        CloseCode::ALL.iter().map(|code| CloseReason::Server(*code)).chain(ours)
    }

    /// Metric label.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Server(code) => code.name(),
            CloseReason::Client => "client",
            CloseReason::PeerReset => "peer_reset",
            CloseReason::WriteTimeout => "write_timeout",
        }
    }
}

/// What one shard counts. Gauges hold the present value, everything else only grows.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    /// Gauge: connections open now, authenticated or not.
    pub connections: u64,
    pub connections_opened: u64,
    /// By [`CloseReason::index`].
    pub connections_closed: [u64; CloseReason::COUNT],
    /// Handshakes that were refused or not finished.
    pub connections_refused: u64,
    pub connection_seconds: Histogram,
    /// Gauge: authenticated connections.
    pub sessions: u64,
    /// Gauge: users owned by this shard that are online.
    pub online_users: u64,
    /// By [`Command::index`].
    pub messages_received: [u64; Command::NAMES.len()],
    pub messages_delivered: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub ack_seconds: Histogram,
    pub delivery_seconds: Histogram,
    /// By [`ErrorName::index`].
    pub errors: [u64; ErrorName::ALL.len()],
    /// Panics and internal faults that ended one request or connection instead of the shard.
    pub faults_caught: u64,
    /// Gauge: bytes in all outboxes.
    pub outbox_bytes: u64,
    pub ephemeral_shed: u64,
    pub store_damaged: u64,
    /// Envelopes sent, by target shard.
    pub mesh_to: Vec<u64>,
    /// Gauge: connections with a lagging cursor.
    pub lagging: u64,
    pub turn_seconds: Histogram,
}

impl ShardMetrics {
    /// Counters of a shard among `shards`, all at 0.
    pub fn new(shards: usize) -> ShardMetrics {
        ShardMetrics {
            connections: 0,
            connections_opened: 0,
            connections_closed: [0; CloseReason::COUNT],
            connections_refused: 0,
            connection_seconds: Histogram::lifetime(),
            sessions: 0,
            online_users: 0,
            messages_received: [0; Command::NAMES.len()],
            messages_delivered: 0,
            bytes_received: 0,
            bytes_sent: 0,
            ack_seconds: Histogram::latency(),
            delivery_seconds: Histogram::latency(),
            errors: [0; ErrorName::ALL.len()],
            faults_caught: 0,
            outbox_bytes: 0,
            ephemeral_shed: 0,
            store_damaged: 0,
            mesh_to: vec![0; shards],
            lagging: 0,
            turn_seconds: Histogram::latency(),
        }
    }

    /// Counts the end of a connection that lasted `lasted_us` microseconds.
    pub fn closed(&mut self, reason: CloseReason, lasted_us: u64) {
        self.connections = self.connections.saturating_sub(1);
        self.connections_closed[reason.index()] += 1;
        self.connection_seconds.record_us(lasted_us);
    }

    /// Counts the end of a handshake.
    pub fn opened(&mut self) {
        self.connections += 1;
        self.connections_opened += 1;
    }

    #[inline]
    pub fn error(&mut self, name: ErrorName) {
        self.errors[name.index()] += 1;
    }
}

impl Default for ShardMetrics {
    /// Counters of a single shard.
    fn default() -> ShardMetrics {
        ShardMetrics::new(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        let mut names: Vec<_> = CloseReason::all().map(CloseReason::name).collect();
        assert!(CloseReason::all().enumerate().all(|(at, reason)| reason.index() == at));
        assert_eq!(names.len(), CloseReason::COUNT);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CloseReason::COUNT);
    }

    #[test]
    fn opening_and_closing_keep_the_gauge_true() {
        let mut metrics = ShardMetrics::default();
        metrics.opened();
        metrics.opened();
        metrics.closed(CloseReason::Client, 5);
        assert_eq!((metrics.connections, metrics.connections_opened), (1, 2));
        assert_eq!(metrics.connections_closed.iter().sum::<u64>(), 1);
        metrics.closed(CloseReason::PeerReset, 5);
        metrics.closed(CloseReason::PeerReset, 5);
        assert_eq!(metrics.connections, 0, "never below zero");
    }
}
