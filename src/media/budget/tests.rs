//! Tests of [`super`].

use super::super::allocator::tests::Rng;
use super::super::allocator::{Claim, allocate};
use super::*;

/// A simulcast ladder of three encodings with three frame rates each, kbit/s.
const LADDER: [u64; 9] = [80, 150, 220, 400, 600, 900, 1500, 2000, 2500];
const TICK: u64 = 100;

fn kbps(rate: u64) -> Bitrate {
    Bitrate::from_bps(rate * 1000)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// held and new in kbit/s.
fn budget(purse: &Purse, now: Instant) -> (u64, u64) {
    let budget = purse.budget(now).unwrap();
    (budget.held.as_bps() / 1000, budget.new.as_bps() / 1000)
}

#[test]
fn without_an_estimate_there_is_no_budget() {
    let t0 = Instant::now();
    let mut purse = Purse::new(t0);
    assert_eq!((purse.budget(t0), purse.retry_at(t0)), (None, None));
    purse.fell(kbps(1), t0);
    assert_eq!((purse.budget(t0), purse.retry_at(t0)), (None, None));
    purse.note(kbps(1000), t0);
    assert_eq!(budget(&purse, t0), (1000, 900));
}

#[test]
fn what_is_new_is_paid_from_the_lowest_of_two_and_a_half_seconds() {
    let t0 = Instant::now();
    let mut purse = Purse::new(t0);
    // When, the estimate, then held, new, and when that grows by itself.
    let rows = [
        (0, 1000, (1000, 900), None),
        (100, 500, (500, 450), None),
        (200, 2000, (2000, 450), Some(2750)),
        (600, 1500, (1500, 450), Some(2750)),
        (2700, 1800, (1800, 450), Some(2750)),
        (2750, 1800, (1800, 1350), Some(5250)),
        (5200, 1600, (1600, 1350), Some(5250)),
        // Rarely: 1600 was in force up to now, so it counts for another 2.5 s.
        (60_000, 4000, (4000, 1440), Some(62_750)),
        // It falls at once, however high the others of late.
        (60_100, 300, (300, 270), None),
        (600_000, 300, (300, 270), None),
    ];
    for (at, estimate, expected, retry) in rows {
        let now = t0 + ms(at);
        purse.note(kbps(estimate), now);
        assert_eq!(budget(&purse, now), expected, "at {at}");
        assert_eq!(purse.retry_at(now), retry.map(|at| t0 + ms(at)), "at {at}");
    }
    assert_eq!(budget(&purse, t0 + ms(3_600_000)), (300, 270));
}

#[test]
fn the_wait_doubles_while_it_flaps_and_returns_after_calm() {
    // When it fell, and when something new is possible again; estimates are steady.
    let rows: &[(&str, &[u64], u64)] = &[
        ("one", &[10_000], 12_500),
        ("again soon after the wait", &[10_000, 12_500], 17_500),
        ("again and again", &[0, 3000, 9000, 20_000, 41_000], 61_000),
        ("never more than 20 s", &[0, 3000, 9000, 20_000, 41_000, 62_000, 83_000], 103_000),
        ("a descent is one fall", &[0, 300, 900, 1900, 2400], 4900),
        ("and a long one waits from its end", &[0, 1900, 3800, 5700, 7600], 10_100),
        ("a fall within a long wait adds little", &[0, 3000, 9000, 18_900], 21_400),
        ("or nothing", &[0, 3000, 9000, 12_000], 19_000),
        ("just before the calm is over", &[0, 22_499], 27_499),
        ("after calm it is the first again", &[0, 22_500], 25_000),
        ("however long it had been", &[0, 3000, 9000, 20_000, 60_000], 62_500),
    ];
    for (what, falls, end) in rows {
        let t0 = Instant::now();
        let mut purse = Purse::new(t0);
        purse.note(kbps(1000), t0);
        for at in *falls {
            purse.fell(Bitrate::ZERO, t0 + ms(*at));
        }
        let last = t0 + ms(*falls.last().unwrap());
        assert_eq!(budget(&purse, last), (1000, 0), "{what}");
        assert_eq!(purse.retry_at(last), Some(t0 + ms(*end)), "{what}");
        assert_eq!(budget(&purse, t0 + ms(end - 1)), (1000, 0), "{what}");
        assert_eq!(budget(&purse, t0 + ms(*end)), (1000, 900), "{what}");
    }
}

#[test]
fn a_wait_ends_early_when_the_estimate_is_far_above_what_was_too_much() {
    let t0 = Instant::now();
    let mut purse = Purse::new(t0);
    purse.note(kbps(200), t0);
    for at in [0, 3000, 9000, 20_000] {
        purse.fell(Bitrate::ZERO, t0 + ms(at));
    }
    purse.note(kbps(400), t0 + ms(22_000));
    assert_eq!(purse.retry_at(t0 + ms(22_000)), Some(t0 + ms(24_750)));
    assert_eq!(budget(&purse, t0 + ms(24_749)), (400, 0));
    assert_eq!(budget(&purse, t0 + ms(24_750)), (400, 360));
    // And has ended for good.
    purse.note(kbps(200), t0 + ms(25_000));
    assert_eq!(budget(&purse, t0 + ms(25_000)), (200, 180));
}

#[test]
fn in_a_long_wait_what_costs_clearly_less_may_rise() {
    let t0 = Instant::now();
    let mut purse = Purse::new(t0);
    purse.note(kbps(2000), t0);
    purse.fell(kbps(1000), t0);
    purse.fell(kbps(800), t0 + ms(3000));
    // A wait of 5 s, for what cost 800.
    for (at, new) in [(3000, 0), (5499, 0), (5500, 560), (7999, 560), (8000, 1800)] {
        assert_eq!(budget(&purse, t0 + ms(at)), (2000, new), "at {at}");
    }
    assert_eq!(purse.retry_at(t0 + ms(3000)), Some(t0 + ms(5500)));
    assert_eq!(purse.retry_at(t0 + ms(5500)), Some(t0 + ms(8000)));
    // What failed within a wait lowers that, and what cost more does not raise it again.
    purse.fell(kbps(500), t0 + ms(9000));
    purse.fell(kbps(900), t0 + ms(12_000));
    assert_eq!(budget(&purse, t0 + ms(14_500)), (2000, 350));
}

#[test]
fn it_may_be_retried_at_the_first_moment_at_which_more_is_allowed() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let t0 = Instant::now();
        let mut purse = Purse::new(t0);
        let mut now = t0;
        for _ in 0..12 {
            now += ms(rng.below(1200));
            purse.note(kbps(100 + rng.below(900)), now);
            if rng.below(6) == 0 {
                purse.fell(kbps(100 + rng.below(900)), now);
            }
            let new_at = |at| purse.budget(at).unwrap().new;
            let by_search = (1..21_000).step_by(50).map(|later| now + ms(later)).find(|at| new_at(*at) > new_at(now));
            match purse.retry_at(now) {
                Some(at) => {
                    assert!(new_at(at) > new_at(now) && new_at(at - ms(1)) == new_at(now));
                    assert!(by_search.is_some_and(|found| found >= at && found < at + ms(50)));
                }
                None => assert_eq!(by_search, None),
            }
        }
    }
}

