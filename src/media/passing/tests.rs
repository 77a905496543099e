//! What becomes of a viewer when the publisher stops spatial layers: a room of one publisher, whose encoder answers key
//! frame requests, and one viewer.

use std::ops::Range;
use std::time::Duration;

use super::*;
use crate::media::packet::{Frame, FrameNumbers, Scheme, Targets};
use crate::media::tests::room_of_two;
use crate::media::{Codec, Input, MAX_TARGETS, Output};

const FRAME_MS: u64 = 33;
/// From a keyframe request to the keyframe: the way there and back, and the encoder's next frame.
const ANSWER_MS: u64 = 100;
const LAYERS: u8 = 3;

/// How the encoder's layers depend on each other, and how it says so.
#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    /// By the Dependency Descriptor, not by VP9's payload descriptor.
    described: bool,
    /// The descriptor names the targets that are still sent.
    tells: bool,
    /// Layers need each other in keyframes only.
    alone: bool,
}

struct Stage {
    room: Room,
    t0: Instant,
    ms: u64,
    mode: Mode,
    layers: u8,
    key_due: Option<u64>,
    seq: u64,
    frames: u64,
    /// The last frame of each chain.
    chains: [u64; LAYERS as usize],
    asked: Vec<u64>,
    /// When a picture was sent to the viewer, and the highest layer it had.
    shown: Vec<(u64, u8)>,
}

impl Stage {
    fn new(mode: Mode) -> Self {
        let t0 = Instant::now();
        let codec = if mode.described { Codec::Av1 } else { Codec::Vp9 };
        let room = room_of_two(codec, &[], t0);
        Self {
            room,
            t0,
            ms: 0,
            mode,
            layers: LAYERS,
            key_due: Some(0),
            seq: 0,
            frames: 0,
            chains: [0; LAYERS as usize],
            asked: Vec::new(),
            shown: Vec::new(),
        }
    }

