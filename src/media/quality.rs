//! How well it goes: what is counted of encodings and slots, and what an operator is told of it.

use std::time::{Duration, Instant};

use super::layers::Layer;
use super::meter::{Quality, Switches, Volume};
use super::packet::Packet;
use super::participant::Participant;
use super::subscription::{Passed, Slot};
use super::track::{Encoding, Track};
use super::{EncodingIndex, PeerKey, Room, Seat, SlotIndex, TrackKey};
use crate::command::MediaKind;
use crate::command::quality::{
    EncodingQuality, NetworkQuality, ParticipantQuality, PublishedQuality, ReceivedQuality, SentQuality,
};

/// A picture that stands still for longer is a freeze.
const FREEZE: Duration = Duration::from_millis(500);

/// What has come of one encoding.
#[derive(Debug, Default)]
pub struct Intake {
    volume: Volume,
    pictures: u64,
    /// Of the latest picture, and its stream: another one's timestamps begin anywhere.
    latest: Option<(u32, u32)>,
}

impl Intake {
    /// Counts a packet. Whether it begins a picture.
    pub fn note(&mut self, packet: &Packet) -> bool {
        self.volume.count(packet.bytes);
        // Late packets have the timestamp of an older picture.
        let latest = self.latest.filter(|(ssrc, _)| *ssrc == packet.ssrc);
        let passed = latest.map_or(1, |(_, last)| packet.timestamp.wrapping_sub(last).cast_signed());
        if passed > 0 {
            self.pictures += 1;
            self.latest = Some((packet.ssrc, packet.timestamp));
        }
        passed > 0
    }
}

/// Why a picture stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Nothing is sent.
    Silent,
    /// What is sent is no use to a decoder.
    Undecodable,
}

/// A picture that may stand still.
#[derive(Debug, Default)]
pub struct Freeze {
    stall: Option<(Stall, Instant)>,
    counted: bool,
}

impl Freeze {
    /// From now on the picture stands still, unless it did before.
    pub fn begin(&mut self, stall: Stall, now: Instant) {
        self.stall.get_or_insert((stall, now));
    }

    /// Whether it has become a freeze since the last look.
    pub fn look(&mut self, now: Instant) -> bool {
        let stands = self.stall.is_some_and(|(_, since)| now.saturating_duration_since(since) > FREEZE);
        stands && !std::mem::replace(&mut self.counted, true)
    }

    /// Packets were sent. Whether that ends a freeze which was not counted yet.
    fn note(&mut self, passed: &Passed, now: Instant) -> bool {
        let Some((stall, _)) = self.stall else { return false };
        let ends = passed.restarted || (passed.sent && stall == Stall::Silent);
        let counts = ends && self.look(now);
        if ends {
            self.cancel();
        }
        counts
    }

    /// No picture is due any more.
    pub fn cancel(&mut self) {
        *self = Self::default();
    }
}

impl Slot {
    /// Counts what became of packets, and whether another layer flows than `before`.
    pub(super) fn note_passed(
        &mut self,
        passed: &Passed,
        before: Option<Layer>,
        track: &Track,
        quality: &mut Quality,
        now: Instant,
    ) {
        if self.kind == MediaKind::Audio {
            return;
        }
        if passed.lost_source && self.flows() {
            self.freeze.begin(Stall::Silent, now);
        }
        quality.freezes += u64::from(self.freeze.note(passed, now));
        let after = self.layer();
        if let Some((before, after)) = before.zip(after).filter(|(before, after)| before != after) {
            let switches = switches(before, after, track);
            self.switches.merge(&switches);
            quality.switches.merge(&switches);
        }
    }

    fn flows(&self) -> bool {
        self.binding.is_some_and(|binding| binding.current.is_some())
    }
}

/// Whether the picture became larger or smaller. A layer says what may flow: only what there is counts.
fn switches(before: Layer, after: Layer, track: &Track) -> Switches {
    let top = track.encodings.get(usize::from(after.encoding.0)).map_or(0, |encoding| encoding.rates.top_spatial());
    let size = |layer: Layer| match before.encoding == after.encoding {
        true => layer.spatial.min(top),
        false => layer.encoding.0,
    };
    Switches { up: u64::from(size(after) > size(before)), down: u64::from(size(after) < size(before)) }
}

