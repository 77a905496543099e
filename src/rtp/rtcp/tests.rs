//! RTCP packets byte by byte, there and back, and broken.

use super::*;
use crate::ids::IdSource;
use crate::rtp::feedback::ArrivalRecorder;

fn one(bytes: &[u8]) -> Packet<'_> {
    let mut packets = parse(bytes);
    let packet = packets.next().unwrap().unwrap();
    assert_eq!(packets.next(), None, "one packet");
    packet
}

fn block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 0x40,
        cumulative_lost: -2,
        highest_sequence: 0x0001_ffff,
        jitter: 9,
        last_sr: 0xaabb_ccdd,
        delay_since_last_sr: 0x0001_0000,
    }
}

const BLOCK_BYTES: [u8; 24] =
    [0, 0, 0, 7, 0x40, 0xff, 0xff, 0xfe, 0, 1, 0xff, 0xff, 0, 0, 0, 9, 0xaa, 0xbb, 0xcc, 0xdd, 0, 1, 0, 0];

#[test]
fn a_sender_report_is_read_and_written() {
    // RFC 3550 §6.4.1.
    let mut bytes = vec![0x81, 200, 0, 12, 0, 0, 0, 1];
    bytes.extend([0x83, 0xaa, 0x7e, 0x80, 0x80, 0, 0, 0, 0, 1, 0x5f, 0x90, 0, 0, 0, 3, 0, 0, 1, 0]);
    bytes.extend(BLOCK_BYTES);
    let info = SenderInfo { ntp: 0x83aa_7e80_8000_0000, rtp_timestamp: 90_000, packets: 3, octets: 256 };
    let Packet::SenderReport { ssrc, info: read, reports } = one(&bytes) else { panic!() };
    assert_eq!((ssrc, read, reports.collect::<Vec<_>>()), (1, info, vec![block(7)]));
    let mut out = Vec::new();
    sender_report(&mut out, 1, &info, &[block(7)]);
    assert_eq!(out, bytes);
}

#[test]
fn a_receiver_report_is_read_and_written() {
    let mut bytes = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    bytes.extend(BLOCK_BYTES);
    let mut out = Vec::new();
    receiver_report(&mut out, 1, &[block(7)]);
    assert_eq!(out, bytes);
    // A profile's extension follows the blocks (RFC 3550 §6.4.3).
    bytes[3] = 8;
    bytes.extend([1, 2, 3, 4]);
    let Packet::ReceiverReport { ssrc: 1, reports } = one(&bytes) else { panic!() };
    assert_eq!((reports.len(), reports.collect::<Vec<_>>()), (1, vec![block(7)]));
    out.clear();
    receiver_report(&mut out, 1, &[]);
    assert_eq!(out, [0x80, 201, 0, 1, 0, 0, 0, 1]);
}

#[test]
fn reports_of_more_than_31_blocks_are_stacked() {
    let blocks: Vec<_> = (0..70).map(block).collect();
    let mut out = Vec::new();
    sender_report(&mut out, 5, &SenderInfo::default(), &blocks);
    let mut read = Vec::new();
    for (index, packet) in parse(&out).enumerate() {
        match packet.unwrap() {
            Packet::SenderReport { ssrc: 5, reports, .. } if index == 0 => read.extend(reports),
            Packet::ReceiverReport { ssrc: 5, reports } if index > 0 => read.extend(reports),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read, blocks);
}

#[test]
fn cumulative_loss_keeps_to_24_bits() {
    for (lost, written) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1), (0x7f_ffff, 0x7f_ffff)] {
        let mut out = Vec::new();
        receiver_report(&mut out, 1, &[ReportBlock { cumulative_lost: lost, ..block(1) }]);
        let Packet::ReceiverReport { mut reports, .. } = one(&out) else { panic!() };
        assert_eq!(reports.next().unwrap(), ReportBlock { cumulative_lost: written, ..block(1) });
    }
}

#[test]
fn a_source_description_is_written() {
    let mut out = Vec::new();
    source_description(&mut out, 9, "abc");
    // Type, length and name take five bytes: three zeros end the chunk (RFC 3550 §6.5).
    assert_eq!(out, [0x81, 202, 0, 3, 0, 0, 0, 9, 1, 3, b'a', b'b', b'c', 0, 0, 0]);
    assert_eq!(one(&out), Packet::SourceDescription { chunks: 1, contents: &out[4..] });
    out.clear();
    source_description(&mut out, 9, "ab");
    assert_eq!(out.len(), 16, "a name that fills its word is followed by a word of zeros");
    out.clear();
    source_description(&mut out, 9, &"x".repeat(300));
    assert_eq!((out[9], out.len()), (255, 4 + 4 + 2 + 255 + 3));
}

