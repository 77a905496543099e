//! An outbox in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::{Delivery, Outbox, OutboxError};

/// How an event ended, in the order in which the sender told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Delivered(u64),
    /// Number, attempts, how long from now in milliseconds.
    Failed(u64, u32, u64),
    Gone(String),
    Expired(u64),
}

/// Events by URL and room.
pub struct Store {
    /// Waits are divided by this, so that a test does not last for hours.
    haste: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<(String, String), Vec<Row>>,
    gone: BTreeSet<String>,
    told: Vec<Told>,
    next_id: u64,
    /// Says that it cannot be read.
    broken: bool,
    /// Keeps nothing of what it is told.
    forgetful: bool,
    /// Panics at the next change.
    panics: bool,
    asked: usize,
}

struct Row {
    delivery: Delivery,
    next_at_ms: u64,
}

pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("a time")
}

impl Store {
    pub fn new(haste: u64) -> Self {
        Self { haste, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds an event whose body says room and number.
    pub fn add(&self, url: &str, tenant: &str, room: &str, seq: u64) -> u64 {
        self.add_old(url, tenant, room, seq, now_ms())
    }

    pub fn add_old(&self, url: &str, tenant: &str, room: &str, seq: u64, created_at_ms: u64) -> u64 {
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let delivery = Delivery {
            id,
            url: url.to_owned(),
            event: format!("EV_{room}_{seq}"),
            tenant: tenant.to_owned(),
            body: serde_json::json!({"id": format!("EV_{room}_{seq}"), "room": {"name": room}, "seq": seq}).to_string(),
            attempts: 0,
            created_at_ms,
        };
        state.lines.entry((url.to_owned(), room.to_owned())).or_default().push(Row { delivery, next_at_ms: 0 });
        id
    }

    pub fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.state().lines.values().map(Vec::len).sum()
    }

    pub fn waiting_for(&self, url: &str) -> usize {
        self.state().lines.iter().filter(|((to, _), _)| to == url).map(|(_, rows)| rows.len()).sum()
    }

    pub fn asked(&self) -> usize {
        self.state().asked
    }

    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    pub fn set_forgetful(&self) {
        self.state().forgetful = true;
    }

    pub fn panic_once(&self) {
        self.state().panics = true;
    }

    fn tell(&self, told: Told) -> MutexGuard<'_, State> {
        let mut state = self.state();
        assert!(!std::mem::replace(&mut state.panics, false), "as the test asked");
        state.told.push(told);
        state
    }

    fn remove(state: &mut State, id: u64) {
        if !state.forgetful {
            state.lines.values_mut().for_each(|rows| rows.retain(|row| row.delivery.id != id));
        }
    }
}

impl Outbox for Store {
    async fn due(&self, limit: usize) -> Result<Vec<Delivery>, OutboxError> {
        let mut state = self.state();
        state.asked += 1;
        if state.broken {
            return Err(OutboxError("the disk is on holiday".to_owned()));
        }
        let now_ms = now_ms();
        let mut due: Vec<_> = state.lines.values().filter_map(|rows| rows.first()).collect();
        due.retain(|row| row.next_at_ms <= now_ms);
        due.sort_by_key(|row| row.delivery.id);
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        due.retain(|row| {
            let taken = taken.entry(&row.delivery.url).or_default();
            *taken += 1;
            *taken <= limit
        });
        Ok(due.into_iter().map(|row| row.delivery.clone()).collect())
    }

    async fn delivered(&self, id: u64) {
        Self::remove(&mut self.tell(Told::Delivered(id)), id);
    }

    async fn failed(&self, id: u64, attempts: u32, next_at_unix_ms: u64) {
        let now_ms = now_ms();
        let wait_ms = next_at_unix_ms.saturating_sub(now_ms);
        let mut state = self.tell(Told::Failed(id, attempts, wait_ms));
        if state.forgetful {
            return;
        }
        let rows = state.lines.values_mut().flatten();
        if let Some(row) = rows.into_iter().find(|row| row.delivery.id == id) {
            row.delivery.attempts = attempts;
            row.next_at_ms = now_ms + wait_ms / self.haste;
        }
    }

    async fn gone(&self, url: &str) {
        let mut state = self.tell(Told::Gone(url.to_owned()));
        state.gone.insert(url.to_owned());
        state.lines.retain(|(to, _), _| to != url);
    }

    async fn expired(&self, id: u64) {
        Self::remove(&mut self.tell(Told::Expired(id)), id);
    }
}
