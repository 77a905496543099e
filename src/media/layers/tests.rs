//! Tests of [`super`].

use std::time::Instant;

use super::*;
use crate::media::packet::{Codec, FrameNumbers};

const LOW: EncodingIndex = EncodingIndex(0);

fn layer(spatial: u8, temporal: u8) -> Layer {
    Layer { encoding: LOW, spatial, temporal }
}

fn packet(codec: Codec, timestamp: u32, frame: Frame) -> Packet {
    Packet {
        ssrc: 1,
        seq: 0,
        timestamp,
        codec,
        bytes: 100,
        keyframe: false,
        level: None,
        captured_at: Instant::now(),
        frame,
        size: None,
    }
}

fn vp8(timestamp: u32, temporal: u8, sync: bool) -> Packet {
    let scheme = Scheme::Temporal { sync };
    packet(Codec::Vp8, timestamp, Frame { starts: true, ends: true, temporal, scheme, ..Frame::default() })
}

fn is_sent(choice: Choice) -> bool {
    matches!(choice, Choice::Send { .. })
}

#[test]
fn vp8_frame_rate_falls_at_a_frame_and_rises_where_a_decoder_can_follow() {
    let mut selector = LayerSelector::default();
    selector.begin(&vp8(0, 0, true), layer(0, 2));
    // What libvpx sends with three temporal layers: 0 2 1 2, where the first 2 and the 1 depend on 0 only.
    let pattern = [(0, false), (2, true), (1, true), (2, false)];
    let mut send = |n: usize, target| {
        let (temporal, sync) = pattern[n % 4];
        is_sent(selector.choose(&vp8(n as u32, temporal, sync), target))
    };
    assert_eq!([0, 1, 2, 3].map(|n| send(n, layer(0, 2))), [true; 4]);
    assert_eq!([4, 5, 6, 7].map(|n| send(n, layer(0, 0))), [true, false, false, false]);
    assert_eq!([8, 9, 10, 11].map(|n| send(n, layer(0, 1))), [true, false, true, false]);
    // Frame 15 depends on 14, which is sent; 13 says that it depends on 12 only.
    assert_eq!([12, 13, 14, 15].map(|n| send(n, layer(0, 2))), [true; 4]);
}

#[test]
fn a_picture_left_out_is_told_once() {
    let mut selector = LayerSelector::default();
    selector.begin(&vp8(0, 0, true), layer(0, 0));
    let first = vp8(1, 2, true);
    let mut second = first;
    second.frame.starts = false;
    assert_eq!(selector.choose(&first, layer(0, 0)), Choice::Skip { picture: true });
    assert_eq!(selector.choose(&second, layer(0, 0)), Choice::Skip { picture: false });
}

// ---- VP9 -------------------------------------------------------------------------------------------------------------

/// Spatial layers of one picture, one packet each.
fn vp9(timestamp: u32, layers: u8, unneeded_above: bool) -> Vec<Packet> {
    let frame = |spatial| Frame {
        starts: true,
        ends: true,
        spatial,
        scheme: Scheme::Spatial { sync: false, unneeded_above },
        ..Frame::default()
    };
    (0..layers).map(|spatial| packet(Codec::Vp9, timestamp, frame(spatial))).collect()
}

fn begin_vp9(target: Layer, layers: u8) -> LayerSelector {
    let mut selector = LayerSelector::default();
    let picture = vp9(0, layers, false);
    selector.begin(&picture[0], target);
    picture.iter().for_each(|packet| _ = selector.choose(packet, target));
    selector
}

fn choose_all(selector: &mut LayerSelector, picture: &[Packet], target: Layer) -> Vec<Option<bool>> {
    let choices = picture.iter().map(|packet| selector.choose(packet, target));
    choices.map(|choice| if let Choice::Send { mark, .. } = choice { Some(mark) } else { None }).collect()
}

#[test]
fn the_highest_layer_that_is_sent_ends_the_picture() {
    let mut selector = begin_vp9(layer(1, 0), 3);
    let chosen = choose_all(&mut selector, &vp9(3000, 3, false), layer(1, 0));
    assert_eq!(chosen, [Some(false), Some(true), None]);
}

