//! `stube load`: many participants that join, publish and receive, and what that cost.
//!
//! One thread plays them all: it looks at their sockets on a grid of a millisecond, so that no packet of the server wakes
//! a sleeping reader. str0m makes the connections (ICE, DTLS, SCTP); RTP is sealed and opened here, with the server's own
//! wire modules. Every media packet carries a mark, by which it is counted once and its latency is known.

mod clock;
mod counts;
mod frames;
mod histogram;
mod http;
mod fleet;
mod inbound;
mod link;
mod mark;
mod options;
mod outbound;
mod participant;
mod process;
mod report;
mod sdp;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::runtime::Runtime;

use fleet::{Fleet, Setup};
use http::Http;
use link::Shared;
pub use options::Options;
use participant::Media;
use process::Usage;
use report::{Findings, Report};

use crate::config::{Config, ConfigError};
use crate::ids::IdSource;
use crate::remote::Target;
use crate::rtc::Crypto;

const SECOND_NS: u64 = 1_000_000_000;
/// How long goodbyes may take.
const PARTING_NS: u64 = 10 * SECOND_NS;
/// After the last join was begun, so long is waited for it.
const SETTLING_NS: u64 = 20 * SECOND_NS;

/// Runs the tool. Fails if joins fail or nothing is received.
#[expect(clippy::print_stdout, reason = "the answer to the command")]
pub fn run(options: &Options, config: Result<Config, ConfigError>) -> anyhow::Result<()> {
    let plan = options.plan()?;
    ensure!(plan.participants() > 0, "nobody to play");
    let target = Target::find(options.url.clone(), options.key.clone(), config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("http").enable_all().build();
    let runtime = runtime.context("cannot start the HTTP thread")?;
    let stop = stop_on_signal(&runtime);
    let (sender, replies) = mpsc::channel();
    let http = Http::new(target, runtime.handle().clone(), sender)?;
    let crypto = Crypto::generate()?;
    let (provider, certificate) = (crypto.provider(), crypto.certificate());
    let shared = Shared { provider, certificate, local: http.local_address()? };
    let server_before = usage_of(options)?;
    let rooms = allocate(&runtime, &http, &plan)?;
    let media = Media {
        video: plan.video.clone(),
        audio_bytes: plan.audio_bytes,
        feedback_ns: options.feedback_ms * 1_000_000,
        loss: (options.loss.clamp(0.0, 100.0) / 100.0 * f64::from(u32::MAX)) as u32,
    };
    let setup = Setup {
        plan,
        rooms: rooms.clone(),
        media,
        shared,
        http: http.clone(),
        replies,
        ids: IdSource::from_seed(seed()),
        grid: Duration::from_micros(options.poll_us),
        join_rate: options.join_rate,
    };
    let mut fleet = Fleet::new(setup)?;
    let report = measure(&mut fleet, options, server_before, &stop);
    part(&mut fleet);
    runtime.block_on(async {
        for room in &rooms {
            // What is left ends by itself when its time is up.
            let _ = http.end_room(room).await;
        }
    });
    runtime.shutdown_background();
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report::table(&report));
    }
    if !report.is_good() {
        let trouble = report.trouble.as_deref().unwrap_or("nothing was received");
        bail!("{} joins failed, {} packets received: {trouble}", report.joins.failed, report.received);
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "ring 3 makes the seed: identities and SSRCs must differ from run to run"
)]
fn seed() -> [u8; 32] {
    rand::random()
}

/// Turns true with Ctrl-C or SIGTERM; what runs then ends as if its time were up.
fn stop_on_signal(runtime: &Runtime) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    drop(runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        flag.store(true, Ordering::Relaxed);
    }));
    stop
}

fn usage_of(options: &Options) -> anyhow::Result<Option<Usage>> {
    let Some(pid) = options.pid else { return Ok(None) };
    let usage = process::usage(&pid.to_string());
    Ok(Some(usage.with_context(|| format!("--pid: there is no process {pid}"))?))
}

