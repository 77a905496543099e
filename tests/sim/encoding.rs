//! How an adaptive camera encodes: three sizes, three temporal layers each, frames of uneven size, key frames on request.

use std::time::Duration;

use crate::descriptor::{Vp8, Vp9};
use crate::rng::Rng;
use crate::stamp::{Place, Stamp};

/// 30 frames a second.
pub const FRAME_TIME: Duration = Duration::from_nanos(33_333_333);
pub const FRAME_TICKS: u32 = 3_000;
const FRAMES_PER_SECOND: f64 = 30.0;
/// Of a frame's packet, before RTP: libwebrtc's least common choice leaves room for any path.
const PAYLOAD_BYTES: usize = 1_100;
/// A key frame, in delta frames.
const KEYFRAME_FACTOR: f64 = 5.0;
/// What a key frame took too much, rate control saves again, this share of each frame.
const SAVING: f64 = 0.15;
/// libvpx gives the temporal layers 40, 60 and 100 % of the rate; per frame that is so much of the mean.
const TEMPORAL_SHARES: [f64; 3] = [1.6, 0.8, 0.8];

/// One size of the camera.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub resolution: (u16, u16),
    pub bits_per_second: f64,
}

/// Lowest first: `q`, `h`, `f`, or the spatial layers.
pub const STEPS: [Step; 3] = [
    Step { resolution: (320, 180), bits_per_second: 150e3 },
    Step { resolution: (640, 360), bits_per_second: 500e3 },
    Step { resolution: (1280, 720), bits_per_second: 1_700e3 },
];

/// What kind of camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ladder {
    /// Three VP8 encodings, three temporal layers each (L1T3).
    Vp8,
    /// One VP9 encoding with three spatial layers, which refer to each other in key pictures only (L3T3_KEY).
    Vp9,
    /// The same with layers that refer to each other in every picture (L3T3).
    Vp9Full,
}

impl Ladder {
    /// Whether the ladder's steps are encodings of their own.
    pub fn is_simulcast(self) -> bool {
        self == Self::Vp8
    }
}

/// A VP8 frame's layer, whether it is a sync point, and its references, by its place after the key frame: libwebrtc's
/// pattern of eight, in which the upper layers refer to their own kind from the second round on.
const VP8_PATTERN: [(u8, bool, [u8; 2]); 8] = [
    (0, false, [4, 0]),
    (2, true, [1, 0]),
    (1, true, [2, 0]),
    (2, false, [1, 3]),
    (0, false, [4, 0]),
    (2, false, [1, 3]),
    (1, false, [2, 4]),
    (2, false, [1, 3]),
];
/// The same of VP9, for each spatial layer; every frame is a point to switch up.
const VP9_PATTERN: [(u8, [u8; 2]); 4] = [(0, [4, 0]), (2, [1, 0]), (1, [2, 0]), (2, [1, 0])];

/// One encoding's state.
#[derive(Debug)]
pub struct Encoding {
    ladder: Ladder,
    step: usize,
    rng: Rng,
    /// The last key frame's number.
    key: Option<u32>,
    picture_id: u16,
    tl0_pic_idx: u8,
    key_idx: u8,
    /// Bytes that key frames took too much.
    debt: f64,
    /// Spatial layers that are made.
    layers: usize,
    /// Which of the last frames each of them has, the latest lowest; and the number of its last one in temporal layer 0.
    made: [u32; STEPS.len()],
    bases: [u32; STEPS.len()],
    /// How many frames in a row rate control may leave out of the top layer, and how many it still does.
    longest_drop: u64,
    dropping: u64,
}

impl Encoding {
    /// The `step`-th of a simulcast camera, or the only one.
    pub fn new(ladder: Ladder, step: usize, mut rng: Rng) -> Self {
        Self {
            ladder,
            step,
            key: None,
            picture_id: rng.within(0..0x8000) as u16,
            tl0_pic_idx: rng.within(0..256) as u8,
            key_idx: rng.within(0..32) as u8,
            debt: 0.0,
            layers: STEPS.len(),
            made: [0; STEPS.len()],
            bases: [0; STEPS.len()],
            longest_drop: 0,
            dropping: 0,
            rng,
        }
    }

