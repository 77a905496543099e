//! RING 3 — what is counted, kept and forgotten: records of sessions and calls, sums, quotas, events.
//!
//! [`Accounts`] is what runs, in memory and pure. [`store::Store`] is what is kept, in SQLite or PostgreSQL. A
//! [`Ledger`] joins them: an entry never waits for the disk, and what waits for the disk is written in batches.

pub mod address;
pub mod client;
pub mod record;
pub mod event;
pub mod book;
pub mod quota;
pub mod store;
pub mod accounts;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::accounts::Accounts;
use self::record::UnixMs;
use self::store::{Erased, Store, StoreError};
use crate::ids::{Identity, Tenant};

/// Where the unit's server keeps its state.
const UNIT_DIRECTORY: &str = "/var/lib/stube";

/// Where a relative SQLite file lies: what systemd names, else the working directory.
pub fn state_directory() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// The same for whoever asks about a server: the variable says so for both, else it is the unit's folder if there is one.
pub fn servers_directory() -> PathBuf {
    of_server(std::env::var_os("STATE_DIRECTORY").is_some(), Path::new(UNIT_DIRECTORY))
}

fn of_server(is_told: bool, unit: &Path) -> PathBuf {
    if !is_told && unit.is_dir() { unit.to_owned() } else { state_directory() }
}

/// The accounts and where they are kept.
pub struct Ledger {
    accounts: Mutex<Accounts>,
    store: Store,
    /// Held while something is written, so that an erasure and a batch do not cross.
    writing: tokio::sync::Mutex<()>,
    urgent: Notify,
    /// There may be new events in the store.
    pub told: Arc<Notify>,
    failing: AtomicBool,
    failures: AtomicU64,
    erasures: AtomicU64,
    /// When a batch was last written, or there was nothing to write.
    written_at_ms: AtomicU64,
}

impl Ledger {
    /// A ledger over an open store.
    pub fn new(accounts: Accounts, store: Store, now: UnixMs) -> Self {
        Self {
            accounts: Mutex::new(accounts),
            store,
            writing: tokio::sync::Mutex::default(),
            urgent: Notify::new(),
            told: Arc::default(),
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            erasures: AtomicU64::new(0),
            written_at_ms: AtomicU64::new(now.0),
        }
    }

    /// Does something with the accounts; if that leaves something that should be written soon, says so.
    pub fn with<R>(&self, act: impl FnOnce(&mut Accounts) -> R) -> R {
        let mut accounts = self.accounts();
        let result = act(&mut accounts);
        if accounts.is_urgent() {
            self.urgent.notify_one();
        }
        result
    }

    /// What is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ends when something should be written before the next checkpoint.
    pub async fn urgency(&self) {
        self.urgent.notified().await;
    }

    /// Writes all that waits. After a failure it still waits.
    pub async fn flush(&self, now: UnixMs) -> Result<(), StoreError> {
        let _held = self.writing.lock().await;
        let mut idle = true;
        loop {
            let batch = self.accounts().batch();
            let Some(batch) = batch else { break };
            idle = false;
            self.note_failure(self.store.write(&batch).await)?;
            self.accounts().written();
            if !batch.events.is_empty() {
                self.told.notify_one();
            }
        }
        if idle {
            // A server without calls should know that its database is gone before the next one begins.
            self.note_failure(self.store.ping().await)?;
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the ledger is written again");
        }
        self.written_at_ms.store(now.0, Ordering::Relaxed);
        Ok(())
    }

    fn note_failure(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = &result {
            if !self.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the ledger cannot be written; records wait in memory");
            }
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Takes every trace of these people out of the accounts and the store. What they used stays.
    pub async fn erase(&self, tenant: &Tenant, people: &[Identity]) -> Result<Erased, StoreError> {
        let _held = self.writing.lock().await;
        self.accounts().forget(tenant, people);
        let erased = self.store.erase(tenant, people).await;
        // Also after a failure: it may have been the answer that was lost.
        self.erasures.fetch_add(1, Ordering::Release);
        erased
    }

    /// Rises with each erasure: what was read of the store before may name somebody it no longer knows.
    pub fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// Whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Writes that failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Milliseconds since all that waited was written.
    pub fn age_ms(&self, now: UnixMs) -> u64 {
        now.0.saturating_sub(self.written_at_ms.load(Ordering::Relaxed))
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // Every change leaves the accounts usable, so a panic elsewhere is no reason to stop.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_looked_for_where_the_unit_keeps_it() {
        let unit = tempfile::tempdir().expect("a folder");
        assert_eq!(of_server(false, unit.path()), unit.path());
        assert_eq!(of_server(true, unit.path()), state_directory());
        assert_eq!(of_server(false, &unit.path().join("none")), state_directory());
    }
}
