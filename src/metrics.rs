//! The Prometheus registry: names, help texts, closed label sets. Labels never carry ids, names or addresses.

use crate::rtc::Stats;

/// Upper bounds of the forward-latency buckets, in seconds: 50 µs to 50 ms.
pub const LATENCY_BOUNDS_SECONDS: [f64; 10] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];

/// One shard's counters, as absolute values since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardSnapshot {
    pub engine: Stats,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Datagrams the kernel or a full queue did not take.
    pub send_errors: u64,
    /// Notices lost because control did not keep up.
    pub notices_lost: u64,
    /// Socket in to socket out of forwarded RTP; one count a bucket of [`LATENCY_BOUNDS_SECONDS`], then one above all.
    pub latency_buckets: [u64; LATENCY_BOUNDS_SECONDS.len() + 1],
    pub latency_sum_ns: u64,
    /// Time the thread worked, not slept, since its start.
    pub busy_ns: u64,
    /// Share of the last second it worked, in thousandths.
    pub busy_permille: u64,
}
