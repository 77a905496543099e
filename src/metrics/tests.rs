//! What the registry renders.

use super::*;
use crate::command::{SessionUsage, Transport};
use crate::ids::{CallId, ParticipantId, RoomId};
use crate::media::meter::Switches;

const ROUTES: [(&str, &[&str]); 2] = [("/v1/rooms", &["GET", "POST"]), ("unmatched", &["other"])];

/// Every label a metric may have, with its values; a number stands for a shard's index.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("quota", &[]),
    ("class", &RETENTION_CLASSES),
    ("transport", &["udp", "tcp"]),
    ("kind", &["audio", "video"]),
    ("direction", &["in", "out", "up", "down"]),
    ("family", &["ipv4", "ipv6"]),
    ("purpose", &["repair", "probe"]),
    ("result", &[]),
    ("reason", &[]),
    ("route", &["/v1/rooms", "unmatched"]),
    ("method", &["GET", "POST", "other"]),
    ("status_class", &STATUS_CLASSES),
    ("shard", &["0", "1"]),
    ("version", &[env!("CARGO_PKG_VERSION")]),
];

fn words(label: &str) -> Vec<&'static str> {
    let allowed = ALLOWED.iter().find(|(name, _)| *name == label).unwrap_or_else(|| panic!("label {label}"));
    let mut words = allowed.1.to_vec();
    match label {
        "quota" => words.extend(Quota::ALL.map(Quota::as_str)),
        "result" => {
            words.extend(JoinResult::ALL.map(JoinResult::as_str));
            words.extend(["passed", "queue_full"]);
        }
        "reason" => {
            words.extend(EndReason::ALL.map(EndReason::as_str));
            words.extend(DropReason::ALL.map(DropReason::as_str));
        }
        _ => {}
    }
    words
}

