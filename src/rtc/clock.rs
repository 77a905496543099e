//! Wall-clock time for RTCP and header extensions, from the monotonic clock and one look at the wall at start.

use std::time::{Duration, Instant};

/// Seconds from 1900 to 1970 (RFC 5905 §6).
const NTP_UNIX_OFFSET_SECONDS: u64 = 2_208_988_800;

/// Turns instants into NTP timestamps. A step of the wall clock after the start does not show: media time must not jump.
#[derive(Debug, Clone, Copy)]
pub struct NtpClock {
    origin: Instant,
    since_1900: Duration,
}

impl NtpClock {
    /// A clock for which `now` is so long after 1970.
    pub fn new(since_1970: Duration, now: Instant) -> Self {
        Self { origin: now, since_1900: since_1970 + Duration::from_secs(NTP_UNIX_OFFSET_SECONDS) }
    }

    /// The NTP timestamp of an instant, 32.32 fixed point (RFC 3550 §4).
    pub fn ntp(&self, at: Instant) -> u64 {
        let since = match at.checked_duration_since(self.origin) {
            Some(after) => self.since_1900.saturating_add(after),
            None => self.since_1900.saturating_sub(self.origin.saturating_duration_since(at)),
        };
        // Seconds wrap in 2036, as NTP's do.
        (since.as_secs() << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
    }

    /// Microseconds since the clock's origin, for feedback about arrivals.
    pub fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_micros() as u64
    }

    /// The instant of so many microseconds since the clock's origin.
    pub fn at_micros(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros)
    }
}

/// The middle 32 bits, which reports quote (RFC 3550 §6.4.1).
pub fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// 24 bits, 6.18 fixed-point seconds: the abs-send-time header extension.
pub fn abs_send_time(ntp: u64) -> u32 {
    (ntp >> 14) as u32 & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_become_ntp_time() {
        let now = Instant::now();
        let clock = NtpClock::new(Duration::from_secs(1_000), now);
        assert_eq!(clock.ntp(now) >> 32, NTP_UNIX_OFFSET_SECONDS + 1_000);
        let half_later = clock.ntp(now + Duration::from_millis(1_500));
        assert_eq!((half_later >> 32, half_later as u32), (NTP_UNIX_OFFSET_SECONDS + 1_001, 1 << 31));
        assert_eq!(clock.ntp(now - Duration::from_secs(1)) >> 32, NTP_UNIX_OFFSET_SECONDS + 999);
        assert_eq!(abs_send_time(5 << 32 | 1 << 31), 5 << 18 | 1 << 17);
        assert_eq!(middle(0x1122_3344_5566_7788), 0x3344_5566);
    }
}
