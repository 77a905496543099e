//! `/v1/sessions`, `/whip` and `/whep`: one request joins; PATCH and DELETE on the session's URL.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION, USER_AGENT};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app::{self, App, uninterrupted};
use super::auth;
use super::body::{self, ACCEPT_PATCH, ACCEPT_PATCH_HEADER, ACCEPT_POST, ACCEPT_POST_HEADER, SDP, SDP_FRAGMENT};
use super::directory::{RoomEntry, SessionEntry};
use super::ice;
use super::limits;
use super::problem::Problem;
use super::rooms;
use crate::command::{Command, IceTag, OpenSession, Profile, Purpose, Refusal, Reply};
use crate::ids::{RoomName, SessionId, Tenant};
use crate::ledger::accounts::Applicant;
use crate::ledger::address::ClientAddress;

/// Whom a WHEP player wants to see.
#[derive(Deserialize)]
pub struct WhepQuery {
    participant: Option<String>,
}

/// `POST /v1/sessions` and `POST /whip`
pub async fn open(
    State(app): State<Arc<App>>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    counted(app, address, &headers, Purpose::Call, body).await
}

/// `POST /whep`
pub async fn open_player(
    State(app): State<Arc<App>>,
    Extension(address): Extension<ClientAddress>,
    Query(query): Query<WhepQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let purpose = match query.participant {
        Some(identity) => Purpose::Play(identity.into()),
        None => Purpose::PlayActiveSpeaker,
    };
    counted(app, address, &headers, purpose, body).await
}

/// Joins, and counts how a failed join failed; how an admitted one ends is known from the shard's notices.
async fn counted(
    app: Arc<App>,
    address: ClientAddress,
    headers: &HeaderMap,
    purpose: Purpose,
    body: Body,
) -> Result<Response, Problem> {
    let result = join(Arc::clone(&app), address, headers, purpose, body).await;
    if let Err(problem) = &result {
        app.metrics.count_join(problem.join_result());
    }
    result
}

async fn join(
    app: Arc<App>,
    address: ClientAddress,
    headers: &HeaderMap,
    purpose: Purpose,
    body: Body,
) -> Result<Response, Problem> {
    let (tenant, claims) = auth::client(app.keys(), headers)?;
    let room = claims.joinable_room().ok_or_else(|| Problem::forbidden("the token has no roomJoin for a room"))?;
    let profile = claims.profile().map_err(auth::unusable)?;
    if !body::has_media_type(headers, SDP) {
        return Err(Problem::unsupported_media_type(ACCEPT_POST_HEADER, ACCEPT_POST));
    }
    if let Purpose::Play(identity) = &purpose {
        limits::identity(identity.as_str()).map_err(|_| Refusal::ParticipantNotFound)?;
    }
    if !app.config().privacy.allow_personal_identities {
        limits::pseudonym(profile.identity.as_str()).map_err(Problem::personal_identity)?;
    }
    let offer = read_sdp(headers, body).await?;
    let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let joiner = Joiner { tenant, room, profile, purpose, offer, address, user_agent };
    uninterrupted(async move {
        match join_room(&app, &joiner).await {
            // The directory was behind its shard. It has caught up, so one more try decides.
            Err(Refused { stale: true, .. }) => join_room(&app, &joiner).await,
            result => result,
        }
        .map_err(|refused| refused.problem)
    })
    .await
}

/// Who joins what, and from where.
struct Joiner {
    tenant: Tenant,
    room: RoomName,
    profile: Profile,
    purpose: Purpose,
    offer: String,
    address: ClientAddress,
    user_agent: Option<String>,
}

/// A join that did not work.
struct Refused {
    problem: Problem,
    /// Whether the directory had a room that its shard no longer has.
    stale: bool,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, stale: false }
    }
}

async fn join_room(app: &App, joiner: &Joiner) -> Result<Response, Refused> {
    let Joiner { tenant, profile, .. } = joiner;
    let room = match app.config().rooms.auto_create {
        true => rooms::find_or_create(app, tenant, &joiner.room).await?,
        false => rooms::find(app, tenant, &joiner.room)?,
    };
    app.admits_into(room.room).map_err(Problem::from)?;
    let (session, participant) = (app.id(), app.id());
    let now = app.clock.moment();
    let applicant = Applicant {
        tenant: tenant.clone(),
        room: room.room,
        session,
        participant,
        identity: profile.identity.clone(),
        address: joiner.address,
        user_agent: joiner.user_agent.as_deref(),
    };
    app.ledger.with(|accounts| accounts.admit(applicant, now)).map_err(|exceeded| app.over_quota(exceeded))?;
    // Known before the shard hears of it: its notices may come before its answer.
    app.directory.insert_session(session, entry(tenant, &room, profile));
    let Joiner { profile, purpose, offer, .. } = joiner;
    let (profile, purpose, offer) = (profile.clone(), purpose.clone(), offer.clone());
    let open = OpenSession { room: room.room, session, participant, profile, purpose, offer };
    match app.tell_room(&room, Command::OpenSession(Box::new(open))).await {
        Ok(reply) => Ok(created(app, session, reply)?),
        Err(refusal) => {
            app.directory.remove_session(session);
            app.ledger.with(|accounts| accounts.refuse(session));
            let stale = refusal == Refusal::RoomNotFound;
            Err(Refused { problem: refusal.into(), stale })
        }
    }
}

fn entry(tenant: &Tenant, room: &RoomEntry, profile: &Profile) -> SessionEntry {
    SessionEntry {
        tenant: tenant.clone(),
        room: room.room,
        room_name: room.name.clone(),
        joined_room: room.name.clone(),
        identity: profile.identity.clone(),
        shard: room.shard,
    }
}

