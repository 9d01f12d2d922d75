//! Owns what a shard does in the background: leaving a copy of its counters where operators read it.
//!
//! Never delays a turn by more than one look at a bounded number of connections. Lives on its shard's thread, as a glommio task
//! with a small share, between two turns.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use glommio::timer::sleep;
use glommio::{Latency, Shares, executor, spawn_local_into};

use crate::metrics::CloseReason;
use crate::types::CloseCode;

use super::turn::Driver;

/// A walk over all connections, a stretch at a time, that adds up what waits to leave.
#[derive(Debug, Default)]
pub(super) struct Survey {
    next_slot: usize,
    outbox_bytes: u64,
}

/// Starts the background task. It ends when the driver is gone, which it does not keep.
pub(super) fn start(driver: &Rc<RefCell<Driver>>) {
    let driver: Weak<RefCell<Driver>> = Rc::downgrade(driver);
    let queue = executor().create_task_queue(Shares::Static(SHARES), Latency::NotImportant, "upkeep");
    let task = async move {
        loop {
            sleep(PUBLISH_EVERY).await;
            let Some(driver) = driver.upgrade() else { return };
            // The turn does not hold the driver while it yields.
            driver.borrow_mut().publish();
        }
    };
    spawn_local_into(task, queue).expect("the queue was just made").detach();
}

impl Driver {
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
            self.survey = Survey::default();
        }
    }
}

const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// Of the executor's time, where the turn has 1000.
const SHARES: usize = 100;
const SURVEY_SLOTS_MAX: usize = 16_384;
