//! What forwarding costs without sockets: a room alone, and the whole engine with real str0m clients around it.
//!
//! `cargo bench --bench forward` prints nanoseconds of the thread's CPU time per forwarded packet and, for the engine,
//! the ratio to opening, rewriting and sealing alone (`floor`, no send), measured in the same run: compare ratios.
//! With `--test`, or under `cargo test --benches`, it only shows that it works.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput};
use stube::command::{
    Command, Grants, MediaKind, OpenSession, Profile, Purpose, Reply, RoomSettings, ShardIndex, Transport,
};
use stube::ids::{IdSource, Identity, RoomId, Text};
use stube::media::{
    Codec, EncodingIndex, Frame, Input, Join, NewSlot, NewTrack, Output, Packet, PeerKey, Room, Seat, TrackKey,
};
use stube::rtc::{self, Candidate, Crypto, Engine, EngineConfig};

#[path = "forward/client.rs"]
mod client;

use client::Client;

const ROOM: RoomId = RoomId::from_bits(1);
const PAYLOAD_BYTES: usize = 1100;
const HEADER_BYTES: usize = 24;
const FRAME_PACKETS: u32 = 5;
/// 45 frames of five packets a second are 2 Mbit/s.
const FRAME: Duration = Duration::from_micros(22_222);

fn settings() -> RoomSettings {
    RoomSettings {
        name: Text::default(),
        metadata: Text::default(),
        max_participants: 1000,
        empty_timeout: Duration::from_secs(3600),
        departure_timeout: Duration::from_secs(3600),
        max_duration: None,
    }
}

fn profile(who: usize) -> Profile {
    Profile {
        identity: Identity::from(who.to_string()),
        name: Text::default(),
        metadata: Text::default(),
        attributes: Default::default(),
        grants: Grants::default(),
    }
}

// ---- the room alone --------------------------------------------------------------------------------------------------

/// A room in which the first `publishers` of `people` publish video and everyone has a slot for each of them.
fn room(people: usize, publishers: usize, now: Instant) -> Room {
    let mut room = Room::new(ROOM, settings(), 4, now);
    let mut ids = IdSource::from_seed([5; 32]);
    for who in 0..people {
        let seat = Seat(who as u16);
        let (participant, session, call) = (ids.id(), ids.id(), ids.id());
        let (peer, purpose, profile) = (PeerKey(who as u32), Purpose::Call, profile(who));
        room.handle(Input::Join(Box::new(Join { peer, participant, session, profile, purpose, call })), now);
        let codecs = [Codec::Vp8].into_iter().collect();
        let slot = |index: usize| NewSlot { mid: index.to_string(), kind: MediaKind::Video, codecs, first_seq: 1 };
        room.handle(Input::Slots { seat, slots: (0..publishers).map(slot).collect() }, now);
        room.handle(Input::Connected { seat, took: Duration::ZERO, transport: Transport::Udp }, now);
        if who < publishers {
            let (sid, mid, rids) = (ids.id(), "0".into(), Vec::new());
            let track = NewTrack { sid, mid, kind: MediaKind::Video, position: 0, codec: Codec::Vp8, rids };
            room.handle(Input::Publish { seat, track }, now);
        }
    }
    while room.poll_output().is_some() {}
    room
}

fn send(room: &mut Room, track: u32, seq: u64, now: Instant) -> u64 {
    let packet = Packet {
        ssrc: track + 1,
        seq,
        timestamp: seq as u32 * 600,
        codec: Codec::Vp8,
        bytes: PAYLOAD_BYTES,
        keyframe: seq == 1,
        level: None,
        captured_at: now,
        frame: Frame::default(),
        size: None,
    };
    room.handle(Input::Packets { track: TrackKey(track), encoding: EncodingIndex(0), packets: &[packet] }, now);
    let mut forwarded = 0;
    while let Some(output) = room.poll_output() {
        forwarded += u64::from(matches!(black_box(output), Output::Forward(_)));
    }
    forwarded
}

