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

    /// Why a packet of this track should not have left the server then.
    pub fn silent_because(&self, track: TrackKey, at: Instant) -> Option<&'static str> {
        let mut silences = self.silences.get(&track)?.iter();
        let silent = silences.find(|silence| silence.from < at && silence.until.is_none_or(|until| at < until))?;
        Some(silent.why)
    }
}
