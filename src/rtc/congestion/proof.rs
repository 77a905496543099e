//! What a probe has proved, plainly: its packets arrived as fast as they were sent.
//!
//! GoogCC bounds its estimate by what was lost and by what arrives while there is little to send. After a bad minute
//! in which video was paused that is next to nothing, and its probes lift it by a fifth each. But what arrived, arrived.

use crate::units::Bitrate;

/// A proof needs so many packets, all of them received.
const MIN_PACKETS: u32 = 5;

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
}

impl Proof {
    /// A packet's fate is known; `cluster` is its probe, 0 for none.
    pub fn add(&mut self, cluster: u16, wire_bytes: u16, sent_us: u64, arrived_us: Option<i64>) {
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
        }
        self.packets += 1;
    }

    /// The rate that this probe proved, if it is complete: `bytes` were planned.
    pub fn rate(&self, cluster: u16, bytes: u32) -> Option<Bitrate> {
        let complete = self.cluster == cluster && !self.lost && self.packets > MIN_PACKETS;
        if !complete || self.bytes * 10 < u64::from(bytes) * 9 {
            return None;
        }
        let sent = self.sent_us.1.checked_sub(self.sent_us.0)?;
        let arrived = (self.arrived_us.1 - self.arrived_us.0).max(0).cast_unsigned();
        let span_us = sent.max(arrived);
        (span_us > 0).then(|| Bitrate::from_bps(self.bytes * 8_000_000 / span_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(packets: u64, arrives_us: impl Fn(u64) -> Option<i64>) -> Option<u64> {
        let mut proof = Proof::default();
        for index in 0..=packets {
            proof.add(3, 1000, 1_000 + index * 2_000, arrives_us(index));
        }
        proof.rate(3, 10_000).map(|rate| rate.as_bps() / 1000)
    }

    #[test]
    fn what_arrived_as_fast_as_it_was_sent_is_proved() {
        assert_eq!(probed(10, |index| Some(index.cast_signed() * 2_000)), Some(4_000));
        assert_eq!(probed(10, |_| Some(5)), Some(4_000), "no faster than it was sent");
        assert_eq!(probed(10, |index| Some(index.cast_signed() * 8_000)), Some(1_000));
        assert_eq!(probed(10, |index| (index != 4).then_some(index.cast_signed())), None);
        assert_eq!(probed(7, |index| Some(index.cast_signed())), None, "not all is back yet");
        assert_eq!(Proof::default().rate(3, 10), None);
    }
}
