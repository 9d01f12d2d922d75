//! Owns the list of what a shard's driver has to do after events were handled. Never executes anything; the driver owns it,
//! empties it every turn and gives it back, so nothing is allocated in the steady state.

use std::net::IpAddr;

use crate::types::call::CallOutcome;
use crate::types::envelope::Envelope;
use crate::types::storage::StoreRequest;
use crate::types::{DeviceId, SessionId, SessionKey, ShardId, UserId};

/// What is to be done, by kind. Order matters only within one kind.
#[derive(Debug, Default)]
#[must_use]
pub struct Effects {
    /// To other shards, never to this one.
    pub forward: Vec<(ShardId, Envelope)>,
    /// To the store.
    pub store: Vec<StoreRequest>,
    /// Connections whose outbox has something to send; each at most once until [`super::outbox::Outbox::take`] is called.
    pub dirty: Vec<SessionKey>,
    /// Connections whose socket is to be closed as soon as nothing is in flight for them.
    pub shut: Vec<SessionKey>,
    /// Stop (false) or resume (true) reading from a connection.
    pub reading: Vec<(SessionKey, bool)>,
    /// What the directory of live sessions must learn.
    pub directory: Vec<DirectoryChange>,
    /// Outcomes of calls that this shard took, by their numbers.
    pub answers: Vec<(u32, CallOutcome)>,
}

/// A change to the directory of live sessions.
#[derive(Debug)]
pub enum DirectoryChange {
    Enter { key: SessionKey, session: SessionId, user: UserId, device: DeviceId, remote: IpAddr, since_ms: u64 },
    Leave { key: SessionKey },
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty()
            && self.store.is_empty()
            && self.dirty.is_empty()
            && self.shut.is_empty()
            && self.reading.is_empty()
            && self.directory.is_empty()
            && self.answers.is_empty()
    }
}
