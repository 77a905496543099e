//! A peer ready to go to another engine, which another thread may drive.

use std::time::Instant;

use super::{Peer, Shared};
use crate::rtc::egress::Egress;
use crate::rtc::exchange::exchange;
use crate::rtc::flow::PackedFlow;
use crate::rtc::formats::Outgoing;

/// A peer without what cannot leave its thread.
pub type PackedPeer = Peer<Egress<PackedFlow>>;

impl<E> Peer<E> {
    fn map<F>(self, change: impl FnOnce(E) -> F) -> Peer<F> {
        exchange!(self => Peer {
            egress: change(egress),
            rtc, room, seat, session, home, relays, phase, opened_at, connected_at, ice, ufrags,
            addresses, sends_to, path, offer, slots, ingress, cname, incoming, outgoing, channel,
            outbox, events, media_policer, session_policer, heard_at, presence, silence_due, due,
            dirty, wants_tick,
        })
    }
}

impl Peer {
    /// It goes to another engine: nothing of this one's may go along.
    pub fn uproot(&mut self, shared: &mut Shared) {
        self.ingress.close_rings(&mut shared.store);
        self.egress.forget_packets(&mut shared.stats);
        self.incoming.forget_formats();
        self.outgoing = Outgoing::default();
        self.events.clear();
        self.dirty = false;
    }

    /// For another thread.
    pub fn pack(self) -> PackedPeer {
        self.map(Egress::pack)
    }
}

impl PackedPeer {
    /// On its new thread.
    pub fn unpack(self, now: Instant) -> Peer {
        self.map(|egress| egress.unpack(now))
    }
}
