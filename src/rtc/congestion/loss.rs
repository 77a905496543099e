//! The share of packets that was lost lately.

/// Packets over which loss is measured.
const LOSS_WINDOW_PACKETS: u32 = 200;
/// After this long without packets nothing is known of loss.
const FORGET_US: u64 = 2_000_000;

/// Loss over the last packets: two windows, the finished and the growing one.
#[derive(Debug, Default)]
pub struct LossMeter {
    packets: u32,
    lost: u32,
    last_ratio: f32,
    /// When a packet's fate was last learnt, in microseconds.
    learnt_at_us: u64,
}

impl LossMeter {
    /// A packet's fate is known.
    pub fn add(&mut self, lost: bool, now_us: u64) {
        if now_us >= self.learnt_at_us + FORGET_US {
            *self = Self::default();
        }
        self.learnt_at_us = now_us;
        self.packets += 1;
        self.lost += u32::from(lost);
        if self.packets == LOSS_WINDOW_PACKETS {
            self.last_ratio = self.lost as f32 / self.packets as f32;
            (self.packets, self.lost) = (0, 0);
        }
    }

    /// The share that was lost.
    pub fn ratio(&self, now_us: u64) -> f32 {
        if now_us >= self.learnt_at_us + FORGET_US {
            return 0.0;
        }
        // The growing window counts in proportion to its size.
        let share = self.packets as f32 / LOSS_WINDOW_PACKETS as f32;
        let growing = self.lost as f32 / LOSS_WINDOW_PACKETS as f32;
        growing + self.last_ratio * (1.0 - share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_loss_fades() {
        let mut meter = LossMeter::default();
        (0..LOSS_WINDOW_PACKETS).for_each(|n| meter.add(n % 10 == 0, 0));
        assert!((meter.ratio(0) - 0.1).abs() < 1e-6);
        (0..LOSS_WINDOW_PACKETS / 2).for_each(|_| meter.add(false, 0));
        assert!((meter.ratio(0) - 0.05).abs() < 1e-6);
        (0..LOSS_WINDOW_PACKETS / 2).for_each(|_| meter.add(false, 0));
        assert_eq!(meter.ratio(0), 0.0);
        meter.add(true, 1_000);
        assert!(meter.ratio(1_000) > 0.0);
        assert_eq!(meter.ratio(1_000 + FORGET_US), 0.0, "long ago");
    }
}
