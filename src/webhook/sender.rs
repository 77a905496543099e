//! Takes from the outbox what is due and sends it, many at once and each room's in order.
//!
//! One task asks the outbox and decides ([`Lines`]) what may start; each attempt is a task of its own, which also tells
//! the outbox how it ended. Nothing is kept here that a restart would miss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::Url;
use tokio::sync::{Notify, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;

use crate::ids::IdSource;
use crate::traces;

use super::backoff::{Answer, Outcome, decide};
use super::counts::{AttemptResult, Counts};
use super::courier::{Courier, Knocked, TIME_LIMIT};
use super::endpoint::Endpoints;
use super::lines::{AT_ONCE, Change, Lines};
use super::outbox::{Delivery, Outbox};
use super::target::Guard;

/// How often the outbox is asked without being woken: for what waited for its time.
const TICK: Duration = Duration::from_secs(1);

/// How many events of each URL are asked for. Those in flight are among them, so it is more than may fly.
const DUE_MAX: usize = AT_ONCE;

/// How soon an event may be sent again at the earliest, whatever the outbox says: one that cannot write would otherwise
/// have us send the same event without end. No shorter than the shortest wait of [`decide`].
const REPEAT_MIN: Duration = Duration::from_secs(1);

/// How long attempts may go on after the stop. What does not end is sent again after the next start.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Sending cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    #[error("webhooks over https need the system's CA certificates, and none can be read; install ca-certificates")]
    Certificates(#[source] reqwest::Error),
}

/// Asks these webhooks whether they are there, without an event.
pub async fn knock(endpoints: Endpoints) -> Result<Vec<Knocked>, SenderError> {
    Ok(courier(endpoints)?.knock().await)
}

fn courier(endpoints: Endpoints) -> Result<Courier, SenderError> {
    let guard = Guard::new(endpoints.allow_private());
    Courier::new(endpoints, guard, TIME_LIMIT).map_err(SenderError::Certificates)
}

/// Sends events.
pub struct Sender {
    courier: Arc<Courier>,
    random: IdSource,
    counts: Arc<Counts>,
    lines: Lines,
    /// Attempts that run, by the outbox's number of their event.
    flights: BTreeMap<u64, Flight>,
    /// When events were last sent, within [`REPEAT_MIN`].
    sent: BTreeMap<u64, Instant>,
    outbox_fails: bool,
}

struct Flight {
    task: task::Id,
    url: String,
}

type Flights = JoinSet<(Answer, Outcome)>;

impl Sender {
    /// A sender to these webhooks. Reads the system's certificates once, so a new CA needs a restart. `random` makes
    /// the jitter.
    pub fn new(endpoints: Endpoints, random: IdSource, counts: Arc<Counts>) -> Result<Self, SenderError> {
        Ok(Self::with(courier(endpoints)?, random, counts))
    }

    pub(super) fn with(courier: Courier, random: IdSource, counts: Arc<Counts>) -> Self {
        Self {
            courier: Arc::new(courier),
            random,
            counts,
            lines: Lines::default(),
            flights: BTreeMap::new(),
            sent: BTreeMap::new(),
            outbox_fails: false,
        }
    }

    /// Sends until `stop` becomes true or its sender is gone, then for two seconds more at most. `wake` says that the
    /// outbox has something new.
    pub async fn run<O: Outbox>(mut self, outbox: Arc<O>, mut stop: watch::Receiver<bool>, wake: Arc<Notify>) {
        let mut tasks = Flights::new();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.send(&outbox, &wake, &mut tasks) => {}
        }
        let rest = async {
            while let Some(landed) = tasks.join_next_with_id().await {
                self.land(landed);
            }
        };
        // The attempts that are cut off here stay in the outbox.
        let _ = tokio::time::timeout(STOP_GRACE, rest).await;
    }

    /// Sends for ever. What it leaves in `tasks` when dropped goes on.
    async fn send<O: Outbox>(&mut self, outbox: &Arc<O>, wake: &Notify, tasks: &mut Flights) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.lines.free() > 0 {
                self.fill(outbox, tasks).await;
            }
            tokio::select! {
                Some(landed) = tasks.join_next_with_id() => {
                    self.land(landed);
                    while let Some(landed) = tasks.try_join_next_with_id() {
                        self.land(landed);
                    }
                }
                () = wake.notified() => {}
                _ = tick.tick() => {}
            }
        }
    }

    /// Starts what is due and has a place.
    async fn fill<O: Outbox>(&mut self, outbox: &Arc<O>, tasks: &mut Flights) {
        let due = match outbox.due(DUE_MAX).await {
            Ok(due) => due,
            Err(error) => {
                if !std::mem::replace(&mut self.outbox_fails, true) {
                    tracing::warn!(%error, "no webhooks are sent");
                }
                return;
            }
        };
        if std::mem::replace(&mut self.outbox_fails, false) {
            tracing::info!("webhooks are sent again");
        }
        let now = monotonic();
        self.sent.retain(|_, at| now.saturating_duration_since(*at) < REPEAT_MIN);
        for delivery in due {
            if self.may_start(&delivery, now) {
                self.start(outbox, tasks, delivery, now);
            }
        }
    }

    fn may_start(&self, delivery: &Delivery, now: Instant) -> bool {
        !self.sent.contains_key(&delivery.id)
            && !self.flights.contains_key(&delivery.id)
            && self.lines.may_start(&delivery.url, now)
    }

    fn start<O: Outbox>(&mut self, outbox: &Arc<O>, tasks: &mut Flights, delivery: Delivery, now: Instant) {
        let (id, url) = (delivery.id, delivery.url.clone());
        let (courier, outbox, random) = (Arc::clone(&self.courier), Arc::clone(outbox), self.random.bits());
        let task = match self.lines.is_gone(&url) {
            false => tasks.spawn(async move { attempt(&courier, &*outbox, &delivery, random).await }),
            true => tasks.spawn(async move { drop_gone(&*outbox, &delivery.url).await }),
        };
        self.lines.start(&url);
        self.sent.insert(id, now);
        self.flights.insert(id, Flight { task: task.id(), url });
    }

    /// Books the end of an attempt.
    fn land(&mut self, landed: Result<(task::Id, (Answer, Outcome)), JoinError>) {
        let (task, ended) = match landed {
            Ok((task, ended)) => (task, Some(ended)),
            // The panic has been logged by the hook; the event is still in the outbox.
            Err(error) => (error.id(), None),
        };
        let id = self.flights.iter().find(|(_, flight)| flight.task == task).map(|(id, _)| *id);
        let Some(flight) = id.and_then(|id| self.flights.remove(&id)) else { return };
        let change = self.lines.finish(&flight.url, ended.map(|(_, outcome)| outcome), monotonic());
        let Some((answer, outcome)) = ended else { return };
        self.counts.add(AttemptResult::of(answer, outcome));
        if let Some(change) = change {
            report(&flight.url, answer, change);
        }
    }
}

