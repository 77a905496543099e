//! The media ring alone under random inputs: 64 seeds by 3,000 steps against a small model.
//!
//! `MEDIA_SEED=7 cargo test --test media` replays one seed. Every panic names its seed and step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use stube::command::{EndReason, Grants, MediaKind, Profile, Purpose, RoomSettings, SessionUsage, Transport};
use stube::ids::{IdSource, Identity, RoomId, Text, TrackId};
use stube::media::meter::DropReason;
use stube::media::signal::{Request, Signal, SlotState, WantedAudio, WantedVideo};
use stube::media::{
    Codec, EncodingIndex, Frame, Input, Join, NewSlot, NewTrack, Output, Packet, PeerKey, Room, Seat, SlotIndex,
    TrackKey,
};
use stube::units::Bitrate;

mod duration;
mod speaking;
mod storm;

const SEEDS: u64 = 64;
const STEPS: u32 = 3_000;
const IDENTITIES: u32 = 7;

struct Publication {
    key: TrackKey,
    sid: TrackId,
    kind: MediaKind,
    muted: bool,
    encodings: Vec<(u32, u64)>,
}

struct Member {
    seat: Seat,
    peer: PeerKey,
    connected: bool,
    tracks: Vec<Publication>,
}

/// What has been seen on one outgoing stream.
#[derive(Default)]
struct Stream {
    used: BTreeSet<u64>,
    last_ssrc: Option<u32>,
}

struct World {
    room: Room,
    ids: IdSource,
    now: Instant,
    members: BTreeMap<u32, Member>,
    next_peer: u32,
    streams: BTreeMap<(PeerKey, SlotIndex), Stream>,
    asked: BTreeMap<(TrackId, EncodingIndex), Instant>,
    forwarded: u64,
    finished: bool,
}

