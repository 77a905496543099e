//! The world: an engine, members and a network in virtual time. What is due next happens next; ties go by order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::crypto::CryptoProvider;
use stube::command::{Command, EndReason, Refusal, Reply, RoomSettings};
use stube::ids::{Id, IdSource, RoomId, Text};
use stube::rtc::{Crypto, Input, Transfer};

use crate::check::Faults;
use crate::client::{Change, Client};
use crate::member::{Joiner, Life, Member, mobile_address, public_address};
use crate::model::Model;
use crate::net::{Conditions, Host, Net, Packet};
use crate::rng::Rng;
use crate::seal;
use crate::shards::{Bills, Shard};
use crate::tap::Tap;
use crate::toy_dtls;
use crate::trace::Trace;

pub const RESTART_TIMEOUT: Duration = Duration::from_secs(8);
/// Longer than a scenario may leave a room empty before somebody comes again.
pub const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(20);
pub const SERVER_V4: &str = "198.51.100.1:7882";
pub const SERVER_V6: &str = "[2001:db8:ffff::1]:7882";
/// In the trace, the engines' index.
pub const SERVER: usize = usize::MAX;

/// Something that happens at a set time.
pub enum Action {
    /// One engine hears another.
    Transfer { to: usize, transfer: Transfer },
    /// An HTTP request reaches the engine.
    Order { member: usize, order: Order },
    /// Its answer reaches the client.
    Answer { member: usize, order: What, result: Result<Reply, Refusal> },
}

/// What a member asks over HTTP.
pub struct Order {
    what: What,
    command: Command,
}

/// Which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Join,
    Offer(Change),
    Close,
    Control,
    /// An order of the server's own side that must be refused.
    Refused,
}

/// Everything there is.
pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub seed: u64,
    pub rng: Rng,
    pub shards: Vec<Shard>,
    pub net: Net,
    pub members: Vec<Member>,
    pub rooms: Vec<RoomId>,
    pub model: Model,
    pub bills: Bills,
    /// Who is about to get another id that only the server draws.
    pub renamed: Option<usize>,
    pub tap: Tap,
    pub trace: Trace,
    pub faults: Faults,
    /// Late timers and batches, as a busy machine has them.
    pub busy: bool,
    ids: IdSource,
    crypto: Arc<CryptoProvider>,
    agenda: BTreeMap<(Instant, u64), Action>,
    /// Requests the engine has not answered yet.
    asked: BTreeMap<u64, (usize, What)>,
    counter: u64,
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut rng = Rng::new(seed, "engine");
    let mut bytes = [0; 32];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()));
    bytes
}

impl World {
    /// A server with so many rooms, and nobody there yet.
    pub fn new(seed: u64, rooms: usize, start: Instant) -> Self {
        Self::with_shards(seed, rooms, 1, start)
    }

    /// The same with so many shards; the rooms go to them in turn.
    pub fn with_shards(seed: u64, rooms: usize, shards: usize, start: Instant) -> Self {
        let crypto = toy_dtls::provider();
        let server = Crypto::from_provider((*crypto).clone(), toy_dtls::certificate("server"));
        let mut net = Net::new(seed);
        let shard = |index| Shard::new(index, &server, seed_bytes(seed ^ index as u64), &mut net, start);
        let shards = (0..shards).map(shard).collect();
        let mut world = Self {
            start,
            now: start,
            seed,
            rng: Rng::new(seed, "world"),
            shards,
            net,
            members: Vec::new(),
            rooms: Vec::new(),
            model: Model::default(),
            bills: Bills::default(),
            renamed: None,
            tap: Tap::default(),
            trace: Trace::new(),
            faults: Faults::default(),
            busy: false,
            ids: IdSource::from_seed(seed_bytes(!seed)),
            crypto,
            agenda: BTreeMap::new(),
            asked: BTreeMap::new(),
            counter: 0,
        };
        (0..rooms).for_each(|room| world.open_room(room));
        world
    }

