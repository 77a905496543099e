//! The one place where errors become HTTP: RFC 9457 problems with a stable `code`.
//!
//! A handler returns a [`Problem`]; [`super::edge`] writes its body, for only there the request id is known.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::code::Code;
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
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    quota: Option<Box<QuotaFacts>>,
}

/// Which quota is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
struct QuotaFacts {
    /// Only with `quota_exceeded`, as are `limit` and `used`.
    quota: &'static str,
    limit: u64,
    used: u64,
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the body, `?name` for a query parameter, or `{name}` for a part of the path.
    pub pointer: String,
    pub detail: String,
}

/// An error, as RFC 9457 has it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Body9457<'a> {
    /// `urn:stube:problem:` and the code.
    r#type: String,
    /// The status in words.
    title: &'a str,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// For people. It may change, and holds no address, token, name or SDP.
    detail: &'a str,
    #[schemars(with = "Code")]
    code: &'a str,
    /// Names the request in the server's log.
    instance: &'a str,
    /// Only with `invalid_request`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(flatten)]
    quota: Option<&'a QuotaFacts>,
}

impl Problem {
    /// A problem with this code and explanation.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self { status, code, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), quota: None }
    }

    /// No credentials, or bad ones.
    pub fn unauthorized(code: Code, detail: &str, challenges: &[&'static str]) -> Self {
        let problem = Self::new(code, detail);
        challenges.iter().fold(problem, |problem, challenge| problem.with(WWW_AUTHENTICATE, challenge))
    }

    /// Valid credentials that do not allow this.
    pub fn forbidden(detail: &str) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    /// The room does not exist, or belongs to somebody else.
    pub fn room_not_found() -> Self {
        Refusal::RoomNotFound.into()
    }

    /// Fields whose values cannot be used.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = "the request has fields with values that cannot be used; see errors";
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// An identity that tells who somebody is.
    pub fn personal_identity(problem: String) -> Self {
        let detail = format!(
            "the identity cannot be used: {problem}; use a pseudonym, or set privacy.allow_personal_identities"
        );
        Self::new(Code::PersonalIdentity, detail)
    }

    /// Another media type than the ones in `accepted`, which go into the header `accept`.
    pub fn unsupported_media_type(accept: HeaderName, accepted: &'static str) -> Self {
        let detail = format!("expected Content-Type: {accepted}");
        Self::new(Code::UnsupportedMediaType, detail).with(accept, accepted)
    }

    /// A body above its limit.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body has more than {limit} bytes");
        Self::new(Code::BodyTooLarge, detail)
    }

    /// The request took too long to arrive or to answer.
    pub fn timed_out() -> Self {
        Self::new(Code::Timeout, "the request was not done in time; try again later")
    }

    /// A bug of ours.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the server failed; the log has more under instance")
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// A problem for an error response that has none, such as axum's 404 and 405.
    pub fn of_response(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(Code::NotFound, "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(Code::MethodNotAllowed, "this resource does not have that method; see Allow")
            }
            _ if status.is_server_error() => Self { status, ..Self::internal() },
            _ => Self { status, ..Self::new(Code::BadRequest, "the request cannot be read") },
        }
    }

    /// The stable word for the log.
    pub fn code(&self) -> &'static str {
        self.code.as_str()
    }

    /// How a join that ended in this problem is counted.
    pub fn join_result(&self) -> JoinResult {
        match self.status {
            StatusCode::UNAUTHORIZED => JoinResult::Unauthorized,
            StatusCode::FORBIDDEN => JoinResult::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => JoinResult::QuotaExceeded,
            _ if self.code == Code::RoomNotFound => JoinResult::RoomNotFound,
            _ if self.code == Code::RoomFull => JoinResult::RoomFull,
            _ if matches!(self.code, Code::InvalidSdp | Code::OfferNotAcceptable) => JoinResult::InvalidOffer,
            StatusCode::SERVICE_UNAVAILABLE => JoinResult::Unavailable,
            _ if self.status.is_server_error() => JoinResult::Internal,
            _ => JoinResult::InvalidRequest,
        }
    }

    /// The whole response; `headers` are those that layers have put on it so far.
    pub fn render(self, instance: &str, headers: HeaderMap) -> Response {
        let body = Body9457 {
            r#type: format!("{TYPE_PREFIX}{}", self.code()),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code(),
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
        let code = match &refusal {
            Refusal::RoomNotFound => Code::RoomNotFound,
            Refusal::RoomFull { .. } => Code::RoomFull,
            Refusal::ParticipantNotFound => Code::ParticipantNotFound,
            Refusal::TrackNotFound => Code::TrackNotFound,
            Refusal::SessionNotFound => Code::SessionNotFound,
            Refusal::InvalidSdp(_) => Code::InvalidSdp,
            Refusal::NotAcceptable(_) => Code::OfferNotAcceptable,
            Refusal::StaleIce => Code::StaleEtag,
            Refusal::IceTagMissing => Code::IfMatchRequired,
            Refusal::PublishForbidden => Code::PublishForbidden,
            Refusal::UnmuteForbidden => Code::UnmuteForbidden,
            Refusal::Internal => Code::Internal,
            Refusal::Unavailable => Code::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded { quota, limit, used, retry_after_s } = exceeded;
        let mut problem = Self::new(Code::QuotaExceeded, exceeded.to_string());
        problem.headers.push((RETRY_AFTER, HeaderValue::from(retry_after_s)));
        let facts = QuotaFacts { quota: quota.as_str(), limit, used };
        Self { quota: Some(Box::new(facts)), ..problem }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.is_temporary() {
            true => Self::new(Code::LedgerUnavailable, error.to_string()),
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
            assert_eq!((problem.status.as_u16(), problem.code()), (status, code));
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
