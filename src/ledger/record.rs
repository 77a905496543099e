//! What the ledger keeps: rows about sessions, calls, days and events, and the batch that writes them.
//!
//! Times are UTC wall time, durations come from the monotonic clock; the two are never computed from one another.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::address::{IpForm, IpMode};
use super::client::{ClientKind, Os};
use crate::command::{RoomSettings, Transport};
use crate::ids::{CallId, EventId, Identity, ParticipantId, RecordId, RoomId, RoomName, Tenant};

/// Milliseconds in a day; UTC as Unix counts it has no leap seconds.
pub const DAY_MS: u64 = 86_400_000;

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
const LATEST_MS: u64 = 253_402_300_799_999;

/// RFC 3339, UTC, milliseconds.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The UTC day it lies in.
    pub fn day(self) -> Day {
        Day((self.0 / DAY_MS) as u32)
    }

    /// Reads RFC 3339 with any offset; none before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let nanoseconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        u64::try_from(nanoseconds / 1_000_000).ok().filter(|_| nanoseconds >= 0).map(Self)
    }
}

/// RFC 3339, UTC, milliseconds.
impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_millis(self.0.min(LATEST_MS));
        f.write_str(&at.format(FORMAT).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for UnixMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for UnixMs {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "UnixMs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// A UTC day: days since 1970-01-01.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u32);

impl Day {
    /// Its first moment.
    pub fn start(self) -> UnixMs {
        UnixMs(u64::from(self.0) * DAY_MS)
    }

    /// The first day of its month.
    pub fn month(self) -> Self {
        let date = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_millis(self.start().0.min(LATEST_MS));
        Self(self.0 - u32::from(date.day() - 1))
    }
}

/// As in RFC 3339: `2026-11-22`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.start().to_string();
        f.write_str(text.get(..10).unwrap_or(&text))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Day {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date"})
    }
}

/// What one session has used so far. Absolute values: written twice they are still right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// From media connected to the end, by the monotonic clock.
    pub duration_ms: u64,
    /// What the server received: UDP payloads of all kinds, STUN and DTLS included.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// How long at least one unmuted track of the kind was published.
    pub audio_published_ms: u64,
    pub video_published_ms: u64,
}

/// What is known of the person behind a record; all of it goes with an erasure.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    pub identity: Identity,
    pub ip: IpForm,
    pub os: Os,
    pub client: ClientKind,
}

impl Person {
    /// Nothing about nobody.
    pub fn nobody() -> Self {
        let ip = IpForm { mode: IpMode::None, value: String::new() };
        Self { identity: Identity::default(), ip, os: Os::Other, client: ClientKind::Other }
    }
}

/// A room that exists. It outlives the run of the server it was allocated in.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomRow {
    pub room: RoomId,
    pub tenant: Tenant,
    pub settings: RoomSettings,
    pub created_at: UnixMs,
    /// Of its last event.
    pub seq: u64,
}

impl RoomRow {
    /// What it is asked for by.
    pub fn name(&self) -> RoomName {
        self.settings.name.as_str().into()
    }
}

/// One participant's session in one room.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub record: RecordId,
    /// Who it was in the events. None in rows of the schema's first version.
    pub participant: Option<ParticipantId>,
    pub tenant: Tenant,
    pub call: CallId,
    pub room: RoomId,
    pub room_name: RoomName,
    /// None once erased.
    pub person: Option<Person>,
    pub joined_at: UnixMs,
    /// None while it runs.
    pub ended_at: Option<UnixMs>,
    pub usage: Usage,
    pub transport: Transport,
    /// The word of an [`crate::command::EndReason`]; none while it runs.
    pub end_reason: Option<String>,
}

/// One call: a room from its first participant's join to its last one's leave.
#[derive(Clone, PartialEq, Eq)]
pub struct CallRow {
    pub call: CallId,
    pub tenant: Tenant,
    pub room: RoomId,
    pub room_name: RoomName,
    pub started_at: UnixMs,
    /// None while it runs.
    pub ended_at: Option<UnixMs>,
    pub duration_ms: u64,
    /// Sessions that took part.
    pub participants: u32,
    pub peak_participants: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub end_reason: Option<String>,
}

/// What to add to a tenant's sums of a day. They know no person and outlive the records.
#[derive(Clone, PartialEq, Eq)]
pub struct SumDelta {
    pub tenant: Tenant,
    pub day: Day,
    pub participant_ms: u64,
    /// Each session's minutes, begun ones counted whole.
    pub rounded_up_minutes: u64,
    pub calls: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
    /// Not added: the day keeps the highest.
    pub peak_participants: u64,
    /// Not added: the day keeps the highest.
    pub distinct_addresses: u64,
}

impl SumDelta {
    /// Nothing, of this tenant and day.
    pub fn nothing(tenant: Tenant, day: Day) -> Self {
        Self {
            tenant,
            day,
            participant_ms: 0,
            rounded_up_minutes: 0,
            calls: 0,
            egress_bytes: 0,
            ingress_bytes: 0,
            peak_participants: 0,
            distinct_addresses: 0,
        }
    }
}

/// Something a tenant is told by webhook and event stream.
#[derive(Clone, PartialEq, Eq)]
pub struct EventRow {
    pub event: EventId,
    pub tenant: Tenant,
    /// None for events about the tenant as a whole.
    pub room: Option<RoomId>,
    /// Rises by one per room.
    pub seq: u64,
    pub created_at: UnixMs,
    /// Whom it is about, so that an erasure finds it.
    pub identity: Option<Identity>,
    /// The JSON body, as every receiver gets it.
    pub body: String,
    /// The webhooks it has to reach.
    pub urls: Vec<String>,
}

/// What one transaction writes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rises by one a batch within a run of the server: a batch whose commit was in doubt is sent again and must not
    /// count twice.
    pub number: u64,
    /// Inserted, or replacing the row of the same `room`.
    pub rooms: Vec<RoomRow>,
    /// Rooms that have ended; their rows go.
    pub ended_rooms: Vec<RoomId>,
    /// Inserted, or replacing the row of the same `record`.
    pub sessions: Vec<SessionRow>,
    /// Inserted, or replacing the row of the same `call`.
    pub calls: Vec<CallRow>,
    pub sums: Vec<SumDelta>,
    /// Inserted; an event that is already there is left alone.
    pub events: Vec<EventRow>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { number: _, rooms, ended_rooms, sessions, calls, sums, events } = self;
        let of_rooms = rooms.is_empty() && ended_rooms.is_empty();
        of_rooms && sessions.is_empty() && calls.is_empty() && sums.is_empty() && events.is_empty()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("number", &self.number)
            .field("sessions", &self.sessions.len())
            .field("calls", &self.calls.len())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_763_769_600_001, "2025-11-22T00:00:00.001Z"),
            (LATEST_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UnixMs(ms).to_string(), text);
            assert_eq!(UnixMs::parse(text), Some(UnixMs(ms)));
        }
        assert_eq!(UnixMs::parse("1970-01-01T01:00:00+01:00"), Some(UnixMs(0)));
        for wrong in ["", "yesterday", "2026-11-22", "1969-12-31T23:59:59Z"] {
            assert_eq!(UnixMs::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn days_know_their_month() {
        let day = UnixMs::parse("2026-11-22T12:00:00Z").map(UnixMs::day).unwrap_or_default();
        assert_eq!((day.to_string(), day.month().to_string()), ("2026-11-22".to_owned(), "2026-11-01".to_owned()));
        assert_eq!(day.month().month(), day.month());
    }
}
