//! Owns the meeting of a shard with the others: the real rings and doorbells, on virtual time. A shard takes in what its rings
//! hold when it has its turn; a ring of its doorbell takes a while to wake it. Never wakes a shard that nobody has rung.

use super::super::agenda::Happening;
use super::super::seat::Incoming;
use super::{Delay, Node};
use crate::engine::Event;
use crate::types::ShardId;
use crate::types::envelope::Envelope;
use crate::types::planted::{Reached, reached};

impl Node {
    /// Takes in what other shards have said, then what the store, operators and sockets have brought, each up to a bound.
    pub(super) fn collect(&mut self, shard: usize) {
        let (mesh_max, events_max) = (self.plan.pace.mesh_per_turn_max, self.plan.pace.events_per_turn_max);
        let mut heard: Vec<(ShardId, Envelope)> = Vec::new();
        self.seats[shard].port.drain(mesh_max, &mut |from, envelope| heard.push((from, envelope)));
        // As the real driver: what was said first is heard first, whichever ring it came through.
        heard.sort_by_key(|(_, envelope)| envelope.sent_us);
        for (from, envelope) in heard {
            self.step(shard, Event::Mesh { from, envelope });
        }
        let events = self.random.usize(1..=events_max);
        let held_back = self.seats[shard].port.is_congested();
        let mut kept = Vec::new();
        for _ in 0..events {
            match self.seats[shard].inbox.pop_front() {
                // Work must not come in faster than it can go on.
                Some(said @ Incoming::From(..)) if held_back => {
                    reached(Reached::Congested);
                    self.tally.fault("sockets held back by full rings");
                    kept.push(said);
                }
                Some(incoming) => self.take_in(shard, incoming),
                None => break,
            }
        }
        for said in kept.into_iter().rev() {
            self.seats[shard].inbox.push_front(said);
        }
    }

    /// Moves what was said into the rings and rings who has to be.
    pub(super) fn flush_mesh(&mut self, shard: usize) {
        let targets: Vec<ShardId> = self.seats[shard].port.flush().to_vec();
        for target in targets {
            self.ring(target.index());
        }
        let overflow = self.seats[shard].port.overflow_len();
        if overflow > 0 {
            reached(Reached::RingFull);
            self.tally.fault("full ring");
        }
        let limit = self.plan.ring_capacity + OVERFLOW_MAX;
        assert!(overflow <= limit, "shard {shard}: {overflow} values wait for room in rings of {}", self.plan.ring_capacity);
    }

    /// The shard sleeps unless there is something to do.
    pub(super) fn rest(&mut self, shard: usize) {
        let now_ms = self.now_ms();
        let seat = &mut self.seats[shard];
        let held_back = seat.port.is_congested();
        let takeable = seat.inbox.iter().any(|incoming| !(held_back && matches!(incoming, Incoming::From(..))));
        let due_ms = seat.engine.next_deadline_ms();
        let busy = takeable || due_ms.is_some_and(|due| due <= now_ms);
        if busy || !seat.port.park(|| true) {
            seat.port.unpark();
            return self.plan_turn(shard);
        }
        seat.parked = true;
        let Some(due_us) = due_ms.map(|due| due * 1_000) else { return };
        if seat.wake_at_us.is_none_or(|at_us| at_us > due_us) {
            seat.wake_at_us = Some(due_us);
            self.agenda.put(due_us, Happening::Wake(shard));
        }
    }

    /// Has the shard woken that somebody else has given something: as the real waker, only when nobody else does.
    pub(super) fn wake_if_parked(&mut self, shard: usize) {
        if self.seats[shard].port.doorbell().claim() {
            self.ring(shard);
        }
    }

    fn ring(&mut self, shard: usize) {
        self.seats[shard].rung = true;
        let at_us = self.now_us + self.draw(Delay::Mesh);
        self.agenda.put(at_us, Happening::Ring(shard));
    }

    /// No shard sleeps on something that waits for it while nobody is about to wake it.
    pub(super) fn judge_sleepers(&self) {
        for (shard, seat) in self.seats.iter().enumerate() {
            let asleep = seat.parked && !seat.rung && !seat.turn_planned;
            assert!(!asleep || seat.port.is_idle(), "shard {shard} sleeps although something waits for it");
        }
    }

    /// No queue is fuller than it may be.
    pub(super) fn judge_queues(&self) {
        let settings = &self.plan.settings;
        for (shard, seat) in self.seats.iter().enumerate() {
            let load = seat.engine.load();
            let bytes_max = settings.outbox_bytes_max + OUTBOX_SLACK_BYTES;
            assert!(load.outbox_bytes <= bytes_max, "shard {shard}: {} bytes of messages in an outbox", load.outbox_bytes);
            assert!(
                load.waiting <= settings.loading_requests_max,
                "shard {shard}: {} requests wait for a conversation",
                load.waiting
            );
            assert!(load.walks <= settings.walks_max, "shard {shard}: {} messages of a room wait for their walk", load.walks);
            let sessions = seat.engine.sessions_open() as usize;
            assert!(
                seat.engine.timers_waiting() <= TIMERS_MAX + TIMERS_PER_SESSION_MAX * sessions,
                "shard {shard}: {} timers for {sessions} sessions",
                seat.engine.timers_waiting()
            );
        }
    }
}

/// What one turn's events produce at most, in the largest of these worlds.
const OVERFLOW_MAX: usize = 1_500;
/// Frames that say something beside the messages an outbox holds: gaps, ends of syncs, recalls.
const OUTBOX_SLACK_BYTES: usize = 3_000;
/// Timers of sessions that are gone run out by themselves.
const TIMERS_MAX: usize = 400;
const TIMERS_PER_SESSION_MAX: usize = 40;
