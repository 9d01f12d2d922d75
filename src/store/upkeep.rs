//! Owns when the store forgets: how old is too old, in what pieces, how often. Never takes more than a tenth of the
//! writer's time, and lets commits go first.
//!
//! Lives on the writer's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::backend::Backend;
use super::calendar::Calendar;
use crate::types::Millis;

/// How long messages are kept. May be changed at any time, from any thread.
#[derive(Clone, Debug)]
pub struct Retention(Arc<AtomicU64>);

impl Retention {
    /// 0 keeps them for ever.
    pub fn new(milliseconds: u64) -> Retention {
        Retention(Arc::new(AtomicU64::new(milliseconds)))
    }

    /// In force from the next piece of work on.
    pub fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn milliseconds(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|milliseconds| *milliseconds > 0)
    }
}

/// What forgets, and when it does so next.
#[derive(Debug)]
pub struct Upkeep {
    retention: Retention,
    /// None: client ids are not forgotten.
    dedupe_window_ms: Option<u64>,
    calendar: Calendar,
    began: Instant,
    due: Instant,
}

impl Upkeep {
    pub fn new(retention: Retention, dedupe_window_ms: Option<u64>) -> Upkeep {
        let began = Instant::now();
        let calendar = Calendar::new(wall(), Duration::ZERO);
        Upkeep { retention, dedupe_window_ms, calendar, began, due: began }
    }

    /// Until the next piece of work.
    pub fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// A piece of work, when it is time to and nobody waits. A fault repeats with the next write, which tells its client.
    pub fn work(&mut self, backend: &mut dyn Backend, somebody_waits: bool) {
        let begun = Instant::now();
        let first = self.due + if somebody_waits { PATIENCE } else { Duration::ZERO };
        if begun < first {
            return;
        }
        let now = self.calendar.now(wall(), begun.saturating_duration_since(self.began));
        let before = |age_ms: u64| Millis(now.0.saturating_sub(age_ms));
        let mut more = false;
        if let Some(age_ms) = self.retention.milliseconds() {
            more |= backend.prune(before(age_ms), MESSAGES_AT_ONCE).is_ok_and(|pruned| pruned >= MESSAGES_AT_ONCE);
        }
        if let Some(age_ms) = self.dedupe_window_ms {
            more |= backend.expire(before(age_ms), ENTRIES_AT_ONCE).is_ok_and(|expired| expired >= ENTRIES_AT_ONCE / 4);
        }
        let pause = if more { BUSY_EVERY } else { IDLE_EVERY };
        self.due = begun + pause.max(begun.elapsed() * SHARE_OF_TIME);
    }
}

fn wall() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

/// At most so many messages go in one piece, and a piece comes every [`BUSY_EVERY`] as long as there is more: 10,000 a second.
const MESSAGES_AT_ONCE: usize = 500;
/// First uses and hidden marks that are looked at in one piece.
const ENTRIES_AT_ONCE: usize = 2_000;
const BUSY_EVERY: Duration = Duration::from_millis(50);
const IDLE_EVERY: Duration = Duration::from_millis(500);
/// One of so many parts of the writer's time may go into it.
const SHARE_OF_TIME: u32 = 10;
/// How long it lets those who wait go first.
const PATIENCE: Duration = Duration::from_secs(1);
