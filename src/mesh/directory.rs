//! Owns the directory of live sessions, which control reads without asking a shard. Never makes a shard wait: entering and
//! leaving take no lock that a reader holds. Shared by all threads; shards write their own sessions, control only reads.
//!
//! Entries live in `sharded_slab`s, whose key (with its generation) says which connection is meant, also after its place was
//! used again. A slab cannot be walked while it is shared, so each shard has a *roster*: one place per slot of the shard's own
//! session table, holding the key and a hash of the user. A walk goes over the rosters in order of shard and slot: an entry
//! that is there from beginning to end is seen exactly once, one that comes or goes meanwhile may or may not be seen, and the
//! place where a walk stopped is a valid cursor forever. Looking for one user reads 16 bytes a slot, and entries only where
//! the hash fits: about 2 ms for a million connections, where reading all of them takes 40.
//!
//! A slab doubles when it grows: one insertion would prepare 12 MB at half a million connections. So roster and slab come in
//! chunks of [`CHUNK_SLOTS`], made when their first slot is used and then kept; the dearest insertion takes 0.3 ms.
//!
//! Memory for each connection: 96 bytes for the entry, 24 in the slab, 16 in the roster; ids above 24 bytes add their length.

use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::FixedState;
use sharded_slab::{Config, Slab};

use crate::types::{DeviceId, Millis, SessionAddress, SessionId, SessionKey, ShardId, UserId};

/// One live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub user: UserId,
    pub device: DeviceId,
    /// Home shard.
    pub shard: ShardId,
    /// Place in the home shard's table. Slots must be dense: they are the index of the roster.
    pub key: SessionKey,
    pub session: SessionId,
    /// When it was authenticated.
    pub since: Millis,
    pub remote: IpAddr,
}

impl Entry {
    /// Where other shards reach it.
    pub fn address(&self) -> SessionAddress {
        SessionAddress { shard: self.shard, key: self.key }
    }
}

/// Names a connection to operators; never names another one later. Its text form is opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    shard: ShardId,
    slot: u32,
    /// The slab's key, generation included.
    key: usize,
}

impl ConnectionId {
    /// Reads the text form.
    pub fn parse(text: &str) -> Option<ConnectionId> {
        let mut parts = text.split('-');
        let (shard, slot, key) = (parts.next()?, parts.next()?, parts.next()?);
        let id = ConnectionId {
            shard: ShardId(u16::from_str_radix(shard, 16).ok()?),
            slot: u32::from_str_radix(slot, 16).ok()?,
            key: usize::from_str_radix(key, 16).ok()?,
        };
        // Only the spelling that was given out: no signs, no leading zeros, no fourth part.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:x}-{:x}-{:x}", self.shard.0, self.slot, self.key)
    }
}

/// Where a walk stopped: the next slot to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// A stretch of a walk.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<(ConnectionId, Entry)>,
    /// Where to go on; None when the walk is over. May be Some although `entries` has less than was asked for.
    pub next: Option<Cursor>,
}

/// The directory.
pub struct Directory {
    rosters: Vec<Roster>,
}

impl Directory {
    /// An empty directory for `shards` shards.
    pub fn new(shards: usize) -> Directory {
        Directory { rosters: (0..shards).map(|_| Roster::new()).collect() }
    }

    /// Adds a session; called by its home shard only. An entry left over in its slot is replaced.
    ///
    /// None when the directory is full (more than [`SLOTS_MAX`] slots on one shard): the session works, operators do not see it.
    pub fn enter(&self, entry: Entry) -> Option<ConnectionId> {
        let (shard, slot) = (entry.shard, entry.key.slot);
        let (chunk, place) = self.rosters.get(shard.index())?.place_or_new(slot)?;
        let user_hash = hash(&entry.user);
        let key = chunk.slab.insert(Box::new(entry))?;
        place.user_hash.store(user_hash, Ordering::Relaxed);
        let stale = place.key.swap(key + 1, Ordering::AcqRel);
        if stale != 0 {
            chunk.slab.remove(stale - 1);
        }
        Some(ConnectionId { shard, slot, key })
    }

