//! Keeps the ledger: checkpoints, urgent writes, and what may be kept no longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::app::{self, App};
use super::keys::UseCount;
use crate::command::Command;
use crate::ledger::record::{DAY_MS, Day, UnixMs};
use crate::ledger::store::{AuditAction, Retention, StoreError, Swept};
use crate::shard::ShardIndex;
use crate::webhook::backoff;

/// How long what is urgent waits for more of its kind, so that a room full of leavers is one transaction.
const GATHERING: Duration = Duration::from_millis(50);

/// How long to wait after a failed write. What waits is bounded, so there is no hurry.
const RETRY: Duration = Duration::from_secs(1);

/// How often what is too old is deleted. Retention counts in days.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How long the last write of a server that stops may take, and how long it waits between two attempts.
const LAST_WRITE: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_millis(200);

/// Who did what the server does by itself, in the audit log.
const SERVER: &str = "stube";

/// How long audit entries are kept: twelve months.
const AUDIT_RETENTION_D: u64 = 365;

/// Keeps the ledger until `stop` turns true, then writes what is left.
pub async fn keep(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut checkpoints = interval(app.config().ledger.checkpoint);
    checkpoints.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            _ = checkpoints.tick() => {
                checkpoint(&app).await;
                note_keys(&app, false).await;
            }
            () = app.ledger.urgency() => gather().await,
            _ = sweeps.tick() => {
                sweep(&app).await;
                continue;
            }
        }
        if app.write_ledger().await.is_err() {
            pause(&mut stop).await;
        }
    }
    let last = async {
        persist(&app).await;
        note_keys(&app, true).await;
        if let Err(error) = note(&app, AuditAction::Stop).await {
            tracing::error!(%error, "the end could not be noted in the audit log");
        }
    };
    if timeout(LAST_WRITE, last).await.is_err() {
        tracing::error!("the ledger could not be written at the end; open records end at their last checkpoint");
    }
}

/// Writes until it has succeeded.
#[expect(clippy::disallowed_methods, reason = "a store that fails is left alone for a moment")]
async fn persist(app: &App) {
    while app.write_ledger().await.is_err() {
        sleep(LAST_RETRY).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever would say so is gone: that says it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[expect(clippy::disallowed_methods, reason = "what is urgent waits a little for more of its kind")]
async fn gather() {
    sleep(GATHERING).await;
}

#[expect(clippy::disallowed_methods, reason = "a store that fails is left alone for a while")]
async fn pause(stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(stop) => {}
        () = sleep(RETRY) => {}
    }
}

/// Asks the shards what their sessions have used.
pub async fn checkpoint(app: &App) {
    let began = app.clock.now();
    let mut usages = Vec::new();
    let mut complete = true;
    for shard in (0..app.shards.count()).map(ShardIndex) {
        match app.tell(shard, Command::DescribeUsage).await.and_then(app::usage) {
            Ok(of_shard) => usages.extend(of_shard),
            Err(_) => complete = false,
        }
    }
    let now = app.clock.moment();
    app.ledger.with(|accounts| accounts.checkpoint(usages, began, complete, now));
}

async fn sweep(app: &App) {
    let now = app.clock.moment().wall;
    match app.ledger.store().sweep(&retention(app, now)).await {
        Ok(swept) => note_sweep(app, swept).await,
        Err(error) => tracing::error!(%error, "old records could not be deleted; the next sweep tries again"),
    }
    match app.ledger.store().expire(before(now, backoff::AGE_MAX)).await {
        Ok(0) => {}
        Ok(expired) => tracing::warn!(expired, "events were given up: their webhook did not take them for four days"),
        Err(error) => tracing::error!(%error, "old events could not be given up; the next sweep tries again"),
    }
}

async fn note_sweep(app: &App, swept: Swept) {
    let Swept { sessions, calls, addresses, days, events, audit_entries } = swept;
    app.metrics.count_sweep([sessions, calls, addresses, days, events, audit_entries]);
    if swept == Swept::default() {
        return;
    }
    let detail = format!(
        "{sessions} records, {calls} calls, {addresses} addresses, {days} sums, {events} events, {audit_entries} \
         audit entries"
    );
    if let Err(error) = app.audit(SERVER, AuditAction::Sweep, detail).await {
        tracing::error!(%error, "a sweep could not be noted in the audit log");
    }
}

/// Notes the use of keys in the audit log.
async fn note_keys(app: &App, all: bool) {
    let at = app.clock.moment().wall;
    for (tenant, count) in app.keys().due(at, all) {
        let UseCount { servers, clients } = count;
        let detail = format!("{servers} requests of servers and {clients} of clients since the last entry");
        if let Err(error) = app.audit(tenant.key(), AuditAction::KeyUse, detail).await {
            app.keys().give_back(&tenant, count);
            tracing::error!(%error, "the use of an API key could not be noted in the audit log");
        }
    }
}

fn before(now: UnixMs, age: Duration) -> UnixMs {
    UnixMs(now.0.saturating_sub(age.as_millis() as u64))
}

fn retention(app: &App, now: UnixMs) -> Retention {
    let config = app.config();
    let privacy = &config.privacy;
    let days_ago = |days: u64| UnixMs(now.0.saturating_sub(days * DAY_MS));
    Retention {
        records_before: days_ago(privacy.record_retention_d.into()),
        full_addresses_before: days_ago(privacy.full_address_retention_d.into()),
        sums_before: Day(now.day().0.saturating_sub(privacy.sum_retention_d)),
        events_before: before(now, backoff::AGE_MAX),
        audit_before: days_ago(AUDIT_RETENTION_D),
    }
}

/// Writes an audit entry about the server itself.
pub async fn note(app: &App, action: AuditAction) -> Result<(), StoreError> {
    app.audit(SERVER, action, env!("CARGO_PKG_VERSION").to_owned()).await
}
