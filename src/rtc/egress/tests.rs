//! The sending side against a receiver with the same keys.

use super::*;
use crate::command::quality::{NetworkQuality, SentQuality};
use crate::media::{Codec, Patch};
use crate::rtc::Samples;
use crate::rtc::demux::{self, Media};
use crate::rtc::store::{RingKey, Stored};
use crate::rtp::extensions::Values;
use crate::rtp::header::Header;
use crate::rtp::srtp::{KeyingMaterial, Opener, Profile, RolloverTracker};
use crate::units::Bitrate;

const SSRC: u32 = 77;
const RTX_SSRC: u32 = 78;
const PAYLOAD_BYTES: usize = 1200;

/// A sending side with one video slot, and its receiver.
struct Rig {
    egress: Egress,
    store: PacketStore,
    ring: RingKey,
    stats: Stats,
    opener: Opener,
    tracker: RolloverTracker,
    now: Instant,
}

/// What arrived in one drain.
#[derive(Debug, Default)]
struct Arrived {
    /// Extended numbers of media, as the receiver understands them.
    media: Vec<u64>,
    /// Original numbers of retransmissions.
    repairs: Vec<u16>,
    /// RTCP datagrams, in plain.
    rtcp: Vec<Vec<u8>>,
    /// Payload type and payload of the media.
    payloads: Vec<(u8, Vec<u8>)>,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let profile = Profile::AeadAes128Gcm;
        let contexts = |is_client| {
            let material = vec![7; profile.keying_material_bytes()];
            KeyingMaterial::new(profile, &material).and_then(|keys| keys.contexts(is_client)).unwrap()
        };
        let mut egress = Egress::new("cname".into(), NtpClock::new(Duration::from_secs(1), now), now);
        egress.set_sealer(contexts(true).0);
        let line = SlotLine {
            name: "0".into(),
            kind: MediaKind::Video,
            ssrc: SSRC,
            rtx_ssrc: RTX_SSRC,
            first_seq: 100,
            red: None,
        };
        egress.set_stream(0, &line, ExtensionIds::default(), 0, now);
        let mut store = PacketStore::default();
        let ring = store.open();
        let (stats, tracker) = (Stats::default(), RolloverTracker::default());
        Self { egress, store, ring, stats, opener: contexts(false).1, tracker, now }
    }

    /// Stores a packet.
    fn put(&mut self, seq: u64, payload: &[u8], primary_at: u16) {
        let stored = Stored {
            timestamp: seq as u32,
            codec: Codec::Vp8,
            marker: true,
            values: Values::default(),
            descriptor: None,
            targets: 0,
            is_padding: false,
            payload: payload.into(),
            primary_at,
        };
        self.store.put(self.ring, seq, stored, self.now);
    }

    /// A copy of a stored packet under this outgoing number.
    fn copy(&self, seq: u64) -> Copy {
        Copy {
            packet: PacketRef { ring: self.ring, seq },
            seq,
            timestamp: seq as u32,
            captured_at: self.now,
            clock_rate_hz: 90_000,
            bytes: PAYLOAD_BYTES,
            payload_type: 96,
            primary_only: false,
            rtx_payload_type: Some(97),
            patch: Patch::default(),
        }
    }

    /// Queues a packet under this outgoing number.
    fn push(&mut self, seq: u64) {
        self.put(seq, &[1; PAYLOAD_BYTES], 0);
        assert_eq!(self.egress.push(0, std::iter::once(self.copy(seq)), &mut self.stats, self.now), Ok(0));
    }

    fn nack(&mut self, numbers: impl Iterator<Item = u16>) {
        self.egress.retransmit(SSRC, numbers, &self.store, &mut self.stats, self.now);
    }

    /// Sends all that may leave, and opens it as a receiver does.
    fn drain(&mut self) -> Arrived {
        let mut arrived = Arrived::default();
        loop {
            let mut run = Vec::new();
            let segment = self.egress.fill(&mut run, &self.store, &mut self.stats, self.now);
            if segment == 0 {
                return arrived;
            }
            for datagram in run.chunks(segment) {
                let mut plain = Vec::new();
                if matches!(demux::media(datagram), Some(Media::Rtcp)) {
                    self.opener.open_rtcp(datagram, &mut plain).unwrap();
                    arrived.rtcp.push(plain);
                    continue;
                }
                let header = Header::parse(datagram).unwrap();
                let is_media = header.ssrc == SSRC;
                let number = header.sequence_number;
                let index = if is_media { self.tracker.guess(number) } else { number.into() };
                let opened = self.opener.open_rtp_into(header.ssrc, index, datagram, header.header_bytes, &mut plain);
                assert_eq!(opened, Ok(()), "{number} is taken for {index}");
                if is_media {
                    self.tracker.accept(index);
                    arrived.media.push(index);
                    arrived.payloads.push((header.payload_type, plain));
                } else {
                    arrived.repairs.push(u16::from_be_bytes([plain[0], plain[1]]));
                }
            }
        }
    }
}

