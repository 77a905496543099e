//! A hundred people who join within a second, all of whom need a keyframe.

use std::collections::BTreeMap;
use std::time::Duration;

use stube::ids::TrackId;
use stube::media::{
    Codec, EncodingIndex, Frame, Input, NewSlot, NewTrack, Output, Packet, PeerKey, Seat, SlotIndex, TrackKey,
};

use crate::{MediaKind, World, come_in};

const NEWCOMERS: u32 = 100;
/// Between pictures, and between two who join: a hundred within a second.
const FRAME: Duration = Duration::from_millis(40);
const STEP: Duration = Duration::from_millis(10);
/// What is asked of a publisher comes as a picture so much later.
const ROUND_TRIP: Duration = Duration::from_millis(150);

/// A camera with three encodings, whose keyframes come when they were asked for.
struct Camera {
    key: TrackKey,
    next_frame: std::time::Instant,
    seqs: [u64; 3],
    due: BTreeMap<EncodingIndex, std::time::Instant>,
}

#[derive(Default)]
struct Seen {
    requests: BTreeMap<EncodingIndex, u32>,
    /// Who has been sent the keyframe to begin with.
    served: BTreeMap<(PeerKey, SlotIndex), Duration>,
}

impl Camera {
    fn publish(world: &mut World) -> Self {
        let (key, sid): (_, TrackId) = (world.room.next_track(), world.ids.id());
        let rids = ["q", "h", "f"].map(str::to_owned).to_vec();
        let track = NewTrack { sid, mid: "0".into(), kind: MediaKind::Video, position: 0, codec: Codec::Vp8, rids };
        world.room.handle(Input::Publish { seat: Seat(0), track }, world.now);
        Self { key, next_frame: world.now, seqs: [100; 3], due: BTreeMap::new() }
    }

    /// Sends one picture of each encoding if it is time; all begin with a keyframe.
    fn send(&mut self, world: &mut World, seen: &mut Seen, elapsed: Duration) {
        if world.now < self.next_frame {
            return;
        }
        self.next_frame += FRAME;
        for index in 0..3u8 {
            let encoding = EncodingIndex(index);
            let seq = &mut self.seqs[usize::from(index)];
            *seq += 1;
            let asked = self.due.get(&encoding).is_some_and(|due| *due <= world.now);
            if asked {
                self.due.remove(&encoding);
            }
            let packet = Packet {
                ssrc: 1 + u32::from(index),
                seq: *seq,
                timestamp: *seq as u32 * 3_600,
                codec: Codec::Vp8,
                bytes: 1_000,
                keyframe: asked || *seq == 101,
                level: None,
                captured_at: world.now,
                frame: Frame::default(),
                size: None,
            };
            world.room.handle(Input::Packets { track: self.key, encoding, packets: &[packet] }, world.now);
            self.drain(world, seen, elapsed);
        }
    }

    fn drain(&mut self, world: &mut World, seen: &mut Seen, elapsed: Duration) {
        while let Some(output) = world.room.poll_output() {
            match output {
                Output::RequestKeyframe { encoding, .. } => {
                    *seen.requests.entry(encoding).or_default() += 1;
                    self.due.entry(encoding).or_insert(world.now + ROUND_TRIP);
                }
                Output::Forward(forward) => {
                    seen.served.entry((forward.to, forward.slot)).or_insert(elapsed);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_hundred_who_join_within_a_second_cost_two_keyframes_an_encoding() {
    let mut world = World::new(1);
    come_in(&mut world, 0);
    let mut camera = Camera::publish(&mut world);
    let mut seen = Seen::default();
    let mut joined_at = BTreeMap::new();
    let start = world.now;
    // The camera has been running for a while; then they come, and then nothing else happens for two seconds.
    for step in 0..500u32 {
        world.now = start + STEP * step;
        let elapsed = world.now - start;
        if (200..200 + NEWCOMERS).contains(&step) {
            let who = step - 199;
            come_in(&mut world, who);
            let codecs = [Codec::Vp8].into_iter().collect();
            let slot = NewSlot { mid: "1".into(), kind: MediaKind::Video, codecs, first_seq: 1 };
            world.room.handle(Input::Slots { seat: Seat(who as u16), slots: vec![slot] }, world.now);
            joined_at.insert(PeerKey(who), elapsed);
        }
        if step == 200 {
            seen.requests.clear();
        }
        if world.room.poll_timeout().is_some_and(|(due, _)| due <= world.now) {
            world.room.handle_timeout(world.now);
        }
        camera.drain(&mut world, &mut seen, elapsed);
        camera.send(&mut world, &mut seen, elapsed);
    }
    let waits = seen.served.iter().map(|((peer, _), at)| *at - joined_at[peer]);
    let longest = waits.max().unwrap_or_default();
    assert_eq!(seen.served.len(), NEWCOMERS as usize, "everyone has a picture");
    assert!(longest <= Duration::from_millis(1_200), "the last picture came after {longest:?}");
    assert!(!seen.requests.is_empty() && seen.requests.values().all(|times| *times <= 2), "{:?}", seen.requests);
}
