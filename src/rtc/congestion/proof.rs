//! What a probe has proved, plainly: its packets arrived as fast as they were sent.
//!
//! GoogCC bounds its estimate by what was lost and by what arrives while there is little to send. After a bad minute
//! in which video was paused that is next to nothing, and its probes lift it by a fifth each. But what arrived, arrived.

use super::probing::LONG_BYTES;
use crate::units::Bitrate;

/// A proof needs so many packets, all of them received.
const MIN_PACKETS: u32 = 5;

/// Who arrives this much longer than it was sent has filled the link.
const LATE: f64 = 1.04;

/// Both halves of a probe came at the same rate, if they differ by less than this.
const EVEN: f64 = 1.5;

/// A long probe's later part begins here: by then the tokens of a bucket are used up.
const LATER: f64 = 0.6;
/// It measures the bottleneck if it took so long: less is mostly jitter.
const LATER_US: u64 = 50_000;
/// The later part came slower than the earlier by this, and so much was queued that it is not jitter: a bucket ran dry.
const SLOWER: f64 = 1.5;
const DRY_US: u64 = 25_000;
/// A probe of which less arrived shows nothing.
const MOST: f64 = 0.6;

/// The packets of the latest probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proof {
    cluster: u16,
    packets: u32,
    lost_bytes: u64,
    first_bytes: u64,
    /// Sent after the first, and received after the first.
    bytes: u64,
    sent_us: (u64, u64),
    arrived_us: (i64, i64),
    /// The same of bytes and arrival when half of what was planned had been sent, of a long one [`LATER`].
    half: Option<(u64, i64)>,
}

/// How a whole probe was sent, and arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub bytes: u64,
    /// How long each took.
    pub sent_us: u64,
    pub arrived_us: u64,
    /// Bytes and time of the first half.
    pub half: (u64, u64),
}

impl Proof {
    /// A packet's fate is known; `cluster` is its probe, 0 for none, and how many bytes that was to have.
    pub fn add(&mut self, (cluster, planned): (u16, u32), wire_bytes: u16, sent_us: u64, arrived_us: Option<i64>) {
        // Older ones are reported late, and have been judged.
        if cluster == 0 || (self.cluster != 0 && cluster.wrapping_sub(self.cluster).cast_signed() < 0) {
            return;
        }
        if cluster != self.cluster {
            *self = Self { cluster, ..Self::default() };
        }
        let Some(arrived_us) = arrived_us else { return self.lost_bytes += u64::from(wire_bytes) };
        if self.packets == 0 {
            self.first_bytes = wire_bytes.into();
            (self.sent_us, self.arrived_us) = ((sent_us, sent_us), (arrived_us, arrived_us));
        } else {
            self.bytes += u64::from(wire_bytes);
            self.sent_us.1 = self.sent_us.1.max(sent_us);
            self.arrived_us = (self.arrived_us.0.min(arrived_us), self.arrived_us.1.max(arrived_us));
            let share = if planned >= LONG_BYTES { LATER } else { 0.5 };
            if self.half.is_none() && self.bytes as f64 >= f64::from(planned) * share {
                self.half = Some((self.bytes, self.arrived_us.1));
            }
        }
        self.packets += 1;
    }

    /// How this probe arrived, if it is complete: `bytes` were planned.
    pub fn arrival(&self, cluster: u16, bytes: u32) -> Option<Arrival> {
        let complete = self.cluster == cluster && self.lost_bytes == 0 && self.packets > MIN_PACKETS;
        self.spans().filter(|_| complete && is_nearly(self.bytes, bytes))
    }

    /// How as much of it arrived as did, once the fate of nearly all of it is known: some may be lost without meaning.
    pub fn glimpse(&self, cluster: u16, bytes: u32) -> Option<Arrival> {
        // Of the bytes after the first packet, for the last one shows whether the burst before it was delayed.
        let known = self.cluster == cluster && is_nearly(self.bytes + self.lost_bytes, bytes);
        self.spans().filter(|_| known && self.bytes as f64 >= f64::from(bytes) * MOST)
    }

    /// Whether feedback about nearly all of it has come.
    pub fn is_known(&self, cluster: u16, bytes: u32) -> bool {
        self.cluster == cluster && is_nearly(self.first_bytes + self.bytes + self.lost_bytes, bytes)
    }

    fn spans(&self) -> Option<Arrival> {
        let sent_us = self.sent_us.1.checked_sub(self.sent_us.0)?;
        let arrived_us = (self.arrived_us.1 - self.arrived_us.0).max(0).cast_unsigned();
        let half =
            self.half.map_or((0, 0), |(bytes, at_us)| (bytes, (at_us - self.arrived_us.0).max(0).cast_unsigned()));
        Some(Arrival { bytes: self.bytes, sent_us, arrived_us, half })
    }
}

/// Whether these are nearly all bytes that were planned.
fn is_nearly(bytes: u64, planned: u32) -> bool {
    bytes * 10 >= u64::from(planned) * 9
}

impl Arrival {
    /// It has met the bottleneck: it took longer to arrive than to be sent.
    pub fn is_late(&self) -> bool {
        self.arrived_us as f64 > self.sent_us as f64 * LATE
    }

    /// The part of it by which the bottleneck is measured, bytes and time: the later one, if that took long enough, for
    /// what the earlier found of a bucket's tokens came faster.
    pub fn measure(&self) -> (u64, u64) {
        let later = self.later();
        if self.is_late() && later.1 >= LATER_US { later } else { (self.bytes, self.span_us()) }
    }

    /// It came no faster than it was sent.
    fn span_us(&self) -> u64 {
        self.sent_us.max(self.arrived_us)
    }

