//! Reading: calls, records and usage of one tenant.

use super::Store;
use super::fault::StoreError;
use super::rows::{CALL_COLUMNS, SESSION_COLUMNS, call, session};
use super::statement::{Fields, Statement};
use crate::ids::{CallId, Identity, RoomName, Tenant};
use crate::ledger::record::{CallRow, Day, SessionRow, UnixMs};

/// Milliseconds in a minute.
const MINUTE_MS: u64 = 60_000;

/// Which calls, or which records.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Started then or later.
    pub from: Option<UnixMs>,
    /// Started before.
    pub to: Option<UnixMs>,
    pub room: Option<RoomName>,
}

/// Which records.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    pub span: Filter,
    pub identity: Option<Identity>,
    pub call: Option<CallId>,
}

/// Where a page of an answer ended: the start and the id of its last row.
///
/// What is added later with an earlier start is missed by a reader who is past it; nothing is ever shown twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub start: UnixMs,
    pub id: String,
}

/// A tenant's usage of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayUsage {
    pub day: Day,
    pub participant_ms: u64,
    pub rounded_up_minutes: u64,
    pub peak_participants: u64,
    pub calls: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
    pub distinct_addresses: u64,
}

/// The usage of rooms of one name, by the records and calls that are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomUsage {
    pub room_name: RoomName,
    pub participant_ms: u64,
    /// Each session's minutes, begun ones counted whole.
    pub rounded_up_minutes: u64,
    /// In one call.
    pub peak_participants: u64,
    pub calls: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// What a tenant used since some day, for its monthly quotas.
#[derive(Clone, PartialEq, Eq)]
pub struct MonthUsage {
    pub tenant: Tenant,
    pub participant_ms: u64,
    pub egress_bytes: u64,
}

