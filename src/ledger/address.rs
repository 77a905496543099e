//! Client addresses: whose a request is, and the only forms in which an address may be kept.
//!
//! An address is personal (CJEU C-582/14). It lives in memory alone, as a [`ClientAddress`], which cannot be printed or
//! written down; only [`DayKeys::project`] turns it into an [`IpForm`] that a record may hold.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

pub use crate::config::IpMode;

mod census;
mod forwarded;

pub use census::{AddressKey, DistinctAddresses, PresentAddresses};
pub use forwarded::client_address;

/// Length of every key here, in bytes: HMAC-SHA-256 wants one as long as its hash (RFC 2104 §3).
pub const KEY_BYTES: usize = 32;

/// Length of the prefix that the mode `prefix` keeps, in bits: what a provider gives to many customers.
const IPV4_PREFIX_BITS: u32 = 24;
/// As [`IPV4_PREFIX_BITS`]: what is given to one site (RFC 6177 §2).
const IPV6_PREFIX_BITS: u32 = 48;
/// Bytes of an IPv6 address that count as one client: its network (RFC 4291 §2.5.1). The rest changes daily (RFC 8981).
const IPV6_NETWORK_BYTES: usize = 8;

/// First 96 bits of IPv4 mapped into IPv6, `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
const MAPPED: u128 = 0xffff;
/// First 96 bits of NAT64's well-known prefix, `64:ff9b::/96` (RFC 6052 §2.1).
const NAT64: u128 = 0x0064_ff9b << 64;
/// First 16 bits of 6to4, `2002::/16`; the IPv4 address follows them (RFC 3056 §2).
const SIX_TO_FOUR: u128 = 0x2002;

/// What a record keeps of an address. It has no `Debug`, so that it cannot slip into a log.
#[derive(Clone, PartialEq, Eq)]
pub struct IpForm {
    pub mode: IpMode,
    /// `198.51.100.0/24`, `2001:db8:1::/48`, 16 hexadecimal digits or an address; empty for [`IpMode::None`].
    pub value: String,
}

/// The address a client comes from, in its one normal form.
///
/// It has no `Display` and no `Serialize`, and `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The client at `address`. IPv4 inside IPv6 (mapped, 6to4, NAT64) becomes IPv4, so that a client is one client and
    /// is masked as IPv4 whichever way it came.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(address) => Self(embedded_ipv4(address).map_or(IpAddr::V6(address), IpAddr::V4)),
            IpAddr::V4(_) => Self(address),
        }
    }

    /// Whether it is an IPv4 address.
    pub fn is_ipv4(&self) -> bool {
        self.0.is_ipv4()
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<address>")
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291 §2.5.5.2), NAT64 (RFC 6052 §2.1) and 6to4 (RFC 3056 §2).
pub fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    if matches!(bits >> 32, MAPPED | NAT64) {
        return Some(Ipv4Addr::from_bits(bits as u32));
    }
    (bits >> 112 == SIX_TO_FOUR).then(|| Ipv4Addr::from_bits((bits >> 80) as u32))
}

/// Fills a key with random bytes; this file draws no entropy of its own.
type Draw = Box<dyn FnMut(&mut [u8; KEY_BYTES]) + Send>;

/// Random bytes that are overwritten when dropped. Boxed, for a move would leave a copy behind.
struct SecretKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl SecretKey {
    fn draw(draw: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        let mut key = Self(Box::default());
        draw(&mut key.0);
        key
    }

    /// The first 64 bits of the HMAC-SHA-256 over an IPv4 address or an IPv6 network.
    fn hash(&self, address: &ClientAddress) -> u64 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let tag = match address.0 {
            IpAddr::V4(address) => hmac::sign(&key, &address.octets()),
            IpAddr::V6(address) => hmac::sign(&key, &address.octets()[..IPV6_NETWORK_BYTES]),
        };
        tag.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

/// A random key for each UTC day. It exists in memory only and does not follow from anything that lives longer, so
/// that nobody can redo a past day's hashes.
pub struct DayKeys {
    draw: Draw,
    current: Option<(u32, SecretKey)>,
}

impl DayKeys {
    /// Keys whose bytes `draw` fills with fresh randomness, once a day.
    pub fn new(draw: impl FnMut(&mut [u8; KEY_BYTES]) + Send + 'static) -> Self {
        Self { draw: Box::new(draw), current: None }
    }

    /// Overwrites and forgets a key that is not of `day` (days since 1970-01-01, UTC). To be called at midnight, lest
    /// the key outlive its day on a quiet server.
    pub fn turn(&mut self, day: u32) {
        self.current.take_if(|(kept, _)| *kept != day);
    }

    /// What a record may keep of `address` under `mode`.
    pub fn project(&mut self, address: &ClientAddress, mode: IpMode, day: u32) -> IpForm {
        let value = match mode {
            IpMode::None => String::new(),
            IpMode::Prefix => prefix(address),
            IpMode::Hmac => format!("{:016x}", self.hash(address, day)),
            IpMode::Full => address.0.to_string(),
        };
        IpForm { mode, value }
    }

