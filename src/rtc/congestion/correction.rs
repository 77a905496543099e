//! Where we overrule GoogCC: it was made for senders whose encoder follows the estimate, and we send layers.

use std::time::Instant;

use goog_cc::network_control::NetworkControllerInterface;
use goog_cc::transport::NetworkRouteChange;

use super::loss::LossMeter;
use super::probing::Cluster;
use super::proof::Arrival;
use super::strain::{QUEUE_US, Strain};
use super::{CALM_US, Congestion, CongestionConfig, FALL, MAX_LOSS_TO_PROBE, constraints, timestamp};
use crate::units::Bitrate;

/// If less than this share of the estimate was sent, a strained network says nothing about the estimate, unless its queue
/// overflows.
const MIN_USE: f64 = 0.7;
/// An estimate set from outside is without GoogCC's delay-based limit until its next regular update, 200 ms later at
/// most; this is longer.
const HOLD_US: u64 = 250_000;
/// A fall of the estimate below this share of what arrived lately goes too far, and ends at that one.
const MAX_FALL: f64 = 0.75;
const CAUGHT: f64 = 0.85;
/// Without a queue an estimate that is not in use does not fall, and one that is in use does not fall further than to this
/// share at a time: the next keyframe's packets in a row are no more than that. With a queue the former falls no further
/// than to this share at a time.
const USED_FALL: f64 = 0.8;
const UNUSED_FALL: f64 = 0.85;
/// What probes found the network to carry is sent, up to this share of it; unless there is more queue than this.
const CARRIED: f64 = 0.95;
const MAX_QUEUE_US: i64 = 60_000;
/// What comes out of a queue is what the network carries; below this share of what probes found, that no longer holds.
const SAME: f64 = 0.85;
/// GoogCC's estimate is set to what the network carries from this much beyond it on.
const BEYOND: f64 = 1.1;
/// What is left of the former until the queue is gone.
const DRAINING: f64 = 0.9;
/// The deepest fall at a time before it is known what arrives: GoogCC's first ones go to the bottom.
const FIRST_FALL: f64 = 0.7;
/// The estimate after a probe that was proved, as a share of its rate; and how far below that GoogCC's must be for it
/// to be overruled.
const PROVED: f64 = 0.9;
const SUFFICES: f64 = 0.88;
/// The same while it is not known what arrives: then only a probe of far more counts.
const SUFFICES_UNSEEN: f64 = 0.65;
/// A short probe is followed by a long one, if it found so much more than the estimate.
const MORE: f64 = 1.1;
/// It came as fast as it was sent if so much of it came: what a link without a queue drops is not late.
const PACE: f64 = 0.75;
/// An estimate of which more than this share arrives lately is in use.
const IN_USE: f64 = 0.85;
/// With more loss than this, packets that all arrived were lucky.
pub const MAX_LOSS_TO_BELIEVE: f32 = 0.03;
/// In its first seconds on a path GoogCC is not overruled: how much of it is in use is not known yet.
pub const SETTLED_US: u64 = 3_000_000;

impl Congestion {
    /// Before GoogCC weighs the feedback, for what it then finds is an upper limit on what we set here.
    pub(super) fn yield_if_strained(&mut self) {
        let Some(strained) = self.strain.verdict() else { return };
        self.strained_at_us = self.now_us;
        let rate = strained.instead.max(self.config.min);
        if self.bottleneck.most(self.now_us).is_some_and(|known| strained.arrived < known * SAME) {
            self.bottleneck.forget();
        }
        self.yielded = (rate, self.now_us + CALM_US);
        let overflows = strained.overflows && self.loss.ratio(self.now_us) > MAX_LOSS_TO_PROBE;
        if rate < self.estimate && (overflows || strained.sent > self.estimate * MIN_USE) {
            self.set_estimate(rate);
        }
    }

    /// The network carries what it just carried; GoogCC at times goes far below, most of all in its first second,
    /// when it halves the estimate without knowing what arrives.
    pub(super) fn catch_fall(&mut self, before: Bitrate) {
        if let Some(arrived) = self.strain.arrived()
            && self.estimate < before
            && self.estimate < arrived * MAX_FALL
        {
            self.set_estimate(arrived * CAUGHT);
        }
        let (yielded, until_us) = self.yielded;
        let yielded = Some(yielded).filter(|_| self.now_us < until_us);
        let drained = self.strain.drained().map(|rate| rate * DRAINING);
        let least = yielded.into_iter().chain(drained).max().unwrap_or_default().min(before);
        if self.estimate < least {
            self.set_estimate(least);
        }
        self.catch_unfounded_fall(before);
    }

    /// What the network carries for certain, as probes found, whatever GoogCC makes of little that is sent.
    pub(super) fn carried(&mut self) -> Bitrate {
        let Some(known) = self.bottleneck.least(self.now_us) else { return Bitrate::ZERO };
        if self.strain.drained().is_some_and(|rate| rate < known * SAME) {
            self.bottleneck.forget();
            return Bitrate::ZERO;
        }
        // With all of it in use GoogCC knows better.
        let harmed = self.uses(known * IN_USE)
            || self.strain.queue_us() >= MAX_QUEUE_US
            || self.loss.ratio(self.now_us) > MAX_LOSS_TO_PROBE;
        if harmed { Bitrate::ZERO } else { known * CARRIED }
    }

