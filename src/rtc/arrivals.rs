//! The way of a datagram to its peer, and what str0m makes of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::Output;
use super::demux::{self, MAX_ADDRESSES_PER_PEER, Route};
use super::engine::Engine;
use super::media_path::Arrival;
use super::path::Hop;
use super::peer::{Address, PeerOutput, Phase};
use super::{Datagram, Transfer};
use crate::command::{ShardIndex, Transport};
use crate::media::PeerKey;
use crate::media::meter::DropReason;

/// A STUN request, and the engine it came in at if that was another.
pub type Check<'a> = (&'a Datagram<'a>, Option<ShardIndex>);

impl Engine {
    pub(super) fn datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        match self.demux.route(datagram) {
            Route::Peer { key, binding } => self.deliver(key, datagram, binding, None, now),
            Route::Away(session) => self.relay(session, datagram, now),
            Route::Drop(reason) => self.shared.stats.drops.count(reason),
        }
    }

    /// Gives a peer its datagram. `binding`: a STUN request. `via`: the engine it came in at, if that was another.
    pub(super) fn deliver(
        &mut self,
        key: PeerKey,
        datagram: &Datagram<'_>,
        binding: bool,
        via: Option<ShardIndex>,
        now: Instant,
    ) {
        let arrival = self.with_peer(key, |peer, shared| peer.receive(datagram, shared, now));
        match arrival {
            Some(Ok(Arrival::Media(received))) => self.gather(key, received, now),
            Some(Ok(Arrival::Feedback)) => {}
            Some(Ok(Arrival::Session)) => {
                self.forward(now);
                return self.drain_peer(key, binding.then_some((datagram, via)), now);
            }
            Some(Err(reason)) => return self.shared.stats.drops.count(reason),
            None => return self.shared.stats.drops.count(DropReason::Internal),
        }
        self.take_events(key, now);
        let Some(peer) = self.peers.get(key.0 as usize).and_then(Option::as_ref) else { return };
        if peer.has_work(now) {
            self.touch(key);
        } else {
            self.settle_peer(key, now);
        }
    }

    pub(super) fn disconnected(&mut self, source: SocketAddr) {
        if let Some(key) = self.demux.peer_at(Transport::Tcp, source) {
            self.demux.unbind(Transport::Tcp, source, key);
        }
    }

    /// Takes everything str0m has for us. `request` is the STUN request just received, whose success response would
    /// authenticate its source.
    pub(super) fn drain_peer(&mut self, key: PeerKey, request: Option<Check<'_>>, now: Instant) {
        while let Some(output) = self.with_peer(key, |peer, _| peer.poll(now)).flatten() {
            match output {
                PeerOutput::Transmit(transmit) => {
                    let answered = request.filter(|(request, _)| request.source == transmit.destination);
                    if let Some(request) = answered.filter(|_| demux::is_binding_success(&transmit.contents)) {
                        self.bind(key, request, now);
                    }
                    self.outputs.push_back(Output::Transmit(transmit));
                }
                PeerOutput::Ended(reason) => self.end(key, reason, now),
                other => self.peer_event(key, other, now),
            }
        }
        self.settle_peer(key, now);
    }

    /// The request came from who it says.
    fn bind(&mut self, key: PeerKey, (request, via): Check<'_>, now: Instant) {
        let Datagram { transport, source, destination: local, .. } = *request;
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let before = peer.path.current(now).map(|hop| hop.remote.ip());
        peer.path.checked(Hop { transport, remote: source, local }, demux::nominates(request.contents), now);
        // Another port is a NAT's whim, another address another network.
        if before.is_some_and(|before| peer.path.current(now).is_some_and(|hop| hop.remote.ip() != before)) {
            peer.egress.path_changed(&mut self.shared.stats, now);
        }
        if matches!(peer.phase, Phase::Lost { .. }) {
            peer.phase = Phase::Connected;
        }
        let (session, address) = (peer.session, Address { transport, source, via });
        let is_news = match via {
            None => self.demux.bind(transport, source, key),
            Some(_) => !peer.addresses.contains(&address),
        };
        if !is_news {
            return;
        }
        peer.addresses.push_back(address);
        let stale = (peer.addresses.len() > MAX_ADDRESSES_PER_PEER).then(|| peer.addresses.pop_front()).flatten();
        if let Some(home) = via {
            self.pass(home, Transfer::Address { session, source, bound: true });
        }
        match stale {
            Some(Address { source, via: Some(home), .. }) => {
                self.pass(home, Transfer::Address { session, source, bound: false });
            }
            Some(Address { transport, source, via: None }) => self.demux.unbind(transport, source, key),
            None => {}
        }
    }
}
