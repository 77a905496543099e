//! One subscriber's sending side: from numbers and stored packets to sealed datagrams, a frame at a time.
//!
//! str0m walks every m-line on each drain; this plane does not. A copy that waits is a few numbers. When the peer is
//! drained, headers are written and payloads sealed in one pass into one reused buffer, packet behind packet, so that a
//! frame's packets for this destination are one GSO run.
//!
//! **Nonce safety.** With AES-GCM a key must never seal twice under the same SSRC and index (RFC 7714 §8.1, §9.1). All
//! SRTP and SRTCP of a session leaves through its one [`Egress`]: what str0m would send under the same keys is thrown
//! away (`Peer::transmit`). Each slot has a media and an RTX SSRC of its own, distinct within the session. Media numbers
//! come from the room, which never uses one twice (`media::forwarder`); should it ever, [`OutStream::sealed`] refuses.
//! RTX numbers are counted here, the SRTCP index in the [`Sealer`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Stats;
use super::clock::{self, NtpClock};
use super::peer::SlotLine;
use super::retransmit::{Budget, SequenceMap, Stretch};
use super::store::{PacketRef, PacketStore, Stored};
use crate::command::MediaKind;
use crate::media::meter::DropReason;
use crate::rtp::extensions::{self, ExtensionIds, MAX_BLOCK_BYTES, Own};
use crate::rtp::header::{FIXED_BYTES, Fixed};
use crate::rtp::rtcp::{self, ReportBlock, SenderInfo};
use crate::rtp::srtp::{RolloverTracker, Sealer, SrtpError};

/// The original sequence number before an RTX payload (RFC 4588 §4), in bytes.
const OSN_BYTES: usize = 2;
/// One RTCP compound packet holds no more plaintext than this, bytes, so that it fits any path.
const RTCP_BYTES_MAX: usize = 1000;
/// Streams one BYE can name (RFC 3550 §6.6).
const BYE_SSRCS_MAX: usize = 31;
/// Packets in one burst, and bytes: what one GSO send takes (UDP_MAX_SEGMENTS is 64 on older kernels, 64 KB of IP).
const BURST_PACKETS_MAX: usize = 60;
pub const BURST_BYTES_MAX: usize = 62_000;
/// UDP and IPv4 headers, and what IPv6 adds: rates are counted as on the wire.
const UDP_IP_BYTES: usize = 28;
/// Copies that may wait for the pacer or the drain. A frame of 4 Mbit/s has 15 packets; 25 slots may have one at once.
const QUEUE_MAX: usize = 2048;
/// How often we report what we send (RFC 3550 §6.2 allows 360 ÷ kbit/s seconds). A second lets a receiver put sound
/// and picture in sync soon after a slot changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What a receiver is assumed to be away until its reports tell, and the most that is believed of them.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(50);
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// One subscriber's sending side.
pub struct Egress {
    sealer: Option<Sealer>,
    /// By slot.
    streams: Vec<OutStream>,
    audio: VecDeque<Queued>,
    video: VecDeque<Queued>,
    /// The next transport-wide sequence number.
    wide: u64,
    round_trip: Duration,
    cname: String,
    clock: NtpClock,
    budget: Budget,
    /// When a sender report is next due.
    report_due: Instant,
    /// RTCP that waits, in plain.
    rtcp: Vec<u8>,
}

/// The SSRCs and numbers of one slot.
struct OutStream {
    ssrc: u32,
    rtx_ssrc: u32,
    mid: String,
    kind: MediaKind,
    ids: ExtensionIds,
    /// The receiver has reported it, so it knows which m-line the SSRC belongs to.
    is_known: bool,
    numbers: SequenceMap,
    sealed: RolloverTracker,
    rtx_next: u64,
    packets: u32,
    octets: u32,
    /// Timestamp of the latest packet, and when that was captured.
    latest: Option<(u32, Instant)>,
    /// Ticks of the timestamp in a second.
    clock_rate_hz: u32,
    /// Something was sent since the last report.
    unreported: bool,
}

/// A copy that waits to be sealed.
#[derive(Clone, Copy)]
struct Queued {
    packet: PacketRef,
    seq: u64,
    timestamp: u32,
    slot: u16,
    payload_type: u8,
    is_retransmission: bool,
}

