//! Export and erasure, down to the bytes on the disk.

use std::fs;

use stube::ids::Identity;
use stube::ledger::address::{IpForm, IpMode};
use stube::ledger::record::{Batch, SessionRow};
use stube::ledger::store::{Erased, RecordFilter, StoreError};

use crate::database::{Database, at, batch, call, ended, event, id, session, sum, tenant};

on_both! {
    an_export_is_complete
    an_erasure_takes_the_person_and_leaves_the_rest
    erasing_again_changes_nothing
    whoever_was_erased_does_not_come_back
    erased_events_are_still_delivered
    many_events_are_erased_at_once
}

/// Long enough not to occur by chance.
const CANARY: &str = "canary-5f0d7c";
const CANARY_ADDRESS: &str = "198.51.100.77";

fn canary() -> Identity {
    Identity::from(CANARY)
}

/// A session whose every personal field holds a canary.
fn canary_session(number: u64) -> SessionRow {
    let mut session = ended(number, CANARY);
    let person = session.person.as_mut().unwrap();
    person.ip = IpForm { mode: IpMode::Full, value: CANARY_ADDRESS.into() };
    session
}

async fn an_export_is_complete(database: Database) {
    let store = database.store().await;
    let events = vec![event(1, Some(id(8)), 1, "ada"), event(2, Some(id(8)), 2, "bob"), event(3, None, 1, "eve")];
    let bodies: Vec<String> = events.iter().map(|event| event.body.clone()).collect();
    let sessions = vec![session(1, "ada"), session(2, "bob"), ended(3, "eve")];
    store.write(&Batch { sessions, events, ..batch(1) }).await.unwrap();
    let mut asked: Vec<Identity> = (0..600).map(|n| Identity::from(format!("nobody {n}"))).collect();
    asked.extend([Identity::from("ada"), Identity::from("eve")]);
    let export = store.export(&tenant(), &asked).await.unwrap();
    assert!(export.records == [session(1, "ada"), ended(3, "eve")]);
    assert_eq!(export.events, [bodies[0].clone(), bodies[2].clone()]);
    assert!(store.export(&tenant(), &[]).await.unwrap().records.is_empty());
}

async fn an_erasure_takes_the_person_and_leaves_the_rest(database: Database) {
    let store = database.store().await;
    let written = Batch {
        sessions: vec![session(1, "ada"), ended(2, "bob"), ended(3, "ada")],
        calls: vec![call(7)],
        sums: vec![sum(5, 10)],
        events: vec![event(1, Some(id(8)), 1, "ada"), event(2, Some(id(8)), 2, "bob")],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    let erased = store.erase(&tenant(), &[Identity::from("ada")]).await.unwrap();
    assert_eq!(erased, Erased { records: 2, events: 1 });
    let rows = store.records(&tenant(), &RecordFilter::default(), None, 10).await.unwrap();
    let expected =
        [SessionRow { person: None, ..session(1, "") }, ended(2, "bob"), SessionRow { person: None, ..ended(3, "") }];
    assert!(rows == expected);
    assert_eq!(store.usage_by_day(&tenant(), None, None).await.unwrap()[0].participant_ms, 10);
    assert_eq!(store.usage_by_room(&tenant(), None, None).await.unwrap()[0].participant_ms, 6);
    let events = store.events_after(&tenant(), None, 10).await.unwrap();
    assert!(!events[0].body.contains("ada") && events[0].body.contains("PA_1"));
    assert_eq!(events[1].body, written.events[1].body);
    let export = store.export(&tenant(), &[Identity::from("ada")]).await.unwrap();
    assert!(export.records.is_empty() && export.events.is_empty());
}

async fn erasing_again_changes_nothing(database: Database) {
    let store = database.store().await;
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(1) }).await.unwrap();
    for expected in [1, 0, 0] {
        assert_eq!(store.erase(&tenant(), &[Identity::from("ada")]).await.unwrap().records, expected);
    }
}

async fn whoever_was_erased_does_not_come_back(database: Database) {
    let store = database.store().await;
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(1) }).await.unwrap();
    store.erase(&tenant(), &[Identity::from("ada")]).await.unwrap();
    // A checkpoint that was taken before.
    store.write(&Batch { sessions: vec![ended(1, "ada")], ..batch(2) }).await.unwrap();
    let rows = store.records(&tenant(), &RecordFilter::default(), None, 10).await.unwrap();
    assert!(rows == [SessionRow { person: None, ..ended(1, "") }]);
}

async fn erased_events_are_still_delivered(database: Database) {
    let store = database.store().await;
    store.write(&Batch { events: vec![event(1, Some(id(8)), 1, CANARY)], ..batch(1) }).await.unwrap();
    store.erase(&tenant(), &[canary()]).await.unwrap();
    let due = store.due(at(5), 10).await.unwrap();
    assert!(due.len() == 1 && !due[0].body.contains(CANARY) && due[0].body.contains("participant_joined"));
}

async fn many_events_are_erased_at_once(database: Database) {
    let store = database.store().await;
    let events = (1..=1500).map(|n| event(n, Some(id(8)), n, if n % 3 == 0 { "bob" } else { CANARY })).collect();
    store.write(&Batch { events, ..batch(1) }).await.unwrap();
    assert_eq!(store.erase(&tenant(), &[canary()]).await.unwrap().events, 1000);
    assert_eq!(store.export(&tenant(), &[Identity::from("bob")]).await.unwrap().events.len(), 500);
    assert!(store.events_after(&tenant(), None, 2000).await.unwrap().iter().all(|e| !e.body.contains(CANARY)));
}

