//! Owns which client ids were used lately. Never holds more than the window's messages and a few that have just left it. Lives
//! with its backend.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::types::Millis;
use crate::types::record::{Message, SharedMessage};

/// The messages that still count as first uses of their client id: a hash and a pointer each. A client id belongs to its
/// sender, in whichever conversation; of what the system writes, to the conversation (so that one announcement may go to many
/// users).
#[derive(Debug)]
pub struct Duplicates {
    hasher: FixedState,
    /// Each with its hash, so that growing touches no message.
    first_uses: HashTable<(u64, SharedMessage)>,
    /// In the order of arrival: when an entry was made, and its hash.
    oldest: VecDeque<(Millis, u64)>,
}

impl Duplicates {
    pub fn new(hasher: FixedState) -> Duplicates {
        Duplicates { hasher, first_uses: HashTable::new(), oldest: VecDeque::new() }
    }

    /// The earlier message with the same client id, used at `since` or later.
    pub fn first_use(&self, message: &Message, since: Millis) -> Option<&SharedMessage> {
        message.client_id.as_ref()?;
        let hash = self.hash(message);
        let (_, first) = self.first_uses.find(hash, |(known, first)| *known == hash && same_use(first, message))?;
        (first.created_at >= since).then_some(first)
    }

    /// Remembers a message that [`first_use`](Duplicates::first_use) did not know, and forgets a few from before `since`.
    pub fn remember(&mut self, message: &SharedMessage, since: Millis) {
        if message.client_id.is_some() {
            let hash = self.hash(message);
            self.put(hash, message);
            self.oldest.push_back((message.created_at, hash));
        }
        // More than one for each that comes, so that it never falls behind.
        for _ in 0..FORGET_AT_ONCE {
            let Some((_, hash)) = self.oldest.pop_front_if(|(at, _)| *at < since) else {
                break;
            };
            if let Ok(expired) = self.first_uses.find_entry(hash, |(known, first)| *known == hash && first.created_at < since) {
                expired.remove();
            }
        }
    }

    /// Puts a tombstone in the place of its message, so that recalled content is gone from here too.
    pub fn replace(&mut self, tombstone: &SharedMessage) {
        if tombstone.client_id.is_none() {
            return;
        }
        let hash = self.hash(tombstone);
        if let Some((_, first)) = self.first_uses.find_mut(hash, |(known, first)| *known == hash && first.id == tombstone.id) {
            *first = tombstone.clone();
        }
    }

    /// Forgets a message, as only a damaged disk does.
    #[cfg(any(test, feature = "planted-faults"))]
    pub fn forget(&mut self, message: &SharedMessage) {
        let hash = self.hash(message);
        self.first_uses.retain(|(known, first)| *known != hash || first.id != message.id);
    }

    fn put(&mut self, hash: u64, message: &SharedMessage) {
        let same = |(known, first): &(u64, SharedMessage)| *known == hash && same_use(first, message);
        match self.first_uses.entry(hash, same, |(known, _)| *known) {
            Entry::Occupied(mut expired) => expired.get_mut().1 = message.clone(),
            Entry::Vacant(place) => {
                place.insert((hash, message.clone()));
            }
        }
    }

    fn hash(&self, message: &Message) -> u64 {
        match &message.sender {
            Some(sender) => self.hasher.hash_one((sender, &message.client_id)),
            None => self.hasher.hash_one((&message.conversation, &message.client_id)),
        }
    }
}

fn same_use(first: &Message, message: &Message) -> bool {
    first.client_id == message.client_id
        && first.sender == message.sender
        && (first.sender.is_some() || first.conversation == message.conversation)
}

const FORGET_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::{message, private};

    #[test]
    fn memory_is_bounded_by_the_window() {
        let mut duplicates = Duplicates::new(FixedState::with_seed(1));
        for at in 0..10_000 {
            let message = Arc::new(message(&private("a", "b"), Some("a"), Some(&(at % 700).to_string()), at));
            let since = Millis(at.saturating_sub(500));
            assert!(duplicates.first_use(&message, since).is_none());
            duplicates.remember(&message, since);
            assert!(duplicates.first_use(&message, since).is_some());
            assert!(duplicates.first_uses.len() <= 501 && duplicates.oldest.len() <= 501);
        }
    }
}
