//! Keeps every slot filled with what its participant wishes and may receive, and tells them what changed.

use std::time::Instant;

use super::fill::{self, Place, Wanted};
use super::layers::Layer;
use super::participant::{Participant, Wish};
use super::quality::Stall;
use super::signal::{Signal, SlotInfo, SlotState, TrackEvent};
use super::subscription::{Binding, Slot};
use super::timers::Timer;
use super::track::{Encoding, Track};
use super::{EncodingIndex, Output, Room, Seat, SlotIndex, TrackKey};
use crate::command::{MediaKind, Notice, ParticipantState, Source};

/// A track that may go into slots, ranked for those who did not say what they want.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    wanted: Wanted,
    owner: Seat,
    kind: MediaKind,
    source: Source,
}

impl Room {
    /// Brings slots and what clients know of them up to date.
    pub(super) fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.slots_stale) {
            let candidates = self.candidates();
            for index in 0..self.seats.len() {
                let seat = Seat(index as u16);
                self.refill(seat, MediaKind::Audio, &candidates);
                self.refill(seat, MediaKind::Video, &candidates);
                self.allocate(seat, now);
            }
        }
        for index in 0..self.seats.len() {
            self.tell_changed_slots(Seat(index as u16));
        }
    }

    /// All tracks on offer: the unmuted and living first, then by who spoke last, then by seat.
    fn candidates(&self) -> Vec<Candidate> {
        let tracks = self.tracks.iter().enumerate().filter_map(|(index, track)| {
            let track = track.as_ref().filter(|track| track.is_offered())?;
            let wanted = Wanted { track: TrackKey(index as u32), codec: track.codec, height: 0, rank: 0 };
            let idle = track.muted || !track.alive;
            // Sound goes by who is to be heard.
            let place = if track.kind == MediaKind::Audio { self.audio.rank(wanted.track) } else { 0 };
            let rank = (idle, place, std::cmp::Reverse(self.speakers.last_spoke(track.owner)), track.owner);
            Some((rank, Candidate { wanted, owner: track.owner, kind: track.kind, source: track.source }))
        });
        let mut ranked: Vec<_> = tracks.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, candidate)| candidate).collect()
    }

    fn wanted(&self, participant: &Participant, seat: Seat, kind: MediaKind, offered: &[Candidate]) -> Vec<Wanted> {
        if participant.state != ParticipantState::Active || !participant.profile.grants.can_subscribe {
            return Vec::new();
        }
        let others = offered.iter().filter(|candidate| candidate.kind == kind && candidate.owner != seat);
        let find = |sid| others.clone().find(|c| self.track(c.wanted.track).is_some_and(|t| t.sid == sid));
        let ranked = |(rank, wanted): (usize, Wanted)| Wanted { rank: rank as u16, ..wanted };
        // Cameras in last-spoken order; shared screens take the slots that are left, but are paid first.
        let by_default = || {
            let (screens, cameras): (Vec<&Candidate>, Vec<&Candidate>) =
                others.clone().partition(|c| c.source == Source::ScreenShare);
            let places = screens.len();
            let camera = |(rank, camera): (usize, &&Candidate)| ranked((rank + places, camera.wanted));
            let mut wanted: Vec<Wanted> = cameras.iter().enumerate().map(camera).collect();
            wanted.extend(screens.iter().enumerate().map(|(rank, screen)| ranked((rank, screen.wanted))));
            wanted
        };
        match &participant.wish {
            Wish::Explicit { video, .. } if kind == MediaKind::Video => {
                let found = video.iter().filter_map(|(sid, height)| Some((find(*sid)?, *height)));
                let wanted = found.map(|(candidate, height)| Wanted { height, ..candidate.wanted });
                wanted.enumerate().map(ranked).collect()
            }
            Wish::Explicit { audio: Some(audio), .. } => {
                audio.iter().filter_map(|sid| find(*sid)).map(|candidate| candidate.wanted).collect()
            }
            Wish::Play(identity) => {
                let owner = self.seat_of(identity);
                others.filter(|candidate| Some(candidate.owner) == owner).map(|candidate| candidate.wanted).collect()
            }
            Wish::Default | Wish::PlayActiveSpeaker | Wish::Explicit { .. } => by_default(),
        }
    }

    fn refill(&mut self, seat: Seat, kind: MediaKind, offered: &[Candidate]) {
        let Some(participant) = self.participant(seat) else { return };
        let indices: Vec<usize> = (0..participant.slots.len()).filter(|&i| participant.slots[i].kind == kind).collect();
        if indices.is_empty() {
            return;
        }
        let place = |&i: &usize| {
            let slot = &participant.slots[i];
            Place { current: slot.binding.map(|binding| binding.track), codecs: slot.codecs }
        };
        let places: Vec<_> = indices.iter().map(place).collect();
        let wanted = self.wanted(participant, seat, kind, offered);
        let filled = fill::fill(&places, &wanted);
        for ((index, place), track) in indices.into_iter().zip(places).zip(filled) {
            if place.current != track {
                self.rebind(seat, SlotIndex(index as u16), track);
            }
            let want = wanted.iter().find(|want| Some(want.track) == track);
            if let (Some(want), Some(slot)) = (want, self.slot_mut(seat, SlotIndex(index as u16))) {
                (slot.height, slot.rank) = (want.height, want.rank);
            }
        }
    }

    fn rebind(&mut self, seat: Seat, index: SlotIndex, track: Option<TrackKey>) {
        let kind = track.and_then(|key| self.track(key)).map(|track| track.kind);
        // Sound has one layer; of video one is chosen next.
        let target = (kind == Some(MediaKind::Audio)).then_some(Layer::whole(EncodingIndex(0)));
        let Some(slot) = self.slot_mut(seat, index) else { return };
        let before = slot.binding;
        slot.bind(track.map(|track| Binding::new(track, target)));
        // Sound does not wait, and two voices may trade places for a syllable.
        if slot.kind == MediaKind::Video {
            self.discard(seat, index);
        }
        if let Some(old) = before.and_then(|binding| self.track_mut(binding.track)) {
            old.subscribers.retain(|subscriber| *subscriber != (seat, index));
        }
        if let Some(new) = track.and_then(|key| self.track_mut(key)) {
            new.subscribers.push((seat, index));
        }
    }

    pub(super) fn slot_mut(&mut self, seat: Seat, index: SlotIndex) -> Option<&mut Slot> {
        self.participant_mut(seat)?.slots.get_mut(usize::from(index.0))
    }

    /// A slot's video could not be sent. What is left of its frames is no use; a keyframe begins anew.
    pub(super) fn starved(&mut self, seat: Seat, index: SlotIndex, now: Instant) {
        let Some(slot) = self.slot_mut(seat, index) else { return };
        let flowed = slot.binding.is_some_and(|binding| binding.current.is_some());
        slot.restart();
        if flowed {
            slot.freeze.begin(Stall::Silent, now);
        }
        if let Some((track, target)) = slot.binding.and_then(|binding| Some((binding.track, binding.target?))) {
            self.want_keyframe(track, target.encoding, now);
        }
    }

    /// What the slot was sent before must not leave after the change: a mute is at once.
    pub(super) fn discard(&mut self, seat: Seat, slot: SlotIndex) {
        if let Some(peer) = self.peer_of(seat) {
            self.outputs.push_back(Output::Discard { peer, slot });
        }
    }

    /// Notes which tracks are alive and in what layers they come, and what of them nobody needs.
    pub(super) fn look_at_tracks(&mut self, now: Instant) {
        let mut ladders_changed = false;
        for track in self.tracks.iter_mut().flatten() {
            let looked = track.look(now);
            self.slots_stale |= looked.alive_changed;
            ladders_changed |= looked.ladder_changed;
            self.timers.set_earlier(Timer::Tracks, track.next_look(now));
        }
        if ladders_changed && !self.slots_stale {
            (0..self.seats.len()).for_each(|index| self.allocate(Seat(index as u16), now));
        }
        self.look_at_lagging(now);
        self.look_at_needs(now);
    }

    /// Asks for the keyframes without which slots stay below the spatial layer they are to have: the last one lacked it,
    /// and it came later.
    fn look_at_lagging(&mut self, now: Instant) {
        let lags = |track: &Track, (number, encoding): (usize, &Encoding)| {
            let (encoding, top) = (EncodingIndex(number as u8), encoding.top.layer());
            let slot = |seat: Seat, slot: SlotIndex| self.participant(seat)?.slots.get(usize::from(slot.0));
            let mut slots = track.subscribers.iter().filter_map(|(seat, index)| slot(*seat, *index));
            (top > 0 && !track.muted && slots.any(|slot| slot.lags(encoding, top))).then_some(encoding)
        };
        let mut lagging = Vec::new();
        for (index, track) in self.tracks.iter().enumerate() {
            let Some(track) = track else { continue };
            let encodings = track.encodings.iter().enumerate().filter_map(|encoding| lags(track, encoding));
            lagging.extend(encodings.map(|encoding| (TrackKey(index as u32), encoding)));
        }
        lagging.into_iter().for_each(|(key, encoding)| self.want_keyframe(key, encoding, now));
    }

    /// Shows or conceals a participant's tracks as their grants and state now demand.
    pub(super) fn reconcile_tracks(&mut self, seat: Seat, now: Instant) {
        let Some(participant) = self.participant(seat) else { return };
        let (visible, grants) = (participant.is_visible(), participant.profile.grants.clone());
        for key in participant.tracks.clone() {
            let Some(track) = self.track_mut(key) else { continue };
            track.permitted = grants.allows(track.source);
            let show = track.permitted && visible;
            if show && !track.announced {
                track.announced = true;
                self.tell_track(key, TrackEvent::Published);
                self.notice_track(key, now);
                self.slots_stale = true;
            } else if !show {
                self.conceal_track(key, now);
            }
        }
        self.note_published(seat, now);
    }

    /// Notes which kinds of track a participant sends now.
    fn note_published(&mut self, seat: Seat, now: Instant) {
        let Some(participant) = self.participant(seat) else { return };
        let live = participant.tracks.iter().filter_map(|key| self.track(*key)).filter(|t| t.announced && !t.muted);
        let kinds: Vec<MediaKind> = live.map(|track| track.kind).collect();
        let Some(participant) = self.participant_mut(seat) else { return };
        for kind in [MediaKind::Audio, MediaKind::Video] {
            participant.published.of_mut(kind).set(kinds.contains(&kind), now);
        }
    }

    fn notice_track(&mut self, key: TrackKey, now: Instant) {
        let Some(track) = self.track(key) else { return };
        let Some(owner) = self.participant(track.owner) else { return };
        let (room, participant, track) = (self.id, owner.sid, track.info());
        self.notice(Notice::TrackPublished { room, participant, track, at: now });
    }

    /// Takes a track off the stage: out of all slots, and others are told.
    pub(super) fn conceal_track(&mut self, key: TrackKey, now: Instant) {
        let Some(track) = self.track_mut(key) else { return };
        if !std::mem::take(&mut track.announced) {
            return;
        }
        let (sid, owner, subscribers) = (track.sid, track.owner, std::mem::take(&mut track.subscribers));
        for (seat, index) in subscribers {
            if let Some(slot) = self.slot_mut(seat, index) {
                slot.bind(None);
            }
            self.discard(seat, index);
        }
        self.tell_track(key, TrackEvent::Unpublished);
        if let Some(participant) = self.participant(owner).map(|participant| participant.sid) {
            self.notice(Notice::TrackUnpublished { room: self.id, participant, track: sid, at: now });
        }
        self.note_published(owner, now);
        self.slots_stale = true;
    }

    /// A track was muted or unmuted. Its slots show it; after a pause only a keyframe lets decoders follow.
    pub(super) fn set_muted(&mut self, key: TrackKey, muted: bool, now: Instant) {
        let Some(track) = self.track_mut(key) else { return };
        if std::mem::replace(&mut track.muted, muted) == muted {
            return;
        }
        let (owner, kind, subscribers) = (track.owner, track.kind, track.subscribers.clone());
        if muted && kind == MediaKind::Audio {
            self.speakers.silence(owner);
            self.audio.forget(key);
        }
        if self.is_announced(key) {
            self.tell_track(key, TrackEvent::Updated);
        }
        for (seat, index) in subscribers {
            let Some(slot) = self.slot_mut(seat, index) else { continue };
            slot.restart();
            let target = slot.binding.and_then(|binding| binding.target);
            self.discard(seat, index);
            if let Some(layer) = target.filter(|_| !muted && kind == MediaKind::Video) {
                self.want_keyframe(key, layer.encoding, now);
            }
        }
        self.note_published(owner, now);
        self.slots_stale = true;
    }

    pub(super) fn tell_changed_slots(&mut self, seat: Seat) {
        let Some(participant) = self.participant(seat).filter(|participant| participant.channel_open) else { return };
        let infos: Vec<(usize, SlotInfo)> = participant
            .slots
            .iter()
            .map(|slot| self.slot_info(slot))
            .enumerate()
            .filter(|(index, info)| participant.slots[*index].told.as_ref() != Some(info))
            .collect();
        if infos.is_empty() {
            return;
        }
        let slots = infos.iter().map(|(_, info)| info.clone()).collect();
        for (index, info) in infos {
            if let Some(slot) = self.slot_mut(seat, SlotIndex(index as u16)) {
                slot.told = Some(info);
            }
        }
        self.tell(seat, Signal::Slots { slots });
    }

    pub(super) fn slot_info(&self, slot: &Slot) -> SlotInfo {
        let (mid, kind) = (slot.mid.clone(), slot.kind);
        let bound = slot.binding.and_then(|binding| Some((binding, self.track(binding.track)?)));
        let Some((binding, track)) = bound else {
            return SlotInfo { mid, kind, track: None, participant: None, state: SlotState::Empty, layer: None };
        };
        let has_room = slot.kind == MediaKind::Audio || binding.target.is_some();
        SlotInfo {
            mid,
            kind,
            track: Some(track.sid),
            participant: self.participant(track.owner).map(|owner| owner.sid),
            state: if track.muted || !has_room { SlotState::Paused } else { SlotState::Live },
            layer: slot.layer().and_then(|layer| track.describe(layer)),
        }
    }
}
