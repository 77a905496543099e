//! Which packets of one stream to ask for again, and when (RFC 4585 §6.2.1).
//!
//! A gap is given a little time to fill by itself, for networks reorder: a packet is asked for when two later ones
//! have come, or 10 ms after the first of them. Then again every round trip, until it comes or is not worth it.

use std::collections::VecDeque;

/// How long a gap may be due to reordering, unless a second later packet shows first that it is not.
const REORDER_US: u64 = 10_000;
/// An answer may take this much longer than the round trip.
const ANSWER_MARGIN_US: u64 = 5_000;
/// Even on the shortest path a packet is not asked for more often.
const MIN_RETRY_US: u64 = 20_000;
/// After so many requests the path is broken or the sender has forgotten the packet.
const MAX_TRIES: u8 = 10;
/// No decoder waits longer.
const MAX_AGE_US: u64 = 1_000_000;
/// Packets this far behind the newest are past their frame's time, and out of most senders' buffers. It bounds what is
/// kept, too: a gap as long as this is not asked for, a keyframe costs less than the packets.
const WINDOW_PACKETS: u64 = 500;

/// The missing packets of one stream.
#[derive(Debug, Clone, Default)]
pub struct NackGenerator {
    /// Extended sequence number of the newest packet.
    highest: Option<u64>,
    /// How many packets came that were newer than all before them.
    advances: u64,
    /// In ascending order.
    missing: VecDeque<Missing>,
    /// No request is due before; may be too early, when what was due has come.
    next_due_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    number: u64,
    noticed_us: u64,
    /// [`NackGenerator::advances`] when it was noticed.
    noticed_at: u64,
    due_us: u64,
    tries: u8,
}

impl NackGenerator {
    /// A packet arrived, for the first time or again. Whether so much is missing that only a keyframe helps: all of it
    /// is forgotten then.
    #[must_use]
    pub fn received(&mut self, number: u64, now_us: u64) -> bool {
        let highest = *self.highest.get_or_insert(number);
        if number <= highest {
            if let Ok(at) = self.missing.binary_search_by_key(&number, |missing| missing.number) {
                self.missing.remove(at);
            }
            return false;
        }
        self.highest = Some(number);
        self.advances += 1;
        self.forget_before(number.saturating_sub(WINDOW_PACKETS));
        let gap = number - highest - 1;
        if gap >= WINDOW_PACKETS {
            self.missing.clear();
            return true;
        }
        self.hurry(now_us);
        let due_us = now_us.saturating_add(REORDER_US);
        for number in highest + 1..number {
            self.ask_by(due_us);
            let noticed_at = self.advances;
            self.missing.push_back(Missing { number, noticed_us: now_us, noticed_at, due_us, tries: 0 });
        }
        false
    }

    // What the packet before this one showed to be missing has now been overtaken twice.
    fn hurry(&mut self, now_us: u64) {
        let before = self.advances - 1;
        let mut hurried = false;
        let noticed_before = self.missing.iter_mut().rev().take_while(|missing| missing.noticed_at == before);
        for missing in noticed_before.filter(|missing| missing.tries == 0) {
            missing.due_us = missing.due_us.min(now_us);
            hurried = true;
        }
        if hurried {
            self.ask_by(now_us);
        }
    }

    /// The next time to ask is this or sooner.
    fn ask_by(&mut self, due_us: u64) {
        self.next_due_us = if self.missing.is_empty() { due_us } else { self.next_due_us.min(due_us) };
    }

    /// A keyframe begins with this packet: what is missing before it no longer matters.
    pub fn keyframe(&mut self, number: u64) {
        self.forget_before(number);
    }

    fn forget_before(&mut self, number: u64) {
        while self.missing.front().is_some_and(|missing| missing.number < number) {
            self.missing.pop_front();
        }
    }

    /// Appends the packets to ask for now, in ascending order.
    pub fn due(&mut self, now_us: u64, rtt_us: u64, out: &mut Vec<u16>) {
        if self.next_due().is_none_or(|due_us| now_us < due_us) {
            return;
        }
        let retry_us = now_us.saturating_add(rtt_us.saturating_add(ANSWER_MARGIN_US).max(MIN_RETRY_US));
        self.next_due_us = u64::MAX;
        self.missing.retain_mut(|missing| {
            if missing.due_us <= now_us {
                if missing.tries >= MAX_TRIES || now_us.saturating_sub(missing.noticed_us) >= MAX_AGE_US {
                    return false;
                }
                // The sequence number is the index's lower half.
                out.push(missing.number as u16);
                missing.tries += 1;
                missing.due_us = retry_us;
            }
            self.next_due_us = self.next_due_us.min(missing.due_us);
            true
        });
    }

    /// When to call [`NackGenerator::due`] next; `None` while nothing is missing.
    pub fn next_due(&self) -> Option<u64> {
        (!self.missing.is_empty()).then_some(self.next_due_us)
    }

    /// How many packets are missing and not given up.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;

    const MS: u64 = 1_000;
    const RTT_US: u64 = 50 * MS;

    fn due(nack: &mut NackGenerator, now_us: u64) -> Vec<u16> {
        let mut out = Vec::new();
        nack.due(now_us, RTT_US, &mut out);
        out
    }

