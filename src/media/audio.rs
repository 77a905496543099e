//! Which published audio flows to which listeners: to each the few loudest others.
//!
//! All tracks with levels stand in one order for the whole room. A listener hears the first of it, their own tracks
//! left aside; so everyone hears as many as there are places, and in a small bubble everything flows. The order
//! changes only by a speaking track trading places with one that has less reason to be heard: at most one track
//! comes and one goes for any listener.

use std::time::{Duration, Instant};

use super::speakers::Voice;
use super::{Seat, TrackKey};

/// Tracks that a listener hears at once, unless told otherwise. More voices than this nobody can follow.
pub const DEFAULT_LIMIT: usize = 4;
/// Places kept behind the limit for those who are themselves before it: for a microphone and a screen's sound.
const SPARES: usize = 2;
/// A place is kept for so long after speech: through a pause between words.
const HOLD: Duration = Duration::from_millis(800);
/// The same after a sound too short to be a word, such as a click: one packet takes a place, it does not keep it.
const HOLD_CLICK: Duration = Duration::from_millis(200);
/// Seconds of recent speech that make a word.
const WORD: f32 = 0.1;
/// Seconds of recent speech before someone may take a place from another who speaks.
const CONTENDS_AFTER: f32 = 0.2;
/// Decibels above the quietest who is heard that win its place.
const CLEARLY_LOUDER: f32 = 6.0;
/// Time between two attempts at that; in a crowd where all speak, most attempts fail.
const CONTENDS_AGAIN: Duration = Duration::from_millis(100);
/// Whoever took a place keeps it for so long against louder ones, lest two trade places in every syllable.
const SAFE: Duration = Duration::from_secs(1);
/// So long may someone who never pauses keep others waiting.
const TURN: Duration = Duration::from_secs(5);
/// So long does someone wait before it is their turn, …
const WAIT: Duration = Duration::from_secs(1);
/// … and so long a pause does not lose them their place in the queue.
const WAIT_FORGOTTEN: Duration = Duration::from_secs(3);
/// Digital silence, in −dBov: what a microphone that is switched off sends.
const SILENCE: u8 = 127;
/// Digital silence flows for so long: decoders need a moment of it to fade out.
const SILENCE_FLOWS: Duration = Duration::from_millis(500);

/// What a packet's level says of the packet itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Forward it.
    Sound,
    /// There has been nothing to hear for a while and there is nothing in this packet: it need not be forwarded.
    Silence,
}

/// The audio tracks of one room.
#[derive(Debug)]
pub struct AudioSelector {
    limit: usize,
    /// By track: every packet looks here.
    tracks: Vec<Option<Track>>,
    /// All tracks with levels, the most worth hearing first.
    order: Vec<(TrackKey, Seat)>,
    /// Until then all who are heard count as speaking; looking again would find nobody.
    full_until: Option<Instant>,
    /// Tracks have traded places.
    changed: bool,
}

#[derive(Debug)]
struct Track {
    owner: Seat,
    /// Its place in the order; `None` as long as it has no levels.
    rank: Option<usize>,
    voice: Voice,
    /// Until then it counts as speaking.
    held_until: Option<Instant>,
    /// Since when it has been speaking and heard, or speaking and waiting.
    since: Option<Instant>,
    /// Until then louder ones do not take its place.
    safe_until: Option<Instant>,
    /// When it may contend again for the place of someone who speaks.
    contends_at: Option<Instant>,
    silent_since: Option<Instant>,
}

impl Track {
    fn new(owner: Seat) -> Self {
        Self {
            owner,
            rank: None,
            voice: Voice::default(),
            held_until: None,
            since: None,
            safe_until: None,
            contends_at: None,
            silent_since: None,
        }
    }

