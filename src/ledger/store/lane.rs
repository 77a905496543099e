//! Connections, lent to one user at a time.
//!
//! Not sqlx's pool: that takes a connection back whatever happened on it. Here one on which anything failed, or whose
//! user gave up waiting, is closed, and the database undoes what was begun on it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions, Connection, Executor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::fault::{Outage, StoreError};
use super::statement::{Dialect, Statement};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// SQLite. Every commit reaches the disk, what is deleted is overwritten, and no other file is written meanwhile. No
/// `auto_vacuum`: it moves pages but cleans none, see `scrub`. Five seconds are longer than any other user of the file,
/// such as `stube usage`, should need.
const SQLITE_SETUP: [&str; 8] = [
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
];

/// PostgreSQL. A node that vanished does not hold rows for ever, and what it had under way ends before a successor
/// asks again.
const POSTGRES_SETUP: [&str; 3] = [
    "SET statement_timeout = '60s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET client_min_messages = 'warning'",
];

/// What a connection for reading is told besides.
const SQLITE_READ_ONLY: &str = "PRAGMA query_only = ON";
const POSTGRES_READ_ONLY: &str = "SET default_transaction_read_only = on";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Read,
}

/// Up to so many connections for one purpose.
pub(super) struct Lane {
    dialect: Dialect,
    options: AnyConnectOptions,
    purpose: Purpose,
    permits: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

/// A connection on loan. Dropped without [`Loan::give_back`], it is closed.
pub(super) struct Loan<'l> {
    pub(super) connection: AnyConnection,
    lane: &'l Lane,
    permit: SemaphorePermit<'l>,
}

impl Lane {
    /// A lane of `width` connections, none of them open yet.
    pub(super) fn new(dialect: Dialect, options: AnyConnectOptions, purpose: Purpose, width: usize) -> Self {
        Self { dialect, options, purpose, permits: Semaphore::new(width), idle: Mutex::default() }
    }

    /// Waits for a connection.
    pub(super) async fn borrow(&self) -> Result<Loan<'_>, StoreError> {
        let permit = self.permits.acquire().await.map_err(|_| StoreError::Unavailable(Outage::Connection))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            // The database may have been restarted meanwhile.
            if matches!(timeout(CONNECT_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                return Ok(Loan { connection, lane: self, permit });
            }
        }
        let connection =
            timeout(CONNECT_LIMIT, self.connect()).await.map_err(|_| StoreError::Unavailable(Outage::TimedOut))??;
        Ok(Loan { connection, lane: self, permit })
    }

    async fn connect(&self) -> Result<AnyConnection, StoreError> {
        let mut connection = self.options.connect().await?;
        let (setup, read_only): (&[&'static str], _) = match self.dialect {
            Dialect::Sqlite => (&SQLITE_SETUP, SQLITE_READ_ONLY),
            Dialect::Postgres => (&POSTGRES_SETUP, POSTGRES_READ_ONLY),
        };
        for statement in setup {
            connection.execute(*statement).await?;
        }
        if self.purpose == Purpose::Read {
            connection.execute(read_only).await?;
        }
        if self.dialect == Dialect::Sqlite {
            let mode = Statement::new("PRAGMA journal_mode").row(&mut connection).await?;
            if mode.map(|row| row.text("journal_mode")).transpose()?.as_deref() != Some("wal") {
                let advice = "its file system cannot share memory, as a write-ahead log needs; use a local disk";
                return Err(StoreError::Open(advice.into()));
            }
        }
        Ok(connection)
    }

    /// Closes it for good, once those who have a connection gave it back.
    pub(super) async fn close(&self, width: u32) {
        // Waiting for all permits is waiting for all users.
        if let Ok(permits) = self.permits.acquire_many(width).await {
            permits.forget();
        }
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            // It is gone in any case.
            let _ = connection.close().await;
        }
    }
}

impl Loan<'_> {
    /// Returns a connection on which nothing is under way.
    pub(super) fn give_back(self) {
        let Self { connection, lane, permit } = self;
        lane.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        drop(permit);
    }
}
