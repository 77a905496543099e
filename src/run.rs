//! A whole server: start, wait for a signal, end calls, stop.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Interval, interval};

use crate::activation;
use crate::command::Command;
use crate::config::{Config, ConfigError};
use crate::control::app::{App, Controls, Source, SourcePath, fresh_seed};
use crate::control::clock::Clock;
use crate::control::listener::Entrance;
use crate::control::node::NodeState;
use crate::control::outbox::LedgerOutbox;
use crate::control::{admin, certificates, edge, keeper, listener, node, rooms, router};
use crate::doctor;
use crate::ids::IdSource;
use crate::ledger::accounts::{Accounts, Beginnings};
use crate::ledger::address::{DayKeys, DistinctAddresses, KEY_BYTES, PresentAddresses};
use crate::ledger::book::Book;
use crate::ledger::quota::{self, Counters, Month, MonthToDate};
use crate::ledger::record::RoomRow;
use crate::ledger::store::{AuditAction, Mourners, Store, StoreError};
use crate::ledger::{Ledger, state_directory};
use crate::log::LogTo;
use crate::shard::{ShardError, ShardIndex, Shards, ShardsConfig, bound_to, listen_tcp};
use crate::tls::{self, Tls};
use crate::webhook::{Endpoints, Sender, SenderError};

/// How long all shards together may take to end their calls. With [`THREADS_GRACE`] and the listeners' second this
/// keeps a stop below five seconds, unless a webhook or the database hangs as well: each may take two more.
const CALLS_GRACE: Duration = Duration::from_secs(2);

/// Configurations read anew whose webhooks wait for the sender.
const ENDPOINT_CHANGES_MAX: usize = 4;

/// How often a server that drains looks whether the last call has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// How long what the shards said last may take to be heard.
const NOTICES_GRACE: Duration = Duration::from_millis(500);

