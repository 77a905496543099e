//! What every handler shares, and how it talks to the shards.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;

use super::clock::Clock;
use super::directory::{Directory, RoomEntry, SessionEntry};
use super::idempotency::Idempotency;
use super::keys::Keys;
use super::node::NodeState;
use super::problem::Problem;
use crate::command::quality::ParticipantQuality;
use crate::command::{Command, ParticipantInfo, Refusal, Reply, RoomState, SessionUsage};
use crate::config::{Config, ConfigError};
use crate::ids::{Id, IdSource, ParticipantId, RoomId, SessionId};
use crate::ledger::Ledger;
use crate::ledger::quota::Exceeded;
use crate::ledger::store::{AuditAction, AuditEntry, StoreError};
use crate::log::LogTo;
use crate::metrics::Metrics;
use crate::shard::{Notices, ShardIndex, Shards};
use crate::tls::Tls;
use crate::traces;
use crate::webhook::{Counts, Endpoints};

/// How long a shard may take to answer. It takes microseconds unless it hangs.
const SHARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How recently every shard must have turned for the server to count as well.
pub const TURNING_WITHIN: Duration = Duration::from_secs(5);

/// The state of the HTTP side.
pub struct App {
    config: RwLock<Arc<Config>>,
    /// Where the configuration came from.
    pub source: Source,
    pub source_path: Option<SourcePath>,
    pub log_to: LogTo,
    /// Held while the configuration is read anew.
    pub reloads: tokio::sync::Mutex<()>,
    /// Takes the webhooks of a configuration that was read anew.
    pub endpoints: mpsc::Sender<Endpoints>,
    pub clock: Clock,
    pub directory: Directory,
    pub idempotency: Idempotency,
    pub metrics: Metrics,
    pub shards: Shards,
    pub ledger: Ledger,
    /// Room for event streams.
    pub event_streams: Arc<Semaphore>,
    pub webhooks: Arc<Counts>,
    /// Of the public listener, if it speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Held while a room is made, changed or ended, so that two requests for one name do not cross.
    pub room_changes: tokio::sync::Mutex<()>,
    keys: Keys,
    ids: Mutex<IdSource>,
    retreat: Mutex<Retreat>,
}

/// Whether the server withdraws, and until when.
#[derive(Debug, Clone, Copy, Default)]
struct Retreat {
    stopping: bool,
    draining: bool,
    deadline: Option<Instant>,
}

/// Reads the configuration from where it came from.
pub type Source = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Says which file that is now.
pub type SourcePath = Box<dyn Fn() -> PathBuf + Send + Sync>;

/// What reading the configuration anew needs beyond the state itself.
pub struct Controls {
    pub source: Source,
    pub source_path: Option<SourcePath>,
    pub log_to: LogTo,
    pub endpoints: mpsc::Sender<Endpoints>,
    pub tls: Option<Arc<Tls>>,
}

impl App {
    /// The state of a server that has just started its shards.
    pub fn new(
        config: Config,
        clock: Clock,
        shards: Shards,
        ledger: Ledger,
        controls: Controls,
        routes: &[(&str, &[&str])],
    ) -> Arc<Self> {
        let Controls { source, source_path, log_to, endpoints, tls } = controls;
        Arc::new(Self {
            keys: Keys::new(config.keys.clone()),
            config: RwLock::new(Arc::new(config)),
            source,
            source_path,
            log_to,
            reloads: tokio::sync::Mutex::default(),
            endpoints,
            clock,
            ledger,
            event_streams: super::events::slots(),
            webhooks: Arc::default(),
            tls,
            directory: Directory::default(),
            idempotency: Idempotency::default(),
            metrics: Metrics::new(routes),
            shards,
            room_changes: tokio::sync::Mutex::default(),
            ids: Mutex::new(IdSource::from_seed(fresh_seed())),
            retreat: Mutex::default(),
        })
    }

    /// The tenants.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A fresh id.
    pub fn id<K>(&self) -> Id<K> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another configuration from now on.
    pub fn replace_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// From now on nobody comes in.
    pub fn stop_admitting(&self) {
        self.retreat().stopping = true;
    }

    /// From now on there are no new rooms, and nobody comes into empty ones; after `deadline` calls end that have not by
    /// themselves. Said again, the earlier deadline counts.
    pub fn drain(&self, deadline: Option<Duration>) {
        let deadline = deadline.map(|span| self.clock.now() + span);
        let mut retreat = self.retreat();
        retreat.draining = true;
        retreat.deadline = [retreat.deadline, deadline].into_iter().flatten().min();
        drop(retreat);
        tracing::info!(sessions = self.directory.num_sessions(), "draining: calls go on, new ones are refused");
    }

    /// Whether there is nothing left to wait for.
    pub fn is_drained(&self) -> bool {
        let Retreat { draining, deadline, .. } = *self.retreat();
        let is_over = || deadline.is_some_and(|deadline| self.clock.now() >= deadline);
        draining && (is_over() || self.directory.num_sessions() == 0)
    }

    /// What the server does with those who come.
    pub fn state(&self) -> NodeState {
        match *self.retreat() {
            Retreat { stopping: true, .. } => NodeState::Stopping,
            Retreat { draining: true, .. } => NodeState::Draining,
            _ => NodeState::Running,
        }
    }

