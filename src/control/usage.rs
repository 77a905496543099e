//! `/v1/calls`, `/v1/records`, `/v1/usage`: what was used, for the tenant whose it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::auth::{self, Right};
use super::body::{self, Fields, Page};
use super::problem::Problem;
use crate::command::{EndReason, Transport};
use crate::config::IpMode;
use crate::ids::{CallId, RecordId, Tenant};
use crate::ledger::client::{ClientKind, Os};
use crate::ledger::record::{CallRow, Day, SessionRow, UnixMs};
use crate::ledger::store::{DayUsage, Filter, Place, RecordFilter, RoomUsage};

/// What calls and records can be filtered by.
#[derive(Deserialize)]
struct Query {
    from: Option<String>,
    to: Option<String>,
    room: Option<String>,
    identity: Option<String>,
    call: Option<String>,
    group_by: Option<String>,
}

impl Query {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let query = axum::extract::Query::<Self>::try_from_uri(uri);
        query.map(|query| query.0).map_err(|_| Problem::of_response(axum::http::StatusCode::BAD_REQUEST))
    }

    /// The span of time and the room.
    fn filter(&self) -> Result<Filter, Problem> {
        let mut fields = Fields::default();
        let mut read = |name: &str, text: &Option<String>| {
            let time = text.as_deref().map(|text| read_time(text).ok_or(()));
            let detail = || "expected RFC 3339, such as 2026-11-22T00:00:00Z, or a day, such as 2026-11-22".to_owned();
            fields.check(name, if time == Some(Err(())) { Err(detail()) } else { Ok(()) });
            time.and_then(Result::ok)
        };
        let (from, to) = (read("?from", &self.from), read("?to", &self.to));
        fields.finish()?;
        Ok(Filter { from, to, room: self.room.as_deref().map(Into::into) })
    }
}

/// A time, or the first moment of a day.
fn read_time(text: &str) -> Option<UnixMs> {
    UnixMs::parse(text).or_else(|| UnixMs::parse(&format!("{text}T00:00:00Z")))
}

/// The place after which a page begins.
fn place(page: &Page) -> Result<Option<Place>, Problem> {
    let Some(after) = &page.after else { return Ok(None) };
    let place = after.split_once('-').and_then(|(start, id)| Some((start.parse().ok()?, id.to_owned())));
    let mut fields = Fields::default();
    fields.check("?cursor", if place.is_some() { Ok(()) } else { Err("not a cursor of this list".to_owned()) });
    fields.finish()?;
    Ok(place.map(|(start, id)| Place { start: UnixMs(start), id }))
}

/// Cuts the row that only tells that there are more, and makes a cursor of the last one.
fn next_cursor<T>(rows: &mut Vec<T>, limit: usize, place: impl Fn(&T) -> (UnixMs, String)) -> Option<String> {
    let has_next = rows.len() > limit;
    rows.truncate(limit);
    let (UnixMs(start), id) = rows.last().filter(|_| has_next).map(place)?;
    Some(body::cursor(&format!("{start}-{id}")))
}

/// A call as the API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Call")]
pub struct CallView<'a> {
    call: CallId,
    room: &'a str,
    started_at: UnixMs,
    ended_at: Option<UnixMs>,
    duration_ms: u64,
    participants: u32,
    peak_participants: u32,
    rx_bytes: u64,
    tx_bytes: u64,
    #[schemars(with = "Option<EndReason>")]
    end_reason: Option<&'a str>,
    /// It is over: nothing here changes any more.
    r#final: bool,
}

impl<'a> CallView<'a> {
    fn of(row: &'a CallRow) -> Self {
        Self {
            call: row.call,
            room: row.room_name.as_str(),
            started_at: row.started_at,
            ended_at: row.ended_at,
            duration_ms: row.duration_ms,
            participants: row.participants,
            peak_participants: row.peak_participants,
            rx_bytes: row.rx_bytes,
            tx_bytes: row.tx_bytes,
            end_reason: row.end_reason.as_deref(),
            r#final: row.ended_at.is_some(),
        }
    }
}