#[test]
fn a_bye_is_read_and_written() {
    let mut out = Vec::new();
    bye(&mut out, &[1, 0xffff_ffff]);
    assert_eq!(out, [0x82, 203, 0, 2, 0, 0, 0, 1, 255, 255, 255, 255]);
    // With a reason for leaving (RFC 3550 §6.6).
    let bytes = [0x81, 203, 0, 2, 0, 0, 0, 1, 3, b'b', b'y', b'e'];
    let Packet::Bye { ssrcs } = one(&bytes) else { panic!() };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [1]);
    out.clear();
    bye(&mut out, &[]);
    assert!(out.is_empty());
}

#[test]
fn nacks_are_read_and_written() {
    let mut out = Vec::new();
    nack(&mut out, 1, 2, [65_534, 65_535, 0, 14, 15, 1_000].into_iter());
    let first = [0x81, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0x80, 0x03];
    let rest = [0, 15, 0, 0, 3, 0xe8, 0, 0];
    assert_eq!(out[..16], first);
    assert_eq!(out[16..], rest);
    let Packet::Nack { sender: 1, media: 2, pairs } = one(&out) else { panic!() };
    assert_eq!(pairs.clone().next(), Some((0xfffe, 0x8003)));
    assert_eq!(pairs.lost().collect::<Vec<_>>(), [65_534, 65_535, 0, 14, 15, 1_000]);
    out.clear();
    nack(&mut out, 1, 2, std::iter::empty());
    assert!(out.is_empty());
}

#[test]
fn many_losses_take_several_packets() {
    let lost: Vec<u16> = (0..60_000).step_by(17).collect();
    let mut out = Vec::new();
    nack(&mut out, 1, 2, lost.iter().copied().chain(lost.last().copied()));
    let mut read = Vec::new();
    for packet in parse(&out) {
        let Packet::Nack { sender: 1, media: 2, pairs } = packet.unwrap() else { panic!() };
        assert!(pairs.len() <= 222, "900 bytes");
        read.extend(pairs.lost());
    }
    assert_eq!(read, lost);
}

