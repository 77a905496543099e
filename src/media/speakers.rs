//! Who speaks, judged by the audio levels that publishers put into their packets (RFC 6464).

use std::time::{Duration, Instant};

use super::Seat;

/// Least time between two judgements.
pub const TICK: Duration = Duration::from_millis(300);
/// Louder than this counts as speech, in −dBov; a quiet room's microphone idles near 60 and below.
const SPEECH_LEVEL: u8 = 50;
/// How far the packets of one tick must stand above [`SPEECH_LEVEL`] together, in decibels: one very loud packet of
/// 20 ms, or 60 ms at a talker's usual 35. A click of the keyboard stays below.
const SPEECH_DECIBELS: u32 = 40;
/// How long someone stays a speaker through a pause between words.
const HOLD: Duration = Duration::from_millis(1200);
/// A speaker whose level moved by less is not told anew.
const LEVEL_STEP: f32 = 0.15;

/// The speakers of one room.
#[derive(Debug, Default)]
pub struct SpeakerDetector {
    voices: Vec<Voice>,
    told: Vec<(Seat, f32)>,
}

#[derive(Debug)]
struct Voice {
    seat: Seat,
    /// This tick's speech: packets and their summed level.
    packets: u32,
    level_sum: u32,
    /// 0 to 1, over the last ticks.
    level: f32,
    last_spoke: Option<Instant>,
}

impl SpeakerDetector {
    /// A packet with this level came from a seat.
    pub fn heard(&mut self, seat: Seat, level: u8) {
        if level > SPEECH_LEVEL {
            return;
        }
        let voice = match self.voices.iter_mut().position(|voice| voice.seat == seat) {
            Some(known) => &mut self.voices[known],
            None => {
                self.voices.push(Voice { seat, packets: 0, level_sum: 0, level: 0.0, last_spoke: None });
                let last = self.voices.len() - 1;
                &mut self.voices[last]
            }
        };
        voice.packets += 1;
        voice.level_sum += u32::from(level);
    }

    /// The participant left or was muted.
    pub fn silence(&mut self, seat: Seat) {
        self.voices.retain(|voice| voice.seat != seat);
    }

    /// Judges the last [`TICK`]. The speakers, loudest first, if that is news.
    pub fn judge(&mut self, now: Instant) -> Option<Vec<(Seat, f32)>> {
        for voice in &mut self.voices {
            let heard = voice.level_sum.checked_div(voice.packets).map_or(0.0, loudness);
            voice.level = if heard > voice.level { heard } else { voice.level * 0.6 + heard * 0.4 };
            let above = voice.packets * u32::from(SPEECH_LEVEL) - voice.level_sum;
            if above >= SPEECH_DECIBELS {
                voice.last_spoke = Some(now);
            }
            (voice.packets, voice.level_sum) = (0, 0);
        }
        let speaks = |voice: &&Voice| voice.last_spoke.is_some_and(|at| now.saturating_duration_since(at) < HOLD);
        let mut speakers: Vec<_> = self.voices.iter().filter(speaks).map(|voice| (voice.seat, voice.level)).collect();
        speakers.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let same = self.told.len() == speakers.len()
            && self.told.iter().zip(&speakers).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < LEVEL_STEP);
        if same {
            return None;
        }
        self.told.clone_from(&speakers);
        Some(speakers)
    }

    /// When someone last spoke; `None` for those who never did. Orders default slots.
    pub fn last_spoke(&self, seat: Seat) -> Option<Instant> {
        self.voices.iter().find(|voice| voice.seat == seat).and_then(|voice| voice.last_spoke)
    }

    /// Whether anyone is or was just speaking, so that judging goes on.
    pub fn is_active(&self) -> bool {
        !self.told.is_empty() || self.voices.iter().any(|voice| voice.packets > 0)
    }
}

/// −dBov to 0 … 1, linear in decibels: 50 is 0, 0 is 1.
fn loudness(level: u32) -> f32 {
    1.0 - level.min(u32::from(SPEECH_LEVEL)) as f32 / f32::from(SPEECH_LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speak(detector: &mut SpeakerDetector, seat: u16, level: u8) {
        (0..15).for_each(|_| detector.heard(Seat(seat), level));
    }

    #[test]
    fn the_loudest_comes_first_and_silence_empties_the_list() {
        let mut now = Instant::now();
        let mut detector = SpeakerDetector::default();
        speak(&mut detector, 1, 40);
        speak(&mut detector, 2, 20);
        let seats: Vec<_> = detector.judge(now).unwrap().into_iter().map(|(seat, _)| seat).collect();
        assert_eq!(seats, [Seat(2), Seat(1)]);
        let mut last = None;
        for _ in 0..5 {
            now += TICK;
            last = detector.judge(now).or(last);
        }
        assert_eq!(last, Some(vec![]));
        assert!(!detector.is_active());
        assert!(detector.last_spoke(Seat(2)).is_some());
    }

    #[test]
    fn a_steady_talker_is_told_once() {
        let mut now = Instant::now();
        let mut detector = SpeakerDetector::default();
        let mut told = 0;
        for _ in 0..20 {
            speak(&mut detector, 1, 30);
            told += usize::from(detector.judge(now).is_some());
            now += TICK;
        }
        assert_eq!(told, 1);
    }

    #[test]
    fn clicks_and_background_noise_are_not_speech() {
        let now = Instant::now();
        let mut detector = SpeakerDetector::default();
        detector.heard(Seat(1), 20);
        speak(&mut detector, 2, 60);
        speak(&mut detector, 3, 48);
        assert_eq!(detector.judge(now), None);
    }
}