fn created(app: &App, session: SessionId, reply: Reply) -> Result<Response, Problem> {
    let Reply::Answer { sdp, ice } = reply else { return Err(Refusal::Internal.into()) };
    let headers = [(CONTENT_TYPE, SDP.to_owned()), (LOCATION, format!("/v1/sessions/{session}")), (ETAG, etag(ice))];
    let mut response = (StatusCode::CREATED, headers, sdp).into_response();
    response.headers_mut().extend(ice::links(&ice::servers(app)).into_iter().map(|link| (LINK, link)));
    Ok(response)
}

/// `GET` on `/whip` and `/whep`: RFC 9725 §4.2 wants success without content.
pub async fn endpoint() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `HEAD /whep`: how a player discovers that this is a WHEP endpoint.
pub async fn discover() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, SDP)]).into_response()
}

/// `GET /v1/sessions/{id}`
pub async fn probe(
    State(app): State<Arc<App>>,
    Path(session): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (_, entry) = find(&app, &session)?;
    check_owner(&app, &headers, &entry)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PATCH /v1/sessions/{id}`
pub async fn change(
    State(app): State<Arc<App>>,
    Path(session): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (session, entry) = find(&app, &session)?;
    check_owner(&app, &headers, &entry)?;
    let expected = if_match(&headers);
    let command = if body::has_media_type(&headers, SDP) {
        let expected = expected.ok_or(Refusal::IceTagMissing)?;
        Command::Offer { session, offer: read_sdp(&headers, body).await?, expected }
    } else if body::has_media_type(&headers, SDP_FRAGMENT) {
        Command::Fragment { session, fragment: read_sdp(&headers, body).await?, expected }
    } else {
        return Err(Problem::unsupported_media_type(ACCEPT_PATCH_HEADER, ACCEPT_PATCH));
    };
    uninterrupted(async move {
        Ok(match app.tell_session(session, &entry, command).await? {
            Reply::Done => StatusCode::NO_CONTENT.into_response(),
            Reply::Answer { sdp, ice } => ([(CONTENT_TYPE, SDP.to_owned()), (ETAG, etag(ice))], sdp).into_response(),
            Reply::Fragment { fragment, ice } => {
                ([(CONTENT_TYPE, SDP_FRAGMENT.to_owned()), (ETAG, etag(ice))], fragment).into_response()
            }
            Reply::Rooms(_) | Reply::Participants(_) | Reply::Quality { .. } | Reply::Usage(_) => {
                return Err(Refusal::Internal.into());
            }
        })
    })
    .await
}

/// `DELETE /v1/sessions/{id}`. RFC 9725 §4.3.1: `If-Match` is ignored.
pub async fn end(
    State(app): State<Arc<App>>,
    Path(session): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (session, entry) = find(&app, &session)?;
    check_owner(&app, &headers, &entry)?;
    uninterrupted(async move {
        app::done(app.tell_session(session, &entry, Command::CloseSession { session }).await?)?;
        app.directory.remove_session(session);
        Ok(StatusCode::OK)
    })
    .await
}

fn find(app: &App, session: &str) -> Result<(SessionId, SessionEntry), Problem> {
    let session = session.parse().map_err(|_| Refusal::SessionNotFound)?;
    let entry = app.directory.session(session).ok_or(Refusal::SessionNotFound)?;
    Ok((session, entry))
}

/// The session's URL is enough; but a token that comes with it must be the participant's own.
fn check_owner(app: &App, headers: &HeaderMap, entry: &SessionEntry) -> Result<(), Problem> {
    let Some((tenant, claims)) = auth::optional_client(app.keys(), headers)? else { return Ok(()) };
    if tenant != entry.tenant {
        // Another tenant learns nothing of it, not even that it exists.
        return Err(Refusal::SessionNotFound.into());
    }
    let names = |room: RoomName| room == entry.room_name || room == entry.joined_room;
    match claims.joinable_room().is_some_and(names) && claims.sub == entry.identity.as_str() {
        true => Ok(()),
        false => Err(Problem::forbidden("the token is not of this session's participant")),
    }
}

async fn read_sdp(headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    let body = body::read(headers, body, body::SDP_MAX_BYTES).await?;
    let invalid = |_| Refusal::InvalidSdp("it is not UTF-8".to_owned());
    Ok(String::from_utf8(body.into()).map_err(invalid)?)
}

fn etag(ice: u32) -> String {
    format!("\"ice-{ice}\"")
}

/// Which ICE session `If-Match` names. RFC 9725's examples write `"*"` for `*`, so both are any. What is not an
/// ETag of ours is stale: there is no ICE session 0.
fn if_match(headers: &HeaderMap) -> Option<IceTag> {
    let value = headers.get(IF_MATCH)?.to_str().unwrap_or_default().trim();
    if matches!(value, "*" | "\"*\"") {
        return Some(IceTag::Any);
    }
    let number = value.strip_prefix("\"ice-").and_then(|rest| rest.strip_suffix('"')).and_then(|n| n.parse().ok());
    Some(IceTag::Number(number.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_an_ice_session() {
        assert_eq!(if_match(&HeaderMap::new()), None);
        for (value, expected) in [
            ("*", IceTag::Any),
            ("\"*\"", IceTag::Any),
            ("\"ice-7\"", IceTag::Number(7)),
            (&*etag(3), IceTag::Number(3)),
            ("W/\"ice-7\"", IceTag::Number(0)),
            ("ice-7", IceTag::Number(0)),
            ("\"ice-7\", \"ice-8\"", IceTag::Number(0)),
            ("", IceTag::Number(0)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value.parse().expect(value));
            assert_eq!(if_match(&headers), Some(expected), "{value}");
        }
    }
}
