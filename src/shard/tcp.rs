//! A shard's ICE-TCP connections (RFC 6544, passive; RFC 4571 framing).
//!
//! Shard 0 accepts for all, or gets what control has accepted on a port that HTTP shares. A connection is *pending* until its first complete frame tells which session it belongs to;
//! a shard that does not know it hands it to the next, and after the last it is closed without a reply.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::MediaEngine;
use super::addresses::Addresses;
use super::census::Census;
use super::framing::{Deframer, Outbound};
use super::link::{Link, Parcel};
use crate::command::Transport;
use crate::metrics::ShardSnapshot;
use crate::rtc::{Datagram, Input};

/// From accepting a connection to its first complete frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// An established connection that says nothing for so long is dead: ICE checks come every few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The first frame is a STUN request, bytes.
pub const FIRST_FRAME_MAX: usize = 2048;
/// Later frames are DTLS records and RTP, sized for UDP, bytes.
const FRAME_MAX: usize = 8192;
/// Accepted in one turn.
const ACCEPTS_PER_TURN: usize = 32;
/// Connections read in one turn.
const CONNECTIONS_PER_TURN: usize = 64;
/// Reads from one connection in one turn.
const READS_PER_CONNECTION: usize = 4;

/// A connection that was accepted.
pub(crate) struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Arrival {
    /// One that does not block. None if it is gone already.
    pub(crate) fn of(stream: std::net::TcpStream) -> Option<Self> {
        let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        Some(Self { stream: TcpStream::from_std(stream), peer: canonical(peer), local: canonical(local) })
    }
}

/// An IPv4 address as such: a socket that takes both families has it mapped into IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // With its scope.
        IpAddr::V6(_) => address,
    }
}

/// A connection on its way from one shard to another.
pub(crate) struct Handover {
    stream: TcpStream,
    peer: SocketAddr,
    destination: SocketAddr,
    deframer: Deframer,
    outbound: Outbound,
    /// Its session comes along.
    established: bool,
}

/// One shard's TCP connections, and on shard 0 the listeners.
pub(crate) struct Tcp {
    registry: Registry,
    listeners: Vec<Listener>,
    first_token: usize,
    next_token: usize,
    connections: BTreeMap<usize, Connection>,
    census: Census,
    /// The established ones.
    by_peer: BTreeMap<SocketAddr, usize>,
    /// Connections to read, each once.
    ready: VecDeque<usize>,
    /// Connections with something new to write.
    touched: Vec<usize>,
    /// Peers whose connection broke in writing; the engine hears of them in the next turn.
    broken: Vec<SocketAddr>,
    next_shard: Option<Link>,
}

struct Listener {
    socket: TcpListener,
    /// Someone may wait to be accepted.
    ready: bool,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// The candidate it reached.
    destination: SocketAddr,
    deframer: Deframer,
    outbound: Outbound,
    established: bool,
    /// Is in [`Tcp::ready`].
    is_ready: bool,
    /// Is in [`Tcp::touched`].
    is_touched: bool,
    /// When it was accepted or, once established, last read.
    heard_at: Instant,
}

/// What is to become of a connection after reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing more to read now.
    Keep,
    /// There may be more to read.
    ReadOn,
    /// No session here knows it.
    HandOn,
    /// The peer closed it or broke the rules.
    Close,
}

impl Tcp {
    /// Registers the listeners (none but on shard 0) under the tokens from `first_token` on; connections get the tokens
    /// after them.
    pub(crate) fn new(
        registry: Registry,
        listeners: Vec<socket2::Socket>,
        first_token: usize,
        next_shard: Option<Link>,
    ) -> io::Result<Self> {
        let open = |(index, socket): (usize, socket2::Socket)| -> io::Result<Listener> {
            let mut socket = TcpListener::from_std(socket.into());
            registry.register(&mut socket, Token(first_token + index), Interest::READABLE)?;
            Ok(Listener { socket, ready: true })
        };
        let listeners: Vec<Listener> = listeners.into_iter().enumerate().map(open).collect::<io::Result<_>>()?;
        Ok(Self {
            registry,
            first_token,
            next_token: first_token + listeners.len(),
            listeners,
            connections: BTreeMap::new(),
            census: Census::default(),
            by_peer: BTreeMap::new(),
            ready: VecDeque::new(),
            touched: Vec::new(),
            broken: Vec::new(),
            next_shard,
        })
    }

