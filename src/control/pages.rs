//! The pages: the demo and the API's page for people on the public listener, the operator's on the admin listener.

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::app::App;

/// A page may load, and talk to, nothing but this server; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Camera, microphone and screen for the demo page itself.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self)";

/// The operator's page needs none of them.
const NO_PERMISSIONS: &str = "camera=(), microphone=(), display-capture=()";

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

/// What the public listener has of `web/`.
const PUBLIC: [WebFile; 20] = web! {
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

/// What the admin listener has of it.
const ADMIN: [WebFile; 5] = web! {
    "/" "admin.html" HTML
    "/admin.css" "admin.css" STYLE
    "/admin.js" "admin.js" SCRIPT
    "/admin-table.js" "admin-table.js" SCRIPT
    "/icon.svg" "icon.svg" SVG
};

/// The routes of the public pages.
pub fn public() -> Router<Arc<App>> {
    PUBLIC
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(|| async { serve(file, PERMISSIONS) })))
}

/// The routes of the operator's page.
pub fn admin() -> Router<Arc<App>> {
    ADMIN
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(|| async { serve(file, NO_PERMISSIONS) })))
}

fn serve(file: &WebFile, permissions: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, file.media_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("permissions-policy"), permissions),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, file.contents).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_web_is_served() {
        let on_disk = std::fs::read_dir("web").expect("cargo runs tests in the package's root");
        let names = on_disk.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
        let (admin, public): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with("admin"));
        let path = |name: &String| match name.as_str() {
            "index.html" | "admin.html" => "/".to_owned(),
            "docs.html" => "/docs".to_owned(),
            _ => format!("/{name}"),
        };
        let sorted = |mut paths: Vec<String>| {
            paths.sort();
            paths
        };
        let served = |files: &[WebFile]| sorted(files.iter().map(|file| file.path.to_owned()).collect());
        assert_eq!(served(&PUBLIC), sorted(public.iter().map(path).collect()));
        // The operator's page shares the icon.
        let admin = admin.iter().map(path).chain(["/icon.svg".to_owned()]);
        assert_eq!(served(&ADMIN), sorted(admin.collect()));
    }
}
