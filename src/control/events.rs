//! `GET /v1/events`: the tenant's events as they happen, for those who would rather read than be called.
//!
//! Server-sent events (WHATWG HTML §9.2): a reader that comes back with `Last-Event-ID` misses nothing of four days.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::app::App;
use super::auth::{self, Right};
use super::code::Code;
use super::problem::Problem;
use crate::config::Secret;
use crate::ids::{EventId, Tenant};
use crate::ledger::store::{StoreError, StreamEvent};

/// Streams of all tenants at a time; each asks the database twice a second.
pub const STREAMS_MAX: usize = 64;

/// How often the database is asked for news.
const POLL: Duration = Duration::from_millis(500);

/// Events read at once.
const CHUNK: u32 = 100;

/// How often a comment keeps the connection alive; proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Query {
    after: Option<String>,
}

/// Where a reader is.
struct Reader {
    app: Arc<App>,
    tenant: Tenant,
    /// The key's secret, when the stream began.
    secret: Option<Secret>,
    position: u64,
    read: VecDeque<StreamEvent>,
    _slot: OwnedSemaphorePermit,
}

/// `GET /v1/events`
pub async fn stream(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let query =
        axum::extract::Query::<Query>::try_from_uri(&uri).map_err(|_| Problem::of_response(StatusCode::BAD_REQUEST))?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let slot = Arc::clone(&app.event_streams).try_acquire_owned().map_err(|_| {
        let detail = "too many event streams are open; close one, or use webhooks";
        Problem::new(Code::TooManyStreams, detail)
    })?;
    let position = start(&app, &tenant, header.or(query.0.after)).await?;
    let secret = app.keys().current().get(tenant.key()).cloned();
    let reader = Reader { app, tenant, secret, position, read: VecDeque::new(), _slot: slot };
    let events = Sse::new(read_on(reader)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = events.into_response();
    // axum's own has no charset, and some readers then guess.
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// After which event to begin: the one named, or, where it is not kept any more, before all that are; else the latest.
async fn start(app: &App, tenant: &Tenant, last: Option<String>) -> Result<u64, Problem> {
    let store = app.ledger.store();
    let Some(last) = last else { return Ok(store.last_position(tenant).await?) };
    let event: EventId =
        last.parse().map_err(|_| Problem::new(Code::InvalidEventId, "Last-Event-ID is the id of an event: EV_…"))?;
    Ok(store.event_position(tenant, event).await?.unwrap_or(0))
}

fn read_on(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, |mut reader| async move {
        loop {
            if let Some(event) = reader.read.pop_front() {
                reader.position = event.position;
                let written = Event::default().id(event.event.to_string()).data(event.body);
                return Some((Ok(written.event(event.kind.unwrap_or_default())), reader));
            }
            if !reader.may_read() {
                return None;
            }
            match reader.news().await {
                Ok(news) if !news.is_empty() => reader.read.extend(news),
                // A store that fails now may work at the next look; the reader loses nothing.
                Ok(_) | Err(_) => pause().await,
            }
        }
    })
}

impl Reader {
    /// Whether the key is still what it was: a reload may have taken or changed it.
    fn may_read(&self) -> bool {
        self.app.keys().current().get(self.tenant.key()) == self.secret.as_ref()
    }

    async fn news(&self) -> Result<Vec<StreamEvent>, StoreError> {
        self.app.ledger.store().events_after(&self.tenant, Some(self.position), CHUNK).await
    }
}

#[expect(clippy::disallowed_methods, reason = "a reader waits for what is still to happen")]
async fn pause() {
    tokio::time::sleep(POLL).await;
}

/// Room for as many streams as there may be.
pub fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS_MAX))
}
