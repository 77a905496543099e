//! A published track and its encodings.

use std::time::{Duration, Instant};

use super::keyframes::KeyframeRequests;
use super::packet::{Codec, Packet};
use super::{EncodingIndex, NewTrack, Seat, SlotIndex};
use crate::command::{LayerInfo, MediaKind, Source, TrackInfo};
use crate::ids::TrackId;

/// An encoding that sent nothing for this long is not alive. str0m calls a stream paused after the same 1.5 s;
/// a 1 fps screen share must not count as dead, hence a little more.
const ALIVE: Duration = Duration::from_secs(3);
/// The track's codec is another one when the old has not come for this long. A publisher may mix codecs, packet by
/// packet or one for each encoding, and not every packet may be news to everyone; who can take a packet gets it anyway.
const CODEC_CEASED: Duration = Duration::from_secs(1);

/// One published media source.
#[derive(Debug)]
pub struct Track {
    pub sid: TrackId,
    pub mid: String,
    pub owner: Seat,
    pub kind: MediaKind,
    pub source: Source,
    pub codec: Codec,
    /// By its publisher, or by control.
    pub muted: bool,
    /// The owner's grants allow this source.
    pub permitted: bool,
    /// Others have been told of it.
    pub announced: bool,
    pub encodings: Vec<Encoding>,
    /// Something came of it lately, as of the last look. A publisher whose network is gone must not keep a slot from
    /// those who can be seen.
    pub alive: bool,
    published_at: Instant,
    /// When a packet in [`Self::codec`] last came.
    codec_heard_at: Option<Instant>,
    /// The slots it is bound to.
    pub subscribers: Vec<(Seat, SlotIndex)>,
}

/// One simulcast encoding.
#[derive(Debug)]
pub struct Encoding {
    pub rid: String,
    pub keyframes: KeyframeRequests,
    last_packet: Option<Instant>,
    /// The latest packet so far: SSRC and sequence number.
    latest: Option<(u32, u64)>,
}

/// What a packet is to its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// A decoder can start with it, and what follows is still to come. A keyframe whose later packets have overtaken
    /// its first would start with a hole that no retransmission can fill; the next one will do.
    pub start: bool,
    /// The publisher has gone over to another codec.
    pub codec_changed: bool,
}

impl Track {
    /// A track as its m-line describes it.
    pub fn new(new: NewTrack, owner: Seat, now: Instant) -> Self {
        let rids = if new.rids.is_empty() { vec![String::new()] } else { new.rids };
        let several = rids.len() > 1;
        let encoding = |(index, rid)| Encoding {
            rid,
            keyframes: KeyframeRequests::new(several && index == 0),
            last_packet: None,
            latest: None,
        };
        Self {
            sid: new.sid,
            mid: new.mid,
            owner,
            kind: new.kind,
            source: Source::by_position(new.kind, new.position),
            codec: new.codec,
            muted: false,
            permitted: false,
            announced: false,
            alive: true,
            published_at: now,
            codec_heard_at: None,
            encodings: rids.into_iter().enumerate().map(encoding).collect(),
            subscribers: Vec::new(),
        }
    }

    /// As others see it.
    pub fn info(&self) -> TrackInfo {
        let layer = |encoding: &Encoding| LayerInfo { rid: encoding.rid.clone(), width: None, height: None };
        TrackInfo {
            sid: self.sid,
            kind: self.kind,
            source: self.source,
            muted: self.muted,
            codec: self.codec.as_str(),
            layers: self.encodings.iter().map(layer).collect(),
        }
    }

    /// Whether it may go into slots.
    pub fn is_offered(&self) -> bool {
        self.permitted && self.announced
    }

    /// Notes a packet.
    pub fn note(&mut self, encoding: EncodingIndex, packet: &Packet, now: Instant) -> Noted {
        let mut start = packet.keyframe;
        if let Some(encoding) = self.encodings.get_mut(usize::from(encoding.0)) {
            encoding.last_packet = Some(now);
            match encoding.latest {
                Some((ssrc, seq)) if ssrc == packet.ssrc && seq > packet.seq => start = false,
                _ => encoding.latest = Some((packet.ssrc, packet.seq)),
            }
            if start {
                encoding.keyframes.satisfied();
            }
        }
        Noted { start, codec_changed: self.note_codec(packet.codec, now) }
    }