    #[test]
    fn when_packets_are_asked_for_first() {
        /// Arrivals (number, ms), and what is asked for at which ms.
        type Case = (&'static [(u64, u64)], &'static [(u64, &'static [u16])]);
        let cases: &[Case] = &[
            // In order; a duplicate; an old one.
            (&[(10, 0), (11, 1), (11, 2), (3, 3)], &[(3, &[]), (100, &[])]),
            // One overtaken once waits for 10 ms, twice is asked for.
            (&[(10, 0), (12, 1)], &[(1, &[]), (10, &[]), (11, &[11]), (12, &[])]),
            (&[(10, 0), (12, 1), (13, 2)], &[(2, &[11])]),
            (&[(10, 0), (15, 1), (16, 2)], &[(2, &[11, 12, 13, 14])]),
            // It comes late after all.
            (&[(10, 0), (12, 1), (11, 2), (13, 3)], &[(3, &[]), (100, &[])]),
            // Two gaps: only the first has been overtaken twice.
            (&[(10, 0), (12, 1), (14, 2)], &[(2, &[11]), (11, &[]), (12, &[13])]),
            // An old packet is no overtaking.
            (&[(10, 0), (13, 1), (11, 2)], &[(2, &[]), (11, &[12])]),
            // Numbers are told without their wraps.
            (&[(65_534, 0), (65_537, 1), (65_538, 1)], &[(1, &[65_535, 0])]),
        ];
        for (index, (arrivals, expected)) in cases.iter().enumerate() {
            let mut nack = NackGenerator::default();
            for (number, at_ms) in *arrivals {
                assert!(!nack.received(*number, at_ms * MS));
            }
            for (at_ms, numbers) in *expected {
                assert_eq!(due(&mut nack, at_ms * MS), *numbers, "case {index} at {at_ms} ms");
            }
        }
    }

    #[test]
    fn a_packet_is_asked_for_every_round_trip_until_it_comes() {
        let mut nack = NackGenerator::default();
        assert_eq!(nack.next_due(), None);
        assert!(!nack.received(1, 0) && !nack.received(3, 0));
        assert_eq!(nack.next_due(), Some(10 * MS));
        assert_eq!(due(&mut nack, 10 * MS), [2]);
        assert_eq!(nack.next_due(), Some(65 * MS));
        assert!(!nack.received(4, 20 * MS), "a second packet overtakes it, when it has been asked for");
        assert!(due(&mut nack, 65 * MS - 1).is_empty());
        assert_eq!(due(&mut nack, 65 * MS), [2]);
        assert!(!nack.received(2, 70 * MS));
        assert_eq!((nack.next_due(), nack.missing()), (None, 0));
    }

    #[test]
    fn requests_end_by_number_and_by_time() {
        for (rtt_us, expected) in [(0, 10), (80 * MS, 10), (200 * MS, 5), (10_000 * MS, 1), (u64::MAX, 1)] {
            let mut nack = NackGenerator::default();
            assert!(!nack.received(1, 0) && !nack.received(3, 0));
            let mut asked = Vec::new();
            while let Some(due_us) = nack.next_due() {
                nack.due(due_us, rtt_us, &mut asked);
            }
            assert_eq!(asked.len(), expected, "{rtt_us}");
        }
    }

    #[test]
    fn a_keyframe_or_the_window_makes_packets_worthless() {
        let mut nack = NackGenerator::default();
        assert!(!nack.received(1, 0) && !nack.received(4, 0) && !nack.received(6, 0));
        nack.keyframe(4);
        assert_eq!((nack.missing(), due(&mut nack, 10 * MS)), (1, vec![5]));
        for number in 7..=505 {
            assert!(!nack.received(number, 10 * MS));
        }
        assert_eq!(nack.missing(), 1);
        assert!(!nack.received(506, 10 * MS));
        assert_eq!((nack.missing(), nack.next_due()), (0, None));
    }

    #[test]
    fn too_much_missing_calls_for_a_keyframe() {
        for (next, helpless) in [(501, false), (502, true), (u64::MAX, true)] {
            let mut nack = NackGenerator::default();
            assert!(!nack.received(1, 0));
            assert_eq!(nack.received(next, 0), helpless, "{next}");
            assert_eq!(nack.missing() == 0, helpless);
        }
        let mut nack = NackGenerator::default();
        assert!(!nack.received(0, 0) && nack.received(600, 0) && !nack.received(602, 0));
        assert_eq!(nack.missing(), 1, "it goes on from there");
        for number in 0..10_000 {
            assert!(!nack.received(602 + number * 499, 0));
            assert!(nack.missing() <= WINDOW_PACKETS as usize);
        }
    }

    #[test]
    fn what_is_asked_for_is_missing_and_never_too_often() {
        for seed in 0..20 {
            let mut rng = IdSource::from_seed([seed; 32]);
            let mut nack = NackGenerator::default();
            let mut arrived = std::collections::BTreeSet::new();
            let mut asked = std::collections::BTreeMap::<u16, (u64, u8)>::new();
            let (mut now_us, mut number) = (0, 100u64);
            for _ in 0..10_000 {
                now_us += u64::from(rng.bits() % 4_000);
                number += u64::from(rng.bits() % 30 / 28 + 1);
                let late = if rng.bits().is_multiple_of(10) { u64::from(rng.bits() % 20) } else { 0 };
                arrived.insert((number - late) as u16);
                assert!(!nack.received(number - late, now_us));
                for wanted in due(&mut nack, now_us) {
                    assert!(!arrived.contains(&wanted), "seed {seed}");
                    let (last_us, tries) = asked.insert(wanted, (now_us, 0)).unwrap_or_default();
                    assert!(tries < MAX_TRIES && (last_us == 0 || now_us - last_us >= RTT_US + ANSWER_MARGIN_US));
                    asked.insert(wanted, (now_us, tries + 1));
                }
                assert!(nack.next_due().is_none_or(|due_us| due_us > now_us), "seed {seed}");
            }
            assert!(asked.len() > 100);
        }
    }
}
