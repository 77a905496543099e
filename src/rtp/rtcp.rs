//! RTCP: reports (RFC 3550 §6), feedback (RFC 4585, RFC 5104 §4.3.1) and REMB (draft-alvestrand-rmcat-remb).
//!
//! Reading borrows from the datagram and allocates nothing; what a packet lists is an iterator over its bytes, whose
//! length was checked with the packet. Builders append to a buffer.

mod build;

pub(super) use build::Open;
pub use build::{bye, fir, nack, pli, receiver_report, remb, sender_report, source_description};

use super::feedback::Feedback;
use super::octets::{i24_at, u16_at, u32_at, u64_at};

/// The builders make no longer packets, bytes, so that a report and a name fit into the datagram before them.
pub const PACKET_BYTES_MAX: usize = 900;

const HEADER_BYTES: usize = 4;
const SSRC_BYTES: usize = 4;
/// NTP time, RTP time, packets, octets (RFC 3550 §6.4.1).
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BLOCK_BYTES: usize = 24;
/// PID and BLP (RFC 4585 §6.2.1).
const NACK_PAIR_BYTES: usize = 4;
/// SSRC, sequence number, three reserved bytes (RFC 5104 §4.3.1.1).
const FIR_ENTRY_BYTES: usize = 8;
/// Two SSRCs in front of what a feedback message says (RFC 4585 §6.1).
const FEEDBACK_PREFIX_BYTES: usize = 8;

const VERSION_MASK: u8 = 0xc0;
const VERSION_2: u8 = 0x80;
const PADDING: u8 = 0x20;
/// Report count, source count or feedback message type.
const FORMAT_MASK: u8 = 0x1f;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1, RFC 3611 §2).
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

/// Formats of transport feedback.
const NACK_FORMAT: u8 = 1;
pub(super) const TRANSPORT_WIDE_FORMAT: u8 = 15;
/// Formats of payload-specific feedback.
const PLI_FORMAT: u8 = 1;
const FIR_FORMAT: u8 = 4;
const APPLICATION_FORMAT: u8 = 15;
/// What makes an application's feedback a REMB.
const REMB_NAME: &[u8; 4] = b"REMB";
/// Exponent and mantissa of a REMB share 24 bits behind the number of SSRCs.
const REMB_MANTISSA_BITS: u32 = 18;

/// What remains of a compound packet is not RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// One packet of a compound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        reports: Reports<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        reports: Reports<'a>,
    },
    /// As many chunks of an SSRC and its items, unread: nothing in them is for a server that knows its peers.
    SourceDescription {
        chunks: u8,
        contents: &'a [u8],
    },
    Bye {
        ssrcs: Ssrcs<'a>,
    },
    Nack {
        sender: u32,
        media: u32,
        pairs: NackPairs<'a>,
    },
    TransportFeedback(Feedback<'a>),
    Pli {
        sender: u32,
        media: u32,
    },
    Fir {
        sender: u32,
        entries: FirEntries<'a>,
    },
    Remb {
        sender: u32,
        bitrate_bps: u64,
        ssrcs: Ssrcs<'a>,
    },
    /// Its blocks (RFC 3611 §3), unread.
    Extended {
        ssrc: u32,
        blocks: &'a [u8],
    },
    Other {
        packet_type: u8,
        format: u8,
    },
}

/// What a sender says about its stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// Seconds since 1900, 32.32 fixed point.
    pub ntp: u64,
    pub rtp_timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

/// What a receiver says about one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// 24 bits signed: duplicates make it negative.
    pub cumulative_lost: i32,
    /// Cycles above the sequence number.
    pub highest_sequence: u32,
    /// In RTP ticks.
    pub jitter: u32,
    /// The middle of the last sender report's NTP time; zero before there was one.
    pub last_sr: u32,
    /// In 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn read(bytes: &[u8; REPORT_BLOCK_BYTES]) -> Option<Self> {
        Some(Self {
            ssrc: u32_at(bytes, 0)?,
            fraction_lost: *bytes.get(4)?,
            cumulative_lost: i24_at(bytes, 5)?,
            highest_sequence: u32_at(bytes, 8)?,
            jitter: u32_at(bytes, 12)?,
            last_sr: u32_at(bytes, 16)?,
            delay_since_last_sr: u32_at(bytes, 20)?,
        })
    }
}

