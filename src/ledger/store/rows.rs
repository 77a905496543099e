//! Sessions and calls as rows: how they are written, and how they are read back.

use std::str::FromStr;

use super::fault::StoreError;
use super::statement::{Fields, Many, Values};
use crate::command::Transport;
use crate::ids::{Id, Identity, Kind, RoomName, Tenant};
use crate::ledger::address::{IpForm, IpMode};
use crate::ledger::client::{ClientKind, Os};
use crate::ledger::record::{CallRow, Person, SessionRow, SumDelta, UnixMs, Usage};

/// A session again and again, each time with what it has used so far. Its person may go, but never comes or comes
/// back: whoever was erased stays erased, whatever a batch still holds.
pub(super) const SESSIONS: Many = Many {
    head: "INSERT INTO sessions (record_id, tenant, node, boot, call_id, room_id, room_name, identity, ip_mode, \
           ip_value, os, client, joined_at, ended_at, duration_ms, rx_bytes, tx_bytes, audio_published_ms, \
           video_published_ms, transport, end_reason, participant_id) VALUES",
    columns: 22,
    tail: "ON CONFLICT (record_id) DO UPDATE SET \
           identity = CASE WHEN excluded.identity IS NULL THEN NULL ELSE sessions.identity END, \
           ip_mode = CASE WHEN excluded.identity IS NULL THEN NULL ELSE sessions.ip_mode END, \
           ip_value = CASE WHEN excluded.identity IS NULL THEN NULL ELSE sessions.ip_value END, \
           os = CASE WHEN excluded.identity IS NULL THEN NULL ELSE sessions.os END, \
           client = CASE WHEN excluded.identity IS NULL THEN NULL ELSE sessions.client END, \
           ended_at = excluded.ended_at, duration_ms = excluded.duration_ms, rx_bytes = excluded.rx_bytes, \
           tx_bytes = excluded.tx_bytes, audio_published_ms = excluded.audio_published_ms, \
           video_published_ms = excluded.video_published_ms, transport = excluded.transport, \
           end_reason = excluded.end_reason",
};

/// A call again and again.
pub(super) const CALLS: Many = Many {
    head: "INSERT INTO calls (call_id, tenant, node, boot, room_id, room_name, started_at, ended_at, duration_ms, \
           participants, peak_participants, rx_bytes, tx_bytes, end_reason) VALUES",
    columns: 14,
    tail: "ON CONFLICT (call_id) DO UPDATE SET ended_at = excluded.ended_at, duration_ms = excluded.duration_ms, \
           participants = excluded.participants, peak_participants = excluded.peak_participants, \
           rx_bytes = excluded.rx_bytes, tx_bytes = excluded.tx_bytes, end_reason = excluded.end_reason",
};

/// What is added to a day. `CASE`, for the databases' names for the larger of two differ.
pub(super) const SUMS: Many = Many {
    head: "INSERT INTO sums (tenant, day, participant_ms, rounded_up_minutes, calls, egress_bytes, ingress_bytes, \
           peak_participants, distinct_addresses) VALUES",
    columns: 9,
    tail: "ON CONFLICT (tenant, day) DO UPDATE SET participant_ms = sums.participant_ms + excluded.participant_ms, \
           rounded_up_minutes = sums.rounded_up_minutes + excluded.rounded_up_minutes, \
           calls = sums.calls + excluded.calls, egress_bytes = sums.egress_bytes + excluded.egress_bytes, \
           ingress_bytes = sums.ingress_bytes + excluded.ingress_bytes, \
           peak_participants = CASE WHEN excluded.peak_participants > sums.peak_participants \
             THEN excluded.peak_participants ELSE sums.peak_participants END, \
           distinct_addresses = CASE WHEN excluded.distinct_addresses > sums.distinct_addresses \
             THEN excluded.distinct_addresses ELSE sums.distinct_addresses END",
};

/// Every column of a session that is read.
pub(super) const SESSION_COLUMNS: &str = "record_id, tenant, call_id, room_id, room_name, identity, ip_mode, ip_value, \
    os, client, joined_at, ended_at, duration_ms, rx_bytes, tx_bytes, audio_published_ms, video_published_ms, \
    transport, end_reason, participant_id";

/// Every column of a call that is read.
pub(super) const CALL_COLUMNS: &str = "call_id, tenant, room_id, room_name, started_at, ended_at, duration_ms, \
    participants, peak_participants, rx_bytes, tx_bytes, end_reason";

