//! Who speaks, judged by the audio levels that publishers put into their packets (RFC 6464).
//!
//! Levels are claims of the publisher's. So no claim earns more than its share: speech is what varies, and a level
//! that stays where it is becomes its own noise floor.

use std::time::{Duration, Instant};

use super::Seat;

/// Time between two judgements. Short, so that a talker is told within 500 ms.
pub const TICK: Duration = Duration::from_millis(100);
/// Least time between two messages, by contract.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(300);
/// The same where only levels moved, so that such news seldom delays news of a speaker.
const LEVEL_INTERVAL: Duration = Duration::from_secs(1);
/// A speaker whose level moved by less (6 dB) is not told anew.
const LEVEL_STEP: f32 = 0.15;
/// How long someone stays a speaker after their last speech: longer than a pause between words.
const HOLD: Duration = Duration::from_millis(1200);
/// Seconds of recent speech that make a speaker; a cough is 0.1 to 0.2 s, and this leaves a talker 500 ms less a tick.
const SPEAKS_AFTER: f32 = 0.26;
/// Seconds of recent speech that keep one: a short word after a pause, though no click.
const KEEPS_AFTER: f32 = 0.06;
/// Short sounds this loud (−dBov), of which there are so many in this time with pauses between, are of someone who wants
/// to be heard, be it by knocking on the microphone; test tones of fake devices are like that. No keyboard is as loud,
/// and nobody coughs as often.
const CALL_LEVEL: u8 = 15;
const CALLS: usize = 5;
const CALLS_WITHIN: Duration = Duration::from_secs(3);
const CALL_GAP: Duration = Duration::from_millis(200);
/// Decibels between two speakers before the quieter gives way; the mean level of a voice moves by 2 to 3.
const CLEARLY_LOUDER: f32 = 6.0;
/// For how long someone must be clearly louder than the first to become the first.
const FIRST_CHANGES_AFTER: Duration = Duration::from_secs(1);

/// Louder than this counts as speech, in dBov; a quiet room's microphone idles near −60 and below.
const SPEECH_LEVEL: f32 = -50.0;
/// No level counts as louder, in −dBov: speech peaks here, so that claiming 0 gains nothing.
const LOUDEST: u8 = 10;
/// Speech stands this far above its voice's noise floor, in decibels.
const SPEECH_ABOVE_FLOOR: f32 = 10.0;
/// The floor rises so fast, in decibels per second: a constant level stops being speech within 20 s, while speech
/// itself dips between syllables and brings the floor down again.
const FLOOR_RISE: f32 = 2.0;
/// The floor falls no deeper, in dBov, lest one silent packet buys a minute of spoofed speech.
const FLOOR_LOWEST: f32 = -60.0;
/// Seconds by which the floor rises at most over a gap without packets: who sends nothing claims nothing.
const GAP_MOST: f32 = 0.5;
/// Seconds between two packets of speech that are one sound: a long packet or a short burst of late ones.
const ONE_SOUND: f32 = 0.08;
/// Seconds that a packet stands for when a sound begins.
const PACKET: f32 = 0.02;
/// How fast recent speech is forgotten in silence: half as fast as it is earned. Words of 200 ms with pauses as long
/// add up to a speaker, clicks of 40 ms at 8 a second do not.
const FORGET: f32 = 0.5;
/// Seconds of recent speech remembered at most.
const RECENT_MOST: f32 = 0.3;
/// Seconds of speech that the level is the mean of.
const LEVEL_WINDOW: f32 = 0.6;
/// Seconds of silence after which the mean begins anew.
const LEVEL_FORGOTTEN: f32 = 1.2;
/// No voice goes so long without one packet below speech.
const DRONE: Duration = Duration::from_secs(3);

/// One microphone, as far as levels tell. What it holds back is the same for [`SpeakerDetector`] and for
/// `AudioSelector`.
#[derive(Debug, Clone)]
pub struct Voice {
    /// What its surroundings sound like when nobody speaks, in dBov.
    floor: f32,
    heard_at: Option<Instant>,
    speech_at: Option<Instant>,
    /// Since when every packet was speech.
    unbroken_since: Option<Instant>,
    /// Seconds of speech lately: earned by speech, forgotten in silence. By the clock and not by the packet, so that
    /// more packets are not more speech.
    recent: f32,
    /// Mean level of its speech, in dBov, and the seconds it is the mean of.
    level: f32,
    averaged: f32,
}

impl Default for Voice {
    fn default() -> Self {
        let (floor, level) = (FLOOR_LOWEST, SPEECH_LEVEL);
        Self { floor, heard_at: None, speech_at: None, unbroken_since: None, recent: 0.0, level, averaged: 0.0 }
    }
}

