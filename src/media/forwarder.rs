//! Rewrites what must go on unbroken in a slot's stream, whatever flows through it: sequence numbers, timestamps, and
//! the numbers of frames.
//!
//! A slot keeps one SSRC for life (RFC 3550 §8: a receiver resets when the SSRC changes), so the packets of every
//! source bound to it must look like one stream: numbers continue after a change of source, what was lost stays a gap,
//! what is left out on purpose leaves none, and the timestamp moves by the time that really passed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet::{FrameNumbers, Packet};

/// The least step between two sources' timestamps. At 30 frames a second one frame lasts 33 ms; anything above zero
/// keeps decoders happy, a frame keeps the pace.
const MIN_SWITCH_STEP: Duration = Duration::from_millis(20);
/// A jump of the input beyond this is a new numbering, not loss: RFC 3550 A.1 MAX_DROPOUT, in packets.
const MAX_DROPOUT: u64 = 3000;
/// Changes of numbering remembered for packets that come late: a second of a thinned 60 frames a second stream.
const MAX_SHIFTS: usize = 64;

/// The state of one outgoing SSRC.
#[derive(Debug)]
pub struct Forwarder {
    /// The next number to use after a change of source.
    next_seq: u64,
    last: Option<Last>,
    source: Option<Mapping>,
    /// What was left out of the source, oldest first: from which of its numbers on, and how much in all.
    shifts: VecDeque<(u64, Shift)>,
    /// What was left out before that.
    oldest: Shift,
}

/// What a copy is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Extended sequence number.
    pub seq: u64,
    pub timestamp: u32,
    /// What to add to the frame's numbers; all wrap.
    pub frame: FrameNumbers,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    timestamp: u32,
    captured_at: Instant,
    /// The numbers of its frame as they went out.
    frame: FrameNumbers,
}

/// How the current source's numbers become ours.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    ssrc: u32,
    first_in: u64,
    highest_in: u64,
    first_out: u64,
    timestamp_offset: u32,
    frame_offset: FrameNumbers,
}

/// Packets and pictures left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shift {
    packets: u64,
    pictures: u16,
}

impl Forwarder {
    /// A stream whose first packet gets `first_seq`.
    pub fn new(first_seq: u16) -> Self {
        Self {
            next_seq: u64::from(first_seq),
            last: None,
            source: None,
            shifts: VecDeque::new(),
            oldest: Shift::default(),
        }
    }

    /// Forgets the source; the next packet begins a new one.
    pub fn switch(&mut self) {
        self.source = None;
    }

    /// Whether this packet begins another source than the one that flows: another SSRC, or numbers that start anew.
    pub fn is_foreign(&self, packet: &Packet) -> bool {
        self.source.is_some_and(|mapping| !mapping.continues_with(packet))
    }

    /// What the copy is called, or `None` for a packet from before the source's first.
    pub fn forward(&mut self, packet: &Packet) -> Option<Numbers> {
        let mapping = match self.source {
            Some(mapping) if mapping.continues_with(packet) => mapping,
            _ => self.begin(packet),
        };
        let shift = self.shift_at(packet.seq)?;
        let seq = mapping.first_out + packet.seq.checked_sub(mapping.first_in)? - shift.packets;
        let timestamp = packet.timestamp.wrapping_add(mapping.timestamp_offset);
        let mut frame = mapping.frame_offset;
        frame.picture_id = frame.picture_id.wrapping_sub(shift.pictures);
        self.source = Some(Mapping { highest_in: mapping.highest_in.max(packet.seq), ..mapping });
        if seq >= self.next_seq {
            self.next_seq = seq + 1;
            let sent = packet.frame.numbers.plus(frame);
            self.last = Some(Last { timestamp, captured_at: packet.captured_at, frame: sent });
        }
        Some(Numbers { seq, timestamp, frame })
    }