impl Store {
    /// Up to `limit` calls by start and id, those after `after`.
    pub async fn calls(
        &self,
        tenant: &Tenant,
        filter: &Filter,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<CallRow>, StoreError> {
        let calls = Statement::new(format!("SELECT {CALL_COLUMNS} FROM calls WHERE tenant = $1")).text(tenant.key());
        let calls = filtered(calls, filter, "started_at");
        self.read(page(calls, "started_at", "call_id", after, limit)).await?.iter().map(call).collect()
    }

    /// Up to `limit` records by join and id, those after `after`.
    pub async fn records(
        &self,
        tenant: &Tenant,
        filter: &RecordFilter,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let records =
            Statement::new(format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE tenant = $1")).text(tenant.key());
        let records = filtered(records, &filter.span, "joined_at")
            .and_text("identity =", filter.identity.as_ref().map(Identity::as_str))
            .and_text("call_id =", filter.call.map(|call| call.to_string()));
        self.read(page(records, "joined_at", "record_id", after, limit)).await?.iter().map(session).collect()
    }

    /// A tenant's sums by day: from `from` on, before `to`.
    pub async fn usage_by_day(
        &self,
        tenant: &Tenant,
        from: Option<Day>,
        to: Option<Day>,
    ) -> Result<Vec<DayUsage>, StoreError> {
        let days = Statement::new(
            "SELECT day, participant_ms, rounded_up_minutes, peak_participants, calls, egress_bytes, ingress_bytes,
             distinct_addresses FROM sums WHERE tenant = $1",
        )
        .text(tenant.key())
        .and_number("day >=", from.map(|day| day.0.into()))
        .and_number("day <", to.map(|day| day.0.into()))
        .then(" ORDER BY day");
        self.read(days).await?.iter().map(day_usage).collect()
    }

    /// A tenant's usage by room, of the records and calls that are kept and started from `from` on, before `to`.
    pub async fn usage_by_room(
        &self,
        tenant: &Tenant,
        from: Option<UnixMs>,
        to: Option<UnixMs>,
    ) -> Result<Vec<RoomUsage>, StoreError> {
        // Rounded up without a division, for its result is not an integer in every database.
        let rooms = Statement::new(
            "SELECT room_name, CAST(SUM(used_ms) AS BIGINT) AS used_ms, CAST(SUM(whole_ms) AS BIGINT) AS whole_ms,
             CAST(MAX(peak) AS BIGINT) AS peak, CAST(SUM(begun) AS BIGINT) AS begun,
             CAST(SUM(egress) AS BIGINT) AS egress, CAST(SUM(ingress) AS BIGINT) AS ingress
             FROM (SELECT room_name, duration_ms AS used_ms,
                     duration_ms + 59999 - (duration_ms + 59999) % 60000 AS whole_ms,
                     0 AS peak, 0 AS begun, tx_bytes AS egress, rx_bytes AS ingress
                   FROM sessions WHERE tenant = $1 AND joined_at >= $2 AND joined_at < $3
                   UNION ALL
                   SELECT room_name, 0, 0, peak_participants, 1, 0, 0
                   FROM calls WHERE tenant = $1 AND started_at >= $2 AND started_at < $3) AS used
             GROUP BY room_name ORDER BY room_name",
        )
        .text(tenant.key())
        .number(from.map_or(0, |from| from.0))
        .number(to.map_or(u64::MAX, |to| to.0));
        self.read(rooms).await?.iter().map(room_usage).collect()
    }

    /// What every tenant used from the day `first` on.
    pub async fn month_to_date(&self, first: Day) -> Result<Vec<MonthUsage>, StoreError> {
        let tenants = Statement::new(
            "SELECT tenant, CAST(SUM(participant_ms) AS BIGINT) AS participant_ms,
             CAST(SUM(egress_bytes) AS BIGINT) AS egress_bytes
             FROM sums WHERE day >= $1 GROUP BY tenant ORDER BY tenant",
        )
        .number(first.0.into());
        self.read(tenants).await?.iter().map(month_usage).collect()
    }
}

fn filtered(statement: Statement, filter: &Filter, start: &str) -> Statement {
    statement
        .and_number(&format!("{start} >="), filter.from.map(|from| from.0))
        .and_number(&format!("{start} <"), filter.to.map(|to| to.0))
        .and_text("room_name =", filter.room.as_ref().map(RoomName::as_str))
}

fn page(statement: Statement, start: &str, id: &str, after: Option<&Place>, limit: u32) -> Statement {
    let statement = match after {
        Some(place) => statement.after(start, id, place.start.0, &place.id),
        None => statement,
    };
    statement.then(&format!(" ORDER BY {start}, {id}")).limit(limit)
}

fn day_usage(fields: &Fields) -> Result<DayUsage, StoreError> {
    Ok(DayUsage {
        day: Day(super::rows::small(fields, "day")?),
        participant_ms: fields.number("participant_ms")?,
        rounded_up_minutes: fields.number("rounded_up_minutes")?,
        peak_participants: fields.number("peak_participants")?,
        calls: fields.number("calls")?,
        egress_bytes: fields.number("egress_bytes")?,
        ingress_bytes: fields.number("ingress_bytes")?,
        distinct_addresses: fields.number("distinct_addresses")?,
    })
}

fn room_usage(fields: &Fields) -> Result<RoomUsage, StoreError> {
    Ok(RoomUsage {
        room_name: RoomName::from(fields.text("room_name")?),
        participant_ms: fields.number("used_ms")?,
        rounded_up_minutes: fields.number("whole_ms")? / MINUTE_MS,
        peak_participants: fields.number("peak")?,
        calls: fields.number("begun")?,
        egress_bytes: fields.number("egress")?,
        ingress_bytes: fields.number("ingress")?,
    })
}

fn month_usage(fields: &Fields) -> Result<MonthUsage, StoreError> {
    Ok(MonthUsage {
        tenant: Tenant::from(fields.text("tenant")?.as_str()),
        participant_ms: fields.number("participant_ms")?,
        egress_bytes: fields.number("egress_bytes")?,
    })
}
