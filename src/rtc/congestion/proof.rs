//! What a probe has proved, plainly: its packets arrived as fast as they were sent.
//!
//! GoogCC bounds its estimate by what was lost and by what arrives while there is little to send. After a bad minute
//! in which video was paused that is next to nothing, and its probes lift it by a fifth each. But what arrived, arrived.

use crate::units::Bitrate;

/// A proof needs so many packets, all of them received.
const MIN_PACKETS: u32 = 5;

/// Both halves of a probe came at the same rate, if they differ by less than this.
const EVEN: f64 = 1.5;

/// The packets of the latest probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proof {
    cluster: u16,
    packets: u32,
    lost: bool,
    /// Sent after the first, and received after the first.
    bytes: u64,
    sent_us: (u64, u64),
    arrived_us: (i64, i64),
    /// The same of bytes and arrival when half of what was planned had been sent.
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
        if cluster == 0 {
            return;
        }
        if cluster != self.cluster {
            *self = Self { cluster, ..Self::default() };
        }
        let Some(arrived_us) = arrived_us else { return self.lost = true };
        if self.packets == 0 {
            (self.sent_us, self.arrived_us) = ((sent_us, sent_us), (arrived_us, arrived_us));
        } else {
            self.bytes += u64::from(wire_bytes);
            self.sent_us.1 = self.sent_us.1.max(sent_us);
            self.arrived_us = (self.arrived_us.0.min(arrived_us), self.arrived_us.1.max(arrived_us));
            if self.half.is_none() && self.bytes * 2 >= u64::from(planned) {
                self.half = Some((self.bytes, self.arrived_us.1));
            }
        }
        self.packets += 1;
    }

    /// How this probe arrived, if it is complete: `bytes` were planned.
    pub fn arrival(&self, cluster: u16, bytes: u32) -> Option<Arrival> {
        let complete = self.cluster == cluster && !self.lost && self.packets > MIN_PACKETS;
        if !complete || self.bytes * 10 < u64::from(bytes) * 9 {
            return None;
        }
        let sent_us = self.sent_us.1.checked_sub(self.sent_us.0)?;
        let arrived_us = (self.arrived_us.1 - self.arrived_us.0).max(0).cast_unsigned();
        let half =
            self.half.map_or((0, 0), |(bytes, at_us)| (bytes, (at_us - self.arrived_us.0).max(0).cast_unsigned()));
        Some(Arrival { bytes: self.bytes, sent_us, arrived_us, half })
    }
}

impl Arrival {
    /// Whether both halves arrived at about the same rate: no frame among them came in one go, and no jitter between.
    pub fn is_even(&self) -> bool {
        let (bytes, us) = self.half;
        let [first, second] = [(bytes, us), (self.bytes - bytes, self.arrived_us - us)]
            .map(|(bytes, us)| if us > 0 { bytes as f64 / us as f64 } else { 0.0 });
        first < second * EVEN && second < first * EVEN
    }

    /// The rate that is proved.
    pub fn rate(&self) -> Option<Bitrate> {
        let span_us = self.sent_us.max(self.arrived_us);
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
        assert!(!even(|index| if index < 6 { index * 1_000 } else { index * 3_000 }), "the link got narrower");
        assert!(!even(|index| index / 6 * 20_000), "jitter");
        assert_eq!(Proof::default().arrival(3, 10), None);
    }
}
