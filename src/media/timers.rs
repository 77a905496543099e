//! Every deadline of a room in one place.

use std::time::Instant;

/// Why a room wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Timer {
    /// Nobody is in the room; it ends.
    Empty,
    /// The call has lasted as long as the room allows.
    MaxDuration,
    /// People are told that it soon will have.
    Warning,
    /// A keyframe request may be sent (again).
    Keyframe,
    /// Speakers are judged.
    Speakers,
    /// Tracks and encodings are looked at: which are alive, which one to forward.
    Tracks,
    /// What a subscriber was refused may fit now.
    Budget,
}

impl Timer {
    const ALL: [Self; 7] =
        [Self::Empty, Self::MaxDuration, Self::Warning, Self::Keyframe, Self::Speakers, Self::Tracks, Self::Budget];
}

/// The pending deadlines, one of each kind at most.
#[derive(Debug, Default)]
pub struct TimerTable([Option<Instant>; Timer::ALL.len()]);

impl TimerTable {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a deadline unless an earlier one is pending.
    pub fn set_earlier(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |pending| pending.min(at)));
    }

    /// Cancels a deadline.
    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Whether a deadline is pending.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Takes a deadline that has passed.
    pub fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let slot = &mut self.0[timer as usize];
        let expired = slot.is_some_and(|at| at <= now);
        if expired {
            *slot = None;
        }
        expired
    }

    /// The next deadline.
    pub fn next(&self) -> Option<(Instant, Timer)> {
        Timer::ALL.into_iter().filter_map(|timer| Some((self.0[timer as usize]?, timer))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_deadline_comes_first_and_once() {
        let t0 = Instant::now();
        let (soon, late) = (t0 + Duration::from_secs(1), t0 + Duration::from_secs(2));
        let mut timers = TimerTable::default();
        timers.set(Timer::Speakers, late);
        timers.set_earlier(Timer::Empty, soon);
        timers.set_earlier(Timer::Empty, late);
        assert_eq!(timers.next(), Some((soon, Timer::Empty)));
        assert!(!timers.take_expired(Timer::Empty, t0));
        assert!(timers.take_expired(Timer::Empty, soon) && !timers.take_expired(Timer::Empty, soon));
        timers.stop(Timer::Speakers);
        assert_eq!(timers.next(), None);
    }
}
