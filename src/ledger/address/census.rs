//! How many distinct addresses there are, in a day and now, counted without keeping an address.
//!
//! What is kept are keyed hashes in memory. An IPv6 client counts by its /64, for one device uses many addresses of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClientAddress, DayKeys, KEY_BYTES, SecretKey};
use crate::ids::Tenant;

/// Most addresses of a tenant that are told apart in a day; 2 to 4 MiB of memory. A tenant has a few thousand; who
/// draws addresses from a large network at random gets no further than this.
pub const ADDRESSES_MAX: usize = 1 << 18;

/// Stands for an address as long as the server runs. Personal as the address is: it has no `Debug` and must not be
/// written down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(u64);

impl AddressKey {
    /// A key of these bits, for tests and simulations.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// The distinct client addresses of each tenant on a UTC day.
pub struct DistinctAddresses {
    keys: DayKeys,
    day: u32,
    by_tenant: BTreeMap<Tenant, BTreeSet<u64>>,
}

impl DistinctAddresses {
    /// Nobody so far. The keys must be its own: no record's `hmac` form may be looked up here.
    pub fn new(keys: DayKeys) -> Self {
        Self { keys, day: 0, by_tenant: BTreeMap::new() }
    }

    /// Forgets everything of a day other than `day` (days since 1970-01-01, UTC). To be called at midnight, as
    /// [`DayKeys::turn`].
    pub fn turn(&mut self, day: u32) {
        self.keys.turn(day);
        if self.day != day {
            self.by_tenant.clear();
            self.day = day;
        }
    }

    /// Counts an address; returns how many distinct ones the tenant has had on `day`. Once [`Self::is_full`], no new
    /// one is counted.
    pub fn note(&mut self, tenant: &Tenant, address: &ClientAddress, day: u32) -> u64 {
        self.turn(day);
        let hash = self.keys.hash(address, day);
        let seen = self.by_tenant.entry(tenant.clone()).or_default();
        if seen.len() < ADDRESSES_MAX {
            seen.insert(hash);
        }
        seen.len() as u64
    }

    /// Whether the tenant's count stands at its limit and means "at least as many".
    pub fn is_full(&self, tenant: &Tenant) -> bool {
        self.by_tenant.get(tenant).is_some_and(|seen| seen.len() >= ADDRESSES_MAX)
    }
}

/// The distinct addresses that are connected now.
pub struct PresentAddresses {
    key: SecretKey,
    present: BTreeMap<AddressKey, Presence>,
}

struct Presence {
    is_ipv4: bool,
    /// At least one.
    connections: u64,
}

impl PresentAddresses {
    /// Nobody so far. `draw` fills the key with random bytes; it lasts until the server ends.
    pub fn new(draw: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        Self { key: SecretKey::draw(draw), present: BTreeMap::new() }
    }

    /// What stands for the address, here and in quotas.
    pub fn key(&self, address: &ClientAddress) -> AddressKey {
        AddressKey(self.key.hash(address))
    }

    /// One more connection from the address.
    pub fn arrive(&mut self, address: &ClientAddress) {
        let fresh = Presence { is_ipv4: address.is_ipv4(), connections: 0 };
        self.present.entry(self.key(address)).or_insert(fresh).connections += 1;
    }

    /// One connection less; without one, nothing happens.
    pub fn leave(&mut self, address: &ClientAddress) {
        let key = self.key(address);
        let Some(presence) = self.present.get_mut(&key) else { return };
        presence.connections -= 1;
        if presence.connections == 0 {
            self.present.remove(&key);
        }
    }

    /// How many distinct addresses there are: IPv4, IPv6.
    pub fn count(&self) -> (u64, u64) {
        let ipv4 = self.present.values().filter(|presence| presence.is_ipv4).count();
        (ipv4 as u64, (self.present.len() - ipv4) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of(text.parse().expect(text))
    }

    fn distinct() -> DistinctAddresses {
        let mut drawn = 0;
        DistinctAddresses::new(DayKeys::new(move |key| {
            drawn += 1;
            key[0] = drawn;
        }))
    }

    #[test]
    fn distinct_addresses_are_counted_by_tenant_and_day() {
        let mut distinct = distinct();
        for (tenant, text, day, expected) in [
            ("a", "198.51.100.1", 5, 1),
            ("a", "198.51.100.1", 5, 1),
            ("a", "::ffff:198.51.100.1", 5, 1),
            ("a", "198.51.100.2", 5, 2),
            ("a", "2001:db8::1", 5, 3),
            ("a", "2001:db8::ffff:1", 5, 3),
            ("a", "2001:db8:0:1::1", 5, 4),
            ("b", "198.51.100.1", 5, 1),
            ("a", "198.51.100.1", 6, 1),
            ("b", "198.51.100.3", 6, 1),
        ] {
            assert_eq!(distinct.note(&tenant.into(), &address(text), day), expected, "{tenant} {text} {day}");
        }
        distinct.turn(7);
        assert!(distinct.by_tenant.is_empty());
    }

    #[test]
    fn a_full_count_says_so_and_grows_no_further() {
        let (mut distinct, tenant) = (distinct(), Tenant::from("a"));
        let last = (0..ADDRESSES_MAX as u32)
            .map(|bits| distinct.note(&tenant, &ClientAddress::of(IpAddr::V4(Ipv4Addr::from_bits(bits))), 1))
            .inspect(|count| assert!(*count <= ADDRESSES_MAX as u64))
            .last();
        assert_eq!(last, Some(ADDRESSES_MAX as u64));
        assert!(distinct.is_full(&tenant) && !distinct.is_full(&"b".into()));
        assert_eq!(distinct.note(&tenant, &address("2001:db8::1"), 1), ADDRESSES_MAX as u64);
        assert_eq!(distinct.note(&"b".into(), &address("2001:db8::1"), 1), 1);
        assert_eq!(distinct.note(&tenant, &address("2001:db8::1"), 2), 1);
        assert!(!distinct.is_full(&tenant));
    }

    #[test]
    fn present_addresses_are_counted_by_family() {
        let mut present = PresentAddresses::new(|key| key[0] = 1);
        for (arrives, text, expected) in [
            (true, "198.51.100.1", (1, 0)),
            (true, "198.51.100.1", (1, 0)),
            (true, "64:ff9b::198.51.100.1", (1, 0)),
            (true, "2001:db8::1", (1, 1)),
            (true, "2001:db8::2", (1, 1)),
            (true, "2001:db8:1::1", (1, 2)),
            (false, "198.51.100.2", (1, 2)),
            (false, "2001:db8::3", (1, 2)),
            (false, "2001:db8::4", (1, 1)),
            (false, "198.51.100.1", (1, 1)),
            (false, "198.51.100.1", (1, 1)),
            (false, "198.51.100.1", (0, 1)),
            (false, "198.51.100.1", (0, 1)),
            (false, "2001:db8:1::1", (0, 0)),
        ] {
            match arrives {
                true => present.arrive(&address(text)),
                false => present.leave(&address(text)),
            }
            assert_eq!(present.count(), expected, "{arrives} {text}");
        }
        assert!(present.present.is_empty());
    }

    #[test]
    fn an_address_has_one_key_that_follows_from_the_secret() {
        let (one, other) = (PresentAddresses::new(|key| key[0] = 1), PresentAddresses::new(|key| key[0] = 2));
        let key = one.key(&address("2001:db8::1"));
        assert!(key == one.key(&address("2001:db8::2")) && key != one.key(&address("2001:db8:0:1::1")));
        assert!(key != other.key(&address("2001:db8::1")));
    }
}
