//! One publisher's receiving side: from sealed datagrams to packets with their facts, and the feedback in return.
//!
//! str0m would walk its m-lines and streams for every packet and wake twenty times a second for each publisher's
//! feedback. Here a packet costs its decryption and two look-ups, and feedback leaves when packets come anyway, behind
//! whatever else goes to that client.
//!
//! Nothing is believed before it is authenticated: an unknown SSRC gets state only after its packet has been opened.

use std::time::{Duration, Instant};

use super::clock::NtpClock;
use super::formats::{FormatKey, Meaning};
use super::frames::{FrameReader, Undescribed};
use super::store::{PacketStore, RingKey, Stored};
use crate::command::MediaKind;
use crate::media::clock::{PublisherClock, Report};
use crate::media::meter::DropReason;
use crate::media::{EncodingIndex, Packet, Scheme, TrackKey};
use crate::rtp::extensions::{self, ExtensionIds};
use crate::rtp::feedback::ArrivalRecorder;
use crate::rtp::header::{Header, padding_bytes};
use crate::rtp::nack::NackGenerator;
use crate::rtp::reception::Reception;
use crate::rtp::rtcp::{self, ReportBlock, SenderInfo};
use crate::rtp::srtp::{Opener, RolloverTracker, SrtpError};

mod quality;
mod tracks;

/// Streams remembered for one client; 8 tracks of 3 encodings and their RTX are 48. The longest silent is forgotten.
const MAX_STREAMS: usize = 64;
/// How often a publisher hears which packets came when: libwebrtc's receivers begin with the same interval.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);
/// Feedback waits for the next packet, but no longer than this.
const FEEDBACK_SLACK: Duration = Duration::from_millis(25);
/// How often receiver reports go out (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Report blocks in one receiver report (RFC 3550 §6.4.2).
const BLOCKS_MAX: usize = 31;

/// What is drawn on while a packet is taken.
pub struct Desk<'a> {
    pub formats: &'a mut dyn FnMut(u8) -> Option<Meaning>,
    pub store: &'a mut PacketStore,
    /// A reused buffer for the plaintext.
    pub plain: &'a mut Vec<u8>,
}

/// What a publishing m-line says about its streams.
pub struct TrackLine {
    pub mid: String,
    pub kind: MediaKind,
    /// The room's key, once it has one.
    pub key: Option<TrackKey>,
    pub rids: Vec<String>,
    pub ssrcs: Vec<u32>,
    pub rtx_ssrcs: Vec<(u32, u32)>,
    /// Payload types negotiated on it.
    pub payload_types: Vec<u8>,
}

/// One publisher's receiving side.
pub struct Ingress {
    opener: Option<Opener>,
    pub lines: Vec<TrackLine>,
    ids: ExtensionIds,
    /// By place, so that a look-up touches one cache line.
    ssrcs: Vec<u32>,
    streams: Vec<InStream>,
    /// How far the streams were that have been forgotten: a client that publishes again goes on counting, and so does
    /// its rollover count (RFC 3711 §3.3.1).
    forgotten: Vec<(u32, RolloverTracker)>,
    arrivals: ArrivalRecorder,
    clock: NtpClock,
    publisher_clock: PublisherClock,
    /// The SSRC our reports come from. It never sends media.
    reporter_ssrc: u32,
    feedback_due: Option<Instant>,
    report_due: Option<Instant>,
    /// When a NACK is next due, in microseconds of the clock; may be too early.
    nacks_due_us: Option<u64>,
}

/// Whose packets an SSRC carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Media,
    /// Retransmissions of the stream at this place, RFC 4588.
    Repairs(usize),
}

struct InStream {
    role: Role,
    track: TrackKey,
    kind: MediaKind,
    encoding: EncodingIndex,
    index: RolloverTracker,
    reception: Reception,
    nacks: NackGenerator,
    frames: FrameReader,
    report: Option<Report>,
    ring: Option<RingKey>,
    heard_at: Instant,
}

/// A received packet with what is known of it.
pub struct Received {
    pub track: TrackKey,
    pub kind: MediaKind,
    pub encoding: EncodingIndex,
    pub format: FormatKey,
    pub ring: RingKey,
    pub facts: Packet,
    pub stored: Stored,
    /// So much is missing before it that only a keyframe helps.
    pub broken: bool,
}

/// What became of a datagram.
pub enum Taken {
    Packet(Received),
    /// Nothing to forward, and nothing wrong: a duplicate, or padding of an RTX stream.
    Nothing,
    Dropped(DropReason),
}

impl Ingress {
    /// A receiving side without tracks or keys.
    pub fn new(reporter_ssrc: u32, clock: NtpClock) -> Self {
        Self {
            opener: None,
            lines: Vec::new(),
            ids: ExtensionIds::default(),
            ssrcs: Vec::new(),
            streams: Vec::new(),
            forgotten: Vec::new(),
            arrivals: ArrivalRecorder::default(),
            clock,
            publisher_clock: PublisherClock::default(),
            reporter_ssrc,
            feedback_due: None,
            report_due: None,
            nacks_due_us: None,
        }
    }

