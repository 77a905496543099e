//! How well one stream arrives: the numbers of a report block (RFC 3550 §6.4.1, appendices A.3 and A.8).

use super::rtcp::ReportBlock;

/// A transit that jumps by more than this says that the timestamps jumped, not the network (libwebrtc's bound).
const MAX_TRANSIT_JUMP_SECONDS: u32 = 5;
/// Jitter is kept with four more bits, in which it decays by a sixteenth (A.8).
const JITTER_SHIFT: u32 = 4;
const MICROS_PER_SECOND: u64 = 1_000_000;
/// Delays in reports are told in 1/65536 s.
const DELAY_UNITS_PER_SECOND: u64 = 65_536;
/// The number of lost packets has 24 bits and a sign.
const CUMULATIVE_RANGE: std::ops::RangeInclusive<i64> = -0x80_0000..=0x7f_ffff;

/// Statistics of one received SSRC.
#[derive(Debug, Clone)]
pub struct Reception {
    clock_rate_hz: u32,
    /// Extended sequence numbers; `None` before the first packet.
    range: Option<Range>,
    received: u64,
    /// As of the last report.
    prior: Counts,
    last: Option<Transit>,
    /// In RTP ticks, times sixteen.
    scaled_jitter: u32,
    /// The middle of the last sender report's NTP time, and when it arrived.
    last_sr: Option<(u32, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    lowest: u64,
    highest: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    expected: u64,
    received: u64,
}

#[derive(Debug, Clone, Copy)]
struct Transit {
    timestamp: u32,
    /// Arrival less timestamp, in RTP ticks; only its changes mean something.
    ticks: u32,
}

impl Reception {
    /// Of a stream whose timestamps tick so often.
    pub fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            range: None,
            received: 0,
            prior: Counts::default(),
            last: None,
            scaled_jitter: 0,
            last_sr: None,
        }
    }

    /// A packet arrived, a duplicate or a late one too. The index extends the sequence number by the wraps above it.
    pub fn received(&mut self, extended_index: u64, timestamp: u32, arrival_us: u64) {
        self.received += 1;
        let range = self.range.get_or_insert(Range { lowest: extended_index, highest: extended_index });
        let in_order = extended_index >= range.highest;
        range.lowest = range.lowest.min(extended_index);
        range.highest = range.highest.max(extended_index);
        if in_order {
            self.measure(timestamp, arrival_us);
        }
    }

    // Only the first packet of a frame is measured, as libwebrtc does: a pacer spreads the others on purpose.
    fn measure(&mut self, timestamp: u32, arrival_us: u64) {
        let rate_hz = u64::from(self.clock_rate_hz);
        let seconds = (arrival_us / MICROS_PER_SECOND).wrapping_mul(rate_hz);
        let arrival_ticks = seconds.wrapping_add(arrival_us % MICROS_PER_SECOND * rate_hz / MICROS_PER_SECOND);
        // Timestamps wrap, so transits do: the low 32 bits are all that matters.
        let ticks = (arrival_ticks as u32).wrapping_sub(timestamp);
        let transit = Transit { timestamp, ticks };
        let Some(last) = self.last else {
            self.last = Some(transit);
            return;
        };
        if last.timestamp == timestamp {
            return;
        }
        self.last = Some(transit);
        let jump = (ticks.wrapping_sub(last.ticks) as i32).unsigned_abs();
        if jump < self.clock_rate_hz.saturating_mul(MAX_TRANSIT_JUMP_SECONDS) {
            let decayed = self.scaled_jitter - ((self.scaled_jitter + (1 << (JITTER_SHIFT - 1))) >> JITTER_SHIFT);
            self.scaled_jitter = decayed.saturating_add(jump).min(u32::MAX >> 1);
        }
    }

    /// The stream's sender reported.
    pub fn sender_report(&mut self, ntp: u64, arrival_us: u64) {
        self.last_sr = Some(((ntp >> 16) as u32, arrival_us));
    }

    /// Packets that did not come, or came only as retransmissions on another SSRC.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// How much the network's delay varies, in microseconds.
    pub fn jitter_us(&self) -> u64 {
        let ticks = u64::from(self.scaled_jitter >> JITTER_SHIFT);
        (ticks * MICROS_PER_SECOND).checked_div(self.clock_rate_hz.into()).unwrap_or(0)
    }

    fn expected(&self) -> u64 {
        self.range.map_or(0, |range| (range.highest - range.lowest).saturating_add(1))
    }

    /// The block for the next report, which begins a new interval.
    pub fn report(&mut self, ssrc: u32, now_us: u64) -> ReportBlock {
        let expected = self.expected();
        let now = Counts { expected, received: self.received };
        let prior = std::mem::replace(&mut self.prior, now);
        let (last_sr, delay_since_last_sr) = self.last_sr.map_or((0, 0), |(middle, arrival_us)| {
            let delay = now_us.saturating_sub(arrival_us).saturating_mul(DELAY_UNITS_PER_SECOND) / MICROS_PER_SECOND;
            (middle, u32::try_from(delay).unwrap_or(u32::MAX))
        });
        let lost = (expected as i64).saturating_sub(self.received as i64);
        ReportBlock {
            ssrc,
            fraction_lost: fraction_lost(now.expected - prior.expected, now.received - prior.received),
            cumulative_lost: lost.clamp(*CUMULATIVE_RANGE.start(), *CUMULATIVE_RANGE.end()) as i32,
            // The wraps in the upper half, as far as they fit.
            highest_sequence: self.range.map_or(0, |range| range.highest as u32),
            jitter: self.scaled_jitter >> JITTER_SHIFT,
            last_sr,
            delay_since_last_sr,
        }
    }
}

