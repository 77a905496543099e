//! Whether what a slot shows is one stream to its receiver: numbers without steps where nothing was lost.
//!
//! Receivers go by the descriptors, not by what the sender meant. libwebrtc holds frames back whose picture id or
//! TL0PICIDX does not follow, so a server that leaves frames out or goes over to another encoding has to renumber.

use std::collections::BTreeMap;

use crate::descriptor::Described;
use crate::stamp::Stamp;

/// How many frames back neighbours are compared.
const REMEMBERED: usize = 64;

/// A frame as the receiver sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub stamp: Stamp,
    pub described: Described,
    pub timestamp: u32,
    /// Sequence number of its last packet.
    pub last: u64,
    /// The last packet carries the marker.
    pub marker: bool,
}

/// The frames of a slot, and where they contradict each other.
#[derive(Debug, Default)]
pub struct Continuity {
    /// By the sequence number of their first packet.
    frames: BTreeMap<u64, Seen>,
    /// Each kind of break, and how often it was found.
    pub breaks: BTreeMap<&'static str, u64>,
}

impl Continuity {
    pub fn add(&mut self, what: &'static str) {
        *self.breaks.entry(what).or_default() += 1;
    }

    /// A frame is complete: it is compared with its neighbours. Every pair is compared once.
    pub fn complete(&mut self, first: u64, seen: Seen) {
        let before = self.frames.range(..first).next_back().map(|(_, before)| *before);
        let after = self.frames.range(first + 1..).next().map(|(at, after)| (*at, *after));
        if let Some(before) = before {
            self.compare(&before, first, &seen);
        }
        if let Some((at, after)) = after {
            self.compare(&seen, at, &after);
        }
        self.frames.insert(first, seen);
        if self.frames.len() > REMEMBERED {
            self.frames.pop_first();
        }
    }

    fn compare(&mut self, before: &Seen, first: u64, after: &Seen) {
        let adjacent = before.last + 1 == first;
        let passed = after.timestamp.wrapping_sub(before.timestamp) as i32;
        let source = |seen: &Seen| (seen.stamp.track, seen.stamp.layer, seen.stamp.frame);
        if source(before) == source(after) {
            if passed != 0 || before.described.picture_id != after.described.picture_id {
                self.add("layers of a picture differ in timestamp or picture id");
            }
            if adjacent && before.marker {
                self.add("the marker stands before the picture's end");
            }
            return;
        }
        if passed <= 0 {
            self.add("the timestamp does not rise");
        }
        if !adjacent {
            return;
        }
        if !before.marker {
            self.add("the picture's end has no marker");
        }
        if (before.described.picture_id + 1) & 0x7fff != after.described.picture_id {
            self.add("the picture id does not follow");
        }
        let base = u8::from(after.described.temporal == 0);
        if before.described.tl0_pic_idx.wrapping_add(base) != after.described.tl0_pic_idx {
            self.add("TL0PICIDX does not follow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Place, TrackKey};

    fn seen(frame: u32, picture_id: u16, tl0_pic_idx: u8, temporal: u8) -> Seen {
        let track = TrackKey { client: 0, number: 0 };
        let place = Place { temporal, ..Place::default() };
        let stamp = Stamp { track, layer: 0, frame, packet: 0, packets: 1, keyframe: false, serial: frame, place };
        let described = Described { picture_id, tl0_pic_idx, temporal };
        Seen { stamp, described, timestamp: frame * 3000, last: u64::from(frame), marker: true }
    }

    #[test]
    fn steps_show_only_where_nothing_was_lost() {
        let mut continuity = Continuity::default();
        let frames = [seen(1, 0x7ffe, 9, 0), seen(2, 0x7fff, 9, 2), seen(3, 0, 9, 1), seen(5, 2, 10, 0)];
        // In any order of completion.
        for frame in [2, 0, 3, 1].map(|index: usize| frames[index]) {
            continuity.complete(u64::from(frame.stamp.frame), frame);
        }
        assert!(continuity.breaks.is_empty(), "{:?}", continuity.breaks);
        continuity.complete(6, seen(6, 4, 11, 2));
        assert_eq!(
            continuity.breaks.keys().collect::<Vec<_>>(),
            [&"TL0PICIDX does not follow", &"the picture id does not follow"]
        );
    }
}
