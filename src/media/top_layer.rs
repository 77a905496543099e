//! Notices soon when a publisher stops the highest spatial layer of an encoding while the lower ones go on.
//!
//! Encoders stop it without a keyframe when their bandwidth falls (libvpx as WebRTC uses it does). Where the layers need
//! each other in keyframes only, whoever was sent the highest alone then sees nothing until the next keyframe; to wait
//! for [`LayerRates`](super::rates::LayerRates) to notice takes seconds.

use std::time::{Duration, Instant};

use super::packet::{Frame, Scheme};

/// So many pictures in a row without the layer, and at least so long since its last packet, mean that it has ceased.
///
/// A frame of it may be missing for less: rate control drops frames of one layer alone, libvpx two in a row and libaom
/// for 250 ms; a publisher may send it at the lowest frame rate only, every fourth picture with three temporal layers; and
/// what is lost is sent again, one round trip and a NACK later. The time covers these at usual frame rates, the count
/// at low ones and after a silence of the whole encoding, which says nothing about one layer.
const PICTURES: u8 = 5;
const SILENCE: Duration = Duration::from_millis(300);

/// The highest spatial layer of an encoding that comes.
#[derive(Debug, Default)]
pub struct TopLayer {
    layer: u8,
    /// When it last came.
    heard_at: Option<Instant>,
    /// Pictures begun since, and the highest layer they had.
    missed: u8,
    below: u8,
}

impl TopLayer {
    /// Which one it is.
    pub fn layer(&self) -> u8 {
        self.layer
    }

    /// A packet came, the first of a new picture maybe. Whether the highest layer has ceased, and a lower one is the
    /// highest now.
    pub fn note(&mut self, frame: &Frame, begins_picture: bool, now: Instant) -> bool {
        if frame.spatial >= self.layer {
            *self = Self { layer: frame.spatial, heard_at: Some(now), ..Self::default() };
            return false;
        }
        self.below = self.below.max(frame.spatial);
        begins_picture && self.miss(frame, now)
    }

    fn miss(&mut self, frame: &Frame, now: Instant) -> bool {
        self.missed = self.missed.saturating_add(1);
        // The publisher itself says it with the first picture.
        let told = match &frame.scheme {
            Scheme::Targets(targets) => Some(targets.top_spatial()).filter(|top| *top < self.layer),
            _ => None,
        };
        let is_silent = self.heard_at.is_none_or(|at| now.saturating_duration_since(at) >= SILENCE);
        let Some(layer) = told.or((self.missed > PICTURES && is_silent).then_some(self.below)) else { return false };
        *self = Self { layer, heard_at: Some(now), ..Self::default() };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{MAX_CHAINS, MAX_TARGETS, Targets};

    const LAYERS: u8 = 3;
    const STOPS: u32 = 40;

    /// Decode targets of three spatial layers, of which so many are sent.
    fn targets(layers: u8) -> Scheme {
        let mut layout = [0; MAX_TARGETS];
        (0..LAYERS).for_each(|spatial| layout[usize::from(spatial)] = Targets::pack(spatial, 0, spatial));
        let active = (1 << layers) - 1;
        Scheme::Targets(Targets { count: LAYERS, indications: 0, active, chain_diffs: [0; MAX_CHAINS], layout })
    }

    /// Plays 200 pictures of two packets a layer, `layers` of each. When it is noticed that the highest has ceased: in ms
    /// after the 40th picture, with the layer that is left.
    fn play(fps: u32, layers: impl Fn(u32) -> (u8, Scheme)) -> Vec<(u32, u8)> {
        let t0 = Instant::now();
        let (mut top, mut noticed) = (TopLayer::default(), Vec::new());
        for picture in 0..200 {
            let at_ms = picture * 1000 / fps;
            let (count, scheme) = layers(picture);
            for packet in 0..2 * count {
                let frame = Frame { spatial: packet / 2, scheme, ..Frame::default() };
                if top.note(&frame, packet == 0, t0 + Duration::from_millis(at_ms.into())) {
                    noticed.push((at_ms.saturating_sub((STOPS - 1) * 1000 / fps), top.layer()));
                }
            }
        }
        noticed
    }

    #[test]
    fn a_layer_that_stops_is_missed_once_and_soon() {
        let stops = |left| move |picture| (if picture < STOPS { LAYERS } else { left }, Scheme::Whole);
        for (fps, left, expected) in [(60, 2, 300), (30, 2, 300), (30, 1, 300), (15, 2, 400), (7, 2, 857), (2, 2, 3000)]
        {
            let noticed = play(fps, stops(left));
            let soon = |(at_ms, layer): &(u32, u8)| (expected..expected + 34).contains(at_ms) && *layer == left - 1;
            assert!(noticed.len() == 1 && noticed.iter().all(soon), "{fps} frames a second: {noticed:?}");
        }
    }

    #[test]
    fn each_stop_is_missed() {
        let layers = |picture| match picture {
            0..STOPS | 80..120 => 3,
            STOPS..60 | 120.. => 2,
            60..80 => 1,
        };
        let noticed: Vec<u8> =
            play(30, |picture| (layers(picture), Scheme::Whole)).iter().map(|(_, top)| *top).collect();
        assert_eq!(noticed, [1, 0, 1]);
    }

    #[test]
    fn frames_that_are_left_out_or_lost_are_no_stop() {
        type Layers = fn(u32) -> u8;
        let cases: [(&str, u32, Layers); 6] = [
            ("one layer only", 30, |_| 1),
            ("libvpx drops two frames in a row", 30, |picture| if picture % 3 == 0 { 3 } else { 2 }),
            ("libaom drops frames for 250 ms", 30, |picture| if picture % 8 == 0 { 3 } else { 2 }),
            ("the same at 60 frames a second", 60, |picture| if picture % 16 == 0 { 3 } else { 2 }),
            ("only temporal layer 0 has it, at 7 frames a second", 7, |picture| if picture % 4 == 0 { 3 } else { 2 }),
            ("the encoding is silent for two seconds", 30, |picture| if (60..120).contains(&picture) { 0 } else { 3 }),
        ];
        for (name, fps, layers) in cases {
            assert_eq!(play(fps, |picture| (layers(picture), Scheme::Whole)), [], "{name}");
        }
    }

    #[test]
    fn what_the_publisher_says_counts_at_once() {
        let told = play(30, |picture| if picture < STOPS { (3, targets(3)) } else { (2, targets(2)) });
        assert_eq!(told, [(33, 1)], "with the first picture without it");
        let untold = play(30, |picture| (if picture < STOPS { 3 } else { 2 }, targets(3)));
        assert!(matches!(untold.as_slice(), [(300..334, 1)]), "{untold:?}");
    }
}
