//! `[log]` and `[traces]`: what is written and sent of what the server does.

use serde::Deserialize;

/// What is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
}

/// What is sent to an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Empty: nothing is.
    pub endpoint: String,
    /// The share of requests, 0 to 1.
    pub ratio: f64,
}

impl Eq for TracesConfig {}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: String::new(), ratio: 1.0 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
