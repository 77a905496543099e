//! Which addresses events are posted to: a webhook must not become a way into the network behind the server.
//!
//! After the special-purpose registries of IANA (RFC 6890) and Standard Webhooks 1.0, "Server-side request forgery". An
//! IPv6 address that stands for an IPv4 one is judged as that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ledger::address::embedded_ipv4;

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To a host on the internet.
    Global,
    /// To this machine.
    Loopback,
    /// Into the operator's network: RFC 1918, shared address space (RFC 6598), unique local (RFC 4193).
    Private,
    /// To no receiver of events: link-local (where clouds keep their machines' credentials), multicast, unspecified,
    /// documentation, tests, and all that is reserved.
    Special,
}

impl Scope {
    /// Where `address` leads.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match (address.to_ipv4_mapped(), embedded_ipv4(address)) {
                (Some(mapped), _) => Self::of_v4(mapped),
                // A translator's own loopback is not this machine.
                (None, Some(target)) if target.is_loopback() => Self::Special,
                (None, Some(target)) => Self::of_v4(target),
                (None, None) => Self::of_v6(address),
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // This network, link-local, protocol assignments, documentation, 6to4 relays, benchmarks, and from
            // multicast upwards.
            [0, ..]
            | [169, 254, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..] => Self::Special,
            _ => Self::Global,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Teredo and other protocol assignments (2001::/23), and two ranges for documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Special,
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Special,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_scope() {
        for (scope, addresses) in [
            (
                Scope::Global,
                "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.0.1 \
                 172.15.255.255 172.32.0.0 192.0.1.1 192.167.0.1 198.17.0.1 198.20.0.1 223.255.255.255 \
                 2606:4700::1111 2001:200::1 2a01:4f8::1 3ffe::1 ::ffff:1.1.1.1 64:ff9b::8.8.8.8 2002:101:101::1",
            ),
            (Scope::Loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1"),
            (
                Scope::Private,
                "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.255 \
                 fc00::1 fd00:ec2::254 fdff::1 ::ffff:10.0.0.1 64:ff9b::192.168.1.1 2002:c0a8:1::1 2002:a00:1::1",
            ),
            (
                Scope::Special,
                "0.0.0.0 0.1.2.3 169.254.169.254 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 \
                 198.51.100.77 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
                 :: ::2 ::127.0.0.1 100::1 64:ff9b:1::10.0.0.1 fe80::1 fec0::1 ff02::1 5f00::1 2001::1 2001:1ff::1 \
                 2001:db8::1 3fff::1 3fff:fff::1 ::ffff:169.254.169.254 64:ff9b::169.254.169.254 2002:a9fe:a9fe::1 \
                 64:ff9b::127.0.0.1 2002:7f00:1::1 ::ffff:0.0.0.0 ::ffff:0:127.0.0.1 4000::1",
            ),
        ] {
            for text in addresses.split_whitespace() {
                let address = text.parse().expect("an address");
                assert_eq!(Scope::of(address), scope, "{text}");
            }
        }
    }
}
