//! What a client makes of the packets of one slot: a log for the checks, and a decoder that needs whole frames in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use str0m::media::{MediaKind, Mid};

use crate::dating::Dating;
use crate::stamp::{Stamp, TrackKey};
use crate::viewer::Viewer;

/// How long a decoder waits for what is missing before it asks for a key frame.
const PATIENCE: Duration = Duration::from_millis(300);
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);

/// One receiving m-line.
#[derive(Debug)]
pub struct Slot {
    pub mid: Mid,
    pub kind: MediaKind,
    /// The slot's SSRC, once it has been heard.
    pub ssrc: Option<u32>,
    /// Everything received, by extended sequence number.
    pub log: BTreeMap<u64, Stamp>,
    /// When each track was last good to hear or see.
    pub last_good: BTreeMap<TrackKey, Instant>,
    pub decoded: u64,
    /// Stands for the log and the decoder where quality is measured.
    pub viewer: Option<Viewer>,
    /// When what came was captured.
    pub dating: Dating,
    /// What the packets of the highest sequence numbers belong to.
    source: Option<(TrackKey, usize)>,
    newest: u64,
    /// The frame to decode next; `None` waits for a key frame.
    next_frame: Option<u32>,
    frames: BTreeMap<u32, Assembly>,
    stuck_since: Option<Instant>,
    requested: Option<Instant>,
}

/// A frame that is being put together.
#[derive(Debug)]
struct Assembly {
    have: u64,
    packets: u8,
    keyframe: bool,
}

impl Assembly {
    fn complete(&self) -> bool {
        self.have.count_ones() == u32::from(self.packets)
    }
}

impl Slot {
    pub fn new(mid: Mid, kind: MediaKind) -> Self {
        Self {
            mid,
            kind,
            ssrc: None,
            log: BTreeMap::new(),
            last_good: BTreeMap::new(),
            decoded: 0,
            viewer: None,
            dating: Dating::default(),
            source: None,
            newest: 0,
            next_frame: None,
            frames: BTreeMap::new(),
            stuck_since: None,
            requested: None,
        }
    }

    /// Takes a packet that arrived on this slot.
    pub fn receive(&mut self, sequence: u64, stamp: Stamp, now: Instant) {
        self.log.insert(sequence, stamp);
        if self.kind == MediaKind::Audio {
            self.last_good.insert(stamp.track, now);
            return;
        }
        let source = (stamp.track, stamp.layer);
        if self.source != Some(source) {
            if sequence < self.newest {
                // A straggler of what the slot showed before.
                return;
            }
            self.source = Some(source);
            self.frames.clear();
            self.next_frame = None;
            self.stuck_since = Some(now);
        }
        self.newest = self.newest.max(sequence);
        if self.next_frame.is_some_and(|next| stamp.frame < next) {
            return;
        }
        let (packets, keyframe) = (stamp.packets, stamp.keyframe);
        let frame = self.frames.entry(stamp.frame).or_insert(Assembly { have: 0, packets, keyframe });
        frame.have |= 1 << stamp.packet;
        self.decode(now);
    }

    fn decode(&mut self, now: Instant) {
        loop {
            let next = match self.next_frame {
                Some(next) if self.frames.get(&next).is_some_and(Assembly::complete) => next,
                // A later key frame makes what is missing needless.
                _ => match self.frames.iter().find(|(_, frame)| frame.keyframe && frame.complete()) {
                    Some((number, _)) => *number,
                    None => break,
                },
            };
            self.frames = self.frames.split_off(&(next + 1));
            self.next_frame = Some(next + 1);
            self.stuck_since = None;
            self.decoded += 1;
            if let Some((track, _)) = self.source {
                self.last_good.insert(track, now);
            }
        }
        if self.stuck_since.is_none() && !self.frames.is_empty() {
            self.stuck_since = Some(now);
        }
    }

    /// Whether to ask for a key frame now.
    pub fn asks_for_keyframe(&mut self, now: Instant) -> bool {
        if let Some(viewer) = &mut self.viewer {
            viewer.decode(now);
            return viewer.asks_for_keyframe(now);
        }
        let asks = self.stuck_since.is_some_and(|since| now >= since + PATIENCE)
            && self.requested.is_none_or(|last| now >= last + REQUEST_INTERVAL);
        if asks {
            self.next_frame = None;
            self.requested = Some(now);
        }
        asks
    }
}
