//! Which addresses clients are told to connect to, and how packets' own addresses map to them. Pure, but for
//! [`interface_addresses`].

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::command::Transport;
use crate::rtc::Candidate;

/// The candidates of one shard and the addresses this machine really has.
#[derive(Clone, Default)]
pub(crate) struct Addresses {
    candidates: Vec<Candidate>,
    /// The interfaces' addresses; what may be set as a packet's source.
    local: Vec<IpAddr>,
}

impl Addresses {
    /// The candidates of the IPs each transport advertises on its sockets, in the order given. An IP of a family
    /// without a socket gives no candidate.
    pub(crate) fn new(local: Vec<IpAddr>, advertised: &[(Transport, &[IpAddr], &[SocketAddr])]) -> Self {
        let mut candidates = Vec::new();
        for (transport, ips, sockets) in advertised.iter().copied() {
            for ip in ips {
                let Some(socket) = sockets.iter().find(|socket| socket.is_ipv4() == ip.is_ipv4()) else { continue };
                let candidate = Candidate { transport, address: SocketAddr::new(*ip, socket.port()) };
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                }
            }
        }
        Self { candidates, local }
    }

    /// What clients are told to connect to, best first.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The candidate a packet to `local` was meant for. Behind a 1:1 NAT that is not `local` itself but the first
    /// candidate of its family; without one it stays `local`, and ICE will refuse the packet.
    pub(crate) fn candidate_for(&self, transport: Transport, local: SocketAddr) -> SocketAddr {
        let mut first_of_family = None;
        for candidate in self.candidates.iter().filter(|candidate| candidate.transport == transport) {
            if candidate.address == local {
                return local;
            }
            if first_of_family.is_none() && candidate.address.is_ipv4() == local.is_ipv4() {
                first_of_family = Some(candidate.address);
            }
        }
        first_of_family.unwrap_or(local)
    }

    /// The source IP to set on a packet that leaves an unspecified socket from `candidate`. None where the candidate
    /// is not an address of this machine, and where the kernel would choose the same anyway: saying so costs about
    /// 200 ns a packet.
    pub(crate) fn source_to_set(&self, candidate: IpAddr, destination: IpAddr) -> Option<IpAddr> {
        if !self.local.contains(&candidate) || candidate == destination {
            return None;
        }
        // For a destination elsewhere the kernel takes neither loopback nor, unless it is on the link, link-local.
        let elsewhere = |ip: IpAddr| is_reachable(ip) && !ip.is_loopback();
        let rivals = self.local.iter().filter(|ip| ip.is_ipv4() == candidate.is_ipv4() && elsewhere(**ip));
        let only_choice = elsewhere(candidate)
            && elsewhere(destination)
            && !self.local.contains(&destination)
            && rivals.take(2).count() == 1;
        if only_choice { None } else { Some(candidate) }
    }
}

/// The addresses of every interface that is up.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?;
    Ok(interfaces.iter().filter(|interface| interface.is_oper_up()).map(if_addrs::Interface::ip).collect())
}

/// The interface addresses worth advertising, best first: IPv4, then IPv6, then loopback for browsers on the same
/// machine. A plain client takes the first alone, so it must be one that most can reach.
pub(crate) fn worth_advertising(interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = interfaces.iter().copied().filter(|ip| is_reachable(*ip)).collect();
    chosen.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    chosen
}

