//! Man pages and shell completions, drawn from the command line itself, so that they cannot fall behind it. Packages
//! ship them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, Subcommand};
use clap_complete::Shell;

/// The shells whose completions are made: those that Debian has a folder for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

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
        Pages::Man { folder } => clap_mangen::generate_to(command, folder).with_context(failed),
        Pages::Completions { folder } => {
            let mut shown = without_hidden(&command);
            SHELLS.iter().try_for_each(|shell| complete(*shell, &mut shown, folder)).with_context(failed)
        }
    }
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