/// How long the shards' threads may take to send what is queued.
const THREADS_GRACE: Duration = Duration::from_secs(1);

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen for {what} on {address}: {source}")]
    Listen { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Ledger(#[from] StoreError),
    #[error(transparent)]
    Webhooks(#[from] SenderError),
    #[error("cannot speak TLS: {0}")]
    Tls(tokio_rustls::rustls::Error),
}

impl StartError {
    /// Whether the configuration is at fault.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Ledger(StoreError::Url(_)))
    }
}

/// A server that runs.
pub struct Running {
    /// Where the API, sessions and the page are.
    pub http_addr: SocketAddr,
    /// Where metrics and health are.
    pub admin_addr: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    /// Stops the ledger, after everything else.
    closing: watch::Sender<bool>,
    tasks: Tasks,
}

struct Tasks {
    http: JoinHandle<()>,
    certificates: JoinHandle<()>,
    admin: JoinHandle<()>,
    notices: JoinHandle<()>,
    keeper: JoinHandle<()>,
    webhooks: JoinHandle<()>,
}

/// What of the process a server can change while it runs.
pub struct Process {
    pub source: Source,
    pub source_path: Option<SourcePath>,
    pub log_to: LogTo,
}

impl Process {
    /// One whose configuration is always this one, and whose log stays as it is.
    pub fn fixed(config: &Config) -> Self {
        let config = config.clone();
        Self { source: Box::new(move || Ok(config.clone())), source_path: None, log_to: Box::new(|_| {}) }
    }
}

/// Binds every socket and starts every thread and task. Runs on the current tokio runtime.
#[expect(clippy::disallowed_methods, reason = "ring 3; six tasks, ended by Running::shutdown")]
pub async fn start(config: Config, process: Process) -> Result<Running, StartError> {
    let http = bind_http(&config).await?;
    let admin = bind("admin requests", config.admin.listen).await?;
    let endpoints = Endpoints::check(&config.webhook, &config.keys, config.privacy.allow_private_webhooks)?;
    let clock = Clock::start();
    let ledger = open_ledger(&config, &endpoints, &clock).await?;
    let rooms = ledger.store().rooms().await?;
    let tls = open_tls(&config, &clock)?;
    let (shards, notices) = Shards::start(&shards_config(&config, &http)?)?;
    let Process { source, source_path, log_to } = process;
    let (change_endpoints, changed_endpoints) = mpsc::channel(ENDPOINT_CHANGES_MAX);
    let controls = Controls { source, source_path, log_to, endpoints: change_endpoints, tls: tls.clone() };
    let (http_configured, admin_configured) = (config.http.listen, config.admin.listen);
    let media = Some(shards.clone()).filter(|_| config.shares_port());
    let app = App::new(config, clock, shards, ledger, controls, &edge::ROUTES);
    keeper::note(&app, AuditAction::Start).await?;
    reopen(&app, rooms).await;
    let (stop, stopped) = watch::channel(false);
    let (closing, closed) = watch::channel(false);
    let address = |listener: Option<&TcpListener>, configured| {
        listener.and_then(|listener| listener.local_addr().ok()).unwrap_or(configured)
    };
    let (http_addr, admin_addr) = (address(http.first(), http_configured), address(Some(&admin), admin_configured));
    let follow = {
        let app = Arc::clone(&app);
        async move { app.follow(notices).await }
    };
    let sender = sender(&app, endpoints)?;
    let sending = send_webhooks(Arc::clone(&app), sender, changed_endpoints, stopped.clone());
    let trusts = {
        let app = Arc::clone(&app);
        Box::new(move |peer: IpAddr| app.config().http.trusts(peer))
    };
    let public = Entrance { listeners: http, tls, media, trusts };
    let tasks = Tasks {
        http: tokio::spawn(listener::serve(public, router(Arc::clone(&app)), stopped.clone())),
        certificates: tokio::spawn(certificates::keep(Arc::clone(&app), stopped.clone())),
        admin: tokio::spawn(listener::serve(Entrance::plain(admin), admin::router(Arc::clone(&app)), stopped)),
        notices: tokio::spawn(follow),
        keeper: tokio::spawn(keeper::keep(Arc::clone(&app), closed)),
        webhooks: tokio::spawn(sending),
    };
    Ok(Running { http_addr, admin_addr, app, stop, closing, tasks })
}

/// None without a webhook: then there is nothing to ask the database for every second.
fn sender(app: &App, endpoints: Endpoints) -> Result<Option<Sender>, SenderError> {
    let random = IdSource::from_seed(fresh_seed());
    let is_empty = endpoints.is_empty();
    let sender = Sender::new(endpoints, random, Arc::clone(&app.webhooks))?;
    Ok(Some(sender).filter(|_| !is_empty))
}

/// Sends webhooks until told to stop; by another sender whenever the configuration has others.
async fn send_webhooks(
    app: Arc<App>,
    mut current: Option<Sender>,
    mut changes: mpsc::Receiver<Endpoints>,
    mut stopped: watch::Receiver<bool>,
) {
    let outbox = Arc::new(LedgerOutbox::new(Arc::clone(&app)));
    loop {
        let (end, mut ended) = watch::channel(false);
        let (outbox, told) = (Arc::clone(&outbox), Arc::clone(&app.ledger.told));
        let sending = async move {
            match current {
                Some(sender) => sender.run(outbox, ended, told).await,
                // Whoever would say so is gone: that says it too.
                None => drop(ended.wait_for(|ended| *ended).await),
            }
        };
        let mut sending = std::pin::pin!(sending);
        let change = tokio::select! {
            () = &mut sending => return,
            _ = stopped.wait_for(|stopped| *stopped) => None,
            change = changes.recv() => change,
        };
        end.send_replace(true);
        sending.await;
        let Some(endpoints) = change else { return };
        current = sender(&app, endpoints).unwrap_or_else(|error| {
            tracing::error!(%error, "no webhooks are sent");
            None
        });
    }
}

/// Opens the store, closes what a crash left open, and begins the accounts.
async fn open_ledger(config: &Config, endpoints: &Endpoints, clock: &Clock) -> Result<Ledger, StartError> {
    let node = match config.ledger.node.as_str() {
        "" => nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
        node => node.to_owned(),
    };
    let boot = u128::from_be_bytes(fresh_seed().first_chunk().copied().unwrap_or_default());
    let store = Store::open(config.ledger.url.as_str(), &state_directory(), &node, boot).await?;
    let now = clock.moment();
    let webhooks = endpoints.by_tenant();
    let recovered = store.recover(now.wall, &Mourners { webhooks: &webhooks, seed: fresh_seed() }).await?;
    if recovered.sessions > 0 {
        let (sessions, calls) = (recovered.sessions, recovered.calls);
        tracing::warn!(sessions, calls, "records that a crash left open end at their last checkpoint");
    }
    let at = quota::Moment { monotonic_ms: 0, unix_ms: now.wall.0 };
    let mut quotas = Counters::new(config.quota.clone(), at);
    let used = store.month_to_date(now.wall.day().month()).await?.into_iter().map(|used| {
        (used.tenant, MonthToDate { participant_ms: used.participant_ms, egress_bytes: used.egress_bytes })
    });
    quotas.begin_month(Month::of(now.wall.0), used);
    let draw = |key: &mut [u8; KEY_BYTES]| *key = fresh_seed();
    let accounts = Accounts::new(Beginnings {
        book: Book::new(fresh_seed(), webhooks, store.told().await?),
        quotas,
        keys: DayKeys::new(draw),
        distinct: DistinctAddresses::new(DayKeys::new(draw)),
        present: PresentAddresses::new(draw),
        ip_mode: config.privacy.ip_mode,
        started: now.at,
    });
    Ok(Ledger::new(accounts, store, now.wall))
}

/// Opens the rooms of the last run again: who was in them comes back, and else their time runs out as ever.
async fn reopen(app: &App, rooms: Vec<RoomRow>) {
    let count = rooms.len();
    for row in rooms {
        rooms::reopen(app, row).await;
    }
    if count > 0 {
        tracing::info!(rooms = count, "the rooms of the last run are open again");
    }
}

/// HTTP's listeners: one, or one for each family where media shares the port, which for it means both.
async fn bind_http(config: &Config) -> Result<Vec<TcpListener>, StartError> {
    const WHAT: &str = "HTTP";
    let address = config.http.listen;
    let failed = |source| StartError::Listen { what: WHAT, address, source };
    let listeners = match activation::http_listener(address)? {
        Some(listener) => vec![listener],
        None if config.shares_port() => listen_tcp(address).map_err(failed)?,
        None => return Ok(vec![bind(WHAT, address).await?]),
    };
    listeners.into_iter().map(|listener| TcpListener::from_std(listener).map_err(failed)).collect()
}

/// The public listener's TLS, with the certificate that is in files. One by ACME comes later.
fn open_tls(config: &Config, clock: &Clock) -> Result<Option<Arc<Tls>>, StartError> {
    if !config.http.tls.is_on() {
        return Ok(None);
    }
    let tls = Tls::new().map_err(StartError::Tls)?;
    if let Some(certificate) = tls::read(config)? {
        if !certificate.is_valid(clock.unix_seconds()) {
            tracing::error!(
                "the TLS certificate is not valid now: clients refuse it. Renew it and reload, or set the clock"
            );
        }
        tls.show(certificate);
    }
    Ok(Some(tls))
}

#[expect(clippy::disallowed_methods, reason = "ring 3 opens the HTTP sockets, here alone")]
async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { what, address, source })
}

