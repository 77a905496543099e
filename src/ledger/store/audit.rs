//! The audit log: what was done with personal data, by whom, in a chain of hashes that shows every later change.
//!
//! An entry's hash covers the hash before it, so nothing can be changed, put in or taken out unnoticed, save the
//! oldest entries, whose time is up: what came before the first kept one is remembered.

use aws_lc_rs::digest::{Context, SHA256};

use super::fault::StoreError;
use super::statement::{Fields, Statement};
use super::{Store, Transaction};
use crate::ledger::record::UnixMs;

/// Entries read at once.
const ENTRIES_AT_ONCE: u32 = 1000;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditAction {
    /// Somebody's data was handed out.
    Export,
    /// Somebody's data was erased.
    Erase,
    /// A key was used, so often in an hour.
    KeyUse,
    /// The configuration was read anew.
    Reload,
    /// Data whose time was up was deleted.
    Sweep,
    Start,
    Stop,
}

impl AuditAction {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Export, Self::Erase, Self::KeyUse, Self::Reload, Self::Sweep, Self::Start, Self::Stop];

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Erase => "erase",
            Self::KeyUse => "key_use",
            Self::Reload => "reload",
            Self::Sweep => "sweep",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// Something to be noted. No `Debug`: whose key it was is nobody's business.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub at: UnixMs,
    /// The API key's name, or what in the server did it.
    pub actor: String,
    pub action: AuditAction,
    /// Counts and the request's id; never a person.
    pub detail: String,
}

/// An unbroken chain: how many entries, and the positions of the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditChain {
    pub entries: u64,
    pub first: u64,
    pub last: u64,
}

/// Why the audit log proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Somebody changed, put in or took out an entry.
    #[error("the audit log was changed: entry {entry} is not what was written; compare it with a backup")]
    Broken { entry: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The row `audit_chain`: the kept part of the chain.
struct Ends {
    first: u64,
    first_previous: String,
    last: u64,
    last_hash: String,
}

impl Store {
    /// Appends an entry.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.persistently(|| self.audit_once(entry)).await
    }

    async fn audit_once(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // Changed first: the row stays locked, so that two nodes cannot both follow the same entry.
        let ends = Statement::new(
            "UPDATE audit_chain SET last_position = last_position + 1 WHERE id = 1
             RETURNING last_position, last_hash",
        )
        .row(transaction.connection())
        .await?
        .ok_or_else(|| StoreError::unreadable("audit_chain"))?;
        let position = ends.number("last_position")?;
        let hash =
            hash(&ends.text("last_hash")?, position, entry.at.0, [&entry.actor, entry.action.as_str(), &entry.detail]);
        Statement::new(
            "INSERT INTO audit (position, written_at, actor, action, detail, hash) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .number(position)
        .number(entry.at.0)
        .text(&entry.actor)
        .text(entry.action.as_str())
        .text(&entry.detail)
        .text(&hash)
        .run(transaction.connection())
        .await?;
        Statement::new("UPDATE audit_chain SET last_hash = $1 WHERE id = 1")
            .text(&hash)
            .run(transaction.connection())
            .await?;
        transaction.commit().await
    }

    /// Follows the chain from the first kept entry to the last.
    pub async fn verify_audit(&self) -> Result<AuditChain, AuditError> {
        loop {
            let ends = self.audit_ends().await?;
            match self.follow_chain(&ends).await {
                // Old entries were deleted under way.
                Err(AuditError::Broken { .. }) if self.audit_ends().await?.first != ends.first => {}
                ended => return ended,
            }
        }
    }

    async fn follow_chain(&self, ends: &Ends) -> Result<AuditChain, AuditError> {
        let (mut next, mut previous) = (ends.first, ends.first_previous.clone());
        loop {
            let entries = Statement::new(
                "SELECT position, written_at, actor, action, detail, hash FROM audit WHERE position >= $1
                 AND position <= $2 ORDER BY position LIMIT $3",
            )
            .number(next)
            .number(ends.last)
            .number(ENTRIES_AT_ONCE.into());
            let entries = self.read(entries).await?;
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                previous = follow(entry, next, &previous)?;
                next += 1;
            }
        }
        // Fewer than were written, or others.
        if next != ends.last + 1 || previous != ends.last_hash {
            return Err(AuditError::Broken { entry: next.min(ends.last) });
        }
        self.nothing_beyond(ends.first, ends.last).await?;
        Ok(AuditChain { entries: next - ends.first, first: ends.first, last: ends.last })
    }

    /// An entry outside the chain was put there by somebody else. One that was appended meanwhile is in the chain.
    async fn nothing_beyond(&self, first: u64, last: u64) -> Result<(), AuditError> {
        let beyond = Statement::new(
            "SELECT position FROM audit WHERE position < $1 OR position >
             (SELECT last_position FROM audit_chain WHERE id = 1) ORDER BY position LIMIT 1",
        )
        .number(first);
        match self.read(beyond).await?.first() {
            Some(entry) => Err(AuditError::Broken { entry: entry.number("position").unwrap_or(last) }),
            None => Ok(()),
        }
    }

    async fn audit_ends(&self) -> Result<Ends, StoreError> {
        let ends = Statement::new(
            "SELECT first_position, first_previous, last_position, last_hash FROM audit_chain WHERE id = 1",
        );
        let rows = self.read(ends).await?;
        let row = rows.first().ok_or_else(|| StoreError::unreadable("audit_chain"))?;
        Ok(Ends {
            first: row.number("first_position")?,
            first_previous: row.text("first_previous")?,
            last: row.number("last_position")?,
            last_hash: row.text("last_hash")?,
        })
    }
}

