//! What a participant receives: slots, their statistics, and what is said back to the server about them.

use rustc_hash::FxHashMap;

use super::counts::{Counts, Joins, STREAMS};
use super::frames::Frames;
use super::link::clock_rate;
use super::mark::Mark;
use super::sdp::Description;
use crate::command::MediaKind;
use crate::rtp::extensions::{self, ExtensionIds};
use crate::rtp::feedback::ArrivalRecorder;
use crate::rtp::header::{Header, padding_bytes};
use crate::rtp::rtcp::{self, ReportBlock, SenderInfo};
use crate::rtp::srtp::{Opener, RolloverTracker};

/// A longer gap is no loss but a jump.
const GAP_MAX: u64 = 100;
/// Reordering gets this long before a packet is asked for.
const ASK_AFTER_NS: u64 = 10_000_000;
/// Between two requests for the same packet.
const ASK_AGAIN_NS: u64 = 50_000_000;
/// A frame that stays broken so long takes a keyframe to mend.
const BROKEN_NS: u64 = 300_000_000;
const OSN_BYTES: usize = 2;

struct Missing {
    index: u64,
    since_ns: u64,
    asked_ns: u64,
}

/// One receiving m-line.
struct Slot {
    kind: MediaKind,
    mid: String,
    /// Zero until a packet tells.
    ssrc: u32,
    tracker: RolloverTracker,
    rtx_tracker: RolloverTracker,
    frames: Frames,
    missing: Vec<Missing>,
    first_index: u64,
    arrived: u64,
    /// When the window began: highest index and packets until then.
    window: (u64, u64),
    reported: (u64, u64),
    transit: Option<i64>,
    /// In RTP ticks.
    jitter: f64,
    last_report: Option<(u32, u64)>,
}

/// What a received SSRC means: a slot, or its retransmissions.
#[derive(Clone, Copy)]
struct Source {
    slot: usize,
    repairs: bool,
}

/// All slots of a participant.
pub struct Inbound {
    slots: Vec<Slot>,
    sources: FxHashMap<u32, Source>,
    ids: ExtensionIds,
    rtx_payload_types: Vec<u8>,
    recorder: ArrivalRecorder,
    last_arrival_us: u64,
    plain: Vec<u8>,
    blocks: Vec<ReportBlock>,
    video_interval_ns: u64,
    /// Something is missing: see [`Inbound::ask`].
    pub wants_repair: bool,
    /// Packets to throw away, of 2³², and the state of the draw.
    pub loss: (u32, u32),
    /// When the join was posted, until the first packet has come.
    pub waiting_since_ns: Option<u64>,
}

impl Inbound {
    /// The slots an offer has and an answer takes.
    pub fn new(offer: &Description, answer: &Description, video_interval_ns: u64) -> Self {
        let mut inbound = Self {
            slots: Vec::new(),
            sources: FxHashMap::default(),
            ids: offer.extensions,
            rtx_payload_types: offer.lines.iter().filter_map(|line| line.rtx_payload_type).collect(),
            recorder: ArrivalRecorder::default(),
            last_arrival_us: 0,
            plain: Vec::with_capacity(2048),
            blocks: Vec::new(),
            video_interval_ns,
            wants_repair: false,
            loss: (0, 0),
            waiting_since_ns: None,
        };
        for line in offer.lines.iter().filter(|line| line.receives) {
            let (Some(kind), Some(taken)) = (line.kind, answer.line(&line.mid)) else { continue };
            let slot = inbound.slots.len();
            for (ssrc, repair) in taken.ssrcs.iter().filter(|_| !taken.rejected) {
                inbound.sources.insert(*ssrc, Source { slot, repairs: false });
                if let Some(repair) = repair {
                    inbound.sources.insert(*repair, Source { slot, repairs: true });
                }
            }
            inbound.slots.push(Slot::new(kind, &line.mid, taken.ssrcs.first().map_or(0, |(ssrc, _)| *ssrc)));
        }
        inbound
    }

    /// Losses from here on count for the window.
    pub fn begin_window(&mut self) {
        for slot in &mut self.slots {
            slot.window = (slot.tracker.highest().unwrap_or(0), slot.arrived);
        }
    }

    /// Adds what was lost in the window.
    pub fn end_window(&self, counts: &mut Counts) {
        for slot in &self.slots {
            let begun = slot.window.0 != 0;
            let from = if begun { slot.window.0 } else { slot.first_index.saturating_sub(1) };
            let expected = slot.tracker.highest().unwrap_or(from).saturating_sub(from);
            counts.lost += expected.saturating_sub(slot.arrived - slot.window.1);
        }
    }

