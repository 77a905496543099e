//! What a subscriber's video may cost: remembers estimates, so that quality falls at once and rises only when it will
//! last.

use std::time::{Duration, Instant};

use super::allocator::Budget;
use crate::units::Bitrate;

/// The time over which the lowest estimate counts is kept in stretches of this length, so that its memory does not
/// depend on how often estimates come. The price is that a low counts up to a stretch longer.
const STRETCH: Duration = Duration::from_millis(250);
/// Stretches remembered, the current one included: a low counts for at least 2.5 s. Bandwidth estimators probe and
/// back off within a second or two; what held through that holds.
const STRETCHES: u32 = 11;
/// Share of the lowest estimate that may be spent before something is added to it. The rest is for what prices do not
/// show: keyframes, retransmissions and the swing of an encoder around its mean.
const RISE_SHARE: f64 = 0.9;
/// Time without rises after a fall; as long as the memory of lows, so that the first rise after it knows what came
/// after the fall.
const FIRST_WAIT: Duration = Duration::from_millis(2500);
/// Longest time without rises: whose every rise fails, sees at most three a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// A fall this long after the last wait has nothing to do with the rise before it: the next wait is the first again.
const CALM: Duration = Duration::from_secs(20);
/// Once the first part of a longer wait is over, what costs no more than this share of what was too much may rise: the
/// wait is for what failed, not for a frame rate that costs a tenth of it.
const CLEARLY_LESS: f64 = 0.7;
/// How many times what was too much the lowest estimate must be for the wait to end early: it is another network now.
/// Noise does not reach twice, and a link that comes back from a drop does.
const CLEARLY_MORE: f64 = 2.0;

/// One subscriber's estimates of late and the wait after a fall. A few hundred bytes, no heap.
///
/// Order of calls: [`Self::note`], then [`Self::budget`], then [`allocate`](super::allocator::allocate), then
/// [`Self::fell`] if that says so, then [`Self::retry_at`] for the timer.
#[derive(Debug)]
pub struct Purse {
    /// Where the first stretch begins.
    start: Instant,
    latest: Option<Bitrate>,
    /// The stretch with number n is at n modulo the length, until a later one needs the place.
    stretches: [Option<Stretch>; STRETCHES as usize],
    penalty: Option<Penalty>,
}

/// The estimates in force during one stretch of time.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    number: u32,
    lowest: Bitrate,
    highest: Bitrate,
}

/// The wait after a fall, maybe over.
#[derive(Debug, Clone, Copy)]
struct Penalty {
    until: Instant,
    /// How long it was at first; the next is twice that, unless there was calm.
    wait: Duration,
    /// The highest estimate shortly before the fall.
    too_much: Bitrate,
    /// Until then nothing rises at all.
    strict_until: Instant,
    /// What flowed, at the lowest fall since there was calm.
    cost: Bitrate,
}

impl Purse {
    /// Knows of no estimate yet.
    pub fn new(now: Instant) -> Self {
        Self { start: now, latest: None, stretches: [None; STRETCHES as usize], penalty: None }
    }

    /// An estimate came; it is in force until the next one, however long that takes.
    pub fn note(&mut self, estimate: Bitrate, now: Instant) {
        self.end_early(now);
        // The one before was in force up to now, so it counts as of now: it may have come long ago.
        let before = self.latest.replace(estimate).unwrap_or(estimate);
        let (lowest, highest) = (before.min(estimate), before.max(estimate));
        let number = self.number(now);
        let place = &mut self.stretches[(number % STRETCHES) as usize];
        *place = Some(match *place {
            Some(same) if same.number == number => {
                Stretch { number, lowest: same.lowest.min(lowest), highest: same.highest.max(highest) }
            }
            _ => Stretch { number, lowest, highest },
        });
    }

