//! Spreads what one subscriber is sent, in bursts: a leaky bucket that deals in byte counts only.
//!
//! A frame is sent at once if the bucket has room when it begins, so at normal load nothing waits and no timer runs.
//! What must wait stays with the caller, in order: [`Pacer::admit`] says so, [`Pacer::release`] lets it go.

use std::time::{Duration, Instant};

use super::register::Kind;
use crate::units::Bitrate;

/// What may leave at once, as time at the pacing rate; libwebrtc's burst interval.
const BURST_US: u64 = 40_000;
/// A frame that began with room is sent whole up to this; a keyframe beyond it would only overflow the bottleneck's
/// queue.
const FRAME_US: u64 = 250_000;
/// A release waits until so much may go: one timer for several packets.
const RELEASE_US: u64 = 5_000;
/// Media that would wait longer than this is not worth sending.
const MAX_QUEUE_US: u64 = 500_000;

/// Slower than this nothing would ever leave.
const MIN_RATE: Bitrate = Bitrate::from_bps(30_000);

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it; it is charged.
    Send,
    /// Queue it behind what already waits; it is counted.
    Queue,
    /// Queue it, but then give up what waits ([`Pacer::holds`]): it waits too long.
    Overflow,
}

/// One subscriber's bucket.
#[derive(Debug)]
pub struct Pacer {
    rate: Bitrate,
    /// What was sent and has not yet leaked, as time at the pacing rate, as of the instant.
    debt_us: u64,
    updated: Instant,
    queued_bytes: u64,
    /// The current frame is being sent whole.
    frame_open: bool,
    /// Nothing is released before the debt is below [`BURST_US`] - [`RELEASE_US`].
    blocked: bool,
}

impl Pacer {
    /// An empty bucket.
    pub fn new(rate: Bitrate, now: Instant) -> Self {
        Self { rate: rate.max(MIN_RATE), debt_us: 0, updated: now, queued_bytes: 0, frame_open: false, blocked: false }
    }

    /// Follows the estimate: see `Congestion::pacing_rate`.
    pub fn set_rate(&mut self, rate: Bitrate, now: Instant) {
        let rate = rate.max(MIN_RATE);
        if rate != self.rate {
            self.leak(now);
            let scaled = u128::from(self.debt_us) * u128::from(self.rate.as_bps()) / u128::from(rate.as_bps());
            // Where the capacity has collapsed, most of what was sent overflowed a queue: it is not on its way.
            self.debt_us = (scaled as u64).min(FRAME_US.max(self.debt_us));
            self.rate = rate;
        }
    }

    /// How fast it leaks.
    pub fn rate(&self) -> Bitrate {
        self.rate
    }

    /// Whether a frame that begins now would have to wait.
    pub fn is_behind(&self, now: Instant) -> bool {
        let passed_us = now.saturating_duration_since(self.updated).as_micros() as u64;
        self.queued_bytes > 0 || self.debt_us.saturating_sub(passed_us) >= BURST_US
    }

    /// A packet wants to leave. `starts_frame`: it is the first of its frame. Audio and padding always pass.
    pub fn admit(&mut self, kind: Kind, wire_bytes: u16, starts_frame: bool, now: Instant) -> Verdict {
        self.leak(now);
        let passes = match kind {
            Kind::Audio | Kind::Padding => true,
            // Late already: it does not wait behind the frames after it.
            Kind::Retransmission => self.debt_us < FRAME_US,
            Kind::Video => {
                if starts_frame {
                    self.frame_open = self.queued_bytes == 0 && self.debt_us < BURST_US;
                } else {
                    self.frame_open &= self.debt_us < FRAME_US;
                }
                self.frame_open || (self.queued_bytes == 0 && self.debt_us < BURST_US)
            }
        };
        if passes {
            self.charge(wire_bytes);
            return Verdict::Send;
        }
        self.queued_bytes += u64::from(wire_bytes);
        if self.queue_us() > MAX_QUEUE_US { Verdict::Overflow } else { Verdict::Queue }
    }

    /// Whether the oldest waiting packet may leave; then it is charged. Ask again until it may not.
    pub fn release(&mut self, held_bytes: u16, wire_bytes: u16, now: Instant) -> bool {
        self.leak(now);
        let limit_us = if self.blocked { BURST_US - RELEASE_US } else { BURST_US };
        self.blocked = self.debt_us >= limit_us;
        if self.blocked {
            return false;
        }
        self.release_for_probe(held_bytes, wire_bytes);
        true
    }

    /// The oldest waiting packet leaves as part of a probe, in place of padding.
    pub fn release_for_probe(&mut self, held_bytes: u16, wire_bytes: u16) {
        self.queued_bytes = self.queued_bytes.saturating_sub(u64::from(held_bytes));
        self.charge(wire_bytes);
    }

