//! Where a peer's datagrams go when its network changes.
//!
//! A controlled str0m agent keeps the nominated pair with the highest priority until nothing has checked it for 15 s,
//! so after a NAT rebinding or a change from Wi-Fi to mobile it would send into the void (14.7 s measured). We follow
//! the client instead: at once to the pair it nominated last (RFC 8445 §7.3.1.5), and from a path that has fallen
//! silent to one that it has checked since, for not every client nominates again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::command::Transport;

/// A path is silent after this long. Clients that hear us send RTCP several times a second and audio 50 times; one
/// that only checks ICE does so every few seconds, but it checks its one path and no other.
const SILENCE: Duration = Duration::from_millis(500);

/// One end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub transport: Transport,
    /// The client's address.
    pub remote: SocketAddr,
    /// Our candidate.
    pub local: SocketAddr,
}

/// What is known of a peer's paths.
#[derive(Debug, Default)]
pub struct Path {
    /// Where we send, and when something last came from there.
    current: Option<(Hop, Instant)>,
    /// Where the last authenticated check came from, if from elsewhere, and when.
    checked: Option<(Hop, Instant)>,
}

impl Path {
    /// Something came from this address.
    pub fn heard(&mut self, transport: Transport, remote: SocketAddr, now: Instant) {
        if let Some((hop, heard)) = &mut self.current
            && (hop.transport, hop.remote) == (transport, remote)
        {
            *heard = now;
        }
    }

    /// A check over this hop passed its integrity check; it may have nominated it.
    pub fn checked(&mut self, hop: Hop, nominated: bool, now: Instant) {
        if nominated || self.current.is_none_or(|(current, _)| current == hop) {
            self.current = Some((hop, now));
            self.checked = None;
        } else {
            self.checked = Some((hop, now));
        }
    }

    /// Where to send.
    pub fn current(&mut self, now: Instant) -> Option<Hop> {
        let (hop, heard) = self.current?;
        if now.saturating_duration_since(heard) >= SILENCE
            && let Some((other, checked_at)) = self.checked.filter(|(_, checked_at)| *checked_at > heard)
        {
            self.current = Some((other, checked_at));
            self.checked = None;
            return Some(other);
        }
        Some(hop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(port: u16) -> Hop {
        let local = SocketAddr::from(([192, 0, 2, 10], 7882));
        Hop { transport: Transport::Udp, remote: SocketAddr::from(([198, 51, 100, 1], port)), local }
    }

    #[test]
    fn the_last_nomination_wins_at_once() {
        let t0 = Instant::now();
        let (old, new) = (hop(1), hop(2));
        let mut path = Path::default();
        assert_eq!(path.current(t0), None);
        path.checked(old, true, t0);
        assert_eq!(path.current(t0), Some(old));
        path.checked(new, true, t0);
        assert_eq!(path.current(t0), Some(new));
    }

    #[test]
    fn a_silent_path_is_left_for_one_that_was_checked_since() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let (old, new) = (hop(1), hop(2));
        let mut path = Path::default();
        path.checked(old, false, t0);
        path.heard(Transport::Udp, old.remote, at(100));
        path.checked(new, false, at(150));
        assert_eq!(path.current(at(200)), Some(old), "the old path may only be quiet for a moment");
        path.heard(Transport::Udp, old.remote, at(300));
        assert_eq!(path.current(at(900)), Some(old), "it was heard after the check of the other");
        path.checked(new, false, at(1000));
        assert_eq!(path.current(at(1000)), Some(new));
        assert_eq!(path.current(at(3000)), Some(new), "and stays");
    }
}
