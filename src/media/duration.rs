//! The end of a call that lasts as long as its room allows, and the word before it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Seat;
use super::room::Room;
use super::signal::Signal;
use super::timers::Timer;
use crate::command::EndReason;

/// People are told so long before the end: time to finish a sentence and to agree on where to go on.
const WARNING: Duration = Duration::from_secs(60);
/// Of a call that may not last twice as long, they are told in the middle.
const WARNING_SHARE: u32 = 2;
/// The topic of the message that tells them, which is from nobody.
pub const TOPIC: &str = "stube.room_ending";

impl Room {
    /// Sets when the call has to end. Call it when the call begins, and when the settings change.
    pub(super) fn limit_duration(&mut self) {
        self.timers.stop(Timer::MaxDuration);
        self.timers.stop(Timer::Warning);
        if let Some((end, max)) = self.end_of_call().zip(self.settings.max_duration) {
            self.timers.set(Timer::MaxDuration, end);
            self.timers.set(Timer::Warning, end - WARNING.min(max / WARNING_SHARE));
        }
    }

    /// Tells all that the call is about to end.
    pub(super) fn warn_of_end(&mut self, now: Instant) {
        if let Some(signal) = self.warning(now) {
            self.tell_all(signal, None);
        }
    }

    /// Tells one who has come after the others were told.
    pub(super) fn warn_newcomer(&mut self, seat: Seat, now: Instant) {
        let warned = !self.timers.is_set(Timer::Warning);
        if let Some(signal) = self.warning(now).filter(|_| warned) {
            self.tell(seat, signal);
        }
    }

    fn warning(&self, now: Instant) -> Option<Signal> {
        // Rounded, for the timer comes a moment late.
        let left = self.end_of_call()?.saturating_duration_since(now) + Duration::from_millis(500);
        let data = json!({ "reason": EndReason::RoomDurationExceeded, "ends_in_s": left.as_secs() });
        Some(Signal::Message { from: None, topic: TOPIC.to_owned(), data })
    }

    fn end_of_call(&self) -> Option<Instant> {
        let (_, started_at) = self.call?;
        self.settings.max_duration.map(|max| started_at + max)
    }
}
