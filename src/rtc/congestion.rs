//! How much the network takes to one subscriber: GoogCC, fed from the register of what was sent.
//!
//! GoogCC runs when feedback comes, and else only if it stays away: a subscriber costs no timer while all is well.
//! What GoogCC wants to know of each sent packet is told in sums. Everything is counted as on the wire.
//!
//! The crate is a port of libwebrtc's and asserts much of what libwebrtc's callers guarantee; so what comes from the
//! network is made sane here: time never goes backwards, packets arrive after they were sent or in any case at a time
//! that is not negative, and no feedback is handed on without a received packet.

use std::time::{Duration, Instant};

use goog_cc::experiments::FieldTrials;
use goog_cc::network_control::{NetworkControllerConfig, NetworkControllerInterface};
use goog_cc::transport::{
    EcnMarking, NetworkControlUpdate, PacedPacketInfo, PacketResult, ProcessInterval, SentPacket, StreamsConfig,
    TargetRateConstraints, TransportPacketsFeedback,
};
use goog_cc::units::{DataRate, DataSize, Timestamp};
use goog_cc::{GoogCcConfig, GoogCcNetworkController};

use self::arrival::{ArrivalClock, arrival_us};
use self::bottleneck::Bottleneck;
use self::bursts::{is_ordinary, join_bursts};
use self::correction::{MAX_LOSS_TO_BELIEVE, SETTLED_US};
use self::loss::LossMeter;
use self::probing::{Conditions, Prober};
use self::proof::Proof;
use self::strain::Strain;
use super::register::{Kind, SendRegister, Sent};
use crate::units::Bitrate;

mod arrival;
mod bottleneck;
mod bursts;
mod correction;
mod loss;
mod probing;
mod proof;
mod relocation;
mod strain;
#[cfg(test)]
mod tests;

pub use probing::Padding;
#[cfg(test)]
pub use probing::Probe;

/// Where our timeline starts: late enough that no arrival is before zero.
const ORIGIN_US: u64 = 1_000_000_000;
/// Feedback is missing after this long with packets in flight; it should come every 50 to 100 ms.
const FEEDBACK_MISSING_US: u64 = 500_000;
/// How often GoogCC runs while feedback is missing. It lowers the estimate by a fifth a second, from the third on.
const MISSING_INTERVAL_US: u64 = 500_000;
/// Deadlines for missing feedback are multiples of this.
const MISSING_GRID_US: u64 = 250_000;
/// Pacing rate over the estimate; libwebrtc's.
const PACING_FACTOR: f64 = 2.5;
/// The same while a full queue drains: a keyframe faster than the bottleneck would be lost.
const DRAINING_FACTOR: f64 = 1.1;
/// Lost packets that may wait for feedback of a received one.
const MAX_CARRIED: usize = 1_000;
/// No probe so soon after the estimate fell below this share of what it was.
const CALM_US: u64 = 1_000_000;
const FALL: f64 = 0.95;
/// No probe if more than this share of packets is lost.
const MAX_LOSS_TO_PROBE: f32 = 0.1;
/// While the estimate is above what is to be sent by this factor, and nothing is lost or probes, GoogCC is told less:
/// bursts instead of packets, and no more often than this. A receiver that reports every 50 ms is then heard like one
/// that reports every 100, as libwebrtc's do at low rates.
const HEADROOM: f64 = 1.2;
const WEIGH_INTERVAL_US: u64 = 90_000;
/// If nothing is in flight, feedback can be asked for by probing only: so long after the last.
const IDLE_PROBE_US: u64 = 2_000_000;
/// Round trips beyond this are nonsense.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(60);

/// Bounds of the estimate.
#[derive(Debug, Clone, Copy)]
pub struct CongestionConfig {
    pub start: Bitrate,
    pub min: Bitrate,
    pub max: Bitrate,
}

impl Default for CongestionConfig {
    fn default() -> Self {
        Self {
            // libwebrtc's start; the first probe, a feedback later, asks for three times as much.
            start: Bitrate::from_bps(300_000),
            // Audio at its lowest.
            min: Bitrate::from_bps(30_000),
            max: Bitrate::from_bps(30_000_000),
        }
    }
}

