//! When to probe, how fast, and which bytes of a probe are due.
//!
//! GoogCC's own probe controller is not used: it reads the clock (through its ALR detector), wants a timer every 25 ms,
//! and knows demand only as a cap. Ours probes while the demand exceeds the estimate and at no other time, decides on
//! feedback alone, and needs a timer only for the 20 ms a probe takes.

use crate::units::Bitrate;

/// A probe lasts so long; libwebrtc's 15 ms are hard to measure behind a Wi-Fi link that gathers packets for 10 ms.
const DURATION_US: u64 = 20_000;
/// Shapers let some packets pass at once after a rest (a token bucket), and a short probe, a *scout*, finds a wide link
/// there. So what a scout finds is told to nobody, but followed by a probe of so many bytes, within this time at most. It
/// fills a narrow link's queue for a fifth of a second.
pub const LONG_BYTES: u32 = 7_500;
const MAX_DURATION_US: u64 = 150_000;
/// A probe leaves in bursts of so much, the last of them a single packet: GoogCC leaves a probe's last packet out of
/// the rate it was sent at.
const BURST_US: u64 = 5_000;
/// A probe has at least so many packets before the last.
const MIN_PACKETS: u32 = 5;
/// A padding packet's size at most, including UDP and IP, so that any path takes it.
const MAX_PACKET_BYTES: u64 = 1_200;
/// The same at least: less is mostly headers.
const MIN_PACKET_BYTES: u64 = 100;
/// A probe that nobody sends is given up after this, counted from its planning.
const SEND_TIMEOUT_US: u64 = 200_000;
/// A probe's result is due within this, counted from its last packet; libwebrtc's figure.
const RESULT_TIMEOUT_US: u64 = 1_000_000;
/// Probing goes on at once if the estimate reached this share of the probe's rate, libwebrtc's figure, and rose by this
/// since: what is limited by the demand is near the estimate, and would be probed without end.
const SUCCESS: f64 = 0.7;
const PROGRESS: f64 = 1.15;
/// The estimate suffices if it is this much above the demand: keyframes and retransmissions need room.
const ENOUGH: f64 = 1.2;
/// A probe is at most this much above the demand; what nobody would send is not worth knowing.
const MAX_OVER_DEMAND: f64 = 1.5;
/// A probe's rate over the estimate: the very first, while that is a guess; after success; after one that found no more. The latter costs a network that is full
/// 20 ms of delay; twice the estimate made the detector of overuse cut the estimate after each probe.
const FIRST: f64 = 1.5;
const EAGER: f64 = 3.0;
const CAUTIOUS: f64 = 1.5;

/// Wait after a probe that found no more: first, and at most. A path that got better is noticed within the latter.
/// Once a second for whom little is sent was tried: each probe costs a narrow link some of its estimate, which fell to
/// 69 % of 300 kbit/s.
const RETRY_US: u64 = 2_000_000;
const MAX_RETRY_US: u64 = 4_000_000;
/// The same where only long probes say anything.
const BUCKET_RETRY_US: u64 = 8_000_000;
/// So many more probes follow one that is to be confirmed without a wait: a radio link's rate varies, and no two agree.
const MAX_CONFIRMATIONS: u8 = 2;

/// A probe under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub cluster: u16,
    pub rate: Bitrate,
}

/// A padding packet that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Its size including UDP and IP; fewer are fine, more are not needed.
    pub wire_bytes: u16,
    pub cluster: u16,
}

/// What GoogCC wants to know of a packet's probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cluster {
    pub id: u16,
    pub rate_bps: u64,
    pub bytes: u32,
    pub packets: u32,
    /// Too short to be believed if it says that there is more.
    pub scouts: bool,
}

/// The state of the network that decides about probing.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub estimate: Bitrate,
    pub demand: Bitrate,
    pub max: Bitrate,
    /// The estimate falls or much is lost: more load would do harm.
    pub strained: bool,
    /// Something on the way lets short probes pass whole.
    pub bucket: bool,
    /// So much is lost that of a short probe's few packets too few may be left.
    pub lossy: bool,
    /// What became of the last probe is known.
    pub known: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    /// `since_us` is when it was planned until its first packet leaves.
    Sending {
        since_us: u64,
        bytes: u32,
        packets: u32,
    },
    Waiting {
        until_us: u64,
    },
}

