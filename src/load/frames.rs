//! Frames of video as they come together at a receiver: which packets are there, what stays incomplete, what freezes.

use super::counts::Counts;
use super::mark::Mark;

/// So many frames can be in the making at a time, a power of two.
const KEPT: usize = 32;
/// Packets of a frame that are told apart; of those beyond, each counts as new.
const TOLD_APART: u16 = 128;
/// A picture that stands longer than this, and than three frames, is frozen.
const FREEZE_NS: u64 = 200_000_000;

#[derive(Clone, Copy, Default)]
struct Frame {
    number: u32,
    /// Zero: there is none.
    packets: u16,
    arrived: u16,
    seen: u128,
}

/// The frames of one slot.
pub struct Frames {
    /// Publisher and stream that are shown.
    shown: Option<(u32, u8)>,
    kept: Box<[Frame; KEPT]>,
    newest: u32,
    complete_ns: Option<u64>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { shown: None, kept: Box::new([Frame::default(); KEPT]), newest: 0, complete_ns: None }
    }
}

impl Frames {
    /// A packet came; whether it is the first of its kind. `interval_ns` lies between two frames.
    pub fn note(&mut self, mark: &Mark, at_ns: u64, interval_ns: u64, counts: &mut Counts) -> bool {
        let source = (mark.publisher, mark.stream);
        if self.shown != Some(source) {
            // A slot that changes hands may leave a frame behind; nobody misses it.
            *self = Self { shown: Some(source), newest: mark.frame, ..Self::default() };
        }
        if mark.frame.wrapping_sub(self.newest) as i32 > 0 {
            self.newest = mark.frame;
        } else if self.newest.wrapping_sub(mark.frame) as usize >= KEPT {
            return true;
        }
        let Some(frame) = self.kept.get_mut(mark.frame as usize % KEPT) else { return true };
        if frame.packets == 0 || frame.number != mark.frame {
            counts.frames_incomplete += u64::from(frame.arrived < frame.packets);
            *frame = Frame { number: mark.frame, packets: mark.packets, arrived: 0, seen: 0 };
        }
        if mark.packet < TOLD_APART {
            let bit = 1 << mark.packet;
            if frame.seen & bit != 0 {
                return false;
            }
            frame.seen |= bit;
        }
        frame.arrived += 1;
        if frame.arrived == frame.packets {
            counts.frames_complete += 1;
            let gap = self.complete_ns.map_or(0, |last| at_ns.saturating_sub(last));
            if gap > FREEZE_NS.max(3 * interval_ns) {
                counts.freezes += 1;
                counts.frozen_ns += gap;
            }
            self.complete_ns = Some(self.complete_ns.unwrap_or(0).max(at_ns));
        }
        true
    }

    /// Who is shown: a publisher and a stream.
    pub fn shown(&self) -> Option<(u32, u8)> {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 33_000_000;

    fn mark(frame: u32, packet: u16) -> Mark {
        Mark { publisher: 7, stream: 1, frame, packet, packets: 2, ..Mark::default() }
    }

    #[test]
    fn packets_count_once_and_frames_when_whole() {
        let (mut frames, mut counts) = (Frames::default(), Counts::default());
        assert!(frames.note(&mark(5, 0), 0, INTERVAL, &mut counts));
        assert!(!frames.note(&mark(5, 0), 0, INTERVAL, &mut counts), "again");
        assert_eq!(counts.frames_complete, 0);
        assert!(frames.note(&mark(5, 1), 0, INTERVAL, &mut counts));
        assert_eq!(counts.frames_complete, 1);
        assert!(frames.note(&mark(6, 1), INTERVAL, INTERVAL, &mut counts));
        assert!(frames.note(&mark(6 + KEPT as u32, 1), INTERVAL, INTERVAL, &mut counts));
        assert_eq!(counts.frames_incomplete, 1);
    }

    #[test]
    fn a_long_gap_is_a_freeze_and_a_change_of_source_is_none() {
        let (mut frames, mut counts) = (Frames::default(), Counts::default());
        let mut show = |frame, at_ms: u64, publisher| {
            for packet in 0..2 {
                let mark = Mark { publisher, ..mark(frame, packet) };
                frames.note(&mark, at_ms * 1_000_000, INTERVAL, &mut counts);
            }
            (counts.freezes, counts.frozen_ns)
        };
        assert_eq!(show(1, 1000, 7), (0, 0));
        assert_eq!(show(2, 1199, 7), (0, 0));
        assert_eq!(show(3, 1400, 7), (1, 201_000_000));
        assert_eq!(show(9, 9000, 8), (1, 201_000_000), "another publisher");
    }
}
