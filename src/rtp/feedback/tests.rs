//! Feedback byte by byte, there and back.

use std::collections::BTreeMap;

use super::*;
use crate::ids::IdSource;
use crate::rtp::rtcp::{self, Packet};

/// The prefix of messages written by hand: base 0xfffe, reference time −1, number 9.
fn body(packet_count: u16, statuses: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe];
    body.extend(packet_count.to_be_bytes());
    body.extend([0xff, 0xff, 0xff, 9]);
    body.extend(statuses);
    body
}

fn ticks_of(body: &[u8]) -> Option<Vec<Option<i64>>> {
    let feedback = Feedback::parse(body)?;
    Some(feedback.packets().map(|(_, arrival)| arrival).collect())
}

#[test]
fn every_chunk_and_delta_is_read() {
    // A run of two not received, one bit each for 14, two bits for one with a large negative delta.
    let statuses = [0x00, 0x02, 0xa0, 0x01, 0xe4, 0x00, 4, 0xff, 0xff, 0xfe, 1, 0, 0];
    let bytes = body(18, &statuses);
    let feedback = Feedback::parse(&bytes).unwrap();
    assert_eq!((feedback.sender, feedback.media), (1, 2));
    assert_eq!((feedback.base_sequence, feedback.packet_count), (0xfffe, 18));
    assert_eq!((feedback.reference_time_64ms, feedback.feedback_count), (-1, 9));
    let received: Vec<_> = feedback.packets().filter(|(_, arrival)| arrival.is_some()).collect();
    assert_eq!(received, [(0, Some(4)), (13, Some(259)), (14, Some(257)), (15, Some(258))]);
    let numbers: Vec<_> = feedback.packets().map(|(sequence, _)| sequence).collect();
    assert_eq!((numbers[0], numbers[17], numbers.len()), (0xfffe, 15, 18), "numbers wrap");
}

#[test]
fn chunks_may_tell_about_more_than_there_are() {
    assert_eq!(ticks_of(&body(2, &[0x20, 0x05, 3, 4])), Some(vec![Some(3), Some(7)]));
    assert_eq!(ticks_of(&body(1, &[0xbf, 0xff, 3])), Some(vec![Some(3)]));
    assert_eq!(ticks_of(&body(1, &[0xdf, 0xff, 3])), Some(vec![Some(3)]), "what is beyond may even be reserved");
    assert_eq!(ticks_of(&body(1, &[0x20, 0x00, 0x20, 0x01, 8])), Some(vec![Some(8)]), "an empty run");
}

#[test]
fn what_is_cut_or_reserved_is_refused() {
    assert_eq!(ticks_of(&body(0, &[0, 0])), None, "about nothing");
    assert_eq!(ticks_of(&body(1, &[0x60, 0x01, 1, 1])), None, "a reserved run");
    assert_eq!(ticks_of(&body(2, &[0xdc, 0x00, 1, 1])), None, "a reserved symbol");
    assert_eq!(ticks_of(&body(2, &[0x20, 0x02, 1])), None, "one delta for two");
    assert_eq!(ticks_of(&body(2, &[0x20, 0x01, 1, 1])), None, "a chunk for one of two");
    let whole = body(1, &[0x20, 0x01, 1]);
    for length in 0..whole.len() {
        assert_eq!(Feedback::parse(&whole[..length]), None);
    }
}

/// What all packets of a buffer say: sequence numbers and arrivals in µs.
fn reported(bytes: &[u8]) -> Vec<(u16, Option<u64>)> {
    let mut all = Vec::new();
    for packet in rtcp::parse(bytes) {
        let Packet::TransportFeedback(feedback) = packet.unwrap() else { panic!("only feedback") };
        assert_eq!((feedback.sender, feedback.media), (1, 2));
        let reference = i64::from(feedback.reference_time_64ms) * REFERENCE_TICKS;
        let micros = |ticks: i64| (reference + ticks) as u64 * TICK_MICROS;
        all.extend(feedback.packets().map(|(sequence, arrival)| (sequence, arrival.map(micros))));
    }
    all
}

fn build_all(recorder: &mut ArrivalRecorder) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let start = out.len();
        if !recorder.build(&mut out, 1, 2) {
            assert!(!recorder.has_news());
            return out;
        }
        assert!(out.len() - start <= rtcp::PACKET_BYTES_MAX);
    }
}

#[test]
fn a_message_is_written_byte_by_byte() {
    let mut recorder = ArrivalRecorder::default();
    // 64 ms of reference and 1 ms; the third is lost; the fourth is 100 ms later.
    for (sequence, arrival_us) in [(10, 65_000), (11, 66_000), (13, 166_000)] {
        recorder.record(sequence, arrival_us);
    }
    let mut out = Vec::new();
    assert!(recorder.build(&mut out, 1, 2));
    let expected =
        [0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 10, 0, 4, 0, 0, 1, 0, 0xd4, 0x80, 4, 4, 0x01, 0x90, 0, 0];
    assert_eq!(out, expected);
    assert!(!recorder.build(&mut out, 1, 2), "nothing new");
    recorder.record(14, 167_000);
    out.clear();
    assert!(recorder.build(&mut out, 1, 2));
    assert_eq!((out[14..16].to_vec(), out[19]), (vec![0, 1], 1), "one packet, the second message");
}

