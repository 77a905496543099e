//! `/v1/rooms`: allocate, list, read, change, end; messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::{self, App, uninterrupted};
use super::auth::{self, Right};
use super::body::{self, Fields, Page};
use super::code::Code;
use super::directory::{MadeAs, RoomEntry};
use super::edge::Origin;
use super::ice::{self, IceServer};
use super::idempotency::{Answer, Begun};
use super::limits;
use super::problem::Problem;
use super::settings::{Allocation, Change, default_settings, fits};
use crate::command::{CallState, Command, EndReason, Refusal, RoomState};
use crate::ids::{CallId, Identity, RoomId, RoomName, Tenant};
use crate::ledger::record::{RoomRow, UnixMs};

/// The longest topic, in characters, and the largest data, in bytes: together they fit a data channel message.
const TOPIC_MAX_CHARS: usize = 128;
const DATA_MAX_BYTES: usize = 15 * 1024;

/// The most receivers one message can name.
const RECEIVERS_MAX: usize = 1000;

/// A room as the API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Room")]
pub struct RoomView<'a> {
    sid: RoomId,
    name: &'a str,
    created_at: UnixMs,
    max_participants: u32,
    empty_timeout_s: u64,
    departure_timeout_s: u64,
    max_duration_s: Option<u64>,
    metadata: &'a str,
    num_participants: u32,
    num_publishers: u32,
    /// Null while nobody is connected.
    call: Option<CallView>,
    session_url: String,
    whip_url: String,
    whep_url: String,
    /// STUN and TURN servers, for `RTCPeerConnection`; the credentials expire. None are needed where clients reach the
    /// server itself.
    ice_servers: &'a [IceServer],
}

/// The call that runs in a room.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RunningCall")]
pub struct CallView {
    sid: CallId,
    #[schemars(extend("format" = "date-time"))]
    started_at: String,
    duration_ms: u64,
}

/// A page of rooms, by name.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rooms")]
pub struct RoomsView<'a> {
    rooms: Vec<RoomView<'a>>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

fn view<'a>(
    app: &App,
    origin: &Origin,
    ice_servers: &'a [IceServer],
    entry: &'a RoomEntry,
    state: Option<&RoomState>,
) -> RoomView<'a> {
    RoomView {
        sid: entry.room,
        name: entry.name.as_str(),
        created_at: entry.created_at,
        max_participants: entry.settings.max_participants,
        empty_timeout_s: entry.settings.empty_timeout.as_secs(),
        departure_timeout_s: entry.settings.departure_timeout.as_secs(),
        max_duration_s: entry.settings.max_duration.map(|duration| duration.as_secs()),
        metadata: entry.settings.metadata.as_str(),
        num_participants: state.map_or(0, |state| state.num_participants),
        num_publishers: state.map_or(0, |state| state.num_publishers),
        call: state.and_then(|state| state.call).map(|running| call(app, running)),
        session_url: origin.url("/v1/sessions"),
        whip_url: origin.url("/whip"),
        whep_url: origin.url("/whep"),
        ice_servers,
    }
}

/// The call of a room for an answer.
pub fn call(app: &App, call: CallState) -> CallView {
    CallView {
        sid: call.call,
        started_at: app.clock.wall(call.started_at),
        duration_ms: call.duration.as_millis() as u64,
    }
}

/// The tenant's room of this name, or 404.
pub fn find(app: &App, tenant: &Tenant, name: &RoomName) -> Result<RoomEntry, Problem> {
    app.directory.room(tenant, name).ok_or_else(|| app.room_not_found().into())
}

/// The tenant's room of this name; made with the defaults if it does not exist.
pub async fn find_or_create(app: &App, tenant: &Tenant, name: &RoomName) -> Result<RoomEntry, Problem> {
    let _held = app.room_changes.lock().await;
    if let Some((entry, _)) = existing(app, tenant, name).await? {
        return Ok(entry);
    }
    limits::room_name(name.as_str()).map_err(|_| Problem::room_not_found())?;
    let settings = default_settings(&app.config(), name);
    create(app, tenant, MadeAs { defaults: settings.clone(), settings }).await
}

