//! Owns one shard's ends of all rings to and from the other shards. Never blocks, never loses a value and never reorders two
//! values of one pair. Made before the executors start, then lives on its shard's thread.
//!
//! A ring that is full leaves values in the port's overflow. The overflow grows only by what the shard itself produces: beyond
//! [`Port::is_congested`] the driver stops reading its sockets, so no new work enters, and what is under way needs at most
//! three hops to end. So the overflow stays below the bound plus what one turn's events produce.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use super::Doorbell;
use super::primitive::Native;
use crate::types::ShardId;
use crate::types::planted::{Planted, Reached, planted, reached};

/// Makes the rings between all pairs of `shards` shards, each for `capacity` values (one direction), and the doorbells.
///
/// # Panics
/// When `shards` or `capacity` is 0.
pub fn build<T: Send>(shards: u16, capacity: usize) -> Vec<Port<T>> {
    assert!(shards > 0 && capacity > 0, "a mesh needs at least one shard and rings of at least one value");
    let doorbells: Vec<Arc<Doorbell>> = (0..shards).map(|_| Arc::new(Doorbell::new())).collect();
    let mut ports: Vec<Port<T>> = (0..shards).map(|shard| Port::new(ShardId(shard), &doorbells, capacity)).collect();
    for source in 0..usize::from(shards) {
        for target in (0..usize::from(shards)).filter(|target| *target != source) {
            let (producer, consumer) = RingBuffer::new(capacity);
            let blocked = Arc::new(AtomicBool::new(false));
            ports[source].outgoing[target] = Some(Outgoing { producer, batch: VecDeque::new(), blocked: blocked.clone() });
            ports[target].incoming[source] = Some(Incoming { consumer, blocked, taken: false });
        }
    }
    ports
}

/// One shard's ends of the mesh.
#[derive(Debug)]
pub struct Port<T> {
    shard: ShardId,
    doorbells: Vec<Arc<Doorbell>>,
    /// By target; None at the own place.
    outgoing: Vec<Option<Outgoing<T>>>,
    /// By source; None at the own place.
    incoming: Vec<Option<Incoming<T>>>,
    /// Targets whose batch is not empty.
    pending: Vec<ShardId>,
    /// Sources from which something was taken since the last flush.
    taken_from: Vec<ShardId>,
    /// What the last flush answered.
    to_ring: Vec<ShardId>,
    /// Where the next sweep begins.
    sweep_from: usize,
    /// Values left over by the last flush.
    overflow: usize,
    /// Values given since the last flush.
    fresh: usize,
    congested_beyond: usize,
}

#[derive(Debug)]
struct Outgoing<T> {
    producer: Producer<T>,
    /// In the order of giving: what the ring has not taken yet.
    batch: VecDeque<T>,
    /// Tells the target that this shard waits for room. Written only here.
    blocked: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Incoming<T> {
    consumer: Consumer<T>,
    blocked: Arc<AtomicBool>,
    taken: bool,
}

impl<T: Send> Port<T> {
    fn new(shard: ShardId, doorbells: &[Arc<Doorbell>], capacity: usize) -> Port<T> {
        let shards = doorbells.len();
        Port {
            shard,
            doorbells: doorbells.to_vec(),
            outgoing: (0..shards).map(|_| None).collect(),
            incoming: (0..shards).map(|_| None).collect(),
            pending: Vec::with_capacity(shards),
            taken_from: Vec::with_capacity(shards),
            to_ring: Vec::with_capacity(2 * shards),
            sweep_from: 0,
            overflow: 0,
            fresh: 0,
            congested_beyond: capacity,
        }
    }

    /// The shard whose port this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How many shards the mesh has.
    pub fn shards(&self) -> u16 {
        self.doorbells.len() as u16
    }

    /// The shard's own doorbell, for its [`super::Waker`].
    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbells[self.shard.index()]
    }

    /// Takes a value for another shard; it leaves with the next [`flush`](Port::flush).
    ///
    /// # Panics
    /// When `target` is this shard or none of the mesh.
    #[inline]
    pub fn push(&mut self, target: ShardId, value: T) {
        let outgoing = self.outgoing[target.index()].as_mut().expect("a shard does not send to itself");
        if outgoing.batch.is_empty() {
            self.pending.push(target);
        }
        outgoing.batch.push_back(value);
        self.fresh += 1;
    }

    /// Moves as much as fits into the rings and answers which shards must be rung now: each at most once, and only those that
    /// are parked and that nobody else rings. To be called at the end of every turn, also when nothing was pushed: it also
    /// tells shards that wait for room that [`drain`](Port::drain) has made some.
    #[must_use = "a shard that is not rung sleeps on"]
    pub fn flush(&mut self) -> &[ShardId] {
        self.to_ring.clear();
        if self.pending.is_empty() && self.taken_from.is_empty() {
            return &self.to_ring;
        }
        self.move_batches();
        Doorbell::<Native>::fence();
        let doorbells = &self.doorbells;
        self.to_ring.retain(|target| doorbells[target.index()].claim() && !planted(Planted::DoorbellLost));
        for source in self.taken_from.drain(..) {
            let incoming = self.incoming[source.index()].as_mut().expect("taken from a ring that exists");
            incoming.taken = false;
            if incoming.blocked.load(Ordering::Relaxed) && !planted(Planted::RoomUntold) && doorbells[source.index()].claim() {
                reached(Reached::RoomTold);
                self.to_ring.push(source);
            }
        }
        &self.to_ring
    }

