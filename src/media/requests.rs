//! What participants ask for over the data channel, and what control changes about them.

use std::time::Instant;

use serde_json::Value;

use super::participant::Wish;
use super::signal::{ParticipantEvent, Request, RoomInfo, Signal, TrackEvent, TrackSource, Welcome};
use super::{Room, Seat, TrackKey};
use crate::command::{ParticipantChange, ParticipantState};
use crate::ids::{Identity, TrackId};

/// Longest topic of a message, in bytes; topics are names, the text goes into `data`.
const MAX_TOPIC_BYTES: usize = 256;

impl Room {
    /// What a newcomer needs to know: the first message on an open channel, or the first after a move. Then all slots.
    pub(super) fn greet(&mut self, seat: Seat, moved: bool) {
        let Some(participant) = self.participant_mut(seat) else { return };
        participant.channel_open = true;
        let session = participant.session;
        let Some(me) = self.info(seat) else { return };
        let others = self.participants().filter(|(other, p)| *other != seat && p.is_visible());
        let mut participants: Vec<_> = others.filter_map(|(other, _)| self.info(other)).collect();
        participants.sort_by_key(|info| info.joined_at);
        let RoomInfo { sid, name, metadata } = self.room_info();
        let room = RoomInfo { sid, name, metadata };
        let welcome = Box::new(Welcome { session, room, participant: me, participants });
        self.tell(seat, if moved { Signal::Moved(welcome) } else { Signal::Welcome(welcome) });
        let speakers = self.speaking();
        if !speakers.is_empty() {
            self.tell(seat, Signal::Speakers { speakers });
        }
        if let Some(participant) = self.participant_mut(seat) {
            participant.slots.iter_mut().for_each(|slot| slot.told = None);
        }
    }

    fn room_info(&self) -> RoomInfo {
        RoomInfo { sid: self.id, name: self.settings.name.clone(), metadata: self.settings.metadata.clone() }
    }

    pub(super) fn request(&mut self, seat: Seat, request: Request, now: Instant) {
        match request {
            Request::Want { video, audio } => {
                if let Some(participant) = self.participant_mut(seat) {
                    participant.wish = Wish::explicit(video, audio);
                    self.slots_stale = true;
                }
            }
            Request::Mute { track, muted } => match self.own_track(seat, track) {
                Some(key) => self.set_muted(key, muted, now),
                None => self.error(seat, "track_not_found", "you publish no such track", "mute"),
            },
            Request::Tracks { tracks } => self.correct_sources(seat, &tracks, now),
            Request::Message { topic, data, to } => self.message_of(seat, topic, data, &to),
            Request::Ping { at } => self.tell(seat, Signal::Pong { at }),
        }
    }

    fn error(&mut self, seat: Seat, code: &'static str, message: &'static str, re: &'static str) {
        self.tell(seat, Signal::Error { code, message, re });
    }

    fn own_track(&self, seat: Seat, sid: TrackId) -> Option<TrackKey> {
        let mut own = self.participant(seat)?.tracks.iter();
        own.find(|key| self.track(**key).is_some_and(|track| track.sid == sid)).copied()
    }

    fn correct_sources(&mut self, seat: Seat, corrections: &[TrackSource], now: Instant) {
        let own = self.participant(seat).map_or(Vec::new(), |participant| participant.tracks.clone());
        let grants = self.participant(seat).map(|participant| participant.profile.grants.clone()).unwrap_or_default();
        // One complaint a request is enough; the rest of it is still done.
        let mut complaint = None;
        for TrackSource { mid, source } in corrections {
            let key = own.iter().copied().find(|key| self.track(*key).is_some_and(|track| track.mid == *mid));
            let Some(track) = key.and_then(|key| self.track_mut(key)) else {
                complaint = Some(("track_not_found", "you publish nothing on that mid"));
                continue;
            };
            if !source.fits(track.kind) {
                complaint = Some(("invalid_source", "audio and video have different sources"));
                continue;
            }
            let changed = std::mem::replace(&mut track.source, *source) != *source;
            if !grants.allows(*source) {
                complaint = Some(("source_not_allowed", "the token does not allow to publish this source"));
            } else if let Some(key) = key.filter(|key| changed && self.is_announced(*key)) {
                self.tell_track(key, TrackEvent::Updated);
                self.slots_stale = true;
            }
        }
        if let Some((code, message)) = complaint {
            self.error(seat, code, message, "tracks");
        }
        self.reconcile_tracks(seat, now);
    }

    fn message_of(&mut self, seat: Seat, topic: String, data: Value, to: &[Identity]) {
        let Some(sender) = self.participant(seat) else { return };
        if !sender.profile.grants.can_publish_data {
            return self.error(seat, "data_not_allowed", "the token does not allow to send messages", "message");
        }
        if topic.len() > MAX_TOPIC_BYTES {
            return self.error(seat, "invalid_message", "the topic is longer than 256 bytes", "message");
        }
        let from = sender.profile.identity.clone();
        self.message(Some((seat, from)), topic, data, to);
    }

    /// Passes a message on to some or all, never back to its sender.
    pub(super) fn message(&mut self, from: Option<(Seat, Identity)>, topic: String, data: Value, to: &[Identity]) {
        let (sender, from) = from.map_or((None, None), |(seat, identity)| (Some(seat), Some(identity)));
        let signal = Signal::Message { from, topic, data };
        if to.is_empty() {
            return self.tell_all(signal, sender);
        }
        let named = |seat: &Seat| self.participant(*seat).is_some_and(|p| to.contains(&p.profile.identity));
        let seats: Vec<Seat> = self.participants().map(|(seat, _)| seat).filter(named).collect();
        for seat in seats.into_iter().filter(|seat| Some(*seat) != sender) {
            self.tell(seat, signal.clone());
        }
    }

    pub(super) fn change(&mut self, seat: Seat, change: ParticipantChange, now: Instant) {
        let was_visible = self.participant(seat).is_some_and(super::participant::Participant::is_visible);
        let Some(participant) = self.participant_mut(seat) else { return };
        participant.change(change);
        let (visible, active) = (participant.is_visible(), participant.state == ParticipantState::Active);
        self.reconcile_tracks(seat, now);
        match (was_visible, visible) {
            (true, true) => self.tell_participant(seat, ParticipantEvent::Updated, None),
            (false, true) if active => self.tell_participant(seat, ParticipantEvent::Joined, None),
            (true, false) => {
                if let Some(participant) = self.info(seat) {
                    let event = ParticipantEvent::Left;
                    self.tell_all(Signal::Participant { event, participant, reason: None }, Some(seat));
                }
            }
            _ => {}
        }
        self.slots_stale = true;
    }

    pub(super) fn mute_by_control(&mut self, seat: Seat, track: TrackId, muted: bool, now: Instant) {
        if let Some(key) = self.own_track(seat, track) {
            self.set_muted(key, muted, now);
        }
    }

    /// Whether a participant publishes this track; control asks before it mutes.
    pub fn publishes(&self, seat: Seat, track: TrackId) -> bool {
        self.own_track(seat, track).is_some()
    }
}