    fn play(&mut self, milliseconds: u64) {
        let end = self.ms + milliseconds;
        while self.ms < end {
            self.ms += FRAME_MS;
            let now = self.t0 + Duration::from_millis(self.ms);
            if self.room.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.room.handle_timeout(now);
            }
            self.drain(&[]);
            let key = self.key_due.is_some_and(|due| due <= self.ms);
            self.key_due = self.key_due.filter(|_| !key);
            for spatial in 0..self.layers {
                let packet = self.packet(spatial, key, now);
                let (track, encoding) = (TrackKey(0), EncodingIndex(0));
                self.room.handle(Input::Packets { track, encoding, packets: &[packet] }, now);
                self.drain(&[packet]);
            }
        }
    }

    fn packet(&mut self, spatial: u8, key: bool, captured_at: Instant) -> Packet {
        self.seq += 1;
        let scheme = if self.mode.described {
            Scheme::Targets(self.targets(spatial, key))
        } else {
            Scheme::Spatial { sync: true, unneeded_above: self.mode.alone && !key }
        };
        let numbers = FrameNumbers { frame_number: self.frames as u16, ..FrameNumbers::default() };
        Packet {
            ssrc: 1,
            seq: self.seq,
            timestamp: self.ms as u32 * 90,
            codec: if self.mode.described { Codec::Av1 } else { Codec::Vp9 },
            bytes: 500 << spatial,
            keyframe: key && spatial == 0,
            level: None,
            captured_at,
            frame: Frame { starts: true, ends: true, spatial, numbers, scheme, ..Frame::default() },
            size: None,
        }
    }

    /// One decode target and one chain for each spatial layer.
    fn targets(&mut self, spatial: u8, key: bool) -> Targets {
        self.frames += 1;
        let alone = self.mode.alone && !key;
        let (mut indications, mut chain_diffs, mut layout) = (0, [0; 4], [0; MAX_TARGETS]);
        for target in 0..LAYERS {
            let place = usize::from(target);
            layout[place] = Targets::pack(target, 0, target);
            let needed = target == spatial || (target > spatial && !alone);
            let indication = match () {
                () if !needed => 0,
                () if target == spatial || key => 2,
                () => 3,
            };
            indications |= indication << (2 * target);
            chain_diffs[place] = if key && spatial == 0 { 0 } else { (self.frames - self.chains[place]) as u8 };
            if needed {
                self.chains[place] = self.frames;
            }
        }
        let sent = if self.mode.tells { self.layers } else { LAYERS };
        Targets { count: LAYERS, indications, active: (1 << sent) - 1, chain_diffs, layout }
    }

    fn drain(&mut self, packets: &[Packet]) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::RequestKeyframe { .. } => {
                    self.asked.push(self.ms);
                    self.key_due.get_or_insert(self.ms + ANSWER_MS);
                }
                Output::Forward(forward) => {
                    let sent = forward.packets(packets).iter().map(|packet| (self.ms, packet.frame.spatial));
                    for (at, spatial) in sent {
                        match self.shown.last_mut().filter(|(last, _)| *last == at) {
                            Some((_, top)) => *top = spatial,
                            None => self.shown.push((at, spatial)),
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn gap(&self, span: Range<u64>) -> u64 {
        let times: Vec<u64> = self.shown.iter().map(|(at, _)| *at).filter(|at| span.contains(at)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX)
    }

    fn top(&self) -> u8 {
        self.shown.last().map_or(0, |(_, top)| *top)
    }
}

const VP9_ALONE: Mode = Mode { described: false, tells: false, alone: true };
const VP9_FULL: Mode = Mode { alone: false, ..VP9_ALONE };
const AV1_ALONE: Mode = Mode { described: true, tells: true, alone: true };
const AV1_FULL: Mode = Mode { alone: false, ..AV1_ALONE };
const AV1_SILENT: Mode = Mode { tells: false, ..AV1_ALONE };

#[test]
fn a_lower_layer_is_seen_soon_after_the_top_one_stops() {
    // Mode, longest gap, keyframes asked for until the top layer is back.
    let cases = [
        (VP9_ALONE, 300 + 2 * FRAME_MS + ANSWER_MS, 1),
        (VP9_FULL, FRAME_MS, 0),
        (AV1_ALONE, 3 * FRAME_MS + ANSWER_MS, 1),
        (AV1_FULL, FRAME_MS, 0),
    ];
    for (mode, gap, asked) in cases {
        for phase in 0..5 {
            let mut stage = Stage::new(mode);
            stage.play(4000 + phase * 200);
            assert_eq!(stage.top(), 2, "{mode:?}");
            let (stopped, before) = (stage.ms, stage.asked.len());
            stage.layers = 2;
            stage.play(6000);
            assert!(stage.gap(stopped - 100..stage.ms) <= gap, "{mode:?}: {} ms", stage.gap(stopped - 100..stage.ms));
            assert_eq!((stage.top(), stage.asked.len() - before), (1, asked), "{mode:?}: {:?}", stage.asked);
            // Encoders begin a layer that stands alone again with a keyframe.
            stage.layers = LAYERS;
            stage.key_due = stage.key_due.or(mode.alone.then_some(0));
            stage.play(3000);
            assert_eq!(stage.top(), 2, "{mode:?}");
            assert!(stage.asked.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{mode:?}: {:?}", stage.asked);
        }
    }
}

#[test]
fn a_publisher_that_names_the_stopped_layer_still_is_followed_later() {
    let mut stage = Stage::new(AV1_SILENT);
    stage.play(4000);
    let stopped = stage.ms;
    stage.layers = 2;
    stage.play(6000);
    assert_eq!(stage.top(), 1);
    assert!(stage.gap(stopped - 100..stage.ms) <= 3000, "{} ms", stage.gap(stopped - 100..stage.ms));
}

#[test]
fn a_short_absence_of_the_top_layer_asks_for_nothing() {
    for mode in [VP9_ALONE, VP9_FULL, AV1_SILENT, Mode { alone: false, ..AV1_SILENT }] {
        let mut stage = Stage::new(mode);
        stage.play(4000);
        let before = stage.asked.len();
        for _ in 0..10 {
            stage.layers = 2;
            stage.play(250);
            stage.layers = LAYERS;
            stage.play(100);
        }
        assert_eq!((stage.asked.len(), stage.top()), (before, 2), "{mode:?}");
    }
}

#[test]
fn a_stop_is_followed_down_to_the_lowest_layer() {
    let mut stage = Stage::new(VP9_ALONE);
    stage.play(4000);
    for layers in [2, 1] {
        let stopped = stage.ms;
        stage.layers = layers;
        stage.play(1500);
        assert_eq!(stage.top(), layers - 1);
        assert!(stage.gap(stopped - 100..stage.ms) <= 500);
    }
}

#[test]
fn a_layer_that_comes_back_behind_a_keyframe_without_it_is_led_to_by_another() {
    let mut stage = Stage::new(VP9_FULL);
    stage.play(4000);
    stage.layers = 2;
    stage.play(500);
    // A newcomer asks for one, say.
    stage.key_due = Some(0);
    stage.play(500);
    stage.layers = LAYERS;
    stage.play(100);
    assert_eq!(stage.top(), 1, "the decoder has none of the layer's references");
    stage.play(1400);
    assert_eq!(stage.top(), 2);
}
