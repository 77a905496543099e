//! A session's way out: `leave` and goodbye on every layer, silence, panics. And who is to be drained next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::Transfer;
use super::engine::Engine;
use super::peer::{MIN_SLEEP, Peer, Phase};
use super::schedule::Wake;
use crate::command::{EndReason, SessionUsage};
use crate::media::signal::Signal;
use crate::media::{self, PeerKey};

/// How long `leave` may take to reach its client, and then DTLS to close. Both fit into a shutdown of 5 s.
const LEAVE_LINGER: Duration = Duration::from_millis(500);
const CLOSE_LINGER: Duration = Duration::from_millis(300);

impl Engine {
    /// Marks a peer as having something to send.
    pub(super) fn touch(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        if !std::mem::replace(&mut peer.dirty, true) {
            self.dirty.push_back(key);
        }
    }

    /// Marks a peer whose str0m has something to send.
    pub(super) fn touch_session(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) {
            peer.wants_tick = true;
        }
        self.touch(key);
    }

    pub(super) fn tell_peer(&mut self, key: PeerKey, signal: &Signal, now: Instant) {
        let told = self.with_peer(key, |peer, _| {
            peer.wants_tick = true;
            peer.tell(signal)
        });
        match told {
            Some(true) => self.touch(key),
            Some(false) => self.leave(key, EndReason::SlowConsumer, now),
            None => {}
        }
    }

    /// Ends a session from our side: `leave` first, then goodbye on every layer.
    pub(super) fn leave(&mut self, key: PeerKey, reason: EndReason, now: Instant) {
        let until = now + LEAVE_LINGER;
        if self.depart(key, reason, Phase::Leaving { until }, now) {
            self.tell_peer(key, &Signal::leave(reason), now);
        }
    }

    /// Ends a session the client has left or lost.
    pub(super) fn end(&mut self, key: PeerKey, reason: EndReason, now: Instant) {
        let until = now + CLOSE_LINGER;
        if self.depart(key, reason, Phase::Closing { until }, now) {
            self.with_peer(key, Peer::close);
            self.touch(key);
        }
    }

    /// A session without a room is to say goodbye.
    pub(super) fn take_leave(&mut self, key: PeerKey, now: Instant) {
        self.with_peer(key, |peer, shared| {
            peer.phase = Phase::Leaving { until: now + LEAVE_LINGER };
            peer.room = usize::MAX;
            peer.ingress.forget_tracks(&mut shared.store);
            peer.egress.silence(&mut shared.stats);
        });
    }

    /// Takes a participant out of the room and the session out of reach. False if that has happened before.
    fn depart(&mut self, key: PeerKey, reason: EndReason, phase: Phase, now: Instant) -> bool {
        let usage = self.usage(key, now);
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return false };
        if peer.is_leaving() {
            return false;
        }
        peer.phase = phase;
        peer.ingress.forget_tracks(&mut self.shared.store);
        peer.egress.silence(&mut self.shared.stats);
        let (index, seat, session) = (peer.room, peer.seat, peer.session);
        for ufrag in &peer.ufrags {
            self.demux.remove_ufrag(ufrag);
        }
        self.sessions.remove(&session);
        self.tell_room(index, media::Input::Leave { seat, reason, usage }, now);
        true
    }

    /// What a peer has used so far.
    pub(super) fn usage(&self, key: PeerKey, now: Instant) -> SessionUsage {
        let Some(peer) = self.peers.get(key.0 as usize).and_then(Option::as_ref) else {
            return SessionUsage::default();
        };
        let duration = peer.present_for(now);
        let room = self.rooms.get(peer.room).and_then(Option::as_ref);
        let published = room.map(|room| room.published(peer.seat, now)).unwrap_or_default();
        SessionUsage {
            duration,
            rx_bytes: peer.presence.rx_bytes,
            tx_bytes: peer.presence.tx_bytes,
            // Who is not there publishes nothing.
            audio_published: published.audio.min(duration),
            video_published: published.video.min(duration),
            transport: peer.sends_to.map(|(transport, _)| transport),
        }
    }

    /// A peer's deadline has passed: its own, or str0m's.
    pub(super) fn wake_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(key.0 as usize).and_then(Option::as_ref) else { return };
        match peer.phase {
            Phase::Connecting { until } if now >= until => self.end(key, EndReason::ConnectTimeout, now),
            Phase::Lost { until } if now >= until => self.end(key, EndReason::ConnectionLost, now),
            Phase::Connected => {
                let until = now + self.config.restart_timeout;
                self.with_peer(key, |peer, _| {
                    if peer.is_silent(now) {
                        peer.phase = Phase::Lost { until };
                    }
                });
            }
            _ => {}
        }
        let ticked = self.with_peer(key, |peer, _| {
            peer.egress.flow().handle_timeout(now);
            peer.tell_estimate();
            let due = now >= peer.due || peer.is_leaving();
            if due {
                peer.tick(now);
            }
            due
        });
        if ticked == Some(true) {
            self.drain_peer(key, None, now);
        }
        // Feedback, reports, and what the pacer held back.
        self.touch(key);
    }

    /// After a drain: what the peer's phase asks for, and its next deadline.
    pub(super) fn settle_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(key.0 as usize).and_then(Option::as_ref) else { return };
        if peer.is_leaving() && self.settle_leaving(key, now) {
            return self.remove_peer(key);
        }
        let wake = self.peers.get(key.0 as usize).and_then(Option::as_ref).map(|peer| peer.wake());
        // What is overdue is done with the next drain; it must not turn the loop before.
        let wake = wake.map(|(at, timer)| (at.max(now + MIN_SLEEP), timer));
        self.schedule.set(Wake::Peer(key), wake);
    }

    /// Takes a session that has ended a step further. Whether it is over.
    fn settle_leaving(&mut self, key: PeerKey, now: Instant) -> bool {
        let stage = self.with_peer(key, |peer, _| {
            let (closing, until) = match peer.phase {
                Phase::Leaving { until } => (false, until),
                Phase::Closing { until } => (true, until),
                _ => return None,
            };
            let done = if closing { !peer.is_alive() } else { peer.is_flushed() || !peer.is_alive() };
            Some((closing, done || now >= until))
        });
        if stage.flatten() == Some((false, true)) {
            self.with_peer(key, |peer, shared| {
                peer.phase = Phase::Closing { until: now + CLOSE_LINGER };
                peer.close(shared);
            });
            self.touch(key);
        }
        stage.flatten() == Some((true, true))
    }

    /// Whether a peer has been sent away, or is gone. What is said to those who leave a room may be too much for one who
    /// does not read, and that ends the session between two rooms.
    pub(super) fn is_going(&self, key: PeerKey) -> bool {
        self.peers.get(key.0 as usize).and_then(Option::as_ref).is_none_or(|peer| peer.is_leaving())
    }

    /// Forgets a peer altogether.
    pub(super) fn remove_peer(&mut self, key: PeerKey) {
        self.schedule.set(Wake::Peer(key), None);
        let Some(mut peer) = self.peers.get_mut(key.0 as usize).and_then(Option::take) else { return };
        peer.ingress.forget_tracks(&mut self.shared.store);
        peer.egress.close(&mut self.shared.stats);
        for address in &peer.addresses {
            self.demux.unbind(address.transport, address.source, key);
        }
        self.guests.remove(&peer.session);
        self.tell_relays(&peer.relays, || Transfer::Ended(peer.session));
        // A peer that panicked may panic again while it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(peer)));
    }

    pub(super) fn reap_failed(&mut self, now: Instant) {
        while let Some(key) = self.failed.pop() {
            tracing::error!("a session panicked and was ended");
            let until = now;
            self.depart(key, EndReason::InternalError, Phase::Closing { until }, now);
            self.remove_peer(key);
        }
    }
}
