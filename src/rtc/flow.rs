//! How fast one subscriber may be sent to: its congestion control, its pacer, and the demand they serve.

use std::time::{Duration, Instant};

use super::congestion::{Congestion, CongestionConfig};
use super::pacer::{Pacer, Verdict};
use super::register::Kind;
use crate::rtp::feedback::Feedback;
use crate::units::Bitrate;

/// The first estimate. libwebrtc begins with 300 kbit/s because its encoder can adapt; what we forward cannot, and a
/// camera's first second below its rate would be dropped by the pacer. The first probe corrects it 0.1 s later.
const START: Bitrate = Bitrate::from_bps(1_000_000);
/// The pace before the first feedback, and for receivers that send none: no pacing.
const UNPACED: Bitrate = Bitrate::from_bps(1_000_000_000);
/// How often the demand is measured.
const DEMAND_INTERVAL: Duration = Duration::from_millis(500);
/// An estimate that moved by less than this share, in per cent, is no news.
const ESTIMATE_STEP_PERCENT: u64 = 3;
/// Feedback about more packets than this is nonsense: feedback comes ten times a second, and 50 Mbit/s are 500 by then.
const FEEDBACK_PACKETS_MAX: u16 = 1_000;

/// One subscriber's rate control. `C`: see [`Congestion`].
pub struct Flow<C = Congestion> {
    /// None for a receiver that has not agreed on transport-wide feedback.
    congestion: Option<Box<C>>,
    pacer: Pacer,
    /// Feedback has come.
    is_known: bool,
    /// Bytes we were asked to send since the instant.
    demanded_bytes: u64,
    demand_since: Instant,
    /// What the room would send if the network allowed.
    demand: Bitrate,
    /// The estimate that was told last, and whether one from feedback has been.
    told: Option<Bitrate>,
    told_known: bool,
}

/// Ready to go to another thread.
pub type PackedFlow = Flow<Congestion<()>>;

impl<C> Flow<C> {
    fn map<D>(self, change: impl FnOnce(C) -> D) -> Flow<D> {
        let Self { congestion, pacer, is_known, demanded_bytes, demand_since, demand, told, told_known } = self;
        let congestion = congestion.map(|congestion| Box::new(change(*congestion)));
        Flow { congestion, pacer, is_known, demanded_bytes, demand_since, demand, told, told_known }
    }
}

impl PackedFlow {
    /// On its new thread.
    pub fn unpack(self, now: Instant) -> Flow {
        self.map(|congestion| congestion.unpack(now))
    }
}

impl Flow {
    /// For another thread.
    pub fn pack(self) -> PackedFlow {
        self.map(Congestion::pack)
    }

    /// Without congestion control.
    pub fn new(now: Instant) -> Self {
        Self {
            congestion: None,
            pacer: Pacer::new(UNPACED, now),
            is_known: false,
            demanded_bytes: 0,
            demand_since: now,
            demand: Bitrate::ZERO,
            told: None,
            told_known: false,
        }
    }

    /// The receiver will report transport-wide.
    pub fn enable(&mut self, now: Instant) {
        let config = CongestionConfig { start: START, ..CongestionConfig::default() };
        self.congestion.get_or_insert_with(|| Box::new(Congestion::new(config, now)));
    }

    // === sending ===

    /// The transport-wide number of the next packet.
    pub fn next_number(&self) -> Option<u16> {
        self.congestion.as_ref().map(|congestion| congestion.next_number())
    }

    /// A packet with that number leaves.
    pub fn sent(&mut self, kind: Kind, wire_bytes: usize, now: Instant) {
        if let Some(congestion) = &mut self.congestion {
            congestion.sent(kind, wire_bytes as u16, now);
        }
    }

    /// We are asked to send so much.
    pub fn demanded(&mut self, wire_bytes: usize, now: Instant) {
        self.demanded_bytes += wire_bytes as u64;
        let span = now.saturating_duration_since(self.demand_since);
        if span >= DEMAND_INTERVAL {
            if let Some(congestion) = &mut self.congestion {
                congestion.set_demand(Bitrate::of(self.demanded_bytes, span).max(self.demand));
            }
            self.demanded_bytes = 0;
            self.demand_since = now;
        }
    }

    /// What would be sent if the network allowed; what is sent may be less.
    pub fn set_demand(&mut self, demand: Bitrate) {
        self.demand = demand;
        if let Some(congestion) = &mut self.congestion {
            congestion.set_demand(demand);
        }
    }

    /// Whether a new packet may leave now; see [`Pacer::admit`].
    pub fn admit(&mut self, kind: Kind, wire_bytes: usize, starts_frame: bool, now: Instant) -> Verdict {
        self.pacer.admit(kind, wire_bytes as u16, starts_frame, now)
    }

