//! `config.toml` and its environment overrides, validated.
//!
//! The shipped `config.toml` is the schema: it holds every key with its default, and the type of an environment
//! override is the type of the key there. Errors name the key and never repeat a secret.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;

mod accounts;
mod environment;
mod ice;
mod live;
mod logging;
mod network;
mod quota;
mod tls;
mod webhook;

pub use accounts::{DatabaseUrl, IpMode, LedgerConfig, PrivacyConfig};
pub use ice::{IceServerConfig, IceUrl};
pub use live::Reloaded;
pub use logging::{LogConfig, LogFormat, TracesConfig};
pub use network::IpNetwork;
pub use quota::{LimitTable, Limits, LimitsPatch, Quota};
pub use tls::TlsConfig;
pub use webhook::WebhookConfig;

/// The configuration the project ships, documentation included.
pub const SHIPPED: &str = include_str!("../config.toml");

/// The secret of the shipped key. Everyone knows it.
const DEV_SECRET: &str = "devsecret-devsecret-devsecret-dev";

/// The shortest secret, in bytes: HS256 wants a key as long as its hash (RFC 7518 §3.2).
const SECRET_MIN_BYTES: usize = 32;

/// A client may have no more slots for audio than this.
const LOUDEST_MAX: usize = 16;
/// The longest timeout a room or session may have, in seconds: a day.
const TIMEOUT_MAX_S: u64 = 86_400;
/// More shards than any host has cores.
const SHARDS_MAX: usize = 1024;
/// The longest `shutdown.drain_s`: a day.
const DRAIN_MAX_S: u64 = 86_400;

/// The whole configuration.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// API key → secret.
    pub keys: BTreeMap<String, Secret>,
    pub http: HttpConfig,
    pub admin: AdminConfig,
    pub media: MediaConfig,
    pub ice_server: Vec<IceServerConfig>,
    pub shard: ShardConfig,
    pub rooms: RoomsConfig,
    pub ledger: LedgerConfig,
    pub privacy: PrivacyConfig,
    pub quota: LimitTable,
    pub webhook: Vec<WebhookConfig>,
    pub shutdown: ShutdownConfig,
    pub log: LogConfig,
    pub traces: TracesConfig,
    /// Where the file is: relative paths in it begin there.
    #[serde(skip)]
    folder: PathBuf,
}

/// Where clients and map services reach the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Without a trailing slash; empty takes the request's own host.
    pub public_url: String,
    pub trusted_proxies: Vec<IpNetwork>,
    pub cors_origins: Vec<String>,
    pub tls: TlsConfig,
}

/// Where the operator looks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    pub listen: SocketAddr,
}

/// Where media flows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    pub udp_listen: SocketAddr,
    #[serde(deserialize_with = "address_or_empty")]
    pub tcp_listen: Option<SocketAddr>,
    pub advertise: Vec<IpAddr>,
    #[serde(rename = "connect_timeout_s", deserialize_with = "seconds")]
    pub connect_timeout: Duration,
    #[serde(rename = "restart_timeout_s", deserialize_with = "seconds")]
    pub restart_timeout: Duration,
    /// So many of the others each participant of a room hears at once.
    pub loudest: usize,
}

/// The threads that carry media.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardConfig {
    /// 0 takes one a core.
    pub count: usize,
}

/// What rooms are like unless their allocation says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoomsConfig {
    pub auto_create: bool,
    pub max_participants: u32,
    #[serde(rename = "empty_timeout_s", deserialize_with = "seconds")]
    pub empty_timeout: Duration,
    #[serde(rename = "departure_timeout_s", deserialize_with = "seconds")]
    pub departure_timeout: Duration,
    pub allow_remote_unmute: bool,
}

/// How the server stops.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long calls may go on after SIGTERM.
    #[serde(rename = "drain_s", deserialize_with = "seconds")]
    pub drain: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7880)),
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            cors_origins: vec!["*".to_owned()],
            tls: TlsConfig::default(),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 6789)) }
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            udp_listen: SocketAddr::from(([0, 0, 0, 0], 7882)),
            tcp_listen: Some(SocketAddr::from(([0, 0, 0, 0], 7881))),
            advertise: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            restart_timeout: Duration::from_secs(30),
            loudest: 4,
        }
    }
}

impl Default for RoomsConfig {
    fn default() -> Self {
        Self {
            auto_create: false,
            max_participants: 100,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            allow_remote_unmute: false,
        }
    }
}

