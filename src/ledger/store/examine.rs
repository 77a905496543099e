//! Looks at a database without changing it, beside a server or without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::fault::StoreError;
use super::lane::{Lane, Purpose};
use super::location::Location;
use super::statement::{Dialect, Statement};
use super::{SCHEMA_VERSION, Shared, Store, at_open, intact};

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Examined {
    /// No SQLite file yet; its directory takes one.
    Absent,
    /// A database that can be written and is whole, as far as a quick look tells; 0 is one without tables.
    Present { schema: u64 },
}

/// SQLite's file of a `ledger.url`; None for another database, or for a URL that cannot be used.
pub fn file(url: &str, directory: &Path) -> Option<PathBuf> {
    Location::parse(url, directory).ok()?.file
}

/// Looks whether the database at `url` could be used. Nothing of it is written, and none is made.
pub async fn examine(url: &str, directory: &Path) -> Result<Examined, StoreError> {
    sqlx::any::install_default_drivers();
    let location = Location::parse(url, directory)?;
    if location.is_absent()? {
        return Ok(Examined::Absent);
    }
    let lane = |purpose| Lane::new(location.dialect, location.options.clone(), purpose, 1);
    let store = Store(Arc::new(Shared {
        dialect: location.dialect,
        writer: lane(Purpose::Write),
        readers: lane(Purpose::Read),
        node: String::new(),
        boot: String::new(),
        dirty: AtomicBool::new(false),
    }));
    let examined = store.limited(look(&store)).await.map_err(|error| at_open(error, &location));
    store.0.writer.close(1).await;
    store.0.readers.close(1).await;
    examined
}

async fn look(store: &Store) -> Result<Examined, StoreError> {
    let mut transaction = store.begin().await?;
    let connection = transaction.connection();
    if store.0.dialect == Dialect::Sqlite {
        intact(connection).await?;
    }
    let schema = match Statement::new(super::schema::exists(store.0.dialect)).row(connection).await? {
        None => 0,
        Some(_) => match Statement::new(super::schema::VERSION).row(connection).await? {
            Some(row) => row.number("version")?,
            None => return Err(StoreError::Damaged("schema_version is empty".into())),
        },
    };
    // The transaction is undone; that it could begin says that the database can be written.
    match schema {
        found if found > SCHEMA_VERSION => Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION }),
        schema => Ok(Examined::Present { schema }),
    }
}
