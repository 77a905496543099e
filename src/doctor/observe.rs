//! Looks at the machine, at what the configuration names, and at a server that runs.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::net::lookup_host;

use super::relay;
use crate::command::Transport;
use crate::config::Config;
use crate::control::clock::Clock;
use crate::control::ice;
use crate::ledger::record::UnixMs;
use crate::ledger::servers_directory;
use crate::ledger::store::{self, Examined, StoreError};
use crate::remote::Failure;
use crate::remote::server::Server;
use crate::shard::ShardsConfig;
use crate::shard::probe::{self, SocketFacts};
use crate::tls::keeping::Folder;
use crate::tls::{self, acme};
use crate::webhook::{self, Endpoints, Knocked};

/// Below this port the kernel wants a capability, unless it says otherwise.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Where ACME servers ask, and clients.
const HTTPS: u16 = 443;
/// How long it may take to find out where a name leads. Resolvers ask again after five seconds.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(7);

/// What was seen. What was not looked at is empty.
#[derive(Debug, Default)]
pub struct Observations {
    /// `/v1/node` of a server that runs with this configuration, or why there is none.
    pub server: Option<Result<Value, String>>,
    pub keys: Option<Keys>,
    pub ports: Vec<Port>,
    /// Where `admin.listen` is.
    pub admin: Option<IpAddr>,
    pub addresses: Option<Addresses>,
    pub socket: Option<Result<SocketFacts, String>>,
    /// How many files may be open at a time.
    pub open_files: Option<OpenFiles>,
    pub clock: Option<Clocks>,
    pub disk: Option<Disk>,
    pub ledger: Option<Result<Examined, StoreError>>,
    /// Each webhook's host and what it said; or why none could be asked.
    pub webhooks: Option<Result<Vec<Knocked>, String>>,
    /// The certificate of the public listener, if it speaks TLS; or why there is none.
    pub certificate: Option<Result<Validity, String>>,
    /// Each of `http.tls.domains`, and where it leads.
    pub domains: Vec<(String, Result<Vec<IpAddr>, String>)>,
    /// Each URL of `[[ice_server]]`, and what it did.
    pub ice_servers: Vec<(String, relay::Answer)>,
    /// What answers at `http.public_url`.
    pub public_url: Option<(String, PublicAnswer)>,
}

/// The API keys.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    pub count: usize,
    pub shipped: bool,
}

/// How long a certificate is still valid, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub left_s: i64,
    /// Whether the server renews it by itself.
    pub renewed: bool,
}

/// Something that is listened on.
#[derive(Debug, Clone)]
pub struct Port {
    pub what: &'static str,
    pub transport: Transport,
    pub address: SocketAddr,
    pub state: PortState,
    /// Only root may, and whoever asks is root; the server's user is not.
    pub privileged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    Free,
    /// By the server that runs.
    Held,
    Taken,
    Forbidden,
    /// The address is none of this machine's.
    Foreign,
    Other(String),
}

