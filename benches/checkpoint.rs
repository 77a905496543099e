//! How long a checkpoint takes, and an erasure, on either database: `cargo bench --bench checkpoint`. Needs PostgreSQL
//! (Debian's `postgresql`). Under `cargo test --benches` it only shows that it runs.

use std::time::{Duration, Instant};

use stube::ids::Identity;
use stube::ledger::record::Batch;
use stube::ledger::store::Store;

#[path = "../tests/store/postgres.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod postgres;
#[path = "../tests/store/database.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod database;

use database::{batch, ended, event, id, session, tenant, used};

/// Checkpoints of which the median is taken.
const ROUNDS: u64 = 10;

#[tokio::main]
async fn main() {
    sqlx::any::install_default_drivers();
    let directory = tempfile::TempDir::new().expect("a directory");
    let server = postgres::Postgres::start(true);
    for (name, url) in [("SQLite", "sqlite://stube.db".to_owned()), ("PostgreSQL", server.url("postgres"))] {
        let store = Store::open(&url, directory.path(), "node", 1).await.expect("a store");
        let mut number = 0;
        let sizes: &[u64] = if std::env::args().any(|arg| arg == "--bench") { &[10, 1_000, 10_000] } else { &[10] };
        for &open in sizes {
            let (first, checkpoints) = checkpoints(&store, open, &mut number).await;
            let (median, longest) = (checkpoints[checkpoints.len() / 2], checkpoints[checkpoints.len() - 1]);
            println!(
                "{name}: {open} open sessions: first {first:.1?}, then median {median:.1?}, longest {longest:.1?}"
            );
        }
        println!(
            "{name}: erasing a subject with 10,000 records and as many events: {:.1?}",
            erasure(&store, &mut number).await
        );
        store.close().await;
    }
}

async fn checkpoints(store: &Store, open: u64, number: &mut u64) -> (Duration, Vec<Duration>) {
    let range = open * 100_000..open * 100_000 + open;
    let mut sessions: Vec<_> = range.map(|n| session(n, &format!("participant {n}"))).collect();
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        for session in &mut sessions {
            session.usage = used(session.usage.duration_ms + round * 10_000);
        }
        *number += 1;
        let checkpoint = Batch { sessions: sessions.clone(), ..batch(*number) };
        let begun = Instant::now();
        store.write(&checkpoint).await.expect("a checkpoint");
        times.push(begun.elapsed());
    }
    let first = times.remove(0);
    times.sort();
    (first, times)
}

async fn erasure(store: &Store, number: &mut u64) -> Duration {
    let sessions = (0..10_000).map(|n| ended(n, "subject")).collect();
    let events = (0..10_000).map(|n| event(n, Some(id(n % 100)), n, "subject")).collect();
    *number += 1;
    store.write(&Batch { sessions, events, ..batch(*number) }).await.expect("records");
    let begun = Instant::now();
    let erased = store.erase(&tenant(), &[Identity::from("subject")]).await.expect("an erasure");
    assert_eq!((erased.records, erased.events), (10_000, 10_000));
    begun.elapsed()
}
