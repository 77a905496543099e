//! One subscriber's sending side: from numbers and stored packets to sealed datagrams, a frame at a time.
//!
//! str0m walks every m-line on each drain; this plane does not. A copy that waits is a few numbers. When the peer is
//! drained, headers are written and payloads sealed in one pass into one reused buffer, packet behind packet, so that a
//! frame's packets for this destination are one GSO run.
//!
//! **Nonce safety.** With AES-GCM a key must never seal twice under the same SSRC and index (RFC 7714 §8.1, §9.1). All
//! SRTP and SRTCP of a session leaves through its one [`Egress`]: what str0m would send under the same keys is thrown
//! away (`Peer::transmit`). Each slot has a media and an RTX SSRC of its own, distinct within the session. Media numbers
//! come from the room, which never uses one twice (`media::forwarder`); should it ever, `SequenceMap::note` refuses.
//! RTX numbers are counted here, the SRTCP index in the [`Sealer`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::run::RUN_BYTES_MAX;
use self::run::Run;
use super::Stats;
use super::clock::{self, NtpClock};
use super::compound;
use super::flow::Flow;
use super::out_stream::{OutStream, Purpose, Queued, again, filler, osn_bytes};
use super::pacer::Verdict;
use super::peer::SlotLine;
use super::register::Kind;
use super::retransmit::Budget;
use super::store::{PacketRef, PacketStore};
use crate::command::MediaKind;
use crate::media::Patch;
use crate::media::meter::DropReason;
use crate::rtp::extensions::{ExtensionIds, MAX_BLOCK_BYTES};
use crate::rtp::header::FIXED_BYTES;
use crate::rtp::rtcp::{self, ReportBlock};
use crate::rtp::srtp::Sealer;

mod giving_up;
mod packets;
mod quality;
mod run;

/// UDP and IPv4 headers: rates are counted as on the wire. IPv6's 20 bytes more are within the estimate's error.
const UDP_IP_BYTES: usize = 28;
/// Copies that may wait for the pacer or the drain. A frame of 4 Mbit/s has 15 packets; 25 slots may have one at once.
const QUEUE_MAX: usize = 2048;
/// Numbers looked at in one NACK: what is remembered as sent.
const NACK_NUMBERS_MAX: usize = 1024;
/// How often we report what we send (RFC 3550 §6.2 allows 360 ÷ kbit/s seconds). A second lets a receiver put sound
/// and picture in sync soon after a slot changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What a receiver is assumed to be away until its reports tell, and the most that is believed of them.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(50);
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// One subscriber's sending side.
pub struct Egress<F = Flow> {
    sealer: Option<Sealer>,
    /// By slot.
    streams: Vec<OutStream>,
    flow: F,
    audio: VecDeque<Queued>,
    /// New video, and what NACKs asked for.
    video: VecDeque<Queued>,
    /// Video that the pacer holds back, oldest first.
    held: VecDeque<Queued>,
    /// Slots whose video was given up.
    starved: Vec<u16>,
    /// As receiver reports tell.
    round_trip: Option<Duration>,
    cname: String,
    clock: NtpClock,
    budget: Budget,
    /// The slot that last sent video, whose packets serve as padding.
    last_video: Option<usize>,
    /// When a sender report is next due.
    report_due: Instant,
    /// RTCP packets that wait, in plain; cut into compounds when they leave.
    rtcp: Vec<u8>,
    /// Packets that NACKs named.
    nacks: u64,
    /// When its figures next go into the statistics.
    sample_due: Instant,
}

/// One copy to send.
pub struct Copy {
    pub packet: PacketRef,
    /// Extended outgoing number.
    pub seq: u64,
    pub timestamp: u32,
    pub captured_at: Instant,
    pub clock_rate_hz: u32,
    pub bytes: usize,
    pub payload_type: u8,
    /// Of RED (RFC 2198) the primary block.
    pub primary_only: bool,
    pub rtx_payload_type: Option<u8>,
    pub patch: Patch,
}

/// Which queue is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Audio,
    Held,
    Video,
}

impl Egress {
    /// A sending side without streams or keys.
    pub fn new(cname: String, clock: NtpClock, now: Instant) -> Self {
        Self {
            sealer: None,
            streams: Vec::new(),
            flow: Flow::new(now),
            audio: VecDeque::new(),
            video: VecDeque::new(),
            held: VecDeque::new(),
            starved: Vec::new(),
            round_trip: None,
            cname,
            clock,
            budget: Budget::new(now),
            last_video: None,
            report_due: now,
            rtcp: Vec::new(),
            nacks: 0,
            sample_due: now,
        }
    }

