//! `stube doctor`: what goes wrong in practice, looked for, with what to do about it.
//!
//! `observe` looks; the judges (`network`, `machine`, `services`) are functions of what was seen. A check is one
//! judge and its line in `CHECKS`.

mod finding;
mod machine;
mod network;
mod observe;
mod relay;
mod services;

use std::io::IsTerminal as _;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::config::{Config, ConfigError};
use crate::ledger::state_directory;
use crate::log;
use crate::table;
use crate::tls::{self, Certificate};
use crate::traces;
use crate::webhook::Endpoints;
use finding::{Finding, Verdict};
use observe::Observations;

/// How wide the names of checks are.
const NAME_WIDTH: usize = 13;
/// Ends a colour.
const PLAIN: &str = "\u{1b}[0m";

/// `stube doctor`
#[derive(Debug, Args)]
pub struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A check: its name, whether it is made at the start of a server too, and its judge.
type Check = (&'static str, AtStart, fn(&Observations) -> Vec<Finding>);

/// Whether a server looks at it when it starts. What is not observed then has no finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtStart {
    Yes,
    /// It would end the start anyway, is said there by others, or asks elsewhere.
    No,
}

const CHECKS: [Check; 16] = [
    ("server", AtStart::No, services::server),
    ("keys", AtStart::No, services::keys),
    ("ports", AtStart::No, network::ports),
    ("admin", AtStart::Yes, network::admin),
    ("addresses", AtStart::Yes, network::addresses),
    ("buffers", AtStart::No, network::buffers),
    ("offload", AtStart::Yes, network::offload),
    ("files", AtStart::Yes, machine::open_files),
    ("clock", AtStart::Yes, machine::clock),
    ("disk", AtStart::Yes, machine::disk),
    ("ledger", AtStart::No, services::ledger),
    ("webhooks", AtStart::No, services::webhooks),
    ("public_url", AtStart::No, network::public_url),
    ("domains", AtStart::No, network::domains),
    ("certificate", AtStart::No, services::certificate),
    ("ice_servers", AtStart::No, services::ice_servers),
];

/// Something is wrong, as the report says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failed} of {all} checks failed")]
pub struct Troubled {
    failed: usize,
    all: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    findings: Vec<Named>,
    /// What no look from here can tell.
    not_checked: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Named {
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// What to print, and whether all is well.
pub struct Examination {
    pub text: String,
    pub result: Result<(), Trouble>,
}

/// Why a machine is not well.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Checks(#[from] Troubled),
}

/// Examines this machine and its configuration, which was read from `path`.
pub async fn examine(options: &Options, path: &Path, config: Result<Config, ConfigError>) -> Examination {
    let written = |report: &Report| match options.json {
        true => table::plain_json(&(serde_json::to_string_pretty(report).unwrap_or_default() + "\n")),
        false => said(report, std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()),
    };
    let Checked { config, endpoints, .. } = match config.and_then(checked) {
        Ok(checked) => checked,
        Err(error) => {
            let finding = Finding::fail(error.to_string(), "mend the configuration; nothing else was checked");
            let findings = vec![Named { check: "configuration", finding }];
            let report = Report { verdict: Verdict::Fail, findings, not_checked: Vec::new() };
            return Examination { text: written(&report), result: Err(error.into()) };
        }
    };
    let seen = Observations::all(&config, endpoints).await;
    let valid = Named { check: "configuration", finding: Finding::ok(format!("{} is valid", path.display())) };
    let judged =
        CHECKS.iter().flat_map(|(check, _, judge)| judge(&seen).into_iter().map(|finding| Named { check, finding }));
    let findings: Vec<Named> = std::iter::once(valid).chain(judged).collect();
    let verdict = findings.iter().map(|named| named.finding.verdict).max().unwrap_or(Verdict::Ok);
    let failed = findings.iter().filter(|named| named.finding.verdict == Verdict::Fail).count();
    let all = findings.len();
    let report = Report { verdict, findings, not_checked: vec![network::unproven(&seen)] };
    let result = if failed == 0 { Ok(()) } else { Err(Troubled { failed, all }.into()) };
    Examination { text: written(&report), result }
}

/// A configuration with which a server would start, and what came of looking at it.
pub struct Checked {
    pub config: Config,
    pub certificate: Option<Certificate>,
    endpoints: Endpoints,
}

/// Refuses what the start of a server would refuse.
pub fn checked(config: Config) -> Result<Checked, ConfigError> {
    log::filter(&config.log.level)?;
    traces::check(&config.traces)?;
    let certificate = tls::read(&config)?;
    let endpoints = Endpoints::check(&config.webhook, &config.keys, config.privacy.allow_private_webhooks)?;
    Ok(Checked { config, certificate, endpoints })
}

/// Warns in the log of what a server that has started should be told, a line each. Addresses stay out of it.
pub fn warn_at_start(config: &Config) {
    let seen = Observations::local(config, &state_directory());
    for (check, _, judge) in CHECKS.iter().filter(|(_, at_start, _)| *at_start == AtStart::Yes) {
        for advice in judge(&seen).into_iter().filter_map(|finding| finding.advice) {
            tracing::warn!(check, "{advice}; `stube doctor` says more");
        }
    }
}

/// A report for people.
fn said(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    for Named { check, finding } in &report.findings {
        let word = finding.verdict.as_str();
        let verdict = match colours {
            true => format!("{}{word:<4}{PLAIN}", finding.verdict.colour()),
            false => format!("{word:<4}"),
        };
        text.push_str(&format!("{verdict}  {check:<NAME_WIDTH$}  {}\n", table::plain(&finding.seen)));
        if let Some(advice) = finding.advice {
            text.push_str(&format!("      {:<NAME_WIDTH$}  → {advice}\n", ""));
        }
    }
    for not_checked in &report.not_checked {
        text.push_str(&format!("\nNot checked: {not_checked}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_lines_with_what_to_do() {
        let finding = Finding::fail("a\u{1b}[2Jb", "mend it");
        let findings = vec![Named { check: "ports", finding: Finding::ok("free") }, Named { check: "clock", finding }];
        let report = Report { verdict: Verdict::Fail, findings, not_checked: vec!["the rest.".to_owned()] };
        assert_eq!(
            said(&report, false),
            "ok    ports          free\nFAIL  clock          a\u{fffd}[2Jb\n                     → mend it\n\n\
             Not checked: the rest.\n"
        );
        assert!(said(&report, true).starts_with("\u{1b}[32mok  \u{1b}[0m  ports"));
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["findings"][1]["check"], "clock");
        assert_eq!((&json["verdict"], &json["findings"][1]["advice"]), (&"fail".into(), &"mend it".into()));
    }

    #[test]
    fn checks_have_names_of_their_own() {
        let mut names: Vec<_> = CHECKS.iter().map(|(name, ..)| *name).collect();
        assert!(names.iter().all(|name| name.len() <= NAME_WIDTH));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn what_was_not_observed_has_no_finding() {
        let nothing = Observations::default();
        let found: Vec<_> = CHECKS.iter().filter(|(_, _, judge)| !judge(&nothing).is_empty()).collect();
        assert_eq!(found.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
