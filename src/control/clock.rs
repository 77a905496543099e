//! The only place in control that reads clocks.
//!
//! Shards speak in `Instant`s; clients and tokens in wall time. One pair of both, taken at the start, translates.

use std::time::{Duration, Instant, SystemTime};

use crate::ledger::book::Moment;
use crate::ledger::record::UnixMs;

/// Monotonic and wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    instant: Instant,
    system: SystemTime,
}

impl Clock {
    /// Ties the two clocks together.
    #[expect(clippy::disallowed_methods, reason = "ring 3 reads the clocks, here alone")]
    pub fn start() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    /// Monotonic time.
    #[expect(clippy::disallowed_methods, reason = "ring 3 reads the clocks, here alone")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Now, by both clocks.
    pub fn moment(&self) -> Moment {
        self.moment_of(self.now())
    }

    /// A moment of which only the monotonic time is known. Wall time is read afresh: it may have been set since.
    #[expect(clippy::disallowed_methods, reason = "ring 3 reads the clocks, here alone")]
    pub fn moment_of(&self, at: Instant) -> Moment {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ago = self.now().saturating_duration_since(at);
        Moment { at, wall: UnixMs(since_1970.saturating_sub(ago).as_millis() as u64) }
    }

    /// Seconds since 1970, for tokens. Read afresh, because tokens are compared with other machines' clocks.
    #[expect(clippy::disallowed_methods, reason = "ring 3 reads the clocks, here alone")]
    pub fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// How long after the start `at` is; zero before it.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.instant)
    }

    /// `at` as RFC 3339 in UTC with milliseconds.
    pub fn wall(&self, at: Instant) -> String {
        match at.checked_duration_since(self.instant) {
            Some(after) => format_wall(self.system + after),
            None => format_wall(self.system - self.instant.saturating_duration_since(at)),
        }
    }
}

/// Seconds since 1970 as RFC 3339 in UTC with milliseconds.
pub fn format_unix(seconds: u64) -> String {
    UnixMs(seconds.saturating_mul(1000)).to_string()
}

fn format_wall(at: SystemTime) -> String {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs(since_1970.as_millis() as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(format_unix(0), "1970-01-01T00:00:00.000Z");
        let clock = Clock { instant: Clock::start().instant, system: SystemTime::UNIX_EPOCH + Duration::from_secs(60) };
        assert_eq!(clock.wall(clock.instant + Duration::from_millis(1_007)), "1970-01-01T00:01:01.007Z");
        assert_eq!(clock.wall(clock.instant - Duration::from_millis(1)), "1970-01-01T00:00:59.999Z");
    }
}
