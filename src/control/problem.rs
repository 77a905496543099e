//! The one place where errors become HTTP: RFC 9457 problems with a stable `code`.
//!
//! A handler returns a [`Problem`]; [`super::edge`] writes its body, for only there the request id is known.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::command::Refusal;
use crate::ledger::quota::Exceeded;
use crate::ledger::store::StoreError;
use crate::metrics::JoinResult;

/// What a `type` begins with; the code follows.
const TYPE_PREFIX: &str = "urn:stube:problem:";

/// When to come back after a 503, in seconds: a restart takes about as long.
const RETRY_AFTER_S: u64 = 2;

/// What went wrong with a request. Its texts hold no address, token, name or SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    quota: Option<Box<QuotaFacts>>,
}

/// Which quota is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct QuotaFacts {
    quota: &'static str,
    limit: u64,
    used: u64,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the body, or `?name` for a query parameter.
    pub pointer: String,
    pub detail: String,
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(flatten)]
    quota: Option<&'a QuotaFacts>,
}

impl Problem {
    /// A problem with this status, code and explanation.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), quota: None }
    }

    /// No credentials, or bad ones.
    pub fn unauthorized(code: &'static str, detail: &str, challenges: &[&'static str]) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, code, detail);
        challenges.iter().fold(problem, |problem, challenge| problem.with(WWW_AUTHENTICATE, challenge))
    }

    /// Valid credentials that do not allow this.
    pub fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The room does not exist, or belongs to somebody else.
    pub fn room_not_found() -> Self {
        Refusal::RoomNotFound.into()
    }

    /// Fields whose values cannot be used.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = "the request has fields with values that cannot be used; see errors";
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail) }
    }

    /// An identity that tells who somebody is.
    pub fn personal_identity(problem: String) -> Self {
        let detail = format!(
            "the identity cannot be used: {problem}; use a pseudonym, or set privacy.allow_personal_identities"
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "personal_identity", detail)
    }

    /// Another media type than the ones in `accepted`, which go into the header `accept`.
    pub fn unsupported_media_type(accept: HeaderName, accepted: &'static str) -> Self {
        let detail = format!("expected Content-Type: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).with(accept, accepted)
    }

    /// A body above its limit.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body has more than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    /// The request took too long to arrive or to answer.
    pub fn timed_out() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request was not done in time; try again later")
    }

    /// A bug of ours.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; the log has more under instance")
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// A problem for an error response that has none, such as axum's 404 and 405.
    pub fn of_response(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(status, "not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this resource does not have that method; see Allow")
            }
            _ if status.is_server_error() => Self { status, ..Self::internal() },
            _ => Self::new(status, "bad_request", "the request cannot be read"),
        }
    }

    /// The stable word for the log.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// How a join that ended in this problem is counted.
    pub fn join_result(&self) -> JoinResult {
        match self.status {
            StatusCode::UNAUTHORIZED => JoinResult::Unauthorized,
            StatusCode::FORBIDDEN => JoinResult::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => JoinResult::QuotaExceeded,
            _ if self.code == "room_not_found" => JoinResult::RoomNotFound,
            _ if self.code == "room_full" => JoinResult::RoomFull,
            _ if matches!(self.code, "invalid_sdp" | "offer_not_acceptable") => JoinResult::InvalidOffer,
            StatusCode::SERVICE_UNAVAILABLE => JoinResult::Unavailable,
            _ if self.status.is_server_error() => JoinResult::Internal,
            _ => JoinResult::InvalidRequest,
        }
    }

    /// The whole response; `headers` are those that layers have put on it so far.
    pub fn render(self, instance: &str, headers: HeaderMap) -> Response {
        let body = Body9457 {
            r#type: format!("{TYPE_PREFIX}{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            instance,
            errors: &self.errors,
            quota: self.quota.as_deref(),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        for (name, value) in self.headers {
            if name == RETRY_AFTER {
                headers.remove(RETRY_AFTER);
            }
            headers.append(name, value);
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::RoomNotFound => (StatusCode::NOT_FOUND, "room_not_found"),
            Refusal::RoomFull { .. } => (StatusCode::CONFLICT, "room_full"),
            Refusal::RoomInUse => (StatusCode::CONFLICT, "room_in_use"),
            Refusal::ParticipantNotFound => (StatusCode::NOT_FOUND, "participant_not_found"),
            Refusal::TrackNotFound => (StatusCode::NOT_FOUND, "track_not_found"),
            Refusal::SessionNotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            Refusal::InvalidSdp(_) => (StatusCode::BAD_REQUEST, "invalid_sdp"),
            Refusal::NotAcceptable(_) => (StatusCode::UNPROCESSABLE_ENTITY, "offer_not_acceptable"),
            Refusal::StaleIce => (StatusCode::PRECONDITION_FAILED, "stale_etag"),
            Refusal::IceTagMissing => (StatusCode::PRECONDITION_REQUIRED, "if_match_required"),
            Refusal::PublishForbidden => (StatusCode::FORBIDDEN, "publish_forbidden"),
            Refusal::UnmuteForbidden => (StatusCode::FORBIDDEN, "unmute_forbidden"),
            Refusal::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded { quota, limit, used, retry_after_s } = exceeded;
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", exceeded.to_string());
        problem.headers.push((RETRY_AFTER, HeaderValue::from(retry_after_s)));
        let facts = QuotaFacts { quota: quota.as_str(), limit, used };
        Self { quota: Some(Box::new(facts)), ..problem }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.is_temporary() {
            true => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable", error.to_string()),
            false => {
                tracing::error!(%error, "the ledger failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_contracts_status_and_code() {
        for (refusal, status, code) in [
            (Refusal::RoomNotFound, 404, "room_not_found"),
            (Refusal::RoomFull { max: 2 }, 409, "room_full"),
            (Refusal::SessionNotFound, 404, "session_not_found"),
            (Refusal::InvalidSdp("line 3".to_owned()), 400, "invalid_sdp"),
            (Refusal::NotAcceptable("no BUNDLE".to_owned()), 422, "offer_not_acceptable"),
            (Refusal::StaleIce, 412, "stale_etag"),
            (Refusal::IceTagMissing, 428, "if_match_required"),
            (Refusal::PublishForbidden, 403, "publish_forbidden"),
            (Refusal::Unavailable, 503, "unavailable"),
        ] {
            let problem = Problem::from(refusal);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
        }
    }

    #[test]
    fn joins_are_counted_by_their_problem() {
        for (problem, result) in [
            (Refusal::RoomFull { max: 2 }.into(), JoinResult::RoomFull),
            (Refusal::InvalidSdp(String::new()).into(), JoinResult::InvalidOffer),
            (Refusal::NotAcceptable(String::new()).into(), JoinResult::InvalidOffer),
            (Problem::too_large(1), JoinResult::InvalidRequest),
            (Problem::timed_out(), JoinResult::Unavailable),
            (Problem::internal(), JoinResult::Internal),
        ] {
            assert_eq!(problem.join_result(), result);
        }
    }

    #[test]
    fn a_503_says_when_to_come_back() {
        let response = Problem::from(Refusal::Unavailable).render("req", HeaderMap::new());
        assert_eq!(response.headers().get(RETRY_AFTER), Some(&HeaderValue::from(RETRY_AFTER_S)));
        assert_eq!(
            response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes),
            Some(&b"application/problem+json"[..])
        );
    }
}
