//! The whole ring on real loopback sockets, with a toy in the engine's place.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::command::{EndReason, Transport};
use crate::ids::{RoomId, SessionId};
use crate::rtc::{EngineConfig, Transmit};

/// Long enough for a busy test machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to look before nothing counts as nothing.
const SILENCE: Duration = Duration::from_millis(200);
/// When the toy's timer rings.
const TIMER: Duration = Duration::from_millis(20);

/// Does what a datagram's first byte says.
pub(super) struct Toy {
    index: u8,
    pub(super) disconnected: usize,
    outputs: VecDeque<Output>,
    timer: Option<(Instant, Transmit)>,
}

impl Toy {
    pub(super) fn new(index: u8) -> Self {
        Self { index, disconnected: 0, outputs: VecDeque::new(), timer: None }
    }

    fn reply(datagram: &Datagram<'_>, contents: Vec<u8>) -> Transmit {
        Transmit {
            transport: datagram.transport,
            source: datagram.destination,
            destination: datagram.source,
            segment: contents.len(),
            contents,
        }
    }

    /// A notice that says which shard it is from, in the room's id.
    fn note(&mut self, now: Instant) {
        let room = RoomId::from_bits(self.index.into());
        self.outputs.push_back(Output::Notice(Notice::RoomFinished { room, reason: EndReason::ClientLeft, at: now }));
    }

    fn take(&mut self, datagram: &Datagram<'_>, now: Instant) {
        match datagram.contents {
            [b'E', ..] => {
                let reply = Self::reply(datagram, datagram.contents.to_vec());
                self.outputs.push_back(Output::Transmit(reply));
            }
            // Where it was sent to, as text.
            [b'D'] => {
                let text = datagram.destination.to_string();
                self.outputs.push_back(Output::Transmit(Self::reply(datagram, text.into_bytes())));
            }
            // A frame: packets of 1000 bytes, the last of 500.
            [b'F', count] => {
                let mut contents = Vec::new();
                for number in 1..=*count {
                    let length = if number == *count { 500 } else { 1000 };
                    contents.extend([0x80, 96]);
                    contents.resize(contents.len() + length - 2, number);
                }
                let frame = Transmit { segment: 1000, ..Self::reply(datagram, contents) };
                self.outputs.push_back(Output::Transmit(frame));
            }
            [b'T'] => self.timer = Some((now + TIMER, Self::reply(datagram, b"ring".to_vec()))),
            [b'N'] => self.note(now),
            [b'P'] => panic!("told to"),
            _ => {}
        }
    }
}

impl MediaEngine for Toy {
    fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram(datagram) => self.take(&datagram, now),
            Input::Disconnected { .. } => {
                self.disconnected += 1;
                self.note(now);
            }
            Input::Transfer(_) => {}
            // The one command it leaves open.
            Input::Command { command: Command::Shutdown, .. } => {}
            Input::Command { request, .. } => {
                self.outputs.push_back(Output::Reply { request, result: Ok(Reply::Done) });
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, transmit)) = self.timer.take_if(|(at, _)| *at <= now) {
            self.outputs.push_back(Output::Transmit(transmit));
        }
    }

    fn poll_output(&mut self, _now: Instant) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.timer.as_ref().map(|(at, _)| (*at, Timer::Peer))
    }

    /// Its sessions' first frames end in its number.
    fn knows(&self, datagram: &Datagram<'_>) -> bool {
        datagram.contents.last() == Some(&self.index)
    }

    fn stats(&self) -> Stats {
        Stats { rooms: self.index.into(), ..Stats::default() }
    }
}

/// A toy that takes its number from its thread's name.
fn make_toy(_config: EngineConfig, _now: Instant) -> Toy {
    let name = std::thread::current().name().map(str::to_owned).unwrap_or_default();
    let index = name.strip_prefix("shard-").and_then(|number| number.parse().ok()).expect("a shard's thread");
    Toy::new(index)
}

fn start_toys(count: usize, listen: &str) -> (Shards, Notices) {
    let address: SocketAddr = listen.parse().expect("an address");
    let config = ShardsConfig { count, udp_listen: address, tcp_listen: Some(address), ..ShardsConfig::default() };
    start::start(&config, make_toy).expect("the shards start")
}

/// The first candidate of a shard with this transport and IP.
fn candidate(shards: &Shards, shard: usize, transport: Transport, ip: IpAddr) -> SocketAddr {
    let mut candidates = shards.candidates(ShardIndex(shard)).iter();
    let found = candidates.find(|candidate| candidate.transport == transport && candidate.address.ip() == ip);
    found.map(|candidate| candidate.address).expect("a candidate")
}