fn allocate(runtime: &Runtime, http: &Http, plan: &options::Plan) -> anyhow::Result<Vec<String>> {
    let run = std::process::id();
    let names = (0..plan.rooms.len()).map(|room| format!("load-{run}-{room}"));
    runtime.block_on(async {
        let mut rooms = Vec::new();
        for (name, room) in names.zip(&plan.rooms) {
            http.allocate(&name, room.participants).await?;
            rooms.push(name);
        }
        Ok(rooms)
    })
}

/// Joins, warms up, measures.
fn measure(
    fleet: &mut Fleet,
    options: &Options,
    server_before: Option<Usage>,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let mut progress = Progress::new();
    let ramp_ns = (fleet.plan.participants() as f64 / options.join_rate * 1e9) as u64;
    let until = clock::wall_ns() + ramp_ns + SETTLING_NS;
    while !fleet.is_settled() && clock::wall_ns() < until && !stop.load(Ordering::Relaxed) {
        fleet.turn();
        progress.show("joining", fleet);
    }
    fleet.churn(options.churn);
    fleet.flood(options.flood);
    run_for(fleet, options.warmup, "warming up", stop, &mut progress);
    let ramp = fleet.counts.joins.clone();
    let server_start = usage_of(options)?;
    let own_start = process::usage("self").unwrap_or_default();
    let (thread_start, errors_start) = (process::thread_cpu_ns(), process::receive_buffer_errors());
    fleet.begin_window();
    let start_ns = clock::wall_ns();
    run_for(fleet, options.duration, "measuring", stop, &mut progress);
    let seconds = clock::wall_ns().saturating_sub(start_ns) as f64 / 1e9;
    // Whoever was stopped before the window has none; its figures say nothing, but shall be numbers.
    let seconds = seconds.max(0.001);
    let shown = fleet.end_window();
    let thread_ns = process::thread_cpu_ns().saturating_sub(thread_start);
    let server_end = usage_of(options)?;
    progress.clear();
    let findings = Findings {
        plan: &fleet.plan,
        churned: options.churn > 0.0,
        connected: fleet.connected(),
        seconds,
        counts: &fleet.counts,
        ramp: &ramp,
        shown,
        own: (own_start, process::usage("self").unwrap_or_default()),
        thread_ns,
        buffer_errors: process::receive_buffer_errors().saturating_sub(errors_start),
        server: server_before.zip(server_start).zip(server_end).map(|((first, before), after)| (first, before, after)),
        trouble: fleet.trouble.clone(),
    };
    Ok(Report::of(&findings))
}

fn run_for(fleet: &mut Fleet, seconds: f64, phase: &str, stop: &AtomicBool, progress: &mut Progress) {
    let until = clock::wall_ns() + (seconds * 1e9) as u64;
    while clock::wall_ns() < until && !stop.load(Ordering::Relaxed) {
        fleet.turn();
        progress.show(phase, fleet);
    }
}

/// Ends all sessions.
fn part(fleet: &mut Fleet) {
    fleet.part_all();
    let until = clock::wall_ns() + PARTING_NS;
    while fleet.leaving > 0 && clock::wall_ns() < until {
        fleet.turn();
    }
}

/// A line on the terminal that says how far it is.
struct Progress {
    terminal: bool,
    next_ns: u64,
    seen: (u64, u64),
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), next_ns: 0, seen: (0, 0) }
    }

    fn show(&mut self, phase: &str, fleet: &Fleet) {
        let now_ns = clock::wall_ns();
        if !self.terminal || now_ns < self.next_ns {
            return;
        }
        self.next_ns = now_ns + SECOND_NS;
        let (sent, received) = (fleet.counts.sent(), fleet.counts.received());
        let (connected, all) = (fleet.connected(), fleet.plan.participants());
        let new = (sent.saturating_sub(self.seen.0), received.saturating_sub(self.seen.1));
        self.seen = (sent, received);
        let failed = fleet.counts.joins.failed;
        let text = format!("{phase}: {connected} of {all}, {failed} failed, {}/s sent, {}/s received", new.0, new.1);
        // A terminal that is gone needs no progress.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
