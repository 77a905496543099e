//! The rooms and peers of one shard, and the way of a packet between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::burst::{Burst, Stream};
use super::clock::NtpClock;
use super::demux::{Demux, Route};
use super::egress::RUN_BYTES_MAX;
use super::formats::Formats;
use super::ingress::Received;
use super::peer::{Peer, PeerOutput, Phase, Shared};
use super::schedule::{Schedule, Wake};
use super::store::PacketStore;
use super::{Datagram, EngineConfig, Input, Output, Stats, Timer, Transfer, Transmit};
use crate::command::{EndReason, Notice, Transport};
use crate::ids::{IdSource, RoomId, SessionId};
use crate::media::meter::{DropReason, Drops};
use crate::media::{self, Forward, PeerKey, Room};
use crate::units::Bitrate;

/// Sent buffers kept for the next runs; one is in use at a time.
const SPARE_BUFFERS: usize = 4;

/// The rooms and peers of one shard; see the [ring's contract](super).
pub struct Engine {
    pub(super) config: EngineConfig,
    pub(super) shared: Shared,
    pub(super) rooms: Vec<Option<Room>>,
    pub(super) room_keys: BTreeMap<RoomId, usize>,
    pub(super) peers: Vec<Option<Box<Peer>>>,
    pub(super) sessions: BTreeMap<SessionId, PeerKey>,
    /// Sessions whose datagrams may come in at other engines; until the last goodbye has been said.
    pub(super) guests: BTreeMap<SessionId, PeerKey>,
    pub(super) demux: Demux,
    pub(super) shutting_down: bool,
    pub(super) schedule: Schedule,
    /// Peers with something to send, in order of becoming so.
    pub(super) dirty: VecDeque<PeerKey>,
    /// Peers that panicked.
    pub(super) failed: Vec<PeerKey>,
    pub(super) outputs: VecDeque<Output>,
    /// Received packets that wait for the next of their stream.
    burst: Burst,
    /// Buffers that have been sent.
    spare: Vec<Vec<u8>>,
    /// Drops and due copies of rooms that are gone.
    pub(super) retired: (Drops, u64),
}

impl Engine {
    /// An engine without rooms.
    pub fn new(config: EngineConfig, now: Instant) -> Self {
        let shared = Shared {
            formats: Formats::default(),
            store: PacketStore::default(),
            stats: Stats::default(),
            ids: IdSource::from_seed(config.seed),
            clock: NtpClock::new(config.since_1970, now),
            plain: Vec::new(),
        };
        Self {
            shared,
            config,
            rooms: Vec::new(),
            room_keys: BTreeMap::new(),
            peers: Vec::new(),
            sessions: BTreeMap::new(),
            guests: BTreeMap::new(),
            demux: Demux::default(),
            shutting_down: false,
            schedule: Schedule::default(),
            dirty: VecDeque::new(),
            failed: Vec::new(),
            outputs: VecDeque::new(),
            burst: Burst::default(),
            spare: Vec::new(),
            retired: (Drops::default(), 0),
        }
    }