/// Where clients are sent.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub interfaces: Vec<IpAddr>,
    /// `media.advertise`.
    pub declared: Vec<IpAddr>,
    /// What clients are told.
    pub told: Vec<IpAddr>,
    /// HTTP listens on more than loopback, or has a public URL: clients are elsewhere.
    pub public: bool,
    pub udp_ports: (u16, u16),
    pub tcp_port: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    pub limit: u64,
    /// Whether the limit is the running server's own, or that of whoever asks.
    pub of_server: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Clocks {
    pub now: UnixMs,
    /// When this binary was written.
    pub built: Option<UnixMs>,
    /// When the ledger was written last.
    pub ledger: Option<UnixMs>,
    pub synchronised: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub directory: PathBuf,
    pub free_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicAnswer {
    Stube,
    /// Somebody else, or a proxy.
    Other(String),
    Silence(String),
}

impl Observations {
    /// What takes no time and asks nobody. The server's state is in `directory`.
    pub fn local(config: &Config, directory: &Path) -> Self {
        let ledger = store::file(config.ledger.url.as_str(), directory);
        Self {
            admin: Some(config.admin.listen.ip()),
            addresses: addresses(config),
            socket: Some(probe::socket_facts(config.media.udp_listen.ip()).map_err(|error| error.to_string())),
            open_files: probe::open_files_max().map(|limit| OpenFiles { limit, of_server: false }),
            clock: Some(clocks(ledger.as_deref())),
            disk: disk(ledger.as_deref().and_then(Path::parent).unwrap_or(directory)),
            ..Self::default()
        }
    }

    /// Everything.
    pub async fn all(config: &Config, endpoints: Endpoints) -> Self {
        let directory = servers_directory();
        let mut seen = Self::local(config, &directory);
        let server = running(config).await;
        seen.ports = ports(config, server.as_ref().ok());
        if let Some(limit) = server.as_ref().ok().and_then(|node| node["open_files_max"].as_u64()) {
            seen.open_files = Some(OpenFiles { limit, of_server: true });
        }
        seen.server = Some(server);
        seen.keys = Some(Keys { count: config.keys.len(), shipped: config.dev_key().is_some() });
        if let Some(clock) = &mut seen.clock {
            clock.synchronised = synchronised();
        }
        seen.ledger = Some(store::examine(config.ledger.url.as_str(), &directory).await);
        seen.webhooks = Some(match endpoints.is_empty() {
            true => Ok(Vec::new()),
            false => webhook::knock(endpoints).await.map_err(|error| error.to_string()),
        });
        seen.certificate = certificate(config, &directory);
        let domains = &config.http.tls.domains;
        let found = join_all(domains.iter().map(|domain| resolved(domain))).await;
        seen.domains = domains.iter().cloned().zip(found).collect();
        seen.ice_servers = ice_servers(config).await;
        seen.public_url = public_url(config).await;
        seen
    }
}

fn certificate(config: &Config, directory: &Path) -> Option<Result<Validity, String>> {
    let renewed = config.http.tls.has_domains();
    let read = match acme::Settings::of(config) {
        None => tls::read(config).map_err(|error| error.to_string()).transpose()?,
        Some(settings) => {
            let kept = settings.kept(&Folder::below(directory));
            kept.ok_or_else(|| "the ACME server has not issued one yet".to_owned())
        }
    };
    let left = |end: u64| i64::try_from(end).unwrap_or(i64::MAX).saturating_sub_unsigned(Clock::start().unix_seconds());
    Some(read.map(|certificate| Validity { left_s: left(certificate.not_after), renewed }))
}

/// Where a name leads, as this machine sees it.
async fn resolved(domain: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::time::timeout(RESOLVER_PATIENCE, lookup_host((domain, HTTPS))).await;
    let found = found.map_err(|_| "no name server answers in time".to_owned())?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

async fn ice_servers(config: &Config) -> Vec<(String, relay::Answer)> {
    let mut answers = Vec::new();
    for server in &config.ice_server {
        let credentials = ice::credentials(server, Clock::start().unix_seconds(), "doctor");
        for url in &server.urls {
            answers.push((url.as_str().to_owned(), relay::ask(url, credentials.as_ref()).await));
        }
    }
    answers
}

/// What a server that runs with this configuration says of itself.
async fn running(config: &Config) -> Result<Value, String> {
    let asked = async {
        let node = Server::admin(None, Ok(config.clone()))?.get(&["v1", "node"]).await?;
        match node["version"].is_string() {
            true => Ok(node),
            false => Err(Failure::Unexpected("what answers there is no Stube".to_owned())),
        }
    };
    asked.await.map_err(|failure: Failure| match failure {
        Failure::Unreachable { why, .. } => why,
        other => other.to_string(),
    })
}

fn ports(config: &Config, server: Option<&Value>) -> Vec<Port> {
    let held = |address: SocketAddr, transport: Transport| {
        let names = if transport == Transport::Udp { &["udp"][..] } else { &["http", "admin", "tcp"] };
        let listed = names.iter().flat_map(|name| match &server.map(|node| &node["listen"][*name]) {
            Some(Value::Array(addresses)) => addresses.clone(),
            Some(value) => vec![(*value).clone()],
            None => Vec::new(),
        });
        listed.into_iter().any(|listed| listed.as_str() == Some(address.to_string().as_str()))
    };
    let single = [("HTTP", config.http.listen), ("admin", config.admin.listen)];
    let http = single.into_iter().map(|(what, address)| (what, address, Transport::Tcp));
    let media = probe::listeners(&ShardsConfig::of(&config.media, config.shard.count));
    // One that is shared is HTTP's.
    let shared = |transport| transport == Transport::Tcp && config.shares_port();
    let media = media.into_iter().filter(|(_, transport)| !shared(*transport));
    let media = media.map(|(address, transport)| ("media", address, transport));
    let begin = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    let unprivileged = begin.and_then(|text| text.trim().parse().ok()).unwrap_or(UNPRIVILEGED_PORT);
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    http.chain(media)
        .map(|(what, address, transport)| {
            let state = match probe::try_listen(address, transport) {
                Ok(()) => PortState::Free,
                Err(error) => port_state(&error, held(address, transport)),
            };
            let privileged = is_root && address.port() != 0 && address.port() < unprivileged;
            Port { what, transport, address, state, privileged }
        })
        .collect()
}

fn port_state(error: &io::Error, held: bool) -> PortState {
    match error.kind() {
        io::ErrorKind::AddrInUse if held => PortState::Held,
        io::ErrorKind::AddrInUse => PortState::Taken,
        io::ErrorKind::PermissionDenied => PortState::Forbidden,
        io::ErrorKind::AddrNotAvailable => PortState::Foreign,
        _ => PortState::Other(error.to_string()),
    }
}

fn addresses(config: &Config) -> Option<Addresses> {
    let shards = ShardsConfig::of(&config.media, config.shard.count);
    let interfaces = probe::interface_addresses().ok()?;
    let listeners = probe::listeners(&shards);
    let udp = listeners.iter().filter(|(_, transport)| *transport == Transport::Udp).map(|(address, _)| address.port());
    Some(Addresses {
        told: probe::told(&shards, &interfaces),
        interfaces,
        declared: config.media.advertise.clone(),
        public: !config.http.listen.ip().to_canonical().is_loopback() || !config.http.public_url.is_empty(),
        udp_ports: (udp.clone().min().unwrap_or(0), udp.max().unwrap_or(0)),
        tcp_port: config.media.tcp_listen.map(|address| address.port()),
    })
}

fn clocks(ledger: Option<&Path>) -> Clocks {
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok().map(unix_ms);
    Clocks {
        now: Clock::start().moment().wall,
        built: std::env::current_exe().ok().and_then(|path| written(&path)),
        ledger: ledger.and_then(written),
        synchronised: None,
    }
}

fn unix_ms(at: SystemTime) -> UnixMs {
    UnixMs(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

/// What systemd says of the clock; None where it does not run.
fn synchronised() -> Option<bool> {
    let mut asked = Command::new("timedatectl");
    asked.args(["show", "--property=NTPSynchronized", "--value"]).stdin(Stdio::null());
    let output = asked.output().ok().filter(|output| output.status.success())?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn disk(directory: &Path) -> Option<Disk> {
    let facts = nix::sys::statvfs::statvfs(directory).ok()?;
    let free_bytes = facts.blocks_available().saturating_mul(facts.fragment_size());
    Some(Disk { directory: directory.to_owned(), free_bytes })
}

/// Whether a Stube answers at its public URL.
async fn public_url(config: &Config) -> Option<(String, PublicAnswer)> {
    let url = Some(config.http.public_url.clone()).filter(|url| !url.is_empty())?;
    let asked = async { Server::admin(Some(&url), Ok(config.clone()))?.get(&["v1", "openapi.json"]).await };
    let answer = match asked.await {
        Ok(document) if document["info"]["title"] == "Stube" => PublicAnswer::Stube,
        Ok(_) => PublicAnswer::Other("it is no Stube".to_owned()),
        Err(Failure::Unreachable { why, .. }) => PublicAnswer::Silence(why),
        Err(failure) => PublicAnswer::Other(failure.to_string()),
    };
    Some((url, answer))
}
