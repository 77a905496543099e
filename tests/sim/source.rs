//! What a client publishes: fake Opus and fake VP8, on time, with key frames on request.

use std::time::{Duration, Instant};

use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{MediaKind, Mid, Rid};
use str0m::rtp::{ExtensionValues, RtpWrite};

use crate::encoding::{Encoding, FRAME_TICKS, FRAME_TIME, Ladder};
use crate::red;
use crate::rng::Rng;
use crate::stamp::{Place, Stamp, TrackKey};

/// From the capture of a frame to that of the next.
pub const AUDIO_FRAME: Duration = Duration::from_millis(20);
pub const VIDEO_FRAME: Duration = Duration::from_millis(40);
/// Without a request, a key frame comes this often.
const KEYFRAME_EVERY: u32 = 250;

/// One published m-line.
#[derive(Debug)]
pub struct Publication {
    pub track: TrackKey,
    pub mid: Mid,
    pub kind: MediaKind,
    pub layers: Vec<Layer>,
    /// Whether media is made; an unpublished m-line stays in the SDP.
    pub active: bool,
    /// What the client has last told the server.
    pub muted: bool,
    /// A muted client may go on sending: the server must not forward it.
    pub sends_while_muted: bool,
    /// When it was offered again after it had been taken back: a new publication to the server.
    pub republished: Vec<Instant>,
    ladder: Option<Ladder>,
    /// How long after its capture a frame is sent.
    pub late: Duration,
    next_frame: u32,
    first_timestamp: u32,
    started: Option<Instant>,
}

/// One encoding.
#[derive(Debug)]
pub struct Layer {
    pub rid: Option<Rid>,
    /// Once negotiated.
    pub ssrc: Option<u32>,
    /// Sequence number of the packet with serial 0.
    pub first_sequence: u64,
    /// Packets made so far.
    pub serial: u32,
    frame_bytes: usize,
    picture_id: u16,
    tl0_pic_idx: u8,
    keyframe_wanted: bool,
    /// Of an adaptive camera, which makes its frames with it.
    encoding: Option<Encoding>,
    /// The server has said that somebody needs it.
    needed: bool,
    /// The client can make it now.
    able: bool,
}

impl Publication {
    /// A publication with one encoding for each of `rids`, lowest first; none means one without a rid.
    pub fn new(track: TrackKey, mid: Mid, kind: MediaKind, rids: &[Rid], rng: &mut Rng) -> Self {
        let rids: Vec<_> = if rids.is_empty() { vec![None] } else { rids.iter().copied().map(Some).collect() };
        let layers = rids.into_iter().enumerate().map(|(index, rid)| Layer {
            rid,
            ssrc: None,
            // The rollover counter starts at 0 (RFC 3711 §3.3.1); some streams soon wrap around.
            first_sequence: if rng.percent(30) { rng.within(65_000..65_400) } else { rng.within(0..65_000) },
            serial: 0,
            frame_bytes: if kind == MediaKind::Audio { 90 } else { 450 << index },
            picture_id: rng.within(0..0x8000) as u16,
            tl0_pic_idx: rng.within(0..256) as u8,
            keyframe_wanted: true,
            encoding: None,
            needed: true,
            able: true,
        });
        Self {
            track,
            mid,
            kind,
            layers: layers.collect(),
            active: true,
            muted: false,
            sends_while_muted: rng.percent(50),
            republished: Vec::new(),
            ladder: None,
            late: Duration::ZERO,
            next_frame: 0,
            first_timestamp: rng.next_u64() as u32,
            started: None,
        }
    }

    /// The same with an adaptive camera's encodings.
    pub fn adaptive(mut self, ladder: Ladder, rng: &mut Rng) -> Self {
        for (step, layer) in self.layers.iter_mut().enumerate() {
            let rng = Rng::new(rng.next_u64(), "encoding");
            layer.encoding = Some(Encoding::new(ladder, step, rng));
        }
        self.ladder = Some(ladder);
        self
    }

    /// The client itself stops an encoding or takes it up again.
    pub fn set_sending(&mut self, rid: &str, sends: bool) {
        for layer in self.layers.iter_mut().filter(|layer| layer.rid.as_deref() == Some(rid)) {
            layer.keyframe_wanted |= sends && !layer.able;
            layer.able = sends;
        }
    }

    /// Of an adaptive camera.
    pub fn encodings(&mut self) -> impl Iterator<Item = &mut Encoding> {
        self.layers.iter_mut().filter_map(|layer| layer.encoding.as_mut())
    }

    fn frame_time(&self) -> Duration {
        match self.kind {
            MediaKind::Audio => AUDIO_FRAME,
            MediaKind::Video if self.ladder.is_some() => FRAME_TIME,
            MediaKind::Video => VIDEO_FRAME,
        }
    }

    fn frame_ticks(&self) -> u32 {
        match self.kind {
            MediaKind::Audio => 960,
            MediaKind::Video if self.ladder.is_some() => FRAME_TICKS,
            MediaKind::Video => 3600,
        }
    }

