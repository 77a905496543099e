//! A published track and its encodings.

use std::time::{Duration, Instant};

use super::keyframes::KeyframeRequests;
use super::ladder::Ladder;
use super::layers::Layer;
use super::packet::{Codec, Packet};
use super::quality::Intake;
use super::rates::LayerRates;
use super::signal::SlotLayer;
use super::top_layer::TopLayer;
use super::{EncodingIndex, NewTrack, Seat, SlotIndex};
use crate::command::{LayerInfo, MediaKind, Source, TrackInfo};
use crate::ids::TrackId;
use crate::units::Bitrate;

/// A track that sent nothing for this long is not alive; a screen share of 1 fps must not count as dead.
const ALIVE: Duration = Duration::from_secs(3);
/// The same for one of several encodings, while the others go on: whoever sees it can see another. str0m calls a stream
/// paused after as long.
const ENCODING_ALIVE: Duration = Duration::from_millis(1500);
/// The same, for an encoding that comes so often: browsers drop the highest when their network gets tight.
const FREQUENT: Duration = Duration::from_millis(100);
const FREQUENT_ALIVE: Duration = Duration::from_millis(700);
/// An encoding that was asked for again is believed to come for this long: a browser starts its encoder, and its
/// bandwidth estimate may need to rise first.
const REVIVAL: Duration = Duration::from_secs(3);
/// How often tracks and their encodings are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same for a track with several encodings.
const LAYERED_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// After its first packet a track's layers are measured this soon.
pub const FIRST_LOOK: Duration = Duration::from_millis(300);
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
    /// When anything of it last came.
    heard_at: Option<Instant>,
    /// When a packet in [`Self::codec`] last came.
    codec_heard_at: Option<Instant>,
    /// The slots it is bound to.
    pub subscribers: Vec<(Seat, SlotIndex)>,
    /// Its publisher has been told that all of its encodings are needed.
    pub reminded: bool,
    /// The layers it can be had in, as of the last look.
    pub ladder: Ladder,
}

/// One simulcast encoding.
#[derive(Debug)]
pub struct Encoding {
    pub rid: String,
    pub keyframes: KeyframeRequests,
    pub rates: LayerRates,
    pub intake: Intake,
    pub top: TopLayer,
    /// Its publisher has not been told to stop it.
    pub active: bool,
    /// When someone last needed it, and when its publisher was told to go on with it.
    pub needed_at: Instant,
    pub revived_at: Option<Instant>,
    last_packet: Option<Instant>,
    /// The longest time between two packets of late; shrinks by an eighth with each.
    interval: Duration,
    /// The latest packet so far: SSRC and sequence number.
    latest: Option<(u32, u64)>,
}

/// What a packet is to its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// A decoder can start with it, and what follows is still to come. A keyframe whose later packets have overtaken
    /// its first would start with a hole that no retransmission can fill; the next one will do.
    pub start: bool,
    /// The publisher has gone over to another codec, or the size of the picture is another.
    pub changed: bool,
    /// It is the first of its encoding after a silence.
    pub awakened: bool,
    /// It shows that the highest spatial layer of its encoding has ceased.
    pub ceased: bool,
    /// It is a keyframe, first wished for so long ago.
    pub waited: Option<Duration>,
}

/// What a look at a track found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    pub alive_changed: bool,
    pub ladder_changed: bool,
}

impl Track {
    /// A track as its m-line describes it.
    pub fn new(new: NewTrack, owner: Seat, now: Instant) -> Self {
        let rids = if new.rids.is_empty() { vec![String::new()] } else { new.rids };
        let several = rids.len() > 1;
        let encoding = |(index, rid)| Encoding {
            rid,
            keyframes: KeyframeRequests::new(several && index == 0),
            rates: LayerRates::new(now),
            intake: Intake::default(),
            top: TopLayer::default(),
            active: true,
            needed_at: now,
            revived_at: None,
            last_packet: None,
            interval: ENCODING_ALIVE,
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
            heard_at: None,
            codec_heard_at: None,
            encodings: rids.into_iter().enumerate().map(encoding).collect(),
            subscribers: Vec::new(),
            reminded: false,
            ladder: Ladder::default(),
        }
    }

