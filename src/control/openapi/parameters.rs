//! Parameters and headers that operations share.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::examples;
use crate::control::body::{PAGE_DEFAULT, PAGE_MAX};
use crate::control::idempotency::KEY_MAX_BYTES;
use crate::control::limits::{IdentityText, RoomNameText};
use crate::ids::{CallId, EventId, SessionId, TrackId};

/// Parameters by the names that operations give.
pub fn parameters(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let room = RoomNameText::json_schema(generator);
    let identity = IdentityText::json_schema(generator);
    let time = json!({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]});
    let limit = json!({"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT});
    let cursor = json!({"type": "string", "pattern": "^[0-9A-Za-z_-]*$"});
    let key = json!({"type": "string", "minLength": 1, "maxLength": KEY_MAX_BYTES});
    let text = json!({"type": "string"});
    let mut all = Map::new();
    let mut add = |name: &str, place: &str, about: &str, schema: &Value, example: &str| {
        let (key, name) = name.split_once('=').unwrap_or((name, name));
        let parameter = json!({
            "name": name, "in": place, "required": place == "path",
            "description": about, "schema": schema, "example": example,
        });
        all.insert(key.to_owned(), parameter);
    };
    add("room=name", "path", "The room's name, percent-encoded.", room.as_value(), "lobby");
    add("identity", "path", "The participant's identity, percent-encoded.", identity.as_value(), "p-7f3a");
    add("track", "path", "The track's id.", TrackId::json_schema(generator).as_value(), "TR_2bVfWm0XaqLr8KzPn4TsYc");
    let session = SessionId::json_schema(generator);
    add("session=id", "path", "The session's id: a capability.", session.as_value(), "SE_5hTnR2yQm8ZcVx0LkWp3Ja");
    add("cursor", "query", "The `next_cursor` of the page before.", &cursor, examples::CURSOR);
    add("from", "query", "From here on, by the start: RFC 3339 since 1970, or a day.", &time, "2026-11-22");
    add("to", "query", "Before this: RFC 3339 since 1970, or a day.", &time, "2026-11-23T12:00:00.000Z");
    add("of_room=room", "query", "Only of rooms of this name.", &text, "lobby");
    add("of_identity=identity", "query", "Only of this person.", &text, "p-7f3a");
    let call = CallId::json_schema(generator);
    add("call", "query", "Only of this call.", call.as_value(), "CA_1dYpQ7sFm3WvNz9KtLh5Xe");
    let group = json!({"type": "string", "enum": ["day", "room"], "default": "day"});
    add("group_by", "query", "What is summed over. Days know no room.", &group, "room");
    add("participant", "query", "Whom to play; whoever speaks, unless given.", &text, "p-7f3a");
    let event = EventId::json_schema(generator);
    let begin = "Go on after this event; it counts less than `Last-Event-ID`.";
    add("after", "query", begin, event.as_value(), "EV_6jUoS3zRn9AdWy1MlXq4Kb");
    let begin = "Go on after this event of the last four days. What happens from now on, unless given.";
    add("Last-Event-ID", "header", begin, event.as_value(), "EV_6jUoS3zRn9AdWy1MlXq4Kb");
    let about = "The same key and body within 24 h gives the first answer again.";
    add("Idempotency-Key", "header", about, &key, "7f9c1c1e-6a0f-4b7e-9d5e-0f6f4a1d2c3b");
    let about = "The current ETag, or `*`. Required for an ICE restart and for an offer.";
    add("If-Match", "header", about, &text, "\"ice-1\"");
    let about = "How many entries a page has.";
    all.insert(
        "limit".to_owned(),
        json!({
            "name": "limit", "in": "query", "required": false, "description": about, "schema": limit, "example": 100,
        }),
    );
    all
}

/// Headers of answers, by name.
pub fn headers() -> Map<String, Value> {
    let of =
        |about: &str, example: &str| json!({"description": about, "schema": {"type": "string"}, "example": example});
    let seconds = json!({
        "description": "When to come back, in seconds.", "schema": {"type": "integer", "minimum": 0}, "example": 2,
        "required": true,
    });
    let link = "One for each URL of the ICE servers; none without any.";
    let all = [
        ("Location", of("The session's path.", "/v1/sessions/SE_5hTnR2yQm8ZcVx0LkWp3Ja")),
        ("ETag", of("Names the ICE session; strong, new after each restart.", "\"ice-1\"")),
        ("Link", of(link, "<stun:stun.example.org:3478>; rel=\"ice-server\"")),
        ("Retry-After", seconds),
        ("WWW-Authenticate", of("The schemes that are taken.", "Bearer realm=\"stube\"")),
        ("Accept", of("What should have come.", "application/json")),
        ("Accept-Post", of("What should have come.", "application/sdp")),
        ("Accept-Patch", of("What should have come.", "application/trickle-ice-sdpfrag, application/sdp")),
    ];
    all.into_iter().map(|(name, header)| (name.to_owned(), header)).collect()
}