#[test]
fn labels_are_closed_sets_and_begin_at_zero() {
    let text = Metrics::new(&ROUTES).render(
        &[ShardSnapshot::default(); 2],
        &LedgerSnapshot::default(),
        &TlsSnapshot::default(),
        Instant::now(),
    );
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let mut seen = 0;
    for line in samples.filter(|line| !line.starts_with("process_")) {
        assert!(line.starts_with("stube_"), "{line}");
        let (series, value) = line.rsplit_once(' ').expect(line);
        let is_zero = value == "0" || series.starts_with("stube_build_info");
        assert!(is_zero, "{line}");
        let Some((_, labels)) = series.split_once('{') else { continue };
        for label in labels.trim_end_matches('}').split(',') {
            let (name, value) = label.split_once('=').expect(line);
            let value = value.trim_matches('"');
            assert!(name == "le" || words(name).contains(&value), "{line}");
            seen += 1;
        }
    }
    assert!(seen > 50);
    for metric in ["stube_packets_dropped_total{reason=\"other_layer\"} 0", "stube_joins_total{result=\"room_full\"} 0"]
    {
        assert!(text.contains(metric), "{metric}");
    }
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn shards_are_summed_and_buckets_cumulate() {
    let mut shard = ShardSnapshot { busy_permille: 250, ..ShardSnapshot::default() };
    shard.engine.rooms = 2;
    shard.engine.rtp_out.video.bytes = 1_000;
    shard.latency_buckets[0] = 3;
    shard.latency_buckets[LATENCY_BOUNDS_SECONDS.len()] = 1;
    shard.latency_sum_ns = 500_000_000;
    shard.engine.quality.switches = Switches { up: 4, down: 1 };
    shard.engine.quality.freezes = 2;
    shard.engine.quality.keyframe_waits.observe(150_000, &KEYFRAME_WAIT_BOUNDS_US);
    shard.engine.subscribers_limited = 3;
    shard.engine.retransmissions_wanted = 5;
    shard.engine.rtx_out.packets = 4;
    shard.engine.samples.estimates_bps.observe(1_500_000, &ESTIMATE_BOUNDS_BPS);
    shard.engine.samples.round_trips_us.observe(30_000, &ROUND_TRIP_BOUNDS_US);
    shard.engine.samples.losses_ppm.observe(0, &LOSS_BOUNDS_PPM);
    shard.engine.samples.losses_ppm.observe(250_000, &LOSS_BOUNDS_PPM);
    let text = Metrics::new(&ROUTES).render(
        &[shard, shard],
        &LedgerSnapshot::default(),
        &TlsSnapshot::default(),
        Instant::now(),
    );
    for line in [
        "stube_rooms 4",
        "stube_rtp_bytes_total{direction=\"out\",kind=\"video\"} 2000",
        "stube_forward_latency_seconds_bucket{le=\"0.05\"} 6",
        "stube_forward_latency_seconds_bucket{le=\"+Inf\"} 8",
        "stube_forward_latency_seconds_count 8",
        "stube_forward_latency_seconds_sum 1",
        "stube_shard_busy_ratio{shard=\"1\"} 0.25",
        "stube_layer_switches_total{direction=\"up\"} 8",
        "stube_layer_switches_total{direction=\"down\"} 2",
        "stube_freezes_total 4",
        "stube_keyframe_wait_seconds_bucket{le=\"0.1\"} 0",
        "stube_keyframe_wait_seconds_bucket{le=\"0.2\"} 2",
        "stube_keyframe_wait_seconds_sum 0.3",
        "stube_subscribers_limited 6",
        "stube_retransmissions_wanted_total 10",
        "stube_rtx_packets_total{purpose=\"repair\"} 8",
        "stube_subscriber_estimate_bits_per_second_bucket{le=\"1000000\"} 0",
        "stube_subscriber_estimate_bits_per_second_bucket{le=\"2000000\"} 2",
        "stube_subscriber_round_trip_seconds_bucket{le=\"0.05\"} 2",
        "stube_subscriber_loss_ratio_bucket{le=\"0\"} 2",
        "stube_subscriber_loss_ratio_bucket{le=\"0.2\"} 2",
        "stube_subscriber_loss_ratio_bucket{le=\"0.5\"} 4",
        "stube_subscriber_loss_ratio_sum 0.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn connected_time_counts_running_and_ended_sessions() {
    let metrics = Metrics::new(&ROUTES);
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let room = RoomId::from_bits(1);
    let participant = ParticipantId::from_bits(2);
    for bits in [3, 4] {
        let session = SessionId::from_bits(bits);
        let transport = Transport::Udp;
        let took = Some(second / 5);
        metrics.count_notice(&Notice::ParticipantJoined { room, participant, session, at: start, took, transport });
    }
    let ended = |session, joined_at, reason| {
        let at = start + 4 * second;
        metrics.count_notice(&Notice::SessionEnded {
            room,
            participant,
            session,
            reason,
            joined_at,
            usage: SessionUsage::default(),
            at,
        });
    };
    ended(SessionId::from_bits(3), Some(start), EndReason::ClientLeft);
    ended(SessionId::from_bits(5), None, EndReason::ConnectTimeout);
    ended(SessionId::from_bits(6), None, EndReason::DuplicateIdentity);
    let call = CallId::from_bits(7);
    metrics.count_notice(&Notice::CallEnded { room, call, started_at: start, reason: None, at: start + 20 * second });
    let text = metrics.render(&[], &LedgerSnapshot::default(), &TlsSnapshot::default(), start + 10 * second);
    for line in [
        "stube_participant_seconds_total 14",
        "stube_joins_total{result=\"connected\"} 2",
        "stube_joins_total{result=\"connect_timeout\"} 1",
        "stube_joins_total{result=\"abandoned\"} 1",
        "stube_sessions_ended_total{reason=\"client_left\"} 1",
        "stube_join_duration_seconds_bucket{le=\"0.2\"} 2",
        "stube_call_duration_seconds_bucket{le=\"10\"} 0",
        "stube_call_duration_seconds_bucket{le=\"30\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