/// Whether others can name this address: unicast, and not tied to one link (`fe80::/10`).
fn is_reachable(ip: IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

/// Whether the kernel can send to this address at all. To try anyway fails with `EINVAL`, which quinn-udp takes for
/// missing GSO support; a peer must not switch that off for everyone by sending from port 0.
pub(crate) fn is_sendable(destination: SocketAddr) -> bool {
    let scoped = match destination {
        SocketAddr::V4(v4) => !v4.ip().is_broadcast(),
        SocketAddr::V6(v6) => !v6.ip().is_unicast_link_local() || v6.scope_id() != 0,
    };
    destination.port() != 0 && !destination.ip().is_unspecified() && !destination.ip().is_multicast() && scoped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        ips(&[text])[0]
    }

    fn socket(text: &str) -> SocketAddr {
        sockets(&[text])[0]
    }

    #[test]
    fn interfaces_are_ordered_for_plain_clients() {
        let table: [(&[&str], &[&str]); 4] = [
            (
                &["127.0.0.1", "::1", "fe80::1", "fd00::2", "192.0.2.2", "10.0.0.1"],
                &["192.0.2.2", "10.0.0.1", "fd00::2", "127.0.0.1", "::1"],
            ),
            (&["::1", "127.0.0.1"], &["127.0.0.1", "::1"]),
            (&["fe80::1", "0.0.0.0", "224.0.0.1"], &[]),
            (&["2001:db8::1", "192.0.2.2"], &["192.0.2.2", "2001:db8::1"]),
        ];
        for (given, wanted) in table {
            assert_eq!(worth_advertising(&ips(given)), ips(wanted), "{given:?}");
        }
    }

    #[test]
    fn candidates_follow_the_sockets() {
        let advertised = ips(&["192.0.2.2", "fd00::2", "127.0.0.1", "192.0.2.2"]);
        let listed = |udp: &[&str], tcp: &[&str]| -> Vec<(Transport, String)> {
            let (udp, tcp) = (sockets(udp), sockets(tcp));
            let addresses =
                Addresses::new(Vec::new(), &[(Transport::Udp, &advertised, &udp), (Transport::Tcp, &advertised, &tcp)]);
            addresses.candidates().iter().map(|c| (c.transport, c.address.to_string())).collect()
        };
        let udp = |text: &str| (Transport::Udp, text.to_owned());
        let tcp = |text: &str| (Transport::Tcp, text.to_owned());
        assert_eq!(
            listed(&["0.0.0.0:7882", "[::]:7882"], &["0.0.0.0:7881"]),
            [
                udp("192.0.2.2:7882"),
                udp("[fd00::2]:7882"),
                udp("127.0.0.1:7882"),
                tcp("192.0.2.2:7881"),
                tcp("127.0.0.1:7881")
            ]
        );
        assert_eq!(listed(&["[::]:1"], &[]), [udp("[fd00::2]:1")]);
        assert_eq!(listed(&[], &[]), []);
    }

    #[test]
    fn packets_map_to_the_candidate_they_were_meant_for() {
        let udp = sockets(&["0.0.0.0:7882", "[::]:7882"]);
        let tcp = sockets(&["0.0.0.0:7881"]);
        let with = |advertised: &[&str]| {
            let ips = ips(advertised);
            Addresses::new(Vec::new(), &[(Transport::Udp, &ips, &udp), (Transport::Tcp, &ips, &tcp)])
        };
        let direct = with(&["192.0.2.2", "10.0.0.1", "fd00::2"]);
        let nat = with(&["203.0.113.9"]);
        let table = [
            (&direct, Transport::Udp, "10.0.0.1:7882", "10.0.0.1:7882"),
            (&direct, Transport::Udp, "[fd00::2]:7882", "[fd00::2]:7882"),
            (&direct, Transport::Tcp, "10.0.0.1:7881", "10.0.0.1:7881"),
            // Not advertised: an interface that came up later.
            (&direct, Transport::Udp, "10.9.9.9:7882", "192.0.2.2:7882"),
            (&nat, Transport::Udp, "10.0.0.1:7882", "203.0.113.9:7882"),
            (&nat, Transport::Tcp, "10.0.0.1:7881", "203.0.113.9:7881"),
            // No candidate of that family.
            (&nat, Transport::Udp, "[fd00::2]:7882", "[fd00::2]:7882"),
            (&direct, Transport::Tcp, "[fd00::2]:7881", "[fd00::2]:7881"),
        ];
        for (addresses, transport, local, wanted) in table {
            assert_eq!(addresses.candidate_for(transport, socket(local)), socket(wanted), "{transport:?} {local}");
        }
    }

    #[test]
    fn a_source_is_set_only_where_the_kernel_could_choose_another() {
        let one = ips(&["127.0.0.1", "192.0.2.2", "::1", "fd00::2", "fe80::1"]);
        let two = ips(&["127.0.0.1", "192.0.2.2", "10.0.0.1", "fd00::2", "2001:db8::2"]);
        let table = [
            (&one, "192.0.2.2", "198.51.100.7", None),
            (&one, "192.0.2.2", "192.0.2.2", None),
            (&one, "127.0.0.1", "127.0.0.1", None),
            (&one, "127.0.0.1", "192.0.2.2", Some("127.0.0.1")),
            (&one, "192.0.2.2", "127.0.0.1", Some("192.0.2.2")),
            (&one, "fd00::2", "2001:db8::7", None),
            (&one, "fd00::2", "fe80::7", Some("fd00::2")),
            (&two, "fd00::2", "2001:db8::7", Some("fd00::2")),
            (&two, "192.0.2.2", "198.51.100.7", Some("192.0.2.2")),
            (&two, "10.0.0.1", "10.0.0.7", Some("10.0.0.1")),
            // 1:1 NAT: the candidate is not ours to set.
            (&two, "203.0.113.9", "198.51.100.7", None),
        ];
        for (local, candidate, destination, wanted) in table {
            let addresses = Addresses::new(local.clone(), &[]);
            let set = addresses.source_to_set(ip(candidate), ip(destination));
            assert_eq!(set, wanted.map(ip), "{candidate} to {destination}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_known_beforehand() {
        for sendable in ["192.0.2.7:1", "[fd00::2]:1", "[fe80::1%2]:1", "127.0.0.1:65535"] {
            assert!(is_sendable(socket(sendable)), "{sendable}");
        }
        for not in
            ["192.0.2.7:0", "0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1", "[::]:1", "[fe80::1]:1", "[ff02::1]:1"]
        {
            assert!(!is_sendable(socket(not)), "{not}");
        }
    }
}
