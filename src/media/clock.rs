//! Places a publisher's media on this host's clock, so that sender reports keep lips in sync.
//!
//! Sound and picture of one publisher leave through different SSRCs, and arrival times jitter apart. Their sender
//! reports (RFC 3550 §6.4.1) share one NTP clock, so the time of capture follows from a packet's RTP timestamp and
//! its stream's last report; one offset per *publisher* then moves NTP to our clock for all streams alike.

use std::time::{Duration, Instant};

/// Older differences lose weight at this pace, so that the offset follows a drifting clock (50 ppm drift at most).
const DRIFT_PER_SECOND: Duration = Duration::from_micros(50);
/// Reports that put a capture further back than this are not believed; arrival is used.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The offset between a publisher's NTP clock and ours: the least transit seen, per publisher.
#[derive(Debug, Default)]
pub struct PublisherClock {
    /// What to add to NTP microseconds to get microseconds since `origin`, and when it was learnt.
    best: Option<(i64, Instant)>,
    origin: Option<Instant>,
}

/// One stream's last sender report.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The publisher's NTP time in microseconds; any epoch.
    pub ntp_micros: i64,
    /// The RTP timestamp that stands for the same moment.
    pub timestamp: u32,
}

impl PublisherClock {
    /// A report arrived. The smallest transit is the truest, so a report only ever lowers the offset, but for drift.
    pub fn report(&mut self, report: Report, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let arrived_micros = now.saturating_duration_since(origin).as_micros() as i64;
        let offset = arrived_micros - report.ntp_micros;
        let keep = self.best.is_some_and(|(best, learnt)| {
            let aged = now.saturating_duration_since(learnt).as_secs() as i64 * DRIFT_PER_SECOND.as_micros() as i64;
            // A clock that was set back or forward by seconds starts the estimate afresh.
            offset > best + aged && offset - best < 2_000_000
        });
        if !keep {
            self.best = Some((offset, now));
        }
    }

    /// When a packet of a stream with this last report was captured, on our clock; never after `now`.
    pub fn captured_at(&self, report: Option<Report>, timestamp: u32, clock_rate_hz: u32, now: Instant) -> Instant {
        let (Some(report), Some((offset, _)), Some(origin)) = (report, self.best, self.origin) else {
            return now;
        };
        // The wrapping difference as signed: a packet may be older than the report.
        let ticks = i64::from(timestamp.wrapping_sub(report.timestamp) as i32);
        let micros = report.ntp_micros + offset + ticks * 1_000_000 / i64::from(clock_rate_hz.max(1));
        let captured = u64::try_from(micros).ok().map(|since| origin + Duration::from_micros(since));
        captured.filter(|at| now.saturating_duration_since(*at) < MAX_AGE).map_or(now, |at| at.min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1000;

    #[test]
    fn sound_and_picture_captured_together_stay_together() {
        let t0 = Instant::now();
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        let mut clock = PublisherClock::default();
        // Both reports describe NTP 1000 s; video's came 80 ms later than audio's.
        let audio = Report { ntp_micros: 1_000_000 * MS, timestamp: 4_800 };
        let video = Report { ntp_micros: 1_000_000 * MS, timestamp: 90_000 };
        clock.report(audio, at(20));
        clock.report(video, at(100));
        // Half a second later, both captured at once, arriving 60 ms apart.
        let heard = clock.captured_at(Some(audio), 4_800 + 24_000, 48_000, at(540));
        let seen = clock.captured_at(Some(video), 90_000 + 45_000, 90_000, at(600));
        assert_eq!(heard, seen);
    }

    #[test]
    fn the_quickest_report_sets_the_offset() {
        let t0 = Instant::now();
        let mut clock = PublisherClock::default();
        let report = |s: i64| Report { ntp_micros: s * 1_000_000, timestamp: s as u32 * 90_000 };
        clock.report(report(1), t0 + Duration::from_millis(1200));
        clock.report(report(2), t0 + Duration::from_millis(2050));
        clock.report(report(3), t0 + Duration::from_millis(3400));
        let now = t0 + Duration::from_millis(3500);
        let captured = clock.captured_at(Some(report(3)), 3 * 90_000, 90_000, now);
        assert_eq!(now - captured, Duration::from_millis(450));
    }

    #[test]
    fn without_a_report_or_with_an_absurd_one_arrival_counts_and_the_future_never() {
        let now = Instant::now() + Duration::from_secs(60);
        let mut clock = PublisherClock::default();
        assert_eq!(clock.captured_at(None, 5, 90_000, now), now);
        let report = Report { ntp_micros: 0, timestamp: 0 };
        clock.report(report, now);
        assert_eq!(clock.captured_at(Some(report), 90_000 * 5, 90_000, now), now, "not in the future");
        assert_eq!(clock.captured_at(Some(report), 0u32.wrapping_sub(90_000 * 60), 90_000, now), now, "not long ago");
    }
}
