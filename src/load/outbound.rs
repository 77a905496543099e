//! What a participant publishes: RTP streams, their reports and their retransmissions.

use super::counts::Counts;
use super::link::{Link, RIDS, clock_rate};
use super::mark::Mark;
use super::sdp::{Description, Line};
use crate::command::MediaKind;
use crate::ids::IdSource;
use crate::rtp::extensions::{self, ExtensionIds, Own, Values};
use crate::rtp::header::{FIXED_BYTES, Fixed};
use crate::rtp::rtcp::{self, SenderInfo};

/// Sent packets that can be asked for again, a power of two; 1.5 s of 2 Mbit/s.
const CACHED: usize = 512;
/// How long a sender of audio that is silent stays so between packets.
const SILENCE_NS: u64 = 400_000_000;
/// A microphone sends 50 packets a second.
const AUDIO_NS: u64 = 20_000_000;
/// After such a pause of the whole loop nothing is made up for.
const BEHIND_NS: u64 = 200_000_000;
/// Voice activity in the audio level extension, and the level of nobody speaking.
const VOICE: u8 = 0x80;
const SILENT_LEVEL: u8 = 127;
/// Seconds from 1900 to 1970.
const NTP_OFFSET_S: u64 = 2_208_988_800;
/// The original sequence number in front of a retransmitted payload (RFC 4588 §4).
const OSN_BYTES: usize = 2;
/// First sequence numbers stay below this, so that a receiver's rollover count of 0 is right.
const FIRST_SEQ_MASK: u32 = 0x3fff;

/// Memory for a packet, one for all participants.
pub struct Scratch {
    /// What the last packet said; behind head and mark nothing ever changes.
    payload: Vec<u8>,
    packet: Vec<u8>,
    pub rtcp: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { payload: vec![0x55; 2048], packet: vec![0; 4096], rtcp: Vec::with_capacity(2048) }
    }
}

/// What video looks like on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub interval_ns: u64,
    pub packets: u16,
    pub payload_bytes: usize,
}

/// A packet that went out, as far as it cannot be told from its number.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    index: u64,
    timestamp: u32,
    keyframe: bool,
    mark: Mark,
}

/// One encoding.
struct Stream {
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    rid: Option<&'static str>,
    /// See [`Mark::stream`].
    number: u8,
    shape: Shape,
    next_index: u64,
    next_rtx_index: u64,
    frame: u32,
    timestamp: u32,
    packets: u32,
    octets: u32,
    keyframe: bool,
    cache: Vec<Sent>,
}

/// One track with its encodings.
struct Track {
    kind: MediaKind,
    mid: String,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    streams: Vec<Stream>,
    next_ns: u64,
}

/// Everything a participant publishes.
pub struct Outbound {
    publisher: u32,
    cname: String,
    tracks: Vec<Track>,
    pub ids: ExtensionIds,
    transport_sequence: u16,
    /// See [`Outbound::talk`].
    talking: bool,
    level: u8,
}

impl Stream {
    fn new(ssrc: u32, rtx_ssrc: Option<u32>, number: u8, shape: Shape, ids: &mut IdSource) -> Self {
        let cached = if number == 0 { 0 } else { CACHED };
        Self {
            ssrc,
            rtx_ssrc,
            rid: None,
            number,
            shape,
            next_index: (ids.bits() & FIRST_SEQ_MASK).into(),
            next_rtx_index: (ids.bits() & FIRST_SEQ_MASK).into(),
            frame: 0,
            timestamp: ids.bits(),
            packets: 0,
            octets: 0,
            keyframe: true,
            cache: vec![Sent::default(); cached],
        }
    }
}

/// What goes into one packet, besides what its connection adds.
struct Outgoing<'a> {
    fixed: Fixed,
    index: u64,
    own: Own<'a>,
    values: Values,
    payload_bytes: usize,
}

