//! Merges keyframe requests: at most one an interval goes to the publisher, repeated until a keyframe comes.

use std::time::{Duration, Instant};

/// Least time between two requests to an encoding. A keyframe is five to ten times a delta frame, so asking more
/// often costs every viewer quality; LiveKit and mediasoup use the same second.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same for the lowest encoding, whose keyframes are small and which newcomers see first.
const INTERVAL_LOWEST: Duration = Duration::from_millis(500);

/// The requests for one encoding.
#[derive(Debug)]
pub struct KeyframeRequests {
    interval: Duration,
    /// When the keyframe was first wished for that has yet to come.
    wanted_since: Option<Instant>,
    last_sent: Option<Instant>,
    sent: u64,
}

impl KeyframeRequests {
    /// For the lowest encoding of a simulcast track, or for any other.
    pub fn new(lowest_of_several: bool) -> Self {
        let interval = if lowest_of_several { INTERVAL_LOWEST } else { INTERVAL };
        Self { interval, wanted_since: None, last_sent: None, sent: 0 }
    }

    /// Someone needs a keyframe. Whether to ask the publisher now; else [`Self::due`] says when.
    pub fn want(&mut self, now: Instant) -> bool {
        self.wanted_since.get_or_insert(now);
        self.send_if_due(now)
    }

    /// A keyframe came. How long after it was first wished for.
    pub fn satisfied(&mut self, now: Instant) -> Option<Duration> {
        self.wanted_since.take().map(|since| now.saturating_duration_since(since))
    }

    /// Nobody needs a keyframe any more.
    pub fn forget(&mut self) {
        self.wanted_since = None;
    }

    /// How often the publisher was to be asked.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// When to ask (again).
    pub fn due(&self) -> Option<Instant> {
        let last_sent = self.last_sent.filter(|_| self.wanted_since.is_some())?;
        Some(last_sent + self.interval)
    }

    /// Whether to ask the publisher now.
    pub fn send_if_due(&mut self, now: Instant) -> bool {
        let quiet = self.last_sent.is_none_or(|sent| now >= sent + self.interval);
        let send = self.wanted_since.is_some() && quiet;
        if send {
            self.last_sent = Some(now);
            self.sent += 1;
        }
        send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_wishes_is_one_request_a_second() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::new(false);
        let sent = (0..3000).filter(|ms| requests.want(t0 + Duration::from_millis(*ms))).count();
        assert_eq!(sent, 3);
    }

    #[test]
    fn it_is_repeated_until_a_keyframe_comes() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::new(true);
        assert!(requests.want(t0));
        assert_eq!(requests.due(), Some(t0 + INTERVAL_LOWEST));
        assert!(!requests.send_if_due(t0 + Duration::from_millis(499)));
        assert!(requests.send_if_due(t0 + Duration::from_millis(500)));
        let second = Duration::from_secs(1);
        assert_eq!(requests.satisfied(t0 + second), Some(second), "since the first wish");
        assert_eq!((requests.satisfied(t0 + second), requests.sent()), (None, 2));
        assert_eq!(requests.due(), None);
        assert!(!requests.send_if_due(t0 + Duration::from_secs(9)));
    }

    #[test]
    fn a_new_wish_soon_after_a_keyframe_still_waits_its_interval() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::new(false);
        assert!(requests.want(t0));
        requests.forget();
        assert_eq!(requests.satisfied(t0), None);
        assert!(!requests.want(t0 + Duration::from_millis(300)));
        assert_eq!(requests.due(), Some(t0 + INTERVAL));
    }
}