    /// The handshake has given us keys.
    pub fn set_sealer(&mut self, sealer: Sealer) {
        self.sealer = Some(sealer);
    }

    /// Whether anything can be sent.
    pub fn is_ready(&self) -> bool {
        self.sealer.is_some()
    }

    /// A slot's stream, in the order of slots, or its header extensions anew.
    pub fn set_stream(&mut self, slot: usize, line: &SlotLine, ids: ExtensionIds, first_rtx: u16, now: Instant) {
        match self.streams.get_mut(slot) {
            Some(stream) => stream.set_extension_ids(ids),
            None => self.streams.push(OutStream::new(line, ids, first_rtx)),
        }
        if self.streams.iter().any(OutStream::is_wide) {
            self.flow.enable(now);
        }
    }

    // === what is to be sent ===

    /// Queues copies for a slot; they leave with the next drain, or when the pacer lets them. How many found no room.
    pub fn push(
        &mut self,
        slot: usize,
        copies: impl ExactSizeIterator<Item = Copy>,
        stats: &mut Stats,
        now: Instant,
    ) -> Result<usize, DropReason> {
        if self.sealer.is_none() {
            return Err(DropReason::SubscriberNotReady);
        }
        let mut copies = copies.peekable();
        if let Some(first) = copies.peek().filter(|_| !self.held.is_empty()) {
            self.leave_behind(slot, first.packet.ring, stats);
        }
        let stream = self.streams.get_mut(slot).ok_or(DropReason::SubscriberNotReady)?;
        let queue = if stream.kind == MediaKind::Audio { &mut self.audio } else { &mut self.video };
        let room = QUEUE_MAX.saturating_sub(queue.len());
        let refused = copies.len().saturating_sub(room);
        let mut wire_bytes = 0;
        for copy in copies.take(room) {
            wire_bytes += copy.bytes + FIXED_BYTES + UDP_IP_BYTES;
            queue.push_back(Queued {
                packet: copy.packet,
                purpose: Purpose::Media,
                seq: copy.seq,
                timestamp: copy.timestamp,
                slot: slot as u16,
                payload_type: copy.payload_type,
                primary_only: copy.primary_only,
                rtx_payload_type: copy.rtx_payload_type,
                patch: copy.patch,
                held_bytes: 0,
                starts_frame: stream.note(copy.timestamp, copy.captured_at, copy.clock_rate_hz),
            });
        }
        self.flow.demanded(wire_bytes, now);
        Ok(refused)
    }

    /// Queues what the receiver misses of a stream, as far as it is still known and the budget goes.
    pub fn retransmit(
        &mut self,
        ssrc: u32,
        missing: impl Iterator<Item = u16>,
        store: &PacketStore,
        stats: &mut Stats,
        now: Instant,
    ) {
        let Some(slot) = self.streams.iter().position(|stream| stream.ssrc == ssrc) else { return };
        let round_trip = self.round_trip();
        // What is new then waits for every packet that is sent again.
        let behind = self.flow.is_behind(now);
        for seq in missing.take(NACK_NUMBERS_MAX) {
            stats.retransmissions_wanted += 1;
            self.nacks += 1;
            let numbers = &self.streams[slot].numbers;
            let found = numbers.find(seq, round_trip, now);
            let found = found.filter(|(_, packet, _)| !behind || numbers.is_current(packet.ring));
            let Some(repair) = found.and_then(|found| again(slot, found, Purpose::Repair, store)) else { continue };
            let bytes = store.get(repair.packet).map_or(0, |stored| stored.payload.len()) + UDP_IP_BYTES;
            if self.video.len() >= QUEUE_MAX || !self.budget.spend(bytes, self.flow.pace(), now) {
                break;
            }
            self.streams[slot].numbers.note_resend(repair.seq, now);
            self.video.push_back(repair);
        }
    }

    /// Whether something could be sent now.
    pub fn has_work(&self, now: Instant) -> bool {
        !self.audio.is_empty() || !self.video.is_empty() || !self.rtcp.is_empty() || self.flow.may_release(now)
    }

