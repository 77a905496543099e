//! Where an event is posted to, and the names that lead there.
//!
//! A URL is checked when the configuration is read, its addresses each time a connection is made: [`Guard`] stands
//! between the HTTP client and the resolver, and the client connects to what passes it and to nothing else. So a name
//! that answers with another address the second time (DNS rebinding) gains nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::Scope;

/// The one name that means this machine (RFC 6761 §6.3).
const LOOPBACK_NAME: &str = "localhost";

/// Why a URL cannot be posted to. The URL is not repeated: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("expected a URL such as https://example.org/hooks")]
    NotUrl,
    #[error("expected https://; http:// is for loopback hosts alone")]
    NotHttps,
    #[error("expected a URL without user name and password; receivers know us by our signature")]
    UserInfo,
    #[error("the host is a private address; webhooks reach those only where the operator allows them")]
    Private,
    #[error("the host is an address that no receiver can have")]
    Special,
}

/// A URL that may be posted to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

impl Target {
    /// Reads a URL. `allow_private` opens the operator's own network.
    pub fn read(text: &str, allow_private: bool) -> Result<Self, TargetError> {
        let url = Url::parse(text).map_err(|_| TargetError::NotUrl)?;
        let host = url.host_str().ok_or(TargetError::NotUrl)?;
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let loopback = match address {
            Some(address) => Scope::of(address) == Scope::Loopback,
            None => is_loopback_name(host),
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(TargetError::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        match address.map(Scope::of) {
            Some(Scope::Private) if !allow_private => Err(TargetError::Private),
            Some(Scope::Special) => Err(TargetError::Special),
            _ => Ok(Self(url)),
        }
    }

    /// The URL, normalised.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The host, for the log: it says which receiver and no secret.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

fn is_loopback_name(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(LOOPBACK_NAME)
}

/// Whether a connection to `name` may go to `address`.
fn is_allowed(name: &str, address: IpAddr, allow_private: bool) -> bool {
    let scope = Scope::of(address);
    match is_loopback_name(name) {
        true => scope == Scope::Loopback,
        false => scope == Scope::Global || allow_private && matches!(scope, Scope::Loopback | Scope::Private),
    }
}

/// A name all of whose addresses are closed to webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to addresses that webhooks must not reach")]
pub struct AddressRefused;

/// Asks a resolver and lets pass what webhooks may reach.
pub struct Guard {
    resolver: Arc<dyn Resolve>,
    allow_private: bool,
}

impl Guard {
    /// In front of the system's resolver.
    pub fn new(allow_private: bool) -> Self {
        Self::over(Arc::new(System), allow_private)
    }

    /// In front of any resolver.
    pub fn over(resolver: Arc<dyn Resolve>, allow_private: bool) -> Self {
        Self { resolver, allow_private }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (text, allow_private) = (name.as_str().to_owned(), self.allow_private);
        let found = self.resolver.resolve(name);
        Box::pin(async move {
            let found = found.await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| is_allowed(&text, address.ip(), allow_private)).collect();
            if allowed.is_empty() {
                return Err(AddressRefused.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The system's resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client puts the URL's port in place of the 0.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A resolver that always says the same.
    struct Fixed(Vec<IpAddr>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found: Vec<_> = self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Box::pin(std::future::ready(Ok(Box::new(found.into_iter()) as Addrs)))
        }
    }

    /// What passes the guard, as text.
    async fn pass(name: &str, addresses: &str, allow_private: bool) -> String {
        let found = addresses.split(' ').map(|text| text.parse().expect("an address")).collect();
        let guard = Guard::over(Arc::new(Fixed(found)), allow_private);
        match guard.resolve(name.parse().expect("a name")).await {
            Ok(passed) => passed.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" "),
            Err(error) if error.is::<AddressRefused>() => "refused".to_owned(),
            Err(_) => "failed".to_owned(),
        }
    }

    #[test]
    fn a_url_is_https_unless_its_host_is_loopback() {
        use TargetError::{NotHttps, NotUrl, Private, Special, UserInfo};
        for (text, fault) in [
            ("https://example.org/hooks?token=t", None),
            ("HTTPS://EXAMPLE.ORG:8443", None),
            ("https://1.1.1.1/", None),
            ("https://[2606:4700::1111]/", None),
            ("http://127.0.0.1:8080/hooks", None),
            ("http://127.9.9.9/", None),
            ("http://[::1]:8080/", None),
            ("http://[::ffff:127.0.0.1]/", None),
            ("http://localhost:8080/", None),
            ("http://LOCALHOST./", None),
            ("http://2130706433/", None),
            ("http://0x7f.1/", None),
            ("https://localhost/", None),
            ("", Some(NotUrl)),
            ("/hooks", Some(NotUrl)),
            ("example.org/hooks", Some(NotUrl)),
            ("https://", Some(NotUrl)),
            ("https://[fe80::1%25eth0]/", Some(NotUrl)),
            ("data:text/plain,x", Some(NotUrl)),
            ("http://example.org/", Some(NotHttps)),
            ("http://localhost.example.org/", Some(NotHttps)),
            ("http://127.0.0.1.example.org/", Some(NotHttps)),
            ("http://10.0.0.1/", Some(NotHttps)),
            ("http://[64:ff9b::7f00:1]/", Some(NotHttps)),
            ("http://0.0.0.0/", Some(NotHttps)),
            ("ftp://localhost/", Some(NotHttps)),
            ("unix://localhost/run/socket", Some(NotHttps)),
            ("https://ada@example.org/", Some(UserInfo)),
            ("https://:secret@example.org/", Some(UserInfo)),
            ("http://ada:secret@127.0.0.1/", Some(UserInfo)),
            ("https://10.0.0.1/", Some(Private)),
            ("https://167772161/", Some(Private)),
            ("https://012.1/", Some(Private)),
            ("https://192.168.1.1:8443/", Some(Private)),
            ("https://[fd00::1]/", Some(Private)),
            ("https://[::ffff:10.0.0.1]/", Some(Private)),
            ("https://[64:ff9b::a00:1]/", Some(Private)),
            ("https://0/", Some(Special)),
            ("https://169.254.169.254/latest/meta-data/", Some(Special)),
            ("https://[fe80::1]/", Some(Special)),
            ("https://[::]/", Some(Special)),
            ("https://224.0.0.1/", Some(Special)),
            ("https://198.51.100.77/", Some(Special)),
        ] {
            assert_eq!(Target::read(text, false).err(), fault, "{text}");
            let opened = if fault == Some(Private) { None } else { fault };
            assert_eq!(Target::read(text, true).err(), opened, "{text}, private allowed");
        }
    }

    #[tokio::test]
    async fn a_name_leads_only_where_webhooks_may_go() {
        for (name, addresses, closed, opened) in [
            ("example.org", "1.1.1.1 2606:4700::1", "1.1.1.1 2606:4700::1", "1.1.1.1 2606:4700::1"),
            ("example.org", "10.0.0.1 1.1.1.1", "1.1.1.1", "10.0.0.1 1.1.1.1"),
            ("example.org", "127.0.0.1 ::1", "refused", "127.0.0.1 ::1"),
            ("example.org", "fd00::1 100.64.0.1", "refused", "fd00::1 100.64.0.1"),
            ("example.org", "169.254.169.254 0.0.0.0 ff02::1 fe80::1", "refused", "refused"),
            ("example.org", "::ffff:10.0.0.1", "refused", "::ffff:10.0.0.1"),
            ("localhost", "127.0.0.1 10.0.0.1 1.1.1.1", "127.0.0.1", "127.0.0.1"),
            ("localhost", "1.1.1.1", "refused", "refused"),
        ] {
            assert_eq!(pass(name, addresses, false).await, closed, "{name} {addresses}");
            assert_eq!(pass(name, addresses, true).await, opened, "{name} {addresses}, private allowed");
        }
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = Guard::new(false).resolve("localhost".parse().expect("a name")).await;
        assert!(found.is_ok_and(|mut found| found.all(|address| address.ip().is_loopback())));
    }
}
