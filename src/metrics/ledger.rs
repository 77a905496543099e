//! What is said of the ledger and of what leaves it.

use prometheus::proto::MetricFamily;

use super::{by, counter, gauge};

/// The ledger's figures now; counters since the start.
#[derive(Debug, Clone, Default)]
pub struct LedgerSnapshot {
    /// Since all that waited was written.
    pub checkpoint_age_seconds: f64,
    pub rows_waiting: u64,
    pub rows_lost: u64,
    pub write_failures: u64,
    /// By result.
    pub webhook_attempts: Vec<(&'static str, u64)>,
    /// Deliveries that wait, and for how long the first; none if the database cannot say.
    pub outbox: Option<(u64, f64)>,
    /// Age of the oldest record with a person; none if there is none.
    pub oldest_person_seconds: Option<f64>,
}

pub(super) fn families(ledger: &LedgerSnapshot) -> Vec<MetricFamily> {
    let one = |value: f64| vec![(vec![], value)];
    let attempts = ledger.webhook_attempts.iter().map(|(word, count)| (*count, *word));
    let mut families = vec![
        gauge(
            "stube_ledger_checkpoint_age_seconds",
            "Time since everything that waited for the ledger was written.",
            one(ledger.checkpoint_age_seconds),
        ),
        gauge(
            "stube_ledger_rows_waiting",
            "Rows and events that wait in memory to be written.",
            one(ledger.rows_waiting as f64),
        ),
        counter(
            "stube_ledger_rows_lost_total",
            "Rows and events given up because the ledger could not be written for too long.",
            one(ledger.rows_lost as f64),
        ),
        counter(
            "stube_ledger_write_failures_total",
            "Transactions that failed and were tried again.",
            one(ledger.write_failures as f64),
        ),
        counter(
            "stube_webhook_attempts_total",
            "Attempts to deliver an event, by result.",
            by("result", attempts, |count| count),
        ),
        gauge(
            "stube_retention_oldest_age_seconds",
            "Age of the oldest record with a person, from its end on.",
            one(ledger.oldest_person_seconds.unwrap_or(0.0)),
        ),
    ];
    if let Some((rows, oldest_seconds)) = ledger.outbox {
        families.push(gauge("stube_webhook_outbox_rows", "Deliveries that wait.", one(rows as f64)));
        families.push(gauge(
            "stube_webhook_oldest_age_seconds",
            "Age of the oldest delivery that waits.",
            one(oldest_seconds),
        ));
    }
    families
}
