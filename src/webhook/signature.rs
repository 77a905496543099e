//! How a receiver knows that an event is ours: two signatures, either of which is enough.
//!
//! - Standard Webhooks 1.0: HMAC-SHA256 over id, timestamp and body with the webhook's own secret, in the header
//!   `webhook-signature`.
//! - What the receivers of the LiveKit server SDKs check: a JWT in `Authorization`, without a scheme in front, signed
//!   with the tenant's API secret, whose claim `sha256` is the body's digest.
//!
//! A secret that begins with `whsec_` is base64 of the key. Any other text is the key itself, byte for byte. The
//! libraries of Standard Webhooks, though, base64-decode what they are given unless told otherwise (npm:
//! `{format: "raw"}`, PyPI: `secret.encode()`), so a text that can be read as base64 makes a second signature with what
//! it decodes to; the header is a list, and one match is enough. So the text of the configuration verifies in a library
//! as it is, or, if it is not base64, as raw bytes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::config::Secret;

/// The media type of an event (Standard Webhooks has none of its own; LiveKit's is this).
pub const CONTENT_TYPE: &str = "application/webhook+json";

/// What a secret in base64 begins with (Standard Webhooks 1.0, "Signature scheme").
const SECRET_PREFIX: &str = "whsec_";

/// The shortest secret, in bytes: 192 bits (Standard Webhooks 1.0, "Signature scheme").
pub const SECRET_MIN_BYTES: usize = 24;

/// How long a LiveKit token is valid, in seconds; theirs are as long.
const TOKEN_LIFETIME_S: u64 = 5 * 60;

/// How far a receiver's clock may be behind, in seconds: as much as we allow in tokens.
const TOKEN_LEEWAY_S: u64 = 30;

/// Base64 as libraries read it: with or without padding, whatever the last bits are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a secret cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("what follows whsec_ is not base64")]
    NotBase64,
    #[error("expected whsec_ and base64 of at least {SECRET_MIN_BYTES} bytes, or other text of at least as many")]
    Short,
}

/// The keys that one secret stands for: one, or two where it can be read in two ways. It has no `Debug`.
#[derive(Clone)]
pub struct SigningKeys(Vec<hmac::Key>);

impl SigningKeys {
    /// The keys of a configured secret.
    pub fn read(secret: &Secret) -> Result<Self, SecretError> {
        let text = secret.as_bytes();
        let keys = match text.strip_prefix(SECRET_PREFIX.as_bytes()) {
            Some(encoded) => vec![LENIENT.decode(encoded).map_err(|_| SecretError::NotBase64)?],
            None => [Some(text.to_vec()), LENIENT.decode(text).ok()].into_iter().flatten().collect(),
        };
        if keys.first().is_none_or(|key| key.len() < SECRET_MIN_BYTES) {
            return Err(SecretError::Short);
        }
        Ok(Self(keys.iter().map(|key| hmac::Key::new(HMAC_SHA256, key)).collect()))
    }

    /// The header `webhook-signature` for an attempt at `now_s`, in seconds since 1970.
    pub fn sign(&self, id: &str, now_s: u64, body: &str) -> String {
        let signed = format!("{id}.{now_s}.{body}");
        let sign = |key| format!("v1,{}", STANDARD.encode(hmac::sign(key, signed.as_bytes())));
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// The claims a LiveKit receiver looks at. No grants: the token opens nothing on our own side.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    nbf: u64,
    exp: u64,
    sha256: String,
}

/// The header `Authorization` for an attempt at `now_s`, in seconds since 1970. Fails only if the signing library does.
pub fn livekit_token(
    key: &str,
    secret: &Secret,
    body: &str,
    now_s: u64,
) -> Result<String, jsonwebtoken::errors::Error> {
    let claims = Claims {
        iss: key,
        nbf: now_s.saturating_sub(TOKEN_LEEWAY_S),
        exp: now_s + TOKEN_LIFETIME_S,
        sha256: STANDARD.encode(digest(&SHA256, body.as_bytes())),
    };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    fn keys(secret: &str) -> Result<SigningKeys, SecretError> {
        SigningKeys::read(&secret.into())
    }

    #[test]
    fn the_signature_is_that_of_the_libraries_own_tests() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").map(|keys| keys.sign(id, 1_614_265_330, body));
        assert_eq!(signed.as_deref(), Ok(signature));
    }

    #[test]
    fn a_secret_that_can_be_read_twice_signs_twice() {
        let plain = "a plain secret of the map service";
        let base64 = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let sign = |secret: &str| keys(secret).map(|keys| keys.sign("EV_1", 7, "{}")).unwrap_or_default();
        let prefixed = |bytes: &[u8]| sign(&format!("whsec_{}", STANDARD.encode(bytes)));
        assert_eq!(sign(plain), prefixed(plain.as_bytes()));
        let both = format!("{} {}", prefixed(base64.as_bytes()), sign(&format!("whsec_{base64}")));
        assert_eq!(sign(base64), both);
        assert_eq!(both.split(' ').count(), 2);
    }

    #[test]
    fn secrets_are_long_enough_and_well_written() {
        for (secret, fault) in [
            ("", Some(SecretError::Short)),
            ("whsec_", Some(SecretError::Short)),
            ("exactly-23-bytes-of-key", Some(SecretError::Short)),
            ("exactly-24-bytes-of-key!", None),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaQ=", Some(SecretError::Short)),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMQ", None),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMQ==", None),
            ("whsec_not-base64-not-base64-not-base64", Some(SecretError::NotBase64)),
        ] {
            assert_eq!(keys(secret).err(), fault, "{secret}");
        }
    }

    #[test]
    fn a_token_names_the_key_the_time_and_the_body() {
        let secret = Secret::from("secret-of-the-map-service-32-bytes");
        let token = livekit_token("mapService", &secret, "{}", 1_000_000).expect("a token");
        let mut validation = Validation::new(Algorithm::HS256);
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let key = DecodingKey::from_secret(secret.as_bytes());
        let read = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).expect("signed with it");
        let expected = serde_json::json!({
            "iss": "mapService", "nbf": 999_970, "exp": 1_000_300,
            "sha256": "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=",
        });
        assert_eq!(read.claims, expected);
        assert!(!token.starts_with("Bearer"));
    }
}
