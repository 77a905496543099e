//! `/v1/node/rooms` and `/v1/node/quotas` on the admin listener: what happens on the server, over all tenants, for its
//! operator. It tells identities, so it is for that listener alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::app::{self, App};
use super::node;
use super::problem::Problem;
use super::rooms::{self, CallView};
use crate::command::quality::ParticipantQuality;
use crate::command::{Command, ParticipantInfo, Refusal};
use crate::ids::{ParticipantId, RoomId, Tenant};
use crate::ledger::record::UnixMs;

/// The most rooms that are told of at once. Who looks for others searches.
const ROOMS_MAX: usize = 200;

/// Which rooms.
#[derive(Deserialize)]
struct Search {
    /// A part of the name, or of the API key, in lower case or as it is.
    #[serde(default)]
    search: String,
}

/// The rooms, the largest first.
#[derive(Serialize)]
struct RoomsView {
    /// How many there are that fit; those below are the largest of them.
    total: usize,
    rooms: Vec<RoomView>,
}

#[derive(Serialize)]
struct RoomView {
    sid: RoomId,
    key: String,
    name: String,
    shard: usize,
    created_at: UnixMs,
    max_participants: u32,
    num_participants: u32,
    num_publishers: u32,
    call: Option<CallView>,
}

/// `GET /v1/node/rooms`
pub async fn rooms(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    node::by_address(&headers)?;
    let Query(Search { search }) =
        Query::try_from_uri(&uri).map_err(|_| Problem::of_response(StatusCode::BAD_REQUEST))?;
    let (total, entries) = app.directory.largest(&search, ROOMS_MAX);
    let states = rooms::states(&app, entries.iter().map(|(_, entry)| entry)).await?;
    let view = |(tenant, entry): &(Tenant, super::directory::RoomEntry)| {
        let state = states.get(&entry.room)?;
        Some(RoomView {
            sid: entry.room,
            key: tenant.key().to_owned(),
            name: entry.name.as_str().to_owned(),
            shard: entry.shard.0,
            created_at: entry.created_at,
            max_participants: entry.settings.max_participants,
            num_participants: state.num_participants,
            num_publishers: state.num_publishers,
            call: state.call.map(|call| rooms::call(&app, call)),
        })
    };
    let mut rooms: Vec<_> = entries.iter().filter_map(view).collect();
    rooms.sort_by_key(|room| std::cmp::Reverse(room.num_participants));
    Ok(Json(RoomsView { total, rooms }).into_response())
}

/// A room, and how well it goes for each in it.
#[derive(Serialize)]
struct RoomDetailView {
    sid: RoomId,
    key: String,
    name: String,
    shard: usize,
    at: String,
    participants: Vec<Map<String, Value>>,
}

/// `GET /v1/node/rooms/{sid}`
pub async fn room(
    State(app): State<Arc<App>>,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    node::by_address(&headers)?;
    let room: RoomId = sid.parse().map_err(|_| Refusal::RoomNotFound)?;
    let (tenant, entry) = app.directory.room_of_id(room).ok_or(Refusal::RoomNotFound)?;
    let (at, qualities) = app::quality(app.tell_room(&entry, Command::DescribeQuality { room }).await?)?;
    let present = app::participants(app.tell_room(&entry, Command::ListParticipants { room }).await?)?;
    let by_id: BTreeMap<ParticipantId, ParticipantInfo> = present.into_iter().map(|info| (info.sid, info)).collect();
    let participants = qualities.iter().map(|quality| participant(&app, quality, by_id.get(&quality.sid))).collect();
    let view = RoomDetailView {
        sid: room,
        key: tenant.key().to_owned(),
        name: entry.name.as_str().to_owned(),
        shard: entry.shard.0,
        at: app.clock.wall(at),
        participants,
    };
    Ok(Json(view).into_response())
}

/// As tenants see a participant's quality, with the time in the room, and without what would let one act for them.
fn participant(app: &App, quality: &ParticipantQuality, info: Option<&ParticipantInfo>) -> Map<String, Value> {
    let Ok(Value::Object(mut view)) = serde_json::to_value(quality) else { return Map::new() };
    view.remove("session");
    if let Some(info) = info {
        let duration = app.clock.now().saturating_duration_since(info.joined_at);
        view.insert("joined_at".to_owned(), app.clock.wall(info.joined_at).into());
        view.insert("duration_ms".to_owned(), (duration.as_millis() as u64).into());
    }
    view
}

/// What every API key has in use, and may.
#[derive(Serialize)]
struct QuotasView {
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
struct KeyView {
    key: String,
    quotas: Vec<QuotaView>,
}

#[derive(Serialize)]
struct QuotaView {
    quota: &'static str,
    used: u64,
    /// Null: none.
    limit: Option<u64>,
}

/// `GET /v1/node/quotas`
pub async fn quotas(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    node::by_address(&headers)?;
    let config = app.config();
    let view = |key: &String| {
        let in_use = app.ledger.with(|accounts| accounts.in_use(&Tenant::from(key.as_str())));
        let quotas = in_use.into_iter().map(|in_use| QuotaView {
            quota: in_use.quota.as_str(),
            used: in_use.used,
            limit: in_use.limit,
        });
        KeyView { key: key.clone(), quotas: quotas.collect() }
    };
    Ok(Json(QuotasView { keys: config.keys.keys().map(view).collect() }).into_response())
}
