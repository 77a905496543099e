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
use std::time::Duration;

use crate::command::{Command, Notice, Refusal, Reply, Transport};
use crate::media::meter::{Drops, PerKind, Volume};

mod channel;
mod codec;
mod commands;
#[cfg_attr(not(test), expect(dead_code, reason = "the engine does not use it yet"))]
mod congestion;
mod crypto;
mod demux;
mod engine;
mod formats;
mod fragment;
mod negotiate;
mod offer;
mod outbox;
#[cfg_attr(not(test), expect(dead_code, reason = "the engine does not use it yet"))]
mod pacer;
mod path;
mod peer;
#[cfg_attr(not(test), expect(dead_code, reason = "the engine does not use it yet"))]
mod register;
mod schedule;

pub use crypto::Crypto;
pub use engine::Engine;

/// What an [`Engine`] needs to start.
pub struct EngineConfig {
    /// The addresses clients are told to connect to, best first.
    pub candidates: Vec<Candidate>,
    /// DTLS and SRTP, with the server's certificate.
    pub crypto: Crypto,
    /// Entropy for ids, SSRCs and first sequence numbers.
    pub seed: [u8; 32],
    /// A session whose ICE or DTLS takes longer ends.
    pub connect_timeout: Duration,
    /// How long a session whose media path is lost waits for an ICE restart.
    pub restart_timeout: Duration,
}

/// One address clients can reach the engine at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub transport: Transport,
    pub address: SocketAddr,
}

/// Why an [`Engine`] wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// str0m of some peer has work: RTCP, DTLS or SCTP retransmission, ICE.
    Peer,
    /// A session has not connected in time.
    Connect,
    /// Nothing has been heard of a client for long.
    Silence,
    /// A lost media path has not been restored in time.
    Restart,
    /// A room's own deadline.
    Room,
}

/// An engine's counters: gauges as they are now, counters since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub rooms: u64,
    pub participants: u64,
    pub sessions_connecting: u64,
    pub sessions_udp: u64,
    pub sessions_tcp: u64,
    pub tracks_published: PerKind<u64>,
    pub tracks_subscribed: PerKind<u64>,
    /// Distinct client addresses of connected sessions.
    pub addresses_ipv4: u64,
    pub addresses_ipv6: u64,
    pub rtp_in: PerKind<Volume>,
    pub rtp_out: PerKind<Volume>,
    /// Packets received times their subscribers: each copy is sent or dropped with a reason.
    pub copies_due: u64,
    pub drops: Drops,
    /// PLI and FIR heard from subscribers.
    pub keyframe_requests_in: u64,
    /// PLI sent to publishers, after merging.
    pub keyframe_requests_out: u64,
}

/// What an [`Engine`] is told.
#[derive(Debug)]
pub enum Input<'a> {
    Datagram(Datagram<'a>),
    /// The TCP connection from `source` is gone.
    Disconnected {
        source: SocketAddr,
    },
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