impl Voice {
    /// A packet with this level, in −dBov. Whether it is speech.
    pub fn hear(&mut self, level: u8, now: Instant) -> bool {
        let level = -f32::from(level.max(LOUDEST));
        let gap = self.heard_at.replace(now).map_or(0.0, |at| seconds(at, now));
        self.floor = (self.floor + gap.min(GAP_MOST) * FLOOR_RISE).min(level).max(FLOOR_LOWEST);
        let speech = level > SPEECH_LEVEL && level >= self.floor + SPEECH_ABOVE_FLOOR;
        if speech {
            self.speak(level, now);
        } else {
            self.unbroken_since = None;
        }
        speech
    }

    fn speak(&mut self, level: f32, now: Instant) {
        let gap = self.speech_at.replace(now).map_or(f32::INFINITY, |at| seconds(at, now));
        let mut earned = gap;
        if gap > ONE_SOUND {
            earned = PACKET;
            self.recent = (self.recent - gap * FORGET).max(0.0);
        }
        if gap > LEVEL_FORGOTTEN {
            self.averaged = 0.0;
        }
        self.recent = (self.recent + earned).min(RECENT_MOST);
        self.averaged = (self.averaged + earned).min(LEVEL_WINDOW);
        self.level += (level - self.level) * earned / self.averaged;
        self.unbroken_since.get_or_insert(now);
    }

    /// Seconds of speech lately, as of the last packet of speech; 0.3 at most.
    pub fn recent(&self) -> f32 {
        self.recent
    }

    /// Mean level of its speech in the last 600 ms of it, in dBov.
    pub fn level(&self) -> f32 {
        self.level
    }

    /// Whether its last packet of speech is no older than this.
    pub fn spoke_within(&self, time: Duration, now: Instant) -> bool {
        self.speech_at.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// Whether it has gone on without a breath for longer than a person does: a tone, a fan, a lie.
    pub fn drones(&self, now: Instant) -> bool {
        self.unbroken_since.is_some_and(|since| now.saturating_duration_since(since) >= DRONE)
    }
}

/// From one to the other, 4 s at most. Cheaper than [`Duration::as_secs_f32`], and every packet asks.
fn seconds(from: Instant, to: Instant) -> f32 {
    let passed = to.saturating_duration_since(from);
    passed.as_secs().min(4) as i32 as f32 + passed.subsec_nanos() as i32 as f32 * 1e-9
}

/// The speakers of one room.
#[derive(Debug, Default)]
pub struct SpeakerDetector {
    /// By seat: every packet looks here.
    talkers: Vec<Talker>,
    /// Who speaks, in the order in which they are told.
    speakers: Vec<Seat>,
    /// How long the first has been clearly quieter than another who spoke.
    outdone: Duration,
    judged_at: Option<Instant>,
    told: Vec<(Seat, f32)>,
    told_at: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Talker {
    voice: Voice,
    last_spoke: Option<Instant>,
    /// When the latest loud sounds began, the newest first, and when the last of them was heard.
    calls: [Option<Instant>; CALLS],
    called_at: Option<Instant>,
}

impl Talker {
    /// Something loud was heard. Whether it was one of so many in a row that someone wants to be heard.
    fn calls(&mut self, now: Instant) -> bool {
        let begins = self.called_at.is_none_or(|at| now.saturating_duration_since(at) >= CALL_GAP);
        self.called_at = Some(now);
        if begins {
            self.calls.rotate_right(1);
            self.calls[0] = Some(now);
        }
        self.calls[CALLS - 1].is_some_and(|first| now.saturating_duration_since(first) < CALLS_WITHIN)
    }

    fn speaks(&self, now: Instant) -> bool {
        self.last_spoke.is_some_and(|at| now.saturating_duration_since(at) < HOLD)
    }
}

impl SpeakerDetector {
    /// A packet with this level came from a seat's microphone. Whether it is speech, so that there is something to
    /// judge within a [`TICK`].
    pub fn heard(&mut self, seat: Seat, level: u8, now: Instant) -> bool {
        let index = usize::from(seat.0);
        if index >= self.talkers.len() {
            self.talkers.resize(index + 1, Talker::default());
        }
        let talker = &mut self.talkers[index];
        let speech = talker.voice.hear(level, now);
        if speech {
            let enough = if talker.speaks(now) { KEEPS_AFTER } else { SPEAKS_AFTER };
            let calls = level <= CALL_LEVEL && talker.calls(now);
            if talker.voice.recent() >= enough || calls {
                talker.last_spoke = Some(now);
            }
        }
        speech
    }

    /// The participant left or was muted.
    pub fn silence(&mut self, seat: Seat) {
        if let Some(talker) = self.talkers.get_mut(usize::from(seat.0)) {
            *talker = Talker::default();
        }
    }

