//! `[[ice_server]]`: STUN and TURN servers that clients are told of.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, Secret, seconds, wrong};

/// How long credentials hold unless the configuration says otherwise: a long working day, for a client that changes its
/// network uses those it has got at its join.
const TTL_DEFAULT: Duration = Duration::from_secs(12 * 3600);
/// Shorter ones could be over before the client has used them.
const TTL_MIN_S: u64 = 60;
/// A week: whoever gets hold of credentials can use the relay for as long.
const TTL_MAX_S: u64 = 7 * 86_400;
/// Each is one `Link` header of every join's answer.
const URLS_MAX: usize = 8;

/// Servers of one operator. It has no `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServerConfig {
    /// RFC 7064 and RFC 7065: `stun:host:port`, `turn:host:port?transport=udp`, `turns:…`.
    pub urls: Vec<IceUrl>,
    /// What the TURN server and we share (coturn's `static-auth-secret`); absent for STUN.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// How long credentials hold.
    #[serde(rename = "ttl_s", default = "ttl_default", deserialize_with = "seconds")]
    pub ttl: Duration,
}

fn ttl_default() -> Duration {
    TTL_DEFAULT
}

/// The URL of a STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceUrl(String);

impl IceUrl {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it relays, and so wants credentials.
    pub fn is_turn(&self) -> bool {
        self.0.starts_with("turn")
    }

    /// Whether it is reached over TCP.
    pub fn is_tcp(&self) -> bool {
        self.is_tls() || self.0.ends_with("=tcp")
    }

    /// Whether it is reached over TLS, and so over TCP.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("stuns:") || self.0.starts_with("turns:")
    }

    /// Host and port; the scheme's own port where none is written (RFC 7064 §3.2, RFC 7065 §3.2).
    pub fn host_and_port(&self) -> (&str, u16) {
        let (scheme, rest) = self.0.split_once(':').unwrap_or_default();
        let authority = rest.split_once('?').map_or(rest, |(authority, _)| authority);
        let default = if scheme.ends_with('s') { 5349 } else { 3478 };
        let (host, port) = split(authority);
        (host, port.and_then(|port| port.parse().ok()).unwrap_or(default))
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let (authority, transport) = match rest.split_once("?transport=") {
            Some((authority, transport)) => (authority, Some(transport)),
            None => (rest, None),
        };
        let scheme_fits = match transport {
            None => matches!(scheme, "stun" | "stuns" | "turn" | "turns"),
            Some("udp") => scheme == "turn",
            Some("tcp") => matches!(scheme, "turn" | "turns"),
            Some(_) => false,
        };
        let (host, port) = split(authority);
        let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            // WHIP clients split `Link` headers at commas, semicolons and quotes: none of them is in a host's name.
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        (scheme_fits && host_fits && port_fits).then(|| Self(text.to_owned()))
    }
}

/// Host and port, as they are written.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of `[2001:db8::7]` are no port's.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

impl<'de> Deserialize<'de> for IceUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "expected stun:HOST:PORT, turn:HOST:PORT?transport=udp, …tcp, or turns:HOST:PORT?transport=tcp";
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom(expected))
    }
}

impl IceServerConfig {
    pub(super) fn check(&self, index: usize) -> Result<(), ConfigError> {
        let key = |name: &str| format!("ice_server[{index}].{name}");
        if self.urls.is_empty() || self.urls.len() > URLS_MAX {
            return Err(wrong(key("urls"), format!("expected 1 to {URLS_MAX} URLs")));
        }
        let turns = self.urls.iter().filter(|url| url.is_turn()).count();
        match &self.secret {
            None if turns > 0 => return Err(wrong(key("secret"), "a TURN server needs its secret")),
            Some(_) if turns < self.urls.len() => {
                return Err(wrong(key("urls"), "STUN servers take no secret; give them a section of their own"));
            }
            Some(secret) if secret.as_bytes().is_empty() => return Err(wrong(key("secret"), "expected a secret")),
            _ => {}
        }
        if !(TTL_MIN_S..=TTL_MAX_S).contains(&self.ttl.as_secs()) {
            return Err(wrong(key("ttl_s"), format!("expected {TTL_MIN_S} to {TTL_MAX_S} seconds")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_rfcs() {
        for (text, expected) in [
            ("stun:stun.example.org", Some(("stun.example.org", 3478))),
            ("stuns:stun.example.org", Some(("stun.example.org", 5349))),
            ("turn:192.0.2.7:3479?transport=udp", Some(("192.0.2.7", 3479))),
            ("turn:turn.example.org?transport=tcp", Some(("turn.example.org", 3478))),
            ("turns:turn.example.org:443?transport=tcp", Some(("turn.example.org", 443))),
            ("turns:[2001:db8::7]?transport=tcp", Some(("[2001:db8::7]", 5349))),
            ("turn:[2001:db8::7]:80", Some(("[2001:db8::7]", 80))),
            ("turns:turn.example.org?transport=udp", None),
            ("stun:stun.example.org?transport=udp", None),
            ("turn:turn.example.org?transport=sctp", None),
            ("turn:turn.example.org:0", None),
            ("turn:turn.example.org:65536", None),
            ("turn://turn.example.org", None),
            ("turn:", None),
            ("turn:a,b", None),
            ("turn:[example]", None),
            ("https://turn.example.org", None),
            ("turn.example.org", None),
        ] {
            let url = IceUrl::parse(text);
            assert_eq!(url.as_ref().map(IceUrl::host_and_port), expected, "{text}");
        }
        for (text, tcp, tls) in [
            ("stun:a", false, false),
            ("turn:a", false, false),
            ("turn:a?transport=udp", false, false),
            ("turn:a?transport=tcp", true, false),
            ("turns:a", true, true),
        ] {
            let url = IceUrl::parse(text);
            assert_eq!(url.map(|url| (url.is_tcp(), url.is_tls())), Some((tcp, tls)), "{text}");
        }
    }
}
