//! Whether shards could start here, for `stube doctor`: their ports and what the kernel gives their sockets. What is
//! opened is closed again at once.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn_udp::UdpSocketState;

use super::ShardsConfig;
use super::listen::{BUFFER_LEAST, BUFFER_WANTED, listen};
use super::start::{advertised, num_shards, udp_address};
use crate::command::Transport;

pub use super::addresses::interface_addresses;

/// What the kernel gives a media socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFacts {
    /// The smaller one of both directions, in bytes of payload.
    pub buffer: usize,
    pub buffer_wanted: usize,
    pub buffer_least: usize,
    /// Datagrams in one system call; 1 without offload.
    pub send_segments: usize,
    pub receive_segments: usize,
}

/// Every address that shards listen on.
pub fn listeners(config: &ShardsConfig) -> Vec<(SocketAddr, Transport)> {
    let udp = (0..num_shards(config)).filter_map(|index| udp_address(config.udp_listen, index).ok());
    udp.map(|address| (address, Transport::Udp)).chain(config.tcp_listen.map(|tcp| (tcp, Transport::Tcp))).collect()
}

/// Listens as a shard does, and stops again.
pub fn try_listen(address: SocketAddr, transport: Transport) -> io::Result<()> {
    listen(address, transport).map(drop)
}

/// What the kernel gives a UDP socket.
pub fn socket_facts(ip: IpAddr) -> io::Result<SocketFacts> {
    let sockets = listen(SocketAddr::new(ip, 0), Transport::Udp)?;
    let socket = sockets.first().ok_or(io::ErrorKind::Unsupported)?;
    // Linux reports twice what it grants for payload.
    let buffer = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
    let state = UdpSocketState::new(socket.into())?;
    Ok(SocketFacts {
        buffer,
        buffer_wanted: BUFFER_WANTED,
        buffer_least: BUFFER_LEAST,
        send_segments: state.max_gso_segments(),
        receive_segments: state.gro_segments(),
    })
}

/// What clients would be told to connect to on a machine with these addresses.
pub fn told(config: &ShardsConfig, local: &[IpAddr]) -> Vec<IpAddr> {
    advertised(config, config.udp_listen.ip(), local)
}

/// How many files, connections among them, this process may have open.
pub fn open_files_max() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}