    /// A packet of the source that flows is left out on purpose: what follows moves up. `picture`: with it a whole
    /// picture is left out.
    pub fn skip(&mut self, packet: &Packet, picture: bool) {
        let Some(mapping) = self.source.as_mut().filter(|mapping| mapping.continues_with(packet)) else { return };
        // One that comes late has left its gap already.
        if packet.seq <= mapping.highest_in {
            return;
        }
        let follows = mapping.highest_in + 1 == packet.seq;
        mapping.highest_in = packet.seq;
        let (from, shift) = self.shifts.back().copied().unwrap_or((0, self.oldest));
        let shift = Shift { packets: shift.packets + 1, pictures: shift.pictures.wrapping_add(u16::from(picture)) };
        match self.shifts.back_mut() {
            // In a row, it is one change.
            Some(last) if follows && from == packet.seq => *last = (packet.seq + 1, shift),
            _ => {
                if self.shifts.len() == MAX_SHIFTS
                    && let Some((_, oldest)) = self.shifts.pop_front()
                {
                    self.oldest = oldest;
                }
                self.shifts.push_back((packet.seq + 1, shift));
            }
        }
    }

    /// What had been left out before a packet of the source; none if that is long forgotten.
    fn shift_at(&self, seq: u64) -> Option<Shift> {
        let Some((first, _)) = self.shifts.front() else { return Some(self.oldest) };
        if seq < *first {
            // With all changes remembered, before the first there was none.
            return (self.shifts.len() < MAX_SHIFTS).then_some(self.oldest);
        }
        self.shifts.iter().rev().find(|(from, _)| seq >= *from).map(|(_, shift)| *shift)
    }

    fn begin(&mut self, packet: &Packet) -> Mapping {
        self.shifts.clear();
        self.oldest = Shift::default();
        let (timestamp_offset, frame_offset) = match self.last {
            None => (0, FrameNumbers::default()),
            Some(last) => {
                let passed = packet.captured_at.saturating_duration_since(last.captured_at).max(MIN_SWITCH_STEP);
                let ticks = passed.as_micros() * u128::from(packet.codec.clock_rate_hz()) / 1_000_000;
                // Truncation is the wrap-around of RTP timestamps.
                let timestamp_offset = last.timestamp.wrapping_add(ticks as u32).wrapping_sub(packet.timestamp);
                (timestamp_offset, last.frame.next().minus(packet.frame.numbers))
            }
        };
        Mapping {
            ssrc: packet.ssrc,
            first_in: packet.seq,
            highest_in: packet.seq,
            first_out: self.next_seq,
            timestamp_offset,
            frame_offset,
        }
    }
}

impl Mapping {
    fn continues_with(&self, packet: &Packet) -> bool {
        self.ssrc == packet.ssrc && packet.seq.abs_diff(self.highest_in) <= MAX_DROPOUT
    }
}

impl FrameNumbers {
    fn combine(self, other: Self, wide: fn(u16, u16) -> u16, narrow: fn(u8, u8) -> u8) -> Self {
        Self {
            picture_id: wide(self.picture_id, other.picture_id),
            tl0_picture_index: narrow(self.tl0_picture_index, other.tl0_picture_index),
            key_index: narrow(self.key_index, other.key_index),
            frame_number: wide(self.frame_number, other.frame_number),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.combine(other, u16::wrapping_add, u8::wrapping_add)
    }

    fn minus(self, other: Self) -> Self {
        self.combine(other, u16::wrapping_sub, u8::wrapping_sub)
    }

    /// Those of the frame that follows.
    fn next(self) -> Self {
        self.plus(Self { picture_id: 1, tl0_picture_index: 1, key_index: 1, frame_number: 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Frame};

    fn packet(ssrc: u32, seq: u64, timestamp: u32, at: Instant) -> Packet {
        let (codec, frame) = (Codec::Vp8, Frame::default());
        let (keyframe, level, size) = (false, None, None);
        Packet { ssrc, seq, timestamp, codec, bytes: 1000, keyframe, level, captured_at: at, frame, size }
    }

    #[test]
    fn gaps_stay_gaps_and_reordering_stays_reordering() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(100);
        let seqs: Vec<_> = [70_000, 70_001, 70_004, 70_003, 70_005]
            .map(|seq| forwarder.forward(&packet(1, seq, 90, t0)).map(|numbers| numbers.seq))
            .into();
        assert_eq!(seqs, [Some(100), Some(101), Some(104), Some(103), Some(105)]);
    }

    #[test]
    fn a_new_source_continues_numbers_and_time() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0);
        let mut forward = |ssrc, seq, timestamp, at, switch: bool| {
            if switch {
                forwarder.switch();
            }
            forwarder.forward(&packet(ssrc, seq, timestamp, at)).map(|numbers| (numbers.seq, numbers.timestamp))
        };
        assert_eq!(forward(1, 500, 10_000, t0, false), Some((0, 10_000)));
        let later = t0 + Duration::from_millis(100);
        assert_eq!(forward(2, 9, 777, later, true), Some((1, 10_000 + 9_000)));
        assert_eq!(forward(2, 10, 777 + 3000, later, false), Some((2, 10_000 + 12_000)));
    }