    /// From now on so many spatial layers are made. As libvpx does it, a layer stops without a key frame, and what
    /// refers to lower ones in key pictures only begins again with one.
    pub fn set_layers(&mut self, layers: usize) {
        if layers > self.layers && self.ladder == Ladder::Vp9 {
            self.key = None;
        }
        self.layers = layers;
    }

    /// From now on rate control leaves frames of the top layer alone out, at most so many in a row.
    pub fn set_longest_drop(&mut self, frames: u64) {
        self.longest_drop = frames;
    }

    /// The payloads of a frame, of all its spatial layers. The stamp says all but the frame's inside.
    pub fn frame(&mut self, stamp: Stamp, keyframe: bool) -> Vec<Vec<u8>> {
        let keyframe = keyframe || self.key.is_none();
        if keyframe {
            self.key = Some(stamp.frame);
            self.key_idx = self.key_idx.wrapping_add(1) & 0x1f;
        }
        let place = (stamp.frame - self.key.unwrap_or(stamp.frame)) as usize;
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        match self.ladder {
            Ladder::Vp8 => self.vp8(stamp, keyframe, place),
            Ladder::Vp9 | Ladder::Vp9Full => self.vp9(stamp, keyframe, place),
        }
    }

    fn vp8(&mut self, stamp: Stamp, keyframe: bool, place: usize) -> Vec<Vec<u8>> {
        let (temporal, sync, references) = VP8_PATTERN[place % VP8_PATTERN.len()];
        let references = if keyframe { [0, 0] } else { references };
        self.count_base(temporal);
        let place = Place { spatial: 0, temporal, references, inter_layer: false };
        let size = self.frame_bytes(self.step, temporal, keyframe);
        let descriptor = Vp8 {
            starts: false,
            picture_id: self.picture_id,
            tl0_pic_idx: self.tl0_pic_idx,
            temporal,
            sync: sync || keyframe,
            key_idx: self.key_idx,
        };
        let resolution = STEPS[self.step].resolution;
        let cut = cut(Stamp { keyframe, place, ..stamp }, size);
        cut.map(|(stamp, size)| stamp.vp8_layered(Vp8 { starts: stamp.packet == 0, ..descriptor }, resolution, size))
            .collect()
    }

    fn vp9(&mut self, stamp: Stamp, key: bool, place: usize) -> Vec<Vec<u8>> {
        let (temporal, [back, _]) = VP9_PATTERN[place % VP9_PATTERN.len()];
        self.count_base(temporal);
        if key {
            self.made = [0; STEPS.len()];
        }
        let is_full = self.ladder == Ladder::Vp9Full;
        let layers = self.layers - usize::from(self.drops_top(key));
        let mut payloads = Vec::new();
        for step in 0..layers {
            let inter_layer = step > 0 && (key || is_full);
            let references = [if key { 0 } else { self.reference(step, stamp.frame, back) }, 0];
            let place = Place { spatial: step as u8, temporal, references, inter_layer };
            let serial = stamp.serial + payloads.len() as u32;
            let size = self.frame_bytes(step, temporal, key);
            for (stamp, size) in cut(Stamp { keyframe: key && step == 0, place, serial, ..stamp }, size) {
                let starts = stamp.packet == 0;
                let descriptor = Vp9 {
                    picture_id: self.picture_id,
                    tl0_pic_idx: self.tl0_pic_idx,
                    temporal,
                    spatial: step as u8,
                    switch_up: true,
                    inter_picture: references != [0, 0],
                    inter_layer,
                    starts,
                    ends: stamp.packet + 1 == stamp.packets,
                    top: !(key || is_full) || step + 1 == STEPS.len(),
                    structure: (key && step == 0 && starts).then(|| STEPS.map(|step| step.resolution)),
                };
                payloads.push(stamp.vp9(descriptor, size));
            }
        }
        for step in 0..STEPS.len() {
            self.made[step] = self.made[step] << 1 | u32::from(step < layers);
            if step < layers && temporal == 0 {
                self.bases[step] = stamp.frame;
            }
        }
        payloads
    }

