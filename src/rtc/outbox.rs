//! What waits for the data channel, and how much a client may send over it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::channel::{self, Fault};
use crate::media::signal::Signal;

/// Messages that may wait. A busy room of a hundred makes some ten a second; this is half a minute of it.
const MAX_MESSAGES: usize = 512;
/// Bytes that may wait; beyond them the client reads too slowly to be worth the memory.
const MAX_BYTES: usize = 512 * 1024;
/// A client may send so many messages at once, and then one every [`REFILL`].
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_millis(50);

/// One peer's outgoing messages, numbered.
#[derive(Default)]
pub struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    last_seq: u64,
    /// Messages the client sent beyond what has been forgiven, as of the instant.
    spent: Option<(u32, Instant)>,
}

impl Outbox {
    /// Queues a message under the next number. False if there is no room.
    pub fn push(&mut self, signal: &Signal) -> bool {
        let message = channel::encode(self.last_seq + 1, signal);
        let fits = self.messages.len() < MAX_MESSAGES && self.bytes + message.len() <= MAX_BYTES;
        if fits {
            self.last_seq += 1;
            self.bytes += message.len();
            self.messages.push_back(message);
        }
        fits
    }

    /// The oldest message.
    pub fn front(&self) -> Option<&[u8]> {
        self.messages.front().map(Vec::as_slice)
    }

    /// It has been handed over.
    pub fn pop(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len();
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether the client may send a message now: a token bucket.
    pub fn admit(&mut self, now: Instant) -> Result<(), Fault> {
        let (spent, since) = self.spent.unwrap_or((0, now));
        let forgiven = (now.saturating_duration_since(since).as_millis() / REFILL.as_millis()) as u32;
        let (spent, since) = if forgiven >= spent { (0, now) } else { (spent - forgiven, since + REFILL * forgiven) };
        if spent >= BURST {
            self.spent = Some((spent, since));
            let message = "at most 20 messages a second, 100 at once";
            return Err(Fault { code: "rate_limited", message, re: "unknown" });
        }
        self.spent = Some((spent + 1, since));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pong(text: &str) -> Signal {
        Signal::Pong { at: Value::from(text) }
    }

    #[test]
    fn messages_are_numbered_without_gaps_and_bounded() {
        let mut outbox = Outbox::default();
        let accepted = (0..600).filter(|_| outbox.push(&pong("x"))).count();
        assert_eq!(accepted, MAX_MESSAGES);
        for expected in 1..=MAX_MESSAGES as u64 {
            let value: Value = serde_json::from_slice(outbox.front().unwrap()).unwrap();
            assert_eq!(value["seq"], expected);
            outbox.pop();
        }
        assert!(outbox.is_empty() && outbox.bytes == 0);
        let large = "x".repeat(MAX_BYTES / 2);
        assert!(outbox.push(&pong(&large)) && !outbox.push(&pong(&large)));
    }

    #[test]
    fn a_flood_is_stopped_and_forgiven() {
        let t0 = Instant::now();
        let mut outbox = Outbox::default();
        assert_eq!((0..500).filter(|_| outbox.admit(t0).is_ok()).count(), 100);
        let later = t0 + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| outbox.admit(later).is_ok()).count(), 20);
        let much_later = t0 + Duration::from_secs(60);
        assert_eq!((0..500).filter(|_| outbox.admit(much_later).is_ok()).count(), 100);
    }
}
