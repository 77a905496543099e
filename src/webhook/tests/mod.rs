//! The sender against receivers that behave well and badly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::courier::{Courier, TIME_LIMIT};
use super::target::Guard;
use super::{AttemptResult, Counts, Endpoints, Sender};
use crate::config::{Secret, WebhookConfig};
use crate::ids::IdSource;

mod delivery;
mod faults;
mod journal;
mod receiver;
mod store;

use store::Store;

/// How long a receiver has where a test does not say.
const LIMIT: Duration = Duration::from_millis(500);
/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const API_SECRET: &str = "secret-of-the-map-service-32-bytes";

/// A sender that runs.
struct Running {
    store: Arc<Store>,
    counts: Arc<Counts>,
    wake: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Webhooks at these URLs for the tenant `a` and `b`.
fn endpoints(urls: &[&str], allow_private: bool) -> Endpoints {
    let configs: Vec<_> = urls
        .iter()
        .map(|url| WebhookConfig { url: (*url).to_owned(), secret: WEBHOOK_SECRET.into(), key: None })
        .collect();
    let keys = BTreeMap::from(["a", "b"].map(|key| (key.to_owned(), Secret::from(API_SECRET))));
    Endpoints::check(&configs, &keys, allow_private).expect("a good configuration")
}

/// Starts a sender over `store`.
fn start(urls: &[&str], store: Store, time_limit: Duration) -> Running {
    start_guarded(endpoints(urls, false), Guard::new(false), store, time_limit)
}

fn start_guarded(endpoints: Endpoints, guard: Guard, store: Store, time_limit: Duration) -> Running {
    let (store, counts, wake) = (Arc::new(store), Arc::new(Counts::default()), Arc::new(Notify::new()));
    let (stop, stopped) = watch::channel(false);
    let courier = Courier::new(endpoints, guard, time_limit).expect("a client");
    let sender = Sender::with(courier, IdSource::from_seed([3; 32]), Arc::clone(&counts));
    let task = tokio::spawn(sender.run(Arc::clone(&store), stopped, Arc::clone(&wake)));
    Running { store, counts, wake, stop, task }
}

impl Running {
    fn counts(&self) -> [u64; 4] {
        AttemptResult::ALL.map(|result| self.counts.get(result))
    }

    /// Stops and says how long that took.
    async fn stop(self) -> Duration {
        let before = Instant::now();
        self.stop.send_replace(true);
        self.task.await.expect("no panic");
        before.elapsed()
    }
}

/// Waits until `done`; says how long that took.
async fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let before = Instant::now();
    while !done() {
        assert!(before.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    before.elapsed()
}
