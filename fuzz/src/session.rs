//! An engine with one room, for targets that play a client.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::command::{
    Command, Grants, IceTag, OpenSession, Profile, Purpose, Refusal, Reply, RoomSettings, ShardIndex, Transport,
};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId, Text};
use crate::rtc::{Candidate, Crypto, Datagram, Engine, EngineConfig, Input, Output};

const ROOM: RoomId = RoomId::from_bits(1);
const SESSION: SessionId = SessionId::from_bits(2);

/// Certificates are slow to make.
static CRYPTO: LazyLock<Crypto> = LazyLock::new(|| Crypto::generate().expect("a certificate"));

/// The engine, and virtual time.
pub struct Session {
    engine: Engine,
    candidate: SocketAddr,
    pub now: Instant,
}

impl Default for Session {
    fn default() -> Self {
        let now = Instant::now();
        let candidate = SocketAddr::from(([192, 0, 2, 10], 7882));
        let config = EngineConfig {
            shard: ShardIndex(0),
            candidates: vec![Candidate { transport: Transport::Udp, address: candidate }],
            crypto: CRYPTO.clone(),
            seed: [1; 32],
            connect_timeout: Duration::from_secs(15),
            restart_timeout: Duration::from_secs(30),
            loudest: 4,
            since_1970: Duration::from_secs(1_700_000_000),
        };
        let mut session = Self { engine: Engine::new(config, now), candidate, now };
        let settings = RoomSettings {
            name: Text::default(),
            metadata: Text::default(),
            max_participants: 10,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_duration: None,
        };
        session.order(Command::OpenRoom { room: ROOM, settings }).expect("a new room");
        session
    }
}

impl Session {
    fn order(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.engine.handle(Input::Command { request: 7, command }, self.now);
        let mut reply = None;
        while let Some(output) = self.engine.poll_output(self.now) {
            if let Output::Reply { request: 7, result } = output {
                assert!(reply.replace(result).is_none(), "one answer");
            }
        }
        reply.expect("an answer")
    }

    /// Joins with this offer.
    pub fn join(&mut self, offer: &str) -> Result<Reply, Refusal> {
        let profile = Profile {
            identity: Identity::from("fuzz"),
            name: Text::default(),
            metadata: Text::default(),
            attributes: Default::default(),
            grants: Grants::default(),
        };
        let (participant, purpose) = (ParticipantId::from_bits(3), Purpose::Call);
        let open = OpenSession { room: ROOM, session: SESSION, participant, profile, purpose, offer: offer.into() };
        self.order(Command::OpenSession(Box::new(open)))
    }

    pub fn offer(&mut self, offer: &str) -> Result<Reply, Refusal> {
        self.order(Command::Offer { session: SESSION, offer: offer.into(), expected: IceTag::Any })
    }

    pub fn fragment(&mut self, fragment: &str) -> Result<Reply, Refusal> {
        self.order(Command::Fragment { session: SESSION, fragment: fragment.into(), expected: Some(IceTag::Any) })
    }

    /// Ends the session, after which nobody may be left.
    pub fn end(&mut self) {
        let _ = self.order(Command::CloseSession { session: SESSION });
        self.pass(Duration::from_secs(60));
        assert_eq!(self.engine.stats().participants, 0);
    }

    /// A datagram comes; how many datagrams and bytes go back to where it came from.
    pub fn receive(&mut self, source: SocketAddr, contents: &[u8]) -> (usize, usize) {
        let datagram = Datagram { transport: Transport::Udp, source, destination: self.candidate, contents };
        self.engine.handle(Input::Datagram(datagram), self.now);
        self.drain(source)
    }

    /// Lets time pass, and does what is due at its end.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.handle_timeout(self.now);
        self.drain(self.candidate);
    }

    fn drain(&mut self, to: SocketAddr) -> (usize, usize) {
        let (mut datagrams, mut bytes) = (0, 0);
        while let Some(output) = self.engine.poll_output(self.now) {
            if let Output::Transmit(transmit) = output {
                if transmit.destination == to {
                    datagrams += transmit.datagrams().count();
                    bytes += transmit.contents.len();
                }
                assert!(transmit.datagrams().all(|datagram| datagram.len() <= 1500));
                self.engine.recycle(transmit.contents);
            }
        }
        (datagrams, bytes)
    }
}