/// One copy to send.
pub struct Copy {
    pub packet: PacketRef,
    pub slot: usize,
    /// Extended outgoing number.
    pub seq: u64,
    pub timestamp: u32,
    /// The difference to the received timestamp.
    pub timestamp_offset: u32,
    pub captured_at: Instant,
    pub clock_rate_hz: u32,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
}

/// What ended a burst.
#[derive(Default)]
struct Run {
    /// The first packet's length; what follows is as long, and only the last may be shorter.
    segment: usize,
    packets: usize,
    ended: bool,
}

impl Run {
    fn takes(&self, bytes: usize, already: usize) -> bool {
        self.packets == 0
            || (!self.ended
                && bytes <= self.segment
                && self.packets < BURST_PACKETS_MAX
                && already + bytes <= BURST_BYTES_MAX)
    }

    fn took(&mut self, bytes: usize) {
        if self.packets == 0 {
            self.segment = bytes;
        }
        self.ended = bytes < self.segment;
        self.packets += 1;
    }
}

impl Egress {
    /// A sending side without streams or keys.
    pub fn new(cname: String, clock: NtpClock, now: Instant) -> Self {
        Self {
            sealer: None,
            streams: Vec::new(),
            audio: VecDeque::new(),
            video: VecDeque::new(),
            wide: 0,
            round_trip: DEFAULT_ROUND_TRIP,
            cname,
            clock,
            budget: Budget::new(now),
            report_due: now,
            rtcp: Vec::new(),
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
    pub fn set_stream(&mut self, slot: usize, line: &SlotLine, ids: ExtensionIds, first_rtx: u16) {
        match self.streams.get_mut(slot) {
            Some(stream) => stream.ids = ids,
            None => self.streams.push(OutStream {
                ssrc: line.ssrc,
                rtx_ssrc: line.rtx_ssrc,
                mid: line.name.clone(),
                kind: line.kind,
                ids,
                is_known: false,
                numbers: SequenceMap::default(),
                sealed: RolloverTracker::default(),
                rtx_next: u64::from(first_rtx),
                packets: 0,
                octets: 0,
                latest: None,
                clock_rate_hz: 0,
                unreported: false,
            }),
        }
    }

    // === what is to be sent ===

    /// Queues a copy; it leaves with the next drain, or when the pacer lets it.
    pub fn push(&mut self, copy: &Copy) -> Result<(), DropReason> {
        let stream = self.streams.get_mut(copy.slot).ok_or(DropReason::SubscriberNotReady)?;
        if self.sealer.is_none() {
            return Err(DropReason::SubscriberNotReady);
        }
        let queue = if stream.kind == MediaKind::Audio { &mut self.audio } else { &mut self.video };
        if queue.len() >= QUEUE_MAX {
            return Err(DropReason::SubscriberTooSlow);
        }
        stream.numbers.note(Stretch {
            first_out: copy.seq,
            first_in: copy.packet.seq,
            ring: copy.packet.ring,
            timestamp_offset: copy.timestamp_offset,
            payload_type: copy.payload_type,
            rtx_payload_type: copy.rtx_payload_type,
        });
        if stream.latest.is_none_or(|(_, captured_at)| captured_at <= copy.captured_at) {
            stream.latest = Some((copy.timestamp, copy.captured_at));
            stream.clock_rate_hz = copy.clock_rate_hz;
        }
        queue.push_back(Queued {
            packet: copy.packet,
            seq: copy.seq,
            timestamp: copy.timestamp,
            slot: copy.slot as u16,
            payload_type: copy.payload_type,
            is_retransmission: false,
        });
        Ok(())
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
        let stream = &mut self.streams[slot];
        for seq in missing {
            stats.retransmissions_wanted += 1;
            let Some((out, packet, stretch)) = stream.numbers.find(seq, self.round_trip, now) else { continue };
            let Some(stored) = store.get(packet) else { continue };
            // Without RTX (RFC 4588) the packet would have to go under its old number, a nonce used twice.
            let Some(payload_type) = stretch.rtx_payload_type else { continue };
            let bytes = stored.payload.len() + UDP_IP_BYTES;
            if self.video.len() >= QUEUE_MAX || !self.budget.spend(bytes, now) {
                break;
            }
            self.video.push_back(Queued {
                packet,
                seq: out,
                timestamp: stored.timestamp.wrapping_add(stretch.timestamp_offset),
                slot: slot as u16,
                payload_type,
                is_retransmission: true,
            });
        }
    }

    /// Whether something waits.
    pub fn has_work(&self) -> bool {
        !self.audio.is_empty() || !self.video.is_empty() || !self.rtcp.is_empty()
    }

    /// How far away the receiver is.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Copies that wait.
    pub fn waiting(&self) -> usize {
        let media = |queue: &VecDeque<Queued>| queue.iter().filter(|queued| !queued.is_retransmission).count();
        media(&self.audio) + media(&self.video)
    }

    /// The slot of an outgoing SSRC, media or RTX.
    pub fn slot_of(&self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc || stream.rtx_ssrc == ssrc)
    }

    /// A report block came back about one of our streams.
    pub fn reported(&mut self, block: &ReportBlock, now: Instant) {
        let Some(slot) = self.slot_of(block.ssrc) else { return };
        self.streams[slot].is_known = true;
        let now = clock::middle(self.clock.ntp(now));
        if let Some(units) = rtcp::round_trip(block, now) {
            self.round_trip = Duration::from_micros(u64::from(units) * 1_000_000 / 65_536).min(MAX_ROUND_TRIP);
        }
    }

    // === sealing ===

    /// Seals what waits into `out`, one run: packets of the first one's length, the last maybe shorter. Returns that
    /// length; zero if nothing was to be sent.
    pub fn fill(&mut self, out: &mut Vec<u8>, store: &PacketStore, stats: &mut Stats, now: Instant) -> usize {
        let Some(sealer) = &mut self.sealer else { return 0 };
        let mut run = Run::default();
        let ntp = self.clock.ntp(now);
        loop {
            // Audio first: it is small, and a late syllable is worse than a late picture.
            let queue = if self.audio.is_empty() { &mut self.video } else { &mut self.audio };
            let Some(queued) = queue.front().copied() else { break };
            let Some(stream) = self.streams.get_mut(usize::from(queued.slot)) else { break };
            let Some(stored) = store.get(queued.packet) else {
                queue.pop_front();
                if !queued.is_retransmission {
                    stats.drops.count(DropReason::Expired);
                }
                continue;
            };
            let mut block = [0; MAX_BLOCK_BYTES];
            let block_bytes = stream.extensions(&mut block, stored, self.wide as u16, ntp);
            let osn_bytes = if queued.is_retransmission { OSN_BYTES } else { 0 };
            let header_bytes = FIXED_BYTES + block_bytes;
            let bytes = header_bytes + osn_bytes + stored.payload.len() + sealer.rtp_tag_bytes();
            if !run.takes(bytes, out.len()) {
                break;
            }
            queue.pop_front();
            let start = out.len();
            out.resize(start + bytes, 0);
            let packet = &mut out[start..];
            packet[FIXED_BYTES..header_bytes].copy_from_slice(&block[..block_bytes]);
            let sealed = stream.seal(sealer, packet, header_bytes, &queued, stored);
            if sealed.is_err() {
                out.truncate(start);
                stats.drops.count(DropReason::Internal);
                continue;
            }
            self.wide += 1;
            run.took(bytes);
            if queued.is_retransmission {
                stats.rtx_out.count(stored.payload.len());
            } else {
                self.budget.earn(bytes);
                stats.rtp_out.of_mut(stream.kind).count(stored.payload.len());
            }
        }
        self.append_rtcp(&mut run, out, now);
        run.segment
    }

    /// Ends the run with the RTCP that is due: as its last, shorter datagram it costs no send of its own.
    fn append_rtcp(&mut self, run: &mut Run, out: &mut Vec<u8>, now: Instant) {
        if now >= self.report_due {
            self.collect_reports(now);
        }
        let Some(sealer) = self.sealer.as_mut().filter(|_| !self.rtcp.is_empty()) else { return };
        let bytes = self.rtcp.len() + sealer.profile().rtcp_trailer_bytes();
        if !run.takes(bytes, out.len()) {
            return;
        }
        let start = out.len();
        out.append(&mut self.rtcp);
        match sealer.seal_rtcp(out, start) {
            Ok(()) => run.took(out.len() - start),
            Err(_) => out.truncate(start),
        }
    }

    /// Sender reports of the streams that have sent lately (RFC 3550 §6.4.1).
    fn collect_reports(&mut self, now: Instant) {
        self.report_due = now + REPORT_INTERVAL;
        let ntp = self.clock.ntp(now);
        for stream in &mut self.streams {
            let Some((timestamp, captured_at)) = stream.latest.filter(|_| stream.unreported) else { continue };
            if self.rtcp.len() > RTCP_BYTES_MAX / 2 {
                // The rest follows with the next datagram.
                self.report_due = now;
                break;
            }
            stream.unreported = false;
            // Not the send time: media captured together must map to one instant, however long it was underway.
            let since = now.saturating_duration_since(captured_at).as_micros() as u64;
            let ticks = since * u64::from(stream.clock_rate_hz) / 1_000_000;
            let rtp_timestamp = timestamp.wrapping_add(ticks as u32);
            let info = SenderInfo { ntp, rtp_timestamp, packets: stream.packets, octets: stream.octets };
            rtcp::sender_report(&mut self.rtcp, stream.ssrc, &info, &[]);
            rtcp::source_description(&mut self.rtcp, stream.ssrc, &self.cname);
        }
    }

    // === control ===

    /// Room for RTCP that goes out with the next drain; what is there already stays before it.
    pub fn rtcp(&mut self) -> &mut Vec<u8> {
        &mut self.rtcp
    }

    /// Says goodbye for every stream that has sent, and drops what still waits.
    pub fn close(&mut self, stats: &mut Stats) {
        stats.drops.add(DropReason::SubscriberNotReady, self.waiting() as u64);
        self.audio.clear();
        self.video.clear();
        let sent: Vec<u32> =
            self.streams.iter().filter(|stream| stream.packets > 0).map(|stream| stream.ssrc).collect();
        for ssrcs in sent.chunks(BYE_SSRCS_MAX) {
            rtcp::receiver_report(&mut self.rtcp, ssrcs[0], &[]);
            rtcp::source_description(&mut self.rtcp, ssrcs[0], &self.cname);
            rtcp::bye(&mut self.rtcp, ssrcs);
        }
    }
}

impl OutStream {
    /// The header extensions of one packet. Never the publisher's MID or RID.
    fn extensions(&self, out: &mut [u8], stored: &Stored, wide: u16, ntp: u64) -> usize {
        let own = Own {
            mid: (!self.is_known).then_some(self.mid.as_bytes()),
            transport_sequence_number: Some(wide),
            abs_send_time: Some(clock::abs_send_time(ntp)),
            ..Own::default()
        };
        extensions::write(out, &self.ids, &own, &stored.values, stored.descriptor.as_deref())
    }