    /// A sealed RTP packet arrived.
    pub fn receive(&mut self, opener: &Opener, packet: &[u8], at_ns: u64, counts: &mut Counts) {
        if self.is_thrown_away() {
            return;
        }
        let Some(header) = Header::parse(packet) else {
            counts.strange += 1;
            return;
        };
        let said = extensions::read(&header, &self.ids);
        let Some(source) = self.source(&header, said.mid) else {
            counts.strange += 1;
            return;
        };
        let Some(slot) = self.slots.get_mut(source.slot) else { return };
        let tracker = if source.repairs { &mut slot.rtx_tracker } else { &mut slot.tracker };
        let mut index = tracker.guess(header.sequence_number);
        let is_replay = tracker.is_replay(index);
        if opener.open_rtp_into(header.ssrc, index, packet, header.header_bytes, &mut self.plain).is_err() {
            counts.strange += 1;
            return;
        }
        if let Some(number) = said.transport_sequence_number {
            // The recorder's clock must not go backwards.
            self.last_arrival_us = self.last_arrival_us.max(at_ns / 1000);
            self.recorder.record(number, self.last_arrival_us);
        }
        if is_replay {
            counts.duplicates += 1;
            return;
        }
        let mut payload = &self.plain[..];
        if header.padding {
            let kept = payload.len() - padding_bytes(payload).unwrap_or(0);
            payload = payload.get(..kept).unwrap_or_default();
        }
        if source.repairs {
            slot.rtx_tracker.accept(index);
            let Some((original, rest)) = payload.split_first_chunk::<OSN_BYTES>().filter(|(_, rest)| !rest.is_empty())
            else {
                counts.padding += 1;
                return;
            };
            index = slot.tracker.guess(u16::from_be_bytes(*original));
            payload = rest;
            if slot.tracker.is_replay(index) {
                counts.duplicates += 1;
                return;
            }
            counts.repaired += 1;
        }
        self.wants_repair |= slot.advance(index, at_ns);
        if payload.is_empty() {
            counts.padding += 1;
            return;
        }
        if slot.media(header.timestamp, payload, at_ns, self.video_interval_ns, source.repairs, counts)
            && let Some(posted_ns) = self.waiting_since_ns.take()
        {
            counts.joins.first_packet_ns.record(at_ns.saturating_sub(posted_ns));
        }
    }

    /// Draws from a linear congruential generator (Numerical Recipes'), which is random enough to lose packets.
    fn is_thrown_away(&mut self) -> bool {
        let (of_2_32, state) = self.loss;
        self.loss.1 = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.loss.1 < of_2_32
    }

    /// The meaning of a packet's SSRC; a new one is known by its MID.
    fn source(&mut self, header: &Header<'_>, mid: Option<&str>) -> Option<Source> {
        if let Some(source) = self.sources.get(&header.ssrc) {
            return Some(*source);
        }
        let slot = self.slots.iter().position(|slot| Some(slot.mid.as_str()) == mid)?;
        let repairs = self.rtx_payload_types.contains(&header.payload_type);
        if !repairs {
            self.slots.get_mut(slot)?.restart(header.ssrc);
        }
        let source = Source { slot, repairs };
        self.sources.insert(header.ssrc, source);
        Some(source)
    }

    /// The server reported on a stream.
    pub fn note_report(&mut self, ssrc: u32, info: &SenderInfo, now_ns: u64) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.ssrc == ssrc) {
            slot.last_report = Some(((info.ntp >> 16) as u32, now_ns));
        }
    }

    /// Appends transport-wide feedback; as many packets as it takes go to `each`.
    pub fn feedback(&mut self, out: &mut Vec<u8>, sender: u32, mut each: impl FnMut(&mut Vec<u8>)) {
        let media = self.slots.iter().map(|slot| slot.ssrc).find(|ssrc| *ssrc != 0).unwrap_or(0);
        while self.recorder.has_news() {
            out.clear();
            if !self.recorder.build(out, sender, media) {
                return;
            }
            each(out);
        }
    }

    /// Appends a receiver report.
    pub fn report(&mut self, out: &mut Vec<u8>, sender: u32, now_ns: u64) {
        self.blocks.clear();
        self.blocks.extend(self.slots.iter_mut().filter_map(|slot| slot.report(now_ns)));
        rtcp::receiver_report(out, sender, &self.blocks);
    }

    /// Adds how evenly packets came.
    pub fn note_jitter(&self, counts: &mut Counts) {
        for slot in self.slots.iter().filter(|slot| slot.arrived > 0) {
            let ns = slot.jitter * 1e9 / f64::from(clock_rate(slot.kind));
            counts.jitter_ns.record(ns as u64);
        }
    }

    /// Appends requests for what is missing: NACKs, and a PLI where they did not help.
    pub fn ask(&mut self, out: &mut Vec<u8>, sender: u32, now_ns: u64, counts: &mut Counts) {
        self.wants_repair = false;
        for slot in &mut self.slots {
            let before = slot.missing.len();
            slot.missing.retain(|missing| now_ns < missing.since_ns + BROKEN_NS);
            if slot.missing.len() < before && slot.kind == MediaKind::Video {
                rtcp::pli(out, sender, slot.ssrc);
                counts.plis_sent += 1;
            }
            let due = |missing: &&mut Missing| {
                now_ns >= missing.since_ns + ASK_AFTER_NS && now_ns >= missing.asked_ns + ASK_AGAIN_NS
            };
            let asked = slot.missing.iter_mut().filter(due).map(|missing| {
                missing.asked_ns = now_ns;
                missing.index as u16
            });
            let length = out.len();
            rtcp::nack(out, sender, slot.ssrc, asked);
            counts.nacks_sent += u64::from(out.len() > length);
            self.wants_repair |= !slot.missing.is_empty();
        }
    }

    /// Layers that are shown now, by stream.
    pub fn shown(&self) -> [u64; STREAMS] {
        let mut shown = [0; STREAMS];
        for (_, stream) in self.slots.iter().filter_map(|slot| slot.frames.shown()) {
            if let Some(count) = shown.get_mut(usize::from(stream)) {
                *count += 1;
            }
        }
        shown
    }
}

