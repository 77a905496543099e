//! What a run found, as a table and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::counts::{Counts, Joins, STREAMS};
use super::histogram::Histogram;
use super::options::Plan;
use super::process::Usage;

const NS_PER_MS: f64 = 1e6;

/// How long a join took, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    fn of(histogram: &Histogram) -> Self {
        let at = |percent| round(histogram.percentile(percent) as f64 / NS_PER_MS, 3);
        let max = round(histogram.max() as f64 / NS_PER_MS, 3);
        Self { count: histogram.count(), p50: at(50.0), p90: at(90.0), p95: at(95.0), p99: at(99.0), max }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct JoinReport {
    pub count: u64,
    pub failed: u64,
    pub connected_ms: Spread,
    pub first_packet_ms: Spread,
}

impl JoinReport {
    fn of(joins: &Joins) -> Self {
        Self {
            count: joins.connected_ns.count(),
            failed: joins.failed,
            connected_ms: Spread::of(&joins.connected_ns),
            first_packet_ms: Spread::of(&joins.first_packet_ns),
        }
    }
}

/// What the server's process used in the window.
#[derive(Debug, Clone, Serialize)]
pub struct ServerReport {
    pub ns_per_media_packet: Option<f64>,
    pub cpu_percent: f64,
    pub user_percent: f64,
    pub system_percent: f64,
    pub runs_per_second: f64,
    pub media_packets_per_core_second: Option<f64>,
    pub rss_kib: u64,
    /// Before the first join, and when the window began.
    pub rss_before_kib: u64,
    pub rss_window_start_kib: u64,
    pub rss_kib_per_participant: f64,
}

/// What the tool itself used in the window.
#[derive(Debug, Clone, Serialize)]
pub struct OwnReport {
    pub cpu_percent: f64,
    pub media_thread_percent: f64,
    pub ns_per_datagram: f64,
    pub late_ms_p99: f64,
    pub late_ms_max: f64,
    pub receive_buffer_errors: u64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub rooms: usize,
    pub participants: usize,
    pub connected: usize,
    pub seconds: f64,
    /// Of the whole run.
    pub joins: JoinReport,
    /// Of the window alone: churn.
    pub joins_in_window: JoinReport,
    pub left_in_window: u64,
    pub sent: u64,
    pub sent_video: u64,
    pub sent_audio: u64,
    pub sent_silent: u64,
    pub sent_pps: f64,
    pub received: u64,
    pub received_video: u64,
    pub received_audio: u64,
    pub received_silent: u64,
    pub received_pps: f64,
    pub video_delivery_ratio: Option<f64>,
    pub voice_delivery_ratio: Option<f64>,
    pub lost: u64,
    pub duplicates: u64,
    pub repaired: u64,
    pub padding: u64,
    pub strange: u64,
    pub send_errors: u64,
    pub latency_ms: Spread,
    pub audio_latency_ms: Spread,
    pub jitter_ms: f64,
    pub frames_complete: u64,
    pub frames_incomplete: u64,
    pub freezes: u64,
    pub frozen_s: f64,
    /// Of received packets: audio, then layers from the smallest.
    pub stream_shares: [f64; STREAMS],
    /// Slots that show a layer at the end.
    pub slots_by_layer: [u64; STREAMS],
    pub nacks_sent: u64,
    pub nacks_received: u64,
    pub resent: u64,
    pub plis_sent: u64,
    pub plis_received: u64,
    pub feedbacks_sent: u64,
    pub channel_messages: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub own: OwnReport,
    pub server: Option<ServerReport>,
    pub trouble: Option<String>,
}

/// What a report is made from.
pub struct Findings<'a> {
    pub plan: &'a Plan,
    pub churned: bool,
    pub connected: usize,
    pub seconds: f64,
    pub counts: &'a Counts,
    /// Of everything before the window.
    pub ramp: &'a Joins,
    pub shown: [u64; STREAMS],
    /// The tool at both ends of the window, and its media thread's time.
    pub own: (Usage, Usage),
    pub thread_ns: u64,
    pub buffer_errors: u64,
    /// The server before the first join, and at both ends of the window.
    pub server: Option<(Usage, Usage, Usage)>,
    pub trouble: Option<String>,
}

fn round(value: f64, places: i32) -> f64 {
    let factor = 10f64.powi(places);
    (value * factor).round() / factor
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| round(part / whole, 4))
}

