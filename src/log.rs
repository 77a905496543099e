//! What is logged, and how it looks.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, reload};

use crate::config::{ConfigError, LogFormat};
use crate::traces::{self, Traces};

/// Libraries whose messages at WARN and INFO can hold addresses or SDP. They speak only when the operator asks for
/// DEBUG or names them.
const TALKATIVE: [&str; 12] = [
    "str0m",
    "str0m_proto",
    "is",
    "dimpl",
    "sctp_proto",
    "quinn_udp",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "sqlx",
];

/// Changes what is logged.
pub type LogTo = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// What to log, as `log.level` says.
pub fn filter(level: &str) -> Result<EnvFilter, ConfigError> {
    let wrong = || ConfigError::Key {
        key: "log.level".to_owned(),
        problem: "expected error, warn, info, debug, trace, or directives such as \"info,stube::control=debug\""
            .to_owned(),
    };
    // A word without `=` must be a level: EnvFilter would take a misspelt one for a module and log nothing.
    let is_level = |word: &str| matches!(word, "error" | "warn" | "info" | "debug" | "trace" | "off");
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    if words.iter().any(|word| !word.contains('=') && !is_level(&word.to_lowercase())) {
        return Err(wrong());
    }
    let verbose = words.iter().any(|word| matches!(word.to_lowercase().as_str(), "debug" | "trace"));
    let quiet = TALKATIVE.iter().filter(|library| !verbose && !level.contains(*library));
    let directives = quiet.fold(level.to_owned(), |all, library| format!("{all},{library}=off"));
    // Spans that are sent elsewhere.
    let directives = format!("{directives},{}=off", traces::TARGET);
    EnvFilter::try_new(directives).map_err(|_| wrong())
}

/// Starts logging to standard error, and sending `traces`; gives back how to log other things. Panics are logged by their
/// place alone: their message may hold anything.
pub fn start(filter: EnvFilter, format: LogFormat, traces: Option<&Traces>) -> LogTo {
    let (filter, handle) = reload::Layer::new(filter);
    // Colours are for a terminal; in a file or the journal they are noise.
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.map(Traces::layer)).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread = std::thread::current().name(), "panicked");
    }));
    // A filter that is gone belongs to a process that ends.
    Box::new(move |filter| drop(handle.reload(filter)))
}
