//! Where a peer's datagrams go when its network changes.
//!
//! A controlled str0m agent keeps the nominated pair with the highest priority until nothing has checked it for 15 s,
//! so after a NAT rebinding or a change from Wi-Fi to mobile it would send into the void (14.7 s measured). A client
//! checks from its new address at once; once the old one is silent and the new one authenticated, we follow.

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
    /// Where str0m sends, and when something last came from there.
    nominated: Option<(Transport, SocketAddr, Instant)>,
    /// Where the last authenticated check came from, and when.
    checked: Option<(Hop, Instant)>,
}

impl Path {
    /// Something came from this address.
    pub fn heard(&mut self, transport: Transport, remote: SocketAddr, now: Instant) {
        if let Some((nominated_transport, nominated, heard)) = &mut self.nominated
            && (*nominated_transport, *nominated) == (transport, remote)
        {
            *heard = now;
        }
    }

    /// A check over this hop passed its integrity check.
    pub fn checked(&mut self, hop: Hop, now: Instant) {
        self.checked = Some((hop, now));
    }

    /// Where to send instead of the path str0m nominated, if that one is silent and another alive.
    pub fn redirect(&mut self, transport: Transport, remote: SocketAddr, now: Instant) -> Option<Hop> {
        let heard = match self.nominated {
            Some((known_transport, known, heard)) if (known_transport, known) == (transport, remote) => heard,
            _ => {
                self.nominated = Some((transport, remote, now));
                now
            }
        };
        let (hop, checked_at) = self.checked?;
        let other = (hop.transport, hop.remote) != (transport, remote);
        (other && checked_at > heard && now.saturating_duration_since(heard) >= SILENCE).then_some(hop)
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
    fn a_client_that_moved_is_followed_and_one_that_did_not_is_not() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let (old, new) = (hop(1), hop(2));
        let redirect = |path: &mut Path, ms| path.redirect(Transport::Udp, old.remote, at(ms));
        let mut path = Path::default();
        assert_eq!(redirect(&mut path, 0), None);
        path.heard(Transport::Udp, old.remote, at(100));
        path.checked(new, at(150));
        assert_eq!(redirect(&mut path, 200), None, "the old path may only be quiet for a moment");
        path.heard(Transport::Udp, old.remote, at(300));
        assert_eq!(redirect(&mut path, 900), None, "it was heard after the check of the other");
        path.checked(new, at(1000));
        assert_eq!(redirect(&mut path, 1000), Some(new));
        assert_eq!(path.redirect(Transport::Udp, new.remote, at(1100)), None, "str0m has nominated it by now");
    }
}
