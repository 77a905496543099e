//! Tests of [`super`].

use super::*;

const CASES: u64 = 5000;

/// xorshift64*: reproducible and good enough.
pub(in crate::media) struct Rng(u64);

impl Rng {
    pub(in crate::media) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number less than `end`.
    pub(in crate::media) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

fn kbps(rate: u64) -> Bitrate {
    Bitrate::from_bps(rate * 1000)
}

#[derive(Clone)]
struct Case {
    held: u64,
    new: u64,
    /// Prices in kbit/s, and what is granted now.
    claims: Vec<(Vec<u64>, Option<usize>)>,
}

impl Case {
    /// Up to seven claims with up to eight rungs; some ladders fall in places; from nothing fits to all fits.
    fn random(rng: &mut Rng) -> Self {
        let claims: Vec<_> = (0..rng.below(8)).map(|_| (Self::ladder(rng), Self::granted(rng))).collect();
        let sum: u64 = claims.iter().filter_map(|(rungs, _)| rungs.iter().max()).sum();
        let held = rng.below(sum * 5 / 4 + 2);
        let new = if rng.below(4) == 0 { 0 } else { rng.below(held * 5 / 4 + 1) };
        Self { held, new, claims }
    }

    fn ladder(rng: &mut Rng) -> Vec<u64> {
        let length = rng.below(9);
        let mut rungs: Vec<u64> = (0..length).map(|_| 1 + rng.below(40)).collect();
        if rng.below(3) != 0 {
            rungs.sort_unstable();
        }
        rungs
    }

    fn granted(rng: &mut Rng) -> Option<usize> {
        rng.below(10).checked_sub(1).map(|rung| rung as usize)
    }

    fn run(&self) -> (Vec<Option<usize>>, bool) {
        let prices: Vec<Vec<Bitrate>> =
            self.claims.iter().map(|claim| claim.0.iter().map(|rate| kbps(*rate)).collect()).collect();
        let claims: Vec<Claim> =
            prices.iter().zip(&self.claims).map(|(rungs, claim)| Claim { rungs, granted: claim.1 }).collect();
        // What the caller left in it does not matter.
        let mut grants = vec![Some(7); 3];
        let taken = allocate(&Budget { held: kbps(self.held), new: kbps(self.new) }, &claims, &mut grants);
        (grants, taken)
    }

    fn grants(&self) -> Vec<Option<usize>> {
        self.run().0
    }

    /// The rungs worth having: those than which no higher one is as cheap.
    fn steps(rungs: &[u64]) -> Vec<usize> {
        (0..rungs.len()).filter(|&i| rungs[i + 1..].iter().all(|higher| *higher > rungs[i])).collect()
    }

    /// How many steps each claim took.
    fn taken(&self, grants: &[Option<usize>]) -> Vec<usize> {
        let place = |rungs: &[u64], rung| Self::steps(rungs).iter().position(|step| *step == rung).unwrap() + 1;
        self.claims.iter().zip(grants).map(|((rungs, _), grant)| grant.map_or(0, |rung| place(rungs, rung))).collect()
    }

    /// What a claim costs after so many steps.
    fn price(&self, claim: usize, steps: usize) -> u64 {
        let rungs = &self.claims[claim].0;
        steps.checked_sub(1).map_or(0, |step| rungs[Self::steps(rungs)[step]])
    }

    /// What applies to a claim at such a price.
    fn limit(&self, claim: usize, price: u64) -> u64 {
        let (rungs, granted) = &self.claims[claim];
        let has = granted.map_or(0, |rung| rungs.get(rung).or(rungs.last()).copied().unwrap_or(0));
        if price <= has { self.held } else { self.new.min(self.held) }
    }

    /// The first with a ladder.
    fn first(&self) -> Option<usize> {
        self.claims.iter().position(|(rungs, _)| !rungs.is_empty())
    }

