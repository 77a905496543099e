//! `POST /v1/rooms/{name}/tokens`: tokens with which participants join.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::auth::{self, Right};
use super::body::{self, Fields};
use super::clock;
use super::code::Code;
use super::limits::{self, AttributesText, DisplayNameText, IdentityText, MetadataText};
use super::problem::Problem;
use super::rooms;
use super::token::{self, Claims, StrictGrants};
use crate::command::{Grants, Profile};
use crate::ids::{Identity, Tenant};

/// The lifetime of a token unless `ttl_s` says otherwise, and at most a week, in seconds.
const TTL_DEFAULT_S: u64 = 300;
const TTL_MAX_S: u64 = 7 * 86_400;

/// Whom a token is for, and what it allows.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// A pseudonym: what looks like an e-mail address or a phone number is refused, unless the server allows it.
    #[schemars(with = "IdentityText")]
    identity: String,
    /// What other participants see.
    #[schemars(with = "Option<DisplayNameText>")]
    name: Option<String>,
    #[schemars(with = "Option<MetadataText>")]
    metadata: Option<String>,
    #[serde(default)]
    #[schemars(with = "AttributesText")]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    grants: StrictGrants,
    /// How long the token is good for joining, in seconds; 300 unless given. The session outlives it.
    #[schemars(range(min = 1, max = TTL_MAX_S))]
    ttl_s: Option<u64>,
}

/// A token with which one participant can join.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenView {
    /// A JWT, signed with the API key's secret.
    token: String,
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
}

/// `POST /v1/rooms/{name}/tokens`
pub async fn mint_token(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::AdministerRoom(&room))?;
    let request: TokenRequest = body::json(&headers, body).await?;
    let mut fields = Fields::default();
    fields.check("/identity", limits::identity(&request.identity));
    if !app.config().privacy.allow_personal_identities {
        fields.check("/identity", limits::pseudonym(&request.identity));
    }
    fields.check("/name", limits::display_name(request.name.as_deref().unwrap_or_default()));
    fields.check("/metadata", limits::metadata(request.metadata.as_deref().unwrap_or_default()));
    fields.check("/attributes", limits::attributes(&request.attributes));
    fields.check_range("/ttl_s", request.ttl_s, 1..=TTL_MAX_S);
    fields.finish()?;
    // With auto_create the room may come to be with the join.
    if !app.config().rooms.auto_create {
        rooms::find(&app, &tenant, &room.as_str().into())?;
    }
    let profile = Profile {
        identity: Identity::from(request.identity),
        name: request.name.unwrap_or_default().into(),
        metadata: request.metadata.unwrap_or_default().into(),
        attributes: request.attributes.into_iter().map(|(key, value)| (key, value.into())).collect(),
        grants: request.grants.0.apply(&Grants::default()),
    };
    let (token, expires_at) = sign(&app, &tenant, &room, &profile, request.ttl_s.unwrap_or(TTL_DEFAULT_S))?;
    Ok((StatusCode::CREATED, Json(TokenView { token, expires_at })).into_response())
}

/// A token with which `profile` can join, and until when.
pub fn sign(
    app: &App,
    tenant: &Tenant,
    room: &str,
    profile: &Profile,
    ttl_s: u64,
) -> Result<(String, String), Problem> {
    let keys = app.keys().current();
    let secret = keys.get(tenant.key()).ok_or_else(Problem::internal)?;
    let now = app.clock.unix_seconds();
    let token = token::mint(&Claims::for_join(tenant.key(), room, profile), secret, now, ttl_s)
        .map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
    Ok((token, clock::format_unix(now + ttl_s)))
}