    fn speaks(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// A packet of speech came.
    fn spoke(&mut self, heard: bool, now: Instant) {
        let pause = if heard { Duration::ZERO } else { WAIT_FORGOTTEN };
        if self.held_until.is_none_or(|until| now >= until + pause) {
            self.since = Some(now);
        }
        let hold = if self.voice.recent() >= WORD { HOLD } else { HOLD_CLICK };
        self.held_until = self.held_until.max(Some(now + hold));
    }

    fn since_at_least(&self, time: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    fn silence(&mut self, level: u8, now: Instant) -> Heard {
        if level < SILENCE {
            self.silent_since = None;
            return Heard::Sound;
        }
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SILENCE_FLOWS { Heard::Silence } else { Heard::Sound }
    }
}

impl AudioSelector {
    /// Everyone hears so many tracks at once.
    pub fn new(limit: usize) -> Self {
        Self { limit, tracks: Vec::new(), order: Vec::new(), full_until: None, changed: false }
    }

    /// A packet of a track with its level in −dBov, if it has one. May change what is [`Self::chosen`], in favour of
    /// this very packet. A track flows to everyone until its first level.
    pub fn heard(&mut self, key: TrackKey, owner: Seat, level: Option<u8>, now: Instant) -> Heard {
        let index = key.0 as usize;
        if self.track(key).is_none_or(|track| track.owner != owner) {
            self.admit(key, owner);
        }
        let (Some(Some(track)), Some(level)) = (self.tracks.get_mut(index), level) else { return Heard::Sound };
        let rank = *track.rank.get_or_insert_with(|| {
            self.full_until = None;
            self.order.push((key, owner));
            self.order.len() - 1
        });
        let heard = track.silence(level, now);
        if track.voice.hear(level, now) {
            track.spoke(rank < self.limit, now);
            if rank >= self.limit {
                self.contend(key, rank, now);
            }
        }
        heard
    }

    /// Whether the track goes to a listener: it is among the first when the listener's own tracks are left aside.
    pub fn chosen(&self, track: TrackKey, listener: Seat) -> bool {
        let Some(known) = self.track(track) else { return true };
        if known.owner == listener {
            return false;
        }
        let Some(rank) = known.rank else { return true };
        rank < self.limit || self.is_among_first(rank, listener)
    }

    /// Its place in the order in which tracks are worth hearing; those without levels come first.
    pub fn rank(&self, track: TrackKey) -> usize {
        self.track(track).and_then(|track| track.rank).map_or(0, |rank| rank + 1)
    }

    /// Whether tracks have traded places since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The track was unpublished or muted.
    pub fn forget(&mut self, track: TrackKey) {
        let Some(known) = self.tracks.get_mut(track.0 as usize).and_then(Option::take) else { return };
        let Some(rank) = known.rank else { return };
        self.full_until = None;
        self.order.remove(rank);
        for (behind, (key, _)) in self.order.iter().enumerate().skip(rank) {
            if let Some(Some(moved)) = self.tracks.get_mut(key.0 as usize) {
                moved.rank = Some(behind);
            }
        }
    }

    #[cold]
    fn admit(&mut self, key: TrackKey, owner: Seat) {
        // A track of another owner under the same key is another track.
        self.forget(key);
        let index = key.0 as usize;
        if index >= self.tracks.len() {
            self.tracks.resize_with(index + 1, || None);
        }
        self.tracks[index] = Some(Track::new(owner));
    }

    /// For a track behind the limit: whether enough of those before it are the listener's own.
    fn is_among_first(&self, rank: usize, listener: Seat) -> bool {
        let mut others = 0;
        for (_, owner) in &self.order[..rank] {
            others += usize::from(*owner != listener);
            if others >= self.limit {
                return false;
            }
        }
        self.limit > 0
    }

    /// A track behind the limit speaks: whether it takes another's place.
    fn contend(&mut self, key: TrackKey, rank: usize, now: Instant) {
        if self.full_until.is_none_or(|until| now >= until) {
            if let Some(free) = self.fallen_silent(rank, now) {
                return self.trade(rank, free, SAFE, now);
            }
            self.full_until = self.ranked(0..self.limit + SPARES).filter_map(|(_, track)| track.held_until).min();
        }
        let Some(Some(track)) = self.tracks.get_mut(key.0 as usize) else { return };
        // What never pauses may be heard where there is room for it; it takes no place from those who speak.
        let able = track.voice.recent() >= CONTENDS_AFTER && !track.voice.drones(now);
        if !able || track.contends_at.is_some_and(|at| now < at) {
            return;
        }
        track.contends_at = Some(now + CONTENDS_AGAIN);
        let (level, waited) = (track.voice.level(), track.since_at_least(WAIT, now));
        let quieter = |heard: &Track| {
            heard.voice.level() + CLEARLY_LOUDER < level && heard.safe_until.is_none_or(|until| now >= until)
        };
        if let Some(droning) = self.longest(|heard| heard.voice.drones(now), now) {
            self.trade(rank, droning, SAFE, now);
        } else if let Some(quietest) = self.quietest(rank, quieter) {
            self.trade(rank, quietest, SAFE, now);
        } else if let Some(longest) = self.longest(|heard| heard.since_at_least(TURN, now), now).filter(|_| waited) {
            let next = self.longest_waiting(now).unwrap_or(rank);
            self.trade(next, longest, TURN, now);
        }
    }

    /// Who no longer speaks: the longest silent of those whom everyone hears, else the first of the spares.
    fn fallen_silent(&self, rank: usize, now: Instant) -> Option<usize> {
        let silent = |(at, track): (usize, &Track)| (!track.speaks(now)).then_some((track.held_until, at));
        let heard = self.ranked(0..self.limit).filter_map(silent).min();
        let spare = || self.ranked(self.limit..rank.min(self.limit + SPARES)).find_map(silent);
        heard.or_else(spare).map(|(_, at)| at)
    }

    /// Of those whom everyone hears, the one that fits and has been speaking for longest.
    fn longest(&self, fits: impl Fn(&Track) -> bool, now: Instant) -> Option<usize> {
        let fitting = self.ranked(0..self.limit).filter(|(_, track)| fits(track));
        fitting.map(|(at, track)| (track.since.unwrap_or(now), at)).min().map(|(_, at)| at)
    }

    fn quietest(&self, rank: usize, fits: impl Fn(&Track) -> bool) -> Option<usize> {
        let fitting = self.ranked(0..rank.min(self.limit + SPARES)).filter(|(_, track)| fits(track));
        fitting.min_by(|(_, a), (_, b)| a.voice.level().total_cmp(&b.voice.level())).map(|(at, _)| at)
    }

    /// Looks at everyone, but only when a turn is over: once in [`TURN`] for each place.
    fn longest_waiting(&self, now: Instant) -> Option<usize> {
        let waiting = self.ranked(self.limit..self.order.len());
        let able = waiting.filter(|(_, track)| track.speaks(now) && !track.voice.drones(now));
        able.filter_map(|(at, track)| Some((track.since?, at))).min().map(|(_, at)| at)
    }

    /// The one behind takes the place before it, for some time safe from louder ones.
    fn trade(&mut self, behind: usize, before: usize, safe: Duration, now: Instant) {
        self.full_until = None;
        self.changed = true;
        self.order.swap(behind, before);
        for rank in [behind, before] {
            let Some((key, _)) = self.order.get(rank) else { continue };
            let Some(Some(track)) = self.tracks.get_mut(key.0 as usize) else { continue };
            track.rank = Some(rank);
            if before < self.limit {
                track.since = Some(now);
                track.safe_until = (rank == before).then(|| now + safe);
            }
        }
    }

    fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.get(key.0 as usize).and_then(Option::as_ref)
    }

    fn ranked(&self, ranks: std::ops::Range<usize>) -> impl Iterator<Item = (usize, &Track)> {
        let keys = self.order.iter().enumerate().take(ranks.end).skip(ranks.start);
        keys.filter_map(|(rank, (key, _))| Some((rank, self.track(*key)?)))
    }
}

impl Default for AudioSelector {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::speakers::script::{Natural, Random};
    use super::*;

