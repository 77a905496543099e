//! The API keys, and how much each was used: the audit log tells it once an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Secret;
use crate::ids::Tenant;
use crate::ledger::record::UnixMs;

/// How often a key's use is noted. An entry for each request would bury all else, and tell when people come and go.
const HOUR_MS: u64 = 3_600_000;

/// Secrets by the names of their keys.
pub type Secrets = BTreeMap<String, Secret>;

/// The API keys.
#[derive(Default)]
pub struct Keys(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    secrets: Arc<Secrets>,
    uses: BTreeMap<Tenant, Use>,
}

/// Since when, and by whom, a key has been used.
#[derive(Default)]
struct Use {
    /// The hour of the last entry.
    noted: Option<u64>,
    count: UseCount,
}

/// How often a key was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UseCount {
    /// For requests of the tenant's server.
    pub servers: u64,
    /// For tokens of participants.
    pub clients: u64,
}

/// Whose credentials were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Server,
    Client,
}

impl Keys {
    /// These keys, none used yet.
    pub fn new(secrets: Secrets) -> Self {
        Self(Mutex::new(Inner { secrets: Arc::new(secrets), uses: BTreeMap::new() }))
    }

    /// The keys as they are now.
    pub fn current(&self) -> Arc<Secrets> {
        Arc::clone(&self.inner().secrets)
    }

    /// Takes these keys for all requests to come.
    pub fn replace(&self, secrets: Secrets) {
        self.inner().secrets = Arc::new(secrets);
    }

    /// Counts a use.
    pub fn note(&self, tenant: &Tenant, by: By) {
        let mut inner = self.inner();
        // Looked up first: the name is copied once, not on each request.
        if !inner.uses.contains_key(tenant) {
            inner.uses.insert(tenant.clone(), Use::default());
        }
        let Some(used) = inner.uses.get_mut(tenant) else { return };
        match by {
            By::Server => used.count.servers += 1,
            By::Client => used.count.clients += 1,
        }
    }

    /// What is to be noted now: what was used since its last entry, if that is of another hour, or `all` is to be.
    pub fn due(&self, now: UnixMs, all: bool) -> Vec<(Tenant, UseCount)> {
        let hour = now.0 / HOUR_MS;
        let mut inner = self.inner();
        let due = inner.uses.iter_mut().filter(|(_, used)| used.count != UseCount::default());
        let due = due.filter(|(_, used)| all || used.noted != Some(hour));
        due.map(|(tenant, used)| {
            used.noted = Some(hour);
            (tenant.clone(), std::mem::take(&mut used.count))
        })
        .collect()
    }

    /// Gives back what could not be noted, to be noted with what comes.
    pub fn give_back(&self, tenant: &Tenant, count: UseCount) {
        let mut inner = self.inner();
        let used = inner.uses.entry(tenant.clone()).or_default();
        used.noted = None;
        used.count.servers += count.servers;
        used.count.clients += count.clients;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves it usable, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_use_is_noted_once_an_hour() {
        let keys = Keys::new(Secrets::new());
        let tenant = Tenant::from("a");
        let hour = |hour: u64| UnixMs(hour * HOUR_MS + 5);
        assert!(keys.due(hour(1), true).is_empty());
        keys.note(&tenant, By::Server);
        assert_eq!(keys.due(hour(1), false), [(tenant.clone(), UseCount { servers: 1, clients: 0 })]);
        for by in [By::Server, By::Client, By::Client] {
            keys.note(&tenant, by);
        }
        assert!(keys.due(hour(1), false).is_empty());
        assert_eq!(keys.due(hour(2), false), [(tenant.clone(), UseCount { servers: 1, clients: 2 })]);
        keys.note(&tenant, By::Client);
        // The server stops.
        assert_eq!(keys.due(hour(2), true), [(tenant.clone(), UseCount { servers: 0, clients: 1 })]);
        // The database does not take it.
        keys.give_back(&tenant, UseCount { servers: 0, clients: 1 });
        keys.note(&tenant, By::Server);
        assert_eq!(keys.due(hour(2), false), [(tenant, UseCount { servers: 1, clients: 1 })]);
        assert!(keys.due(hour(3), true).is_empty());
    }
}
