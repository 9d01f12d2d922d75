//! Owns the two kinds of time the engine is given. Never reads a clock: `now` is always a parameter.

/// Wall time in Unix milliseconds. What clients see (`created_at`, `exp`); may step in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// One reading of both clocks, taken once a turn by the driver.
///
/// `wall` is what protocol fields carry; `mono_us` is monotonic microseconds since the process started and is the only
/// time that deadlines, rates and heartbeats are computed from, so that a step of the wall clock closes nobody. The end of a
/// token alone is wall time: its deadline is reckoned anew with every heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub wall: Millis,
    pub mono_us: u64,
}

impl Now {
    pub fn new(wall_ms: u64, mono_us: u64) -> Now {
        Now { wall: Millis(wall_ms), mono_us }
    }

    /// Monotonic milliseconds.
    pub fn mono_ms(self) -> u64 {
        self.mono_us / 1_000
    }
}