/// The congestion control of one subscriber. `C`: GoogCC, or nothing while it is [underway](relocation).
pub struct Congestion<C = Box<GoogCcNetworkController>> {
    config: CongestionConfig,
    origin: Instant,
    /// The last instant seen, and the latest.
    seen: Instant,
    now_us: u64,
    register: SendRegister,
    controller: C,
    arrivals: ArrivalClock,
    prober: Prober,
    demand: Bitrate,
    /// GoogCC's.
    estimate: Bitrate,
    /// What the subscriber itself allows.
    remb: Option<Bitrate>,
    round_trip: Option<Duration>,
    loss: LossMeter,
    strain: Strain,
    proof: Proof,
    bottleneck: Bottleneck,
    fell_at_us: u64,
    /// What the network carries for certain, as of the last feedback.
    support: Bitrate,
    /// What a strained network was left with, and until when nothing less is believed.
    yielded: (Bitrate, u64),
    /// When the network was last found strained.
    strained_at_us: u64,
    /// When the first seconds on a path are over.
    settled_at_us: u64,
    /// Until then GoogCC may not go beyond what a strained network was left with.
    held_until_us: Option<u64>,
    /// Sent since GoogCC was last told, and when the last of it.
    untold: Option<(u64, u64)>,
    /// When feedback last came, or the first packet after a silence left.
    alive_at_us: u64,
    /// Feedback has come.
    is_heard: bool,
    /// When GoogCC last ran.
    ran_at_us: u64,
    /// When GoogCC last weighed feedback.
    weighed_at_us: u64,
    /// Lost packets of feedback in which nothing was received, and what may wait for the next feedback.
    carried: Vec<PacketResult>,
}

impl Congestion {
    /// Nothing sent yet.
    pub fn new(config: CongestionConfig, now: Instant) -> Self {
        let mut congestion = Self {
            config,
            origin: now,
            seen: now,
            now_us: ORIGIN_US,
            register: SendRegister::new(),
            controller: controller(&config, ORIGIN_US),
            arrivals: ArrivalClock::default(),
            prober: Prober::new(),
            demand: Bitrate::ZERO,
            estimate: config.start,
            remb: None,
            round_trip: None,
            loss: LossMeter::default(),
            strain: Strain::default(),
            proof: Proof::default(),
            bottleneck: Bottleneck::default(),
            fell_at_us: 0,
            support: Bitrate::ZERO,
            yielded: (Bitrate::ZERO, 0),
            strained_at_us: 0,
            settled_at_us: ORIGIN_US + SETTLED_US,
            held_until_us: None,
            untold: None,
            alive_at_us: ORIGIN_US,
            is_heard: false,
            ran_at_us: ORIGIN_US,
            weighed_at_us: 0,
            carried: Vec::new(),
        };
        congestion.run();
        congestion
    }

    /// The number [`Self::sent`] will give to the next packet.
    pub fn next_number(&self) -> u16 {
        self.register.next_wire()
    }

    /// A packet leaves now: the transport-wide sequence number to write into it.
    pub fn sent(&mut self, kind: Kind, wire_bytes: u16, now: Instant) -> u16 {
        let now_us = self.advance(now);
        if self.register.in_flight_bytes() == 0 {
            self.alive_at_us = now_us;
        }
        let wire_bytes = wire_bytes.max(1);
        let (untold_bytes, _) = self.untold.unwrap_or_default();
        self.untold = Some((untold_bytes + u64::from(wire_bytes), now_us));
        let cluster = self.prober.current().map_or(0, |probe| probe.cluster);
        if cluster != 0 {
            self.prober.sent(wire_bytes, now_us);
        }
        // Truncated on purpose: the wire has the low 16 bits.
        self.register.push(kind, wire_bytes, cluster, now_us) as u16
    }

