//! Owns the decision whether a file on its way out loses a piece now or waits. Where the file system tells the disk what it gives
//! back (mount option `discard`) each piece holds up whoever syncs, so pieces wait while much is written. Within a bound: beyond
//! a part of the disk's room nothing waits. Never touches a file. Lives on the freeing thread, which says what time it is.

use std::time::{Duration, Instant};

use super::room::Disk;

/// What was seen at the last look.
#[derive(Debug)]
pub struct Patience {
    looked_at: Instant,
    /// All that had come to the tables by then.
    brought_bytes: u64,
    bytes_per_second: u64,
    disk: Option<Disk>,
}

impl Patience {
    /// Knows nothing until the first look, and so waits for nothing.
    pub fn new(now: Instant) -> Patience {
        Patience { looked_at: now, brought_bytes: 0, bytes_per_second: 0, disk: None }
    }

    /// True when it is time for the next look.
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked_at) >= LOOK_EVERY
    }

    /// `brought_bytes` is all that has come to the tables since they were opened.
    pub fn look(&mut self, now: Instant, brought_bytes: u64, disk: Option<Disk>) {
        let elapsed = now.saturating_duration_since(self.looked_at).as_millis().max(1) as u64;
        let brought = brought_bytes.saturating_sub(self.brought_bytes);
        *self = Patience { looked_at: now, brought_bytes, bytes_per_second: brought.saturating_mul(1_000) / elapsed, disk };
    }

    /// True when files that are to go, so many bytes of them, need not wait.
    pub fn ends(&self, waiting_bytes: u64) -> bool {
        Moment { bytes_per_second: self.bytes_per_second, waiting_bytes, disk: self.disk }.is_right()
    }
}

/// What counts when a piece could go.
#[derive(Clone, Copy, Debug)]
struct Moment {
    bytes_per_second: u64,
    waiting_bytes: u64,
    disk: Option<Disk>,
}

impl Moment {
    fn is_right(self) -> bool {
        self.bytes_per_second <= CALM_BYTES_PER_SECOND || self.waiting_bytes > self.waiting_bytes_max()
    }

    /// A sixteenth of what is free beyond the bytes below which nothing is accepted (`room.rs`), so nothing is refused because of
    /// files that only wait: the nearer that comes, the fewer wait, and none when it has come, nor where the room cannot be told.
    /// What comes above the bound until the next look goes about ten times as fast as it comes.
    fn waiting_bytes_max(self) -> u64 {
        self.disk.map_or(0, |disk| (disk.spare_bytes() / WAITING_SHARE).min(WAITING_BYTES_MAX))
    }
}

/// Also how long what came to the tables counts.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Some thousand short messages a second.
const CALM_BYTES_PER_SECOND: u64 = 2 << 20;
/// About 40 s of what 40,000 messages a second leave behind; where it goes at once, two seconds of the disk's time.
const WAITING_BYTES_MAX: u64 = 1 << 30;
const WAITING_SHARE: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: u64 = CALM_BYTES_PER_SECOND + 1;
    const LARGE: Disk = Disk { free_bytes: 1 << 40, all_bytes: 1 << 41 };

    fn is_right(bytes_per_second: u64, waiting_bytes: u64, disk: impl Into<Option<Disk>>) -> bool {
        Moment { bytes_per_second, waiting_bytes, disk: disk.into() }.is_right()
    }

    #[test]
    fn pieces_wait_while_much_is_written_and_no_longer() {
        for waiting in [1, 1 << 20, WAITING_BYTES_MAX] {
            assert!(!is_right(BUSY, waiting, LARGE), "{waiting}");
            assert!(is_right(CALM_BYTES_PER_SECOND, waiting, LARGE), "{waiting}");
        }
    }

    #[test]
    fn what_is_above_the_bound_does_not_wait() {
        assert!(is_right(BUSY, WAITING_BYTES_MAX + 1, LARGE));
        // A sixteenth of what is free beyond 32 MiB is less on a disk with less room.
        let disk = Disk { free_bytes: (32 + 160) << 20, ..LARGE };
        assert!(!is_right(BUSY, 10 << 20, disk));
        assert!(is_right(BUSY, (10 << 20) + 1, disk));
        // Of a small disk less is kept.
        let disk = Disk { free_bytes: 24 << 20, all_bytes: 64 << 20 };
        assert!(!is_right(BUSY, 1 << 20, disk));
        assert!(is_right(BUSY, (1 << 20) + 1, disk));
    }

    #[test]
    fn nothing_waits_while_the_store_refuses_writes_for_want_of_room() {
        for all_bytes in [8 << 20, 64 << 20, 256 << 20, 1 << 34, 1 << 41] {
            for free_bytes in (0..=40 << 20).step_by(1 << 18).filter(|free| *free <= all_bytes) {
                let disk = Disk { free_bytes, all_bytes };
                assert!(!disk.is_nearly_full() || is_right(u64::MAX, 1, disk), "{disk:?}");
            }
        }
        assert!(is_right(BUSY, 1, None), "nor where the room cannot be told");
    }

    #[test]
    fn the_last_quarter_second_counts() {
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        let at = |looks: u32| begun + LOOK_EVERY * looks;
        assert!(patience.ends(1) && !patience.is_due(begun) && patience.is_due(at(1)));
        patience.look(at(1), 1 << 20, LARGE.into());
        assert!(!patience.ends(1), "4 MiB a second");
        assert!(!patience.is_due(at(1)) && patience.is_due(at(2)));
        patience.look(at(2), (1 << 20) + (512 << 10), LARGE.into());
        assert!(patience.ends(1), "2 MiB a second");
        patience.look(at(6), (1 << 20) + (512 << 10) + (4 << 20), LARGE.into());
        assert!(!patience.ends(1), "4 MiB in a second");
        patience.look(at(7), (1 << 20) + (512 << 10) + (4 << 20), LARGE.into());
        assert!(patience.ends(1), "nothing");
    }
}