    /// Takes note of an event.
    pub(crate) fn note(&mut self, token: Token, readable: bool, writable: bool) {
        if let Some(listener) = self.listeners.get_mut(token.0.wrapping_sub(self.first_token)) {
            listener.ready = true;
            return;
        }
        let Some(connection) = self.connections.get_mut(&token.0) else { return };
        if readable && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(token.0);
        }
        if writable && !connection.outbound.is_empty() && !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(token.0);
        }
    }

    /// Accepts and reads a bounded amount. Returns whether more may wait.
    pub(crate) fn serve<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        addresses: &Addresses,
        counters: &mut ShardSnapshot,
        now: Instant,
    ) -> bool {
        for source in self.broken.drain(..) {
            engine.handle(Input::Disconnected { source }, now);
        }
        self.accept(addresses, now);
        for _ in 0..CONNECTIONS_PER_TURN {
            let Some(token) = self.ready.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            connection.is_ready = false;
            let was_established = connection.established;
            let verdict = connection.read(engine, counters, now);
            if connection.established && !was_established {
                self.establish(token);
            }
            match verdict {
                Verdict::Keep => {}
                Verdict::ReadOn => self.note(Token(token), true, false),
                Verdict::HandOn => self.hand_on(token),
                Verdict::Close => {
                    if let Some(source) = self.remove(token) {
                        engine.handle(Input::Disconnected { source }, now);
                    }
                }
            }
        }
        !self.ready.is_empty() || self.listeners.iter().any(|listener| listener.ready)
    }

    /// Takes over a connection from another shard; the next [`Tcp::serve`] looks at what it has said.
    pub(crate) fn adopt(&mut self, handover: Handover, now: Instant) {
        if !handover.established && !self.census.admits(handover.peer.ip()) {
            return;
        }
        let established = handover.established;
        if let Some(token) = self.insert(handover, now)
            && established
        {
            self.establish(token);
            self.note(Token(token), false, true);
        }
    }

    /// Gives up the connection of a session that goes to another shard.
    pub(crate) fn release(&mut self, peer: SocketAddr) -> Option<Handover> {
        let token = self.by_peer.remove(&peer)?;
        self.detach(token).map(Connection::into_handover)
    }

    /// Queues a datagram for its peer; [`Tcp::flush`] writes it.
    pub(crate) fn send(&mut self, destination: SocketAddr, datagram: &[u8], counters: &mut ShardSnapshot) {
        let token = self.by_peer.get(&destination).copied();
        let connection = token.and_then(|token| Some((token, self.connections.get_mut(&token)?)));
        let Some((token, connection)) = connection else {
            counters.send_errors += 1;
            return;
        };
        if !connection.outbound.push(datagram) {
            counters.send_errors += 1;
            return;
        }
        counters.datagrams_out += 1;
        if !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(token);
        }
    }

    /// Writes what was queued, as far as peers take it. Returns whether a connection broke, which the engine has yet to
    /// hear.
    pub(crate) fn flush(&mut self) -> bool {
        let mut touched = std::mem::take(&mut self.touched);
        for token in touched.drain(..) {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            connection.is_touched = false;
            if connection.outbound.write_to(&mut connection.stream).is_err() {
                let source = self.remove(token);
                self.broken.extend(source);
            }
        }
        self.touched = touched;
        !self.broken.is_empty()
    }

    /// Closes what is overdue, once a second. Missed events, should there be any, are made up for.
    pub(crate) fn tidy<E: MediaEngine>(&mut self, engine: &mut E, now: Instant) {
        for listener in &mut self.listeners {
            listener.ready = true;
        }
        let overdue = |connection: &Connection| {
            let limit = if connection.established { IDLE_TIMEOUT } else { FIRST_FRAME_TIMEOUT };
            now.saturating_duration_since(connection.heard_at) > limit
        };
        let tokens: Vec<usize> =
            self.connections.iter().filter(|(_, connection)| overdue(connection)).map(|(token, _)| *token).collect();
        for token in tokens {
            if let Some(source) = self.remove(token) {
                engine.handle(Input::Disconnected { source }, now);
            }
        }
    }

    /// Whether peers have taken everything.
    pub(crate) fn is_flushed(&self) -> bool {
        self.connections.values().all(|connection| connection.outbound.is_empty())
    }

    fn accept(&mut self, addresses: &Addresses, now: Instant) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listener) = self.listeners.get_mut(index).filter(|listener| listener.ready) else { break };
                match listener.socket.accept() {
                    Ok((stream, peer)) => {
                        // Else it is gone already.
                        if let Ok(local) = stream.local_addr() {
                            self.admit(Arrival { stream, peer, local }, addresses, now);
                        }
                    }
                    // The connection was gone before it was accepted.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    // Nobody waits, or no file descriptor is left: `tidy` looks again.
                    Err(_) => listener.ready = false,
                }
            }
        }
    }

    /// Begins to wait for the first frame of an accepted connection; over a limit it is closed at once.
    pub(crate) fn admit(&mut self, arrival: Arrival, addresses: &Addresses, now: Instant) {
        let Arrival { stream, peer, local } = arrival;
        if !self.census.admits(peer.ip()) || stream.set_nodelay(true).is_err() {
            return;
        }
        let destination = addresses.candidate_for(Transport::Tcp, local);
        let (deframer, outbound) = (Deframer::new(FIRST_FRAME_MAX), Outbound::default());
        self.insert(Handover { stream, peer, destination, deframer, outbound, established: false }, now);
    }

    fn insert(&mut self, handover: Handover, now: Instant) -> Option<usize> {
        let Handover { mut stream, peer, destination, deframer, outbound, established } = handover;
        let token = self.next_token;
        self.next_token += 1;
        self.registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE).ok()?;
        let connection = Connection {
            stream,
            peer,
            destination,
            deframer,
            outbound,
            established,
            is_ready: false,
            is_touched: false,
            heard_at: now,
        };
        self.connections.insert(token, connection);
        self.census.add(peer.ip());
        self.note(Token(token), true, false);
        Some(token)
    }

    /// Makes a connection findable by its peer's address. Of two from the same address, to two of ours, the newer wins:
    /// the older is a leftover behind a NAT.
    fn establish(&mut self, token: usize) {
        let Some(connection) = self.connections.get(&token) else { return };
        self.census.establish(connection.peer.ip());
        if let Some(older) = self.by_peer.insert(connection.peer, token) {
            self.detach(older);
        }
    }

    /// Closes a connection. Returns its peer if the engine knows it.
    fn remove(&mut self, token: usize) -> Option<SocketAddr> {
        let connection = self.detach(token)?;
        if !connection.established {
            return None;
        }
        self.by_peer.remove(&connection.peer);
        Some(connection.peer)
    }

    /// Gives a connection that no session here knows to the next shard. Dropping it closes it.
    fn hand_on(&mut self, token: usize) {
        let Some(connection) = self.detach(token) else { return };
        if let Some(next) = &self.next_shard {
            // If the next shard is too far behind, the connection is dropped, that is closed.
            if next.send(Parcel::Connection(connection.into_handover())).is_ok() {
                next.wake();
            }
        }
    }

    /// Forgets a connection; dropping it closes it.
    fn detach(&mut self, token: usize) -> Option<Connection> {
        let mut connection = self.connections.remove(&token)?;
        self.census.remove(connection.peer.ip(), connection.established);
        // It was registered; should the kernel disagree, the next shard's registration will tell.
        let _ = self.registry.deregister(&mut connection.stream);
        Some(connection)
    }
}