/// A record as the API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Record")]
pub struct RecordView<'a> {
    record_id: RecordId,
    call: CallId,
    room: &'a str,
    /// None once the person was erased.
    identity: Option<&'a str>,
    joined_at: UnixMs,
    ended_at: Option<UnixMs>,
    duration_ms: u64,
    rx_bytes: u64,
    tx_bytes: u64,
    audio_published_ms: u64,
    video_published_ms: u64,
    ip: IpView<'a>,
    #[schemars(with = "Option<Os>")]
    os: Option<&'static str>,
    #[schemars(with = "Option<ClientKind>")]
    client: Option<&'static str>,
    #[schemars(with = "Transport")]
    transport: &'static str,
    #[schemars(with = "Option<EndReason>")]
    end_reason: Option<&'a str>,
    /// It is over: nothing here changes any more.
    r#final: bool,
}

/// The client's address, as much of it as is kept.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Address")]
pub struct IpView<'a> {
    #[schemars(extend("enum" = IpMode::ALL.map(IpMode::as_str)))]
    mode: &'static str,
    value: Option<&'a str>,
}

impl<'a> RecordView<'a> {
    /// The view of a row.
    pub fn of(row: &'a SessionRow) -> Self {
        let person = row.person.as_ref();
        let value = person.map(|person| person.ip.value.as_str()).filter(|value| !value.is_empty());
        Self {
            record_id: row.record,
            call: row.call,
            room: row.room_name.as_str(),
            identity: person.map(|person| person.identity.as_str()),
            joined_at: row.joined_at,
            ended_at: row.ended_at,
            duration_ms: row.usage.duration_ms,
            rx_bytes: row.usage.rx_bytes,
            tx_bytes: row.usage.tx_bytes,
            audio_published_ms: row.usage.audio_published_ms,
            video_published_ms: row.usage.video_published_ms,
            ip: IpView { mode: person.map_or("none", |person| person.ip.mode.as_str()), value },
            os: person.map(|person| person.os.as_str()),
            client: person.map(|person| person.client.as_str()),
            transport: row.transport.as_str(),
            end_reason: row.end_reason.as_deref(),
            r#final: row.ended_at.is_some(),
        }
    }
}

/// A page of calls, by their start.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Calls")]
pub struct CallsView<'a> {
    calls: Vec<CallView<'a>>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// A page of records, by their start.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Records")]
pub struct RecordsView<'a> {
    records: Vec<RecordView<'a>>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// Sums, and the sum of them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageList")]
pub struct UsageListView {
    usage: Vec<UsageView>,
    total: UsageView,
}

/// `GET /v1/calls`
pub async fn calls(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let page = Page::of(&uri)?;
    let (filter, after) = (Query::of(&uri)?.filter()?, place(&page)?);
    let mut rows = app.ledger.store().calls(&tenant, &filter, after.as_ref(), page.limit as u32 + 1).await?;
    let next_cursor = next_cursor(&mut rows, page.limit, |row| (row.started_at, row.call.to_string()));
    let calls = rows.iter().map(CallView::of).collect();
    Ok(Json(CallsView { calls, next_cursor }).into_response())
}

/// `GET /v1/records`
pub async fn records(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let page = Page::of(&uri)?;
    let query = Query::of(&uri)?;
    let after = place(&page)?;
    let call = query.call.as_deref().map(str::parse).transpose();
    let mut fields = Fields::default();
    fields.check("?call", call.as_ref().map(|_| ()).map_err(ToString::to_string));
    fields.finish()?;
    let identity = query.identity.as_deref().map(Into::into);
    let filter = RecordFilter { span: query.filter()?, identity, call: call.unwrap_or_default() };
    let mut rows = app.ledger.store().records(&tenant, &filter, after.as_ref(), page.limit as u32 + 1).await?;
    let next_cursor = next_cursor(&mut rows, page.limit, |row| (row.joined_at, row.record.to_string()));
    let records = rows.iter().map(RecordView::of).collect();
    Ok(Json(RecordsView { records, next_cursor }).into_response())
}

/// Sums of a day, of a room, or of all that was asked for.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "Usage")]
pub struct UsageView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    pub participant_ms: u64,
    pub rounded_up_minutes: u64,
    pub peak_participants: u64,
    pub calls: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
    /// Known by day alone.
    pub distinct_addresses: Option<u64>,
}

