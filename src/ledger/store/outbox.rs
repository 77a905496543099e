//! Events on their way out: written with what they tell of, kept until every webhook has them, readable as a stream.
//!
//! Deliveries of one room to one URL stand in a line, and only the first is ever due; a tenant's own events form one
//! line. A delivery that is handed out is held for a while, so that of several nodes with one database one sends it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::fault::StoreError;
use super::rows::id;
use super::statement::{Dialect, Fields, Many, Statement};
use super::{Store, Transaction};
use crate::ids::{EventId, Tenant};
use crate::ledger::record::{EventRow, UnixMs};

/// How long a delivery that was handed out is nobody else's, in milliseconds. Longer than any attempt takes.
const HELD_MS: u64 = 120_000;

const EVENTS: Many = Many {
    head: "INSERT INTO events (event_id, tenant, position, room_id, seq, created_at, identity, body) VALUES",
    columns: 8,
    tail: "ON CONFLICT (event_id) DO NOTHING RETURNING event_id",
};

const STREAMS: Many = Many {
    head: "INSERT INTO streams (tenant, position, seq) VALUES",
    columns: 3,
    tail: "ON CONFLICT (tenant) DO UPDATE SET position = streams.position + excluded.position, \
           seq = CASE WHEN excluded.seq > streams.seq THEN excluded.seq ELSE streams.seq END \
           RETURNING tenant, position",
};

/// The empty update locks the line: whoever is about to remove it because it was empty waits, and then sees.
const LINES: Many = Many {
    head: "INSERT INTO lines (url, tenant, room_id, attempts, next_at) VALUES",
    columns: 5,
    tail: "ON CONFLICT (url, tenant, room_id) DO UPDATE SET attempts = lines.attempts",
};

const DELIVERIES: Many = Many {
    head: "INSERT INTO deliveries (event_id, url, tenant, room_id, place, created_at) VALUES",
    columns: 6,
    tail: "ON CONFLICT (event_id, url) DO NOTHING",
};

/// Removes a line in which nobody stands any more, or it would be due for ever.
const DROP_EMPTY_LINE: &str = "DELETE FROM lines WHERE url = $1 AND tenant = $2 AND room_id = $3 AND NOT EXISTS \
    (SELECT 1 FROM deliveries WHERE url = $1 AND tenant = $2 AND room_id = $3)";

/// As [`DROP_EMPTY_LINE`], all of them.
const DROP_EMPTY_LINES: &str = "DELETE FROM lines WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE \
    deliveries.url = lines.url AND deliveries.tenant = lines.tenant AND deliveries.room_id = lines.room_id)";

/// One event for one URL. No `Debug`: a URL may hold a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId {
    event: EventId,
    url: String,
}

/// What to send now. No `Debug`: the body tells of a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub url: String,
    pub event: EventId,
    pub tenant: Tenant,
    /// The JSON body, the same for every receiver and attempt.
    pub body: String,
    /// How often it was tried and failed.
    pub attempts: u32,
    pub created_at: UnixMs,
}

/// What has not been delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub rows: u64,
    /// When the longest waiting one was made.
    pub oldest: Option<UnixMs>,
}

/// One event as the stream shows it. No `Debug`: the body tells of a person.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// Rises within a tenant, in the order of commits.
    pub position: u64,
    pub event: EventId,
    /// The body's `event`, if it has one.
    pub kind: Option<String>,
    pub body: String,
}

/// A line of deliveries; `room_id` is empty for a tenant's own events.
struct Line {
    url: String,
    tenant: String,
    room_id: String,
}

impl Line {
    fn of(fields: &Fields) -> Result<Self, StoreError> {
        Ok(Self { url: fields.text("url")?, tenant: fields.text("tenant")?, room_id: fields.text("room_id")? })
    }

    /// A statement whose first three parameters name the line.
    fn statement(&self, sql: &'static str) -> Statement {
        Statement::new(sql).text(&self.url).text(&self.tenant).text(&self.room_id)
    }
}

