//! What the server sends by itself: the bodies of webhooks and of `/v1/events`.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::examples;
use super::schemas::Schemas;
use crate::command::{EndReason, MediaKind, Source, TrackInfo};
use crate::ids::{Id, Identity, Kind, RoomName};
use crate::ledger::event::{self, EventKind, Subject};
use crate::ledger::record::UnixMs;

/// What holds for every event.
const ABOUT: &str = "Sent to each `[[webhook]]` of the tenant, at least once and in order per room, until a 2xx or for \
four days; 410 stops the webhook. Signed by Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`) \
and by a JWT in `Authorization` with the body's `sha256`. `GET /v1/events` has the same bodies.";

/// When the examples happened: 2026-11-22T09:31:00.250Z.
const AT: UnixMs = UnixMs(1_795_339_860_250);

/// Every event by its name.
pub fn webhooks(schemas: &mut Schemas) -> Map<String, Value> {
    let body: fn(&mut SchemaGenerator) -> _ = SchemaGenerator::subschema_for::<event::Body<'static>>;
    let schema = json!(body(schemas.answers()));
    let described = |(kind, word, about): (EventKind, &str, &str)| {
        let content = json!({"schema": schema, "example": example(kind)});
        let post = json!({
            "operationId": format!("on_{word}"),
            "summary": about,
            "description": ABOUT,
            "requestBody": {"required": true, "content": {"application/webhook+json": content}},
            "responses": {
                "2XX": {"description": "Delivered."},
                "410": {"description": "Nobody listens here any more: nothing is sent until the next start."},
                "default": {"description": "Tried again later; `Retry-After` of 429 and 503 counts, up to an hour."},
            },
        });
        (word.to_owned(), json!({"post": post}))
    };
    EventKind::ALL.into_iter().map(described).collect()
}

/// As the ledger writes it.
fn example(kind: EventKind) -> Value {
    let track = TrackInfo {
        sid: id(examples::TRACK),
        kind: MediaKind::Audio,
        source: Source::Microphone,
        muted: false,
        codec: "opus",
        layers: Vec::new(),
    };
    let sid = id(examples::PARTICIPANT);
    let subject = match kind {
        EventKind::RoomStarted => Subject::Room { reason: None },
        EventKind::RoomFinished => Subject::Room { reason: Some(EndReason::RoomEmpty) },
        EventKind::ParticipantJoined => Subject::Participant { sid, end: None },
        EventKind::ParticipantLeft => Subject::Participant { sid, end: Some((EndReason::ClientLeft, 60_250)) },
        EventKind::ParticipantConnectionAborted => {
            Subject::Participant { sid, end: Some((EndReason::ConnectTimeout, 0)) }
        }
        EventKind::TrackPublished | EventKind::TrackUnpublished => Subject::Track { sid, track: &track },
        EventKind::QuotaThreshold => Subject::Quota { quota: "max_participants", limit: 100, used: 80 },
        EventKind::QuotaExceeded => Subject::Quota { quota: "max_participants", limit: 100, used: 100 },
    };
    let name = RoomName::from("lobby");
    let is_of_room = !matches!(subject, Subject::Quota { .. });
    let is_in_call = matches!(subject, Subject::Participant { end: Some((EndReason::ClientLeft, _)) | None, .. })
        || matches!(subject, Subject::Track { .. });
    let head = event::Head {
        event: id(examples::EVENT),
        kind,
        seq: 7,
        created_at: AT,
        call: is_in_call.then(|| (id(examples::CALL), UnixMs(AT.0 - 60_250))),
    };
    let room = is_of_room.then(|| (id(examples::ROOM), &name));
    let body = event::body(&head, room, &subject, Some(&Identity::from("p-7f3a")));
    serde_json::from_str(&body).unwrap_or_default()
}

/// An id of the examples.
fn id<K: Kind>(text: &str) -> Id<K> {
    text.parse().unwrap_or_else(|_| Id::from_bits(0))
}
