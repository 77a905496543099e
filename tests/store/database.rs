//! A database for one test, on either system, and the rows to put into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use stube::command::{RoomSettings, Transport};
use stube::ids::{EventId, Id, Identity, RoomId, RoomName, Tenant};
use stube::ledger::address::{IpForm, IpMode};
use stube::ledger::client::{ClientKind, Os};
use stube::ledger::record::{Batch, CallRow, Day, EventRow, Person, RoomRow, SessionRow, SumDelta, UnixMs, Usage};
use stube::ledger::store::{Mourners, Store};
use tempfile::TempDir;

use super::postgres::Postgres;

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(false));

/// 2026-11-22T00:00:00Z.
pub const MIDNIGHT: UnixMs = UnixMs(20_779 * 86_400_000);

/// A database without tables.
pub struct Database {
    pub url: String,
    directory: TempDir,
}

impl Database {
    /// A SQLite file yet to be made.
    pub async fn sqlite() -> Self {
        sqlx::any::install_default_drivers();
        Self { url: "sqlite://stube.db".into(), directory: TempDir::new().unwrap() }
    }

    /// An empty database in the tests' PostgreSQL.
    pub async fn postgres() -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        sqlx::any::install_default_drivers();
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        let server = tokio::task::spawn_blocking(|| &*POSTGRES).await.unwrap();
        let mut connection = AnyConnection::connect(&server.url("postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        Self { url: server.url(&name), directory: TempDir::new().unwrap() }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// SQLite's file.
    pub fn file(&self) -> PathBuf {
        self.directory().join("stube.db")
    }

    /// A run of a node.
    pub async fn open(&self, node: &str, boot: u128) -> Store {
        Store::open(&self.url, self.directory(), node, boot).await.unwrap()
    }

    /// The usual run.
    pub async fn store(&self) -> Store {
        self.open("node", 1).await
    }

    /// A connection past the store.
    pub async fn connect(&self) -> AnyConnection {
        let url = match self.url.strip_prefix("sqlite://") {
            Some(_) => format!("sqlite://{}", self.file().display()),
            None => self.url.clone(),
        };
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        if self.url.starts_with("sqlite") {
            // It is a setting of connections, not of the file.
            connection.execute("PRAGMA secure_delete = ON").await.unwrap();
        }
        connection
    }

    /// Runs SQL past the store.
    pub async fn run(&self, sql: &str) {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Asks past the store.
    pub async fn ask(&self, sql: &str) -> Vec<AnyRow> {
        let mut connection = self.connect().await;
        let rows = connection.fetch_all(AssertSqlSafe(sql.to_owned())).await.unwrap();
        connection.close().await.unwrap();
        rows
    }
}

pub fn tenant() -> Tenant {
    Tenant::from("tenant")
}

pub fn id<K>(number: u64) -> Id<K> {
    Id::from_bits(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

pub fn at(ms: u64) -> UnixMs {
    UnixMs(MIDNIGHT.0 + ms)
}

/// An open session that joined `number` milliseconds after midnight and used as much.
pub fn session(number: u64, identity: &str) -> SessionRow {
    SessionRow {
        record: id(number),
        participant: Some(id(number)),
        tenant: tenant(),
        call: id(7),
        room: id(8),
        room_name: RoomName::from("hall"),
        person: Some(Person {
            identity: Identity::from(identity),
            ip: IpForm { mode: IpMode::Prefix, value: "198.51.100.0/24".into() },
            os: Os::Linux,
            client: ClientKind::Chromium,
        }),
        joined_at: at(number),
        ended_at: None,
        usage: used(number),
        transport: Transport::Udp,
        end_reason: None,
    }
}

/// A room named `name`.
pub fn room(number: u64, name: &str) -> RoomRow {
    let settings = RoomSettings {
        name: name.into(),
        metadata: "{}".into(),
        max_participants: 3,
        empty_timeout: Duration::from_millis(1500),
        departure_timeout: Duration::from_secs(20),
        max_duration: number.is_multiple_of(2).then(|| Duration::from_secs(60)),
    };
    RoomRow { room: id(number), tenant: tenant(), settings, created_at: at(number), seq: number }
}

/// Nobody's webhook.
pub fn mourners() -> Mourners<'static> {
    const NOBODY: &BTreeMap<Tenant, Vec<String>> = &BTreeMap::new();
    Mourners { webhooks: NOBODY, seed: [7; 32] }
}

/// Usage that tells its fields apart.
pub fn used(number: u64) -> Usage {
    Usage {
        duration_ms: number,
        rx_bytes: number + 1,
        tx_bytes: number + 2,
        audio_published_ms: number + 3,
        video_published_ms: number + 4,
    }
}

/// As [`session`], ended.
pub fn ended(number: u64, identity: &str) -> SessionRow {
    let session = session(number, identity);
    SessionRow {
        ended_at: Some(UnixMs(session.joined_at.0 + session.usage.duration_ms)),
        end_reason: Some("client_left".into()),
        ..session
    }
}

/// An open call that started `number` milliseconds after midnight.
pub fn call(number: u64) -> CallRow {
    CallRow {
        call: id(number),
        tenant: tenant(),
        room: id(8),
        room_name: RoomName::from("hall"),
        started_at: at(number),
        ended_at: None,
        duration_ms: number,
        participants: 3,
        peak_participants: 2,
        rx_bytes: number + 1,
        tx_bytes: number + 2,
        end_reason: None,
    }
}

pub fn sum(day: u32, participant_ms: u64) -> SumDelta {
    SumDelta { participant_ms, ..SumDelta::nothing(tenant(), Day(day)) }
}

/// An event about `identity` for one URL.
pub fn event(number: u64, room: Option<RoomId>, seq: u64, identity: &str) -> EventRow {
    let event: EventId = id(number);
    EventRow {
        event,
        tenant: tenant(),
        room,
        seq,
        created_at: at(number),
        identity: Some(Identity::from(identity)),
        body: format!(
            r#"{{"id":"{event}","event":"participant_joined","participant":{{"identity":"{identity}","name":"{identity}",
            "sid":"PA_1"}}}}"#
        ),
        urls: vec!["https://map.example/hook".into()],
    }
}

pub fn batch(number: u64) -> Batch {
    Batch { number, ..Batch::default() }
}
