//! How many of those who speak at once a listener hears, by the operator's choice.

use std::collections::BTreeSet;
use std::time::Duration;

use stube::ids::{RoomId, TrackId};
use stube::media::{
    Codec, EncodingIndex, Frame, Input, NewSlot, NewTrack, Output, Packet, PeerKey, Room, Seat, TrackKey,
};

use crate::{MediaKind, World, come_in, settings};

const SPEAKERS: u16 = 6;
const PACKET: Duration = Duration::from_millis(20);

/// The listener has a slot for each of the others, who all speak from the beginning on.
fn heard(loudest: usize) -> usize {
    let mut world = World::new(1);
    world.room = Room::new(RoomId::from_bits(1), settings(), loudest, world.now);
    for who in 0..=SPEAKERS {
        come_in(&mut world, who.into());
    }
    let slots = (0..SPEAKERS).map(|index| NewSlot {
        mid: index.to_string().as_str().into(),
        kind: MediaKind::Audio,
        codecs: [Codec::Opus].into_iter().collect(),
        first_seq: 1,
    });
    world.room.handle(Input::Slots { seat: Seat(0), slots: slots.collect() }, world.now);
    let tracks: Vec<TrackKey> = (1..=SPEAKERS).map(|seat| publish(&mut world, Seat(seat))).collect();
    let mut heard = BTreeSet::new();
    for seq in 1..100 {
        for (track, ssrc) in tracks.iter().zip(1..) {
            let packet = spoken(ssrc, seq, world.now);
            world
                .room
                .handle(Input::Packets { track: *track, encoding: EncodingIndex(0), packets: &[packet] }, world.now);
        }
        while let Some(output) = world.room.poll_output() {
            if let Output::Forward(forward) = output
                && forward.to == PeerKey(0)
                && seq > 90
            {
                heard.insert(forward.slot);
            }
        }
        world.now += PACKET;
        if world.room.poll_timeout().is_some_and(|(due, _)| due <= world.now) {
            world.room.handle_timeout(world.now);
        }
    }
    heard.len()
}

fn publish(world: &mut World, seat: Seat) -> TrackKey {
    let (key, sid): (_, TrackId) = (world.room.next_track(), world.ids.id());
    let rids = Vec::new();
    let track = NewTrack { sid, mid: "0".into(), kind: MediaKind::Audio, position: 0, codec: Codec::Opus, rids };
    world.room.handle(Input::Publish { seat, track }, world.now);
    key
}

fn spoken(ssrc: u32, seq: u64, now: std::time::Instant) -> Packet {
    Packet {
        ssrc,
        seq,
        timestamp: seq as u32 * 960,
        codec: Codec::Opus,
        bytes: 100,
        keyframe: true,
        level: Some(30),
        captured_at: now,
        frame: Frame::default(),
        size: None,
    }
}

#[test]
fn each_hears_as_many_as_the_operator_chose() {
    for (loudest, expected) in [(1, 1), (2, 2), (4, 4), (6, 6), (16, 6)] {
        assert_eq!(heard(loudest), expected, "media.loudest = {loudest}");
    }
}