impl Connection {
    fn into_handover(self) -> Handover {
        let Self { stream, peer, destination, deframer, outbound, established, .. } = self;
        Handover { stream, peer, destination, deframer, outbound, established }
    }

    /// Gives the engine the frames at hand, and reads more, a bounded number of times.
    fn read<E: MediaEngine>(&mut self, engine: &mut E, counters: &mut ShardSnapshot, now: Instant) -> Verdict {
        for _ in 0..READS_PER_CONNECTION {
            // An adopted connection brings frames along, so these come first.
            if let Some(verdict) = self.take_frames(engine, counters, now) {
                return verdict;
            }
            match self.deframer.fill(&mut self.stream) {
                Ok(0) => return Verdict::Close,
                Ok(_) if self.established => self.heard_at = now,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Verdict::Keep,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Verdict::Close,
            }
        }
        self.take_frames(engine, counters, now).unwrap_or(Verdict::ReadOn)
    }

    /// Gives the engine every complete frame. A verdict if reading ends here.
    fn take_frames<E: MediaEngine>(
        &mut self,
        engine: &mut E,
        counters: &mut ShardSnapshot,
        now: Instant,
    ) -> Option<Verdict> {
        let empty =
            Datagram { transport: Transport::Tcp, source: self.peer, destination: self.destination, contents: &[] };
        if !self.established {
            match self.deframer.peek() {
                Ok(None) => return None,
                Ok(Some(first)) if engine.knows(&Datagram { contents: first, ..empty }) => {}
                Ok(Some(_)) => return Some(Verdict::HandOn),
                Err(_) => return Some(Verdict::Close),
            }
            self.established = true;
            self.heard_at = now;
            self.deframer.raise_limit(FRAME_MAX);
        }
        loop {
            match self.deframer.next() {
                Ok(Some(frame)) => {
                    counters.datagrams_in += 1;
                    engine.handle(Input::Datagram(Datagram { contents: frame, ..empty }), now);
                }
                Ok(None) => return None,
                Err(_) => return Some(Verdict::Close),
            }
        }
    }
}

#[cfg(test)]
mod tests;
