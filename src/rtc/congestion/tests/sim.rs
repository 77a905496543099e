//! A sender, a bottleneck and a receiver in virtual time.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::rtc::congestion::{Congestion, CongestionConfig};
use crate::rtc::pacer::{Pacer, Verdict};
use crate::rtc::register::Kind;
use crate::units::Bitrate;

/// Propagation, each way.
const DELAY_US: u64 = 20_000;
const FRAME_US: u64 = 33_333;
const AUDIO_US: u64 = 20_000;
/// Opus at 32 kbit/s with headers, UDP and IP.
const AUDIO_BYTES: u16 = 80 + 20 + 10 + 28;
const PACKET_BYTES: u16 = 1_200;
/// The receiver's clock when ours starts: its 24-bit reference time wraps 5 s later.
const RECEIVER_CLOCK_US: u64 = (1 << 24) * 64_000 - 5_000_000;

/// What happens.
pub struct Setup {
    pub seed: u64,
    pub seconds: u64,
    /// In bit/s, by time in seconds.
    pub capacity: fn(f64) -> f64,
    /// What video would need, in bit/s, by time in seconds.
    pub demand: fn(f64) -> f64,
    /// The bottleneck's queue.
    pub queue_ms: u64,
    pub loss: f64,
    pub jitter_ms: f64,
    pub feedback_ms: u64,
    /// When feedback is lost.
    pub blackout_ms: Range<u64>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 40,
            capacity: |_| 10e6,
            demand: |_| 20e6,
            queue_ms: 250,
            loss: 0.0,
            jitter_ms: 0.0,
            feedback_ms: 50,
            blackout_ms: 0..0,
        }
    }
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// Means over the second, in bit/s.
    pub estimate: f64,
    pub capacity: f64,
    /// Extremes of estimate over capacity.
    pub min_share: f64,
    pub max_share: f64,
    pub padding_bytes: u64,
    /// Timers of the congestion control, and of the pacer.
    pub wakes: u64,
    pub releases: u64,
    pub queue_delay_ms: u64,
}

struct Packet {
    seq: u16,
    bytes: u16,
}

#[derive(Default)]
struct Bottleneck {
    queue: VecDeque<Packet>,
    queued_bytes: u64,
    /// When the packet before the first of the queue has left.
    free_at_us: f64,
    /// Sequence number and arrival, in order.
    arrived: VecDeque<(u16, u64)>,
    last_arrival_us: u64,
}

struct Feedback {
    at_us: u64,
    reference_time: u32,
    packets: Vec<(u16, Option<i64>)>,
}

/// The world of one run.
pub struct World {
    setup: Setup,
    rng: fastrand::Rng,
    t0: Instant,
    now_us: u64,
    congestion: Congestion,
    pacer: Pacer,
    /// Video that waits.
    waiting: VecDeque<u16>,
    link: Bottleneck,
    /// The receiver's next number to report.
    report_from: u16,
    feedback: VecDeque<Feedback>,
    next_audio_us: u64,
    next_frame_us: u64,
    next_report_us: u64,
    pub seconds: Vec<Second>,
}

impl World {
    pub fn run(setup: Setup) -> Self {
        let t0 = Instant::now();
        let congestion = Congestion::new(CongestionConfig::default(), t0);
        let pacer = Pacer::new(congestion.pacing_rate(), t0);
        let vacant = Second { min_share: f64::MAX, ..Default::default() };
        let mut world = Self {
            rng: fastrand::Rng::with_seed(setup.seed),
            seconds: vec![vacant; setup.seconds as usize],
            setup,
            t0,
            now_us: 0,
            congestion,
            pacer,
            waiting: VecDeque::new(),
            link: Bottleneck::default(),
            report_from: 1,
            feedback: VecDeque::new(),
            next_audio_us: 3_000,
            next_frame_us: 0,
            next_report_us: 50_000,
        };
        while world.now_us < world.setup.seconds * 1_000_000 {
            world.step();
        }
        world
    }