impl Outbound {
    /// What an offer publishes and an answer takes. `video` has one shape for each encoding, the smallest first.
    pub fn new(
        publisher: u32,
        offer: &Description,
        answer: &Description,
        video: &[Shape],
        audio_bytes: usize,
        ids: &mut IdSource,
    ) -> Self {
        let audio = [Shape { interval_ns: AUDIO_NS, packets: 1, payload_bytes: audio_bytes }];
        let mut tracks = Vec::new();
        for line in offer.lines.iter().filter(|line| line.sends) {
            let (Some(kind), Some(taken)) = (line.kind, answer.line(&line.mid)) else { continue };
            if taken.rejected || !taken.receives {
                continue;
            }
            let shapes = if kind == MediaKind::Audio { &audio[..] } else { video };
            tracks.push(Track {
                kind,
                mid: line.mid.clone(),
                payload_type: taken.payload_type,
                rtx_payload_type: taken.rtx_payload_type,
                streams: streams(line, kind, shapes, ids),
                // Spread over the first interval, so that participants do not all send at once.
                next_ns: u64::from(ids.bits()) % shapes.first().map_or(AUDIO_NS, |shape| shape.interval_ns.max(1)),
            });
        }
        let level = 20 + (ids.bits() % 20) as u8;
        let cname = format!("load{publisher}");
        Self { publisher, cname, tracks, ids: answer.extensions, transport_sequence: 0, talking: true, level }
    }

    /// Whether the participant speaks from now on, or sends a packet each 400 ms to say that it does not.
    pub fn talk(&mut self, talking: bool) {
        if talking && !self.talking {
            let audio = self.tracks.iter_mut().filter(|track| track.kind == MediaKind::Audio);
            audio.for_each(|track| track.next_ns = track.next_ns.saturating_sub(SILENCE_NS));
        }
        self.talking = talking;
    }

    /// The SSRC to speak under.
    pub fn ssrc(&self) -> Option<u32> {
        self.tracks.first()?.streams.first().map(|stream| stream.ssrc)
    }

    /// When the next frame is due.
    pub fn due_ns(&self) -> u64 {
        self.tracks.iter().map(|track| track.next_ns).min().unwrap_or(u64::MAX)
    }

    /// Media begins now.
    pub fn start(&mut self, now_ns: u64) {
        self.tracks.iter_mut().for_each(|track| track.next_ns += now_ns);
    }

    /// Sends the frames that are due.
    pub fn send_due(&mut self, now_ns: u64, link: &Link, scratch: &mut Scratch, counts: &mut Counts) {
        for index in 0..self.tracks.len() {
            while self.tracks.get(index).is_some_and(|track| track.next_ns <= now_ns) {
                self.send_frames(index, link, scratch, counts);
                let silent = !self.talking;
                let Some(track) = self.tracks.get_mut(index) else { return };
                let regular = track.streams.first().map_or(AUDIO_NS, |stream| stream.shape.interval_ns);
                let interval = if track.kind == MediaKind::Audio && silent { SILENCE_NS } else { regular.max(1) };
                track.next_ns += interval;
                let ticks = interval as u128 * u128::from(clock_rate(track.kind)) / 1_000_000_000;
                for stream in &mut track.streams {
                    stream.timestamp = stream.timestamp.wrapping_add(ticks as u32);
                }
                if track.next_ns + BEHIND_NS < now_ns {
                    track.next_ns = now_ns;
                }
            }
        }
    }

