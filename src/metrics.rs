//! The Prometheus registry: names, help texts, closed label sets. Labels never carry ids, names or addresses.
//!
//! What shards count arrives as absolute values in [`ShardSnapshot`]s and is rendered from them on each scrape; what
//! control sees (HTTP requests, [`Notice`]s) is counted here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder};

use crate::command::{EndReason, MediaKind, Notice};
use crate::config::Quota;
use crate::ids::SessionId;
use crate::media::meter::{DropReason, KEYFRAME_WAIT_BOUNDS_US, PerKind, Quality, Spread, Volume};
use crate::rtc::{ESTIMATE_BOUNDS_BPS, LOSS_BOUNDS_PPM, ROUND_TRIP_BOUNDS_US, Samples, Stats};

mod join;
mod ledger;
mod tls;

pub use join::JoinResult;
pub use ledger::LedgerSnapshot;
pub use tls::TlsSnapshot;

/// Upper bounds of the forward-latency buckets, in seconds: 50 µs to 50 ms.
pub const LATENCY_BOUNDS_SECONDS: [f64; 10] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];

/// Upper bounds of the join-duration buckets, in seconds; the last is the default connect timeout.
const JOIN_BOUNDS_SECONDS: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];

/// Upper bounds of the call-duration buckets, in seconds: ten seconds in a bubble to a day.
const CALL_BOUNDS_SECONDS: [f64; 9] = [10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0];

/// What is kept for a limited time: values of the label `class`.
pub const RETENTION_CLASSES: [&str; 6] = ["record", "call", "full_address", "sum", "event", "audit"];

/// Values of the label `status_class`.
const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// One shard's counters, as absolute values since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardSnapshot {
    pub engine: Stats,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Datagrams the kernel or a full queue did not take.
    pub send_errors: u64,
    /// Datagrams of sessions that were moved which found the way to their shard full.
    pub relay_overflows: u64,
    /// Notices lost because control did not keep up.
    pub notices_lost: u64,
    /// Socket in to socket out of forwarded RTP; one count a bucket of [`LATENCY_BOUNDS_SECONDS`], then one above all.
    pub latency_buckets: [u64; LATENCY_BOUNDS_SECONDS.len() + 1],
    pub latency_sum_ns: u64,
    /// Time the thread worked, not slept, since its start.
    pub busy_ns: u64,
    /// Share of the last second it worked, in thousandths.
    pub busy_permille: u64,
    /// It has had more to do than it can for seconds.
    pub saturated: bool,
}

/// What control counts, and the place where everything is rendered.
pub struct Metrics {
    registry: Registry,
    joins: IntCounterVec,
    sessions_ended: IntCounterVec,
    requests: IntCounterVec,
    quota_rejections: IntCounterVec,
    retention_deleted: IntCounterVec,
    join_duration: prometheus::Histogram,
    call_duration: prometheus::Histogram,
    connected: Mutex<ConnectedTime>,
    /// Made once: it would find another start time after the machine's clock was set.
    process: ProcessCollector,
}

/// Participants' time: what ended sessions had, and since when the others are connected.
#[derive(Default)]
struct ConnectedTime {
    ended: Duration,
    since: BTreeMap<SessionId, Instant>,
}

impl ConnectedTime {
    fn total(&self, now: Instant) -> Duration {
        self.ended + self.since.values().map(|since| now.saturating_duration_since(*since)).sum::<Duration>()
    }
}

