//! Access tokens: JWTs as the LiveKit server SDKs mint them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::keys::Secrets;
use super::limits;
use crate::command::{Grants, Profile, Source};
use crate::config::Secret;
use crate::ids::{Identity, RoomName, Text};

/// How far the clocks of a token's maker and this machine may differ, in seconds.
const LEEWAY_S: u64 = 30;

/// The longest token that is read or made, in bytes: metadata and attributes at their limits, and room to spare.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// The sources a token can name.
const SOURCES: [(&str, Source); 4] = [
    ("camera", Source::Camera),
    ("microphone", Source::Microphone),
    ("screen_share", Source::ScreenShare),
    ("screen_share_audio", Source::ScreenShareAudio),
];

/// What a token says, as far as Stube reads it. It has no `Debug`: all of it is personal.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The API key.
    pub iss: String,
    /// The identity; empty in tokens of servers.
    #[serde(default)]
    pub sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub video: VideoGrant,
}

/// What a token allows.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_join: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_create: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_list: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_admin: Option<bool>,
    #[serde(flatten)]
    pub participant: GrantsPatch,
}

/// What a participant may do, every part optional: in tokens, in requests and on the command line.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "Grants")]
pub struct GrantsPatch {
    #[serde(alias = "can_publish", skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(alias = "can_subscribe", skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(alias = "can_publish_data", skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// An empty list allows every source, as with LiveKit. Words that name no source allow none.
    #[schemars(with = "Option<Vec<SourceWord>>")]
    #[serde(alias = "can_publish_sources", skip_serializing_if = "Option::is_none")]
    pub can_publish_sources: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
}

impl GrantsPatch {
    /// `grants` with the parts this names changed.
    pub fn apply(&self, grants: &Grants) -> Grants {
        let sources = self.can_publish_sources.as_ref().map(|words| (!words.is_empty()).then(|| read_sources(words)));
        Grants {
            can_publish: self.can_publish.unwrap_or(grants.can_publish),
            can_subscribe: self.can_subscribe.unwrap_or(grants.can_subscribe),
            can_publish_data: self.can_publish_data.unwrap_or(grants.can_publish_data),
            can_publish_sources: sources.unwrap_or_else(|| grants.can_publish_sources.clone()),
            hidden: self.hidden.unwrap_or(grants.hidden),
        }
    }

    /// All of `grants`, spelt out.
    pub fn of(grants: &Grants) -> Self {
        let words = |sources: &BTreeSet<Source>| {
            SOURCES.iter().filter(|(_, source)| sources.contains(source)).map(|(word, _)| (*word).to_owned()).collect()
        };
        Self {
            can_publish: Some(grants.can_publish),
            can_subscribe: Some(grants.can_subscribe),
            can_publish_data: Some(grants.can_publish_data),
            can_publish_sources: grants.can_publish_sources.as_ref().map(words),
            hidden: Some(grants.hidden),
        }
    }

    /// Checks the sources' words, which tokens of other makers need not pass.
    fn check(&self) -> Result<(), String> {
        let mut words = self.can_publish_sources.iter().flatten();
        match words.all(|word| SOURCES.iter().any(|(known, _)| known == word)) {
            true => Ok(()),
            false => Err("canPublishSources holds camera, microphone, screen_share, screen_share_audio".to_owned()),
        }
    }
}

/// A source that a token can name.
struct SourceWord;

impl JsonSchema for SourceWord {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SourceWord".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": SOURCES.map(|(word, _)| word)})
    }
}

/// [`GrantsPatch`] of a request, where a misspelt grant must not go unnoticed.
#[derive(Clone, Default)]
pub struct StrictGrants(pub GrantsPatch);

impl<'de> Deserialize<'de> for StrictGrants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const KNOWN: [&str; 5] = ["canPublish", "canSubscribe", "canPublishData", "canPublishSources", "hidden"];
        const SNAKE: [&str; 4] = ["can_publish", "can_subscribe", "can_publish_data", "can_publish_sources"];
        let map = serde_json::Map::deserialize(deserializer)?;
        let known = |key: &&String| KNOWN.contains(&key.as_str()) || SNAKE.contains(&key.as_str());
        if map.keys().any(|key| !known(&key)) {
            return Err(D::Error::custom(format!("unknown grant, expected {}", KNOWN.join(", "))));
        }
        let grants: GrantsPatch = serde_json::from_value(map.into()).map_err(D::Error::custom)?;
        grants.check().map_err(D::Error::custom)?;
        Ok(Self(grants))
    }
}

impl JsonSchema for StrictGrants {
    fn schema_name() -> Cow<'static, str> {
        "GrantsRequest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = GrantsPatch::json_schema(generator);
        schema.insert("description".to_owned(), "Those left out are as before, or as in tokens.".into());
        schema.insert("additionalProperties".to_owned(), false.into());
        schema
    }
}

