//! The book against a model: what it writes, however often writing fails, adds up to what was used.

use std::time::{Duration, Instant};

use super::*;
use crate::command::{MediaKind, Source};
use crate::ids::TrackId;
use crate::ledger::record::DAY_MS;

const TENANTS: [&str; 2] = ["a", "b"];

/// The book, two clocks, and the rows that a store would hold.
struct World {
    book: Book,
    start: Instant,
    monotonic_ms: u64,
    wall_ms: u64,
    random: IdSource,
    sessions: BTreeMap<String, SessionRow>,
    calls: BTreeMap<String, CallRow>,
    sums: BTreeMap<(String, Day), [u64; 5]>,
    events: Vec<(RoomId, u64)>,
    last_batch: u64,
}

impl World {
    fn new(seed: u8) -> Self {
        let webhooks = TENANTS.map(|tenant| (Tenant::from(tenant), vec!["https://x".to_owned()]));
        Self {
            book: Book::new([seed; 32], webhooks.into(), BTreeMap::new()),
            start: Instant::now(),
            monotonic_ms: 0,
            wall_ms: 20_000 * DAY_MS - 60_000,
            random: IdSource::from_seed([seed ^ 255; 32]),
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            sums: BTreeMap::new(),
            events: Vec::new(),
            last_batch: 0,
        }
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.random.bits() % below
    }

    fn now(&self) -> Moment {
        Moment { at: self.start + Duration::from_millis(self.monotonic_ms), wall: UnixMs(self.wall_ms) }
    }

    /// Time goes on; now and then somebody sets the wall clock by an hour.
    fn pass(&mut self) {
        let step = u64::from(self.draw(20_000));
        self.monotonic_ms += step;
        self.wall_ms += step;
        match self.draw(40) {
            0 => self.wall_ms += 3_600_000,
            1 => self.wall_ms -= 3_600_000,
            _ => {}
        }
    }

    /// A write that works, fails, or works without anybody hearing of it.
    fn write(&mut self) {
        let Some(batch) = self.book.batch() else { return };
        let fate = self.draw(4);
        if fate == 0 {
            return;
        }
        if batch.number > self.last_batch {
            self.last_batch = batch.number;
            self.store(batch);
        }
        if fate > 1 {
            self.book.written();
        }
    }

    fn store(&mut self, batch: Batch) {
        self.sessions.extend(batch.sessions.into_iter().map(|row| (row.record.to_string(), row)));
        self.calls.extend(batch.calls.into_iter().map(|row| (row.call.to_string(), row)));
        for sum in batch.sums {
            let kept = self.sums.entry((sum.tenant.key().to_owned(), sum.day)).or_default();
            let new = [sum.participant_ms, sum.rounded_up_minutes, sum.calls, sum.egress_bytes, sum.ingress_bytes];
            kept.iter_mut().zip(new).for_each(|(kept, new)| *kept += new);
        }
        self.events.extend(batch.events.into_iter().filter_map(|event| Some((event.room?, event.seq))));
    }
}

/// Someone in a call, as the model knows them.
struct Member {
    session: SessionId,
    participant: ParticipantId,
    room: RoomId,
    joined_ms: u64,
    bytes: u64,
}

fn admission(tenant: &str, room: RoomId, participant: ParticipantId) -> Admission {
    let person = Person { identity: format!("p{participant}").into(), ..Person::nobody() };
    Admission { tenant: tenant.into(), room, participant, person }
}

fn allocated(room: RoomId, tenant: &str) -> RoomRow {
    let settings = RoomSettings {
        name: "r".into(),
        metadata: "".into(),
        max_participants: 9,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: None,
    };
    RoomRow { room, tenant: tenant.into(), settings, created_at: UnixMs(1), seq: 0 }
}

