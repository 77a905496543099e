//! One person's data: all of it handed out, or all of it gone.

use serde_json::Value;

use super::fault::StoreError;
use super::rows::{SESSION_COLUMNS, session};
use super::statement::{Dialect, Many, Statement};
use super::{Store, Transaction};
use crate::ids::{Identity, Tenant};
use crate::ledger::record::SessionRow;

/// Identities in one statement.
const IDENTITIES_MAX: usize = 256;

/// Events cleaned in one statement.
const EVENTS_AT_ONCE: u32 = 512;

/// What a `participant` in an event tells of the person.
const PERSONAL_KEYS: [&str; 4] = ["identity", "name", "metadata", "attributes"];

const CLEANED: Many = Many {
    head: "UPDATE events SET identity = NULL, body = cleaned.column2 FROM (VALUES",
    columns: 2,
    tail: ") AS cleaned WHERE events.event_id = cleaned.column1",
};

/// All that is stored about some identities. No `Debug`, for the same reason.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Export {
    pub records: Vec<SessionRow>,
    /// Bodies of events, in JSON.
    pub events: Vec<String>,
}

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    pub records: u64,
    pub events: u64,
}

impl Store {
    /// Everything about these identities of a tenant.
    pub async fn export(&self, tenant: &Tenant, identities: &[Identity]) -> Result<Export, StoreError> {
        let mut export = Export::default();
        for some in identities.chunks(IDENTITIES_MAX) {
            let some: Vec<&str> = some.iter().map(Identity::as_str).collect();
            let records = Statement::new(format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE tenant = $1"))
                .text(tenant.key())
                .within("identity", &some)
                .then(" ORDER BY joined_at, record_id");
            for row in self.read(records).await? {
                export.records.push(session(&row)?);
            }
            let events = Statement::new("SELECT body FROM events WHERE tenant = $1")
                .text(tenant.key())
                .within("identity", &some)
                .then(" ORDER BY position");
            for row in self.read(events).await? {
                export.events.push(row.text("body")?);
            }
        }
        Ok(export)
    }

    /// Erases these identities of a tenant: rows stay, for their sums were counted, and lose the person; events, sent
    /// or not, no longer tell who it was. In SQLite no byte of it is left in any file when this succeeds. Where it
    /// fails, the same call again finishes it. What waits in memory for a batch is the caller's to erase, first.
    pub async fn erase(&self, tenant: &Tenant, identities: &[Identity]) -> Result<Erased, StoreError> {
        let erased = self.persistently(|| self.erase_rows(tenant, identities)).await?;
        self.scrub().await?;
        Ok(erased)
    }

    async fn erase_rows(&self, tenant: &Tenant, identities: &[Identity]) -> Result<Erased, StoreError> {
        let mut transaction = self.begin().await?;
        let mut erased = Erased::default();
        for some in identities.chunks(IDENTITIES_MAX) {
            let some: Vec<&str> = some.iter().map(Identity::as_str).collect();
            erased.records += Statement::new(
                "UPDATE sessions SET identity = NULL, ip_mode = NULL, ip_value = NULL, os = NULL, client = NULL
                 WHERE tenant = $1",
            )
            .text(tenant.key())
            .within("identity", &some)
            .run(transaction.connection())
            .await?;
            loop {
                let cleaned = erase_events(&mut transaction, self.0.dialect, tenant, &some).await?;
                if cleaned == 0 {
                    break;
                }
                erased.events += cleaned;
            }
        }
        self.deleted(erased.records + erased.events);
        transaction.commit().await?;
        Ok(erased)
    }
}

async fn erase_events(
    transaction: &mut Transaction<'_>,
    dialect: Dialect,
    tenant: &Tenant,
    identities: &[&str],
) -> Result<u64, StoreError> {
    let found = Statement::new("SELECT event_id, body FROM events WHERE tenant = $1")
        .text(tenant.key())
        .within("identity", identities)
        .limit(EVENTS_AT_ONCE)
        .rows(transaction.connection())
        .await?;
    let mut bodies = Vec::with_capacity(found.len());
    for row in found {
        bodies.push((row.text("event_id")?, impersonal(&row.text("body")?)));
    }
    let mut cleaned = 0;
    for statement in CLEANED.statements(&bodies, dialect, |(event, body), values| {
        values.text(event).text(body);
    }) {
        cleaned += statement.run(transaction.connection()).await?;
    }
    Ok(cleaned)
}

/// An event's body without the person: every `participant` in it has a null `identity` and no name, metadata or
/// attributes.
fn impersonal(body: &str) -> String {
    // What is not JSON cannot be cleaned, so nothing of it is kept.
    let mut value: Value = serde_json::from_str(body).unwrap_or_default();
    forget_participants(&mut value);
    value.to_string()
}

fn forget_participants(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(participant) = fields.get_mut("participant") {
                forget(participant);
            }
            fields.values_mut().for_each(forget_participants);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_participants),
        _ => {}
    }
}

fn forget(participant: &mut Value) {
    match participant {
        Value::Object(fields) => {
            for key in PERSONAL_KEYS {
                fields.remove(key);
            }
            fields.insert("identity".into(), Value::Null);
        }
        // Not as expected, so nobody knows what it tells.
        other => *other = Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_keeps_what_tells_of_nobody() {
        for (body, expected) in [
            (
                r#"{"participant":{"sid":"PA_1","identity":"ada","name":"Ada","metadata":"m","attributes":{}},"seq":3}"#,
                r#"{"participant":{"identity":null,"sid":"PA_1"},"seq":3}"#,
            ),
            (
                r#"{"track":{"sid":"TR_1","participant":{"identity":"ada","sid":"PA_1"}}}"#,
                r#"{"track":{"participant":{"identity":null,"sid":"PA_1"},"sid":"TR_1"}}"#,
            ),
            (r#"{"participant":"ada"}"#, r#"{"participant":null}"#),
            (r#"{"room":{"name":"hall"}}"#, r#"{"room":{"name":"hall"}}"#),
            ("ada", "null"),
        ] {
            assert_eq!(impersonal(body), expected);
        }
    }
}
