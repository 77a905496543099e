//! When the packets of a connection arrived, and the feedback that tells its sender.

use crate::rtp::rtcp::{Open, PACKET_BYTES_MAX, TRANSPORT_FEEDBACK, TRANSPORT_WIDE_FORMAT};

use super::*;

/// How many packets back arrivals are kept: half a second at 10 Mbit/s, and feedback leaves every tenth. At 8 bytes each
/// more would weigh, for every publisher has them. A power of two, so that numbers map to slots.
const WINDOW: u64 = 512;
/// No packet is that old when it arrives.
const ABSENT: u64 = u64::MAX;
/// Where numbering starts, so that packets before the first have numbers too.
const FIRST_CYCLE: u64 = 1 << 16;
const RTCP_HEADER_BYTES: usize = 4;

/// Records the arrival of packets that carry transport-wide sequence numbers.
///
/// As libwebrtc does, a packet that comes after it was reported lost starts the next feedback anew from itself, with
/// all that is known since.
#[derive(Debug)]
pub struct ArrivalRecorder {
    /// Microseconds, by extended number modulo [`WINDOW`]; slots outside `[end - WINDOW, end)` are [`ABSENT`].
    arrivals: Box<[u64]>,
    /// After the highest number received.
    end: u64,
    /// The next to report.
    start: u64,
    feedback_count: u8,
    /// Kept for their memory.
    symbols: Vec<u8>,
    deltas: Vec<u8>,
}

impl Default for ArrivalRecorder {
    fn default() -> Self {
        Self {
            arrivals: vec![ABSENT; WINDOW as usize].into(),
            end: 0,
            start: 0,
            feedback_count: 0,
            symbols: Vec::with_capacity(WINDOW as usize),
            deltas: Vec::with_capacity(PACKET_BYTES_MAX),
        }
    }
}

impl ArrivalRecorder {
    /// A packet arrived. The clock may have any origin, but must not go backwards.
    pub fn record(&mut self, sequence: u16, arrival_us: u64) {
        if self.end == 0 {
            self.start = FIRST_CYCLE + u64::from(sequence);
            self.end = self.start;
        }
        // The nearest number to the one expected, so that it may lie behind or ahead by half a cycle.
        let distance = sequence.wrapping_sub(self.end as u16) as i16;
        let Some(number) = self.end.checked_add_signed(i64::from(distance)) else { return };
        if number < self.oldest() {
            return;
        }
        if number >= self.end {
            let first_skipped = self.end.max((number + 1).saturating_sub(WINDOW));
            for skipped in first_skipped..number {
                self.put(skipped, ABSENT);
            }
            self.end = number + 1;
            self.start = self.start.max(self.oldest());
        } else if self.arrival(number).is_some() {
            return;
        }
        self.put(number, arrival_us.min(ABSENT - 1));
        self.start = self.start.min(number);
    }

    /// Whether there is something to report.
    pub fn has_news(&self) -> bool {
        self.start < self.end
    }

