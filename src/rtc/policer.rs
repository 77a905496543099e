//! What one client may send: beyond it datagrams are dropped before anything is spent on them.
//!
//! A virtual scheduling meter (GCRA, ITU-T I.371): one instant a client, no timer.

use std::time::{Duration, Instant};

/// Eight cameras at 4 Mbit/s with microphones and feedback for fifty streams are some 4,500 datagrams a second.
pub const MEDIA: Allowance = Allowance { interval: Duration::from_micros(200), burst: Duration::from_millis(500) };
/// Connectivity checks and DTLS: an HMAC or a signature each. A browser with ten addresses sends a hundred a second while
/// it connects, and a large flight of DTLS fits the burst.
pub const SESSION: Allowance = Allowance { interval: Duration::from_millis(5), burst: Duration::from_secs(2) };

/// One datagram an interval, and at once as many as fit the burst.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub interval: Duration,
    pub burst: Duration,
}

/// One client's meter of one kind of datagram.
#[derive(Debug)]
pub struct Policer {
    /// When all that was admitted would have come, had it come evenly.
    spent_until: Instant,
}

impl Policer {
    /// A meter that has admitted nothing.
    pub fn new(now: Instant) -> Self {
        Self { spent_until: now }
    }

    /// Whether a datagram may come in now. What is refused costs nothing of what is allowed later.
    pub fn admits(&mut self, allowance: &Allowance, now: Instant) -> bool {
        let spent_until = self.spent_until.max(now);
        let admitted = spent_until.saturating_duration_since(now) + allowance.interval <= allowance.burst;
        if admitted {
            self.spent_until = spent_until + allowance.interval;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_burst_and_then_its_rate() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        for (allowance, burst, rate) in [(MEDIA, 2_500, 5_000), (SESSION, 400, 200)] {
            let mut policer = Policer::new(t0);
            let mut flood = |now, much| (0..much).filter(|_| policer.admits(&allowance, now)).count();
            assert_eq!(flood(t0, 100_000), burst);
            // 1,000 datagrams each millisecond for a second.
            let admitted: usize = (1..=1000).map(|ms| flood(at(ms), 1000)).sum();
            assert_eq!(admitted, rate);
            assert_eq!(flood(at(60_000), 100_000), burst, "after a rest all is as at first");
        }
    }

    #[test]
    fn an_even_stream_below_the_rate_loses_nothing() {
        let t0 = Instant::now();
        let mut policer = Policer::new(t0);
        assert!((0..10_000).all(|n| policer.admits(&MEDIA, t0 + MEDIA.interval * n)));
    }
}
