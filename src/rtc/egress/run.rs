//! Datagrams that leave with one send.

/// Packets in one run, and bytes: what one GSO send takes (UDP_MAX_SEGMENTS is 64 on older kernels, 64 KB of IP).
const RUN_PACKETS_MAX: usize = 60;
pub const RUN_BYTES_MAX: usize = 62_000;

/// The run being filled.
#[derive(Default)]
pub struct Run {
    /// The first packet's length; what follows is as long, and only the last may be shorter.
    pub segment: usize,
    packets: usize,
    ended: bool,
}

impl Run {
    /// Whether a packet of so many bytes may join, after so many.
    pub fn takes(&self, bytes: usize, already: usize) -> bool {
        self.packets == 0
            || (!self.ended
                && bytes <= self.segment
                && self.packets < RUN_PACKETS_MAX
                && already + bytes <= RUN_BYTES_MAX)
    }

    /// A packet of so many bytes has joined.
    pub fn took(&mut self, bytes: usize) {
        if self.packets == 0 {
            self.segment = bytes;
        }
        self.ended = bytes < self.segment;
        self.packets += 1;
    }
}
