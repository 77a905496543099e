//! The API's description of itself: OpenAPI 3.1 at `/v1/openapi.json`.
//!
//! Bodies are drawn from the types that handlers read and write, limits from the constants they check, codes from the
//! one table of codes. What a handler does beyond is said here by hand; `tests/api` holds every answer of every test
//! against it.

mod accounts;
mod examples;
mod operation;
mod parameters;
mod participants;
mod rooms;
mod schemas;
mod sessions;
mod webhooks;

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use self::operation::Operation;
use self::schemas::Schemas;
use super::code::Code;
use super::problem::Body9457;

/// The tags, in the order in which people read.
const TAGS: [(&str, &str); 6] = [
    ("Rooms", "A map service allocates rooms and hands out tokens for them."),
    ("Participants", "Who is in a room, and what a map service may do about it."),
    ("Sessions", "One HTTP request joins; the session's URL changes and ends it. WHIP and WHEP are the same resource."),
    ("Usage", "What was used, exactly, for the tenant whose it is."),
    ("Subjects", "What is kept about a person, handed out (Art. 15, 20 GDPR) and erased (Art. 17)."),
    ("Server", "The server about itself, and its demo page."),
];

/// What holds for every operation.
const ABOUT: &str = "The HTTP API of Stube, a selective forwarding media server. The whole contract, with the \
data channel and SDP, is docs/protocol.md.\n\n\
Within version 1 fields, codes and paths are only added: ignore what you do not know. Times are RFC 3339 in UTC with \
milliseconds, durations end in `_ms` or `_s`, sizes are bytes. Whole numbers are written without a fraction: `1`, not \
`1.0`. Unknown fields of a request are an error, so that a misspelt setting does not pass silently; an empty body \
counts as `{}`.\n\n\
Every error is `application/problem+json` (RFC 9457). Decide by its `code`. An unknown path is 404 `not_found`, a \
method that a path does not have 405 `method_not_allowed` with `Allow`. What belongs to another tenant is 404, as if \
it did not exist.\n\n\
Every path answers `OPTIONS`, and `HEAD` where it has `GET`. A request may take 15 s from its head to its answer.\n\n\
Another listener, for the operator alone (127.0.0.1:6789 by default), has `/metrics` for Prometheus, `/healthz` and \
`/readyz`. They are not part of this document; docs/operations.md describes them.";

static TEXT: LazyLock<String> = LazyLock::new(|| document().map(|document| document.to_string()).unwrap_or_default());

/// `GET /v1/openapi.json`
pub async fn serve() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], TEXT.as_str()).into_response()
}

/// The document; fails with the name of a type that looks different when read and when written.
pub fn document() -> Result<Value, String> {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in operations() {
        let described = operation.describe(&mut schemas);
        paths.entry(operation.path).or_insert(json!({}))[operation.method] = described;
    }
    let problem: fn(&mut SchemaGenerator) -> _ = SchemaGenerator::subschema_for::<Body9457<'static>>;
    problem(schemas.answers());
    let parameters = parameters::parameters(schemas.requests());
    let webhooks = webhooks::webhooks(&mut schemas);
    let tags: Vec<_> = TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stube",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Rooms, sessions and exact accounts over HTTP",
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this server"}],
        "tags": tags,
        "paths": paths,
        "webhooks": webhooks,
        "components": {
            "schemas": schemas.components()?,
            "parameters": parameters,
            "headers": parameters::headers(),
            "examples": problem_examples(),
            "securitySchemes": {
                "key": {
                    "type": "http", "scheme": "basic",
                    "description": "The API key and its secret: everything of the tenant. For servers alone.",
                },
                "token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "HS256, signed with the secret of the API key in `iss`. `exp` is required. What it \
                        allows stands in `video`: `roomCreate`, `roomList`, `roomAdmin` for servers; `roomJoin` with \
                        `room`, and `sub`, the identity, for participants.",
                },
            },
        },
    }))
}

/// Every operation, by path.
fn operations() -> Vec<Operation> {
    let mut all = rooms::operations();
    all.extend(participants::operations());
    all.extend(sessions::operations());
    all.extend(accounts::operations());
    all.extend(server());
    all
}

/// What the server says about itself.
fn server() -> Vec<Operation> {
    const TAG: &str = "Server";
    vec![
        Operation::new(TAG, "get", "/v1/openapi.json", "readDocument", "Read this document")
            .about("People read it at `/docs`.")
            .answers::<Map<String, Value>>(200, "This document.", json!({"openapi": "3.1.0"})),
        Operation::new(TAG, "post", "/demo/token", "mintDemoToken", "Get a token for the demo page")
            .about("Only while the shipped key is configured, which is so on loopback alone; else 404 `not_found`.")
            .takes::<super::demo::Request>(json!({"room": "lobby", "name": "Ada"}))
            .answers::<super::demo::TokenView>(200, "A token for a new identity.", examples::demo_token())
            .fails(&[Code::NotFound, Code::RoomNotFound, Code::QuotaExceeded, Code::Unavailable]),
    ]
}

/// One example for each code.
fn problem_examples() -> Map<String, Value> {
    let example = |code: &Code| {
        let status = code.status();
        let mut value = json!({
            "type": format!("urn:stube:problem:{}", code.as_str()),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": code.meaning(),
            "code": code.as_str(),
            "instance": examples::REQUEST,
        });
        match code {
            Code::InvalidRequest => {
                value["errors"] = json!([{"pointer": "/max_participants", "detail": "expected 1 to 10000"}]);
            }
            Code::QuotaExceeded => {
                value["quota"] = "max_participants".into();
                value["limit"] = 100.into();
                value["used"] = 100.into();
            }
            _ => {}
        }
        (code.as_str().to_owned(), json!({"summary": code.meaning(), "value": value}))
    };
    Code::ALL.iter().map(example).collect()
}

#[cfg(test)]
mod tests;
