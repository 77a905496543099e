//! How well the streams of one publisher arrive.

use super::{Ingress, Role};
use crate::command::quality::EncodingQuality;
use crate::media::{EncodingIndex, TrackKey};

impl Ingress {
    /// Adds what is known of an encoding's arrival.
    pub fn describe(&self, track: TrackKey, encoding: EncodingIndex, quality: &mut EncodingQuality) {
        let own = self
            .streams
            .iter()
            .filter(|stream| stream.role == Role::Media && stream.track == track && stream.encoding == encoding);
        // A client that restarts a stream takes a new SSRC.
        if let Some(stream) = own.max_by_key(|stream| stream.heard_at) {
            quality.lost = Some(stream.reception.lost());
            quality.jitter_ms = Some(stream.reception.jitter_us() as f64 / 1e3);
        }
    }
}