fn settings() -> RoomSettings {
    RoomSettings {
        name: "random".into(),
        metadata: Text::default(),
        max_participants: 100,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let now = Instant::now();
        Self {
            room: Room::new(RoomId::from_bits(1), settings(), 4, now),
            ids: IdSource::from_seed(bytes),
            now,
            members: BTreeMap::new(),
            next_peer: 0,
            streams: BTreeMap::new(),
            asked: BTreeMap::new(),
            forwarded: 0,
            finished: false,
        }
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.ids.bits() % below
    }

    fn tell(&mut self, input: Input<'_>) {
        self.room.handle(input, self.now);
        self.drain(None);
    }

    /// Drains the room, holding each output against what the model knows.
    fn drain(&mut self, sent: Option<(u32, usize, &[Packet])>) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Forward(forward) => {
                    let (owner, track, packets) = sent.expect("nothing is forwarded but packets");
                    let to = self.members.values().find(|member| member.peer == forward.to);
                    let to = to.expect("only members receive");
                    assert!(to.connected, "nobody receives before they are connected");
                    let publisher = &self.members[&owner];
                    assert_ne!(publisher.peer, forward.to, "nobody hears themself");
                    assert!(publisher.connected && !publisher.tracks[track].muted, "the muted are silent");
                    let meant = forward.packets(packets);
                    assert_eq!(meant.len(), usize::from(forward.count));
                    for packet in meant {
                        self.forwarded += 1;
                        let (seq, _) = forward.numbers(packet);
                        let stream = self.streams.entry((forward.to, forward.slot)).or_default();
                        assert!(stream.used.insert(seq), "sequence number {seq} used twice");
                        if stream.last_ssrc != Some(packet.ssrc) {
                            assert!(packet.keyframe, "a new source begins with a keyframe");
                            stream.last_ssrc = Some(packet.ssrc);
                        }
                    }
                }
                Output::RequestKeyframe { track, encoding, .. } => self.keyframe_asked(track, encoding),
                Output::Finished(_) => self.finished = true,
                Output::Discard { .. } | Output::Demand { .. } => {}
                Output::Tell { peer, .. } | Output::Close { peer, .. } => {
                    assert!(self.members.values().any(|member| member.peer == peer), "only members are told");
                }
                Output::Notice(_) => {}
            }
        }
    }

    fn keyframe_asked(&mut self, track: TrackKey, encoding: EncodingIndex) {
        let all = self.members.values().flat_map(|member| &member.tracks);
        let track = all.into_iter().find(|publication| publication.key == track).expect("a published track");
        assert_eq!(track.kind, MediaKind::Video);
        let least = if encoding.0 == 0 && track.encodings.len() > 1 { 500 } else { 1000 };
        if let Some(before) = self.asked.insert((track.sid, encoding), self.now) {
            assert!(self.now - before >= Duration::from_millis(least), "asked again too soon");
        }
    }

    fn join(&mut self, who: u32) {
        if let Some(older) = self.members.remove(&who) {
            self.leave_as(older);
        }
        let peer = PeerKey(self.next_peer);
        self.next_peer += 1;
        let seat = self.room.next_seat();
        let grants = Grants { can_subscribe: self.draw(8) > 0, hidden: self.draw(10) == 0, ..Grants::default() };
        let profile = Profile {
            identity: Identity::from(who.to_string()),
            name: Text::default(),
            metadata: Text::default(),
            attributes: BTreeMap::new(),
            grants,
        };
        self.members.insert(who, Member { seat, peer, connected: false, tracks: Vec::new() });
        let (participant, session, call) = (self.ids.id(), self.ids.id(), self.ids.id());
        let join = Join { peer, participant, session, profile, purpose: Purpose::Call, call };
        self.tell(Input::Join(Box::new(join)));
        let mut slots = Vec::new();
        for index in 0..self.draw(6) {
            let kind = if index % 3 == 0 { MediaKind::Audio } else { MediaKind::Video };
            let codecs: &[Codec] = if kind == MediaKind::Audio { &[Codec::Opus] } else { &[Codec::Vp8, Codec::H264] };
            let codecs = codecs.iter().copied().collect();
            slots.push(NewSlot { mid: index.to_string(), kind, codecs, first_seq: self.draw(1000) as u16 });
        }
        self.tell(Input::Slots { seat, slots });
        self.publish(who);
        if self.draw(2) == 0 {
            self.tell(Input::ChannelOpen(seat));
        }
    }

    fn publish(&mut self, who: u32) {
        if self.members[&who].tracks.len() > 2 {
            return;
        }
        let kind = if self.draw(2) == 0 { MediaKind::Audio } else { MediaKind::Video };
        let simulcast = kind == MediaKind::Video && self.draw(2) == 0;
        let rids: Vec<String> = if simulcast { vec!["q".into(), "h".into()] } else { vec![] };
        let (key, sid) = (self.room.next_track(), self.ids.id());
        let position = self.draw(3) as usize;
        let codec = if kind == MediaKind::Audio { Codec::Opus } else { Codec::Vp8 };
        let encodings = (0..rids.len().max(1)).map(|_| (self.ids.bits(), u64::from(self.draw(60_000)))).collect();
        let member = self.members.get_mut(&who).unwrap();
        member.tracks.push(Publication { key, sid, kind, muted: false, encodings });
        let (seat, mid) = (member.seat, member.tracks.len().to_string());
        self.tell(Input::Publish { seat, track: NewTrack { sid, mid, kind, position, codec, rids } });
    }

    fn leave_as(&mut self, member: Member) {
        let seat = member.seat;
        let peer = member.peer;
        // The room may still tell the leaver; keep them known while it drains.
        self.members.insert(u32::MAX, member);
        let (reason, usage) = (EndReason::ClientLeft, SessionUsage::default());
        self.tell(Input::Leave { seat, reason, usage });
        self.members.remove(&u32::MAX);
        self.streams.retain(|(to, _), _| *to != peer);
    }

    fn send(&mut self, who: u32) {
        let tracks = self.members[&who].tracks.len() as u32;
        if tracks == 0 || !self.members[&who].connected {
            return;
        }
        let (track, skip, keyframe) = (self.draw(tracks) as usize, self.draw(12), self.draw(5) == 0);
        let (level, pick, several) = (self.draw(128) as u8, self.draw(8), 1 + self.draw(3));
        let now = self.now;
        let publication = &mut self.members.get_mut(&who).unwrap().tracks[track];
        let encoding = pick as usize % publication.encodings.len();
        let (ssrc, seq) = &mut publication.encodings[encoding];
        let audio = publication.kind == MediaKind::Audio;
        let codec = if audio { Codec::Opus } else { Codec::Vp8 };
        let mut packet = |keyframe| {
            *seq += 1 + u64::from(skip == 0);
            Packet {
                ssrc: *ssrc,
                seq: *seq,
                timestamp: *seq as u32 * 960,
                codec,
                bytes: 100,
                keyframe: audio || keyframe,
                level: audio.then_some(level),
                captured_at: now,
                frame: Frame::default(),
                size: None,
            }
        };
        // Up to three come at once; a keyframe may be any of them.
        let packets: Vec<Packet> = (0..several).map(|index| packet(keyframe && index == skip % several)).collect();
        let key = publication.key;
        let encoding = EncodingIndex(encoding as u8);
        self.room.handle(Input::Packets { track: key, encoding, packets: &packets }, self.now);
        self.drain(Some((who, track, &packets)));
    }

    fn mute(&mut self, who: u32) {
        let muted = self.draw(2) == 0;
        let member = self.members.get_mut(&who).unwrap();
        let Some(publication) = member.tracks.first_mut() else { return };
        publication.muted = muted;
        let (seat, track) = (member.seat, publication.sid);
        self.tell(Input::Request { seat, request: Request::Mute { track, muted } });
    }

    fn want(&mut self, who: u32) {
        let sids: Vec<TrackId> = self.members.values().flat_map(|m| &m.tracks).map(|track| track.sid).collect();
        let video = (0..self.draw(4)).filter_map(|_| {
            let index = self.ids.bits() as usize % sids.len().max(1);
            let priority = (self.ids.bits() % 3) as i32;
            sids.get(index).map(|track| WantedVideo { track: *track, height: 180, priority })
        });
        let video: Vec<_> = video.collect();
        let pinned = sids.get(self.draw(8) as usize).filter(|_| self.draw(3) == 0);
        let audio = pinned.map_or(WantedAudio::Auto, |track| WantedAudio::Tracks(vec![*track]));
        let request = Request::Want { video, audio };
        self.tell(Input::Request { seat: self.members[&who].seat, request });
    }

    fn step(&mut self) {
        let passed = Duration::from_micros(u64::from(self.draw(40_000)));
        self.now += passed;
        let who = self.draw(IDENTITIES);
        let verb = self.draw(100);
        if !self.members.contains_key(&who) {
            if verb < 30 {
                self.join(who);
            }
            return;
        }
        let seat = self.members[&who].seat;
        match verb {
            0..=1 => {
                let member = self.members.remove(&who).unwrap();
                self.leave_as(member);
            }
            2 => self.join(who),
            3..=9 => {
                self.members.get_mut(&who).unwrap().connected = true;
                self.tell(Input::Connected { seat, took: Duration::ZERO, transport: Transport::Udp });
            }
            10..=11 => self.tell(Input::ChannelOpen(seat)),
            12..=13 => self.publish(who),
            14 => {
                if let Some(track) = self.members.get_mut(&who).unwrap().tracks.pop() {
                    self.tell(Input::Unpublish { seat, track: track.key });
                }
            }
            15..=17 => self.mute(who),
            18..=20 => self.want(who),
            21..=23 => self.tell(Input::KeyframeWanted { seat, slot: SlotIndex((verb % 5) as u16) }),
            24..=30 => {
                self.room.handle_timeout(self.now);
                self.drain(None);
                if let Some((at, timer)) = self.room.poll_timeout() {
                    assert!(at > self.now, "{timer:?} lies in the past after a drain");
                }
            }
            31..=34 => {
                // From nothing at all to more than everything.
                let estimate = Bitrate::from_bps(u64::from(self.draw(4_000)) * 1_000);
                let measured = self.draw(4) > 0;
                self.tell(Input::Estimate { seat, estimate, measured });
            }
            35 => {
                // Of video: sound is never held back.
                let slot = SlotIndex([1, 2, 4][self.draw(3) as usize]);
                self.tell(Input::Starved { seat, slot });
            }
            36 => {
                let encoding = EncodingIndex(self.draw(2) as u8);
                if let Some(track) =
                    self.members[&who].tracks.iter().find(|track| track.kind == MediaKind::Video).map(|track| track.key)
                {
                    self.tell(Input::Broken { track, encoding });
                }
            }
            _ => self.send(who),
        }
    }

    fn check(&self) {
        let (drops, copies_due) = self.room.counts();
        let copies = DropReason::ALL.into_iter().filter(|reason| reason.is_of_a_copy());
        let dropped: u64 = copies.map(|reason| drops.of(reason)).sum();
        assert_eq!(copies_due, self.forwarded + dropped, "copies due = forwarded + dropped");
        assert_eq!(self.room.num_participants(), self.members.len());
    }

    fn end(&mut self) {
        while let Some((_, member)) = self.members.pop_first() {
            self.leave_as(member);
        }
        let (published, subscribed) = self.room.count_tracks();
        assert_eq!((published.audio, published.video, subscribed.audio, subscribed.video), (0, 0, 0, 0));
        self.now += settings().departure_timeout + settings().empty_timeout;
        self.room.handle_timeout(self.now);
        self.drain(None);
        assert!(self.finished, "an empty room ends");
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.step();
            world.check();
        }));
        if result.is_err() {
            panic!("seed {seed}, step {step}: replay with MEDIA_SEED={seed}");
        }
    }
    assert!(world.forwarded > 100, "seed {seed}: the run means something ({} forwarded)", world.forwarded);
    world.end();
}

