//! What goes along when one subscriber's sending side goes to another engine, and what does not.

use std::time::Instant;

use super::Egress;
use crate::rtc::Stats;
use crate::rtc::exchange::exchange;
use crate::rtc::flow::{Flow, PackedFlow};

impl<F> Egress<F> {
    fn map<G>(self, change: impl FnOnce(F) -> G) -> Egress<G> {
        exchange!(self => Egress {
            flow: change(flow),
            sealer, streams, audio, video, held, starved, round_trip, cname, clock, budget,
            last_video, report_due, rtcp, nacks, sample_due,
        })
    }
}

impl Egress {
    /// Forgets every packet, for the other engine's store has none of them. Nothing sent before can be sent again;
    /// numbers and keys go on.
    pub fn forget_packets(&mut self, stats: &mut Stats) {
        self.silence(stats);
        self.starved.clear();
        self.streams.iter_mut().for_each(|stream| stream.numbers.forget_packets());
    }

    /// For another thread.
    pub fn pack(self) -> Egress<PackedFlow> {
        self.map(Flow::pack)
    }
}

impl Egress<PackedFlow> {
    /// On its new thread.
    pub fn unpack(self, now: Instant) -> Egress {
        self.map(|flow| flow.unpack(now))
    }
}
