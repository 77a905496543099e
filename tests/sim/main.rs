//! The engine and real str0m clients on a virtual network in virtual time: one seed, one course of events.
//!
//! `SIM_SEED=…  cargo test --test sim replay` runs one seed again.

mod channel;
mod check;
mod client;
mod decoder;
mod harness;
mod net;
mod rng;
mod seal;
mod source;
mod stamp;
mod toy_dtls;
mod trace;
