//! When what a slot receives was captured, by the server's sender reports: players keep sound and picture in step by
//! nothing else (RFC 3550 §6.4.1).

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use str0m::media::MediaKind;
use str0m::rtp::RtpPacket;

use crate::source::{AUDIO_FRAME, VIDEO_FRAME};
use crate::stamp::{Stamp, TrackKey};
use crate::world::World;

/// How far sound and picture of one publisher may be dated apart; people notice 45 ms (ITU-R BT.1359). The server
/// learns a publisher's clock from reports that take their time on the way, and each slot's next report tells it.
const TOLERANCE: Duration = Duration::from_millis(15);
/// Only what was dated at about one time compares.
const TOGETHER: Duration = Duration::from_secs(2);

/// A slot's packets by their own frame numbers and by the reports: when did each track begin?
#[derive(Debug, Default)]
pub struct Dating {
    tracks: BTreeMap<TrackKey, Beginning>,
    shown: Option<TrackKey>,
    /// The last report on what the slot showed before.
    stale: Option<SystemTime>,
}

/// When the first frame of a track was captured, by the last packet of it, and when that came.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    at: SystemTime,
    told: Instant,
}

impl Dating {
    /// A packet has come.
    pub fn note(&mut self, packet: &RtpPacket, stamp: &Stamp, kind: MediaKind, now: Instant) {
        let Some(report) = packet.last_sender_info else { return };
        if self.shown.replace(stamp.track) != Some(stamp.track) {
            self.stale = Some(report.ntp_time);
        }
        if self.stale == Some(report.ntp_time) {
            return;
        }
        let ticks = packet.header.timestamp.wrapping_sub(report.rtp_time.numer() as u32).cast_signed();
        let (ticks_a_second, frame_time) = match kind {
            MediaKind::Audio => (48_000, AUDIO_FRAME),
            MediaKind::Video => (90_000, VIDEO_FRAME),
        };
        let away = Duration::from_micros(u64::from(ticks.unsigned_abs()) * 1_000_000 / ticks_a_second);
        let captured = if ticks < 0 { report.ntp_time - away } else { report.ntp_time + away };
        self.tracks.insert(stamp.track, Beginning { at: captured - frame_time * stamp.frame, told: now });
    }
}

/// Whoever sees and hears somebody is told that both were captured when they were, whatever way they took and whatever
/// the slot showed before. Returns how many pairs were compared.
pub fn check_dating(world: &mut World) -> usize {
    let mut pairs = 0;
    for member in &world.members {
        let mut of_publisher: BTreeMap<usize, Vec<(TrackKey, Beginning)>> = BTreeMap::new();
        for (track, beginning) in member.client.slots.iter().flat_map(|slot| &slot.dating.tracks) {
            of_publisher.entry(track.client).or_default().push((*track, *beginning));
        }
        for tracks in of_publisher.values() {
            for ((one, first), (other, second)) in tracks.iter().zip(tracks.iter().skip(1)) {
                let between = first.told.max(second.told) - first.told.min(second.told);
                if between > TOGETHER {
                    continue;
                }
                pairs += 1;
                let apart = first.at.duration_since(second.at).unwrap_or_else(|early| early.duration());
                if apart > TOLERANCE {
                    let what = format!("reports date {one:?} and {other:?} {apart:?} apart");
                    world.faults.about(member.name()).add(what);
                }
            }
        }
    }
    pairs
}