    /// The handshake has given us keys.
    pub fn set_opener(&mut self, opener: Opener) {
        self.opener = Some(opener);
    }

    /// The header extensions agreed with this client.
    pub fn set_extension_ids(&mut self, ids: ExtensionIds) {
        self.ids = ids;
    }

    fn remove(&mut self, place: usize, store: &mut PacketStore) {
        let gone = self.streams.remove(place);
        if self.forgotten.len() >= MAX_STREAMS {
            self.forgotten.remove(0);
        }
        self.forgotten.push((self.ssrcs.remove(place), gone.index));
        gone.ring.into_iter().for_each(|ring| store.close(ring));
        // RTX streams point at places.
        let mut orphans = Vec::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            match &mut stream.role {
                Role::Repairs(of) if *of == place => orphans.push(index),
                Role::Repairs(of) if *of > place => *of -= 1,
                _ => {}
            }
        }
        // An RTX stream has no RTX stream of its own, so this goes one level deep.
        for orphan in orphans.into_iter().rev() {
            self.remove(orphan, store);
        }
    }

    // === RTP ===

    /// Takes one RTP datagram.
    pub fn receive(&mut self, contents: &[u8], desk: &mut Desk<'_>, now: Instant) -> Taken {
        let Some(opener) = &self.opener else { return Taken::Dropped(DropReason::NotConnected) };
        if self.lines.is_empty() {
            return Taken::Dropped(DropReason::UnpublishedTrack);
        }
        let Some(header) = Header::parse(contents) else { return Taken::Dropped(DropReason::Malformed) };
        let known = self.ssrcs.iter().position(|ssrc| *ssrc == header.ssrc);
        let tracker = match known {
            Some(place) => Some(&self.streams[place].index),
            None => self.forgotten.iter().find(|(ssrc, _)| *ssrc == header.ssrc).map(|(_, tracker)| tracker),
        };
        // RFC 3711 §3.3.1: the rollover count of a new stream is zero.
        let index = tracker.map_or(header.sequence_number.into(), |tracker| tracker.guess(header.sequence_number));
        if tracker.is_some_and(|tracker| tracker.is_replay(index)) {
            return Taken::Nothing;
        }
        if opener.open_rtp_into(header.ssrc, index, contents, header.header_bytes, desk.plain).is_err() {
            return Taken::Dropped(DropReason::NotAuthentic);
        }
        let said = extensions::read(&header, &self.ids);
        if let Some(wide) = said.transport_sequence_number {
            self.arrivals.record(wide, self.clock.micros(now));
            self.feedback_due.get_or_insert(now + FEEDBACK_INTERVAL);
        }
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        let Some(meaning) = (desk.formats)(header.payload_type) else {
            return Taken::Dropped(DropReason::UnpublishedTrack);
        };
        let place = match known.or_else(|| self.admit(&header, &said, &meaning, desk.store, now)) {
            Some(place) => place,
            None => return Taken::Dropped(DropReason::UnpublishedTrack),
        };
        if header.padding {
            let Some(padding) = padding_bytes(desk.plain) else { return Taken::Dropped(DropReason::Malformed) };
            desk.plain.truncate(desk.plain.len() - padding);
        }
        let micros = self.clock.micros(now);
        let stream = &mut self.streams[place];
        stream.index.accept(index);
        stream.heard_at = now;
        stream.reception.received(index, header.timestamp, micros);
        match stream.role {
            Role::Media => self.packet(place, index, &header, &said, meaning, desk, now),
            Role::Repairs(of) => self.repaired(of, &header, &said, meaning, desk, now),
        }
    }

    /// A retransmitted packet is its original again, if that did not come (RFC 4588 §4).
    fn repaired(
        &mut self,
        of: usize,
        header: &Header<'_>,
        said: &extensions::Received<'_>,
        meaning: Meaning,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Taken {
        let Some((number, _)) = desk.plain.split_first_chunk::<2>() else { return Taken::Nothing };
        let number = u16::from_be_bytes(*number);
        let original = &mut self.streams[of];
        let index = original.index.guess(number);
        if original.index.highest().is_none() || original.index.is_replay(index) {
            return Taken::Nothing;
        }
        original.index.accept(index);
        desk.plain.drain(..2);
        self.packet(of, index, header, said, meaning, desk, now)
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one packet, gathered once")]
    fn packet(
        &mut self,
        place: usize,
        seq: u64,
        header: &Header<'_>,
        said: &extensions::Received<'_>,
        meaning: Meaning,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Taken {
        let Some(primary_at) = meaning.primary_at(desk.plain) else { return Taken::Dropped(DropReason::Malformed) };
        let micros = self.clock.micros(now);
        let stream = &mut self.streams[place];
        let broken = meaning.has_rtx && stream.nacks.received(seq, micros);
        let due = meaning.has_rtx.then(|| stream.nacks.next_due()).flatten();
        self.nacks_due_us = self.nacks_due_us.into_iter().chain(due).min();
        let rate = meaning.codec.clock_rate_hz();
        let captured_at = self.publisher_clock.captured_at(stream.report, header.timestamp, rate, now);
        let ring = *stream.ring.get_or_insert_with(|| desk.store.open());
        let payload = desk.plain.as_slice();
        let late = stream.index.highest().is_some_and(|highest| highest > seq);
        let (codec, marker, descriptor) = (meaning.codec, header.marker, said.dependency_descriptor);
        let described = stream.frames.read(&Undescribed { codec, payload, marker, descriptor, late });
        let facts = Packet {
            ssrc: self.ssrcs[place],
            seq,
            timestamp: header.timestamp,
            codec,
            bytes: payload.len(),
            keyframe: described.keyframe,
            // RFC 6464 §3: the top bit says whether it is a voice.
            level: said.values.audio_level.map(|level| level & 0x7f),
            captured_at,
            frame: described.frame,
            size: described.size,
        };
        let stored = Stored {
            timestamp: header.timestamp,
            codec,
            marker,
            values: said.values,
            descriptor: descriptor.map(Into::into),
            targets: match &described.frame.scheme {
                Scheme::Targets(targets) => targets.count,
                _ => 0,
            },
            is_padding: false,
            payload: payload.into(),
            primary_at,
        };
        let InStream { track, kind, encoding, .. } = *stream;
        Taken::Packet(Received { track, kind, encoding, format: meaning.format, ring, facts, stored, broken })
    }

    /// Finds out which track and encoding a new stream belongs to, by RID and MID, then by announced SSRC, then by
    /// payload type where only one m-line has it. Returns its place.
    fn admit(
        &mut self,
        header: &Header<'_>,
        said: &extensions::Received<'_>,
        meaning: &Meaning,
        store: &mut PacketStore,
        now: Instant,
    ) -> Option<usize> {
        let ssrc = header.ssrc;
        let by_mid = said.mid.and_then(|mid| self.lines.iter().position(|line| line.mid == mid));
        let announced =
            |line: &TrackLine| line.ssrcs.contains(&ssrc) || line.rtx_ssrcs.iter().any(|(_, rtx)| *rtx == ssrc);
        let by_ssrc = || self.lines.iter().position(announced);
        let by_format = || {
            let mut fit =
                self.lines.iter().enumerate().filter(|(_, line)| line.payload_types.contains(&header.payload_type));
            let (only, _) = fit.next()?;
            fit.next().is_none().then_some(only)
        };
        let line = &self.lines[by_mid.or_else(by_ssrc).or_else(by_format)?];
        let rid = said.rid.or(said.repaired_rid);
        let encoding = match rid {
            Some(rid) => line.rids.iter().position(|known| known == rid)?,
            None if line.rids.is_empty() => 0,
            None => return None,
        };
        let (track, kind, encoding) = (line.key?, line.kind, EncodingIndex(encoding as u8));
        let role = if meaning.is_rtx {
            let announced = line.rtx_ssrcs.iter().find(|(_, rtx)| *rtx == ssrc).map(|(main, _)| *main);
            let repairs = |(place, stream): (usize, &InStream)| {
                let same = stream.role == Role::Media && stream.track == track && stream.encoding == encoding;
                (same && announced.is_none_or(|main| main == self.ssrcs[place])).then_some(place)
            };
            // The latest: a client that restarts a stream takes a new SSRC.
            Role::Repairs(self.streams.iter().enumerate().rev().find_map(repairs)?)
        } else {
            Role::Media
        };
        if self.streams.len() >= MAX_STREAMS {
            let oldest =
                self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.heard_at).map(|(place, _)| place);
            oldest.into_iter().for_each(|place| self.remove(place, store));
            // Places have moved; the stream's next packet is looked at anew.
            if meaning.is_rtx {
                return None;
            }
        }
        let remembered = self.forgotten.iter().position(|(known, _)| *known == ssrc);
        let index = remembered.map(|at| self.forgotten.remove(at).1).unwrap_or_default();
        self.ssrcs.push(ssrc);
        self.streams.push(InStream {
            role,
            track,
            kind,
            encoding,
            index,
            reception: Reception::new(meaning.codec.clock_rate_hz()),
            nacks: NackGenerator::default(),
            frames: FrameReader::default(),
            report: None,
            ring: None,
            heard_at: now,
        });
        Some(self.streams.len() - 1)
    }

    // === RTCP ===

    /// Opens one SRTCP datagram.
    pub fn open_rtcp(&mut self, contents: &[u8], plain: &mut Vec<u8>) -> Result<(), DropReason> {
        let opener = self.opener.as_mut().ok_or(DropReason::NotConnected)?;
        opener.open_rtcp(contents, plain).map_err(|fault| match fault {
            SrtpError::TooShort => DropReason::Malformed,
            _ => DropReason::NotAuthentic,
        })
    }

    /// Whether [`Self::feedback`] has something to say.
    pub fn has_feedback(&self, now: Instant) -> bool {
        let past = |due: Option<Instant>| due.is_some_and(|due| now >= due);
        past(self.feedback_due) || past(self.report_due) || past(self.nacks_due())
    }

    fn nacks_due(&self) -> Option<Instant> {
        self.nacks_due_us.map(|micros| self.clock.at_micros(micros))
    }

    /// A sender report came.
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, now: Instant) {
        let Some(place) = self.ssrcs.iter().position(|known| *known == ssrc) else { return };
        let stream = &mut self.streams[place];
        stream.reception.sender_report(info.ntp, self.clock.micros(now));
        if stream.role == Role::Media {
            let seconds = (info.ntp >> 32) as i64;
            let micros = ((info.ntp & 0xffff_ffff) * 1_000_000) >> 32;
            let report = Report { ntp_micros: seconds * 1_000_000 + micros as i64, timestamp: info.rtp_timestamp };
            stream.report = Some(report);
            self.publisher_clock.report(report, now);
        }
    }

    /// Asks for a keyframe of an encoding; false if nothing has come of it yet.
    pub fn request_keyframe(&mut self, track: TrackKey, encoding: EncodingIndex, rtcp: &mut Vec<u8>) -> bool {
        let wanted =
            |stream: &InStream| stream.role == Role::Media && stream.track == track && stream.encoding == encoding;
        let latest = (0..self.streams.len()).filter(|place| wanted(&self.streams[*place]));
        let Some(place) = latest.max_by_key(|place| self.streams[*place].heard_at) else { return false };
        rtcp::pli(rtcp, self.reporter_ssrc, self.ssrcs[place]);
        true
    }

    /// Writes the feedback that is due. The report comes first, for a compound begins with one.
    pub fn feedback(&mut self, rtcp: &mut Vec<u8>, cname: &str, round_trip: Duration, now: Instant) {
        if self.report_due.is_some_and(|due| now >= due) {
            self.report_due = None;
            self.report(rtcp, cname, now);
        }
        self.request_lost(rtcp, round_trip, now);
        if self.feedback_due.is_some_and(|due| now >= due) {
            self.feedback_due = None;
            let media_ssrc = self.ssrcs.first().copied().unwrap_or(0);
            self.arrivals.build(rtcp, self.reporter_ssrc, media_ssrc);
            // What does not fit one packet follows with the next.
            self.feedback_due = self.arrivals.has_news().then_some(now);
        }
    }

    fn request_lost(&mut self, rtcp: &mut Vec<u8>, round_trip: Duration, now: Instant) {
        let micros = self.clock.micros(now);
        if self.nacks_due_us.is_none_or(|due| due > micros) {
            return;
        }
        let mut lost = Vec::new();
        for place in 0..self.streams.len() {
            let stream = &mut self.streams[place];
            if stream.nacks.next_due().is_none_or(|due| due > micros) {
                continue;
            }
            lost.clear();
            stream.nacks.due(micros, round_trip.as_micros() as u64, &mut lost);
            if !lost.is_empty() {
                rtcp::nack(rtcp, self.reporter_ssrc, self.ssrcs[place], lost.iter().copied());
            }
        }
        self.nacks_due_us = self.streams.iter().filter_map(|stream| stream.nacks.next_due()).min();
    }

    fn report(&mut self, rtcp: &mut Vec<u8>, cname: &str, now: Instant) {
        let micros = self.clock.micros(now);
        let recent = |stream: &&mut InStream| now.saturating_duration_since(stream.heard_at) < 5 * REPORT_INTERVAL;
        let numbered = self.ssrcs.iter().zip(&mut self.streams).filter(|(_, stream)| recent(stream));
        let blocks: Vec<ReportBlock> =
            numbered.take(BLOCKS_MAX).map(|(ssrc, stream)| stream.reception.report(*ssrc, micros)).collect();
        rtcp::receiver_report(rtcp, self.reporter_ssrc, &blocks);
        rtcp::source_description(rtcp, self.reporter_ssrc, cname);
    }

    /// When [`Self::feedback`] is next due, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let nacks = self.nacks_due();
        let slack = |due: Instant| due + FEEDBACK_SLACK;
        [self.feedback_due.map(slack), self.report_due.map(slack), nacks].into_iter().flatten().min()
    }
}
