//! Feedback about packets that left together, told as one.

use goog_cc::transport::{PacedPacketInfo, PacketResult};

/// Received, and no part of a probe.
pub fn is_ordinary(result: &PacketResult) -> bool {
    result.receive_time.is_finite() && result.sent_packet.pacing_info.probe_cluster_id == PacedPacketInfo::NOT_APROBE
}

/// Makes one of packets that left in one burst, which GoogCC would do itself: what was sent within 5 ms is one to its
/// trend line, and throughput is a sum. It copies and sorts what it is given several times. Not for packets that are
/// lost or probe: their number matters.
pub fn join_bursts(results: &mut Vec<PacketResult>) {
    results.dedup_by(|next, burst| {
        let joined = next.sent_packet.send_time == burst.sent_packet.send_time;
        if joined {
            burst.sent_packet.size += next.sent_packet.size;
            burst.sent_packet.sequence_number = next.sent_packet.sequence_number;
            burst.sent_packet.audio &= next.sent_packet.audio;
            burst.receive_time = burst.receive_time.max(next.receive_time);
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use goog_cc::transport::SentPacket;
    use goog_cc::units::{DataSize, Timestamp};

    use super::*;

    fn result(sent_ms: i64, arrived_ms: i64, bytes: i64) -> PacketResult {
        let (send_time, size) = (Timestamp::from_millis(sent_ms), DataSize::from_bytes(bytes));
        let sent_packet = SentPacket { send_time, size, ..Default::default() };
        PacketResult { sent_packet, receive_time: Timestamp::from_millis(arrived_ms), ..Default::default() }
    }

    #[test]
    fn what_left_at_once_is_one() {
        let mut results = vec![result(10, 30, 100), result(10, 32, 200), result(10, 31, 300), result(11, 33, 400)];
        join_bursts(&mut results);
        let told: Vec<_> = results
            .iter()
            .map(|r| (r.sent_packet.send_time.ms(), r.receive_time.ms(), r.sent_packet.size.bytes()))
            .collect();
        assert_eq!(told, [(10, 32, 600), (11, 33, 400)]);
    }

    #[test]
    fn the_lost_and_probes_are_not_ordinary() {
        assert!(is_ordinary(&result(1, 2, 3)));
        assert!(!is_ordinary(&PacketResult { receive_time: Timestamp::plus_infinity(), ..result(1, 2, 3) }));
        let mut probe = result(1, 2, 3);
        probe.sent_packet.pacing_info = PacedPacketInfo::new(7, 5, 5000);
        assert!(!is_ordinary(&probe));
    }
}
