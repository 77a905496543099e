//! The bodies of webhooks and of the event stream, as the contract has them. No address, system or display name in any.

use serde::Serialize;
use serde_json::{Value, json};

use super::record::UnixMs;
use crate::command::{EndReason, TrackInfo};
use crate::ids::{CallId, EventId, Identity, ParticipantId, RoomId, RoomName};

/// What an event says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    RoomStarted,
    RoomFinished,
    ParticipantJoined,
    ParticipantLeft,
    /// They were admitted, and their media never connected.
    ParticipantConnectionAborted,
    TrackPublished,
    TrackUnpublished,
    QuotaThreshold,
    QuotaExceeded,
}

/// What every event has.
pub struct Head {
    pub event: EventId,
    pub kind: EventKind,
    pub seq: u64,
    pub created_at: UnixMs,
    /// The call that runs in the room, and when it began.
    pub call: Option<(CallId, UnixMs)>,
}

/// What an event is about.
pub enum Subject<'a> {
    Room {
        reason: Option<EndReason>,
    },
    /// `end`: why the session ended, and after how many milliseconds.
    Participant {
        sid: ParticipantId,
        end: Option<(EndReason, u64)>,
    },
    Track {
        sid: ParticipantId,
        track: &'a TrackInfo,
    },
    Quota {
        quota: &'static str,
        limit: u64,
        used: u64,
    },
}

/// The body, as JSON.
pub fn body(
    head: &Head,
    room: Option<(RoomId, &RoomName)>,
    subject: &Subject<'_>,
    identity: Option<&Identity>,
) -> String {
    let mut body = json!({
        "id": head.event,
        "event": head.kind,
        "seq": head.seq,
        // A whole number, for LiveKit's receivers read nothing else there.
        "created_at": head.created_at.0 / 1000,
    });
    if let Some((sid, name)) = room {
        body["room"] = json!({"sid": sid, "name": name});
    }
    if let Some((sid, started_at)) = head.call {
        body["call"] = json!({"sid": sid, "started_at": started_at});
    }
    match subject {
        Subject::Room { reason: Some(reason) } => body["room"]["reason"] = json!(reason),
        Subject::Room { reason: None } => {}
        Subject::Participant { sid, end } => {
            body["participant"] = json!({"sid": sid, "identity": identity});
            if let Some((reason, duration_ms)) = end {
                body["participant"]["reason"] = json!(reason);
                body["participant"]["duration_ms"] = json!(duration_ms);
            }
        }
        Subject::Track { sid, track } => {
            body["participant"] = json!({"sid": sid, "identity": identity});
            body["track"] = json!(track);
        }
        Subject::Quota { quota, limit, used } => {
            body["quota"] = json!({"name": quota, "limit": limit, "used": used});
        }
    }
    body.to_string()
}

/// The body without whom it is about.
pub fn without_person(body: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(body) else { return String::new() };
    if let Some(participant) = value.get_mut("participant").and_then(Value::as_object_mut) {
        participant.insert("identity".to_owned(), Value::Null);
    }
    value.to_string()
}
