//! Owns when sessions are looked at next: a wheel of slots of 64 ms, one entry per session in the steady state.
//!
//! Never holds a callback or an exact time: an entry only says "look at this session not before then"; the session knows its
//! own deadlines. An entry beyond the horizon is looked at early and put back. Lives on its shard's thread.

use crate::types::SessionKey;

/// A wheel of 2,048 slots (131 s). Time is monotonic milliseconds.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<SessionKey>>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS],
    /// The next tick to be swept; every entry lies at or after it.
    tick: u64,
    entries: usize,
}

impl Wheel {
    pub fn new(now_ms: u64) -> Wheel {
        Wheel { slots: vec![Vec::new(); SLOTS], occupied: [0; WORDS], tick: now_ms / TICK_MS, entries: 0 }
    }

    /// Has `key` looked at once `at_ms` has passed (rounded up to a tick), or at the horizon if that is sooner. Returns the
    /// milliseconds at which that will be.
    pub fn insert(&mut self, key: SessionKey, at_ms: u64) -> u64 {
        let tick = at_ms.div_ceil(TICK_MS).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.entries += 1;
        tick * TICK_MS
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Moves the entries that are due at `now_ms` into `due`.
    pub fn sweep(&mut self, now_ms: u64, due: &mut Vec<SessionKey>) {
        let last = now_ms / TICK_MS;
        while self.tick <= last {
            let Some(next) = self.next_occupied() else {
                self.tick = last + 1;
                return;
            };
            if next > last {
                self.tick = last + 1;
                return;
            }
            let slot = (next % SLOTS as u64) as usize;
            self.entries -= self.slots[slot].len();
            due.append(&mut self.slots[slot]);
            // A slot that once held a burst gives its memory back.
            if self.slots[slot].capacity() > SLOT_KEPT_MAX {
                self.slots[slot] = Vec::new();
            }
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            self.tick = next + 1;
        }
    }

    /// Milliseconds of the earliest entry.
    pub fn next_ms(&self) -> Option<u64> {
        self.next_occupied().map(|tick| tick * TICK_MS)
    }

    fn next_occupied(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let start = (self.tick % SLOTS as u64) as usize;
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let distance = (slot + SLOTS - start) % SLOTS;
                return Some(self.tick + distance as u64);
            }
        }
        unreachable!("an entry is counted, so its slot is marked")
    }
}

const TICK_MS: u64 = 64;
const SLOTS: usize = 2_048;
const WORDS: usize = SLOTS / 64;
const SLOT_KEPT_MAX: usize = 256;

const _: () = assert!(SLOTS.is_multiple_of(64) && SLOTS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    #[test]
    fn every_entry_comes_once_and_never_early() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wheel = Wheel::new(1_000_000);
        let mut now = 1_000_000u64;
        let mut expected = std::collections::HashMap::new();
        for slot in 0..if cfg!(miri) { 500 } else { 5_000u32 } {
            let at = now + random.u64(0..400_000);
            expected.insert(slot, at);
            wheel.insert(key(slot), at);
            now += random.u64(0..40);
            let mut due = Vec::new();
            wheel.sweep(now, &mut due);
            settle(&mut wheel, &mut expected, due, now);
        }
        while wheel.len() > 0 {
            let next = wheel.next_ms().unwrap();
            assert!(next + TICK_MS > now || next >= now);
            now = next.max(now);
            let mut due = Vec::new();
            wheel.sweep(now, &mut due);
            settle(&mut wheel, &mut expected, due, now);
        }
        assert!(expected.is_empty());
    }

    fn settle(wheel: &mut Wheel, expected: &mut std::collections::HashMap<u32, u64>, due: Vec<SessionKey>, now: u64) {
        for entry in due {
            let at = expected[&entry.slot];
            if at > now {
                wheel.insert(entry, at);
            } else {
                assert!(now < at + 2 * TICK_MS + 40, "late: {at} at {now}");
                expected.remove(&entry.slot);
            }
        }
    }
}
