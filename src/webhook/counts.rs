//! How attempts ended, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::backoff::{Answer, Outcome};

/// How an attempt ended: the values of the metric's label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptResult {
    /// 2xx.
    Delivered,
    /// Any other answer, or none.
    Failed,
    /// 410: the webhook gets nothing more until a restart, or a reload that changes webhooks, keys or privacy.
    Gone,
    /// Nothing was sent: the address is closed to webhooks, the webhook or its API key is no longer configured, or it
    /// answered 410 before.
    Refused,
}

impl AttemptResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Gone, Self::Refused];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }

    /// How an attempt with this answer and outcome counts.
    pub(super) fn of(answer: Answer, outcome: Outcome) -> Self {
        match (answer, outcome) {
            (Answer::Refused(_), _) => Self::Refused,
            (_, Outcome::Delivered) => Self::Delivered,
            (_, Outcome::Gone) => Self::Gone,
            _ => Self::Failed,
        }
    }
}

/// Attempts since the start, by result. The sender counts, the metrics read.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    gone: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// How many attempts ended so.
    pub fn get(&self, result: AttemptResult) -> u64 {
        self.of(result).load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, result: AttemptResult) {
        self.of(result).fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, result: AttemptResult) -> &AtomicU64 {
        match result {
            AttemptResult::Delivered => &self.delivered,
            AttemptResult::Failed => &self.failed,
            AttemptResult::Gone => &self.gone,
            AttemptResult::Refused => &self.refused,
        }
    }
}