/// A packet of RED: a block of Opus before the one it is about.
const RED: [u8; 9] = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3, 4];

#[test]
fn red_goes_whole_or_as_its_primary() {
    let mut rig = Rig::new();
    for (seq, primary_only) in [(100, false), (101, true), (102, true), (103, false)] {
        rig.put(seq, &RED, 7);
        let bytes = if primary_only { 2 } else { RED.len() };
        let payload_type = if primary_only { 111 } else { 63 };
        let copy = Copy { payload_type, primary_only, rtx_payload_type: None, bytes, ..rig.copy(seq) };
        assert_eq!(rig.egress.push(0, std::iter::once(copy), &mut rig.stats, rig.now), Ok(0));
    }
    let arrived = rig.drain();
    assert_eq!(arrived.media, [100, 101, 102, 103]);
    let (whole, primary) = ((63, RED.to_vec()), (111, vec![3, 4]));
    assert_eq!(arrived.payloads, [whole.clone(), primary.clone(), primary, whole]);
    let sent = rig.stats.rtp_out.video;
    assert_eq!((sent.packets, sent.bytes), (4, 2 * RED.len() as u64 + 4));
}

#[test]
fn a_number_is_sealed_once() {
    let mut rig = Rig::new();
    for seq in [100, 105, 101, 100, 105] {
        rig.push(seq);
    }
    assert_eq!(rig.drain().media, [100, 105, 101]);
    assert_eq!(rig.stats.drops.of(DropReason::Internal), 2);
}

#[test]
fn what_the_budget_refused_may_be_asked_for_again_at_once() {
    let mut rig = Rig::new();
    (100..140).for_each(|seq| rig.push(seq));
    assert_eq!(rig.drain().media.len(), 40);
    rig.nack(100..140);
    let repaired = rig.drain().repairs;
    let refused = 100 + repaired.len() as u16;
    assert!(refused < 140, "the budget is spent");
    (140..160).for_each(|seq| rig.push(seq));
    rig.drain();
    rig.nack([100, refused].into_iter());
    assert_eq!(rig.drain().repairs, [refused], "100 has just been sent again");
}

#[test]
fn what_waits_of_an_encoding_that_was_left_does_not_delay_the_next_nor_is_it_sent_again() {
    let mut rig = Rig::new();
    // A packet is some 60 ms.
    rig.egress.flow.set_pace(Bitrate::from_bps(160_000), rig.now);
    (100..106).for_each(|seq| rig.push(seq));
    assert_eq!((rig.drain().media, rig.egress.waiting()), (vec![100], 5));
    rig.ring = rig.store.open();
    rig.push(106);
    assert_eq!((rig.egress.waiting(), rig.stats.drops.of(DropReason::SlotChanged)), (1, 5));
    rig.nack(100..101);
    assert!(rig.drain().media.is_empty(), "the pacer still has the first to pay for");
    rig.now += Duration::from_millis(100);
    let arrived = rig.drain();
    assert_eq!((arrived.media, arrived.repairs), (vec![106], vec![]));
    rig.nack([100, 106].into_iter());
    rig.now += Duration::from_millis(100);
    assert_eq!(rig.drain().repairs, [106], "100 is of the encoding before");
}

#[test]
fn of_what_was_given_up_nothing_is_sent_again() {
    let mut rig = Rig::new();
    rig.egress.flow.set_pace(Bitrate::from_bps(160_000), rig.now);
    (100..112).for_each(|seq| rig.push(seq));
    assert_eq!(rig.drain().media, [100]);
    assert_eq!((rig.egress.take_starved(), rig.egress.take_starved()), (Some(0), None));
    rig.nack(100..101);
    rig.now += Duration::from_secs(1);
    assert!(rig.drain().repairs.is_empty());
}