/// A session's values for [`SESSIONS`].
pub(super) fn session_values(row: &SessionRow, node: &str, boot: &str, values: &mut Values) {
    values.text(row.record.to_string()).text(row.tenant.key()).text(node).text(boot);
    values.text(row.call.to_string()).text(row.room.to_string()).text(row.room_name.as_str());
    let person = row.person.as_ref();
    values
        .optional_text(person.map(|person| person.identity.as_str()))
        .optional_text(person.map(|person| person.ip.mode.as_str()))
        .optional_text(person.map(|person| person.ip.value.as_str()))
        .optional_text(person.map(|person| person.os.as_str()))
        .optional_text(person.map(|person| person.client.as_str()));
    values
        .number(row.joined_at.0)
        .optional_number(row.ended_at.map(|at| at.0))
        .number(row.usage.duration_ms)
        .number(row.usage.rx_bytes)
        .number(row.usage.tx_bytes)
        .number(row.usage.audio_published_ms)
        .number(row.usage.video_published_ms)
        .text(row.transport.as_str())
        .optional_text(row.end_reason.as_deref())
        .optional_text(row.participant.map(|participant| participant.to_string()));
}

/// A call's values for [`CALLS`].
pub(super) fn call_values(row: &CallRow, node: &str, boot: &str, values: &mut Values) {
    values.text(row.call.to_string()).text(row.tenant.key()).text(node).text(boot);
    values
        .text(row.room.to_string())
        .text(row.room_name.as_str())
        .number(row.started_at.0)
        .optional_number(row.ended_at.map(|at| at.0))
        .number(row.duration_ms)
        .number(row.participants.into())
        .number(row.peak_participants.into())
        .number(row.rx_bytes)
        .number(row.tx_bytes)
        .optional_text(row.end_reason.as_deref());
}

/// A delta's values for [`SUMS`].
pub(super) fn sum_values(delta: &SumDelta, values: &mut Values) {
    values
        .text(delta.tenant.key())
        .number(delta.day.0.into())
        .number(delta.participant_ms)
        .number(delta.rounded_up_minutes)
        .number(delta.calls)
        .number(delta.egress_bytes)
        .number(delta.ingress_bytes)
        .number(delta.peak_participants)
        .number(delta.distinct_addresses);
}

/// A session read back.
pub(super) fn session(fields: &Fields) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        record: id(fields, "record_id")?,
        participant: optional_id(fields, "participant_id")?,
        tenant: Tenant::from(fields.text("tenant")?.as_str()),
        call: id(fields, "call_id")?,
        room: id(fields, "room_id")?,
        room_name: RoomName::from(fields.text("room_name")?),
        person: person(fields)?,
        joined_at: UnixMs(fields.number("joined_at")?),
        ended_at: fields.optional_number("ended_at")?.map(UnixMs),
        usage: Usage {
            duration_ms: fields.number("duration_ms")?,
            rx_bytes: fields.number("rx_bytes")?,
            tx_bytes: fields.number("tx_bytes")?,
            audio_published_ms: fields.number("audio_published_ms")?,
            video_published_ms: fields.number("video_published_ms")?,
        },
        transport: fields.parsed("transport", Transport::from_word)?,
        end_reason: fields.optional_text("end_reason")?,
    })
}

fn person(fields: &Fields) -> Result<Option<Person>, StoreError> {
    let Some(identity) = fields.optional_text("identity")? else { return Ok(None) };
    Ok(Some(Person {
        identity: Identity::from(identity),
        ip: IpForm { mode: fields.parsed("ip_mode", IpMode::from_word)?, value: fields.text("ip_value")? },
        os: fields.parsed("os", Os::from_word)?,
        client: fields.parsed("client", ClientKind::from_word)?,
    }))
}

/// A call read back.
pub(super) fn call(fields: &Fields) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        call: id(fields, "call_id")?,
        tenant: Tenant::from(fields.text("tenant")?.as_str()),
        room: id(fields, "room_id")?,
        room_name: RoomName::from(fields.text("room_name")?),
        started_at: UnixMs(fields.number("started_at")?),
        ended_at: fields.optional_number("ended_at")?.map(UnixMs),
        duration_ms: fields.number("duration_ms")?,
        participants: small(fields, "participants")?,
        peak_participants: small(fields, "peak_participants")?,
        rx_bytes: fields.number("rx_bytes")?,
        tx_bytes: fields.number("tx_bytes")?,
        end_reason: fields.optional_text("end_reason")?,
    })
}

/// An id of a kind.
pub(super) fn id<K: Kind>(fields: &Fields, column: &str) -> Result<Id<K>, StoreError> {
    fields.parsed(column, |text| Id::from_str(text).ok())
}

/// An id of a kind, if there is one.
pub(super) fn optional_id<K: Kind>(fields: &Fields, column: &str) -> Result<Option<Id<K>>, StoreError> {
    match fields.optional_text(column)? {
        Some(text) => Id::from_str(&text).map(Some).map_err(|_| StoreError::unreadable(column)),
        None => Ok(None),
    }
}

/// A number below 2^32.
pub(super) fn small(fields: &Fields, column: &str) -> Result<u32, StoreError> {
    u32::try_from(fields.number(column)?).map_err(|_| StoreError::unreadable(column))
}
