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
    /// 0 = unlimited.
    pub per_second: u32,
    pub burst: u32,
}

impl Rate {
    /// A rate whose bucket holds two seconds' worth.
    pub fn per_second(per_second: u32) -> Rate {
        Rate { per_second, burst: per_second.saturating_mul(2).clamp(1, BURST_MAX) }
    }

    /// The same rate split among `shares`, at least one token a second each.
    pub fn shared_by(self, shares: u32) -> Rate {
        if self.per_second == 0 { self } else { Rate::per_second((self.per_second / shares.max(1)).max(1)) }
    }
}

impl Bucket {
    pub fn full(rate: Rate, now_ms: u64) -> Bucket {
        Bucket { millitokens: rate.burst.min(BURST_MAX).saturating_mul(1_000), at_ms: now_ms as u32 }
    }

    /// Takes one token. `Err` says after how many milliseconds there will be one.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), u64> {
        if rate.per_second == 0 {
            return Ok(());
        }
        let elapsed_ms = u64::from((now_ms as u32).wrapping_sub(self.at_ms));
        let gained = elapsed_ms.saturating_mul(u64::from(rate.per_second));
        let full = u64::from(rate.burst.min(BURST_MAX)) * 1_000;
        self.millitokens = (u64::from(self.millitokens) + gained).min(full) as u32;
        self.at_ms = now_ms as u32;
        if self.millitokens >= 1_000 {
            self.millitokens -= 1_000;
            Ok(())
        } else {
            Err(u64::from(1_000 - self.millitokens).div_ceil(u64::from(rate.per_second)).max(1))
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
        assert_eq!(Rate::per_second(3).shared_by(5).per_second, 1);
        assert_eq!(rate.shared_by(5).per_second, 0);
    }
}