    /// Appends one feedback packet about what arrived since the last. Whether it did; ask again until it did not.
    pub fn build(&mut self, out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32) -> bool {
        // The last number of the range has arrived, so something in it has.
        let Some(first_us) = (self.start..self.end).find_map(|number| self.arrival(number)) else { return false };
        let reference_64ms = ticks(first_us).div_euclid(REFERENCE_TICKS);
        let base = self.start;
        self.collect(reference_64ms * REFERENCE_TICKS);
        let packet = Open::start(out, TRANSPORT_FEEDBACK, TRANSPORT_WIDE_FORMAT);
        out.extend_from_slice(&sender_ssrc.to_be_bytes());
        out.extend_from_slice(&media_ssrc.to_be_bytes());
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(self.symbols.len() as u16).to_be_bytes());
        let [.., high, middle, low] = reference_64ms.to_be_bytes();
        out.extend_from_slice(&[high, middle, low, self.feedback_count]);
        write_chunks(out, &self.symbols);
        out.extend_from_slice(&self.deltas);
        // The draft's figure fills the last word with zeros and does not call them padding.
        packet.close(out);
        self.feedback_count = self.feedback_count.wrapping_add(1);
        true
    }

    /// Moves as many statuses and deltas as fit one packet from the front of what is to be reported.
    fn collect(&mut self, reference_ticks: i64) {
        self.symbols.clear();
        self.deltas.clear();
        let mut last_ticks = reference_ticks;
        while self.start < self.end {
            let mut symbol = NOT_RECEIVED;
            if let Some(arrival_us) = self.arrival(self.start) {
                let delta = ticks(arrival_us) - last_ticks;
                // A longer pause begins a new packet, with a reference time of its own.
                let Ok(large) = i16::try_from(delta) else { return };
                last_ticks += delta;
                match u8::try_from(delta) {
                    Ok(small) => {
                        symbol = SMALL_DELTA;
                        self.deltas.push(small);
                    }
                    Err(_) => {
                        symbol = LARGE_DELTA;
                        self.deltas.extend_from_slice(&large.to_be_bytes());
                    }
                }
            }
            self.symbols.push(symbol);
            self.start += 1;
            // `write_chunks` puts at least seven statuses into every chunk but the last.
            let chunk_bytes = (self.symbols.len() + 1).div_ceil(usize::from(TWO_BIT_SYMBOLS)) * CHUNK_BYTES;
            let next_delta_bytes = 2;
            let bytes = RTCP_HEADER_BYTES + PREFIX_BYTES + chunk_bytes + self.deltas.len() + next_delta_bytes;
            if bytes > PACKET_BYTES_MAX {
                return;
            }
        }
    }

    fn oldest(&self) -> u64 {
        self.end.saturating_sub(WINDOW)
    }

    fn arrival(&self, number: u64) -> Option<u64> {
        self.arrivals.get((number % WINDOW) as usize).copied().filter(|arrival| *arrival != ABSENT)
    }

    fn put(&mut self, number: u64, arrival_us: u64) {
        if let Some(slot) = self.arrivals.get_mut((number % WINDOW) as usize) {
            *slot = arrival_us;
        }
    }
}

/// Whole ticks, on a grid that all packets share, so that errors do not add up.
fn ticks(arrival_us: u64) -> i64 {
    (arrival_us / TICK_MICROS) as i64
}

/// Writes statuses in few chunks: a run if it is long or the last, else one bit each if none is large, else two bits.
fn write_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    let mut rest = symbols;
    while let Some(first) = rest.first() {
        let run = rest.iter().take(usize::from(MAX_RUN)).take_while(|symbol| *symbol == first).count();
        let ahead = |most: u16| rest.get(..usize::from(most)).unwrap_or(rest);
        let fits_one_bit = !ahead(ONE_BIT_SYMBOLS).contains(&LARGE_DELTA);
        let long = if fits_one_bit { ONE_BIT_SYMBOLS } else { TWO_BIT_SYMBOLS };
        let (chunk, taken) = if run >= usize::from(long) || run == rest.len() {
            // Bounded by MAX_RUN above.
            ((u16::from(*first) << RUN_SYMBOL_SHIFT) | run as u16, run)
        } else if fits_one_bit {
            (VECTOR | pack(ahead(ONE_BIT_SYMBOLS), ONE_BIT_SYMBOLS, 1), ahead(ONE_BIT_SYMBOLS).len())
        } else {
            (VECTOR | TWO_BIT | pack(ahead(TWO_BIT_SYMBOLS), TWO_BIT_SYMBOLS, 2), ahead(TWO_BIT_SYMBOLS).len())
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        rest = rest.get(taken..).unwrap_or(&[]);
    }
}

/// Statuses from the top of a vector chunk's 14 bits down.
fn pack(symbols: &[u8], most: u16, bits: u16) -> u16 {
    let shifts = (0..most).rev().map(|place| place * bits);
    symbols.iter().zip(shifts).fold(0, |chunk, (symbol, shift)| chunk | (u16::from(*symbol) << shift))
}