    fn open_room(&mut self, number: usize) {
        let room = self.ids.id();
        self.rooms.push(room);
        let settings = RoomSettings {
            name: Text::from(format!("room {number}")),
            metadata: Text::default(),
            max_participants: 100,
            empty_timeout: Duration::from_secs(60),
            departure_timeout: DEPARTURE_TIMEOUT,
            max_duration: None,
        };
        self.control(Command::OpenRoom { room, settings });
    }

    /// An order of the server's own side, which takes no time.
    pub fn control(&mut self, command: Command) {
        self.order_now(SERVER, Order { what: What::Control, command });
    }

    /// The same, and it must be refused. Whom it is about may be known by a new name afterwards.
    pub fn expect_refusal(&mut self, command: Command, about: usize) {
        self.renamed = Some(about);
        self.order_now(SERVER, Order { what: What::Refused, command });
    }

    /// A fresh id.
    pub fn id<K>(&mut self) -> Id<K> {
        self.ids.id()
    }

    fn order_now(&mut self, member: usize, order: Order) {
        self.counter += 1;
        let request = self.counter;
        self.asked.insert(request, (member, order.what));
        let shard = self.shard_for(&order.command);
        self.tell_shard(shard, Input::Command { request, command: order.command });
    }

    /// Sends an HTTP request, which takes its time.
    pub fn order(&mut self, member: usize, what: What, command: Command) {
        let due = self.now + self.rng.millis(3..60);
        self.schedule(due, Action::Order { member, order: Order { what, command } });
    }

    pub fn schedule(&mut self, due: Instant, action: Action) {
        self.counter += 1;
        self.agenda.insert((due, self.counter), action);
    }

    /// Someone asks to join. Gives their index.
    pub fn join(&mut self, joiner: &Joiner, up: Conditions, down: Conditions) -> usize {
        let index = self.members.len();
        let config = joiner.client_config(index);
        let addresses = [(config.address, public_address(index, joiner.ipv6))];
        let host = self.net.attach(&addresses, up, down, self.now);
        let identity = config.identity.clone();
        let mut client = Client::new(config, self.crypto.clone(), self.seed, self.now);
        let offer = client.first_offer();
        let member = Member::new(client, host, identity, joiner, self.ids.id(), self.ids.id());
        let command = member.open_session(self.rooms[joiner.room], joiner, offer);
        self.members.push(member);
        self.order(index, What::Join, command);
        index
    }

    /// Changes something about a client, then lets the network have what it wants sent.
    pub fn with<R>(&mut self, index: usize, change: impl FnOnce(&mut Member, Instant, &mut Faults) -> R) -> R {
        let member = &mut self.members[index];
        let faults = self.faults.about(member.name());
        let outcome = change(member, self.now, faults);
        let elapsed = self.now - self.start;
        for outgoing in std::mem::take(&mut member.client.outbox) {
            self.trace.datagram(elapsed, index, &outgoing.contents);
            self.net.send(member.host, outgoing.source, outgoing.destination, outgoing.contents, self.now);
        }
        for (track, muted) in std::mem::take(&mut member.client.channel.mutes_told) {
            self.mute_seen(&track, muted);
        }
        outcome
    }