impl Metrics {
    /// Every series at zero. `routes` are the route templates and methods the HTTP listener answers.
    pub fn new(routes: &[(&str, &[&str])]) -> Self {
        let registry = Registry::new();
        let vec = |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let own_histogram = |name, help, bounds: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            register(&registry, prometheus::Histogram::with_opts(options))
        };
        let metrics = Self {
            joins: vec("stube_joins_total", "Joins by how they ended.", &["result"]),
            sessions_ended: vec("stube_sessions_ended_total", "Sessions ended, by reason.", &["reason"]),
            requests: vec(
                "stube_http_requests_total",
                "HTTP requests answered, by route template.",
                &["route", "method", "status_class"],
            ),
            quota_rejections: vec(
                "stube_quota_rejections_total",
                "Allocations, joins and moves refused because a quota is used up.",
                &["quota"],
            ),
            retention_deleted: vec(
                "stube_retention_deleted_rows_total",
                "Rows deleted because their time was up.",
                &["class"],
            ),
            join_duration: own_histogram(
                "stube_join_duration_seconds",
                "From the join request to connected media.",
                &JOIN_BOUNDS_SECONDS,
            ),
            call_duration: own_histogram(
                "stube_call_duration_seconds",
                "From a call's first join to its last leave.",
                &CALL_BOUNDS_SECONDS,
            ),
            connected: Mutex::default(),
            process: ProcessCollector::for_self(),
            registry,
        };
        for result in JoinResult::ALL {
            metrics.joins.with_label_values(&[result.as_str()]);
        }
        for reason in EndReason::ALL {
            metrics.sessions_ended.with_label_values(&[reason.as_str()]);
        }
        for quota in Quota::ALL {
            metrics.quota_rejections.with_label_values(&[quota.as_str()]);
        }
        for class in RETENTION_CLASSES {
            metrics.retention_deleted.with_label_values(&[class]);
        }
        for (route, methods) in routes {
            for method in *methods {
                for class in STATUS_CLASSES {
                    metrics.requests.with_label_values(&[*route, *method, class]);
                }
            }
        }
        metrics
    }

    /// Counts one HTTP request. `route` and `method` come from closed sets.
    pub fn count_request(&self, route: &str, method: &str, status: u16) {
        let class = STATUS_CLASSES[usize::from(status / 100).saturating_sub(2).min(STATUS_CLASSES.len() - 1)];
        self.requests.with_label_values(&[route, method, class]).inc();
    }

    /// Counts one join that ended this way.
    pub fn count_join(&self, result: JoinResult) {
        self.joins.with_label_values(&[result.as_str()]).inc();
    }

    /// Counts something that a quota did not allow.
    pub fn count_quota_rejection(&self, quota: Quota) {
        self.quota_rejections.with_label_values(&[quota.as_str()]).inc();
    }

    /// Counts what a sweep deleted, in the order of [`RETENTION_CLASSES`].
    pub fn count_sweep(&self, deleted: [u64; RETENTION_CLASSES.len()]) {
        for (class, rows) in RETENTION_CLASSES.into_iter().zip(deleted) {
            self.retention_deleted.with_label_values(&[class]).inc_by(rows);
        }
    }

    /// Counts what a shard tells.
    pub fn count_notice(&self, notice: &Notice) {
        match notice {
            Notice::ParticipantJoined { session, at, took, .. } => {
                if let Some(took) = took {
                    self.count_join(JoinResult::Connected);
                    self.join_duration.observe(took.as_secs_f64());
                }
                self.connected().since.insert(*session, *at);
            }
            Notice::SessionEnded { session, reason, joined_at, at, .. } => {
                self.sessions_ended.with_label_values(&[reason.as_str()]).inc();
                match joined_at {
                    Some(joined_at) => {
                        let mut connected = self.connected();
                        connected.since.remove(session);
                        connected.ended += at.saturating_duration_since(*joined_at);
                    }
                    None if *reason == EndReason::ConnectTimeout => self.count_join(JoinResult::ConnectTimeout),
                    None if *reason == EndReason::InternalError => self.count_join(JoinResult::Internal),
                    None => self.count_join(JoinResult::Abandoned),
                }
            }
            Notice::SessionMoved { session, joined_at: Some(joined_at), at, .. } => {
                let mut connected = self.connected();
                connected.since.remove(session);
                connected.ended += at.saturating_duration_since(*joined_at);
            }
            Notice::CallEnded { started_at, at, .. } => {
                self.call_duration.observe(at.saturating_duration_since(*started_at).as_secs_f64());
            }
            Notice::CallStarted { .. }
            | Notice::RoomFinished { .. }
            | Notice::SessionMoved { .. }
            | Notice::TrackPublished { .. }
            | Notice::TrackUnpublished { .. } => {}
        }
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self, shards: &[ShardSnapshot], ledger: &LedgerSnapshot, tls: &TlsSnapshot, now: Instant) -> String {
        let mut families = self.registry.gather();
        let ours = [ledger::families(ledger), tls::families(tls), shard_families(shards), move_families(shards)];
        families.extend(ours.into_iter().flatten().chain(quality_families(shards)));
        families.extend(self.process.collect());
        let seconds = self.connected().total(now).as_secs_f64();
        families.push(counter(
            "stube_participant_seconds_total",
            "Time participants were connected.",
            vec![(vec![], seconds)],
        ));
        families.push(gauge(
            "stube_build_info",
            "The version that runs.",
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        ));
        // The encoder refuses a family without samples, as those by shard are before a shard runs.
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn connected(&self) -> std::sync::MutexGuard<'_, ConnectedTime> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers a collector.
fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    // Names, labels and buckets are constants of this file, each registered once; a test builds them all.
    let collector = collector.expect("valid metric");
    // As above.
    registry.register(Box::new(collector.clone())).expect("metric registered once");
    collector
}