    /// One transport-wide feedback: its 24-bit reference time, and for each packet it covers the sequence number and,
    /// if it arrived, when: in 250 µs since the reference time.
    pub fn feedback(
        &mut self,
        reference_time: u32,
        packets: impl IntoIterator<Item = (u16, Option<i64>)>,
        now: Instant,
    ) {
        let now_us = self.advance(now);
        let reference_us = self.arrivals.reference(reference_time, now_us);
        let mut results = std::mem::take(&mut self.carried);
        let mut latest: Option<(i64, u64)> = None;
        for (wire_seq, arrival) in packets {
            let Some((seq, sent)) = self.register.acknowledge(wire_seq, arrival.is_some()) else { continue };
            self.loss.add(arrival.is_none(), now_us);
            let arrived_us = arrival.map(|ticks| arrival_us(reference_us, ticks));
            self.strain.add(sent.wire_bytes, sent.at_us, arrived_us);
            let planned = self.prober.cluster(sent.cluster).map_or(0, |cluster| cluster.bytes);
            self.proof.add((sent.cluster, planned), sent.wire_bytes, sent.at_us, arrived_us);
            if let Some(at_us) = arrived_us
                && latest.is_none_or(|(latest_us, _)| at_us >= latest_us)
            {
                latest = Some((at_us, sent.at_us));
            }
            results.push(self.result(seq, &sent, arrived_us));
        }
        if results.is_empty() {
            return;
        }
        self.alive_at_us = now_us;
        self.is_heard = true;
        let Some((_, sent_at_us)) = latest else {
            results.truncate(MAX_CARRIED);
            self.carried = results;
            return;
        };
        self.round_trip(Duration::from_micros(now_us.saturating_sub(sent_at_us)));
        if self.has_headroom() && results.iter().all(is_ordinary) {
            if now_us < self.weighed_at_us + WEIGH_INTERVAL_US && results.len() < MAX_CARRIED {
                self.carried = results;
                return;
            }
            join_bursts(&mut results);
        }
        self.weighed_at_us = now_us;
        self.tell_sent();
        self.yield_if_strained();
        let feedback = TransportPacketsFeedback {
            feedback_time: timestamp(now_us),
            data_in_flight: DataSize::from_bytes(self.register.in_flight_bytes().cast_signed()),
            packet_feedbacks: results,
            sendless_arrival_times: Vec::new(),
        };
        let before = self.estimate;
        let update = self.controller.on_transport_packets_feedback(feedback);
        self.apply(&update);
        self.lift_hold();
        self.run();
        self.catch_fall(before);
        if self.estimate < before * FALL {
            self.fell_at_us = self.now_us;
        }
        self.weigh_probe();
        self.support = self.carried();
        self.probe_if_worthwhile();
    }

