//! Distributions in fixed buckets: 32 to each doubling, so that a percentile is at most 3 % off.

/// Buckets to a doubling are 2 to the power of this.
const PRECISION_BITS: u32 = 5;
const STEPS: u64 = 1 << PRECISION_BITS;
/// Enough for every `u64`.
const BUCKETS: usize = ((u64::BITS - PRECISION_BITS) as usize + 1) * STEPS as usize;

/// How often which values came.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), count: 0, sum: 0, max: 0 }
    }
}

fn bucket_of(value: u64) -> usize {
    let exponent = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    (u64::from(exponent) * STEPS + (value >> exponent)) as usize
}

/// The middle of a bucket.
fn value_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let exponent = (bucket / STEPS).saturating_sub(1);
    let lowest = (bucket - exponent * STEPS) << exponent;
    lowest + ((1 << exponent) >> 1)
}

impl Histogram {
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The value that `percent` of the values do not exceed; zero of nothing.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((self.count as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut passed = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= wanted {
                return value_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_three_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000u64).for_each(|value| histogram.record(value * 10));
        for percent in [1.0, 50.0, 90.0, 99.0, 99.9] {
            let (seen, exact) = (histogram.percentile(percent) as f64, percent * 10_000.0);
            assert!((seen / exact - 1.0).abs() < 0.03, "{percent}: {seen}, not {exact}");
        }
        assert_eq!((histogram.percentile(100.0), histogram.max(), histogram.count()), (1_000_000, 1_000_000, 100_000));
        assert!((histogram.mean() - 500_005.0).abs() < 1.0);
    }

    #[test]
    fn small_values_are_exact_and_none_is_lost() {
        for value in 0..64 {
            assert_eq!(value_of(bucket_of(value)), value);
        }
        for shift in 0..64 {
            let value = 1u64 << shift;
            assert!(bucket_of(value) < BUCKETS && bucket_of(value) > bucket_of(value - 1), "{value}");
        }
        assert!(bucket_of(u64::MAX) < BUCKETS);
        assert_eq!(Histogram::default().percentile(50.0), 0);
    }
}
