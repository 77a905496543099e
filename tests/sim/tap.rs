//! Listens in where datagrams enter and leave the engine. Headers of SRTP are in the clear, and say enough.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::check::Faults;

/// A stream of one member, by SSRC.
pub type StreamKey = (usize, u32);

/// The header fields of a packet that left the engine.
#[derive(Debug, Clone, Copy)]
pub struct Emitted {
    pub at: Instant,
    pub timestamp: u32,
}

/// Everything one stream has sent, by extended sequence number.
#[derive(Debug, Default)]
pub struct Stream {
    pub emitted: BTreeMap<u64, Emitted>,
    /// Retransmissions travel on their own SSRC; their timestamps jump.
    pub resends: bool,
    newest: u64,
}

/// What has passed.
#[derive(Debug, Default)]
pub struct Tap {
    /// Out of the engine, to a member.
    pub out: BTreeMap<StreamKey, Stream>,
    /// Into the engine, from a member, from an address that had been checked before.
    pub delivered: BTreeMap<StreamKey, BTreeMap<u16, Instant>>,
    /// RTP packets out, without retransmissions.
    pub forwarded: u64,
    checked: BTreeSet<SocketAddr>,
}

/// The interesting half of an RTP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// Reads an RTP header; `None` for anything else (RFC 7983, RFC 5761).
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let header: &[u8; 12] = datagram.first_chunk()?;
        let payload_type = header[1] & 0x7f;
        if !(128..192).contains(&header[0]) || (64..96).contains(&payload_type) {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            payload_type,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: word(4),
            ssrc: word(8),
        })
    }
}

/// The number nearest to `newest` that ends in these 16 bits.
fn extend(sequence: u16, newest: u64) -> u64 {
    let distance = i64::from(sequence.wrapping_sub(newest as u16) as i16);
    // Below zero only where a stream begins with a straggler of before its first packet.
    newest.checked_add_signed(distance).unwrap_or(u64::from(sequence))
}

impl Tap {
    /// A datagram left the engine for a member.
    pub fn leaves(
        &mut self,
        member: usize,
        datagram: &[u8],
        is_resend: impl Fn(u8) -> bool,
        now: Instant,
        faults: &mut Faults,
    ) {
        let Some(header) = Header::parse(datagram) else { return };
        let stream = self.out.entry((member, header.ssrc)).or_default();
        stream.resends = is_resend(header.payload_type);
        if !stream.resends {
            self.forwarded += 1;
        }
        let sequence = match stream.emitted.is_empty() {
            true => u64::from(header.sequence),
            false => extend(header.sequence, stream.newest),
        };
        stream.newest = stream.newest.max(sequence);
        let emitted = Emitted { at: now, timestamp: header.timestamp };
        if stream.emitted.insert(sequence, emitted).is_some() {
            // With the same key and the same number this would also be the same AES-GCM nonce.
            faults.add(format!("sequence number {sequence} of SSRC {} is used twice", header.ssrc));
        }
    }

    /// A datagram of a member is about to enter the engine.
    pub fn enters(&mut self, member: usize, source: SocketAddr, datagram: &[u8], now: Instant) {
        if datagram.first().is_some_and(|byte| *byte < 2) {
            self.checked.insert(source);
        } else if let Some(header) = Header::parse(datagram)
            && self.checked.contains(&source)
        {
            self.delivered.entry((member, header.ssrc)).or_default().entry(header.sequence).or_insert(now);
        }
    }
}

#[test]
fn sequence_numbers_extend_over_the_wrap() {
    assert_eq!(extend(2, 65_534), 65_538);
    assert_eq!(extend(65_534, 65_538), 65_534);
    assert_eq!(extend(5, 5), 5);
    assert_eq!(extend(65_535, 0), 65_535);
}
