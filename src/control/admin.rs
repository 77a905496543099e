//! The admin listener: the operator's page, `/metrics`, `/healthz`, `/readyz`, `/v1/node`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::time::timeout;

use super::app::App;
use super::edge::RequestKind;
use super::node::{self, NodeState};
use super::overview;
use super::pages;
use super::problem::Problem;
use crate::ledger::record::UnixMs;
use crate::metrics::{LedgerSnapshot, TlsSnapshot};
use crate::tls::OrderResult;
use crate::webhook::AttemptResult;

/// How long a scrape waits for the database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// When to ask again, in seconds.
const RETRY_AFTER_S: &str = "2";

/// Everything the operator asks for.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/node", get(node::read))
        .route("/v1/node/reload", post(node::reload))
        .route("/v1/node/drain", post(node::drain))
        .route("/v1/node/rooms", get(overview::rooms))
        .route("/v1/node/rooms/{sid}", get(overview::room))
        .route("/v1/node/quotas", get(overview::quotas))
        .layer(from_fn_with_state(Arc::clone(&app), explain))
        .merge(pages::admin())
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(app)
}

/// Writes problems' bodies.
async fn explain(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.render(&app.id::<RequestKind>().to_string(), std::mem::take(response.headers_mut())),
        None => response,
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let ledger = ledger(&app).await;
    let text = app.metrics.render(&app.shards.snapshots(), &ledger, &tls(&app), app.clock.now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn tls(app: &App) -> TlsSnapshot {
    let certificate = app.tls.as_ref().and_then(|tls| tls.certificate());
    let orders = |result| app.tls.as_ref().map_or(0, |tls| tls.orders(result));
    TlsSnapshot {
        enabled: app.tls.is_some(),
        start_s: certificate.as_ref().map_or(0, |certificate| certificate.not_before),
        expiry_s: certificate.map_or(0, |certificate| certificate.not_after),
        orders: OrderResult::ALL.map(|result| (result.as_str(), orders(result))).to_vec(),
    }
}

/// What the ledger says of itself. A database that hangs must not hide the rest.
async fn ledger(app: &App) -> LedgerSnapshot {
    let now = app.clock.moment().wall;
    let age_seconds = |since: UnixMs| now.0.saturating_sub(since.0) as f64 / 1000.0;
    let (rows_waiting, rows_lost) = app.ledger.with(|accounts| accounts.backlog());
    let store = app.ledger.store();
    let (backlog, oldest) =
        match timeout(DATABASE_PATIENCE, async { (store.backlog().await, store.oldest_person().await) }).await {
            Ok((backlog, oldest)) => (backlog.ok(), oldest.ok().flatten()),
            Err(_) => (None, None),
        };
    LedgerSnapshot {
        checkpoint_age_seconds: app.ledger.age_ms(now) as f64 / 1000.0,
        rows_waiting: rows_waiting as u64,
        rows_lost,
        write_failures: app.ledger.failures(),
        webhook_attempts: AttemptResult::ALL.map(|result| (result.as_str(), app.webhooks.get(result))).to_vec(),
        outbox: backlog.map(|backlog| (backlog.rows, backlog.oldest.map_or(0.0, age_seconds))),
        oldest_person_seconds: oldest.map(age_seconds),
    }
}

/// Whether the process works; if not, a restart helps.
async fn health(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.is_turning() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "a shard hangs\n"),
    }
}

/// How much there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Load {
    Light,
    /// Some shards are saturated; new rooms go to the others.
    Uneven(String),
    /// All are.
    Saturated,
}

fn load(saturated: &[bool]) -> Load {
    let named: Vec<_> = (0..saturated.len()).filter(|shard| saturated[*shard]).map(|shard| shard.to_string()).collect();
    match named.len() {
        0 => Load::Light,
        all if all == saturated.len() => Load::Saturated,
        _ => Load::Uneven(format!("ready; saturated shards: {}\n", named.join(", "))),
    }
}

/// What keeps clients from shaking hands.
fn certificate_obstacle(app: &App) -> Option<&'static str> {
    match app.tls.as_ref()?.certificate() {
        None => Some("no TLS certificate yet: see the log\n"),
        Some(certificate) if !certificate.is_valid(app.clock.unix_seconds()) => {
            Some("the TLS certificate is not valid now\n")
        }
        Some(_) => None,
    }
}

/// Whether new calls should be sent here.
async fn readiness(State(app): State<Arc<App>>) -> Response {
    let obstacle = match (app.state(), app.is_turning()) {
        (NodeState::Running, true) if app.ledger.is_failing() => "the ledger cannot be written\n",
        (NodeState::Stopping, _) => "shutting down\n",
        (NodeState::Draining, _) => "draining\n",
        (NodeState::Running, false) => "a shard hangs\n",
        (NodeState::Running, true) if let Some(obstacle) = certificate_obstacle(&app) => obstacle,
        (NodeState::Running, true) => match load(&app.shards.saturated()) {
            Load::Light => return (StatusCode::OK, "ready\n").into_response(),
            Load::Uneven(says) => return (StatusCode::OK, says).into_response(),
            Load::Saturated => "saturated\n",
        },
    };
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_S)], obstacle).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturated_shards_are_named_until_all_are() {
        assert_eq!(load(&[false, false]), Load::Light);
        assert_eq!(load(&[false, true, true]), Load::Uneven("ready; saturated shards: 1, 2\n".to_owned()));
        assert_eq!(load(&[true, true]), Load::Saturated);
    }
}
