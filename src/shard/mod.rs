//! RING 3 — one thread per core: the only owner of the media sockets and of the media clock.
//!
//! Rooms are pinned to shards; shards share nothing. Control sends [`Command`]s through [`Shards::send`] and hears
//! [`Notice`]s; counters are copied out once a second as absolute values ([`Shards::snapshots`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::command::{Command, Notice, Refusal, Reply};
use crate::config::MediaConfig;
use crate::metrics::ShardSnapshot;
use crate::rtc::{Candidate, Datagram, Engine, Input, Output, Stats, Timer};

mod addresses;
mod census;
mod framing;
mod link;
mod listen;
pub mod probe;
mod runs;
mod saturation;
mod start;
mod status;
mod tcp;
mod udp;
mod worker;

use link::{Link, Parcel};
use status::Status;
use tcp::Arrival;

pub use crate::command::ShardIndex;
pub(crate) use census::{Census, Count, Limits};
pub use listen::{bound_to, listen_tcp};
pub use tcp::FIRST_FRAME_MAX;

#[cfg(test)]
mod tests;

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
    /// Where others listen there for us and bring connections by [`Shards::take_connection`]. Empty: nobody does.
    pub tcp_shared: Vec<SocketAddr>,
    /// Addresses to put into candidates instead of the interfaces' own.
    pub advertise: Vec<IpAddr>,
    /// From an answered offer to connected media.
    pub connect_timeout: Duration,
    /// From losing the media path to the end of the session.
    pub restart_timeout: Duration,
    /// So many of the others each participant of a room hears at once.
    pub loudest: usize,
}

impl ShardsConfig {
    /// As the configuration says.
    pub fn of(media: &MediaConfig, count: usize) -> Self {
        Self {
            count,
            udp_listen: media.udp_listen,
            tcp_listen: media.tcp_listen,
            tcp_shared: Vec::new(),
            advertise: media.advertise.clone(),
            connect_timeout: media.connect_timeout,
            restart_timeout: media.restart_timeout,
            loudest: media.loudest,
        }
    }
}

impl Default for ShardsConfig {
    /// The contract's listeners and timeouts.
    fn default() -> Self {
        Self {
            count: 0,
            udp_listen: SocketAddr::from(([0, 0, 0, 0], 7882)),
            tcp_listen: Some(SocketAddr::from(([0, 0, 0, 0], 7881))),
            tcp_shared: Vec::new(),
            advertise: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            restart_timeout: Duration::from_secs(30),
            loudest: 4,
        }
    }
}

/// A shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("cannot listen for media on {address} ({transport}): {source}")]
    Listen { address: SocketAddr, transport: &'static str, source: std::io::Error },
    #[error("no address to advertise: no interface is up; set media.advertise")]
    NoAddress,
    #[error("cannot read the network interfaces' addresses: {0}")]
    Interfaces(std::io::Error),
    #[error("cannot make a DTLS certificate")]
    Certificate,
    #[error("the operating system gives no entropy")]
    Entropy,
    #[error("cannot start a shard thread: {0}")]
    Thread(std::io::Error),
}

/// The running shards. Cheap to clone; when the last clone is gone they stop.
#[derive(Clone)]
pub struct Shards {
    handles: Arc<Vec<Handle>>,
    /// The way to the shard that accepts for all.
    accepting: Option<Link>,
}

/// Notices of all shards, for control.
pub type Notices = tokio::sync::mpsc::Receiver<(ShardIndex, Notice)>;

