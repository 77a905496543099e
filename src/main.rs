//! The command line: `stube serve`, `stube check-config`, `stube token`, `stube rooms`, `stube participants`,
//! `stube node`, `stube doctor`, `stube usage`, `stube audit verify`, `stube load`; and `stube generate`, which packages call.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::iter_over_hash_type, clippy::string_slice))]
#![cfg_attr(not(test), warn(clippy::panic_in_result_fn, clippy::print_stderr, clippy::print_stdout))]

mod generate;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use stube::command::{Grants, Profile};
use stube::config::{Config, ConfigError, SHIPPED};
use stube::control::clock::Clock;
use stube::control::limits;
use stube::control::token::{self, Claims, StrictGrants};
use stube::doctor::{self, Checked};
use stube::load;
use stube::log;
use stube::remote::{self, Failure, Order};
use stube::run::{self, Process, StartError};
use stube::statement;
use stube::tls;
use stube::traces;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// Threads for HTTP. Media has its own, one a core; control needs little.
const CONTROL_THREADS: usize = 2;

/// A selective forwarding media server for calls in bubbles and meetings.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "config.toml", env = "STUBE_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the server (the default).
    Serve(ServeArgs),
    /// Read the configuration, say whether it is valid, and start nothing.
    CheckConfig,
    /// Print a token with which a participant can join a room.
    Token(TokenArgs),
    /// The rooms of a running server.
    Rooms(remote::Rooms),
    /// Who is in a room of a running server.
    Participants(remote::Participants),
    /// Look for what goes wrong in practice, and say what to do.
    Doctor(doctor::Options),
    /// A running server itself: how it does, draining, reloading.
    Node(remote::Node),
    /// Print what a tenant has used, from the ledger.
    Usage(statement::Options),
    /// The audit log of exports, erasures and sweeps.
    Audit {
        #[command(subcommand)]
        command: AuditCommands,
    },
    /// Play many participants against a server and report what it cost and what arrived.
    Load(Box<load::Options>),
    /// Write man pages or shell completions into a folder.
    #[command(hide = true)]
    Generate {
        #[command(subcommand)]
        pages: generate::Pages,
    },
}

#[derive(Subcommand)]
enum AuditCommands {
    /// Check that nothing of it was changed.
    Verify,
}

#[derive(Args, Default)]
struct ServeArgs {
    /// On SIGHUP, read this file instead if it exists. systemd hands credentials out at the start alone, so its unit puts
    /// the file as it has become there.
    #[arg(long, value_name = "FILE")]
    reload_from: Option<PathBuf>,
}

#[derive(Args)]
struct TokenArgs {
    #[arg(long)]
    room: String,
    #[arg(long)]
    identity: String,
    /// Seconds until the token expires; a week at most.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    ttl: u64,
    /// The name others see.
    #[arg(long, default_value = "")]
    name: String,
    /// What to allow or forbid: canPublish=false,canSubscribe=…,canPublishData=…,hidden=…,canPublishSources=camera+microphone
    #[arg(long, default_value = "", value_parser = parse_grants)]
    grants: StrictGrants,
    /// The API key to sign with; the first one unless given.
    #[arg(long)]
    key: Option<String>,
}

#[expect(clippy::print_stderr, reason = "why the process ends, for whoever started it")]
fn main() -> ExitCode {
    let Err(error) = dispatch(Cli::parse()) else { return ExitCode::SUCCESS };
    eprintln!("stube: {}", told(&error));
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return ExitCode::from(failure.exit_status());
    }
    let of_start = error.downcast_ref::<StartError>().is_some_and(StartError::is_config);
    match of_start || error.is::<ConfigError>() {
        true => ExitCode::from(EXIT_CONFIG),
        false => ExitCode::FAILURE,
    }
}

/// An error, and of what led to it that which it does not tell itself.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let path = cli.config;
    match cli.command.unwrap_or_else(|| Subcommands::Serve(ServeArgs::default())) {
        Subcommands::Serve(arguments) => serve(path, arguments),
        Subcommands::CheckConfig => {
            let Checked { config, certificate, .. } = doctor::checked(Config::load(&path, environment())?)?;
            if let Some(certificate) = certificate {
                tls::check_dates(&config, &certificate, Clock::start().unix_seconds())?;
            }
            println!("{}: valid", path.display());
            Ok(())
        }
        Subcommands::Token(arguments) => print_token(&valid(&path)?, arguments),
        // These need no configuration if they are told enough: the server may be elsewhere.
        Subcommands::Rooms(rooms) => ask(Order::Rooms(rooms), &path),
        Subcommands::Participants(participants) => ask(Order::Participants(participants), &path),
        Subcommands::Node(node) => ask(Order::Node(node), &path),
        Subcommands::Doctor(options) => examine(&options, &path),
        Subcommands::Usage(options) => {
            print!("{}", small_runtime()?.block_on(statement::usage(&valid(&path)?, &options))?);
            Ok(())
        }
        Subcommands::Audit { command: AuditCommands::Verify } => {
            print!("{}", small_runtime()?.block_on(statement::verify_audit(&valid(&path)?))?);
            Ok(())
        }
        Subcommands::Load(options) => load::run(&options, found_or_shipped(&path)),
        Subcommands::Generate { pages } => generate::write(&pages, Cli::command()),
    }
}

