//! What a shard's thread shows to other threads: that it turns, and its counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::ShardSnapshot;

/// Shared by a shard's thread and control.
pub(crate) struct Status {
    /// Tells the thread to end.
    pub(crate) stop: AtomicBool,
    /// False once the thread has ended, also by a panic.
    running: AtomicBool,
    epoch: Instant,
    /// When the loop last turned: milliseconds since `epoch`.
    heartbeat_ms: AtomicU64,
    snapshot: Mutex<ShardSnapshot>,
}

impl Status {
    /// The status of a thread about to start.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            stop: AtomicBool::new(false),
            running: AtomicBool::new(true),
            epoch: now,
            heartbeat_ms: AtomicU64::new(0),
            snapshot: Mutex::default(),
        }
    }

    /// The loop turns.
    pub(crate) fn beat(&self, now: Instant) {
        self.heartbeat_ms.store(self.since_epoch(now), Ordering::Relaxed);
    }

    /// The thread is gone.
    pub(crate) fn end(&self) {
        self.running.store(false, Ordering::Release);
    }

    /// Whether the loop runs and has turned within the last `within`.
    pub(crate) fn has_turned(&self, within: Duration, now: Instant) -> bool {
        let silence = self.since_epoch(now).saturating_sub(self.heartbeat_ms.load(Ordering::Relaxed));
        self.running.load(Ordering::Acquire) && u128::from(silence) <= within.as_millis()
    }

    /// Copies the counters out.
    pub(crate) fn publish(&self, counters: &ShardSnapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = *counters;
    }

    /// The counters last copied out.
    pub(crate) fn snapshot(&self) -> ShardSnapshot {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_or_ended_shard_does_not_turn() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let status = Status::new(start);
        status.beat(at(1000));
        assert!(status.has_turned(Duration::from_secs(2), at(3000)));
        assert!(!status.has_turned(Duration::from_secs(2), at(3001)));
        assert!(status.has_turned(Duration::ZERO, at(500)), "clocks of two threads may differ a little");
        status.end();
        assert!(!status.has_turned(Duration::from_secs(2), at(1000)));
    }
}
