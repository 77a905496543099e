//! `/v1/node` on the admin listener: how the server does, reading its configuration anew, and its retreat.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::app::{App, uninterrupted};
use super::body::{self, Fields};
use super::code::Code;
use super::problem::Problem;
use crate::command::Transport;
use crate::config::{Config, ConfigError, Reloaded};
use crate::ledger::store::AuditAction;
use crate::log;
use crate::rtc::Candidate;
use crate::shard::probe;
use crate::shard::{ShardIndex, ShardsConfig};
use crate::tls;
use crate::webhook::Endpoints;

/// The longest `deadline_s`: a day.
const DEADLINE_MAX_S: u64 = 86_400;

/// What the server does with those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Running,
    /// Calls that run go on; no new ones.
    Draining,
    Stopping,
}

/// How a server does.
#[derive(Serialize)]
struct NodeView {
    version: &'static str,
    state: NodeState,
    uptime_s: u64,
    rooms: u64,
    participants: u64,
    sessions: u64,
    shards: Vec<ShardView>,
    ledger: LedgerView,
    listen: ListenView,
    /// What clients are told to connect to.
    advertised: Vec<AdvertisedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files_max: Option<u64>,
}

/// Where the server listens, as configured.
#[derive(Serialize)]
struct ListenView {
    http: SocketAddr,
    admin: SocketAddr,
    udp: Vec<SocketAddr>,
    tcp: Option<SocketAddr>,
}

#[derive(Serialize)]
struct AdvertisedView {
    transport: Transport,
    address: SocketAddr,
}

#[derive(Serialize)]
struct ShardView {
    busy_ratio: f64,
    saturated: bool,
    rooms: u64,
    participants: u64,
}

#[derive(Serialize)]
struct LedgerView {
    writable: bool,
    /// How often what is open is written.
    checkpoint_s: u64,
    checkpoint_age_ms: u64,
    rows_waiting: usize,
}

/// `GET /v1/node`
pub async fn read(State(app): State<Arc<App>>) -> Response {
    let snapshots = app.shards.snapshots();
    let shard = |shard: &crate::metrics::ShardSnapshot| ShardView {
        busy_ratio: shard.busy_permille as f64 / 1000.0,
        saturated: shard.saturated,
        rooms: shard.engine.rooms,
        participants: shard.engine.participants,
    };
    let shards: Vec<_> = snapshots.iter().map(shard).collect();
    let (rows_waiting, _) = app.ledger.with(|accounts| accounts.backlog());
    let view = NodeView {
        version: env!("CARGO_PKG_VERSION"),
        state: app.state(),
        uptime_s: app.clock.since_start(app.clock.now()).as_secs(),
        rooms: shards.iter().map(|shard| shard.rooms).sum(),
        participants: shards.iter().map(|shard| shard.participants).sum(),
        sessions: app.directory.num_sessions() as u64,
        shards,
        ledger: LedgerView {
            writable: !app.ledger.is_failing(),
            checkpoint_s: app.config().ledger.checkpoint.as_secs(),
            checkpoint_age_ms: app.ledger.age_ms(app.clock.moment().wall),
            rows_waiting,
        },
        listen: listen(&app),
        advertised: advertised(&app),
        open_files_max: probe::open_files_max(),
    };
    Json(view).into_response()
}

fn listen(app: &App) -> ListenView {
    let config = app.config();
    let shards = ShardsConfig::of(&config.media, app.shards.count());
    let udp = probe::listeners(&shards).into_iter().filter(|(_, transport)| *transport == Transport::Udp);
    ListenView {
        http: config.http.listen,
        admin: config.admin.listen,
        udp: udp.map(|(address, _)| address).collect(),
        tcp: config.media.tcp_listen,
    }
}

fn advertised(app: &App) -> Vec<AdvertisedView> {
    let mut all: Vec<AdvertisedView> = Vec::new();
    for candidate in (0..app.shards.count()).flat_map(|shard| app.shards.candidates(ShardIndex(shard))) {
        let Candidate { transport, address } = *candidate;
        if !all.iter().any(|known| known.transport == transport && known.address == address) {
            all.push(AdvertisedView { transport, address });
        }
    }
    all
}

