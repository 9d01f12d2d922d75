//! Owns a bounded memory of what was used lately. Never forgets while a batch is being written: only [`Recent::trim`] does.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Two generations: what is used moves to the young one, and when that is full the old one is forgotten.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    /// Entries of a generation from which on it is full.
    entries_max: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub fn new(entries_max: usize) -> Recent<K, V> {
        Recent { young: HashMap::default(), old: HashMap::default(), entries_max }
    }

    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.young.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Returns what was there.
    pub fn put(&mut self, key: &K, value: V) -> Option<V> {
        let old = self.old.remove(key);
        self.young.insert(key.clone(), value).or(old)
    }

    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets what was not used for long.
    pub fn trim(&mut self) {
        if self.young.len() >= self.entries_max {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(100);
        for number in 0..10_000 {
            recent.put(&number, number);
            assert_eq!(recent.get(&7).copied(), (number >= 7).then_some(7));
            recent.trim();
            assert!(recent.young.len() + recent.old.len() <= 201);
        }
        assert!(recent.get(&5_000).is_none());
        assert_eq!(recent.put(&7, 8), Some(7));
        recent.remove(&7);
        assert!(recent.get(&7).is_none());
    }
}