    /// One frame of each encoding of a track.
    fn send_frames(&mut self, index: usize, link: &Link, scratch: &mut Scratch, counts: &mut Counts) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        let sent_ns = super::clock::wall_ns();
        let is_audio = track.kind == MediaKind::Audio;
        let silent = is_audio && !self.talking;
        let level = if silent { SILENT_LEVEL } else { VOICE | self.level };
        let values = Values { audio_level: is_audio.then_some(level), ..Values::default() };
        for stream in &mut track.streams {
            let packets = stream.shape.packets;
            let keyframe = std::mem::take(&mut stream.keyframe);
            for packet in 0..packets {
                let mark = Mark {
                    publisher: self.publisher,
                    stream: stream.number,
                    silent,
                    frame: stream.frame,
                    packet,
                    packets,
                    sent_ns,
                };
                let fixed = Fixed {
                    payload_type: track.payload_type,
                    marker: packet + 1 == packets && !is_audio,
                    sequence_number: stream.next_index as u16,
                    timestamp: stream.timestamp,
                    ssrc: stream.ssrc,
                    padding: false,
                    extension: true,
                };
                let payload_bytes = if silent { super::options::SILENT_BYTES } else { stream.shape.payload_bytes };
                write_payload(is_audio, keyframe, &mark, &mut scratch.payload);
                let own = own(&track.mid, stream.rid, false, &mut self.transport_sequence, sent_ns);
                let sent = Sent { index: stream.next_index, timestamp: stream.timestamp, keyframe, mark };
                let cached = stream.cache.len().max(1);
                if let Some(slot) = stream.cache.get_mut(stream.next_index as usize % cached) {
                    *slot = sent;
                }
                let outgoing = Outgoing { fixed, index: stream.next_index, own, values, payload_bytes };
                send_packet(&self.ids, &outgoing, link, scratch, counts);
                stream.next_index += 1;
                stream.packets = stream.packets.wrapping_add(1);
                stream.octets = stream.octets.wrapping_add(payload_bytes as u32);
            }
            stream.frame = stream.frame.wrapping_add(1);
            let sent = if is_audio { &mut counts.audio_sent } else { &mut counts.video_sent };
            *sent += u64::from(packets);
            counts.silent_sent += u64::from(silent);
        }
    }

    /// Somebody needs a keyframe of a stream.
    pub fn want_keyframe(&mut self, ssrc: u32) {
        let streams = self.tracks.iter_mut().flat_map(|track| &mut track.streams);
        streams.filter(|stream| stream.ssrc == ssrc).for_each(|stream| stream.keyframe = true);
    }

    /// Sends packets again that were lost: as RTX if that was negotiated, else just as they were.
    pub fn resend(
        &mut self,
        ssrc: u32,
        lost: impl Iterator<Item = u16>,
        link: &Link,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) {
        let Some((track, stream)) = self.tracks.iter_mut().find_map(|track| {
            let place = track.streams.iter().position(|stream| stream.ssrc == ssrc)?;
            let stream = track.streams.get_mut(place)?;
            Some(((&track.mid, track.payload_type, track.rtx_payload_type), stream))
        }) else {
            return;
        };
        let (mid, payload_type, rtx_payload_type) = track;
        for number in lost {
            // The latest packet of that number.
            let behind = (stream.next_index.wrapping_sub(1) as u16).wrapping_sub(number);
            let Some(index) = stream.next_index.checked_sub(1 + u64::from(behind)) else { continue };
            let cached = stream.cache.len().max(1);
            let Some(sent) = stream.cache.get(index as usize % cached).filter(|sent| sent.index == index).copied()
            else {
                continue;
            };
            write_payload(false, sent.keyframe, &sent.mark, &mut scratch.payload);
            let repair = rtx_payload_type.zip(stream.rtx_ssrc);
            let mut payload_bytes = stream.shape.payload_bytes;
            if repair.is_some() {
                scratch.payload.copy_within(..payload_bytes, OSN_BYTES);
                if let Some(front) = scratch.payload.first_chunk_mut() {
                    *front = number.to_be_bytes();
                }
                payload_bytes += OSN_BYTES;
            }
            let (payload_type, ssrc, index) = match repair {
                Some((payload_type, ssrc)) => (payload_type, ssrc, stream.next_rtx_index),
                None => (payload_type, stream.ssrc, index),
            };
            let fixed = Fixed {
                payload_type,
                marker: sent.mark.packet + 1 == sent.mark.packets,
                sequence_number: index as u16,
                timestamp: sent.timestamp,
                ssrc,
                padding: false,
                extension: true,
            };
            let own = own(mid, stream.rid, repair.is_some(), &mut self.transport_sequence, super::clock::wall_ns());
            let outgoing = Outgoing { fixed, index, own, values: Values::default(), payload_bytes };
            send_packet(&self.ids, &outgoing, link, scratch, counts);
            stream.next_rtx_index += u64::from(repair.is_some());
            counts.resent += 1;
        }
    }

    /// Appends a report on each stream, and whose they are.
    pub fn report(&self, wall_ns: u64, out: &mut Vec<u8>) {
        let seconds = wall_ns / 1_000_000_000 + NTP_OFFSET_S;
        let fraction = (u128::from(wall_ns % 1_000_000_000) << 32) / 1_000_000_000;
        let ntp = (seconds << 32) | fraction as u64;
        for stream in self.tracks.iter().flat_map(|track| &track.streams) {
            let info =
                SenderInfo { ntp, rtp_timestamp: stream.timestamp, packets: stream.packets, octets: stream.octets };
            rtcp::sender_report(out, stream.ssrc, &info, &[]);
            rtcp::source_description(out, stream.ssrc, &self.cname);
        }
    }
}

