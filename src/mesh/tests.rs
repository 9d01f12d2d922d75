//! Proves the mesh: random operations against queues that cannot be wrong, and real threads.

use std::collections::{HashSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::types::ShardId;

/// What the mesh must do, spelt with one queue per pair.
struct Oracle {
    /// Given and not flushed into the ring, by source and target.
    held: Vec<Vec<VecDeque<u64>>>,
    /// In the ring.
    ring: Vec<Vec<VecDeque<u64>>>,
    parked: Vec<bool>,
    rung: Vec<bool>,
}

impl Oracle {
    fn new(shards: usize) -> Oracle {
        let queues = || (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect();
        Oracle { held: queues(), ring: queues(), parked: vec![false; shards], rung: vec![false; shards] }
    }

    /// Returns who must be rung for values.
    fn flush(&mut self, source: usize, capacity: usize) -> HashSet<usize> {
        let mut ring = HashSet::new();
        for target in 0..self.parked.len() {
            let mut moved = false;
            while self.ring[source][target].len() < capacity && !self.held[source][target].is_empty() {
                let value = self.held[source][target].pop_front().expect("not empty");
                self.ring[source][target].push_back(value);
                moved = true;
            }
            if moved && self.parked[target] && !self.rung[target] {
                self.rung[target] = true;
                ring.insert(target);
            }
        }
        ring
    }
}

#[test]
fn random_operations_keep_order_lose_nothing_and_ring_exactly() {
    for seed in 0..if cfg!(miri) { 8 } else { 400 } {
        let mut random = fastrand::Rng::with_seed(seed);
        let (shards, capacity) = (random.usize(1..6), random.usize(1..9));
        run_random(&mut random, shards, capacity);
    }
}

fn run_random(random: &mut fastrand::Rng, shards: usize, capacity: usize) {
    let mut ports = build::<u64>(shards as u16, capacity);
    let mut oracle = Oracle::new(shards);
    let mut drained_since_flush = vec![HashSet::new(); shards];
    let mut blocked_seen = vec![vec![false; shards]; shards];
    let mut next = 0;
    for _ in 0..OPERATIONS {
        let at = random.usize(0..shards);
        match random.u8(0..10) {
            0..4 if shards > 1 && !oracle.parked[at] => {
                let target = (at + random.usize(1..shards)) % shards;
                next += 1;
                ports[at].push(ShardId(target as u16), next);
                oracle.held[at][target].push_back(next);
            }
            4..6 if !oracle.parked[at] => {
                let mut expected = oracle.flush(at, capacity);
                for (seen, held) in blocked_seen[at].iter_mut().zip(&oracle.held[at]) {
                    *seen = !held.is_empty();
                }
                for source in drained_since_flush[at].drain() {
                    let source: usize = source;
                    if blocked_seen[source][at] && oracle.parked[source] && !oracle.rung[source] {
                        oracle.rung[source] = true;
                        expected.insert(source);
                    }
                }
                let rung: Vec<usize> = ports[at].flush().iter().map(|shard| shard.index()).collect();
                assert_eq!(rung.len(), expected.len(), "no shard is rung twice in a turn");
                assert_eq!(rung.into_iter().collect::<HashSet<_>>(), expected);
                assert_eq!(ports[at].overflow_len(), oracle.held[at].iter().map(VecDeque::len).sum::<usize>());
            }
            6..8 if !oracle.parked[at] => {
                let max = random.usize(0..20);
                let waiting: usize = oracle.ring.iter().map(|targets| targets[at].len()).sum();
                let taken = ports[at].drain(max, &mut |source, value| {
                    assert_eq!(oracle.ring[source.index()][at].pop_front(), Some(value), "order per pair");
                    drained_since_flush[at].insert(source.index());
                });
                assert_eq!(taken, waiting.min(max), "a drain takes all there is");
            }
            8 if !oracle.parked[at] => {
                // Only after a flush may a shard park; anything that can move keeps it awake.
                let unflushed = oracle.held[at].iter().enumerate().any(|(target, held)| {
                    !held.is_empty() && (oracle.ring[at][target].len() < capacity || !blocked_seen[at][target])
                });
                let waiting = oracle.ring.iter().any(|targets| !targets[at].is_empty());
                let may = ports[at].park(|| true);
                if waiting || unflushed {
                    assert!(!may, "a shard with work does not sleep");
                }
                if may {
                    oracle.parked[at] = true;
                } else {
                    ports[at].unpark();
                }
            }
            9 if oracle.parked[at] => {
                assert_eq!(ports[at].unpark(), oracle.rung[at]);
                oracle.parked[at] = false;
                oracle.rung[at] = false;
            }
            _ => {}
        }
        for sleeper in (0..shards).filter(|shard| oracle.parked[*shard] && !oracle.rung[*shard]) {
            let published = oracle.ring.iter().any(|targets| !targets[sleeper].is_empty());
            assert!(!published, "shard {sleeper} sleeps although a value waits and nobody rings");
            for target in (0..shards).filter(|target| !drained_since_flush[*target].contains(&sleeper)) {
                let stuck = oracle.ring[sleeper][target].len() == capacity;
                assert!(oracle.held[sleeper][target].is_empty() || stuck, "shard {sleeper} sleeps although there is room again");
            }
        }
    }
    settle(&mut ports, &mut oracle, capacity);
}

/// Everybody works until nothing is left.
fn settle(ports: &mut [Port<u64>], oracle: &mut Oracle, capacity: usize) {
    for _ in 0..OPERATIONS {
        for (at, port) in ports.iter_mut().enumerate() {
            let _ = port.flush();
            oracle.flush(at, capacity);
            port.drain(usize::MAX, &mut |source, value| {
                assert_eq!(oracle.ring[source.index()][at].pop_front(), Some(value));
            });
        }
    }
    assert!(oracle.held.iter().chain(&oracle.ring).flatten().all(VecDeque::is_empty), "something was left behind");
    assert!(ports.iter().all(|port| port.overflow_len() == 0 && port.is_idle()));
}

#[test]
fn every_source_has_its_turn() {
    let mut ports = build::<u32>(3, 64);
    for port in &mut ports[1..] {
        (0..64).for_each(|value| port.push(ShardId(0), value));
        assert!(port.flush().is_empty());
    }
    let mut from = [0; 3];
    for _ in 0..4 {
        assert_eq!(ports[0].drain(16, &mut |source, _| from[source.index()] += 1), 16);
    }
    assert_eq!(from, [0, 32, 32]);
}

#[test]
fn congestion_shows_and_passes() {
    let mut ports = build::<u32>(2, 4);
    for value in 0..9 {
        ports[0].push(ShardId(1), value);
    }
    let _ = ports[0].flush();
    assert_eq!((ports[0].overflow_len(), ports[0].is_congested()), (5, true));
    assert_eq!(ports[1].drain(100, &mut |_, _| {}), 4);
    let _ = ports[0].flush();
    assert_eq!((ports[0].overflow_len(), ports[0].is_congested()), (1, false));
}

/// Threads that sleep on their eventfd: each sends to every other and counts what comes; a lost wake-up would leave one
/// asleep for ever (the test then hangs), a lost or doubled value would spoil its sums.
#[test]
#[cfg_attr(miri, ignore = "waits in poll, which Miri does not know")]
fn threads_that_sleep_get_everything_in_order() {
    let ports = build::<u64>(SHARDS as u16, 8);
    let wakers: Vec<Waker> = ports.iter().map(|port| Waker::new(port.doorbell().clone()).unwrap()).collect();
    run_threads(ports, &wakers);
}

/// The same, asleep on a channel of one place, which Miri knows: it watches the memory of rings and doorbells.
#[test]
fn threads_that_wait_get_everything_in_order() {
    let sleepers: Vec<Sleeper> = (0..SHARDS).map(|_| Sleeper::new()).collect();
    run_threads(build::<u64>(SHARDS as u16, 8), &sleepers);
}

/// How a thread waits until it is rung.
trait Bell: std::marker::Sync {
    fn ring(&self);
    fn wait(&self);
}

impl Bell for Waker {
    fn ring(&self) {
        rustix::io::write(self.as_fd(), &1u64.to_ne_bytes()).unwrap();
    }

    fn wait(&self) {
        let mut wait = [rustix::event::PollFd::from_borrowed_fd(self.as_fd(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None).unwrap();
        self.clear();
    }
}

struct Sleeper {
    give: SyncSender<()>,
    take: Mutex<Receiver<()>>,
}

impl Sleeper {
    fn new() -> Sleeper {
        let (give, take) = sync_channel(1);
        Sleeper { give, take: Mutex::new(take) }
    }
}

impl Bell for Sleeper {
    fn ring(&self) {
        // One that waits to be taken wakes as well.
        let _ = self.give.try_send(());
    }

    fn wait(&self) {
        self.take.lock().unwrap().recv().unwrap();
    }
}

fn run_threads(ports: Vec<Port<u64>>, bells: &[impl Bell]) {
    let sleeps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for port in ports {
            let sleeps = &sleeps;
            scope.spawn(move || run_thread(port, bells, sleeps, SHARDS, VALUES));
        }
    });
    assert!(sleeps.load(Ordering::Relaxed) > 0, "nobody ever slept, so nothing was shown");
}

fn run_thread(mut port: Port<u64>, bells: &[impl Bell], sleeps: &AtomicU64, shards: u64, values: u64) {
    let me = port.shard();
    let others: Vec<ShardId> = (0..shards as u16).map(ShardId).filter(|other| *other != me).collect();
    let mut random = fastrand::Rng::with_seed(u64::from(me.0));
    let mut sent = 0;
    let mut next_from = vec![0; shards as usize];
    loop {
        port.drain(16, &mut |source, value| {
            assert_eq!(value, next_from[source.index()], "order per pair");
            next_from[source.index()] += 1;
        });
        if !port.is_congested() {
            for _ in 0..random.u64(0..6).min(values - sent) {
                others.iter().for_each(|other| port.push(*other, sent));
                sent += 1;
            }
        }
        for target in port.flush() {
            bells[target.index()].ring();
        }
        let received: u64 = next_from.iter().sum();
        if sent == values && received == values * (shards - 1) && port.overflow_len() == 0 {
            return;
        }
        // Sleeps also while it still has something to send, as a shard between two reads of its sockets would.
        if (sent == values || random.bool() && received > 0 && sent > received + 64) && port.park(|| true) {
            sleeps.fetch_add(1, Ordering::Relaxed);
            bells[me.index()].wait();
        }
        port.unpark();
    }
}

#[test]
fn an_inbox_refuses_when_full_and_wakes_a_parked_shard_once() {
    let ports = build::<u8>(1, 1);
    let waker = Waker::new(ports[0].doorbell().clone()).unwrap();
    let inbox = Inbox::new(2, waker.clone());
    let sender = inbox.sender();
    assert!(ports[0].park(|| inbox.is_empty()));
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(sender.try_send(2), Ok(()));
    assert_eq!(sender.try_send(3), Err(3));
    assert!(ports[0].unpark(), "rung");
    assert!(waker.clear() && !waker.clear(), "one wake for both");
    assert!(!ports[0].park(|| inbox.is_empty()), "looks at the inbox before sleeping");
    ports[0].unpark();
    let mut taken = Vec::new();
    assert_eq!(inbox.drain(10, &mut |value| taken.push(value)), 2);
    assert_eq!(taken, [1, 2]);
    assert_eq!(sender.try_send(4), Ok(()));
    assert!(!waker.clear(), "a working shard is not rung");
}

const SHARDS: u64 = 3;
/// Under Miri everything is some thousand times slower.
const VALUES: u64 = if cfg!(miri) { 150 } else { 2_000 };
const OPERATIONS: usize = if cfg!(miri) { 300 } else { 4_000 };
