//! Owns the operators' calls that a shard has taken and not answered. Never waits for whoever asked, and never keeps a call that
//! was not answered in time: dropping its way back says so. Lives on its shard's thread.

use std::collections::HashMap;

use crate::types::call::{AnswerTo, CallOutcome};

/// Calls under way, by number.
#[derive(Default)]
pub(super) struct Calls {
    open: HashMap<u32, Waiting>,
    last: u32,
    /// Monotonic milliseconds at which old calls are looked for again.
    sweep_at_ms: u64,
}

struct Waiting {
    answer: AnswerTo,
    until_ms: u64,
}

impl Calls {
    /// Takes a call and numbers it. Full: the way back is returned, to be told so.
    pub fn enter(&mut self, answer: AnswerTo, now_ms: u64) -> Result<u32, AnswerTo> {
        if now_ms >= self.sweep_at_ms {
            self.sweep_at_ms = now_ms + SWEEP_EVERY_MS;
            self.open.retain(|_, waiting| waiting.until_ms > now_ms);
        }
        if self.open.len() >= CALLS_MAX {
            return Err(answer);
        }
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, Waiting { answer, until_ms: now_ms + CALL_MS_MAX });
        Ok(self.last)
    }

    /// Hands an outcome to whoever asked, unless that call was given up.
    pub fn answer(&mut self, number: u32, outcome: CallOutcome) {
        if let Some(waiting) = self.open.remove(&number) {
            (waiting.answer)(outcome);
        }
    }
}

/// Calls of one shard at once; more are answered `OVERLOADED`.
const CALLS_MAX: usize = 1_024;
/// Longer than any asker waits.
const CALL_MS_MAX: u64 = 15_000;
const SWEEP_EVERY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::types::Push;

    #[test]
    fn calls_are_bounded_and_given_up_in_time() {
        let answered = Arc::new(AtomicUsize::new(0));
        let way = || -> AnswerTo {
            let answered = answered.clone();
            Box::new(move |_| {
                answered.fetch_add(1, Ordering::Relaxed);
            })
        };
        let mut calls = Calls::default();
        let first = calls.enter(way(), 0).unwrap_or_else(|_| panic!("there is room"));
        for _ in 1..CALLS_MAX {
            assert!(calls.enter(way(), 0).is_ok());
        }
        assert!(calls.enter(way(), 1).is_err(), "no more than there is room for");
        calls.answer(first, Ok(Push::SyncDone));
        calls.answer(first, Ok(Push::SyncDone));
        assert_eq!(answered.load(Ordering::Relaxed), 1, "each once");
        assert!(calls.enter(way(), 2).is_ok() && calls.enter(way(), 3).is_err());
        assert!(calls.enter(way(), CALL_MS_MAX).is_ok(), "what nobody answers does not stay");
        assert!(calls.open.len() <= 2);
    }
}