/// One subscriber's probing.
#[derive(Debug)]
pub struct Prober {
    state: State,
    /// The last probes, newest first: feedback about their packets is still coming in.
    clusters: [Cluster; 4],
    not_before_us: u64,
    /// Wait after the next failure; zero if the last probe found more.
    retry_us: u64,
    demand: Bitrate,
    /// The estimate when the last probe was planned.
    before: Bitrate,
    /// None has been planned yet.
    is_first: bool,
    /// Probes that confirmed the last planned one.
    confirmations: u8,
}

impl Cluster {
    /// How long it takes to send.
    pub fn duration_us(&self) -> u64 {
        (u64::from(self.bytes) * 8_000_000).checked_div(self.rate_bps).map_or(DURATION_US, |us| us.max(DURATION_US))
    }
}

impl Prober {
    /// No probe.
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            clusters: [Cluster::default(); 4],
            not_before_us: 0,
            retry_us: 0,
            demand: Bitrate::ZERO,
            before: Bitrate::ZERO,
            is_first: true,
            confirmations: 0,
        }
    }

    /// The probe a packet sent now is part of.
    pub fn current(&self) -> Option<Probe> {
        let cluster = self.clusters[0];
        matches!(self.state, State::Sending { .. })
            .then(|| Probe { cluster: cluster.id, rate: Bitrate::from_bps(cluster.rate_bps) })
    }

    /// The probe whose result is due.
    pub fn awaited(&self) -> Option<Cluster> {
        matches!(self.state, State::Waiting { .. }).then_some(self.clusters[0])
    }

    /// The rate of the last probe.
    pub fn asked(&self) -> Bitrate {
        Bitrate::from_bps(self.clusters[0].rate_bps)
    }

    /// It is another network now. Numbers go on, for packets of the old probes are still reported.
    pub fn begin_anew(&mut self) {
        let last = Cluster { id: self.clusters[0].id, ..Cluster::default() };
        *self = Self::new();
        self.clusters[0] = last;
    }

    /// A probe by its id.
    pub fn cluster(&self, id: u16) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| id != 0 && cluster.id == id)
    }

    /// New feedback has been weighed: judges the last probe and plans the next.
    pub fn review(&mut self, conditions: Conditions, now_us: u64) {
        let Conditions { estimate, demand, strained, .. } = conditions;
        self.expire(now_us);
        if demand.as_bps() > self.demand.as_bps() * 5 / 4 {
            // What failed at a lower demand was not tried at this one.
            (self.retry_us, self.not_before_us) = (0, 0);
        }
        self.demand = demand;
        if let State::Waiting { until_us } = self.state {
            let reached = estimate >= Bitrate::from_bps(self.clusters[0].rate_bps) * SUCCESS;
            if reached && estimate >= self.before * PROGRESS {
                (self.retry_us, self.not_before_us) = (0, 0);
                self.state = State::Idle;
            } else if now_us >= until_us && !conditions.known {
                // The feedback was lost: nothing has failed.
                self.state = State::Idle;
            } else if now_us >= until_us {
                let most_us = if conditions.bucket { BUCKET_RETRY_US } else { MAX_RETRY_US };
                self.retry_us = (self.retry_us * 2).clamp(RETRY_US, most_us);
                self.not_before_us = now_us + self.retry_us;
                self.state = State::Idle;
            }
        }
        let wanted = estimate < demand * ENOUGH && estimate < conditions.max;
        if matches!(self.state, State::Idle) && wanted && !strained && now_us >= self.not_before_us {
            (self.before, self.confirmations) = (estimate, 0);
            let factor = if self.is_first {
                FIRST
            } else if self.retry_us == 0 || conditions.bucket {
                // A bucket that fills nearly as fast as the probe comes would not run dry.
                EAGER
            } else {
                CAUTIOUS
            };
            let least_bytes = if conditions.bucket || conditions.lossy { LONG_BYTES } else { 0 };
            self.plan((estimate * factor).min(demand * MAX_OVER_DEMAND).min(conditions.max), least_bytes, now_us);
        }
    }

    /// The last probe said that the network carries so much and no more: another one right away, to be sure. A long one,
    /// for what is left of a bucket makes a short one say too much.
    pub fn confirm(&mut self, rate: Bitrate, now_us: u64) {
        if self.confirmations == MAX_CONFIRMATIONS {
            return;
        }
        self.confirmations += 1;
        self.plan(rate * CAUTIOUS, LONG_BYTES, now_us);
    }

    /// The last probe found more, but was too short to be believed: a long one right away. If it came as fast as it was
    /// sent, that one asks for more at once; else it `found` so much.
    pub fn follow(&mut self, found: Option<Bitrate>, max: Bitrate, now_us: u64) {
        let rate = found.map_or(self.asked() * EAGER, |found| found * CAUTIOUS);
        let rate = rate.min(self.demand * MAX_OVER_DEMAND).min(max);
        // Else there is no more wish for it.
        if rate > self.before {
            self.plan(rate, LONG_BYTES, now_us);
        }
    }

    /// A packet of this size was sent as part of the probe.
    pub fn sent(&mut self, wire_bytes: u16, now_us: u64) {
        let State::Sending { since_us, bytes, packets } = &mut self.state else { return };
        if *packets == 0 {
            *since_us = now_us;
        }
        *bytes += u32::from(wire_bytes);
        *packets += 1;
        let cluster = self.clusters[0];
        if now_us >= *since_us + cluster.duration_us() && *packets > cluster.packets && *bytes > cluster.bytes {
            self.state = State::Waiting { until_us: now_us + RESULT_TIMEOUT_US };
        }
    }

    /// The padding to send now, if media has not done its part of the probe.
    pub fn padding_due(&self, now_us: u64) -> Option<Padding> {
        let due_us = self.next_padding_us()?;
        if now_us < due_us {
            return None;
        }
        let size = u64::from(self.clusters[0].bytes) / u64::from(MIN_PACKETS);
        let wire_bytes = size.clamp(MIN_PACKET_BYTES, MAX_PACKET_BYTES) as u16;
        Some(Padding { wire_bytes, cluster: self.clusters[0].id })
    }

    /// When to send the next padding.
    pub fn next_padding_us(&self) -> Option<u64> {
        let State::Sending { since_us, bytes, packets } = self.state else { return None };
        let cluster = self.clusters[0];
        if packets == 0 {
            return Some(since_us);
        }
        // The burst in which the next byte belongs; the last packet comes when all others have been sent.
        let full = bytes >= cluster.bytes && packets >= cluster.packets;
        let offset_us = u64::from(bytes).saturating_mul(8_000_000).checked_div(cluster.rate_bps).unwrap_or(0);
        let duration_us = cluster.duration_us();
        let burst_us = (offset_us / BURST_US * BURST_US).min(duration_us - BURST_US);
        Some(since_us + if full { duration_us } else { burst_us })
    }

    /// Gives up a probe that is not being sent.
    pub fn expire(&mut self, now_us: u64) {
        if let State::Sending { since_us, .. } = self.state
            && now_us >= since_us + SEND_TIMEOUT_US + self.clusters[0].duration_us()
        {
            self.state = State::Idle;
            self.not_before_us = now_us + RETRY_US;
        }
    }

    fn plan(&mut self, rate: Bitrate, least_bytes: u32, now_us: u64) {
        self.is_first = false;
        let id = self.clusters[0].id.wrapping_add(1).max(1);
        let bytes_in = |us: u64| (u128::from(rate.as_bps()) * u128::from(us) / 8_000_000).clamp(1, 10_000_000) as u32;
        let bytes = bytes_in(DURATION_US).max(least_bytes.min(bytes_in(MAX_DURATION_US)));
        let scouts = bytes < LONG_BYTES && least_bytes == 0;
        self.clusters.rotate_right(1);
        self.clusters[0] = Cluster { id, rate_bps: rate.as_bps().max(1), bytes, packets: MIN_PACKETS, scouts };
        self.state = State::Sending { since_us: now_us, bytes: 0, packets: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(estimate_kbps: u64, demand_kbps: u64) -> Conditions {
        Conditions {
            estimate: Bitrate::from_bps(estimate_kbps * 1000),
            demand: Bitrate::from_bps(demand_kbps * 1000),
            max: Bitrate::from_bps(20_000_000),
            strained: false,
            bucket: false,
            lossy: false,
            known: true,
        }
    }

    /// One that has probed before.
    fn prober() -> Prober {
        let mut prober = Prober::new();
        (prober.clusters[0].id, prober.is_first) = (7, false);
        prober
    }

    fn planned_kbps(estimate_kbps: u64, demand_kbps: u64) -> Option<u64> {
        let mut prober = prober();
        prober.review(conditions(estimate_kbps, demand_kbps), 0);
        prober.current().map(|probe| probe.rate.as_bps() / 1000)
    }

    /// Sends the whole probe; when each packet left, and its size.
    fn send(prober: &mut Prober, from_us: u64) -> Vec<(u64, u16)> {
        let mut now_us = from_us;
        let mut packets = Vec::new();
        while let Some(due_us) = prober.next_padding_us() {
            now_us = now_us.max(due_us);
            let padding = prober.padding_due(now_us).unwrap();
            assert!(prober.cluster(padding.cluster).is_some());
            packets.push((now_us - from_us, padding.wire_bytes));
            prober.sent(padding.wire_bytes, now_us);
        }
        packets
    }

    #[test]
    fn it_probes_up_to_the_demand_and_only_for_it() {
        // Estimate, demand, probe in kbit/s.
        for (estimate, demand, probe) in [
            (300, 3000, Some(900)),
            (1000, 2000, Some(3000)),
            (1500, 2000, Some(3000)),
            (2400, 2000, None),
            (300, 64, None),
            (300, 0, None),
            (10_000, 90_000, Some(20_000)),
            (20_000, 90_000, None),
        ] {
            assert_eq!(planned_kbps(estimate, demand), probe, "{estimate} of {demand}");
        }
        let mut prober = Prober::new();
        prober.review(conditions(1000, 3000), 0);
        assert_eq!(prober.current().map(|probe| probe.rate.as_bps()), Some(1_500_000), "the first guesses less");
        let mut prober = Prober::new();
        prober.review(Conditions { strained: true, ..conditions(300, 3000) }, 0);
        assert_eq!(prober.current(), None);
    }

    #[test]
    fn a_probe_has_its_rate_and_ends_with_a_single_packet() {
        // 600 kbit/s are 1500 bytes in 20 ms: five small packets and one. 12 Mbit/s are 30 kB: full-sized ones.
        for (estimate_kbps, packet_bytes, at_least) in [(200, 300, 5), (4000, 1200, 25)] {
            let mut prober = prober();
            prober.review(conditions(estimate_kbps, 90_000), 0);
            let packets = send(&mut prober, 7_000);
            let (last, before) = packets.split_last().unwrap();
            assert_eq!(*last, (DURATION_US, packet_bytes));
            assert!(before.len() >= at_least && before.iter().all(|(at_us, _)| *at_us <= 15_000));
            let bytes: u64 = before.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
            let kbps = bytes * 8 / 20;
            assert!(kbps >= estimate_kbps * 3 && kbps <= estimate_kbps * 3 * 11 / 10, "{kbps}");
            assert_eq!(prober.current(), None);
        }
    }

    #[test]
    fn media_takes_the_place_of_padding() {
        let mut prober = Prober::new();
        prober.review(conditions(300, 3000), 0);
        for _ in 0..5 {
            prober.sent(1200, 100);
        }
        assert_eq!(prober.next_padding_us(), Some(100 + DURATION_US), "the one that ends it");
        assert_eq!(prober.padding_due(DURATION_US), None);
        prober.sent(1200, 150 + DURATION_US);
        assert_eq!((prober.current(), prober.next_padding_us()), (None, None));
    }

    #[test]
    fn success_goes_on_at_once_and_failure_waits_ever_longer() {
        let mut prober = prober();
        prober.review(conditions(300, 9000), 0);
        send(&mut prober, 0);
        prober.review(conditions(500, 9000), 100_000);
        assert_eq!(prober.current(), None, "the result may still come");
        prober.review(conditions(800, 9000), 150_000);
        assert_eq!(prober.current().unwrap().rate, Bitrate::from_bps(2_400_000));
        send(&mut prober, 150_000);
        let mut starts = Vec::new();
        for ms in 200..20_000 {
            prober.review(conditions(800, 9000), ms * 1000);
            if let Some(probe) = prober.current() {
                assert_eq!(probe.rate, Bitrate::from_bps(1_200_000));
                starts.push(ms);
                send(&mut prober, ms * 1000);
            }
        }
        let gaps: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 100).collect();
        assert_eq!(gaps, [50, 50, 50], "100 ms");
        prober.review(conditions(800, 12_000), 20_000_000);
        assert_eq!(prober.current().map(|probe| probe.rate), Some(Bitrate::from_bps(2_400_000)), "more is wanted now");
    }

    #[test]
    fn what_brings_nothing_is_not_repeated_at_once() {
        // The estimate is 70 % of the highest probe that the demand allows, yet below what suffices.
        let mut prober = prober();
        let mut probes = 0;
        for ms in 0..10_000 {
            prober.review(conditions(2200, 2000), ms * 1000);
            if prober.current().is_some() {
                probes += 1;
                send(&mut prober, ms * 1000);
            }
        }
        assert!((2..=4).contains(&probes), "{probes} in ten seconds");
    }

    #[test]
    fn a_short_probe_is_followed_by_a_long_one() {
        let kbps = |kbps: u64| Bitrate::from_bps(kbps * 1000);
        // What the first asked for, what it found if that was less: what the next asks for, its bytes and time.
        for (asked, found, next, bytes, ms) in [
            (900, None, 2_700, 7_500, 22),
            (900, Some(600), 900, 7_500, 66),
            (90, None, 270, 5_062, 149),
            (2_700, None, 8_100, 20_250, 20),
        ] {
            let mut prober = prober();
            prober.review(conditions(asked / 3, 90_000), 0);
            assert!(prober.clusters[0].scouts);
            send(&mut prober, 0);
            prober.follow(found.map(kbps), kbps(20_000), 50_000);
            let cluster = prober.clusters[0];
            assert_eq!((cluster.rate_bps, cluster.bytes, cluster.scouts), (next * 1000, bytes, false), "{asked}");
            assert_eq!(cluster.duration_us() / 1000, ms);
            let packets = send(&mut prober, 50_000);
            let (last, before) = packets.split_last().unwrap();
            assert_eq!(last.0, cluster.duration_us());
            let sent: u64 = before.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
            assert!((u64::from(bytes)..u64::from(bytes) + 1_200).contains(&sent), "{sent}");
        }
    }

    #[test]
    fn behind_a_bucket_or_with_loss_all_are_long() {
        for (bucket, lossy, wait_s) in [(true, false, 8), (false, true, 4), (true, true, 8)] {
            let mut prober = prober();
            let mut starts = Vec::new();
            for ms in 0..60_000 {
                prober.review(Conditions { bucket, lossy, ..conditions(300, 9000) }, ms * 1000);
                if prober.current().is_some() {
                    assert_eq!((prober.clusters[0].scouts, prober.clusters[0].rate_bps >= 450_000), (false, true));
                    starts.push(ms);
                    send(&mut prober, ms * 1000);
                }
            }
            let gaps: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
            assert_eq!(gaps.last().copied(), Some(wait_s + 1), "{gaps:?}");
        }
    }

    #[test]
    fn a_probe_whose_feedback_is_lost_has_not_failed() {
        let mut prober = prober();
        prober.review(conditions(300, 9000), 0);
        send(&mut prober, 0);
        let result_us = DURATION_US + RESULT_TIMEOUT_US;
        prober.review(Conditions { known: false, ..conditions(300, 9000) }, result_us);
        assert_eq!(prober.current().map(|probe| probe.rate), Some(Bitrate::from_bps(900_000)), "the same at once");
    }

    #[test]
    fn a_probe_nobody_sends_is_given_up() {
        let mut prober = Prober::new();
        prober.review(conditions(300, 3000), 0);
        prober.expire(SEND_TIMEOUT_US + DURATION_US);
        assert_eq!((prober.current(), prober.next_padding_us()), (None, None));
        prober.review(conditions(300, 3000), SEND_TIMEOUT_US + DURATION_US + 1);
        assert_eq!(prober.current(), None);
    }
}