impl Report {
    pub fn of(findings: &Findings<'_>) -> Self {
        let Findings { plan, counts, seconds, .. } = *findings;
        let mut joins = findings.ramp.clone();
        joins.add(&counts.joins);
        let whole = !findings.churned && joins.failed == 0;
        let voice_received = (counts.audio_received - counts.silent_received) as f64;
        let voice_sent = (counts.audio_sent - counts.silent_sent) as f64;
        let received = counts.received();
        let shares = counts.by_stream.map(|count| round(count as f64 / received.max(1) as f64, 4));
        Self {
            rooms: plan.rooms.len(),
            participants: plan.participants(),
            connected: findings.connected,
            seconds: round(seconds, 3),
            joins: JoinReport::of(&joins),
            joins_in_window: JoinReport::of(&counts.joins),
            left_in_window: counts.left,
            sent: counts.sent(),
            sent_video: counts.video_sent,
            sent_audio: counts.audio_sent,
            sent_silent: counts.silent_sent,
            sent_pps: round(counts.sent() as f64 / seconds, 1),
            received,
            received_video: counts.video_received,
            received_audio: counts.audio_received,
            received_silent: counts.silent_received,
            received_pps: round(received as f64 / seconds, 1),
            video_delivery_ratio: plan
                .video_copies()
                .filter(|_| whole)
                .and_then(|copies| ratio(counts.video_received as f64, counts.video_sent as f64 * copies)),
            voice_delivery_ratio: plan
                .voice_copies()
                .filter(|_| whole)
                .and_then(|copies| ratio(voice_received, voice_sent * copies)),
            lost: counts.lost,
            duplicates: counts.duplicates,
            repaired: counts.repaired,
            padding: counts.padding,
            strange: counts.strange,
            send_errors: counts.send_errors,
            latency_ms: Spread::of(&counts.latency_ns),
            audio_latency_ms: Spread::of(&counts.audio_latency_ns),
            jitter_ms: round(counts.jitter_ns.mean() / NS_PER_MS, 3),
            frames_complete: counts.frames_complete,
            frames_incomplete: counts.frames_incomplete,
            freezes: counts.freezes,
            frozen_s: round(counts.frozen_ns as f64 / 1e9, 3),
            stream_shares: shares,
            slots_by_layer: findings.shown,
            nacks_sent: counts.nacks_sent,
            nacks_received: counts.nacks_received,
            resent: counts.resent,
            plis_sent: counts.plis_sent,
            plis_received: counts.plis_received,
            feedbacks_sent: counts.feedbacks_sent,
            channel_messages: counts.channel_messages,
            datagrams_in: counts.datagrams_in,
            datagrams_out: counts.datagrams_out,
            own: OwnReport::of(findings),
            server: findings.server.map(|usage| ServerReport::of(usage, findings)),
            trouble: findings.trouble.clone(),
        }
    }

    /// Whether the run tells anything: everybody joined and something was received.
    pub fn is_good(&self) -> bool {
        self.joins.failed == 0 && self.connected > 0 && self.received > 0
    }
}

impl OwnReport {
    fn of(findings: &Findings<'_>) -> Self {
        let (before, after) = findings.own;
        let window_ns = findings.seconds * 1e9;
        let counts = findings.counts;
        let datagrams = (counts.datagrams_in + counts.datagrams_out).max(1);
        Self {
            cpu_percent: round((after.cpu_ns.saturating_sub(before.cpu_ns)) as f64 * 100.0 / window_ns, 1),
            media_thread_percent: round(findings.thread_ns as f64 * 100.0 / window_ns, 1),
            ns_per_datagram: round(findings.thread_ns as f64 / datagrams as f64, 0),
            late_ms_p99: round(counts.late_ns.percentile(99.0) as f64 / NS_PER_MS, 3),
            late_ms_max: round(counts.late_ns.max() as f64 / NS_PER_MS, 3),
            receive_buffer_errors: findings.buffer_errors,
        }
    }
}

