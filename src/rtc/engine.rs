//! The rooms and peers of one shard, and the way of a packet between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::demux::{self, Demux, MAX_ADDRESSES_PER_PEER, Route};
use super::formats::Formats;
use super::path::Hop;
use super::peer::{Peer, PeerOutput, Phase, Received};
use super::schedule::{Schedule, Wake};
use super::{Datagram, EngineConfig, Input, Output, Stats, Timer};
use crate::command::{EndReason, Notice, Transport};
use crate::ids::{IdSource, RoomId, SessionId};
use crate::media::meter::{DropReason, Drops};
use crate::media::signal::Signal;
use crate::media::{self, PeerKey, Room};

/// How long `leave` may take to reach its client, and then DTLS to close. Both fit into a shutdown of 5 s.
const LEAVE_LINGER: Duration = Duration::from_millis(500);
const CLOSE_LINGER: Duration = Duration::from_millis(300);

/// The rooms and peers of one shard; see the [ring's contract](super).
pub struct Engine {
    pub(super) config: EngineConfig,
    pub(super) ids: IdSource,
    pub(super) rooms: Vec<Option<Room>>,
    pub(super) room_keys: BTreeMap<RoomId, usize>,
    pub(super) peers: Vec<Option<Box<Peer>>>,
    pub(super) sessions: BTreeMap<SessionId, PeerKey>,
    pub(super) demux: Demux,
    pub(super) shutting_down: bool,
    formats: Formats,
    schedule: Schedule,
    /// Peers with something to send, in order of becoming so.
    dirty: VecDeque<PeerKey>,
    /// Peers that panicked.
    failed: Vec<PeerKey>,
    outputs: VecDeque<Output>,
    counters: Stats,
    /// Drops and due copies of rooms that are gone.
    retired: (Drops, u64),
}

impl Engine {
    /// An engine without rooms.
    pub fn new(config: EngineConfig, _now: Instant) -> Self {
        Self {
            ids: IdSource::from_seed(config.seed),
            config,
            rooms: Vec::new(),
            room_keys: BTreeMap::new(),
            peers: Vec::new(),
            sessions: BTreeMap::new(),
            demux: Demux::default(),
            shutting_down: false,
            formats: Formats::default(),
            schedule: Schedule::default(),
            dirty: VecDeque::new(),
            failed: Vec::new(),
            outputs: VecDeque::new(),
            counters: Stats::default(),
            retired: (Drops::default(), 0),
        }
    }

