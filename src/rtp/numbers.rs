//! Which of a stream's latest numbers there have been.

/// How many numbers back are told apart, the highest included. A NACK names numbers of the last 500
/// ([`nack`](super::nack)), libwebrtc's of the last 1000. A power of two.
pub const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// A set of numbers that forgets those [`WINDOW`] behind the highest.
#[derive(Debug, Clone, Default)]
pub struct NumberWindow {
    highest: Option<u64>,
    /// One bit for each number, by number modulo [`WINDOW`].
    seen: [u64; WORDS],
}

impl NumberWindow {
    /// The highest number so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether the number is too old to tell.
    pub fn is_past(&self, number: u64) -> bool {
        self.highest.is_some_and(|highest| highest.saturating_sub(number) >= WINDOW)
    }

    /// Whether the number is among the last, and there has been one like it.
    pub fn contains(&self, number: u64) -> bool {
        let age = self.highest.and_then(|highest| highest.checked_sub(number));
        age.is_some_and(|age| age < WINDOW) && self.seen[word(number)] & bit(number) != 0
    }

    /// Notes a number; one that is past changes nothing.
    pub fn insert(&mut self, number: u64) {
        if self.is_past(number) {
            return;
        }
        let highest = self.highest.unwrap_or(number);
        // In order there is none.
        for skipped in (highest + 1).max(number.saturating_sub(WINDOW - 1))..number {
            self.seen[word(skipped)] &= !bit(skipped);
        }
        self.seen[word(number)] |= bit(number);
        self.highest = Some(highest.max(number));
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}
