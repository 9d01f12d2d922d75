//! Owns what a shard counts. Plain numbers on the shard's own thread; the driver copies them out.

use crate::types::{CloseCode, Command, ErrorName};

/// Counts since the shard began, and a few present values.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Requests by [`Command::index`].
    pub received: [u64; Command::NAMES.len()],
    /// Log entries put on their way to a connection.
    pub delivered: u64,
    /// Error replies by [`ErrorName::index`].
    pub errors: [u64; ErrorName::ALL.len()],
    /// Closes decided here by [`CloseCode::index`].
    pub closes: [u64; CloseCode::ALL.len()],
    /// Connections closed by their peers.
    pub closed_by_peer: u64,
    pub opened: u64,
    /// Typing, presence, and receipts of readers who have stopped: dropped without a newer version.
    pub shed: u64,
    pub redelivered: u64,
    /// Notifications given up because the store took nothing for too long.
    pub notifications_lost: u64,
    pub refills: u64,
    /// Times a session had to go without something because it is damaged on disk.
    pub damaged: u64,
    /// Sessions now open, ready, and with a lagging cursor.
    pub sessions: u64,
    pub ready: u64,
    pub lagging: u64,
    /// Users owned here that are online now.
    pub online_users: u64,
    /// Microseconds from a request's arrival to its ack, since last drained by the driver; at most [`SAMPLES_MAX`].
    pub ack_us: Vec<u32>,
    /// Microseconds from a message's arrival to its delivery here, one sample a message and shard.
    pub delivery_us: Vec<u32>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            received: [0; Command::NAMES.len()],
            delivered: 0,
            errors: [0; ErrorName::ALL.len()],
            closes: [0; CloseCode::ALL.len()],
            closed_by_peer: 0,
            opened: 0,
            shed: 0,
            redelivered: 0,
            notifications_lost: 0,
            refills: 0,
            damaged: 0,
            sessions: 0,
            ready: 0,
            lagging: 0,
            online_users: 0,
            ack_us: Vec::new(),
            delivery_us: Vec::new(),
        }
    }
}

impl Counters {
    /// Notes one latency sample unless the driver has fallen behind in fetching them.
    pub(super) fn note_ack(&mut self, from_us: u64, now_us: u64) {
        if self.ack_us.len() < SAMPLES_MAX {
            self.ack_us.push(now_us.saturating_sub(from_us).min(u64::from(u32::MAX)) as u32);
        }
    }

    pub(super) fn note_delivery(&mut self, from_us: u64, now_us: u64) {
        if self.delivery_us.len() < SAMPLES_MAX {
            self.delivery_us.push(now_us.saturating_sub(from_us).min(u64::from(u32::MAX)) as u32);
        }
    }
}

/// Samples kept between two visits of the driver.
pub const SAMPLES_MAX: usize = 65_536;