    fn hash(&mut self, address: &ClientAddress, day: u32) -> u64 {
        self.turn(day);
        let (_, key) = self.current.get_or_insert_with(|| (day, SecretKey::draw(&mut self.draw)));
        key.hash(address)
    }
}

fn prefix(address: &ClientAddress) -> String {
    match address.0 {
        IpAddr::V4(address) => {
            let network = address.to_bits() & (u32::MAX << (u32::BITS - IPV4_PREFIX_BITS));
            format!("{}/{IPV4_PREFIX_BITS}", Ipv4Addr::from_bits(network))
        }
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << (u128::BITS - IPV6_PREFIX_BITS));
            format!("{}/{IPV6_PREFIX_BITS}", Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of(text.parse().expect(text))
    }

    /// Keys that begin with 1, 2, 3 …
    fn keys() -> DayKeys {
        let mut drawn = 0;
        DayKeys::new(move |key| {
            drawn += 1;
            key[0] = drawn;
        })
    }

    #[test]
    fn modes_read_back_as_they_were_written() {
        #[derive(Deserialize)]
        struct One {
            mode: IpMode,
        }
        for mode in IpMode::ALL {
            let word = mode.as_str();
            assert_eq!(IpMode::from_word(word), Some(mode));
            let read: One = toml::from_str(&format!("mode = \"{word}\"")).expect(word);
            assert_eq!(read.mode, mode);
        }
        assert_eq!(IpMode::default(), IpMode::Prefix);
        assert_eq!(IpMode::from_word("Full"), None);
        assert!(toml::from_str::<One>("mode = \"hmac_daily\"").is_err());
    }

    #[test]
    fn an_address_has_one_normal_form() {
        for (text, expected) in [
            ("198.51.100.77", "198.51.100.77"),
            ("::ffff:198.51.100.77", "198.51.100.77"),
            ("2002:c633:644d::1", "198.51.100.77"),
            ("2002:c633:644d:ffff:ffff:ffff:ffff:ffff", "198.51.100.77"),
            ("64:ff9b::198.51.100.77", "198.51.100.77"),
            // Neighbours of those prefixes.
            ("64:ff9b:1::c633:644d", "64:ff9b:1::c633:644d"),
            ("64:ff9b::1:c633:644d", "64:ff9b::1:c633:644d"),
            ("2001:c633:644d::1", "2001:c633:644d::1"),
            ("2003:c633:644d::1", "2003:c633:644d::1"),
            ("::fffe:198.51.100.77", "::fffe:c633:644d"),
            ("::198.51.100.77", "::c633:644d"),
            ("::1", "::1"),
            ("::", "::"),
        ] {
            let address = address(text);
            assert!(keys().project(&address, IpMode::Full, 1).value == expected, "{text}");
            assert_eq!(address.is_ipv4(), !expected.contains(':'), "{text}");
            assert_eq!(format!("{address:?} {:?}", Some(address)), "<address> Some(<address>)");
        }
    }

    #[test]
    fn a_form_shows_what_its_mode_allows() {
        for (text, expected) in [
            ("198.51.100.77", "198.51.100.0/24"),
            ("255.255.255.255", "255.255.255.0/24"),
            ("0.0.0.1", "0.0.0.0/24"),
            ("::ffff:198.51.100.77", "198.51.100.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:ffff::/48"),
            ("::1", "::/48"),
        ] {
            let address = address(text);
            let form = keys().project(&address, IpMode::Prefix, 1);
            assert!(form.mode == IpMode::Prefix && form.value == expected, "{text}: {}", form.value);
            assert!(keys().project(&address, IpMode::None, 1).value.is_empty());
        }
    }

    #[test]
    fn a_keyed_form_is_the_first_64_bits_of_the_hmac() {
        // Computed with Python: hmac.new(bytes([1] + [0] * 31), message, "sha256").hexdigest()[:16]
        for (text, expected) in [("198.51.100.77", "9ef3a15794da3ad6"), ("2001:db8:1:2:3:4:5:6", "7bed3a7c6f7d520e")] {
            assert_eq!(keys().project(&address(text), IpMode::Hmac, 1).value, expected);
        }
    }

    #[test]
    fn a_keyed_form_holds_for_a_day_and_a_network() {
        let mut keys = keys();
        let mut form = |text: &str, day| keys.project(&address(text), IpMode::Hmac, day).value;
        let first = form("198.51.100.77", 20_000);
        assert_eq!(form("::ffff:198.51.100.77", 20_000), first);
        assert_ne!(form("198.51.100.78", 20_000), first);
        let network = form("2001:db8:1:2::1", 20_000);
        assert_eq!(form("2001:db8:1:2:ffff::9", 20_000), network);
        assert_ne!(form("2001:db8:1:3::1", 20_000), network);
        assert_ne!(form("198.51.100.77", 20_001), first);
        assert_ne!(form("198.51.100.77", 20_000), first, "a key that was forgotten does not come back");
    }

    #[test]
    fn a_key_does_not_outlive_its_day() {
        let mut keys = keys();
        keys.project(&address("198.51.100.77"), IpMode::Hmac, 7);
        keys.turn(7);
        assert!(keys.current.as_ref().is_some_and(|(day, key)| *day == 7 && key.0[0] == 1));
        keys.turn(8);
        assert!(keys.current.is_none());
        keys.project(&address("198.51.100.77"), IpMode::Full, 8);
        assert!(keys.current.is_none(), "a key is drawn only where it is needed");
    }
}
