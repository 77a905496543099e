//! A session's way from one engine to another, with its PeerConnection.
//!
//! Its client goes on sending to the engine it joined at, for that is where its ICE candidates lead. So every engine a
//! session leaves passes on what still comes for it: datagrams, and orders of control that were already under way. The
//! engine that has the session tells the others what it is known by, and when it has ended.
//!
//! What one engine tells another arrives, and in order. So neither a datagram nor an order overtakes its session, and
//! nothing is lost while it is on its way. Among three engines it is enough that effects come after their causes: an engine
//! that takes a session in tells the others before the session can leave it again.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::demux::is_binding_request;
use super::engine::Engine;
use super::peer::{PackedPeer, Peer};
use super::schedule::Wake;
use super::{Datagram, Output};
use crate::command::{Command, Destination, EndReason, Notice, Refusal, SessionUsage, ShardIndex, Transport};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId};
use crate::media::meter::DropReason;
use crate::media::signal::Signal;
use crate::media::{self, PeerKey};

/// How often a datagram is passed on at most: a session may go on to the next engine just before it.
const PASSES_MAX: u8 = 3;
/// The largest datagram that is passed on, in bytes. What clients send fits Ethernet's 1,500; larger ones would only
/// fill the memory while a shard stands still.
const RELAYED_BYTES_MAX: usize = 2048;

/// What one engine tells another.
pub enum Transfer {
    /// A session comes. Answered as [`Command::MoveParticipant`] by who takes it in.
    Session(Box<Migrant>),
    /// An order for a session that has gone there.
    Command { request: u64, command: Box<Command> },
    /// A datagram of a session that is there, or was.
    Datagram(Relayed),
    /// An address has been authenticated for a session, or is forgotten.
    Address { session: SessionId, source: SocketAddr, bound: bool },
    /// A session answers to this ufrag, or no longer does.
    Ufrag { session: SessionId, ufrag: String, valid: bool },
    /// A session is there now.
    Arrived { session: SessionId, at: ShardIndex },
    /// A session has ended.
    Ended(SessionId),
}

/// A session on its way, with all that is its own.
pub struct Migrant {
    /// The order that moves it.
    request: u64,
    peer: Box<PackedPeer>,
    relocation: media::Relocation,
    to: Destination,
    from: (ShardIndex, RoomId),
    transport: Transport,
    /// Why it comes back from where it was sent.
    refusal: Option<Refusal>,
}

/// A datagram that came in at another engine.
pub struct Relayed {
    session: SessionId,
    /// Where it came in.
    via: ShardIndex,
    passes: u8,
    source: SocketAddr,
    destination: SocketAddr,
    contents: Vec<u8>,
}