/// A tenant's secret. It has no `Debug` and no `Display`, so it cannot be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The bytes, to sign and verify with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether `other` is this secret, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }

    fn is_dev(&self) -> bool {
        self.0 == DEV_SECRET
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By way of a `Value`, for serde's own message would repeat what stands there.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("expected a string")),
        }
    }
}

fn address_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| serde::de::Error::custom("expected an address and port, or \"\" for none"))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

/// Why a configuration was refused: one line that names the key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot read the configuration: {problem}", path = path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("line {line}: not valid TOML: {problem}")]
    Syntax { line: usize, problem: String },
    #[error("{key}: {problem}")]
    Key { key: String, problem: String },
}

fn wrong(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Key { key: key.into(), problem: problem.into() }
}

impl Config {
    /// Reads the file at `path`, then applies the variables of `environment` that begin with `STUBE__`.
    pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), problem: error.to_string() })?;
        let config = Self::parse(&text, environment)?;
        Ok(Self { folder: path.parent().map(Path::to_owned).unwrap_or_default(), ..config })
    }

    /// A path as the file means it.
    pub fn path(&self, written: &Path) -> PathBuf {
        self.folder.join(written)
    }

    /// As [`Config::load`], from the text of a file.
    pub fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table = read_table(text)?;
        // Sorted, so that the same variables always give the same first error.
        let overrides: BTreeMap<String, String> =
            environment.filter(|(variable, _)| variable.starts_with(environment::PREFIX)).collect();
        let schema = read_table(SHIPPED)?;
        for (variable, value) in &overrides {
            environment::override_key(&mut table, &schema, variable, value)?;
        }
        if let Some((name, _)) = table.iter().find(|(_, value)| !is_section(value)) {
            // Said here, for serde's own message would repeat what stands there: a secret, or a URL with a password.
            return Err(wrong(name, "expected a section, such as [http]"));
        }
        let mut config: Self = serde_path_to_error::deserialize(table)
            .map_err(|error| wrong(error.path().to_string(), error.inner().message()))?;
        config.http.public_url = config.http.public_url.trim_end_matches('/').to_owned();
        config.check()?;
        Ok(config)
    }

    /// The key whose secret is the shipped one, if it is configured; the demo route exists only then.
    pub fn dev_key(&self) -> Option<&str> {
        self.keys.iter().find(|(_, secret)| secret.is_dev()).map(|(key, _)| key.as_str())
    }

    /// The API key of this name and its secret; without a name, the first.
    pub fn key_or_first(&self, name: Option<&str>) -> Result<(&str, &Secret), ConfigError> {
        let found = match name {
            Some(name) => self.keys.get_key_value(name),
            None => self.keys.first_key_value(),
        };
        found.map(|(key, secret)| (key.as_str(), secret)).ok_or_else(|| match name {
            Some(name) => wrong(format!("keys.{name}"), "no such key"),
            None => wrong("keys", "there is no API key"),
        })
    }

    /// What no single key can say: how keys go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, secret) in &self.keys {
            if key.is_empty() || key.contains(':') || key.chars().any(char::is_control) {
                return Err(wrong("keys", "an API key is not empty and has no colon and no control characters"));
            }
            if secret.as_bytes().len() < SECRET_MIN_BYTES {
                return Err(wrong(format!("keys.{key}"), format!("a secret has at least {SECRET_MIN_BYTES} bytes")));
            }
        }
        if let Some(key) = self.dev_key()
            && !self.http.listen.ip().to_canonical().is_loopback()
        {
            let listen = self.http.listen;
            let problem = format!("everyone knows the secret of {key}; replace it before listening on {listen}");
            return Err(wrong(format!("keys.{key} with http.listen"), problem));
        }
        if !self.http.public_url.is_empty() && !is_origin(&self.http.public_url) {
            return Err(wrong("http.public_url", "expected http:// or https:// and a host, without a path"));
        }
        for origin in &self.http.cors_origins {
            if origin != "*" && !is_origin(origin) {
                return Err(wrong("http.cors_origins", "expected \"*\" or origins such as \"https://example.org\""));
            }
        }
        self.http.tls.check()?;
        self.check_shared_port()?;
        if self.shutdown.drain > Duration::from_secs(DRAIN_MAX_S) {
            return Err(wrong("shutdown.drain_s", format!("expected at most {DRAIN_MAX_S}")));
        }
        if self.shard.count > SHARDS_MAX {
            return Err(wrong("shard.count", format!("expected at most {SHARDS_MAX}; 0 takes one a core")));
        }
        let port = usize::from(self.media.udp_listen.port());
        if port != 0 && port + self.shard.count.max(1) - 1 > usize::from(u16::MAX) {
            return Err(wrong("media.udp_listen", "each further shard takes the next port, and they end at 65535"));
        }
        if self.media.advertise.iter().any(|address| address.is_unspecified() || address.is_multicast()) {
            return Err(wrong("media.advertise", "expected addresses that clients can reach"));
        }
        if !(1..=LOUDEST_MAX).contains(&self.media.loudest) {
            return Err(wrong(
                "media.loudest",
                format!("expected 1 to {LOUDEST_MAX}, as many as clients may have slots for"),
            ));
        }
        if self.rooms.max_participants == 0 {
            return Err(wrong("rooms.max_participants", "a room takes at least one participant"));
        }
        for (key, timeout, min) in [
            ("media.connect_timeout_s", self.media.connect_timeout, 1),
            ("media.restart_timeout_s", self.media.restart_timeout, 1),
            ("rooms.empty_timeout_s", self.rooms.empty_timeout, 1),
            ("rooms.departure_timeout_s", self.rooms.departure_timeout, 0),
        ] {
            if !(min..=TIMEOUT_MAX_S).contains(&timeout.as_secs()) {
                return Err(wrong(key, format!("expected {min} to {TIMEOUT_MAX_S} seconds")));
            }
        }
        if let Some(name) = self.quota.keys().find(|name| !self.keys.contains_key(*name)) {
            return Err(wrong(format!("quota.{name}"), "there is no such API key"));
        }
        for (index, server) in self.ice_server.iter().enumerate() {
            server.check(index)?;
        }
        self.ledger.check()?;
        self.privacy.check()
    }
}

