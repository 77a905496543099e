//! What is counted of quality: in a room of one publisher with two encodings and one viewer.

use super::*;
use crate::ids::TrackId;
use crate::media::tests::room_of_two;
use crate::media::{Codec, Frame, Input, Output, Scheme};
use crate::units::Bitrate;

const FRAME_MS: u64 = 50;
/// Bytes of a frame of the low and of the high encoding: 160 and 640 kbit/s, less headers.
const FRAME_BYTES: [usize; 2] = [1000, 4000];

struct Stage {
    room: Room,
    t0: Instant,
    ms: u64,
    track: TrackKey,
    asked: [bool; 2],
}

impl Stage {
    fn new() -> Self {
        let t0 = Instant::now();
        let room = room_of_two(Codec::Vp8, &["l", "h"], t0);
        Self { room, t0, ms: 0, track: TrackKey(0), asked: [false; 2] }
    }

    fn now(&self) -> Instant {
        self.t0 + Duration::from_millis(self.ms)
    }

    fn tell(&mut self, input: Input<'_>) {
        self.room.handle(input, self.now());
        self.drain();
    }

    /// Both encodings send. If the publisher `answers`, the frame after a request is a keyframe.
    fn play(&mut self, milliseconds: u64, answers: bool) {
        let end = self.ms + milliseconds;
        while self.ms < end {
            self.ms += FRAME_MS;
            let now = self.now();
            if self.room.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.room.handle_timeout(now);
            }
            self.drain();
            for encoding in [0, 1] {
                let keyframe = answers && std::mem::take(&mut self.asked[encoding]);
                self.send(encoding, keyframe);
            }
        }
    }

    fn send(&mut self, encoding: usize, keyframe: bool) {
        let now = self.now();
        let scheme = Scheme::Temporal { sync: true };
        let packet = Packet {
            ssrc: 1 + encoding as u32,
            seq: self.ms / FRAME_MS,
            timestamp: self.ms as u32 * 90,
            codec: Codec::Vp8,
            bytes: FRAME_BYTES[encoding],
            keyframe,
            level: None,
            captured_at: now,
            frame: Frame { starts: true, ends: true, scheme, ..Frame::default() },
            size: keyframe.then_some([(320, 180), (1280, 720)][encoding]),
        };
        let (track, encoding) = (self.track, EncodingIndex(encoding as u8));
        self.room.handle(Input::Packets { track, encoding, packets: &[packet] }, now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            if let Output::RequestKeyframe { encoding, .. } = output {
                self.asked[usize::from(encoding.0)] = true;
            }
        }
    }

    fn estimate(&mut self, bps: u64) {
        self.tell(Input::Estimate { seat: Seat(1), estimate: Bitrate::from_bps(bps), measured: true });
    }

    fn viewer(&self) -> ParticipantQuality {
        self.room.observe(self.now()).pop().expect("the viewer").quality
    }
}

#[test]
fn switches_count_up_and_down_while_it_flows() {
    let mut stage = Stage::new();
    stage.estimate(5_000_000);
    stage.play(3000, true);
    let viewer = stage.viewer();
    let first = viewer.received[0].switches_up;
    assert!(first <= 1, "the low encoding may have been first");
    assert_eq!(viewer.received[0].layer.as_ref().and_then(|layer| layer.rid.as_deref()), Some("h"));
    assert!(!viewer.limited);
    stage.estimate(300_000);
    stage.play(3000, true);
    let viewer = stage.viewer();
    assert!(viewer.limited && viewer.spent_bps < viewer.demand_bps);
    assert_eq!((viewer.received[0].switches_up, viewer.received[0].switches_down), (first, 1));
    assert_eq!(stage.room.num_limited(), 1);
    assert_eq!(stage.room.quality().switches, Switches { up: first, down: 1 }, "of the room as of the slot");
    // Nothing is not a lower layer.
    stage.estimate(30_000);
    stage.play(3000, true);
    assert_eq!(stage.viewer().received[0].switches_down, 1);
    let (reason, usage) = (crate::command::EndReason::ClientLeft, crate::command::SessionUsage::default());
    stage.tell(Input::Leave { seat: Seat(1), reason, usage });
    assert_eq!(stage.room.quality().switches, Switches { up: first, down: 1 }, "counters do not fall");
}

#[test]
fn a_freeze_counts_once_however_long_it_is() {
    let mut stage = Stage::new();
    stage.estimate(5_000_000);
    stage.play(3000, true);
    assert_eq!(stage.room.quality().freezes, 0);
    let waits = |stage: &Stage| stage.room.quality().keyframe_waits.buckets.iter().sum::<u64>();
    let before = waits(&stage);
    stage.tell(Input::KeyframeWanted { seat: Seat(1), slot: SlotIndex(0) });
    stage.play(400, false);
    assert_eq!((stage.room.quality().freezes, waits(&stage)), (0, before));
    stage.play(4000, false);
    assert_eq!(stage.room.quality().freezes, 1, "seen before it ends");
    stage.play(2000, true);
    assert_eq!((stage.room.quality().freezes, waits(&stage)), (1, before + 1));
    assert_eq!(stage.viewer().received[0].keyframe_requests, 1);

    stage.tell(Input::Starved { seat: Seat(1), slot: SlotIndex(0) });
    stage.play(3000, false);
    stage.play(2000, true);
    assert_eq!(stage.room.quality().freezes, 2);
}

#[test]
fn what_ends_soon_or_is_muted_is_no_freeze() {
    let mut stage = Stage::new();
    stage.estimate(5_000_000);
    stage.play(3000, true);
    stage.tell(Input::KeyframeWanted { seat: Seat(1), slot: SlotIndex(0) });
    stage.play(3000, true);
    assert_eq!(stage.room.quality().freezes, 0);
    stage.tell(Input::KeyframeWanted { seat: Seat(1), slot: SlotIndex(0) });
    let mute = |muted| Input::Mute { seat: Seat(0), track: TrackId::from_bits(9), muted };
    stage.tell(mute(true));
    stage.play(3000, false);
    stage.tell(Input::KeyframeWanted { seat: Seat(1), slot: SlotIndex(0) });
    stage.play(3000, false);
    assert_eq!(stage.room.quality().freezes, 0);
    assert!(stage.room.observe(stage.now())[0].quality.published[0].muted);
}

#[test]
fn an_encoding_tells_what_came_of_it() {
    let mut stage = Stage::new();
    stage.play(3000, true);
    let publisher = &stage.room.observe(stage.now())[0];
    assert_eq!((publisher.peer, publisher.tracks.as_slice()), (PeerKey(0), &[TrackKey(0)][..]));
    let [low, high] = publisher.quality.published[0].encodings.as_slice() else { panic!("two encodings") };
    assert_eq!((low.rid.as_str(), high.rid.as_str()), ("l", "h"));
    assert!(low.active && high.active && high.bitrate_bps > low.bitrate_bps);
    assert_eq!((high.width, high.height), (Some(1280), Some(720)));
    assert!(high.packets >= 58 && high.bytes == high.packets * FRAME_BYTES[1] as u64, "{high:?}");
    assert_eq!(high.frames, Some(high.packets), "a packet each");
    assert!(high.keyframe_requests > 0);
    stage.ms += 5000;
    let silent = &stage.room.observe(stage.now())[0].quality.published[0].encodings[1];
    assert_eq!((silent.active, silent.bitrate_bps), (false, None));
    let text = serde_json::to_string(&stage.room.observe(stage.now())[0].quality).expect("JSON");
    assert!(!text.contains("a name") && !text.contains("metadata") && !text.contains("null"), "{text}");
}
