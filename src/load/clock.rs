//! The load tool's clocks; nothing else in it reads one.

use std::time::{Duration, Instant, SystemTime};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the load tool plays the clients' part, with a clock of their own")]
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970, on the clock by which the kernel stamps what it receives (`SO_TIMESTAMPNS`).
#[expect(clippy::disallowed_methods, reason = "the load tool plays the clients' part, with a clock of their own")]
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Waits until a time.
#[expect(clippy::disallowed_methods, reason = "sockets are read on a grid, so that no packet wakes a sleeper")]
pub fn sleep_until(at: Instant) {
    let pause = at.saturating_duration_since(now());
    if pause > Duration::ZERO {
        std::thread::sleep(pause);
    }
}