impl Store {
    /// Hands out up to `limit` deliveries that are due, each the first of its line, and holds them for two minutes:
    /// until then nobody else gets them. [`Self::delivered`] or [`Self::failed`] ends that.
    pub async fn due(&self, now: UnixMs, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.persistently(|| self.due_once(now, limit)).await
    }

    async fn due_once(&self, now: UnixMs, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let mut transaction = self.begin().await?;
        let held = Statement::new(
            "UPDATE lines SET next_at = $1, holder = $2 WHERE next_at <= $3 AND (url, tenant, room_id) IN
             (SELECT url, tenant, room_id FROM lines WHERE next_at <= $3 ORDER BY next_at LIMIT $4)
             RETURNING url, tenant, room_id, attempts",
        )
        .number(now.0.saturating_add(HELD_MS))
        .text(&self.0.node)
        .number(now.0)
        .number(limit.into())
        .rows(transaction.connection())
        .await?;
        let mut due = Vec::with_capacity(held.len());
        for line in held {
            let attempts = line.number("attempts")?;
            let line = Line::of(&line)?;
            let first = line
                .statement(
                    "SELECT events.event_id, events.tenant, events.body, events.created_at, deliveries.url
                     FROM deliveries JOIN events ON events.event_id = deliveries.event_id
                     WHERE deliveries.url = $1 AND deliveries.tenant = $2 AND deliveries.room_id = $3
                     ORDER BY deliveries.place LIMIT 1",
                )
                .row(transaction.connection())
                .await?;
            match first {
                Some(first) => due.push(delivery(&first, attempts)?),
                // Another node dropped its URL while something was put into it.
                None => {
                    line.statement(DROP_EMPTY_LINE).run(transaction.connection()).await?;
                }
            }
        }
        transaction.commit().await?;
        Ok(due)
    }

    /// The receiver has it: it goes, and the next of its line is due at once. Says whether it was still there.
    pub async fn delivered(&self, delivery: &DeliveryId) -> Result<bool, StoreError> {
        self.persistently(|| self.delivered_once(delivery)).await
    }

    async fn delivered_once(&self, delivery: &DeliveryId) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(line) = line_of(&mut transaction, delivery).await? else {
            transaction.commit().await?;
            return Ok(false);
        };
        // The line first: this waits for whoever is putting something into it. `next_at` was set when it was held.
        line.statement(
            "UPDATE lines SET attempts = 0, holder = NULL, next_at = next_at - $4
             WHERE url = $1 AND tenant = $2 AND room_id = $3",
        )
        .number(HELD_MS)
        .run(transaction.connection())
        .await?;
        Statement::new("DELETE FROM deliveries WHERE event_id = $1 AND url = $2")
            .text(delivery.event.to_string())
            .text(&delivery.url)
            .run(transaction.connection())
            .await?;
        line.statement(DROP_EMPTY_LINE).run(transaction.connection()).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The receiver does not have it: its line waits until `next_at`. Says whether it was still there.
    pub async fn failed(&self, delivery: &DeliveryId, attempts: u32, next_at: UnixMs) -> Result<bool, StoreError> {
        self.persistently(|| self.failed_once(delivery, attempts, next_at)).await
    }

    async fn failed_once(&self, delivery: &DeliveryId, attempts: u32, next_at: UnixMs) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(line) = line_of(&mut transaction, delivery).await? else {
            transaction.commit().await?;
            return Ok(false);
        };
        line.statement(
            "UPDATE lines SET attempts = $4, holder = NULL, next_at = $5
             WHERE url = $1 AND tenant = $2 AND room_id = $3",
        )
        .number(attempts.into())
        .number(next_at.0)
        .run(transaction.connection())
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Nothing more goes to this URL: all its deliveries are dropped. How many there were.
    pub async fn drop_url(&self, url: &str) -> Result<u64, StoreError> {
        self.persistently(|| self.drop_url_once(url)).await
    }

