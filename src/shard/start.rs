//! Binds all sockets, wires the shards together and starts their threads.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Poll, Waker};
use rand::TryRng;
use rand::rngs::SysRng;
use socket2::Socket;
use tokio::sync::watch;

use super::addresses::{Addresses, interface_addresses, worth_advertising};
use super::link::{Inbox, Link, link};
use super::listen::{bound, has_enough_buffer, listen};
use super::tcp::Tcp;
use super::udp::Udp;
use super::worker::{UDP_FIRST, WAKER, Wiring, Worker};
use super::{
    Handle, MediaEngine, NoticeSender, Notices, Order, ShardError, ShardIndex, Shards, ShardsConfig, Status, clock,
};
use crate::command::Transport;
use crate::rtc::{Crypto, EngineConfig};

/// Commands waiting for one shard; more are refused.
const ORDERS_MAX: usize = 1024;
/// Notices of all shards waiting for control; more are lost and counted.
const NOTICES_MAX: usize = 65_536;

/// Starts the shards, each with an engine that `make_engine` makes on its thread.
pub(super) fn start<E, F>(config: &ShardsConfig, make_engine: F) -> Result<(Shards, Notices), ShardError>
where
    E: MediaEngine,
    F: Fn(EngineConfig, Instant) -> E + Clone + Send + 'static,
{
    let count = num_shards(config);
    let crypto = Crypto::generate().map_err(|_| ShardError::Certificate)?;
    let local = interface_addresses().map_err(ShardError::Interfaces)?;
    let sockets = Sockets::bind(config, count)?;
    let (notices, heard) = tokio::sync::mpsc::channel(NOTICES_MAX);
    let plans = sockets.plan(config, &local)?;
    let mut pipes = (0..count).map(|_| Pipe::new()).collect::<io::Result<Vec<_>>>().map_err(ShardError::Thread)?;
    let links: Vec<Link> = pipes.iter().map(|pipe| pipe.link.clone()).collect();

    let mut handles = Vec::with_capacity(count);
    for (index, (plan, pipe)) in plans.into_iter().zip(pipes.drain(..)).enumerate() {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(|_| ShardError::Entropy)?;
        let engine_config = EngineConfig {
            shard: ShardIndex(index),
            candidates: plan.addresses.candidates().to_vec(),
            crypto: crypto.clone(),
            seed,
            since_1970: super::since_1970(),
            connect_timeout: config.connect_timeout,
            restart_timeout: config.restart_timeout,
            loudest: config.loudest,
        };
        let (wiring, ending, handle) =
            wire(ShardIndex(index), plan, pipe, &links, notices.clone()).map_err(ShardError::Thread)?;
        handles.push(handle);
        spawn(wiring, ending, engine_config, make_engine.clone()).map_err(ShardError::Thread)?;
    }
    Ok((Shards { handles: Arc::new(handles), accepting: links.into_iter().next() }, heard))
}

/// How many shards there are to be.
pub(super) fn num_shards(config: &ShardsConfig) -> usize {
    match config.count {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}

fn wire(
    index: ShardIndex,
    plan: Plan,
    pipe: Pipe,
    links: &[Link],
    notices: NoticeSender,
) -> io::Result<(Wiring, Ending, Handle)> {
    let registry = || pipe.poll.registry().try_clone();
    let status = Arc::new(Status::new(clock()));
    let (done, ended) = watch::channel(());
    let next_shard = links.get(index.0 + 1).cloned();
    let handle = Handle {
        orders: pipe.orders.0,
        waker: pipe.waker,
        status: Arc::clone(&status),
        done: ended,
        candidates: plan.addresses.candidates().to_vec(),
    };
    let wiring = Wiring {
        index,
        tcp: Tcp::new(registry()?, plan.tcp, UDP_FIRST + plan.udp.len() + plan.guests.len(), next_shard)?,
        udp: Udp::new(registry()?, plan.udp, plan.guests, UDP_FIRST)?,
        poll: pipe.poll,
        addresses: plan.addresses,
        orders: pipe.orders.1,
        inbox: pipe.inbox,
        links: links.to_vec(),
        notices,
        status: Arc::clone(&status),
    };
    Ok((wiring, Ending { status, _done: done }, handle))
}

#[expect(clippy::disallowed_methods, reason = "the shards are the only threads, and all start here")]
fn spawn<E, F>(wiring: Wiring, ending: Ending, config: EngineConfig, make_engine: F) -> io::Result<()>
where
    E: MediaEngine,
    F: FnOnce(EngineConfig, Instant) -> E + Send + 'static,
{
    let name = format!("shard-{}", wiring.index.0);
    std::thread::Builder::new().name(name).spawn(move || {
        // Dropped last, also by a panic.
        let _ending = ending;
        let now = clock();
        Worker::new(wiring, make_engine(config, now), now).run();
    })?;
    Ok(())
}

/// Held by a thread while it runs; its drop says that the thread has ended and its sockets are closed.
struct Ending {
    status: Arc<Status>,
    _done: watch::Sender<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.status.end();
    }
}

