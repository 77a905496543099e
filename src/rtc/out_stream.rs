//! One slot's outgoing stream: its SSRCs, numbers and reports, and how one of its packets is written.

use std::time::Instant;

use super::clock;
use super::peer::SlotLine;
use super::retransmit::{Found, SequenceMap, Stretch};
use super::store::{PacketRef, PacketStore, Stored};
use crate::command::MediaKind;
use crate::command::quality::SentQuality;
use crate::media::{Codec, FrameNumbers, Patch};
use crate::rtp::extensions::{self, Extension, ExtensionIds, MAX_DESCRIPTOR_BYTES, Own};
use crate::rtp::header::{FIXED_BYTES, Fixed};
use crate::rtp::rtcp::{self, SenderInfo};
use crate::rtp::srtp::{Sealer, SrtpError};
use crate::rtp::{dependency, vp8, vp9};

/// The original sequence number before an RTX payload (RFC 4588 §4), in bytes.
const OSN_BYTES: usize = 2;
/// What a packet is longer on the wire than its payload, about: RTP header and extensions, SRTP tag, UDP and IP.
const OVERHEAD_BYTES: usize = 12 + 24 + 16 + 28;
/// Numbers that may go unused at a time. The room lets no longer gap of a publisher's through (RFC 3550 A.1's
/// MAX_DROPOUT), so a longer one is of copies that were not sent. After 2^15 of them the receiver would lose count of
/// the rollovers (RFC 3711 §3.3.1), and nothing it got would be authentic any more.
const SKIP_MAX: u64 = 3000;

/// A copy that waits to be sealed.
#[derive(Clone, Copy)]
pub struct Queued {
    pub packet: PacketRef,
    pub purpose: Purpose,
    /// New media: the room's extended number. Else the one it was sent under.
    pub seq: u64,
    pub timestamp: u32,
    pub slot: u16,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub patch: Patch,
    /// What the pacer counts it with, as long as it is held.
    pub held_bytes: u16,
    /// The first packet of its frame.
    pub starts_frame: bool,
    /// Of RED (RFC 2198) the receiver gets the primary block.
    pub primary_only: bool,
}

impl Queued {
    /// What is sent of the packet it stands for.
    pub fn payload<'a>(&self, stored: &'a Stored) -> &'a [u8] {
        if self.primary_only { stored.primary() } else { &stored.payload }
    }
}

/// Why a packet is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Media,
    /// A NACK asked for it.
    Repair,
    /// It is sent again to find out what the network takes.
    Probe,
}

/// The SSRCs and numbers of one slot.
pub struct OutStream {
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    mid: String,
    pub kind: MediaKind,
    ids: ExtensionIds,
    /// The receiver has reported it, so it knows which m-line the SSRC belongs to.
    pub is_known: bool,
    pub numbers: SequenceMap,
    /// After the highest number sent.
    next: u64,
    /// By how much our numbers are lower than the room's: what was not sent.
    skipped: u64,
    /// The room's first number after the last skip. What comes later and belongs before it has no number.
    skipped_to: u64,
    rtx_next: u64,
    packets: u32,
    octets: u32,
    /// Timestamp of the latest packet, and when that was captured.
    latest: Option<(u32, Instant)>,
    last_timestamp: Option<u32>,
    /// Ticks of the timestamp in a second.
    clock_rate_hz: u32,
    /// Something was sent since the last report.
    unreported: bool,
    /// For those who ask how it goes.
    pub tally: SentQuality,
}

impl OutStream {
    /// A stream that has sent nothing.
    pub fn new(line: &SlotLine, ids: ExtensionIds, first_rtx: u16) -> Self {
        Self {
            ssrc: line.ssrc,
            rtx_ssrc: line.rtx_ssrc,
            mid: line.name.clone(),
            kind: line.kind,
            ids,
            is_known: false,
            numbers: SequenceMap::default(),
            next: line.first_seq.into(),
            skipped: 0,
            skipped_to: 0,
            rtx_next: u64::from(first_rtx),
            packets: 0,
            octets: 0,
            latest: None,
            last_timestamp: None,
            clock_rate_hz: 0,
            unreported: false,
            tally: SentQuality::default(),
        }
    }

    /// Its header extensions have been negotiated anew.
    pub fn set_extension_ids(&mut self, ids: ExtensionIds) {
        self.ids = ids;
    }

    /// Whether its packets are numbered transport-wide.
    pub fn is_wide(&self) -> bool {
        self.ids.id(Extension::TransportSequenceNumber).is_some()
    }

    /// Whether it has sent anything.
    pub fn has_sent(&self) -> bool {
        self.packets > 0
    }

