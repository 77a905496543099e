//! The demo page, and the tokens it gets while the shipped key is configured.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app::{App, uninterrupted};
use super::auth::Tenant;
use super::body::{self, Fields};
use super::edge::Origin;
use super::limits;
use super::problem::Problem;
use super::rooms;
use crate::command::{Grants, Profile};
use crate::ids::{ParticipantKind, RoomName};

/// How long a token of the page is good for joining, in seconds. The page takes a new one for each join.
const TTL_S: u64 = 300;

/// The page may load, and talk to, nothing but this server; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Camera, microphone and screen for the page itself.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self)";

/// `GET /`
pub async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../../web/index.html"))
}

/// `GET /app.js`
pub async fn app_script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../web/app.js"))
}

/// `GET /stube.js`
pub async fn client_module() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../web/stube.js"))
}

/// `GET /style.css`
pub async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../web/style.css"))
}

fn file(media_type: &'static str, contents: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, contents).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    room: String,
    name: String,
}

/// `POST /demo/token`: a token for anyone who asks, so it exists only with the shipped key, on loopback.
pub async fn token(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Some(tenant) = app.config.dev_key().map(Tenant::from) else {
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
        let (token, _) = rooms::sign(&app, &tenant, &request.room, &profile, TTL_S)?;
        let session_url = origin.url("/v1/sessions");
        let body = serde_json::json!({
            "token": token, "room": request.room, "identity": identity, "session_url": session_url,
        });
        Ok(Json(body).into_response())
    })
    .await
}