    async fn drop_url_once(&self, url: &str) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        Statement::new("DELETE FROM lines WHERE url = $1").text(url).run(transaction.connection()).await?;
        let dropped =
            Statement::new("DELETE FROM deliveries WHERE url = $1").text(url).run(transaction.connection()).await?;
        transaction.commit().await?;
        Ok(dropped)
    }

    /// Gives up on what was made before `before`. How many deliveries that were.
    pub async fn expire(&self, before: UnixMs) -> Result<u64, StoreError> {
        self.persistently(|| self.expire_once(before)).await
    }

    async fn expire_once(&self, before: UnixMs) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        // Those behind the dropped ones were not tried yet.
        Statement::new(
            "UPDATE lines SET attempts = 0 WHERE EXISTS (SELECT 1 FROM deliveries WHERE deliveries.url = lines.url
             AND deliveries.tenant = lines.tenant AND deliveries.room_id = lines.room_id
             AND deliveries.created_at < $1)",
        )
        .number(before.0)
        .run(transaction.connection())
        .await?;
        let dropped = Statement::new("DELETE FROM deliveries WHERE created_at < $1")
            .number(before.0)
            .run(transaction.connection())
            .await?;
        if dropped > 0 {
            Statement::new(DROP_EMPTY_LINES).run(transaction.connection()).await?;
        }
        transaction.commit().await?;
        Ok(dropped)
    }

    /// What has not been delivered.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let rows = self.read(Statement::new("SELECT COUNT(*) AS n, MIN(created_at) AS oldest FROM deliveries")).await?;
        let Some(row) = rows.first() else { return Ok(Backlog::default()) };
        Ok(Backlog { rows: row.number("n")?, oldest: row.optional_number("oldest")?.map(UnixMs) })
    }

    /// A tenant's events after a position, or from the first that is kept; up to `limit`.
    pub async fn events_after(
        &self,
        tenant: &Tenant,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<StreamEvent>, StoreError> {
        let events = Statement::new("SELECT position, event_id, body FROM events WHERE tenant = $1")
            .text(tenant.key())
            .and_number("position >", after)
            .then(" ORDER BY position")
            .limit(limit);
        self.read(events).await?.iter().map(stream_event).collect()
    }

    /// What a delivery that was handed out is to say now; `None` if it is to be sent no more.
    pub async fn body_of(&self, delivery: &DeliveryId) -> Result<Option<String>, StoreError> {
        let event = Statement::new("SELECT body FROM events WHERE event_id = $1").text(delivery.event.to_string());
        self.read(event).await?.first().map(|row| row.text("body")).transpose()
    }

    /// Where in its tenant's stream an event is, while it is kept.
    pub async fn event_position(&self, tenant: &Tenant, event: EventId) -> Result<Option<u64>, StoreError> {
        let event = Statement::new("SELECT position FROM events WHERE tenant = $1 AND event_id = $2")
            .text(tenant.key())
            .text(event.to_string());
        self.read(event).await?.first().map(|row| row.number("position")).transpose()
    }

    /// Where a tenant's stream ends now: what comes later has a higher position. Zero before the first event.
    pub async fn last_position(&self, tenant: &Tenant) -> Result<u64, StoreError> {
        let stream = Statement::new("SELECT position FROM streams WHERE tenant = $1").text(tenant.key());
        Ok(self.read(stream).await?.first().map(|row| row.number("position")).transpose()?.unwrap_or(0))
    }
}