    /// A copy is about to be queued. Whether it starts a frame.
    pub fn note(&mut self, timestamp: u32, captured_at: Instant, clock_rate_hz: u32) -> bool {
        if self.latest.is_none_or(|(_, latest)| latest <= captured_at) {
            self.latest = Some((timestamp, captured_at));
            self.clock_rate_hz = clock_rate_hz;
        }
        self.last_timestamp.replace(timestamp) != Some(timestamp)
    }

    /// The header extensions of one packet. Never the publisher's MID or RID.
    pub fn extensions(&self, out: &mut [u8], stored: &Stored, queued: &Queued, wide: Option<u16>, ntp: u64) -> usize {
        // Firefox binds a MID to the media SSRC and then drops the RTX SSRC that comes without one.
        let needs_mid = !self.is_known || queued.purpose != Purpose::Media;
        let own = Own {
            mid: needs_mid.then_some(self.mid.as_bytes()),
            transport_sequence_number: wide,
            abs_send_time: Some(clock::abs_send_time(ntp)),
            ..Own::default()
        };
        let mut patched = [0; MAX_DESCRIPTOR_BYTES];
        let descriptor =
            stored.descriptor.as_deref().map(|bytes| patch_descriptor(bytes, stored, queued, &mut patched));
        extensions::write(out, &self.ids, &own, &stored.values, descriptor)
    }

    /// The number of a copy on the wire.
    fn number(&mut self, seq: u64) -> Option<u64> {
        if seq < self.skipped_to {
            return None;
        }
        let number = seq - self.skipped;
        if number <= self.next + SKIP_MAX {
            return Some(number);
        }
        (self.skipped, self.skipped_to) = (seq - self.next, seq);
        Some(self.next)
    }

