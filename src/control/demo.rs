//! The tokens that the demo page gets while the shipped key is configured.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::{App, uninterrupted};
use super::body::{self, Fields};
use super::edge::Origin;
use super::limits::{self, DisplayNameText, RoomNameText};
use super::problem::Problem;
use super::rooms;
use super::tokens;
use crate::command::{Grants, Profile};
use crate::ids::{ParticipantKind, RoomName, Tenant};

/// How long a token of the page is good for joining, in seconds. The page takes a new one for each join.
const TTL_S: u64 = 300;

/// Who wants to come in, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DemoRequest")]
pub struct Request {
    #[schemars(with = "RoomNameText")]
    room: String,
    #[schemars(with = "DisplayNameText")]
    name: String,
}

/// What the page needs for a join.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DemoToken")]
pub struct TokenView {
    token: String,
    room: String,
    /// Made up for this token.
    identity: String,
    session_url: String,
}

/// `POST /demo/token`: a token for anyone who asks, so it exists only with the shipped key, on loopback.
pub async fn token(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Some(tenant) = app.config().dev_key().map(Tenant::from) else {
        return Err(Problem::of_response(StatusCode::NOT_FOUND));
    };
    let request: Request = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    fields.check("/room", limits::room_name(&request.room));
    fields.check("/name", limits::display_name(&request.name));
    fields.finish()?;
    // Two people may give the same name; they are still two.
    let identity = app.id::<ParticipantKind>().to_string();
    let profile = Profile {
        identity: identity.as_str().into(),
        name: request.name.into(),
        metadata: "".into(),
        attributes: [].into(),
        grants: Grants::default(),
    };
    uninterrupted(async move {
        rooms::find_or_create(&app, &tenant, &RoomName::from(request.room.as_str())).await?;
        let (token, _) = tokens::sign(&app, &tenant, &request.room, &profile, TTL_S)?;
        let session_url = origin.url("/v1/sessions");
        Ok(Json(TokenView { token, room: request.room, identity, session_url }).into_response())
    })
    .await
}
