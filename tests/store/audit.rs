//! The audit log's chain.

use stube::ledger::record::{Day, UnixMs};
use stube::ledger::store::{AuditAction, AuditChain, AuditEntry, AuditError, Retention, Store};

use crate::database::{Database, at};

on_both! {
    an_untouched_log_is_whole
    every_change_shows
    what_time_removes_breaks_nothing
    a_clock_set_back_tears_no_hole
    two_nodes_write_one_chain
}

fn entry(ms: u64, detail: &str) -> AuditEntry {
    AuditEntry { at: at(ms), actor: "devkey".into(), action: AuditAction::Erase, detail: detail.into() }
}

async fn write(store: &Store, count: u64) {
    for n in 1..=count {
        store.audit(&entry(n, &format!("records={n}"))).await.unwrap();
    }
}

async fn an_untouched_log_is_whole(database: Database) {
    let store = database.store().await;
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 0, first: 1, last: 0 }));
    write(&store, 5).await;
    for action in AuditAction::ALL {
        store.audit(&AuditEntry { action, ..entry(6, "") }).await.unwrap();
    }
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 12, first: 1, last: 12 }));
}

async fn every_change_shows(database: Database) {
    let store = database.store().await;
    write(&store, 9).await;
    for (change, undo, entry) in [
        (
            "UPDATE audit SET detail = 'records=0' WHERE position = 4",
            "UPDATE audit SET detail = 'records=4' WHERE position = 4",
            4,
        ),
        (
            "UPDATE audit SET actor = 'evekey' WHERE position = 5",
            "UPDATE audit SET actor = 'devkey' WHERE position = 5",
            5,
        ),
        (
            "UPDATE audit SET action = 'export' WHERE position = 9",
            "UPDATE audit SET action = 'erase' WHERE position = 9",
            9,
        ),
        (
            "UPDATE audit SET written_at = written_at + 1 WHERE position = 1",
            "UPDATE audit SET written_at = written_at - 1 WHERE position = 1",
            1,
        ),
        (
            "INSERT INTO audit SELECT 10, written_at, actor, action, detail, hash FROM audit WHERE position = 9",
            "DELETE FROM audit WHERE position = 10",
            10,
        ),
        (
            "INSERT INTO audit SELECT 0, written_at, actor, action, detail, hash FROM audit WHERE position = 9",
            "DELETE FROM audit WHERE position = 0",
            0,
        ),
        ("UPDATE audit SET position = 40 WHERE position = 4", "UPDATE audit SET position = 4 WHERE position = 40", 4),
        ("UPDATE audit SET position = 90 WHERE position = 9", "UPDATE audit SET position = 9 WHERE position = 90", 9),
    ] {
        database.run(change).await;
        assert_eq!(store.verify_audit().await, Err(AuditError::Broken { entry }), "{change}");
        database.run(undo).await;
        assert!(store.verify_audit().await.is_ok(), "{undo}");
    }
    database.run("DELETE FROM audit WHERE position = 9").await;
    assert_eq!(store.verify_audit().await, Err(AuditError::Broken { entry: 9 }));
    database.run("DELETE FROM audit").await;
    assert_eq!(store.verify_audit().await, Err(AuditError::Broken { entry: 1 }));
}

fn audit_only(before: u64) -> Retention {
    Retention {
        records_before: UnixMs(0),
        full_addresses_before: UnixMs(0),
        sums_before: Day(0),
        events_before: UnixMs(0),
        audit_before: at(before),
    }
}

async fn what_time_removes_breaks_nothing(database: Database) {
    let store = database.store().await;
    write(&store, 9).await;
    assert_eq!(store.sweep(&audit_only(4)).await.unwrap().audit_entries, 3);
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 6, first: 4, last: 9 }));
    assert_eq!(store.sweep(&audit_only(4)).await.unwrap().audit_entries, 0);
    // All of them, and then on.
    assert_eq!(store.sweep(&audit_only(1000)).await.unwrap().audit_entries, 6);
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 0, first: 10, last: 9 }));
    write(&store, 2).await;
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 2, first: 10, last: 11 }));
    database.run("UPDATE audit SET detail = '' WHERE position = 10").await;
    assert_eq!(store.verify_audit().await, Err(AuditError::Broken { entry: 10 }));
}

async fn a_clock_set_back_tears_no_hole(database: Database) {
    let store = database.store().await;
    for ms in [10, 20, 5, 30] {
        store.audit(&entry(ms, "")).await.unwrap();
    }
    assert_eq!(store.sweep(&audit_only(15)).await.unwrap().audit_entries, 1);
    assert_eq!(store.verify_audit().await, Ok(AuditChain { entries: 3, first: 2, last: 4 }));
}

async fn two_nodes_write_one_chain(database: Database) {
    let (first, second) = (database.open("first", 1).await, database.open("second", 1).await);
    let both = [first.clone(), second].map(|store| tokio::spawn(async move { write(&store, 40).await }));
    for node in both {
        node.await.unwrap();
    }
    assert_eq!(first.verify_audit().await, Ok(AuditChain { entries: 80, first: 1, last: 80 }));
}