    fn spent(&self, grants: &[Option<usize>]) -> u64 {
        self.taken(grants).iter().enumerate().map(|(claim, steps)| self.price(claim, *steps)).sum()
    }
}

fn for_random_cases(mut check: impl FnMut(Case, &mut Rng)) {
    for seed in 0..CASES {
        let mut rng = Rng::new(seed);
        check(Case::random(&mut rng), &mut rng);
    }
}

#[test]
fn table() {
    type Row<'a> = (&'a str, u64, u64, &'a [(&'a [u64], Option<usize>)], &'a [Option<usize>], bool);
    const NO: Option<usize> = None;
    let cam: &[u64] = &[100, 300, 900];
    let odd: &[u64] = &[100, 400, 200, 200];
    // What it shows, held, new, (prices, granted) by importance, grants, whether something was taken away.
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("nobody",                         900,  900, &[],                               &[],                    false),
        ("no ladder",                      900,  900, &[(&[], Some(1)), (cam, NO)],      &[NO, Some(2)],         false),
        ("all fits",                      1800, 1800, &[(cam, NO), (cam, NO)],           &[Some(2), Some(2)],    false),
        ("all climb together",             799,  799, &[(cam, NO), (cam, NO)],           &[Some(1), Some(1)],    false),
        ("the rest is for the first",     1200, 1200, &[(cam, NO), (cam, NO)],           &[Some(2), Some(1)],    false),
        ("the refused lets others go on",  500,  500, &[(&[100, 900], NO), (cam, NO)],   &[Some(0), Some(1)],    false),
        ("floors before rungs",            399,  399, &[(cam, NO), (cam, NO)],           &[Some(0), Some(0)],    false),
        ("a floor that does not fit",      199,  199, &[(cam, NO), (cam, NO)],           &[Some(0), NO],         false),
        ("a smaller one may still fit", 150, 150, &[(cam, NO), (cam, NO), (&[9], NO)], &[Some(0), NO, Some(0)], false),
        ("the first floor always",           0,    0, &[(&[], NO), (cam, NO), (cam, NO)], &[NO, Some(0), NO],    false),
        ("the first is served, not asked",   0,    0, &[(cam, Some(0)), (cam, Some(0))], &[Some(0), NO],         true),
        ("kept in the gap",                900,  100, &[(cam, Some(2)), (cam, NO)],      &[Some(2), NO],         false),
        ("too much for what is held",      899,  899, &[(cam, Some(2))],                 &[Some(1)],             true),
        ("nothing rises without new",     2000,    0, &[(cam, Some(0)), (cam, Some(1))], &[Some(0), Some(1)],    false),
        ("the paused returns from new",    900,   99, &[(cam, Some(0)), (cam, NO)],      &[Some(0), NO],         false),
        ("and returns when that allows",   900,  200, &[(cam, Some(0)), (cam, NO)],      &[Some(0), Some(0)],    false),
        ("new counts as far as held",      899, 2000, &[(cam, Some(1))],                 &[Some(1)],             false),
        ("the important takes, no fall",  1200, 1200, &[(cam, Some(1)), (cam, Some(2))], &[Some(2), Some(1)],    false),
        ("no higher for more",             399,  399, &[(odd, NO)],                      &[Some(3)],             false),
        ("a higher one for less is free",  400,    0, &[(odd, Some(1))],                 &[Some(3)],             false),
        ("a cheaper top beats the floor",   90,    0, &[(&[100, 90], Some(0))],          &[Some(1)],             false),
        ("the ladder got shorter",         900,    0, &[(cam, Some(8))],                 &[Some(2)],             false),
    ];
    for (what, held, new, claims, grants, taken) in rows {
        let claims = claims.iter().map(|(rungs, granted)| (rungs.to_vec(), *granted)).collect();
        let case = Case { held: *held, new: *new, claims };
        assert_eq!(case.run(), (grants.to_vec(), *taken), "{what}");
    }
}

