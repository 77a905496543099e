//! TCP connections on loopback, without an event loop.

use std::io::{Read, Write};

use super::*;
use crate::shard::clock;
use crate::shard::listen::{bound, listen};
use crate::shard::tests::Toy;

/// A shard's TCP half with one established connection, whose other end is returned.
fn established() -> io::Result<(Tcp, Toy, std::net::TcpStream)> {
    let poll = mio::Poll::new()?;
    let sockets = listen(SocketAddr::from(([127, 0, 0, 1], 0)), Transport::Tcp)?;
    let server = bound(&sockets)?[0];
    let mut tcp = Tcp::new(poll.registry().try_clone()?, sockets, 0, None)?;
    let mut client = std::net::TcpStream::connect(server)?;
    client.write_all(&[0, 2, b'E', 0])?;
    let mut toy = Toy::new(0);
    while tcp.by_peer.is_empty() {
        tcp.tidy(&mut toy, clock());
        // Without an event loop, events are made up.
        tcp.connections.keys().copied().collect::<Vec<_>>().into_iter().for_each(|t| tcp.note(Token(t), true, true));
        tcp.serve(&mut toy, &Addresses::default(), &mut ShardSnapshot::default(), clock());
    }
    Ok((tcp, toy, client))
}

#[test]
fn a_connection_that_has_fallen_silent_is_closed() -> io::Result<()> {
    let (mut tcp, mut toy, mut client) = established()?;
    tcp.tidy(&mut toy, clock() + IDLE_TIMEOUT - Duration::from_secs(5));
    assert_eq!((tcp.connections.len(), toy.disconnected), (1, 0));
    tcp.tidy(&mut toy, clock() + IDLE_TIMEOUT + Duration::from_secs(1));
    assert_eq!((tcp.connections.len(), tcp.by_peer.len(), toy.disconnected), (0, 0, 1));
    drop(tcp);
    assert!(crate::shard::tests::is_closed(&mut client));
    Ok(())
}

#[test]
fn a_connection_goes_to_another_shard_with_what_is_half_read_and_half_written() -> io::Result<()> {
    let (mut tcp, mut toy, mut client) = established()?;
    let (peer, mut counters) = (client.local_addr()?, ShardSnapshot::default());
    // Half a frame is read, and a whole one waits to be written.
    client.write_all(&[0, 4, b'E'])?;
    let turn = |tcp: &mut Tcp, toy: &mut Toy, counters: &mut ShardSnapshot| {
        tcp.connections.keys().copied().collect::<Vec<_>>().into_iter().for_each(|t| tcp.note(Token(t), true, true));
        tcp.serve(toy, &Addresses::default(), counters, clock());
    };
    turn(&mut tcp, &mut toy, &mut counters);
    tcp.send(peer, b"waits", &mut counters);
    let handover = tcp.release(peer).expect("it is there");
    assert!(tcp.connections.is_empty() && tcp.by_peer.is_empty() && tcp.release(peer).is_none());
    let (mut other, mut others_toy) =
        (Tcp::new(mio::Poll::new()?.registry().try_clone()?, Vec::new(), 0, None)?, Toy::new(1));
    other.adopt(handover, clock());
    other.flush();
    let mut answer = [0; 7];
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"\0\x05waits", "no session has to be found anew");
    client.write_all(&[1, 2, 3])?;
    let before = counters.datagrams_in;
    while counters.datagrams_in == before {
        turn(&mut other, &mut others_toy, &mut counters);
    }
    assert_eq!((other.by_peer.len(), others_toy.disconnected), (1, 0));
    Ok(())
}

#[test]
fn datagrams_for_nobody_are_counted() -> io::Result<()> {
    let (mut tcp, _toy, client) = established()?;
    let mut counters = ShardSnapshot::default();
    let mut send = |destination| {
        tcp.send(destination, &[1], &mut counters);
    };
    send(client.local_addr()?);
    send(SocketAddr::from(([192, 0, 2, 1], 1)));
    assert_eq!((counters.datagrams_out, counters.send_errors), (1, 1));
    assert!(!tcp.is_flushed());
    assert!(!tcp.flush() && tcp.is_flushed());
    Ok(())
}
