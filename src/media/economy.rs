//! Upstream economy: tells publishers which of their encodings anyone needs.
//!
//! What nobody needs for a while is stopped at its sender, and what is needed again is asked for at once. A publisher
//! without a data channel cannot be told, and sends everything.

use std::time::{Duration, Instant};

use super::signal::{PublishLayer, Signal};
use super::{EncodingIndex, Room, TrackKey};
use crate::command::MediaKind;

/// How long an encoding goes on that nobody needs: tiles are resized and people walk by, and starting an encoder costs
/// a keyframe.
const FALL_DELAY: Duration = Duration::from_secs(5);

impl Room {
    /// An encoding is needed: its publisher is told if it has been told to stop it.
    pub(super) fn revive(&mut self, key: TrackKey, encoding: EncodingIndex, now: Instant) {
        let Some(track) = self.track_mut(key) else { return };
        let Some(encoding) = track.encodings.get_mut(usize::from(encoding.0)) else { return };
        encoding.needed_at = now;
        if !std::mem::replace(&mut encoding.active, true) {
            encoding.revived_at = Some(now);
            self.tell_needs(key);
        }
    }

    /// Looks which encodings anyone needs.
    pub(super) fn look_at_needs(&mut self, now: Instant) {
        for index in 0..self.tracks.len() {
            let key = TrackKey(index as u32);
            let Some(needed) = self.needed(key) else { continue };
            let Some(track) = self.tracks.get_mut(index).and_then(Option::as_mut) else { continue };
            // A client may begin with some of them stopped.
            let remind = !track.reminded && needed != 0 && track.lacks();
            track.reminded |= remind;
            let mut stopped = remind;
            for (number, encoding) in track.encodings.iter_mut().enumerate() {
                if needed & 1 << number != 0 {
                    encoding.needed_at = now;
                } else if encoding.active
                    && encoding.rates.is_measured()
                    && now.saturating_duration_since(encoding.needed_at) >= FALL_DELAY
                {
                    encoding.active = false;
                    stopped = true;
                }
            }
            if stopped {
                self.tell_needs(key);
            }
        }
    }

    /// One bit for each encoding that flows to someone or shall; none for a track about which nothing is to be told.
    fn needed(&self, key: TrackKey) -> Option<u8> {
        let track =
            self.track(key).filter(|track| track.kind == MediaKind::Video && track.announced && !track.muted)?;
        if !self.participant(track.owner)?.channel_open {
            return None;
        }
        let bindings = track.subscribers.iter().filter_map(|(seat, slot)| {
            let binding = self.participant(*seat)?.slots.get(usize::from(slot.0))?.binding?;
            (binding.track == key).then_some(binding)
        });
        let of = |encoding: EncodingIndex| 1u8 << encoding.0.min(7);
        Some(bindings.fold(0, |needed, binding| {
            needed | binding.current.map_or(0, of) | binding.target.map_or(0, |layer| of(layer.encoding))
        }))
    }

    fn tell_needs(&mut self, key: TrackKey) {
        let Some(track) = self.track(key) else { return };
        let layers =
            track.encodings.iter().map(|encoding| PublishLayer { rid: encoding.rid.clone(), active: encoding.active });
        let (owner, signal) = (track.owner, Signal::Publish { track: track.sid, layers: layers.collect() });
        self.tell(owner, signal);
    }
}
