//! A link as access networks have them: a bottleneck whose capacity changes, a queue that overflows, delay that varies.
//!
//! Beside [`Conditions`](crate::net::Conditions), which draws trouble for the sweep: a shaper draws from its own seed,
//! so that what one link does never depends on what another carried.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::loss::{Loss, Losses};
use crate::rng::Rng;

/// Headers of UDP and IPv4, which a bottleneck carries too.
const OVERHEAD_BYTES: usize = 28;
/// A bottleneck that carries nothing at all would hold a packet for ever.
const LEAST_BPS: f64 = 1_000.0;

/// What a bottleneck carries, in bit/s, by seconds since the world's start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    Unlimited,
    Fixed(f64),
    /// From each second on, so much; in order, the first from 0 on.
    Steps(&'static [(f64, f64)]),
    /// From one to the other in the time between the two seconds.
    Ramp {
        from: f64,
        to: f64,
        start: f64,
        end: f64,
    },
    /// Rises from low to high within each period, then falls at once.
    Sawtooth {
        low: f64,
        high: f64,
        period: f64,
    },
}

impl Capacity {
    /// The capacity then; `None` is no limit.
    pub fn at(self, second: f64) -> Option<f64> {
        let bps = match self {
            Self::Unlimited => return None,
            Self::Fixed(bps) => bps,
            Self::Steps(steps) => steps.iter().rev().find(|(from, _)| *from <= second).map_or(LEAST_BPS, |step| step.1),
            Self::Ramp { from, to, start, end } => {
                from + (to - from) * ((second - start) / (end - start)).clamp(0.0, 1.0)
            }
            Self::Sawtooth { low, high, period } => low + (high - low) * (second / period).fract(),
        };
        Some(bps.max(LEAST_BPS))
    }
}

/// How much may wait before the bottleneck; what comes then is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Bytes(usize),
    Time(Duration),
}

/// What happens to RTCP only, as where an uplink is congested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Impairment {
    pub loss_per_mille: u64,
    /// At most, drawn anew for each datagram.
    pub delay: Duration,
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    pub capacity: Capacity,
    /// What passes at once after a rest, as through a token bucket (tc-tbf).
    pub bucket_bytes: usize,
    pub queue: Queue,
    pub delay: Duration,
    /// Added to the delay at most, drawn anew for each packet. Packets keep their order.
    pub jitter: Duration,
    /// How many are held up for `reorder_by` at most, so that others overtake them.
    pub reorder_per_mille: u64,
    pub reorder_by: Duration,
    pub duplicate_per_mille: u64,
    pub loss: Loss,
    pub feedback: Option<Impairment>,
}

impl Link {
    /// Nothing but 20 ms of delay.
    pub const CLEAN: Self = Self {
        capacity: Capacity::Unlimited,
        bucket_bytes: 0,
        queue: Queue::Time(Duration::from_millis(250)),
        delay: Duration::from_millis(20),
        jitter: Duration::ZERO,
        reorder_per_mille: 0,
        reorder_by: Duration::ZERO,
        duplicate_per_mille: 0,
        loss: Loss::None,
        feedback: None,
    };

    /// A bottleneck with a queue of a quarter of a second.
    pub const fn of(capacity: Capacity) -> Self {
        Self { capacity, ..Self::CLEAN }
    }
}

/// What a shaper has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub packets: u64,
    pub bytes: u64,
    /// Dropped by the full queue.
    pub overflowed: u64,
    pub lost: u64,
    /// The longest that a packet waited before the bottleneck.
    pub longest_wait: Duration,
}

impl Carried {
    /// What has come since. The longest wait stays that of the whole time.
    pub fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            overflowed: self.overflowed - before.overflowed,
            lost: self.lost - before.lost,
            longest_wait: self.longest_wait,
        }
    }
}

/// A link at work.
#[derive(Debug)]
pub struct Shaper {
    link: Link,
    start: Instant,
    rng: Rng,
    losses: Losses,
    /// When the bottleneck has sent all that is queued.
    free_at: Instant,
    /// What waits: when it will have left, and its size.
    waiting: VecDeque<(Instant, usize)>,
    last_out: Instant,
    pub carried: Carried,
}

/// Whether a datagram is RTCP (RFC 5761 §4, RFC 7983).
fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, second, ..] if (128..192).contains(first) && (192..224).contains(second))
}

impl Shaper {
    /// `start` is when the world's seconds begin.
    pub fn new(link: Link, rng: Rng, start: Instant) -> Self {
        Self {
            losses: Losses::new(link.loss),
            link,
            start,
            rng,
            free_at: start,
            waiting: VecDeque::new(),
            last_out: start,
            carried: Carried::default(),
        }
    }

    /// Another link from now on; what waits stays.
    pub fn change(&mut self, link: Link) {
        self.losses = Losses::new(link.loss);
        self.link = link;
    }

    /// What the bottleneck carries then.
    pub fn capacity(&self, now: Instant) -> Option<f64> {
        self.link.capacity.at((now - self.start).as_secs_f64())
    }

    /// How often the link carries the next packet.
    pub fn copies(&mut self) -> usize {
        let chance = self.link.duplicate_per_mille;
        if chance > 0 && self.rng.per_mille(chance) { 2 } else { 1 }
    }

