//! The receiver's clock, from the wrapping reference times of its feedback, laid on our timeline.

/// Unit of a feedback's reference time, and of the arrival times in it.
const REFERENCE_US: i64 = 64_000;
const TICK_US: i64 = 250;
/// A reference time that is so far from ours, compared to the first, is laid anew: the receiver's clock was set, or
/// drifted for days. The estimator forgets what it knows of delays then.
const MAX_DRIFT_US: i64 = 10_000_000;

/// Maps arrival times to our timeline. Only their differences mean anything.
#[derive(Debug, Default)]
pub struct ArrivalClock {
    /// The last reference time, and where it is on our timeline.
    anchor: Option<(u32, i64)>,
}

impl ArrivalClock {
    /// Takes a feedback's 24-bit reference time: its place on our timeline.
    pub fn reference(&mut self, reference_time: u32, now_us: u64) -> i64 {
        let now_us = now_us.cast_signed();
        let at_us = self.anchor.map_or(now_us, |(last, at_us)| {
            // Difference of two 24-bit numbers, sign-extended.
            let steps = (reference_time.wrapping_sub(last) << 8).cast_signed() >> 8;
            at_us + i64::from(steps) * REFERENCE_US
        });
        let at_us = if (at_us - now_us).abs() > MAX_DRIFT_US { now_us } else { at_us };
        self.anchor = Some((reference_time, at_us));
        at_us
    }
}

/// When a packet arrived. `reference_us` is from [`ArrivalClock::reference`]; the result is never negative.
pub fn arrival_us(reference_us: i64, ticks: i64) -> i64 {
    // A feedback covers 65 535 packets of at most 8.2 s: clamped well beyond what an honest one spans.
    let delta_us = ticks.saturating_mul(TICK_US).clamp(-10 * MAX_DRIFT_US, 10 * MAX_DRIFT_US);
    (reference_us + delta_us).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_000_000_000;

    #[test]
    fn references_wrap_go_back_and_are_laid_anew() {
        // Previous reference, the next, microseconds passed here, microseconds on the timeline.
        for (last, next, passed_us, expected_us) in [
            (5, 6, 64_000, 64_000),
            (0x00ff_ffff, 0, 64_000, 64_000),
            (0x00ff_fff0, 0x10, 2_000_000, 32 * 64_000),
            (0, 0x00ff_ffff, 1000, -64_000),
            (0, 10_000, 1000, 1000),
            (0, 0x0080_0000, 1000, 1000),
        ] {
            let mut clock = ArrivalClock::default();
            assert_eq!(clock.reference(last, NOW_US), NOW_US.cast_signed());
            let at_us = clock.reference(next, NOW_US + passed_us) - NOW_US.cast_signed();
            assert_eq!(at_us, expected_us, "{last} {next}");
        }
    }

    #[test]
    fn arrivals_are_never_negative() {
        assert_eq!(arrival_us(1_000_000, 4), 1_001_000);
        assert_eq!(arrival_us(1_000_000, -4), 999_000);
        assert_eq!(arrival_us(1_000_000, i64::MIN), 0);
        assert_eq!(arrival_us(0, i64::MAX), 100_000_000);
    }
}