    #[test]
    fn what_came_before_the_switch_is_not_sent() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(5);
        assert_eq!(forwarder.forward(&packet(1, 50, 0, t0)).map(|numbers| numbers.seq), Some(5));
        assert_eq!(forwarder.forward(&packet(1, 49, 0, t0)), None);
    }

    #[test]
    fn a_publisher_that_restarts_its_numbering_is_a_new_source() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0);
        assert_eq!(forwarder.forward(&packet(1, 60_000, 0, t0)).map(|numbers| numbers.seq), Some(0));
        let numbers = forwarder.forward(&packet(9, 3, 5, t0)).unwrap();
        assert_eq!((numbers.seq, numbers.timestamp), (1, 1800));
        assert_eq!(forwarder.forward(&packet(9, 30_000, 5, t0)).unwrap().seq, 2);
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
            if rng.bits().is_multiple_of(5) {
                forwarder.skip(&packet(ssrc, base, 0, at), false);
                continue;
            }
            // Some come late, after what was left out behind them.
            let late = u64::from(rng.bits().is_multiple_of(7)) * 3;
            if late > 0 {
                forwarder.skip(&packet(ssrc, base + 2, 0, at), true);
            }
            let seq = base + late;
            for seq in [seq, seq.saturating_sub(late)].into_iter().take(1 + usize::from(late > 0)) {
                if let Some(Numbers { seq, .. }) = forwarder.forward(&packet(ssrc, seq, step as u32 * 90, at)) {
                    assert!(seen.insert(seq), "sequence number {seq} twice");
                }
            }
            base += late;
        }
    }

    #[test]
    fn what_is_left_out_leaves_no_gap_and_what_is_lost_does() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(10);
        let frame = |seq: u64, picture_id: u16| {
            let numbers = FrameNumbers { picture_id, ..FrameNumbers::default() };
            Packet { frame: Frame { numbers, ..Frame::default() }, ..packet(1, seq, 0, t0) }
        };
        let mut out = Vec::new();
        let mut send = |forwarder: &mut Forwarder, seq, picture_id| {
            let numbers = forwarder.forward(&frame(seq, picture_id)).unwrap();
            out.push((numbers.seq, picture_id.wrapping_add(numbers.frame.picture_id)));
        };
        send(&mut forwarder, 100, 7);
        // Picture 8 has two packets, both left out; 102 comes late.
        forwarder.skip(&frame(101, 8), true);
        send(&mut forwarder, 103, 9);
        forwarder.skip(&frame(102, 8), false);
        // 104 is missing, picture 11 is left out.
        forwarder.skip(&frame(105, 11), true);
        send(&mut forwarder, 106, 12);
        send(&mut forwarder, 104, 10);
        send(&mut forwarder, 99 + 8, 13);
        assert_eq!(out, [(10, 7), (12, 8), (14, 10), (13, 9), (15, 11)]);
    }

    #[test]
    fn the_numbers_of_frames_go_on_over_a_change_of_source() {
        let t0 = Instant::now();
        let mut forwarder = Forwarder::new(0);
        let with = |ssrc, picture_id, tl0_picture_index, key_index, frame_number| {
            let numbers = FrameNumbers { picture_id, tl0_picture_index, key_index, frame_number };
            Packet { frame: Frame { numbers, ..Frame::default() }, ..packet(ssrc, 5, 0, t0) }
        };
        let first = with(1, 0x7fff, 255, 31, 9);
        assert_eq!(forwarder.forward(&first).unwrap().frame, FrameNumbers::default());
        forwarder.switch();
        let second = with(2, 100, 3, 30, 60_000);
        let numbers = second.frame.numbers.plus(forwarder.forward(&second).unwrap().frame);
        assert_eq!((numbers.picture_id, numbers.tl0_picture_index, numbers.key_index), (0x8000, 0, 32));
        assert_eq!(numbers.frame_number, 10);
    }
}
