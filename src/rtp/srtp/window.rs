//! Which packets came already: extended sequence numbers of SRTP and replay windows (RFC 3711 §3.3).

use super::RTP_INDEX_MAX;
use crate::rtp::numbers::NumberWindow;

/// Half the sequence numbers: what is further from the highest one belongs to the rollover next to it.
const HALF_RANGE: u16 = 1 << 15;
/// SRTCP windows of one peer. A peer sends RTCP under few SSRCs, and only an authentic packet opens a window.
const RTCP_SSRCS_MAX: usize = 32;

/// Estimates the extended sequence number of a received packet (RFC 3711 §3.3.1, appendix A) and tells replays within
/// a [`NumberWindow`]. One for each received SSRC.
#[derive(Debug, Clone, Default)]
pub struct RolloverTracker(NumberWindow);

impl RolloverTracker {
    pub fn new() -> Self {
        Self::default()
    }

    /// The index a packet with this sequence number most likely has; its authentication proves or refutes it.
    pub fn guess(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest() else { return seq.into() };
        let (rollovers, [.., high, low]) = (highest >> 16, highest.to_be_bytes());
        let last = u16::from_be_bytes([high, low]);
        let guessed = if last < HALF_RANGE && seq > last && seq - last > HALF_RANGE {
            // Before the first rollover nothing can be older; the RFC's count of -1 would never be authentic.
            rollovers.saturating_sub(1)
        } else if last >= HALF_RANGE && last - HALF_RANGE > seq {
            rollovers + 1
        } else {
            rollovers
        };
        guessed << 16 | u64::from(seq)
    }

    /// Whether the packet was accepted before, or is too old to tell.
    pub fn is_replay(&self, index: u64) -> bool {
        self.0.is_past(index) || self.0.contains(index)
    }

    /// To be called once the packet proved authentic.
    pub fn accept(&mut self, index: u64) {
        debug_assert!(index <= RTP_INDEX_MAX, "an authentic packet has an index of 48 bits");
        self.0.insert(index);
    }

    pub fn highest(&self) -> Option<u64> {
        self.0.highest()
    }
}

/// Replay windows of SRTCP: RFC 3711 has one index for all of a sender's packets, libsrtp one for each SSRC. A window
/// for each SSRC serves both.
#[derive(Default)]
pub(super) struct RtcpWindows {
    /// The one used longest ago comes first.
    windows: Vec<RtcpWindow>,
}

struct RtcpWindow {
    ssrc: u32,
    highest: u32,
    /// Bit n: `highest - n` was accepted.
    seen: u64,
}

impl RtcpWindows {
    pub(super) fn is_replay(&self, ssrc: u32, index: u32) -> bool {
        self.windows.iter().any(|window| window.ssrc == ssrc && window.is_replay(index))
    }

    /// To be called once the packet proved authentic.
    pub(super) fn accept(&mut self, ssrc: u32, index: u32) {
        let window = match self.windows.iter().position(|window| window.ssrc == ssrc) {
            Some(at) => {
                let mut window = self.windows.remove(at);
                window.accept(index);
                window
            }
            None => RtcpWindow { ssrc, highest: index, seen: 1 },
        };
        if self.windows.len() == RTCP_SSRCS_MAX {
            self.windows.remove(0);
        }
        self.windows.push(window);
    }
}

impl RtcpWindow {
    fn is_replay(&self, index: u32) -> bool {
        let Some(age) = self.highest.checked_sub(index) else { return false };
        age >= u64::BITS || self.seen >> age & 1 == 1
    }

    fn accept(&mut self, index: u32) {
        match self.highest.checked_sub(index) {
            Some(age) => self.seen |= 1_u64.checked_shl(age).unwrap_or_default(),
            None => {
                self.seen = self.seen.checked_shl(index - self.highest).unwrap_or_default() | 1;
                self.highest = index;
            }
        }
    }
}
