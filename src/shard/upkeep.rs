//! Owns what a shard does beside its turns: leaving a copy of its counters where operators read it.
//!
//! Never delays a turn by more than one look at a bounded number of connections. Lives on its shard's thread, between two turns,
//! of which there are some each second even when nothing happens.

use crate::metrics::CloseReason;
use crate::types::CloseCode;

use super::turn::Driver;

/// When counters are left, and a walk over all connections, a stretch at a time, that adds up what waits to leave.
#[derive(Debug, Default)]
pub(super) struct Survey {
    next_slot: usize,
    outbox_bytes: u64,
    /// When the next copy is due.
    publish_at_ms: u64,
}

impl Driver {
    /// Does what is due.
    pub(super) fn keep_up(&mut self) {
        let now_ms = self.core.now.mono_ms();
        if now_ms >= self.survey.publish_at_ms {
            self.survey.publish_at_ms = now_ms + PUBLISH_EVERY_MS;
            self.publish();
        }
    }

    /// Brings the shard's metrics up to date and leaves a copy of them.
    pub(super) fn publish(&mut self) {
        self.survey_outboxes();
        let metrics = &mut *self.core.metrics;
        let counters = self.core.engine.counters_mut();
        metrics.sessions = counters.ready;
        metrics.online_users = counters.online_users;
        metrics.messages_received = counters.received;
        metrics.messages_delivered = counters.delivered;
        metrics.errors = counters.errors;
        metrics.ephemeral_shed = counters.shed;
        metrics.store_damaged = counters.damaged;
        metrics.lagging = counters.lagging;
        for code in CloseCode::ALL {
            metrics.connections_closed[CloseReason::Server(*code).index()] = counters.closes[code.index()];
        }
        metrics.connections_closed[CloseReason::Client.index()] = counters.closed_by_peer;
        metrics.connections_closed[CloseReason::PeerReset.index()] = self.core.peers_lost;
        for sample in counters.ack_us.drain(..) {
            metrics.ack_seconds.record_us(u64::from(sample));
        }
        for sample in counters.delivery_us.drain(..) {
            metrics.delivery_seconds.record_us(u64::from(sample));
        }
        // Somebody is reading the last copy: the next one will do.
        let _ = self.frontpage.registry.publish(self.port.shard().index(), metrics);
        if self.store.as_ref().is_some_and(|store| store.is_abandoned()) {
            self.store_lost = true;
            self.stopped = true;
        }
    }

    /// Looks at a stretch of the connections; a walk that has come to the end sets the gauge.
    fn survey_outboxes(&mut self) {
        let end = (self.survey.next_slot + SURVEY_SLOTS_MAX).min(self.core.connections.slots());
        for slot in self.survey.next_slot..end {
            let key = self.core.connections.key(slot as u32);
            self.survey.outbox_bytes += self.core.engine.outbox(key).map_or(0, |outbox| outbox.bytes() as u64);
        }
        self.survey.next_slot = end;
        if end == self.core.connections.slots() {
            self.core.metrics.outbox_bytes = self.survey.outbox_bytes;
            (self.survey.next_slot, self.survey.outbox_bytes) = (0, 0);
        }
    }
}

const PUBLISH_EVERY_MS: u64 = 500;
const SURVEY_SLOTS_MAX: usize = 16_384;