// ---- SQLite's files -------------------------------------------------------------------------------------------------

/// Which files of a directory hold the text, and how often.
fn traces(database: &Database, text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(database.directory()).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let times = bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
        if times > 0 {
            found.push((entry.file_name().to_string_lossy().into_owned(), times));
        }
    }
    found
}

fn all_traces(database: &Database) -> Vec<(String, usize)> {
    let mut found = traces(database, CANARY);
    found.extend(traces(database, CANARY_ADDRESS));
    found
}

/// A ledger in which the canary's rows lie between many others, after checkpoints, deletions and page splits.
async fn busy_ledger(database: &Database) -> stube::ledger::store::Store {
    let store = database.store().await;
    let mut number = 0;
    for round in 0..20u64 {
        let sessions = (0..300).map(|n| {
            let n = round * 300 + n;
            if n % 7 == 0 { canary_session(n) } else { ended(n, &format!("somebody {n}")) }
        });
        let events = (0..100).map(|n| {
            let n = round * 100 + n;
            event(n, Some(id(n % 9)), n, if n % 5 == 0 { CANARY } else { "somebody" })
        });
        number += 1;
        store.write(&Batch { sessions: sessions.collect(), events: events.collect(), ..batch(number) }).await.unwrap();
        // Rows of different length are deleted, so that pages are joined and cells are moved.
        database.run(&format!("DELETE FROM sessions WHERE joined_at % 11 = {}", round % 11)).await;
        database
            .run(&format!("UPDATE events SET body = body || '{}' WHERE seq % 13 = {}", " ".repeat(90), round % 13))
            .await;
    }
    store
}

#[tokio::test]
async fn an_erasure_leaves_no_byte_in_any_file() {
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    assert!(!all_traces(&database).is_empty(), "the scan finds nothing even before");
    let erased = store.erase(&tenant(), &[canary()]).await.unwrap();
    assert!(erased.records > 100 && erased.events > 100, "{erased:?}");
    assert_eq!(all_traces(&database), []);
    // Others are still there.
    assert!(!traces(&database, "somebody").is_empty());
    store.close().await;
    assert_eq!(all_traces(&database), []);
}

#[tokio::test]
async fn an_erasure_waits_for_a_reader() {
    use sqlx::Executor;
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    let mut reader = database.connect().await;
    reader.execute("BEGIN").await.unwrap();
    reader.fetch_all("SELECT COUNT(*) AS n FROM sessions").await.unwrap();
    let erasure = tokio::spawn({
        let store = store.clone();
        async move { store.erase(&tenant(), &[canary()]).await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!erasure.is_finished());
    reader.execute("COMMIT").await.unwrap();
    erasure.await.unwrap().unwrap();
    assert_eq!(all_traces(&database), []);
}

#[tokio::test]
async fn an_erasure_that_a_reader_blocks_is_finished_by_the_next() {
    use sqlx::Executor;
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    let mut reader = database.connect().await;
    reader.execute("BEGIN").await.unwrap();
    reader.fetch_all("SELECT COUNT(*) AS n FROM sessions").await.unwrap();
    let blocked = store.erase(&tenant(), &[canary()]).await;
    assert!(matches!(blocked, Err(StoreError::Unavailable(_))), "{blocked:?}");
    reader.execute("COMMIT").await.unwrap();
    store.erase(&tenant(), &[canary()]).await.unwrap();
    assert_eq!(all_traces(&database), []);
}

#[tokio::test]
async fn a_person_that_a_batch_took_away_leaves_no_byte() {
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    store.erase(&tenant(), &[canary()]).await.unwrap();
    store.write(&Batch { sessions: vec![canary_session(100_000)], ..batch(100) }).await.unwrap();
    let nobody = SessionRow { person: None, ..canary_session(100_000) };
    store.write(&Batch { sessions: vec![nobody], ..batch(101) }).await.unwrap();
    assert!(!all_traces(&database).is_empty());
    assert_eq!(store.erase(&tenant(), &[canary()]).await.unwrap().records, 0);
    assert_eq!(all_traces(&database), []);
}

#[tokio::test]
async fn erasing_nobody_waits_for_nobody() {
    use sqlx::Executor;
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    store.erase(&tenant(), &[canary()]).await.unwrap();
    let mut reader = database.connect().await;
    reader.execute("BEGIN").await.unwrap();
    reader.fetch_all("SELECT COUNT(*) AS n FROM sessions").await.unwrap();
    store.write(&Batch { sessions: vec![session(100_000, "ada")], ..batch(100) }).await.unwrap();
    assert_eq!(store.erase(&tenant(), &[canary()]).await, Ok(Erased::default()));
}

#[tokio::test]
async fn a_sweep_leaves_no_byte_either() {
    let database = Database::sqlite().await;
    let store = busy_ledger(&database).await;
    for line in store.due(at(1_000_000), 100).await.unwrap() {
        store.drop_url(&line.url).await.unwrap();
    }
    let retention = crate::upkeep::keep_nothing_before(1_000_000);
    let swept = store.sweep(&retention).await.unwrap();
    assert!(swept.sessions > 1000 && swept.events == 2000, "{swept:?}");
    assert_eq!(all_traces(&database), []);
}
