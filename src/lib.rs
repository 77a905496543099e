//! Stube: a selective forwarding media server.
//!
//! Modules are declared in dependency order; **a module imports only modules declared above it** (`tests/tidy.rs`).

#![forbid(unsafe_code)]
// Walls (`.clippy.toml`): crossed by `#[expect(…, reason = "…")]` on the smallest item that works. Tests are exempt.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::iter_over_hash_type,
        clippy::panic_in_result_fn,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::string_slice
    )
)]

pub mod ids;
pub mod units;
pub mod config;
pub mod traces;
pub mod log;
pub mod command;
pub mod media;
pub mod rtp;
pub mod rtc;
pub mod metrics;
pub mod ledger;
pub mod webhook;
pub mod tls;
pub mod shard;
pub mod control;
pub mod table;
pub mod statement;
pub mod remote;
pub mod load;
pub mod doctor;
pub mod activation;
pub mod run;
