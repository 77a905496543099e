//! Disks that are full or read-only, a PostgreSQL that is gone: nothing is lost, and it goes on by itself.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stube::ids::Identity;
use stube::ledger::record::{Batch, SessionRow};
use stube::ledger::store::{Outage, RecordFilter, Store, StoreError};
use tempfile::TempDir;

use crate::database::{batch, ended, session, sum, tenant, used};
use crate::postgres::Postgres;

/// A small file system in memory.
struct Disk {
    place: TempDir,
}

impl Disk {
    fn new(size: &str) -> Self {
        assert_eq!(
            fs::metadata("/proc/self").unwrap().uid(),
            0,
            "mounting needs root: run in `unshare --map-root-user --mount`"
        );
        let disk = Self { place: TempDir::new().unwrap() };
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    fn mount(&self, arguments: &[&str]) {
        assert!(Command::new("mount").args(arguments).arg(self.path()).status().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

async fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open("sqlite://stube.db", directory, "node", 1).await
}

fn sessions(range: std::ops::Range<u64>) -> Vec<SessionRow> {
    range.map(|n| session(n, "ada")).collect()
}

async fn count(store: &Store) -> usize {
    store.records(&tenant(), &RecordFilter::default(), None, 100_000).await.unwrap().len()
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let disk = Disk::new("6m");
    let store = open(disk.path()).await.unwrap();
    store.write(&Batch { sessions: sessions(0..100), ..batch(1) }).await.unwrap();
    let filler = disk.fill();
    let many = Batch { sessions: sessions(0..5000), sums: vec![sum(5, 10)], ..batch(2) };
    for _ in 0..3 {
        assert_eq!(store.write(&many).await, Err(StoreError::Unavailable(Outage::DiskFull)));
    }
    // What is there can be read meanwhile.
    assert_eq!(count(&store).await, 100);
    fs::remove_file(filler).unwrap();
    store.write(&many).await.unwrap();
    store.write(&many).await.unwrap();
    assert_eq!(count(&store).await, 5000);
    assert_eq!(store.usage_by_day(&tenant(), None, None).await.unwrap()[0].participant_ms, 10);
    store.ping().await.unwrap();
    store.close().await;
    // And it is sound.
    assert_eq!(count(&open(disk.path()).await.unwrap()).await, 5000);
}

#[tokio::test]
async fn a_full_disk_is_noticed_by_the_probe() {
    let disk = Disk::new("6m");
    let store = open(disk.path()).await.unwrap();
    store.write(&Batch { sessions: sessions(0..100), ..batch(1) }).await.unwrap();
    // The log is empty, so that the probe needs a new page of it.
    store.erase(&tenant(), &[]).await.unwrap();
    let filler = disk.fill();
    assert_eq!(store.ping().await, Err(StoreError::Unavailable(Outage::DiskFull)));
    fs::remove_file(filler).unwrap();
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_delays_an_erasure() {
    let disk = Disk::new("6m");
    let store = open(disk.path()).await.unwrap();
    store.write(&Batch { sessions: sessions(0..3000), ..batch(1) }).await.unwrap();
    store.erase(&tenant(), &[]).await.unwrap();
    let filler = disk.fill();
    let ada = [Identity::from("ada")];
    assert_eq!(store.erase(&tenant(), &ada).await, Err(StoreError::Unavailable(Outage::DiskFull)));
    fs::remove_file(filler).unwrap();
    assert_eq!(store.erase(&tenant(), &ada).await.unwrap().records, 3000);
}

#[tokio::test]
async fn a_full_disk_at_the_start_says_what_to_do() {
    let disk = Disk::new("1m");
    let _ = disk.fill();
    let error = open(disk.path()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Open(text) if text.contains("make room")), "{error}");
}

#[tokio::test]
async fn a_read_only_disk_says_what_to_do() {
    let disk = Disk::new("6m");
    let store = open(disk.path()).await.unwrap();
    store.write(&Batch { sessions: sessions(0..10), ..batch(1) }).await.unwrap();
    store.close().await;
    disk.mount(&["-o", "remount,ro"]);
    let error = open(disk.path()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Open(text) if text.contains("mount it writable")), "{error}");
    disk.mount(&["-o", "remount,rw"]);
    assert_eq!(count(&open(disk.path()).await.unwrap()).await, 10);
}

#[tokio::test]
async fn a_postgres_that_was_away_is_used_again() {
    let server = tokio::task::spawn_blocking(|| Postgres::start(true)).await.unwrap();
    let directory = TempDir::new().unwrap();
    sqlx::any::install_default_drivers();
    let store = Store::open(&server.url("postgres"), directory.path(), "node", 1).await.unwrap();
    store.write(&Batch { sessions: sessions(0..100), sums: vec![sum(5, 10)], ..batch(1) }).await.unwrap();
    for round in 2..5 {
        server.tell("stop");
        let next = Batch {
            sessions: vec![SessionRow { usage: used(round), ..ended(0, "ada") }],
            sums: vec![sum(5, 10)],
            ..batch(round)
        };
        for _ in 0..2 {
            assert_eq!(store.write(&next).await, Err(StoreError::Unavailable(Outage::Connection)));
        }
        assert!(store.ping().await.unwrap_err().is_temporary());
        assert!(store.backlog().await.unwrap_err().is_temporary());
        server.tell("start");
        // At once: the broken connection is nobody's business.
        store.write(&next).await.unwrap();
        store.write(&next).await.unwrap();
        assert_eq!(count(&store).await, 100);
    }
    assert_eq!(store.usage_by_day(&tenant(), None, None).await.unwrap()[0].participant_ms, 40);
}

#[tokio::test]
async fn a_postgres_that_dies_during_a_batch_has_all_or_nothing() {
    let server = std::sync::Arc::new(tokio::task::spawn_blocking(|| Postgres::start(true)).await.unwrap());
    let directory = TempDir::new().unwrap();
    sqlx::any::install_default_drivers();
    let store = Store::open(&server.url("postgres"), directory.path(), "node", 1).await.unwrap();
    for round in 1..=6u64 {
        let next = Batch { sessions: sessions(0..5000), sums: vec![sum(5, 10)], ..batch(round) };
        let stopping = tokio::task::spawn_blocking({
            let server = server.clone();
            move || {
                std::thread::sleep(std::time::Duration::from_millis(round * 40));
                server.tell("stop");
            }
        });
        let mut written = store.write(&next).await.is_ok();
        stopping.await.unwrap();
        server.tell("start");
        while !written {
            written = match store.write(&next).await {
                Err(error) => {
                    assert!(error.is_temporary(), "{error}");
                    false
                }
                Ok(()) => true,
            };
        }
        let days = store.usage_by_day(&tenant(), None, None).await.unwrap();
        assert_eq!(days[0].participant_ms, round * 10);
    }
    assert_eq!(count(&store).await, 5000);
}
