//! From one thread to another. The crate's controller cannot go along, so it is left behind, and another one begins with
//! the estimate. What we measure ourselves goes along, but for the strain, which a new beginning counts anew.

use std::time::Instant;

use super::{Congestion, controller};
use crate::rtc::exchange::exchange;

impl<C> Congestion<C> {
    fn map<D>(self, change: impl FnOnce(C) -> D) -> Congestion<D> {
        exchange!(self => Congestion {
            controller: change(controller),
            config, origin, seen, now_us, register, arrivals, prober, demand, estimate, remb,
            round_trip, loss, strain, proof, bottleneck, fell_at_us, support, yielded, strained_at_us, settled_at_us,
            held_until_us, untold, alive_at_us, is_heard, ran_at_us, weighed_at_us, carried,
        })
    }
}

impl Congestion {
    /// Without the controller.
    pub fn pack(self) -> Congestion<()> {
        self.map(drop)
    }
}

impl Congestion<()> {
    /// With a controller that has been told the estimate.
    pub fn unpack(self, now: Instant) -> Congestion {
        let new = controller(&self.config, self.now_us);
        let mut congestion = self.map(|()| new);
        congestion.advance(now);
        congestion.begin_anew(congestion.estimate);
        congestion
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rtc::congestion::CongestionConfig;
    use crate::rtc::register::Kind;

    /// Packets of 1,000 bytes every 4 ms, 2 Mbit/s, that all arrive, with feedback every 100 ms.
    fn run(congestion: &mut Congestion, t0: Instant, span_ms: std::ops::Range<u64>) {
        let mut sent = Vec::new();
        for ms in span_ms {
            let now = t0 + Duration::from_millis(ms);
            if ms % 4 == 0 {
                sent.push((congestion.sent(Kind::Video, 1000, now), Some(((ms % 64) * 4 + 80) as i64), ms / 64));
            }
            if ms % 64 == 63 {
                let reference = (ms / 64) as u32;
                let packets: Vec<_> = sent.drain(..).map(|(seq, at, _)| (seq, at)).collect();
                congestion.feedback(reference, packets, now + Duration::from_millis(30));
            }
        }
    }

    #[test]
    fn the_estimate_and_the_numbers_go_on() {
        let t0 = Instant::now();
        let mut congestion = Congestion::new(CongestionConfig::default(), t0);
        run(&mut congestion, t0, 0..6400);
        let (estimate, number, round_trip) = (congestion.estimate(), congestion.next_number(), congestion.rtt());
        let now = t0 + Duration::from_millis(6431);
        let mut congestion = congestion.pack().unpack(now);
        assert_eq!((congestion.estimate(), congestion.next_number(), congestion.rtt()), (estimate, number, round_trip));
        run(&mut congestion, t0, 6464..9600);
        let after = congestion.estimate();
        assert!(after >= estimate * 0.9, "{} became {} kbit/s", estimate.as_bps() / 1000, after.as_bps() / 1000);
    }
}
