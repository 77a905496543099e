//! `[[webhook]]`: who is told what happens.

use serde::Deserialize;

use super::Secret;

/// One receiver of events. It has no `Debug`: people put secrets into URLs too.
///
/// What its values may be is checked by `webhook::Endpoints::check`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where events are posted: `https://…`, or `http://…` on a loopback host.
    pub url: String,
    /// `whsec_` and base64, or any other text of at least 24 bytes; see `webhook::signature` for which key that makes.
    pub secret: Secret,
    /// The API key whose events it gets; absent: those of all.
    #[serde(default)]
    pub key: Option<String>,
}