impl UsageView {
    /// A day's sums.
    pub fn of_day(usage: DayUsage) -> Self {
        Self {
            day: Some(usage.day),
            room: None,
            participant_ms: usage.participant_ms,
            rounded_up_minutes: usage.rounded_up_minutes,
            peak_participants: usage.peak_participants,
            calls: usage.calls,
            egress_bytes: usage.egress_bytes,
            ingress_bytes: usage.ingress_bytes,
            distinct_addresses: Some(usage.distinct_addresses),
        }
    }

    /// The sums of a room's records and calls.
    pub fn of_room(usage: RoomUsage) -> Self {
        Self {
            day: None,
            room: Some(usage.room_name.as_str().to_owned()),
            participant_ms: usage.participant_ms,
            rounded_up_minutes: usage.rounded_up_minutes,
            peak_participants: usage.peak_participants,
            calls: usage.calls,
            egress_bytes: usage.egress_bytes,
            ingress_bytes: usage.ingress_bytes,
            distinct_addresses: None,
        }
    }

    /// Peaks and distinct addresses of different days and rooms cannot be added: the highest stands.
    fn add(mut self, other: &Self) -> Self {
        self.participant_ms += other.participant_ms;
        self.rounded_up_minutes += other.rounded_up_minutes;
        self.peak_participants = self.peak_participants.max(other.peak_participants);
        self.calls += other.calls;
        self.egress_bytes += other.egress_bytes;
        self.ingress_bytes += other.ingress_bytes;
        self.distinct_addresses = self.distinct_addresses.max(other.distinct_addresses);
        self
    }
}

/// `GET /v1/usage`
pub async fn usage(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let query = Query::of(&uri)?;
    let span = query.filter()?;
    let mut fields = Fields::default();
    let by_room = match query.group_by.as_deref() {
        None | Some("day") => false,
        Some("room") => true,
        Some(_) => {
            fields.check("?group_by", Err("expected day or room".to_owned()));
            false
        }
    };
    if query.room.is_some() && !by_room {
        fields.check("?room", Err("sums by day know no room; group_by=room does".to_owned()));
    }
    fields.finish()?;
    let usage = match by_room {
        true => usage_by_room(&app, &tenant, &span).await?,
        false => usage_by_day(&app, &tenant, &span).await?,
    };
    let total = usage.iter().fold(UsageView::default(), UsageView::add);
    Ok(Json(UsageListView { usage, total }).into_response())
}

async fn usage_by_day(app: &App, tenant: &Tenant, span: &Filter) -> Result<Vec<UsageView>, Problem> {
    let last = span.to.map(|to| UnixMs(to.0.saturating_sub(1)).day());
    let days = app.ledger.store().usage_by_day(tenant, span.from.map(UnixMs::day), last).await?;
    Ok(days.into_iter().map(UsageView::of_day).collect())
}

async fn usage_by_room(app: &App, tenant: &Tenant, span: &Filter) -> Result<Vec<UsageView>, Problem> {
    let rooms = app.ledger.store().usage_by_room(tenant, span.from, span.to).await?;
    let wanted = |usage: &RoomUsage| span.room.as_ref().is_none_or(|room| *room == usage.room_name);
    Ok(rooms.into_iter().filter(wanted).map(UsageView::of_room).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_days() {
        assert_eq!(read_time("1970-01-02"), Some(UnixMs(86_400_000)));
        assert_eq!(read_time("1970-01-02T00:00:00.001Z"), Some(UnixMs(86_400_001)));
        assert_eq!(read_time("1970-01-02T01:00:00+01:00"), Some(UnixMs(86_400_000)));
        for wrong in ["", "now", "1970-13-01", "1970-01-02T00:00:00"] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_page_ends_with_a_cursor_only_if_there_is_more() {
        let place = |number: &u64| (UnixMs(*number), "RE_x".to_owned());
        let mut rows = vec![1, 2, 3];
        assert_eq!(next_cursor(&mut rows, 2, place), Some(body::cursor("2-RE_x")));
        assert_eq!(rows, [1, 2]);
        assert_eq!(next_cursor(&mut rows, 2, place), None);
    }
}
