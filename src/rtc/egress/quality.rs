//! How well it goes towards one subscriber.

use std::time::{Duration, Instant};

use super::super::out_stream::{Purpose, Queued};
use super::super::{ESTIMATE_BOUNDS_BPS, LOSS_BOUNDS_PPM, ROUND_TRIP_BOUNDS_US, Samples};
use super::{Egress, MAX_ROUND_TRIP};
use crate::command::quality::{NetworkQuality, SentQuality};
use crate::units::Bitrate;

/// How often a session's figures go into the statistics.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

impl Egress {
    /// What the network takes, if feedback has told.
    pub fn estimate(&self) -> Option<Bitrate> {
        self.flow.estimate()
    }

    /// How far away the receiver is, if it has told.
    pub(super) fn known_round_trip(&self) -> Option<Duration> {
        self.flow.round_trip().or(self.round_trip).map(|round_trip| round_trip.min(MAX_ROUND_TRIP))
    }

    /// A packet has been sealed.
    pub(super) fn note_sent(&mut self, queued: &Queued, payload_bytes: usize) {
        let Some(stream) = self.streams.get_mut(usize::from(queued.slot)) else { return };
        match queued.purpose {
            Purpose::Media => {
                stream.tally.packets += 1;
                stream.tally.bytes += payload_bytes as u64;
            }
            Purpose::Repair => stream.tally.retransmitted += 1,
            Purpose::Probe => {}
        }
    }

    /// What was sent on a slot.
    pub fn sent(&self, slot: usize) -> SentQuality {
        self.streams.get(slot).map(|stream| stream.tally).unwrap_or_default()
    }

    /// The way to the client, as far as it is known.
    pub fn network(&self) -> NetworkQuality {
        NetworkQuality {
            transport: None,
            round_trip_ms: self.known_round_trip().map(|round_trip| round_trip.as_micros() as f64 / 1e3),
            estimate_bps: self.flow.estimate(),
            // Four places: the meter knows no more.
            loss_ratio: self.flow.loss_ratio().map(|ratio| (f64::from(ratio) * 1e4).round() / 1e4),
            nacks: self.nacks,
        }
    }

    /// Feedback came: once a second what it tells goes into the statistics.
    pub fn sample(&mut self, samples: &mut Samples, now: Instant) {
        if now < self.sample_due {
            return;
        }
        self.sample_due = now + SAMPLE_INTERVAL;
        if let Some(estimate) = self.flow.estimate() {
            samples.estimates_bps.observe(estimate.as_bps(), &ESTIMATE_BOUNDS_BPS);
        }
        if let Some(round_trip) = self.known_round_trip() {
            samples.round_trips_us.observe(round_trip.as_micros() as u64, &ROUND_TRIP_BOUNDS_US);
        }
        if let Some(ratio) = self.flow.loss_ratio() {
            samples.losses_ppm.observe((f64::from(ratio) * 1e6) as u64, &LOSS_BOUNDS_PPM);
        }
    }
}