    /// Writes the fixed header, then seals. The extension block is in place.
    fn seal(
        &mut self,
        sealer: &Sealer,
        packet: &mut [u8],
        header_bytes: usize,
        queued: &Queued,
        stored: &Stored,
    ) -> Result<(), SrtpError> {
        let (ssrc, index) = match queued.is_retransmission {
            false => (self.ssrc, queued.seq),
            true => (self.rtx_ssrc, self.rtx_next),
        };
        let Some((fixed, _)) = packet.split_first_chunk_mut::<FIXED_BYTES>() else { return Err(SrtpError::TooShort) };
        Fixed {
            payload_type: queued.payload_type,
            marker: stored.marker,
            sequence_number: index as u16,
            timestamp: queued.timestamp,
            ssrc,
            padding: false,
            extension: header_bytes > FIXED_BYTES,
        }
        .write(fixed);
        if queued.is_retransmission {
            self.rtx_next += 1;
            let payload = header_bytes + OSN_BYTES;
            packet[header_bytes..payload].copy_from_slice(&(queued.seq as u16).to_be_bytes());
            packet[payload..payload + stored.payload.len()].copy_from_slice(&stored.payload);
            return sealer.seal_rtp_in_place(ssrc, index, packet, header_bytes);
        }
        if self.sealed.is_replay(index) {
            return Err(SrtpError::Replayed);
        }
        self.sealed.accept(index);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(stored.payload.len() as u32);
        self.unreported = true;
        sealer.seal_rtp(ssrc, index, packet, header_bytes, &stored.payload)
    }
}