fn shards_config(config: &Config, http: &[TcpListener]) -> Result<ShardsConfig, StartError> {
    let mut tcp_shared = Vec::new();
    for listener in http.iter().filter(|_| config.shares_port()) {
        let failed = |source| StartError::Listen { what: "HTTP and media", address: config.http.listen, source };
        tcp_shared.extend(bound_to(SockRef::from(listener)).map_err(failed)?);
    }
    Ok(ShardsConfig { tcp_shared, ..ShardsConfig::of(&config.media, config.shard.count) })
}

impl Running {
    /// Whether every shard turns; what the watchdog asks.
    pub fn is_turning(&self) -> bool {
        self.app.is_turning()
    }

    /// Lets calls go on for as long as the configuration says. False if that is not at all, or if they do so already.
    fn begin_drain(&self) -> bool {
        let span = self.app.config().shutdown.drain;
        let drains = !span.is_zero() && self.app.state() == NodeState::Running;
        if drains {
            self.app.drain(Some(span));
        }
        drains
    }

    /// Ends when a server that drains has nothing left to wait for.
    #[expect(clippy::disallowed_methods, reason = "a server that drains looks now and then")]
    pub async fn drained(&self) {
        while !self.app.is_drained() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Ends every call with `leave`, then stops. Takes less than eight seconds, whatever hangs.
    pub async fn shutdown(self) {
        self.app.stop_admitting();
        let mut farewells = JoinSet::new();
        for shard in (0..self.app.shards.count()).map(ShardIndex) {
            let app = Arc::clone(&self.app);
            farewells.spawn(async move { app.tell(shard, Command::Shutdown).await });
        }
        if tokio::time::timeout(CALLS_GRACE, farewells.join_all()).await.is_err() {
            tracing::warn!("a shard did not end its calls in time");
        }
        if tokio::time::timeout(THREADS_GRACE, self.app.shards.stop()).await.is_err() {
            tracing::warn!("a shard did not stop in time");
        }
        self.stop.send_replace(true);
        let Tasks { http, certificates, admin, notices, keeper, webhooks } = self.tasks;
        // The shards have said all they had to say; what is heard of it belongs into the records.
        if tokio::time::timeout(NOTICES_GRACE, notices).await.is_err() {
            tracing::warn!("not all of the shards' last notices were heard");
        }
        // A task that panicked has nothing left to flush.
        let _ = tokio::join!(http, certificates, admin, webhooks);
        self.closing.send_replace(true);
        let _ = keeper.await;
        self.app.ledger.store().close().await;
    }
}

/// Runs a server until SIGTERM or SIGINT, or until it is drained. Each further signal is less patient: with
/// `shutdown.drain_s` the second ends all calls; the next ends the process at once.
pub async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let shown = config.clone();
    let running = start(config, process).await?;
    print_where(&shown, &running);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    doctor::warn_at_start(&shown);
    notify(NotifyState::Ready);
    let mut beat = sd_notify::watchdog_enabled().map(|period| interval(period / 2));
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => reload(Arc::clone(&running.app)),
                Asked::Stop if !running.begin_drain() => break,
                Asked::Stop => {}
            },
            () = running.drained() => break,
            () = watchdog(&mut beat) => if running.is_turning() { notify(NotifyState::Watchdog) },
        }
    }
    tracing::info!("stopping");
    notify(NotifyState::Stopping);
    tokio::select! {
        () = signals.stop() => anyhow::bail!("stopped by a second signal"),
        () = running.shutdown() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reads the configuration anew, as systemd wants to hear of it (sd_notify(3), `RELOADING=1`). What came of it is logged.
///
/// In a task of its own, for a database that hangs may hold it up, and the watchdog and other signals must not wait.
#[expect(clippy::disallowed_methods, reason = "ring 3; ends with the reload, which one at a time may do")]
fn reload(app: Arc<App>) {
    tokio::spawn(async move {
        // Both in one message: else systemd takes the reload for failed.
        let began = NotifyState::monotonic_usec_now();
        let _ = began.and_then(|began| sd_notify::notify(&[NotifyState::Reloading, began]));
        let _ = node::take_over(&app).await;
        notify(NotifyState::Ready);
    });
}

/// The signals that a server heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// Ends when systemd wants to hear from us again; never if it does not.
async fn watchdog(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

/// Tells systemd. Without systemd there is nobody to tell, and nothing to do about it.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

/// Says on standard output where to look. Whoever closed it does not want to know.
fn print_where(config: &Config, running: &Running) {
    let tcp = config.media.tcp_listen.map_or("off".to_owned(), |address| address.to_string());
    let scheme = config.http.tls.scheme();
    let (http, admin, udp) = (running.http_addr, running.admin_addr, config.media.udp_listen);
    let mut text = format!(
        "Stube {version} is running.\n  page   {scheme}://{http}/\n  API    {scheme}://{http}/v1/\n  \
         admin  http://{admin}/ and /metrics\n  media  UDP {udp}, TCP {tcp}\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    if config.dev_key().is_some() {
        text.push_str("  The shipped API key is in use: for this machine only.\n");
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
}
