//! `POST …/participants/{identity}/move`: to another room of the tenant, with the same session.
//!
//! A session goes to the shard of its new room. Its client sends to where it joined all the same, and that shard passes
//! on what comes.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::app::{self, App, uninterrupted};
use super::auth::{self, Right};
use super::body;
use super::participants;
use super::problem::Problem;
use super::rooms;
use crate::command::{Command, Destination, Refusal};
use crate::ids::{Identity, RoomName};

/// Where to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The other room's name.
    room: String,
}

/// `POST /v1/rooms/{name}/participants/{identity}/move`
pub async fn relocate(
    State(app): State<Arc<App>>,
    Path((room, identity)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::AdministerRoom(&room))?;
    let from = rooms::find(&app, &tenant, &room.into())?;
    let Move { room: to } = body::json(&headers, body).await?;
    // Who may only administer the one room may not put people into others.
    auth::server(app.keys(), &headers, Right::AdministerRoom(&to))?;
    let identity = Identity::from(identity);
    uninterrupted(async move {
        let to = RoomName::from(to);
        let _held = app.room_changes.lock().await;
        let target = rooms::find(&app, &tenant, &to)?;
        let Some(session) = app.directory.session_of(from.room, &identity) else {
            return Err(Refusal::ParticipantNotFound.into());
        };
        // What is to be refused is refused before anything is given away.
        let ask = Command::AskAdmission { room: target.room, identity: identity.clone() };
        app::done(app.tell_room(&target, ask).await?)?;
        let now = app.clock.moment();
        app.ledger
            .with(|accounts| accounts.may_move(session, target.room, now))
            .map_err(|exceeded| app.over_quota(exceeded))?;
        // Before it is moved: the old room may end with it, and takes its sessions along.
        app.directory.move_session(session, &target);
        let to = Destination { shard: target.shard, room: target.room, participant: app.id() };
        let command = Command::MoveParticipant { room: from.room, identity, to };
        match app.tell(from.shard, command).await.and_then(app::participant) {
            Ok(moved) => {
                app.directory.set_shard(session, target.shard);
                Ok(Json(participants::view(&app, &moved)).into_response())
            }
            Err(refusal) => {
                app.directory.move_session(session, &from);
                let back = app.clock.moment();
                // Into a room that has a place for them: their own.
                let _ = app.ledger.with(|accounts| accounts.may_move(session, from.room, back));
                Err(refusal.into())
            }
        }
    })
    .await
}
