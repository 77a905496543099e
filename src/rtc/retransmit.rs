//! Which stored packet an outgoing number was, and how much may be sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::store::{PacketRef, RingKey};
use crate::media::Patch;
use crate::rtp::numbers::NumberWindow;
use crate::units::Bitrate;

/// Stretches of numbering remembered for one stream. A stretch begins with each change of source or encoding, and after
/// each frame of which layers are left out. What a NACK can mean is of the last second, and that has 30 frames or 60.
const MAX_STRETCHES: usize = 64;
/// Resends remembered for one stream, so that none is repeated within a round trip.
const MAX_RESENDS: usize = 64;
/// Bytes sent again may be this share of the bytes sent, in per cent: at 20 % loss a stream is better thinned.
const BUDGET_PERCENT: usize = 20;
/// The budget is never less than this, bytes: a keyframe's worth for one who gets little.
const BUDGET_FLOOR_BYTES: usize = 30_000;
/// And never more than this is saved up, bytes.
const BUDGET_CAP_BYTES: usize = 300_000;
/// The floor is there again after this long.
const FLOOR_REFILL: Duration = Duration::from_secs(1);
/// What is granted at once is this part of a second's sending at most, lest a link that has collapsed carries nothing but what
/// the wide one lost.
const PACE_SHARE: u64 = 4;
/// But a packet of any size at least.
const PACKET_BYTES: usize = 1_500;

/// A stretch of one stream's outgoing numbers that are a source's numbers plus a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its first outgoing number, and what that was in the source.
    pub first_out: u64,
    pub first_in: u64,
    pub ring: RingKey,
    pub timestamp_offset: u32,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub patch: Patch,
}

impl Stretch {
    fn packet(&self, out: u64) -> PacketRef {
        PacketRef { ring: self.ring, seq: self.first_in + (out - self.first_out) }
    }

    fn continues(&self, next: &Self) -> bool {
        let distance_in = next.first_in.wrapping_sub(self.first_in);
        next.first_out >= self.first_out
            && next.first_out - self.first_out == distance_in
            && (self.ring, self.timestamp_offset, self.payload_type, self.patch)
                == (next.ring, next.timestamp_offset, next.payload_type, next.patch)
    }
}

/// A packet that was sent: its extended outgoing number, where it is kept, and how it was numbered.
pub type Found = (u64, PacketRef, Stretch);

/// What an outgoing stream's numbers were.
#[derive(Debug, Default)]
pub struct SequenceMap {
    stretches: VecDeque<Stretch>,
    /// What was sent again lately.
    resends: VecDeque<(u64, Instant)>,
    /// A gap, or what came too late for this receiver, is not to be sent "again".
    sent: NumberWindow,
    /// Whose marker was set: of layers that are cut off, one packet in each picture. None is the rule.
    marked: Option<Box<NumberWindow>>,
    /// Numbers below this are not sent again.
    repaired_from: u64,
}

impl SequenceMap {
    /// Notes an outgoing number: a stretch of its own, or part of the last. False if it has been used, or is too old to
    /// tell: nothing may be sealed under it.
    #[must_use]
    pub fn note(&mut self, mut packet: Stretch) -> bool {
        if self.sent.is_past(packet.first_out) || self.sent.contains(packet.first_out) {
            return false;
        }
        let is_late = self.sent.highest().is_some_and(|highest| packet.first_out < highest);
        self.sent.insert(packet.first_out);
        // Not the stretch's: it goes on behind.
        if std::mem::take(&mut packet.patch.mark) {
            self.marked.get_or_insert_default().insert(packet.first_out);
        }
        if is_late {
            self.note_late(packet);
        } else if self.stretches.back().is_none_or(|last| !last.continues(&packet)) {
            self.stretches.push_back(packet);
        }
        while self.stretches.len() > MAX_STRETCHES {
            self.stretches.pop_front();
        }
        true
    }

    /// Stretches stand in the order of their numbers, whenever their packets come: each ends where the next begins.
    fn note_late(&mut self, packet: Stretch) {
        let at = self.stretches.partition_point(|stretch| stretch.first_out <= packet.first_out);
        let before = at.checked_sub(1).and_then(|before| self.stretches.get(before)).copied();
        if before.is_some_and(|before| before.continues(&packet)) {
            return;
        }
        let behind = packet.first_out + 1;
        let is_within = self.stretches.get(at).is_none_or(|next| next.first_out > behind);
        self.stretches.insert(at, packet);
        // One number in the middle of a stretch that goes on behind it.
        if let Some(rest) = before.filter(|_| is_within) {
            let first_in = rest.first_in.wrapping_add(behind - rest.first_out);
            self.stretches.insert(at + 1, Stretch { first_out: behind, first_in, ..rest });
        }
    }