    /// Writes the fixed header, then seals. The extension block is in place.
    pub fn seal(
        &mut self,
        sealer: &Sealer,
        packet: &mut [u8],
        header_bytes: usize,
        queued: &Queued,
        stored: &Stored,
    ) -> Result<(), SrtpError> {
        let (is_media, content) = (queued.purpose == Purpose::Media, queued.payload(stored));
        let (ssrc, index) = if is_media {
            (self.ssrc, self.number(queued.seq).ok_or(SrtpError::Replayed)?)
        } else {
            (self.rtx_ssrc, self.rtx_next)
        };
        let Some((fixed, _)) = packet.split_first_chunk_mut::<FIXED_BYTES>() else { return Err(SrtpError::TooShort) };
        Fixed {
            payload_type: queued.payload_type,
            marker: stored.marker || queued.patch.mark,
            // Truncated on purpose: the wire has the low 16 bits.
            sequence_number: index as u16,
            timestamp: queued.timestamp,
            ssrc,
            padding: stored.is_padding,
            extension: header_bytes > FIXED_BYTES,
        }
        .write(fixed);
        if !is_media {
            self.rtx_next += 1;
            let payload = header_bytes + osn_bytes(queued, stored);
            if payload > header_bytes {
                packet[header_bytes..payload].copy_from_slice(&(queued.seq as u16).to_be_bytes());
            }
            packet[payload..payload + content.len()].copy_from_slice(content);
            patch_payload(&mut packet[payload..], stored.codec, &queued.patch);
            return sealer.seal_rtp_in_place(ssrc, index, packet, header_bytes);
        }
        let is_fresh = self.numbers.note(Stretch {
            first_out: index,
            first_in: queued.packet.seq,
            ring: queued.packet.ring,
            timestamp_offset: queued.timestamp.wrapping_sub(stored.timestamp),
            payload_type: queued.payload_type,
            rtx_payload_type: queued.rtx_payload_type,
            patch: queued.patch,
        });
        if !is_fresh {
            return Err(SrtpError::Replayed);
        }
        self.next = self.next.max(index + 1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(content.len() as u32);
        self.unreported = true;
        if queued.patch.frame == FrameNumbers::default() {
            return sealer.seal_rtp(ssrc, index, packet, header_bytes, content);
        }
        packet[header_bytes..header_bytes + content.len()].copy_from_slice(content);
        patch_payload(&mut packet[header_bytes..], stored.codec, &queued.patch);
        sealer.seal_rtp_in_place(ssrc, index, packet, header_bytes)
    }

    /// A sender report and the stream's name, if something was sent since the last (RFC 3550 §6.4.1).
    pub fn report(&mut self, rtcp: &mut Vec<u8>, cname: &str, ntp: u64, now: Instant) {
        let Some((timestamp, captured_at)) = self.latest.filter(|_| self.unreported) else { return };
        self.unreported = false;
        // Not the send time: media captured together must map to one instant, however long it was underway.
        let since_micros = now.saturating_duration_since(captured_at).as_micros() as u64;
        let ticks = since_micros * u64::from(self.clock_rate_hz) / 1_000_000;
        // Truncation is the wrap-around of RTP timestamps.
        let rtp_timestamp = timestamp.wrapping_add(ticks as u32);
        let info = SenderInfo { ntp, rtp_timestamp, packets: self.packets, octets: self.octets };
        rtcp::sender_report(rtcp, self.ssrc, &info, &[]);
        rtcp::source_description(rtcp, self.ssrc, cname);
    }
}

/// The numbers of the frame go on where those of the source before ended.
fn patch_payload(payload: &mut [u8], codec: Codec, patch: &Patch) {
    let FrameNumbers { picture_id, tl0_picture_index, key_index, .. } = patch.frame;
    match codec {
        Codec::Vp8 => {
            vp8::shift(payload, vp8::Offsets { picture_id, tl0_picture_index, key_index });
        }
        Codec::Vp9 => {
            vp9::shift(payload, vp9::Offsets { picture_id, tl0_picture_index });
        }
        Codec::Opus | Codec::H264 | Codec::Av1 => {}
    }
}

/// The Dependency Descriptor of a copy: its frame's number, and the decode targets that this receiver gets.
fn patch_descriptor<'a>(bytes: &'a [u8], stored: &Stored, queued: &Queued, patched: &'a mut [u8]) -> &'a [u8] {
    let Patch { frame: FrameNumbers { frame_number, .. }, active_targets, .. } = queued.patch;
    if (frame_number, active_targets) == (0, 0) || bytes.len() > patched.len() {
        return bytes;
    }
    let active = (active_targets != 0).then_some(u32::from(active_targets));
    if let Some(length) = dependency::rewrite(bytes, usize::from(stored.targets), frame_number, active, patched) {
        return patched.get(..length).unwrap_or(bytes);
    }
    let copy = &mut patched[..bytes.len()];
    copy.copy_from_slice(bytes);
    dependency::shift(copy, frame_number);
    copy
}

/// How many bytes stand before the payload: what is sent again names its number.
pub fn osn_bytes(queued: &Queued, stored: &Stored) -> usize {
    if queued.purpose == Purpose::Media || stored.is_padding { 0 } else { OSN_BYTES }
}

/// What a probe sends that wants so many bytes on the wire and has no media: the latest packet again, which may even
/// help. If that is much larger, or is kept no longer, padding: a probe of a narrow network has few bytes in its packets,
/// and with three times as many it finds out what a full queue looks like.
pub fn filler(slot: usize, sent: Found, wire_bytes: usize, store: &PacketStore) -> Option<Queued> {
    let payload_bytes = wire_bytes.saturating_sub(OVERHEAD_BYTES);
    let latest = again(slot, sent, Purpose::Probe, store);
    let fits = |queued: &Queued| store.get(queued.packet).is_some_and(|p| p.payload.len() <= payload_bytes * 5 / 4);
    latest.filter(fits).or_else(|| padding(slot, sent, payload_bytes))
}

/// Padding in the wake of a packet that was sent. It goes on the RTX SSRC, whose numbers nobody waits for.
fn padding(slot: usize, sent: Found, bytes: usize) -> Option<Queued> {
    let (seq, _, stretch) = sent;
    Some(Queued {
        packet: PacketStore::padding(bytes),
        purpose: Purpose::Probe,
        seq,
        timestamp: stretch.timestamp_offset,
        slot: slot as u16,
        payload_type: stretch.rtx_payload_type?,
        rtx_payload_type: None,
        patch: Patch::default(),
        held_bytes: 0,
        starts_frame: false,
        primary_only: false,
    })
}

/// A packet that was sent, to be sent again as RTX. Without RTX (RFC 4588) it would have to go under its old number, a
/// nonce used twice. Audio has none, so this is never RED.
pub fn again(slot: usize, sent: Found, purpose: Purpose, store: &PacketStore) -> Option<Queued> {
    let (seq, packet, stretch) = sent;
    let stored = store.get(packet)?;
    Some(Queued {
        packet,
        purpose,
        seq,
        timestamp: stored.timestamp.wrapping_add(stretch.timestamp_offset),
        slot: slot as u16,
        payload_type: stretch.rtx_payload_type?,
        rtx_payload_type: None,
        patch: stretch.patch,
        held_bytes: 0,
        starts_frame: false,
        primary_only: false,
    })
}