#[test]
fn random_rooms_keep_their_laws() {
    match std::env::var("MEDIA_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => run(seed),
        None => (0..SEEDS).for_each(run),
    }
}

/// A room with `count` people in it, who are connected and listen.
fn room_of(world: &mut World, count: u32) {
    for who in 0..count {
        come_in(world, who);
    }
}

fn come_in(world: &mut World, who: u32) {
    come_in_for(world, who, Purpose::Call);
}

fn come_in_for(world: &mut World, who: u32, purpose: Purpose) -> Seat {
    let seat = world.room.next_seat();
    let profile = Profile {
        identity: Identity::from(who.to_string()),
        name: Text::default(),
        metadata: Text::default(),
        attributes: BTreeMap::new(),
        grants: Grants::default(),
    };
    let (participant, session, call) = (world.ids.id(), world.ids.id(), world.ids.id());
    let join = Join { peer: PeerKey(who), participant, session, profile, purpose, call };
    world.room.handle(Input::Join(Box::new(join)), world.now);
    world.room.handle(Input::Connected { seat, took: Duration::ZERO, transport: Transport::Udp }, world.now);
    world.room.handle(Input::ChannelOpen(seat), world.now);
    seat
}

#[test]
fn a_slot_shows_who_is_muted_as_paused() {
    let mut world = World::new(1);
    // Drawn from a seed, so that what follows has a subscriber with a video slot and a channel.
    let now = world.now;
    let mut states = Vec::new();
    room_of(&mut world, 2);
    let slot =
        NewSlot { mid: "1".into(), kind: MediaKind::Video, codecs: [Codec::Vp8].into_iter().collect(), first_seq: 1 };
    world.room.handle(Input::Slots { seat: Seat(1), slots: vec![slot] }, now);
    let sid = world.ids.id();
    let track = NewTrack { sid, mid: "0".into(), kind: MediaKind::Video, position: 0, codec: Codec::Vp8, rids: vec![] };
    world.room.handle(Input::Publish { seat: Seat(0), track }, now);
    for muted in [true, false] {
        world.room.handle(Input::Request { seat: Seat(0), request: Request::Mute { track: sid, muted } }, now);
    }
    while let Some(output) = world.room.poll_output() {
        if let Output::Tell { peer: PeerKey(1), signal } = output
            && let Signal::Slots { slots } = &*signal
        {
            states.extend(slots.iter().map(|slot| slot.state));
        }
    }
    assert_eq!(states, [SlotState::Empty, SlotState::Live, SlotState::Paused, SlotState::Live]);
}

#[test]
fn a_room_that_closes_tells_nobody_who_else_leaves() {
    let mut world = World::new(1);
    let now = world.now;
    room_of(&mut world, 3);
    while world.room.poll_output().is_some() {}
    world.room.handle(Input::Close(EndReason::ServerShutdown), now);
    let mut closed = 0;
    while let Some(output) = world.room.poll_output() {
        match output {
            Output::Close { peer, reason } => {
                // As the engine does.
                let usage = SessionUsage::default();
                world.room.handle(Input::Leave { seat: Seat(peer.0 as u16), reason, usage }, now);
                closed += 1;
            }
            Output::Tell { .. } => panic!("somebody was told what their own `leave` has to wait for"),
            _ => {}
        }
    }
    assert_eq!(closed, 3);
}