impl Shards {
    /// Binds the sockets and starts the threads.
    pub fn start(config: &ShardsConfig) -> Result<(Self, Notices), ShardError> {
        start::start(config, Engine::new)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// What a shard's clients are told to connect to, best first; empty for a shard that does not exist.
    pub fn candidates(&self, shard: ShardIndex) -> &[Candidate] {
        self.handles.get(shard.0).map_or(&[], |handle| &handle.candidates)
    }

    /// Tells a shard what to do and waits for its answer. A shard that has stopped refuses with `Unavailable`.
    pub async fn send(&self, shard: ShardIndex, command: Command) -> Result<Reply, Refusal> {
        let handle = self.handles.get(shard.0).ok_or(Refusal::Unavailable)?;
        let (answer, answered) = oneshot::channel();
        handle.orders.try_send(Order { command, answer }).map_err(|_| Refusal::Unavailable)?;
        handle.wake();
        // A shard that ends, by panic or by `stop`, drops what it has not answered.
        answered.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Takes an ICE-TCP connection that somebody else has accepted, and of whose bytes none was read. Over a limit it is
    /// closed.
    pub fn take_connection(&self, stream: std::net::TcpStream) {
        // A peer that is gone already has no address.
        let (Some(arrival), Some(link)) = (Arrival::of(stream), &self.accepting) else { return };
        if link.send(Parcel::Arrival(arrival)).is_ok() {
            link.wake();
        }
    }

    /// Every shard's counters, at most a second old.
    pub fn snapshots(&self) -> Vec<ShardSnapshot> {
        self.handles.iter().map(|handle| handle.status.snapshot()).collect()
    }

    /// Which shards have had more to do than they can for seconds.
    pub fn saturated(&self) -> Vec<bool> {
        self.handles.iter().map(|handle| handle.status.snapshot().saturated).collect()
    }

    /// Whether every shard has turned within the last `within`; what the watchdog asks. An idle shard turns once a
    /// second.
    pub fn all_turning(&self, within: Duration) -> bool {
        let now = clock();
        self.handles.iter().all(|handle| handle.status.has_turned(within, now))
    }

    /// Stops the threads after what is queued has been sent. Send [`Command::Shutdown`] first.
    pub async fn stop(&self) {
        for handle in self.handles.iter() {
            handle.stop();
        }
        for handle in self.handles.iter() {
            let mut done = handle.done.clone();
            // The thread never sends; it drops its end as the last thing it does.
            while done.changed().await.is_ok() {}
        }
    }
}

/// Control's end of one shard.
struct Handle {
    orders: SyncSender<Order>,
    waker: Arc<mio::Waker>,
    status: Arc<Status>,
    done: watch::Receiver<()>,
    candidates: Vec<Candidate>,
}

impl Handle {
    /// Should waking fail, the loop looks within a second by itself.
    fn wake(&self) {
        let _ = self.waker.wake();
    }

    fn stop(&self) {
        self.status.stop.store(true, Ordering::Release);
        self.wake();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

type Answer = Result<Reply, Refusal>;
type NoticeSender = tokio::sync::mpsc::Sender<(ShardIndex, Notice)>;

/// A command on its way to a shard.
struct Order {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// What a worker drives: the [`Engine`]; tests drive a smaller one.
trait MediaEngine {
    fn handle(&mut self, input: Input<'_>, now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_output(&mut self, now: Instant) -> Option<Output>;
    fn poll_timeout(&self) -> Option<(Instant, Timer)>;
    fn knows(&self, datagram: &Datagram<'_>) -> bool;
    fn stats(&self) -> Stats;
    /// The last packet of a frame is still to come, and what was gathered of it waits for the next drain.
    fn expects_more(&self) -> bool {
        false
    }
    /// Takes a sent buffer back.
    fn recycle(&mut self, _buffer: Vec<u8>) {}
    /// Whether nobody is left who has yet to hear a goodbye.
    fn is_vacant(&self) -> bool {
        true
    }
}

impl MediaEngine for Engine {
    fn handle(&mut self, input: Input<'_>, now: Instant) {
        Engine::handle(self, input, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Engine::handle_timeout(self, now);
    }

    fn poll_output(&mut self, now: Instant) -> Option<Output> {
        Engine::poll_output(self, now)
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        Engine::poll_timeout(self)
    }

    fn knows(&self, datagram: &Datagram<'_>) -> bool {
        Engine::knows(self, datagram)
    }

    fn stats(&self) -> Stats {
        Engine::stats(self)
    }

    fn is_vacant(&self) -> bool {
        Engine::is_vacant(self)
    }

    fn expects_more(&self) -> bool {
        Engine::expects_more(self)
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        Engine::recycle(self, buffer);
    }
}

/// The media clock; the only place the ring reads it.
#[expect(clippy::disallowed_methods, reason = "the media clock has this one owner")]
fn clock() -> Instant {
    Instant::now()
}

/// The wall clock at an engine's start, for the NTP timestamps of RTCP.
#[expect(clippy::disallowed_methods, reason = "one look at the wall clock; media time runs on the monotonic one")]
fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default()
}