/// The configuration, whose log level is one.
fn valid(path: &Path) -> Result<Config, ConfigError> {
    let config = Config::load(path, environment())?;
    log::filter(&config.log.level)?;
    Ok(config)
}

/// The configuration; where there is no file, that which is shipped.
fn found_or_shipped(path: &Path) -> Result<Config, ConfigError> {
    match Config::load(path, environment()) {
        Err(ConfigError::Unreadable { .. }) if matches!(path.try_exists(), Ok(false)) => {
            Config::parse(SHIPPED, environment())
        }
        found => found,
    }
}

fn serve(path: PathBuf, arguments: ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(&path, environment())?;
    let filter = log::filter(&config.log.level)?;
    let now_at = Arc::new(move || {
        let later = arguments.reload_from.as_ref().filter(|later| later.exists());
        later.unwrap_or(&path).clone()
    });
    let (at, source_path) = (Arc::clone(&now_at), Box::new(move || now_at()));
    let source = Box::new(move || Config::load(&at(), environment()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the HTTP threads")?;
    let traces = traces::start(&config.traces, runtime.handle())?;
    let process = Process {
        source,
        source_path: Some(source_path),
        log_to: log::start(filter, config.log.format, traces.as_ref()),
    };
    let result = runtime.block_on(run::serve(config, process));
    if let Some(traces) = traces {
        traces.stop();
    }
    // Whatever still hangs has had its time.
    runtime.shutdown_background();
    result
}

/// The environment. A variable that is not UTF-8 is none of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

/// For a command that asks the database something and ends.
fn small_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

fn examine(options: &doctor::Options, path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path, environment());
    let doctor::Examination { text, result } = small_runtime()?.block_on(doctor::examine(options, path, config));
    print_answer(&text);
    match result {
        Err(doctor::Trouble::Config(error)) => Err(error.into()),
        other => Ok(other?),
    }
}

/// Prints what a command answers. Whoever closed our output does not want to know.
fn print_answer(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Has a running server do something.
fn ask(order: Order, path: &Path) -> anyhow::Result<()> {
    let said = small_runtime()?.block_on(remote::run(order, Config::load(path, environment())))?;
    print_answer(&said);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn print_token(config: &Config, args: TokenArgs) -> anyhow::Result<()> {
    let (key, secret) = config.key_or_first(args.key.as_deref())?;
    limits::room_name(&args.room).map_err(|problem| anyhow!("--room: {problem}"))?;
    limits::identity(&args.identity).map_err(|problem| anyhow!("--identity: {problem}"))?;
    limits::display_name(&args.name).map_err(|problem| anyhow!("--name: {problem}"))?;
    let profile = Profile {
        identity: args.identity.into(),
        name: args.name.into(),
        metadata: "".into(),
        attributes: [].into(),
        grants: args.grants.0.apply(&Grants::default()),
    };
    let now = Clock::start().unix_seconds();
    println!("{}", token::mint(&Claims::for_join(key, &args.room, &profile), secret, now, args.ttl)?);
    Ok(())
}

/// Reads `canPublish=false,canPublishSources=camera+microphone`.
fn parse_grants(text: &str) -> Result<StrictGrants, String> {
    let mut grants = serde_json::Map::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair}: expected NAME=VALUE"))?;
        let value = match value {
            "true" => true.into(),
            "false" => false.into(),
            sources => sources.split('+').filter(|source| !source.is_empty()).collect(),
        };
        grants.insert(key.to_owned(), value);
    }
    serde_json::from_value(grants.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stube::command::Source;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_cause_is_told_twice() {
        assert_eq!(told(&anyhow!("no such file").context("cannot read it")), "cannot read it: no such file");
        let source = std::io::Error::other("it is taken");
        let listen = StartError::Listen { what: "HTTP", address: ([127, 0, 0, 1], 80).into(), source };
        assert_eq!(told(&listen.into()), "cannot listen for HTTP on 127.0.0.1:80: it is taken");
    }

    #[test]
    fn the_shipped_configuration_stands_in_for_none_and_not_for_one_that_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.toml");
        assert!(found_or_shipped(&file).is_ok_and(|config| config.dev_key() == Some("devkey")));
        assert!(found_or_shipped(folder.path()).is_err(), "no file, but there");
        std::fs::write(&file, "[keys]\nown = \"too short\"").expect("written");
        assert!(found_or_shipped(&file).is_err());
    }

    #[test]
    fn grants_are_read_as_pairs() {
        let grants = |text: &str| parse_grants(text).map(|grants| grants.0.apply(&Grants::default()));
        assert_eq!(grants(""), Ok(Grants::default()));
        let some = grants("canPublish=false,hidden=true,canPublishSources=camera+microphone").expect("valid");
        assert!(!some.can_publish && some.hidden && some.can_subscribe);
        assert_eq!(some.can_publish_sources, Some([Source::Camera, Source::Microphone].into()));
        for wrong in ["canPublish", "canPublsh=false", "hidden=maybe", "canPublishSources=hologram"] {
            assert!(grants(wrong).is_err(), "{wrong}");
        }
    }
}