#[test]
fn a_lower_layer_is_taken_at_once_where_all_of_it_has_been_sent() {
    let mut selector = begin_vp9(layer(2, 0), 3);
    assert!(!selector.needs_keyframe(layer(0, 0)));
    assert_eq!(choose_all(&mut selector, &vp9(3000, 3, false), layer(0, 0)), [Some(true), None, None]);
    assert!(selector.needs_keyframe(layer(2, 0)));
    assert_eq!(choose_all(&mut selector, &vp9(6000, 3, false), layer(2, 0)), [Some(true), None, None]);
}

#[test]
fn layers_that_stand_alone_are_sent_alone_and_left_by_a_keyframe() {
    let mut selector = begin_vp9(layer(2, 0), 3);
    assert_eq!(choose_all(&mut selector, &vp9(3000, 3, true), layer(2, 0)), [None, None, Some(true)]);
    assert!(selector.needs_keyframe(layer(0, 0)));
    assert_eq!(choose_all(&mut selector, &vp9(6000, 3, true), layer(0, 0)), [None, None, Some(true)]);
    let key = vp9(9000, 3, false);
    selector.begin(&key[0], layer(0, 0));
    assert_eq!(choose_all(&mut selector, &key, layer(0, 0)), [Some(true), None, None]);
    assert_eq!(choose_all(&mut selector, &vp9(12_000, 3, true), layer(0, 0)), [Some(true), None, None]);
}

#[test]
fn after_a_keyframe_without_the_top_layer_the_next_lower_one_flows() {
    let mut selector = begin_vp9(layer(2, 0), 2);
    assert_eq!(choose_all(&mut selector, &vp9(3000, 2, true), layer(2, 0)), [None, Some(true)]);
}

#[test]
fn pictures_left_out_whole_are_known_at_the_next_keyframe() {
    let mut selector = begin_vp9(layer(2, 0), 3);
    choose_all(&mut selector, &vp9(3000, 3, true), layer(2, 0));
    assert!(!selector.has_gap());
    choose_all(&mut selector, &vp9(6000, 2, true), layer(2, 0));
    assert!(selector.has_gap(), "the top layer did not come");
    choose_all(&mut selector, &vp9(9000, 3, true), layer(2, 0));
    assert!(!selector.has_gap(), "it does again");
    choose_all(&mut selector, &vp9(12_000, 2, true), layer(2, 0));
    selector.begin(&vp9(15_000, 2, false)[0], layer(2, 0));
    assert!(!selector.has_gap());
}

// ---- Dependency Descriptor -------------------------------------------------------------------------------------------

/// L2T2: targets S0T0, S0T1, S1T0, S1T1, chain 0 for S0 and 1 for S1. `alone`: S1 needs S0 in keyframes only.
struct L2T2 {
    number: u16,
    since_key: u16,
    alone: bool,
}

impl L2T2 {
    fn picture(&mut self) -> Vec<Packet> {
        let temporal = (self.since_key % 2) as u8;
        let key = self.since_key == 0;
        let frames = (0..2u8).map(|spatial| {
            let indication = |target: u8| -> u32 {
                let (s, t) = (target / 2, target % 2);
                match () {
                    () if temporal > t || spatial > s => 0,
                    () if s > spatial && self.alone && !key => 0,
                    () if temporal == 1 => 1,
                    () if s == spatial || key => 2,
                    () => 3,
                }
            };
            let number = self.number.wrapping_add(u16::from(spatial));
            // Chains are of the frames with temporal layer 0: two numbers a picture.
            let base = if temporal == 0 { 4 } else { 2 };
            let of_s0 = if key { u8::from(spatial == 1) } else { base + spatial };
            let of_s1 = match () {
                () if key => u8::from(spatial == 1),
                // From S1 to the last S1; from S0 to that too.
                () if spatial == 1 => {
                    if self.alone {
                        base
                    } else {
                        1
                    }
                }
                () => base - 1,
            };
            let mut layout = [0; 16];
            (0..4u8).for_each(|t| layout[usize::from(t)] = Targets::pack(t / 2, t % 2, t / 2));
            let targets = Targets {
                count: 4,
                indications: (0..4).fold(0, |all, target| all | indication(target) << (2 * target)),
                active: 0b1111,
                chain_diffs: [of_s0, of_s1, 0, 0],
                layout,
            };
            let frame = Frame {
                starts: true,
                ends: true,
                spatial,
                temporal,
                numbers: FrameNumbers { frame_number: number, ..FrameNumbers::default() },
                scheme: Scheme::Targets(targets),
            };
            packet(Codec::Av1, u32::from(self.number) * 1000, frame)
        });
        let frames = frames.collect();
        self.number = self.number.wrapping_add(2);
        self.since_key += 1;
        frames
    }
}