/// The round trip that a block about one of our streams shows, in 1/65536 s (RFC 3550 §6.4.1, figure 2).
///
/// `now_ntp_middle32` is the middle of this moment's NTP time, by the clock of our sender reports. `None` before the
/// receiver had one, and if it claims to have waited longer than there was time.
pub fn round_trip(block: &ReportBlock, now_ntp_middle32: u32) -> Option<u32> {
    let elapsed = now_ntp_middle32.wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
    // The wrapping difference as signed tells an impossible wait.
    (block.last_sr != 0 && elapsed as i32 >= 0).then_some(elapsed)
}

macro_rules! list {
    ($name:ident, $bytes:expr, $item:ty, $read:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name<'a>(&'a [u8]);

        impl Iterator for $name<'_> {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                let (first, rest) = self.0.split_first_chunk::<{ $bytes }>()?;
                self.0 = rest;
                $read(first)
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                (self.0.len() / $bytes, Some(self.0.len() / $bytes))
            }
        }

        impl ExactSizeIterator for $name<'_> {}
    };
}

list!(Reports, REPORT_BLOCK_BYTES, ReportBlock, ReportBlock::read, "The blocks of a report.");
list!(Ssrcs, SSRC_BYTES, u32, |bytes: &[u8; SSRC_BYTES]| u32_at(bytes, 0), "The sources that a packet names.");
list!(
    NackPairs,
    NACK_PAIR_BYTES,
    (u16, u16),
    |bytes: &[u8; NACK_PAIR_BYTES]| Some((u16_at(bytes, 0)?, u16_at(bytes, 2)?)),
    "Numbers of lost packets, each with a mask of those lost among the sixteen after it."
);
list!(
    FirEntries,
    FIR_ENTRY_BYTES,
    (u32, u8),
    |bytes: &[u8; FIR_ENTRY_BYTES]| Some((u32_at(bytes, 0)?, *bytes.get(4)?)),
    "Sources asked for a keyframe, and the request's number: a repeated one is the same request."
);

impl<'a> NackPairs<'a> {
    /// Every sequence number asked for, in the order written.
    pub fn lost(self) -> impl Iterator<Item = u16> + use<'a> {
        self.flat_map(|(first, mask)| {
            let later = (1..=16u16).filter(move |bit| mask & (1 << (bit - 1)) != 0);
            std::iter::once(first).chain(later.map(move |distance| first.wrapping_add(distance)))
        })
    }
}

/// The packets of a compound in bytes, up to the first malformed one.
pub fn packets(compound: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let (.., after) = split(rest)?;
        let (packet, _) = rest.split_at(rest.len() - after.len());
        rest = after;
        Some(packet)
    })
}

/// Whether a packet may begin a compound.
pub fn is_report(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|packet_type| [SENDER_REPORT, RECEIVER_REPORT].contains(packet_type))
}

/// Whether a packet names sources.
pub fn is_source_description(packet: &[u8]) -> bool {
    packet.get(1) == Some(&SOURCE_DESCRIPTION)
}

/// Who sent a packet. In a source description or a BYE it is the first source; zero in one of none.
pub fn sender(packet: &[u8]) -> u32 {
    u32_at(packet, HEADER_BYTES).unwrap_or(0)
}

/// The packets of a compound, or of a reduced-size packet (RFC 5506); the first malformed one ends it.
pub fn parse(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// See [`parse`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let read = split(rest).and_then(|(packet_type, format, body, rest)| {
            let packet = read(packet_type, format, body)?;
            self.rest = rest;
            Some(packet)
        });
        Some(read.ok_or(Malformed))
    }
}

