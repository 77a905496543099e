//! What sessions have used, carried into rows, sums and quotas.

use std::time::{Duration, Instant};

use super::{Book, Consumption, Moment, SessionAccount, millis};
use crate::command::{EndReason, SessionUsage};
use crate::ids::{ParticipantId, SessionId, Tenant};
use crate::ledger::record::Usage;

/// A session its shard has not named at so many checkpoints in a row is gone: the shard's notice was lost.
const MISSED_MAX: u8 = 2;

/// Milliseconds in a minute.
const MINUTE_MS: u64 = 60_000;

impl Book {
    /// Carries a session's new figures into its row, its call, the day's sums and the quotas.
    pub(super) fn use_up(&mut self, session: SessionId, usage: &SessionUsage, now: Moment) {
        let Some(account) = self.sessions.get_mut(&session) else { return };
        let Some(row) = account.row.as_mut() else { return };
        let new = Usage {
            duration_ms: millis(usage.duration),
            rx_bytes: usage.rx_bytes,
            tx_bytes: usage.tx_bytes,
            audio_published_ms: millis(usage.audio_published),
            video_published_ms: millis(usage.video_published),
        };
        let old = std::mem::replace(&mut row.usage, new);
        row.transport = usage.transport.unwrap_or(row.transport);
        account.missed = 0;
        account.stale |= old != new;
        let (tenant, call) = (row.tenant.clone(), row.call);
        let participant_ms = new.duration_ms.saturating_sub(old.duration_ms);
        let (rx, tx) = (new.rx_bytes.saturating_sub(old.rx_bytes), new.tx_bytes.saturating_sub(old.tx_bytes));
        if let Some(call) = self.calls.get_mut(&call) {
            call.row.rx_bytes += rx;
            call.row.tx_bytes += tx;
            call.stale = true;
        }
        let sum = self.sum(&tenant, now.wall.day());
        sum.participant_ms += participant_ms;
        sum.rounded_up_minutes += new.duration_ms.div_ceil(MINUTE_MS) - old.duration_ms.div_ceil(MINUTE_MS);
        sum.ingress_bytes += rx;
        sum.egress_bytes += tx;
        let nothing = Consumption { tenant: tenant.clone(), participant_ms: 0, egress_bytes: 0 };
        let consumed = self.consumed.entry(tenant).or_insert(nothing);
        consumed.participant_ms += participant_ms;
        consumed.egress_bytes += tx;
    }

    pub(super) fn checkpoint(
        &mut self,
        usages: &[(ParticipantId, SessionUsage)],
        asked: Instant,
        complete: bool,
        now: Moment,
    ) {
        if complete {
            let open = self.sessions.values_mut().filter(|account| account.joined.is_some_and(|at| at < asked));
            open.for_each(|account| account.missed += 1);
        }
        // Who has been moved since is another participant now: what was counted before is in the record that has ended.
        for (participant, usage) in usages {
            if let Some(session) = self.by_participant.get(participant).copied() {
                self.use_up(session, usage, now);
            }
        }
        let is_gone = |account: &SessionAccount| account.missed >= MISSED_MAX;
        let gone = self.sessions.iter().filter(|(_, account)| is_gone(account));
        let gone: Vec<_> =
            gone.filter_map(|(session, account)| Some((*session, account.row.as_ref()?.usage))).collect();
        for (session, usage) in gone {
            self.end(session, EndReason::InternalError, &usage.into(), now);
        }
        for call in self.calls.values_mut().filter(|call| !call.over) {
            call.row.duration_ms = millis(now.at.saturating_duration_since(call.started));
            call.stale = true;
        }
        let tenants: Vec<Tenant> =
            self.tenants.iter().filter(|(_, t)| t.connected > 0).map(|(t, _)| t.clone()).collect();
        // A day that begins in the midst of calls has their participants from its first moment.
        tenants.iter().for_each(|tenant| self.note_peak(tenant, now.wall.day()));
    }
}

impl From<Usage> for SessionUsage {
    fn from(usage: Usage) -> Self {
        Self {
            duration: Duration::from_millis(usage.duration_ms),
            rx_bytes: usage.rx_bytes,
            tx_bytes: usage.tx_bytes,
            audio_published: Duration::from_millis(usage.audio_published_ms),
            video_published: Duration::from_millis(usage.video_published_ms),
            transport: None,
        }
    }
}
