//! Compound RTCP packets: what is read is built, and read again.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use stube_fuzz::rtp::rtcp::{self, Packet, ReportBlock};

fuzz_target!(|data: &[u8]| {
    let mut packets = 0;
    for packet in rtcp::parse(data) {
        packets += 1;
        let Ok(packet) = packet else { break };
        check(&packet, data.len());
    }
    assert!(packets <= data.len().div_ceil(4), "every packet takes its header");
});

fn only(bytes: &[u8]) -> Packet<'_> {
    let mut packets = rtcp::parse(bytes);
    let packet = packets.next().expect("a packet").expect("what is built can be read");
    assert_eq!(packets.next(), None);
    packet
}

fn check(packet: &Packet<'_>, bytes: usize) {
    let mut out = Vec::new();
    match packet {
        Packet::SenderReport { ssrc, info, reports } => {
            let blocks = listed(reports.clone(), 24, bytes);
            rtcp::sender_report(&mut out, *ssrc, info, &blocks);
            assert_eq!(only(&out), *packet);
            round_trips(&blocks);
        }
        Packet::ReceiverReport { ssrc, reports } => {
            let blocks = listed(reports.clone(), 24, bytes);
            rtcp::receiver_report(&mut out, *ssrc, &blocks);
            assert_eq!(only(&out), *packet);
            round_trips(&blocks);
        }
        Packet::Bye { ssrcs } => {
            let ssrcs = listed(ssrcs.clone(), 4, bytes);
            rtcp::bye(&mut out, &ssrcs);
            assert!(ssrcs.is_empty() == out.is_empty() && (ssrcs.is_empty() || only(&out) == *packet));
        }
        Packet::Nack { sender, media, pairs } => {
            assert!(listed(pairs.clone(), 4, bytes).len() * 17 >= pairs.clone().lost().count());
            check_nack(*sender, *media, &pairs.clone().lost().collect());
        }
        Packet::TransportFeedback(feedback) => {
            assert_eq!(feedback.packets().count(), usize::from(feedback.packet_count));
        }
        Packet::Pli { sender, media } => {
            rtcp::pli(&mut out, *sender, *media);
            assert_eq!(only(&out), *packet);
        }
        Packet::Fir { sender, entries } => {
            let entries = listed(entries.clone(), 8, bytes);
            rtcp::fir(&mut out, *sender, &entries);
            let read = rtcp::parse(&out).map(|packet| match packet {
                Ok(Packet::Fir { sender: again, entries }) if again == *sender => entries,
                other => panic!("not the FIR: {other:?}"),
            });
            assert_eq!(read.flatten().collect::<Vec<_>>(), entries);
        }
        Packet::Remb { sender, bitrate_bps, ssrcs } => {
            rtcp::remb(&mut out, *sender, *bitrate_bps, &listed(ssrcs.clone(), 4, bytes));
            assert_eq!(only(&out), *packet);
        }
        Packet::SourceDescription { chunks, contents } => assert!(*chunks < 32 && contents.len() + 4 <= bytes),
        Packet::Extended { blocks, .. } => assert!(blocks.len() + 8 <= bytes),
        Packet::Other { format, .. } => assert!(*format < 32),
    }
}

/// A list takes no longer to walk than its bytes allow.
fn listed<T>(list: impl ExactSizeIterator<Item = T>, entry_bytes: usize, bytes: usize) -> Vec<T> {
    let expected = list.len();
    let entries: Vec<T> = list.collect();
    assert!(entries.len() == expected && entries.len() * entry_bytes <= bytes);
    entries
}

fn round_trips(blocks: &[ReportBlock]) {
    for block in blocks {
        assert!(rtcp::round_trip(block, block.delay_since_last_sr).is_none_or(|trip| trip <= i32::MAX as u32));
    }
}

/// Ascending numbers are asked for in as many packets as it takes, each of which fits a datagram.
fn check_nack(sender: u32, media: u32, lost: &BTreeSet<u16>) {
    let mut out = Vec::new();
    rtcp::nack(&mut out, sender, media, lost.iter().copied());
    let mut read = BTreeSet::new();
    for packet in rtcp::parse(&out) {
        let Ok(Packet::Nack { sender: from, media: about, pairs }) = packet else { panic!("not a NACK: {packet:?}") };
        assert!((from, about) == (sender, media) && pairs.len() <= 250);
        read.extend(pairs.lost());
    }
    assert_eq!(read, *lost);
}