#[test]
fn the_receiver_keeps_count_however_many_numbers_were_not_sent() {
    let mut rig = Rig::new();
    // Everything from 100 on was for somebody who could not take it.
    for seq in [70_000, 70_001, 70_004] {
        rig.push(seq);
    }
    assert_eq!(rig.drain().media, [100, 101, 104], "a short gap stays");
    rig.push(140_000);
    rig.push(140_002);
    rig.push(139_999);
    assert_eq!(rig.drain().media, [105, 107], "what belongs before the skip has no number");
    rig.nack([105, 107].into_iter());
    assert_eq!(rig.drain().repairs, [105, 107]);
}

#[test]
fn much_feedback_leaves_in_compounds_that_fit_a_datagram() {
    let mut rig = Rig::new();
    (100..103).for_each(|seq| rig.push(seq));
    for number in 0..100 {
        rtcp::pli(rig.egress.rtcp(), 5, number);
    }
    rtcp::nack(rig.egress.rtcp(), 5, 6, (0..60_000).step_by(17));
    rtcp::receiver_report(rig.egress.rtcp(), 5, &[ReportBlock::default(); 31]);
    rtcp::source_description(rig.egress.rtcp(), 5, "cname");
    let arrived = rig.drain();
    assert_eq!(arrived.media.len(), 3);
    let (mut plis, mut lost, mut blocks, mut sent) = (0, 0, 0, 0);
    for compound in &arrived.rtcp {
        assert!(compound.len() <= compound::BYTES_MAX, "{} bytes", compound.len());
        let packets: Vec<_> = rtcp::parse(compound).map(Result::unwrap).collect();
        let first = packets.first().unwrap();
        assert!(matches!(first, rtcp::Packet::SenderReport { .. } | rtcp::Packet::ReceiverReport { .. }), "{first:?}");
        assert!(matches!(packets[1], rtcp::Packet::SourceDescription { .. }), "{:?}", packets[1]);
        for packet in packets {
            match packet {
                rtcp::Packet::Pli { media, .. } => {
                    assert_eq!(media, plis, "in order");
                    plis += 1;
                }
                rtcp::Packet::Nack { pairs, .. } => lost += pairs.lost().count(),
                rtcp::Packet::ReceiverReport { ssrc: 5, reports } => blocks += reports.len(),
                rtcp::Packet::SenderReport { info, .. } => sent += info.packets,
                _ => {}
            }
        }
    }
    assert_eq!((plis, lost, blocks, sent), (100, 60_000usize.div_ceil(17), 31, 3));
    assert!(!rig.egress.has_work(rig.now));
}

#[test]
fn it_tells_what_was_sent_and_samples_once_a_second() {
    let mut rig = Rig::new();
    (100..140).for_each(|seq| rig.push(seq));
    rig.drain();
    rig.nack([105, 110].into_iter());
    rig.drain();
    let sent = SentQuality { packets: 40, bytes: 40 * PAYLOAD_BYTES as u64, retransmitted: 2 };
    assert_eq!((rig.egress.sent(0), rig.egress.sent(1)), (sent, SentQuality::default()));
    let NetworkQuality { round_trip_ms, estimate_bps, loss_ratio, nacks, .. } = rig.egress.network();
    assert_eq!((round_trip_ms, estimate_bps, loss_ratio, nacks), (None, None, None, 2), "not what is assumed");
    let mut samples = Samples::default();
    rig.egress.sample(&mut samples, rig.now);
    assert_eq!(samples, Samples::default(), "nothing is known");
    rig.egress.round_trip = Some(Duration::from_millis(30));
    let count = |samples: &Samples| samples.round_trips_us.buckets.iter().sum::<u64>();
    for (passed_ms, counted) in [(999, 0), (1, 1), (999, 1), (1, 2)] {
        rig.now += Duration::from_millis(passed_ms);
        rig.egress.sample(&mut samples, rig.now);
        assert_eq!(count(&samples), counted);
    }
    assert_eq!(samples.round_trips_us.sum, 60_000);
}
