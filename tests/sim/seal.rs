//! Seals entropy and the clock, so that one seed gives one trace.
//!
//! std's map keys and rand end in `getrandom`; NTP times end in `clock_gettime`. This test binary defines both symbols.
//! On a thread that [`sealed`] started they answer from a seed and from virtual time; on every other thread they are
//! the kernel's own. fastrand, of which str0m makes ids, would seed itself from the thread's number, so it is seeded
//! here. All of these keep their state per thread, so each scenario gets a fresh one.
//!
//! The only file of the project that may say `unsafe`: a symbol cannot be replaced without it.
#![allow(unsafe_code, reason = "a libc symbol cannot be replaced without it")]

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Where virtual time starts, for both clocks: an hour and more after zero, because str0m looks an hour back.
const EPOCH: Duration = Duration::from_secs(1_000_000_000);

thread_local! {
    static ENTROPY: Cell<Option<u64>> = const { Cell::new(None) };
    static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `scenario` on a fresh, sealed thread. It is handed the start of virtual time.
pub fn sealed<T: Send + 'static>(seed: u64, scenario: impl FnOnce(Instant) -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().name(format!("seed-{seed}")).spawn(move || {
        ENTROPY.set(Some(seed ^ 0x5EA1_ED00_5EA1_ED00));
        CLOCK.set(Some(EPOCH.as_nanos() as u64));
        fastrand::seed(seed);
        scenario(now())
    });
    match thread.expect("a thread").join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Moves the sealed clock to `elapsed` after the start of virtual time.
pub fn set_elapsed(elapsed: Duration) {
    CLOCK.set(Some((EPOCH + elapsed).as_nanos() as u64));
}

#[allow(clippy::disallowed_methods, reason = "the clock is sealed: this reads virtual time")]
fn now() -> Instant {
    Instant::now()
}

/// One step of SplitMix64: the next state and its output.
pub fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state, z ^ (z >> 31))
}

/// # Safety
/// As `getrandom(2)`: `buffer` points to `length` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let Some(mut state) = ENTROPY.get() else {
        // SAFETY: the caller's promise is the system call's.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller promises `length` writable bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        let (next, value) = split_mix(state);
        state = next;
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
    ENTROPY.set(Some(state));
    length as isize
}

/// # Safety
/// As `clock_gettime(2)`: `time` points to a writable `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Some(nanos) = CLOCK.get() else {
        // SAFETY: the caller's promise is the system call's.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int };
    };
    let virtual_time = libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the caller promises a writable `timespec`.
    unsafe { time.write(virtual_time) };
    0
}
