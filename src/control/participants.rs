//! `/v1/rooms/{name}/participants`: list, read, change, remove, mute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::{self, App, uninterrupted};
use super::auth::{self, Right};
use super::body::{self, Fields, Page};
use super::directory::RoomEntry;
use super::limits::{self, AttributesText, DisplayNameText, MetadataText};
use super::problem::Problem;
use super::rooms;
use super::token::{GrantsPatch, StrictGrants};
use crate::command::{Command, EndReason, ParticipantChange, ParticipantInfo, ParticipantState, Refusal};
use crate::ids::{Identity, TrackId};

/// A participant as the API shows it: what other participants see, and more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Participant")]
pub struct ParticipantView<'a> {
    #[serde(flatten)]
    info: &'a ParticipantInfo,
    state: ParticipantState,
    #[schemars(extend("format" = "date-time"))]
    joined_at: String,
    grants: GrantsPatch,
}

/// A page of participants, in order of joining.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Participants")]
pub struct ParticipantsView<'a> {
    participants: Vec<ParticipantView<'a>>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// A participant for an answer.
pub fn view<'a>(app: &App, info: &'a ParticipantInfo) -> ParticipantView<'a> {
    ParticipantView {
        info,
        state: info.state,
        joined_at: app.clock.wall(info.joined_at),
        grants: GrantsPatch::of(&info.grants),
    }
}

/// The tenant's room, for someone who administers it.
pub fn administered(app: &App, headers: &HeaderMap, room: &str) -> Result<RoomEntry, Problem> {
    let tenant = auth::server(app.keys(), headers, Right::AdministerRoom(room))?;
    rooms::find(app, &tenant, &room.into())
}

/// `GET /v1/rooms/{name}/participants`
pub async fn list(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let room = administered(&app, &headers, &room)?;
    let page = Page::of(&uri)?;
    let reply = app.tell_room(&room, Command::ListParticipants { room: room.room }).await?;
    let mut participants = app::participants(reply)?;
    // A place in this order outlives the participant whose it was, so pages neither skip nor repeat anyone.
    participants.sort_by_key(|participant| place(&app, participant.joined_at, participant));
    let after = page.after.as_deref().unwrap_or_default();
    let mut rest = participants.iter().filter(|p| place(&app, p.joined_at, p).as_str() > after);
    let listed: Vec<&ParticipantInfo> = rest.by_ref().take(page.limit).collect();
    let last = rest.next().and(listed.last());
    let next_cursor = last.map(|last| body::cursor(&place(&app, last.joined_at, last)));
    let participants = listed.into_iter().map(|participant| view(&app, participant)).collect();
    Ok(Json(ParticipantsView { participants, next_cursor }).into_response())
}

/// Where a participant stands in the list: by joining, then by id.
fn place(app: &App, joined_at: Instant, participant: &ParticipantInfo) -> String {
    format!("{:020}-{}", app.clock.since_start(joined_at).as_micros(), participant.sid)
}

/// `GET /v1/rooms/{name}/participants/{identity}`
pub async fn read(
    State(app): State<Arc<App>>,
    Path((room, identity)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let room = administered(&app, &headers, &room)?;
    let participant = describe(&app, &room, identity.into()).await?;
    Ok(Json(view(&app, &participant)).into_response())
}

async fn describe(app: &App, room: &RoomEntry, identity: Identity) -> Result<ParticipantInfo, Refusal> {
    app::participant(app.tell_room(room, Command::DescribeParticipant { room: room.room, identity }).await?)
}

/// What is to be other than it is; what is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ParticipantChange")]
pub struct Change {
    /// Those left out stay as well.
    grants: Option<StrictGrants>,
    #[schemars(with = "Option<DisplayNameText>")]
    name: Option<String>,
    #[schemars(with = "Option<MetadataText>")]
    metadata: Option<String>,
    /// Merged into those there are; an empty value removes its key.
    #[schemars(with = "Option<AttributesText>")]
    attributes: Option<BTreeMap<String, String>>,
}

/// `PATCH /v1/rooms/{name}/participants/{identity}`
pub async fn change(
    State(app): State<Arc<App>>,
    Path((room, identity)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let room = administered(&app, &headers, &room)?;
    let request: Change = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    fields.check("/name", limits::display_name(request.name.as_deref().unwrap_or_default()));
    fields.check("/metadata", limits::metadata(request.metadata.as_deref().unwrap_or_default()));
    if let Some(attributes) = &request.attributes {
        fields.check("/attributes", limits::attributes(attributes));
    }
    fields.finish()?;
    let identity = Identity::from(identity);
    uninterrupted(async move {
        // Grants that the request leaves out stay as they are, so the ones now have to be known.
        let grants = match &request.grants {
            Some(patch) => Some(patch.0.apply(&describe(&app, &room, identity.clone()).await?.grants)),
            None => None,
        };
        let attributes = |map: BTreeMap<String, String>| map.into_iter().map(|(k, v)| (k, v.into())).collect();
        let change = ParticipantChange {
            grants,
            name: request.name.map(Into::into),
            metadata: request.metadata.map(Into::into),
            attributes: request.attributes.map(attributes),
        };
        let command = Command::ChangeParticipant { room: room.room, identity, change };
        let participant = app::participant(app.tell_room(&room, command).await?)?;
        Ok(Json(view(&app, &participant)).into_response())
    })
    .await
}

/// `DELETE /v1/rooms/{name}/participants/{identity}`
pub async fn remove(
    State(app): State<Arc<App>>,
    Path((room, identity)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let room = administered(&app, &headers, &room)?;
    let reason = EndReason::ParticipantRemoved;
    let command = Command::RemoveParticipant { room: room.room, identity: identity.into(), reason };
    app::done(app.tell_room(&room, command).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether a track is to be muted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mute {
    muted: bool,
}

/// `PUT /v1/rooms/{name}/participants/{identity}/tracks/{track}/muted`
pub async fn mute(
    State(app): State<Arc<App>>,
    Path((room, identity, track)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let room = administered(&app, &headers, &room)?;
    let Mute { muted } = body::json(&headers, body).await?;
    if !muted && !app.config().rooms.allow_remote_unmute {
        return Err(Refusal::UnmuteForbidden.into());
    }
    let track: TrackId = track.parse().map_err(|_| Refusal::TrackNotFound)?;
    let identity = Identity::from(identity);
    let command = Command::MuteTrack { room: room.room, identity: identity.clone(), track, muted };
    app::done(app.tell_room(&room, command).await?)?;
    let participant = describe(&app, &room, identity).await?;
    Ok(Json(view(&app, &participant)).into_response())
}