    /// Hands at most `max` values to `sink`, in turns over all sources so that none starves, each source in its order.
    /// Returns how many; less than `max` means that the rings were empty.
    pub fn drain(&mut self, max: usize, sink: &mut impl FnMut(ShardId, T)) -> usize {
        let shards = self.incoming.len();
        let share = max.div_ceil(shards).max(SHARE_MIN);
        let mut total = 0;
        let mut idle = 0;
        let mut at = self.sweep_from;
        while total < max && idle < shards {
            let taken = self.take(at, share.min(max - total), sink);
            idle = if taken == 0 { idle + 1 } else { 0 };
            total += taken;
            at = if at + 1 == shards { 0 } else { at + 1 };
        }
        self.sweep_from = at;
        total
    }

    /// Values that the rings had no room for at the last flush.
    pub fn overflow_len(&self) -> usize {
        self.overflow
    }

    /// True when more is left over than one ring holds: read no socket until it is false again.
    pub fn is_congested(&self) -> bool {
        self.overflow > self.congested_beyond
    }

    /// Announces that the shard wants to sleep and looks at everything again. True: it may sleep until rung or until its next
    /// deadline; false: there is work. `others_idle` looks at the inputs that are not the mesh's (store replies, inboxes).
    /// Either way [`unpark`](Port::unpark) comes next.
    ///
    /// Overflow alone does not keep a shard awake: who makes room rings it.
    pub fn park(&self, others_idle: impl FnOnce() -> bool) -> bool {
        if self.fresh > 0 || !self.taken_from.is_empty() {
            return false;
        }
        self.doorbell().announce();
        self.is_idle() && others_idle()
    }

    /// Says that the shard works again. True when it was rung since [`park`](Port::park).
    pub fn unpark(&self) -> bool {
        self.doorbell().open()
    }

    /// Nothing to take, and nothing that could be moved.
    pub fn is_idle(&self) -> bool {
        let nothing_waits = self.incoming.iter().flatten().all(|incoming| incoming.consumer.is_empty());
        nothing_waits && self.pending.iter().all(|target| self.outgoing[target.index()].as_ref().is_none_or(Outgoing::is_stuck))
    }

    fn move_batches(&mut self) {
        let Port { pending, outgoing, to_ring, overflow, .. } = self;
        *overflow = 0;
        pending.retain(|target| {
            let outgoing = outgoing[target.index()].as_mut().expect("pending only where a ring exists");
            if outgoing.move_batch() > 0 {
                to_ring.push(*target);
            }
            *overflow += outgoing.batch.len();
            !outgoing.batch.is_empty()
        });
        self.fresh = 0;
    }

    fn take(&mut self, source: usize, max: usize, sink: &mut impl FnMut(ShardId, T)) -> usize {
        let Some(incoming) = self.incoming[source].as_mut() else {
            return 0;
        };
        let count = incoming.consumer.slots().min(max);
        if count == 0 {
            return 0;
        }
        if !incoming.taken {
            incoming.taken = true;
            self.taken_from.push(ShardId(source as u16));
        }
        let chunk = incoming.consumer.read_chunk(count).expect("as many as were counted");
        for value in chunk {
            sink(ShardId(source as u16), value);
        }
        count
    }
}

impl<T> Outgoing<T> {
    /// Moves what fits; returns how many.
    fn move_batch(&mut self) -> usize {
        let was_blocked = self.blocked.load(Ordering::Relaxed);
        let count = self.batch.len().min(self.producer.slots());
        if count > 0 {
            let chunk = self.producer.write_chunk_uninit(count).expect("as many as were counted");
            chunk.fill_from_iter(self.batch.drain(..count));
        }
        if planted(Planted::FullRingLosesOne) {
            self.batch.pop_front();
        }
        if planted(Planted::OverflowReordered) && self.batch.len() > 1 {
            self.batch.swap(0, 1);
        }
        let blocked = !self.batch.is_empty();
        if blocked != was_blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
        }
        if !blocked && self.batch.capacity() > BATCH_KEPT_MAX {
            self.batch = VecDeque::new();
        }
        count
    }

    fn is_stuck(&self) -> bool {
        self.producer.is_full()
    }
}

/// Values taken from one source before the next has its turn, at least: one cache line of counters pays for several values.
const SHARE_MIN: usize = 8;
/// A batch that once grew beyond this gives its memory back when it is empty.
const BATCH_KEPT_MAX: usize = 4_096;
