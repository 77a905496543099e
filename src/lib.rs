//! Stube: a selective forwarding media server.
//!
//! Modules are declared in dependency order; **a module imports only modules declared above it** (`tests/tidy.rs`).

#![forbid(unsafe_code)]

pub mod ids;
pub mod units;
pub mod config;
pub mod command;
pub mod media;
pub mod rtc;
pub mod metrics;
pub mod shard;
pub mod control;
pub mod run;