    /// How far away the receiver is.
    pub fn round_trip(&self) -> Duration {
        self.known_round_trip().unwrap_or(DEFAULT_ROUND_TRIP)
    }

    /// How fast it may be sent to.
    pub fn flow(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// Copies that wait.
    pub fn waiting(&self) -> usize {
        let queues = [&self.audio, &self.video, &self.held];
        queues.into_iter().flatten().filter(|queued| queued.purpose == Purpose::Media).count()
    }

    /// The slot of an outgoing SSRC, media or RTX.
    pub fn slot_of(&self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc || stream.rtx_ssrc == ssrc)
    }

    /// A report block came back about one of our streams.
    pub fn reported(&mut self, block: &ReportBlock, now: Instant) {
        let Some(slot) = self.slot_of(block.ssrc) else { return };
        self.streams[slot].is_known = true;
        if let Some(units) = rtcp::round_trip(block, clock::middle(self.clock.ntp(now))) {
            // In 1/65536 s.
            self.round_trip = Some(Duration::from_micros(u64::from(units) * 1_000_000 / 65_536));
        }
    }

    // === sealing ===

    /// Seals what may leave now into `out`, one run: packets of the first one's length, the last maybe shorter. Returns
    /// that length; zero if nothing was to be sent. Call again until it is.
    pub fn fill(&mut self, out: &mut Vec<u8>, store: &PacketStore, stats: &mut Stats, now: Instant) -> usize {
        if self.sealer.is_none() {
            return 0;
        }
        let mut run = Run::default();
        let ntp = self.clock.ntp(now);
        let mut held_blocked = false;
        loop {
            if self.audio.is_empty() && self.video.is_empty() && self.held.is_empty() {
                self.push_padding(store, now);
            }
            let Some((queue, queued)) = self.head(held_blocked) else { break };
            let Some(stored) = store.get(queued.packet) else {
                self.forget(queue, &queued, stats);
                continue;
            };
            let Some(stream) = self.streams.get(usize::from(queued.slot)) else { break };
            let mut block = [0; MAX_BLOCK_BYTES];
            let wide = self.flow.next_number().filter(|_| stream.is_wide());
            let block_bytes = stream.extensions(&mut block, stored, &queued, wide, ntp);
            let osn_bytes = osn_bytes(&queued, stored);
            let header_bytes = FIXED_BYTES + block_bytes;
            let tag_bytes = self.sealer.as_ref().map_or(0, Sealer::rtp_tag_bytes);
            let payload_bytes = queued.payload(stored).len();
            let bytes = header_bytes + osn_bytes + payload_bytes + tag_bytes;
            if !run.takes(bytes, out.len()) {
                break;
            }
            if !self.may_leave(queue, &queued, bytes + UDP_IP_BYTES, stats, now) {
                held_blocked |= queue == Queue::Held;
                continue;
            }
            if wide.is_some() {
                let kind = kind_of(queue, &queued);
                self.flow.sent(kind, bytes + UDP_IP_BYTES, now);
            }
            let start = out.len();
            out.resize(start + bytes, 0);
            let packet = &mut out[start..];
            packet[FIXED_BYTES..header_bytes].copy_from_slice(&block[..block_bytes]);
            let (Some(sealer), Some(stream)) = (&self.sealer, self.streams.get_mut(usize::from(queued.slot))) else {
                break;
            };
            if stream.seal(sealer, packet, header_bytes, &queued, stored).is_err() {
                out.truncate(start);
                stats.drops.count(DropReason::Internal);
                continue;
            }
            run.took(bytes);
            self.count(queue, &queued, payload_bytes, stats);
        }
        self.append_rtcp(&mut run, out, now);
        run.segment
    }

