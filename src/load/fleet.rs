//! All participants of the tool on one thread: who joins when, whose turn it is, who leaves.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::clock;
use super::counts::Counts;
use super::http::{Http, Reply};
use super::inbound::Inbound;
use super::link::{Buffers, Shared};
use super::options::Plan;
use super::outbound::Scratch;
use super::participant::{Media, Participant, Turn};
use crate::ids::IdSource;

const SECOND_NS: u64 = 1_000_000_000;
/// Joins that take longer have failed; the server gives up as well.
const JOIN_TIMEOUT_NS: u64 = 15 * SECOND_NS;
/// So long the same ones speak.
const SPEECH_NS: u64 = 10 * SECOND_NS;
/// Without a grid the thread sleeps in the kernel so long at most.
const WAIT: Duration = Duration::from_millis(1);
const EVENTS: usize = 4096;

/// See the module.
pub struct Fleet {
    pub plan: Plan,
    pub counts: Counts,
    pub rooms: Vec<String>,
    pub media: Media,
    shared: Shared,
    http: Http,
    replies: Receiver<Reply>,
    poll: Poll,
    events: Events,
    buffers: Buffers,
    scratch: Scratch,
    ids: IdSource,
    grid: Duration,
    /// By serial number; who left leaves a hole.
    participants: Vec<Option<Box<Participant>>>,
    /// When whose turn is, in nanoseconds since 1970.
    due_ns: Vec<u64>,
    /// Rooms and places that somebody shall take.
    vacant: VecDeque<(usize, usize)>,
    join_ns: u64,
    next_join_ns: u64,
    /// Zero for no churn.
    churn_ns: u64,
    next_churn_ns: u64,
    /// Datagrams a second of the last participant's flood, and how many have been sent since when.
    flood_pps: u64,
    flooded: (u64, u64),
    speech: u64,
    next_turn: Instant,
    /// Sessions whose end was asked for and not yet confirmed.
    pub leaving: usize,
    /// Why the last join failed.
    pub trouble: Option<String>,
}

/// What a fleet is made from.
pub struct Setup {
    pub plan: Plan,
    pub rooms: Vec<String>,
    pub media: Media,
    pub shared: Shared,
    pub http: Http,
    pub replies: Receiver<Reply>,
    pub ids: IdSource,
    pub grid: Duration,
    pub join_rate: f64,
}