/// Of 256; none if duplicates outweigh what is missing (A.3).
fn fraction_lost(expected: u64, received: u64) -> u8 {
    let lost = expected.saturating_sub(received);
    // Everything lost would be 256 of 256, which does not fit; the highest there is says it.
    u8::try_from(lost.saturating_mul(256).checked_div(expected).unwrap_or(0)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;

    const MS: u64 = 1_000;

    #[test]
    fn losses_are_counted_per_interval_and_for_ever() {
        let mut reception = Reception::new(90_000);
        assert_eq!(reception.report(1, 0), ReportBlock { ssrc: 1, ..ReportBlock::default() });
        // Numbers before and after a wrap; every fourth is lost.
        let received = |reception: &mut Reception, range: std::ops::Range<u64>| {
            range.filter(|index| index % 4 != 2).for_each(|index| reception.received(index, 0, 0));
        };
        received(&mut reception, 65_500..65_600);
        let block = reception.report(7, 0);
        assert_eq!((block.ssrc, block.highest_sequence), (7, 0x0001_0000 + 63));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        (65_600..65_700).for_each(|index| reception.received(index, 0, 0));
        let block = reception.report(7, 0);
        assert_eq!((block.fraction_lost, block.cumulative_lost, reception.lost()), (0, 25, 25));
        let block = reception.report(7, 0);
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25), "nothing came, nothing was expected");
        reception.received(65_800, 0, 0);
        let block = reception.report(7, 0);
        assert_eq!((block.fraction_lost, block.cumulative_lost), (253, 125));
    }

    #[test]
    fn duplicates_make_losses_negative_and_clamped() {
        let mut reception = Reception::new(48_000);
        for _ in 0..10 {
            reception.received(5, 0, 0);
        }
        let block = reception.report(1, 0);
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, -9));
        reception.received(1 << 40, 0, 0);
        let block = reception.report(1, 0);
        assert_eq!((block.fraction_lost, block.cumulative_lost), (255, 0x7f_ffff));
        reception.received(3, 0, 0);
        assert_eq!(reception.report(1, 0).highest_sequence, 0, "the low 32 bits");
    }

    #[test]
    fn steady_arrivals_have_no_jitter_and_uneven_ones_do() {
        let mut reception = Reception::new(48_000);
        let start = u32::MAX - 5_000;
        for index in 0..100u64 {
            reception.received(index, start.wrapping_add(index as u32 * 960), index * 20 * MS);
        }
        assert_eq!(reception.report(1, 0).jitter, 0);
        // Every other packet is 10 ms late: the transit changes by 480 ticks each time.
        for index in 100..400u64 {
            let late_us = if index % 2 == 0 { 0 } else { 10 * MS };
            reception.received(index, start.wrapping_add(index as u32 * 960), index * 20 * MS + late_us);
        }
        let jitter = reception.report(1, 0).jitter;
        assert!((475..=480).contains(&jitter), "{jitter}");
    }

    #[test]
    fn a_frames_later_packets_late_ones_and_leaps_are_no_jitter() {
        let mut reception = Reception::new(90_000);
        for frame in 0..50u64 {
            for part in 0..4 {
                reception.received(frame * 4 + part, frame as u32 * 3_000, frame * 100_000 / 3 + part * 5 * MS);
            }
        }
        reception.received(3, 0, 9_000 * MS);
        reception.received(200, 1 << 30, 1_700 * MS);
        assert!(reception.report(1, 0).jitter <= 1, "but for rounding");
    }

    #[test]
    fn the_wait_since_a_sender_report_is_told() {
        let mut reception = Reception::new(90_000);
        reception.sender_report(0x1122_3344_5566_7788, 10_000 * MS);
        let block = reception.report(1, 15_250 * MS);
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x3344_5566, 0x0005_4000));
        assert_eq!(reception.report(1, 9_000 * MS).delay_since_last_sr, 0);
        assert_eq!(reception.report(1, u64::MAX).delay_since_last_sr, u32::MAX);
    }

    #[test]
    fn no_numbers_make_it_panic() {
        let mut rng = IdSource::from_seed([8; 32]);
        let mut wide = move || (u64::from(rng.bits()) << 32 | u64::from(rng.bits())) >> (rng.bits() % 64);
        for clock_rate_hz in [0, 1, 90_000, u32::MAX] {
            let mut reception = Reception::new(clock_rate_hz);
            for _ in 0..30_000 {
                reception.received(wide() & (u64::MAX >> 1), wide() as u32, wide());
                reception.sender_report(wide(), wide());
                reception.report(1, wide());
            }
        }
    }
}
