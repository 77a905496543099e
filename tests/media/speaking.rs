//! Who is heard and seen by those who did not say whom they want: the loudest, and the cameras of the last speakers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stube::ids::{RoomId, TrackId};
use stube::media::signal::{Request, WantedAudio};
use stube::media::{
    Codec, EncodingIndex, Frame, Input, NewSlot, NewTrack, Output, Packet, Room, Seat, SlotIndex, TrackKey,
};

use crate::{MediaKind, Purpose, World, come_in_for, settings};

const PACKET: Duration = Duration::from_millis(20);
/// In −dBov.
const SPEECH: u8 = 30;
const ROOM_NOISE: u8 = 80;

/// People with microphones and cameras, and what each of their slots was last sent.
struct Stage {
    world: World,
    microphones: BTreeMap<u16, (TrackKey, TrackId)>,
    cameras: BTreeMap<u16, TrackKey>,
    seen: BTreeMap<(u16, SlotIndex), u16>,
    heard: BTreeMap<u16, BTreeSet<u16>>,
    seq: u64,
}

impl Stage {
    fn new(loudest: usize) -> Self {
        let mut world = World::new(1);
        world.room = Room::new(RoomId::from_bits(1), settings(), loudest, world.now);
        let (microphones, cameras) = (BTreeMap::new(), BTreeMap::new());
        Self { world, microphones, cameras, seen: BTreeMap::new(), heard: BTreeMap::new(), seq: 0 }
    }

    /// Somebody comes in, with so many slots for sound and for pictures.
    fn join(&mut self, who: u16, purpose: Purpose, slots: [usize; 2]) {
        let world = &mut self.world;
        let seat = come_in_for(world, who.into(), purpose);
        assert_eq!(seat, Seat(who), "in order");
        let slot = |index: usize, kind, codec| NewSlot {
            mid: index.to_string(),
            kind,
            codecs: [codec].into_iter().collect(),
            first_seq: 1,
        };
        let audio = (0..slots[0]).map(|index| slot(index, MediaKind::Audio, Codec::Opus));
        let video = (0..slots[1]).map(|index| slot(slots[0] + index, MediaKind::Video, Codec::Vp8));
        world.room.handle(Input::Slots { seat, slots: audio.chain(video).collect() }, world.now);
    }

    fn publish(&mut self, who: u16, kind: MediaKind, codec: Codec) -> (TrackKey, TrackId) {
        let world = &mut self.world;
        let (key, sid): (_, TrackId) = (world.room.next_track(), world.ids.id());
        let track = NewTrack { sid, mid: "0".into(), kind, position: 0, codec, rids: Vec::new() };
        world.room.handle(Input::Publish { seat: Seat(who), track }, world.now);
        (key, sid)
    }

    /// One with a microphone and a camera, who wants what there is by default.
    fn caller(&mut self, who: u16, slots: [usize; 2]) {
        self.join(who, Purpose::Call, slots);
        let microphone = self.publish(who, MediaKind::Audio, Codec::Opus);
        self.microphones.insert(who, microphone);
        let (camera, _) = self.publish(who, MediaKind::Video, Codec::Vp8);
        self.cameras.insert(who, camera);
    }

    /// All send for so long, and these speak.
    fn talk(&mut self, speakers: &[u16], seconds: u64) {
        for _ in 0..seconds * 50 {
            self.seq += 1;
            for (who, (key, _)) in self.microphones.clone() {
                let level = if speakers.contains(&who) { SPEECH } else { ROOM_NOISE };
                self.send(who, key, self.packet(Codec::Opus, Some(level)));
            }
            for (who, key) in self.cameras.clone() {
                self.send(who, key, self.packet(Codec::Vp8, None));
            }
            self.world.now += PACKET;
            if self.world.room.poll_timeout().is_some_and(|(due, _)| due <= self.world.now) {
                self.world.room.handle_timeout(self.world.now);
            }
        }
    }

    fn packet(&self, codec: Codec, level: Option<u8>) -> Packet {
        Packet {
            ssrc: 1,
            seq: self.seq,
            timestamp: self.seq as u32 * 960,
            codec,
            bytes: 100,
            keyframe: true,
            level,
            captured_at: self.world.now,
            frame: Frame::default(),
            size: None,
        }
    }