    /// Whether the oldest waiting packet may leave now, as media or in place of a probe's padding. It was held as so many
    /// bytes and leaves as so many.
    pub fn release(&mut self, held_bytes: usize, wire_bytes: usize, now: Instant) -> bool {
        if self.padding_due(now).is_some() {
            self.pacer.release_for_probe(held_bytes as u16, wire_bytes as u16);
            return true;
        }
        self.pacer.release(held_bytes as u16, wire_bytes as u16, now)
    }

    /// So much waits, whatever was counted.
    pub fn holds(&mut self, bytes: u64) {
        self.pacer.holds(bytes);
    }

    /// How fast new packets leave.
    pub fn pace(&self) -> Bitrate {
        self.pacer.rate()
    }

    /// Whether a new frame would have to wait.
    pub fn is_behind(&self, now: Instant) -> bool {
        self.pacer.is_behind(now)
    }

    /// As if feedback had told.
    #[cfg(test)]
    pub fn set_pace(&mut self, rate: Bitrate, now: Instant) {
        self.pacer.set_rate(rate, now);
    }

    /// How many bytes of padding a probe wants now.
    pub fn padding_due(&self, now: Instant) -> Option<usize> {
        Some(usize::from(self.congestion.as_ref()?.padding_due(now)?.wire_bytes))
    }

    // === feedback ===

    /// Transport-wide feedback came.
    pub fn feedback(&mut self, feedback: &Feedback<'_>, now: Instant) {
        let Some(congestion) = self.congestion.as_mut().filter(|_| feedback.packet_count <= FEEDBACK_PACKETS_MAX)
        else {
            return;
        };
        // 24 bits; the sign has no meaning on a clock that wraps.
        let reference_time = feedback.reference_time_64ms as u32 & 0x00ff_ffff;
        congestion.feedback(reference_time, feedback.packets(), now);
        self.is_known = true;
        self.pacer.set_rate(congestion.pacing_rate(), now);
    }

    /// The receiver is reached over another network now.
    pub fn path_changed(&mut self, now: Instant) {
        if let Some(congestion) = &mut self.congestion {
            congestion.path_changed(now);
            self.pacer.set_rate(congestion.pacing_rate(), now);
        }
    }

    /// What the network takes, if feedback has told.
    pub fn estimate(&self) -> Option<Bitrate> {
        self.congestion.as_ref().filter(|_| self.is_known).map(|congestion| congestion.estimate())
    }

    /// The share of our packets that was lost lately, if feedback has told.
    pub fn loss_ratio(&self) -> Option<f32> {
        self.congestion.as_ref().filter(|_| self.is_known).map(|congestion| congestion.loss_ratio())
    }

    /// What the network takes, if that is news: a first guess, or an estimate from feedback that has moved.
    pub fn take_estimate(&mut self) -> Option<(Bitrate, bool)> {
        let estimate = self.congestion.as_ref()?.estimate();
        let step = self.told.map_or(0, |told| told.as_bps() * ESTIMATE_STEP_PERCENT / 100);
        let moved = self.told.is_none_or(|told| told.as_bps().abs_diff(estimate.as_bps()) > step);
        let first = self.is_known && !std::mem::replace(&mut self.told_known, self.is_known);
        if !moved && !first {
            return None;
        }
        self.told = Some(estimate);
        Some((estimate, self.is_known))
    }

    /// The receiver's own limit.
    pub fn remb(&mut self, limit: Bitrate, now: Instant) {
        let Some(congestion) = &mut self.congestion else { return };
        congestion.remb(limit);
        if self.is_known {
            self.pacer.set_rate(congestion.pacing_rate(), now);
        }
    }

    /// The smoothed round trip, if feedback has told.
    pub fn round_trip(&self) -> Option<Duration> {
        self.congestion.as_ref()?.rtt()
    }

    // === time ===

    /// When to call [`Self::handle_timeout`] and drain.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let congestion = self.congestion.as_ref().and_then(|congestion| congestion.poll_timeout());
        congestion.into_iter().chain(self.pacer.next_release()).min()
    }

    /// Does what is due; may be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(congestion) = &mut self.congestion {
            congestion.handle_timeout(now);
            if self.is_known {
                self.pacer.set_rate(congestion.pacing_rate(), now);
            }
        }
    }

    /// Whether what waits could leave now.
    pub fn may_release(&self, now: Instant) -> bool {
        self.pacer.next_release().is_some_and(|at| now >= at) || self.padding_due(now).is_some()
    }
}