/// Whether this is a section, or several of one name.
fn is_section(value: &toml::Value) -> bool {
    value.is_table() || value.as_array().is_some_and(|sections| sections.iter().all(toml::Value::is_table))
}

/// Whether `text` is `http(s)://host[:port]` and nothing more.
fn is_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

fn read_table(text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        line: error.span().map_or(0, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1),
        // The message alone: the error's own text quotes the line, which may hold a secret.
        problem: error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(variable, value)| ((*variable).to_owned(), (*value).to_owned()));
        Config::parse(text, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_holds_every_default() {
        let shipped = parse(SHIPPED, &[]).expect("the shipped file is valid");
        assert_eq!(shipped.quota.of(&"devkey".into()), Limits::default());
        let mut expected = Config { quota: shipped.quota.clone(), ..Config::default() };
        expected.keys.insert("devkey".to_owned(), DEV_SECRET.into());
        assert!(shipped == expected);
        assert_eq!(shipped.dev_key(), Some("devkey"));
    }

    #[test]
    fn an_empty_file_is_the_default_without_keys() {
        assert!(parse("", &[]) == Ok(Config::default()));
    }

    #[test]
    fn errors_name_the_key_and_never_a_secret() {
        let cases = [
            ("[http]\nlisen = 1", "http.lisen: unknown field"),
            ("[htp]\nlisten = 1", "htp: unknown field"),
            ("[http]\nlisten = 7880", "http.listen: invalid type"),
            ("[http]\nlisten = \"7880\"", "http.listen: invalid socket address"),
            ("[http]\ntrusted_proxies = [\"10.0.0.0/33\"]", "http.trusted_proxies[0]: expected IP"),
            ("[http]\npublic_url = \"example.org\"", "http.public_url: expected http"),
            ("[http]\ncors_origins = [\"https://a/b\"]", "http.cors_origins: expected"),
            ("[media]\ntcp_listen = \"off\"", "media.tcp_listen: expected an address"),
            ("[media]\nconnect_timeout_s = 0", "media.connect_timeout_s: expected 1 to"),
            ("[rooms]\nmax_participants = -1", "rooms.max_participants: invalid value"),
            ("[rooms]\nmax_participants = 0", "rooms.max_participants: a room"),
            ("[rooms]\nauto_create = \"yes\"", "rooms.auto_create: invalid type"),
            ("[shard]\ncount = 1.5", "shard.count: invalid type"),
            ("[log]\nformat = \"xml\"", "log.format: unknown variant"),
            ("[keys]\na = \"hunter2-hunter2\"", "keys.a: a secret has at least 32 bytes"),
            ("[keys]\na = 31337", "keys.a: expected a string"),
            ("[keys]\na = hunter2-hunter2", "line 2: not valid TOML"),
            ("keys = \"hunter2-hunter2\"", "keys: expected a section"),
        ];
        for (text, beginning) in cases {
            let error = parse(text, &[]).err().unwrap_or_default();
            assert!(error.starts_with(beginning), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains("31337") && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn the_dev_key_stays_on_loopback() {
        for (listen, allowed) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("127.9.9.9:1", true), ("0.0.0.0:1", false), ("[::]:1", false)]
        {
            let result = parse(SHIPPED, &[("STUBE__HTTP__LISTEN", listen)]);
            assert_eq!(result.is_ok(), allowed, "{listen}");
            if let Err(error) = result {
                assert!(error.starts_with("keys.devkey with http.listen: ") && !error.contains(DEV_SECRET), "{error}");
            }
        }
        let own = [("STUBE__HTTP__LISTEN", "0.0.0.0:1"), ("STUBE__KEYS__devkey", "another-secret-of-32-bytes-or-more")];
        assert!(parse(SHIPPED, &own).is_ok());
        let gone = [("STUBE__HTTP__LISTEN", "0.0.0.0:1"), ("STUBE__KEYS__devkey", "")];
        assert!(parse(SHIPPED, &gone).is_ok_and(|config| config.keys.is_empty()));
    }

    #[test]
    fn the_environment_overrides_any_key() {
        let environment = [
            ("STUBE__HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("STUBE__MEDIA__ADVERTISE", "192.0.2.7,2001:db8::7"),
            ("STUBE__MEDIA__TCP_LISTEN", ""),
            ("STUBE__HTTP__TLS__DOMAINS", "a.example.org,b.example.org"),
            ("STUBE__ROOMS__AUTO_CREATE", "true"),
            ("STUBE__SHARD__COUNT", "3"),
            ("STUBE__LOG__FORMAT", "json"),
            ("STUBE__TRACES__RATIO", "0.25"),
            ("STUBE__KEYS__mapService", "secret-of-the-map-service-32-bytes"),
            ("STUBE_OTHER", "ignored"),
        ];
        let config = parse(SHIPPED, &environment).expect("valid");
        assert!(config.http.trusted_proxies[0].contains(IpAddr::from([10, 200, 0, 1])));
        assert!(!config.http.trusted_proxies[1].contains(IpAddr::from([10, 200, 0, 1])));
        assert_eq!(config.media.advertise.len(), 2);
        assert_eq!(config.media.tcp_listen, None);
        assert_eq!(config.http.tls.domains, ["a.example.org", "b.example.org"]);
        assert!(config.rooms.auto_create && config.shard.count == 3 && config.log.format == LogFormat::Json);
        assert!(config.keys.contains_key("mapService"));
        assert_eq!(config.traces.ratio, 0.25);
        for (variable, value, beginning) in [
            ("STUBE__HTTP__LISEN", "x", "STUBE__HTTP__LISEN: no such key"),
            ("STUBE__NOPE__LISTEN", "x", "STUBE__NOPE__LISTEN: no such key"),
            ("STUBE__HTTP", "x", "STUBE__HTTP: no such key"),
            ("STUBE__HTTP__TLS", "x", "STUBE__HTTP__TLS: no such key"),
            ("STUBE__HTTP__TLS__KEYS", "x", "STUBE__HTTP__TLS__KEYS: no such key"),
            ("STUBE__HTTP__LISTEN__PORT", "x", "STUBE__HTTP__LISTEN__PORT: no such key"),
            ("STUBE__SHARD__COUNT", "many", "STUBE__SHARD__COUNT: expected a whole number"),
            ("STUBE__ROOMS__AUTO_CREATE", "1", "STUBE__ROOMS__AUTO_CREATE: expected true or false"),
            ("STUBE__TRACES__RATIO", "all", "STUBE__TRACES__RATIO: expected a number"),
            ("STUBE__HTTP__LISTEN", "7880", "http.listen: invalid socket address"),
        ] {
            let error = parse(SHIPPED, &[(variable, value)]).err().unwrap_or_default();
            assert!(error.starts_with(beginning), "{error}");
        }
    }
}
