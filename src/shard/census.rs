//! How many TCP connections there are, in all and from one network, so that nobody takes all of them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Connections one shard keeps; bounds file descriptors and buffers.
const CONNECTIONS_MAX: usize = 8192;
/// Connections from one network: an office behind one address, a few for each of its people.
const PER_NETWORK_MAX: usize = 512;
/// Connections without a first frame, in all.
const PENDING_MAX: usize = 256;
/// Connections without a first frame, from one network.
const PENDING_PER_NETWORK_MAX: usize = 16;

/// How many connections there may be; by default those of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) all: Count,
    pub(crate) of_network: Count,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            all: Count { connections: CONNECTIONS_MAX, pending: PENDING_MAX },
            of_network: Count { connections: PER_NETWORK_MAX, pending: PENDING_PER_NETWORK_MAX },
        }
    }
}

/// Counts connections by the network they come from: an IPv4 address or an IPv6 /64.
#[derive(Default)]
pub(crate) struct Census {
    limits: Limits,
    all: Count,
    by_network: BTreeMap<IpAddr, Count>,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) connections: usize,
    /// Those of them without a first frame.
    pub(crate) pending: usize,
}

impl Count {
    /// Whether one more, pending, is within the limit.
    fn is_below(self, limit: Self) -> bool {
        self.connections < limit.connections && self.pending < limit.pending
    }
}

impl Census {
    /// Nobody yet, with limits of their own.
    pub(crate) fn within(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether one more connection from `peer` is within the limits.
    pub(crate) fn admits(&self, peer: IpAddr) -> bool {
        let of_network = self.by_network.get(&network(peer)).copied().unwrap_or_default();
        self.all.is_below(self.limits.all) && of_network.is_below(self.limits.of_network)
    }

    /// Counts a new connection, pending.
    pub(crate) fn add(&mut self, peer: IpAddr) {
        for count in [&mut self.all, self.by_network.entry(network(peer)).or_default()] {
            count.connections += 1;
            count.pending += 1;
        }
    }

    /// A pending connection has become established.
    pub(crate) fn establish(&mut self, peer: IpAddr) {
        self.all.pending -= 1;
        if let Some(count) = self.by_network.get_mut(&network(peer)) {
            count.pending -= 1;
        }
    }

    /// A connection is gone.
    pub(crate) fn remove(&mut self, peer: IpAddr, established: bool) {
        let network = network(peer);
        let pending = usize::from(!established);
        self.all.connections -= 1;
        self.all.pending -= pending;
        if let Some(count) = self.by_network.get_mut(&network) {
            count.connections -= 1;
            count.pending -= pending;
            if count.connections == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

/// What one customer of an access network has.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn one_network_cannot_take_all() {
        let mut census = Census::default();
        let neighbours = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let other = "2001:db8:0:1::1".parse().expect("an address");
        for number in 0..PENDING_PER_NETWORK_MAX {
            assert!(census.admits(neighbours[number % 2]));
            census.add(neighbours[number % 2]);
        }
        assert!(!census.admits(neighbours[0]) && census.admits(other) && census.admits(v4(1)));
        census.establish(neighbours[1]);
        assert!(census.admits(neighbours[0]));
        for _ in PENDING_PER_NETWORK_MAX..PER_NETWORK_MAX {
            census.add(neighbours[0]);
            census.establish(neighbours[0]);
        }
        for _ in 1..PENDING_PER_NETWORK_MAX {
            census.establish(neighbours[0]);
        }
        assert!(!census.admits(neighbours[0]) && census.admits(other));
    }

    #[test]
    fn all_together_are_bounded_and_nothing_stays_behind() {
        let mut census = Census::default();
        for number in 0..PENDING_MAX as u32 {
            assert!(census.admits(v4(number)));
            census.add(v4(number));
        }
        assert!(!census.admits(v4(1_000_000)));
        census.establish(v4(0));
        assert!(census.admits(v4(1_000_000)));
        census.remove(v4(0), true);
        for number in 1..PENDING_MAX as u32 {
            census.remove(v4(number), false);
        }
        assert!(census.by_network.is_empty() && census.all.connections == 0 && census.all.pending == 0);
        for number in 0..CONNECTIONS_MAX as u32 {
            census.add(v4(number));
            census.establish(v4(number));
        }
        assert!(!census.admits(v4(1_000_000)));
    }
}
