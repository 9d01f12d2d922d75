//! Owns token buckets: how much of something may happen at once and per second. Never reads a clock.

/// A token bucket in eight bytes. Full at birth.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Tokens left, in thousandths.
    millitokens: u32,
    /// Monotonic milliseconds of the last refill, modulo 2^32; spans of up to 49 days are told apart.
    at_ms: u32,
}

/// What a bucket holds at most and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per minute; 0 = unlimited.
    per_minute: u64,
    burst: u32,
}

impl Rate {
    /// A rate whose bucket holds two seconds' worth.
    pub fn per_second(per_second: u32) -> Rate {
        Rate { per_minute: u64::from(per_second) * 60, burst: per_second.saturating_mul(2).clamp(1, BURST_MAX) }
    }

    /// A rate whose bucket holds a minute's worth.
    pub fn per_minute(per_minute: u32) -> Rate {
        Rate { per_minute: u64::from(per_minute), burst: per_minute.clamp(1, BURST_MAX) }
    }

    pub fn is_unlimited(self) -> bool {
        self.per_minute == 0
    }

    /// The stricter of two.
    pub fn least(self, other: Rate) -> Rate {
        if other.is_unlimited() || (!self.is_unlimited() && self.per_minute <= other.per_minute) { self } else { other }
    }

    /// The same rate split among `shares`, at least one token a second each.
    pub fn shared_by(self, shares: u32) -> Rate {
        if self.is_unlimited() {
            return self;
        }
        let shares = shares.max(1);
        Rate { per_minute: (self.per_minute / u64::from(shares)).max(60), burst: (self.burst / shares).max(1) }
    }
}

impl Bucket {
    pub fn full(rate: Rate, now_ms: u64) -> Bucket {
        Bucket { millitokens: rate.burst.min(BURST_MAX).saturating_mul(1_000), at_ms: now_ms as u32 }
    }

    /// Takes one token. `Err` says after how many milliseconds there will be one.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), u64> {
        if rate.is_unlimited() {
            return Ok(());
        }
        let elapsed_ms = u64::from((now_ms as u32).wrapping_sub(self.at_ms));
        // A thousandth of a token comes every 60 ms at one a minute. Only whole ones are taken, and the time they took.
        let gained = elapsed_ms.saturating_mul(rate.per_minute) / 60;
        let full = u64::from(rate.burst.min(BURST_MAX)) * 1_000;
        if gained > 0 {
            let rest_ms = elapsed_ms.saturating_sub(gained.saturating_mul(60).div_ceil(rate.per_minute));
            self.millitokens = (u64::from(self.millitokens) + gained).min(full) as u32;
            self.at_ms = (now_ms as u32).wrapping_sub(rest_ms as u32);
        }
        if self.millitokens >= 1_000 {
            self.millitokens -= 1_000;
            Ok(())
        } else {
            Err((u64::from(1_000 - self.millitokens) * 60).div_ceil(rate.per_minute).max(1))
        }
    }
}

/// So that thousandths fit 32 bits.
const BURST_MAX: u32 = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let rate = Rate::per_second(10);
        let mut bucket = Bucket::full(rate, 5_000);
        assert_eq!((0..20).filter(|_| bucket.take(rate, 5_000).is_ok()).count(), 20);
        assert_eq!(bucket.take(rate, 5_000), Err(100));
        assert!(bucket.take(rate, 5_100).is_ok());
        assert!(bucket.take(rate, 5_150).is_err());
        let taken = (0..10_000u64).filter(|ms| bucket.take(rate, 6_000 + ms).is_ok()).count();
        assert!((100..=110).contains(&taken), "{taken}");
    }

    #[test]
    fn zero_is_unlimited_and_shares_never_reach_zero() {
        let rate = Rate::per_second(0);
        let mut bucket = Bucket::full(rate, 0);
        assert!((0..100_000).all(|_| bucket.take(rate, 0).is_ok()));
        assert_eq!(Rate::per_second(3).shared_by(5).per_minute, 60);
        assert!(rate.shared_by(5).is_unlimited());
        assert_eq!(rate.least(Rate::per_second(9)), Rate::per_second(9));
        assert_eq!(Rate::per_second(9).least(Rate::per_second(7)), Rate::per_second(7));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks 600,000 times")]
    fn slow_rates_are_kept_when_asked_often() {
        let rate = Rate::per_minute(5);
        let mut bucket = Bucket::full(rate, 0);
        assert_eq!((0..10).filter(|_| bucket.take(rate, 0).is_ok()).count(), 5);
        let taken = (0..600_000u64).filter(|ms| bucket.take(rate, *ms).is_ok()).count();
        assert!((45..=50).contains(&taken), "{taken}");
    }
}