    fn now(&self) -> Instant {
        self.t0 + Duration::from_micros(self.now_us)
    }

    fn seconds_now(&self) -> f64 {
        self.now_us as f64 / 1e6
    }

    fn second(&mut self) -> &mut Second {
        let index = (self.now_us / 1_000_000).min(self.setup.seconds - 1);
        &mut self.seconds[index as usize]
    }

    fn step(&mut self) {
        // Rounded up, as a timer is.
        let micros = |at: Instant| (at.saturating_duration_since(self.t0).as_nanos() as u64).div_ceil(1000);
        let timer_us = self.congestion.poll_timeout().map_or(u64::MAX, micros);
        let release_us = self.pacer.next_release().map_or(u64::MAX, micros);
        let feedback_us = self.feedback.front().map_or(u64::MAX, |feedback| feedback.at_us);
        let inputs_us = self.next_audio_us.min(self.next_frame_us).min(self.next_report_us).min(feedback_us);
        let next_us = inputs_us.min(timer_us).min(release_us).max(self.now_us);
        self.account(next_us);
        self.now_us = next_us;
        if timer_us <= next_us && inputs_us > next_us {
            self.second().wakes += 1;
        } else if release_us <= next_us && inputs_us > next_us {
            self.second().releases += 1;
        }
        if self.next_report_us <= next_us {
            self.next_report_us += self.setup.feedback_ms * 1000;
            self.report();
        }
        while self.feedback.front().is_some_and(|feedback| feedback.at_us <= next_us) {
            let feedback = self.feedback.pop_front().unwrap();
            self.congestion.feedback(feedback.reference_time, feedback.packets, self.now());
        }
        self.congestion.set_demand(Bitrate::from_bps((self.setup.demand)(self.seconds_now()) as u64 + 60_000));
        self.congestion.handle_timeout(self.now());
        self.pacer.set_rate(self.congestion.pacing_rate(), self.now());
        if self.next_audio_us <= next_us {
            self.next_audio_us += AUDIO_US;
            assert_eq!(self.pacer.admit(Kind::Audio, AUDIO_BYTES, false, self.now()), Verdict::Send);
            self.transmit(Kind::Audio, AUDIO_BYTES);
        }
        if self.next_frame_us <= next_us {
            self.next_frame_us += FRAME_US;
            self.frame();
        }
        self.release();
    }

    /// The source: a frame for what may be sent, less audio, a fifth more or less.
    fn frame(&mut self) {
        let demand = (self.setup.demand)(self.seconds_now());
        let audio = f64::from(AUDIO_BYTES) * 8.0 * 50.0;
        let rate = demand.min(self.congestion.estimate().as_bps() as f64 - audio).max(0.0);
        let mut bytes = (rate / 8.0 * FRAME_US as f64 / 1e6 * (0.8 + 0.4 * self.rng.f64())) as u64;
        let mut starts_frame = true;
        while bytes > 0 {
            let size = bytes.min(u64::from(PACKET_BYTES)).max(60) as u16;
            bytes = bytes.saturating_sub(u64::from(size));
            match self.pacer.admit(Kind::Video, size, starts_frame, self.now()) {
                Verdict::Send => self.transmit(Kind::Video, size),
                Verdict::Queue => self.waiting.push_back(size),
                Verdict::Overflow => {
                    self.waiting.clear();
                    self.pacer.holds(0);
                }
            }
            starts_frame = false;
        }
    }

    fn release(&mut self) {
        while let Some(size) = self.waiting.front().copied()
            && self.pacer.release(size, size, self.now())
        {
            self.waiting.pop_front();
            self.transmit(Kind::Video, size);
        }
        while let Some(padding) = self.congestion.padding_due(self.now()) {
            if let Some(size) = self.waiting.pop_front() {
                self.pacer.release_for_probe(size, size);
                self.transmit(Kind::Video, size);
            } else {
                self.pacer.admit(Kind::Padding, padding.wire_bytes, false, self.now());
                self.transmit(Kind::Padding, padding.wire_bytes);
            }
        }
    }

