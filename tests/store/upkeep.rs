//! Retention and readiness.

use stube::ids::Identity;
use stube::ledger::address::{IpForm, IpMode};
use stube::ledger::record::{Batch, Day, SessionRow, UnixMs};
use stube::ledger::store::{AuditAction, AuditEntry, Filter, RecordFilter, Retention, Swept};

use crate::database::{Database, MIDNIGHT, at, batch, call, ended, event, id, session, sum, tenant};

on_both! {
    what_ended_long_ago_goes
    a_full_address_goes_before_its_record
    an_event_stays_until_it_is_delivered
    large_sweeps_finish
    the_oldest_person_is_known
    a_probe_writes
}

/// Everything before that many milliseconds after midnight.
pub fn keep_nothing_before(ms: u64) -> Retention {
    Retention {
        records_before: at(ms),
        full_addresses_before: at(ms),
        sums_before: MIDNIGHT.day(),
        events_before: at(ms),
        audit_before: at(ms),
    }
}

/// What removes nothing.
fn keep_all() -> Retention {
    Retention {
        records_before: UnixMs(0),
        full_addresses_before: UnixMs(0),
        sums_before: Day(0),
        events_before: UnixMs(0),
        audit_before: UnixMs(0),
    }
}

async fn what_ended_long_ago_goes(database: Database) {
    let store = database.store().await;
    let today = MIDNIGHT.day().0;
    let written = Batch {
        // Ended at 20, 80 and not at all.
        sessions: vec![ended(10, "ada"), ended(40, "bob"), session(1, "eve")],
        calls: vec![stube::ledger::record::CallRow { ended_at: Some(at(20)), ..call(10) }, call(1)],
        sums: vec![sum(today - 1, 3), sum(today, 4)],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    assert_eq!(store.sweep(&keep_all()).await.unwrap(), Swept::default());
    let swept = store.sweep(&keep_nothing_before(80)).await.unwrap();
    assert_eq!(swept, Swept { sessions: 1, calls: 1, days: 1, ..Swept::default() });
    let rows = store.records(&tenant(), &RecordFilter::default(), None, 10).await.unwrap();
    assert!(rows == [session(1, "eve"), ended(40, "bob")]);
    assert_eq!(store.calls(&tenant(), &Filter::default(), None, 10).await.unwrap().len(), 1);
    // Sums outlive the records they were counted from.
    assert_eq!(store.usage_by_day(&tenant(), None, None).await.unwrap()[0].participant_ms, 4);
}

async fn a_full_address_goes_before_its_record(database: Database) {
    let store = database.store().await;
    let with = |number, mode, value: &str| {
        let mut row = session(number, "ada");
        row.person.as_mut().unwrap().ip = IpForm { mode, value: value.into() };
        row
    };
    let sessions = vec![
        with(10, IpMode::Full, "198.51.100.77"),
        with(11, IpMode::Prefix, "198.51.100.0/24"),
        with(90, IpMode::Full, "198.51.100.78"),
    ];
    store.write(&Batch { sessions: sessions.clone(), ..batch(1) }).await.unwrap();
    let retention = Retention { full_addresses_before: at(50), ..keep_all() };
    assert_eq!(store.sweep(&retention).await.unwrap(), Swept { addresses: 1, ..Swept::default() });
    let rows = store.records(&tenant(), &RecordFilter::default(), None, 10).await.unwrap();
    assert!(rows == [with(10, IpMode::None, ""), sessions[1].clone(), sessions[2].clone()]);
    // The next checkpoint, which still has it in memory, does not bring it back.
    store.write(&Batch { sessions: vec![sessions[0].clone()], ..batch(2) }).await.unwrap();
    let rows = store.records(&tenant(), &RecordFilter::default(), None, 1).await.unwrap();
    assert!(rows == [with(10, IpMode::None, "")]);
}

async fn an_event_stays_until_it_is_delivered(database: Database) {
    let store = database.store().await;
    let unheard = stube::ledger::record::EventRow { urls: vec![], ..event(1, Some(id(8)), 1, "ada") };
    store.write(&Batch { events: vec![unheard, event(2, Some(id(8)), 2, "ada")], ..batch(1) }).await.unwrap();
    let retention = Retention { events_before: at(50), ..keep_all() };
    assert_eq!(store.sweep(&retention).await.unwrap().events, 1);
    let due = store.due(at(60), 10).await.unwrap();
    store.delivered(&due[0].id).await.unwrap();
    // Delivered, and kept for the stream.
    assert_eq!(store.sweep(&keep_all()).await.unwrap().events, 0);
    assert_eq!(store.events_after(&tenant(), None, 10).await.unwrap().len(), 1);
    assert_eq!(store.sweep(&retention).await.unwrap().events, 1);
    // A stream's positions are never given out twice.
    store.write(&Batch { events: vec![event(3, None, 1, "ada")], ..batch(2) }).await.unwrap();
    assert_eq!(store.events_after(&tenant(), None, 10).await.unwrap()[0].position, 3);
}

async fn large_sweeps_finish(database: Database) {
    let store = database.store().await;
    for round in 0..3u64 {
        let sessions: Vec<SessionRow> = (0..4000).map(|n| ended(round * 4000 + n, "ada")).collect();
        store.write(&Batch { sessions, ..batch(round) }).await.unwrap();
    }
    assert_eq!(store.sweep(&keep_nothing_before(1_000_000)).await.unwrap().sessions, 12_000);
}

async fn the_oldest_person_is_known(database: Database) {
    let store = database.store().await;
    assert_eq!(store.oldest_person().await.unwrap(), None);
    let sessions = vec![ended(10, "ada"), ended(20, "bob"), session(1, "eve")];
    store.write(&Batch { sessions, ..batch(1) }).await.unwrap();
    assert_eq!(store.oldest_person().await.unwrap(), Some(at(20)));
    store.erase(&tenant(), &[Identity::from("ada")]).await.unwrap();
    assert_eq!(store.oldest_person().await.unwrap(), Some(at(40)));
}

async fn a_probe_writes(database: Database) {
    let store = database.store().await;
    store.ping().await.unwrap();
    store.ping().await.unwrap();
    let probes = database.ask("SELECT probes FROM runs").await;
    assert_eq!(sqlx::Row::get::<i64, _>(&probes[0], 0), 2);
    let entry = AuditEntry { at: at(1), actor: "key".into(), action: AuditAction::Start, detail: String::new() };
    store.audit(&entry).await.unwrap();
}
