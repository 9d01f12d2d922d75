//! Owns reading the two clocks, the only place of a shard that does. Shared by all shards, so that their monotonic times agree.

use std::time::{Instant, SystemTime};

use crate::types::Now;

/// Both clocks of one process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins a moment ago: 0 stands for "never" in places.
    pub fn start() -> Clock {
        let now = Instant::now();
        Clock { origin: now.checked_sub(std::time::Duration::from_secs(1)).unwrap_or(now) }
    }

    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now::new(wall.as_millis() as u64, self.mono_us())
    }

    /// The monotonic time alone, in microseconds.
    pub fn mono_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}