    /// A round trip measured by other means, such as receiver reports; smoothed.
    pub fn round_trip(&mut self, sample: Duration) {
        let sample = sample.min(MAX_ROUND_TRIP);
        self.round_trip = Some(self.round_trip.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    /// What the subscriber says it can take at most (REMB). Zero takes it back.
    pub fn remb(&mut self, max: Bitrate) {
        self.remb = (max != Bitrate::ZERO).then_some(max);
    }

    /// The sum of what would be sent if the network allowed. Probes look no further.
    pub fn set_demand(&mut self, demand: Bitrate) {
        self.demand = demand;
    }

    /// What may be sent, headers included.
    pub fn estimate(&self) -> Bitrate {
        let narrowest = self.bottleneck.most(self.now_us).into_iter().chain(self.remb);
        narrowest.fold(self.estimate.max(self.support), Bitrate::min).max(self.config.min)
    }

    /// For the pacer.
    pub fn pacing_rate(&self) -> Bitrate {
        let drains = self.now_us < self.strained_at_us + CALM_US;
        self.estimate() * if drains { DRAINING_FACTOR } else { PACING_FACTOR }
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The share of our packets that was lost lately.
    pub fn loss_ratio(&self) -> f32 {
        self.loss.ratio(self.now_us)
    }

    /// Bytes sent whose fate is unknown.
    #[cfg(test)]
    pub fn in_flight_bytes(&self) -> u64 {
        self.register.in_flight_bytes()
    }

    /// The probe under way.
    #[cfg(test)]
    pub fn probe(&self) -> Option<Probe> {
        self.prober.current()
    }

    /// The padding packet to send now. Send it, or media that waits in its place, and ask again.
    pub fn padding_due(&self, now: Instant) -> Option<Padding> {
        self.prober.padding_due(self.micros(now).max(self.now_us))
    }

    /// When to call [`Self::handle_timeout`] and ask for padding. May move later with each feedback.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // On a grid, so that the deadline does not move with every feedback, and all subscribers' fall together.
        let missing_us = (self.register.in_flight_bytes() > 0).then(|| {
            let due_us = (self.alive_at_us + FEEDBACK_MISSING_US).max(self.ran_at_us + MISSING_INTERVAL_US);
            due_us.next_multiple_of(MISSING_GRID_US)
        });
        let due_us = [missing_us, self.prober.next_padding_us(), self.idle_probe_us()].into_iter().flatten().min()?;
        Some(self.origin + Duration::from_micros(due_us - ORIGIN_US))
    }

    /// When to probe although no feedback comes, because nothing is sent.
    fn idle_probe_us(&self) -> Option<u64> {
        // Nobody else judges a probe whose feedback was the last, or never came.
        let idle = self.register.in_flight_bytes() == 0 && self.prober.next_padding_us().is_none();
        let wanted = self.is_heard && self.demand != Bitrate::ZERO && self.estimate() < self.demand;
        (idle && wanted).then(|| self.alive_at_us.max(self.ran_at_us) + IDLE_PROBE_US)
    }

    /// The time has come, or it has not; this may be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now_us = self.advance(now);
        self.prober.expire(now_us);
        if self.idle_probe_us().is_some_and(|due_us| now_us >= due_us) {
            self.tell_sent();
            self.run();
            self.probe_if_worthwhile();
        }
        let missing = self.register.in_flight_bytes() > 0 && now_us >= self.alive_at_us + FEEDBACK_MISSING_US;
        if missing && now_us >= self.ran_at_us + MISSING_INTERVAL_US {
            self.register.expire(now_us);
            self.support = Bitrate::ZERO;
            self.tell_sent();
            self.run();
        }
    }

    /// Whether the estimate is so far above what is to be sent that its last digits are of no use.
    fn has_headroom(&self) -> bool {
        let enough = self.demand != Bitrate::ZERO && self.estimate() > self.demand * HEADROOM;
        enough && self.held_until_us.is_none()
    }

    fn probe_if_worthwhile(&mut self) {
        let loss = self.loss.ratio(self.now_us);
        let conditions = Conditions {
            estimate: self.estimate(),
            demand: self.demand,
            max: self.limit(),
            strained: self.now_us < self.fell_at_us + CALM_US || loss > MAX_LOSS_TO_PROBE,
            bucket: self.bottleneck.has_bucket(self.now_us),
            lossy: loss > MAX_LOSS_TO_BELIEVE,
            known: self.prober.awaited().is_none_or(|probe| self.proof.is_known(probe.id, probe.bytes)),
        };
        self.prober.review(conditions, self.now_us);
    }

    fn limit(&self) -> Bitrate {
        self.remb.map_or(self.config.max, |remb| remb.min(self.config.max))
    }

    /// GoogCC's periodic work.
    fn run(&mut self) {
        self.ran_at_us = self.now_us;
        let update =
            self.controller.on_process_interval(ProcessInterval { at_time: timestamp(self.now_us), pacer_queue: None });
        self.apply(&update);
    }

    fn apply(&mut self, update: &NetworkControlUpdate) {
        let Some(target) = &update.target_rate else { return };
        let estimate = Bitrate::from_bps(target.target_rate.bps_or(0).max(0).cast_unsigned());
        self.estimate = estimate.clamp(self.config.min, self.config.max.max(self.config.min));
    }

    /// Tells GoogCC in one go what was sent since the last time.
    fn tell_sent(&mut self) {
        let Some((bytes, at_us)) = self.untold.take() else { return };
        let packet = SentPacket {
            send_time: timestamp(at_us),
            size: DataSize::from_bytes(bytes.cast_signed()),
            ..Default::default()
        };
        let update = self.controller.on_sent_packet(packet);
        self.apply(&update);
    }

    fn result(&self, seq: u64, sent: &Sent, arrived_us: Option<i64>) -> PacketResult {
        let believed = self.prober.cluster(sent.cluster).filter(|cluster| !cluster.scouts);
        let pacing_info = believed.map_or_else(PacedPacketInfo::default, |cluster| {
            PacedPacketInfo::new(i32::from(cluster.id), i64::from(cluster.packets), i64::from(cluster.bytes))
        });
        PacketResult {
            sent_packet: SentPacket {
                send_time: timestamp(sent.at_us),
                size: DataSize::from_bytes(i64::from(sent.wire_bytes)),
                pacing_info,
                audio: sent.kind == Kind::Audio,
                sequence_number: seq.cast_signed(),
                ..Default::default()
            },
            receive_time: arrived_us.map_or_else(Timestamp::plus_infinity, Timestamp::from_micros),
            ecn: EcnMarking::NotEct,
        }
    }

    fn advance(&mut self, now: Instant) -> u64 {
        // Many packets leave at one instant.
        if self.seen != now {
            self.seen = now;
            self.now_us = self.now_us.max(self.micros(now));
        }
        self.now_us
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        ORIGIN_US + since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }
}

fn controller(config: &CongestionConfig, now_us: u64) -> Box<GoogCcNetworkController> {
    let stream_based_config = StreamsConfig { at_time: timestamp(now_us), ..Default::default() };
    let constraints = constraints(config, Some(config.start), now_us);
    let config = NetworkControllerConfig { field_trials: field_trials(), constraints, stream_based_config };
    Box::new(GoogCcNetworkController::new(config, GoogCcConfig { feedback_only: true }))
}

/// Where we differ from the defaults of the crate, which are those in libwebrtc's source.
fn field_trials() -> FieldTrials {
    let mut trials = FieldTrials::default();
    // Its window would lower a target that we do not use.
    trials.congestion_window.queue_size_ms = 0;
    // 0.85 leaves 75 % of the network's capacity after one overuse too many; queues still drain at 10 % a second.
    trials.bwe_back_off_factor.backoff_factor = 0.9;
    // It keeps 500 packets of 100 bytes for each subscriber, sorts them, and is off by a frame in twenty when video
    // comes in bursts. The older estimator keeps sums.
    trials.robust_throughput_estimator_settings.enabled = false;
    // With the defaults 2 % loss at 8 Mbit/s hold the estimate below 40 % for ten seconds: they neither use the first
    // observations nor regard that what arrives, arrives.
    let loss = &mut trials.loss_based_bwe_v2;
    loss.instant_upper_bound_bw_balance = DataRate::from_kilobits_per_sec(100);
    loss.inherent_loss_upper_bound_bw_balance = DataRate::from_kilobits_per_sec(100);
    loss.loss_threshold_of_high_bandwidth_preference = 0.2;
    loss.use_byte_loss_rate = true;
    loss.observation_window_size = 15;
    loss.bw_rampup_upper_bound_factor = 1.5;
    loss.bw_rampup_upper_bound_in_hold_factor = 1.2;
    loss.bw_rampup_upper_bound_hold_threshold = 1.3;
    loss.bound_best_candidate = true;
    loss.use_in_start_phase = true;
    loss.lower_bound_by_acked_rate_factor = 1.0;
    loss.hold_duration_factor = 2.0;
    trials
}

/// Sets the bounds, and the estimate itself if given.
fn constraints(config: &CongestionConfig, estimate: Option<Bitrate>, now_us: u64) -> TargetRateConstraints {
    TargetRateConstraints {
        at_time: timestamp(now_us),
        min_data_rate: Some(data_rate(config.min)),
        max_data_rate: Some(data_rate(config.max)),
        starting_rate: estimate.map(data_rate),
    }
}

fn timestamp(us: u64) -> Timestamp {
    Timestamp::from_micros(us.cast_signed())
}

fn data_rate(rate: Bitrate) -> DataRate {
    DataRate::from_bits_per_sec(rate.as_bps().cast_signed())
}