impl Slot {
    fn new(kind: MediaKind, mid: &str, ssrc: u32) -> Self {
        Self {
            kind,
            mid: mid.to_owned(),
            ssrc,
            tracker: RolloverTracker::new(),
            rtx_tracker: RolloverTracker::new(),
            frames: Frames::default(),
            missing: Vec::new(),
            first_index: 0,
            arrived: 0,
            window: (0, 0),
            reported: (0, 0),
            transit: None,
            jitter: 0.0,
            last_report: None,
        }
    }

    /// The server took another SSRC for the slot.
    fn restart(&mut self, ssrc: u32) {
        *self = Self::new(self.kind, &std::mem::take(&mut self.mid), ssrc);
    }

    /// Takes a packet's index into account; whether packets are missing.
    fn advance(&mut self, index: u64, at_ns: u64) -> bool {
        match self.tracker.highest() {
            None => self.first_index = index,
            Some(highest) if index > highest + 1 && self.kind == MediaKind::Video => {
                let from = (highest + 1).max(index.saturating_sub(GAP_MAX));
                self.missing.extend((from..index).map(|index| Missing { index, since_ns: at_ns, asked_ns: 0 }));
            }
            Some(highest) if index < highest => self.missing.retain(|missing| missing.index != index),
            Some(_) => {}
        }
        self.tracker.accept(index);
        self.arrived += 1;
        !self.missing.is_empty()
    }

    /// Counts a media packet; whether it was one.
    fn media(
        &mut self,
        timestamp: u32,
        payload: &[u8],
        at_ns: u64,
        interval_ns: u64,
        repaired: bool,
        counts: &mut Counts,
    ) -> bool {
        let is_audio = self.kind == MediaKind::Audio;
        let mark = if is_audio { Mark::read_audio(payload) } else { Mark::read_video(payload) };
        let Some(mark) = mark else {
            counts.strange += 1;
            return false;
        };
        if !is_audio && !self.frames.note(&mark, at_ns, interval_ns, counts) {
            counts.duplicates += 1;
            return true;
        }
        let latency_ns = at_ns.saturating_sub(mark.sent_ns);
        if is_audio {
            counts.audio_received += 1;
            counts.silent_received += u64::from(mark.silent);
            counts.audio_latency_ns.record(latency_ns);
        } else {
            counts.video_received += 1;
        }
        counts.latency_ns.record(latency_ns);
        if let Some(count) = counts.by_stream.get_mut(usize::from(mark.stream)) {
            *count += 1;
        }
        if !repaired {
            self.note_transit(timestamp, at_ns);
        }
        true
    }

    /// RFC 3550 §6.4.1, appendix A.8.
    fn note_transit(&mut self, timestamp: u32, at_ns: u64) {
        let ticks = u128::from(at_ns) * u128::from(clock_rate(self.kind)) / 1_000_000_000;
        let transit = i64::from((ticks as u32).wrapping_sub(timestamp) as i32);
        if let Some(last) = self.transit.replace(transit) {
            let change = (transit - last).unsigned_abs() as f64;
            // A slot that changes hands, or a clock that jumps, is no jitter.
            if change < f64::from(clock_rate(self.kind)) {
                self.jitter += (change - self.jitter) / 16.0;
            }
        }
    }

    fn report(&mut self, now_ns: u64) -> Option<ReportBlock> {
        let highest = self.tracker.highest()?;
        let expected = highest + 1 - self.first_index.min(highest);
        let (expected_before, arrived_before) = self.reported;
        self.reported = (expected, self.arrived);
        let new = expected.saturating_sub(expected_before);
        let lost = new.saturating_sub(self.arrived - arrived_before);
        let (last_sr, since_ns) = self.last_report.unwrap_or((0, now_ns));
        let delay = u128::from(now_ns.saturating_sub(since_ns)) * 65_536 / 1_000_000_000;
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost * 256).checked_div(new).unwrap_or(0).min(255) as u8,
            cumulative_lost: expected.saturating_sub(self.arrived).min(0x7f_ffff) as i32,
            highest_sequence: highest as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: if last_sr == 0 { 0 } else { delay as u32 },
        })
    }
}

/// Adds a finished handshake.
pub fn note_connected(joins: &mut Joins, posted_ns: u64, now_ns: u64) {
    joins.connected_ns.record(now_ns.saturating_sub(posted_ns));
}
