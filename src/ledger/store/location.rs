//! Where the ledger is: `ledger.url`, read and made ready.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions;
use sqlx::any::AnyConnectOptions;

use super::fault::StoreError;
use super::statement::Dialect;

/// Nobody but the server reads the ledger.
const FILE_MODE: u32 = 0o600;

/// What SQLite keeps beside its file.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// What the name of a file ends with that is made to see whether one can be.
const TRIAL: &str = "-trial";

/// A database that can be connected to. No `Debug`: the options hold a password.
pub(super) struct Location {
    pub(super) dialect: Dialect,
    pub(super) options: AnyConnectOptions,
    /// SQLite's file, absolute.
    pub(super) file: Option<PathBuf>,
}

impl Location {
    /// Reads `ledger.url`. A relative file lies in `directory`.
    pub(super) fn parse(url: &str, directory: &Path) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            return Self::sqlite(path, directory);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self { dialect: Dialect::Postgres, options: options(url)?, file: None });
        }
        Err(StoreError::Url("it begins with sqlite:// or postgres://"))
    }

    fn sqlite(path: &str, directory: &Path) -> Result<Self, StoreError> {
        if path.is_empty() || path.ends_with('/') || path.starts_with(':') {
            return Err(StoreError::Url("sqlite:// is followed by the path of a file"));
        }
        if path.contains(['?', '#', '%', '\0']) {
            return Err(StoreError::Url("the path after sqlite:// has none of ? # % in it"));
        }
        let file = std::path::absolute(directory.join(path))
            .map_err(|_| StoreError::Url("the path after sqlite:// cannot be made absolute"))?;
        let Some(text) = file.to_str().filter(|text| !text.contains(['?', '#', '%'])) else {
            return Err(StoreError::Url("the state directory's path is UTF-8 and has none of ? # % in it"));
        };
        // Never created by a later connection: a file that vanished is a fault, not a reason to begin anew.
        let options = options(&format!("sqlite://{text}?mode=rw"))?;
        Ok(Self { dialect: Dialect::Sqlite, options, file: Some(file) })
    }

    /// Whether SQLite's file is still to be made; an error if it could not be.
    pub(super) fn is_absent(&self) -> Result<bool, StoreError> {
        let Some(file) = self.file.as_deref().filter(|file| !file.exists()) else { return Ok(false) };
        let mut trial = file.as_os_str().to_owned();
        trial.push(TRIAL);
        let made = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&trial);
        made.and_then(|_| fs::remove_file(&trial)).map_err(|error| unusable(file, &error))?;
        Ok(true)
    }

    /// Creates SQLite's file where there is none and closes it to other users; its companions get the same mode from
    /// SQLite, those of an earlier run get it here.
    pub(super) fn make_ready(&self) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(file)
            .map_err(|error| unusable(file, &error))?;
        fs::set_permissions(file, Permissions::from_mode(FILE_MODE)).map_err(|error| unusable(file, &error))?;
        for companion in COMPANIONS {
            let mut name = file.clone().into_os_string();
            name.push(companion);
            match fs::set_permissions(&name, Permissions::from_mode(FILE_MODE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(file, &error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    let options: AnyConnectOptions = url.parse().map_err(|_| StoreError::Url("it is not a URL"))?;
    // Statements are long and say nothing that an error does not.
    Ok(options.disable_statement_logging())
}

fn unusable(file: &Path, error: &io::Error) -> StoreError {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "create its directory",
        io::ErrorKind::PermissionDenied => "give the server's user the right to write it and its directory",
        io::ErrorKind::ReadOnlyFilesystem => "its file system is mounted read-only; mount it writable",
        io::ErrorKind::StorageFull => "its disk is full; make room",
        io::ErrorKind::IsADirectory => "it is a directory; name a file in it",
        _ => "check the path in ledger.url",
    };
    StoreError::Open(format!("{}: {advice}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str) -> Option<PathBuf> {
        Location::parse(url, Path::new("/var/lib/stube")).ok()?.file
    }

    #[test]
    fn a_relative_file_lies_in_the_state_directory() {
        assert_eq!(file("sqlite://stube.db"), Some("/var/lib/stube/stube.db".into()));
        assert_eq!(file("sqlite:///srv/my ledger.db"), Some("/srv/my ledger.db".into()));
        assert_eq!(file("postgres://u:p@db/stube"), None);
    }

    #[test]
    fn an_unusable_url_is_refused_without_repeating_it() {
        for url in
            ["", "mysql://u:hunter2@db/x", "sqlite://", "sqlite::memory:", "sqlite://a?mode=ro", "postgres://[hunter2"]
        {
            let Err(error) = Location::parse(url, Path::new("/")) else { panic!("{url}") };
            assert!(matches!(error, StoreError::Url(_)), "{url}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