    /// So much waits, whatever was counted.
    pub fn holds(&mut self, bytes: u64) {
        self.queued_bytes = bytes;
    }

    /// When to try [`Self::release`]; `None` if nothing waits.
    pub fn next_release(&self) -> Option<Instant> {
        let wait_us = self.debt_us.saturating_sub(BURST_US - RELEASE_US - 1);
        (self.queued_bytes > 0).then(|| self.updated + Duration::from_micros(wait_us))
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    fn charge(&mut self, wire_bytes: u16) {
        self.debt_us += self.time_us(u64::from(wire_bytes));
    }

    fn queue_us(&self) -> u64 {
        self.time_us(self.queued_bytes)
    }

    fn time_us(&self, bytes: u64) -> u64 {
        bytes * 8_000_000 / self.rate.as_bps()
    }

    fn leak(&mut self, now: Instant) {
        let passed_us = now.saturating_duration_since(self.updated).as_micros() as u64;
        // What is less than a microsecond stays for the next time.
        self.updated += Duration::from_micros(passed_us);
        self.debt_us = self.debt_us.saturating_sub(passed_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 Mbit/s: a 1250-byte packet is 10 ms.
    fn pacer(t0: Instant) -> Pacer {
        Pacer::new(Bitrate::from_bps(1_000_000), t0)
    }

    #[test]
    fn frames_pass_whole_while_there_is_room() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut pacer = pacer(t0);
        for index in 0..20 {
            assert_eq!(pacer.admit(Kind::Video, 1250, index == 0, t0), Verdict::Send, "one frame of 200 ms");
        }
        assert_eq!(pacer.next_release(), None);
        assert_eq!(pacer.admit(Kind::Audio, 125, false, t0), Verdict::Send);
        assert_eq!(pacer.admit(Kind::Retransmission, 1250, false, t0), Verdict::Send);
        assert_eq!(pacer.admit(Kind::Video, 1250, true, at(33)), Verdict::Queue);
        assert_eq!(pacer.admit(Kind::Video, 1250, false, at(33)), Verdict::Queue);
        // 211 ms of debt at the start; 35 are left after 176.
        assert_eq!(pacer.next_release(), Some(t0 + Duration::from_micros(176_001)));
        assert!(!pacer.release(1250, 1250, at(171)), "it waits for more than one packet to go");
        assert!(pacer.release(1250, 1250, at(177)) && !pacer.release(1250, 1250, at(177)));
        assert!(pacer.release(1250, 1250, at(187)));
        assert_eq!((pacer.queued_bytes(), pacer.next_release()), (0, None));
        assert_eq!(pacer.admit(Kind::Video, 1250, false, at(250)), Verdict::Send, "there is room again");
    }

    #[test]
    fn a_frame_without_end_is_broken_and_a_queue_overflows() {
        let t0 = Instant::now();
        let mut pacer = pacer(t0);
        let verdicts: Vec<Verdict> = (0..80).map(|index| pacer.admit(Kind::Video, 1250, index == 0, t0)).collect();
        let count = |verdict| verdicts.iter().filter(|other| **other == verdict).count();
        assert_eq!([Verdict::Send, Verdict::Queue, Verdict::Overflow].map(count), [25, 50, 5]);
        assert_eq!(pacer.admit(Kind::Retransmission, 1250, false, t0), Verdict::Overflow);
        assert_eq!(pacer.admit(Kind::Audio, 125, false, t0), Verdict::Send);
        pacer.holds(0);
        assert_eq!((pacer.next_release(), pacer.queued_bytes()), (None, 0));
    }

    #[test]
    fn a_new_rate_scales_the_debt() {
        let t0 = Instant::now();
        for (rate_bps, ms) in [(2_000_000, 50), (500_000, 200), (0, 250)] {
            let mut pacer = pacer(t0);
            for index in 0..10 {
                pacer.admit(Kind::Video, 1250, index == 0, t0);
            }
            pacer.set_rate(Bitrate::from_bps(rate_bps), t0);
            assert_eq!(pacer.debt_us / 1000, ms);
        }
    }

    #[test]
    fn what_a_probe_takes_is_charged_and_no_longer_waits() {
        let t0 = Instant::now();
        let mut pacer = pacer(t0);
        for index in 0..27 {
            pacer.admit(Kind::Video, 1250, index == 0, t0);
        }
        assert_eq!(pacer.queued_bytes(), 2500);
        pacer.release_for_probe(1250, 1250);
        assert_eq!((pacer.queued_bytes(), pacer.debt_us), (1250, 260_000));
    }
}
