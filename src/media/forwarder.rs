//! Rewrites sequence numbers and timestamps so that a slot's stream never breaks, whatever flows through it.
//!
//! A slot keeps one SSRC for life (RFC 3550 §8: a receiver resets when the SSRC changes), so the packets of every
//! source bound to it must look like one stream: numbers continue after a change of source, gaps stay gaps, and the
//! timestamp moves by the time that really passed.

use std::time::{Duration, Instant};

use super::packet::Packet;

/// The least step between two sources' timestamps. At 30 frames a second one frame lasts 33 ms; anything above zero
/// keeps decoders happy, a frame keeps the pace.
const MIN_SWITCH_STEP: Duration = Duration::from_millis(20);
/// A jump of the input beyond this is a new numbering, not loss: RFC 3550 A.1 MAX_DROPOUT, in packets.
const MAX_DROPOUT: u64 = 3000;

/// The state of one outgoing SSRC.
#[derive(Debug)]
pub struct Forwarder {
    /// The next number to use after a change of source.
    next_seq: u64,
    last: Option<Last>,
    source: Option<Mapping>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    timestamp: u32,
    captured_at: Instant,
}

/// How the current source's numbers become ours.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    ssrc: u32,
    first_in: u64,
    highest_in: u64,
    first_out: u64,
    timestamp_offset: u32,
}

impl Forwarder {
    /// A stream whose first packet gets `first_seq`.
    pub fn new(first_seq: u16) -> Self {
        Self { next_seq: u64::from(first_seq), last: None, source: None }
    }

    /// Forgets the source; the next packet begins a new one.
    pub fn switch(&mut self) {
        self.source = None;
    }

    /// Whether this packet begins another source than the one that flows: another SSRC, or numbers that start anew.
    pub fn is_foreign(&self, packet: &Packet) -> bool {
        self.source.is_some_and(|mapping| !mapping.continues_with(packet))
    }

    /// The outgoing number and timestamp, or `None` for a packet from before the source's first.
    pub fn forward(&mut self, packet: &Packet) -> Option<(u64, u32)> {
        let mapping = match self.source {
            Some(mapping) if mapping.continues_with(packet) => mapping,
            _ => self.begin(packet),
        };
        let seq = mapping.first_out + packet.seq.checked_sub(mapping.first_in)?;
        let timestamp = packet.timestamp.wrapping_add(mapping.timestamp_offset);
        self.source = Some(Mapping { highest_in: mapping.highest_in.max(packet.seq), ..mapping });
        if seq >= self.next_seq {
            self.next_seq = seq + 1;
            self.last = Some(Last { timestamp, captured_at: packet.captured_at });
        }
        Some((seq, timestamp))
    }

    fn begin(&self, packet: &Packet) -> Mapping {
        let timestamp_offset = match self.last {
            None => 0,
            Some(last) => {
                let passed = packet.captured_at.saturating_duration_since(last.captured_at).max(MIN_SWITCH_STEP);
                let ticks = passed.as_micros() * u128::from(packet.codec.clock_rate_hz()) / 1_000_000;
                // Truncation is the wrap-around of RTP timestamps.
                last.timestamp.wrapping_add(ticks as u32).wrapping_sub(packet.timestamp)
            }
        };
        Mapping {
            ssrc: packet.ssrc,
            first_in: packet.seq,
            highest_in: packet.seq,
            first_out: self.next_seq,
            timestamp_offset,
        }
    }
}

impl Mapping {
    fn continues_with(&self, packet: &Packet) -> bool {
        self.ssrc == packet.ssrc && packet.seq.abs_diff(self.highest_in) <= MAX_DROPOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;

    fn packet(ssrc: u32, seq: u64, timestamp: u32, at: Instant) -> Packet {
        Packet { ssrc, seq, timestamp, codec: Codec::Vp8, bytes: 1000, keyframe: false, level: None, captured_at: at }
    }

    #[test]
    fn gaps_stay_gaps_and_reordering_stays_reordering() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(100);
        let seqs: Vec<_> = [70_000, 70_001, 70_004, 70_003, 70_005]
            .map(|seq| forwarder.forward(&packet(1, seq, 90, t0)).map(|(seq, _)| seq))
            .into();
        assert_eq!(seqs, [Some(100), Some(101), Some(104), Some(103), Some(105)]);
    }

    #[test]
    fn a_new_source_continues_numbers_and_time() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0);
        assert_eq!(forwarder.forward(&packet(1, 500, 10_000, t0)), Some((0, 10_000)));
        forwarder.switch();
        let later = t0 + Duration::from_millis(100);
        assert_eq!(forwarder.forward(&packet(2, 9, 777, later)), Some((1, 10_000 + 9_000)));
        assert_eq!(forwarder.forward(&packet(2, 10, 777 + 3000, later)), Some((2, 10_000 + 12_000)));
    }

    #[test]
    fn what_came_before_the_switch_is_not_sent() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(5);
        assert_eq!(forwarder.forward(&packet(1, 50, 0, t0)), Some((5, 0)));
        assert_eq!(forwarder.forward(&packet(1, 49, 0, t0)), None);
    }

    #[test]
    fn a_publisher_that_restarts_its_numbering_is_a_new_source() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0);
        assert_eq!(forwarder.forward(&packet(1, 60_000, 0, t0)), Some((0, 0)));
        let (seq, timestamp) = forwarder.forward(&packet(9, 3, 5, t0)).unwrap();
        assert_eq!((seq, timestamp), (1, 1800));
        let (seq, _) = forwarder.forward(&packet(9, 30_000, 5, t0)).unwrap();
        assert_eq!(seq, 2);
    }

    #[test]
    fn an_outgoing_number_is_never_used_twice() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(7);
        let mut seen = std::collections::BTreeSet::new();
        let mut rng = crate::ids::IdSource::from_seed([3; 32]);
        let (mut ssrc, mut base) = (1, 1_000u64);
        for step in 0..20_000u64 {
            if rng.bits().is_multiple_of(97) {
                (ssrc, base) = (ssrc + 1, u64::from(rng.bits() % 60_000) + 5_000);
                forwarder.switch();
            }
            base += 1;
            let at = t0 + Duration::from_millis(step);
            if let Some((seq, _)) = forwarder.forward(&packet(ssrc, base, step as u32 * 90, at)) {
                assert!(seen.insert(seq), "sequence number {seq} twice");
            }
        }
    }
}