#[test]
fn late_packets_duplicates_and_ancient_ones() {
    let mut recorder = ArrivalRecorder::default();
    recorder.record(2, 1_000);
    recorder.record(4, 2_000);
    recorder.record(4, 9_000);
    let first = build_all(&mut recorder);
    assert_eq!(reported(&first), [(2, Some(1_000)), (3, None), (4, Some(2_000))], "the first arrival counts");
    recorder.record(4, 9_000);
    assert!(!recorder.has_news(), "a duplicate is none");
    recorder.record(3, 3_000);
    recorder.record(1, 4_000);
    recorder.record(65_535, 5_000);
    let second = build_all(&mut recorder);
    let expected = [(65_535, Some(5_000)), (0, None), (1, Some(4_000)), (2, Some(1_000)), (3, Some(3_000))];
    assert_eq!(reported(&second)[..5], expected);
    recorder.record(3_000, 6_000);
    recorder.record(100, 6_000);
    let third = reported(&build_all(&mut recorder));
    assert_eq!((third.len(), third[0].0, third[511]), (512, 2_489, (3_000, Some(6_000))), "the window's worth");
    assert!(third.iter().all(|(sequence, arrival)| arrival.is_none() || *sequence == 3_000));
}

#[test]
fn a_long_pause_begins_a_new_message() {
    let mut recorder = ArrivalRecorder::default();
    let arrivals = [(1, 1_000_000), (2, 20_000_000), (3, 20_000_250), (5, 9_000_000_000_000)];
    for (sequence, arrival_us) in arrivals {
        recorder.record(sequence, arrival_us);
    }
    let out = build_all(&mut recorder);
    assert_eq!(rtcp::parse(&out).count(), 3);
    let received: Vec<_> =
        reported(&out).into_iter().filter_map(|(sequence, arrival)| Some((sequence, arrival?))).collect();
    // The reference time has 24 bits, so the last is told modulo 12.4 days.
    assert_eq!(received[..3], arrivals[..3]);
}

/// Packets numbered on and on, with losses, swaps and pauses, reported every now and then.
#[test]
fn random_arrivals_read_back_within_a_tick() {
    for seed in 0..60 {
        let mut rng = IdSource::from_seed([seed; 32]);
        let mut recorder = ArrivalRecorder::default();
        let (mut now_us, mut sequence) = (u64::from(rng.bits()), rng.bits() as u16);
        let (mut sent, mut told) = (BTreeMap::new(), BTreeMap::new());
        let loss = [0, 2, 10, 60][usize::from(seed) % 4];
        let pause_us = [300, 5_000, 100_000, 3_000_000][usize::from(seed / 4) % 4];
        let mut late = None;
        for index in 0..2_000u32 {
            sequence = sequence.wrapping_add(1);
            now_us += u64::from(rng.bits()) % pause_us;
            let lost = rng.bits() % 100 < loss;
            if !lost && late.is_none() && rng.bits().is_multiple_of(20) {
                late = Some(sequence);
            } else if !lost {
                recorder.record(sequence, now_us);
                sent.insert(sequence, now_us);
                if let Some(late) = late.take_if(|_| index.is_multiple_of(3)) {
                    recorder.record(late, now_us + 40);
                    sent.insert(late, now_us + 40);
                }
            }
            if rng.bits().is_multiple_of(100) || index.is_multiple_of(400) || index == 1_999 {
                for (sequence, arrival) in reported(&build_all(&mut recorder)) {
                    told.extend(arrival.map(|arrival| (sequence, arrival)));
                }
            }
        }
        assert!(sent.keys().eq(told.keys()), "seed {seed}");
        for (sequence, arrival_us) in &sent {
            assert!(arrival_us - told[sequence] < TICK_MICROS, "seed {seed}");
        }
    }
}

#[test]
fn numbers_may_jump_anywhere() {
    let mut recorder = ArrivalRecorder::default();
    let mut rng = IdSource::from_seed([6; 32]);
    let mut out = Vec::new();
    for step in 0..100_000u64 {
        recorder.record(rng.bits() as u16, step * u64::from(rng.bits() % 8_000));
        if rng.bits().is_multiple_of(50) {
            out.clear();
            while recorder.build(&mut out, 1, 2) {}
            assert!(reported(&out).iter().any(|(_, arrival)| arrival.is_some()) || out.is_empty());
        }
    }
    recorder.record(1, u64::MAX);
    build_all(&mut recorder);
}
