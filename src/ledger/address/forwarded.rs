//! Which client a request comes from, behind proxies: `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Every proxy adds whom it was called by on the right, and anybody can write what stands on the left. So the list is
//! read from the right, and only as far as trusted proxies have written it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use super::ClientAddress;

/// Whom a proxy was called by; none if it does not say (`unknown`, `_hidden`) or it cannot be read.
type Hop = Option<IpAddr>;

/// White space around the elements of a header's list (RFC 9110 §5.6.3).
const BLANKS: [char; 2] = [' ', '\t'];

/// The address of the client.
///
/// `peer` is the other end of the connection; `forwarded` and `x_forwarded_for` are the values of these headers in the
/// order of the request. They are believed only where `is_trusted` says that whoever wrote them is a proxy of ours, and
/// the right-most hop that is no such proxy is the client. Where that hop cannot be read, the last believable address
/// stands: the proxy's that passed it on. `Forwarded` is preferred when both are there, so **a proxy that writes only
/// `X-Forwarded-For` must remove `Forwarded` from requests**, or a client can name any address there.
///
/// A value that is not text must be handed in as garbage, such as `?`, and not left out: an older hop, which anybody
/// may have written, would take its place.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl Iterator<Item = &'a str>,
    x_forwarded_for: impl Iterator<Item = &'a str>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> ClientAddress {
    // Trust is asked before 6to4 and NAT64 are read as IPv4: else 2002:7f00:1:: would be taken for 127.0.0.1.
    let is_trusted = |address: IpAddr| is_trusted(address.to_canonical());
    if !is_trusted(peer) {
        return ClientAddress::of(peer);
    }
    let mut hops: Vec<Hop> = forwarded.flat_map(|value| elements(value, ',')).map(forwarded_hop).collect();
    if hops.is_empty() {
        hops = x_forwarded_for.flat_map(|value| elements(value, ',')).map(node).collect();
    }
    let mut believed = peer;
    for hop in hops.into_iter().rev() {
        let Some(address) = hop else { break };
        believed = address;
        if !is_trusted(address) {
            break;
        }
    }
    ClientAddress::of(believed)
}

/// The parts of a list that are not empty, trimmed; separators inside quoted strings do not count.
fn elements(list: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = list.split(move |character| {
        let separates = character == separator && !quoted;
        (quoted, escaped) = match character {
            _ if escaped => (quoted, false),
            '\\' => (quoted, quoted),
            '"' => (!quoted, false),
            _ => (quoted, false),
        };
        separates
    });
    parts.map(|part| part.trim_matches(BLANKS)).filter(|part| !part.is_empty())
}

/// The `for` of an element of `Forwarded`. A fault anywhere in the element spoils it: its `for` may be a client's, with
/// an open quotation mark before what the proxy has added.
fn forwarded_hop(element: &str) -> Hop {
    let mut hop = None;
    for pair in elements(element, ';') {
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        if name.eq_ignore_ascii_case("for") && hop.replace(node(&value)).is_some() {
            return None;
        }
    }
    hop.flatten()
}

/// The text of a token or of a quoted string (RFC 9110 §5.6.4).
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return (!value.contains('"')).then_some(Cow::Borrowed(value));
    };
    let mut text = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(Cow::Owned(text)),
            '\\' => text.push(rest.next()?),
            character => text.push(character),
        }
    }
}

/// The address of a node (RFC 7239 §6), with or without a port, and of an IPv6 address without the brackets.
fn node(text: &str) -> Hop {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let ends_well = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| ends_well).map(IpAddr::V6);
    }
    text.parse().ok().or_else(|| {
        let (address, port) = text.split_once(':')?;
        address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
    })
}

