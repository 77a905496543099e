//! `/v1/node` on the admin listener: how the server does, reading its configuration anew, and its retreat.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, ORIGIN};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::app::{App, uninterrupted};
use super::body::{self, Fields};
use super::code::Code;
use super::problem::Problem;
use crate::config::{Config, ConfigError, Reloaded};
use crate::ledger::store::AuditAction;
use crate::log;
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
            checkpoint_age_ms: app.ledger.age_ms(app.clock.moment().wall),
            rows_waiting,
        },
    };
    Json(view).into_response()
}

/// What came of reading the configuration anew.
#[derive(Debug, Serialize)]
pub struct ReloadView {
    /// Sections that are other than before; `http.tls` if the certificate is.
    pub changed: Vec<&'static str>,
    /// What differs in the file and waits for a restart.
    pub needs_restart: Vec<&'static str>,
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
        Ok(ReloadView { changed, needs_restart }) => {
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
    let certificate = tls::read(&config, Some(app.clock.unix_seconds()))?;
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
    Ok(ReloadView { changed, needs_restart })
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

/// Refuses what a web page in the operator's browser could send: a page of another origin may not send JSON without
/// asking first, and here nobody answers that question.
fn from_no_page(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(ORIGIN) {
        // Also one whose host's name leads here for a moment.
        return Err(Problem::forbidden("web pages may not operate the server"));
    }
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match is_json {
        true => Ok(()),
        false => Err(Problem::new(Code::UnsupportedMediaType, "expected Content-Type: application/json")),
    }
}
