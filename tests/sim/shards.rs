//! The server's shards: an engine each, with its sockets' addresses and its timer; and what they say to each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stube::command::{Command, Destination, SessionUsage, ShardIndex, Transport};
use stube::ids::{Identity, SessionId};
use stube::rtc::{Candidate, Crypto, Datagram, Engine, EngineConfig, Input, Output, Stats, Transfer, Transmit};

use crate::net::{Conditions, Host, Net, Packet};
use crate::tap::Header;
use crate::world::{Action, RESTART_TIMEOUT, SERVER, SERVER_V4, SERVER_V6, World};

/// So many of the others each hears at once.
pub const LOUDEST: usize = 4;

/// One shard.
pub struct Shard {
    pub engine: Engine,
    pub host: Host,
    addresses: [SocketAddr; 2],
    /// Datagrams that wait for the engine to wake.
    inbox: VecDeque<Packet>,
    inbox_due: Option<Instant>,
    /// The engine's timer, and when it is really called.
    timer: Option<(Instant, Instant)>,
    /// When what it said to each other shard will have been heard: in order.
    heard: BTreeMap<usize, Instant>,
}

/// What each session has been billed for in all, and what was sent to its client.
#[derive(Debug, Default)]
pub struct Bills {
    pub billed: BTreeMap<SessionId, SessionUsage>,
    pub sent: BTreeMap<SessionId, u64>,
    pub received: BTreeMap<SessionId, u64>,
    /// Of what was received, what the shard it came to knew as the session's.
    pub known: BTreeMap<SessionId, u64>,
    /// Sessions that have moved: what is on its way between shards at the end is nobody's.
    pub moved: BTreeSet<SessionId>,
}

impl Bills {
    /// A record ends.
    pub fn add(&mut self, session: SessionId, usage: &SessionUsage) {
        let sum = self.billed.entry(session).or_default();
        sum.duration += usage.duration;
        sum.rx_bytes += usage.rx_bytes;
        sum.tx_bytes += usage.tx_bytes;
    }

    /// What is wrong with the bill of a session that has just ended: it is for what went over the wire, to the byte.
    pub fn fault(&self, session: SessionId) -> Option<String> {
        let billed = self.billed.get(&session).copied().unwrap_or_default();
        let of = |bytes: &BTreeMap<SessionId, u64>| bytes.get(&session).copied().unwrap_or_default();
        let (known, sent) = (of(&self.known), of(&self.sent));
        let is_right = billed.tx_bytes == sent && (billed.rx_bytes == known || self.moved.contains(&session));
        (!is_right).then(|| {
            let (rx, tx) = (billed.rx_bytes, billed.tx_bytes);
            format!("{rx} bytes in and {tx} out are billed, {known} and {sent} went over the wire")
        })
    }
}

impl Shard {
    /// A shard on ports of its own.
    pub fn new(index: usize, crypto: &Crypto, seed: [u8; 32], net: &mut Net, start: Instant) -> Self {
        let addresses = [SERVER_V4, SERVER_V6].map(|text| {
            let mut address: SocketAddr = text.parse().expect("an address");
            address.set_port(address.port() + index as u16);
            address
        });
        let candidate = |address| Candidate { transport: Transport::Udp, address };
        let config = EngineConfig {
            shard: ShardIndex(index),
            candidates: addresses.map(candidate).to_vec(),
            crypto: crypto.clone(),
            seed,
            connect_timeout: Duration::from_secs(15),
            restart_timeout: RESTART_TIMEOUT,
            loudest: LOUDEST,
            since_1970: Duration::from_secs(1_700_000_000),
        };
        Self {
            engine: Engine::new(config, start),
            host: net.attach(&addresses.map(|own| (own, own)), Conditions::NONE, Conditions::NONE, start),
            addresses,
            inbox: VecDeque::new(),
            inbox_due: None,
            timer: None,
            heard: BTreeMap::new(),
        }
    }

    /// When it wakes next.
    pub fn due(&self) -> Option<Instant> {
        self.timer.map(|(_, fires)| fires).into_iter().chain(self.inbox_due).min()
    }