fn read_sources(words: &[String]) -> BTreeSet<Source> {
    SOURCES.iter().filter(|(known, _)| words.iter().any(|word| word == known)).map(|(_, source)| *source).collect()
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet; compare the clocks")]
    NotYetValid,
    #[error("the token is not a JWT signed with HS256 by a known key, or lacks exp")]
    Invalid,
    #[error("the token's sub is not an identity of 1 to 128 characters")]
    Identity,
    #[error("the token's name, metadata or attributes are longer than allowed")]
    Profile,
    #[error("the token would be longer than {TOKEN_MAX_BYTES} bytes")]
    TooLong,
}

/// The `iss` of a token, unverified.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// Reads and verifies a token with the secret of its issuer.
pub fn verify(token: &str, keys: &Secrets) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(TokenError::Invalid);
    }
    // Unverified, and used for nothing but to find the key that verifies.
    let issuer: Issuer = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenError::Invalid)?;
    let secret = keys.get(&issuer.iss).ok_or(TokenError::Invalid)?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    // LiveKit's SDKs set no audience.
    validation.validate_aud = false;
    match jsonwebtoken::decode(token, &DecodingKey::from_secret(secret.as_bytes()), &validation) {
        // What its maker calls critical and we do not know (RFC 7515 §4.1.11): we know none.
        Ok(token) if token.header.crit.is_some() => Err(TokenError::Invalid),
        Ok(token) => Ok(token.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            _ => TokenError::Invalid,
        }),
    }
}

/// Signs claims, valid from `now` (seconds since 1970) for `ttl_s` seconds.
pub fn mint(claims: &Claims, secret: &Secret, now: u64, ttl_s: u64) -> Result<String, TokenError> {
    #[derive(Serialize)]
    struct Dated<'a> {
        #[serde(flatten)]
        claims: &'a Claims,
        nbf: u64,
        exp: u64,
    }
    let dated = Dated { claims, nbf: now, exp: now.saturating_add(ttl_s) };
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &dated, &key).map_err(|_| TokenError::Invalid)?;
    if token.len() > TOKEN_MAX_BYTES {
        return Err(TokenError::TooLong);
    }
    Ok(token)
}

impl Claims {
    /// Claims that let `profile` join `room`.
    pub fn for_join(key: &str, room: &str, profile: &Profile) -> Self {
        let attributes = profile.attributes.iter().map(|(k, v)| (k.clone(), v.as_str().to_owned())).collect();
        let unless_empty = |text: &Text| Some(text.as_str().to_owned()).filter(|text| !text.is_empty());
        Self {
            iss: key.to_owned(),
            sub: profile.identity.as_str().to_owned(),
            name: unless_empty(&profile.name),
            metadata: unless_empty(&profile.metadata),
            attributes: Some(attributes).filter(|attributes: &BTreeMap<_, _>| !attributes.is_empty()),
            video: VideoGrant {
                room: Some(room.to_owned()),
                room_join: Some(true),
                participant: GrantsPatch::of(&profile.grants),
                ..VideoGrant::default()
            },
        }
    }

    /// The room these claims allow to join, if any.
    pub fn joinable_room(&self) -> Option<RoomName> {
        let room = self.video.room.as_deref().filter(|room| !room.is_empty())?;
        (self.video.room_join == Some(true)).then(|| room.into())
    }