    /// The packet a receiver misses under this number, unless it was sent again within the last round trip.
    pub fn find(&self, seq: u16, round_trip: Duration, now: Instant) -> Option<Found> {
        let out = self.extend(seq).filter(|out| *out >= self.repaired_from && self.sent.contains(*out))?;
        let mut stretch = *self.stretches.iter().rev().find(|stretch| stretch.first_out <= out)?;
        stretch.patch.mark = self.is_marked(out);
        if self.resends.iter().any(|(sent, at)| *sent == out && now.saturating_duration_since(*at) < round_trip) {
            return None;
        }
        Some((out, stretch.packet(out), stretch))
    }

    /// Whether the stream still sends what comes from there. From an encoding that it has left, a decoder needs nothing: it
    /// goes on from the keyframe of the next.
    pub fn is_current(&self, ring: RingKey) -> bool {
        self.stretches.back().is_some_and(|last| last.ring == ring)
    }

    /// A packet that was [found](Self::find) is sent again.
    pub fn note_resend(&mut self, out: u64, now: Instant) {
        if self.resends.len() == MAX_RESENDS {
            self.resends.pop_front();
        }
        self.resends.push_back((out, now));
    }

    /// What was sent is of no use to the receiver any more: it goes on from a keyframe.
    pub fn leave_behind(&mut self) {
        self.repaired_from = self.sent.highest().map_or(0, |highest| highest + 1);
    }

    /// The packets are kept no longer, and their rings may soon be others'. What was sent stays noted, so that no number
    /// is used twice.
    pub fn forget_packets(&mut self) {
        self.stretches.clear();
        self.resends.clear();
    }

    /// The packet sent last.
    pub fn latest(&self) -> Option<Found> {
        let (out, mut stretch) = (self.sent.highest()?, *self.stretches.back()?);
        stretch.patch.mark = self.is_marked(out);
        (out >= stretch.first_out).then(|| (out, stretch.packet(out), stretch))
    }

    fn is_marked(&self, out: u64) -> bool {
        self.marked.as_ref().is_some_and(|marked| marked.contains(out))
    }

    /// The latest outgoing number not above the highest with these low bits.
    fn extend(&self, seq: u16) -> Option<u64> {
        let highest = self.sent.highest()?;
        highest.checked_sub(u64::from((highest as u16).wrapping_sub(seq)))
    }
}

/// How many bytes may still be sent again to one subscriber.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    refilled_at: Instant,
}

impl Budget {
    /// A budget that holds its floor.
    pub fn new(now: Instant) -> Self {
        Self { bytes: BUDGET_FLOOR_BYTES, refilled_at: now }
    }

    /// Media was sent for the first time.
    pub fn earn(&mut self, sent_bytes: usize) {
        self.bytes = (self.bytes + sent_bytes * BUDGET_PERCENT / 100).min(BUDGET_CAP_BYTES);
    }

