//! RING 2 — everything that touches str0m: ICE, DTLS, SRTP, SCTP, SDP. Still no I/O: datagrams in, datagrams out.
//!
//! This file is the ring's contract. An [`Engine`] holds the rooms and peers of one shard. Order of calls:
//!
//! 1. mutate: [`Engine::handle`] or [`Engine::handle_timeout`], as often as there is input at hand;
//! 2. drain: [`Engine::poll_output`] until `None`. A frame's packets for one peer come out back to back;
//! 3. sleep until [`Engine::poll_timeout`] or new input.
//!
//! `now` is the last argument and never runs backwards. Drops and counters leave as values in [`Stats`].

use std::fmt;
use std::net::SocketAddr;

use crate::command::{Command, Notice, Refusal, Reply, Transport};

/// What an [`Engine`] is told.
#[derive(Debug)]
pub enum Input<'a> {
    Datagram(Datagram<'a>),
    /// An order; answered by one [`Output::Reply`] with the same `request`.
    Command {
        request: u64,
        command: Command,
    },
}

/// One received datagram (over TCP: one RFC 4571 frame).
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    pub transport: Transport,
    pub source: SocketAddr,
    /// The candidate it reached: an address of [`EngineConfig::candidates`], not the socket's own.
    pub destination: SocketAddr,
    pub contents: &'a [u8],
}

/// What an [`Engine`] wants done.
#[derive(Debug)]
pub enum Output {
    Transmit(Transmit),
    Reply { request: u64, result: Result<Reply, Refusal> },
    Notice(Notice),
}

/// One datagram to send.
pub struct Transmit {
    pub transport: Transport,
    /// The candidate it leaves from.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
}

// Addresses are personal: neither form shows them.
impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Datagram({:?}, {} bytes)", self.transport, self.contents.len())
    }
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transmit({:?}, {} bytes)", self.transport, self.contents.len())
    }
}
