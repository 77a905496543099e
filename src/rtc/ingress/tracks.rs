//! Which of the room's tracks the streams of one publisher are.

use super::{InStream, Ingress};
use crate::media::TrackKey;
use crate::rtc::store::PacketStore;

impl Ingress {
    /// The room's key for a track just published.
    pub fn set_track_key(&mut self, mid: &str, key: TrackKey) {
        for line in self.lines.iter_mut().filter(|line| line.mid == mid) {
            line.key = Some(key);
        }
    }

    /// Tracks have other keys now: old and new.
    pub fn rename_tracks(&mut self, renamed: &[(TrackKey, TrackKey)]) {
        let new = |old| renamed.iter().find(|(before, _)| *before == old).map(|(_, after)| *after);
        for line in &mut self.lines {
            line.key = line.key.map(|key| new(key).unwrap_or(key));
        }
        for stream in &mut self.streams {
            stream.track = new(stream.track).unwrap_or(stream.track);
        }
    }

    /// Gives back all that is kept of packets; what comes next is kept anew.
    pub fn close_rings(&mut self, store: &mut PacketStore) {
        let rings = self.streams.iter_mut().filter_map(|stream| stream.ring.take());
        rings.for_each(|ring| store.close(ring));
    }

    /// Forgets a track's streams: what still comes of them is not published.
    pub fn forget_track(&mut self, key: TrackKey, store: &mut PacketStore) {
        self.forget(store, |stream| stream.track == key);
    }

    /// Forgets all tracks: the session is over, and their keys may soon be somebody else's.
    pub fn forget_tracks(&mut self, store: &mut PacketStore) {
        self.lines.clear();
        self.forget(store, |_| true);
        (self.feedback_due, self.report_due) = (None, None);
    }

    fn forget(&mut self, store: &mut PacketStore, which: impl Fn(&InStream) -> bool) {
        let mut place = 0;
        while place < self.streams.len() {
            if which(&self.streams[place]) {
                self.remove(place, store);
            } else {
                place += 1;
            }
        }
    }
}