/// A room that its shard still knows, as it is now.
async fn existing(app: &App, tenant: &Tenant, name: &RoomName) -> Result<Option<(RoomEntry, RoomState)>, Problem> {
    let Some(entry) = app.directory.room(tenant, name) else { return Ok(None) };
    match describe(app, &entry).await {
        Ok(state) => Ok(Some((entry, state))),
        Err(Refusal::RoomNotFound) => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn describe(app: &App, entry: &RoomEntry) -> Result<RoomState, Refusal> {
    let reply = app.tell_room(entry, Command::DescribeRooms { rooms: vec![entry.room] }).await?;
    app::rooms(reply)?.pop().ok_or_else(|| {
        app.directory.remove_room(entry.room);
        app.room_not_found()
    })
}

/// How rooms are now; those that their shards do not know any more are left out.
pub async fn states(
    app: &App,
    entries: impl Iterator<Item = &RoomEntry>,
) -> Result<BTreeMap<RoomId, RoomState>, Refusal> {
    let mut by_shard: BTreeMap<_, Vec<RoomId>> = BTreeMap::new();
    for entry in entries {
        by_shard.entry(entry.shard).or_default().push(entry.room);
    }
    let mut states = BTreeMap::new();
    for (shard, rooms) in by_shard {
        let known = app::rooms(app.tell(shard, Command::DescribeRooms { rooms }).await?)?;
        states.extend(known.into_iter().map(|state| (state.room, state)));
    }
    Ok(states)
}

/// Opens a room of an earlier run, with its id. One that cannot be opened stays for the next start.
pub async fn reopen(app: &App, row: RoomRow) {
    match open(app, &row).await {
        Ok(entry) => {
            app.directory.insert_room(&row.tenant, entry);
            app.ledger.with(|accounts| accounts.restore_room(row));
        }
        Err(refusal) => tracing::error!(%refusal, "a room of the last run could not be opened again"),
    }
}

/// Opens a room on the lightest shard.
async fn open(app: &App, row: &RoomRow) -> Result<RoomEntry, Refusal> {
    let shard = app.directory.least_loaded(&app.shards.saturated());
    let (room, settings, created_at) = (row.room, row.settings.clone(), row.created_at);
    app::done(app.tell(shard, Command::OpenRoom { room, settings: settings.clone() }).await?)?;
    let made_as = Arc::new(MadeAs::known(&settings));
    Ok(RoomEntry { room, name: row.name(), shard, settings, created_at, made_as })
}

/// Makes a room. The caller holds `room_changes`.
async fn create(app: &App, tenant: &Tenant, made_as: MadeAs) -> Result<RoomEntry, Problem> {
    app.admits_rooms()?;
    let now = app.clock.moment();
    let settings = made_as.settings.clone();
    let row = RoomRow { room: app.id(), tenant: tenant.clone(), settings, created_at: now.wall, seq: 0 };
    let taken = app.ledger.with(|accounts| accounts.take_room(tenant, row.room, now));
    taken.map_err(|exceeded| app.over_quota(exceeded))?;
    let entry = match open(app, &row).await {
        Ok(entry) => RoomEntry { made_as: Arc::new(made_as), ..entry },
        Err(refusal) => {
            app.ledger.with(|accounts| accounts.give_back_room(row.room));
            return Err(refusal.into());
        }
    };
    app.ledger.with(|accounts| accounts.open_room(row, now));
    app.directory.insert_room(tenant, entry.clone());
    Ok(entry)
}

/// `POST /v1/rooms`
pub async fn allocate(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::CreateRoom)?;
    let body = body::read(&headers, body, body::JSON_MAX_BYTES).await?;
    let request: Allocation = body::parse_json(&headers, &body)?;
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default().to_owned());
    let answer = uninterrupted(async move {
        let Some(key) = key else { return allocate_once(&app, &origin, &tenant, request).await };
        match app.idempotency.begin(&tenant, &key, &body, app.clock.now())? {
            Begun::Again(answer) => Ok(with_fresh_credentials(&app, answer)),
            Begun::First(claim) => {
                let answer = allocate_once(&app, &origin, &tenant, request).await?;
                claim.finish(answer.clone(), app.clock.now());
                Ok(answer)
            }
        }
    })
    .await?;
    Ok((answer.status, [(CONTENT_TYPE, "application/json")], answer.body).into_response())
}

/// An answer of an earlier request as it is given now: credentials of TURN servers may have expired since.
fn with_fresh_credentials(app: &App, answer: Answer) -> Answer {
    let fresh = |servers: Vec<IceServer>| {
        let mut room: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&answer.body).ok()?;
        *room.get_mut("ice_servers")? = serde_json::to_value(servers).ok()?;
        serde_json::to_vec(&room).ok()
    };
    // What is not a room has none.
    match Some(ice::servers(app)).filter(|servers| !servers.is_empty()).and_then(fresh) {
        Some(body) => Answer { body: body.into(), ..answer },
        None => answer,
    }
}