    /// As others see it.
    pub fn info(&self) -> TrackInfo {
        let layer = |encoding: &Encoding| {
            let top = encoding.rates.top_spatial();
            let (width, height) = encoding.rates.size(top).unzip();
            LayerInfo { rid: encoding.rid.clone(), width, height }
        };
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
        let mut noted = Noted { start: packet.keyframe, changed: false, awakened: false, ceased: false, waited: None };
        if let Some(encoding) = self.encodings.get_mut(usize::from(encoding.0)) {
            noted.awakened = encoding.heard(now);
            self.heard_at = Some(now);
            noted.changed = encoding.rates.note(packet, now);
            match encoding.latest {
                Some((ssrc, seq)) if ssrc == packet.ssrc && seq > packet.seq => noted.start = false,
                _ => encoding.latest = Some((packet.ssrc, packet.seq)),
            }
            let begins_picture = encoding.intake.note(packet);
            noted.ceased = encoding.top.note(&packet.frame, begins_picture, now);
            if noted.start {
                noted.waited = encoding.keyframes.satisfied(now);
            }
        }
        noted.changed |= self.note_codec(packet.codec, now);
        noted
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

    /// Looks whether it is alive, and what layers it has.
    pub fn look(&mut self, now: Instant) -> Looked {
        let recent = |at: Instant| now.saturating_duration_since(at) < ALIVE;
        let sends = |encoding: &Encoding| {
            encoding.last_packet.is_some_and(recent)
                || encoding.revived_at.is_some_and(|at| now.saturating_duration_since(at) < REVIVAL)
        };
        // One that is silent because we asked for it can come back.
        let alive = self.encodings.iter().any(|encoding| sends(encoding) || !encoding.active);
        let alive = alive || recent(self.published_at);
        let alive_changed = std::mem::replace(&mut self.alive, alive) != alive;
        if self.kind == MediaKind::Audio {
            self.encodings.iter_mut().for_each(|encoding| encoding.rates.measure(now));
            return Looked { alive_changed, ladder_changed: false };
        }
        Looked { alive_changed, ladder_changed: self.measure(now) }
    }

    /// Builds the ladder anew. Whether it is another.
    pub fn measure(&mut self, now: Instant) -> bool {
        self.encodings.iter_mut().for_each(|encoding| encoding.rates.measure(now));
        // With some of them stopped there is nothing to compare with, but something to go over to.
        let stopped = self.encodings.iter().any(|encoding| !encoding.active);
        let latest = if stopped { Some(now) } else { self.heard_at.filter(|_| self.encodings.len() > 1) };
        let can_be_had = |(_, encoding): &(usize, &Encoding)| encoding.can_be_had(latest, now);
        let ladder = Ladder::of(
            self.encodings
                .iter()
                .enumerate()
                .filter(can_be_had)
                .map(|(index, encoding)| (EncodingIndex(index as u8), &encoding.rates)),
        );
        let differs = ladder.differs(&self.ladder);
        if differs {
            self.ladder = ladder;
        }
        differs
    }

    /// When to look again.
    pub fn next_look(&self, now: Instant) -> Instant {
        now + if self.encodings.len() > 1 { LAYERED_LOOK_INTERVAL } else { LOOK_INTERVAL }
    }

    /// Whether an encoding comes, as far as one can know now.
    pub fn comes(&self, encoding: EncodingIndex, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < ENCODING_ALIVE;
        self.encodings.get(usize::from(encoding.0)).and_then(|encoding| encoding.last_packet).is_some_and(recent)
    }

    /// Whether some encoding has not come although nobody stopped it.
    pub fn lacks(&self) -> bool {
        let silent = |encoding: &Encoding| encoding.active && encoding.last_packet.is_none();
        self.heard_at.is_some() && self.encodings.iter().any(silent)
    }

    /// What it sends in all.
    pub fn rate(&self) -> Bitrate {
        let rate = |encoding: &Encoding| encoding.rates.total().as_bps();
        Bitrate::from_bps(self.encodings.iter().map(rate).sum())
    }

    /// A layer in the wire's words, as far as there are several.
    pub fn describe(&self, layer: Layer) -> Option<SlotLayer> {
        let rates = &self.encodings.get(usize::from(layer.encoding.0))?.rates;
        let rid = self.rid(layer.encoding).map(String::from);
        let spatial = Some(rates.top_spatial()).filter(|top| *top > 0).map(|top| layer.spatial.min(top));
        let temporal = Some(rates.top_temporal()).filter(|top| *top > 0).map(|top| layer.temporal.min(top));
        (rid.is_some() || spatial.is_some() || temporal.is_some()).then_some(SlotLayer { rid, spatial, temporal })
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

impl Encoding {
    /// A packet came. Whether after a silence.
    fn heard(&mut self, now: Instant) -> bool {
        let Some(before) = self.last_packet.replace(now) else { return true };
        let passed = now.saturating_duration_since(before);
        self.interval = passed.max(self.interval * 7 / 8).min(ENCODING_ALIVE);
        passed >= ENCODING_ALIVE
    }

    /// Whether it may be chosen: it comes, or would come if it were asked for. `latest`: when the last packet of any of
    /// several encodings came; if all fall silent, that is the publisher's network.
    fn can_be_had(&self, latest: Option<Instant>, now: Instant) -> bool {
        let within = |at: Option<Instant>, span| at.is_some_and(|at| now.saturating_duration_since(at) < span);
        let patience = if self.interval < FREQUENT { FREQUENT_ALIVE } else { ENCODING_ALIVE };
        let falls_behind = latest.zip(self.last_packet).is_some_and(|(latest, own)| own + patience <= latest);
        let comes = within(self.last_packet, ALIVE) && !falls_behind;
        comes || !self.active || within(self.revived_at, REVIVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::packet::{Frame, Scheme};

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
    fn only_encodings_that_come_or_would_come_are_on_the_ladder() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut track = simulcast();
        let mut lowest = Vec::new();
        let frame = Frame { starts: true, ends: true, scheme: Scheme::Temporal { sync: true }, ..Frame::default() };
        let encodings_of = |track: &Track| {
            let rungs = 0..track.ladder.prices(0).len();
            rungs.filter_map(|rung| track.ladder.layer(rung)).map(|layer| layer.encoding.0).collect::<Vec<_>>()
        };
        for ms in (0..6000u64).step_by(100) {
            for encoding in [0, 1] {
                // The upper one goes quiet after three seconds.
                if encoding == 0 || ms < 3000 {
                    let (captured_at, codec) = (at(ms), Codec::Vp8);
                    let packet = Packet {
                        ssrc: 1,
                        seq: ms,
                        timestamp: 0,
                        codec,
                        bytes: 1000 * (1 + usize::from(encoding)),
                        keyframe: false,
                        level: None,
                        captured_at,
                        frame,
                        size: None,
                    };
                    track.note(EncodingIndex(encoding), &packet, at(ms));
                }
            }
            if ms % 500 == 400 {
                track.look(at(ms));
                lowest.push(encodings_of(&track));
            }
        }
        assert_eq!(lowest[..8], vec![vec![0, 1]; 8], "until it has been quiet for long enough");
        assert_eq!(lowest[9..], [vec![0], vec![0], vec![0]]);
        track.encodings[1].active = false;
        track.look(at(6000));
        assert_eq!(encodings_of(&track), [0, 1], "it would come if it were asked for");
        assert_eq!(track.ladder.prices(0)[1], track.encodings[1].rates.price(0, 0), "at what it cost before");
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
                frame: Frame::default(),
                size: None,
            };
            track.note(EncodingIndex(0), &packet, at(ms)).changed
        };
        assert!(note(Codec::H264, 0), "what was negotiated first was a guess");
        let alternating = (1..5000).filter(|ms| note([Codec::H264, Codec::Av1][*ms as usize % 2], *ms));
        assert_eq!(alternating.count(), 0);
        let changes: Vec<u64> = (5000..8000).filter(|ms| note(Codec::Av1, *ms)).collect();
        assert_eq!(changes, [5998], "a second after the last packet in the other");
        assert_eq!(track.codec, Codec::Av1);
    }
}
