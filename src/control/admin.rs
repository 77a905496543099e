//! The admin listener: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::app::App;

/// When to ask again, in seconds.
const RETRY_AFTER_S: &str = "2";

/// Everything the operator asks for.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(&app.shards.snapshots(), app.clock.now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Whether the process works; if not, a restart helps.
async fn health(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.is_turning() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "a shard hangs\n"),
    }
}

/// Whether new calls should be sent here.
async fn readiness(State(app): State<Arc<App>>) -> Response {
    let obstacle = match (app.admits(), app.is_turning()) {
        (Err(_), _) => "shutting down\n",
        (Ok(()), false) => "a shard hangs\n",
        (Ok(()), true) => return (StatusCode::OK, "ready\n").into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_S)], obstacle).into_response()
}
