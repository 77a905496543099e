//! The shards with the real engine, from outside.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use stube::command::Transport;
use stube::shard::{ShardError, ShardIndex, Shards, ShardsConfig};

/// Long enough for a busy test machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn config(count: usize, listen: &str) -> ShardsConfig {
    let address: SocketAddr = listen.parse().expect("an address");
    ShardsConfig { count, udp_listen: address, tcp_listen: Some(address), ..ShardsConfig::default() }
}

fn address(shards: &Shards, transport: Transport) -> SocketAddr {
    let mut candidates = shards.candidates(ShardIndex(0)).iter();
    let found = candidates.find(|candidate| candidate.transport == transport && candidate.address.ip().is_loopback());
    found.map(|candidate| candidate.address).expect("loopback is advertised")
}

/// A STUN binding request for a session nobody has.
fn stun_request() -> Vec<u8> {
    let mut request = vec![0x00, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42];
    request.extend_from_slice(&[7; 12]);
    request.extend_from_slice(&[0x00, 0x06, 0x00, 0x07]);
    request.extend_from_slice(b"abc:def\0");
    request
}

#[tokio::test]
async fn strangers_get_no_reply() {
    let (shards, _notices) = Shards::start(&config(2, "0.0.0.0:0")).expect("the shards start");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let mut client_hello = vec![22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100];
    client_hello.extend_from_slice(&[1; 100]);
    let strange: [&[u8]; 8] =
        [b"", b"x", &[0; 20], &stun_request(), &client_hello, &[0x80; 200], &[0x80, 200, 0, 1], &[255; 1400]];
    for datagram in strange {
        socket.send_to(datagram, address(&shards, Transport::Udp)).expect("sent");
    }
    let answer = socket.recv_from(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(answer.err(), Some(ErrorKind::WouldBlock));
    assert!(shards.all_turning(PATIENCE));
    shards.stop().await;
    let counters = shards.snapshots()[0];
    assert_eq!((counters.datagrams_in, counters.datagrams_out), (strange.len() as u64, 0));
}

#[tokio::test]
async fn strange_tcp_connections_are_closed() {
    let (shards, _notices) = Shards::start(&config(2, "127.0.0.1:0")).expect("the shards start");
    let mut stream = TcpStream::connect(address(&shards, Transport::Tcp)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = stun_request();
    let length = (request.len() as u16).to_be_bytes();
    stream.write_all(&[&length, &request[..]].concat()).expect("written");
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "as soon as no shard knows it");
    shards.stop().await;
}

#[tokio::test]
async fn ports_are_free_again_after_the_stop() {
    let (shards, _notices) = Shards::start(&config(1, "127.0.0.1:0")).expect("the shards start");
    let taken = ShardsConfig {
        count: 1,
        udp_listen: address(&shards, Transport::Udp),
        tcp_listen: None,
        advertise: vec!["203.0.113.9".parse().expect("an address")],
        ..ShardsConfig::default()
    };
    assert!(matches!(Shards::start(&taken).err(), Some(ShardError::Listen { transport: "UDP", .. })));
    shards.stop().await;
    let (again, _notices) = Shards::start(&taken).expect("the port is free");
    let advertised: Vec<String> = again.candidates(ShardIndex(0)).iter().map(|c| c.address.to_string()).collect();
    assert_eq!(advertised, [format!("203.0.113.9:{}", taken.udp_listen.port())]);
    again.stop().await;
}

#[test]
fn shards_that_cannot_work_do_not_start() {
    let mut too_high = config(3, "127.0.0.1:65534");
    too_high.tcp_listen = None;
    assert!(matches!(Shards::start(&too_high).err(), Some(ShardError::Listen { .. })));
    let mut no_family = config(1, "127.0.0.1:0");
    no_family.advertise = vec!["2001:db8::1".parse().expect("an address")];
    assert!(matches!(Shards::start(&no_family).err(), Some(ShardError::NoAddress)));
}