/// One attempt, from signing to what the outbox is told.
async fn attempt<O: Outbox>(courier: &Courier, outbox: &O, delivery: &Delivery, random: u32) -> (Answer, Outcome) {
    let answer = courier.post(delivery, unix_ms() / 1000).instrument(traces::step("webhook")).await;
    let (attempts, now_ms) = (delivery.attempts.saturating_add(1), unix_ms());
    let outcome = decide(answer, attempts, delivery.created_at_ms, random, now_ms);
    match outcome {
        Outcome::Delivered => outbox.delivered(delivery.id).await,
        Outcome::Again { after } | Outcome::Rest { after } => {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            outbox.failed(delivery.id, attempts, now_ms.saturating_add(after_ms)).await;
        }
        Outcome::Gone => outbox.gone(&delivery.url).await,
        Outcome::Expired => outbox.expired(delivery.id).await,
    }
    (answer, outcome)
}

/// Sends nothing, for the receiver wants nothing any more, and has the outbox drop what came in all the same.
async fn drop_gone<O: Outbox>(outbox: &O, url: &str) -> (Answer, Outcome) {
    outbox.gone(url).await;
    (Answer::Refused("it answered 410 before"), Outcome::Gone)
}

/// Tells the operator how a receiver does, by its host alone: paths and queries may hold secrets.
fn report(url: &str, answer: Answer, change: Change) {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("?");
    let reason = match answer {
        Answer::Status { code, .. } => format!("it answered {code}"),
        Answer::Silence(reason) | Answer::Refused(reason) => reason.to_owned(),
    };
    match change {
        Change::Fails => tracing::warn!(host, reason, "a webhook fails; its events are kept and tried for four days"),
        Change::Recovered => tracing::info!(host, "a webhook works again"),
        Change::Gone => tracing::warn!(host, reason, "a webhook wants no more events and gets none"),
    }
}

#[expect(clippy::disallowed_methods, reason = "ring 3; receivers compare it with their clocks, the outbox keeps it")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "ring 3; how long URLs rest and when an event was sent last")]
fn monotonic() -> Instant {
    Instant::now()
}
