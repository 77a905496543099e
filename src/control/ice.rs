//! The ICE servers that clients are told of, with credentials that expire.
//!
//! TURN servers that share a secret with us take `expiry:anything` for a username and its HMAC for a password
//! (draft-uberti-behave-turn-rest-00 §2.2; coturn's `use-auth-secret`), so nothing of a person gets into their logs.

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY};
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::App;
use crate::config::{IceServerConfig, IceUrl};
use crate::ids::Kind;

/// One entry of `RTCConfiguration.iceServers` (W3C WebRTC §4.2.3).
#[derive(Serialize, JsonSchema, PartialEq, Eq)]
pub struct IceServer {
    urls: Vec<String>,
    #[serde(flatten)]
    credentials: Option<Credentials>,
}

/// What a TURN server wants to see.
#[derive(Clone, Serialize, JsonSchema, PartialEq, Eq)]
pub struct Credentials {
    /// When they expire, in Unix seconds, a colon, and something random.
    pub username: String,
    pub credential: String,
}

/// Names a set of TURN credentials; nothing remembers it.
enum RelayKind {}

impl Kind for RelayKind {
    const PREFIX: &'static str = "IC";
}

/// The configured servers, with fresh credentials.
pub fn servers(app: &App) -> Vec<IceServer> {
    let config = app.config();
    let now_s = app.clock.unix_seconds();
    let server = |server: &IceServerConfig| server_of(server, now_s, &app.id::<RelayKind>().to_string());
    config.ice_server.iter().map(server).collect()
}

fn server_of(server: &IceServerConfig, now_s: u64, random: &str) -> IceServer {
    let urls = server.urls.iter().map(IceUrl::as_str).map(str::to_owned).collect();
    IceServer { urls, credentials: credentials(server, now_s, random) }
}

/// Credentials that are taken from now until they expire; none for STUN.
pub fn credentials(server: &IceServerConfig, now_s: u64, random: &str) -> Option<Credentials> {
    server.secret.as_ref().map(|secret| {
        let username = format!("{}:{random}", now_s + server.ttl.as_secs());
        let key = hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let credential = BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        Credentials { username, credential }
    })
}

/// One `Link` header for each URL: of several in one line, some WHIP clients see but the first.
pub fn links(servers: &[IceServer]) -> Vec<HeaderValue> {
    let link = |url: &String, credentials: &Option<Credentials>| match credentials {
        None => format!("<{url}>; rel=\"ice-server\""),
        Some(Credentials { username, credential }) => format!(
            "<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"; \
             credential-type=\"password\""
        ),
    };
    let lines = servers.iter().flat_map(|server| server.urls.iter().map(|url| link(url, &server.credentials)));
    // URLs are checked to be plain ASCII; the rest is ours.
    lines.filter_map(|line| HeaderValue::try_from(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn credentials_are_what_coturn_expects() {
        let text = "[[ice_server]]\nurls = [\"stun:a\"]\n[[ice_server]]\n\
                    urls = [\"turn:b?transport=udp\", \"turns:b:443?transport=tcp\"]\nsecret = \"north\"\nttl_s = 600";
        let config = Config::parse(text, std::iter::empty()).unwrap_or_else(|error| panic!("{error}"));
        let servers: Vec<_> = config.ice_server.iter().map(|server| server_of(server, 1_400_000_000, "IC_x")).collect();
        // printf 1400000600:IC_x | openssl dgst -sha1 -hmac north -binary | base64
        let password = "HwxFZAFLeDPA8hgwRfFJ+9cmOsQ=";
        assert_eq!(
            serde_json::to_value(&servers).unwrap_or_default(),
            serde_json::json!([
                {"urls": ["stun:a"]},
                {
                    "urls": ["turn:b?transport=udp", "turns:b:443?transport=tcp"],
                    "username": "1400000600:IC_x", "credential": password,
                },
            ])
        );
        let credentials =
            format!("username=\"1400000600:IC_x\"; credential=\"{password}\"; credential-type=\"password\"");
        assert_eq!(
            links(&servers),
            [
                "<stun:a>; rel=\"ice-server\"".to_owned(),
                format!("<turn:b?transport=udp>; rel=\"ice-server\"; {credentials}"),
                format!("<turns:b:443?transport=tcp>; rel=\"ice-server\"; {credentials}"),
            ]
        );
    }
}
