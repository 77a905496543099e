//! The tables, and how a database gets from one version of them to the next.
//!
//! One text for SQLite, PostgreSQL and CockroachDB: numbers are BIGINT, all else is TEXT, times are milliseconds since
//! 1970 UTC. Every column has its entry in [`super::inventory`].

use super::fault::{Outage, StoreError};
use super::statement::{Dialect, Statement};
use super::{CONFLICT_ATTEMPTS, Store};

/// The version this release writes. Each step of the migration raises it by one.
pub const SCHEMA_VERSION: u64 = STEPS.len() as u64;

/// The statements that lead from each version to the next. A step that was released is never changed.
const STEPS: [&[&str]; 2] = [FIRST, ROOMS];

const FIRST: &[&str] = &[
    // The last batch of every run that was written.
    "CREATE TABLE runs (
        node TEXT NOT NULL, boot TEXT NOT NULL, batch BIGINT NOT NULL, probes BIGINT NOT NULL,
        PRIMARY KEY (node, boot))",
    "CREATE TABLE sessions (
        record_id TEXT NOT NULL PRIMARY KEY,
        tenant TEXT NOT NULL, node TEXT NOT NULL, boot TEXT NOT NULL,
        call_id TEXT NOT NULL, room_id TEXT NOT NULL, room_name TEXT NOT NULL,
        identity TEXT, ip_mode TEXT, ip_value TEXT, os TEXT, client TEXT,
        joined_at BIGINT NOT NULL, ended_at BIGINT,
        duration_ms BIGINT NOT NULL, rx_bytes BIGINT NOT NULL, tx_bytes BIGINT NOT NULL,
        audio_published_ms BIGINT NOT NULL, video_published_ms BIGINT NOT NULL,
        transport TEXT NOT NULL, end_reason TEXT)",
    "CREATE INDEX sessions_by_start ON sessions (tenant, joined_at, record_id)",
    "CREATE INDEX sessions_by_identity ON sessions (tenant, identity)",
    "CREATE INDEX sessions_by_call ON sessions (call_id)",
    "CREATE INDEX sessions_by_end ON sessions (ended_at)",
    "CREATE INDEX sessions_open ON sessions (node, boot) WHERE ended_at IS NULL",
    "CREATE INDEX sessions_with_full_address ON sessions (joined_at) WHERE ip_mode = 'full'",
    "CREATE TABLE calls (
        call_id TEXT NOT NULL PRIMARY KEY,
        tenant TEXT NOT NULL, node TEXT NOT NULL, boot TEXT NOT NULL,
        room_id TEXT NOT NULL, room_name TEXT NOT NULL,
        started_at BIGINT NOT NULL, ended_at BIGINT,
        duration_ms BIGINT NOT NULL, participants BIGINT NOT NULL, peak_participants BIGINT NOT NULL,
        rx_bytes BIGINT NOT NULL, tx_bytes BIGINT NOT NULL, end_reason TEXT)",
    "CREATE INDEX calls_by_start ON calls (tenant, started_at, call_id)",
    "CREATE INDEX calls_by_end ON calls (ended_at)",
    "CREATE INDEX calls_open ON calls (node, boot) WHERE ended_at IS NULL",
    "CREATE TABLE sums (
        tenant TEXT NOT NULL, day BIGINT NOT NULL,
        participant_ms BIGINT NOT NULL, rounded_up_minutes BIGINT NOT NULL, calls BIGINT NOT NULL,
        egress_bytes BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL,
        peak_participants BIGINT NOT NULL, distinct_addresses BIGINT NOT NULL,
        PRIMARY KEY (tenant, day))",
    "CREATE INDEX sums_by_day ON sums (day)",
    // The place of a tenant's latest event. Taken under a lock until commit, so that no reader of the stream ever
    // sees a later place before an earlier one, as it would with a sequence.
    "CREATE TABLE streams (tenant TEXT NOT NULL PRIMARY KEY, position BIGINT NOT NULL)",
    "CREATE TABLE events (
        event_id TEXT NOT NULL PRIMARY KEY,
        tenant TEXT NOT NULL, position BIGINT NOT NULL, room_id TEXT, seq BIGINT NOT NULL,
        created_at BIGINT NOT NULL, identity TEXT, body TEXT NOT NULL)",
    "CREATE UNIQUE INDEX events_by_position ON events (tenant, position)",
    "CREATE INDEX events_by_identity ON events (tenant, identity)",
    "CREATE INDEX events_by_age ON events (created_at)",
    // One row for each line of deliveries: of one room, or of a tenant's own events where room_id is empty, to one
    // URL. It is tried for its first delivery only. It exists as long as it has one.
    "CREATE TABLE lines (
        url TEXT NOT NULL, tenant TEXT NOT NULL, room_id TEXT NOT NULL,
        attempts BIGINT NOT NULL, next_at BIGINT NOT NULL, holder TEXT,
        PRIMARY KEY (url, tenant, room_id))",
    "CREATE INDEX lines_by_time ON lines (next_at)",
    "CREATE TABLE deliveries (
        event_id TEXT NOT NULL REFERENCES events (event_id), url TEXT NOT NULL,
        tenant TEXT NOT NULL, room_id TEXT NOT NULL, place BIGINT NOT NULL, created_at BIGINT NOT NULL,
        PRIMARY KEY (event_id, url))",
    "CREATE INDEX deliveries_by_line ON deliveries (url, tenant, room_id, place)",
    "CREATE INDEX deliveries_by_age ON deliveries (created_at)",
    "CREATE TABLE audit (
        position BIGINT NOT NULL PRIMARY KEY, written_at BIGINT NOT NULL,
        actor TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL)",
    // One row: where the kept part of the chain begins and ends. No hash came before the first.
    "CREATE TABLE audit_chain (
        id BIGINT NOT NULL PRIMARY KEY, first_position BIGINT NOT NULL, first_previous TEXT NOT NULL,
        last_position BIGINT NOT NULL, last_hash TEXT NOT NULL)",
    "INSERT INTO audit_chain (id, first_position, first_previous, last_position, last_hash) VALUES (1, 1,
        '0000000000000000000000000000000000000000000000000000000000000000', 0,
        '0000000000000000000000000000000000000000000000000000000000000000')",
];

