//! What can go wrong with the store, sorted by what to do about it.
//!
//! No text here holds what a row held or how the database is reached: messages of a database are not repeated, for
//! they quote values; only its codes are.

use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A mistake in the configuration.
    #[error("ledger.url cannot be used: {0}")]
    Url(&'static str),
    /// The database cannot be used as it is; somebody has to change something.
    #[error("the ledger cannot be opened: {0}")]
    Open(String),
    /// Its content is not what was written.
    #[error(
        "the ledger's database is damaged ({0}): restore it from a backup, or move it away (a SQLite file together \
         with its -wal and -shm) and restart with an empty ledger"
    )]
    Damaged(String),
    /// A later release wrote it.
    #[error(
        "the ledger has schema version {found}, this release knows {known}: run the release that wrote it, \
         or a later one"
    )]
    NewerSchema { found: u64, known: u64 },
    /// The same again will work, once the database does.
    #[error("the ledger's database is not available: {0}; it will be tried again")]
    Unavailable(Outage),
    /// The database refused a statement: a fault of this server, not of its operator.
    #[error("the ledger's database refused a statement with code {0}: please report this")]
    Refused(String),
}

/// Why a database is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Outage {
    #[error("its disk is full")]
    DiskFull,
    #[error("it cannot be written")]
    ReadOnly,
    #[error("its disk fails")]
    DiskFailing,
    #[error("the connection failed")]
    Connection,
    #[error("it did not answer in time")]
    TimedOut,
    #[error("somebody else holds it")]
    Busy,
    #[error("two nodes wrote the same rows")]
    Conflict,
}

impl Outage {
    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::DiskFailing => "disk_failing",
            Self::Connection => "connection",
            Self::TimedOut => "timed_out",
            Self::Busy => "busy",
            Self::Conflict => "conflict",
        }
    }
}

impl StoreError {
    /// Whether the same call may work later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// A stored word that this release does not know, in a column.
    pub(super) fn unreadable(column: &str) -> Self {
        Self::Damaged(format!("{column} holds a value that cannot be read"))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => sorted(error.as_ref()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(Outage::Connection)
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::AnyDriverError(_) => {
                Self::Damaged("a row cannot be read".into())
            }
            sqlx::Error::Configuration(_) => Self::Url("see the README for its form"),
            sqlx::Error::ColumnNotFound(column) => Self::Refused(format!("no column {column}")),
            _ => Self::Refused("driver".into()),
        }
    }
}

fn sorted(error: &(dyn DatabaseError + 'static)) -> StoreError {
    let code = error.code().unwrap_or_default();
    match code.parse() {
        Ok(number) if error.try_downcast_ref::<SqliteError>().is_some() => sorted_sqlite(number),
        _ => sorted_postgres(&code),
    }
}

/// By result code, <https://www.sqlite.org/rescode.html>.
fn sorted_sqlite(code: u32) -> StoreError {
    // The low byte is the primary code; the rest says where it happened.
    match code & 0xff {
        3 | 8 | 23 => StoreError::Unavailable(Outage::ReadOnly),
        5 | 6 => StoreError::Unavailable(Outage::Busy),
        7 | 10 | 14 => StoreError::Unavailable(Outage::DiskFailing),
        11 => StoreError::Damaged("a page is not as it was written".into()),
        13 => StoreError::Unavailable(Outage::DiskFull),
        26 => StoreError::Damaged("the file is not a SQLite database".into()),
        _ => StoreError::Refused(format!("SQLite {code}")),
    }
}

/// By SQLSTATE, PostgreSQL's appendix A.
fn sorted_postgres(code: &str) -> StoreError {
    match code {
        "40001" | "40P01" => StoreError::Unavailable(Outage::Conflict),
        "53100" => StoreError::Unavailable(Outage::DiskFull),
        "25006" => StoreError::Unavailable(Outage::ReadOnly),
        "55P03" => StoreError::Unavailable(Outage::Busy),
        "57014" | "25P03" => StoreError::Unavailable(Outage::TimedOut),
        "XX001" | "XX002" => StoreError::Damaged(format!("PostgreSQL {code}")),
        "28000" | "28P01" => StoreError::Open("PostgreSQL refuses the user or password of ledger.url".into()),
        "3D000" => StoreError::Open("PostgreSQL has no such database; create it".into()),
        "42501" => StoreError::Open("the user of ledger.url may not create or use tables; grant it that".into()),
        _ => match code.get(..2) {
            Some("08" | "53" | "57") => StoreError::Unavailable(Outage::Connection),
            Some("58") => StoreError::Unavailable(Outage::DiskFailing),
            _ => StoreError::Refused(format!("PostgreSQL {code}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_damaged_file() {
        for (code, expected) in [
            (13, StoreError::Unavailable(Outage::DiskFull)),
            (778, StoreError::Unavailable(Outage::DiskFailing)),
            (1032, StoreError::Unavailable(Outage::ReadOnly)),
            (261, StoreError::Unavailable(Outage::Busy)),
            (1, StoreError::Refused("SQLite 1".into())),
        ] {
            assert_eq!(sorted_sqlite(code), expected, "{code}");
        }
        assert!(matches!(sorted_sqlite(267), StoreError::Damaged(_)));
    }

    #[test]
    fn what_a_restart_of_postgres_mends_is_temporary() {
        for code in ["57P01", "57P03", "08006", "53300", "53100", "40001", "58030"] {
            assert!(sorted_postgres(code).is_temporary(), "{code}");
        }
        for code in ["23505", "42601", "28P01", "3D000", "XX001"] {
            assert!(!sorted_postgres(code).is_temporary(), "{code}");
        }
    }
}