    /// Whether the track's codec is another one from now on.
    fn note_codec(&mut self, codec: Codec, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < CODEC_CEASED;
        if codec != self.codec && self.codec_heard_at.is_some_and(recent) {
            return false;
        }
        self.codec_heard_at = Some(now);
        std::mem::replace(&mut self.codec, codec) != codec
    }

    /// Looks whether it is alive. Whether that is news.
    pub fn look(&mut self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < ALIVE;
        let sends = self.encodings.iter().any(|encoding| encoding.last_packet.is_some_and(recent));
        let alive = sends || recent(self.published_at);
        std::mem::replace(&mut self.alive, alive) != alive
    }

    /// The encoding to forward: the highest that is alive, or the lowest until one is. Layers by need and bandwidth
    /// come with "Media that holds up".
    pub fn best_encoding(&self, now: Instant) -> EncodingIndex {
        let alive =
            |encoding: &Encoding| encoding.last_packet.is_some_and(|at| now.saturating_duration_since(at) < ALIVE);
        EncodingIndex(self.encodings.iter().rposition(alive).unwrap_or(0) as u8)
    }

    /// The RID of an encoding, if it has one.
    pub fn rid(&self, encoding: EncodingIndex) -> Option<&str> {
        let encoding = self.encodings.get(usize::from(encoding.0))?;
        Some(encoding.rid.as_str()).filter(|rid| !rid.is_empty())
    }

    /// When a keyframe request is next due.
    pub fn keyframe_due(&self) -> Option<Instant> {
        self.encodings.iter().filter_map(|encoding| encoding.keyframes.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulcast() -> Track {
        let rids = ["q", "h", "f"].map(String::from).to_vec();
        let (sid, mid) = (TrackId::from_bits(1), "0".into());
        Track::new(
            NewTrack { sid, mid, kind: MediaKind::Video, position: 0, codec: Codec::Vp8, rids },
            Seat(0),
            Instant::now(),
        )
    }

    #[test]
    fn the_highest_living_encoding_is_forwarded() {
        let t0 = Instant::now();
        let mut track = simulcast();
        let packet = Packet {
            ssrc: 1,
            seq: 1,
            timestamp: 0,
            codec: Codec::Vp8,
            bytes: 10,
            keyframe: true,
            level: None,
            captured_at: t0,
        };
        assert_eq!(track.best_encoding(t0), EncodingIndex(0));
        track.note(EncodingIndex(0), &packet, t0);
        track.note(EncodingIndex(1), &packet, t0);
        assert_eq!(track.best_encoding(t0), EncodingIndex(1));
        let later = t0 + ALIVE;
        track.note(EncodingIndex(0), &packet, later);
        assert_eq!(track.best_encoding(later), EncodingIndex(0), "the upper one has gone quiet");
        assert_eq!(track.rid(EncodingIndex(2)), Some("f"));
    }

    #[test]
    fn a_codec_counts_once_the_old_one_has_ceased() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut track = simulcast();
        let mut note = |codec, ms| {
            let packet = Packet {
                ssrc: 1,
                seq: ms,
                timestamp: 0,
                codec,
                bytes: 10,
                keyframe: true,
                level: None,
                captured_at: at(ms),
            };
            track.note(EncodingIndex(0), &packet, at(ms)).codec_changed
        };
        assert!(note(Codec::H264, 0), "what was negotiated first was a guess");
        let alternating = (1..5000).filter(|ms| note([Codec::H264, Codec::Av1][*ms as usize % 2], *ms));
        assert_eq!(alternating.count(), 0);
        let changes: Vec<u64> = (5000..8000).filter(|ms| note(Codec::Av1, *ms)).collect();
        assert_eq!(changes, [5998], "a second after the last packet in the other");
        assert_eq!(track.codec, Codec::Av1);
    }
}
