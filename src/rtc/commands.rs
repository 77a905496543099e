//! What an engine does on control's orders.

use std::time::Instant;

use super::Transfer;
use super::engine::Engine;
use super::fragment::{self, Fragment};
use super::negotiate::{self, Changes};
use super::offer::{LinePurpose, Offer};
use super::peer::{Owner, Peer};
use crate::command::{Command, EndReason, Grants, IceTag, OpenSession, Refusal, Reply, Transport};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId};
use crate::media::{self, PeerKey, Room, Seat};

impl Engine {
    pub(super) fn command(&mut self, command: Command, now: Instant) -> Result<Reply, Refusal> {
        match command {
            Command::OpenRoom { room, settings } => self.open_room(room, settings, now),
            Command::ChangeRoom { room, settings } => self.order(room, media::Input::Settings(settings), now),
            Command::CloseRoom { room, reason } => self.order(room, media::Input::Close(reason), now),
            Command::DescribeRooms { rooms } => {
                let known = rooms.iter().filter_map(|room| self.room(*room).ok());
                Ok(Reply::Rooms(known.map(|(_, room)| room.state(now)).collect()))
            }
            Command::ListParticipants { room } => Ok(Reply::Participants(self.room(room)?.1.participant_infos(None))),
            Command::DescribeQuality { room } => Ok(self.describe_quality(self.room(room)?.1, now)),
            Command::DescribeParticipant { room, identity } => self.describe(room, &identity),
            Command::RemoveParticipant { room, identity, reason } => {
                let key = self.peer_of(room, &identity)?;
                self.leave(key, reason, now);
                Ok(Reply::Done)
            }
            Command::ChangeParticipant { room, identity, change } => {
                let (index, seat) = self.seat(room, &identity)?;
                self.tell_room(index, media::Input::Change { seat, change }, now);
                self.describe(room, &identity)
            }
            Command::AskAdmission { room, identity } => self.room(room)?.1.admit(&identity).map(|()| Reply::Done),
            Command::MoveParticipant { room, identity, to } => {
                self.relocate(room, &identity, to.room, to.participant, now)
            }
            Command::MuteTrack { room, identity, track, muted } => {
                let (index, seat) = self.seat(room, &identity)?;
                let publishes = self.rooms[index].as_ref().is_some_and(|room| room.publishes(seat, track));
                if !publishes {
                    return Err(Refusal::TrackNotFound);
                }
                self.tell_room(index, media::Input::Mute { seat, track, muted }, now);
                Ok(Reply::Done)
            }
            Command::SendMessage { room, topic, data, to } => {
                self.order(room, media::Input::Message { topic, data, to }, now)
            }
            Command::OpenSession(open) => self.open_session(*open, now),
            Command::Offer { session, offer, expected } => self.further_offer(session, &offer, expected, now),
            Command::Fragment { session, fragment, expected } => self.fragment(session, &fragment, expected, now),
            Command::CloseSession { session } => {
                let key = self.session(session)?;
                self.end(key, EndReason::ClientLeft, now);
                Ok(Reply::Done)
            }
            Command::DescribeUsage => {
                let connected = |key: &PeerKey| {
                    let peer = self.peers[key.0 as usize].as_ref().filter(|peer| peer.connected_at.is_some())?;
                    let participant = self.rooms.get(peer.room)?.as_ref()?.participant_id(peer.seat)?;
                    Some((participant, self.usage(*key, now)))
                };
                Ok(Reply::Usage(self.sessions.values().filter_map(connected).collect()))
            }
            Command::Shutdown => {
                self.shutting_down = true;
                for index in 0..self.rooms.len() {
                    self.tell_room(index, media::Input::Close(EndReason::ServerShutdown), now);
                }
                Ok(Reply::Done)
            }
        }
    }

    // === rooms ===

    pub(super) fn room(&self, id: RoomId) -> Result<(usize, &Room), Refusal> {
        let index = *self.room_keys.get(&id).ok_or(Refusal::RoomNotFound)?;
        self.rooms[index].as_ref().map(|room| (index, room)).ok_or(Refusal::RoomNotFound)
    }

    fn order(&mut self, id: RoomId, input: media::Input<'_>, now: Instant) -> Result<Reply, Refusal> {
        let (index, _) = self.room(id)?;
        self.tell_room(index, input, now);
        Ok(Reply::Done)
    }

    fn open_room(
        &mut self,
        id: RoomId,
        settings: crate::command::RoomSettings,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        if self.shutting_down {
            return Err(Refusal::Unavailable);
        }
        let index = self.rooms.iter().position(Option::is_none).unwrap_or(self.rooms.len());
        let room = Some(Room::new(id, settings, self.config.loudest, now));
        match self.rooms.get_mut(index) {
            Some(free) => *free = room,
            None => self.rooms.push(room),
        }
        self.room_keys.insert(id, index);
        self.drain_room(index, None, now);
        Ok(Reply::Done)
    }

