//! Stube: a selective forwarding media server.
//!
//! Modules are declared in dependency order; **a module imports only modules declared above it** (`tests/tidy.rs`).

#![forbid(unsafe_code)]

pub mod command;
pub mod ids;
pub mod media;
pub mod metrics;
pub mod rtc;
pub mod shard;
pub mod units;
