//! What every request passes: request ids, problems' bodies, CORS, timeouts, panics, counting.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, IF_MATCH, LINK, LOCATION, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use super::app::App;
use super::body;
use super::problem::Problem;
use crate::config::HttpConfig;
use crate::ledger::address::{ClientAddress, client_address};
use crate::traces;

/// How long a request may take from its head to its answer, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a browser may remember what it may send here. Chromium takes no more than two hours.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(7200);

/// The route label of every file of the page.
const PAGE: &str = "page";

/// The route label of what matches none.
pub const UNMATCHED: &str = "unmatched";

/// Every method that is counted under its own name.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Every route of the public listener and its methods: the closed sets of the request metric's labels.
pub const ROUTES: [(&str, &[&str]); 24] = [
    (PAGE, &["GET", "HEAD", "OPTIONS"]),
    ("/demo/token", &["POST", "OPTIONS"]),
    ("/v1/openapi.json", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/rooms", &["GET", "HEAD", "POST", "OPTIONS"]),
    ("/v1/rooms/{name}", &["GET", "HEAD", "PATCH", "DELETE", "OPTIONS"]),
    ("/v1/rooms/{name}/tokens", &["POST", "OPTIONS"]),
    ("/v1/rooms/{name}/messages", &["POST", "OPTIONS"]),
    ("/v1/rooms/{name}/stats", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/rooms/{name}/participants", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/rooms/{name}/participants/{identity}", &["GET", "HEAD", "PATCH", "DELETE", "OPTIONS"]),
    ("/v1/rooms/{name}/participants/{identity}/move", &["POST", "OPTIONS"]),
    ("/v1/calls", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/records", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/usage", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/subjects/{identity}", &["GET", "HEAD", "DELETE", "OPTIONS"]),
    ("/v1/subjects/export", &["POST", "OPTIONS"]),
    ("/v1/subjects/erase", &["POST", "OPTIONS"]),
    ("/v1/events", &["GET", "HEAD", "OPTIONS"]),
    ("/v1/rooms/{name}/participants/{identity}/tracks/{track}/muted", &["PUT", "OPTIONS"]),
    ("/v1/sessions", &["POST", "OPTIONS"]),
    ("/v1/sessions/{id}", &["GET", "HEAD", "PATCH", "DELETE", "OPTIONS"]),
    ("/whip", &["GET", "HEAD", "POST", "OPTIONS"]),
    ("/whep", &["GET", "HEAD", "POST", "OPTIONS"]),
    (UNMATCHED, &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"]),
];

/// The address a connection comes from; put into requests by the listener.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What the client reached the server as: scheme and authority.
#[derive(Clone)]
pub struct Origin(String);

impl Origin {
    /// The absolute URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    fn of(config: &HttpConfig, headers: &HeaderMap, peer: Option<IpAddr>) -> Self {
        if !config.public_url.is_empty() {
            return Self(config.public_url.clone());
        }
        let trusted = peer.is_some_and(|peer| config.trusts(peer));
        // The last value is the one the proxy next to us has added.
        let forwarded = |name: &str| {
            let value = headers.get_all(name).iter().next_back().filter(|_| trusted)?.to_str().ok()?;
            value.rsplit(',').next().map(str::trim)
        };
        let own = config.tls.scheme();
        let scheme = forwarded("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or(own);
        let host = forwarded("x-forwarded-host").or_else(|| headers.get(HOST)?.to_str().ok());
        let plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        match host.filter(|host| !host.is_empty()).filter(plain) {
            Some(host) => Self(format!("{scheme}://{host}")),
            None => Self(format!("{own}://{}", config.listen)),
        }
    }
}

/// The outermost layer: names the request, writes problems' bodies, counts.
pub async fn finish(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = app.clock.now();
    let method = request.method().clone();
    let route = route_label(request.extensions().get::<MatchedPath>());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let origin = Origin::of(&app.config().http, request.headers(), peer);
    request.extensions_mut().insert(origin);
    let address = address(&app.config().http, request.headers(), peer);
    request.extensions_mut().insert(address);
    let id = app.id::<RequestKind>().to_string();
    request.extensions_mut().insert(RequestName(id.clone()));
    let traced = traces::request(method_label(&method), route, &id, request.headers());
    // Within it, so that what is spawned in the name of this one counts as a part of that one.
    let span = tracing::info_span!(parent: &traced, "request", id, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    traces::answered(&traced, status);
    app.metrics.count_request(route, method_label(&method), status.as_u16());
    let problem = response.extensions_mut().remove::<Problem>();
    if status.is_client_error() || status.is_server_error() {
        let problem = problem.unwrap_or_else(|| Problem::of_response(status));
        let code = problem.code();
        span.in_scope(|| match status.is_server_error() {
            true => tracing::warn!(status = status.as_u16(), code, "request failed"),
            false => tracing::debug!(status = status.as_u16(), code, "request refused"),
        });
        response = problem.render(&id, std::mem::take(response.headers_mut()));
    }
    let took_ms = app.clock.now().saturating_duration_since(started).as_millis() as u64;
    span.in_scope(|| tracing::debug!(%method, status = status.as_u16(), took_ms, "answered"));
    complete_headers(&method, route, status, response.headers_mut());
    response
}

/// The client, as far as trusted proxies tell.
fn address(config: &HttpConfig, headers: &HeaderMap, peer: Option<IpAddr>) -> ClientAddress {
    // What is not text stays in its place, as something that names nobody.
    let values = |name: &str| headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or("?"));
    // Most proxies write X-Forwarded-For and pass a client's own Forwarded on.
    let standard = values("forwarded").filter(|_| !headers.contains_key("x-forwarded-for"));
    let is_trusted = |hop: IpAddr| config.trusts(hop);
    let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    client_address(peer, standard, values("x-forwarded-for"), is_trusted)
}

/// A request's id, as in `instance` and the log.
#[derive(Clone)]
pub struct RequestName(String);

impl std::fmt::Display for RequestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a request; only for logs, the audit log and `instance`.
pub enum RequestKind {}

impl crate::ids::Kind for RequestKind {
    const PREFIX: &'static str = "RQ";
}

fn complete_headers(method: &Method, route: &str, status: StatusCode, headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Tokens, names and session URLs are in the answers; nobody between may keep them.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if method == Method::OPTIONS {
        let accept = match route {
            "/v1/sessions" | "/whip" | "/whep" => Some((body::ACCEPT_POST_HEADER, body::ACCEPT_POST)),
            "/v1/sessions/{id}" => Some((body::ACCEPT_PATCH_HEADER, body::ACCEPT_PATCH)),
            _ => None,
        };
        if let Some((name, value)) = accept {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    // axum's own `Allow` lacks OPTIONS, which every path answers, and would come after this layer.
    if (method == Method::OPTIONS || status == StatusCode::METHOD_NOT_ALLOWED) && route != UNMATCHED {
        let methods = ROUTES.iter().find(|(known, _)| *known == route).map(|(_, methods)| methods.join(", "));
        headers.extend(methods.and_then(|methods| methods.parse().ok()).map(|methods| (ALLOW, methods)));
    }
}

/// The route as a closed set.
fn route_label(matched: Option<&MatchedPath>) -> &'static str {
    let Some(matched) = matched else { return UNMATCHED };
    ROUTES.into_iter().find(|(route, _)| *route == matched.as_str()).map_or(PAGE, |(route, _)| route)
}

/// The method as a closed set.
fn method_label(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Which pages of other origins may call, and what they may send and read.
pub fn cors(config: &HttpConfig) -> CorsLayer {
    let origins = match config.cors_origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(config.cors_origins.iter().filter_map(|origin| origin.parse().ok())),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH, HeaderName::from_static("idempotency-key")])
        .expose_headers([LOCATION, ETAG, LINK, RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// Ends a request that takes too long.
pub async fn time_out(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    }
}

/// The answer of a handler that panicked; the panic hook has logged where.
pub fn after_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal().into_response()
}

/// What matches no route.
pub async fn not_found() -> Problem {
    Problem::of_response(StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_follow_the_host_and_only_trusted_proxies() {
        let peer = Some(IpAddr::from([10, 0, 0, 1]));
        let config = |text: &str| {
            let text = format!("[http]\n{text}");
            crate::config::Config::parse(&text, std::iter::empty()).expect("valid").http
        };
        let direct = config("");
        let proxied = config("trusted_proxies = [\"10.0.0.0/8\"]");
        let tls = config("[http.tls]\ndomains = [\"sfu.example.org\"]");
        let public = config("public_url = \"https://sfu.example.org/\"");
        let host = [("host", "sfu:7880")];
        let forwarded = [("host", "inner"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil, sfu.org")];
        for (config, headers, expected) in [
            (&direct, &host[..], "http://sfu:7880/x"),
            (&direct, &forwarded[..], "http://inner/x"),
            (&proxied, &forwarded[..], "https://sfu.org/x"),
            (&public, &forwarded[..], "https://sfu.example.org/x"),
            (&direct, &[][..], "http://127.0.0.1:7880/x"),
            (&tls, &host[..], "https://sfu:7880/x"),
            (&tls, &[][..], "https://127.0.0.1:7880/x"),
            (&direct, &[("host", "a\"b")][..], "http://127.0.0.1:7880/x"),
        ] {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(Origin::of(config, &headers, peer).url("/x"), expected);
        }
    }
}