    /// Who would join.
    pub fn profile(&self) -> Result<Profile, TokenError> {
        limits::identity(&self.sub).map_err(|_| TokenError::Identity)?;
        let name = self.name.as_deref().unwrap_or_default();
        let metadata = self.metadata.as_deref().unwrap_or_default();
        let attributes = self.attributes.clone().unwrap_or_default();
        limits::display_name(name)
            .and_then(|()| limits::metadata(metadata))
            .and_then(|()| limits::attributes(&attributes))
            .map_err(|_| TokenError::Profile)?;
        Ok(Profile {
            identity: Identity::from(self.sub.as_str()),
            name: name.into(),
            metadata: metadata.into(),
            attributes: attributes.into_iter().map(|(key, value)| (key, value.into())).collect(),
            grants: self.video.participant.apply(&Grants::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::clock::Clock;

    const SECRET: &str = "a-secret-that-has-thirty-two-bytes";

    fn keys() -> Secrets {
        [("key".to_owned(), SECRET.into()), ("other".to_owned(), "another-secret-of-thirty-two-bytes".into())].into()
    }

    fn encode(algorithm: Algorithm, claims: &serde_json::Value, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("encodable")
    }

    fn outcome(token: &str) -> Option<TokenError> {
        verify(token, &keys()).err()
    }

    #[test]
    fn only_hs256_tokens_in_their_time_are_taken() {
        let now = Clock::start().unix_seconds();
        let claims = |iss: &str, exp: u64, nbf: u64| serde_json::json!({"iss": iss, "exp": exp, "nbf": nbf});
        let hs256 = |claims| encode(Algorithm::HS256, &claims, SECRET);
        assert_eq!(outcome(&hs256(claims("key", now + 60, now))), None);
        assert_eq!(outcome(&hs256(claims("key", now - 20, now - 60))), None, "leeway");
        assert_eq!(outcome(&hs256(claims("key", now - 40, now - 60))), Some(TokenError::Expired));
        assert_eq!(outcome(&hs256(claims("key", now + 60, now + 20))), None, "leeway");
        assert_eq!(outcome(&hs256(claims("key", now + 60, now + 50))), Some(TokenError::NotYetValid));
        assert_eq!(outcome(&hs256(claims("other", now + 60, now))), Some(TokenError::Invalid));
        assert_eq!(outcome(&hs256(claims("../key", now + 60, now))), Some(TokenError::Invalid));
        assert_eq!(outcome(&hs256(serde_json::json!({"iss": "key"}))), Some(TokenError::Invalid), "no exp");
        assert_eq!(outcome(&hs256(serde_json::json!({"exp": now + 60}))), Some(TokenError::Invalid), "no iss");
        let wrong_type = serde_json::json!({"iss": "key", "exp": now + 60, "video": {"roomJoin": "yes"}});
        assert_eq!(outcome(&hs256(wrong_type)), Some(TokenError::Invalid));
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(outcome(&encode(algorithm, &claims("key", now + 60, now), SECRET)), Some(TokenError::Invalid));
        }
        let critical = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let critical = jsonwebtoken::encode(&critical, &claims("key", now + 60, now), &key).expect("a token");
        assert_eq!(outcome(&critical), Some(TokenError::Invalid), "a critical header nobody knows");
        // {"alg":"none"} and no signature.
        let valid = hs256(claims("key", now + 60, now));
        let payload = valid.split('.').nth(1).unwrap_or_default();
        assert_eq!(outcome(&format!("eyJhbGciOiJub25lIn0.{payload}.")), Some(TokenError::Invalid));
        for garbage in ["", ".", "..", "a.b.c", &"a".repeat(TOKEN_MAX_BYTES + 1)] {
            assert_eq!(outcome(garbage), Some(TokenError::Invalid));
        }
    }

    #[test]
    fn grants_default_to_yes_and_sources_to_all() {
        let grants = |json: serde_json::Value| {
            let grant: VideoGrant = serde_json::from_value(json).expect("a grant");
            grant.participant.apply(&Grants::default())
        };
        assert_eq!(grants(serde_json::json!({"room": "r", "agent": true})), Grants::default());
        assert!(!grants(serde_json::json!({"canPublish": false})).can_publish);
        assert_eq!(grants(serde_json::json!({"canPublishSources": []})).can_publish_sources, None);
        let only = grants(serde_json::json!({"canPublishSources": ["microphone", "hologram"]}));
        assert_eq!(only.can_publish_sources, Some([Source::Microphone].into()));
        let none = grants(serde_json::json!({"canPublishSources": ["hologram"]}));
        assert!(!none.allows(Source::Camera));
        for misspelt in [r#"{"canPublsh":false}"#, r#"{"canPublishSources":["hologram"]}"#, r#"{"hidden":1}"#] {
            assert!(serde_json::from_str::<StrictGrants>(misspelt).is_err(), "{misspelt}");
        }
        let snake: StrictGrants = serde_json::from_str(r#"{"can_publish":false}"#).expect("known");
        assert_eq!(snake.0.can_publish, Some(false));
        let all = GrantsPatch::of(&only).apply(&Grants::default());
        assert_eq!(all, only);
    }

    #[test]
    fn minted_tokens_verify_and_keep_their_profile() {
        let profile = Profile {
            identity: "ada".into(),
            name: "Ada".into(),
            metadata: "m".into(),
            attributes: [("hat".to_owned(), "red".into())].into(),
            grants: Grants { can_publish: false, hidden: true, ..Grants::default() },
        };
        let now = Clock::start().unix_seconds();
        let token = mint(&Claims::for_join("key", "hall", &profile), &SECRET.into(), now, 60).expect("short");
        let claims = verify(&token, &keys()).expect("valid");
        assert_eq!(claims.joinable_room(), Some("hall".into()));
        let read = claims.profile().expect("valid");
        assert_eq!((read.identity, read.name, read.metadata), (profile.identity, profile.name, profile.metadata));
        assert_eq!((read.attributes, read.grants), (profile.attributes, profile.grants));
    }
}
