//! Owns a bounded memory of where logs end, so that whoever connects need not have every log of theirs searched for its end.
//! Never guesses: what is not here is read from the tables. Shared by the applier, who keeps it true, and the readers, who fill
//! it; without a lock.
//!
//! Conversations are numbered one after the other, so a number's low bits are its place. The applier stores when commits are in
//! the tables and before readers that wait for them go on; readers only fill places that are empty. A place never becomes empty
//! again, so what a reader found before the applier came can never replace what the applier knows.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Seq;

/// The ends of logs by conversation number. Goes with the open database: what a failed commit left is forgotten with it.
pub struct Heads {
    places: Box<[AtomicU64]>,
}

impl Heads {
    pub fn new() -> Heads {
        Heads { places: std::iter::repeat_with(|| AtomicU64::new(EMPTY)).take(PLACES).collect() }
    }

    /// The end of a log; at least as new as every commit that has returned.
    pub fn known(&self, number: u64) -> Option<Seq> {
        let held = self.place(number).load(Ordering::Acquire);
        (held != EMPTY && held != UNKNOWN && held >> HEAD_BITS == number / PLACES as u64).then_some(Seq(held & HEAD_MASK))
    }

    /// By the applier, once a commit is in the tables.
    pub fn moved(&self, number: u64, head: Seq) {
        self.place(number).store(pack(number, head).unwrap_or(UNKNOWN), Ordering::Release);
    }

    /// By a reader, who asked [`known`](Heads::known) before it read.
    pub fn found(&self, number: u64, head: Seq) {
        if let Some(held) = pack(number, head) {
            // Somebody else was first: theirs is as good or better.
            let _ = self.place(number).compare_exchange(EMPTY, held, Ordering::Release, Ordering::Relaxed);
        }
    }

    fn place(&self, number: u64) -> &AtomicU64 {
        &self.places[number as usize % PLACES]
    }
}

/// None when it does not fit or would look like an empty place.
fn pack(number: u64, head: Seq) -> Option<u64> {
    let tag = number / PLACES as u64;
    let held = (tag << HEAD_BITS) | head.0;
    (tag < TAGS && head.0 <= HEAD_MASK && held != EMPTY && held != UNKNOWN).then_some(held)
}

/// 4 MiB; the newest so many conversations never displace each other.
const PLACES: usize = 1 << 19;
const HEAD_BITS: u32 = 40;
const HEAD_MASK: u64 = (1 << HEAD_BITS) - 1;
const TAGS: u64 = 1 << (u64::BITS - HEAD_BITS);
const EMPTY: u64 = 0;
/// Of no conversation.
const UNKNOWN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_never_replace_what_the_applier_knows() {
        let heads = Heads::new();
        assert_eq!(heads.known(7), None);
        heads.found(7, Seq(3));
        assert_eq!(heads.known(7), Some(Seq(3)));
        heads.moved(7, Seq(5));
        heads.found(7, Seq(4));
        assert_eq!(heads.known(7), Some(Seq(5)));
        let neighbour = 7 + PLACES as u64;
        assert_eq!(heads.known(neighbour), None);
        heads.found(neighbour, Seq(9));
        assert_eq!((heads.known(neighbour), heads.known(7)), (None, Some(Seq(5))));
        heads.moved(neighbour, Seq(10));
        heads.found(7, Seq(4));
        assert_eq!((heads.known(neighbour), heads.known(7)), (Some(Seq(10)), None));
    }

    #[test]
    fn what_does_not_fit_is_not_known() {
        let heads = Heads::new();
        let huge = PLACES as u64 * TAGS + 1;
        heads.moved(1, Seq(2));
        heads.moved(huge, Seq(2));
        heads.moved(3, Seq(1 << HEAD_BITS));
        heads.found(4, Seq(0));
        assert_eq!([1, huge, 3, 4].map(|number| heads.known(number)), [None; 4]);
    }
}
