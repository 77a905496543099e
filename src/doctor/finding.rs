//! What a check came to, and how it is told.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// It works, but worse than it could, or only perhaps.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// What is the case. It may hold addresses of this machine.
    pub seen: String,
    /// What to do. It holds none, for the log repeats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

impl Finding {
    /// As it should be.
    pub fn ok(seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, seen: seen.into(), advice: None }
    }

    /// Worth a look.
    pub fn warn(seen: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Warn, seen: seen.into(), advice: Some(advice) }
    }

    /// To be mended.
    pub fn fail(seen: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Fail, seen: seen.into(), advice: Some(advice) }
    }
}

impl Verdict {
    /// The word that a line begins with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    /// As a terminal's colour (ECMA-48, SGR).
    pub fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\u{1b}[32m",
            Self::Warn => "\u{1b}[33m",
            Self::Fail => "\u{1b}[1;31m",
        }
    }
}