    pub(super) fn seat(&self, room: RoomId, identity: &Identity) -> Result<(usize, Seat), Refusal> {
        let (index, room) = self.room(room)?;
        Ok((index, room.seat_of(identity).ok_or(Refusal::ParticipantNotFound)?))
    }

    /// The peer of an identity. Who is leaving has left the room already.
    pub(super) fn peer_of(&self, room: RoomId, identity: &Identity) -> Result<PeerKey, Refusal> {
        let (_, room) = self.room(room)?;
        room.seat_of(identity).and_then(|seat| room.peer_of(seat)).ok_or(Refusal::ParticipantNotFound)
    }

    pub(super) fn describe(&self, room: RoomId, identity: &Identity) -> Result<Reply, Refusal> {
        let (index, seat) = self.seat(room, identity)?;
        let infos = self.rooms[index].as_ref().map(|room| room.participant_infos(Some(seat)));
        Ok(Reply::Participants(infos.unwrap_or_default()))
    }

    /// Moves someone with their PeerConnection: no new ICE, DTLS or publish.
    fn relocate(
        &mut self,
        from: RoomId,
        identity: &Identity,
        to: RoomId,
        participant: ParticipantId,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let (index, seat) = self.seat(from, identity)?;
        let key = self.peer_of(from, identity)?;
        let (target, room) = self.room(to)?;
        if index == target {
            return self.describe(to, identity);
        }
        room.admit(identity)?;
        if let Ok(older) = self.peer_of(to, identity) {
            self.leave(older, EndReason::DuplicateIdentity, now);
        }
        // What was gathered still means the old room.
        self.forward(now);
        let usage = self.usage(key, now);
        let call = self.shared.ids.id();
        let relocation = self.rooms[index].as_mut().and_then(|room| room.give_away(seat, usage, now));
        self.drain_room(index, None, now);
        if let Some(relocation) = relocation.as_ref().filter(|_| self.is_going(key)) {
            self.forget_homeless(relocation, from, usage.transport, EndReason::SlowConsumer, now);
            return Err(Refusal::ParticipantNotFound);
        }
        // The target may have ended with the older session's leave.
        let (Some(relocation), Some(room)) = (relocation, self.rooms[target].as_mut()) else {
            return Err(Refusal::RoomNotFound);
        };
        let transport = usage.transport.unwrap_or(Transport::Udp);
        let newcomer = media::Newcomer { peer: key, participant, call, transport };
        let settled = room.take_in(relocation, newcomer, now);
        self.with_peer(key, |peer, _| peer.relocated(target, &settled, now));
        self.drain_room(target, None, now);
        self.describe(to, identity)
    }

    // === sessions ===

    fn session(&self, session: SessionId) -> Result<PeerKey, Refusal> {
        self.sessions.get(&session).copied().ok_or(Refusal::SessionNotFound)
    }

    fn open_session(&mut self, open: OpenSession, now: Instant) -> Result<Reply, Refusal> {
        if self.shutting_down {
            return Err(Refusal::Unavailable);
        }
        let (index, room) = self.room(open.room)?;
        room.admit(&open.profile.identity)?;
        let offer = Offer::read(&open.offer)?;
        check_may_publish(&offer, &open.profile.grants)?;
        let rtc = negotiate::build(&self.config.crypto, &self.config.candidates, now);
        let owner = Owner { room: index, session: open.session, home: self.config.shard };
        let until = now + self.config.connect_timeout;
        let peer = Box::new(Peer::new(rtc, owner, offer.clone(), &mut self.shared, until, now));
        let key = self.insert_peer(peer);
        // Nothing else has happened yet: an offer that is refused leaves no trace.
        let answer = self
            .with_peer(key, |peer, shared| peer.accept(&offer, &offer.text, &mut shared.ids, now))
            .unwrap_or(Err(Refusal::Internal));
        let sdp = match answer {
            Ok(sdp) => sdp,
            Err(refusal) => {
                self.peers[key.0 as usize] = None;
                return Err(refusal);
            }
        };
        if let Ok(older) = self.peer_of(open.room, &open.profile.identity) {
            self.leave(older, EndReason::DuplicateIdentity, now);
        }
        self.take_seat(key, index, open, now);
        self.apply(key, now);
        Ok(Reply::Answer { sdp, ice: 1 })
    }

    pub(super) fn insert_peer(&mut self, peer: Box<Peer>) -> PeerKey {
        let key = PeerKey(self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len()) as u32);
        match self.peers.get_mut(key.0 as usize) {
            Some(free) => *free = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        key
    }

    fn take_seat(&mut self, key: PeerKey, index: usize, open: OpenSession, now: Instant) {
        let call = self.shared.ids.id();
        let Some(room) = self.rooms[index].as_ref() else { return };
        let seat = room.next_seat();
        if let Some(peer) = self.peers[key.0 as usize].as_mut() {
            peer.seat = seat;
        }
        self.sessions.insert(open.session, key);
        let OpenSession { session, participant, profile, purpose, .. } = open;
        let join = media::Join { peer: key, participant, session, profile, purpose, call };
        self.tell_room(index, media::Input::Join(Box::new(join)), now);
    }