/// A subscriber with claims on ladders, whose estimate follows a script.
struct Simulation {
    purse: Purse,
    start: Instant,
    ladder: Vec<Bitrate>,
    grants: Vec<Option<usize>>,
    /// Steps of the clock in which anything changed, ms from the start.
    changes: Vec<u64>,
}

impl Simulation {
    fn new(claims: usize) -> Self {
        let start = Instant::now();
        let ladder = LADDER.iter().map(|rate| kbps(*rate)).collect();
        Self { purse: Purse::new(start), start, ladder, grants: vec![None; claims], changes: Vec::new() }
    }

    fn tick(&mut self, at: u64, estimate: Option<u64>) {
        let now = self.start + ms(at);
        if let Some(estimate) = estimate {
            self.purse.note(kbps(estimate), now);
        }
        let Some(budget) = self.purse.budget(now) else { return };
        let claims: Vec<Claim> =
            self.grants.iter().map(|granted| Claim { rungs: &self.ladder, granted: *granted }).collect();
        let spent = self.spent();
        let mut grants = Vec::new();
        if allocate(&budget, &claims, &mut grants) {
            self.purse.fell(kbps(spent), now);
        }
        if grants != self.grants {
            self.changes.push(at);
        }
        self.grants = grants;
    }

    /// Ticks from `from` to before `to`, with estimates around what `mean` says, off by up to `noise` per cent.
    fn run(&mut self, rng: &mut Rng, from: u64, to: u64, noise: u64, mean: impl Fn(u64) -> u64) {
        for at in (from..to).step_by(TICK as usize) {
            let percent10 = 1000 - 10 * noise + rng.below(20 * noise + 1);
            self.tick(at, Some(mean(at) * percent10 / 1000));
        }
    }

