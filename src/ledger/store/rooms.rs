//! Rooms that outlive a restart, and what their participants' webhooks are told of a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::StoreError;
use super::rows::{id, optional_id, small};
use super::statement::{Dialect, Fields, Many, Statement, Values};
use super::{Store, Transaction, outbox};
use crate::command::{EndReason, RoomSettings};
use crate::ids::{CallId, IdSource, Identity, ParticipantId, RoomId, RoomName, Tenant};
use crate::ledger::event::{self, EventKind, Subject};
use crate::ledger::record::{Batch, EventRow, RoomRow, UnixMs};

/// A room again and again, each time as it is now.
const ROOMS: Many = Many {
    head: "INSERT INTO rooms (room_id, tenant, node, name, metadata, max_participants, empty_timeout_ms, \
           departure_timeout_ms, max_duration_ms, created_at, seq) VALUES",
    columns: 11,
    tail: "ON CONFLICT (room_id) DO UPDATE SET metadata = excluded.metadata, \
           max_participants = excluded.max_participants, empty_timeout_ms = excluded.empty_timeout_ms, \
           departure_timeout_ms = excluded.departure_timeout_ms, max_duration_ms = excluded.max_duration_ms, \
           seq = excluded.seq",
};

/// Whom a server that starts tells of the sessions that a crash cut off.
pub struct Mourners<'a> {
    /// Where each tenant's events go.
    pub webhooks: &'a BTreeMap<Tenant, Vec<String>>,
    /// Draws the events' ids.
    pub seed: [u8; 32],
}

/// What is told of a session that a crash cut off.
struct Lost {
    tenant: Tenant,
    room: RoomId,
    room_name: RoomName,
    call: Option<(CallId, UnixMs)>,
    participant: ParticipantId,
    identity: Option<Identity>,
    duration_ms: u64,
}

impl Lost {
    /// None for records of before a record knew its participant.
    fn of(fields: &Fields) -> Result<Option<Self>, StoreError> {
        let Some(participant) = optional_id(fields, "participant_id")? else { return Ok(None) };
        let call = id(fields, "call_id")?;
        Ok(Some(Self {
            tenant: Tenant::from(fields.text("tenant")?.as_str()),
            room: id(fields, "room_id")?,
            room_name: RoomName::from(fields.text("room_name")?),
            call: fields.optional_number("started_at")?.map(|started_at| (call, UnixMs(started_at))),
            participant,
            identity: fields.optional_text("identity")?.map(Identity::from),
            duration_ms: fields.number("duration_ms")?,
        }))
    }

    fn event(self, seq: u64, now: UnixMs, ids: &mut IdSource, urls: Vec<String>) -> EventRow {
        let event = ids.id();
        let head = event::Head { event, kind: EventKind::ParticipantLeft, seq, created_at: now, call: self.call };
        let end = Some((EndReason::ServerCrash, self.duration_ms));
        let subject = Subject::Participant { sid: self.participant, end };
        let body = event::body(&head, Some((self.room, &self.room_name)), &subject, self.identity.as_ref());
        let (tenant, room, identity) = (self.tenant, Some(self.room), self.identity);
        EventRow { event, tenant, room, seq, created_at: now, identity, body, urls }
    }
}

impl Store {
    /// The rooms that this node had when it was last written.
    pub async fn rooms(&self) -> Result<Vec<RoomRow>, StoreError> {
        let statement = Statement::new(
            "SELECT room_id, tenant, name, metadata, max_participants, empty_timeout_ms, departure_timeout_ms,
             max_duration_ms, created_at, seq FROM rooms WHERE node = $1 ORDER BY created_at, room_id",
        );
        self.read(statement.text(&self.0.node)).await?.iter().map(room).collect()
    }

    /// The number of each tenant's own last event.
    pub async fn told(&self) -> Result<BTreeMap<Tenant, u64>, StoreError> {
        let rows = self.read(Statement::new("SELECT tenant, seq FROM streams WHERE seq > 0")).await?;
        rows.iter().map(|row| Ok((Tenant::from(row.text("tenant")?.as_str()), row.number("seq")?))).collect()
    }
}