/// What came of reading the configuration anew.
#[derive(Debug, Serialize)]
pub struct ReloadView {
    /// Sections that are other than before; `http.tls` if the certificate is.
    pub changed: Vec<&'static str>,
    /// What differs in the file and waits for a restart.
    pub needs_restart: Vec<&'static str>,
    /// The file that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// `POST /v1/node/reload`
pub async fn reload(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    from_no_page(&headers)?;
    uninterrupted(async move {
        match take_over(&app).await {
            Ok(view) => Ok(Json(view).into_response()),
            Err(error) => Err(Problem::new(Code::InvalidConfig, error.to_string())),
        }
    })
    .await
}

/// Reads the configuration anew. An invalid one changes nothing.
pub async fn take_over(app: &App) -> Result<ReloadView, ConfigError> {
    let result = {
        // One at a time: two that cross would leave a mixture.
        let _held = app.reloads.lock().await;
        match (app.source)() {
            Ok(file) => apply(app, file).await,
            Err(error) => Err(error),
        }
    };
    match &result {
        Ok(ReloadView { changed, needs_restart, .. }) => {
            tracing::info!(changed = changed.join(", "), "the configuration was read anew");
            if !needs_restart.is_empty() {
                tracing::warn!(keys = needs_restart.join(", "), "these keys differ in the file and wait for a restart");
            }
        }
        Err(error) => tracing::error!(%error, "the configuration is not valid; nothing has changed"),
    }
    result
}

async fn apply(app: &App, file: Config) -> Result<ReloadView, ConfigError> {
    let Reloaded { config, mut changed, needs_restart } = app.config().reloaded(file);
    // Whatever can be refused comes before the first change. What holds of the file need not hold of this mixture: it may
    // have the shipped key and listen on loopback, where the server does not.
    config.check()?;
    let filter = log::filter(&config.log.level)?;
    let endpoints = Endpoints::check(&config.webhook, &config.keys, config.privacy.allow_private_webhooks)?;
    let urls = endpoints.by_tenant();
    let certificate = tls::read(&config)?;
    let shown = app.tls.as_ref().and_then(|tls| tls.certificate());
    let is_other = |new: &&tls::Certificate| shown.is_none_or(|shown| !shown.is_same(new));
    // What is in force may have expired, and a key must be taken back all the same.
    if let Some(other) = certificate.as_ref().filter(is_other) {
        tls::check_dates(&config, other, app.clock.unix_seconds())?;
    }
    let has = |section| changed.contains(&section);
    if has("keys") {
        app.keys().replace(config.keys.clone());
    }
    if has("quota") {
        let limits = config.quota.clone();
        app.ledger.with(|accounts| accounts.set_limits(limits));
    }
    if has("webhook") || has("keys") || has("privacy") {
        app.ledger.with(|accounts| accounts.set_webhooks(urls));
        // A receiver that is gone belongs to a server that stops.
        let _ = app.endpoints.send(endpoints).await;
    }
    if has("log") {
        (app.log_to)(filter);
    }
    app.replace_config(config);
    if let Some(tls) = &app.tls {
        if certificate.is_some_and(|certificate| tls.show(certificate)) {
            changed.push("http.tls");
        }
        tls.changed.notify_one();
    }
    if let Err(error) = super::keeper::note(app, AuditAction::Reload).await {
        tracing::error!(%error, "the reload could not be noted in the audit log");
    }
    Ok(ReloadView { changed, needs_restart, path: app.source_path.as_ref().map(|path| path()) })
}

/// How to retreat.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainRequest {
    /// When calls are ended that have not by themselves; none: never.
    deadline_s: Option<u64>,
}

#[derive(Serialize)]
struct DrainView {
    state: NodeState,
    sessions: usize,
}

