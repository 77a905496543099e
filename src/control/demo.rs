//! The demo page, the API's page for people, and the tokens the former gets while the shipped key is configured.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
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

/// The page may load, and talk to, nothing but this server; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Camera, microphone and screen for the page itself.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self)";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Names each file of `web/` once.
macro_rules! web {
    ($($path:literal $file:literal $media_type:ident)*) => {
        [$(WebFile { path: $path, media_type: $media_type, contents: include_str!(concat!("../../web/", $file)) },)*]
    };
}

/// A file of the pages.
struct WebFile {
    path: &'static str,
    media_type: &'static str,
    contents: &'static str,
}

/// The pages: everything in `web/`.
const FILES: [WebFile; 20] = web! {
    "/" "index.html" HTML
    "/app.js" "app.js" SCRIPT
    "/chat.js" "chat.js" SCRIPT
    "/devices.js" "devices.js" SCRIPT
    "/docs" "docs.html" HTML
    "/docs.css" "docs.css" STYLE
    "/docs.js" "docs.js" SCRIPT
    "/docs-elements.js" "docs-elements.js" SCRIPT
    "/docs-schema.js" "docs-schema.js" SCRIPT
    "/icon.svg" "icon.svg" SVG
    "/icons.js" "icons.js" SCRIPT
    "/lobby.js" "lobby.js" SCRIPT
    "/stats.js" "stats.js" SCRIPT
    "/stube-publication.js" "stube-publication.js" SCRIPT
    "/stube-session.js" "stube-session.js" SCRIPT
    "/stube-stats.js" "stube-stats.js" SCRIPT
    "/stube.js" "stube.js" SCRIPT
    "/style.css" "style.css" STYLE
    "/tiles.js" "tiles.js" SCRIPT
    "/words.js" "words.js" SCRIPT
};

/// The pages' own routes.
pub fn pages() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(|| async { serve(file) })))
}

fn serve(file: &WebFile) -> Response {
    let headers = [
        (CONTENT_TYPE, file.media_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, file.contents).into_response()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_web_is_served() {
        let on_disk = std::fs::read_dir("web").expect("cargo runs tests in the package's root");
        let mut names: Vec<String> =
            on_disk.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let path = |name: &String| match name.as_str() {
            "index.html" => "/".to_owned(),
            "docs.html" => "/docs".to_owned(),
            _ => format!("/{name}"),
        };
        let expected: Vec<String> = names.iter().map(path).collect();
        let mut served = FILES.map(|file| file.path.to_owned());
        served.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(served.to_vec(), expected);
    }
}
