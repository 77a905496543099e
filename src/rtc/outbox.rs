//! What waits for the data channel, and how much a client may send over it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::channel::{self, Fault};
use crate::media::signal::Signal;

/// Messages that may wait. A busy room of a hundred makes some ten a second; this is half a minute of it.
const MAX_MESSAGES: usize = 512;
/// Bytes that may wait; beyond them the client reads too slowly to be worth the memory.
const MAX_BYTES: usize = 512 * 1024;
/// What can be done without may fill this much; the rest is for what cannot.
const MAX_EXPENDABLE_BYTES: usize = MAX_BYTES / 2;
/// A client may send so much at once, and then a message's share every [`REFILL`]: 20 messages or 32 KiB a second.
/// A message counts as one, and one more for each [`SHARE_BYTES`]; so one sender cannot flood what others receive.
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_millis(50);
const SHARE_BYTES: usize = 1638;

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

    /// Queues what the receiver can do without; dropped if much waits already.
    pub fn push_expendable(&mut self, signal: &Signal) {
        if self.bytes < MAX_EXPENDABLE_BYTES && self.messages.len() < MAX_MESSAGES / 2 {
            self.push(signal);
        }
    }

    /// Queues the last message, in place of all that waits if there is no room.
    pub fn push_last(&mut self, signal: &Signal) {
        if !self.push(signal) {
            // Numbers that were never sent are free again.
            self.last_seq -= self.messages.len() as u64;
            self.messages.clear();
            self.bytes = 0;
            self.push(signal);
        }
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

    /// Whether the client may send a message of this size now: a token bucket.
    pub fn admit(&mut self, bytes: usize, now: Instant) -> Result<(), Fault> {
        let (spent, since) = self.spent.unwrap_or((0, now));
        let forgiven = (now.saturating_duration_since(since).as_millis() / REFILL.as_millis()) as u32;
        let (spent, since) = if forgiven >= spent { (0, now) } else { (spent - forgiven, since + REFILL * forgiven) };
        if spent >= BURST {
            self.spent = Some((spent, since));
            let message = "at most 20 messages or 32 KiB a second, and five seconds' worth at once";
            return Err(Fault { code: "rate_limited", message, re: "unknown" });
        }
        self.spent = Some((spent + 1 + (bytes / SHARE_BYTES) as u32, since));
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
        outbox.push_expendable(&pong("dropped"));
        outbox.push_last(&pong(&large));
        let value: Value = serde_json::from_slice(outbox.front().unwrap()).unwrap();
        assert_eq!(value["seq"], MAX_MESSAGES as u64 + 1, "the number of the message that was given up");
        outbox.pop();
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_flood_is_stopped_and_forgiven() {
        let t0 = Instant::now();
        let mut outbox = Outbox::default();
        assert_eq!((0..500).filter(|_| outbox.admit(50, t0).is_ok()).count(), 100);
        let later = t0 + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| outbox.admit(50, later).is_ok()).count(), 20);
        let much_later = t0 + Duration::from_secs(60);
        assert_eq!((0..500).filter(|_| outbox.admit(16_000, much_later).is_ok()).count(), 10, "large ones count more");
    }
}
