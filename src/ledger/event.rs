//! The bodies of webhooks and of the event stream, as the contract has them. No address, system or display name in any.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::record::UnixMs;
use crate::command::{EndReason, TrackInfo};
use crate::ids::{CallId, EventId, Identity, ParticipantId, RoomId, RoomName};

/// What an event says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
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

impl EventKind {
    /// All of them, and what each says.
    pub const ALL: [(Self, &str, &str); 9] = [
        (Self::RoomStarted, "room_started", "A room was allocated."),
        (Self::RoomFinished, "room_finished", "A room ended; its `room` has the `reason`."),
        (Self::ParticipantJoined, "participant_joined", "Somebody's media connected."),
        (Self::ParticipantLeft, "participant_left", "A session ended: `reason`, `duration_ms`."),
        (
            Self::ParticipantConnectionAborted,
            "participant_connection_aborted",
            "Somebody was admitted, and their media never connected.",
        ),
        (Self::TrackPublished, "track_published", "Somebody publishes a track."),
        (Self::TrackUnpublished, "track_unpublished", "Somebody publishes a track no more."),
        (Self::QuotaThreshold, "quota_threshold", "80 % of a quota are used."),
        (Self::QuotaExceeded, "quota_exceeded", "Something was refused because of a quota."),
    ];
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

/// The body of an event. What it is not about is left out.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct Body<'a> {
    id: EventId,
    event: EventKind,
    /// Rises by one per room; events about the tenant have a count of their own.
    seq: u64,
    /// Unix seconds, for LiveKit's receivers read nothing else there.
    created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<RoomBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<ParticipantBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<&'a TrackInfo>,
    /// The call that runs in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaBody>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventRoom")]
struct RoomBody<'a> {
    sid: RoomId,
    name: &'a RoomName,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventParticipant")]
struct ParticipantBody<'a> {
    sid: ParticipantId,
    /// Null once erased.
    identity: Option<&'a Identity>,
    /// Why they left.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    /// How long they were connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventCall")]
struct CallBody {
    sid: CallId,
    started_at: UnixMs,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventQuota")]
struct QuotaBody {
    name: &'static str,
    limit: u64,
    used: u64,
}

/// The body, as JSON.
pub fn body(
    head: &Head,
    room: Option<(RoomId, &RoomName)>,
    subject: &Subject<'_>,
    identity: Option<&Identity>,
) -> String {
    let of = |sid: &ParticipantId| ParticipantBody { sid: *sid, identity, reason: None, duration_ms: None };
    let (ended, participant, track, quota) = match subject {
        Subject::Room { reason } => (*reason, None, None, None),
        Subject::Participant { sid, end } => {
            let (reason, duration_ms) = end.unzip();
            (None, Some(ParticipantBody { reason, duration_ms, ..of(sid) }), None, None)
        }
        Subject::Track { sid, track } => (None, Some(of(sid)), Some(*track), None),
        Subject::Quota { quota, limit, used } => {
            (None, None, None, Some(QuotaBody { name: quota, limit: *limit, used: *used }))
        }
    };
    let body = Body {
        id: head.event,
        event: head.kind,
        seq: head.seq,
        created_at: head.created_at.0 / 1000,
        room: room.map(|(sid, name)| RoomBody { sid, name, reason: ended }),
        participant,
        track,
        call: head.call.map(|(sid, started_at)| CallBody { sid, started_at }),
        quota,
    };
    // Strings and numbers: there is nothing in it that JSON could not say.
    serde_json::to_string(&body).unwrap_or_default()
}

/// The body without whom it is about.
pub fn without_person(body: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(body) else { return String::new() };
    if let Some(participant) = value.get_mut("participant").and_then(Value::as_object_mut) {
        participant.insert("identity".to_owned(), Value::Null);
    }
    value.to_string()
}
