//! Where events wait: what the sender asks of the store.

use std::future::Future;

/// One event for one URL. It has no `Debug`: the body names people.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The outbox's own number for it.
    pub id: u64,
    /// A URL as it stands in the configuration.
    pub url: String,
    /// The event's id, the same on every attempt and for every URL: the header `webhook-id`.
    pub event: String,
    /// The API key whose event it is.
    pub tenant: String,
    /// JSON, sent and signed as it stands.
    pub body: String,
    /// How many attempts have failed.
    pub attempts: u32,
    /// When the event happened, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// Why the outbox has nothing to say now. Its text goes into the log, so it holds no body.
#[derive(Debug, thiserror::Error)]
#[error("the outbox cannot be read: {0}")]
pub struct OutboxError(pub String);

/// The store of events that are not delivered yet.
///
/// What changes the store returns when the change is kept; until then the sender keeps the event's place taken, so a
/// store whose disk fails best waits inside until it works again. A change that is lost costs a repetition, not an
/// event: what [`Outbox::due`] gives again is sent again, though not within the same second.
pub trait Outbox: Send + Sync + 'static {
    /// The events whose time has come, oldest first: of each (URL, room) only the oldest that is not delivered, and
    /// nothing while that one waits for its next attempt, for this is what keeps a room's events in order.
    ///
    /// At most `limit` **of each URL**, not of all: rooms that wait for a silent URL must not hide the others. Events
    /// in flight are among them, and the sender passes them over.
    fn due(&self, limit: usize) -> impl Future<Output = Result<Vec<Delivery>, OutboxError>> + Send;

    /// The receiver has it: forget it.
    fn delivered(&self, id: u64) -> impl Future<Output = ()> + Send;

    /// An attempt failed: keep it, with `attempts` failed ones, until `next_at_unix_ms`.
    fn failed(&self, id: u64, attempts: u32, next_at_unix_ms: u64) -> impl Future<Output = ()> + Send;

    /// The receiver at `url` wants nothing any more (410): forget what waits for it. Best take in nothing new; what is
    /// due for it later is not sent, and this is called again.
    fn gone(&self, url: &str) -> impl Future<Output = ()> + Send;

    /// It failed until it was too old ([`super::backoff::AGE_MAX`]): forget it.
    fn expired(&self, id: u64) -> impl Future<Output = ()> + Send {
        self.delivered(id)
    }
}
