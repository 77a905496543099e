//! Builders of RTCP packets. Each appends to a buffer, so that one after the other makes a compound packet.

use super::*;

/// A count in five bits.
const MAX_COUNT: usize = FORMAT_MASK as usize;
/// CNAME (RFC 3550 §6.5.1), whose length is one byte.
const CNAME_ITEM: u8 = 1;
const MAX_ITEM_BYTES: usize = 255;
/// Pairs in one NACK packet.
const MAX_NACK_PAIRS: usize = (PACKET_BYTES_MAX - HEADER_BYTES - FEEDBACK_PREFIX_BYTES) / NACK_PAIR_BYTES;
/// A REMB counts its sources in one byte.
const MAX_REMB_SSRCS: usize = 255;

/// A packet under construction at the end of a buffer; [`Open::close`] fills in its length.
pub(in crate::rtp) struct Open(usize);

impl Open {
    /// Appends the header.
    pub(in crate::rtp) fn start(out: &mut Vec<u8>, packet_type: u8, format: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[VERSION_2 | (format & FORMAT_MASK), packet_type, 0, 0]);
        Self(start)
    }

    /// Appends zeros up to a whole word and writes the length.
    pub(in crate::rtp) fn close(self, out: &mut Vec<u8>) {
        let words = out.len().saturating_sub(self.0).div_ceil(4);
        out.resize(self.0 + words * 4, 0);
        // Every builder bounds what it lists, far below 65536 words.
        let length = (words.saturating_sub(1) as u16).to_be_bytes();
        if let Some(field) = out.get_mut(self.0 + 2..self.0 + 4) {
            field.copy_from_slice(&length);
        }
    }
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

fn put_block(out: &mut Vec<u8>, block: &ReportBlock) {
    let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
    let losses = (u32::from(block.fraction_lost) << 24) | lost;
    let times = [block.highest_sequence, block.jitter, block.last_sr, block.delay_since_last_sr];
    put(out, &[block.ssrc, losses]);
    put(out, &times);
}

/// Appends a sender report. Blocks beyond 31 follow in receiver reports (RFC 3550 §6.1).
pub fn sender_report(out: &mut Vec<u8>, ssrc: u32, info: &SenderInfo, blocks: &[ReportBlock]) {
    let (first, further) = blocks.split_at_checked(MAX_COUNT).unwrap_or((blocks, &[]));
    let packet = Open::start(out, SENDER_REPORT, first.len() as u8);
    put(out, &[ssrc]);
    out.extend_from_slice(&info.ntp.to_be_bytes());
    put(out, &[info.rtp_timestamp, info.packets, info.octets]);
    first.iter().for_each(|block| put_block(out, block));
    packet.close(out);
    if !further.is_empty() {
        receiver_report(out, ssrc, further);
    }
}

/// Appends a receiver report, an empty one without blocks, and further ones beyond 31.
pub fn receiver_report(out: &mut Vec<u8>, sender_ssrc: u32, blocks: &[ReportBlock]) {
    let mut rest = blocks;
    loop {
        let (blocks, further) = rest.split_at_checked(MAX_COUNT).unwrap_or((rest, &[]));
        let packet = Open::start(out, RECEIVER_REPORT, blocks.len() as u8);
        put(out, &[sender_ssrc]);
        blocks.iter().for_each(|block| put_block(out, block));
        packet.close(out);
        if further.is_empty() {
            return;
        }
        rest = further;
    }
}

/// Appends a source description of one source's CNAME, cut off after 255 bytes.
pub fn source_description(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let bytes = cname.as_bytes();
    let name = bytes.get(..MAX_ITEM_BYTES).unwrap_or(bytes);
    let packet = Open::start(out, SOURCE_DESCRIPTION, 1);
    put(out, &[ssrc]);
    out.extend_from_slice(&[CNAME_ITEM, name.len() as u8]);
    out.extend_from_slice(name);
    // At least one zero ends the list of items (§6.5), more fill the word.
    out.push(0);
    packet.close(out);
}

/// Appends a BYE of these sources; nothing for none.
pub fn bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    for ssrcs in ssrcs.chunks(MAX_COUNT) {
        let packet = Open::start(out, BYE, ssrcs.len() as u8);
        put(out, ssrcs);
        packet.close(out);
    }
}

/// Appends requests for lost packets, whose numbers ascend (and may wrap); nothing for none.
pub fn nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: impl Iterator<Item = u16>) {
    let mut pairs = 0;
    let mut packet: Option<Open> = None;
    let mut flush = |out: &mut Vec<u8>, first: u16, mask: u16| {
        let open = packet.take().unwrap_or_else(|| {
            let open = Open::start(out, TRANSPORT_FEEDBACK, NACK_FORMAT);
            put(out, &[sender, media]);
            open
        });
        put(out, &[(u32::from(first) << 16) | u32::from(mask)]);
        pairs += 1;
        // Closed after every pair, and taken up again by the next: closing only writes the length.
        let start = open.0;
        open.close(out);
        packet = (pairs % MAX_NACK_PAIRS != 0).then_some(Open(start));
    };
    let mut pending: Option<(u16, u16)> = None;
    for number in lost {
        pending = Some(match pending {
            None => (number, 0),
            Some((first, mask)) => match number.wrapping_sub(first) {
                0 => (first, mask),
                distance @ 1..=16 => (first, mask | (1 << (distance - 1))),
                _ => {
                    flush(out, first, mask);
                    (number, 0)
                }
            },
        });
    }
    if let Some((first, mask)) = pending {
        flush(out, first, mask);
    }
}

/// Appends a picture loss indication (RFC 4585 §6.3.1).
pub fn pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    let packet = Open::start(out, PAYLOAD_FEEDBACK, PLI_FORMAT);
    put(out, &[sender, media]);
    packet.close(out);
}

/// Appends a full intra request of these sources, each with the number of the request (RFC 5104 §4.3.1).
pub fn fir(out: &mut Vec<u8>, sender: u32, entries: &[(u32, u8)]) {
    for entries in entries.chunks(MAX_COUNT) {
        let packet = Open::start(out, PAYLOAD_FEEDBACK, FIR_FORMAT);
        // The media source stands in the entries; the field for it is zero (§4.3.1.2).
        put(out, &[sender, 0]);
        for (ssrc, number) in entries {
            put(out, &[*ssrc, u32::from(*number) << 24]);
        }
        packet.close(out);
    }
}

/// Appends a REMB; the bitrate is rounded down to 18 significant bits.
pub fn remb(out: &mut Vec<u8>, sender: u32, bitrate_bps: u64, ssrcs: &[u32]) {
    let ssrcs = ssrcs.get(..MAX_REMB_SSRCS).unwrap_or(ssrcs);
    let exponent = (u64::BITS - bitrate_bps.leading_zeros()).saturating_sub(REMB_MANTISSA_BITS);
    let mantissa = (bitrate_bps >> exponent) as u32;
    let packet = Open::start(out, PAYLOAD_FEEDBACK, APPLICATION_FORMAT);
    put(out, &[sender, 0]);
    out.extend_from_slice(REMB_NAME);
    put(out, &[((ssrcs.len() as u32) << 24) | (exponent << REMB_MANTISSA_BITS) | mantissa]);
    put(out, ssrcs);
    packet.close(out);
}
