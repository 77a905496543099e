//! RING 2 — everything that touches str0m: ICE, DTLS, SRTP, SCTP, SDP. Still no I/O: datagrams in, datagrams out.
//!
//! This file is the ring's contract. An [`Engine`] holds the rooms and peers of one shard. Order of calls:
//!
//! 1. mutate: [`Engine::handle`] or [`Engine::handle_timeout`], as often as there is input at hand;
//! 2. drain: [`Engine::poll_output`] until `None`. A frame's packets for one peer come out as one [`Transmit`], whose
//!    buffer [`Engine::recycle`] takes back;
//! 3. sleep until [`Engine::poll_timeout`] or new input.
//!
//! `now` is the last argument and never runs backwards. Drops and counters leave as values in [`Stats`].

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::command::{Command, Notice, Refusal, Reply, ShardIndex, Transport};
use crate::media::meter::{Drops, PerKind, Quality, Spread, Volume};

mod answer;
mod arrivals;
mod away;
mod burst;
mod channel;
mod clock;
mod codec;
mod commands;
mod compound;
mod congestion;
mod crypto;
mod demux;
mod egress;
mod engine;
mod exchange;
mod flow;
mod formats;
mod frames;
mod fragment;
mod ingress;
mod media_path;
mod migration;
mod negotiate;
mod offer;
mod out_stream;
mod outbox;
mod pacer;
mod path;
mod peer;
mod policer;
mod quality;
mod register;
mod retransmit;
mod schedule;
mod sessions;
mod store;

pub use crypto::{Crypto, take_exported};
pub use engine::Engine;
#[cfg(test)]
pub use migration::relayed_for_tests;
pub use migration::{Migrant, Transfer};

/// What an [`Engine`] needs to start.
pub struct EngineConfig {
    /// Which of the server's engines it is.
    pub shard: ShardIndex,
    /// The addresses clients are told to connect to, best first.
    pub candidates: Vec<Candidate>,
    /// DTLS and SRTP, with the server's certificate.
    pub crypto: Crypto,
    /// Entropy for ids, SSRCs and first sequence numbers.
    pub seed: [u8; 32],
    /// The wall clock at the start, as time since 1970; for RTCP's NTP timestamps.
    pub since_1970: Duration,
    /// A session whose ICE or DTLS takes longer ends.
    pub connect_timeout: Duration,
    /// How long a session whose media path is lost waits for an ICE restart.
    pub restart_timeout: Duration,
    /// So many of the others each participant of a room hears at once.
    pub loudest: usize,
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
    /// A publisher waits for feedback.
    Feedback,
    /// The pacer lets more go, or the estimator looks whether feedback is missing.
    Pacer,
    /// A session has not connected in time.
    Connect,
    /// Nothing has been heard of a client for long.
    Silence,
    /// A lost media path has not been restored in time.
    Restart,
    /// A room's own deadline.
    Room,
    /// Packets of streams that have fallen silent are freed.
    Store,
}

/// An engine's counters: gauges as they are now, counters since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub rooms: u64,
    pub participants: u64,
    pub sessions_connecting: u64,
    pub sessions_udp: u64,
    pub sessions_tcp: u64,
    /// Sessions here that came from another engine, to which their clients go on sending.
    pub sessions_away: u64,
    /// Datagrams that were passed on to the engine their session has gone to.
    pub datagrams_relayed: u64,
    pub tracks_published: PerKind<u64>,
    pub tracks_subscribed: PerKind<u64>,
    /// Distinct client addresses of connected sessions.
    pub addresses_ipv4: u64,
    pub addresses_ipv6: u64,
    pub rtp_in: PerKind<Volume>,
    pub rtp_out: PerKind<Volume>,
    /// Sent again on request, beside [`Self::rtp_out`].
    pub rtx_out: Volume,
    /// Padding that probes a subscriber's network; RTX packets of what was sent already.
    pub padding_out: Volume,
    /// Packets that NACKs of subscribers named.
    pub retransmissions_wanted: u64,
    /// Encodings that packets have come of and whose tracks are still published.
    pub streams_received: u64,
    /// Copies that are neither sent nor dropped yet.
    pub copies_waiting: u64,
    /// Packets received times their subscribers: each copy is sent, dropped with a reason, or waits.
    pub copies_due: u64,
    pub drops: Drops,
    /// PLI and FIR heard from subscribers.
    pub keyframe_requests_in: u64,
    /// PLI sent to publishers, after merging.
    pub keyframe_requests_out: u64,
    /// What viewers noticed.
    pub quality: Quality,
    /// Participants that get less than they wish for because of their networks.
    pub subscribers_limited: u64,
    pub samples: Samples,
}

/// Bounds of [`Samples`].
pub const ESTIMATE_BOUNDS_BPS: [u64; 8] =
    [100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000];
pub const ROUND_TRIP_BOUNDS_US: [u64; 7] = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];
pub const LOSS_BOUNDS_PPM: [u64; 8] = [0, 1_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000];

/// What the feedback of subscribers tells, taken once a second from each that gives any. A round trip of more than a
/// second counts as one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Samples {
    pub estimates_bps: Spread<9>,
    pub round_trips_us: Spread<8>,
    /// Lost packets in a million.
    pub losses_ppm: Spread<9>,
}

impl Samples {
    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Self) {
        self.estimates_bps.merge(&other.estimates_bps);
        self.round_trips_us.merge(&other.round_trips_us);
        self.losses_ppm.merge(&other.losses_ppm);
    }
}

/// What an [`Engine`] is told.
#[derive(Debug)]
pub enum Input<'a> {
    Datagram(Datagram<'a>),
    /// The TCP connection from `source` is gone.
    Disconnected {
        source: SocketAddr,
    },
    /// An order; answered by one [`Output::Reply`] with the same `request`, here or by the engine it is passed on to.
    Command {
        request: u64,
        command: Command,
    },
    /// Another engine says something, in the order in which it did.
    Transfer(Transfer),
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
    Reply {
        request: u64,
        result: Result<Reply, Refusal>,
    },
    Notice(Notice),
    /// Another engine is to hear this: all of it, and in order, but that datagrams may be lost.
    Transfer {
        to: ShardIndex,
        transfer: Transfer,
    },
}

/// Datagrams to send to one client, back to back.
pub struct Transmit {
    pub transport: Transport,
    /// The candidate it leaves from.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
    /// The length of each datagram; the last may be shorter.
    pub segment: usize,
}

impl Transmit {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.contents.chunks(self.segment.max(1))
    }
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
