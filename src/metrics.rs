//! The Prometheus registry: names, help texts, closed label sets. Labels never carry ids, names or addresses.

use crate::media::meter::{Drops, PerKind, Volume};

/// Upper bounds of the forward-latency buckets, in seconds: 50 µs to 50 ms.
pub const LATENCY_BOUNDS_SECONDS: [f64; 10] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];

/// One shard's counters, as absolute values since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardSnapshot {
    /// Gauges.
    pub rooms: u64,
    pub participants: u64,
    pub sessions_connecting: u64,
    pub sessions_udp: u64,
    pub sessions_tcp: u64,
    pub tracks_published: PerKind<u64>,
    pub tracks_subscribed: PerKind<u64>,
    /// Distinct client addresses of connected sessions now.
    pub addresses_ipv4: u64,
    pub addresses_ipv6: u64,
    /// Counters.
    pub rtp_in: PerKind<Volume>,
    pub rtp_out: PerKind<Volume>,
    pub drops: Drops,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub send_errors: u64,
    pub keyframe_requests_in: u64,
    pub keyframe_requests_out: u64,
    pub notices_lost: u64,
    /// Socket in to socket out; one count a bucket of [`LATENCY_BOUNDS_SECONDS`], then one above all.
    pub latency_buckets: [u64; LATENCY_BOUNDS_SECONDS.len() + 1],
    pub latency_sum_ns: u64,
    /// Time the thread worked, not slept, since its start.
    pub busy_ns: u64,
    /// Share of the last second it worked, in thousandths.
    pub busy_permille: u64,
}