fn used(world: &World, member: &Member) -> SessionUsage {
    let duration = Duration::from_millis(world.monotonic_ms - member.joined_ms);
    SessionUsage { duration, rx_bytes: member.bytes, tx_bytes: 2 * member.bytes, ..SessionUsage::default() }
}

fn play(seed: u8) {
    let mut world = World::new(seed);
    let rooms: Vec<(RoomId, &str)> = (0..4).map(|n| (world.random.id(), TENANTS[n % 2])).collect();
    for (room, tenant) in &rooms {
        let now = world.now();
        world.book.enter(Entry::RoomOpened { row: allocated(*room, tenant), now });
    }
    let mut calls: BTreeMap<RoomId, CallId> = BTreeMap::new();
    let mut members: Vec<Member> = Vec::new();
    let (mut total_ms, mut total_bytes, mut joins) = ([0; 2], [0; 2], 0);
    for step in 0..900 {
        world.pass();
        let bytes = u64::from(world.draw(5_000));
        members.iter_mut().for_each(|member| member.bytes += bytes);
        let now = world.now();
        if step < 500 && world.draw(3) == 0 {
            let (room, tenant) = rooms[world.draw(4) as usize];
            let (session, participant) = (world.random.id(), world.random.id());
            world.book.enter(Entry::Admitted { session, admission: admission(tenant, room, participant) });
            if let std::collections::btree_map::Entry::Vacant(free) = calls.entry(room) {
                let call = *free.insert(world.random.id());
                world.book.enter(Entry::CallStarted { room, call, now });
            }
            let transport = Transport::Udp;
            world.book.enter(Entry::Joined { room, participant, session, transport, now });
            members.push(Member { session, participant, room, joined_ms: world.monotonic_ms, bytes: 0 });
            joins += 1;
        } else if !members.is_empty() && (step >= 500 || world.draw(3) == 0) {
            let member = members.swap_remove(world.draw(members.len() as u32) as usize);
            let usage = used(&world, &member);
            let tenant = rooms.iter().position(|(room, _)| *room == member.room).unwrap_or(0) % 2;
            total_ms[tenant] += usage.duration.as_millis() as u64;
            total_bytes[tenant] += usage.rx_bytes;
            let is_last = !members.iter().any(|other| other.room == member.room);
            world.book.enter(Entry::Ended { session: member.session, reason: EndReason::ClientLeft, usage, now });
            if let Some(call) = calls.get(&member.room).copied().filter(|_| is_last) {
                calls.remove(&member.room);
                world.book.enter(Entry::CallEnded { room: member.room, call, reason: None, now });
            }
        }
        if world.draw(3) == 0 {
            let usages = members.iter().map(|member| (member.participant, used(&world, member))).collect();
            world.book.enter(Entry::Checkpoint { usages, asked: now.at, complete: true, now });
        }
        world.write();
    }
    assert!(members.is_empty(), "the last steps end everybody");
    while world.book.is_urgent() {
        world.write();
    }
    assert_eq!(world.sessions.len(), joins);
    hold_against_the_model(&world, &rooms, total_ms, total_bytes);
}

