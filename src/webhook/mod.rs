//! Webhooks: events posted to the URLs of the map services.
//!
//! An [`Outbox`] holds what must be told and survives a restart; the [`Sender`] takes from it what is due, signs it
//! ([`signature`]), posts it where it may ([`target`], [`address`]) and says how it went ([`backoff`]). Each event is
//! delivered at least once and in the order of its room; receivers know repetitions by their `webhook-id`.

pub mod address;
pub mod backoff;
mod counts;
mod courier;
mod endpoint;
mod lines;
mod outbox;
mod sender;
pub mod signature;
pub mod target;

pub use counts::{AttemptResult, Counts};
pub use courier::Knocked;
pub use endpoint::Endpoints;
pub use outbox::{Delivery, Outbox, OutboxError};
pub use sender::{Sender, SenderError, knock};

#[cfg(test)]
mod tests;