/// Deletes the entries before the first one written at `before` or later; how many.
pub(super) async fn shorten(transaction: &mut Transaction<'_>, before: UnixMs) -> Result<u64, StoreError> {
    // Locks the chain against appending.
    Statement::new("UPDATE audit_chain SET first_position = first_position WHERE id = 1")
        .run(transaction.connection())
        .await?;
    // By position, not by time: a clock that was set back must not tear a hole.
    let last_old = Statement::new(
        "SELECT position, hash FROM audit WHERE written_at < $1 AND position <
         COALESCE((SELECT MIN(position) FROM audit WHERE written_at >= $1),
                  (SELECT last_position + 1 FROM audit_chain WHERE id = 1))
         ORDER BY position DESC LIMIT 1",
    )
    .number(before.0)
    .row(transaction.connection())
    .await?;
    let Some(last_old) = last_old else { return Ok(0) };
    let position = last_old.number("position")?;
    Statement::new("UPDATE audit_chain SET first_position = $1, first_previous = $2 WHERE id = 1")
        .number(position + 1)
        .text(last_old.text("hash")?)
        .run(transaction.connection())
        .await?;
    Statement::new("DELETE FROM audit WHERE position <= $1").number(position).run(transaction.connection()).await
}

fn follow(entry: &Fields, position: u64, previous: &str) -> Result<String, AuditError> {
    let stored = entry.text("hash")?;
    let texts = [entry.text("actor")?, entry.text("action")?, entry.text("detail")?];
    let [actor, action, detail] = &texts;
    let computed = hash(previous, entry.number("position")?, entry.number("written_at")?, [actor, action, detail]);
    if entry.number("position")? != position || stored != computed {
        return Err(AuditError::Broken { entry: position });
    }
    Ok(stored)
}

/// SHA-256 over the hash before, the numbers as eight bytes and the texts after their lengths, in hexadecimal.
fn hash(previous: &str, position: u64, at: u64, texts: [&str; 3]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(&position.to_be_bytes());
    context.update(&at.to_be_bytes());
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts() {
        let base = hash("00", 1, 2, ["a", "b", "c"]);
        assert_eq!(base.len(), 64);
        for other in [
            hash("01", 1, 2, ["a", "b", "c"]),
            hash("00", 2, 2, ["a", "b", "c"]),
            hash("00", 1, 3, ["a", "b", "c"]),
            hash("00", 1, 2, ["ab", "", "c"]),
            hash("00", 1, 2, ["a", "bc", ""]),
        ] {
            assert_ne!(base, other);
        }
    }
}
