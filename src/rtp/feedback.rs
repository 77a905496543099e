//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! The receiver of a connection's packets tells which arrived, and when, to 250 µs. Times are differences from one
//! arrived packet to the next in the order of sequence numbers, the first from the packet's reference time.

mod recorder;

pub use recorder::ArrivalRecorder;

use super::octets::{i24_at, u16_at, u32_at};

/// SSRCs, base sequence number, status count, reference time, feedback count.
const PREFIX_BYTES: usize = 16;
const CHUNK_BYTES: usize = 2;
/// Arrivals are counted in these.
pub const TICK_MICROS: u64 = 250;
/// A reference time counts 64 ms.
pub const REFERENCE_TICKS: i64 = 256;

/// Packet status symbols (§3.1.1); the fourth is reserved.
const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// Chunk layouts (§3.1.3, §3.1.4).
const VECTOR: u16 = 0x8000;
const TWO_BIT: u16 = 0x4000;
const RUN_SYMBOL_SHIFT: u32 = 13;
const MAX_RUN: u16 = 0x1fff;
const ONE_BIT_SYMBOLS: u16 = 14;
const TWO_BIT_SYMBOLS: u16 = 7;

/// A feedback message, checked: its packets can be walked without failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback<'a> {
    pub sender: u32,
    pub media: u32,
    /// The first packet's transport-wide sequence number.
    pub base_sequence: u16,
    /// How many packets it tells about. A lie costs the sender three bytes, so compare it with what was sent before
    /// walking them.
    pub packet_count: u16,
    /// On the receiver's clock; wraps every 12 days.
    pub reference_time_64ms: i32,
    /// Numbers the messages, so that the loss of one shows.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads what follows the RTCP header. `None` if there are fewer chunks or deltas than packets, for a reserved
    /// symbol, and for no packets at all.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let packet_count = u16_at(body, 10).filter(|count| *count > 0)?;
        let statuses = body.get(PREFIX_BYTES..)?;
        let (mut chunk_bytes, mut delta_bytes, mut left) = (0, 0, packet_count);
        while left > 0 {
            let chunk = Chunk(u16_at(statuses, chunk_bytes)?);
            chunk_bytes += CHUNK_BYTES;
            let symbols = chunk.symbols().min(left);
            delta_bytes += chunk.delta_bytes(symbols)?;
            left -= symbols;
        }
        let (chunks, rest) = statuses.split_at_checked(chunk_bytes)?;
        Some(Self {
            sender: u32_at(body, 0)?,
            media: u32_at(body, 4)?,
            base_sequence: u16_at(body, 8)?,
            packet_count,
            reference_time_64ms: i24_at(body, 12)?,
            feedback_count: *body.get(15)?,
            chunks,
            // What is left fills the last word.
            deltas: rest.get(..delta_bytes)?,
        })
    }

    /// Every packet it tells about, in the order of sequence numbers.
    pub fn packets(&self) -> Packets<'a> {
        Packets {
            chunks: self.chunks,
            deltas: self.deltas,
            chunk: Chunk(0),
            index: 0,
            left: self.packet_count,
            sequence: self.base_sequence,
            ticks: 0,
        }
    }
}

/// Statuses of several packets in 16 bits.
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    /// How many packets it tells about.
    fn symbols(self) -> u16 {
        match self.0 {
            bits if bits & VECTOR == 0 => bits & MAX_RUN,
            bits if bits & TWO_BIT == 0 => ONE_BIT_SYMBOLS,
            _ => TWO_BIT_SYMBOLS,
        }
    }

    /// The status of one of them.
    fn symbol(self, index: u16) -> u8 {
        // An index beyond the chunk, which no caller has, reads as the last.
        let symbol = match self.0 {
            bits if bits & VECTOR == 0 => bits >> RUN_SYMBOL_SHIFT,
            bits if bits & TWO_BIT == 0 => (bits >> (ONE_BIT_SYMBOLS - 1).saturating_sub(index)) & 1,
            bits => bits >> (2 * (TWO_BIT_SYMBOLS - 1).saturating_sub(index)),
        };
        (symbol & 3) as u8
    }

    /// How many bytes of deltas its first packets have. `None` for the reserved symbol.
    fn delta_bytes(self, symbols: u16) -> Option<usize> {
        if self.0 & VECTOR == 0 {
            // At once, for a run may be long.
            return Some(delta_bytes(self.symbol(0))? * usize::from(symbols));
        }
        (0..symbols).map(|index| delta_bytes(self.symbol(index))).sum()
    }
}

/// How many bytes the delta of a status takes.
fn delta_bytes(symbol: u8) -> Option<usize> {
    match symbol {
        NOT_RECEIVED => Some(0),
        SMALL_DELTA => Some(1),
        LARGE_DELTA => Some(2),
        _ => None,
    }
}

/// See [`Feedback::packets`]: the sequence number, and when it arrived, in ticks after the reference time.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    chunks: &'a [u8],
    deltas: &'a [u8],
    chunk: Chunk,
    /// Within the chunk.
    index: u16,
    left: u16,
    sequence: u16,
    ticks: i64,
}

impl Iterator for Packets<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // A run may be of length zero.
        while self.index >= self.chunk.symbols() {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            (self.chunk, self.chunks, self.index) = (Chunk(u16::from_be_bytes(*chunk)), rest, 0);
        }
        let symbol = self.chunk.symbol(self.index);
        self.index += 1;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let delta = match symbol {
            SMALL_DELTA => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(*delta)
            }
            LARGE_DELTA => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
            _ => return Some((sequence, None)),
        };
        self.ticks += delta;
        Some((sequence, Some(self.ticks)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

#[cfg(test)]
mod tests;
