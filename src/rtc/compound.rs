//! Cuts the RTCP that waits for one client into compound packets (RFC 3550 §6.1).
//!
//! Each begins with a report and the reporter's name, for answers do not agree on reduced-size RTCP (RFC 5506).

use crate::rtp::rtcp;

/// A compound holds no more plaintext than this, bytes, so that it fits any path.
pub const BYTES_MAX: usize = 1000;

/// Appends a compound of the first packets that wait. Returns how many bytes of them are in it.
pub fn write(waiting: &[u8], cname: &str, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    if let Some(reporter) = rtcp::packets(waiting).next().filter(|first| !rtcp::is_report(first)).map(rtcp::sender) {
        rtcp::receiver_report(out, reporter, &[]);
        rtcp::source_description(out, reporter, cname);
    }
    let taken = fitting(waiting, BYTES_MAX.saturating_sub(out.len() - start));
    out.extend_from_slice(&waiting[..taken]);
    taken
}

/// The bytes of as many whole packets as there is room for. A name stays behind its report.
fn fitting(waiting: &[u8], room: usize) -> usize {
    let (mut end, mut taken) = (0, 0);
    for packet in rtcp::packets(waiting) {
        if !rtcp::is_source_description(packet) {
            taken = end;
        }
        end += packet.len();
        if end > room {
            // One packet always fits; should it not, it is better sent than kept for ever.
            return if taken > 0 { taken } else { end };
        }
    }
    waiting.len()
}
