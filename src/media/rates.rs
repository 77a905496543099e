//! What each layer of an encoding costs, by counting.

use std::time::{Duration, Instant};

use super::packet::{Frame, Indication, Packet, Scheme};
use crate::units::Bitrate;

/// Layers told apart; what is above is counted with the highest. WebRTC's scalability modes have three of each.
const SPATIAL: usize = 4;
const TEMPORAL: usize = 4;
/// What a packet is longer on the wire than its payload: RTP header and extensions, SRTP tag, UDP and IP. Bytes.
const OVERHEAD_BYTES: u64 = 12 + 24 + 16 + 28;
/// A rate follows a rise by half, a fall by a third: an encoder's pause must not look like room for more.
const RISE: u64 = 2;
const FALL: u64 = 3;
/// Nothing is measured over less at first, and over less than the latter from then on. With temporal layers a few frames
/// more or less of the lowest are a third of it; measured over 250 ms, and following rises faster than falls, every
/// layer seemed to cost a fifth too much.
const FIRST_SPAN: Duration = Duration::from_millis(200);
const SPAN: Duration = Duration::from_secs(1);
/// A spatial layer that has been silent for so long has ceased, or sends less than four pictures a second.
const CEASED: Duration = Duration::from_millis(250);
/// A spatial layer that has been silent for this long while its encoding goes on is not sent any more.
const LAYER_ALIVE: Duration = Duration::from_millis(1500);

/// The layers of one encoding: rates, sizes, and which are alive.
#[derive(Debug)]
pub struct LayerRates {
    since: Instant,
    bytes: [[u64; TEMPORAL]; SPATIAL],
    /// Bits a second.
    rates: [[u64; TEMPORAL]; SPATIAL],
    heard: [Option<Instant>; SPATIAL],
    /// Those of which nothing had come when the rates were last measured.
    silent: [bool; SPATIAL],
    sizes: [Option<(u16, u16)>; SPATIAL],
    /// Whoever gets a spatial layer gets none below it but with keyframes (modes `…_KEY`).
    alone: bool,
    measured: bool,
}

impl LayerRates {
    /// Nothing has come.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: [[0; TEMPORAL]; SPATIAL],
            rates: [[0; TEMPORAL]; SPATIAL],
            heard: [None; SPATIAL],
            silent: [false; SPATIAL],
            sizes: [None; SPATIAL],
            alone: false,
            measured: false,
        }
    }

    /// A packet came. Whether it tells of a new size.
    pub fn note(&mut self, packet: &Packet, now: Instant) -> bool {
        let frame = &packet.frame;
        let spatial = usize::from(frame.spatial).min(SPATIAL - 1);
        if !self.measured && self.heard.iter().all(Option::is_none) {
            self.since = now;
        }
        self.bytes[spatial][usize::from(frame.temporal).min(TEMPORAL - 1)] += packet.bytes as u64 + OVERHEAD_BYTES;
        self.heard[spatial] = Some(now);
        if frame.starts && !packet.keyframe {
            self.alone |= stands_alone(frame);
        }
        let news = packet.size.is_some() && self.sizes[spatial] != packet.size;
        if news {
            self.sizes[spatial] = packet.size;
        }
        news
    }

    /// Turns what was counted since the last time into rates. A spatial layer that was silent for some of it keeps what
    /// it had: it costs that again when it comes back.
    pub fn measure(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.since);
        if span < if self.measured { SPAN } else { FIRST_SPAN } {
            return;
        }
        self.since = now;
        let bytes = std::mem::take(&mut self.bytes);
        let silent = std::mem::replace(&mut self.silent, bytes.map(|bytes| bytes == [0; TEMPORAL]));
        if bytes.as_flattened().iter().all(|bytes| *bytes == 0) {
            return;
        }
        for (spatial, (rates, bytes)) in self.rates.iter_mut().zip(&bytes).enumerate() {
            let ceased = self.heard[spatial].is_some_and(|at| now.saturating_duration_since(at) > CEASED);
            // It was stopped or taken up again in the midst.
            let is_partial = ceased || silent[spatial];
            for (rate, bytes) in rates.iter_mut().zip(bytes) {
                let new = Bitrate::of(*bytes, span).as_bps();
                *rate = match *rate {
                    _ if !self.measured => new,
                    old if new > old => old + (new - old) / RISE,
                    old if is_partial => old,
                    old => old - (old - new) / FALL,
                };
            }
        }
        self.measured = true;
    }

    /// Whether there are rates.
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// The highest spatial layer that is sent.
    pub fn top_spatial(&self) -> u8 {
        let latest = self.heard.iter().flatten().max();
        let alive = |heard: &Option<Instant>| heard.zip(latest).is_some_and(|(at, latest)| at + LAYER_ALIVE > *latest);
        self.heard.iter().rposition(alive).unwrap_or(0) as u8
    }

    /// The highest temporal layer that there has been lately.
    pub fn top_temporal(&self) -> u8 {
        let sent = self.sent();
        let used = |temporal: &usize| sent.iter().any(|rates| rates[*temporal] > 1_000);
        (0..TEMPORAL).rev().find(used).unwrap_or(0) as u8
    }

    /// What it costs to send everything up to a layer.
    pub fn price(&self, spatial: u8, temporal: u8) -> Bitrate {
        let highest = usize::from(spatial).min(SPATIAL - 1);
        let lowest = if self.alone { highest } else { 0 };
        let layers = self.rates[lowest..=highest].iter();
        Bitrate::from_bps(layers.flat_map(|rates| rates.iter().take(usize::from(temporal) + 1)).sum())
    }

    /// What all of it takes on the way from the publisher.
    pub fn total(&self) -> Bitrate {
        Bitrate::from_bps(self.sent().as_flattened().iter().sum())
    }

    /// The rates of the spatial layers that are sent.
    fn sent(&self) -> &[[u64; TEMPORAL]] {
        &self.rates[..=usize::from(self.top_spatial())]
    }

    /// Width and height of a spatial layer, in pixels.
    pub fn size(&self, spatial: u8) -> Option<(u16, u16)> {
        self.sizes.get(usize::from(spatial)).copied().flatten()
    }
}