    fn transmit(&mut self, kind: Kind, bytes: u16) {
        let seq = self.congestion.sent(kind, bytes, self.now());
        if kind == Kind::Padding {
            self.second().padding_bytes += u64::from(bytes);
        }
        self.serve();
        let capacity = (self.setup.capacity)(self.seconds_now());
        let limit = (capacity / 8.0 * self.setup.queue_ms as f64 / 1000.0).max(3_000.0);
        let full = (self.link.queued_bytes + u64::from(bytes)) as f64 > limit;
        if full || self.rng.f64() < self.setup.loss {
            return;
        }
        if self.link.queue.is_empty() {
            self.link.free_at_us = self.link.free_at_us.max(self.now_us as f64);
        }
        let delay_ms = (self.link.queued_bytes as f64 * 8000.0 / capacity) as u64;
        self.second().queue_delay_ms = delay_ms.max(self.second().queue_delay_ms);
        self.link.queued_bytes += u64::from(bytes);
        self.link.queue.push_back(Packet { seq, bytes });
    }

    /// Lets through the bottleneck what got through by now.
    fn serve(&mut self) {
        while let Some(packet) = self.link.queue.front() {
            let capacity = (self.setup.capacity)(self.link.free_at_us / 1e6);
            let done_us = self.link.free_at_us + f64::from(packet.bytes) * 8e6 / capacity;
            if done_us > self.now_us as f64 {
                return;
            }
            self.link.free_at_us = done_us;
            self.link.queued_bytes -= u64::from(packet.bytes);
            let jitter_us = self.rng.f64() * self.setup.jitter_ms * 1000.0;
            let arrival_us = ((done_us + jitter_us) as u64 + DELAY_US).max(self.link.last_arrival_us);
            self.link.last_arrival_us = arrival_us;
            self.link.arrived.push_back((packet.seq, arrival_us));
            self.link.queue.pop_front();
        }
    }

    /// The receiver reports what has arrived.
    fn report(&mut self) {
        self.serve();
        let mut packets = Vec::new();
        let mut reference = None;
        while let Some((seq, arrival_us)) = self.link.arrived.front().copied()
            && arrival_us <= self.now_us
        {
            self.link.arrived.pop_front();
            let clock_us = RECEIVER_CLOCK_US + arrival_us;
            let reference_time = *reference.get_or_insert(clock_us / 64_000);
            while self.report_from != seq {
                packets.push((self.report_from, None));
                self.report_from = self.report_from.wrapping_add(1);
            }
            packets.push((seq, Some((clock_us / 250) as i64 - (reference_time * 256) as i64)));
            self.report_from = seq.wrapping_add(1);
        }
        let lost = self.setup.blackout_ms.contains(&(self.now_us / 1000));
        if let Some(reference_time) = reference
            && !lost
        {
            let reference_time = reference_time as u32 & 0x00ff_ffff;
            self.feedback.push_back(Feedback { at_us: self.now_us + DELAY_US, reference_time, packets });
        }
    }

    /// Adds the time from now until then to the seconds it is in.
    fn account(&mut self, until_us: u64) {
        let estimate = self.congestion.estimate().as_bps() as f64;
        let mut from_us = self.now_us;
        while from_us < until_us.min(self.setup.seconds * 1_000_000) {
            let to_us = until_us.min((from_us / 1_000_000 + 1) * 1_000_000);
            let capacity = (self.setup.capacity)(from_us as f64 / 1e6);
            let second = &mut self.seconds[(from_us / 1_000_000) as usize];
            let share = (to_us - from_us) as f64 / 1e6;
            second.estimate += estimate * share;
            second.capacity += capacity * share;
            second.min_share = second.min_share.min(estimate / capacity);
            second.max_share = second.max_share.max(estimate / capacity);
            from_us = to_us;
        }
    }
}