#[test]
fn keyframe_requests_are_read_and_written() {
    let mut out = Vec::new();
    pli(&mut out, 1, 2);
    assert_eq!(out, [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(one(&out), Packet::Pli { sender: 1, media: 2 });
    out.clear();
    fir(&mut out, 1, &[(2, 255), (3, 0)]);
    let expected = [0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 255, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    assert_eq!(out, expected);
    let Packet::Fir { sender: 1, entries } = one(&out) else { panic!() };
    assert_eq!(entries.collect::<Vec<_>>(), [(2, 255), (3, 0)]);
}

#[test]
fn a_remb_is_read_and_written() {
    let mut out = Vec::new();
    remb(&mut out, 1, 1_000_000, &[2, 3]);
    // 1 Mbit/s is 250 000 · 2².
    let expected =
        [0x8f, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 2, 0x0b, 0xd0, 0x90, 0, 0, 0, 2, 0, 0, 0, 3];
    assert_eq!(out, expected);
    let Packet::Remb { sender: 1, bitrate_bps: 1_000_000, ssrcs } = one(&out) else { panic!() };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [2, 3]);
    for bitrate in [0, 1, 0x3ffff, 0x40000, 123_456_789, u64::MAX] {
        out.clear();
        remb(&mut out, 1, bitrate, &[]);
        let Packet::Remb { bitrate_bps, .. } = one(&out) else { panic!() };
        assert!(bitrate_bps <= bitrate && bitrate - bitrate_bps <= bitrate >> 17, "{bitrate} {bitrate_bps}");
    }
    let mut lying = expected;
    lying[16] = 3;
    assert_eq!(parse(&lying).next(), Some(Err(Malformed)));
    lying = expected;
    lying[17..20].copy_from_slice(&[0xff; 3]);
    assert_eq!(parse(&lying).next(), Some(Err(Malformed)), "2⁶³ and more");
}

#[test]
fn other_packets_are_passed_over() {
    let extended = [0x80, 207, 0, 2, 0, 0, 0, 1, 4, 0, 0, 0];
    assert_eq!(one(&extended), Packet::Extended { ssrc: 1, blocks: &[4, 0, 0, 0] });
    let application = [0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'];
    assert_eq!(one(&application), Packet::Other { packet_type: 204, format: 0 });
    let slice = [0x82, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
    assert_eq!(one(&slice), Packet::Other { packet_type: 206, format: 2 });
    let private = [0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'G', b'O', b'O', b'G'];
    assert_eq!(one(&private), Packet::Other { packet_type: 206, format: 15 });
}

#[test]
fn padding_is_taken_off() {
    let padded = [0xa1, 203, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8];
    let Packet::Bye { ssrcs } = one(&padded) else { panic!() };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [1]);
    for count in [0, 12, 13, 255] {
        let mut lying = padded;
        lying[15] = count;
        assert_eq!(parse(&lying).next(), Some(Err(Malformed)), "{count}");
    }
    assert_eq!(parse(&[0xa0, 203, 0, 0]).next(), Some(Err(Malformed)), "nothing that could be padding");
}

#[test]
fn the_first_lie_ends_a_compound() {
    let mut out = Vec::new();
    pli(&mut out, 1, 2);
    out.extend([0x82, 201, 0, 7, 0, 0, 0, 1]);
    out.extend(BLOCK_BYTES);
    pli(&mut out, 1, 2);
    let read: Vec<_> = parse(&out).collect();
    assert_eq!(read, [Ok(Packet::Pli { sender: 1, media: 2 }), Err(Malformed)], "two blocks promised, one there");
    for bytes in [&[0x80][..], &[0x80, 201, 0], &[0x80, 201, 0, 1], &[0x40, 203, 0, 0], &[0x81, 206, 0, 1, 0, 0, 0, 1]]
    {
        assert_eq!(parse(bytes).collect::<Vec<_>>(), [Err(Malformed)]);
    }
    let cut_fir = [0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
    assert_eq!(parse(&cut_fir).collect::<Vec<_>>(), [Err(Malformed)]);
}

#[test]
fn round_trips_are_what_the_receiver_did_not_wait() {
    // RFC 3550 figure 2: 0xb710:8000 − 0xb705:2000 − 5.250 s = 6.125 s.
    let reported = ReportBlock { last_sr: 0xb705_2000, delay_since_last_sr: 0x0005_4000, ..block(1) };
    assert_eq!(round_trip(&reported, 0xb710_8000), Some(0x0006_2000));
    assert_eq!(round_trip(&ReportBlock { last_sr: 0, ..reported }, 0xb710_8000), None);
    assert_eq!(round_trip(&reported, 0xb70a_5fff), None, "waited longer than there was time");
    let wrapped = ReportBlock { last_sr: 0xffff_ff00, delay_since_last_sr: 0x80, ..block(1) };
    assert_eq!(round_trip(&wrapped, 0x40), Some(0xc0));
}

/// Reads everything that can be read.
fn exhaust(bytes: &[u8]) -> usize {
    let mut items = 0;
    for packet in parse(bytes) {
        items += match packet {
            Ok(Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. }) => reports.count(),
            Ok(Packet::Bye { ssrcs } | Packet::Remb { ssrcs, .. }) => ssrcs.count(),
            Ok(Packet::Nack { pairs, .. }) => pairs.lost().count(),
            Ok(Packet::Fir { entries, .. }) => entries.count(),
            Ok(Packet::TransportFeedback(feedback)) => {
                let count = feedback.packets().count();
                assert_eq!(count, usize::from(feedback.packet_count), "what parsed can be walked");
                count.min(1)
            }
            _ => 1,
        };
    }
    items
}

fn one_of_each() -> Vec<u8> {
    let mut out = Vec::new();
    sender_report(&mut out, 1, &SenderInfo::default(), &[block(1), block(2)]);
    source_description(&mut out, 1, "stube");
    nack(&mut out, 1, 2, [1, 5, 40].into_iter());
    pli(&mut out, 1, 2);
    fir(&mut out, 1, &[(2, 3)]);
    remb(&mut out, 1, 300_000, &[4]);
    let mut recorder = ArrivalRecorder::default();
    for (sequence, arrival_us) in [(1, 1_000), (2, 2_000), (4, 90_000), (5, 80_000), (30, 100_000)] {
        recorder.record(sequence, arrival_us);
    }
    assert!(recorder.build(&mut out, 1, 2));
    bye(&mut out, &[1]);
    out
}

#[test]
fn mutated_packets_never_panic() {
    let valid = one_of_each();
    assert_eq!(parse(&valid).filter(Result::is_ok).count(), 8);
    let mut rng = IdSource::from_seed([4; 32]);
    for _ in 0..100_000 {
        let mut bytes = valid.clone();
        for _ in 0..1 + rng.bits() % 4 {
            let at = rng.bits() as usize % bytes.len();
            bytes[at] = rng.bits() as u8;
        }
        bytes.truncate(rng.bits() as usize % (2 * valid.len()));
        exhaust(&bytes);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = IdSource::from_seed([5; 32]);
    for _ in 0..100_000 {
        let mut bytes = [0u8; 64];
        bytes.iter_mut().for_each(|byte| *byte = rng.bits() as u8);
        let words = rng.bits() % 16;
        let head = [0x80 | (bytes[0] & 0x3f), 200 + bytes[1] % 8, 0, words as u8];
        bytes[..4].copy_from_slice(&head);
        exhaust(&bytes[..4 + words as usize * 4]);
    }
}
