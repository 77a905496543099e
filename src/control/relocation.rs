//! `POST …/participants/{identity}/move`: to another room of the tenant, with the same session.
//!
//! A session stays on its shard, because its client sends to that shard's socket. A room nobody is in goes where the
//! session is; a room in use elsewhere cannot be moved into.

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
use super::code::Code;
use super::directory::RoomEntry;
use super::participants;
use super::problem::Problem;
use super::rooms;
use crate::command::{Command, Refusal};
use crate::ids::{Identity, RoomName};
use crate::shard::ShardIndex;

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
        let target = bring_together(&app, &from, target).await?;
        let now = app.clock.moment();
        app.ledger
            .with(|accounts| accounts.may_move(session, target.room, now))
            .map_err(|exceeded| app.over_quota(exceeded))?;
        let participant = app.id();
        let command = Command::MoveParticipant { room: from.room, identity, to: target.room, participant };
        match app.tell_room(&from, command).await.and_then(app::participant) {
            Ok(moved) => {
                app.directory.move_session(session, &target);
                Ok(Json(participants::view(&app, &moved)).into_response())
            }
            Err(refusal) => {
                let back = app.clock.moment();
                // Into a room that has a place for them: their own.
                let _ = app.ledger.with(|accounts| accounts.may_move(session, from.room, back));
                Err(refusal.into())
            }
        }
    })
    .await
}

/// The target on the shard of `from`; a room that is empty is opened there anew. The caller holds `room_changes`.
async fn bring_together(app: &App, from: &RoomEntry, target: RoomEntry) -> Result<RoomEntry, Problem> {
    if target.shard == from.shard {
        return Ok(target);
    }
    match app.tell(target.shard, Command::ReleaseRoom { room: target.room }).await {
        Ok(_) => {}
        Err(Refusal::RoomInUse) => return Err(elsewhere()),
        Err(refusal) => return Err(refusal.into()),
    }
    open_on(app, from.shard, &target).await?;
    Ok(RoomEntry { shard: from.shard, ..target })
}

async fn open_on(app: &App, shard: ShardIndex, room: &RoomEntry) -> Result<(), Problem> {
    let command = Command::OpenRoom { room: room.room, settings: room.settings.clone() };
    app.directory.rehouse(room.room, shard);
    let opened = app.tell(shard, command).await.and_then(app::done);
    if opened.is_err() {
        // It is nowhere now, as if its time had run out.
        app.directory.remove_room(room.room);
    }
    Ok(opened?)
}

fn elsewhere() -> Problem {
    let detail = "the room is in use on another shard of the server; let the client join it with a token of its own";
    Problem::new(Code::RoomElsewhere, detail)
}