    /// Judges, every [`TICK`]. The speakers, loudest first, if that is news and the last news is old enough.
    pub fn judge(&mut self, now: Instant) -> Option<Vec<(Seat, f32)>> {
        self.list(now);
        self.order(now);
        let quiet = self.told_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let speakers: Vec<_> = self.speakers.iter().map(|seat| (*seat, loudness(self.level(*seat)))).collect();
        let same_list = self.told.iter().map(|(seat, _)| seat).eq(&self.speakers);
        let same_levels = self.told.iter().zip(&speakers).all(|(a, b)| (a.1 - b.1).abs() < LEVEL_STEP);
        let due = if same_list { !same_levels && quiet >= LEVEL_INTERVAL } else { quiet >= MESSAGE_INTERVAL };
        if !due {
            return None;
        }
        self.told.clone_from(&speakers);
        self.told_at = Some(now);
        Some(speakers)
    }

    /// Takes those off the list who fell silent and puts newcomers at its end.
    fn list(&mut self, now: Instant) {
        let first = self.speakers.first().copied();
        let talkers = &self.talkers;
        self.speakers.retain(|seat| talkers.get(usize::from(seat.0)).is_some_and(|talker| talker.speaks(now)));
        let all = talkers.iter().enumerate().filter(|(_, talker)| talker.speaks(now));
        let mut newcomers: Vec<_> = all.map(|(index, _)| Seat(index as u16)).collect();
        newcomers.retain(|seat| !self.speakers.contains(seat));
        newcomers.sort_by(|a, b| self.level(*b).total_cmp(&self.level(*a)).then(a.cmp(b)));
        self.speakers.append(&mut newcomers);
        if self.speakers.first().copied() != first {
            self.outdone = Duration::ZERO;
        }
    }

    /// Loudest first, and as it was among those about as loud: an order that follows every word helps nobody.
    fn order(&mut self, now: Instant) {
        let passed = self.judged_at.replace(now).map_or(TICK, |at| now.saturating_duration_since(at));
        for behind in (2..self.speakers.len()).rev() {
            if self.level(self.speakers[behind]) > self.level(self.speakers[behind - 1]) + CLEARLY_LOUDER {
                self.speakers.swap(behind, behind - 1);
            }
        }
        let [first, second, ..] = self.speakers[..] else { return self.outdone = Duration::ZERO };
        // One loud word is not enough: time counts only while the louder one speaks.
        if self.level(second) <= self.level(first) + CLEARLY_LOUDER {
            self.outdone = Duration::ZERO;
        } else if self.talkers[usize::from(second.0)].voice.spoke_within(2 * TICK, now) {
            self.outdone += passed.min(2 * TICK);
        }
        if self.outdone >= FIRST_CHANGES_AFTER {
            self.speakers.swap(0, 1);
            self.outdone = Duration::ZERO;
        }
    }

    fn level(&self, seat: Seat) -> f32 {
        self.talkers.get(usize::from(seat.0)).map_or(SPEECH_LEVEL, |talker| talker.voice.level())
    }

    /// Who speaks, as it was last told.
    pub fn told(&self) -> &[(Seat, f32)] {
        &self.told
    }

    /// When someone last spoke; `None` for those who never did. Orders default slots.
    pub fn last_spoke(&self, seat: Seat) -> Option<Instant> {
        self.talkers.get(usize::from(seat.0)).and_then(|talker| talker.last_spoke)
    }

    /// Whether anyone is or was just speaking, so that judging goes on. As of the last judgement.
    pub fn is_active(&self) -> bool {
        let judged_at = self.judged_at;
        let speech = |talker: &Talker| judged_at.is_none_or(|at| talker.voice.spoke_within(HOLD, at));
        !self.told.is_empty() || self.talkers.iter().any(speech)
    }
}

/// dBov to 0 … 1, linear in decibels: from [`SPEECH_LEVEL`] to [`LOUDEST`].
fn loudness(level: f32) -> f32 {
    ((level - SPEECH_LEVEL) / (-f32::from(LOUDEST) - SPEECH_LEVEL)).clamp(0.0, 1.0)
}

/// Levels for tests, here and in [`super::audio`].
#[cfg(test)]
pub mod script {
    /// An xorshift generator.
    pub struct Random(pub u64);

    impl Random {
        /// Less than `limit`.
        pub fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }
    }

    /// Speech around a level: syllables of 100 to 300 ms, dips between them, now and then a pause of up to a second.
    pub struct Natural {
        random: Random,
        around: u8,
        left: u64,
        quiet: u8,
    }

    impl Natural {
        /// Another seed, another text.
        pub fn new(seed: u64, around: u8) -> Self {
            Self { random: Random(seed * 0x9e37_79b9 + 1), around, left: 0, quiet: 1 }
        }

        /// The level of the next packet of 20 ms.
        pub fn level(&mut self) -> u8 {
            if self.left == 0 {
                (self.quiet, self.left) = match (self.quiet, self.random.below(6)) {
                    (0, 0) => (40, 15 + self.random.below(35)),
                    (0, _) => (22, 2 + self.random.below(4)),
                    _ => (0, 5 + self.random.below(11)),
                };
            }
            self.left -= 1;
            self.around + self.quiet + self.random.below(11) as u8 - 5
        }
    }
}

#[cfg(test)]
mod tests;
