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
    wanted: bool,
    last_sent: Option<Instant>,
}

impl KeyframeRequests {
    /// For the lowest encoding of a simulcast track, or for any other.
    pub fn new(lowest_of_several: bool) -> Self {
        let interval = if lowest_of_several { INTERVAL_LOWEST } else { INTERVAL };
        Self { interval, wanted: false, last_sent: None }
    }

    /// Someone needs a keyframe. Whether to ask the publisher now; else [`Self::due`] says when.
    pub fn want(&mut self, now: Instant) -> bool {
        self.wanted = true;
        self.send_if_due(now)
    }

    /// A keyframe came.
    pub fn satisfied(&mut self) {
        self.wanted = false;
    }

    /// When to ask (again).
    pub fn due(&self) -> Option<Instant> {
        let last_sent = self.last_sent.filter(|_| self.wanted)?;
        Some(last_sent + self.interval)
    }

    /// Whether to ask the publisher now.
    pub fn send_if_due(&mut self, now: Instant) -> bool {
        let quiet = self.last_sent.is_none_or(|sent| now >= sent + self.interval);
        let send = self.wanted && quiet;
        if send {
            self.last_sent = Some(now);
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
        requests.satisfied();
        assert_eq!(requests.due(), None);
        assert!(!requests.send_if_due(t0 + Duration::from_secs(9)));
    }

    #[test]
    fn a_new_wish_soon_after_a_keyframe_still_waits_its_interval() {
        let t0 = Instant::now();
        let mut requests = KeyframeRequests::new(false);
        assert!(requests.want(t0));
        requests.satisfied();
        assert!(!requests.want(t0 + Duration::from_millis(300)));
        assert_eq!(requests.due(), Some(t0 + INTERVAL));
    }
}