#[test]
fn no_more_is_spent_than_held_but_for_the_first_floor() {
    for_random_cases(|case, _| {
        let floor = case.first().map_or(0, |first| case.price(first, 1));
        assert!(case.spent(&case.grants()) <= case.held.max(floor));
    });
}

/// The rule itself, checked on the result alone: how far everyone was at each step follows from how far they came.
#[test]
fn every_step_taken_could_be_paid_and_no_refused_one_could() {
    let (mut accepted, mut refused) = (0, 0);
    for_random_cases(|case, _| {
        let taken = case.taken(&case.grants());
        for (claim, steps) in taken.iter().enumerate() {
            for round in 0..(*steps + 1).min(Case::steps(&case.claims[claim].0).len()) {
                let others = taken.iter().enumerate().filter(|(other, _)| *other != claim);
                let price = case.price(claim, round + 1);
                let total: u64 = others
                    .map(|(other, came)| case.price(other, (*came).min(round + usize::from(other < claim))))
                    .sum::<u64>()
                    + price;
                let always = round == 0 && case.first() == Some(claim);
                assert_eq!(round < *steps, always || total <= case.limit(claim, price));
                *if round < *steps { &mut accepted } else { &mut refused } += 1;
            }
        }
    });
    assert!(accepted > CASES && refused > CASES, "{accepted} {refused}");
}

#[test]
fn while_nothing_new_is_allowed_nothing_rises() {
    for_random_cases(|case, _| {
        let case = Case { new: 0, ..case };
        for (claim, steps) in case.taken(&case.grants()).iter().enumerate() {
            let (rungs, granted) = &case.claims[claim];
            let has = granted.map_or(0, |rung| rungs.get(rung).or(rungs.last()).copied().unwrap_or(0));
            let floor = case.first() == Some(claim) && *steps == 1;
            assert!(floor || case.price(claim, *steps) <= has);
        }
    });
}

#[test]
fn the_order_before_sorting_by_importance_does_not_matter() {
    for_random_cases(|case, rng| {
        let mut shuffled: Vec<_> = case.claims.iter().cloned().enumerate().collect();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, rng.below(i as u64 + 1) as usize);
        }
        shuffled.sort_unstable_by_key(|(importance, _)| *importance);
        let sorted = Case { claims: shuffled.into_iter().map(|(_, claim)| claim).collect(), ..case };
        assert_eq!(sorted.run(), case.run());
    });
}

/// See [`allocate`] for what monotone means.
#[test]
fn with_more_to_spend_the_first_different_step_is_one_more() {
    let mut differ = 0;
    for_random_cases(|case, rng| {
        let more = Case { held: case.held + rng.below(40), new: case.new + rng.below(40), claims: case.claims.clone() };
        let steps = |case: &Case| -> Vec<bool> {
            let taken = case.taken(&case.grants());
            (0..9).flat_map(|round| taken.iter().map(move |steps| *steps > round).collect::<Vec<_>>()).collect()
        };
        let (less, more) = (steps(&case), steps(&more));
        assert!(more >= less);
        differ += u64::from(more > less);
    });
    assert!(differ > CASES / 10, "{differ}");
}

#[test]
fn allocating_again_changes_nothing() {
    for_random_cases(|mut case, _| {
        let first = case.grants();
        for (claim, grant) in case.claims.iter_mut().zip(&first) {
            claim.1 = *grant;
        }
        assert_eq!(case.run(), (first, false));
    });
}

#[test]
fn something_was_taken_away_only_if_what_flowed_was_too_much() {
    for_random_cases(|case, _| {
        let (grants, taken) = case.run();
        let flowed = case
            .claims
            .iter()
            .filter_map(|(rungs, granted)| granted.and_then(|rung| rungs.get(rung).or(rungs.last())).copied());
        let less = case.claims.iter().zip(&grants).any(|((rungs, granted), grant)| {
            !rungs.is_empty() && *grant < granted.map(|rung| rung.min(rungs.len() - 1))
        });
        assert_eq!(taken, less && flowed.sum::<u64>() > case.held);
    });
}