    /// Removes a session; called by its home shard only. A session that left before is left alone. True when it was there.
    pub fn leave(&self, id: ConnectionId) -> bool {
        let Some((chunk, place)) = self.place(id.shard, id.slot) else { return false };
        let there = id
            .key
            .checked_add(1)
            .is_some_and(|kept| place.key.compare_exchange(kept, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        // A reader that holds the entry right now frees it when done; nobody waits for that.
        there && chunk.slab.remove(id.key)
    }

    /// As [`Directory::leave`], for a shard that does not keep connection ids.
    pub fn leave_session(&self, shard: ShardId, key: SessionKey) -> bool {
        let Some((_, place)) = self.place(shard, key.slot) else { return false };
        match place.key() {
            Some(kept) => {
                let id = ConnectionId { shard, slot: key.slot, key: kept };
                self.get(id).is_some_and(|entry| entry.key == key) && self.leave(id)
            }
            None => false,
        }
    }

    /// The session of an id, however old or invented the id is.
    pub fn get(&self, id: ConnectionId) -> Option<Entry> {
        let (chunk, place) = self.place(id.shard, id.slot)?;
        // The slab itself may only be asked for keys that it has given out.
        if place.key() != Some(id.key) {
            return None;
        }
        chunk.slab.get(id.key).map(|entry| Entry::clone(&entry))
    }

    /// At most `limit` sessions (of `user` only, when given) from `after` on, looking at no more than `slots_max` slots, so
    /// that the caller decides how long it takes.
    pub fn list(&self, user: Option<&UserId>, after: Cursor, limit: usize, slots_max: usize) -> Page {
        let mut entries = Vec::new();
        let next = self.walk(user, after, slots_max, |id, entry| {
            entries.push((id, entry.clone()));
            entries.len() < limit
        });
        Page { entries, next }
    }

    /// Shows sessions from `after` on to `visit` until that answers false or `slots_max` slots were looked at. Answers where
    /// to go on.
    pub fn walk(
        &self,
        user: Option<&UserId>,
        after: Cursor,
        slots_max: usize,
        mut visit: impl FnMut(ConnectionId, &Entry) -> bool,
    ) -> Option<Cursor> {
        let wanted_hash = user.map(hash);
        let (mut shard, mut slot) = after.parts();
        for _ in 0..slots_max {
            while slot >= self.rosters.get(shard)?.slots() {
                (shard, slot) = (shard + 1, 0);
            }
            let here = slot;
            slot += 1;
            let Some((chunk, place)) = self.rosters[shard].place(here) else { continue };
            let Some(key) = place.key() else { continue };
            if wanted_hash.is_some_and(|wanted| wanted != place.user_hash.load(Ordering::Relaxed)) {
                continue;
            }
            let Some(entry) = chunk.slab.get(key) else { continue };
            if user.is_some_and(|wanted| *wanted != entry.user) {
                continue;
            }
            if !visit(ConnectionId { shard: entry.shard, slot: here, key }, &entry) {
                break;
            }
        }
        while slot >= self.rosters.get(shard)?.slots() {
            (shard, slot) = (shard + 1, 0);
        }
        Some(Cursor::new(shard, slot))
    }

    fn place(&self, shard: ShardId, slot: u32) -> Option<(&Chunk, &Place)> {
        self.rosters.get(shard.index())?.place(slot)
    }
}

impl Cursor {
    /// The place of one connection: a walk from here sees it first.
    pub fn at(id: ConnectionId) -> Cursor {
        Cursor::new(id.shard.index(), id.slot)
    }

    fn new(shard: usize, slot: u32) -> Cursor {
        Cursor((shard as u64) << 32 | u64::from(slot))
    }

    fn parts(self) -> (usize, u32) {
        ((self.0 >> 32) as usize, self.0 as u32)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Directory({} shards)", self.rosters.len())
    }
}

/// One shard's places by slot.
struct Roster {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    /// One more than the highest slot ever used.
    slots: AtomicU32,
}

/// A stretch of a shard's slots, with the entries of those that are taken.
struct Chunk {
    places: Box<[Place]>,
    slab: Slab<Box<Entry>, Sizes>,
}

/// Which entry is in a slot, if any.
#[derive(Default)]
struct Place {
    /// The slab's key plus one; 0 = nobody.
    key: AtomicUsize,
    user_hash: AtomicU64,
}

impl Roster {
    fn new() -> Roster {
        Roster { chunks: (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect(), slots: AtomicU32::new(0) }
    }

    fn slots(&self) -> u32 {
        self.slots.load(Ordering::Acquire)
    }

    fn place(&self, slot: u32) -> Option<(&Chunk, &Place)> {
        let slot = slot as usize;
        let chunk = self.chunks.get(slot / CHUNK_SLOTS)?.get()?;
        Some((chunk, &chunk.places[slot % CHUNK_SLOTS]))
    }

    /// Called by the roster's own shard only, so the first use of a chunk is never contended.
    fn place_or_new(&self, slot: u32) -> Option<(&Chunk, &Place)> {
        let at = slot as usize;
        let chunk = self.chunks.get(at / CHUNK_SLOTS)?.get_or_init(|| {
            let places = (0..CHUNK_SLOTS).map(|_| Place::default()).collect();
            Box::new(Chunk { places, slab: Slab::new_with_config() })
        });
        self.slots.fetch_max(slot + 1, Ordering::AcqRel);
        Some((chunk, &chunk.places[at % CHUNK_SLOTS]))
    }
}

impl Place {
    fn key(&self) -> Option<usize> {
        self.key.load(Ordering::Acquire).checked_sub(1)
    }
}

/// The slab's key is 64 bits: 10 for the thread, 16 for the place, and so 38 for the generation, which does not come round.
///
/// Eight pages of 64, 128, ... 8,192 hold a chunk exactly. The ninth is for entries whose slot was taken again while a reader
/// still held the old one.
struct Sizes;

impl Config for Sizes {
    const MAX_THREADS: usize = 1_024;
    const MAX_PAGES: usize = 9;
    const INITIAL_PAGE_SIZE: usize = 64;
}

/// Chance plays no part in it: a user who finds a collision only makes a look-up read one entry more.
fn hash(user: &UserId) -> u64 {
    FixedState::default().hash_one(user)
}

/// Most slots of one shard that the directory knows: 4.2 million.
pub const SLOTS_MAX: usize = CHUNKS_MAX * CHUNK_SLOTS;
const CHUNKS_MAX: usize = 257;
const CHUNK_SLOTS: usize = 64 * 255;

const _: () = assert!(size_of::<Entry>() <= 96, "an entry fits the allocator's size class that the budget counts with");
const _: () = assert!(SLOTS_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicBool;

    fn entry(user: &str, shard: u16, slot: u32, generation: u32) -> Entry {
        Entry {
            user: UserId::new(user).unwrap(),
            device: DeviceId::unnamed(),
            shard: ShardId(shard),
            key: SessionKey { slot, generation },
            session: SessionId(u64::from(slot) + 1),
            since: Millis(7),
            remote: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn everyone(directory: &Directory, user: Option<&UserId>, limit: usize, slots_max: usize) -> Vec<(ConnectionId, Entry)> {
        let (mut all, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(after) = cursor {
            let page = directory.list(user, after, limit, slots_max);
            assert!(page.entries.len() <= limit);
            all.extend(page.entries);
            cursor = page.next;
        }
        all
    }

    #[test]
    fn who_entered_is_found_until_they_leave() {
        let directory = Directory::new(2);
        let id = directory.enter(entry("a", 1, 3, 9)).unwrap();
        assert_eq!(directory.get(id), Some(entry("a", 1, 3, 9)));
        assert_eq!(ConnectionId::parse(&id.to_string()), Some(id));
        assert!(directory.leave(id) && !directory.leave(id));
        assert_eq!(directory.get(id), None);
    }

    #[test]
    fn an_old_id_never_names_the_next_session_of_its_slot() {
        let directory = Directory::new(1);
        let mut seen = HashSet::new();
        for generation in 0..1_000 {
            let id = directory.enter(entry("a", 0, 0, generation)).unwrap();
            assert!(seen.insert(id));
            assert!(directory.leave(id));
        }
        let last = directory.enter(entry("b", 0, 0, 1_000)).unwrap();
        assert!(seen.iter().all(|old| directory.get(*old).is_none() && !directory.leave(*old)));
        assert!(directory.get(last).is_some());
    }

    #[test]
    fn a_session_leaves_by_its_own_key_only() {
        let directory = Directory::new(1);
        let id = directory.enter(entry("a", 0, 5, 2)).unwrap();
        assert!(!directory.leave_session(ShardId(0), SessionKey { slot: 5, generation: 1 }));
        assert!(!directory.leave_session(ShardId(0), SessionKey { slot: 6, generation: 2 }));
        assert!(!directory.leave_session(ShardId(9), SessionKey { slot: 5, generation: 2 }));
        assert!(directory.leave_session(ShardId(0), SessionKey { slot: 5, generation: 2 }));
        assert_eq!(directory.get(id), None);
    }

    #[test]
    fn a_slot_that_was_never_left_is_taken_over() {
        let directory = Directory::new(1);
        let first = directory.enter(entry("a", 0, 0, 1)).unwrap();
        let second = directory.enter(entry("b", 0, 0, 2)).unwrap();
        assert_eq!(directory.get(first), None);
        assert_eq!(everyone(&directory, None, 10, 10), vec![(second, entry("b", 0, 0, 2))]);
    }

    #[test]
    fn invented_ids_find_nothing() {
        let directory = Directory::new(1);
        directory.enter(entry("a", 0, 0, 1)).unwrap();
        for text in ["", "0", "0-0", "0-0-0-0", "00-0-0", "+0-0-0", "g-0-0", "0-0-ffffffffffffffffff", "0-0-0\n", "%"] {
            assert_eq!(ConnectionId::parse(text), None, "{text}");
        }
        for text in ["0-0-1", "0-0-ffffffffffffffff", "ffff-ffffffff-0", "0-1000-0", "0-ffffffff-0"] {
            assert_eq!(directory.get(ConnectionId::parse(text).unwrap()), None, "{text}");
            assert!(!directory.leave(ConnectionId::parse(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn a_walk_sees_everyone_once_whatever_the_pages() {
        let directory = Directory::new(3);
        let mut wanted = HashSet::new();
        for at in 0..if cfg!(miri) { 200 } else { 10_000u32 } {
            let user = format!("user-{}", at % 7);
            let shard = (at % 2) as u16 * 2;
            let id = directory.enter(entry(&user, shard, at / 2, 1)).unwrap();
            if at % 3 == 0 {
                directory.leave(id);
            } else {
                wanted.insert(id);
            }
        }
        for (limit, slots_max) in [(1, 1), (7, 1_000_000), (1_000_000, 13), (1_000_000, 1_000_000)] {
            let seen = everyone(&directory, None, limit, slots_max);
            assert_eq!(seen.len(), wanted.len());
            assert_eq!(seen.into_iter().map(|(id, _)| id).collect::<HashSet<_>>(), wanted);
        }
        let user = UserId::new("user-4").unwrap();
        let of_user = everyone(&directory, Some(&user), 3, 100);
        assert!(of_user.iter().all(|(_, entry)| entry.user == user));
        assert_eq!(of_user.len(), everyone(&directory, None, 99, 99).iter().filter(|(_, entry)| entry.user == user).count());
        assert!(!of_user.is_empty());
    }

    #[test]
    fn slots_beyond_the_bound_are_refused() {
        let directory = Directory::new(1);
        assert!(directory.enter(entry("a", 0, SLOTS_MAX as u32, 1)).is_none());
        assert!(directory.enter(entry("a", 0, u32::MAX, 1)).is_none());
        assert!(directory.enter(entry("a", 1, 0, 1)).is_none());
        assert!(directory.enter(entry("a", 0, SLOTS_MAX as u32 - 1, 1)).is_some());
        assert_eq!(everyone(&directory, None, 10, 1 << 20).len(), 1);
        assert!(directory.walk(None, Cursor(u64::MAX), 10, |_, _| true).is_none());
    }

    #[test]
    fn readers_see_whole_entries_while_shards_come_and_go() {
        let directory = Directory::new(2);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for shard in 0..2u16 {
                let (directory, stop) = (&directory, &stop);
                scope.spawn(move || {
                    for round in 0..if cfg!(miri) { 100 } else { 2_000u32 } {
                        let slot = round % 50;
                        let id = directory.enter(entry(&format!("user-{slot}"), shard, slot, round)).unwrap();
                        if round % 2 == 0 {
                            assert!(directory.leave(id));
                        }
                    }
                    stop.store(true, Ordering::Release);
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    for (id, entry) in everyone(&directory, None, 17, 31) {
                        assert_eq!(entry.user.as_str(), format!("user-{}", entry.key.slot));
                        assert_eq!(entry.key.slot, id.slot);
                    }
                }
            });
        });
        // Even slots were left in the last round of their shard, odd ones were kept.
        assert_eq!(everyone(&directory, None, 1_000, 1_000).len(), 50);
    }
}