/// One to five digits, or an obfuscated port: `_` and a word (RFC 7239 §6.2).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(word) => !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DayKeys, IpMode};
    use super::*;

    const PROXY: &str = "10.0.0.1";

    /// The client, with 10.0.0.0/8, 127.0.0.1 and fd00::/8 trusted.
    fn client(peer: &str, forwarded: &[&str], x_forwarded_for: &[&str]) -> String {
        let is_trusted = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[0] == 10 || address.is_loopback(),
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        };
        let peer = peer.parse().expect(peer);
        let address = client_address(peer, forwarded.iter().copied(), x_forwarded_for.iter().copied(), is_trusted);
        DayKeys::new(|_| ()).project(&address, IpMode::Full, 1).value
    }

    #[test]
    fn headers_are_believed_from_trusted_peers_only() {
        for (peer, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "192.0.2.1"),
            ("::ffff:10.0.0.1", "192.0.2.1"),
            ("fd00::1", "192.0.2.1"),
            ("fe00::1", "fe00::1"),
            // They are 10.0.0.1 and 127.0.0.1 only once they are normalised.
            ("2002:a00:1::1", "10.0.0.1"),
            ("64:ff9b::127.0.0.1", "127.0.0.1"),
        ] {
            let (forwarded, x_forwarded_for) = (["for=192.0.2.1"], ["192.0.2.1"]);
            assert_eq!(client(peer, &forwarded, &[]), expected, "Forwarded from {peer}");
            assert_eq!(client(peer, &[], &x_forwarded_for), expected, "X-Forwarded-For from {peer}");
        }
    }

    #[test]
    fn without_headers_the_peer_is_the_client() {
        for (peer, expected) in [("203.0.113.9", "203.0.113.9"), (PROXY, PROXY), ("fd00::1", "fd00::1")] {
            assert_eq!(client(peer, &[], &[]), expected);
        }
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right() {
        for (values, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1 , 10.0.0.2,10.9.9.9"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, ::ffff:10.0.0.2"], "6.6.6.6"),
            (&["192.0.2.1, , "], "192.0.2.1"),
            // A client inside the operator's network.
            (&["10.0.0.7, 10.0.0.2"], "10.0.0.7"),
            // Garbage where it counts: the proxy that passed it on.
            (&["6.6.6.6, garbage"], PROXY),
            (&["6.6.6.6, garbage, 10.0.0.2"], "10.0.0.2"),
            (&["6.6.6.6", "?"], PROXY),
            (&["6.6.6.6, unknown"], PROXY),
            (&["\"192.0.2.1\""], PROXY),
            (&["192.0.2.1:"], PROXY),
            (&["192.0.2.1:123456"], PROXY),
            (&["192.0.2.256"], PROXY),
            (&["[192.0.2.1]"], PROXY),
            (&["[2001:db8::1"], PROXY),
            (&["[2001:db8::1]4711"], PROXY),
            (&["fe80::1%eth0"], PROXY),
            (&["ä€\u{0}\u{7f}"], PROXY),
            (&[""], PROXY),
            (&[",,,"], PROXY),
            // Garbage where it does not count.
            (&["garbage, 192.0.2.1"], "192.0.2.1"),
        ] {
            assert_eq!(client(PROXY, &[], values), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (values, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=6.6.6.6, for=198.51.100.17"], "198.51.100.17"),
            (&["for=6.6.6.6", "for=198.51.100.17;by=_proxy , for=10.0.0.3"], "198.51.100.17"),
            (&["by=\"a,b;c\";for=\"192.0.2.43:47011\""], "192.0.2.43"),
            (&["for=192.0.2.43:47011"], "192.0.2.43"),
            (&["for=\"192.0.2.43:_x-1\""], "192.0.2.43"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=\"2001:db8::1\""], "2001:db8::1"),
            (&["for=\"192\\.0.2.43\""], "192.0.2.43"),
            (&["for=\"[::ffff:192.0.2.43]\""], "192.0.2.43"),
            (&["proto=https; for=192.0.2.43 ; "], "192.0.2.43"),
            (&[",for=192.0.2.43,,"], "192.0.2.43"),
            // It does not say, or cannot be read.
            (&["for=6.6.6.6, for=_hidden"], PROXY),
            (&["for=6.6.6.6, for=\"_SEVKISEK\""], PROXY),
            (&["for=6.6.6.6, for=unknown"], PROXY),
            (&["for=6.6.6.6, for=unknown, for=10.0.0.3"], "10.0.0.3"),
            (&["for=6.6.6.6, proto=https"], PROXY),
            (&["for=6.6.6.6, for="], PROXY),
            (&["for=6.6.6.6, for=192.0.2.1;for=192.0.2.2"], PROXY),
            (&["for=6.6.6.6, for=_;for=192.0.2.2"], PROXY),
            (&["for=6.6.6.6;garbage"], PROXY),
            (&["for=6.6.6.6, for=\"192.0.2.1\"x"], PROXY),
            (&["for=6.6.6.6, for=19\"2.0.2.1\""], PROXY),
            (&["for=\"[2001:db8::1]:\""], PROXY),
            (&["for=\"[2001:db8::1]:_\""], PROXY),
            (&["=;=,=\"\\"], PROXY),
            (&["for=\"\\"], PROXY),
            // A client's open quotation mark swallows what the proxy adds; it must not leave the client's own `for`.
            (&["for=6.6.6.6;host=\"x, for=192.0.2.1"], PROXY),
            (&["for=6.6.6.6;host=\"x, for=\"[2001:db8::1]:4711\";host=\"a,for=7.7.7.7\""], PROXY),
            (&["for=\"6.6.6.6\\, for=\"192.0.2.1\""], PROXY),
            (&["garbage, for=192.0.2.1"], "192.0.2.1"),
            // A client's Host, quoted by the proxy.
            (&["for=192.0.2.1;host=\"a\\\", for=6.6.6.6\""], "192.0.2.1"),
            (&["for=192.0.2.1;host=\"a\\\";for=6.6.6.6\""], "192.0.2.1"),
        ] {
            assert_eq!(client(PROXY, values, &[]), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_preferred() {
        assert_eq!(client(PROXY, &["for=192.0.2.1"], &["192.0.2.2"]), "192.0.2.1");
        assert_eq!(client(PROXY, &["for=_hidden"], &["192.0.2.2"]), PROXY);
        assert_eq!(client(PROXY, &["", " , "], &["192.0.2.2"]), "192.0.2.2");
    }

    #[test]
    fn no_header_ends_the_server() {
        let alphabet: Vec<char> = "for=\"\\[]:;,. _1aé\t€".chars().collect();
        let mut state: u64 = 1;
        for length in (0..20_000).map(|round| round % 40) {
            let value: String = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            client(PROXY, &[&value], &[]);
            client(PROXY, &[], &[&value]);
        }
        let long = "for=\"[,".repeat(20_000);
        assert_eq!(client(PROXY, &[&long], &[&long]), PROXY);
    }
}