fn loopback(shards: &Shards, shard: usize, transport: Transport) -> SocketAddr {
    candidate(shards, shard, transport, Ipv4Addr::LOCALHOST.into())
}

fn client(server: SocketAddr) -> UdpSocket {
    let ip = server.ip();
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    // Connected, so that a reply from another address than the one asked does not arrive.
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).expect("sent");
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).expect("a reply");
    buffer[..length].to_vec()
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn frame(contents: &[u8]) -> Vec<u8> {
    let mut bytes = (contents.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut contents = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut contents)?;
    Ok(contents)
}

/// Whether the peer has closed without having said anything.
pub(super) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// A notice's shard, as the notice says and as the channel says.
fn heard_from(notices: &mut Notices) -> (usize, RoomId) {
    match notices.blocking_recv() {
        Some((shard, Notice::RoomFinished { room, .. })) => (shard.0, room),
        _ => panic!("no such notice"),
    }
}

fn describe() -> Command {
    Command::CloseSession { session: SessionId::from_bits(1) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn every_advertised_address_answers_from_itself() {
    for listen in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"] {
        let (shards, _notices) = start_toys(2, listen);
        assert_eq!(shards.count(), 2);
        for shard in 0..2 {
            let candidates = shards.candidates(ShardIndex(shard));
            assert!(candidates[0].address.is_ipv4() && candidates[0].transport == Transport::Udp);
            for candidate in candidates.iter().filter(|candidate| candidate.transport == Transport::Udp) {
                let answer = ask(&client(candidate.address), b"D");
                assert_eq!(String::from_utf8_lossy(&answer), candidate.address.to_string());
            }
        }
        block_on(shards.stop());
    }
}

#[test]
fn unknown_datagrams_are_not_answered() {
    let (shards, _notices) = start_toys(1, "127.0.0.1:0");
    let socket = client(loopback(&shards, 0, Transport::Udp));
    for datagram in [&b""[..], b"x", &[0; 1400], &[0x80; 12], &[255; 9000]] {
        socket.send(datagram).expect("sent");
    }
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    assert_eq!(socket.recv(&mut [0; 64]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(ask(&socket, b"E"), b"E", "the loop carries on");
    assert!(shards.all_turning(PATIENCE));
    block_on(shards.stop());
    let counters = shards.snapshots()[0];
    assert_eq!((counters.datagrams_in, counters.datagrams_out, counters.send_errors), (6, 1, 0));
}

#[test]
fn runs_arrive_as_the_datagrams_they_were_made_of() {
    let (shards, _notices) = start_toys(1, "0.0.0.0:0");
    for server in [loopback(&shards, 0, Transport::Udp), shards.candidates(ShardIndex(0))[0].address] {
        let socket = client(server);
        let first = ask(&socket, &[b'F', 100]);
        assert_eq!((first.len(), first[2]), (1000, 1));
        for number in 2..=100 {
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer).expect("a datagram");
            assert_eq!((length, buffer[length - 1]), (if number == 100 { 500 } else { 1000 }, number));
        }
    }
    block_on(shards.stop());
    let counters = shards.snapshots()[0];
    assert_eq!((counters.datagrams_out, counters.send_errors), (200, 0));
    assert_eq!(counters.latency_buckets.iter().sum::<u64>(), 200);
    assert!(counters.latency_sum_ns > 0 && counters.busy_ns > 0);
}

#[test]
fn peers_that_are_gone_do_not_stop_the_loop() {
    let (shards, _notices) = start_toys(1, "127.0.0.1:0");
    let server = loopback(&shards, 0, Transport::Udp);
    for _ in 0..20 {
        // The reply meets a closed port, and ICMP says so.
        let socket = client(server);
        socket.send(b"T").expect("sent");
        drop(socket);
        std::thread::sleep(2 * TIMER);
    }
    assert_eq!(ask(&client(server), b"E"), b"E");
    block_on(shards.stop());
}

#[test]
fn timers_ring_in_time() {
    let (shards, _notices) = start_toys(1, "127.0.0.1:0");
    let socket = client(loopback(&shards, 0, Transport::Udp));
    let asked = Instant::now();
    assert_eq!(ask(&socket, b"T"), b"ring");
    let took = asked.elapsed();
    assert!(took >= TIMER && took < PATIENCE / 2, "{took:?}");
    block_on(shards.stop());
}

#[test]
fn tcp_frames_arrive_however_they_are_cut() {
    let (shards, _notices) = start_toys(1, "0.0.0.0:0");
    let server = loopback(&shards, 0, Transport::Tcp);
    let mut stream = connect(server);
    stream.set_nodelay(true).expect("no delay");
    for byte in frame(b"E first\0") {
        stream.write_all(&[byte]).expect("written");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(read_frame(&mut stream).expect("a frame"), b"E first\0");
    let several = [frame(b"D"), frame(b""), frame(&[b'E'; 8192])].concat();
    stream.write_all(&several).expect("written");
    assert_eq!(read_frame(&mut stream).expect("a frame"), server.to_string().into_bytes());
    assert_eq!(read_frame(&mut stream).expect("a frame"), [b'E'; 8192]);
    block_on(shards.stop());
    assert!(is_closed(&mut stream));
}

#[test]
fn tcp_connections_find_their_shard() {
    let (shards, mut notices) = start_toys(3, "127.0.0.1:0");
    let server = loopback(&shards, 0, Transport::Tcp);
    assert_eq!(loopback(&shards, 2, Transport::Tcp), server, "one listener for all");
    for shard in [2_u8, 0, 1] {
        let mut stream = connect(server);
        let frames = [frame(&[b'E', shard]), frame(b"N"), frame(b"E again")].concat();
        stream.write_all(&frames).expect("written");
        assert_eq!(read_frame(&mut stream).expect("a frame"), [b'E', shard]);
        assert_eq!(read_frame(&mut stream).expect("a frame"), b"E again");
        let from = (usize::from(shard), RoomId::from_bits(shard.into()));
        assert_eq!(heard_from(&mut notices), from);
        drop(stream);
        assert_eq!(heard_from(&mut notices), from, "it hears that the connection is gone");
    }
    block_on(shards.stop());
}

#[test]
fn tcp_connections_that_somebody_else_accepted_find_their_shard() {
    // As a socket unit of systemd opens it: IPv4 comes mapped into IPv6.
    let listener = std::net::TcpListener::bind("[::]:0").expect("a port");
    let bound = bound_to(socket2::SockRef::from(&listener)).expect("addresses");
    let port = bound[0].port();
    let udp: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let shared = ShardsConfig { tcp_listen: Some(bound[0]), tcp_shared: bound, ..ShardsConfig::default() };
    let config = ShardsConfig { count: 2, udp_listen: udp, ..shared };
    let (shards, _notices) = start::start(&config, make_toy).expect("the shards start");
    let brought = |server| {
        let client = connect(server);
        let (accepted, _) = listener.accept().expect("a connection");
        accepted.set_nonblocking(true).expect("as control does");
        shards.take_connection(accepted);
        client
    };
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let server = candidate(&shards, 1, Transport::Tcp, ip);
        assert_eq!(server.port(), port);
        for shard in [0, 1] {
            let mut client = brought(server);
            // The first frame is the shard's, the second asks where it arrived.
            client.write_all(&[frame(&[b'X', shard]), frame(b"D")].concat()).expect("written");
            assert_eq!(read_frame(&mut client).expect("a frame"), server.to_string().into_bytes());
        }
    }
    let server = candidate(&shards, 0, Transport::Tcp, Ipv4Addr::LOCALHOST.into());
    let began = Instant::now();
    let _silent: Vec<TcpStream> = (0..16).map(|_| brought(server)).collect();
    assert!(is_closed(&mut brought(server)), "one more than an address may have");
    assert!(began.elapsed() < Duration::from_secs(4), "closed at once");
    block_on(shards.stop());
}

#[test]
fn tcp_connections_that_no_shard_knows_are_closed_without_a_reply() {
    let (shards, _notices) = start_toys(2, "127.0.0.1:0");
    let server = loopback(&shards, 0, Transport::Tcp);
    for first in [frame(b"E?"), frame(b""), frame(&[9; 2048]), vec![255; 2]] {
        let mut stream = connect(server);
        stream.write_all(&first).expect("written");
        assert!(is_closed(&mut stream), "{} bytes", first.len());
    }
    // Too long once established.
    let mut stream = connect(server);
    stream.write_all(&[frame(b"E\0"), vec![255; 2]].concat()).expect("written");
    assert_eq!(read_frame(&mut stream).map_err(|error| error.kind()).unwrap_or_default(), b"");
    block_on(shards.stop());
}

#[test]
fn silent_tcp_connections_are_few_and_short() {
    let (shards, _notices) = start_toys(1, "127.0.0.1:0");
    let server = loopback(&shards, 0, Transport::Tcp);
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..16).map(|_| connect(server)).collect();
    for stream in &mut silent {
        stream.write_all(&[0]).expect("written");
    }
    assert!(is_closed(&mut connect(server)), "one more than an address may have");
    assert!(began.elapsed() < Duration::from_secs(4), "closed at once");
    assert!(silent.iter_mut().all(is_closed));
    assert!(began.elapsed() > Duration::from_secs(4));
    let mut stream = connect(server);
    stream.write_all(&frame(b"E\0")).expect("written");
    assert_eq!(read_frame(&mut stream).expect("a frame"), b"E\0");
    block_on(shards.stop());
}

#[test]
fn a_slow_tcp_peer_loses_packets_and_blocks_nobody() {
    let (shards, _notices) = start_toys(1, "127.0.0.1:0");
    let mut slow = connect(loopback(&shards, 0, Transport::Tcp));
    slow.write_all(&frame(b"E\0")).expect("written");
    for _ in 0..200 {
        slow.write_all(&frame(&[b'F', 255])).expect("written");
    }
    let socket = client(loopback(&shards, 0, Transport::Udp));
    assert!(eventually(|| ask(&socket, b"E") == b"E" && shards.snapshots()[0].send_errors > 0));
    // What it reads in the end is whole frames: what the kernel had taken and what was queued.
    assert_eq!(read_frame(&mut slow).expect("a frame"), b"E\0");
    slow.set_read_timeout(Some(2 * SILENCE)).expect("a timeout");
    let mut frames = 0;
    while let Ok(contents) = read_frame(&mut slow) {
        assert!(matches!(contents.len(), 500 | 1000) && contents[..2] == [0x80, 96]);
        frames += 1;
    }
    assert!((256..200 * 255).contains(&frames), "{frames}");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    slow.write_all(&frame(b"E")).expect("written");
    assert_eq!(read_frame(&mut slow).expect("a frame"), b"E", "it goes on once the peer reads");
    block_on(shards.stop());
    let counters = shards.snapshots()[0];
    assert!(counters.send_errors + frames >= 200 * 255, "{} dropped, {frames} read", counters.send_errors);
}

#[test]
fn commands_are_answered_until_the_end() {
    let (shards, _notices) = start_toys(2, "127.0.0.1:0");
    for shard in [0, 1, 0] {
        assert!(matches!(block_on(shards.send(ShardIndex(shard), describe())), Ok(Reply::Done)));
    }
    assert_eq!(block_on(shards.send(ShardIndex(2), describe())).err(), Some(Refusal::Unavailable));
    assert!(eventually(|| shards.snapshots().iter().map(|counters| counters.engine.rooms).eq([0, 1])));
    assert!(shards.all_turning(PATIENCE));
    let answers = block_on(async {
        // The toy never answers this one.
        let open = shards.send(ShardIndex(0), Command::Shutdown);
        let (answer, ()) = tokio::join!(open, shards.stop());
        (answer, shards.send(ShardIndex(1), describe()).await)
    });
    assert_eq!((answers.0.err(), answers.1.err()), (Some(Refusal::Unavailable), Some(Refusal::Unavailable)));
    assert!(!shards.all_turning(PATIENCE));
    block_on(shards.stop());
}

#[test]
fn a_panic_is_noticed() {
    let (shards, _notices) = start_toys(2, "127.0.0.1:0");
    let open = shards.clone();
    let waiting = std::thread::spawn(move || block_on(open.send(ShardIndex(1), Command::Shutdown)).err());
    let socket = client(loopback(&shards, 1, Transport::Udp));
    assert_eq!(ask(&socket, b"E"), b"E");
    socket.send(b"P").expect("sent");
    assert!(eventually(|| !shards.all_turning(PATIENCE)));
    assert_eq!(waiting.join().ok(), Some(Some(Refusal::Unavailable)));
    assert_eq!(block_on(shards.send(ShardIndex(1), describe())).err(), Some(Refusal::Unavailable));
    assert!(block_on(shards.send(ShardIndex(0), describe())).is_ok(), "the others go on");
    block_on(shards.stop());
}

#[test]
fn an_idle_shard_hardly_turns() {
    let (shards, _notices) = start_toys(1, "0.0.0.0:0");
    std::thread::sleep(Duration::from_millis(2500));
    assert!(shards.all_turning(Duration::from_millis(2400)), "at least once a second");
    let counters = shards.snapshots()[0];
    assert!(counters.busy_permille < 500, "{} ‰", counters.busy_permille);
    block_on(shards.stop());
}
