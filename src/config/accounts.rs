//! What is counted and kept of calls, and for how long.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, seconds, wrong};

/// The longest `ledger.checkpoint_s`: what a crash may cost each session.
const CHECKPOINT_MAX_S: u64 = 60;

/// How long records with a person may be kept without a `legal_basis_note`, in days: the promise that the product's
/// users were given.
const RECORD_RETENTION_MAX_D: u32 = 14;

/// The same with a note: ten years, the longest duty to keep books (§ 147 AO).
const RECORD_RETENTION_NOTED_MAX_D: u32 = 3_653;

/// How long whole addresses may be kept at most, in days: what courts let providers keep against attacks.
const FULL_ADDRESS_RETENTION_MAX_D: u32 = 7;

/// How long sums may be kept at most, in days: ten years.
const SUM_RETENTION_MAX_D: u32 = 3_653;

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// `sqlite://FILE` or `postgres://…`. It may hold a password, so it has no place in a log.
    pub url: DatabaseUrl,
    #[serde(rename = "checkpoint_s", deserialize_with = "seconds")]
    pub checkpoint: Duration,
    /// What this server is called in a database it shares with others; empty takes the host's name.
    pub node: String,
}

/// A database's URL. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL itself, password included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<database>")
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            url: DatabaseUrl("sqlite://stube.db".to_owned()),
            checkpoint: Duration::from_secs(10),
            node: String::new(),
        }
    }
}

impl LedgerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let url = self.url.as_str();
        if !["sqlite://", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong("ledger.url", "expected sqlite://FILE or postgres://…"));
        }
        if !(1..=CHECKPOINT_MAX_S).contains(&self.checkpoint.as_secs()) {
            return Err(wrong("ledger.checkpoint_s", format!("expected 1 to {CHECKPOINT_MAX_S} seconds")));
        }
        Ok(())
    }
}

/// How much of a client's address a record keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpMode {
    /// Nothing.
    None,
    /// The network: /24 of IPv4, /48 of IPv6.
    #[default]
    Prefix,
    /// A keyed hash, which tells the same client within a day and nothing after.
    Hmac,
    /// The whole address.
    Full,
}

impl IpMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Prefix, Self::Hmac, Self::Full];

    /// The word of the configuration and of records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix => "prefix",
            Self::Hmac => "hmac",
            Self::Full => "full",
        }
    }

    /// The mode of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

/// What is kept of people, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyConfig {
    pub ip_mode: IpMode,
    /// Days after its end until a record goes.
    pub record_retention_d: u32,
    /// Days after its end until a record loses a whole address.
    pub full_address_retention_d: u32,
    /// Days that sums, which know no person, are kept.
    pub sum_retention_d: u32,
    /// Why records are kept for longer than is usual.
    pub legal_basis_note: String,
    /// Whether webhooks may reach private addresses.
    pub allow_private_webhooks: bool,
    /// Whether identities may look like an e-mail address or a phone number.
    pub allow_personal_identities: bool,
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        Self {
            ip_mode: IpMode::Prefix,
            record_retention_d: 7,
            full_address_retention_d: 1,
            sum_retention_d: 396,
            legal_basis_note: String::new(),
            allow_private_webhooks: false,
            allow_personal_identities: false,
        }
    }
}

impl PrivacyConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let noted = !self.legal_basis_note.trim().is_empty();
        let records_max = if noted { RECORD_RETENTION_NOTED_MAX_D } else { RECORD_RETENTION_MAX_D };
        if self.record_retention_d > records_max {
            let problem = match noted {
                true => format!("expected at most {records_max} days"),
                false => format!("expected at most {records_max} days; for longer, set privacy.legal_basis_note"),
            };
            return Err(wrong("privacy.record_retention_d", problem));
        }
        for (key, days, min, max) in [
            ("privacy.full_address_retention_d", self.full_address_retention_d, 0, FULL_ADDRESS_RETENTION_MAX_D),
            ("privacy.sum_retention_d", self.sum_retention_d, 32, SUM_RETENTION_MAX_D),
        ] {
            if !(min..=max).contains(&days) {
                return Err(wrong(key, format!("expected {min} to {max} days")));
            }
        }
        Ok(())
    }
}