    const PACKET: Duration = Duration::from_millis(20);

    /// One room; track n is seat n's.
    struct Room {
        selector: AudioSelector,
        now: Instant,
        size: u16,
    }

    impl Room {
        fn new(limit: usize, size: u16) -> Self {
            Self { selector: AudioSelector::new(limit), now: Instant::now(), size }
        }

        /// Packets of everyone with the levels given, for so long.
        fn run(&mut self, ms: u64, mut level: impl FnMut(u16) -> u8) {
            for _ in 0..ms / 20 {
                for seat in 0..self.size {
                    self.say(seat, level(seat));
                }
                self.now += PACKET;
            }
        }

        fn say(&mut self, seat: u16, level: u8) -> Heard {
            self.selector.heard(TrackKey(seat.into()), Seat(seat), Some(level), self.now)
        }

        fn heard_by(&self, listener: u16) -> Vec<u16> {
            (0..self.size).filter(|seat| self.selector.chosen(TrackKey((*seat).into()), Seat(listener))).collect()
        }

        fn heard(&self) -> Vec<u16> {
            self.heard_by(u16::MAX)
        }
    }

    #[test]
    fn in_a_small_bubble_everything_flows() {
        let mut room = Room::new(4, 5);
        room.run(1000, |_| 70);
        for seat in 0..5 {
            assert_eq!(room.heard_by(seat), (0..5).filter(|other| *other != seat).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_talker_is_heard_from_the_first_loud_packet_while_there_is_room() {
        let mut room = Room::new(4, 30);
        room.run(1000, |_| 70);
        for talkers in 1..=4 {
            room.run(1000, |seat| if seat > 30 - talkers { 30 } else { 70 });
            assert!(!room.heard().contains(&(30 - talkers)));
            room.say(30 - talkers, 30);
            assert!(room.heard().contains(&(30 - talkers)), "talker {talkers}");
        }
        // All four speak: each hears the three others and one more, and who begins to speak is that one.
        for seat in 26..30 {
            assert_eq!(room.heard_by(seat).len(), 4);
        }
        room.say(20, 30);
        assert!(room.heard_by(27).contains(&20) && !room.heard().contains(&20));
    }

    #[test]
    fn nothing_changes_while_nobody_speaks_and_pauses_lose_no_place() {
        let mut room = Room::new(4, 10);
        room.run(1000, |seat| if seat >= 6 { 30 } else { 70 });
        assert_eq!(room.heard(), [6, 7, 8, 9]);
        room.run(60_000, |_| 60);
        assert_eq!(room.heard(), [6, 7, 8, 9]);
        // All pause for 700 ms; a click takes no place.
        room.run(1000, |seat| if seat >= 6 { 30 } else { 70 });
        room.run(700, |_| 70);
        room.say(0, 20);
        assert_eq!(room.heard(), [6, 7, 8, 9]);
    }

    #[test]
    fn a_click_keeps_its_place_for_a_moment_only() {
        let mut room = Room::new(1, 3);
        room.run(1000, |_| 70);
        room.say(1, 20);
        assert_eq!(room.heard(), [1]);
        room.run(200, |_| 70);
        room.say(2, 30);
        assert_eq!(room.heard(), [2]);
    }

    #[test]
    fn only_the_clearly_louder_take_a_place_from_those_who_speak() {
        for (level, taken) in [(36, false), (31, false), (22, true)] {
            let mut room = Room::new(4, 6);
            // Voices that breathe once a second, lest they drone.
            for packet in 0..150 {
                room.run(20, |seat| if seat == 5 || packet % 50 < 2 { 70 } else { 34 - seat as u8 });
            }
            let before = room.heard();
            room.run(180, |seat| if seat == 5 { level } else { 34 - seat as u8 });
            assert_eq!(room.heard(), before, "{level}");
            room.run(40, |seat| if seat == 5 { level } else { 34 - seat as u8 });
            assert_eq!(room.heard().contains(&5), taken, "{level}");
        }
    }

    #[test]
    fn digital_silence_stops_after_a_while_and_ends_at_once() {
        let mut room = Room::new(4, 1);
        for packet in 0..100 {
            let expected = if packet < 25 { Heard::Sound } else { Heard::Silence };
            assert_eq!(room.say(0, 127), expected, "{packet}");
            room.now += PACKET;
        }
        assert_eq!(room.say(0, 126), Heard::Sound);
        assert_eq!(room.say(0, 127), Heard::Sound);
        assert_eq!(room.selector.heard(TrackKey(9), Seat(9), None, room.now), Heard::Sound);
    }

    #[test]
    fn tracks_without_levels_always_flow_and_take_no_place() {
        let mut room = Room::new(2, 6);
        for seat in 0..3 {
            room.selector.heard(TrackKey(seat.into()), Seat(seat), None, room.now);
        }
        for seat in 3..6 {
            room.say(seat, 30);
        }
        assert_eq!(room.heard(), [0, 1, 2, 3, 4]);
        assert_eq!(room.heard_by(1), [0, 2, 3, 4]);
    }

    #[test]
    fn a_forgotten_track_leaves_its_place_to_the_next_and_its_key_to_another() {
        let mut room = Room::new(2, 5);
        room.run(100, |_| 70);
        room.selector.forget(TrackKey(0));
        room.selector.forget(TrackKey(0));
        assert!(room.selector.chosen(TrackKey(2), Seat(9)) && !room.selector.chosen(TrackKey(3), Seat(9)));
        room.selector.heard(TrackKey(1), Seat(3), Some(70), room.now);
        assert!(!room.selector.chosen(TrackKey(1), Seat(9)), "another owner's: it begins at the end");
        assert!(!room.selector.chosen(TrackKey(1), Seat(3)), "never oneself");
    }

    /// For how long nobody heard the honest talker while they spoke, and at most in one go, in milliseconds.
    fn kept_out(seconds: u64, mut lie: impl FnMut(u64) -> u8) -> (u64, u64) {
        let (mut room, mut honest, mut out, mut run, mut longest) = (Room::new(4, 11), Natural::new(5, 30), 0, 0, 0);
        room.run(2000, |_| 70);
        for at in 0..seconds * 50 {
            let level = honest.level();
            room.run(20, |seat| if seat == 10 { level } else { lie(at + u64::from(seat)) });
            run = if room.heard().contains(&10) { 0 } else { run + 20 };
            out += if run > 0 && level < 50 { 20 } else { 0 };
            longest = longest.max(run);
        }
        (out, longest)
    }

    #[test]
    fn liars_cannot_keep_an_honest_talker_out() {
        let (out, longest) = kept_out(60, |_| 0);
        println!("constant 0: out {out} ms, at most {longest} in one go");
        assert!(out < 4000 && longest < 4000);
        // Lies that breathe are like speech; they get no more than their share.
        for breath in [50, 125] {
            let mut random = Random(7);
            let (out, longest) = kept_out(120, |at| if at % breath == 0 { 127 } else { random.below(9) as u8 });
            println!("a breath each {breath} packets: out {out} ms of 120 s, at most {longest} in one go");
            assert!(out < 60_000 && longest < 12_000);
        }
    }

    #[test]
    fn random_levels_break_no_invariant() {
        for seed in 1..=30 {
            let mut random = Random(seed);
            let (limit, tracks, seats) = (random.below(5) as usize, 1 + random.below(24), 1 + random.below(16));
            let mut voices: Vec<_> = (0..tracks).map(|n| Natural::new(seed * 99 + n, 20 + n as u8)).collect();
            let (mut one, mut two) = (AudioSelector::new(limit), AudioSelector::new(limit));
            let (mut now, mut alive) = (Instant::now(), vec![false; tracks as usize]);
            let owner = |track: usize| Seat((track as u64 % seats) as u16);
            for _ in 0..1500 {
                let (track, listeners) = (random.below(tracks) as usize, (0..=seats as u16).map(Seat));
                let key = TrackKey(track as u32);
                let sets = |of: &AudioSelector| -> Vec<Vec<bool>> {
                    let flows = |listener| (0..tracks as u32).map(|t| of.chosen(TrackKey(t), listener)).collect();
                    listeners.clone().map(flows).collect()
                };
                let (before, new) = (sets(&one), !alive[track]);
                let ends = random.below(100) == 0;
                let level = voices[track].level();
                for selector in [&mut one, &mut two] {
                    if ends { selector.forget(key) } else { _ = selector.heard(key, owner(track), Some(level), now) }
                }
                alive[track] = !ends;
                let others = one.ranked(0..99).filter(|(rank, t)| one.order[*rank].0 != key && t.speaks(now));
                let spoke = one.track(key).is_some_and(|t| t.voice.spoke_within(Duration::from_nanos(1), now));
                assert!(!spoke || others.count() >= limit || one.chosen(key, Seat(u16::MAX)), "there was room");
                now += Duration::from_micros(random.below(40_000 / tracks));
                let after = sets(&one);
                assert_eq!(after, sets(&two), "not deterministic");
                for (seat, (before, after)) in before.iter().zip(&after).enumerate() {
                    let known = |t: &usize| alive[*t] && owner(*t) != Seat(seat as u16);
                    let hears = (0..tracks as usize).filter(known).filter(|t| after[*t]).count();
                    assert_eq!(hears, limit.min((0..tracks as usize).filter(known).count()));
                    let begun = (0..tracks as usize).filter(|t| after[*t] && !before[*t]).count();
                    assert!(begun <= 1 && (new || ends || begun == 0 || level < 50), "changed without reason");
                }
            }
        }
    }
}
