//! Owns what will happen when: a queue by virtual time, first come first served within the same microsecond. Never reads a
//! clock.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::types::storage::{StoreReply, StoreRequest};

/// One thing that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A shard takes a turn.
    Turn(usize),
    /// A shard's deadline has come.
    Wake(usize),
    /// A shard's doorbell is heard.
    Ring(usize),
    /// The disk commits what has gathered.
    Commit,
    /// The disk looks something up.
    Look { shard: usize, request: Box<StoreRequest> },
    /// The disk's answer arrives.
    Answer { shard: usize, reply: Box<StoreReply> },
    /// The first thing that a client has said reaches its server.
    Upload(usize),
    /// The kernel has taken a connection's flight.
    Sent(usize),
    /// A client reads what has arrived for it.
    Download(usize),
    /// A connection that was to end has had its time.
    Linger(usize),
}

#[derive(Debug)]
struct Entry {
    at_us: u64,
    order: u64,
    what: Happening,
}

/// What will happen, soonest first.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BinaryHeap<Entry>,
    order: u64,
}

impl Agenda {
    pub fn put(&mut self, at_us: u64, what: Happening) {
        self.order += 1;
        self.entries.push(Entry { at_us, order: self.order, what });
    }

    /// The next thing that happens until `until_us`, and when.
    pub fn take(&mut self, until_us: u64) -> Option<(u64, Happening)> {
        if self.entries.peek()?.at_us > until_us {
            return None;
        }
        self.entries.pop().map(|entry| (entry.at_us, entry.what))
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at_us, other.order).cmp(&(self.at_us, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
