//! The scenario's own randomness: small, seeded, and independent of any crate's version.

use std::ops::Range;
use std::time::Duration;

use crate::seal::split_mix;

/// A SplitMix64 generator.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose draws follow from `seed` and the purpose alone.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let salt = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(split_mix(seed ^ salt).1)
    }

    pub fn next_u64(&mut self) -> u64 {
        let (state, value) = split_mix(self.0);
        self.0 = state;
        value
    }

    /// A number in `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next_u64() % (range.end - range.start)
    }

    /// Whether something of probability `percent` happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// Whether something of probability `per_mille` happens.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.within(0..1000) < per_mille
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    pub fn micros(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.within(range))
    }

    /// One of them; `None` of none.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        items.get(self.within(0..items.len() as u64) as usize).cloned()
    }

    /// An index into `weights`, drawn by weight; at least one weight is not zero.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut rest = self.within(0..total);
        for (index, weight) in weights.iter().enumerate() {
            if rest < u64::from(*weight) {
                return index;
            }
            rest -= u64::from(*weight);
        }
        unreachable!("the weights sum up to their total")
    }
}
