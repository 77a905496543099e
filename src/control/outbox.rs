//! The ledger's events on their way to the webhooks.
//!
//! The store lends an event out and has it back when it is settled. What is lent is kept here and offered until then, so
//! that the sender may take its time with the rooms of a slow receiver. After an erasure it is read again: an event that
//! waits for an hour must not name who was erased meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::app::App;
use crate::ledger::record::UnixMs;
use crate::ledger::store::{DeliveryId, StoreError};
use crate::webhook::{Delivery, Outbox, OutboxError};

/// Events that are lent at a time: one for each room and receiver, at some 500 bytes.
const LENT_MAX: usize = 8192;

/// How long to wait before something that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the sender takes events from.
pub struct LedgerOutbox {
    app: Arc<App>,
    lent: Mutex<Lent>,
}

#[derive(Default)]
struct Lent {
    next: u64,
    deliveries: BTreeMap<u64, (DeliveryId, Delivery)>,
    /// How many erasures there had been when it was last read.
    erasures: u64,
}

impl LedgerOutbox {
    /// The outbox of a server.
    pub fn new(app: Arc<App>) -> Self {
        Self { app, lent: Mutex::default() }
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads again what is lent, if somebody was erased since.
    async fn forget_erased(&self) -> Result<(), OutboxError> {
        let erasures = self.app.ledger.erasures();
        let lent: Vec<(u64, DeliveryId)> = {
            let lent = self.lent();
            if lent.erasures == erasures {
                return Ok(());
            }
            lent.deliveries.iter().map(|(number, (id, _))| (*number, id.clone())).collect()
        };
        for (number, id) in lent {
            let body = self.app.ledger.store().body_of(&id).await.map_err(|error| OutboxError(error.to_string()))?;
            let mut lent = self.lent();
            match (body, lent.deliveries.get_mut(&number)) {
                (Some(body), Some((_, delivery))) => delivery.body = body,
                (None, _) => drop(lent.deliveries.remove(&number)),
                (Some(_), None) => {}
            }
        }
        self.lent().erasures = erasures;
        Ok(())
    }

    /// Does something to a delivery until the store has taken it, and then no longer offers it.
    async fn settle<Work>(&self, id: u64, work: impl Fn(DeliveryId) -> Work)
    where
        Work: Future<Output = Result<bool, StoreError>>,
    {
        let Some(delivery) = self.lent().deliveries.get(&id).map(|(delivery, _)| delivery.clone()) else { return };
        while let Err(StoreError::Unavailable(_)) = work(delivery.clone()).await {
            pause().await;
        }
        self.lent().deliveries.remove(&id);
    }
}

#[expect(clippy::disallowed_methods, reason = "a store that fails is left alone for a while")]
async fn pause() {
    sleep(RETRY).await;
}

impl Outbox for LedgerOutbox {
    async fn due(&self, limit: usize) -> Result<Vec<Delivery>, OutboxError> {
        self.forget_erased().await?;
        let room = LENT_MAX.saturating_sub(self.lent().deliveries.len());
        let now = self.app.clock.moment().wall;
        let due = match room {
            0 => Vec::new(),
            room => {
                let due = self.app.ledger.store().due(now, room as u32).await;
                due.map_err(|error| OutboxError(error.to_string()))?
            }
        };
        let mut lent = self.lent();
        for new in due {
            // One that was lent for too long is lent again.
            if lent.deliveries.values().any(|(id, _)| *id == new.id) {
                continue;
            }
            lent.next += 1;
            let id = lent.next;
            let delivery = Delivery {
                id,
                url: new.url,
                event: new.event.to_string(),
                tenant: new.tenant.key().to_owned(),
                body: new.body,
                attempts: new.attempts,
                created_at_ms: new.created_at.0,
            };
            lent.deliveries.insert(id, (new.id, delivery));
        }
        let mut of_url: BTreeMap<&str, usize> = BTreeMap::new();
        let mut offered = Vec::new();
        for (_, delivery) in lent.deliveries.values() {
            let so_far = of_url.entry(&delivery.url).or_default();
            *so_far += 1;
            if *so_far <= limit {
                offered.push(delivery.clone());
            }
        }
        Ok(offered)
    }

    async fn delivered(&self, id: u64) {
        let store = self.app.ledger.store();
        self.settle(id, async |delivery| store.delivered(&delivery).await).await;
    }

    async fn failed(&self, id: u64, attempts: u32, next_at_unix_ms: u64) {
        let store = self.app.ledger.store();
        self.settle(id, async |delivery| store.failed(&delivery, attempts, UnixMs(next_at_unix_ms)).await).await;
    }

    async fn gone(&self, url: &str) {
        self.lent().deliveries.retain(|_, (_, delivery)| delivery.url != url);
        match self.app.ledger.store().drop_url(url).await {
            Ok(dropped) => tracing::info!(dropped, "the events of a webhook that is gone were dropped"),
            Err(error) => tracing::error!(%error, "the events of a webhook that is gone could not be dropped"),
        }
    }
}