/// Writes the rooms of a batch, and removes those that have ended.
pub(super) async fn write(
    transaction: &mut Transaction<'_>,
    dialect: Dialect,
    node: &str,
    batch: &Batch,
) -> Result<(), StoreError> {
    // One statement cannot change a row twice: of a room that comes twice, the later counts.
    let rooms: BTreeMap<_, _> = batch.rooms.iter().map(|row| (row.room, row)).collect();
    let rooms: Vec<_> = rooms.into_values().collect();
    for statement in ROOMS.statements(&rooms, dialect, |row, values| room_values(row, node, values)) {
        statement.run(transaction.connection()).await?;
    }
    let ended: Vec<_> = batch.ended_rooms.iter().map(ToString::to_string).collect();
    for ended in ended.chunks(ENDED_AT_ONCE) {
        let ended: Vec<_> = ended.iter().map(String::as_str).collect();
        let statement = Statement::new("DELETE FROM rooms WHERE node = $1").text(node).within("room_id", &ended);
        statement.run(transaction.connection()).await?;
    }
    Ok(())
}

/// Rows removed by one statement.
const ENDED_AT_ONCE: usize = 256;

/// Tells that the participants whose sessions are about to be closed have left. In the recovery's transaction, so that
/// it is told once, however often recovery begins anew.
pub(super) async fn tell_lost(
    transaction: &mut Transaction<'_>,
    store: &Store,
    mourners: &Mourners<'_>,
    now: UnixMs,
) -> Result<(), StoreError> {
    let lost = Statement::new(
        "SELECT sessions.participant_id, sessions.tenant, sessions.room_id, sessions.room_name, sessions.identity,
         sessions.duration_ms, sessions.call_id, calls.started_at
         FROM sessions LEFT JOIN calls ON calls.call_id = sessions.call_id
         WHERE sessions.node = $1 AND sessions.boot <> $2 AND sessions.ended_at IS NULL
         ORDER BY sessions.joined_at, sessions.record_id",
    );
    let lost = lost.text(&store.0.node).text(&store.0.boot).rows(transaction.connection()).await?;
    if lost.is_empty() {
        return Ok(());
    }
    let mut seqs = BTreeMap::new();
    let rooms = Statement::new("SELECT room_id, seq FROM rooms WHERE node = $1").text(&store.0.node);
    for row in rooms.rows(transaction.connection()).await? {
        seqs.insert(id(&row, "room_id")?, row.number("seq")?);
    }
    let mut ids = IdSource::from_seed(mourners.seed);
    let mut events = Vec::with_capacity(lost.len());
    let mut changed: BTreeMap<RoomId, u64> = BTreeMap::new();
    for lost in &lost {
        let Some(lost) = Lost::of(lost)? else { continue };
        // Without its room there is no number to go on from.
        let Some(seq) = seqs.get_mut(&lost.room) else { continue };
        *seq += 1;
        changed.insert(lost.room, *seq);
        let urls = mourners.webhooks.get(&lost.tenant).cloned().unwrap_or_default();
        events.push(lost.event(*seq, now, &mut ids, urls));
    }
    for (room, seq) in changed {
        let statement = Statement::new("UPDATE rooms SET seq = $1 WHERE room_id = $2");
        statement.number(seq).text(room.to_string()).run(transaction.connection()).await?;
    }
    outbox::append(transaction, store.0.dialect, &events).await
}

fn room_values(row: &RoomRow, node: &str, values: &mut Values) {
    let settings = &row.settings;
    let ms = |duration: Duration| duration.as_millis() as u64;
    values
        .text(row.room.to_string())
        .text(row.tenant.key())
        .text(node)
        .text(settings.name.as_str())
        .text(settings.metadata.as_str())
        .number(settings.max_participants.into())
        .number(ms(settings.empty_timeout))
        .number(ms(settings.departure_timeout))
        .optional_number(settings.max_duration.map(ms))
        .number(row.created_at.0)
        .number(row.seq);
}

fn room(fields: &Fields) -> Result<RoomRow, StoreError> {
    let duration = |column| fields.number(column).map(Duration::from_millis);
    Ok(RoomRow {
        room: id(fields, "room_id")?,
        tenant: Tenant::from(fields.text("tenant")?.as_str()),
        settings: RoomSettings {
            name: fields.text("name")?.into(),
            metadata: fields.text("metadata")?.into(),
            max_participants: small(fields, "max_participants")?,
            empty_timeout: duration("empty_timeout_ms")?,
            departure_timeout: duration("departure_timeout_ms")?,
            max_duration: fields.optional_number("max_duration_ms")?.map(Duration::from_millis),
        },
        created_at: UnixMs(fields.number("created_at")?),
        seq: fields.number("seq")?,
    })
}
