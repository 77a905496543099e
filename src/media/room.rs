//! A room: its participants, their tracks, and the way of a packet through it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audio::AudioSelector;
use super::meter::{Drops, PerKind, Quality, Stopwatch};
use super::participant::Participant;
use super::quality::{self, Stall};
use super::signal::{ParticipantEvent, Signal, SpeakerInfo, TrackEvent};
use super::speakers::{self, SpeakerDetector};
use super::subscription::Slot;
use super::timers::{Timer, TimerTable};
use super::track::Track;
use super::{EncodingIndex, Input, Join, NewSlot, NewTrack, Output, PeerKey, Seat, SlotIndex, TrackKey};
use crate::command::{
    CallState, EndReason, Grants, MediaKind, Notice, ParticipantInfo, ParticipantState, Refusal, RoomSettings,
    RoomState, Transport,
};
use crate::ids::{CallId, Identity, ParticipantId, RoomId};

/// One room and the call in it. See the [ring's contract](super).
#[derive(Debug)]
pub struct Room {
    pub(super) id: RoomId,
    pub(super) settings: RoomSettings,
    pub(super) seats: Vec<Option<Participant>>,
    pub(super) tracks: Vec<Option<Track>>,
    pub(super) speakers: SpeakerDetector,
    pub(super) audio: AudioSelector,
    pub(super) timers: TimerTable,
    pub(super) outputs: VecDeque<Output>,
    /// Something changed that may move tracks between slots.
    pub(super) slots_stale: bool,
    pub(super) call: Option<(CallId, Instant)>,
    pub(super) closing: Option<EndReason>,
    pub(super) drops: Drops,
    pub(super) copies_due: u64,
    pub(super) quality: Quality,
    /// Scratch: which of the packets at hand a decoder can start with.
    pub(super) starts: Vec<bool>,
}

impl Room {
    /// An empty room, in which each hears the `loudest` of the others; it ends by itself when nobody comes.
    pub fn new(id: RoomId, settings: RoomSettings, loudest: usize, now: Instant) -> Self {
        let mut timers = TimerTable::default();
        timers.set(Timer::Empty, now + settings.empty_timeout);
        Self {
            id,
            settings,
            seats: Vec::new(),
            tracks: Vec::new(),
            speakers: SpeakerDetector::default(),
            audio: AudioSelector::new(loudest),
            timers,
            outputs: VecDeque::new(),
            slots_stale: false,
            call: None,
            closing: None,
            drops: Drops::default(),
            copies_due: 0,
            quality: Quality::default(),
            starts: Vec::new(),
        }
    }

    // === getters ===

    /// Whether this identity may join now. One who is already here may: they replace their older session.
    pub fn admit(&self, identity: &Identity) -> Result<(), Refusal> {
        let max = self.settings.max_participants;
        if self.closing.is_some() {
            return Err(Refusal::RoomNotFound);
        }
        let others = self.participants().filter(|(_, other)| other.profile.identity != *identity).count();
        if others >= max as usize { Err(Refusal::RoomFull { max }) } else { Ok(()) }
    }

    /// The seat of an identity.
    pub fn seat_of(&self, identity: &Identity) -> Option<Seat> {
        self.participants().find(|(_, other)| other.profile.identity == *identity).map(|(seat, _)| seat)
    }

    /// Whose peer sits there.
    pub fn peer_of(&self, seat: Seat) -> Option<PeerKey> {
        Some(self.participant(seat)?.peer)
    }

    /// Who sits there.
    pub fn participant_id(&self, seat: Seat) -> Option<ParticipantId> {
        Some(self.participant(seat)?.sid)
    }