    /// What may be spent; `None` before the first estimate, when nothing is known to be too much.
    ///
    /// `held` is the latest estimate, so that a fall is at once. `new` is the lowest of the last 2.5 s less a reserve,
    /// and in the wait after a fall zero, then at most what is clearly less than what flowed before it.
    pub fn budget(&self, now: Instant) -> Option<Budget> {
        let held = self.latest?;
        let lowest = self.lowest(now)? * RISE_SHARE;
        let new = match self.penalty.filter(|_| self.is_waiting(now)) {
            Some(penalty) if now < penalty.strict_until => Bitrate::ZERO,
            Some(penalty) => lowest.min(penalty.cost * CLEARLY_LESS),
            None => lowest,
        };
        Some(Budget { held, new })
    }

    /// Something had to be taken away for lack of budget, when so much flowed: nothing rises for a while.
    ///
    /// The wait is 2.5 s, and twice the last one, at most 20 s, if the last one ended less than 20 s ago: what was
    /// given since then was too much. A fall during a wait is the same fall going on, for nothing was given since; it
    /// makes the wait last 2.5 s from now at least.
    pub fn fell(&mut self, cost: Bitrate, now: Instant) {
        self.end_early(now);
        let too_much = self.recent(now).map(|stretch| stretch.highest).max().max(self.latest).unwrap_or_default();
        let strict_until = now + FIRST_WAIT;
        let begin = |wait, cost| Penalty { until: now + wait, wait, too_much, strict_until, cost };
        self.penalty = Some(match self.penalty {
            // What fell while nothing could rise is the same fall, from the same height.
            Some(last) if now < last.strict_until => {
                Penalty { until: last.until.max(strict_until), strict_until, ..last }
            }
            Some(last) if now < last.until => {
                Penalty { until: last.until.max(strict_until), strict_until, cost: cost.min(last.cost), ..last }
            }
            Some(last) if now < last.until + CALM => begin((last.wait * 2).min(LONGEST_WAIT), cost.min(last.cost)),
            _ => begin(FIRST_WAIT, cost),
        });
    }

    /// When [`Budget::new`] grows by the mere passing of time, because a low is forgotten or a wait ends: then what is
    /// refused now may fit. `None` if only another estimate can help.
    pub fn retry_at(&self, now: Instant) -> Option<Instant> {
        let new = self.budget(now)?.new;
        let forgotten = self.recent(now).map(|stretch| self.start + STRETCH * (stretch.number + STRETCHES));
        let wait_ends = self.penalty.into_iter().flat_map(|penalty| [penalty.strict_until, penalty.until]);
        let grows = |at: &Instant| *at > now && self.budget(*at).is_some_and(|budget| budget.new > new);
        forgotten.chain(wait_ends).filter(grows).min()
    }

    /// Whether nothing may rise.
    pub fn is_waiting(&self, now: Instant) -> bool {
        let more = |penalty: &Penalty| self.lowest(now) >= Some(penalty.too_much * CLEARLY_MORE);
        self.penalty.is_some_and(|penalty| now < penalty.until && !more(&penalty))
    }

    /// Makes it last that a wait has ended early, before an estimate comes that would make it go on.
    fn end_early(&mut self, now: Instant) {
        let waiting = self.is_waiting(now);
        if let Some(penalty) = self.penalty.as_mut().filter(|_| !waiting) {
            penalty.until = penalty.until.min(now);
        }
    }

    /// The lowest estimate in force during the last 2.5 s.
    fn lowest(&self, now: Instant) -> Option<Bitrate> {
        self.recent(now).map(|stretch| stretch.lowest).chain(self.latest).min()
    }

    /// The stretches not yet forgotten in which an estimate came.
    fn recent(&self, now: Instant) -> impl Iterator<Item = Stretch> {
        let current = self.number(now);
        self.stretches.iter().flatten().copied().filter(move |stretch| stretch.number + STRETCHES > current)
    }

    /// The number of the stretch that `now` is in.
    fn number(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.start).as_millis() / STRETCH.as_millis()) as u32
    }
}

#[cfg(test)]
mod tests;
