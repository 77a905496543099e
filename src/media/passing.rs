//! The way of packets through a room: the hot path.

use std::time::Instant;

use super::audio::Heard;
use super::meter::{DropReason, KEYFRAME_WAIT_BOUNDS_US};
use super::packet::Packet;
use super::quality::Stall;
use super::signal::TrackEvent;
use super::timers::Timer;
use super::{EncodingIndex, Room, Seat, TrackKey, speakers, track};
use crate::command::{MediaKind, Source};

impl Room {
    /// The hot path: packets to all slots their track is in, slot by slot.
    pub(super) fn packets(&mut self, key: TrackKey, encoding: EncodingIndex, packets: &[Packet], now: Instant) {
        let Some(track) = self.tracks.get_mut(key.0 as usize).and_then(Option::as_mut).filter(|t| t.is_offered())
        else {
            return self.drops.add(DropReason::UnpublishedTrack, packets.len() as u64);
        };
        self.starts.clear();
        let (mut changed, mut awakened, mut ceased) = (false, false, false);
        for packet in packets {
            let noted = track.note(encoding, packet, now);
            self.starts.push(noted.start);
            changed |= noted.changed;
            awakened |= noted.awakened;
            ceased |= noted.ceased;
            if let Some(waited) = noted.waited {
                self.quality.keyframe_waits.observe(waited.as_micros() as u64, &KEYFRAME_WAIT_BOUNDS_US);
            }
        }
        if awakened {
            self.timers.set_earlier(Timer::Tracks, now + track::FIRST_LOOK);
        }
        let (owner, is_audio, is_muted) = (track.owner, track.kind == MediaKind::Audio, track.muted);
        // May move tracks between slots: before anyone is counted.
        let is_silent = is_audio && !is_muted && self.listen(key, owner, packets, now);
        let Some(track) = self.tracks.get(key.0 as usize).and_then(Option::as_ref) else { return };
        let copies = (track.subscribers.len() * packets.len()) as u64;
        self.copies_due += copies;
        if is_muted {
            return self.drops.add(DropReason::Muted, copies);
        }
        let (mut slot_changed, mut source_changed) = (false, false);
        for (seat, slot) in &track.subscribers {
            let Some(participant) = self.seats.get_mut(usize::from(seat.0)).and_then(Option::as_mut) else { continue };
            let Some(bound) = participant.slots.get_mut(usize::from(slot.0)) else { continue };
            if is_audio && (is_silent || !(participant.wish.pins_audio() || self.audio.chosen(key, *seat))) {
                bound.leave_out(packets);
                self.drops.add(DropReason::NotHeard, packets.len() as u64);
                continue;
            }
            let awaited = bound.awaits(encoding);
            let to = (participant.peer, *slot);
            let run = (packets, self.starts.as_slice());
            let before = bound.layer();
            let passed = bound.forward_all(to, encoding, run, &mut self.drops, &mut self.outputs);
            bound.note_passed(&passed, before, track, &mut self.quality, now);
            source_changed |= passed.lost_source;
            slot_changed |= awaited && !bound.awaits(encoding);
        }
        if changed {
            self.tell_track(key, TrackEvent::Updated);
            self.slots_stale = true;
        }
        if source_changed {
            self.want_keyframe(key, encoding, now);
        }
        if ceased {
            self.top_layer_ceased(key, encoding, now);
        }
        if changed || slot_changed {
            self.settle(now);
        }
    }

    /// The publisher has stopped an encoding's highest spatial layer. Whoever was sent that alone has nothing to go on
    /// with but a keyframe.
    fn top_layer_ceased(&mut self, key: TrackKey, encoding: EncodingIndex, now: Instant) {
        let Some(track) = self.tracks.get(key.0 as usize).and_then(Option::as_ref) else { return };
        let Some(top) = track.encodings.get(usize::from(encoding.0)).map(|encoding| encoding.top.layer()) else {
            return;
        };
        let mut stranded = false;
        for (seat, slot) in &track.subscribers {
            let participant = self.seats.get_mut(usize::from(seat.0)).and_then(Option::as_mut);
            let bound = participant.and_then(|participant| participant.slots.get_mut(usize::from(slot.0)));
            if let Some(bound) = bound.filter(|bound| bound.is_stranded(encoding, top)) {
                bound.freeze.begin(Stall::Silent, now);
                stranded = true;
            }
        }
        if stranded {
            self.want_keyframe(key, encoding, now);
        }
    }

    /// Listens to sound that is about to be forwarded: who speaks, and who is to be heard. Whether there is nothing to
    /// hear in it.
    fn listen(&mut self, key: TrackKey, owner: Seat, packets: &[Packet], now: Instant) -> bool {
        let is_microphone = self.track(key).is_some_and(|track| track.source == Source::Microphone);
        let mut is_silent = true;
        for packet in packets {
            is_silent &= self.audio.heard(key, owner, packet.level, now) == Heard::Silence;
            let speech = packet.level.filter(|_| is_microphone);
            if speech.is_some_and(|level| self.speakers.heard(owner, level, now)) {
                self.timers.set_earlier(Timer::Speakers, now + speakers::TICK);
            }
        }
        if self.audio.take_changed() {
            // Whoever has fewer slots than there are others: before this very packet goes out.
            self.slots_stale = true;
            self.settle(now);
        }
        is_silent
    }
}

#[cfg(test)]
mod tests;
