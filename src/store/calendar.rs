//! Owns what day it is for what is forgotten by age. Never trusts a wall clock that has just leapt ahead, since what was removed
//! in that moment would be gone for good. Pure; lives on the writer's thread.

use std::time::Duration;

use crate::types::Millis;

/// Wall time that runs on with the monotonic clock. It follows the wall clock back at once, which only keeps things longer, and
/// ahead once the step has stayed for [`STEP_HOLDS`].
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// Wall time at monotonic zero, as trusted, in milliseconds.
    origin_ms: i128,
    /// Since when the wall clock has been ahead of it, in monotonic time.
    ahead_since: Option<Duration>,
}

impl Calendar {
    /// Trusts the wall clock of the start.
    pub fn new(wall: Millis, mono: Duration) -> Calendar {
        Calendar { origin_ms: origin_ms(wall, mono), ahead_since: None }
    }

    /// The time by which age is told.
    pub fn now(&mut self, wall: Millis, mono: Duration) -> Millis {
        let origin = origin_ms(wall, mono);
        let ahead_ms = origin - self.origin_ms;
        if ahead_ms <= DRIFT_MS {
            self.origin_ms = origin;
            self.ahead_since = None;
        } else {
            let since = *self.ahead_since.get_or_insert(mono);
            if mono.saturating_sub(since) >= STEP_HOLDS {
                self.origin_ms = origin;
                self.ahead_since = None;
            }
        }
        Millis(u64::try_from(self.origin_ms + mono.as_millis() as i128).unwrap_or_default())
    }
}

fn origin_ms(wall: Millis, mono: Duration) -> i128 {
    i128::from(wall.0) - mono.as_millis() as i128
}

/// How long the wall clock has to stay ahead before age is told by it.
const STEP_HOLDS: Duration = Duration::from_secs(3_600);
/// So far ahead at one look is the clock being slewed, or a pause of the process, and no step.
const DRIFT_MS: i128 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_runs_with_the_clock() {
        let mut calendar = Calendar::new(Millis(START), seconds(5));
        for second in 5..10_000 {
            let wall = Millis(START + (second - 5) * 1_001);
            assert_eq!(calendar.now(wall, seconds(second)), wall, "a clock that is fast by a thousandth is followed");
        }
    }

    #[test]
    fn a_step_back_is_followed_at_once() {
        let mut calendar = Calendar::new(Millis(START), seconds(0));
        let wall = Millis(START - 7_200_000);
        assert_eq!(calendar.now(wall, seconds(1)), wall);
        assert_eq!(calendar.now(Millis(wall.0 + 1_000), seconds(2)), Millis(wall.0 + 1_000));
    }

    #[test]
    fn a_leap_ahead_has_to_stay() {
        let year = 365 * 86_400_000;
        let mut calendar = Calendar::new(Millis(START), seconds(0));
        let mut ask = |second: u64, leapt: bool| {
            let wall = START + second * 1_000 + if leapt { year } else { 0 };
            calendar.now(Millis(wall), seconds(second)).0 - START - second * 1_000
        };
        assert_eq!(ask(10, true), 0, "a moment's leap is not believed");
        assert_eq!(ask(3_000, true), 0);
        assert_eq!(ask(3_500, false), 0);
        assert_eq!(ask(3_620, true), 0, "it was right in between");
        assert_eq!(ask(7_000, true), 0);
        assert_eq!(ask(7_220, true), year, "an hour on it is");
        assert_eq!(ask(7_230, false), 0);
    }
}