fn begin_av1(source: &mut L2T2, target: Layer) -> LayerSelector {
    let mut selector = LayerSelector::default();
    let key = source.picture();
    selector.begin(&key[0], target);
    key.iter().for_each(|packet| _ = selector.choose(packet, target));
    selector
}

#[test]
fn decode_targets_choose_spatial_and_temporal_layers() {
    // The numbers wrap on the way.
    let mut source = L2T2 { number: 65_530, since_key: 0, alone: false };
    let mut selector = begin_av1(&mut source, layer(1, 1));
    let mut next = |selector: &mut LayerSelector, target| choose_all(selector, &source.picture(), target);
    assert_eq!(next(&mut selector, layer(1, 1)), [Some(false), Some(true)]);
    assert_eq!(next(&mut selector, layer(1, 0)), [Some(false), Some(true)]);
    assert_eq!(next(&mut selector, layer(1, 0)), [None, None], "the higher frame rate is left out");
    assert_eq!(next(&mut selector, layer(0, 1)), [Some(true), None], "S0 has all its frames");
    assert!(selector.needs_keyframe(layer(1, 1)));
    for _ in 0..300 {
        next(&mut selector, layer(1, 1));
    }
    assert_eq!(selector.layer(LOW), layer(0, 1), "without its frames S1 is out of reach");
}

#[test]
fn a_target_that_stands_alone_is_left_at_a_keyframe() {
    let mut source = L2T2 { number: 7, since_key: 0, alone: true };
    let mut selector = begin_av1(&mut source, layer(1, 1));
    for _ in 0..20 {
        let chosen = choose_all(&mut selector, &source.picture(), layer(1, 1));
        assert_eq!(chosen, [None, Some(true)]);
    }
    assert!(selector.needs_keyframe(layer(0, 1)));
    assert_eq!(choose_all(&mut selector, &source.picture(), layer(0, 1)), [None, Some(true)]);
    source.since_key = 0;
    let key = source.picture();
    selector.begin(&key[0], layer(0, 1));
    assert_eq!(choose_all(&mut selector, &key, layer(0, 1)), [Some(true), None]);
    assert_eq!(choose_all(&mut selector, &source.picture(), layer(0, 1)), [Some(true), None]);
}

#[test]
fn a_receiver_is_told_which_targets_it_gets() {
    let mut source = L2T2 { number: 0, since_key: 0, alone: false };
    let mut selector = begin_av1(&mut source, layer(0, 0));
    let choice = selector.choose(&source.picture()[0], layer(0, 1));
    assert!(matches!(choice, Choice::Skip { .. }), "not in the target that flows");
    let choice = selector.choose(&source.picture()[0], layer(0, 1));
    assert_eq!(choice, Choice::Send { mark: true, active_targets: 0b0011 });
}

#[test]
fn a_target_that_the_publisher_gave_up_is_not_waited_for() {
    let mut source = L2T2 { number: 0, since_key: 0, alone: false };
    let mut selector = begin_av1(&mut source, layer(1, 1));
    let mut picture = source.picture();
    source.picture();
    picture.truncate(1);
    let mut last = picture[0];
    for number in 0..2 {
        last = source.picture()[0];
        if let Scheme::Targets(targets) = &mut last.frame.scheme {
            targets.active = 0b0011;
        }
        let _ = number;
        selector.choose(&last, layer(1, 1));
    }
    assert_eq!(selector.layer(LOW).spatial, 0);
    assert!(matches!(selector.choose(&last, layer(1, 1)), Choice::Send { .. }));
}