/// Looks which of these slots have frozen. How many.
pub fn count_freezes(seats: &mut [Option<Participant>], slots: &[(Seat, SlotIndex)], now: Instant) -> u64 {
    let mut freezes = 0;
    for (seat, slot) in slots {
        let participant = seats.get_mut(usize::from(seat.0)).and_then(Option::as_mut);
        let slot = participant.and_then(|participant| participant.slots.get_mut(usize::from(slot.0)));
        freezes += u64::from(slot.is_some_and(|slot| slot.freeze.look(now)));
    }
    freezes
}

/// A participant's quality as far as a room knows it, and where to ask for the rest.
#[derive(Debug)]
pub struct Observed {
    pub peer: PeerKey,
    /// In the order of what they publish.
    pub tracks: Vec<TrackKey>,
    pub quality: ParticipantQuality,
}

impl Room {
    /// What viewers noticed.
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// How many get less than they wish for because of their networks.
    pub fn num_limited(&self) -> usize {
        self.participants().filter(|(_, participant)| participant.means.balance().2).count()
    }

    /// How well it goes for each participant, in order of joining.
    pub fn observe(&self, now: Instant) -> Vec<Observed> {
        let mut participants: Vec<_> = self.participants().map(|(_, participant)| participant).collect();
        participants.sort_by_key(|participant| participant.connected_at.unwrap_or(participant.admitted_at));
        participants.into_iter().map(|participant| self.observe_one(participant, now)).collect()
    }

    fn observe_one(&self, participant: &Participant, now: Instant) -> Observed {
        let (spent_bps, demand_bps, limited) = participant.means.balance();
        let known = participant.tracks.iter().filter_map(|key| Some((*key, self.track(*key)?.quality(now))));
        let (tracks, published) = known.unzip();
        let received = participant.slots.iter().map(|slot| self.received(slot)).collect();
        let quality = ParticipantQuality {
            identity: participant.profile.identity.clone(),
            sid: participant.sid,
            session: participant.session,
            state: participant.state,
            network: NetworkQuality::default(),
            demand_bps,
            spent_bps,
            limited,
            published,
            received,
        };
        Observed { peer: participant.peer, tracks, quality }
    }

    fn received(&self, slot: &Slot) -> ReceivedQuality {
        let info = self.slot_info(slot);
        ReceivedQuality {
            mid: info.mid,
            kind: info.kind,
            track: info.track,
            participant: info.participant,
            state: info.state,
            layer: info.layer,
            switches_up: slot.switches.up,
            switches_down: slot.switches.down,
            sent: SentQuality::default(),
            keyframe_requests: slot.keyframes_wanted,
        }
    }

    /// A picture that is to be seen stands still from now on.
    pub(super) fn freeze(&mut self, seat: Seat, index: SlotIndex, stall: Stall, now: Instant) {
        let slot = self.participant(seat).and_then(|participant| participant.slots.get(usize::from(index.0)));
        let track = slot.filter(|slot| slot.flows()).and_then(|slot| self.track(slot.binding?.track));
        if track.is_some_and(|track| track.kind == MediaKind::Video && !track.muted)
            && let Some(slot) = self.slot_mut(seat, index)
        {
            slot.freeze.begin(stall, now);
        }
    }

    /// All who see this encoding see it stand still.
    pub(super) fn freeze_viewers(&mut self, key: TrackKey, encoding: EncodingIndex, now: Instant) {
        let Some(track) = self.track(key) else { return };
        for (seat, index) in track.subscribers.clone() {
            let binding = self.slot_mut(seat, index).and_then(|slot| slot.binding);
            if binding.is_some_and(|binding| binding.current == Some(encoding)) {
                self.freeze(seat, index, Stall::Undecodable, now);
            }
        }
    }
}

impl Track {
    fn quality(&self, now: Instant) -> PublishedQuality {
        let encoding = |(index, encoding): (usize, &Encoding)| {
            let active = self.comes(EncodingIndex(index as u8), now);
            let (width, height) = encoding.rates.size(encoding.rates.top_spatial()).unzip();
            EncodingQuality {
                rid: encoding.rid.clone(),
                active,
                bitrate_bps: (active && encoding.rates.is_measured()).then(|| encoding.rates.total()),
                width,
                height,
                frames: (self.kind == MediaKind::Video).then_some(encoding.intake.pictures),
                lost: None,
                jitter_ms: None,
                keyframe_requests: encoding.keyframes.sent(),
                packets: encoding.intake.volume.packets,
                bytes: encoding.intake.volume.bytes,
            }
        };
        PublishedQuality {
            track: self.sid,
            kind: self.kind,
            source: self.source,
            codec: self.codec.as_str(),
            muted: self.muted,
            encodings: self.encodings.iter().enumerate().map(encoding).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
