//! The share of packets that was lost lately.

/// Packets over which loss is measured.
const WINDOW_PACKETS: u32 = 200;
/// The same as time, for whom little is sent: 200 packets of a picture at 180 lines take ten seconds, and as long the
/// loss of a network that was full forbade to probe whether it still is. Seen in Chromium: 300 kbit/s and free again,
/// nine seconds until the next probe.
const WINDOW_US: u64 = 2_000_000;
/// In fewer packets one that is lost would be more than a tenth, which is what matters to probing.
const LEAST_PACKETS: u32 = 20;
/// After this long without packets nothing is known of loss.
const FORGET_US: u64 = 2_000_000;

/// Loss over the last packets: two windows, the finished and the growing one.
#[derive(Debug, Default)]
pub struct LossMeter {
    growing: Window,
    finished: Window,
    /// When the growing window began, in microseconds.
    began_at_us: u64,
    /// When a packet's fate was last learnt, in microseconds.
    learnt_at_us: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    packets: u32,
    lost: u32,
}

impl LossMeter {
    /// A packet's fate is known.
    pub fn add(&mut self, lost: bool, now_us: u64) {
        if now_us >= self.learnt_at_us + FORGET_US {
            *self = Self { began_at_us: now_us, ..Self::default() };
        }
        self.learnt_at_us = now_us;
        self.growing.packets += 1;
        self.growing.lost += u32::from(lost);
        let old = now_us >= self.began_at_us + WINDOW_US && self.growing.packets >= LEAST_PACKETS;
        if old || self.growing.packets == WINDOW_PACKETS {
            self.finished = std::mem::take(&mut self.growing);
            self.began_at_us = now_us;
        }
    }

    /// The share that was lost.
    pub fn ratio(&self, now_us: u64) -> f32 {
        if now_us >= self.learnt_at_us + FORGET_US {
            return 0.0;
        }
        // What the growing window lacks to a whole one, the finished one stands for.
        let by_packets = self.growing.packets as f32 / WINDOW_PACKETS as f32;
        let by_time = now_us.saturating_sub(self.began_at_us) as f32 / WINDOW_US as f32;
        let old = 1.0 - by_packets.max(by_time.min(1.0) * self.growing.sufficiency());
        let packets = self.growing.packets as f32 + self.finished.packets as f32 * old;
        let lost = self.growing.lost as f32 + self.finished.lost as f32 * old;
        // Until there are as many, one that is lost counts as one of so many.
        lost / packets.max(LEAST_PACKETS as f32)
    }
}

impl Window {
    /// How near it is to the fewest packets that tell something.
    fn sufficiency(self) -> f32 {
        (self.packets as f32 / LEAST_PACKETS as f32).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_loss_fades() {
        let mut meter = LossMeter::default();
        (0..WINDOW_PACKETS).for_each(|n| meter.add(n % 10 == 0, 0));
        assert!((meter.ratio(0) - 0.1).abs() < 1e-6);
        (0..WINDOW_PACKETS / 2).for_each(|_| meter.add(false, 0));
        assert!((meter.ratio(0) - 0.05).abs() < 1e-6);
        (0..WINDOW_PACKETS / 2).for_each(|_| meter.add(false, 0));
        assert_eq!(meter.ratio(0), 0.0);
        meter.add(true, 1_000);
        assert!(meter.ratio(1_000) > 0.0);
        assert_eq!(meter.ratio(1_000 + FORGET_US), 0.0, "long ago");
    }

    #[test]
    fn it_fades_within_four_seconds_however_little_is_sent() {
        for packets_a_second in [11, 20, 50, 400] {
            let mut meter = LossMeter::default();
            let mut now_us = 10_000_000;
            let mut send = |meter: &mut LossMeter, seconds: u64, lost: bool| {
                for _ in 0..seconds * packets_a_second {
                    now_us += 1_000_000 / packets_a_second;
                    meter.add(lost, now_us);
                }
                meter.ratio(now_us)
            };
            assert!(send(&mut meter, 4, true) > 0.99, "{packets_a_second} packets a second");
            assert!(send(&mut meter, 1, false) > 0.1 || packets_a_second == 400);
            assert!(send(&mut meter, 3, false) < 0.1, "{packets_a_second} packets a second");
        }
    }

    #[test]
    fn few_packets_say_little() {
        let mut meter = LossMeter::default();
        meter.add(true, 0);
        assert!(meter.ratio(0) < 0.1);
    }
}
