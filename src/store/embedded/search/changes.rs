//! Owns what a commit of the store leaves for the indexer: which messages it has appended or recalled, as a list by number of the
//! commit, in its frame of the commit log and in the batch that brings it to the tables. Never holds anything of a message. The
//! writer makes lists, the applier adds and trims, the indexer reads. Pure.

use fjall::Slice;

use crate::store::embedded::codec::{Damaged, decode_numbers, encode_numbers};
use crate::types::Seq;

/// A stretch of one log that a commit has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub recalled: bool,
    /// Of the conversation.
    pub number: u64,
    pub first: Seq,
    pub last: Seq,
}

impl Change {
    pub fn appended(number: u64, seq: Seq) -> Change {
        Change { recalled: false, number, first: seq, last: seq }
    }

    pub fn recalled(number: u64, seq: Seq) -> Change {
        Change { recalled: true, ..Change::appended(number, seq) }
    }

    pub fn messages(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }
}

/// Sorts by conversation and joins what touches.
pub fn join(changes: &mut Vec<Change>) {
    changes.sort_unstable();
    changes.dedup_by(|next, before| {
        let touches = next.recalled == before.recalled && next.number == before.number && next.first.0 <= before.last.0 + 1;
        if touches {
            before.last = before.last.max(next.last);
        }
        touches
    });
}

/// A list of joined changes: numbers of variable length, each conversation as the difference to the one before.
pub fn encode(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + changes.len() * 5);
    put(&mut bytes, VERSION);
    let mut before = 0;
    for change in changes {
        // The list begins anew with what was recalled.
        let (begin, from) = if change.number < before { (2, 0) } else { (0, before) };
        put(&mut bytes, begin | u64::from(change.recalled));
        put(&mut bytes, change.number - from);
        put(&mut bytes, change.first.0);
        put(&mut bytes, change.last.0 - change.first.0);
        before = change.number;
    }
    bytes
}

pub fn decode(mut bytes: &[u8]) -> Result<Vec<Change>, Damaged> {
    let mut changes = Vec::new();
    if take(&mut bytes)? != VERSION {
        return Err(Damaged);
    }
    let mut before = 0_u64;
    while !bytes.is_empty() {
        let flags = take(&mut bytes)?;
        let from = if flags & 2 == 0 { before } else { 0 };
        let number = from.checked_add(take(&mut bytes)?).ok_or(Damaged)?;
        let first = take(&mut bytes)?;
        let last = first.checked_add(take(&mut bytes)?).ok_or(Damaged)?;
        changes.push(Change { recalled: flags & 1 == 1, number, first: Seq(first), last: Seq(last) });
        before = number;
    }
    Ok(changes)
}

/// For which commits the list is whole: those after `since`, up to `until`. What wrote to the store without keeping the list
/// left `until` behind the last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub since: u64,
    pub until: u64,
}

impl Extent {
    pub fn encode(self) -> Vec<u8> {
        encode_numbers([self.since, self.until], EXTENT)
    }

    pub fn decode(bytes: &[u8]) -> Option<Extent> {
        let [since, until] = decode_numbers(EXTENT, bytes).ok()?;
        Some(Extent { since, until })
    }
}

/// The key of a commit's list.
pub fn key(commit: u64) -> Slice {
    Slice::from(commit.to_be_bytes())
}

/// The commit of a key.
pub fn commit_of(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Damaged)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

/// In `meta`.
pub const EXTENT: &[u8] = b"m\x01changes";
const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(list in proptest::collection::vec((any::<bool>(), 0_u64..9, 1_u64..40), 0..60)) {
            let mut changes: Vec<Change> = list
                .iter()
                .map(|(recalled, number, seq)| Change { recalled: *recalled, ..Change::appended(*number, Seq(*seq)) })
                .collect();
            let all = |changes: &[Change]| {
                let mut all: Vec<_> = changes
                    .iter()
                    .flat_map(|change| (change.first.0..=change.last.0).map(|seq| (change.recalled, change.number, seq)))
                    .collect();
                all.sort_unstable();
                all.dedup();
                all
            };
            let before = all(&changes);
            join(&mut changes);
            prop_assert_eq!(all(&changes), before);
            prop_assert_eq!(decode(&encode(&changes)), Ok(changes));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