fn bench_room(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room");
    for (name, people, publishers) in [("1 to 10", 11, 1), ("1 to 50", 51, 1), ("5 to 5", 5, 5)] {
        let now = Instant::now();
        let mut room = room(people, publishers, now);
        let (mut seq, mut track) = (0, 0);
        let copies = (people - 1) as u64;
        group.throughput(Throughput::Elements(copies));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                seq += u64::from(track == 0);
                let forwarded = send(&mut room, track, seq, now);
                track = (track + 1) % publishers as u32;
                assert_eq!(forwarded, copies);
            });
        });
    }
    group.finish();
}

// ---- the engine with real clients ------------------------------------------------------------------------------------

/// An engine, its clients, and virtual time.
struct Call {
    engine: Engine,
    clients: Vec<Client>,
    now: Instant,
    /// Time spent inside the engine.
    spent: Duration,
}

impl Call {
    fn new(people: usize, publishers: usize) -> Self {
        let now = Instant::now();
        let address = "192.0.2.10:7882".parse().expect("an address");
        let config = EngineConfig {
            shard: ShardIndex(0),
            candidates: vec![Candidate { transport: Transport::Udp, address }],
            crypto: Crypto::generate().expect("a certificate"),
            seed: [9; 32],
            connect_timeout: Duration::from_secs(15),
            restart_timeout: Duration::from_secs(30),
            loudest: 4,
            since_1970: Duration::from_secs(1_700_000_000),
        };
        let mut call = Self { engine: Engine::new(config, now), clients: Vec::new(), now, spent: Duration::ZERO };
        call.order(Command::OpenRoom { room: ROOM, settings: settings() });
        for who in 0..people {
            call.join(who, who < publishers, publishers);
        }
        for _ in 0..400 {
            call.pass(Duration::from_millis(10));
        }
        assert!(call.clients.iter().all(|client| client.connected), "everyone is connected");
        call
    }

    fn order(&mut self, command: Command) -> Reply {
        self.engine.handle(rtc::Input::Command { request: 1, command }, self.now);
        let mut reply = None;
        while let Some(output) = self.engine.poll_output(self.now) {
            if let rtc::Output::Reply { result, .. } = output {
                reply = Some(result.expect("not refused"));
            }
        }
        reply.expect("an answer")
    }

    fn join(&mut self, who: usize, publishes: bool, slots: usize) {
        let address = std::net::SocketAddr::from(([198, 51, 100, 1], 5000 + who as u16));
        let (mut client, offer) = Client::at(address, publishes, slots, self.now);
        let mut ids = IdSource::from_seed([who as u8; 32]);
        let open = OpenSession {
            room: ROOM,
            session: ids.id(),
            participant: ids.id(),
            profile: profile(who),
            purpose: Purpose::Call,
            offer,
        };
        match self.order(Command::OpenSession(Box::new(open))) {
            Reply::Answer { sdp, .. } => client.accept(&sdp),
            other => panic!("not an answer: {other:?}"),
        }
        self.clients.push(client);
    }

    /// Lets time pass: clients send what they have, the engine takes it and sends, clients receive.
    /// Returns how many media packets the clients received.
    fn pass(&mut self, step: Duration) -> u64 {
        self.now += step;
        let now = self.now;
        let inbox: Vec<_> = self.clients.iter_mut().flat_map(|client| client.poll(now)).collect();
        let mut outbox = Vec::new();
        let started = Instant::now();
        for (source, destination, contents) in &inbox {
            let datagram =
                rtc::Datagram { transport: Transport::Udp, source: *source, destination: *destination, contents };
            self.engine.handle(rtc::Input::Datagram(datagram), now);
        }
        if self.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        while let Some(output) = self.engine.poll_output(now) {
            if let rtc::Output::Transmit(transmit) = output {
                outbox.push(transmit);
            }
        }
        self.spent += started.elapsed();
        for transmit in &outbox {
            let to = self.clients.iter_mut().find(|client| client.address == transmit.destination);
            let to = to.expect("a known client");
            transmit.datagrams().for_each(|datagram| to.receive(transmit.source, datagram, now));
        }
        self.clients.iter_mut().map(Client::take_received).sum()
    }