    /// GoogCC measures falls by what arrives, for its senders adapt to the estimate. We send layers, at times a fraction
    /// of it, and then what arrives says little: a keyframe's queue of a moment or some loss would end in a spiral.
    pub(super) fn catch_unfounded_fall(&mut self, before: Bitrate) {
        let used = self.strain.arrived();
        let settled = self.now_us >= self.settled_at_us;
        if !settled && used.is_none() && self.estimate < before * FIRST_FALL {
            return self.set_estimate(before * FIRST_FALL);
        }
        if self.estimate >= before * FALL || !settled || self.loss.ratio(self.now_us) > MAX_LOSS_TO_PROBE {
            return;
        }
        let queued = self.strain.queue_us() >= QUEUE_US;
        let least = match self.uses(before * MIN_USE) {
            // Of what comes out of it, [`Self::catch_fall`] has taken care.
            _ if queued && self.strain.drained().is_some() => return,
            true if queued => return,
            true => before * USED_FALL,
            false if queued => before * UNUSED_FALL,
            false => before,
        };
        if self.estimate < least {
            self.set_estimate(least);
        }
    }

    /// Whether more than this arrives. So little that it cannot be told is not much, unless a strained network has just
    /// made us begin to count anew.
    pub(super) fn uses(&self, rate: Bitrate) -> bool {
        let strained = self.now_us < self.strained_at_us + CALM_US;
        self.strain.arrived().map_or(strained, |arrived| arrived > rate)
    }

    /// What the last probe shows, once it has arrived.
    pub(super) fn weigh_probe(&mut self) {
        let Some(probe) = self.prober.awaited() else { return };
        let Cluster { id, bytes, scouts, .. } = probe;
        if scouts && self.follow_scout(id, bytes) {
            return;
        }
        let Some(arrival) = self.proof.arrival(id, bytes) else { return };
        // Behind the last of its bursts a packet has yet to show whether that one was delayed.
        let whole = arrival.sent_us >= probe.duration_us();
        let unconfirmed = whole.then(|| self.bottleneck.note(id, arrival, self.now_us)).flatten();
        if let Some(carried) = self.bottleneck.most(self.now_us).filter(|carried| self.estimate > *carried * BEYOND) {
            self.set_estimate(carried);
        }
        if let Some(rate) = unconfirmed.filter(|_| self.strain.queue_us() < MAX_QUEUE_US) {
            self.prober.confirm(rate, self.now_us);
        }
        if self.now_us > self.settled_at_us && !scouts {
            self.believe_proof(id, arrival);
        }
    }

    /// A short probe found more than is thought: a long one says whether that is so.
    fn follow_scout(&mut self, cluster: u16, bytes: u32) -> bool {
        let Some(arrival) = self.proof.glimpse(cluster, bytes) else { return false };
        let more = arrival.rate().is_some_and(|rate| rate > self.estimate() * MORE);
        if !more || self.strain.queue_us() >= MAX_QUEUE_US {
            return false;
        }
        let kept_pace = |rate: &Bitrate| !arrival.is_late() && *rate >= self.prober.asked() * PACE;
        let found = arrival.rate().filter(|rate| !kept_pace(rate));
        self.prober.follow(found, self.limit(), self.now_us);
        true
    }

    /// A probe came through unharmed, and GoogCC does not see it: it begins anew from there.
    fn believe_proof(&mut self, cluster: u16, arrival: Arrival) {
        let planned = self.prober.cluster(cluster).map_or(0, |cluster| cluster.rate_bps);
        // Media that waited may have made it a burst; that an instant took so much proves little.
        let Some(proved) = arrival.rate().map(|rate| rate.min(Bitrate::from_bps(planned))) else { return };
        let proved = self.bottleneck.most(self.now_us).map_or(proved, |carried| carried.min(proved));
        let rate = (proved * PROVED).min(self.limit()).max(self.config.min);
        // With the estimate in use GoogCC knows better: it sees queues that a short probe does not fill.
        let in_use = self.uses(self.estimate * IN_USE);
        let suffices = if self.strain.arrived().is_some() { SUFFICES } else { SUFFICES_UNSEEN };
        if self.estimate >= rate * suffices || in_use || self.loss.ratio(self.now_us) > MAX_LOSS_TO_BELIEVE {
            return;
        }
        self.begin_anew(rate);
    }

    /// Forgets all about the network: it is another one, or another than we thought.
    pub(super) fn begin_anew(&mut self, rate: Bitrate) {
        let update = self.controller.on_network_route_change(NetworkRouteChange {
            at_time: timestamp(self.now_us),
            constraints: constraints(&self.config, Some(rate), self.now_us),
        });
        self.strain = Strain::default();
        self.held_until_us = None;
        self.apply(&update);
        self.estimate = rate;
    }

    /// The receiver is reached on another path now: what was known of the old one says nothing of it.
    pub fn path_changed(&mut self, now: Instant) {
        self.advance(now);
        self.loss = LossMeter::default();
        self.bottleneck.forget();
        (self.support, self.yielded) = (Bitrate::ZERO, (Bitrate::ZERO, 0));
        self.prober.begin_anew();
        self.settled_at_us = self.now_us + SETTLED_US;
        self.begin_anew(self.config.start);
    }

    /// Sets GoogCC's estimate, and holds it there for the moment.
    pub(super) fn set_estimate(&mut self, rate: Bitrate) {
        let rate = rate.clamp(self.config.min, self.config.max);
        let held = CongestionConfig { max: rate, ..self.config };
        let update = self.controller.on_target_rate_constraints(constraints(&held, Some(rate), self.now_us));
        self.apply(&update);
        self.held_until_us = Some(self.now_us + HOLD_US);
    }

    /// Call after GoogCC has weighed a feedback.
    pub(super) fn lift_hold(&mut self) {
        if self.held_until_us.is_some_and(|until_us| self.now_us >= until_us) {
            self.held_until_us = None;
            let update = self.controller.on_target_rate_constraints(constraints(&self.config, None, self.now_us));
            self.apply(&update);
        }
    }
}
