//! Who asks, and whether they may: API keys by HTTP Basic, tokens by Bearer.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::code::Code;
use super::keys::{By, Keys, Secrets};
use super::problem::Problem;
use super::token::{self, Claims, TokenError, VideoGrant};
use crate::ids::Tenant;

/// What a server may answer a challenge with.
const SERVER_CHALLENGES: [&str; 2] = ["Bearer realm=\"stube\"", "Basic realm=\"stube\", charset=\"UTF-8\""];

/// What a client may answer with. Not Basic: a browser would ask its user for a password.
const CLIENT_CHALLENGES: [&str; 1] = ["Bearer realm=\"stube\""];

/// Verified credentials.
pub enum Credentials {
    /// Key and secret: everything of the tenant.
    Key(Tenant),
    /// A token: what it says.
    Token(Tenant, Box<Claims>),
}

/// What a server wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    CreateRoom,
    ListRooms,
    ReadRoom(&'a str),
    ChangeRoom(&'a str),
    DeleteRoom(&'a str),
    /// Tokens, participants and messages of a room.
    AdministerRoom(&'a str),
    /// Usage, records, people's data and events of the tenant as a whole.
    Account,
}

/// Whether a token's grant includes a right. `roomAdmin` without a room is for every room of the tenant.
pub fn includes(grant: &VideoGrant, right: Right<'_>) -> bool {
    let create = grant.room_create == Some(true);
    let list = grant.room_list == Some(true);
    let administers = |room: &str| {
        let own = grant.room.as_deref().unwrap_or_default();
        grant.room_admin == Some(true) && (own.is_empty() || own == room)
    };
    match right {
        Right::CreateRoom => create,
        Right::ListRooms => list,
        Right::ReadRoom(room) => create || list || administers(room),
        Right::ChangeRoom(room) | Right::DeleteRoom(room) => create || administers(room),
        Right::AdministerRoom(room) => administers(room),
        Right::Account => grant.room_admin == Some(true) && grant.room.as_deref().unwrap_or_default().is_empty(),
    }
}

/// The tenant of a server that has this right.
pub fn server(keys: &Keys, headers: &HeaderMap, right: Right<'_>) -> Result<Tenant, Problem> {
    let tenant = match authenticate(&keys.current(), headers, &SERVER_CHALLENGES)? {
        Some(Credentials::Key(tenant)) => tenant,
        Some(Credentials::Token(tenant, claims)) if includes(&claims.video, right) => tenant,
        Some(Credentials::Token(..)) => return Err(Problem::forbidden("the token does not grant this")),
        None => return Err(missing(&SERVER_CHALLENGES)),
    };
    keys.note(&tenant, By::Server);
    Ok(tenant)
}

/// The claims of a client's token, which it must send.
pub fn client(keys: &Keys, headers: &HeaderMap) -> Result<(Tenant, Box<Claims>), Problem> {
    optional_client(keys, headers)?.ok_or_else(|| missing(&CLIENT_CHALLENGES))
}

/// The claims of a client's token, if it sends one.
pub fn optional_client(keys: &Keys, headers: &HeaderMap) -> Result<Option<(Tenant, Box<Claims>)>, Problem> {
    match authenticate(&keys.current(), headers, &CLIENT_CHALLENGES)? {
        Some(Credentials::Token(tenant, claims)) => {
            keys.note(&tenant, By::Client);
            Ok(Some((tenant, claims)))
        }
        Some(Credentials::Key(_)) => Err(Problem::forbidden("sessions need a participant's token")),
        None => Ok(None),
    }
}

/// A token that was verified but cannot be used to join.
pub fn unusable(error: TokenError) -> Problem {
    refused(error, &CLIENT_CHALLENGES)
}

fn missing(challenges: &[&'static str]) -> Problem {
    Problem::unauthorized(Code::MissingCredentials, "the request has no Authorization header", challenges)
}

fn refused(error: TokenError, challenges: &[&'static str]) -> Problem {
    let code = if error == TokenError::Expired { Code::TokenExpired } else { Code::InvalidToken };
    Problem::unauthorized(code, &error.to_string(), challenges)
}

fn authenticate(
    keys: &Secrets,
    headers: &HeaderMap,
    challenges: &[&'static str],
) -> Result<Option<Credentials>, Problem> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let invalid = |detail| Problem::unauthorized(Code::InvalidCredentials, detail, challenges);
    let header = header.to_str().map_err(|_| invalid("the Authorization header is not ASCII"))?;
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        let claims = token::verify(rest.trim(), keys).map_err(|error| refused(error, challenges))?;
        let tenant = Tenant::from(claims.iss.as_str());
        return Ok(Some(Credentials::Token(tenant, Box::new(claims))));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (key, secret) = pair.ok_or_else(|| invalid("the Authorization header is not valid HTTP Basic"))?;
        return match keys.get(key) {
            Some(known) if known.matches(secret) => Ok(Some(Credentials::Key(key.into()))),
            _ => Err(invalid("unknown key or wrong secret")),
        };
    }
    Err(invalid("expected Bearer or Basic credentials"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_from_grants() {
        let grant = |json: &str| serde_json::from_str::<VideoGrant>(json).expect(json);
        let cases = [
            (r#"{"roomCreate":true}"#, [true, false, true, true, true, false, false]),
            (r#"{"roomList":true}"#, [false, true, true, false, false, false, false]),
            (r#"{"roomAdmin":true,"room":"a"}"#, [false, false, true, true, true, true, false]),
            (r#"{"roomAdmin":true,"room":"b"}"#, [false; 7]),
            (r#"{"roomAdmin":true}"#, [false, false, true, true, true, true, true]),
            (r#"{"roomJoin":true,"room":"a"}"#, [false; 7]),
            (r#"{"roomAdmin":false,"room":"a"}"#, [false; 7]),
        ];
        let rights = [
            Right::CreateRoom,
            Right::ListRooms,
            Right::ReadRoom("a"),
            Right::ChangeRoom("a"),
            Right::DeleteRoom("a"),
            Right::AdministerRoom("a"),
            Right::Account,
        ];
        for (json, expected) in cases {
            assert_eq!(rights.map(|right| includes(&grant(json), right)), expected, "{json}");
        }
    }
}
