//! Opens the media sockets: both families for an unspecified address, exactly what was asked for otherwise.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::command::Transport;

/// Asked of the kernel for each UDP socket, bytes: a burst of some thousand packets while the thread is busy.
pub(super) const BUFFER_WANTED: usize = 4 * 1024 * 1024;
/// Below this much, packets are lost in bursts: it holds about 220 video packets.
pub(super) const BUFFER_LEAST: usize = 512 * 1024;
/// Connections the kernel holds until they are accepted.
const TCP_BACKLOG: i32 = 256;
/// How often a system-chosen IPv4 port may be taken for IPv6 before giving up.
const PORT_ATTEMPTS: usize = 16;
/// Linux: the host has no such address family.
const EAFNOSUPPORT: i32 = 97;

/// Opens the sockets for one listening address. For an unspecified one these are an IPv4 and an IPv6 socket on the same
/// port, or only one of them where the host lacks the other family.
pub(crate) fn listen(address: SocketAddr, transport: Transport) -> io::Result<Vec<Socket>> {
    if !address.ip().is_unspecified() {
        return Ok(vec![open(address, transport)?]);
    }
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match open_both(address.port(), transport) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            result => return result,
        }
    }
}

/// The addresses that sockets are bound to.
pub(crate) fn bound(sockets: &[Socket]) -> io::Result<Vec<SocketAddr>> {
    sockets.iter().map(|socket| socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported.into())).collect()
}

/// Listens for TCP at an address, both families for an unspecified one.
pub fn listen_tcp(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    Ok(listen(address, Transport::Tcp)?.into_iter().map(Into::into).collect())
}

/// Where a listener can be reached: at an IPv6 address alone, or at those of IPv4 too.
pub fn bound_to(listener: SockRef<'_>) -> io::Result<Vec<SocketAddr>> {
    let address = listener.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let takes_both = address.is_ipv6() && address.ip().is_unspecified() && !listener.only_v6()?;
    let of_ipv4 = takes_both.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
    Ok([Some(address), of_ipv4].into_iter().flatten().collect())
}

/// Whether the kernel granted enough buffer for bursts, in both directions.
pub(crate) fn has_enough_buffer(socket: &Socket) -> io::Result<bool> {
    // Linux reports twice what it grants for payload.
    Ok(socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2 >= BUFFER_LEAST)
}

fn open_both(mut port: u16, transport: Transport) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    let mut missing = None;
    for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
        match open(SocketAddr::new(ip, port), transport) {
            Ok(socket) => {
                port = socket.local_addr()?.as_socket().map_or(port, |address| address.port());
                sockets.push(socket);
            }
            Err(error) if family_is_missing(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shards own the media sockets, and all are opened here")]
fn open(address: SocketAddr, transport: Transport) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    match transport {
        Transport::Udp => {
            socket.set_recv_buffer_size(BUFFER_WANTED)?;
            socket.set_send_buffer_size(BUFFER_WANTED)?;
            socket.bind(&address.into())?;
        }
        Transport::Tcp => {
            // A restart must not wait for the old connections' TIME_WAIT.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(TCP_BACKLOG)?;
        }
    }
    Ok(socket)
}

fn family_is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(text: &str, transport: Transport) -> io::Result<(Vec<Socket>, Vec<SocketAddr>)> {
        let sockets = listen(text.parse().map_err(io::Error::other)?, transport)?;
        let addresses = bound(&sockets)?;
        Ok((sockets, addresses))
    }

    #[test]
    fn an_unspecified_address_means_both_families_on_one_port() -> io::Result<()> {
        for transport in [Transport::Udp, Transport::Tcp] {
            for text in ["0.0.0.0:0", "[::]:0"] {
                let (_sockets, addresses) = listening(text, transport)?;
                assert!(addresses[0].port() != 0);
                assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{text}");
                assert!(addresses.iter().all(|address| address.ip().is_unspecified()));
            }
        }
        Ok(())
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "one as systemd's socket units open it")]
    fn a_socket_of_both_families_is_reached_by_both() -> io::Result<()> {
        let reached = |listener: &TcpListener| bound_to(SockRef::from(listener));
        for (bind, families) in [("127.0.0.1:0", 1), ("[::1]:0", 1), ("[::]:0", 2)] {
            let listener = TcpListener::bind(bind)?;
            let addresses = reached(&listener)?;
            assert_eq!(addresses.len(), families, "{bind}: {addresses:?}");
            assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
        }
        for listener in listen_tcp(SocketAddr::from(([0, 0, 0, 0], 0)))? {
            assert_eq!(reached(&listener)?.len(), 1, "one each");
        }
        Ok(())
    }

    #[test]
    fn a_specific_address_is_bound_as_it_is() -> io::Result<()> {
        let (_sockets, addresses) = listening("127.0.0.1:0", Transport::Udp)?;
        assert_eq!(addresses.len(), 1);
        assert_eq!(addresses[0].ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let again = listen(addresses[0], Transport::Udp).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(again, Err(io::ErrorKind::AddrInUse));
        Ok(())
    }
}