async fn allocate_once(app: &App, origin: &Origin, tenant: &Tenant, request: Allocation) -> Result<Answer, Problem> {
    let mut fields = Fields::default();
    if let Some(name) = &request.name {
        fields.check("/name", limits::room_name(name));
    }
    let name: RoomName = request.name.unwrap_or_else(|| app.id::<crate::ids::RoomKind>().to_string()).into();
    let change = Change {
        max_participants: request.max_participants,
        empty_timeout_s: request.empty_timeout_s,
        departure_timeout_s: request.departure_timeout_s,
        max_duration_s: request.max_duration_s.map(Some),
        metadata: request.metadata,
    };
    change.check(&mut fields);
    fields.finish()?;
    let defaults = default_settings(&app.config(), &name);
    let _held = app.room_changes.lock().await;
    let (status, entry, state) = match existing(app, tenant, &name).await? {
        None => {
            let made_as = MadeAs { settings: change.applied_to(defaults.clone()), defaults };
            (StatusCode::CREATED, create(app, tenant, made_as).await?, None)
        }
        Some((entry, state)) if fits(&change, &entry.settings, &entry.made_as, defaults) => {
            (StatusCode::OK, entry, Some(state))
        }
        Some(_) => {
            let detail = "a room of this name exists with other settings; change them with PATCH";
            return Err(Problem::new(Code::RoomExists, detail));
        }
    };
    let servers = ice::servers(app);
    let view = view(app, origin, &servers, &entry, state.as_ref());
    let body = serde_json::to_vec(&view).map_err(|_| Problem::internal())?;
    Ok(Answer { status, body: body.into() })
}

/// `GET /v1/rooms`
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::ListRooms)?;
    let page = Page::of(&uri)?;
    let after = page.after.map(RoomName::from);
    // One more than asked for tells whether there is a next page.
    let mut entries = app.directory.page(&tenant, after.as_ref(), page.limit + 1);
    let has_next = entries.len() > page.limit;
    entries.truncate(page.limit);
    let states = states(&app, entries.iter()).await?;
    // One set of credentials for the whole page.
    let servers = ice::servers(&app);
    let mut rooms = Vec::new();
    for entry in &entries {
        match states.get(&entry.room) {
            Some(state) => rooms.push(view(&app, &origin, &servers, entry, Some(state))),
            None => app.directory.remove_room(entry.room),
        }
    }
    let last = entries.last().filter(|_| has_next);
    let next_cursor = last.map(|entry| body::cursor(entry.name.as_str()));
    Ok(Json(RoomsView { rooms, next_cursor }).into_response())
}

/// `GET /v1/rooms/{name}`
pub async fn read(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::ReadRoom(&name))?;
    let entry = find(&app, &tenant, &name.into())?;
    let state = describe(&app, &entry).await?;
    Ok(Json(view(&app, &origin, &ice::servers(&app), &entry, Some(&state))).into_response())
}

/// `PATCH /v1/rooms/{name}`
pub async fn change(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::ChangeRoom(&name))?;
    let change: Change = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    change.check(&mut fields);
    fields.finish()?;
    uninterrupted(async move {
        let _held = app.room_changes.lock().await;
        let mut entry = find(&app, &tenant, &name.into())?;
        entry.settings = change.applied_to(entry.settings);
        let command = Command::ChangeRoom { room: entry.room, settings: entry.settings.clone() };
        app::done(app.tell_room(&entry, command).await?)?;
        app.directory.change_room(entry.room, entry.settings.clone());
        app.ledger.with(|accounts| accounts.change_room(entry.room, entry.settings.clone()));
        let state = describe(&app, &entry).await?;
        Ok(Json(view(&app, &origin, &ice::servers(&app), &entry, Some(&state))).into_response())
    })
    .await
}

/// `DELETE /v1/rooms/{name}`
pub async fn end(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::DeleteRoom(&name))?;
    uninterrupted(async move {
        let _held = app.room_changes.lock().await;
        let entry = find(&app, &tenant, &name.into())?;
        let command = Command::CloseRoom { room: entry.room, reason: EndReason::RoomDeleted };
        app::done(app.tell_room(&entry, command).await?)?;
        app.directory.remove_room(entry.room);
        app.ledger.with(|accounts| accounts.give_back_room(entry.room));
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// A message of the server to participants.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    #[schemars(length(max = TOPIC_MAX_CHARS))]
    topic: String,
    /// Any JSON of at most 15 KiB.
    data: serde_json::Value,
    /// The identities it is for; everyone if empty.
    #[serde(default)]
    #[schemars(length(max = RECEIVERS_MAX))]
    to: Vec<String>,
}

/// `POST /v1/rooms/{name}/messages`
pub async fn send_message(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::AdministerRoom(&name))?;
    let request: MessageRequest = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    let at_most = |actual: usize, max: usize, unit: &str| {
        if actual <= max { Ok(()) } else { Err(format!("expected at most {max} {unit}")) }
    };
    fields.check("/topic", at_most(request.topic.chars().count(), TOPIC_MAX_CHARS, "characters"));
    fields.check("/data", at_most(request.data.to_string().len(), DATA_MAX_BYTES, "bytes as JSON"));
    fields.check("/to", at_most(request.to.len(), RECEIVERS_MAX, "identities"));
    fields.finish()?;
    let entry = find(&app, &tenant, &name.into())?;
    let to = request.to.into_iter().map(Identity::from).collect();
    let command = Command::SendMessage { room: entry.room, topic: request.topic, data: request.data, to };
    app::done(app.tell_room(&entry, command).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