/// What was written is what the model has used.
fn hold_against_the_model(world: &World, rooms: &[(RoomId, &str)], total_ms: [u64; 2], total_bytes: [u64; 2]) {
    assert!(world.sessions.values().all(|row| row.ended_at.is_some()));
    assert!(world.calls.values().all(|row| row.ended_at.is_some()));
    for (index, tenant) in TENANTS.into_iter().enumerate() {
        let rows: Vec<_> = world.sessions.values().filter(|row| row.tenant.key() == tenant).collect();
        let of_rows = |value: fn(&SessionRow) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
        let sum = |place: usize| {
            let days = world.sums.iter().filter(|((of, _), _)| of == tenant);
            days.map(|(_, sums)| sums[place]).sum::<u64>()
        };
        assert_eq!(of_rows(|row| row.usage.duration_ms), total_ms[index], "durations are the model's");
        assert_eq!(of_rows(|row| row.usage.rx_bytes), total_bytes[index]);
        assert_eq!(sum(0), of_rows(|row| row.usage.duration_ms), "sums are those of the records");
        assert_eq!(sum(1), of_rows(|row| row.usage.duration_ms.div_ceil(60_000)));
        assert_eq!(sum(3), of_rows(|row| row.usage.tx_bytes));
        assert_eq!(sum(4), of_rows(|row| row.usage.rx_bytes));
        let own: Vec<_> = world.calls.values().filter(|row| row.tenant.key() == tenant).collect();
        assert_eq!(sum(2), own.len() as u64);
        assert_eq!(own.iter().map(|row| row.rx_bytes).sum::<u64>(), total_bytes[index]);
    }
    for (room, _) in rooms {
        let seqs: Vec<u64> = world.events.iter().filter(|(of, _)| of == room).map(|(_, seq)| *seq).collect();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "each event once, in order");
    }
    assert!(world.book.open_sessions() == 0 && world.book.waiting() == 0 && world.book.lost() == 0);
}

#[test]
fn what_is_written_adds_up_however_often_writing_fails() {
    (0..20).for_each(play);
}

#[test]
fn what_was_used_before_a_move_is_not_charged_to_the_record_after_it() {
    // The shards are asked one after the other while somebody goes from one to the next, and notices may come behind.
    for notices_first in [true, false] {
        let mut world = World::new(8);
        let [from, to]: [RoomId; 2] = [world.random.id(), world.random.id()];
        let (session, here, there) = (world.random.id(), world.random.id(), world.random.id());
        let now = world.now();
        for room in [from, to] {
            world.book.enter(Entry::RoomOpened { row: allocated(room, "a"), now });
            let call = world.random.id();
            world.book.enter(Entry::CallStarted { room, call, now });
        }
        world.book.enter(Entry::Admitted { session, admission: admission("a", from, here) });
        let transport = Transport::Udp;
        world.book.enter(Entry::Joined { room: from, participant: here, session, transport, now });
        world.monotonic_ms += 61_000;
        let now = world.now();
        let usage = |seconds, tx_bytes| SessionUsage {
            duration: Duration::from_secs(seconds),
            tx_bytes,
            ..SessionUsage::default()
        };
        let usages = vec![(here, usage(60, 6_000)), (there, usage(1, 100))];
        let checkpoint = Entry::Checkpoint { usages, asked: world.start, complete: true, now };
        let moved = Entry::Ended { session, reason: EndReason::Moved, usage: usage(60, 6_000), now };
        let joined = Entry::Joined { room: to, participant: there, session, transport, now };
        let entries = if notices_first { [moved, joined, checkpoint] } else { [checkpoint, moved, joined] };
        entries.into_iter().for_each(|entry| world.book.enter(entry));
        world.book.enter(Entry::Ended { session, reason: EndReason::ClientLeft, usage: usage(2, 200), now });
        let batch = world.book.batch().expect("rows");
        let used: Vec<_> = batch.sessions.iter().map(|row| (row.usage.duration_ms, row.usage.tx_bytes)).collect();
        assert_eq!(used, [(60_000, 6_000), (2_000, 200)]);
        assert_eq!(
            batch.sums.iter().map(|sum| (sum.participant_ms, sum.egress_bytes)).collect::<Vec<_>>(),
            [(62_000, 6_200)]
        );
    }
}

