//! RING 3 — HTTP: rooms, participants and sessions for clients and map services; the admin listener.
//!
//! Handlers check who asks ([`auth`]), find the shard ([`directory`]), send one `Command` ([`app`]) and turn the reply
//! or refusal into HTTP ([`problem`]). Nothing here is on the packet path.

pub mod clock;
pub mod limits;
pub mod code;
pub mod problem;
pub mod token;
pub mod auth;
pub mod directory;
pub mod idempotency;
pub mod app;
pub mod body;
pub mod edge;
mod rooms;
mod participants;
mod relocation;
mod quality;
mod sessions;
pub mod usage;
mod subjects;
pub mod events;
mod demo;
pub mod admin;
pub mod listener;
pub mod keeper;
pub mod outbox;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use tower_http::catch_panic::CatchPanicLayer;

use app::App;

/// Everything the public listener answers.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(demo::pages())
        .route("/demo/token", post(demo::token))
        .route("/v1/rooms", get(rooms::list).post(rooms::allocate))
        .route("/v1/rooms/{name}", get(rooms::read).patch(rooms::change).delete(rooms::end))
        .route("/v1/rooms/{name}/tokens", post(rooms::mint_token))
        .route("/v1/rooms/{name}/messages", post(rooms::send_message))
        .route("/v1/rooms/{name}/stats", get(quality::read))
        .route("/v1/rooms/{name}/participants", get(participants::list))
        .route(
            "/v1/rooms/{name}/participants/{identity}",
            get(participants::read).patch(participants::change).delete(participants::remove),
        )
        .route("/v1/rooms/{name}/participants/{identity}/tracks/{track}/muted", put(participants::mute))
        .route("/v1/rooms/{name}/participants/{identity}/move", post(relocation::relocate))
        .route("/v1/calls", get(usage::calls))
        .route("/v1/records", get(usage::records))
        .route("/v1/usage", get(usage::usage))
        .route("/v1/subjects/export", post(subjects::export_batch))
        .route("/v1/subjects/erase", post(subjects::erase_batch))
        .route("/v1/subjects/{identity}", get(subjects::export).delete(subjects::erase))
        .route("/v1/events", get(events::stream))
        .route("/v1/sessions", post(sessions::open))
        .route("/v1/sessions/{id}", get(sessions::probe).patch(sessions::change).delete(sessions::end))
        .route("/whip", get(sessions::endpoint).post(sessions::open))
        .route("/whep", get(sessions::endpoint).head(sessions::discover).post(sessions::open_player))
        .fallback(edge::not_found)
        .layer(from_fn(edge::time_out))
        .layer(CatchPanicLayer::custom(edge::after_panic))
        .layer(edge::cors(&app.config.http))
        .layer(from_fn_with_state(Arc::clone(&app), edge::finish))
        .with_state(app)
}
