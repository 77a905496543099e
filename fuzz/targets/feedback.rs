//! Transport-wide feedback: bodies as they come, and a recorder whose feedback must say what it was told.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use stube_fuzz::input::Input;
use stube_fuzz::rtp::feedback::{ArrivalRecorder, Feedback, REFERENCE_TICKS, TICK_MICROS};
use stube_fuzz::rtp::rtcp::{self, Packet};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    match input.u8() {
        Some(0) => body(input.0),
        Some(_) => record(&mut input),
        None => {}
    }
});

fn body(body: &[u8]) {
    let Some(feedback) = Feedback::parse(body) else { return };
    let (mut packets, mut received) = (0, 0);
    for (number, (sequence, arrival)) in feedback.packets().enumerate() {
        assert_eq!(sequence, feedback.base_sequence.wrapping_add(number as u16));
        packets += 1;
        received += usize::from(arrival.is_some());
    }
    assert_eq!(packets, feedback.packet_count, "what is checked can be walked");
    assert!(received <= body.len(), "every arrival takes a byte");
}

/// Steps of sequence number and time, with feedback now and then.
fn record(input: &mut Input<'_>) {
    let mut recorder = ArrivalRecorder::default();
    let mut told = BTreeMap::new();
    let (mut sequence, mut now_us) = (input.u16().unwrap_or(0), u64::from(input.u32().unwrap_or(0)));
    while let Some(step) = input.u8() {
        match step {
            0 => build(&mut recorder, &told),
            1 => sequence = sequence.wrapping_add(input.u16().unwrap_or(0)),
            2 => now_us += u64::from(input.u32().unwrap_or(0)),
            3..=9 => now_us += u64::from(step) * 10_000,
            _ => {
                sequence = sequence.wrapping_add(u16::from(step & 0x1f)).wrapping_sub(8);
                now_us += u64::from(step >> 5) * 100;
                recorder.record(sequence, now_us);
                // A repeated number is a duplicate or, after half a cycle, another packet: both times may be told.
                told.entry(sequence).or_insert_with(Vec::new).push(now_us / TICK_MICROS);
            }
        }
    }
    build(&mut recorder, &told);
}

fn build(recorder: &mut ArrivalRecorder, told: &BTreeMap<u16, Vec<u64>>) {
    let (mut out, mut reported) = (Vec::new(), 0);
    loop {
        out.clear();
        if !recorder.build(&mut out, 1, 2) {
            assert!(out.is_empty() && !recorder.has_news());
            return;
        }
        assert!(out.len() <= 1000 && out.len().is_multiple_of(4));
        let mut packets = rtcp::parse(&out);
        let Some(Ok(Packet::TransportFeedback(feedback))) = packets.next() else { panic!("not feedback") };
        assert_eq!(packets.next(), None);
        let reference = i64::from(feedback.reference_time_64ms) * REFERENCE_TICKS;
        for (sequence, arrival) in feedback.packets() {
            reported += 1;
            let Some(arrival) = arrival else { continue };
            // References have 24 bits.
            let modulus = REFERENCE_TICKS << 24;
            let same = |ticks: &u64| (*ticks as i64 - reference - arrival).rem_euclid(modulus) == 0;
            assert!(told.get(&sequence).is_some_and(|times| times.iter().any(same)), "{sequence} at {arrival}");
        }
        assert!(reported <= 2048, "no more than the window");
    }
}
