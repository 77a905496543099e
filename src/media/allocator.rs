//! Who of a subscriber's video gets how much of the estimate: a pure function.
//!
//! First everyone gets the lowest layer, then all climb together, a rung a round, the most important first in each.
//! So nobody is small to make another one large, and what is left over goes to the most important.
//!
//! What flows already is measured against another limit than what does not flow yet ([`Budget`]). Between the two
//! nothing changes; without that gap an estimate that trembles around a rung's price would make the picture pump.

use crate::units::Bitrate;

/// One video subscription as the allocator sees it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What each rung of its ladder costs in all, not the difference; from the lowest layer to the best that is
    /// wanted. Prices are measured, so a higher rung may cost no more than a lower one: then the lower is never used.
    /// Empty if there is nothing to send.
    pub rungs: &'a [Bitrate],
    /// The rung it has now; `None` while it is paused. A rung that the ladder has lost means the best that is left.
    pub granted: Option<usize>,
}

/// What may be spent on all of a subscriber's video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What may flow if it flows already.
    pub held: Bitrate,
    /// What may flow in all for something to be added to it. Counts only as far as `held`.
    pub new: Bitrate,
}

/// Divides `budget` among `claims`, the most important first, and writes the rung of each into `grants`: `None` means
/// that it is paused. Returns whether something was taken away because what flows now exceeds `held`, which is what
/// `Purse::fell` wants to know; what a more important claim took does not count.
///
/// A step costs what the total is after it. It is paid from `held` if the claim has as much already, else from `new`;
/// so is the return of a paused claim. Whoever cannot pay for a step climbs no further, the others go on.
///
/// The first claim that has a ladder gets its cheapest rung even if that does not fit: the estimate may be wrong, and
/// the pacer and the frame dropper cope with too much. A picture that is late beats a frozen one.
///
/// - Stable: with the grants as the next call's `granted` and all else equal, the grants stay the same.
/// - Monotone: write down all steps by round, then by importance, as taken or not. With `held` or `new` raised, the
///   first step that differs is one that is now taken. (A later one may be lost to it: a step more for someone
///   important can cost someone else theirs.)
///
/// Allocates nothing once `grants` has the capacity.
pub fn allocate(budget: &Budget, claims: &[Claim<'_>], grants: &mut Vec<Option<usize>>) -> bool {
    let held = budget.held.as_bps();
    let new = budget.new.as_bps().min(held);
    grants.clear();
    grants.resize(claims.len(), None);
    let mut total = 0;
    let mut served = false;
    let mut climbing = true;
    while climbing {
        climbing = false;
        for (claim, grant) in claims.iter().zip(grants.iter_mut()) {
            let Some(next) = claim.next(*grant) else { continue };
            let raised = claim.raised(total, *grant, next);
            let limit = if claim.cost(Some(next)) <= claim.cost(claim.flowing()) { held } else { new };
            // Who was refused asks again in vain, for the total only grows; so nobody keeps a list of them.
            if raised <= limit || !served {
                (*grant, total, climbing) = (Some(next), raised, true);
            }
            served = true;
        }
    }
    took_away(held, claims, grants)
}

/// Whether anyone has less than before, and what flowed was too much.
fn took_away(held: u64, claims: &[Claim<'_>], grants: &[Option<usize>]) -> bool {
    let less = claims.iter().zip(grants).any(|(claim, grant)| *grant < claim.flowing());
    let flowing = || claims.iter().fold(0, |total: u64, claim| total.saturating_add(claim.cost(claim.flowing())));
    less && flowing() > held
}

impl Claim<'_> {
    /// The rung it has now, as far as its ladder still has that.
    fn flowing(&self) -> Option<usize> {
        let best = self.rungs.len().checked_sub(1)?;
        self.granted.map(|granted| granted.min(best))
    }

    /// What a rung costs, in bit/s; being paused costs nothing.
    fn cost(&self, rung: Option<usize>) -> u64 {
        rung.and_then(|rung| self.rungs.get(rung)).map_or(0, |cost| cost.as_bps())
    }

    /// The next rung worth having: the cheapest of those above, and of equally cheap ones the highest. Each costs more
    /// than the one before, and what is skipped costs no less than something better.
    fn next(&self, rung: Option<usize>) -> Option<usize> {
        let from = rung.map_or(0, |rung| rung + 1);
        let above = self.rungs.iter().enumerate().skip(from);
        let cheapest = above.reduce(|best, other| if other.1 <= best.1 { other } else { best });
        cheapest.map(|(rung, _)| rung)
    }

    /// The total, in bit/s, once it has `next` instead of `rung`.
    fn raised(&self, total: u64, rung: Option<usize>, next: usize) -> u64 {
        total.saturating_add(self.cost(Some(next)).saturating_sub(self.cost(rung)))
    }
}

#[cfg(test)]
pub(super) mod tests;