    fn send(&mut self, who: u16, track: TrackKey, packet: Packet) {
        let is_sound = packet.level.is_some();
        let input = Input::Packets { track, encoding: EncodingIndex(0), packets: &[packet] };
        self.world.room.handle(input, self.world.now);
        while let Some(output) = self.world.room.poll_output() {
            let Output::Forward(forward) = output else { continue };
            let to = forward.to.0 as u16;
            assert_ne!(to, who, "nobody is sent their own");
            if is_sound {
                self.heard.entry(to).or_default().insert(who);
            } else {
                self.seen.insert((to, forward.slot), who);
            }
        }
    }

    /// Whom somebody hears in the next moment.
    fn heard_by(&mut self, who: u16, speakers: &[u16]) -> Vec<u16> {
        self.heard.clear();
        self.talk(speakers, 1);
        self.heard.remove(&who).into_iter().flatten().collect()
    }

    /// Who stands in somebody's slots, slot by slot.
    fn seen_by(&mut self, who: u16, speakers: &[u16]) -> Vec<u16> {
        self.seen.clear();
        self.talk(speakers, 1);
        self.seen.iter().filter(|((to, _), _)| *to == who).map(|(_, from)| *from).collect()
    }
}

#[test]
fn each_hears_as_many_as_the_operator_chose() {
    let everybody: Vec<u16> = (1..=6).collect();
    for (loudest, expected) in [(1, 1), (2, 2), (4, 4), (6, 6), (16, 6)] {
        let mut stage = Stage::new(loudest);
        (0..=6).for_each(|who| stage.caller(who, [6, 0]));
        stage.talk(&everybody, 1);
        assert_eq!(stage.heard_by(0, &everybody).len(), expected, "media.loudest = {loudest}");
    }
}

#[test]
fn whoever_is_pinned_is_heard_however_quiet() {
    let mut stage = Stage::new(2);
    (0..=6).for_each(|who| stage.caller(who, [6, 0]));
    let loud = [1, 2, 3];
    stage.talk(&loud, 2);
    assert!(!stage.heard_by(0, &loud).contains(&6), "not of itself");
    let want = |audio| Request::Want { video: Vec::new(), audio };
    let pinned = WantedAudio::Tracks(vec![stage.microphones[&6].1]);
    stage.world.room.handle(Input::Request { seat: Seat(0), request: want(pinned) }, stage.world.now);
    assert_eq!(stage.heard_by(0, &loud), [6], "the one that was named, and nobody else");
    stage.world.room.handle(Input::Request { seat: Seat(0), request: want(WantedAudio::Auto) }, stage.world.now);
    let heard = stage.heard_by(0, &loud);
    assert!(heard.len() == 2 && !heard.contains(&6), "{heard:?}");
}

#[test]
fn slots_show_the_last_speakers_and_stay_as_they_are_without_need() {
    let mut stage = Stage::new(4);
    (0..=5).for_each(|who| stage.caller(who, [4, 2]));
    stage.talk(&[3], 2);
    let first = stage.seen_by(0, &[3]);
    assert!(first.len() == 2 && first.contains(&3), "who speaks is seen: {first:?}");
    // The next speaker takes the place of the one who did not speak.
    stage.talk(&[5], 2);
    let second = stage.seen_by(0, &[5]);
    let place = first.iter().position(|who| *who == 3);
    assert!(second.contains(&5) && second.iter().position(|who| *who == 3) == place, "{first:?}, then {second:?}");
    // Nothing moves while they go on in turn, nor when the viewer speaks.
    for speakers in [[3], [5], [0], [3]] {
        stage.talk(&speakers, 2);
        assert_eq!(stage.seen_by(0, &speakers), second, "while {speakers:?} speaks");
    }
    // A third takes the place of the one who has been silent for longest.
    stage.talk(&[1], 2);
    let third = stage.seen_by(0, &[1]);
    assert!(third.contains(&1) && third.contains(&3), "{second:?}, then {third:?}");
}

#[test]
fn whoever_plays_the_active_speaker_sees_them() {
    let mut stage = Stage::new(4);
    (0..=3).for_each(|who| stage.caller(who, [4, 0]));
    stage.join(4, Purpose::PlayActiveSpeaker, [1, 1]);
    for speaker in [2, 1, 3] {
        stage.talk(&[speaker], 3);
        assert_eq!(stage.seen_by(4, &[speaker]), [speaker]);
    }
}