    /// Takes one input. Cannot fail or block.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram(datagram) => self.datagram(&datagram, now),
            Input::Disconnected { source } => self.disconnected(source),
            Input::Command { request, command } => {
                let result = self.command(command, now);
                self.outputs.push_back(Output::Reply { request, result });
            }
        }
        self.reap_failed(now);
    }

    /// Does what is due. Late and early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(wake) = self.schedule.take_expired(now) {
            match wake {
                Wake::Peer(key) => self.wake_peer(key, now),
                Wake::Room(index) => {
                    if let Some(room) = self.rooms.get_mut(index).and_then(Option::as_mut) {
                        room.handle_timeout(now);
                    }
                    self.drain_room(index, None, now);
                }
            }
        }
        self.reap_failed(now);
    }

    /// The next thing to do; drain to `None` after every batch of input.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let key = self.dirty.pop_front()?;
            self.with_peer(key, |peer, _| {
                peer.dirty = false;
                peer.tick(now);
            });
            self.drain_peer(key, None, now);
            self.reap_failed(now);
        }
    }

    /// When to call [`Engine::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.schedule.next()
    }

    /// Whether a session here owns this datagram; a shard that does not know a TCP connection's first frame hands
    /// the connection on.
    pub fn knows(&self, datagram: &Datagram<'_>) -> bool {
        matches!(self.demux.route(datagram), Route::Peer { .. })
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.counters;
        stats.drops.merge(&self.retired.0);
        stats.copies_due += self.retired.1;
        for room in self.rooms.iter().flatten() {
            stats.rooms += 1;
            stats.participants += room.num_participants() as u64;
            let (published, subscribed) = room.count_tracks();
            stats.tracks_published.add(&published);
            stats.tracks_subscribed.add(&subscribed);
            let (drops, copies_due) = room.counts();
            stats.drops.merge(&drops);
            stats.copies_due += copies_due;
        }
        let mut addresses = BTreeSet::new();
        for peer in self.peers.iter().flatten() {
            match (peer.phase, peer.sends_to) {
                (Phase::Connecting { .. }, _) => stats.sessions_connecting += 1,
                (Phase::Connected | Phase::Lost { .. }, Some((transport, address))) => {
                    addresses.insert(address);
                    match transport {
                        Transport::Udp => stats.sessions_udp += 1,
                        Transport::Tcp => stats.sessions_tcp += 1,
                    }
                }
                _ => {}
            }
        }
        stats.addresses_ipv4 = addresses.iter().filter(|address| matches!(address, IpAddr::V4(_))).count() as u64;
        stats.addresses_ipv6 = addresses.len() as u64 - stats.addresses_ipv4;
        stats
    }

    // === datagrams ===

    fn datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        let (key, binding) = match self.demux.route(datagram) {
            Route::Peer { key, binding } => (key, binding),
            Route::Drop(reason) => return self.counters.drops.count(reason),
        };
        let receive = |peer: &mut Peer, _: &mut Formats| {
            peer.path.heard(datagram.transport, datagram.source, now);
            peer.heard_at = now;
            peer.receive(datagram, now)
        };
        match self.with_peer(key, receive) {
            Some(Err(reason)) => self.counters.drops.count(reason),
            None => self.counters.drops.count(DropReason::Internal),
            Some(Ok(())) => {}
        }
        self.drain_peer(key, binding.then_some(datagram), now);
    }

    fn disconnected(&mut self, source: SocketAddr) {
        if let Some(key) = self.demux.peer_at(Transport::Tcp, source) {
            self.demux.unbind(Transport::Tcp, source, key);
        }
    }

    /// Runs a peer's code; a panic in it ends that one session.
    pub(super) fn with_peer<R>(&mut self, key: PeerKey, run: impl FnOnce(&mut Peer, &mut Formats) -> R) -> Option<R> {
        let peer = self.peers.get_mut(key.0 as usize)?.as_mut()?;
        let formats = &mut self.formats;
        let result = catch_unwind(AssertUnwindSafe(|| run(peer, formats)));
        if result.is_err() {
            self.failed.push(key);
        }
        result.ok()
    }

    /// Takes everything str0m has for us. `request` is the STUN request just received, whose success response would
    /// authenticate its source.
    fn drain_peer(&mut self, key: PeerKey, request: Option<&Datagram<'_>>, now: Instant) {
        while let Some(output) = self.with_peer(key, |peer, formats| peer.poll(formats, now)).flatten() {
            match output {
                PeerOutput::Transmit(transmit) => {
                    let answered = request.filter(|request| request.source == transmit.destination);
                    if let Some(request) = answered.filter(|_| demux::is_binding_success(&transmit.contents)) {
                        self.bind(key, request, now);
                    }
                    self.outputs.push_back(Output::Transmit(transmit));
                }
                PeerOutput::Rtp(received) => self.forward(key, &received, now),
                PeerOutput::Unpublished => self.counters.drops.count(DropReason::UnpublishedTrack),
                PeerOutput::Ended(reason) => self.end(key, reason, now),
                other => self.peer_event(key, other, now),
            }
        }
        self.settle_peer(key, now);
    }

    /// The packet path: from the publisher's peer through the room to every subscriber's.
    fn forward(&mut self, key: PeerKey, received: &Received, now: Instant) {
        self.counters.rtp_in.of_mut(received.kind).count(received.facts.bytes);
        let Some(index) = self.peers.get(key.0 as usize).and_then(Option::as_ref).map(|peer| peer.room) else { return };
        let Some(room) = self.rooms.get_mut(index).and_then(Option::as_mut) else {
            return self.counters.drops.count(DropReason::NotConnected);
        };
        let (track, encoding, packet) = (received.track, received.encoding, &received.facts);
        room.handle(media::Input::Packet { track, encoding, packet }, now);
        self.drain_room(index, Some(received), now);
    }

    /// The request came from who it says.
    fn bind(&mut self, key: PeerKey, request: &Datagram<'_>, now: Instant) {
        let Datagram { transport, source, destination: local, .. } = *request;
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        peer.path.checked(Hop { transport, remote: source, local }, now);
        if matches!(peer.phase, Phase::Lost { .. }) {
            peer.phase = Phase::Connected;
        }
        if !self.demux.bind(transport, source, key) {
            return;
        }
        peer.addresses.push_back((transport, source));
        let stale = (peer.addresses.len() > MAX_ADDRESSES_PER_PEER).then(|| peer.addresses.pop_front()).flatten();
        if let Some((transport, source)) = stale {
            self.demux.unbind(transport, source, key);
        }
    }

    fn peer_event(&mut self, key: PeerKey, output: PeerOutput, now: Instant) {
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let (index, seat) = (peer.room, peer.seat);
        let input = match output {
            PeerOutput::Connected => return self.connected(key, now),
            PeerOutput::PathLost if peer.phase == Phase::Connected => {
                peer.phase = Phase::Lost { until: now + self.config.restart_timeout };
                return;
            }
            PeerOutput::PathRestored if matches!(peer.phase, Phase::Lost { .. }) => {
                peer.phase = Phase::Connected;
                return;
            }
            PeerOutput::ChannelOpen => media::Input::ChannelOpen(seat),
            PeerOutput::Request(request) => media::Input::Request { seat, request },
            PeerOutput::KeyframeWanted(slot) => {
                self.counters.keyframe_requests_in += 1;
                media::Input::KeyframeWanted { seat, slot }
            }
            _ => return,
        };
        if !peer.is_leaving() {
            self.tell_room(index, input, now);
        }
    }

    fn connected(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        if !matches!(peer.phase, Phase::Connecting { .. }) {
            return;
        }
        peer.phase = Phase::Connected;
        peer.connected_at = Some(now);
        let (index, seat, participant, session) = (peer.room, peer.seat, peer.participant, peer.session);
        let took = now.saturating_duration_since(peer.opened_at);
        let transport = peer.sends_to.map_or(Transport::Udp, |(transport, _)| transport);
        let Some(room) = self.rooms.get(index).and_then(Option::as_ref).map(Room::id) else { return };
        self.tell_room(index, media::Input::Connected(seat), now);
        let joined = Notice::ParticipantJoined { room, participant, session, at: now, took, transport };
        self.outputs.push_back(Output::Notice(joined));
    }

    // === rooms ===

    /// Tells a room something and does what follows.
    pub(super) fn tell_room(&mut self, index: usize, input: media::Input<'_>, now: Instant) {
        if let Some(room) = self.rooms.get_mut(index).and_then(Option::as_mut) {
            room.handle(input, now);
        }
        self.drain_room(index, None, now);
    }

    pub(super) fn drain_room(&mut self, index: usize, received: Option<&Received>, now: Instant) {
        while let Some(output) = self.rooms.get_mut(index).and_then(Option::as_mut).and_then(Room::poll_output) {
            match output {
                media::Output::Forward(forward) => {
                    let Some(received) = received else { continue };
                    let written = self.with_peer(forward.to, |peer, formats| peer.write(&forward, received, formats));
                    match written {
                        Some(Ok((kind, bytes))) => {
                            self.counters.rtp_out.of_mut(kind).count(bytes);
                            self.touch(forward.to);
                        }
                        Some(Err(reason)) => self.counters.drops.count(reason),
                        None => self.counters.drops.count(DropReason::SubscriberNotReady),
                    }
                }
                media::Output::RequestKeyframe { peer: key, track, encoding } => {
                    if self.with_peer(key, |peer, _| peer.request_keyframe(track, encoding)) == Some(true) {
                        self.counters.keyframe_requests_out += 1;
                        self.touch(key);
                    }
                }
                media::Output::Tell { peer: key, signal } => self.tell_peer(key, &signal, now),
                media::Output::Close { peer, reason } => self.leave(peer, reason, now),
                media::Output::Notice(notice) => self.outputs.push_back(Output::Notice(*notice)),
                media::Output::Finished(reason) => self.room_finished(index, reason, now),
            }
        }
        let due = self.rooms.get(index).and_then(Option::as_ref).and_then(Room::poll_timeout);
        self.schedule.set(Wake::Room(index), due.map(|(at, _)| (at, Timer::Room)));
    }

    fn room_finished(&mut self, index: usize, reason: EndReason, now: Instant) {
        let Some(room) = self.rooms.get_mut(index).and_then(Option::take) else { return };
        let (drops, copies_due) = room.counts();
        self.retired.0.merge(&drops);
        self.retired.1 += copies_due;
        self.room_keys.remove(&room.id());
        self.outputs.push_back(Output::Notice(Notice::RoomFinished { room: room.id(), reason, at: now }));
    }

    // === peers ===

    /// Marks a peer as having something to send.
    pub(super) fn touch(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        if !std::mem::replace(&mut peer.dirty, true) {
            self.dirty.push_back(key);
        }
    }

    fn tell_peer(&mut self, key: PeerKey, signal: &Signal, now: Instant) {
        match self.with_peer(key, |peer, _| peer.tell(signal)) {
            Some(true) => self.touch(key),
            Some(false) => self.leave(key, EndReason::SlowConsumer, now),
            None => {}
        }
    }

    /// Ends a session from our side: `leave` first, then goodbye on every layer.
    pub(super) fn leave(&mut self, key: PeerKey, reason: EndReason, now: Instant) {
        let until = now + LEAVE_LINGER;
        if self.depart(key, reason, Phase::Leaving { until }, now) {
            self.with_peer(key, |peer, _| peer.tell(&Signal::leave(reason)));
            self.touch(key);
        }
    }

    /// Ends a session the client has left or lost.
    pub(super) fn end(&mut self, key: PeerKey, reason: EndReason, now: Instant) {
        let until = now + CLOSE_LINGER;
        if self.depart(key, reason, Phase::Closing { until }, now) {
            self.with_peer(key, |peer, _| peer.close());
            self.touch(key);
        }
    }

    /// Takes a participant out of the room and the session out of reach. False if that has happened before.
    fn depart(&mut self, key: PeerKey, reason: EndReason, phase: Phase, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return false };
        if peer.is_leaving() {
            return false;
        }
        peer.phase = phase;
        peer.forget_tracks();
        let (index, seat, session, participant) = (peer.room, peer.seat, peer.session, peer.participant);
        let joined_at = peer.connected_at;
        for ufrag in &peer.ufrags {
            self.demux.remove_ufrag(ufrag);
        }
        self.sessions.remove(&session);
        let room = self.rooms.get(index).and_then(Option::as_ref).map(Room::id);
        self.tell_room(index, media::Input::Leave { seat, reason }, now);
        if let Some(room) = room {
            let ended = Notice::SessionEnded { room, participant, session, reason, joined_at, at: now };
            self.outputs.push_back(Output::Notice(ended));
        }
        true
    }

    /// A peer's deadline has passed: its own, or str0m's.
    fn wake_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(key.0 as usize).and_then(Option::as_ref) else { return };
        match peer.phase {
            Phase::Connecting { until } if now >= until => self.end(key, EndReason::ConnectTimeout, now),
            Phase::Lost { until } if now >= until => self.end(key, EndReason::ConnectionLost, now),
            Phase::Connected if now >= peer.silent_from() => {
                let until = now + self.config.restart_timeout;
                self.with_peer(key, |peer, _| peer.phase = Phase::Lost { until });
            }
            _ => {}
        }
        self.with_peer(key, |peer, _| peer.tick(now));
        self.drain_peer(key, None, now);
    }

    /// After a drain: what the peer's phase asks for, and its next deadline.
    fn settle_peer(&mut self, key: PeerKey, now: Instant) {
        let stage = self.with_peer(key, |peer, _| {
            let (closing, until) = match peer.phase {
                Phase::Leaving { until } => (false, until),
                Phase::Closing { until } => (true, until),
                _ => return None,
            };
            let done = if closing { !peer.is_alive() } else { peer.is_flushed() || !peer.is_alive() };
            Some((closing, done || now >= until))
        });
        match stage.flatten() {
            Some((false, true)) => {
                self.with_peer(key, |peer, _| {
                    peer.phase = Phase::Closing { until: now + CLOSE_LINGER };
                    peer.close();
                });
                self.touch(key);
            }
            Some((true, true)) => return self.remove_peer(key),
            _ => {}
        }
        let wake = self.peers.get(key.0 as usize).and_then(Option::as_ref).map(|peer| peer.wake());
        self.schedule.set(Wake::Peer(key), wake);
    }

    /// Forgets a peer altogether.
    fn remove_peer(&mut self, key: PeerKey) {
        self.schedule.set(Wake::Peer(key), None);
        let Some(peer) = self.peers.get_mut(key.0 as usize).and_then(Option::take) else { return };
        for (transport, source) in &peer.addresses {
            self.demux.unbind(*transport, *source, key);
        }
        // A peer that panicked may panic again while it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(peer)));
    }

    fn reap_failed(&mut self, now: Instant) {
        while let Some(key) = self.failed.pop() {
            tracing::error!("a session panicked and was ended");
            let until = now;
            self.depart(key, EndReason::InternalError, Phase::Closing { until }, now);
            self.remove_peer(key);
        }
    }
}