/// Whether a frame is left out for those who get a higher spatial layer.
fn stands_alone(frame: &Frame) -> bool {
    match &frame.scheme {
        Scheme::Spatial { unneeded_above, .. } => *unneeded_above,
        Scheme::Targets(targets) => {
            let best = targets.best(u8::MAX, u8::MAX);
            targets.top_spatial() > frame.spatial && targets.indication(best) == Indication::NotPresent
        }
        Scheme::Whole | Scheme::Temporal { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;

    const LOOK_MS: u64 = 250;

    fn packet(frame: Frame, bytes: usize, captured_at: Instant) -> Packet {
        let (ssrc, seq, timestamp, codec) = (1, 0, 0, Codec::Vp8);
        Packet { ssrc, seq, timestamp, codec, bytes, keyframe: false, level: None, captured_at, frame, size: None }
    }

    /// 30 frames a second of 620 bytes and 80 around them, those of the lowest of three temporal layers twice as large;
    /// measured every 250 ms from then to then.
    fn play(rates: &mut LayerRates, t0: Instant, span_ms: std::ops::Range<u64>, sends: impl Fn(u64) -> bool) {
        let mut frames = (0_u64..).map(|number| (number * 100 / 3, number)).skip_while(|(at, _)| *at < span_ms.start);
        let mut next = frames.next();
        for look_ms in (span_ms.start..=span_ms.end).step_by(LOOK_MS as usize) {
            while let Some((at_ms, number)) = next.filter(|(at, _)| *at < look_ms) {
                next = frames.next();
                let temporal = [0, 2, 1, 2][(number % 4) as usize];
                let frame = Frame { temporal, ..Frame::default() };
                let bytes = if temporal == 0 { 1320 } else { 620 };
                let at = t0 + Duration::from_millis(at_ms);
                let packet = packet(frame, bytes, at);
                if sends(at_ms) {
                    rates.note(&packet, at);
                }
            }
            rates.measure(t0 + Duration::from_millis(look_ms));
        }
    }

    fn kbps(rates: &LayerRates) -> [u64; 3] {
        [0, 1, 2].map(|temporal| rates.price(0, temporal).as_bps() / 1000)
    }

    #[test]
    fn a_steady_rate_is_found_whatever_the_frames_between_two_looks() {
        let t0 = Instant::now();
        let mut rates = LayerRates::new(t0);
        // 1400, 700 and 1400 bytes of four frames: 84, 42 and 84 kbit/s.
        for second in 0..30 {
            play(&mut rates, t0, second * 1000..second * 1000 + 1000, |_| true);
            let measured = kbps(&rates);
            let near = |(is, should): (u64, u64)| is * 100 >= should * 92 && is * 100 <= should * 110;
            let all = measured.into_iter().zip([84, 126, 210]).all(near);
            assert!(second < 3 || all, "second {second}: {measured:?}");
        }
    }

    #[test]
    fn a_spatial_layer_that_is_stopped_costs_the_same_when_it_comes_back() {
        let t0 = Instant::now();
        for (stops_ms, returns_ms) in [(5_000, 9_000), (5_400, 9_200), (5_900, 9_800), (5_500, 5_700), (5_950, 6_900)] {
            let mut rates = LayerRates::new(t0);
            let mut price = 0;
            for at_ms in (0..12_000).step_by(10) {
                let now = t0 + Duration::from_millis(at_ms);
                let is_sent = |spatial: u8| spatial == 0 || !(stops_ms..returns_ms).contains(&at_ms);
                for spatial in (0..2_u8).filter(|spatial| is_sent(*spatial)) {
                    let frame = Frame { spatial, ..Frame::default() };
                    rates.note(&packet(frame, 620 << spatial, now), now);
                }
                if at_ms % LOOK_MS == 0 {
                    rates.measure(now);
                }
                if at_ms == 5_000 {
                    price = rates.price(1, 0).as_bps();
                }
                let same = rates.price(1, 0).as_bps() * 100 >= price * 85;
                assert!(
                    at_ms < 5_000 || same,
                    "{stops_ms} to {returns_ms}, at {at_ms}: {price} became {:?}",
                    rates.price(1, 0)
                );
            }
        }
    }

    #[test]
    fn what_is_stopped_costs_the_same_when_it_comes_back() {
        let t0 = Instant::now();
        for stops_ms in [5_000, 5_100, 5_400, 5_700, 5_900] {
            let mut rates = LayerRates::new(t0);
            play(&mut rates, t0, 0..5_000, |_| true);
            let before = kbps(&rates)[2];
            play(&mut rates, t0, 5_000..9_000, |at_ms| at_ms < stops_ms);
            let after = kbps(&rates)[2];
            assert!(after * 100 >= before * 90, "stopped at {stops_ms} ms: {before} became {after}");
        }
    }
}
