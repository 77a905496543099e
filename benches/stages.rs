//! What each stage of a packet's path costs by itself.
//!
//! `cargo bench --bench stages` prints nanoseconds of each; with `--test`, or under `cargo test --benches`, it only shows
//! that it works. The first and the last bench measure the machine: AES-256-GCM of 1,100 bytes by aws-lc alone, which is
//! what `scripts/bench` divides all others by.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stube::rtp::extensions::{self, Extension, ExtensionIds, MAX_BLOCK_BYTES, Own, Values};
use stube::rtp::feedback::ArrivalRecorder;
use stube::rtp::header::{FIXED_BYTES, Fixed, Header};
use stube::rtp::nack::NackGenerator;
use stube::rtp::rtcp;
use stube::rtp::srtp::{KeyingMaterial, Opener, Profile, RolloverTracker, Sealer};

const SSRC: u32 = 7;
/// Header with MID, transport-wide sequence number and absolute send time.
const HEADER_BYTES: usize = FIXED_BYTES + 16;
const PAYLOADS: [usize; 2] = [100, 1100];
const PROFILES: [(&str, Profile); 3] = [
    ("AES-128-GCM", Profile::AeadAes128Gcm),
    ("AES-256-GCM", Profile::AeadAes256Gcm),
    ("AES-128-CM", Profile::Aes128CmSha1_80),
];

fn contexts(profile: Profile, client: bool) -> (Sealer, Opener) {
    let exported: Vec<u8> = (0..profile.keying_material_bytes() as u8).collect();
    let material = KeyingMaterial::new(profile, &exported).expect("the profile's length");
    material.contexts(client).expect("keys")
}

fn ids() -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for (extension, id) in Extension::ALL.into_iter().zip(1..) {
        ids.set(extension, id);
    }
    ids
}

/// A header as video has it, padded to [`HEADER_BYTES`].
fn header(sequence_number: u16) -> [u8; HEADER_BYTES] {
    let mut packet = [0; HEADER_BYTES + MAX_BLOCK_BYTES];
    let (fixed, block) = packet.split_first_chunk_mut().expect("room for both");
    let fields = Fixed { payload_type: 96, ssrc: SSRC, sequence_number, extension: true, ..Fixed::default() };
    fields.write(fixed);
    assert_eq!(extensions::write(block, &ids(), &own(), &Values::default(), None), HEADER_BYTES - FIXED_BYTES);
    *packet.first_chunk().expect("long enough")
}

fn own() -> Own<'static> {
    let (transport_sequence_number, abs_send_time) = (Some(9), Some(0x12_3456));
    Own { mid: Some(b"21"), transport_sequence_number, abs_send_time, ..Own::default() }
}

/// The machine: what is divided by.
fn calibrate(criterion: &mut Criterion, name: &str) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
    let (aad, payload, mut out, mut tag) = ([5; HEADER_BYTES], [3; 1100], [0; 1100], [0; MAX_TAG_LEN]);
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([1; 12]);
            key.seal_out_of_place_scatter(nonce, Aad::from(&aad), black_box(&payload), &mut out, &[], &mut tag)
                .expect("sizes fit");
            black_box(&out);
        });
    });
}

fn before(criterion: &mut Criterion) {
    calibrate(criterion, "machine/before");
}

fn after(criterion: &mut Criterion) {
    calibrate(criterion, "machine/after");
}

fn headers(criterion: &mut Criterion) {
    let (packet, ids) = (header(1), ids());
    criterion.bench_function("header/parse", |bencher| bencher.iter(|| Header::parse(black_box(&packet))));
    let read = Header::parse(&packet).expect("a header");
    criterion.bench_function("extensions/read", |bencher| {
        bencher.iter(|| black_box(extensions::read(black_box(&read), black_box(&ids))));
    });
    let (mut out, values) = ([0; MAX_BLOCK_BYTES], Values { audio_level: Some(5), ..Values::default() });
    criterion.bench_function("extensions/write", |bencher| {
        bencher.iter(|| extensions::write(black_box(&mut out), &ids, black_box(&own()), &values, None));
    });
    let mut fixed = [0; FIXED_BYTES];
    criterion.bench_function("header/write", |bencher| {
        bencher.iter(|| {
            black_box(Fixed { ssrc: SSRC, ..Fixed::default() }).write(&mut fixed);
            black_box(&fixed);
        });
    });
}