    /// Runs until so much time has passed since the start.
    pub fn run_until(&mut self, elapsed: Duration) {
        let end = self.start + elapsed;
        while let Some(next) = self.next_due().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            seal::set_elapsed(self.now - self.start);
            self.turn();
        }
        self.now = end;
        seal::set_elapsed(elapsed);
    }

    /// Runs on for so long.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now - self.start + span);
    }

    fn next_due(&self) -> Option<Instant> {
        let clients = self.members.iter().filter(|member| member.is_running()).map(|m| m.client.poll_timeout()).min();
        let agenda = self.agenda.first_key_value().map(|((due, _), _)| *due);
        let shards = self.shards.iter().filter_map(Shard::due).min();
        [clients, agenda, shards, self.net.poll_timeout()].into_iter().flatten().min()
    }

    fn turn(&mut self) {
        while let Some(((due, _), _)) = self.agenda.first_key_value()
            && *due <= self.now
        {
            let (_, action) = self.agenda.pop_first().expect("there is a first");
            self.act(action);
        }
        while let Some((host, packet)) = self.net.poll(self.now) {
            self.arrive(host, packet);
        }
        (0..self.shards.len()).for_each(|shard| self.turn_shard(shard));
        for index in 0..self.members.len() {
            let member = &self.members[index];
            if member.is_running() && member.client.poll_timeout() <= self.now {
                self.with(index, |member, now, faults| member.client.handle_timeout(now, faults));
                self.watch_path(index);
            }
        }
    }

    fn arrive(&mut self, host: Host, packet: Packet) {
        if let Some(shard) = self.shards.iter().position(|shard| shard.host == host) {
            let late = if self.busy { self.rng.micros(0..2000) } else { Duration::ZERO };
            self.shards[shard].arrive(packet, self.now + late);
        } else {
            let index = self.members.iter().position(|member| member.host == host).expect("a member's host");
            if self.members[index].is_running() {
                self.with(index, |member, now, faults| member.client.receive(&packet, now, faults));
            }
        }
    }

    /// Whose address the world sees here.
    pub fn member_at(&self, address: SocketAddr) -> Option<usize> {
        let seen = |index: &usize| {
            let fixed = [false, true].iter().any(|v6| public_address(*index, *v6).ip() == address.ip());
            fixed || mobile_address(*index) == address.ip()
        };
        (0..self.members.len()).find(seen)
    }

    pub fn reply(&mut self, request: u64, result: Result<Reply, Refusal>) {
        let Some((member, what)) = self.asked.remove(&request) else {
            return self.faults.about("engine").add("an answer to nothing");
        };
        if what == What::Refused {
            if result.is_ok() {
                self.faults.about("control").add("was not refused");
            }
            return;
        }
        if what == What::Control {
            if let Err(refusal) = result {
                self.faults.about("control").add(format!("refused: {refusal}"));
            }
            return;
        }
        let due = self.now + self.rng.millis(3..60);
        self.schedule(due, Action::Answer { member, order: what, result });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Transfer { to, transfer } => self.tell_shard(to, Input::Transfer(transfer)),
            Action::Order { member, order } => self.order_now(member, order),
            Action::Answer { member, order, result } => self.answered(member, order, result),
        }
    }

    fn answered(&mut self, index: usize, what: What, result: Result<Reply, Refusal>) {
        let said = format!("{what:?} answered: {}", result.is_ok());
        self.trace.event(self.now - self.start, index, &said);
        if !self.members[index].is_running() {
            return;
        }
        self.with(index, |member, now, faults| match result {
            Ok(Reply::Answer { sdp, ice }) => {
                if member.life == Life::Leaving {
                    return;
                }
                member.ice = ice;
                member.life = Life::In;
                member.client.handle_answer(&sdp, now, faults);
            }
            Ok(_) if what == What::Close => {}
            Ok(other) => faults.add(format!("{what:?} was answered {other:?}")),
            Err(refusal) => {
                member.client.offer_refused();
                // The server may have ended the session meanwhile.
                if member.ended.is_none() {
                    faults.add(format!("{what:?} was refused: {refusal}"));
                }
            }
        });
    }

    /// Why a session ended is only right if the member did something of the kind.
    pub fn check_end(&mut self, index: usize, reason: EndReason) {
        let member = &self.members[index];
        let replaced = self.members[index + 1..].iter().any(|later| later.identity == member.identity);
        let expected = match reason {
            EndReason::ClientLeft => member.life == Life::Leaving,
            EndReason::DuplicateIdentity => replaced,
            EndReason::ConnectTimeout | EndReason::ConnectionLost => {
                member.life == Life::Crashed || member.life == Life::Leaving || member.may_be_lost
            }
            EndReason::ParticipantRemoved => member.removed,
            EndReason::RoomDeleted | EndReason::ServerShutdown => true,
            _ => false,
        };
        if !expected {
            let life = member.life;
            self.faults.about(member.name()).add(format!("ended with {reason:?} while {life:?}"));
        }
    }
}