    /// Takes one input. Cannot fail or block.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        if !matches!(input, Input::Datagram(_) | Input::Transfer(Transfer::Datagram(_))) {
            self.forward(now);
        }
        match input {
            Input::Datagram(datagram) => self.datagram(&datagram, now),
            Input::Disconnected { source } => self.disconnected(source),
            Input::Command { request, command } => self.carry_out(request, command, now),
            Input::Transfer(transfer) => self.hear(transfer, now),
        }
        self.reap_failed(now);
    }

    /// Does what is due. Late and early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forward(now);
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
        self.shared.store.handle_timeout(now);
        self.reap_failed(now);
    }

    /// The next thing to do; drain to `None` after every batch of input.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        self.forward(now);
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let key = *self.dirty.front()?;
            let transmit = self.next_run(key, now);
            let peer = self.peers.get(key.0 as usize).and_then(Option::as_ref);
            if transmit.is_none() || !peer.is_some_and(|peer| peer.has_work(now)) {
                self.dirty.pop_front();
                self.drained(key, now);
            }
            if let Some(transmit) = transmit {
                // What the drain brought comes behind.
                return Some(Output::Transmit(transmit));
            }
        }
    }

    /// A peer's media has been sent: lets its str0m go on if that has something to say, and sets its next deadline.
    fn drained(&mut self, key: PeerKey, now: Instant) {
        let ticked = self.with_peer(key, |peer, _| {
            peer.dirty = false;
            let wanted = peer.wants_tick;
            if wanted {
                peer.tick(now);
            }
            wanted
        });
        self.take_events(key, now);
        if ticked == Some(true) {
            self.drain_peer(key, None, now);
        } else {
            self.settle_peer(key, now);
        }
        self.reap_failed(now);
    }

    /// Takes a [`Transmit`]'s buffer back, to be filled again.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() >= RUN_BYTES_MAX {
            self.spare.push(buffer);
        }
    }

    /// Seals the next of what waits for a peer.
    fn next_run(&mut self, key: PeerKey, now: Instant) -> Option<Transmit> {
        let mut contents = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(RUN_BYTES_MAX));
        contents.clear();
        let filled = self.with_peer(key, |peer, shared| {
            let segment = peer.fill(&mut contents, shared, now);
            let hop = if segment > 0 { peer.hop(now) } else { None };
            if hop.is_some() {
                peer.presence.tx_bytes += contents.len() as u64;
            }
            (segment, hop)
        });
        match filled {
            Some((segment, Some(hop))) => Some(Transmit {
                transport: hop.transport,
                source: hop.local,
                destination: hop.remote,
                contents,
                segment,
            }),
            _ => {
                self.recycle(contents);
                None
            }
        }
    }

    /// When to call [`Engine::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let store = self.shared.store.poll_timeout().map(|at| (at, Timer::Store));
        self.schedule.next().into_iter().chain(store).min()
    }

    /// Whether a session here owns this datagram; a shard that does not know a TCP connection's first frame hands
    /// the connection on.
    pub fn knows(&self, datagram: &Datagram<'_>) -> bool {
        matches!(self.demux.route(datagram), Route::Peer { .. })
    }

    /// What the network takes to a session's client, if its feedback has told.
    pub fn estimate(&self, session: SessionId) -> Option<Bitrate> {
        let key = self.sessions.get(&session)?;
        self.peers.get(key.0 as usize)?.as_ref()?.egress.estimate()
    }

    /// The last packet of a frame is still to come, and what was gathered of it waits for the next drain.
    pub fn expects_more(&self) -> bool {
        self.burst.is_unfinished()
    }

    /// Whether nothing is known of any client, here or gone to another engine: nobody is left to say goodbye to.
    pub fn is_vacant(&self) -> bool {
        self.demux.is_empty()
            && self.sessions.is_empty()
            && self.guests.is_empty()
            && self.peers.iter().all(Option::is_none)
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.stats;
        stats.streams_received = self.shared.store.len() as u64;
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
            stats.quality.merge(&room.quality());
            stats.subscribers_limited += room.num_limited() as u64;
        }
        let mut addresses = BTreeSet::new();
        for peer in self.peers.iter().flatten() {
            stats.copies_waiting += peer.egress.waiting() as u64;
            stats.sessions_away += u64::from(peer.home != self.config.shard);
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

    /// Runs a peer's code; a panic in it ends that one session.
    pub(super) fn with_peer<R>(&mut self, key: PeerKey, run: impl FnOnce(&mut Peer, &mut Shared) -> R) -> Option<R> {
        let peer = self.peers.get_mut(key.0 as usize)?.as_mut()?;
        let shared = &mut self.shared;
        let result = catch_unwind(AssertUnwindSafe(|| run(peer, shared)));
        if result.is_err() {
            self.failed.push(key);
        }
        result.ok()
    }

    /// Does what RTCP asked for.
    pub(super) fn take_events(&mut self, key: PeerKey, now: Instant) {
        while let Some(event) = self.with_peer(key, |peer, _| peer.take_event()).flatten() {
            self.peer_event(key, event, now);
        }
    }

    /// The packet path, first half: packets of one stream are gathered, to be forwarded together.
    pub(super) fn gather(&mut self, from: PeerKey, received: Received, now: Instant) {
        self.shared.stats.rtp_in.of_mut(received.kind).count(received.facts.bytes);
        let Received { track, kind, encoding, format, ring, .. } = received;
        let stream = Stream { from, track, kind, encoding, format, ring };
        if !self.burst.takes(&stream) {
            self.forward(now);
        }
        self.burst.push(stream, received);
    }

    /// The packet path, second half: from the publisher's peer through the room to every subscriber's. What was gathered
    /// must be gone before anything else happens to a room.
    pub(super) fn forward(&mut self, now: Instant) {
        let Some(stream) = self.burst.stream() else { return };
        let mut burst = std::mem::take(&mut self.burst);
        let index = self.peers.get(stream.from.0 as usize).and_then(Option::as_ref).map(|peer| peer.room);
        match index.and_then(|index| Some((index, self.rooms.get_mut(index)?.as_mut()?))) {
            Some((index, room)) => {
                let Stream { track, encoding, .. } = stream;
                room.handle(media::Input::Packets { track, encoding, packets: &burst.facts }, now);
                self.drain_room(index, Some(&mut burst), now);
            }
            None => self.shared.stats.drops.add(DropReason::NotConnected, burst.facts.len() as u64),
        }
        burst.clear();
        // Nothing was gathered meanwhile: only datagrams bring packets.
        self.burst = burst;
    }

    /// Hands copies to a subscriber.
    fn hand_on(&mut self, forward: &Forward, burst: &mut Burst, now: Instant) {
        burst.keep(&mut self.shared.store, now);
        let drops = self.with_peer(forward.to, |peer, shared| peer.push(forward, burst, shared, now));
        match drops {
            Some(()) => self.touch(forward.to),
            None => self.shared.stats.drops.add(DropReason::SubscriberNotReady, u64::from(forward.count)),
        }
    }

    pub(super) fn peer_event(&mut self, key: PeerKey, output: PeerOutput, now: Instant) {
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
            PeerOutput::KeyframeWanted(slot) => media::Input::KeyframeWanted { seat, slot },
            PeerOutput::Estimate(estimate, measured) => media::Input::Estimate { seat, estimate, measured },
            PeerOutput::Starved(slot) => media::Input::Starved { seat, slot },
            PeerOutput::Broken(track, encoding) => media::Input::Broken { track, encoding },
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
        let (index, seat) = (peer.room, peer.seat);
        let took = now.saturating_duration_since(peer.opened_at);
        let transport = peer.sends_to.map_or(Transport::Udp, |(transport, _)| transport);
        if let Some((estimate, measured)) = self.with_peer(key, |peer, _| peer.egress.flow().take_estimate()).flatten()
        {
            self.tell_room(index, media::Input::Estimate { seat, estimate, measured }, now);
        }
        self.tell_room(index, media::Input::Connected { seat, took, transport }, now);
    }

    // === rooms ===

    /// Tells a room something and does what follows.
    pub(super) fn tell_room(&mut self, index: usize, input: media::Input<'_>, now: Instant) {
        self.forward(now);
        if let Some(room) = self.rooms.get_mut(index).and_then(Option::as_mut) {
            room.handle(input, now);
        }
        self.drain_room(index, None, now);
    }

    pub(super) fn drain_room(&mut self, index: usize, mut burst: Option<&mut Burst>, now: Instant) {
        while let Some(output) = self.rooms.get_mut(index).and_then(Option::as_mut).and_then(Room::poll_output) {
            match output {
                media::Output::Forward(forward) => {
                    burst.iter_mut().for_each(|burst| self.hand_on(&forward, burst, now));
                }
                media::Output::Discard { peer, slot } => {
                    self.with_peer(peer, |peer, shared| {
                        peer.egress.discard(usize::from(slot.0), &mut shared.stats);
                    });
                }
                media::Output::RequestKeyframe { peer: key, track, encoding } => {
                    if self.with_peer(key, |peer, _| peer.request_keyframe(track, encoding)) == Some(true) {
                        self.shared.stats.keyframe_requests_out += 1;
                        self.touch(key);
                    }
                }
                media::Output::Demand { peer, demand } => {
                    self.with_peer(peer, |peer, _| peer.egress.flow().set_demand(demand));
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
        if let Some(room) = self.retire_room(index) {
            self.outputs.push_back(Output::Notice(Notice::RoomFinished { room, reason, at: now }));
        }
    }

    /// Forgets a room, but not its counts.
    pub(super) fn retire_room(&mut self, index: usize) -> Option<RoomId> {
        let room = self.rooms.get_mut(index).and_then(Option::take)?;
        let (drops, copies_due) = room.counts();
        self.retired.0.merge(&drops);
        self.retired.1 += copies_due;
        self.shared.stats.quality.merge(&room.quality());
        self.room_keys.remove(&room.id());
        self.schedule.set(Wake::Room(index), None);
        Some(room.id())
    }
}