#[test]
fn a_session_nobody_reports_any_more_ends_with_what_is_known() {
    let mut world = World::new(7);
    let (room, call, session, participant) =
        (world.random.id(), world.random.id(), world.random.id(), world.random.id());
    let now = world.now();
    world.book.enter(Entry::RoomOpened { row: allocated(room, "a"), now });
    world.book.enter(Entry::Admitted { session, admission: admission("a", room, participant) });
    world.book.enter(Entry::CallStarted { room, call, now });
    world.book.enter(Entry::Joined { room, participant, session, transport: Transport::Tcp, now });
    for complete in [false, true, true] {
        assert_eq!(world.book.open_sessions(), 1);
        world.monotonic_ms += 10_000;
        let now = world.now();
        world.book.enter(Entry::Checkpoint { usages: Vec::new(), asked: now.at, complete, now });
    }
    assert_eq!(world.book.open_sessions(), 0);
    let row = world.book.batch().and_then(|batch| batch.sessions.into_iter().next()).expect("a row");
    assert_eq!(row.end_reason.as_deref(), Some("internal_error"));
}

#[test]
fn nobody_is_told_of_those_who_were_forgotten() {
    let mut world = World::new(9);
    let (room, session, participant) = (world.random.id(), world.random.id(), world.random.id());
    let now = world.now();
    world.book.enter(Entry::RoomOpened { row: allocated(room, "a"), now });
    let admitted = admission("a", room, participant);
    let identity = admitted.person.identity.clone();
    world.book.enter(Entry::Admitted { session, admission: admitted });
    world.book.enter(Entry::CallStarted { room, call: world.random.id(), now });
    world.book.enter(Entry::Joined { room, participant, session, transport: Transport::Udp, now });
    assert!(world.book.batch().is_some_and(|batch| batch.events.iter().any(|event| event.identity.is_some())));
    world.book.forget(&"a".into(), std::slice::from_ref(&identity));
    let track = TrackInfo {
        sid: TrackId::from_bits(1),
        kind: MediaKind::Audio,
        source: Source::Microphone,
        muted: false,
        codec: "opus",
        layers: Vec::new(),
    };
    world.book.enter(Entry::Published { room, participant, track, now });
    let usage = SessionUsage::default();
    world.book.enter(Entry::Ended { session, reason: EndReason::ConsentWithdrawn, usage, now });
    for _ in 0..2 {
        let batch = world.book.batch().expect("something to write");
        assert!(batch.sessions.iter().all(|row| row.person.is_none()));
        assert!(
            batch.events.iter().all(|event| { event.identity.is_none() && !event.body.contains(identity.as_str()) })
        );
        world.book.written();
    }
    assert!(world.book.batch().is_none());
}

#[test]
fn a_room_goes_only_when_it_ends_and_its_events_go_on_counting() {
    let mut world = World::new(11);
    let now = world.now();
    let rooms: Vec<RoomId> = (0..3).map(|_| world.random.id()).collect();
    for room in &rooms {
        world.book.enter(Entry::RoomOpened { row: allocated(*room, "a"), now });
    }
    let first = world.book.batch().expect("rooms");
    assert!(first.rooms.len() == 3 && first.rooms.iter().all(|row| row.seq == 1) && first.ended_rooms.is_empty());
    world.book.written();
    assert!(!world.book.is_urgent());
    let settings = RoomSettings { max_participants: 2, ..allocated(rooms[0], "a").settings };
    world.book.enter(Entry::RoomChanged { room: rooms[0], settings: settings.clone() });
    assert!(world.book.is_urgent());
    for (room, reason) in [(rooms[1], EndReason::RoomDeleted), (rooms[2], EndReason::ServerShutdown)] {
        world.book.enter(Entry::RoomFinished { room, reason, now });
    }
    let second = world.book.batch().expect("changes");
    assert!(second.rooms.len() == 1 && second.rooms[0].settings == settings);
    assert_eq!((second.ended_rooms, second.events.len()), (vec![rooms[1]], 1));
    world.book.written();
    // The next run.
    world.book.enter(Entry::RoomRestored { row: first.rooms[0].clone() });
    assert!(!world.book.is_urgent());
    let room = first.rooms[0].room;
    world.book.enter(Entry::RoomFinished { room, reason: EndReason::RoomEmpty, now });
    assert_eq!(world.book.batch().expect("its end").events[0].seq, 2);
}
