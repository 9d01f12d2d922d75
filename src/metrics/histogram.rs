//! Owns the histogram that latencies, lifetimes and batch sizes are counted in. Never grows: its memory (11 to 27 KB) is there
//! from the start. Lives on the thread that counts; copies of it travel.

/// Counts values with a precision of 1 %. Values above its range count as its upper end.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
    /// Exact sum in the histogram's own unit.
    sum: u64,
    unit: Unit,
}

/// What is counted, which decides range and buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Micros,
    Millis,
    Items,
}

impl Histogram {
    /// For latencies: 1 µs to 60 s.
    pub fn latency() -> Histogram {
        Histogram::with_unit(Unit::Micros, 60_000_000)
    }

    /// For lifetimes: 1 ms to 30 days.
    pub fn lifetime() -> Histogram {
        Histogram::with_unit(Unit::Millis, 30 * 24 * 3_600_000)
    }

    /// For numbers of things: 1 to 65,536.
    pub fn items() -> Histogram {
        Histogram::with_unit(Unit::Items, 65_536)
    }

    fn with_unit(unit: Unit, highest: u64) -> Histogram {
        let counts = hdrhistogram::Histogram::new_with_bounds(1, highest, 2).expect("constant bounds within the crate's rules");
        Histogram { counts, sum: 0, unit }
    }

    /// Counts a duration in microseconds. A few nanoseconds; never allocates.
    #[inline]
    pub fn record_us(&mut self, duration_us: u64) {
        let value = match self.unit {
            Unit::Micros => duration_us,
            Unit::Millis => duration_us / 1_000,
            Unit::Items => return debug_assert!(false, "a duration is not a number of items"),
        };
        self.record(value);
    }

    /// Counts a number of things.
    #[inline]
    pub fn record_items(&mut self, items: u64) {
        debug_assert_eq!(self.unit, Unit::Items, "a number of items is not a duration");
        self.record(items);
    }

    #[inline]
    fn record(&mut self, value: u64) {
        self.counts.saturating_record(value);
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds what `other` has counted; both must be of one kind.
    pub fn add(&mut self, other: &Histogram) {
        debug_assert_eq!(self.unit, other.unit, "histograms of different kinds do not add up");
        self.counts.add(&other.counts).expect("histograms of one kind have one range");
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The value below which the share `quantile` (0 to 1) lies, in seconds or items; 0 when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.scaled(self.counts.value_at_quantile(quantile))
    }

    /// Sum of all values, in seconds or items.
    pub fn sum(&self) -> f64 {
        self.scaled(self.sum)
    }

    /// Upper bounds in seconds or items, each with the number of values above the bound before it; the last is `f64::MAX`.
    ///
    /// A value within 1 % above a bound may count as below it.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = match self.unit {
            Unit::Micros => LATENCY_BOUNDS_US,
            Unit::Millis => LIFETIME_BOUNDS_MS,
            Unit::Items => ITEM_BOUNDS,
        };
        let mut buckets: Vec<(f64, u64)> = bounds.iter().map(|bound| (self.scaled(*bound), 0)).collect();
        buckets.push((f64::MAX, 0));
        for step in self.counts.iter_recorded() {
            let value = self.counts.lowest_equivalent(step.value_iterated_to());
            let at = bounds.partition_point(|bound| *bound < value);
            buckets[at].1 += step.count_at_value();
        }
        buckets
    }

    fn scaled(&self, value: u64) -> f64 {
        match self.unit {
            Unit::Micros => value as f64 / 1e6,
            Unit::Millis => value as f64 / 1e3,
            Unit::Items => value as f64,
        }
    }
}

const LATENCY_BOUNDS_US: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
const LIFETIME_BOUNDS_MS: &[u64] =
    &[1_000, 10_000, 60_000, 300_000, 900_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000, 7 * 24 * 3_600_000];
const ITEM_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_holds_them() {
        let mut histogram = Histogram::latency();
        for value in [0, 10, 11, 1_000, 1_100, 30_000_000, 90_000_000] {
            histogram.record_us(value);
        }
        let buckets = histogram.buckets();
        let at = |bound: f64| buckets.iter().find(|(upper, _)| *upper == bound).unwrap().1;
        assert_eq!((at(0.000_01), at(0.000_025), at(0.001), at(0.002_5)), (2, 1, 1, 1));
        assert_eq!((at(30.0), at(f64::MAX)), (1, 1));
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), histogram.count());
    }

    #[test]
    fn every_bound_holds_its_own_value() {
        for mut histogram in [Histogram::latency(), Histogram::lifetime(), Histogram::items()] {
            let bounds: Vec<_> = match histogram.unit {
                Unit::Micros => LATENCY_BOUNDS_US.to_vec(),
                Unit::Millis => LIFETIME_BOUNDS_MS.to_vec(),
                Unit::Items => ITEM_BOUNDS.to_vec(),
            };
            for bound in &bounds {
                histogram.record(*bound);
            }
            let counts: Vec<_> = histogram.buckets().into_iter().map(|(_, count)| count).collect();
            assert_eq!(counts[..bounds.len()], vec![1; bounds.len()]);
            assert_eq!(counts.last(), Some(&0));
        }
    }

    #[test]
    fn sums_and_counts_add_up_and_quantiles_are_within_a_percent() {
        let (mut one, mut other) = (Histogram::latency(), Histogram::latency());
        (1..=900).for_each(|value| one.record_us(value));
        (901..=1_000).for_each(|value| other.record_us(value));
        one.add(&other);
        assert_eq!((one.count(), one.sum()), (1_000, 0.500_5));
        assert!((one.quantile(0.99) - 0.000_99).abs() < 0.000_01, "{}", one.quantile(0.99));
    }

    #[test]
    fn lifetimes_are_seconds_too() {
        let mut histogram = Histogram::lifetime();
        histogram.record_us(3_600_000_000 * 24 * 90);
        histogram.record_us(5_000_000);
        assert_eq!(histogram.buckets()[1], (10.0, 1));
        assert_eq!(histogram.buckets().last().unwrap().1, 1);
    }
}
