//! A shard's UDP sockets: batched receive with GRO, runs sent with GSO. And the other shards' sockets, to send from for
//! sessions that have come from there; what these receive is their own shards'.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, UdpSocketState};

use super::addresses::{Addresses, is_sendable};
use super::runs::{Run, split};
use crate::command::Transport;
use crate::metrics::ShardSnapshot;
use crate::rtc::Datagram;

/// Buffers one receive call fills.
const BATCH: usize = 8;
/// Bytes in each: what GRO may join, or the largest datagram.
const BUFFER_BYTES: usize = 65_536;
/// Datagrams taken from one socket before commands, timers and the other socket get their turn; more at once make
/// longer runs, fewer a quicker turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Receive errors in a row (ICMP reports, one each) after which the socket rests until its next event.
const ERRORS_IN_A_ROW_MAX: usize = 64;
/// What may wait per socket for a kernel whose buffer is full, bytes: 50 ms at 80 Mbit/s.
const BLOCKED_BYTES_MAX: usize = 512 * 1024;

/// One shard's UDP sockets, at most one a family, and behind them the other shards'.
pub(crate) struct Udp {
    registry: Registry,
    sockets: Vec<Socket>,
    /// How many are its own.
    own: usize,
    buffers: Vec<[u8; BUFFER_BYTES]>,
}

struct Socket {
    token: Token,
    socket: Arc<mio::net::UdpSocket>,
    is_own: bool,
    state: UdpSocketState,
    local: SocketAddr,
    /// What GSO could do when the socket was new.
    gso_segments: usize,
    /// There may be something to receive.
    readable: bool,
    errors_in_a_row: usize,
    blocked: VecDeque<Blocked>,
    blocked_bytes: usize,
}

/// What is left of a run that the kernel had no room for.
struct Blocked {
    source: SocketAddr,
    destination: SocketAddr,
    contents: Vec<u8>,
    segment: usize,
}

impl Blocked {
    fn run(&self) -> Run<'_> {
        Run { source: self.source, destination: self.destination, contents: &self.contents, segment: self.segment }
    }
}

impl Udp {
    /// Registers bound sockets under the tokens from `first_token` on.
    pub(crate) fn new(
        registry: Registry,
        own: Vec<Arc<mio::net::UdpSocket>>,
        guests: Vec<Arc<mio::net::UdpSocket>>,
        first_token: usize,
    ) -> io::Result<Self> {
        let own_count = own.len();
        let open = |(index, socket): (usize, Arc<mio::net::UdpSocket>)| {
            Socket::new(&registry, socket, Token(first_token + index), index < own_count)
        };
        let sockets = own.into_iter().chain(guests).enumerate().map(open).collect::<io::Result<_>>()?;
        Ok(Self { registry, sockets, own: own_count, buffers: vec![[0; BUFFER_BYTES]; BATCH] })
    }

    /// Takes note of an event; false if the token is not ours.
    pub(crate) fn note(
        &mut self,
        token: Token,
        writable: bool,
        addresses: &Addresses,
        counters: &mut ShardSnapshot,
    ) -> bool {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.token == token) else { return false };
        socket.readable = socket.is_own;
        if writable {
            socket.unblock(&self.registry, addresses, counters);
        }
        true
    }

    /// Looks at every socket in the next turn, whether or not there was an event.
    pub(crate) fn look_again(&mut self) {
        for socket in self.own_sockets() {
            socket.readable = true;
        }
    }

    /// Receives a bounded number of datagrams.
    pub(crate) fn receive(
        &mut self,
        addresses: &Addresses,
        counters: &mut ShardSnapshot,
        mut each: impl FnMut(Datagram<'_>),
    ) {
        let Some(buffers) = self.buffers.first_chunk_mut::<BATCH>() else { return };
        for socket in self.sockets.iter_mut().take(self.own) {
            let mut taken = 0;
            while socket.readable && taken < DATAGRAMS_PER_TURN {
                taken += socket.receive_batch(buffers, addresses, counters, &mut each);
            }
        }
    }

    /// Whether more may wait to be received.
    pub(crate) fn has_more(&self) -> bool {
        self.sockets.iter().take(self.own).any(|socket| socket.readable)
    }

    /// Sends a run, or queues what the kernel has no room for, or counts what that queue has no room for.
    pub(crate) fn send(&mut self, run: &Run<'_>, addresses: &Addresses, counters: &mut ShardSnapshot) {
        match self.socket_for(run) {
            Some(index) if is_sendable(run.destination) => {
                let socket = &mut self.sockets[index];
                for piece in run.pieces(socket.gso_segments) {
                    socket.send(&self.registry, &piece, addresses, counters);
                }
            }
            _ => counters.send_errors += run.len() as u64,
        }
    }

    /// The socket a run leaves from: that of its port, be it another shard's.
    fn socket_for(&self, run: &Run<'_>) -> Option<usize> {
        let fits = |socket: &Socket| socket.local.is_ipv4() == run.destination.is_ipv4();
        let exact = self.sockets.iter().position(|socket| fits(socket) && socket.local.port() == run.source.port());
        exact.or_else(|| self.sockets.iter().take(self.own).position(fits))
    }

    fn own_sockets(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.sockets.iter_mut().take(self.own)
    }

    /// Whether the kernel has taken everything.
    pub(crate) fn is_flushed(&self) -> bool {
        self.sockets.iter().all(|socket| socket.blocked.is_empty())
    }
}

