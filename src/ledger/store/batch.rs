//! Writing: one batch, one transaction; and closing what a crash left open.

use std::collections::BTreeMap;

use super::fault::StoreError;
use super::rooms::{self, Mourners};
use super::rows::{CALLS, SESSIONS, SUMS, call_values, session_values, sum_values};
use super::statement::Statement;
use super::{Store, Transaction, outbox};
use crate::command::EndReason;
use crate::ledger::record::{Batch, SumDelta, UnixMs};

/// What [`Store::recover`] closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    pub sessions: u64,
    pub calls: u64,
}

impl Store {
    /// Writes a batch, all of it or nothing. A batch whose number, or a higher one, this run has written already
    /// changes nothing and succeeds: its commit was answered by a broken connection only.
    pub async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        self.persistently(|| self.write_once(batch)).await
    }

    async fn write_once(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        if self.is_next(&mut transaction, batch.number).await? {
            self.write_rows(&mut transaction, batch).await?;
            outbox::append(&mut transaction, self.0.dialect, &batch.events).await?;
        }
        transaction.commit().await
    }

    /// Notes the number and tells whether it is a new one. First of all: the row stays locked until the commit, so
    /// that a commit still under way for a connection that broke is waited for.
    async fn is_next(&self, transaction: &mut Transaction<'_>, number: u64) -> Result<bool, StoreError> {
        let noted = Statement::new(
            "INSERT INTO runs (node, boot, batch, probes) VALUES ($1, $2, $3, 0)
             ON CONFLICT (node, boot) DO UPDATE SET batch = excluded.batch WHERE runs.batch < excluded.batch",
        )
        .text(&self.0.node)
        .text(&self.0.boot)
        .number(number)
        .run(transaction.connection())
        .await?;
        Ok(noted == 1)
    }

    async fn write_rows(&self, transaction: &mut Transaction<'_>, batch: &Batch) -> Result<(), StoreError> {
        let (dialect, node, boot) = (self.0.dialect, self.0.node.as_str(), self.0.boot.as_str());
        // One statement cannot change a row twice: of a record that comes twice, the later counts. In order of ids,
        // so that two nodes never wait for each other's rows.
        let sessions: BTreeMap<_, _> = batch.sessions.iter().map(|row| (row.record, row)).collect();
        let sessions: Vec<_> = sessions.into_values().collect();
        let calls: BTreeMap<_, _> = batch.calls.iter().map(|row| (row.call, row)).collect();
        let calls: Vec<_> = calls.into_values().collect();
        let sums = merged(&batch.sums);
        rooms::write(transaction, dialect, node, batch).await?;
        let statements = SESSIONS
            .statements(&sessions, dialect, |row, values| session_values(row, node, boot, values))
            .into_iter()
            .chain(CALLS.statements(&calls, dialect, |row, values| call_values(row, node, boot, values)))
            .chain(SUMS.statements(&sums, dialect, sum_values));
        for statement in statements {
            statement.run(transaction.connection()).await?;
        }
        let without_person = batch.sessions.iter().filter(|row| row.person.is_none()).count();
        self.deleted(without_person as u64);
        Ok(())
    }

    /// Closes what earlier runs of this node left open, at their last checkpoint: never later than they were alive.
    /// Their participants' webhooks are told, and deliveries under way are tried again. Doing it twice, or being killed in it, changes nothing.
    pub async fn recover(&self, now: UnixMs, mourners: &Mourners<'_>) -> Result<Recovered, StoreError> {
        self.persistently(|| self.recover_once(now, mourners)).await
    }

    async fn recover_once(&self, now: UnixMs, mourners: &Mourners<'_>) -> Result<Recovered, StoreError> {
        let mut transaction = self.begin().await?;
        rooms::tell_lost(&mut transaction, self, mourners, now).await?;
        let close = |sql: &'static str| {
            Statement::new(sql).text(EndReason::ServerCrash.as_str()).text(&self.0.node).text(&self.0.boot)
        };
        let sessions = close(
            "UPDATE sessions SET ended_at = joined_at + duration_ms, end_reason = $1
             WHERE node = $2 AND boot <> $3 AND ended_at IS NULL",
        )
        .run(transaction.connection())
        .await?;
        let calls = close(
            "UPDATE calls SET ended_at = started_at + duration_ms, end_reason = $1
             WHERE node = $2 AND boot <> $3 AND ended_at IS NULL",
        )
        .run(transaction.connection())
        .await?;
        Statement::new("DELETE FROM runs WHERE node = $1 AND boot <> $2")
            .text(&self.0.node)
            .text(&self.0.boot)
            .run(transaction.connection())
            .await?;
        outbox::release(&mut transaction, &self.0.node, now).await?;
        transaction.commit().await?;
        Ok(Recovered { sessions, calls })
    }
}

fn merged(deltas: &[SumDelta]) -> Vec<SumDelta> {
    let mut days: BTreeMap<_, SumDelta> = BTreeMap::new();
    for delta in deltas {
        let sum = days
            .entry((&delta.tenant, delta.day))
            .or_insert_with(|| SumDelta::nothing(delta.tenant.clone(), delta.day));
        sum.participant_ms = sum.participant_ms.saturating_add(delta.participant_ms);
        sum.rounded_up_minutes = sum.rounded_up_minutes.saturating_add(delta.rounded_up_minutes);
        sum.calls = sum.calls.saturating_add(delta.calls);
        sum.egress_bytes = sum.egress_bytes.saturating_add(delta.egress_bytes);
        sum.ingress_bytes = sum.ingress_bytes.saturating_add(delta.ingress_bytes);
        sum.peak_participants = sum.peak_participants.max(delta.peak_participants);
        sum.distinct_addresses = sum.distinct_addresses.max(delta.distinct_addresses);
    }
    days.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Tenant;
    use crate::ledger::record::Day;

    #[test]
    fn deltas_of_one_day_become_one() {
        let delta = |tenant: &str, day, ms, peak| SumDelta {
            participant_ms: ms,
            peak_participants: peak,
            ..SumDelta::nothing(Tenant::from(tenant), Day(day))
        };
        let merged = merged(&[delta("a", 1, 5, 3), delta("b", 1, 1, 1), delta("a", 1, 7, 2), delta("a", 2, 1, 1)]);
        assert!(merged == [delta("a", 1, 12, 3), delta("a", 2, 1, 1), delta("b", 1, 1, 1)]);
    }
}
