//! What the narrowest link carries, as far as probes have filled it.
//!
//! A probe that arrives slower than it left has met the bottleneck, and arrived at its rate. We send layers, often a
//! part of the estimate, and then nothing else tells: GoogCC lets an estimate that is not in use grow by what arrives,
//! past what the link carries, and falls from there at the next keyframe.

use super::proof::Arrival;
use crate::units::Bitrate;

/// A probe's twenty milliseconds are measured through jitter of ten: so many are taken together.
const SAMPLES: usize = 3;
/// How long a sample says what the link carries at least: probes come every five seconds at most while more is wanted. And
/// at most: longer, for nobody probes while what is known suffices.
const LEAST_VALID_US: u64 = 12_000_000;
const MOST_VALID_US: u64 = 60_000_000;
/// A sample off by more than this says that it is another link now; one that seems not to have filled the link, but is
/// off by less, was lucky with the jitter.
const OTHER: f64 = 1.5;
/// The first two must agree so well to be believed. With jitter, what has not filled the link may look as if it had.
const AGREES: f64 = 1.2;
const LUCKY: f64 = 1.25;
/// How long a token bucket is remembered.
const BUCKET_VALID_US: u64 = 60_000_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    bytes: u64,
    span_us: u64,
    at_us: u64,
}

/// The last probes that filled the link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bottleneck {
    /// Newest first.
    samples: [Option<Sample>; SAMPLES],
    /// The probe that was weighed last.
    cluster: u16,
    /// Until then a token bucket is on the way.
    bucket_until_us: u64,
}

impl Bottleneck {
    /// How a whole probe arrived. If it says what the link carries, and another one should confirm that: how much.
    pub fn note(&mut self, cluster: u16, arrival: Arrival, now_us: u64) -> Option<Bitrate> {
        if cluster == self.cluster {
            return None;
        }
        self.cluster = cluster;
        if let Some((bytes, span_us)) = arrival.after_bucket() {
            // A short one would say otherwise: it needs no other to agree.
            let sample = Sample { bytes, span_us, at_us: now_us };
            self.samples = [Some(sample), Some(sample), None];
            self.bucket_until_us = now_us + BUCKET_VALID_US;
            return None;
        }
        let (bytes, span_us) = arrival.measure();
        let sample = Sample { bytes, span_us, at_us: now_us };
        let filled = arrival.is_late() && arrival.is_even();
        let rate = sample.rate()?;
        match self.pooled(MOST_VALID_US, now_us) {
            None if !filled => {}
            None => self.samples = [Some(sample), None, None],
            Some(known) if !self.is_confirmed() && (rate > known * AGREES || rate * AGREES < known) => {
                self.samples = [Some(sample).filter(|_| filled), None, None];
            }
            Some(known) if rate > known * OTHER || rate * OTHER < known => {
                self.samples = [Some(sample).filter(|_| filled), None, None];
            }
            Some(known) if !filled && rate > known * LUCKY => self.samples = [None; SAMPLES],
            // It asked for less than the link carries.
            Some(known) if !filled && rate < known => {}
            Some(_) => {
                self.samples.rotate_right(1);
                self.samples[0] = Some(sample);
            }
        }
        Some(rate).filter(|_| self.samples[0].is_some() && !self.is_confirmed())
    }

    /// Whether something on the way lets short probes pass whole.
    pub fn has_bucket(&self, now_us: u64) -> bool {
        now_us < self.bucket_until_us
    }

    /// What the link carries at least, if that is known.
    pub fn least(&self, now_us: u64) -> Option<Bitrate> {
        self.pooled(LEAST_VALID_US, now_us).filter(|_| self.is_confirmed())
    }

    /// What the link carries at most, if that is known.
    pub fn most(&self, now_us: u64) -> Option<Bitrate> {
        self.pooled(MOST_VALID_US, now_us).filter(|_| self.is_confirmed())
    }

    fn is_confirmed(&self) -> bool {
        self.samples[1].is_some()
    }

    fn pooled(&self, valid_us: u64, now_us: u64) -> Option<Bitrate> {
        let valid = self.samples.iter().flatten().filter(|sample| now_us < sample.at_us + valid_us);
        let (bytes, span_us) =
            valid.fold((0, 0), |(bytes, span), sample| (bytes + sample.bytes, span + sample.span_us));
        Sample { bytes, span_us, at_us: now_us }.rate()
    }

