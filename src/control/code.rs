//! Every code of an error, with its status and meaning: what clients decide by.

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

macro_rules! codes {
    ($($name:ident $status:literal $word:literal $meaning:literal)*) => {
        /// A code, and with it a status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The wire's word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The status that goes with it. `BadRequest` alone also stands for other statuses of 400 to 499.
            pub fn status(self) -> StatusCode {
                let status: u16 = match self {
                    $(Self::$name => $status,)*
                };
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// What it means, for people.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

codes! {
    BadRequest 400 "bad_request" "the request cannot be read"
    InvalidJson 400 "invalid_json" "the body is not JSON"
    IncompleteBody 400 "incomplete_body" "the body ended early"
    InvalidIdempotencyKey 400 "invalid_idempotency_key" "the key is empty, or longer than 255 bytes"
    InvalidSdp 400 "invalid_sdp" "the offer or the fragment cannot be read"
    InvalidEventId 400 "invalid_event_id" "Last-Event-ID is not an event's id"
    MissingCredentials 401 "missing_credentials" "there is no Authorization header"
    InvalidCredentials 401 "invalid_credentials" "unknown key, wrong secret, or neither Basic nor Bearer"
    InvalidToken 401 "invalid_token" "wrong signature, unknown key, malformed, not valid yet, or no exp"
    TokenExpired 401 "token_expired" "the token's exp has passed"
    Forbidden 403 "forbidden" "the credentials do not allow this"
    PublishForbidden 403 "publish_forbidden" "the offer publishes, and the token does not allow it"
    UnmuteForbidden 403 "unmute_forbidden" "remote unmute is off (rooms.allow_remote_unmute)"
    NotFound 404 "not_found" "there is nothing at this path"
    RoomNotFound 404 "room_not_found" "nobody allocated the room, it has ended, or it is another tenant's"
    ParticipantNotFound 404 "participant_not_found" "no such identity is in the room"
    TrackNotFound 404 "track_not_found" "the participant has no such track"
    SessionNotFound 404 "session_not_found" "the session does not exist or has ended"
    MethodNotAllowed 405 "method_not_allowed" "the path does not have that method; see Allow"
    RoomExists 409 "room_exists" "a room of that name exists with other settings"
    RoomFull 409 "room_full" "max_participants are in the room"
    IdempotencyKeyInUse 409 "idempotency_key_in_use" "the first request with this key is still being answered"
    StaleEtag 412 "stale_etag" "If-Match does not name the current ICE session"
    BodyTooLarge 413 "body_too_large" "the body is larger than allowed"
    UnsupportedMediaType 415 "unsupported_media_type" "wrong Content-Type; see Accept, Accept-Post or Accept-Patch"
    InvalidRequest 422 "invalid_request" "fields have values that cannot be used; see errors"
    PersonalIdentity 422 "personal_identity" "the identity looks like an e-mail address or a phone number"
    OfferNotAcceptable 422 "offer_not_acceptable" "readable, but it lacks something required, or has too many m-lines"
    InvalidConfig 422 "invalid_config" "(admin) the configuration is not valid; nothing has changed"
    IdempotencyKeyReused 422 "idempotency_key_reused" "the key was used with another body"
    IfMatchRequired 428 "if_match_required" "an ICE restart or a further offer without If-Match"
    QuotaExceeded 429 "quota_exceeded" "a quota is used up; see quota, limit and used"
    TooManyStreams 429 "too_many_streams" "too many event streams are open"
    Internal 500 "internal" "a bug; the server carries on"
    Unavailable 503 "unavailable" "overloaded, starting or stopping"
    LedgerUnavailable 503 "ledger_unavailable" "the database does not answer; calls go on and records wait"
    Timeout 503 "timeout" "the request was not done in time"
}

impl JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProblemCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<_> = Self::ALL.iter().map(|code| code.as_str()).collect();
        json_schema!({"type": "string", "description": "Decide by this. Codes are only added.", "enum": words})
    }
}