    fn later(&self) -> (u64, u64) {
        let (bytes, us) = self.half;
        (self.bytes - bytes, self.arrived_us - us)
    }

    /// Its later part, if that came so much slower than the earlier that the latter was let pass by a token bucket.
    pub fn after_bucket(&self) -> Option<(u64, u64)> {
        let (bytes, us) = self.half;
        let later = self.later();
        let dry = bytes as f64 * later.1 as f64 > later.0 as f64 * us as f64 * SLOWER;
        (dry && later.0 > 0 && self.arrived_us > self.sent_us + DRY_US).then_some(later)
    }

    /// Whether both halves arrived at about the same rate: no frame among them came in one go, and no jitter between.
    pub fn is_even(&self) -> bool {
        let (bytes, us) = self.half;
        let [first, second] =
            [(bytes, us), self.later()].map(|(bytes, us)| if us > 0 { bytes as f64 / us as f64 } else { 0.0 });
        first < second * EVEN && second < first * EVEN
    }

    /// The rate that is proved.
    pub fn rate(&self) -> Option<Bitrate> {
        let span_us = self.span_us();
        (span_us > 0).then(|| Bitrate::from_bps(self.bytes * 8_000_000 / span_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(packets: u64, arrives_us: impl Fn(u64) -> Option<i64>) -> Option<u64> {
        let mut proof = Proof::default();
        for index in 0..=packets {
            proof.add((3, 10_000), 1000, 1_000 + index * 2_000, arrives_us(index));
        }
        proof.arrival(3, 10_000).and_then(|arrival| arrival.rate()).map(|rate| rate.as_bps() / 1000)
    }

    #[test]
    fn what_arrived_as_fast_as_it_was_sent_is_proved() {
        assert_eq!(probed(10, |index| Some(index.cast_signed() * 2_000)), Some(4_000));
        assert_eq!(probed(10, |_| Some(5)), Some(4_000), "no faster than it was sent");
        assert_eq!(probed(10, |index| Some(index.cast_signed() * 8_000)), Some(1_000));
        assert_eq!(probed(10, |index| (index != 4).then_some(index.cast_signed())), None);
        assert_eq!(probed(7, |index| Some(index.cast_signed())), None, "not all is back yet");
        let even = |arrives_us: fn(i64) -> i64| {
            let mut proof = Proof::default();
            let mut add = |index: i64| {
                let sent_us = 1_000 + index.cast_unsigned() * 2_000;
                proof.add((3, 10_000), 1000, sent_us, Some(arrives_us(index)));
            };
            (0..=10).for_each(&mut add);
            proof.arrival(3, 10_000).unwrap().is_even()
        };
        assert!(even(|index| index * 3_000));
        assert!(!even(|index| if index < 7 { index * 1_000 } else { index * 3_000 }), "the link got narrower");
        assert!(!even(|index| index / 6 * 20_000), "jitter");
        assert_eq!(Proof::default().arrival(3, 10), None);
    }

    /// A long probe of so many packets of 1,000 bytes, one each 2 ms, and how it arrived.
    fn long(packets: u64, arrives_us: impl Fn(i64) -> i64) -> Arrival {
        let mut proof = Proof::default();
        let planned = packets as u32 * 1000;
        for index in 0..=packets {
            proof.add((3, planned), 1000, 1_000 + index * 2_000, Some(arrives_us(index.cast_signed())));
        }
        proof.arrival(3, planned).unwrap()
    }

    #[test]
    fn a_bucket_shows_when_it_has_run_dry() {
        // Four packets pass at once, then one each 25 ms: 320 kbit/s.
        let arrival = long(10, |index| (index * 2_000).max((index - 4) * 25_000));
        assert_eq!(arrival.after_bucket(), Some((4_000, 100_000)));
        assert_eq!(arrival.measure(), (4_000, 100_000));
        // No bucket, and one that was nearly empty: the later part tells the rate.
        let arrival = long(10, |index| index * 25_000);
        assert_eq!((arrival.after_bucket(), arrival.measure()), (None, (4_000, 100_000)));
        let arrival = long(10, |index| (index - 1).max(0) * 25_000);
        assert_eq!((arrival.after_bucket(), arrival.measure()), (None, (4_000, 100_000)));
        // Not late, or a wide link, whose later part is too short to measure by.
        assert_eq!(long(10, |index| index * 2_000).after_bucket(), None);
        assert_eq!(long(10, |index| index * 3_000).measure(), (10_000, 30_000));
        assert_eq!(long(10, |index| index / 5 * 12_000).after_bucket(), None, "jitter");
    }

    #[test]
    fn a_glimpse_suffers_loss_and_waits_for_all_feedback() {
        let mut proof = Proof::default();
        let glimpse = |proof: &Proof| proof.glimpse(3, 10_000).and_then(|arrival| arrival.rate());
        for index in 0..=10_u64 {
            assert_eq!((glimpse(&proof).is_some(), proof.is_known(3, 10_000)), (index == 10, index >= 9));
            let arrives = (index % 4 != 1).then_some(index.cast_signed() * 2_000);
            proof.add((3, 10_000), 1000, 1_000 + index * 2_000, arrives);
        }
        assert_eq!(glimpse(&proof).map(Bitrate::as_bps), Some(2_800_000));
        assert_eq!((proof.arrival(3, 10_000), proof.is_known(4, 10_000)), (None, false));
        for index in 11..=30 {
            proof.add((4, 20_000), 1000, index * 2_000, (index < 20).then_some(index.cast_signed() * 2_000));
        }
        assert_eq!((proof.glimpse(4, 20_000), proof.is_known(4, 20_000)), (None, true), "less than half arrived");
    }
}