    /// Carries what an accepted offer changed into the room and the demultiplexer.
    fn apply(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers[key.0 as usize].as_mut() else { return };
        let (index, seat) = (peer.room, peer.seat);
        let Changes { publish, unpublish, slots } = peer.changes(&mut self.shared.ids);
        for track in unpublish {
            self.tell_room(index, media::Input::Unpublish { seat, track }, now);
            self.with_peer(key, |peer, shared| peer.ingress.forget_track(track, &mut shared.store));
        }
        for track in publish {
            let Some(next) = self.rooms[index].as_ref().map(Room::next_track) else { return };
            self.with_peer(key, |peer, _| peer.ingress.set_track_key(&track.mid, next));
            self.tell_room(index, media::Input::Publish { seat, track }, now);
        }
        self.tell_room(index, media::Input::Slots { seat, slots }, now);
        self.note_ufrags(key);
        self.touch_session(key);
    }

    fn note_ufrags(&mut self, key: PeerKey) {
        let Some(peer) = self.peers[key.0 as usize].as_mut() else { return };
        let (session, relays) = (peer.session, peer.relays.clone());
        let stale: Vec<String> = std::iter::from_fn(|| peer.take_stale_ufrag()).collect();
        let current = peer.ufrags.back().cloned();
        for (ufrag, valid) in stale.iter().map(|stale| (stale, false)).chain(current.iter().map(|ufrag| (ufrag, true)))
        {
            match valid {
                true => self.demux.add_ufrag(ufrag, key),
                false => self.demux.remove_ufrag(ufrag),
            }
            self.tell_relays(&relays, || Transfer::Ufrag { session, ufrag: ufrag.clone(), valid });
        }
    }

    fn further_offer(
        &mut self,
        session: SessionId,
        text: &str,
        expected: IceTag,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let key = self.session(session)?;
        self.check_tag(key, expected)?;
        let offer = Offer::read(text)?;
        if let Some(grants) = self.grants_of(key) {
            check_may_publish(&offer, grants)?;
        }
        let answer = self.with_peer(key, |peer, shared| {
            peer.check_slots(&offer)?;
            peer.accept(&offer, &offer.text, &mut shared.ids, now).map(|sdp| (sdp, peer.ice))
        });
        let (sdp, ice) = answer.unwrap_or(Err(Refusal::Internal))?;
        self.apply(key, now);
        Ok(Reply::Answer { sdp, ice })
    }

    fn fragment(
        &mut self,
        session: SessionId,
        text: &str,
        expected: Option<IceTag>,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let key = self.session(session)?;
        let fragment = Fragment::read(text)?;
        if let Some(expected) = expected {
            self.check_tag(key, expected)?;
        }
        let restart = self.with_peer(key, |peer, _| {
            let restart = fragment.restart(peer.offer.ufrag())?;
            Ok(restart.map(|(ufrag, pwd)| peer.offer.with_credentials(ufrag, pwd)))
        });
        let reply = match restart.unwrap_or(Err(Refusal::Internal))? {
            Some(_) if expected.is_none() => return Err(Refusal::IceTagMissing),
            Some(text) => self.restart_ice(key, &text, now)?,
            None => Reply::Done,
        };
        self.touch_session(key);
        Ok(reply)
    }

    /// An ICE restart is the last offer with new credentials; str0m then draws new ones of its own.
    fn restart_ice(&mut self, key: PeerKey, text: &str, now: Instant) -> Result<Reply, Refusal> {
        let offer = Offer::read(text)?;
        let answer = self
            .with_peer(key, |peer, shared| peer.accept(&offer, text, &mut shared.ids, now).map(|sdp| (sdp, peer.ice)));
        let (sdp, ice) = answer.unwrap_or(Err(Refusal::Internal))?;
        self.note_ufrags(key);
        Ok(Reply::Fragment { fragment: fragment::from_answer(&sdp), ice })
    }

    fn check_tag(&self, key: PeerKey, expected: IceTag) -> Result<(), Refusal> {
        let current = self.peers[key.0 as usize].as_ref().map(|peer| peer.ice);
        match expected {
            IceTag::Number(number) if Some(number) != current => Err(Refusal::StaleIce),
            _ => Ok(()),
        }
    }

    fn grants_of(&self, key: PeerKey) -> Option<&Grants> {
        let peer = self.peers[key.0 as usize].as_ref()?;
        self.rooms[peer.room].as_ref()?.grants(peer.seat)
    }
}

fn check_may_publish(offer: &Offer, grants: &Grants) -> Result<(), Refusal> {
    let publishes = offer.lines.iter().any(|line| matches!(line.purpose, LinePurpose::Publish(_)));
    if publishes && !grants.can_publish { Err(Refusal::PublishForbidden) } else { Ok(()) }
}
