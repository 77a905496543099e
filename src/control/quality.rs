//! `/v1/rooms/{name}/stats`: how well it goes in a room, for its operator.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::app::{self, App};
use super::participants;
use super::problem::Problem;
use crate::command::Command;
use crate::command::quality::ParticipantQuality;
use crate::ids::RoomId;

/// How well it goes in a room.
#[derive(Serialize, JsonSchema)]
pub struct RoomQuality<'a> {
    name: &'a str,
    sid: RoomId,
    #[schemars(extend("format" = "date-time"))]
    at: String,
    participants: Vec<ParticipantQuality>,
}

/// `GET /v1/rooms/{name}/stats`
pub async fn read(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entry = participants::administered(&app, &headers, &room)?;
    let reply = app.tell_room(&entry, Command::DescribeQuality { room: entry.room }).await?;
    let (at, participants) = app::quality(reply)?;
    let quality = RoomQuality { name: entry.name.as_str(), sid: entry.room, at: app.clock.wall(at), participants };
    Ok(Json(quality).into_response())
}