/// Splits the first packet off: its type, its format, its body without header and padding, and what follows.
fn split(compound: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let ([first, packet_type, high, low], _) = compound.split_first_chunk::<HEADER_BYTES>()?;
    if first & VERSION_MASK != VERSION_2 {
        return None;
    }
    // The length counts 32-bit words without the first (RFC 3550 §6.4.1).
    let length_bytes = (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4;
    let (packet, rest) = compound.split_at_checked(length_bytes)?;
    let mut body = packet.get(HEADER_BYTES..)?;
    if first & PADDING != 0 {
        // Allowed in the last packet only; taken off anywhere, for nothing depends on it. The last byte counts itself.
        let padding_bytes = usize::from(*body.last()?);
        let kept_bytes = body.len().checked_sub(padding_bytes).filter(|_| padding_bytes > 0)?;
        body = body.get(..kept_bytes)?;
    }
    Some((*packet_type, first & FORMAT_MASK, body, rest))
}

fn read(packet_type: u8, format: u8, body: &[u8]) -> Option<Packet<'_>> {
    let ssrc = || u32_at(body, 0);
    let media = || u32_at(body, 4);
    let control = || body.get(FEEDBACK_PREFIX_BYTES..);
    let count = usize::from(format);
    // What follows the report blocks is a profile's extension (RFC 3550 §6.4.3), which none of ours defines.
    let reports = |from: usize| body.get(from..from + count * REPORT_BLOCK_BYTES).map(Reports);
    Some(match (packet_type, format) {
        (SENDER_REPORT, _) => {
            let info = SenderInfo {
                ntp: u64_at(body, 4)?,
                rtp_timestamp: u32_at(body, 12)?,
                packets: u32_at(body, 16)?,
                octets: u32_at(body, 20)?,
            };
            Packet::SenderReport { ssrc: ssrc()?, info, reports: reports(SSRC_BYTES + SENDER_INFO_BYTES)? }
        }
        (RECEIVER_REPORT, _) => Packet::ReceiverReport { ssrc: ssrc()?, reports: reports(SSRC_BYTES)? },
        (SOURCE_DESCRIPTION, chunks) => Packet::SourceDescription { chunks, contents: body },
        (BYE, _) => Packet::Bye { ssrcs: Ssrcs(body.get(..count * SSRC_BYTES)?) },
        (TRANSPORT_FEEDBACK, NACK_FORMAT) => {
            Packet::Nack { sender: ssrc()?, media: media()?, pairs: NackPairs(whole(control()?, NACK_PAIR_BYTES)?) }
        }
        (TRANSPORT_FEEDBACK, TRANSPORT_WIDE_FORMAT) => Packet::TransportFeedback(Feedback::parse(body)?),
        (PAYLOAD_FEEDBACK, PLI_FORMAT) => Packet::Pli { sender: ssrc()?, media: media()? },
        (PAYLOAD_FEEDBACK, FIR_FORMAT) => {
            Packet::Fir { sender: ssrc()?, entries: FirEntries(whole(control()?, FIR_ENTRY_BYTES)?) }
        }
        (PAYLOAD_FEEDBACK, APPLICATION_FORMAT) if control()?.starts_with(REMB_NAME) => read_remb(ssrc()?, control()?)?,
        (EXTENDED_REPORT, _) => Packet::Extended { ssrc: ssrc()?, blocks: body.get(SSRC_BYTES..)? },
        _ => Packet::Other { packet_type, format },
    })
}

/// A list, if it ends with an entry.
fn whole(list: &[u8], entry_bytes: usize) -> Option<&[u8]> {
    list.len().is_multiple_of(entry_bytes).then_some(list)
}

fn read_remb(sender: u32, control: &[u8]) -> Option<Packet<'_>> {
    let word = u32_at(control, REMB_NAME.len())?;
    let (count, exponent) = ((word >> 24) as usize, (word >> REMB_MANTISSA_BITS) & 0x3f);
    let mantissa = u64::from(word & ((1 << REMB_MANTISSA_BITS) - 1));
    let bitrate_bps = mantissa << exponent;
    if bitrate_bps >> exponent != mantissa {
        return None;
    }
    let start = REMB_NAME.len() + 4;
    let ssrcs = Ssrcs(control.get(start..start + count * SSRC_BYTES)?);
    Some(Packet::Remb { sender, bitrate_bps, ssrcs })
}

#[cfg(test)]
mod tests;
