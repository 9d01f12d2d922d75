//! Owns one shard's state and the one `match` over everything that can happen to it.

use std::sync::Arc;

use crate::types::{Encode, Now, SessionKey, ShardId};

use super::outbox::Outbox;
use super::{Effects, Event, Settings};

/// One core's share of the truth: the sessions at home here, and the users, groups and conversations it owns.
pub struct Shard {
    _private: (),
}

impl Shard {
    /// `seed` feeds the shard's own random numbers (ids, jitter, hash keys).
    pub fn new(_id: ShardId, _shards: u16, _settings: Arc<Settings>, _encoder: Box<dyn Encode>, _seed: u64) -> Shard {
        Shard { _private: () }
    }

    /// Takes in one event and appends what has to be done. Call with the turn's `now`.
    pub fn handle(&mut self, _event: Event, _now: Now, _effects: &mut Effects) {}

    /// The outbox of a live session, to take its next flight from.
    pub fn outbox(&mut self, _key: SessionKey) -> Option<&mut Outbox> {
        None
    }

    /// Monotonic milliseconds at which [`Event::Tick`] is wanted at the latest; None when nothing is due.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        None
    }
}
