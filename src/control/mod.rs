//! RING 3 — HTTP: rooms, participants and sessions for clients and map services; the admin listener.
//!
//! Handlers check who asks ([`auth`]), find the shard ([`directory`]), send one `Command` ([`app`]) and turn the reply
//! or refusal into HTTP ([`problem`]). Nothing here is on the packet path.

pub mod clock;
pub mod limits;
pub mod code;
pub mod problem;
pub mod keys;
pub mod token;
pub mod auth;
pub mod directory;
pub mod idempotency;
pub mod node;
pub mod app;
pub mod body;
pub mod edge;
pub mod ice;
pub mod settings;
pub mod rooms;
mod tokens;
mod participants;
mod relocation;
mod quality;
mod sessions;
pub mod usage;
mod subjects;
pub mod events;
mod demo;
mod pages;
mod overview;
pub mod openapi;
pub mod admin;
mod opening;
pub mod listener;
pub mod keeper;
pub mod certificates;
pub mod outbox;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;

use app::App;

/// Every route of the API. [`edge::ROUTES`] has the same with their methods; [`openapi`] describes them.
fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 22] {
    [
        ("/demo/token", post(demo::token)),
        ("/v1/openapi.json", get(openapi::serve)),
        ("/v1/rooms", get(rooms::list).post(rooms::allocate)),
        ("/v1/rooms/{name}", get(rooms::read).patch(rooms::change).delete(rooms::end)),
        ("/v1/rooms/{name}/tokens", post(tokens::mint_token)),
        ("/v1/rooms/{name}/messages", post(rooms::send_message)),
        ("/v1/rooms/{name}/stats", get(quality::read)),
        ("/v1/rooms/{name}/participants", get(participants::list)),
        (
            "/v1/rooms/{name}/participants/{identity}",
            get(participants::read).patch(participants::change).delete(participants::remove),
        ),
        ("/v1/rooms/{name}/participants/{identity}/tracks/{track}/muted", put(participants::mute)),
        ("/v1/rooms/{name}/participants/{identity}/move", post(relocation::relocate)),
        ("/v1/calls", get(usage::calls)),
        ("/v1/records", get(usage::records)),
        ("/v1/usage", get(usage::usage)),
        ("/v1/subjects/export", post(subjects::export_batch)),
        ("/v1/subjects/erase", post(subjects::erase_batch)),
        ("/v1/subjects/{identity}", get(subjects::export).delete(subjects::erase)),
        ("/v1/events", get(events::stream)),
        ("/v1/sessions", post(sessions::open)),
        ("/v1/sessions/{id}", get(sessions::probe).patch(sessions::change).delete(sessions::end)),
        ("/whip", get(sessions::endpoint).post(sessions::open)),
        ("/whep", get(sessions::endpoint).head(sessions::discover).post(sessions::open_player)),
    ]
}

/// Everything the public listener answers.
pub fn router(app: Arc<App>) -> Router {
    let api = routes().into_iter().fold(pages::public(), |router, (path, methods)| router.route(path, methods));
    api.fallback(edge::not_found)
        .layer(from_fn(edge::time_out))
        .layer(CatchPanicLayer::custom(edge::after_panic))
        .layer(edge::cors(&app.config().http))
        .layer(from_fn_with_state(Arc::clone(&app), edge::finish))
        .with_state(app)
}
