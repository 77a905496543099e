//! Reading requests: bodies with a limit, media types, JSON with pointers to what is wrong, pages of lists.

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::code::Code;
use super::problem::{FieldError, Problem};

/// The media type of offers and answers.
pub const SDP: &str = "application/sdp";

/// The media type of trickled candidates and ICE restarts (RFC 8840).
pub const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// What POST takes.
pub const ACCEPT_POST: &str = SDP;

/// What PATCH takes.
pub const ACCEPT_PATCH: &str = "application/trickle-ice-sdpfrag, application/sdp";

/// `Accept-Post` (LDP), and `Accept-Patch` (RFC 5789): what a 415 should have been.
pub const ACCEPT_POST_HEADER: HeaderName = HeaderName::from_static("accept-post");
pub const ACCEPT_PATCH_HEADER: HeaderName = HeaderName::from_static("accept-patch");

/// The largest JSON body, in bytes: many times the largest room or message.
pub const JSON_MAX_BYTES: usize = 64 * 1024;

/// The largest SDP offer or fragment, in bytes. A browser's with 41 slots has about 100 KiB.
pub const SDP_MAX_BYTES: usize = 256 * 1024;

/// How much more of a too large body is read and thrown away, in bytes, so that the client gets to read the answer
/// instead of a reset connection.
const OVERRUN_MAX_BYTES: usize = 1024 * 1024;

/// Entries of a list unless `limit` says otherwise, and at most.
pub const PAGE_DEFAULT: usize = 100;
pub const PAGE_MAX: usize = 1000;

/// Reads a whole body of at most `limit` bytes.
pub async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > limit + OVERRUN_MAX_BYTES) {
        return Err(Problem::too_large(limit));
    }
    let mut contents = BytesMut::new();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let incomplete = |_| Problem::new(Code::IncompleteBody, "the body ended early");
        let Ok(data) = frame.map_err(incomplete)?.into_data() else { continue };
        read += data.len();
        if read <= limit {
            contents.extend_from_slice(&data);
        } else if read > limit + OVERRUN_MAX_BYTES {
            break;
        }
    }
    if read > limit { Err(Problem::too_large(limit)) } else { Ok(contents.freeze()) }
}

/// Whether the body is declared as `expected`, whatever its parameters and case.
pub fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    declared.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

/// Reads a JSON body. An empty one counts as `{}`.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    parse_json(headers, &read(headers, body, JSON_MAX_BYTES).await?)
}

/// As [`json`], of a body that has been read.
pub fn parse_json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if !body.is_empty() && !has_media_type(headers, "application/json") {
        return Err(Problem::unsupported_media_type(ACCEPT, "application/json"));
    }
    let body = if body.is_empty() { b"{}" } else { body };
    // Syntax first: only a body that is JSON at all can have wrong fields.
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not JSON: line {}, column {}", error.line(), error.column());
        Problem::new(Code::InvalidJson, detail)
    })?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path());
        Problem::invalid_fields(vec![FieldError { pointer, detail: without_value(&error.inner().to_string()) }])
    })
}

/// What serde says, without the wrong value, which might be personal.
fn without_value(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((_, expected)) if message.starts_with("invalid ") => format!("expected {expected}"),
        _ if message.starts_with("invalid ") => "not a valid value".to_owned(),
        _ => message.to_owned(),
    }
}

/// A path as a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Collects what is wrong with the fields of one request.
#[derive(Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    /// Notes the error of a field, if it has one.
    pub fn check(&mut self, pointer: &str, result: Result<(), String>) {
        if let Err(detail) = result {
            self.0.push(FieldError { pointer: pointer.to_owned(), detail });
        }
    }

    /// Notes a number outside its range.
    pub fn check_range(&mut self, pointer: &str, value: Option<u64>, range: std::ops::RangeInclusive<u64>) {
        let inside = value.is_none_or(|value| range.contains(&value));
        let detail = || format!("expected {} to {}", range.start(), range.end());
        self.check(pointer, if inside { Ok(()) } else { Err(detail()) });
    }

    /// A problem if anything was wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(self.0)) }
    }
}

/// Which part of a list is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The last entry of the page before, in the list's own terms.
    pub after: Option<String>,
    pub limit: usize,
}

impl Page {
    /// Reads `limit` and `cursor`.
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Query {
            limit: Option<String>,
            cursor: Option<String>,
        }
        let axum::extract::Query(query) = axum::extract::Query::<Query>::try_from_uri(uri)
            .map_err(|_| Problem::of_response(StatusCode::BAD_REQUEST))?;
        let mut fields = Fields::default();
        let limit = query.limit.map(|limit| limit.parse().unwrap_or(0));
        fields.check_range("?limit", limit, 1..=PAGE_MAX as u64);
        let after = query.cursor.map(|cursor| read_cursor(&cursor)).transpose();
        fields.check("?cursor", after.as_ref().map(|_| ()).map_err(Clone::clone));
        fields.finish()?;
        Ok(Self { after: after.unwrap_or_default(), limit: limit.map_or(PAGE_DEFAULT, |limit| limit as usize) })
    }
}

/// The cursor of a page that ends with `last`.
pub fn cursor(last: &str) -> String {
    URL_SAFE_NO_PAD.encode(last)
}

fn read_cursor(cursor: &str) -> Result<String, String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| "expected a next_cursor".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_ignore_case_and_parameters() {
        for (declared, expected) in [
            ("application/sdp", true),
            ("Application/SDP; charset=utf-8", true),
            ("application/sdp2", false),
            ("text/plain; application/sdp", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, declared.parse().expect(declared));
            assert_eq!(has_media_type(&headers, "application/sdp"), expected, "{declared}");
        }
        assert!(!has_media_type(&HeaderMap::new(), "application/sdp"));
    }

    #[test]
    fn pages_have_limits_and_opaque_cursors() {
        let page = |query: &str| Page::of(&format!("/v1/rooms?{query}").parse().expect(query)).ok();
        assert_eq!(page(""), Some(Page { after: None, limit: PAGE_DEFAULT }));
        assert_eq!(page("limit=1000").map(|page| page.limit), Some(1000));
        assert_eq!(page(&format!("cursor={}", cursor("Küche"))).and_then(|page| page.after), Some("Küche".to_owned()));
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "cursor=%21"] {
            assert_eq!(page(query), None, "{query}");
        }
    }

    #[test]
    fn wrong_fields_are_pointed_at() {
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[serde(rename = "a/b")]
            _inner: u32,
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().expect("static"));
        let problem = parse_json::<Vec<Inner>>(&headers, br#"[{"a/b":1},{"a/b":"x"}]"#).expect_err("a string");
        let pointer = FieldError { pointer: "/1/a~1b".to_owned(), detail: "expected u32".to_owned() };
        assert_eq!(problem, Problem::invalid_fields(vec![pointer]));
    }
}
