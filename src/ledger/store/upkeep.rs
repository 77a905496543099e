//! Keeping the database small, clean and known to work.

use super::fault::{Outage, StoreError};
use super::statement::{Dialect, Statement};
use super::{Store, audit};
use crate::ledger::record::{Day, UnixMs};

/// Rows deleted in one transaction: a fraction of a second, for checkpoints wait meanwhile.
const ROWS_AT_ONCE: u64 = 5000;

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
    /// Removes what may be kept no longer. What fails is done by the next sweep.
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
        if swept != Swept::default() {
            match self.scrub().await {
                // Somebody reads. The next sweep or erasure will find the log free.
                Err(StoreError::Unavailable(Outage::Busy)) => {}
                ended => ended?,
            }
        }
        Ok(swept)
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
        transaction.commit().await?;
        Ok(gone)
    }

    async fn shorten_audit(&self, before: UnixMs) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let gone = audit::shorten(&mut transaction, before).await?;
        transaction.commit().await?;
        Ok(gone)
    }

    /// Sees to it that what was deleted is in no file any more. `secure_delete` has overwritten it in the pages; here
    /// the write-ahead log, which holds their earlier states, is copied back and cut to nothing, and free pages are
    /// given back. PostgreSQL does as its operator set it up.
    pub(super) async fn scrub(&self) -> Result<(), StoreError> {
        if self.0.dialect == Dialect::Postgres {
            return Ok(());
        }
        self.limited(self.scrub_sqlite()).await
    }

    async fn scrub_sqlite(&self) -> Result<(), StoreError> {
        let mut loan = self.0.writer.borrow().await?;
        Statement::new("PRAGMA incremental_vacuum").run(&mut loan.connection).await?;
        for _ in 0..CHECKPOINT_ATTEMPTS {
            let answer = Statement::new("PRAGMA wal_checkpoint(TRUNCATE)").row(&mut loan.connection).await?;
            if answer.map(|row| row.number("busy")).transpose()? == Some(0) {
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
