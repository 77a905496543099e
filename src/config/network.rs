//! Networks in CIDR notation, and the port that HTTP and media may share.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use super::{Config, ConfigError, HttpConfig, wrong};

impl Config {
    /// Whether one listener takes HTTP and ICE-TCP. Port 0 is a port of each one's own.
    pub fn shares_port(&self) -> bool {
        self.media.tcp_listen == Some(self.http.listen) && self.http.listen.port() != 0
    }

    /// Two listeners cannot have one port where one of them wants it on every interface.
    pub(super) fn check_shared_port(&self) -> Result<(), ConfigError> {
        let http = self.http.listen;
        let overlaps = |tcp: std::net::SocketAddr| {
            tcp.port() == http.port() && tcp.port() != 0 && (tcp.ip().is_unspecified() || http.ip().is_unspecified())
        };
        if !self.shares_port() && self.media.tcp_listen.is_some_and(overlaps) {
            let problem = format!("to share the port of http.listen, expected the same address as well: {http}");
            return Err(wrong("media.tcp_listen", problem));
        }
        Ok(())
    }
}

impl HttpConfig {
    /// Whether this is the address of a proxy that is trusted.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}

/// An address, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    prefix_bits: u32,
}

impl IpNetwork {
    /// Whether `address` belongs to this network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, address, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (u128::from(network.to_bits()), address.to_bits().into(), 32),
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - self.prefix_bits;
        // A shift by the whole width overflows; then everything belongs to the network.
        network.checked_shr(host_bits) == u128::checked_shr(address, host_bits)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let invalid = || serde::de::Error::custom("expected IP addresses or networks such as \"10.0.0.0/8\"");
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(invalid)?,
        };
        Ok(Self { address, prefix_bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        #[derive(Deserialize)]
        struct One {
            network: IpNetwork,
        }
        for (network, address, expected) in [
            ("0.0.0.0/0", "203.0.113.9", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::/32", "2001:db9::", false),
        ] {
            let one: One = toml::from_str(&format!("network = \"{network}\"")).expect(network);
            assert_eq!(one.network.contains(address.parse().expect(address)), expected, "{network} {address}");
        }
    }
}
