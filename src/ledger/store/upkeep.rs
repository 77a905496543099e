//! Keeping the database small, clean and known to work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::fault::{Outage, StoreError};
use super::statement::{Dialect, Statement};
use super::{Store, audit};
use crate::ledger::record::{Day, UnixMs};

/// Rows deleted in one transaction: a fraction of a second, for checkpoints wait meanwhile.
const ROWS_AT_ONCE: u64 = 5000;

/// How large a ledger may be to be built anew in memory, in bytes. It takes as much for a moment, beside the calls.
const REBUILT_IN_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// How long building anew may take; some gigabytes. Checkpoints wait meanwhile.
const SCRUB_LIMIT: Duration = Duration::from_secs(600);

/// How often a write-ahead log that somebody reads is tried to be emptied; each try waits five seconds
/// (`busy_timeout`).
const CHECKPOINT_ATTEMPTS: u32 = 4;

/// What may be kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records and calls that ended before.
    pub records_before: UnixMs,
    /// Full addresses of sessions that were joined before.
    pub full_addresses_before: UnixMs,
    /// Sums of earlier days.
    pub sums_before: Day,
    /// Events made before, once delivered everywhere.
    pub events_before: UnixMs,
    /// Audit entries written before.
    pub audit_before: UnixMs,
}

/// How much a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub sessions: u64,
    pub calls: u64,
    /// Full addresses; their records stay.
    pub addresses: u64,
    pub days: u64,
    pub events: u64,
    pub audit_entries: u64,
}

impl Store {
    /// Removes what may be kept no longer. What fails is done by the next sweep. Where something was removed, SQLite's
    /// file is built anew, so hourly is often enough.
    pub async fn sweep(&self, retention: &Retention) -> Result<Swept, StoreError> {
        let swept = Swept {
            sessions: self
                .thin_out(
                    "DELETE FROM sessions WHERE record_id IN
                     (SELECT record_id FROM sessions WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)",
                    retention.records_before.0,
                )
                .await?,
            calls: self
                .thin_out(
                    "DELETE FROM calls WHERE call_id IN
                     (SELECT call_id FROM calls WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)",
                    retention.records_before.0,
                )
                .await?,
            addresses: self
                .thin_out(
                    "UPDATE sessions SET ip_mode = 'none', ip_value = '' WHERE record_id IN
                     (SELECT record_id FROM sessions WHERE ip_mode = 'full' AND joined_at < $1 LIMIT $2)",
                    retention.full_addresses_before.0,
                )
                .await?,
            days: self
                .thin_out(
                    "DELETE FROM sums WHERE (tenant, day) IN (SELECT tenant, day FROM sums WHERE day < $1 LIMIT $2)",
                    retention.sums_before.0.into(),
                )
                .await?,
            events: self
                .thin_out(
                    "DELETE FROM events WHERE event_id IN
                     (SELECT event_id FROM events WHERE created_at < $1 AND NOT EXISTS
                       (SELECT 1 FROM deliveries WHERE deliveries.event_id = events.event_id) LIMIT $2)",
                    retention.events_before.0,
                )
                .await?,
            audit_entries: self.persistently(|| self.shorten_audit(retention.audit_before)).await?,
        };
        match self.scrub().await {
            // Somebody reads. The next sweep or erasure will find the log free.
            Err(StoreError::Unavailable(Outage::Busy)) => Ok(swept),
            ended => ended.map(|()| swept),
        }
    }

    /// Runs a statement with a limit to its rows until it finds less; a transaction each time, so that others get
    /// their turn.
    async fn thin_out(&self, sql: &'static str, before: u64) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let now = self.persistently(|| self.thin_out_once(sql, before)).await?;
            gone += now;
            if now < ROWS_AT_ONCE {
                return Ok(gone);
            }
        }
    }

    async fn thin_out_once(&self, sql: &'static str, before: u64) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let gone = Statement::new(sql).number(before).number(ROWS_AT_ONCE).run(transaction.connection()).await?;
        self.deleted(gone);
        transaction.commit().await?;
        Ok(gone)
    }

    async fn shorten_audit(&self, before: UnixMs) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let gone = audit::shorten(&mut transaction, before).await?;
        transaction.commit().await?;
        Ok(gone)
    }

    /// Notes, before it is committed, that so many rows were deleted or lost their person.
    pub(super) fn deleted(&self, rows: u64) {
        if rows > 0 {
            self.0.dirty.store(true, Ordering::SeqCst);
        }
    }

    /// Sees to it that what was deleted, before this was called, is in no file any more. PostgreSQL does as its
    /// operator set it up.
    ///
    /// `secure_delete` overwrites rows where they are, but not where they have been: a page that was split keeps, in
    /// its unused middle, what moved to another page. So the file is built anew; then the write-ahead log, which holds
    /// earlier states of its pages, is copied back and cut to nothing.
    pub(super) async fn scrub(&self) -> Result<(), StoreError> {
        if self.0.dialect == Dialect::Postgres {
            return Ok(());
        }
        timeout(SCRUB_LIMIT, self.scrub_sqlite()).await.unwrap_or(Err(StoreError::Unavailable(Outage::TimedOut)))
    }

    async fn scrub_sqlite(&self) -> Result<(), StoreError> {
        let mut loan = self.0.writer.borrow().await?;
        // Nothing was deleted since the last scrub, which served all who had been waiting for theirs.
        if !self.0.dirty.load(Ordering::SeqCst) {
            loan.give_back();
            return Ok(());
        }
        let size = Statement::new("SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size")
            .row(&mut loan.connection)
            .await?;
        // What is built anew is built in memory, or, for a large ledger, in a file without a name.
        if size.map(|row| row.number("n")).transpose()?.is_some_and(|bytes| bytes > REBUILT_IN_MEMORY_BYTES) {
            Statement::new("PRAGMA temp_store = FILE").run(&mut loan.connection).await?;
        }
        Statement::new("VACUUM").run(&mut loan.connection).await?;
        Statement::new("PRAGMA temp_store = MEMORY").run(&mut loan.connection).await?;
        for _ in 0..CHECKPOINT_ATTEMPTS {
            let answer = Statement::new("PRAGMA wal_checkpoint(TRUNCATE)").row(&mut loan.connection).await?;
            if answer.map(|row| row.number("busy")).transpose()? == Some(0) {
                self.0.dirty.store(false, Ordering::SeqCst);
                loan.give_back();
                return Ok(());
            }
        }
        loan.give_back();
        Err(StoreError::Unavailable(Outage::Busy))
    }

    /// Writes something without meaning, to know whether writing works.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.persistently(|| self.ping_once()).await
    }

    async fn ping_once(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // A run whose first batch is still to come has written none: not even number 0.
        Statement::new(
            "INSERT INTO runs (node, boot, batch, probes) VALUES ($1, $2, -1, 1)
             ON CONFLICT (node, boot) DO UPDATE SET probes = runs.probes + 1",
        )
        .text(&self.0.node)
        .text(&self.0.boot)
        .run(transaction.connection())
        .await?;
        transaction.commit().await
    }

    /// When the longest ended record that still has a person ended; none where no ended record has one.
    pub async fn oldest_person(&self) -> Result<Option<UnixMs>, StoreError> {
        let oldest = Statement::new(
            "SELECT ended_at FROM sessions WHERE ended_at IS NOT NULL AND identity IS NOT NULL
             ORDER BY ended_at LIMIT 1",
        );
        self.read(oldest).await?.first().map(|row| row.number("ended_at").map(UnixMs)).transpose()
    }
}