    /// The seat the next [`Input::Join`] gets.
    pub fn next_seat(&self) -> Seat {
        Seat(self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len()) as u16)
    }

    /// The key the next [`Input::Publish`] gets.
    pub fn next_track(&self) -> TrackKey {
        TrackKey(self.tracks.iter().position(Option::is_none).unwrap_or(self.tracks.len()) as u32)
    }

    /// The room's id.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// Everyone, or one of them, as the API shows them; hidden participants too.
    pub fn participant_infos(&self, only: Option<Seat>) -> Vec<ParticipantInfo> {
        let wanted = self.participants().filter(|(seat, _)| only.is_none_or(|only| only == *seat));
        let mut infos: Vec<_> = wanted.filter_map(|(seat, _)| self.info(seat)).collect();
        infos.sort_by_key(|info| info.joined_at);
        infos
    }

    /// The room as the API shows it.
    pub fn state(&self, now: Instant) -> RoomState {
        let publishes = |(_, p): &(Seat, &Participant)| p.tracks.iter().any(|key| self.is_announced(*key));
        RoomState {
            room: self.id,
            num_participants: self.participants().count() as u32,
            num_publishers: self.participants().filter(publishes).count() as u32,
            call: self.call.map(|(call, started_at)| CallState {
                call,
                started_at,
                duration: now.saturating_duration_since(started_at),
            }),
        }
    }

    /// Published and subscribed tracks by kind.
    pub fn count_tracks(&self) -> (PerKind<u64>, PerKind<u64>) {
        let (mut published, mut subscribed) = (PerKind::default(), PerKind::default());
        for track in self.tracks.iter().flatten() {
            *published.of_mut(track.kind) += 1;
            *subscribed.of_mut(track.kind) += track.subscribers.len() as u64;
        }
        (published, subscribed)
    }

    /// How many are in the room, connected or not.
    pub fn num_participants(&self) -> usize {
        self.participants().count()
    }

    /// Drops so far, and copies that were due: received packets times their subscribers.
    pub fn counts(&self) -> (Drops, u64) {
        (self.drops, self.copies_due)
    }

    /// How long a participant has published unmuted sound and picture.
    pub fn published(&self, seat: Seat, now: Instant) -> PerKind<Duration> {
        let read = |watch: &Stopwatch| watch.read(now);
        self.participant(seat).map_or(PerKind::default(), |participant| PerKind {
            audio: read(&participant.published.audio),
            video: read(&participant.published.video),
        })
    }

    /// What a participant may do.
    pub fn grants(&self, seat: Seat) -> Option<&Grants> {
        Some(&self.participant(seat)?.profile.grants)
    }

    // === inputs ===

    /// Takes one input. Cannot fail or block.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Packets { track, encoding, packets } => return self.packets(track, encoding, packets, now),
            Input::Join(join) => self.join(*join, now),
            Input::Connected { seat, took, transport } => self.connected(seat, Some(took), transport, now),
            Input::ChannelOpen(seat) => {
                self.greet(seat, false);
                self.warn_newcomer(seat, now);
            }
            Input::Leave { seat, reason, usage } => self.leave(seat, reason, usage, now),
            Input::Publish { seat, track } => self.publish(seat, track, now),
            Input::Unpublish { seat, track } => self.unpublish(seat, track, now),
            Input::Slots { seat, slots } => self.set_slots(seat, slots),
            // These change no slot, and a hostile client can send many.
            Input::KeyframeWanted { seat, slot } => return self.keyframe_wanted(seat, slot, now),
            Input::Starved { seat, slot } => self.starved(seat, slot, now),
            Input::Estimate { seat, estimate, measured } => return self.estimate(seat, estimate, measured, now),
            Input::Broken { track, encoding } => return self.broken(track, encoding, now),
            Input::Request { seat, request } => self.request(seat, request, now),
            Input::Change { seat, change } => self.change(seat, change, now),
            Input::Mute { seat, track, muted } => self.mute_by_control(seat, track, muted, now),
            Input::Message { topic, data, to } => self.message(None, topic, data, &to),
            Input::Settings(settings) => {
                let same = self.settings.max_duration == settings.max_duration;
                self.settings = settings;
                if !same {
                    self.limit_duration();
                }
            }
            Input::Close(reason) => self.close(reason),
        }
        self.settle(now);
    }

    /// Does what is due. Late and early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timers.take_expired(Timer::Empty, now) && self.num_participants() == 0 {
            self.close(EndReason::RoomEmpty);
        }
        if self.timers.take_expired(Timer::Warning, now) {
            self.warn_of_end(now);
        }
        if self.timers.take_expired(Timer::MaxDuration, now) {
            self.close(EndReason::RoomDurationExceeded);
        }
        if self.timers.take_expired(Timer::Keyframe, now) {
            self.ask_due_keyframes(now);
        }
        if self.timers.take_expired(Timer::Speakers, now) {
            self.judge_speakers(now);
        }
        if self.timers.take_expired(Timer::Tracks, now) {
            self.look_at_tracks(now);
        }
        if self.timers.take_expired(Timer::Budget, now) {
            self.allocate_limited(now);
        }
        self.settle(now);
    }

    /// The next thing to do; drain to `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    fn join(&mut self, join: Join, now: Instant) {
        self.sit_down(self.next_seat(), Participant::new(join, now));
    }

    pub(super) fn sit_down(&mut self, seat: Seat, participant: Participant) {
        match self.seats.get_mut(usize::from(seat.0)) {
            Some(free) => *free = Some(participant),
            None => self.seats.push(Some(participant)),
        }
        self.timers.stop(Timer::Empty);
    }

    pub(super) fn connected(&mut self, seat: Seat, took: Option<Duration>, transport: Transport, now: Instant) {
        let Some(participant) = self.participant_mut(seat) else { return };
        if participant.state == ParticipantState::Active {
            return;
        }
        participant.state = ParticipantState::Active;
        participant.connected_at = Some(now);
        let (call, session, sid) = (participant.call, participant.session, participant.sid);
        if self.call.is_none() {
            self.call = Some((call, now));
            self.notice(Notice::CallStarted { room: self.id, call, at: now });
            self.limit_duration();
        }
        let room = self.id;
        self.notice(Notice::ParticipantJoined { room, participant: sid, session, at: now, took, transport });
        self.tell_participant(seat, ParticipantEvent::Joined, None);
        self.reconcile_tracks(seat, now);
        self.slots_stale = true;
    }

    fn close(&mut self, reason: EndReason) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(reason);
        let peers: Vec<_> = self.participants().map(|(_, participant)| participant.peer).collect();
        if peers.is_empty() {
            self.outputs.push_back(Output::Finished(reason));
        }
        self.outputs.extend(peers.into_iter().map(|peer| Output::Close { peer, reason }));
    }

    fn publish(&mut self, seat: Seat, new: NewTrack, now: Instant) {
        if self.participant(seat).is_some() {
            self.add_track(seat, Track::new(new, seat, now), now);
            self.reconcile_tracks(seat, now);
        }
    }

    pub(super) fn unpublish(&mut self, seat: Seat, key: TrackKey, now: Instant) {
        self.conceal_track(key, now);
        self.audio.forget(key);
        if let Some(track) = self.tracks.get_mut(key.0 as usize) {
            *track = None;
        }
        if let Some(participant) = self.participant_mut(seat) {
            participant.tracks.retain(|other| *other != key);
        }
    }

    fn set_slots(&mut self, seat: Seat, slots: Vec<NewSlot>) {
        let Some(participant) = self.participant_mut(seat) else { return };
        let known = participant.slots.len();
        for (slot, new) in participant.slots.iter_mut().zip(&slots) {
            slot.codecs = new.codecs;
        }
        participant.slots.extend(slots.into_iter().skip(known).map(Slot::new));
        self.slots_stale = true;
    }

    fn keyframe_wanted(&mut self, seat: Seat, index: SlotIndex, now: Instant) {
        let Some(slot) = self.slot_mut(seat, index).filter(|slot| slot.kind == MediaKind::Video) else { return };
        slot.keyframes_wanted += 1;
        let Some(binding) = slot.binding else { return };
        self.freeze(seat, index, Stall::Undecodable, now);
        if let Some(encoding) = binding.current.or(binding.target.map(|layer| layer.encoding)) {
            self.want_keyframe(binding.track, encoding, now);
        }
    }

    fn broken(&mut self, key: TrackKey, encoding: EncodingIndex, now: Instant) {
        if self.track(key).is_some_and(|track| track.kind == MediaKind::Video && !track.subscribers.is_empty()) {
            self.freeze_viewers(key, encoding, now);
            self.want_keyframe(key, encoding, now);
        }
    }

    /// Asks the publisher for a keyframe, now or as soon as the interval allows.
    pub(super) fn want_keyframe(&mut self, key: TrackKey, encoding: EncodingIndex, now: Instant) {
        let Some(track) = self.tracks.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let Some(requests) = track.encodings.get_mut(usize::from(encoding.0)).map(|e| &mut e.keyframes) else { return };
        let ask = requests.want(now);
        if let Some(due) = requests.due() {
            self.timers.set_earlier(Timer::Keyframe, due);
        }
        let owner = track.owner;
        if let Some(publisher) = self.participant(owner).filter(|_| ask) {
            let peer = publisher.peer;
            self.outputs.push_back(Output::RequestKeyframe { peer, track: key, encoding });
        }
    }

    fn ask_due_keyframes(&mut self, now: Instant) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            let Some(track) = track else { continue };
            let key = TrackKey(index as u32);
            let publisher = self.seats.get(usize::from(track.owner.0)).and_then(Option::as_ref).map(|p| p.peer);
            for (number, encoding) in track.encodings.iter_mut().enumerate() {
                let encoding_index = EncodingIndex(number as u8);
                // Nobody waits any more: a muted or empty stage needs no keyframe.
                if track.muted || track.subscribers.is_empty() {
                    encoding.keyframes.forget();
                }
                if let Some(peer) = publisher.filter(|_| encoding.keyframes.send_if_due(now)) {
                    self.quality.freezes += quality::count_freezes(&mut self.seats, &track.subscribers, now);
                    self.outputs.push_back(Output::RequestKeyframe { peer, track: key, encoding: encoding_index });
                }
            }
            if let Some(due) = track.keyframe_due() {
                self.timers.set_earlier(Timer::Keyframe, due);
            }
        }
    }

    fn judge_speakers(&mut self, now: Instant) {
        if self.speakers.judge(now).is_some() {
            let speakers = self.speaking();
            self.tell_all(Signal::Speakers { speakers }, None);
            self.slots_stale = true;
        }
        if self.speakers.is_active() {
            self.timers.set_earlier(Timer::Speakers, now + speakers::TICK);
        }
    }

    /// Who speaks, as far as others may know of them.
    pub(super) fn speaking(&self) -> Vec<SpeakerInfo> {
        let info = |(seat, level): &(Seat, f32)| {
            let participant = self.participant(*seat).filter(|participant| participant.is_visible())?.sid;
            Some(SpeakerInfo { participant, level: *level })
        };
        self.speakers.told().iter().filter_map(info).collect()
    }

    // === what others are told ===

    pub(super) fn participants(&self) -> impl Iterator<Item = (Seat, &Participant)> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(index, participant)| Some((Seat(index as u16), participant.as_ref()?)))
    }

    pub(super) fn participant(&self, seat: Seat) -> Option<&Participant> {
        self.seats.get(usize::from(seat.0))?.as_ref()
    }

    pub(super) fn participant_mut(&mut self, seat: Seat) -> Option<&mut Participant> {
        self.seats.get_mut(usize::from(seat.0))?.as_mut()
    }

    pub(super) fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.get(key.0 as usize)?.as_ref()
    }

    pub(super) fn track_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.tracks.get_mut(key.0 as usize)?.as_mut()
    }

    pub(super) fn is_announced(&self, key: TrackKey) -> bool {
        self.track(key).is_some_and(|track| track.announced)
    }

    pub(super) fn info(&self, seat: Seat) -> Option<ParticipantInfo> {
        let participant = self.participant(seat)?;
        let tracks = participant.tracks.iter().filter_map(|key| self.track(*key));
        Some(participant.info(tracks.filter(|track| track.announced).map(Track::info).collect()))
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(Box::new(notice)));
    }

    /// Tells one participant, if their channel is open.
    pub(super) fn tell(&mut self, seat: Seat, signal: Signal) {
        let listener = self.participant(seat).filter(|participant| participant.channel_open && self.closing.is_none());
        if let Some(participant) = listener {
            let peer = participant.peer;
            self.outputs.push_back(Output::Tell { peer, signal: Arc::new(signal) });
        }
    }

    /// Tells everyone but one. Nobody while the room closes: in a room of twenty each one's `leave` would queue behind
    /// up to nineteen who have left before, and a server that stops is gone by then.
    pub(super) fn tell_all(&mut self, signal: Signal, but: Option<Seat>) {
        if self.closing.is_some() {
            return;
        }
        let signal = Arc::new(signal);
        let listeners = self.seats.iter().enumerate().filter_map(|(index, participant)| {
            participant.as_ref().filter(|p| p.channel_open && but != Some(Seat(index as u16)))
        });
        let tell = |listener: &Participant| Output::Tell { peer: listener.peer, signal: signal.clone() };
        self.outputs.extend(listeners.map(tell));
    }

    /// Tells the others that someone came, changed or went; nothing about the hidden.
    pub(super) fn tell_participant(&mut self, seat: Seat, event: ParticipantEvent, reason: Option<EndReason>) {
        let visible = self.participant(seat).is_some_and(Participant::is_visible);
        if let Some(participant) = self.info(seat).filter(|_| visible) {
            // A change is told to the changed as well: control may have made it.
            let but = (event != ParticipantEvent::Updated).then_some(seat);
            self.tell_all(Signal::Participant { event, participant, reason }, but);
        }
    }

    /// Tells everyone, the publisher too, what became of a track.
    pub(super) fn tell_track(&mut self, key: TrackKey, event: TrackEvent) {
        let Some(track) = self.track(key) else { return };
        let Some(owner) = self.participant(track.owner) else { return };
        let signal = Signal::Track { event, participant: owner.sid, track: track.info() };
        self.tell_all(signal, None);
    }
}