impl Transfer {
    /// The order that it carries, by the number it has where it is.
    pub fn request(&self) -> Option<u64> {
        match self {
            Self::Session(migrant) => Some(migrant.request),
            Self::Command { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// The order has another number from here on.
    pub fn set_request(&mut self, number: u64) {
        match self {
            Self::Session(migrant) => migrant.request = number,
            Self::Command { request, .. } => *request = number,
            _ => {}
        }
    }
}

impl Migrant {
    /// The client's ends of the session's TCP connections, which have to come along.
    pub fn connections(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = self.peer.addresses.iter();
        addresses.filter(|address| address.transport == Transport::Tcp).map(|address| address.source)
    }

    /// Sends it back to where it comes from, to be told there why it could not be moved.
    pub fn turn_back(&mut self, refusal: Refusal) -> ShardIndex {
        let (shard, room) = self.from;
        self.to = Destination { shard, room, participant: self.to.participant };
        self.refusal = Some(refusal);
        shard
    }

    fn identity(&self) -> Identity {
        self.relocation.identity().clone()
    }
}

impl Engine {
    /// Carries an order out, or passes it on to where it can be.
    pub(super) fn carry_out(&mut self, request: u64, command: Command, now: Instant) {
        let elsewhere = command.session().and_then(|session| self.demux.away.shard_of(session));
        let result = match (command, elsewhere) {
            (command, Some(shard)) => {
                return self.pass(shard, Transfer::Command { request, command: Box::new(command) });
            }
            (Command::MoveParticipant { room, identity, to }, None) if to.shard != self.config.shard => {
                match self.send_away(request, room, &identity, to, now) {
                    Ok(()) => return,
                    Err(refusal) => Err(refusal),
                }
            }
            (command, None) => self.command(command, now),
        };
        self.outputs.push_back(Output::Reply { request, result });
    }

    /// Hears another engine.
    pub(super) fn hear(&mut self, transfer: Transfer, now: Instant) {
        match transfer {
            Transfer::Session(migrant) => self.receive(migrant, now),
            Transfer::Command { request, command } => self.carry_out(request, *command, now),
            Transfer::Datagram(relayed) => self.relayed(relayed, now),
            Transfer::Address { session, source, bound: true } => self.demux.bind_away(session, source),
            Transfer::Address { session, source, bound: false } => self.demux.away.unbind(session, source),
            Transfer::Ufrag { session, ufrag, valid } => self.demux.away.set_ufrag(session, &ufrag, valid),
            Transfer::Arrived { session, at } => self.demux.away.redirect(session, at),
            Transfer::Ended(session) => {
                self.demux.away.forget(session);
            }
        }
    }

    pub(super) fn pass(&mut self, to: ShardIndex, transfer: Transfer) {
        self.outputs.push_back(Output::Transfer { to, transfer });
    }

    /// Tells the engines a session has been on.
    pub(super) fn tell_relays(&mut self, relays: &[ShardIndex], transfer: impl Fn() -> Transfer) {
        relays.iter().for_each(|relay| self.pass(*relay, transfer()));
    }

    // === datagrams ===

    /// A datagram of a session that is away.
    pub(super) fn relay(&mut self, session: SessionId, datagram: &Datagram<'_>, now: Instant) {
        let admitted = self.demux.away.admit(session, now);
        let to = match admitted.and_then(|to| if fits(datagram) { Ok(to) } else { Err(DropReason::Malformed) }) {
            Ok(to) => to,
            Err(reason) => return self.shared.stats.drops.count(reason),
        };
        self.shared.stats.datagrams_relayed += 1;
        let Datagram { source, destination, contents, .. } = *datagram;
        let (via, contents) = (self.config.shard, contents.to_vec());
        self.pass(to, Transfer::Datagram(Relayed { session, via, passes: 1, source, destination, contents }));
    }

    /// A datagram that came in elsewhere.
    fn relayed(&mut self, relayed: Relayed, now: Instant) {
        let Relayed { session, via, source, destination, .. } = relayed;
        if let Some(key) = self.guests.get(&session).copied() {
            let contents = relayed.contents.as_slice();
            let datagram = Datagram { transport: Transport::Udp, source, destination, contents };
            return self.deliver(key, &datagram, is_binding_request(contents), Some(via), now);
        }
        match self.demux.away.shard_of(session).filter(|_| relayed.passes < PASSES_MAX) {
            Some(to) => self.pass(to, Transfer::Datagram(Relayed { passes: relayed.passes + 1, ..relayed })),
            None => self.shared.stats.drops.count(DropReason::UnknownSource),
        }
    }

    // === away ===

    fn send_away(
        &mut self,
        request: u64,
        from: RoomId,
        identity: &Identity,
        to: Destination,
        now: Instant,
    ) -> Result<(), Refusal> {
        // What RTCP asked for means the room as it is.
        self.take_events(self.peer_of(from, identity)?, now);
        let (index, seat) = self.seat(from, identity)?;
        let key = self.peer_of(from, identity)?;
        let usage = self.usage(key, now);
        let transport = usage.transport.unwrap_or(Transport::Udp);
        let relocation = self.rooms[index].as_mut().and_then(|room| room.give_away(seat, usage, now));
        let relocation = relocation.ok_or(Refusal::ParticipantNotFound)?;
        self.drain_room(index, None, now);
        if self.is_going(key) {
            self.forget_homeless(&relocation, from, usage.transport, EndReason::SlowConsumer, now);
            return Err(Refusal::ParticipantNotFound);
        }
        let Some(peer) = self.uproot(key, to.shard, now) else {
            self.forget_homeless(&relocation, from, None, EndReason::InternalError, now);
            return Err(Refusal::Internal);
        };
        let from = (self.config.shard, from);
        let migrant = Migrant { request, peer, relocation, to, from, transport, refusal: None };
        // Behind the notices of its going: so nobody hears first that it has come.
        self.pass(to.shard, Transfer::Session(Box::new(migrant)));
        Ok(())
    }

    /// Takes a peer out of all tables, and notes where it goes. None if it has panicked.
    fn uproot(&mut self, key: PeerKey, to: ShardIndex, now: Instant) -> Option<Box<PackedPeer>> {
        self.with_peer(key, Peer::uproot)?;
        if self.failed.contains(&key) {
            return None;
        }
        self.schedule.set(Wake::Peer(key), None);
        self.dirty.retain(|other| *other != key);
        let mut peer = self.peers.get_mut(key.0 as usize)?.take()?;
        let (here, session) = (self.config.shard, peer.session);
        self.sessions.remove(&session);
        self.guests.remove(&session);
        peer.ufrags.iter().for_each(|ufrag| self.demux.remove_ufrag(ufrag));
        let (mut left, mut strange) = (Vec::new(), Vec::new());
        for address in peer.addresses.iter_mut().filter(|address| address.via.is_none()) {
            let own = self.demux.peer_at(address.transport, address.source) == Some(key);
            self.demux.unbind(address.transport, address.source, key);
            match address.transport {
                // Datagrams still come in here.
                Transport::Udp => {
                    address.via = Some(here);
                    left.extend(own.then_some(address.source));
                }
                // A connection goes along, unless it has ended and another client's has its address.
                Transport::Tcp => strange.extend((!own).then_some(address.source)),
            }
        }
        peer.addresses.retain(|at| at.transport == Transport::Udp || !strange.contains(&at.source));
        self.demux.away.depart(session, to, &peer.ufrags, left, now);
        peer.relays.push(here);
        Some(Box::new(peer.pack()))
    }

    // === here ===

    /// A session comes.
    fn receive(&mut self, mut migrant: Box<Migrant>, now: Instant) {
        match (self.place_for(&migrant, now), &migrant.refusal) {
            (Ok(index), _) => self.settle_in(*migrant, index, now),
            (Err(refusal), None) => {
                let back = migrant.turn_back(refusal);
                self.pass(back, Transfer::Session(migrant));
            }
            (Err(_), Some(_)) => self.send_off(*migrant, now),
        }
    }

    /// The room that a session is taken into.
    fn place_for(&mut self, migrant: &Migrant, now: Instant) -> Result<usize, Refusal> {
        let (room, identity) = (migrant.to.room, migrant.identity());
        let (_, there) = self.room(room)?;
        match (there.admit(&identity), &migrant.refusal) {
            // Who comes back has a place, unless they have joined anew meanwhile.
            (_, Some(_)) if there.seat_of(&identity).is_some() => return Err(Refusal::ParticipantNotFound),
            (Err(Refusal::RoomFull { .. }), Some(_)) => {}
            (admitted, _) => admitted?,
        }
        if let Ok(older) = self.peer_of(room, &identity) {
            self.leave(older, EndReason::DuplicateIdentity, now);
        }
        // It may have ended with the older session's leave.
        self.room(room).map(|(index, _)| index)
    }

    fn settle_in(&mut self, migrant: Migrant, index: usize, now: Instant) {
        let identity = migrant.identity();
        let Migrant { request, peer, relocation, to, from, transport, refusal } = migrant;
        let (session, relays) = (peer.session, peer.relays.clone());
        let key = self.root(peer, now);
        self.sessions.insert(session, key);
        if let Some(peer) = self.peers[key.0 as usize].as_ref() {
            peer.ufrags.iter().for_each(|ufrag| self.demux.add_ufrag(ufrag, key));
        }
        let call = self.shared.ids.id();
        let participant = if refusal.is_some() { self.shared.ids.id() } else { to.participant };
        let newcomer = media::Newcomer { peer: key, participant, call, transport };
        // The place was looked up just now.
        let Some(room) = self.rooms[index].as_mut() else { return };
        let settled = room.take_in(relocation, newcomer, now);
        self.with_peer(key, |peer, _| peer.relocated(index, &settled, now));
        self.drain_room(index, None, now);
        self.touch_session(key);
        let others: Vec<_> = relays.into_iter().filter(|relay| ![self.config.shard, from.0].contains(relay)).collect();
        self.tell_relays(&others, || Transfer::Arrived { session, at: to.shard });
        let result = match refusal {
            Some(refusal) => Err(refusal),
            None => self.describe(to.room, &identity),
        };
        self.outputs.push_back(Output::Reply { request, result });
    }

    /// Gives a peer a place here, and what is known of its addresses.
    fn root(&mut self, mut peer: Box<PackedPeer>, now: Instant) -> PeerKey {
        let (here, session) = (self.config.shard, peer.session);
        peer.relays.retain(|relay| *relay != here);
        let away = !peer.relays.is_empty();
        let mut own: Vec<_> = self.demux.away.forget(session).into_iter().map(|at| (Transport::Udp, at)).collect();
        for address in &mut peer.addresses {
            match address.via {
                Some(via) if via == here => address.via = None,
                None => own.push((address.transport, address.source)),
                Some(_) => {}
            }
        }
        let key = self.insert_peer(Box::new(peer.unpack(now)));
        for (transport, source) in own {
            self.demux.bind(transport, source, key);
        }
        if away {
            self.guests.insert(session, key);
        }
        key
    }

    /// A session that can neither go on nor come back: its rooms are gone, or somebody has taken its place.
    fn send_off(&mut self, migrant: Migrant, now: Instant) {
        let Migrant { request, peer, relocation, to, from, refusal, .. } = migrant;
        let replaced = self.seat(to.room, relocation.identity()).is_ok();
        let reason = match (self.shutting_down, replaced) {
            (true, _) => EndReason::ServerShutdown,
            (_, true) => EndReason::DuplicateIdentity,
            _ => EndReason::RoomDeleted,
        };
        let transport = peer.sends_to.map(|(transport, _)| transport);
        self.forget_homeless(&relocation, from.1, transport, reason, now);
        let key = self.root(peer, now);
        self.take_leave(key, now);
        self.tell_peer(key, &Signal::leave(reason), now);
        let result = Err(refusal.unwrap_or(Refusal::RoomNotFound));
        self.outputs.push_back(Output::Reply { request, result });
    }

    /// A session ends between two rooms. What it has used was told when it left the first.
    pub(super) fn forget_homeless(
        &mut self,
        relocation: &media::Relocation,
        room: RoomId,
        transport: Option<Transport>,
        reason: EndReason,
        now: Instant,
    ) {
        let participant: ParticipantId = relocation.participant();
        let usage = SessionUsage { transport, ..SessionUsage::default() };
        let (session, joined_at) = (relocation.session(), relocation.is_active().then_some(now));
        let ended = Notice::SessionEnded { room, participant, session, reason, joined_at, usage, at: now };
        self.outputs.push_back(Output::Notice(ended));
    }
}

fn fits(datagram: &Datagram<'_>) -> bool {
    datagram.contents.len() <= RELAYED_BYTES_MAX
}

/// A datagram of nobody, for tests of what lies between engines.
#[cfg(test)]
pub fn relayed_for_tests() -> Transfer {
    let source = SocketAddr::from(([192, 0, 2, 1], 1));
    let (session, via) = (SessionId::from_bits(1), ShardIndex(0));
    Transfer::Datagram(Relayed { session, via, passes: 1, source, destination: source, contents: Vec::new() })
}

// Addresses and what clients send are personal: no form shows them.
impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session(_) => "Session",
            Self::Command { .. } => "Command",
            Self::Datagram(_) => "Datagram",
            Self::Address { .. } => "Address",
            Self::Ufrag { .. } => "Ufrag",
            Self::Arrived { .. } => "Arrived",
            Self::Ended(_) => "Ended",
        })
    }
}