    /// When a datagram comes out; `None` if it does not.
    pub fn crossing(&mut self, now: Instant, datagram: &[u8]) -> Option<Instant> {
        let held_up = match self.link.feedback.filter(|_| is_rtcp(datagram)) {
            Some(impairment) if self.rng.per_mille(impairment.loss_per_mille) => return self.lose(),
            Some(impairment) => self.draw(impairment.delay),
            None => Duration::ZERO,
        };
        let leaves = self.leaves(now, datagram.len() + OVERHEAD_BYTES)?;
        if self.losses.takes(&mut self.rng) {
            return self.lose();
        }
        let due = leaves + self.link.delay + held_up;
        if self.link.reorder_per_mille > 0 && self.rng.per_mille(self.link.reorder_per_mille) {
            return Some(due + self.draw(self.link.reorder_by));
        }
        let due = due + self.draw(self.link.jitter);
        if !held_up.is_zero() {
            return Some(due);
        }
        self.last_out = due.max(self.last_out);
        Some(self.last_out)
    }

    fn lose(&mut self) -> Option<Instant> {
        self.carried.lost += 1;
        None
    }

    fn draw(&mut self, most: Duration) -> Duration {
        if most.is_zero() { most } else { self.rng.micros(0..most.as_micros() as u64) }
    }

    /// When the bottleneck has sent a packet that comes now.
    fn leaves(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        while self.waiting.front().is_some_and(|(leaves, _)| *leaves <= now) {
            self.waiting.pop_front();
        }
        let starts = self.free_at.max(now);
        let full = match self.link.queue {
            Queue::Time(most) => starts - now > most,
            Queue::Bytes(most) => self.waiting.iter().map(|(_, bytes)| bytes).sum::<usize>() + bytes > most,
        };
        if full {
            self.carried.overflowed += 1;
            return None;
        }
        // The capacity when its turn comes: packets are served in order, so that time is known already.
        let service = match self.link.capacity.at((starts - self.start).as_secs_f64()) {
            Some(bps) => Duration::from_secs_f64(bytes as f64 * 8.0 / bps),
            None => Duration::ZERO,
        };
        self.free_at = starts + service;
        let ahead = service.mul_f64(self.link.bucket_bytes as f64 / bytes as f64);
        let leaves = self.free_at.checked_sub(ahead).unwrap_or(now).max(now);
        self.waiting.push_back((leaves, bytes));
        self.carried.packets += 1;
        self.carried.bytes += bytes as u64;
        self.carried.longest_wait = self.carried.longest_wait.max(leaves.saturating_duration_since(now + service));
        Some(leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal;

    #[test]
    fn capacities_follow_their_shapes() {
        assert_eq!(Capacity::Unlimited.at(3.0), None);
        let steps = Capacity::Steps(&[(0.0, 2e6), (20.0, 150e3), (35.0, 2e6)]);
        assert_eq!(
            [0.0, 19.9, 20.0, 34.0, 40.0].map(|second| steps.at(second).unwrap()),
            [2e6, 2e6, 150e3, 150e3, 2e6]
        );
        let ramp = Capacity::Ramp { from: 300e3, to: 3e6, start: 10.0, end: 40.0 };
        assert_eq!([0.0, 25.0, 50.0].map(|second| ramp.at(second).unwrap()), [300e3, 1.65e6, 3e6]);
        let saw = Capacity::Sawtooth { low: 1e6, high: 2e6, period: 10.0 };
        assert_eq!([0.0, 5.0, 15.0].map(|second| saw.at(second).unwrap()), [1e6, 1.5e6, 1.5e6]);
    }

    #[test]
    fn a_bottleneck_spaces_packets_and_its_queue_overflows() {
        seal::sealed(1, |start| {
            let shape = |queue| {
                let link = Link { queue, ..Link::of(Capacity::Fixed(800e3)) };
                let mut shaper = Shaper::new(link, Rng::new(1, "shaper"), start);
                // Each takes 10 ms at 800 kbit/s.
                let out: Vec<_> = (0..20).map(|_| shaper.crossing(start, &[0; 972])).collect();
                (out.into_iter().flatten().collect::<Vec<_>>(), shaper.carried)
            };
            let (out, carried) = shape(Queue::Time(Duration::from_millis(95)));
            let expected: Vec<_> = (1..=10).map(|n| start + Duration::from_millis(20 + 10 * n)).collect();
            assert_eq!(out, expected);
            assert_eq!((carried.overflowed, carried.longest_wait), (10, Duration::from_millis(90)));
            assert_eq!(shape(Queue::Bytes(5_500)).0.len(), 5);
        });
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        seal::sealed(2, |start| {
            let run = |link| {
                let mut shaper = Shaper::new(link, Rng::new(2, "shaper"), start);
                let at = |n: u32| start + Duration::from_millis(1) * n;
                (0..500).map(|n| shaper.crossing(at(n), &[0; 100]).expect("nothing is lost")).collect::<Vec<_>>()
            };
            let jittery = run(Link { jitter: Duration::from_millis(30), ..Link::CLEAN });
            assert!(jittery.is_sorted());
            let reorder = Link { reorder_per_mille: 50, reorder_by: Duration::from_millis(30), ..Link::CLEAN };
            assert!(!run(reorder).is_sorted());
        });
    }

    #[test]
    fn impaired_feedback_leaves_media_alone() {
        seal::sealed(3, |start| {
            let impairment = Impairment { loss_per_mille: 1000, delay: Duration::ZERO };
            let mut shaper =
                Shaper::new(Link { feedback: Some(impairment), ..Link::CLEAN }, Rng::new(3, "shaper"), start);
            assert_eq!(shaper.crossing(start, &[0x80, 205, 0, 0]), None);
            assert!(shaper.crossing(start, &[0x80, 96, 0, 0]).is_some());
            assert!(shaper.crossing(start, &[0, 1, 0, 0]).is_some());
        });
    }
}
