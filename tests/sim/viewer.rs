//! What somebody sees in a slot: which frames can be decoded, when, and how good they are.
//!
//! A frame is decodable if it is whole and what it refers to has been decoded. Like libwebrtc's, the decoder takes the
//! next decodable frame when its time has come: a hole is waited for as long as the jitter buffer is deep, then passed
//! over if something behind it can be decoded. It asks for a key frame when no picture could be decoded to its end, the
//! highest of its spatial layers, for 200 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use str0m::rtp::RtpPacket;

use crate::continuity::{Continuity, Seen};
use crate::descriptor::Described;
use crate::encoding::STEPS;
use crate::stamp::{Stamp, TrackKey};

/// How long a decodable frame waits for those before it.
const JITTER_BUFFER: Duration = Duration::from_millis(100);
/// How long nothing is decoded before a key frame is asked for, and asked for again.
const PATIENCE: Duration = Duration::from_millis(200);
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Frames kept that cannot be decoded, and decoded ones that may be referred to.
const WAITING: usize = 400;
const REFERENCES: usize = 48;

/// What a receiver reads off a packet.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub stamp: Stamp,
    pub described: Described,
}

impl Received {
    /// Reads a packet of an adaptive camera.
    pub fn parse(packet: &RtpPacket) -> Result<Self, &'static str> {
        let (stamp, described) = Stamp::parse_layered(&packet.payload)?;
        let (sequence, timestamp) = (*packet.seq_no, packet.header.timestamp);
        Ok(Self { sequence, timestamp, marker: packet.header.marker, stamp, described })
    }
}

/// A picture that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub at: Instant,
    pub track: TrackKey,
    /// Place in the camera's ladder: the encoding or the spatial layer.
    pub step: usize,
    pub temporal: u8,
    frame: u32,
}

impl Shown {
    pub fn height(&self) -> u16 {
        STEPS[self.step].resolution.1
    }
}

/// A slot's decoder and its diary.
#[derive(Debug, Default)]
pub struct Viewer {
    /// By the sequence number of the first packet.
    frames: BTreeMap<u64, Assembly>,
    /// Decoded frames of the encoding that is shown: number and spatial layer.
    decoded: BTreeSet<(u32, u8)>,
    source: Option<(TrackKey, usize)>,
    /// Sequence number of the last packet that was decoded.
    end: Option<u64>,
    stuck_since: Option<Instant>,
    requested: Option<Instant>,
    last_packet: Option<Instant>,
    pub continuity: Continuity,
    /// Frames whose end never came though nothing was lost: the server went over to another encoding inside them.
    pub cut_short: u64,
    /// Pictures shown, in order.
    pub shown: Vec<Shown>,
    /// When packets came, of audio.
    pub arrivals: Vec<Instant>,
    pub keyframe_requests: Vec<Instant>,
}

/// A frame that is being put together.
#[derive(Debug)]
struct Assembly {
    stamp: Stamp,
    described: Described,
    timestamp: u32,
    marker: bool,
    have: u64,
    completed: Option<Instant>,
}

impl Assembly {
    fn last(&self, first: u64) -> u64 {
        first + u64::from(self.stamp.packets) - 1
    }

    fn belongs(&self, packet: &Received) -> bool {
        let of = |stamp: &Stamp| (stamp.track, stamp.layer, stamp.frame, stamp.place.spatial);
        of(&self.stamp) == of(&packet.stamp) && self.timestamp == packet.timestamp && self.described == packet.described
    }
}

impl Viewer {
    /// Takes a packet of audio.
    pub fn hear(&mut self, now: Instant) {
        self.arrivals.push(now);
    }