    fn spent(&self) -> u64 {
        self.grants.iter().flatten().map(|rung| LADDER[*rung]).sum()
    }

    fn changes_since(&self, at: u64) -> usize {
        self.changes.iter().filter(|change| **change >= at).count()
    }
}

#[test]
fn noise_around_a_price_changes_little() {
    let mut histogram = [0; 12];
    for seed in 0..100 {
        for mean in [160, 230, 370, 620, 800, 1000, 1200, 1500, 1800, 2400, 3000, 4000, 4500] {
            // Noise from the first on, and after a time with half as much or twice as much.
            for (from, percent) in [(0, 100), (5000, 50), (5000, 200)] {
                let mut simulation = Simulation::new(2);
                let link = |at| if at < from { mean * percent / 100 } else { mean };
                simulation.run(&mut Rng::new(seed), 0, from + 30_000, 8, link);
                histogram[simulation.changes_since(from + 1)] += 1;
            }
        }
    }
    assert_eq!(histogram[4..].iter().sum::<u32>(), 0, "runs by changes: {histogram:?}");
}

#[test]
fn a_fall_is_at_once_and_the_way_back_takes_at_most_six_seconds() {
    let mut slowest = 0;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut simulation = Simulation::new(2);
        simulation.run(&mut rng, 0, 10_000, 3, |_| 2000);
        let before = simulation.spent();
        assert!(before >= 1500, "{before}");
        simulation.tick(10_000, Some(150));
        assert_eq!(simulation.grants, [Some(1), None]);
        simulation.run(&mut rng, 10_100, 25_000, 8, |_| 150);
        simulation.run(&mut rng, 25_000, 31_000, 3, |_| 2000);
        assert!(simulation.spent() >= 1500, "{}", simulation.spent());
        slowest = slowest.max(simulation.changes.last().unwrap() - 25_000);
    }
    // The memory of lows is what it takes; the wait after the fall is long over.
    assert!(slowest <= 3000, "{slowest} ms");
}

/// At the bottom the estimate swings between room for one and for both; that must not delay the return to the top.
#[test]
fn flapping_at_the_bottom_does_not_delay_the_way_back() {
    for period in [500, 1000, 3000, 6000, 8000] {
        let mut rng = Rng::new(period);
        let mut simulation = Simulation::new(2);
        let swing = |at: u64| if at % period < period / 2 { 120 } else { 210 };
        simulation.run(&mut rng, 0, 10_000, 3, |_| 2000);
        simulation.run(&mut rng, 10_000, 25_000, 3, swing);
        simulation.run(&mut rng, 25_000, 31_000, 3, |_| 2000);
        assert!(simulation.spent() >= 1500, "period {period}: {}", simulation.spent());
    }
}

/// A link that is good and bad by turns: it falls each time, but rises ever more rarely.
#[test]
fn a_link_that_keeps_breaking_is_used_carefully() {
    let mut simulation = Simulation::new(2);
    let link = |at: u64| if at % 10_000 < 5000 { 2000 } else { 500 };
    simulation.run(&mut Rng::new(1), 0, 180_000, 3, link);
    let rises = |from: u64, to: u64| {
        let at_good = |at: &&u64| (from..to).contains(*at) && **at % 10_000 < 5000 && **at % 10_000 > 2000;
        simulation.changes.iter().filter(at_good).count()
    };
    // Twelve good times.
    assert!(rises(60_000, 180_000) <= 4, "{:?}", simulation.changes);
}

/// An estimator in slow descent: one fall, and no long wait at its end.
#[test]
fn a_slow_descent_is_one_fall() {
    let mut rng = Rng::new(5);
    let mut simulation = Simulation::new(2);
    simulation.run(&mut rng, 0, 20_000, 1, |at| 4000 - at / 1000 * 180);
    simulation.run(&mut rng, 20_000, 26_000, 1, |_| 4000);
    assert!(simulation.spent() >= 3000, "{}", simulation.spent());
}
