//! `/v1/subjects`: what is kept about a person, handed out (Art. 15, 20 GDPR) and erased (Art. 17).
//!
//! Who the person behind an identity is, the tenant alone knows (Art. 11).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app::{App, uninterrupted};
use super::auth::{self, Right};
use super::body::{self, Fields};
use super::edge::RequestName;
use super::limits::{self, IdentityText};
use super::problem::Problem;
use super::usage::RecordView;
use crate::command::{Command, EndReason, Refusal};
use crate::ids::{Identity, Tenant};
use crate::ledger::store::AuditAction;

/// The most identities of one batch.
const BATCH_MAX: usize = 1000;

/// What an export holds, field by field, so that whoever gets it can read it.
const FIELDS: [(&str, &str); 10] = [
    ("records", "one entry for each time the person took part in a call"),
    ("identity", "the pseudonym that the service gave the person"),
    ("joined_at, ended_at", "when, in UTC"),
    ("duration_ms", "how long, in milliseconds"),
    ("rx_bytes, tx_bytes", "bytes that the server received from and sent to the person's device"),
    ("audio_published_ms, video_published_ms", "how long sound and picture were sent"),
    ("ip", "the network address: how much of it is kept (mode), and that (value)"),
    ("os, client", "the families of operating system and program"),
    ("transport, end_reason", "how data travelled, and why the stay ended"),
    ("events", "what the service was told about the person"),
];

/// Several people at once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    #[schemars(with = "Vec<IdentityText>", length(min = 1, max = BATCH_MAX))]
    identities: Vec<String>,
}

/// What an erasure did.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Erasure")]
pub struct ErasedView {
    /// Records that lost the person.
    records: u64,
    /// Events that did.
    events: u64,
    /// Sessions that were running.
    sessions: u64,
}

/// Everything that is kept about a person.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Export")]
pub struct ExportView<'a> {
    /// What the fields mean.
    fields: BTreeMap<&'static str, &'static str>,
    records: Vec<RecordView<'a>>,
    /// As webhooks have them.
    #[schemars(with = "Vec<serde_json::Map<String, Value>>")]
    events: Vec<Value>,
}

/// `GET /v1/subjects/{identity}`
pub async fn export(
    State(app): State<Arc<App>>,
    Extension(request): Extension<RequestName>,
    Path(identity): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    check(&identity)?;
    export_all(&app, &tenant, &request, &[identity.into()]).await
}

/// `POST /v1/subjects/export`
pub async fn export_batch(
    State(app): State<Arc<App>>,
    Extension(request): Extension<RequestName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let identities = read_batch(&headers, body).await?;
    export_all(&app, &tenant, &request, &identities).await
}

/// `DELETE /v1/subjects/{identity}`
pub async fn erase(
    State(app): State<Arc<App>>,
    Extension(request): Extension<RequestName>,
    Path(identity): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    check(&identity)?;
    uninterrupted(async move { erase_all(&app, &tenant, &request, &[identity.into()]).await }).await
}

/// `POST /v1/subjects/erase`
pub async fn erase_batch(
    State(app): State<Arc<App>>,
    Extension(request): Extension<RequestName>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = auth::server(app.keys(), &headers, Right::Account)?;
    let identities = read_batch(&headers, body).await?;
    uninterrupted(async move { erase_all(&app, &tenant, &request, &identities).await }).await
}

/// What nobody can be called is a mistake of the caller's, and must not look like a person of whom nothing is kept.
fn check(identity: &str) -> Result<(), Problem> {
    let mut fields = Fields::default();
    fields.check("{identity}", limits::identity(identity));
    fields.finish()
}

async fn read_batch(headers: &HeaderMap, body: Body) -> Result<Vec<Identity>, Problem> {
    let Batch { identities } = body::json(headers, body).await?;
    let mut fields = Fields::default();
    let fits = (1..=BATCH_MAX).contains(&identities.len());
    fields.check("/identities", if fits { Ok(()) } else { Err(format!("expected 1 to {BATCH_MAX} identities")) });
    for (index, identity) in identities.iter().enumerate().take(BATCH_MAX) {
        fields.check(&format!("/identities/{index}"), limits::identity(identity));
    }
    fields.finish()?;
    Ok(identities.into_iter().map(Into::into).collect())
}

async fn export_all(
    app: &App,
    tenant: &Tenant,
    request: &RequestName,
    identities: &[Identity],
) -> Result<Response, Problem> {
    // What is still in memory belongs to it.
    app.write_ledger().await?;
    let export = app.ledger.store().export(tenant, identities).await?;
    let (records, events) = (export.records.len(), export.events.len());
    let detail = format!("{} identities, {records} records, {events} events, request {request}", identities.len());
    app.audit(tenant.key(), AuditAction::Export, detail).await?;
    let records = export.records.iter().map(RecordView::of).collect();
    let events = export.events.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
    Ok(Json(ExportView { fields: FIELDS.into(), records, events }).into_response())
}

async fn erase_all(
    app: &App,
    tenant: &Tenant,
    request: &RequestName,
    identities: &[Identity],
) -> Result<Response, Problem> {
    let mut sessions = 0;
    for identity in identities {
        sessions += remove_from_calls(app, tenant, identity).await;
    }
    let erased = app.ledger.erase(tenant, identities).await?;
    // The ends of the sessions just removed may have come after; what they still hold is nobody's.
    app.write_ledger().await?;
    let (records, events) = (erased.records, erased.events);
    let detail = format!(
        "{} identities, {records} records, {events} events, {sessions} sessions, request {request}",
        identities.len()
    );
    app.audit(tenant.key(), AuditAction::Erase, detail).await?;
    Ok(Json(ErasedView { records, events, sessions }).into_response())
}

/// Ends what runs of them. How many sessions there were.
async fn remove_from_calls(app: &App, tenant: &Tenant, identity: &Identity) -> u64 {
    // A move that is under way has come to its end, or the room it leads to would not know them yet.
    let _held = app.room_changes.lock().await;
    let rooms = app.ledger.with(|accounts| accounts.rooms_of(tenant, identity));
    let mut removed = 0;
    for room in rooms {
        let Some(shard) = app.directory.shard_of(room) else { continue };
        let reason = EndReason::ConsentWithdrawn;
        let command = Command::RemoveParticipant { room, identity: identity.clone(), reason };
        match app.tell(shard, command).await {
            Ok(_) => removed += 1,
            Err(Refusal::ParticipantNotFound | Refusal::RoomNotFound) => {}
            // What the shard could not be told ends with the token; its record knows nobody any more.
            Err(_) => tracing::error!("a session whose person was erased could not be ended"),
        }
    }
    removed
}