/// One shard's event queue and the ends of its channels.
struct Pipe {
    poll: Poll,
    waker: Arc<Waker>,
    orders: (SyncSender<Order>, Receiver<Order>),
    /// The way to this shard.
    link: Link,
    inbox: Inbox,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (link, inbox) = link(Arc::clone(&waker));
        Ok(Self { poll, waker, orders: sync_channel(ORDERS_MAX), link, inbox })
    }
}

/// The bound sockets of all shards.
struct Sockets {
    udp: Vec<Vec<Socket>>,
    tcp: Vec<Socket>,
}

/// What one shard gets.
struct Plan {
    udp: Vec<Arc<UdpSocket>>,
    /// The other shards', to send from for sessions that have come from there.
    guests: Vec<Arc<UdpSocket>>,
    /// Empty but for shard 0.
    tcp: Vec<Socket>,
    addresses: Addresses,
}

impl Sockets {
    fn bind(config: &ShardsConfig, count: usize) -> Result<Self, ShardError> {
        let bind = |address: SocketAddr, transport| {
            let word = if transport == Transport::Udp { "UDP" } else { "TCP" };
            listen(address, transport).map_err(|source| ShardError::Listen { address, transport: word, source })
        };
        let mut udp = Vec::with_capacity(count);
        for index in 0..count {
            udp.push(bind(udp_address(config.udp_listen, index)?, Transport::Udp)?);
        }
        let tcp = match config.tcp_listen {
            Some(address) if config.tcp_shared.is_empty() => bind(address, Transport::Tcp)?,
            _ => Vec::new(),
        };
        let sockets = Self { udp, tcp };
        sockets.report(config);
        Ok(sockets)
    }

    /// Says once what is less than wished for.
    fn report(&self, config: &ShardsConfig) {
        let families = self.udp.first().map_or(0, Vec::len);
        if config.udp_listen.ip().is_unspecified() && families == 1 {
            tracing::info!("the host has only one of IPv4 and IPv6; media uses that one");
        }
        let enough = self.udp.iter().flatten().all(|socket| has_enough_buffer(socket).unwrap_or(true));
        if !enough {
            tracing::warn!(
                "the kernel grants less than 512 KiB of socket buffer, so bursts of media are lost; \
                 raise net.core.rmem_max and net.core.wmem_max to 4194304"
            );
        }
    }

    /// Shares the sockets out, with the candidates that lead to them.
    fn plan(self, config: &ShardsConfig, local: &[IpAddr]) -> Result<Vec<Plan>, ShardError> {
        let failed = |address, transport| move |source| ShardError::Listen { address, transport, source };
        let tcp_listen = config.tcp_listen.unwrap_or(config.udp_listen);
        let tcp_ips = advertised(config, tcp_listen.ip(), local);
        let udp_ips = advertised(config, config.udp_listen.ip(), local);
        let mut tcp_bound = bound(&self.tcp).map_err(failed(tcp_listen, "TCP"))?;
        tcp_bound.extend(&config.tcp_shared);
        let mut tcp = Some(self.tcp);
        let udp_bound: Vec<_> = self
            .udp
            .iter()
            .map(|sockets| bound(sockets))
            .collect::<io::Result<_>>()
            .map_err(failed(config.udp_listen, "UDP"))?;
        let share = |sockets: Vec<Socket>| -> Vec<_> {
            sockets.into_iter().map(|socket| Arc::new(UdpSocket::from_std(socket.into()))).collect()
        };
        let udp: Vec<Vec<_>> = self.udp.into_iter().map(share).collect();
        let mut plans = Vec::with_capacity(udp.len());
        for (index, udp_bound) in udp_bound.iter().enumerate() {
            let addresses = Addresses::new(
                local.to_vec(),
                &[(Transport::Udp, &udp_ips, udp_bound), (Transport::Tcp, &tcp_ips, &tcp_bound)],
            );
            if !addresses.candidates().iter().any(|candidate| candidate.transport == Transport::Udp) {
                return Err(ShardError::NoAddress);
            }
            let others = udp.iter().enumerate().filter(|(other, _)| *other != index);
            let guests = others.flat_map(|(_, sockets)| sockets.iter().cloned()).collect();
            plans.push(Plan { udp: udp[index].clone(), guests, tcp: tcp.take().unwrap_or_default(), addresses });
        }
        Ok(plans)
    }
}

/// The IPs to put into the candidates of sockets that listen on `ip`, best first.
pub(super) fn advertised(config: &ShardsConfig, ip: IpAddr, local: &[IpAddr]) -> Vec<IpAddr> {
    if !config.advertise.is_empty() {
        config.advertise.clone()
    } else if ip.is_unspecified() {
        worth_advertising(local)
    } else {
        vec![ip]
    }
}

/// The UDP address of one shard: port + index, or a port of the system's choice.
pub(super) fn udp_address(first: SocketAddr, index: usize) -> Result<SocketAddr, ShardError> {
    if first.port() == 0 {
        return Ok(first);
    }
    let port = u16::try_from(index).ok().and_then(|index| first.port().checked_add(index));
    match port {
        Some(port) => Ok(SocketAddr::new(first.ip(), port)),
        None => Err(ShardError::Listen {
            address: first,
            transport: "UDP",
            source: io::Error::new(io::ErrorKind::InvalidInput, "a shard's port would exceed 65535"),
        }),
    }
}