    /// Whether this frame has no top layer.
    fn drops_top(&mut self, key: bool) -> bool {
        if key || self.longest_drop == 0 {
            self.dropping = 0;
            return false;
        }
        if self.dropping == 0 && self.rng.percent(10) {
            self.dropping = self.rng.within(1..self.longest_drop + 1) + 1;
        }
        self.dropping = self.dropping.saturating_sub(1);
        self.dropping > 0
    }

    /// How far back a frame of a spatial layer refers, which would be `back` if that were there. Else it is the last frame
    /// of temporal layer 0 or, where the layer below will do, nothing.
    fn reference(&self, step: usize, frame: u32, back: u8) -> u8 {
        let is_made = self.made[step] >> (back - 1) & 1 == 1;
        match () {
            () if is_made => back,
            () if self.ladder == Ladder::Vp9Full && step > 0 => 0,
            () => u8::try_from(frame - self.bases[step]).unwrap_or(0),
        }
    }

    fn count_base(&mut self, temporal: u8) {
        if temporal == 0 {
            self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        }
    }

    fn frame_bytes(&mut self, step: usize, temporal: u8, keyframe: bool) -> usize {
        let mean = STEPS[step].bits_per_second / 8.0 / FRAMES_PER_SECOND;
        let wobble = self.rng.within(850..1151) as f64 / 1000.0;
        if keyframe {
            self.debt += mean * (KEYFRAME_FACTOR - 1.0);
            return (mean * KEYFRAME_FACTOR * wobble) as usize;
        }
        let saved = (mean * SAVING).min(self.debt);
        self.debt -= saved;
        ((mean * TEMPORAL_SHARES[usize::from(temporal)] - saved) * wobble) as usize
    }
}

/// A frame in packets of equal size: each one's stamp and size.
fn cut(stamp: Stamp, bytes: usize) -> impl Iterator<Item = (Stamp, usize)> {
    let packets = bytes.div_ceil(PAYLOAD_BYTES).max(1);
    let size = bytes / packets;
    (0..packets).map(move |packet| {
        let serial = stamp.serial + packet as u32;
        (Stamp { packet: packet as u8, packets: packets as u8, serial, ..stamp }, size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::TrackKey;

    fn stamp(frame: u32, serial: u32) -> Stamp {
        let track = TrackKey { client: 0, number: 1 };
        Stamp { track, layer: 0, frame, packet: 0, packets: 1, keyframe: false, serial, place: Place::default() }
    }

    #[test]
    fn an_encoding_keeps_its_rate_and_its_order() {
        let cases = [
            (Ladder::Vp8, 2, 1_700e3),
            (Ladder::Vp8, 0, 150e3),
            (Ladder::Vp9, 0, 2_350e3),
            (Ladder::Vp9Full, 0, 2_350e3),
        ];
        for (ladder, step, expected) in cases {
            let mut encoding = Encoding::new(ladder, step, Rng::new(1, "encoding"));
            let (mut bytes, mut serial) = (0, 0);
            let mut last = None;
            for frame in 0..900 {
                for payload in encoding.frame(stamp(frame, serial), frame == 450) {
                    let (read, described) = Stamp::parse_layered(&payload).expect("it reads back");
                    assert_eq!((read.frame, read.serial, read.place.temporal), (frame, serial, described.temporal));
                    assert!(payload.len() <= PAYLOAD_BYTES, "{} bytes", payload.len());
                    if let Some((frame_before, before)) = last.filter(|(frame_before, _)| *frame_before != frame) {
                        assert_eq!((before + 1) & 0x7fff, described.picture_id, "{frame_before} then {frame}");
                    }
                    last = Some((frame, described.picture_id));
                    bytes += payload.len();
                    serial += 1;
                }
            }
            let rate = bytes as f64 * 8.0 / 30.0;
            assert!((rate / expected - 1.0).abs() < 0.06, "{ladder:?} {step}: {rate} bit/s");
        }
    }
}