    /// It carries something else now.
    pub fn forget(&mut self) {
        (self.samples, self.bucket_until_us) = ([None; SAMPLES], 0);
    }
}

impl Sample {
    fn rate(&self) -> Option<Bitrate> {
        (self.span_us > 0).then(|| Bitrate::from_bps(self.bytes * 8_000_000 / self.span_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// A probe of 20 ms with its rate and what arrived of it, in kbit/s.
    fn arrival((sent, arrived): (u64, u64)) -> Arrival {
        let bytes = sent * 20 / 8;
        let arrived_us = bytes * 8_000 / arrived;
        Arrival { bytes, sent_us: 20_000, arrived_us, half: (bytes / 2, arrived_us / 2) }
    }

    /// Probes a second apart: what is known in the end.
    fn known(probes: &[(u64, u64)]) -> Option<u64> {
        let mut bottleneck = Bottleneck::default();
        for (index, probe) in probes.iter().enumerate() {
            let (cluster, now_us) = (index as u16 + 1, index as u64 * SECOND_US);
            bottleneck.note(cluster, arrival(*probe), now_us);
            assert_eq!(bottleneck.note(cluster, arrival((9000, 9)), now_us), None, "each counts once");
        }
        bottleneck.most(probes.len() as u64 * SECOND_US).map(|rate| rate.as_bps() / 1000)
    }

    #[test]
    fn only_what_filled_the_link_twice_says_what_it_carries() {
        assert_eq!(known(&[(450, 450), (450, 450)]), None);
        assert_eq!(known(&[(450, 300)]), None, "not confirmed");
        assert_eq!(known(&[(450, 300), (450, 300)]), Some(300));
        assert_eq!(known(&[(3000, 1700), (2600, 2500), (3700, 3600)]), None, "no two agree");
        assert_eq!(known(&[(450, 300), (450, 300), (250, 250)]), Some(300), "less was asked for");
        assert_eq!(known(&[(450, 300), (450, 300), (900, 900)]), None, "much more came through");
        assert_eq!(known(&[(450, 300), (450, 300), (450, 150)]), None, "another link");
        assert_eq!(known(&[(450, 300), (450, 300), (450, 150), (225, 150)]), Some(150));
    }

    #[test]
    fn jitter_is_averaged() {
        // By span: what took long weighs more.
        assert_eq!(known(&[(1800, 1100), (1800, 1300), (1800, 1200)]), Some(1194));
        assert_eq!(known(&[(1500, 1100), (1500, 1100), (1300, 1300)]), Some(1153), "lucky with the jitter");
    }

    #[test]
    fn what_comes_after_a_bucket_is_believed_at_once() {
        let mut bottleneck = Bottleneck::default();
        let dry = Arrival { bytes: 10_000, sent_us: 22_000, arrived_us: 150_000, half: (6_000, 43_000) };
        assert_eq!(bottleneck.note(1, dry, 0), None);
        let known = bottleneck.most(SECOND_US).map(|rate| rate.as_bps() / 1000);
        assert_eq!((known, bottleneck.has_bucket(SECOND_US)), (Some(299), true));
        assert!(!bottleneck.has_bucket(BUCKET_VALID_US));
        bottleneck.forget();
        assert_eq!((bottleneck.most(SECOND_US), bottleneck.has_bucket(SECOND_US)), (None, false));
    }

    #[test]
    fn a_first_sample_wants_another_and_old_ones_are_forgotten() {
        let mut bottleneck = Bottleneck::default();
        let probe = arrival((300, 200));
        assert_eq!(bottleneck.note(1, probe, 0), Some(Bitrate::from_bps(200_000)));
        assert_eq!(bottleneck.note(2, probe, SECOND_US), None);
        let rate = Some(Bitrate::from_bps(200_000));
        assert_eq!((bottleneck.least(SECOND_US), bottleneck.most(SECOND_US)), (rate, rate));
        let later_us = SECOND_US + LEAST_VALID_US;
        assert_eq!((bottleneck.least(later_us), bottleneck.most(later_us)), (None, rate));
        assert_eq!(bottleneck.most(SECOND_US + MOST_VALID_US), None);
        bottleneck.forget();
        assert_eq!(bottleneck.most(SECOND_US), None);
    }
}