    fn codec(&self) -> Codec {
        match (self.kind, self.ladder) {
            (MediaKind::Audio, _) => Codec::Opus,
            (MediaKind::Video, Some(ladder)) if !ladder.is_simulcast() => Codec::Vp9,
            (MediaKind::Video, _) => Codec::Vp8,
        }
    }

    /// The server says whether anybody needs an encoding. Only an adaptive camera listens.
    pub fn set_needed(&mut self, rid: &str, needed: bool) {
        let listens = self.ladder.is_some();
        for layer in self.layers.iter_mut().filter(|layer| listens && layer.rid.as_deref().unwrap_or("") == rid) {
            // What begins again begins with a key frame.
            layer.keyframe_wanted |= needed && !layer.needed;
            layer.needed = needed;
        }
    }

    /// When the next frame is made, once [started](Self::start).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.started.map(|started| started + self.frame_time() * self.next_frame + self.late)
    }

    /// The connection is up: frames are made from `now` on.
    pub fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    /// The far side asks for a key frame.
    pub fn want_keyframe(&mut self, rid: Option<Rid>) {
        for layer in self.layers.iter_mut().filter(|layer| layer.rid == rid) {
            layer.keyframe_wanted = true;
        }
    }

    /// Hands all frames that are due to str0m.
    pub fn produce(&mut self, rtc: &mut Rtc, now: Instant) {
        while self.poll_timeout().is_some_and(|due| due <= now) {
            let frame = self.next_frame;
            self.next_frame += 1;
            if self.active && (!self.muted || self.sends_while_muted) {
                self.produce_frame(rtc, frame, now - self.late);
            }
        }
    }

    fn produce_frame(&mut self, rtc: &mut Rtc, frame: u32, captured: Instant) {
        let codec = self.codec();
        let Some(params) = rtc.codec_config().find(|params| params.spec().codec == codec).copied() else { return };
        let red = params.red().filter(|_| self.kind == MediaKind::Audio && red::is_sent(frame));
        let pt = red.unwrap_or(params.pt());
        let timestamp = self.first_timestamp.wrapping_add(frame.wrapping_mul(self.frame_ticks()));
        let extensions = self.extensions(frame);
        for (index, layer) in self.layers.iter_mut().enumerate().filter(|(_, layer)| layer.needed && layer.able) {
            let mut api = rtc.direct_api();
            // Not there before the answer is in, or where the server has declined the encoding.
            let Some(stream) = api.stream_tx_by_mid(self.mid, layer.rid) else { continue };
            let payloads = layer.payloads(self.track, index, self.kind, frame);
            let last = payloads.len() - 1;
            layer.ssrc = Some(*stream.ssrc());
            for (place, payload) in payloads.into_iter().enumerate() {
                let sequence = layer.first_sequence + u64::from(layer.serial);
                layer.serial += 1;
                let payload = if red.is_some() { red::wrap(&payload, *params.pt()) } else { payload };
                let packet = RtpWrite::new(pt, sequence.into(), timestamp, captured, payload)
                    .marker(self.kind == MediaKind::Video && place == last)
                    .nackable(self.kind == MediaKind::Video)
                    .ext_vals(extensions.clone());
                stream.write_rtp(packet);
            }
        }
    }

    /// People talk in turns of two seconds.
    fn extensions(&self, frame: u32) -> ExtensionValues {
        let mut values = ExtensionValues::default();
        if self.kind == MediaKind::Audio {
            let talks = (frame as usize / 100 + self.track.client).is_multiple_of(3);
            values.audio_level = Some(if talks { -25 } else { -90 });
            values.voice_activity = Some(talks);
        }
        values
    }
}

impl Layer {
    fn payloads(&mut self, track: TrackKey, layer: usize, kind: MediaKind, frame: u32) -> Vec<Vec<u8>> {
        let place = Place::default();
        let stamp = Stamp { track, layer, frame, packet: 0, packets: 1, keyframe: true, serial: self.serial, place };
        if let Some(encoding) = &mut self.encoding {
            return encoding.frame(stamp, std::mem::take(&mut self.keyframe_wanted));
        }
        if kind == MediaKind::Audio {
            return vec![stamp.opus(self.frame_bytes)];
        }
        let keyframe = self.keyframe_wanted || frame.is_multiple_of(KEYFRAME_EVERY);
        self.keyframe_wanted = false;
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        let bytes = if keyframe { self.frame_bytes * 4 } else { self.frame_bytes };
        let packets = bytes.div_ceil(1100) as u8;
        let size = bytes / usize::from(packets);
        (0..packets)
            .map(|packet| {
                let serial = self.serial + u32::from(packet);
                Stamp { packet, packets, keyframe, serial, ..stamp }.vp8(self.picture_id, self.tl0_pic_idx, size)
            })
            .collect()
    }
}
