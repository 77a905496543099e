//! Newtypes for the quantities that are easily confused.

use std::fmt;
use std::ops::Mul;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rate in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Bitrate(u64);

impl Bitrate {
    /// Nothing flows.
    pub const ZERO: Self = Self(0);

    /// A rate of so many bits per second.
    pub const fn from_bps(bits_per_second: u64) -> Self {
        Self(bits_per_second)
    }

    /// The rate that moves `bytes` in `span`; zero for an empty span.
    pub fn of(bytes: u64, span: Duration) -> Self {
        let micros = span.as_micros() as u64;
        Self(bytes.saturating_mul(8_000_000).checked_div(micros).unwrap_or(0))
    }

    /// Bits per second.
    pub const fn as_bps(self) -> u64 {
        self.0
    }
}

impl Mul<f64> for Bitrate {
    type Output = Self;

    /// A share or a multiple of the rate; saturates.
    fn mul(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor) as u64)
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_from_bytes_and_time() {
        assert_eq!(Bitrate::of(1250, Duration::from_millis(10)), Bitrate::from_bps(1_000_000));
        assert_eq!(Bitrate::of(1, Duration::ZERO), Bitrate::ZERO);
        assert_eq!(Bitrate::from_bps(64_000).to_string(), "64 kbit/s");
        assert_eq!(Bitrate::from_bps(64_000) * 2.5, Bitrate::from_bps(160_000));
        assert_eq!(Bitrate::from_bps(64_000) * -1.0, Bitrate::ZERO);
    }
}