    /// Takes a packet of video.
    pub fn receive(&mut self, packet: Received, now: Instant) {
        self.last_packet = Some(now);
        self.stuck_since.get_or_insert(now);
        let Some(first) = packet.sequence.checked_sub(u64::from(packet.stamp.packet)) else {
            return self.continuity.add("a stream begins inside a frame, near zero");
        };
        if self.end.is_some_and(|end| packet.sequence <= end) {
            return;
        }
        let (stamp, described) = (packet.stamp, packet.described);
        if !self.frames.contains_key(&first) {
            self.notice_cut(first, first + u64::from(stamp.packets) - 1);
        }
        let frame = self.frames.entry(first).or_insert(Assembly {
            stamp,
            described,
            timestamp: packet.timestamp,
            marker: false,
            have: 0,
            completed: None,
        });
        if !frame.belongs(&packet) {
            return self.continuity.add("a frame's packets do not belong together");
        }
        frame.have |= 1 << stamp.packet;
        if stamp.packet + 1 == stamp.packets {
            frame.marker = packet.marker;
        } else if packet.marker {
            self.continuity.add("the marker stands inside a frame");
        }
        if frame.completed.is_none() && frame.have.count_ones() == u32::from(stamp.packets) {
            frame.completed = Some(now);
            let (last, marker) = (frame.last(first), frame.marker);
            self.continuity.complete(first, Seen { stamp, described, timestamp: packet.timestamp, last, marker });
            self.decode(now);
        }
        while self.frames.len() > WAITING {
            self.frames.pop_first();
        }
    }

    /// Whether a new frame takes numbers that a frame beside it should have: then one of them will never be whole.
    fn notice_cut(&mut self, first: u64, last: u64) {
        let before = self.frames.range(..first).next_back().is_some_and(|(at, frame)| frame.last(*at) >= first);
        let after = self.frames.range(first + 1..).next().is_some_and(|(at, _)| *at <= last);
        self.cut_short += u64::from(before) + u64::from(after);
    }

    fn is_decodable(&self, stamp: &Stamp) -> bool {
        if stamp.keyframe {
            return true;
        }
        let place = stamp.place;
        let is_decoded =
            |frame: Option<u32>, spatial: u8| frame.is_some_and(|frame| self.decoded.contains(&(frame, spatial)));
        let mut references = place.references.into_iter().filter(|back| *back > 0);
        self.source == Some((stamp.track, stamp.layer))
            && references.all(|back| is_decoded(stamp.frame.checked_sub(u32::from(back)), place.spatial))
            && (!place.inter_layer || place.spatial.checked_sub(1).is_some_and(|b| is_decoded(Some(stamp.frame), b)))
    }

    /// The next frame to decode, if its time has come.
    fn next(&self, now: Instant) -> Option<u64> {
        let mut hole = false;
        let mut expected = self.end.map(|end| end + 1);
        for (first, frame) in &self.frames {
            hole |= expected.is_some_and(|expected| expected != *first);
            match frame.completed {
                Some(completed) if self.is_decodable(&frame.stamp) => {
                    return (!hole || now >= completed + JITTER_BUFFER).then_some(*first);
                }
                Some(_) => {}
                None => hole = true,
            }
            expected = Some(frame.last(*first) + 1);
        }
        None
    }

    /// Decodes what can be decoded by now.
    pub fn decode(&mut self, now: Instant) {
        while let Some(first) = self.next(now) {
            let rest = self.frames.split_off(&(first + 1));
            let frame = std::mem::replace(&mut self.frames, rest).remove(&first).expect("it has just been found");
            let stamp = frame.stamp;
            if stamp.keyframe {
                self.decoded.clear();
                self.source = Some((stamp.track, stamp.layer));
            }
            self.decoded.insert((stamp.frame, stamp.place.spatial));
            if self.decoded.len() > REFERENCES {
                self.decoded.pop_first();
            }
            self.end = Some(frame.last(first));
            if frame.marker {
                self.stuck_since = None;
            }
            self.show(&stamp, now);
        }
    }