    /// Whether so much may be sent again now, at this pace; if so it is spent.
    pub fn spend(&mut self, bytes: usize, pace: Bitrate, now: Instant) -> bool {
        let ceiling = usize::try_from(pace.as_bps() / 8 / PACE_SHARE).unwrap_or(usize::MAX).max(PACKET_BYTES);
        self.bytes = self.bytes.min(ceiling);
        if now.saturating_duration_since(self.refilled_at) >= FLOOR_REFILL {
            self.refilled_at = now;
            self.bytes = self.bytes.max(BUDGET_FLOOR_BYTES.min(ceiling));
        }
        let granted = bytes <= self.bytes;
        if granted {
            self.bytes -= bytes;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtc::store::PacketStore;

    fn stretch(ring: RingKey, out: u64, incoming: u64) -> Stretch {
        Stretch {
            first_out: out,
            first_in: incoming,
            ring,
            timestamp_offset: 5,
            payload_type: 96,
            rtx_payload_type: Some(97),
            patch: Patch::default(),
        }
    }

    #[test]
    fn numbers_lead_back_to_the_packets_over_changes_of_source_and_wraps() {
        let t0 = Instant::now();
        let mut store = PacketStore::default();
        let (a, b) = (store.open(), store.open());
        let mut map = SequenceMap::default();
        for n in 0..100 {
            assert!(map.note(stretch(a, 65_500 + n, 1000 + n)));
        }
        for n in 0..10 {
            assert!(map.note(stretch(b, 65_600 + n, 7 + n)));
        }
        assert_eq!(map.stretches.len(), 2);
        let find = |out: u64| map.find(out as u16, Duration::ZERO, t0).map(|(full, packet, _)| (full, packet));
        assert_eq!(find(65_535), Some((65_535, PacketRef { ring: a, seq: 1035 })));
        assert_eq!(find(65_536), Some((65_536, PacketRef { ring: a, seq: 1036 })));
        assert_eq!(find(65_609), Some((65_609, PacketRef { ring: b, seq: 16 })));
        assert_eq!(find(65_499), None, "never sent");
    }

    #[test]
    fn what_is_forgotten_is_not_sent_again_under_another_s_ring_nor_its_numbers_used_twice() {
        let ring = PacketStore::default().open();
        let mut map = SequenceMap::default();
        assert!((10..20).all(|out| map.note(stretch(ring, out, out))));
        map.forget_packets();
        assert!(map.find(15, Duration::ZERO, Instant::now()).is_none() && map.latest().is_none());
        assert!(!map.note(stretch(ring, 15, 15)) && map.note(stretch(ring, 20, 3)));
        assert_eq!(map.latest().map(|(out, packet, _)| (out, packet.seq)), Some((20, 3)));
    }

    #[test]
    fn each_packet_keeps_its_marker() {
        let ring = PacketStore::default().open();
        let mut map = SequenceMap::default();
        for out in 10..20 {
            let patch = Patch { mark: out % 3 == 0, ..Patch::default() };
            assert!(map.note(Stretch { patch, ..stretch(ring, out, out) }));
        }
        assert_eq!(map.stretches.len(), 1);
        let mut marked = |out: u64| map.find(out as u16, Duration::ZERO, Instant::now()).map(|(.., s)| s.patch.mark);
        assert_eq!([11, 12, 13, 18, 20].map(&mut marked), [Some(false), Some(true), Some(false), Some(true), None]);
    }

    #[test]
    fn what_comes_late_does_not_shadow_what_is_behind_it() {
        let mut store = PacketStore::default();
        let (a, b) = (store.open(), store.open());
        let found = |noted: &[(RingKey, u64, u64)], asked: &[u64]| {
            let mut map = SequenceMap::default();
            for (ring, out, incoming) in noted {
                assert!(map.note(stretch(*ring, *out, *incoming)));
            }
            let find = |out: &u64| map.find(*out as u16, Duration::ZERO, Instant::now());
            let latest = map.latest().map(|(out, packet, _)| (out, packet.seq));
            (
                asked.iter().map(|out| find(out).map(|(_, packet, _)| (packet.ring, packet.seq))).collect::<Vec<_>>(),
                latest,
            )
        };
        // Between two that were left out, a repaired one.
        let (seen, latest) = found(&[(a, 1, 1), (a, 3, 5), (a, 2, 3)], &[1, 2, 3]);
        assert_eq!((seen, latest), (vec![Some((a, 1)), Some((a, 3)), Some((a, 5))], Some((3, 5))));
        // In the middle of a stretch.
        let (seen, _) = found(&[(a, 1, 1), (a, 2, 2), (a, 4, 4), (a, 5, 5), (a, 3, 9)], &[2, 3, 4, 5]);
        assert_eq!(seen, vec![Some((a, 2)), Some((a, 9)), Some((a, 4)), Some((a, 5))]);
        // Of the same stretch.
        let (seen, _) = found(&[(a, 1, 1), (a, 3, 3), (a, 2, 2)], &[1, 2, 3]);
        assert_eq!(seen, vec![Some((a, 1)), Some((a, 2)), Some((a, 3))]);
        // There and back again, as if nothing had been between.
        let (seen, latest) = found(&[(a, 1, 1), (b, 2, 7), (b, 3, 8), (a, 4, 4), (a, 5, 5)], &[2, 3, 4, 5]);
        assert_eq!(seen, vec![Some((b, 7)), Some((b, 8)), Some((a, 4)), Some((a, 5))]);
        assert_eq!(latest, Some((5, 5)));
    }

    #[test]
    fn what_was_left_behind_is_not_sent_again_but_serves_as_padding() {
        let ring = PacketStore::default().open();
        let mut map = SequenceMap::default();
        assert!((10..20).all(|out| map.note(stretch(ring, out, out))));
        map.leave_behind();
        assert!(map.find(19, Duration::ZERO, Instant::now()).is_none() && map.latest().is_some());
        assert!(map.note(stretch(ring, 20, 20)));
        assert!(map.find(20, Duration::ZERO, Instant::now()).is_some());
    }

    #[test]
    fn what_was_not_sent_is_not_sent_again() {
        let t0 = Instant::now();
        let ring = PacketStore::default().open();
        let mut map = SequenceMap::default();
        for out in [10, 11, 14, 13, 5000] {
            assert!(map.note(stretch(ring, out, out)));
        }
        let mut find = |out: u64| map.find(out as u16, Duration::ZERO, t0).is_some();
        assert_eq!([12, 3980, 4500, 4999, 5000, 5001].map(&mut find), [false, false, false, false, true, false]);
        let mut map = SequenceMap::default();
        for out in [10, 11, 14, 13] {
            assert!(map.note(stretch(ring, out, out)));
        }
        let mut find = |out: u64| map.find(out as u16, Duration::ZERO, t0).is_some();
        assert_eq!([10, 11, 12, 13, 14, 15].map(&mut find), [true, true, false, true, true, false]);
    }

    #[test]
    fn nothing_is_sent_again_twice_within_a_round_trip() {
        let t0 = Instant::now();
        let ring = PacketStore::default().open();
        let mut map = SequenceMap::default();
        assert!(map.note(stretch(ring, 10, 10)));
        let rtt = Duration::from_millis(50);
        assert!(map.find(10, rtt, t0).is_some());
        assert!(map.find(10, rtt, t0).is_some(), "it was found, not sent");
        map.note_resend(10, t0);
        assert!(map.find(10, rtt, t0 + Duration::from_millis(49)).is_none());
        assert!(map.find(10, rtt, t0 + rtt).is_some());
    }

    #[test]
    fn a_storm_of_requests_is_bounded_by_what_was_sent() {
        let t0 = Instant::now();
        let mut budget = Budget::new(t0);
        let fast = Bitrate::from_bps(1_000_000_000);
        let storm = |budget: &mut Budget, at| (0..10_000).filter(|_| budget.spend(1000, fast, at)).count();
        assert_eq!(storm(&mut budget, t0), 30);
        budget.earn(1_000_000);
        assert_eq!(storm(&mut budget, t0), 200);
        budget.earn(10_000_000);
        assert_eq!(storm(&mut budget, t0), 300, "no more is saved up");
        assert_eq!(storm(&mut budget, t0 + FLOOR_REFILL), 30);
    }

    #[test]
    fn what_a_wide_link_lost_does_not_fill_a_narrow_one() {
        let t0 = Instant::now();
        let mut budget = Budget::new(t0);
        budget.earn(10_000_000);
        let narrow = Bitrate::from_bps(160_000);
        let storm = |budget: &mut Budget, at| (0..100).filter(|_| budget.spend(1000, narrow, at)).count();
        assert_eq!([storm(&mut budget, t0), storm(&mut budget, t0 + FLOOR_REFILL)], [5, 5]);
        budget.earn(10_000);
        assert_eq!(storm(&mut budget, t0 + FLOOR_REFILL), 2, "and what it earns");
        assert!(budget.spend(1_400, Bitrate::from_bps(30_000), t0 + FLOOR_REFILL * 2), "one packet at least");
    }

    #[test]
    fn an_encoding_that_was_left_is_not_current() {
        let mut store = PacketStore::default();
        let (high, low) = (store.open(), store.open());
        let mut map = SequenceMap::default();
        assert!((10..20).all(|out| map.note(stretch(high, out, out))));
        assert!(map.is_current(high) && !map.is_current(low));
        assert!(map.note(stretch(low, 20, 7)));
        assert!(map.is_current(low) && !map.is_current(high));
        assert!(map.find(15, Duration::ZERO, Instant::now()).is_some(), "it is known all the same");
    }
}
