//! What the media ring's policies cost: dividing an estimate, choosing layers, noticing who speaks.
//!
//! `cargo bench --bench policy` prints nanoseconds of each; with `--test`, or under `cargo test --benches`, it only shows
//! that it works.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use stube::media::allocator::{Budget, Claim, allocate};
use stube::media::layers::{Layer, LayerSelector};
use stube::media::speakers::SpeakerDetector;
use stube::media::{Codec, EncodingIndex, Frame, Packet, Scheme, Seat, Targets};
use stube::units::Bitrate;

/// Cameras that one participant wants to see.
const SUBSCRIPTIONS: usize = 100;
/// What the rungs of three encodings with temporal layers cost, in bits per second.
const RUNGS_BPS: [u64; 7] = [80_000, 120_000, 150_000, 350_000, 500_000, 1_200_000, 1_700_000];
/// People with a microphone that is on.
const MICROPHONES: u16 = 25;
/// An Opus packet.
const PACKET: Duration = Duration::from_millis(20);

fn allocator(criterion: &mut Criterion) {
    let rungs = RUNGS_BPS.map(Bitrate::from_bps);
    let claims: Vec<Claim<'_>> =
        (0..SUBSCRIPTIONS).map(|index| Claim { rungs: &rungs, granted: Some(index % RUNGS_BPS.len()) }).collect();
    let mut grants = Vec::with_capacity(SUBSCRIPTIONS);
    // Where hardly the lowest fits, where some are better than others, and where all have the best.
    for (name, mbps) in [("narrow", 9), ("middle", 40), ("wide", 200)] {
        let held = Bitrate::from_bps(mbps * 1_000_000);
        let budget = Budget { held, new: held * 0.9 };
        criterion.bench_function(&format!("allocator/100 subscriptions, {name}"), |bench| {
            bench.iter(|| black_box(allocate(black_box(&budget), black_box(&claims), &mut grants)));
        });
        assert_eq!(grants.len(), SUBSCRIPTIONS);
    }
}

fn packet(frame: Frame, number: u32, now: Instant) -> Packet {
    Packet {
        ssrc: 7,
        seq: u64::from(number),
        timestamp: number * 3000,
        codec: Codec::Vp9,
        bytes: 1100,
        keyframe: number == 0,
        level: None,
        captured_at: now,
        frame,
        size: None,
    }
}

/// Pictures of three temporal layers, each of one packet.
fn pictures(scheme: impl Fn(u8) -> Scheme) -> Vec<Packet> {
    let now = Instant::now();
    let temporal = [0, 2, 1, 2];
    (0..8_u32)
        .map(|number| {
            let temporal = temporal[number as usize % temporal.len()];
            let frame = Frame { starts: true, ends: true, temporal, scheme: scheme(temporal), ..Frame::default() };
            packet(frame, number, now)
        })
        .collect()
}

fn layers(criterion: &mut Criterion) {
    let mut layout = [0; stube::media::MAX_TARGETS];
    for (target, packed) in (0..3).zip(&mut layout) {
        *packed = Targets::pack(0, target, 0);
    }
    let targets = |temporal: u8| {
        // Switch for targets of this layer and above, not there for those below.
        let indications = (temporal..3).map(|target| 2 << (2 * u32::from(target))).sum();
        let chain_diffs = [1, 0, 0, 0];
        Scheme::Targets(Targets { count: 3, indications, active: 0b111, chain_diffs, layout })
    };
    let vp9 = |temporal| Scheme::Spatial { sync: temporal > 0, unneeded_above: true };
    let cases = [
        ("VP8", pictures(|temporal| Scheme::Temporal { sync: temporal > 0 })),
        ("VP9", pictures(vp9)),
        ("dependency descriptor", pictures(targets)),
    ];
    let target = Layer { encoding: EncodingIndex(0), spatial: 0, temporal: 1 };
    for (name, packets) in cases {
        let mut selector = LayerSelector::default();
        selector.begin(&packets[0], target);
        let mut next = packets.iter().cycle();
        criterion.bench_function(&format!("layers/choose, {name}"), |bench| {
            bench.iter(|| next.next().map(|packet| black_box(selector.choose(black_box(packet), target))));
        });
    }
}

fn speakers(criterion: &mut Criterion) {
    let mut detector = SpeakerDetector::default();
    let mut now = Instant::now();
    let mut count = 0_u32;
    // Every fifth speaks, the others breathe; levels vary, for what does not counts as noise.
    let mut hear = |detector: &mut SpeakerDetector| {
        let seat = count as u16 % MICROPHONES;
        let level = if seat.is_multiple_of(5) { 25 + (count / 7 % 12) as u8 } else { 70 + (count % 9) as u8 };
        count += 1;
        if seat == 0 {
            now += PACKET;
        }
        (detector.heard(Seat(seat), level, now), now)
    };
    criterion.bench_function("speakers/heard, 25 microphones", |bench| bench.iter(|| black_box(hear(&mut detector))));
    let (_, mut at) = hear(&mut detector);
    criterion.bench_function("speakers/judge, 25 microphones", |bench| {
        bench.iter(|| {
            at += Duration::from_millis(1);
            black_box(detector.judge(at))
        });
    });
}

criterion_group!(policy, allocator, layers, speakers);
criterion_main!(policy);