/// `POST /v1/node/drain`
pub async fn drain(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    from_no_page(&headers)?;
    let DrainRequest { deadline_s } = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    fields.check_range("/deadline_s", deadline_s, 0..=DEADLINE_MAX_S);
    fields.finish()?;
    app.drain(deadline_s.map(Duration::from_secs));
    let view = DrainView { state: app.state(), sessions: app.directory.num_sessions() };
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Refuses what a web page in the operator's browser could send, but for our own: a page of another origin may not send
/// JSON without asking first, and here nobody answers that question.
fn from_no_page(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(origin) = headers.get(ORIGIN) {
        // By an address, for the name of somebody else's page can lead here for a moment (DNS rebinding).
        let own = address_of(headers).map(|host| format!("http://{host}"));
        if own.is_none_or(|own| own.as_bytes() != origin.as_bytes()) {
            return Err(Problem::forbidden(
                "web pages may not operate the server, but for its own, opened by its address",
            ));
        }
    }
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match is_json {
        true => Ok(()),
        false => Err(Problem::new(Code::UnsupportedMediaType, "expected Content-Type: application/json")),
    }
}

/// Refuses to tell of people where a web page could read it to which a name leads, for such a name can be anybody's.
pub fn by_address(headers: &HeaderMap) -> Result<(), Problem> {
    match address_of(headers) {
        Some(_) => Ok(()),
        None => Err(Problem::forbidden(
            "ask by the server's address or as localhost, not by a name: names can be made to lead here",
        )),
    }
}

/// The host that was asked for, with its port, if it is an address or `localhost`.
fn address_of(headers: &HeaderMap) -> Option<&str> {
    let authority = headers.get(HOST)?.to_str().ok()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let is_v6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
    let is_address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => is_v6(host),
        None => host.parse::<Ipv4Addr>().is_ok() || host.eq_ignore_ascii_case("localhost"),
    };
    is_address.then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, origin: Option<&str>) -> HeaderMap {
        let json = ("content-type", "application/json");
        let headers = [json, ("host", host)].into_iter().chain(origin.map(|origin| ("origin", origin)));
        headers.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
    }

    #[test]
    fn only_our_own_page_operates_the_server_and_only_by_an_address() {
        for (host, origin, allowed) in [
            ("127.0.0.1:6789", None, true),
            ("sfu.example.org:6789", None, true),
            ("127.0.0.1:6789", Some("http://127.0.0.1:6789"), true),
            ("localhost:6789", Some("http://localhost:6789"), true),
            ("[::1]:6789", Some("http://[::1]:6789"), true),
            ("10.0.0.2", Some("http://10.0.0.2"), true),
            ("127.0.0.1:6789", Some("http://127.0.0.1:7880"), false),
            ("127.0.0.1:6789", Some("http://localhost:6789"), false),
            ("127.0.0.1:6789", Some("https://127.0.0.1:6789"), false),
            ("127.0.0.1:6789", Some("null"), false),
            // The name of somebody's page that leads here.
            ("stube.example:6789", Some("http://stube.example:6789"), false),
            ("127.0.0.1.stube.example:6789", Some("http://127.0.0.1.stube.example:6789"), false),
            ("localhost.stube.example", Some("http://localhost.stube.example"), false),
            ("[::1].stube.example", Some("http://[::1].stube.example"), false),
        ] {
            assert_eq!(from_no_page(&asked(host, origin)).is_ok(), allowed, "{host} {origin:?}");
        }
    }

    #[test]
    fn people_are_told_of_by_address_alone() {
        for (host, allowed) in [
            ("127.0.0.1:6789", true),
            ("[fd00::2]:6789", true),
            ("LocalHost", true),
            ("sfu.internal:6789", false),
            ("127.0.0.1.example:6789", false),
            ("::1", false),
            ("", false),
        ] {
            assert_eq!(by_address(&asked(host, None)).is_ok(), allowed, "{host}");
        }
        assert!(by_address(&HeaderMap::new()).is_err());
    }
}
