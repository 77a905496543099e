//! The ledger on disk: SQLite or PostgreSQL, one set of SQL texts for both.
//!
//! Everything is written through one connection and read through a few others. A write is one transaction; whatever
//! fails inside it undoes all of it. Only `now` tells the time here.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlx::AnyConnection;
use tokio::time::timeout;

mod examine;
mod fault;
mod statement;
mod location;
mod lane;
mod inventory;
mod schema;
mod rows;
mod outbox;
mod rooms;
mod batch;
mod queries;
mod subjects;
mod audit;
mod upkeep;

pub use audit::{AuditAction, AuditChain, AuditEntry, AuditError};
pub use batch::Recovered;
pub use examine::{Examined, examine, file};
pub use fault::{Outage, StoreError};
pub use inventory::{Column, INVENTORY};
pub use outbox::{Backlog, Delivery, DeliveryId, StreamEvent};
pub use queries::{DayUsage, Filter, MonthUsage, Place, RecordFilter, RoomUsage};
pub use rooms::Mourners;
pub use schema::SCHEMA_VERSION;
pub use subjects::{Erased, Export};
pub use upkeep::{Retention, Swept};

use lane::{Lane, Loan, Purpose};
use location::Location;
use statement::{Dialect, Statement};

/// Connections for reading. Enough for a few requests at a time; more would only wait for the same disk.
const READERS: u32 = 4;

/// How long anything may take, waiting for others included. As long as PostgreSQL is told to go on with a statement.
const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// How often a transaction that collided with another node's is tried.
const CONFLICT_ATTEMPTS: u32 = 5;

/// The ledger's database. Clones share its connections.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    dialect: Dialect,
    writer: Lane,
    readers: Lane,
    /// Which server of those that share the database this is.
    node: String,
    /// Which run of that server.
    boot: String,
    /// Whether files may still hold what was deleted. Touched only while holding the writer. True at first, for a
    /// crash may have come between deleting and scrubbing.
    dirty: AtomicBool,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.dialect).finish()
    }
}

impl Store {
    /// Opens the database at `url` (`sqlite://file`, relative to `directory`, or `postgres://…`), checks it and brings
    /// its schema up to date. `node` is this server's name among those that share the database; `boot` differs in
    /// each of its runs.
    pub async fn open(url: &str, directory: &Path, node: &str, boot: u128) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let location = Location::parse(url, directory)?;
        location.make_ready()?;
        let lane = |purpose, width| Lane::new(location.dialect, location.options.clone(), purpose, width);
        let store = Self(Arc::new(Shared {
            dialect: location.dialect,
            writer: lane(Purpose::Write, 1),
            readers: lane(Purpose::Read, READERS as usize),
            node: node.to_owned(),
            boot: format!("{boot:032x}"),
            dirty: AtomicBool::new(true),
        }));
        // Without a time limit: checking a large file takes long, and giving up would not make it shorter.
        let mut loan = store.0.writer.borrow().await.map_err(|error| at_open(error, &location))?;
        if location.dialect == Dialect::Sqlite {
            intact(&mut loan.connection).await?;
        }
        loan.give_back();
        schema::migrate(&store).await.map_err(|error| at_open(error, &location))?;
        Ok(store)
    }

    /// Waits for what is under way and closes all connections; the store answers nothing afterwards.
    pub async fn close(&self) {
        self.0.writer.close(1).await;
        self.0.readers.close(READERS).await;
    }

    /// Runs `work` until it ends otherwise than by colliding with another node, for a limited time.
    async fn persistently<T, Work>(&self, work: impl Fn() -> Work) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        let mut left = CONFLICT_ATTEMPTS;
        loop {
            left -= 1;
            match self.limited(work()).await {
                Err(StoreError::Unavailable(Outage::Conflict)) if left > 0 => {}
                ended => return ended,
            }
        }
    }

    async fn limited<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        timeout(OPERATION_LIMIT, work).await.unwrap_or(Err(StoreError::Unavailable(Outage::TimedOut)))
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let mut loan = self.0.writer.borrow().await?;
        // IMMEDIATE: one that begins by reading could not go on to write if another process wrote in between.
        let begin = if self.0.dialect == Dialect::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        Statement::new(begin).run(&mut loan.connection).await?;
        Ok(Transaction(loan))
    }

    /// Runs one reading statement.
    async fn read(&self, statement: Statement) -> Result<Vec<statement::Fields>, StoreError> {
        self.limited(async {
            let mut loan = self.0.readers.borrow().await?;
            let rows = statement.rows(&mut loan.connection).await?;
            loan.give_back();
            Ok(rows)
        })
        .await
    }
}

/// A transaction that writes. Dropped without [`Transaction::commit`], it is undone.
struct Transaction<'s>(Loan<'s>);

impl Transaction<'_> {
    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.0.connection
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        Statement::new("COMMIT").run(&mut self.0.connection).await?;
        self.0.give_back();
        Ok(())
    }
}

/// What keeps the database from being opened or written at the start is for the operator, not for later.
fn at_open(error: StoreError, location: &Location) -> StoreError {
    let Some(file) = &location.file else {
        return match error {
            StoreError::Unavailable(outage @ (Outage::Connection | Outage::TimedOut)) => {
                StoreError::Open(format!("PostgreSQL of ledger.url: {outage}; start it, or look at the address"))
            }
            other => other,
        };
    };
    let advice = match error {
        StoreError::Unavailable(Outage::ReadOnly | Outage::DiskFailing) => {
            "it or its directory cannot be written; give the server's user the right to, on a writable file system"
        }
        StoreError::Unavailable(Outage::DiskFull) => "its disk is full; make room",
        other => return other,
    };
    StoreError::Open(format!("{}: {advice}", file.display()))
}

async fn intact(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let complaints = Statement::new("PRAGMA quick_check(1)").rows(connection).await?;
    for complaint in complaints {
        if complaint.text("quick_check")? != "ok" {
            // Not repeated: it may quote what a page holds.
            return Err(StoreError::Damaged("its pages do not fit together".into()));
        }
    }
    Ok(())
}
