//! What is counted while the tool runs; begun anew with the measuring window.

use super::histogram::Histogram;

/// Layers are counted up to three encodings; 0 is audio.
pub const STREAMS: usize = 4;

/// Everything counted over all participants.
#[derive(Clone, Default)]
pub struct Counts {
    /// Media packets sent, without retransmissions and feedback.
    pub video_sent: u64,
    pub audio_sent: u64,
    /// Of them packets of somebody silent.
    pub silent_sent: u64,
    /// Media packets received, each once.
    pub video_received: u64,
    pub audio_received: u64,
    pub silent_received: u64,
    /// By stream: audio, then video layers from the smallest.
    pub by_stream: [u64; STREAMS],
    pub duplicates: u64,
    /// By gaps in the sequence numbers of what the server sent.
    pub lost: u64,
    /// Came by retransmission.
    pub repaired: u64,
    /// Packets of nothing but padding.
    pub padding: u64,
    /// Packets without a mark, of an unknown stream or that did not open.
    pub strange: u64,
    pub frames_complete: u64,
    pub frames_incomplete: u64,
    pub freezes: u64,
    pub frozen_ns: u64,
    pub nacks_sent: u64,
    pub nacks_received: u64,
    pub resent: u64,
    pub plis_sent: u64,
    pub plis_received: u64,
    pub feedbacks_sent: u64,
    pub channel_messages: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub send_errors: u64,
    /// Nanoseconds from stamp to the socket's queue.
    pub latency_ns: Histogram,
    pub audio_latency_ns: Histogram,
    pub jitter_ns: Histogram,
    /// By how much turns of the loop came late.
    pub late_ns: Histogram,
    pub joins: Joins,
    pub left: u64,
}

/// How joins went.
#[derive(Clone, Default)]
pub struct Joins {
    pub failed: u64,
    /// From the request to a finished DTLS handshake.
    pub connected_ns: Histogram,
    /// From the request to the first media packet.
    pub first_packet_ns: Histogram,
}

impl Joins {
    pub fn add(&mut self, other: &Self) {
        self.failed += other.failed;
        self.connected_ns.add(&other.connected_ns);
        self.first_packet_ns.add(&other.first_packet_ns);
    }
}

impl Counts {
    pub fn received(&self) -> u64 {
        self.video_received + self.audio_received
    }

    pub fn sent(&self) -> u64 {
        self.video_sent + self.audio_sent
    }
}