/// Rooms outlive a restart, and so do the numbers of events. A record knows the participant of its events, so that
/// after a crash they can be told to have left.
const ROOMS: &[&str] = &[
    "CREATE TABLE rooms (
        room_id TEXT NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, node TEXT NOT NULL,
        name TEXT NOT NULL, metadata TEXT NOT NULL, max_participants BIGINT NOT NULL,
        empty_timeout_ms BIGINT NOT NULL, departure_timeout_ms BIGINT NOT NULL, max_duration_ms BIGINT,
        created_at BIGINT NOT NULL, seq BIGINT NOT NULL)",
    "CREATE INDEX rooms_by_node ON rooms (node)",
    "ALTER TABLE sessions ADD COLUMN participant_id TEXT",
    "ALTER TABLE streams ADD COLUMN seq BIGINT NOT NULL DEFAULT 0",
];

/// What only PostgreSQL wants to hear after the statements of a step. Half of each page stays free, so that a
/// checkpoint finds room beside the row and leaves the indexes alone: twice as fast with 10,000 open sessions.
const POSTGRES_STEPS: [&[&str]; STEPS.len()] =
    [&["ALTER TABLE sessions SET (fillfactor = 50)", "ALTER TABLE calls SET (fillfactor = 50)"], &[]];

/// Brings the database to [`SCHEMA_VERSION`].
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let mut left = CONFLICT_ATTEMPTS;
    loop {
        left -= 1;
        match step_up(store).await {
            // Two nodes created the same table at once; the slower one finds it there when it looks again.
            Err(StoreError::Refused(_) | StoreError::Unavailable(Outage::Conflict))
                if left > 0 && store.0.dialect == Dialect::Postgres => {}
            ended => return ended,
        }
    }
}

/// Which version it is.
pub(super) const VERSION: &str = "SELECT version FROM schema_version WHERE id = 1";

/// Whether it has a version.
pub(super) fn exists(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'",
        Dialect::Postgres => {
            "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables
             WHERE table_schema = current_schema() AND table_name = 'schema_version'"
        }
    }
}

async fn step_up(store: &Store) -> Result<(), StoreError> {
    let postgres = store.0.dialect == Dialect::Postgres;
    let mut transaction = store.begin().await?;
    let connection = transaction.connection();
    if Statement::new(exists(store.0.dialect)).row(connection).await?.is_none() {
        Statement::new("CREATE TABLE schema_version (id BIGINT NOT NULL PRIMARY KEY, version BIGINT NOT NULL)")
            .run(connection)
            .await?;
        Statement::new("INSERT INTO schema_version (id, version) VALUES (1, 0)").run(connection).await?;
    }
    let found = match Statement::new(VERSION).row(connection).await? {
        Some(row) => row.number("version")?,
        None => return Err(StoreError::Damaged("schema_version is empty".into())),
    };
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for (step, postgres_step) in STEPS.iter().zip(POSTGRES_STEPS).skip(done) {
        for statement in *step {
            Statement::new(*statement).run(connection).await?;
        }
        for statement in postgres_step.iter().filter(|_| postgres) {
            Statement::new(*statement).run(connection).await?;
        }
    }
    if found < SCHEMA_VERSION {
        Statement::new("UPDATE schema_version SET version = $1 WHERE id = 1")
            .number(SCHEMA_VERSION)
            .run(connection)
            .await?;
    }
    transaction.commit().await
}
