//! Owns the driver's own deadlines: handshakes, leaving connections, incomplete messages. All deadlines of one list are equally
//! far away when they are set, so a list is a queue. Never reads a clock. Lives on its shard's thread.

use std::collections::VecDeque;

use crate::types::SessionKey;

/// Connections to look at after a fixed time. An entry whose connection has moved on costs 16 bytes until its time has come.
#[derive(Debug)]
pub(super) struct Deadlines {
    after_ms: u64,
    waiting: VecDeque<(u64, SessionKey)>,
}

impl Deadlines {
    pub fn new(after_ms: u64) -> Deadlines {
        Deadlines { after_ms, waiting: VecDeque::new() }
    }

    /// Looks at `key` once the list's time has passed from `now_ms` on.
    pub fn push(&mut self, key: SessionKey, now_ms: u64) {
        self.waiting.push_back((now_ms + self.after_ms, key));
    }

    /// The next connection whose time has come.
    pub fn pop(&mut self, now_ms: u64) -> Option<SessionKey> {
        let (due, key) = *self.waiting.front()?;
        (due <= now_ms).then(|| {
            self.waiting.pop_front();
            key
        })
    }

    /// Forgets entries at the front that `is_over` says nobody waits for any more.
    pub fn trim(&mut self, mut is_over: impl FnMut(SessionKey) -> bool) {
        while self.waiting.front().is_some_and(|(_, key)| is_over(*key)) {
            self.waiting.pop_front();
        }
    }

    /// When the next one is due, in monotonic milliseconds.
    pub fn next_ms(&self) -> Option<u64> {
        self.waiting.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_order_and_can_be_trimmed() {
        let key = |slot| SessionKey { slot, generation: 1 };
        let mut list = Deadlines::new(10);
        list.push(key(1), 0);
        list.push(key(2), 5);
        list.push(key(3), 5);
        assert_eq!(list.pop(9), None);
        assert_eq!(list.next_ms(), Some(10));
        assert_eq!(list.pop(12), Some(key(1)));
        list.trim(|key| key.slot == 2);
        assert_eq!(list.next_ms(), Some(15));
        assert_eq!(list.pop(15), Some(key(3)));
        assert_eq!(list.pop(99), None);
    }
}