impl ServerReport {
    fn of((first, before, after): (Usage, Usage, Usage), findings: &Findings<'_>) -> Self {
        let window_ns = findings.seconds * 1e9;
        let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns);
        let percent = |after: u64, before: u64| round(after.saturating_sub(before) as f64 * 100.0 / window_ns, 1);
        let received = findings.counts.received();
        let grown = after.resident_kib.saturating_sub(first.resident_kib) as f64;
        Self {
            ns_per_media_packet: (received > 0).then(|| round(cpu_ns as f64 / received as f64, 0)),
            cpu_percent: percent(after.cpu_ns, before.cpu_ns),
            user_percent: percent(after.user_ns, before.user_ns),
            system_percent: percent(after.system_ns, before.system_ns),
            runs_per_second: round(after.switches.saturating_sub(before.switches) as f64 / findings.seconds, 0),
            media_packets_per_core_second: (cpu_ns > 0).then(|| round(received as f64 * 1e9 / cpu_ns as f64, 0)),
            rss_kib: after.resident_kib,
            rss_before_kib: first.resident_kib,
            rss_window_start_kib: before.resident_kib,
            rss_kib_per_participant: round(grown / findings.connected.max(1) as f64, 1),
        }
    }
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<22} {value}");
    };
    let spread = |s: &Spread| format!("p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2} ms", s.p50, s.p90, s.p99, s.max);
    let join = |s: &Spread| format!("p50 {:.1}  p95 {:.1}  max {:.1} ms", s.p50, s.p95, s.max);
    let share = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.4}"));
    row("rooms, participants", format!("{}, {} ({} connected)", report.rooms, report.participants, report.connected));
    row("window", format!("{:.1} s", report.seconds));
    row("joins", format!("{}, failed {}", report.joins.count, report.joins.failed));
    row("  to connected", join(&report.joins.connected_ms));
    row("  to first packet", join(&report.joins.first_packet_ms));
    if report.joins_in_window.count > 0 {
        let joins = &report.joins_in_window;
        row("joins in the window", format!("{}, failed {}; left {}", joins.count, joins.failed, report.left_in_window));
        row("  to connected", join(&joins.connected_ms));
        row("  to first packet", join(&joins.first_packet_ms));
    }
    row("media sent", packets(report.sent_video, report.sent_audio, report.sent_pps));
    row("media received", packets(report.received_video, report.received_audio, report.received_pps));
    row(
        "delivered",
        format!("video {}, voice {}", share(report.video_delivery_ratio), share(report.voice_delivery_ratio)),
    );
    row(
        "lost, duplicate",
        format!(
            "{}, {} ({} repaired, {} padding, {} strange)",
            report.lost, report.duplicates, report.repaired, report.padding, report.strange
        ),
    );
    row("latency", spread(&report.latency_ms));
    row("  of audio", spread(&report.audio_latency_ms));
    row("jitter", format!("{:.2} ms", report.jitter_ms));
    row("frames", format!("{} whole, {} broken", report.frames_complete, report.frames_incomplete));
    row("freezes", format!("{}, {:.1} s (longer than 200 ms and 3 frames)", report.freezes, report.frozen_s));
    let [_, low, middle, high] = report.slots_by_layer;
    row("slots by layer", format!("{low} small, {middle} middle, {high} large"));
    row(
        "NACKs",
        format!("sent {}, received {} ({} packets resent)", report.nacks_sent, report.nacks_received, report.resent),
    );
    row("PLIs", format!("sent {}, received {}", report.plis_sent, report.plis_received));
    cost_rows(report, &mut row);
    if let Some(trouble) = &report.trouble {
        row("trouble", trouble.clone());
    }
    text
}

/// What the tool and the server used.
fn cost_rows(report: &Report, row: &mut impl FnMut(&str, String)) {
    let own = &report.own;
    row(
        "this tool",
        format!(
            "{:.1} % of a core, {:.0} ns per datagram, turns late p99 {:.2} ms",
            own.cpu_percent, own.ns_per_datagram, own.late_ms_p99
        ),
    );
    if own.receive_buffer_errors + report.send_errors > 0 {
        row(
            "  not carried",
            format!(
                "{} receive buffer errors (whole machine), {} send errors",
                own.receive_buffer_errors, report.send_errors
            ),
        );
    }
    if let Some(server) = &report.server {
        row("server", format!("{:.0} ns per media packet received", server.ns_per_media_packet.unwrap_or(0.0)));
        row(
            "  CPU",
            format!(
                "{:.1} % of a core (user {:.1} + system {:.1}), {:.0} runs/s",
                server.cpu_percent, server.user_percent, server.system_percent, server.runs_per_second
            ),
        );
        row("  memory", format!("{} KiB, {:.1} KiB per participant", server.rss_kib, server.rss_kib_per_participant));
    }
}

fn packets(video: u64, audio: u64, pps: f64) -> String {
    format!("{} ({video} video, {audio} audio), {pps:.0}/s", video + audio)
}
