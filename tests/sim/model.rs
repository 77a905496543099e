//! What the server certainly knows: which tracks are silent when, and what its names stand for.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::stamp::TrackKey;

/// The model of the rooms, fed with what the server itself has said.
#[derive(Debug, Default)]
pub struct Model {
    /// Server's name of a track → what it is. Names are never re-used.
    pub tracks: BTreeMap<String, TrackKey>,
    /// Tracks that are published now.
    pub published: BTreeMap<TrackKey, String>,
    /// When nothing of a track may leave the server.
    silences: BTreeMap<TrackKey, Vec<Silence>>,
    /// When a track may be silent: from the wish for it until the server is known to have ended it.
    doubts: BTreeMap<TrackKey, Vec<(Instant, Option<Instant>)>>,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    from: Instant,
    until: Option<Instant>,
    why: &'static str,
}

impl Model {
    /// From now on the server may not forward the track.
    pub fn silence(&mut self, track: TrackKey, why: &'static str, now: Instant) {
        let silences = self.silences.entry(track).or_default();
        if silences.iter().all(|silence| silence.until.is_some() || silence.why != why) {
            silences.push(Silence { from: now, until: None, why });
        }
    }

    /// From now on the server may learn that it may forward the track again.
    pub fn end_silence(&mut self, track: TrackKey, why: &'static str, now: Instant) {
        let silences = self.silences.entry(track).or_default().iter_mut();
        silences.filter(|silence| silence.why == why).for_each(|silence| silence.until = silence.until.or(Some(now)));
    }

    /// Why a packet of this track should not have left the server then, and since when.
    pub fn silent_because(&self, track: TrackKey, at: Instant) -> Option<(&'static str, Instant)> {
        let mut silences = self.silences.get(&track)?.iter();
        let silent = silences.find(|silence| silence.from < at && silence.until.is_none_or(|until| at < until))?;
        Some((silent.why, silent.from))
    }

    /// From now on the server may come to silence the track.
    pub fn doubt(&mut self, track: TrackKey, now: Instant) {
        self.doubts.entry(track).or_default().push((now, None));
    }

    /// The server is known to forward the track again.
    pub fn end_doubt(&mut self, track: TrackKey, now: Instant) {
        self.doubts.entry(track).or_default().iter_mut().for_each(|(_, until)| *until = until.or(Some(now)));
    }

    /// Whether the server may have kept back what came then.
    pub fn may_be_silent(&self, track: TrackKey, at: Instant) -> bool {
        let mut doubts = self.doubts.get(&track).into_iter().flatten();
        doubts.any(|(from, until)| *from <= at && until.is_none_or(|until| at <= until))
    }
}