/// Adds events and their deliveries. One that is there already is left alone, and so are its deliveries.
pub(super) async fn append(
    transaction: &mut Transaction<'_>,
    dialect: Dialect,
    events: &[EventRow],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let placed = placed(transaction, dialect, events).await?;
    let mut fresh = BTreeSet::new();
    for statement in EVENTS.statements(&placed, dialect, |(position, event), values| {
        values.text(event.event.to_string()).text(event.tenant.key()).number(*position);
        values.optional_text(event.room.map(|room| room.to_string())).number(event.seq).number(event.created_at.0);
        values.optional_text(event.identity.as_ref().map(crate::ids::Identity::as_str)).text(&event.body);
    }) {
        for row in statement.rows(transaction.connection()).await? {
            fresh.insert(row.text("event_id")?);
        }
    }
    let mut lines = BTreeMap::new();
    let mut deliveries = Vec::new();
    for (position, event) in placed {
        let name = event.event.to_string();
        // Taken out, so that an event that came twice in one batch is delivered once.
        if !fresh.remove(&name) {
            continue;
        }
        let room = event.room.map(|room| room.to_string()).unwrap_or_default();
        let place = if event.room.is_some() { event.seq } else { position };
        for url in &event.urls {
            lines.entry((url, event.tenant.key(), room.clone())).or_insert(event.created_at);
            deliveries.push((name.clone(), url, event, room.clone(), place));
        }
    }
    let lines: Vec<_> = lines.into_iter().collect();
    let statements = LINES
        .statements(&lines, dialect, |((url, tenant, room), created_at), values| {
            values.text(*url).text(*tenant).text(room).number(0).number(created_at.0);
        })
        .into_iter()
        .chain(DELIVERIES.statements(&deliveries, dialect, |(name, url, event, room, place), values| {
            values.text(name).text(*url).text(event.tenant.key()).text(room).number(*place).number(event.created_at.0);
        }));
    for statement in statements {
        statement.run(transaction.connection()).await?;
    }
    Ok(())
}

/// Gives each event its position in its tenant's stream.
async fn placed<'e>(
    transaction: &mut Transaction<'_>,
    dialect: Dialect,
    events: &'e [EventRow],
) -> Result<Vec<(u64, &'e EventRow)>, StoreError> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for event in events {
        let (count, seq) = counts.entry(event.tenant.key()).or_default();
        *count += 1;
        *seq = event.room.map_or(event.seq, |_| 0).max(*seq);
    }
    let counts: Vec<_> = counts.into_iter().collect();
    let mut last = BTreeMap::new();
    for statement in STREAMS.statements(&counts, dialect, |(tenant, (count, seq)), values| {
        values.text(*tenant).number(*count).number(*seq);
    }) {
        for row in statement.rows(transaction.connection()).await? {
            last.insert(row.text("tenant")?, row.number("position")?);
        }
    }
    // From behind, so that the last event gets the stream's new end.
    let mut placed = Vec::with_capacity(events.len());
    for event in events.iter().rev() {
        let end = last.get_mut(event.tenant.key()).ok_or_else(|| StoreError::unreadable("tenant"))?;
        placed.push((*end, event));
        *end = end.saturating_sub(1);
    }
    placed.reverse();
    Ok(placed)
}

/// Lets go of what earlier runs of a node were delivering.
pub(super) async fn release(transaction: &mut Transaction<'_>, node: &str, now: UnixMs) -> Result<(), StoreError> {
    Statement::new("UPDATE lines SET holder = NULL, next_at = $1 WHERE holder = $2")
        .number(now.0)
        .text(node)
        .run(transaction.connection())
        .await?;
    Ok(())
}

async fn line_of(transaction: &mut Transaction<'_>, delivery: &DeliveryId) -> Result<Option<Line>, StoreError> {
    Statement::new("SELECT url, tenant, room_id FROM deliveries WHERE event_id = $1 AND url = $2")
        .text(delivery.event.to_string())
        .text(&delivery.url)
        .row(transaction.connection())
        .await?
        .map(|row| Line::of(&row))
        .transpose()
}

fn delivery(fields: &Fields, attempts: u64) -> Result<Delivery, StoreError> {
    let (event, url) = (id(fields, "event_id")?, fields.text("url")?);
    Ok(Delivery {
        id: DeliveryId { event, url: url.clone() },
        url,
        event,
        tenant: Tenant::from(fields.text("tenant")?.as_str()),
        body: fields.text("body")?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        created_at: UnixMs(fields.number("created_at")?),
    })
}

fn stream_event(fields: &Fields) -> Result<StreamEvent, StoreError> {
    #[derive(Deserialize)]
    struct Kind {
        event: String,
    }
    let body = fields.text("body")?;
    let kind = serde_json::from_str(&body).ok().map(|kind: Kind| kind.event);
    Ok(StreamEvent { position: fields.number("position")?, event: id(fields, "event_id")?, kind, body })
}