type Labels = Vec<(&'static str, String)>;
type Count = fn(&ShardSnapshot) -> u64;

/// One sample a value of a closed label set.
fn by<T: Copy>(
    label: &'static str,
    values: impl IntoIterator<Item = (T, &'static str)>,
    count: impl Fn(T) -> u64,
) -> Vec<(Labels, f64)> {
    values.into_iter().map(|(value, word)| (vec![(label, word.to_owned())], count(value) as f64)).collect()
}

const KINDS: [(MediaKind, &str); 2] = [(MediaKind::Audio, "audio"), (MediaKind::Video, "video")];

/// Samples with the labels `direction` and `kind`.
fn by_direction_and_kind<T>(
    shards: &[ShardSnapshot],
    directions: [fn(&Stats) -> &PerKind<T>; 2],
    count: fn(&T) -> u64,
) -> Vec<(Labels, f64)> {
    let mut samples = Vec::new();
    for (direction, read) in ["in", "out"].into_iter().zip(directions) {
        for (kind, word) in KINDS {
            let total: u64 = shards.iter().map(|shard| count(read(&shard.engine).of(kind))).sum();
            let labels = vec![("direction", direction.to_owned()), ("kind", word.to_owned())];
            samples.push((labels, total as f64));
        }
    }
    samples
}

/// What the shards count, summed over them except where a shard's own value matters.
fn shard_families(shards: &[ShardSnapshot]) -> Vec<MetricFamily> {
    let sum = |count: fn(&ShardSnapshot) -> u64| shards.iter().map(count).sum::<u64>();
    let total = |count| vec![(vec![], sum(count) as f64)];
    let each = |value: fn(&ShardSnapshot) -> f64| {
        let number = |(index, shard)| (vec![("shard", usize::to_string(&index))], value(shard));
        shards.iter().enumerate().map(number).collect::<Vec<_>>()
    };
    let transports: [(Count, _); 2] = [(|s| s.engine.sessions_udp, "udp"), (|s| s.engine.sessions_tcp, "tcp")];
    let addresses: [(Count, _); 2] = [(|s| s.engine.addresses_ipv4, "ipv4"), (|s| s.engine.addresses_ipv6, "ipv6")];
    let datagrams: [(Count, _); 2] = [(|s| s.datagrams_in, "in"), (|s| s.datagrams_out, "out")];
    let keyframes: [(Count, _); 2] =
        [(|s| s.engine.keyframe_requests_in, "in"), (|s| s.engine.keyframe_requests_out, "out")];
    let rtx_packets: [(Count, _); 2] =
        [(|s| s.engine.rtx_out.packets, "repair"), (|s| s.engine.padding_out.packets, "probe")];
    let rtx_bytes: [(Count, _); 2] =
        [(|s| s.engine.rtx_out.bytes, "repair"), (|s| s.engine.padding_out.bytes, "probe")];
    let drops = DropReason::ALL.map(|reason| (reason, reason.as_str()));
    let dropped = |reason| shards.iter().map(|shard| shard.engine.drops.of(reason)).sum();
    let tracks: [fn(&Stats) -> &PerKind<u64>; 2] = [|s| &s.tracks_published, |s| &s.tracks_subscribed];
    let rtp: [fn(&Stats) -> &PerKind<Volume>; 2] = [|s| &s.rtp_in, |s| &s.rtp_out];
    vec![
        gauge("stube_rooms", "Rooms that exist.", total(|s| s.engine.rooms)),
        gauge("stube_participants", "Participants in rooms.", total(|s| s.engine.participants)),
        gauge("stube_sessions", "Sessions with connected media, by transport.", by("transport", transports, sum)),
        gauge("stube_sessions_connecting", "Sessions not yet connected.", total(|s| s.engine.sessions_connecting)),
        gauge("stube_addresses", "Distinct client addresses now.", by("family", addresses, sum)),
        gauge(
            "stube_tracks",
            "Tracks received (in) and forwarded (out).",
            by_direction_and_kind(shards, tracks, |count| *count),
        ),
        counter("stube_rtp_packets_total", "RTP packets.", by_direction_and_kind(shards, rtp, |v| v.packets)),
        counter("stube_rtp_bytes_total", "RTP payload bytes.", by_direction_and_kind(shards, rtp, |v| v.bytes)),
        counter("stube_packets_dropped_total", "Packets not forwarded, by reason.", by("reason", drops, dropped)),
        counter("stube_keyframe_requests_total", "Keyframe requests heard and sent.", by("direction", keyframes, sum)),
        counter(
            "stube_retransmissions_wanted_total",
            "Packets subscribers asked for again.",
            total(|s| s.engine.retransmissions_wanted),
        ),
        counter("stube_rtx_packets_total", "RTX packets sent, by purpose.", by("purpose", rtx_packets, sum)),
        counter("stube_rtx_bytes_total", "Their payload bytes.", by("purpose", rtx_bytes, sum)),
        gauge("stube_packets_waiting", "Copies held back by pacers now.", total(|s| s.engine.copies_waiting)),
        counter("stube_datagrams_total", "Datagrams on the media sockets.", by("direction", datagrams, sum)),
        counter("stube_send_errors_total", "Datagrams the kernel did not take.", total(|s| s.send_errors)),
        counter("stube_notices_lost_total", "Notices control was too slow for.", total(|s| s.notices_lost)),
        gauge(
            "stube_shard_busy_ratio",
            "Share of the last second a shard worked.",
            each(|s| s.busy_permille as f64 / 1e3),
        ),
        gauge(
            "stube_shard_saturated",
            "1 while a shard has had more to do than its core can for seconds.",
            each(|s| f64::from(u8::from(s.saturated))),
        ),
        counter("stube_shard_busy_seconds_total", "Time a shard worked.", each(|s| s.busy_ns as f64 / 1e9)),
        latency(shards),
    ]
}

/// Sessions that were moved between shards.
fn move_families(shards: &[ShardSnapshot]) -> Vec<MetricFamily> {
    let sum = |count: fn(&ShardSnapshot) -> u64| shards.iter().map(count).sum::<u64>();
    let relayed: [(Count, _); 2] = [
        (|s| s.engine.datagrams_relayed.saturating_sub(s.relay_overflows), "passed"),
        (|s| s.relay_overflows, "queue_full"),
    ];
    vec![
        gauge(
            "stube_sessions_away",
            "Sessions on another shard than the one their clients send to.",
            vec![(vec![], sum(|s| s.engine.sessions_away) as f64)],
        ),
        counter(
            "stube_relayed_datagrams_total",
            "Datagrams of moved sessions passed from shard to shard.",
            by("result", relayed, sum),
        ),
    ]
}

fn latency(shards: &[ShardSnapshot]) -> MetricFamily {
    let mut spread = Spread::<{ LATENCY_BOUNDS_SECONDS.len() + 1 }>::default();
    for shard in shards {
        spread.merge(&Spread { buckets: shard.latency_buckets, sum: shard.latency_sum_ns });
    }
    let sum = spread.sum as f64 / 1e9;
    histogram("stube_forward_latency_seconds", "Socket in to socket out.", LATENCY_BOUNDS_SECONDS, &spread.buckets, sum)
}

/// What viewers notice, and what the feedback of subscribers tells.
fn quality_families(shards: &[ShardSnapshot]) -> Vec<MetricFamily> {
    let sum = |count: fn(&ShardSnapshot) -> u64| shards.iter().map(count).sum::<u64>();
    let total = |count| vec![(vec![], sum(count) as f64)];
    let switches: [(Count, _); 2] =
        [(|s| s.engine.quality.switches.up, "up"), (|s| s.engine.quality.switches.down, "down")];
    let (mut quality, mut samples) = (Quality::default(), Samples::default());
    for Stats { quality: other, samples: more, .. } in shards.iter().map(|shard| &shard.engine) {
        quality.merge(other);
        samples.merge(more);
    }
    vec![
        counter(
            "stube_layer_switches_total",
            "Changes of the encoding or spatial layer that flowed to a subscriber.",
            by("direction", switches, sum),
        ),
        counter("stube_freezes_total", "Pictures that waited for a keyframe.", total(|s| s.engine.quality.freezes)),
        gauge(
            "stube_subscribers_limited",
            "Participants that get less than they wish for because of their networks.",
            total(|s| s.engine.subscribers_limited),
        ),
        spread(
            "stube_keyframe_wait_seconds",
            "From the first wish for a keyframe of an encoding until it came.",
            (&quality.keyframe_waits, &KEYFRAME_WAIT_BOUNDS_US, 1e6),
        ),
        spread(
            "stube_subscriber_estimate_bits_per_second",
            "What networks of subscribers take; one sample a session and second.",
            (&samples.estimates_bps, &ESTIMATE_BOUNDS_BPS, 1.0),
        ),
        spread(
            "stube_subscriber_round_trip_seconds",
            "Round trips to subscribers; one sample a session and second.",
            (&samples.round_trips_us, &ROUND_TRIP_BOUNDS_US, 1e6),
        ),
        spread(
            "stube_subscriber_loss_ratio",
            "Share of packets lost on the way to subscribers; one sample a session and second.",
            (&samples.losses_ppm, &LOSS_BOUNDS_PPM, 1e6),
        ),
    ]
}

/// A histogram of whole numbers, so many of which are one of the metric's unit.
fn spread<const BUCKETS: usize>(
    name: &str,
    help: &str,
    (spread, bounds, unit): (&Spread<BUCKETS>, &[u64], f64),
) -> MetricFamily {
    let bounds = bounds.iter().map(|bound| *bound as f64 / unit);
    histogram(name, help, bounds, &spread.buckets, spread.sum as f64 / unit)
}

/// A histogram of counts by bucket, the last of which is above all bounds.
fn histogram(name: &str, help: &str, bounds: impl IntoIterator<Item = f64>, counts: &[u64], sum: f64) -> MetricFamily {
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (bound, count) in bounds.into_iter().zip(counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    family(name, help, MetricType::HISTOGRAM, vec![metric])
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: Labels) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    });
    Metric::from_label(pairs.collect())
}

fn gauge(name: &str, help: &str, samples: Vec<(Labels, f64)>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        metric
    };
    family(name, help, MetricType::GAUGE, samples.into_iter().map(metric).collect())
}

fn counter(name: &str, help: &str, samples: Vec<(Labels, f64)>) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, samples.into_iter().map(metric).collect())
}

#[cfg(test)]
mod tests;