    /// Spatial layers of one picture are one picture shown.
    fn show(&mut self, stamp: &Stamp, now: Instant) {
        let step = stamp.layer + usize::from(stamp.place.spatial);
        let shown = Shown { at: now, track: stamp.track, step, temporal: stamp.place.temporal, frame: stamp.frame };
        match self.shown.last_mut() {
            Some(last) if stamp.place.spatial > 0 && (last.track, last.frame) == (shown.track, shown.frame) => {
                *last = Shown { at: last.at, ..shown };
            }
            _ => self.shown.push(shown),
        }
    }

    /// Whether to ask for a key frame now.
    pub fn asks_for_keyframe(&mut self, now: Instant) -> bool {
        let asks = self.stuck_since.is_some_and(|since| now >= since + PATIENCE)
            && self.last_packet.is_some_and(|last| now < last + REQUEST_INTERVAL)
            && self.requested.is_none_or(|last| now >= last + REQUEST_INTERVAL);
        if asks {
            self.requested = Some(now);
            self.keyframe_requests.push(now);
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Encoding, Ladder};
    use crate::rng::Rng;
    use crate::seal;
    use crate::stamp::Place;

    /// Each frame's packets, ready to receive.
    fn frames(ladder: Ladder, count: u32) -> Vec<Vec<Received>> {
        let mut encoding = Encoding::new(ladder, 0, Rng::new(3, "viewer"));
        let mut sequence = 1_000;
        let mut frame = |frame: u32| {
            let track = TrackKey { client: 1, number: 0 };
            let place = Place::default();
            let serial = sequence as u32;
            let stamp = Stamp { track, layer: 0, frame, packet: 0, packets: 1, keyframe: false, serial, place };
            let payloads = encoding.frame(stamp, false);
            let count = payloads.len();
            let packets = payloads.iter().enumerate().map(|(index, payload)| {
                let (stamp, described) = Stamp::parse_layered(payload).expect("it reads back");
                let (timestamp, marker) = (frame * 3000, index + 1 == count);
                sequence += 1;
                Received { sequence, timestamp, marker, stamp, described }
            });
            packets.collect()
        };
        (0..count).map(&mut frame).collect()
    }

    /// Plays frames at their time; those in `lost` never come.
    fn play(ladder: Ladder, lost: &'static [u32]) -> Viewer {
        seal::sealed(1, move |start| {
            let mut viewer = Viewer::default();
            for (number, packets) in frames(ladder, 90).into_iter().enumerate() {
                let now = start + Duration::from_millis(33) * number as u32;
                for packet in packets.into_iter().filter(|_| !lost.contains(&(number as u32))) {
                    viewer.receive(packet, now);
                }
                viewer.decode(now);
                viewer.asks_for_keyframe(now);
            }
            viewer
        })
    }

    #[test]
    fn everything_whole_is_shown() {
        for (ladder, step) in [(Ladder::Vp8, 0), (Ladder::Vp9, 2), (Ladder::Vp9Full, 2)] {
            let viewer = play(ladder, &[]);
            assert_eq!(viewer.shown.len(), 90);
            assert!(viewer.shown.iter().all(|shown| shown.step == step));
            assert!(viewer.continuity.breaks.is_empty(), "{:?}", viewer.continuity.breaks);
            assert!(viewer.keyframe_requests.is_empty());
        }
    }

    #[test]
    fn a_lost_frame_costs_what_refers_to_it() {
        // Of layer 2: nothing else. Of layer 1: one of layer 2, and with the next round its own kind and what needs
        // that. Of layer 0: everything.
        assert_eq!(play(Ladder::Vp8, &[41]).shown.len(), 89);
        assert_eq!(play(Ladder::Vp8, &[42]).shown.len(), 85);
        let stuck = play(Ladder::Vp8, &[44]);
        assert_eq!(stuck.shown.len(), 44);
        assert_eq!(stuck.keyframe_requests.len(), 2);
        assert!(stuck.continuity.breaks.is_empty(), "loss is not the server's fault: {:?}", stuck.continuity.breaks);
    }
}
