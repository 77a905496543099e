//! Man pages and shell completions, drawn from the command line itself, so that they cannot fall behind it. Packages
//! ship them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The shells whose completions are made: those that Debian has a folder for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// What a section lists, each with what there is to say of it.
type Entries = [(&'static str, &'static str)];

/// What the page of the whole program has beyond the command line.
const SECTIONS: [(&str, &Entries); 3] =
    [("EXIT STATUS", &EXIT_STATUS), ("ENVIRONMENT", &ENVIRONMENT), ("FILES", &FILES)];

const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "The server was stopped by SIGTERM or SIGINT, or the command succeeded."),
    (
        "1",
        "The server could not start, failed while running, or was ended by a second signal. Or the command failed: a \
         server refused it, or doctor or audit verify found something wrong. The last line on standard error says why.",
    ),
    ("2", "The command line is wrong."),
    ("3", "No server answers: rooms, participants, node, load."),
    ("78", "The configuration cannot be read or is wrong (EX_CONFIG). The unit does not start again then."),
];

const ENVIRONMENT: [(&str, &str); 9] = [
    ("STUBE_CONFIG", "The configuration file, unless --config names one."),
    (
        "STUBE__SECTION__KEY",
        "Sets the key of a section and wins over the file: STUBE__HTTP__LISTEN=0.0.0.0:7880. Lists are separated by \
         commas. API keys keep their spelling, STUBE__KEYS__mapservice=secret, and an empty value takes one away.",
    ),
    (
        "STATE_DIRECTORY",
        "Where the server keeps its certificate of ACME and its ledger, if that is a SQLite file with a relative path; the \
         working directory unless set. The unit sets it. The commands doctor, usage and audit verify look there for the \
         server's state; unless it is set, in /var/lib/stube if that is there, else in the working directory.",
    ),
    ("STUBE_URL", "The server that rooms and participants ask, unless --url names one."),
    ("STUBE_ADMIN_URL", "The admin listener that node asks, unless --admin-url names one."),
    (
        "STUBE_SECRET",
        "The secret of --key, for rooms, participants and load: no command line takes it, for everybody sees those.",
    ),
    ("NO_COLOR", "If it is set, doctor prints without colours."),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Headers for the collector of traces.endpoint."),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
        "Set by systemd: whom the server tells that it is ready, how often that it lives, and its socket for HTTP, if \
         stube-http.socket is on.",
    ),
];

const FILES: [(&str, &str); 7] = [
    ("config.toml", "The configuration, in the working directory, unless --config or STUBE_CONFIG names another."),
    (
        "/etc/stube/config.toml",
        "That of the service. It holds secrets and is root's alone: the unit hands a copy over.",
    ),
    (
        "/run/stube/config.toml",
        "What the last systemctl reload stube handed to the service that runs; stube node reload reads it again.",
    ),
    ("/var/lib/stube/stube.db", "The ledger of the service: records, sums, events, rooms."),
    ("/var/lib/stube/acme/", "Account and certificate of the service, if it has one by ACME."),
    ("/usr/lib/sysctl.d/50-stube.conf", "How far the socket buffers may grow."),
    (
        "/usr/share/doc/stube/",
        "The documents: docs/operations.md says how to run a server, docs/examples/ has programs to begin with.",
    ),
];

/// What to write, and into which folder.
#[derive(Subcommand)]
pub enum Pages {
    /// Write a man page of each command.
    Man { folder: PathBuf },
    /// Write completions for bash, fish and zsh.
    Completions { folder: PathBuf },
}

/// Writes the pages of `command` into their folder, which is made if need be.
pub fn write(pages: &Pages, command: Command) -> anyhow::Result<()> {
    let (Pages::Man { folder } | Pages::Completions { folder }) = pages;
    let failed = || format!("cannot write into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    match pages {
        Pages::Man { folder } => manual(command, folder).with_context(failed),
        Pages::Completions { folder } => {
            let mut shown = without_hidden(&command);
            SHELLS.iter().try_for_each(|shell| complete(*shell, &mut shown, folder)).with_context(failed)
        }
    }
}

/// A page of each command, and last that of them all, which says more.
fn manual(command: Command, folder: &Path) -> std::io::Result<()> {
    clap_mangen::generate_to(command.clone(), folder)?;
    let whole = Man::new(command.disable_help_subcommand(true));
    let mut page = Vec::new();
    write_whole(&whole, &mut page)?;
    std::fs::write(folder.join(whole.get_filename()), page)
}

/// The page of the whole program, its sections in the order of man-pages(7).
fn write_whole(man: &Man, page: &mut dyn Write) -> std::io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    man.render_subcommands_section(page)?;
    for (title, entries) in SECTIONS {
        section(title, entries).to_writer(page)?;
    }
    man.render_version_section(page)
}

fn section(title: &str, entries: &Entries) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    for (what, said) in entries {
        section.control("TP", []);
        section.text([bold(*what)]);
        section.text([roman(*said)]);
    }
    section
}

/// The same command line without hidden commands, which man pages leave out by themselves and completions do not.
fn without_hidden(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let empty = Command::new(env!("CARGO_PKG_NAME")).version(env!("CARGO_PKG_VERSION"));
    empty.args(command.get_arguments()).subcommands(shown)
}

fn complete(shell: Shell, command: &mut Command, folder: &Path) -> std::io::Result<()> {
    let name = command.get_name().to_owned();
    clap_complete::generate_to(shell, command, name, folder).map(drop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The variables that arguments of a command and of those below it are read from.
    fn variables(command: &Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
        own.chain(command.get_subcommands().flat_map(variables)).collect()
    }

    #[test]
    fn the_page_of_the_whole_says_more_than_the_command_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let pages = Pages::Man { folder: folder.path().to_owned() };
        write(&pages, crate::Cli::command()).expect("pages");
        let page = std::fs::read_to_string(folder.path().join("stube.1")).expect("the page of the whole");
        let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        let expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS"];
        let more = ["\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "VERSION"];
        assert_eq!(sections, [&expected[..], &more[..]].concat());
        assert!(page.contains("\n.TP\n\\fB78\\fR\n") && page.contains("\\fB/etc/stube/config.toml\\fR\n"), "{page}");
        assert!(folder.path().join("stube-node-reload.1").exists());
    }

    #[test]
    fn every_variable_of_the_command_line_is_explained() {
        let found = variables(&crate::Cli::command());
        assert!(found.len() > 2, "{found:?}");
        for variable in found {
            assert!(ENVIRONMENT.iter().any(|(name, _)| *name == variable), "{variable} is not in ENVIRONMENT");
        }
    }
}