impl Socket {
    fn new(registry: &Registry, socket: Arc<mio::net::UdpSocket>, token: Token, is_own: bool) -> io::Result<Self> {
        let state = UdpSocketState::new((&*socket).into())?;
        let local = socket.local_addr()?;
        if is_own {
            registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Self {
            token,
            gso_segments: state.max_gso_segments(),
            socket,
            is_own,
            state,
            local,
            readable: is_own,
            errors_in_a_row: 0,
            blocked: VecDeque::new(),
            blocked_bytes: 0,
        })
    }

    /// One receive call. Returns how much of the turn's share it used.
    fn receive_batch(
        &mut self,
        buffers: &mut [[u8; BUFFER_BYTES]; BATCH],
        addresses: &Addresses,
        counters: &mut ShardSnapshot,
        each: &mut impl FnMut(Datagram<'_>),
    ) -> usize {
        let mut meta = [RecvMeta::default(); BATCH];
        let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let filled = match self.state.recv((&*self.socket).into(), &mut slices, &mut meta) {
            Ok(filled) => filled,
            Err(error) => {
                self.errors_in_a_row += 1;
                // Each ICMP report comes as one error, and datagrams may wait behind it.
                self.readable = error.kind() != io::ErrorKind::WouldBlock && self.errors_in_a_row < ERRORS_IN_A_ROW_MAX;
                return 1;
            }
        };
        self.errors_in_a_row = 0;
        // A batch that is not full has emptied the socket; what comes later is a new event.
        self.readable = filled == BATCH;
        let mut datagrams = 0;
        for (buffer, meta) in buffers.iter().zip(&meta[..filled]) {
            let ip = if self.local.ip().is_unspecified() { meta.dst_ip } else { None };
            let local = SocketAddr::new(ip.unwrap_or(self.local.ip()), self.local.port());
            let destination = addresses.candidate_for(Transport::Udp, local);
            for contents in split(&buffer[..meta.len], meta.stride) {
                datagrams += 1;
                each(Datagram { transport: Transport::Udp, source: meta.addr, destination, contents });
            }
        }
        counters.datagrams_in += datagrams;
        (datagrams as usize).max(1)
    }

    fn send(&mut self, registry: &Registry, run: &Run<'_>, addresses: &Addresses, counters: &mut ShardSnapshot) {
        // What is blocked goes first.
        let sent = if self.blocked.is_empty() { self.send_now(run, addresses, counters) } else { Some(0) };
        let Some(sent) = sent else { return };
        let rest = Run { contents: &run.contents[sent..], ..*run };
        if self.blocked_bytes + rest.contents.len() > BLOCKED_BYTES_MAX {
            counters.send_errors += rest.len() as u64;
            return;
        }
        if self.blocked.is_empty() {
            self.watch(registry, true);
        }
        self.blocked_bytes += rest.contents.len();
        self.blocked.push_back(Blocked {
            source: rest.source,
            destination: rest.destination,
            contents: rest.contents.to_vec(),
            segment: rest.segment,
        });
    }

    /// Sends what was blocked, as far as the kernel takes it.
    fn unblock(&mut self, registry: &Registry, addresses: &Addresses, counters: &mut ShardSnapshot) {
        let had_blocked = !self.blocked.is_empty();
        while let Some(mut first) = self.blocked.pop_front() {
            self.blocked_bytes -= first.contents.len();
            if let Some(sent) = self.send_now(&first.run(), addresses, counters) {
                first.contents.drain(..sent);
                self.blocked_bytes += first.contents.len();
                self.blocked.push_front(first);
                return;
            }
        }
        if had_blocked {
            self.watch(registry, false);
        }
    }

    /// Writable is watched only while something is blocked: each packet that leaves the kernel would be an event.
    fn watch(&mut self, registry: &Registry, writable: bool) {
        let fd = self.socket.as_raw_fd();
        let (mut source, readable) = (SourceFd(&fd), Interest::READABLE);
        let watched = match (self.is_own, writable) {
            (true, true) => registry.reregister(&mut source, self.token, readable | Interest::WRITABLE),
            (true, false) => registry.reregister(&mut source, self.token, readable),
            (false, true) => registry.register(&mut source, self.token, Interest::WRITABLE),
            (false, false) => registry.deregister(&mut source),
        };
        if let Err(error) = watched {
            tracing::warn!(%error, "cannot watch a UDP socket");
        }
    }

    /// Sends a run; `Some(bytes sent)` if the kernel had no room for the rest. Any other failure concerns this
    /// destination alone: it is counted and the rest goes on.
    fn send_now(&mut self, run: &Run<'_>, addresses: &Addresses, counters: &mut ShardSnapshot) -> Option<usize> {
        let unspecified = self.local.ip().is_unspecified();
        let source = if unspecified { addresses.source_to_set(run.source.ip(), run.destination.ip()) } else { None };
        if run.len() > 1 && self.state.max_gso_segments() > 1 {
            match self.send_segments(run, run.contents, Some(run.segment), source) {
                Ok(()) => {
                    counters.datagrams_out += run.len() as u64;
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(0),
                // One by one each datagram gets its own verdict.
                Err(_) => {}
            }
        }
        let (mut passed, mut accepted) = (0, 0);
        for datagram in run.datagrams() {
            match self.send_segments(run, datagram, None, source) {
                Ok(()) => accepted += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    counters.datagrams_out += accepted;
                    return Some(passed);
                }
                Err(_) => counters.send_errors += 1,
            }
            passed += datagram.len();
        }
        counters.datagrams_out += accepted;
        self.judge_gso(accepted == run.len() as u64);
        None
    }

    fn send_segments(
        &self,
        run: &Run<'_>,
        contents: &[u8],
        segment_size: Option<usize>,
        src_ip: Option<IpAddr>,
    ) -> io::Result<()> {
        if segment_size.is_none() && src_ip.is_none() {
            return self.socket.send_to(contents, run.destination).map(drop);
        }
        let transmit = quinn_udp::Transmit { destination: run.destination, ecn: None, contents, segment_size, src_ip };
        self.state.try_send((&*self.socket).into(), &transmit)
    }

    /// quinn-udp takes `EINVAL` and `EIO` for missing GSO and gives it up. Where single sends fail too, the address was
    /// at fault (an interface has lost it, say), and GSO comes back.
    fn judge_gso(&mut self, singles_work: bool) {
        if self.state.max_gso_segments() >= self.gso_segments {
            return;
        }
        if singles_work {
            self.gso_segments = self.state.max_gso_segments();
            tracing::info!("the network device takes no segmentation offload (GSO); sending datagrams one by one");
        } else if let Ok(state) = UdpSocketState::new((&*self.socket).into()) {
            self.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::listen::{bound, listen};

    fn udp() -> io::Result<(Udp, SocketAddr)> {
        let poll = mio::Poll::new()?;
        let sockets = listen(SocketAddr::from(([127, 0, 0, 1], 0)), Transport::Udp)?;
        let local = bound(&sockets)?[0];
        let share = |socket: socket2::Socket| Arc::new(mio::net::UdpSocket::from_std(socket.into()));
        let sockets = sockets.into_iter().map(share).collect();
        Ok((Udp::new(poll.registry().try_clone()?, sockets, Vec::new(), 1)?, local))
    }

    #[test]
    fn what_is_blocked_leaves_first_and_in_order() -> io::Result<()> {
        let (mut udp, source) = udp()?;
        let peer = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let (destination, addresses) = (peer.local_addr()?, Addresses::default());
        let mut counters = ShardSnapshot::default();
        // As if the kernel had had no room. (Loopback never says so.)
        udp.sockets[0].blocked.push_back(Blocked { source, destination, contents: vec![0; 100], segment: 40 });
        udp.sockets[0].blocked_bytes = 100;
        let contents: Vec<u8> = (1..=250).collect();
        udp.send(&Run { source, destination, contents: &contents, segment: 100 }, &addresses, &mut counters);
        assert_eq!((counters.datagrams_out, udp.is_flushed()), (0, false));
        let large = vec![0; 60_000];
        for _ in 0..10 {
            udp.send(&Run { source, destination, contents: &large, segment: 1200 }, &addresses, &mut counters);
        }
        assert_eq!(counters.send_errors, 100, "the queue holds 512 KiB: two of ten runs of 50 are lost");
        udp.sockets[0].blocked.truncate(2);
        udp.sockets[0].blocked_bytes = 350;
        assert!(udp.note(Token(1), true, &addresses, &mut counters));
        assert!(udp.is_flushed() && udp.sockets[0].blocked_bytes == 0);
        let mut buffer = [0; 2048];
        for (length, first) in [(40, 0), (40, 0), (20, 0), (100, 1), (100, 101), (50, 201)] {
            assert_eq!((peer.recv(&mut buffer)?, buffer[0]), (length, first));
        }
        assert_eq!(counters.datagrams_out, 6);
        Ok(())
    }

    #[test]
    fn a_run_leaves_from_the_port_it_names_be_it_another_shards() -> io::Result<()> {
        let poll = mio::Poll::new()?;
        let share = |socket: socket2::Socket| Arc::new(mio::net::UdpSocket::from_std(socket.into()));
        let open =
            || -> io::Result<_> { Ok(share(listen(SocketAddr::from(([127, 0, 0, 1], 0)), Transport::Udp)?.remove(0))) };
        let (own, other) = (open()?, open()?);
        let sources = [own.local_addr()?, other.local_addr()?];
        let mut udp = Udp::new(poll.registry().try_clone()?, vec![own], vec![Arc::clone(&other)], 1)?;
        let peer = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let (destination, mut counters) = (peer.local_addr()?, ShardSnapshot::default());
        for source in sources {
            let run = Run { source, destination, contents: &[7; 250], segment: 100 };
            udp.send(&run, &Addresses::default(), &mut counters);
            for _ in 0..3 {
                assert_eq!(peer.recv_from(&mut [0; 200])?.1, source);
            }
        }
        assert_eq!((counters.datagrams_out, counters.send_errors), (6, 0));
        // What comes to the other shard's socket is not taken, but watched for room it is.
        peer.send_to(&[1], sources[1])?;
        udp.look_again();
        udp.receive(&Addresses::default(), &mut counters, |_| panic!("not its own"));
        udp.sockets[1].watch(&udp.registry, true);
        assert!(udp.note(Token(2), true, &Addresses::default(), &mut counters) && !udp.sockets[1].readable);
        udp.sockets[1].watch(&udp.registry, false);
        Ok(())
    }

    #[test]
    fn a_destination_at_fault_does_not_cost_the_others_gso() -> io::Result<()> {
        let (mut udp, source) = udp()?;
        let peer = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let addresses = Addresses::default();
        let mut counters = ShardSnapshot::default();
        let before = udp.sockets[0].gso_segments;
        for (text, segment) in
            [("127.0.0.1:0", 100), ("255.255.255.255:9", 100), ("[::1]:9", 100), ("240.0.0.1:9", 100)]
        {
            let destination = text.parse().map_err(io::Error::other)?;
            udp.send(&Run { source, destination, contents: &[1; 300], segment }, &addresses, &mut counters);
        }
        assert_eq!((counters.send_errors, counters.datagrams_out), (12, 0));
        // As if an interface had lost its address: each send fails with EINVAL.
        let run = Run { source, destination: peer.local_addr()?, contents: &[1; 300], segment: 100 };
        udp.sockets[0].local.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        let lost = Addresses::new(vec!["192.0.2.77".parse().map_err(io::Error::other)?], &[]);
        let run = Run { source: "192.0.2.77:1".parse().map_err(io::Error::other)?, ..run };
        udp.send(&run, &lost, &mut counters);
        assert_eq!((counters.send_errors, counters.datagrams_out), (15, 0));
        assert_eq!(udp.sockets[0].state.max_gso_segments(), before);
        Ok(())
    }
}
