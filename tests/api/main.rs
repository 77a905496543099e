//! The HTTP API against the contract: the whole server in this process, driven over real connections.

#![allow(clippy::disallowed_methods, reason = "tests own their clock, their entropy and their processes")]

mod access;
mod accounts;
mod binary;
mod caller;
mod client;
mod command_line;
mod described;
mod doctor;
mod farewell;
mod http;
mod mistakes;
mod moves;
mod node;
mod openapi;
mod page;
mod participants;
mod rooms;
mod sessions;
mod stats;
mod tls;
mod traces;
mod webhooks;