    /// Whether the server takes new rooms.
    pub fn admits_rooms(&self) -> Result<(), Refusal> {
        if self.state() == NodeState::Running { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    /// Whether the server takes sessions into a room.
    pub fn admits_into(&self, room: RoomId) -> Result<(), Refusal> {
        match self.state() {
            NodeState::Running => Ok(()),
            NodeState::Draining if self.directory.is_in_use(room) => Ok(()),
            NodeState::Draining | NodeState::Stopping => Err(Refusal::Unavailable),
        }
    }

    fn retreat(&self) -> MutexGuard<'_, Retreat> {
        self.retreat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every shard turns.
    pub fn is_turning(&self) -> bool {
        self.shards.all_turning(TURNING_WITHIN)
    }

    /// Sends a command to a shard.
    pub async fn tell(&self, shard: ShardIndex, command: Command) -> Result<Reply, Refusal> {
        let answer = self.shards.send(shard, command).instrument(traces::step("shard"));
        match tokio::time::timeout(SHARD_TIMEOUT, answer).await {
            Ok(result) => result,
            Err(_) => {
                tracing::error!(shard = shard.0, "a shard does not answer");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// Sends a command about a room; forgets the room if its shard does not know it.
    pub async fn tell_room(&self, room: &RoomEntry, command: Command) -> Result<Reply, Refusal> {
        match self.tell(room.shard, command).await {
            Err(Refusal::RoomNotFound) => {
                self.directory.remove_room(room.room);
                Err(self.room_not_found())
            }
            result => result,
        }
    }

    /// Why a room cannot be found. That a server has ended it to stop does not mean that it does not exist: it is back when the
    /// server is, and who is told that there is none gives up.
    pub fn room_not_found(&self) -> Refusal {
        if self.state() == NodeState::Stopping { Refusal::Unavailable } else { Refusal::RoomNotFound }
    }

    /// Sends a command about a session; forgets the session if its shard does not know it.
    pub async fn tell_session(
        &self,
        session: SessionId,
        entry: &SessionEntry,
        command: Command,
    ) -> Result<Reply, Refusal> {
        let result = self.tell(entry.shard, command).await;
        if let Err(Refusal::SessionNotFound) = result {
            self.directory.remove_session(session);
        }
        result
    }

    /// The problem of something that a quota does not allow; counts it.
    pub fn over_quota(&self, exceeded: Exceeded) -> Problem {
        self.metrics.count_quota_rejection(exceeded.quota);
        exceeded.into()
    }

    /// Writes what of the ledger waits.
    pub async fn write_ledger(&self) -> Result<(), StoreError> {
        self.ledger.flush(self.clock.moment().wall).instrument(traces::step("ledger")).await
    }

    /// Notes in the audit log who has done what just now.
    pub async fn audit(&self, actor: &str, action: AuditAction, detail: String) -> Result<(), StoreError> {
        let at = self.clock.moment().wall;
        self.ledger.store().audit(&AuditEntry { at, actor: actor.to_owned(), action, detail }).await
    }

    /// Takes in what the shards tell, until they stop.
    pub async fn follow(&self, mut notices: Notices) {
        while let Some((_, notice)) = notices.recv().await {
            let now = self.clock.moment_of(notice.at());
            self.ledger.with(|accounts| accounts.heed(&notice, now));
            self.directory.apply(&notice);
            self.metrics.count_notice(&notice);
        }
    }
}

/// Bytes nobody can guess.
#[expect(clippy::disallowed_methods, reason = "ring 3 draws its seeds and keys, here alone")]
pub fn fresh_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

/// Runs `work` to its end even if the client hangs up, so that control and shards never disagree about what was done.
#[expect(clippy::disallowed_methods, reason = "ring 3; the task ends with its shard's answer")]
pub async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|_| Err(Problem::internal()))
}

/// A shard answered with something else than the command asks for: a bug.
fn mismatch<T>() -> Result<T, Refusal> {
    tracing::error!("a shard's reply does not fit its command");
    Err(Refusal::Internal)
}

/// The reply to a command that only does something.
pub fn done(reply: Reply) -> Result<(), Refusal> {
    if let Reply::Done = reply { Ok(()) } else { mismatch() }
}

/// The reply to [`Command::DescribeRooms`].
pub fn rooms(reply: Reply) -> Result<Vec<RoomState>, Refusal> {
    if let Reply::Rooms(rooms) = reply { Ok(rooms) } else { mismatch() }
}

/// The reply to commands about participants.
pub fn participants(reply: Reply) -> Result<Vec<ParticipantInfo>, Refusal> {
    if let Reply::Participants(participants) = reply { Ok(participants) } else { mismatch() }
}

/// The reply to [`Command::DescribeUsage`].
pub fn usage(reply: Reply) -> Result<Vec<(ParticipantId, SessionUsage)>, Refusal> {
    if let Reply::Usage(usage) = reply { Ok(usage) } else { mismatch() }
}

/// The reply to [`Command::DescribeQuality`].
pub fn quality(reply: Reply) -> Result<(Instant, Vec<ParticipantQuality>), Refusal> {
    if let Reply::Quality { at, participants } = reply { Ok((at, participants)) } else { mismatch() }
}

/// The reply to a command about one participant.
pub fn participant(reply: Reply) -> Result<ParticipantInfo, Refusal> {
    match participants(reply)?.pop() {
        Some(participant) => Ok(participant),
        None => Err(Refusal::ParticipantNotFound),
    }
}