    /// One frame of every publisher; the time it took the engine, and the packets that arrived.
    fn frame(&mut self) -> (Duration, u64) {
        for client in &mut self.clients {
            client.publish_frame(FRAME_PACKETS, PAYLOAD_BYTES, self.now);
        }
        self.spent = Duration::ZERO;
        let received = self.pass(FRAME);
        (self.spent, received)
    }
}

/// Opening one packet and sealing it once a subscriber, per forwarded packet.
fn floor_ns(subscribers: usize, rounds: u32) -> f64 {
    let key = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
    let nonce = || Nonce::assume_unique_for_key([1; 12]);
    let (incoming, keys): (_, Vec<_>) = (key(), (0..subscribers).map(|_| key()).collect());
    let mut packet = vec![3; HEADER_BYTES + PAYLOAD_BYTES + MAX_TAG_LEN];
    let (mut plain, mut out) = (vec![0; PAYLOAD_BYTES], packet.clone());
    let tag = {
        let (header, body) = packet.split_at_mut(HEADER_BYTES);
        incoming
            .seal_in_place_separate_tag(nonce(), Aad::from(&*header), &mut body[..PAYLOAD_BYTES])
            .expect("sizes fit")
    };
    let started = Instant::now();
    for _ in 0..rounds {
        let (header, body) = packet.split_at(HEADER_BYTES);
        let sealed = &body[..PAYLOAD_BYTES];
        incoming.open_separate_gather(nonce(), Aad::from(header), sealed, tag.as_ref(), &mut plain).expect("authentic");
        for key in &keys {
            let (header, rest) = out.split_at_mut(HEADER_BYTES);
            let (cipher, tag) = rest.split_at_mut(PAYLOAD_BYTES);
            let aad = Aad::from(&*header);
            key.seal_out_of_place_scatter(nonce(), aad, &plain, cipher, &[], tag).expect("sizes fit");
        }
        black_box(&out);
    }
    started.elapsed().as_nanos() as f64 / (f64::from(rounds) * subscribers as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Engine and floor in turns, so that a busy machine hits both alike.
fn engine_table(measure: bool) {
    let (rounds, frames) = if measure { (15, 45) } else { (2, 3) };
    println!("engine: video, frames of {FRAME_PACKETS} packets of {PAYLOAD_BYTES} B, feedback included, no sockets");
    println!("{:>8}  {:>12}  {:>12}  {:>6}", "shape", "engine ns", "floor ns", "ratio");
    for (name, people, publishers) in [("1 to 10", 11, 1), ("1 to 50", 51, 1), ("5 to 5", 5, 5)] {
        let mut call = Call::new(people, publishers);
        // The first frames wait for keyframes and for the estimate, which begins at 1 Mbit/s.
        for _ in 0..200 {
            call.frame();
        }
        let (mut engine, mut floor, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (mut spent, mut received) = (Duration::ZERO, 0);
            for _ in 0..frames {
                let (time, packets) = call.frame();
                spent += time;
                received += packets;
            }
            let expected = frames * u64::from(FRAME_PACKETS) * (publishers * (people - 1)) as u64;
            assert!(received >= expected * 9 / 10, "{received} of {expected} packets arrived");
            engine.push(spent.as_nanos() as f64 / received as f64);
            floor.push(floor_ns(people - 1, if measure { 2000 } else { 10 }));
            ratio.push(engine[engine.len() - 1] / floor[floor.len() - 1]);
        }
        println!("{name:>8}  {:>12.0}  {:>12.0}  {:>6.1}", median(engine), median(floor), median(ratio));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let measure = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let mut criterion = Criterion::default().configure_from_args();
    bench_room(&mut criterion);
    criterion.final_summary();
    engine_table(measure);
}
