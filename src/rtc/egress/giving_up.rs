//! What waits and is not sent after all: of a slot that shows something else, of an encoding that was left, or too much.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::Stats;
use super::super::out_stream::{OutStream, Purpose, Queued};
use super::super::store::RingKey;
use super::{Egress, Queue};
use crate::command::MediaKind;
use crate::media::meter::DropReason;

/// Drops what does not stay, and counts the media among it.
fn sift(queue: &mut VecDeque<Queued>, stats: &mut Stats, stays: impl Fn(&Queued) -> bool) {
    queue.retain(|queued| {
        let stays = stays(queued);
        if !stays && queued.purpose == Purpose::Media {
            stats.drops.count(DropReason::SlotChanged);
        }
        stays
    });
}

impl Egress {
    /// Drops what waits for a slot.
    pub fn discard(&mut self, slot: usize, stats: &mut Stats) {
        for queue in [&mut self.audio, &mut self.video, &mut self.held] {
            sift(queue, stats, |queued| usize::from(queued.slot) != slot);
        }
        self.settle_held();
    }

    /// A slot goes on with another encoding, from its keyframe on. What the pacer still holds of the one before would
    /// only delay it; on a link that has collapsed, until it is given up itself.
    pub(super) fn leave_behind(&mut self, slot: usize, ring: RingKey, stats: &mut Stats) {
        sift(&mut self.held, stats, |queued| usize::from(queued.slot) != slot || queued.packet.ring == ring);
        self.settle_held();
    }

    /// The receiver is leaving: nothing that waits is sent to it any more.
    pub fn silence(&mut self, stats: &mut Stats) {
        stats.drops.add(DropReason::SubscriberNotReady, self.waiting() as u64);
        [&mut self.audio, &mut self.video, &mut self.held].into_iter().for_each(VecDeque::clear);
        self.settle_held();
        self.last_video = None;
    }

    /// Gives up all that is held. Frames in pieces help no decoder: their slots wait for keyframes.
    pub(super) fn starve(&mut self, stats: &mut Stats) {
        self.flow.holds(0);
        for queued in self.held.drain(..).filter(|queued| queued.purpose == Purpose::Media) {
            stats.drops.count(DropReason::SubscriberTooSlow);
            if !self.starved.contains(&queued.slot) {
                self.starved.push(queued.slot);
                // Nor is what was lost of the frames before any use.
                let stream = self.streams.get_mut(usize::from(queued.slot));
                stream.into_iter().for_each(|stream| stream.numbers.leave_behind());
            }
        }
    }

    /// The receiver is reached over another network now. What was under way on the old one is lost: video goes on with
    /// keyframes.
    pub fn path_changed(&mut self, stats: &mut Stats, now: Instant) {
        self.flow.path_changed(now);
        self.starve(stats);
        let sent = |(_, stream): &(usize, &OutStream)| stream.kind == MediaKind::Video && stream.has_sent();
        self.starved = self.streams.iter().enumerate().filter(sent).map(|(slot, _)| slot as u16).collect();
    }

    /// A slot whose video was given up since the last call.
    pub fn take_starved(&mut self) -> Option<usize> {
        self.starved.pop().map(usize::from)
    }

    /// The packet is kept no longer.
    pub(super) fn forget(&mut self, queue: Queue, queued: &Queued, stats: &mut Stats) {
        self.queue(queue).pop_front();
        self.settle_held();
        if queued.purpose == Purpose::Media {
            stats.drops.count(DropReason::Expired);
        }
    }

    /// Tells the pacer what is still held.
    pub(super) fn settle_held(&mut self) {
        self.flow.holds(self.held.iter().map(|queued| u64::from(queued.held_bytes)).sum());
    }
}