fn srtp(criterion: &mut Criterion) {
    for (name, profile) in PROFILES {
        let ((sealer, _), (_, opener)) = (contexts(profile, true), contexts(profile, false));
        for payload_bytes in PAYLOADS {
            let payload = vec![3; payload_bytes];
            let mut packet = header(1).to_vec();
            packet.resize(HEADER_BYTES + payload_bytes + profile.rtp_tag_bytes(), 0);
            let id = format!("seal_rtp {name}/{payload_bytes}");
            criterion.bench_function(&id, |bencher| {
                bencher.iter(|| sealer.seal_rtp(SSRC, 1, &mut packet, HEADER_BYTES, black_box(&payload)));
            });
            // Sealed anew: a filter may have skipped the bench above.
            sealer.seal_rtp(SSRC, 1, &mut packet, HEADER_BYTES, &payload).expect("sizes fit");
            let mut out = Vec::new();
            let id = format!("open_rtp_into {name}/{payload_bytes}");
            criterion.bench_function(&id, |bencher| {
                bencher.iter(|| {
                    let opened = opener.open_rtp_into(SSRC, 1, black_box(&packet), HEADER_BYTES, &mut out);
                    opened.expect("authentic");
                });
            });
        }
    }
}

fn feedback(criterion: &mut Criterion) {
    let ((mut sealer, _), (_, mut opener)) =
        (contexts(Profile::AeadAes256Gcm, true), contexts(Profile::AeadAes256Gcm, false));
    let (mut plain, mut recorder) = (Vec::new(), ArrivalRecorder::default());
    (0..20).for_each(|number| recorder.record(number, u64::from(number) * 700));
    assert!(recorder.build(&mut plain, 1, 2));
    let mut sealed = || {
        let mut packet = plain.clone();
        sealer.seal_rtcp(&mut packet, 0).expect("sizes fit");
        packet
    };
    let mut out = Vec::new();
    // Every packet opens once, so each is sealed first, outside the measurement.
    criterion.bench_function("rtcp/open and walk feedback of 20", |bencher| {
        bencher.iter_batched(
            &mut sealed,
            |packet| {
                opener.open_rtcp(&packet, &mut out).expect("authentic");
                let packets = rtcp::parse(&out).flatten().map(|packet| match packet {
                    rtcp::Packet::TransportFeedback(feedback) => feedback.packets().count(),
                    _ => 0,
                });
                assert_eq!(packets.sum::<usize>(), 20);
            },
            BatchSize::SmallInput,
        );
    });
    let (mut sequence, mut now_us, mut out) = (0_u16, 0, Vec::new());
    criterion.bench_function("feedback/record and build 100", |bencher| {
        bencher.iter(|| {
            for _ in 0..100 {
                recorder.record(black_box(sequence), now_us);
                (sequence, now_us) = (sequence.wrapping_add(1), now_us + 700);
            }
            out.clear();
            while recorder.build(&mut out, 1, 2) {}
            black_box(&out);
        });
    });
}

fn streams(criterion: &mut Criterion) {
    let (mut nack, mut number) = (NackGenerator::default(), 0);
    criterion.bench_function("nack/received in order", |bencher| {
        bencher.iter(|| {
            number += 1;
            nack.received(black_box(number), number * 700)
        });
    });
    let (mut tracker, mut sequence) = (RolloverTracker::new(), 0_u16);
    criterion.bench_function("replay/guess, check, accept", |bencher| {
        bencher.iter(|| {
            sequence = sequence.wrapping_add(1);
            let index = tracker.guess(black_box(sequence));
            assert!(!tracker.is_replay(index));
            tracker.accept(index);
        });
    });
}

criterion_group!(stages, before, headers, srtp, feedback, streams, after);
criterion_main!(stages);
