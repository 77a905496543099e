//! A participant's way out of a room, and into another one, which another engine may hold.
//!
//! A move keeps the PeerConnection: tracks stay published under their ids, and slots keep their SSRCs and go on counting
//! where they were, so that the receiver notices nothing but other pictures.

use std::time::Instant;

use super::meter::PerKind;
use super::participant::{Participant, Wish};
use super::signal::ParticipantEvent;
use super::timers::Timer;
use super::track::{LOOK_INTERVAL, Track};
use super::{Output, PeerKey, Room, Seat, SlotIndex, TrackKey};
use crate::command::{EndReason, Notice, ParticipantState, SessionUsage, Transport};
use crate::ids::{CallId, Identity, ParticipantId, SessionId};

/// Someone between two rooms, with all they bring.
#[derive(Debug)]
pub struct Relocation {
    participant: Participant,
    tracks: Vec<(TrackKey, Track)>,
}

impl Relocation {
    /// Who is moved.
    pub fn identity(&self) -> &Identity {
        &self.participant.profile.identity
    }

    /// Who they were in the room they have left.
    pub fn participant(&self) -> ParticipantId {
        self.participant.sid
    }

    /// Their session.
    pub fn session(&self) -> SessionId {
        self.participant.session
    }

    /// Whether their media had connected.
    pub fn is_active(&self) -> bool {
        self.participant.state == ParticipantState::Active
    }
}

/// Who they are in the room they come to.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    pub peer: PeerKey,
    pub participant: ParticipantId,
    /// The id of the call, should they begin one.
    pub call: CallId,
    pub transport: Transport,
}

/// Where someone has come to, and what their tracks were and are called.
#[derive(Debug)]
pub struct Settled {
    pub seat: Seat,
    pub tracks: Vec<(TrackKey, TrackKey)>,
}

impl Room {
    pub(super) fn leave(&mut self, seat: Seat, reason: EndReason, usage: SessionUsage, now: Instant) {
        let Some(participant) = self.participant(seat) else { return };
        for key in participant.tracks.clone() {
            self.unpublish(seat, key, now);
        }
        self.vacate(seat, reason, usage, now);
    }

    /// Takes someone out, to be put into another room with [`Self::take_in`]. Drain the outputs before that.
    pub fn give_away(&mut self, seat: Seat, usage: SessionUsage, now: Instant) -> Option<Relocation> {
        let keys = self.participant(seat)?.tracks.clone();
        let mut tracks = Vec::with_capacity(keys.len());
        for key in keys {
            self.conceal_track(key, now);
            self.audio.forget(key);
            tracks.extend(self.tracks.get_mut(key.0 as usize).and_then(Option::take).map(|track| (key, track)));
        }
        for index in 0..self.participant(seat)?.slots.len() {
            let index = SlotIndex(index as u16);
            if let Some(slot) = self.slot_mut(seat, index) {
                slot.bind(None);
            }
            self.discard(seat, index);
        }
        let participant = self.vacate(seat, EndReason::Moved, usage, now)?;
        self.settle(now);
        Some(Relocation { participant, tracks })
    }

    /// Seats someone who comes from another room, if [`Self::admit`] says so. Who has an open channel is told `moved`.
    pub fn take_in(&mut self, relocation: Relocation, newcomer: Newcomer, now: Instant) -> Settled {
        let Relocation { mut participant, tracks } = relocation;
        let seat = self.next_seat();
        let was_active = participant.state == ParticipantState::Active;
        let had_channel = std::mem::take(&mut participant.channel_open);
        participant.peer = newcomer.peer;
        participant.sid = newcomer.participant;
        participant.call = newcomer.call;
        participant.state = ParticipantState::Joining;
        participant.admitted_at = now;
        participant.connected_at = None;
        participant.published = PerKind::default();
        participant.tracks.clear();
        // What was wished for is in the other room.
        if matches!(participant.wish, Wish::Explicit { .. }) {
            participant.wish = Wish::Default;
        }
        self.sit_down(seat, participant);
        let mut renamed = Vec::with_capacity(tracks.len());
        for (old, mut track) in tracks {
            track.owner = seat;
            renamed.push((old, self.add_track(seat, track, now)));
        }
        if was_active {
            self.connected(seat, None, newcomer.transport, now);
        }
        if had_channel {
            self.greet(seat, true);
            self.warn_newcomer(seat, now);
        }
        self.settle(now);
        Settled { seat, tracks: renamed }
    }

    /// Puts a track on the stage's list; whether others may know of it is for the caller to reconcile.
    pub(super) fn add_track(&mut self, seat: Seat, track: Track, now: Instant) -> TrackKey {
        let key = self.next_track();
        if let Some(participant) = self.participant_mut(seat) {
            participant.tracks.push(key);
        }
        self.timers.set_earlier(Timer::Tracks, now + LOOK_INTERVAL);
        match self.tracks.get_mut(key.0 as usize) {
            Some(free) => *free = Some(track),
            None => self.tracks.push(Some(track)),
        }
        key
    }

    /// Empties a seat whose tracks are off the stage.
    fn vacate(&mut self, seat: Seat, reason: EndReason, usage: SessionUsage, now: Instant) -> Option<Participant> {
        self.tell_participant(seat, ParticipantEvent::Left, Some(reason));
        for track in self.tracks.iter_mut().flatten() {
            track.subscribers.retain(|(subscriber, _)| *subscriber != seat);
        }
        self.speakers.silence(seat);
        let gone = self.seats.get_mut(usize::from(seat.0))?.take()?;
        self.slots_stale = true;
        let (room, session, participant, joined_at) = (self.id, gone.session, gone.sid, gone.connected_at);
        self.notice(match reason {
            EndReason::Moved => Notice::SessionMoved { room, participant, session, joined_at, usage, at: now },
            _ => Notice::SessionEnded { room, participant, session, reason, joined_at, usage, at: now },
        });
        self.end_call_if_over(now);
        if self.num_participants() == 0 {
            match self.closing {
                Some(reason) => self.outputs.push_back(Output::Finished(reason)),
                None => self.timers.set(Timer::Empty, now + self.settings.departure_timeout),
            }
        }
        Some(gone)
    }

    fn end_call_if_over(&mut self, now: Instant) {
        let is_active = self.participants().any(|(_, other)| other.state == ParticipantState::Active);
        if let Some((call, started_at)) = self.call.filter(|_| !is_active) {
            self.call = None;
            self.limit_duration();
            self.notice(Notice::CallEnded { room: self.id, call, started_at, reason: self.closing, at: now });
        }
    }
}
