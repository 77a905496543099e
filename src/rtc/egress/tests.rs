//! The sending side against a receiver with the same keys.

use super::*;
use crate::rtc::demux::{self, Media};
use crate::rtc::store::{RingKey, Stored};
use crate::rtp::extensions::Values;
use crate::rtp::header::Header;
use crate::rtp::srtp::{KeyingMaterial, Opener, Profile, RolloverTracker};

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
        let line =
            SlotLine { name: "0".into(), kind: MediaKind::Video, ssrc: SSRC, rtx_ssrc: RTX_SSRC, first_seq: 100 };
        egress.set_stream(0, &line, ExtensionIds::default(), 0, now);
        let mut store = PacketStore::default();
        let ring = store.open();
        let (stats, tracker) = (Stats::default(), RolloverTracker::default());
        Self { egress, store, ring, stats, opener: contexts(false).1, tracker, now }
    }

    /// Queues a packet under this outgoing number.
    fn push(&mut self, seq: u64) {
        let (timestamp, values) = (seq as u32, Values::default());
        let payload = vec![1; PAYLOAD_BYTES].into();
        self.store.put(self.ring, seq, Stored { timestamp, marker: true, values, descriptor: None, payload }, self.now);
        let copy = Copy {
            packet: PacketRef { ring: self.ring, seq },
            seq,
            timestamp,
            captured_at: self.now,
            clock_rate_hz: 90_000,
            bytes: PAYLOAD_BYTES,
            payload_type: 96,
            rtx_payload_type: Some(97),
        };
        assert_eq!(self.egress.push(0, std::iter::once(copy), self.now), Ok(0));
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
                } else {
                    arrived.repairs.push(u16::from_be_bytes([plain[0], plain[1]]));
                }
            }
        }
    }
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