fn streams(line: &Line, kind: MediaKind, shapes: &[Shape], ids: &mut IdSource) -> Vec<Stream> {
    let simulcast = shapes.len() > 1;
    let streams = shapes.iter().enumerate().map(|(layer, shape)| {
        let declared = line.ssrcs.get(layer).copied();
        let has_rtx = kind == MediaKind::Video;
        let (ssrc, rtx_ssrc) = declared.unwrap_or_else(|| (ids.bits().max(1), has_rtx.then(|| ids.bits().max(1))));
        let number = if kind == MediaKind::Audio { 0 } else { layer as u8 + 1 };
        let mut stream = Stream::new(ssrc, rtx_ssrc, number, *shape, ids);
        stream.rid = RIDS.get(layer).copied().filter(|_| simulcast);
        stream
    });
    streams.collect()
}

fn own<'a>(mid: &'a str, rid: Option<&'a str>, repairs: bool, sequence: &mut u16, wall_ns: u64) -> Own<'a> {
    *sequence = sequence.wrapping_add(1);
    let rid = rid.map(str::as_bytes);
    Own {
        mid: Some(mid.as_bytes()),
        rid: rid.filter(|_| !repairs),
        repaired_rid: rid.filter(|_| repairs),
        transport_sequence_number: Some(*sequence),
        abs_send_time: Some(extensions::abs_send_time(std::time::Duration::from_nanos(wall_ns))),
    }
}

fn write_payload(is_audio: bool, keyframe: bool, mark: &Mark, payload: &mut [u8]) {
    if is_audio {
        mark.write_audio(payload);
    } else {
        mark.write_video(keyframe, payload);
    }
}

/// Header, extensions, seal, send.
fn send_packet(ids: &ExtensionIds, outgoing: &Outgoing<'_>, link: &Link, scratch: &mut Scratch, counts: &mut Counts) {
    let Some((sealer, _)) = &link.srtp else { return };
    let Some((fixed, rest)) = scratch.packet.split_first_chunk_mut::<FIXED_BYTES>() else { return };
    let block_bytes = extensions::write(rest, ids, &outgoing.own, &outgoing.values, None);
    Fixed { extension: block_bytes > 0, ..outgoing.fixed }.write(fixed);
    let header_bytes = FIXED_BYTES + block_bytes;
    let total = header_bytes + outgoing.payload_bytes + sealer.rtp_tag_bytes();
    let (Some(packet), Some(payload)) =
        (scratch.packet.get_mut(..total), scratch.payload.get(..outgoing.payload_bytes))
    else {
        return;
    };
    if sealer.seal_rtp(outgoing.fixed.ssrc, outgoing.index, packet, header_bytes, payload).is_ok() {
        link.send(packet, counts);
    }
}