    /// What to look at next. Audio first: it is small, and a late syllable is worse than a late picture.
    fn head(&self, held_blocked: bool) -> Option<(Queue, Queued)> {
        let queues = [(Queue::Audio, &self.audio), (Queue::Held, &self.held), (Queue::Video, &self.video)];
        queues
            .into_iter()
            .filter(|(queue, _)| *queue != Queue::Held || !held_blocked)
            .find_map(|(queue, queued)| Some((queue, *queued.front()?)))
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<Queued> {
        match queue {
            Queue::Audio => &mut self.audio,
            Queue::Held => &mut self.held,
            Queue::Video => &mut self.video,
        }
    }

    /// Takes the head of a queue out if the pacer lets it go; else it is held.
    fn may_leave(&mut self, queue: Queue, queued: &Queued, wire: usize, stats: &mut Stats, now: Instant) -> bool {
        if queue == Queue::Held {
            let released = self.flow.release(queued.held_bytes.into(), wire, now);
            if released {
                self.held.pop_front();
            }
            return released;
        }
        self.queue(queue).pop_front();
        let verdict = self.flow.admit(kind_of(queue, queued), wire, queued.starts_frame, now);
        if verdict == Verdict::Send {
            return true;
        }
        self.held.push_back(Queued { held_bytes: wire as u16, ..*queued });
        if verdict == Verdict::Overflow {
            self.starve(stats);
        }
        false
    }

    fn count(&mut self, queue: Queue, queued: &Queued, payload_bytes: usize, stats: &mut Stats) {
        self.note_sent(queued, payload_bytes);
        match queued.purpose {
            Purpose::Repair => stats.rtx_out.count(payload_bytes),
            Purpose::Probe => stats.padding_out.count(payload_bytes),
            Purpose::Media => {
                let kind = if queue == Queue::Audio { MediaKind::Audio } else { MediaKind::Video };
                stats.rtp_out.of_mut(kind).count(payload_bytes);
                self.budget.earn(payload_bytes);
                if kind == MediaKind::Video {
                    self.last_video = Some(usize::from(queued.slot));
                }
            }
        }
    }

    /// A probe wants more than there is to send: the latest packet goes again, as RTX, which receivers know to ignore.
    /// If it is kept no longer, because the network was found to take nothing, there is still padding.
    fn push_padding(&mut self, store: &PacketStore, now: Instant) {
        let Some(wire_bytes) = self.flow.padding_due(now) else { return };
        let Some(slot) = self.last_video else { return };
        // Without a transport-wide number a packet is no part of the probe, and the probe would never end.
        let stream = self.streams.get(slot).filter(|stream| stream.is_wide());
        let latest = stream.and_then(|stream| stream.numbers.latest());
        self.video.extend(latest.and_then(|latest| filler(slot, latest, wire_bytes, store)));
    }

    /// Ends the run with the RTCP that is due: as its last, shorter datagram it costs no send of its own.
    fn append_rtcp(&mut self, run: &mut Run, out: &mut Vec<u8>, now: Instant) {
        if now >= self.report_due {
            self.collect_reports(now);
        }
        let Some(sealer) = self.sealer.as_mut() else { return };
        while !self.rtcp.is_empty() {
            let start = out.len();
            let taken = compound::write(&self.rtcp, &self.cname, out);
            if !run.takes(out.len() - start + sealer.profile().rtcp_trailer_bytes(), start) {
                out.truncate(start);
                return;
            }
            self.rtcp.drain(..taken);
            match sealer.seal_rtcp(out, start) {
                Ok(()) => run.took(out.len() - start),
                Err(_) => out.truncate(start),
            }
        }
    }

    /// Sender reports of the streams that have sent lately.
    fn collect_reports(&mut self, now: Instant) {
        self.report_due = now + REPORT_INTERVAL;
        let ntp = self.clock.ntp(now);
        for stream in &mut self.streams {
            stream.report(&mut self.rtcp, &self.cname, ntp, now);
        }
    }

    // === control ===

    /// Room for RTCP packets that go out with the next drain; what is there already stays before them.
    pub fn rtcp(&mut self) -> &mut Vec<u8> {
        &mut self.rtcp
    }

    /// When to drain again, for the pacer, a probe, or feedback that stays away.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flow.poll_timeout()
    }

    /// Says goodbye for every stream that has sent, and drops what still waits.
    pub fn close(&mut self, stats: &mut Stats) {
        self.silence(stats);
        let sent: Vec<u32> = self.streams.iter().filter(|stream| stream.has_sent()).map(|stream| stream.ssrc).collect();
        rtcp::bye(&mut self.rtcp, &sent);
    }
}

fn kind_of(queue: Queue, queued: &Queued) -> Kind {
    match (queued.purpose, queue) {
        (Purpose::Repair, _) => Kind::Retransmission,
        (Purpose::Probe, _) => Kind::Padding,
        (Purpose::Media, Queue::Audio) => Kind::Audio,
        (Purpose::Media, _) => Kind::Video,
    }
}

#[cfg(test)]
mod tests;