impl Fleet {
    /// A fleet in which nobody has joined.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        let Setup { plan, rooms, media, shared, http, replies, ids, grid, join_rate } = setup;
        let mut vacant = VecDeque::new();
        for (room, shape) in plan.rooms.iter().enumerate() {
            vacant.extend((0..shape.participants).map(|place| (room, place)));
        }
        Ok(Self {
            plan,
            counts: Counts::default(),
            rooms,
            media,
            shared,
            http,
            replies,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            ids,
            grid,
            participants: Vec::new(),
            due_ns: Vec::new(),
            vacant,
            join_ns: (SECOND_NS as f64 / join_rate) as u64,
            next_join_ns: 0,
            churn_ns: 0,
            next_churn_ns: 0,
            flood_pps: 0,
            flooded: (0, 0),
            speech: 0,
            next_turn: clock::now(),
            leaving: 0,
            trouble: None,
        })
    }

    /// From now on so many a second leave and are replaced; none for 0.
    pub fn churn(&mut self, rate: f64) {
        self.churn_ns = if rate > 0.0 { (SECOND_NS as f64 / rate) as u64 } else { 0 };
        self.next_churn_ns = clock::wall_ns();
    }

    /// From now on the last participant floods the server; not for 0.
    pub fn flood(&mut self, pps: u64) {
        self.flood_pps = pps;
        self.flooded = (0, clock::wall_ns());
    }

    fn flood_due(&mut self, now_ns: u64) {
        let (sent, since_ns) = self.flooded;
        let due = (now_ns.saturating_sub(since_ns) as f64 * self.flood_pps as f64 / SECOND_NS as f64) as u64;
        let flooder = self.participants.iter().flatten().next_back();
        if let Some(flooder) = flooder.filter(|_| due > sent) {
            flooder.flood((due - sent) as usize);
            self.flooded.0 = due;
        }
    }

    /// Whether nobody is on the way.
    pub fn is_settled(&self) -> bool {
        self.vacant.is_empty() && self.present().all(|participant| participant.connected)
    }

    fn present(&self) -> impl Iterator<Item = &Participant> {
        self.participants.iter().flatten().map(|participant| &**participant)
    }

    pub fn connected(&self) -> usize {
        self.present().filter(|participant| participant.connected).count()
    }

    /// Counts from zero.
    pub fn begin_window(&mut self) {
        self.counts = Counts::default();
        let present = self.participants.iter_mut().flatten();
        present.filter_map(|participant| participant.inbound()).for_each(Inbound::begin_window);
    }

    /// Adds what only the end tells. The layers shown now, by stream.
    pub fn end_window(&mut self) -> [u64; super::counts::STREAMS] {
        let mut shown = [0; super::counts::STREAMS];
        let present = self.participants.iter_mut().flatten();
        for inbound in present.filter_map(|participant| participant.inbound()) {
            inbound.end_window(&mut self.counts);
            inbound.note_jitter(&mut self.counts);
            shown.iter_mut().zip(inbound.shown()).for_each(|(sum, shown)| *sum += shown);
        }
        shown
    }

    /// Waits for the grid and lets everybody do what is due.
    pub fn turn(&mut self) {
        if self.grid > Duration::ZERO {
            clock::sleep_until(self.next_turn);
        }
        let now = clock::now();
        self.counts.late_ns.record(now.saturating_duration_since(self.next_turn).as_nanos() as u64);
        self.next_turn = (self.next_turn + self.grid).max(now);
        let now_ns = clock::wall_ns();
        self.read_replies(now, now_ns);
        self.join_due(now, now_ns);
        self.churn_due(now_ns);
        self.flood_due(now_ns);
        self.speak(now_ns);
        self.receive(now, now_ns);
        for serial in 0..self.due_ns.len() {
            if self.due_ns.get(serial).is_some_and(|due| *due <= now_ns) {
                self.take_turn(serial, now, now_ns);
            }
        }
    }

    fn receive(&mut self, now: Instant, now_ns: u64) {
        let timeout = if self.grid > Duration::ZERO { Duration::ZERO } else { WAIT };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        // Interrupted is as good as nothing to read.
        if self.poll.poll(&mut events, Some(timeout)).is_ok() {
            for event in &events {
                let serial = event.token().0;
                let Some(Some(participant)) = self.participants.get_mut(serial) else { continue };
                let (scratch, counts) = (&mut self.scratch, &mut self.counts);
                let mut turn = Turn { now, now_ns, media: &self.media, scratch, counts };
                let alive = participant.receive(&mut self.buffers, &mut turn);
                self.schedule(serial, alive, now, now_ns);
            }
        }
        self.events = events;
    }

    fn take_turn(&mut self, serial: usize, now: Instant, now_ns: u64) {
        let Some(Some(participant)) = self.participants.get_mut(serial) else { return };
        let (scratch, counts) = (&mut self.scratch, &mut self.counts);
        let mut turn = Turn { now, now_ns, media: &self.media, scratch, counts };
        let alive = participant.turn(&mut turn);
        let late = !participant.connected && now_ns > participant.started_ns + JOIN_TIMEOUT_NS;
        self.schedule(serial, alive && !late, now, now_ns);
    }

    fn schedule(&mut self, serial: usize, alive: bool, now: Instant, now_ns: u64) {
        if !alive {
            self.trouble = Some("the connection was lost, or not made in 15 s".to_owned());
            self.fail(serial);
            return;
        }
        let Some(Some(participant)) = self.participants.get(serial) else { return };
        if let Some(due) = self.due_ns.get_mut(serial) {
            // A second at most, so that joins time out.
            *due = participant.due_ns(now, now_ns).min(now_ns + SECOND_NS);
        }
    }

    /// A participant's join has failed, or its connection.
    fn fail(&mut self, serial: usize) {
        self.counts.joins.failed += 1;
        self.part(serial);
    }

    /// A participant goes.
    fn part(&mut self, serial: usize) -> Option<(usize, usize)> {
        let mut participant = self.participants.get_mut(serial)?.take()?;
        if let Some(due) = self.due_ns.get_mut(serial) {
            *due = u64::MAX;
        }
        participant.close(self.poll.registry());
        if let Some(session_url) = participant.session_url.take() {
            self.leaving += 1;
            self.http.leave(session_url);
        }
        Some((participant.room, participant.place))
    }

    /// Everybody goes.
    pub fn part_all(&mut self) {
        self.vacant.clear();
        self.churn_ns = 0;
        for serial in 0..self.participants.len() {
            self.part(serial);
        }
    }

    fn read_replies(&mut self, now: Instant, now_ns: u64) {
        while let Ok(reply) = self.replies.try_recv() {
            match reply {
                Reply::Joined { serial, answer, session_url, posted_ns } => {
                    let serial = serial as usize;
                    let Some(Some(participant)) = self.participants.get_mut(serial) else {
                        self.leaving += 1;
                        self.http.leave(session_url);
                        continue;
                    };
                    let (media, ids) = (&self.media, &mut self.ids);
                    let taken = participant.accept(&answer, session_url, posted_ns, media, ids, now);
                    match taken {
                        Ok(()) => self.take_turn(serial, now, now_ns),
                        Err(error) => {
                            self.trouble = Some(format!("{error:#}"));
                            self.fail(serial);
                        }
                    }
                }
                Reply::Refused { serial, why } => {
                    self.trouble = Some(why);
                    self.fail(serial as usize);
                }
                Reply::Left { ended } => {
                    self.leaving = self.leaving.saturating_sub(1);
                    self.counts.left += u64::from(ended);
                }
            }
        }
    }

    fn join_due(&mut self, now: Instant, now_ns: u64) {
        self.next_join_ns = self.next_join_ns.max(now_ns.saturating_sub(self.join_ns));
        while self.next_join_ns <= now_ns {
            let Some((room, place)) = self.vacant.pop_front() else { return };
            self.next_join_ns += self.join_ns.max(1);
            let serial = self.participants.len() as u32;
            let wishes = self.plan.wishes(room, place);
            let registry = self.poll.registry();
            match Participant::open(&self.shared, wishes, registry, (serial, room, place), (now, now_ns)) {
                Ok(mut participant) => {
                    self.http.join(serial, self.rooms.get(room).map_or("", String::as_str), participant.offer());
                    participant.talk(self.speaks(room, place));
                    self.participants.push(Some(Box::new(participant)));
                    self.due_ns.push(now_ns + SECOND_NS);
                }
                Err(error) => {
                    self.trouble = Some(format!("{error:#}"));
                    self.counts.joins.failed += 1;
                }
            }
        }
    }

    fn churn_due(&mut self, now_ns: u64) {
        while self.churn_ns > 0 && self.next_churn_ns <= now_ns {
            self.next_churn_ns += self.churn_ns;
            let all = self.participants.len();
            let from = self.ids.bits() as usize % all.max(1);
            // The next one there is from a random place on.
            let settled = |serial: &usize| matches!(self.participants.get(*serial), Some(Some(one)) if one.connected);
            let Some(serial) = (from..all).chain(0..from).find(settled) else { return };
            let place = self.part(serial);
            self.vacant.extend(place);
        }
    }

    /// Whether it is this one's turn to speak.
    fn speaks(&self, room: usize, place: usize) -> bool {
        let talking = self.plan.talking(room);
        let microphones = self.plan.rooms.get(room).map_or(1, |room| room.microphones.max(1));
        (place + self.speech as usize % microphones * talking) % microphones < talking
    }

    fn speak(&mut self, now_ns: u64) {
        let speech = now_ns / SPEECH_NS;
        if speech == self.speech {
            return;
        }
        self.speech = speech;
        for serial in 0..self.participants.len() {
            let Some(Some(participant)) = self.participants.get(serial) else { continue };
            let speaks = self.speaks(participant.room, participant.place);
            if let Some(Some(participant)) = self.participants.get_mut(serial) {
                participant.talk(speaks);
            }
        }
    }
}
