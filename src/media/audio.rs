//! Which published audio flows to which listeners: to each the few loudest others.
//!
//! All tracks with levels stand in one order for the whole room. A listener hears the first of it, their own tracks
//! left aside; so everyone hears as many as there are places, and in a small bubble everything flows. The order
//! changes only by a speaking track trading places with one that has less reason to be heard: at most one track
//! comes and one goes for any listener.

use std::time::{Duration, Instant};

use super::speakers::Voice;
use super::{Seat, TrackKey};

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

    /// So many tracks everyone hears at once.
    pub fn limit(&self) -> usize {
        self.limit
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

#[cfg(test)]
mod tests;
