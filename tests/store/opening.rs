//! Opening: what is there, what is refused, and what the files look like.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::Row;
use stube::ledger::record::Batch;
use stube::ledger::store::{INVENTORY, RecordFilter, SCHEMA_VERSION, Store, StoreError};

use crate::database::{Database, batch, session, tenant};

on_both! {
    the_inventory_covers_every_column
    a_newer_schema_is_refused
    several_nodes_may_open_an_empty_database
    a_closed_store_answers_no_more
}

async fn the_inventory_covers_every_column(database: Database) {
    database.store().await;
    let columns = if database.url.starts_with("sqlite") {
        "SELECT m.name AS t, p.name AS c FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS p
         WHERE m.type = 'table'"
    } else {
        "SELECT CAST(table_name AS TEXT) AS t, CAST(column_name AS TEXT) AS c FROM information_schema.columns
         WHERE table_schema = 'public'"
    };
    let stored: BTreeSet<(String, String)> =
        database.ask(columns).await.iter().map(|row| (row.get("t"), row.get("c"))).collect();
    let listed: BTreeSet<(String, String)> =
        INVENTORY.iter().map(|entry| (entry.table.to_owned(), entry.column.to_owned())).collect();
    assert_eq!(listed.difference(&stored).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "not in the database");
    assert_eq!(stored.difference(&listed).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "not in the inventory");
    assert_eq!(listed.len(), INVENTORY.len(), "listed twice");
    for entry in INVENTORY {
        let texts = [entry.purpose, entry.retention, entry.legal];
        assert!(texts.iter().all(|text| !text.is_empty()), "{entry:?}");
        assert_eq!(entry.personal, entry.legal.contains("GDPR"), "{entry:?}");
    }
}

async fn a_newer_schema_is_refused(database: Database) {
    database.store().await.close().await;
    database.run("UPDATE schema_version SET version = 1000").await;
    let error = Store::open(&database.url, database.directory(), "node", 1).await.unwrap_err();
    assert_eq!(error, StoreError::NewerSchema { found: 1000, known: SCHEMA_VERSION });
    assert!(error.to_string().contains("later"));
}

async fn several_nodes_may_open_an_empty_database(database: Database) {
    let opened = (0..8).map(|n| {
        let (url, directory) = (database.url.clone(), database.directory().to_owned());
        tokio::spawn(async move { Store::open(&url, &directory, &format!("node {n}"), 1).await })
    });
    for (n, store) in opened.collect::<Vec<_>>().into_iter().enumerate() {
        let store = store.await.unwrap().unwrap();
        store.write(&Batch { sessions: vec![session(n as u64, "ada")], ..batch(1) }).await.unwrap();
    }
    let store = database.store().await;
    assert_eq!(store.records(&tenant(), &RecordFilter::default(), None, 100).await.unwrap().len(), 8);
}

async fn a_closed_store_answers_no_more(database: Database) {
    let store = database.store().await;
    store.ping().await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.backlog().await, Err(StoreError::Unavailable(_))));
}

// ---- SQLite's files -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let database = Database::sqlite().await;
    // As somebody careless left them.
    fs::write(database.file(), b"").unwrap();
    fs::set_permissions(database.file(), fs::Permissions::from_mode(0o666)).unwrap();
    let store = database.store().await;
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(1) }).await.unwrap();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(database.directory()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        names.insert(entry.file_name().into_string().unwrap());
    }
    assert_eq!(names, ["stube.db", "stube.db-shm", "stube.db-wal"].map(str::to_owned).into());
}

#[tokio::test]
async fn the_log_is_written_ahead() {
    let database = Database::sqlite().await;
    database.store().await;
    assert_eq!(database.ask("PRAGMA journal_mode").await[0].get::<String, _>(0), "wal");
}

async fn refused(database: &Database) -> String {
    let error = Store::open(&database.url, database.directory(), "node", 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let database = Database::sqlite().await;
    let store = database.store().await;
    store.write(&Batch { sessions: (0..2000).map(|n| session(n, "ada")).collect(), ..batch(1) }).await.unwrap();
    store.close().await;
    let mut file = OpenOptions::new().write(true).open(database.file()).unwrap();
    for page in [40, 41, 60, 61, 62, 80] {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[0xa5; 4096]).unwrap();
    }
    drop(file);
    let text = refused(&database).await;
    assert!(text.contains("restore it from a backup") && !text.contains("ada"), "{text}");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let database = Database::sqlite().await;
    fs::write(database.file(), b"This is not a database, but somebody's letter.".repeat(100)).unwrap();
    assert!(refused(&database).await.contains("not a SQLite database"));
}

#[tokio::test]
async fn a_file_that_cannot_be_made_says_what_to_do() {
    let directory = tempfile::TempDir::new().unwrap();
    for (url, advice) in [
        ("sqlite://missing/stube.db", "create its directory"),
        ("sqlite:///proc/stube.db", "create its directory"),
        ("sqlite:///", "path of a file"),
        ("mysql://root:hunter2@localhost/stube", "sqlite:// or postgres://"),
    ] {
        let text = Store::open(url, directory.path(), "node", 1).await.unwrap_err().to_string();
        assert!(text.contains(advice) && !text.contains("hunter2"), "{text}");
    }
    fs::create_dir(directory.path().join("stube.db")).unwrap();
    let error = Store::open("sqlite://stube.db", directory.path(), "node", 1).await.unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
    assert!(!Path::new("stube.db").exists());
}

#[tokio::test]
async fn a_missing_postgres_is_told_from_a_missing_database() {
    let directory = tempfile::TempDir::new().unwrap();
    let nobody = Store::open("postgres://stube:hunter2@127.0.0.1:1/stube", directory.path(), "node", 1).await;
    let error = nobody.unwrap_err();
    assert!(matches!(&error, StoreError::Open(text) if text.contains("start it")), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let database = Database::postgres().await;
    let missing = format!("{}_missing", database.url);
    let error = Store::open(&missing, directory.path(), "node", 1).await.unwrap_err();
    assert!(matches!(&error, StoreError::Open(text) if text.contains("no such database")), "{error}");
}