    /// A datagram has come, which it will take by then.
    pub fn arrive(&mut self, packet: Packet, due: Instant) {
        self.inbox.push_back(packet);
        self.inbox_due.get_or_insert(due);
    }
}

impl World {
    /// The first shard's; for scenarios of one shard.
    pub fn engine(&self) -> &Engine {
        &self.shards[0].engine
    }

    /// What forwarding came to, of all shards.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for stats in self.shards.iter().map(|shard| shard.engine.stats()) {
            sum.drops.merge(&stats.drops);
            sum.copies_due += stats.copies_due;
            sum.rtp_out.audio.packets += stats.rtp_out.audio.packets;
            sum.rtp_out.video.packets += stats.rtp_out.video.packets;
            sum.datagrams_relayed += stats.datagrams_relayed;
            sum.sessions_away += stats.sessions_away;
        }
        sum
    }

    /// The shard of a room.
    pub fn shard_of(&self, room: usize) -> usize {
        room % self.shards.len()
    }

    /// Which shard control sends this to: a room's own; a session's where it joined, for that one always finds it.
    pub fn shard_for(&self, command: &Command) -> usize {
        let room = match command {
            Command::OpenRoom { room, .. }
            | Command::MoveParticipant { room, .. }
            | Command::RemoveParticipant { room, .. } => Some(*room),
            Command::OpenSession(open) => Some(open.room),
            _ => None,
        };
        let of_session = command.session().and_then(|session| {
            let member = self.members.iter().find(|member| member.session == session)?;
            Some(self.rooms[member.joined_room])
        });
        let room = room.or(of_session).and_then(|room| self.rooms.iter().position(|known| *known == room));
        self.shard_of(room.unwrap_or(0))
    }

    /// Control moves a member to another room.
    pub fn relocate(&mut self, index: usize, room: usize) {
        let participant = self.id();
        let (from, to) = (self.rooms[self.members[index].room], self.rooms[room]);
        let to = Destination { shard: ShardIndex(self.shard_of(room)), room: to, participant };
        let member = &mut self.members[index];
        (member.room, member.participant) = (room, participant);
        let identity = Identity::from(member.identity.as_str());
        self.control(Command::MoveParticipant { room: from, identity, to });
    }

    /// Tells an engine something and does what follows.
    pub fn tell_shard(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].engine.handle(input, self.now);
        self.drain_shard(shard);
    }

    /// Lets a shard do what is due.
    pub fn turn_shard(&mut self, shard: usize) {
        if self.shards[shard].inbox_due.is_some_and(|due| due <= self.now) {
            self.feed_shard(shard);
        }
        if self.shards[shard].timer.is_some_and(|(_, fires)| fires <= self.now) {
            self.shards[shard].timer = None;
            self.shards[shard].engine.handle_timeout(self.now);
            self.drain_shard(shard);
            let due = self.shards[shard].engine.poll_timeout().filter(|(due, _)| *due <= self.now);
            if let Some((due, reason)) = due {
                let late = self.now - due;
                self.faults.about("engine").add(format!("the timer {reason:?} stays {late:?} behind: a busy loop"));
            }
        }
    }

    /// The engine wakes and takes all that has come, then everything it has to say.
    fn feed_shard(&mut self, shard: usize) {
        self.shards[shard].inbox_due = None;
        for packet in std::mem::take(&mut self.shards[shard].inbox) {
            if let Some(member) = self.member_at(packet.source) {
                self.tap.enters(member, packet.source, &packet.contents, self.now);
                let bytes = self.bills.received.entry(self.members[member].session).or_default();
                *bytes += packet.contents.len() as u64;
            }
            let datagram = Datagram {
                transport: Transport::Udp,
                source: packet.source,
                destination: packet.destination,
                contents: &packet.contents,
            };
            let is_known = self.shards[shard].engine.knows(&datagram);
            if let Some(member) = self.member_at(packet.source).filter(|_| is_known) {
                let bytes = self.bills.known.entry(self.members[member].session).or_default();
                *bytes += packet.contents.len() as u64;
            }
            self.shards[shard].engine.handle(Input::Datagram(datagram), self.now);
        }
        self.drain_shard(shard);
    }

    fn drain_shard(&mut self, shard: usize) {
        while let Some(output) = self.shards[shard].engine.poll_output(self.now) {
            match output {
                Output::Transmit(transmit) => {
                    transmit.datagrams().for_each(|datagram| self.transmit(&transmit, datagram));
                }
                Output::Reply { request, result } => self.reply(request, result),
                Output::Notice(notice) => self.notice(notice),
                Output::Transfer { to, transfer } => self.pass(shard, to.0, transfer),
            }
        }
        let Some((due, _)) = self.shards[shard].engine.poll_timeout() else {
            self.shards[shard].timer = None;
            return;
        };
        if self.shards[shard].timer.is_none_or(|(known, _)| known != due) {
            let late = if self.busy { self.rng.micros(1..3000) } else { Duration::from_micros(1) };
            self.shards[shard].timer = Some((due, due.max(self.now) + late));
        }
    }

    /// One engine tells another something, who hears it when it next wakes: soon, and in order.
    fn pass(&mut self, from: usize, to: usize, transfer: Transfer) {
        self.trace.event(self.now - self.start, from, &format!("{transfer:?} to {to}"));
        let soon = self.now + self.rng.micros(10..3000);
        let heard = self.shards[from].heard.entry(to).or_insert(soon);
        *heard = soon.max(*heard);
        let due = *heard;
        self.schedule(due, Action::Transfer { to, transfer });
    }

    fn transmit(&mut self, transmit: &Transmit, datagram: &[u8]) {
        self.trace.datagram(self.now - self.start, SERVER, datagram);
        if let Some(index) = self.member_at(transmit.destination) {
            let member = &self.members[index];
            if member.ended.is_none() {
                *self.bills.sent.entry(member.session).or_default() += datagram.len() as u64;
            }
            let faults = self.faults.about(format!("to {}", member.name()));
            let is_resend = |pt| member.client.is_resend(pt);
            self.tap.leaves(index, datagram, is_resend, self.now, faults);
            let header = Header::parse(datagram).filter(|header| !is_resend(header.payload_type));
            // What was written in the same moment may still leave.
            if header.is_some() && member.ended.is_some_and(|(at, _)| at < self.now) {
                faults.add("media is sent to one whose session has ended");
            }
        }
        // Whichever shard sends it, it leaves from the one whose address it names.
        let owner = self.shards.iter().find(|shard| shard.addresses.contains(&transmit.source));
        let host = owner.unwrap_or(&self.shards[0]).host;
        self.net.send(host, transmit.source, transmit.destination, datagram.to_vec(), self.now);
    }

    /// What is over: every gauge is at zero, and the engines have nothing left to wait for.
    pub fn check_empty(&mut self) {
        for shard in &self.shards {
            let stats = shard.engine.stats();
            let gauges = [
                ("rooms", stats.rooms),
                ("participants", stats.participants),
                ("sessions_connecting", stats.sessions_connecting),
                ("sessions_udp", stats.sessions_udp),
                ("sessions_tcp", stats.sessions_tcp),
                ("sessions_away", stats.sessions_away),
                ("streams_received", stats.streams_received),
                ("copies_waiting", stats.copies_waiting),
                ("audio tracks published", stats.tracks_published.audio),
                ("video tracks published", stats.tracks_published.video),
                ("audio tracks subscribed", stats.tracks_subscribed.audio),
                ("video tracks subscribed", stats.tracks_subscribed.video),
                ("addresses_ipv4", stats.addresses_ipv4),
                ("addresses_ipv6", stats.addresses_ipv6),
            ];
            for (name, gauge) in gauges.into_iter().filter(|(_, gauge)| *gauge != 0) {
                self.faults.about("engine").add(format!("all have left, but {name} is {gauge}"));
            }
            if let Some((_, reason)) = shard.engine.poll_timeout() {
                self.faults.about("engine").add(format!("all have left, but a timer {reason:?} runs"));
            }
            if !shard.engine.is_vacant() {
                self.faults.about("engine").add("all have left, but somebody is still known");
            }
        }
        for member in self.members.iter().filter(|member| member.ended.is_none()) {
            self.faults.about(member.name()).add("all have left, but SessionEnded never came");
        }
    }
}
