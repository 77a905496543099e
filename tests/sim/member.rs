//! A participant of the simulation: the client, its place in the network, and what the server may know of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use stube::command::{Command, EndReason, Grants, OpenSession, Profile, Purpose};
use stube::ids::{Identity, ParticipantId, RoomId, SessionId, Text};

use crate::client::{Client, ClientConfig};
use crate::encoding::Ladder;
use crate::net::Host;

/// Who joins, how.
#[derive(Debug, Clone)]
pub struct Joiner {
    pub identity: Option<String>,
    pub room: usize,
    pub grants: Grants,
    pub ipv6: bool,
    pub microphone: bool,
    pub camera: bool,
    pub simulcast: bool,
    pub adaptive: Option<Ladder>,
    pub audio_slots: usize,
    pub video_slots: usize,
}

impl Default for Joiner {
    /// Someone with microphone and camera, and slots for more than the others there are.
    fn default() -> Self {
        Self {
            identity: None,
            room: 0,
            grants: Grants::default(),
            ipv6: false,
            microphone: true,
            camera: true,
            simulcast: false,
            adaptive: None,
            audio_slots: 8,
            video_slots: 8,
        }
    }
}

/// How far a member's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The request to join is underway.
    Asking,
    /// Answered, and not gone.
    In,
    /// Has asked to leave, or closed its connection.
    Leaving,
    /// Stopped without a word.
    Crashed,
}

/// A chat message a member has sent.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Instant,
    pub number: u64,
    /// Identities; empty means everyone.
    pub to: Vec<String>,
}

/// What a member wants, once it has said so.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// Server's names of tracks, most wanted first.
    pub video: Vec<String>,
    /// `None` leaves it to the server.
    pub audio: Option<Vec<String>>,
}

/// One participant's one session.
pub struct Member {
    pub client: Client,
    pub host: Host,
    pub identity: String,
    pub room: usize,
    pub joined_room: usize,
    pub grants: Grants,
    pub session: SessionId,
    pub participant: ParticipantId,
    pub life: Life,
    /// The number of the ICE session, as the last answer gave it.
    pub ice: u32,
    /// When the server said that media is connected.
    pub joined_at: Option<Instant>,
    pub ended: Option<(Instant, EndReason)>,
    pub partitioned: bool,
    /// Control has removed it.
    pub removed: bool,
    /// The network kept it from answering in time: the server may give it up.
    pub may_be_lost: bool,
    pub restarted_at: Option<Instant>,
    pub said: Vec<Said>,
    pub want: Option<Want>,
    /// Mute states the server has been seen to know, by publication.
    pub mute_known: BTreeMap<usize, bool>,
}

impl Member {
    /// Someone whose request to join is about to be sent.
    pub fn new(
        client: Client,
        host: Host,
        identity: String,
        joiner: &Joiner,
        session: SessionId,
        participant: ParticipantId,
    ) -> Self {
        Self {
            client,
            host,
            identity,
            room: joiner.room,
            joined_room: joiner.room,
            grants: joiner.grants.clone(),
            session,
            participant,
            life: Life::Asking,
            ice: 0,
            joined_at: None,
            ended: None,
            partitioned: false,
            removed: false,
            may_be_lost: false,
            restarted_at: None,
            said: Vec::new(),
            want: None,
            mute_known: BTreeMap::new(),
        }
    }

    /// The request to join.
    pub fn open_session(&self, room: RoomId, joiner: &Joiner, offer: String) -> Command {
        Command::OpenSession(Box::new(OpenSession {
            room,
            session: self.session,
            participant: self.participant,
            profile: joiner.profile(&self.identity),
            purpose: Purpose::Call,
            offer,
        }))
    }

    /// Whether its endpoint still lives. One that leaves says goodbye first.
    pub fn is_running(&self) -> bool {
        match self.life {
            Life::Asking | Life::In => {
                self.ended.is_none() || (self.client.channel.left.is_none() && !self.client.closed)
            }
            Life::Leaving => self.ended.is_none(),
            Life::Crashed => false,
        }
    }

    /// Its index, and its identity where that is somebody else's too.
    pub fn name(&self) -> String {
        let index = self.client.config.index;
        if self.identity == format!("p{index}") {
            self.identity.clone()
        } else {
            format!("p{index} as {}", self.identity)
        }
    }

    /// Answered, and not gone.
    pub fn is_in(&self) -> bool {
        self.life == Life::In && self.ended.is_none()
    }

    /// Gone, but the server cannot know yet: it crashed, or its goodbye was lost.
    pub fn is_ghost(&self) -> bool {
        matches!(self.life, Life::Crashed | Life::Leaving) && self.ended.is_none()
    }

    /// In the room for all to see, as far as the server has said.
    pub fn is_present(&self) -> bool {
        self.is_in() && self.joined_at.is_some()
    }

    /// The publication behind a track the server announces, by its kind and source.
    pub fn publication_of(&self, source: &str) -> Option<usize> {
        (0..self.client.publications.len()).find(|number| self.client.source_of(*number) == source)
    }
}

impl Joiner {
    /// The client of the `index`-th member.
    pub fn client_config(&self, index: usize) -> ClientConfig {
        ClientConfig {
            index,
            identity: self.identity.clone().unwrap_or_else(|| format!("p{index}")),
            address: private_address(index, self.ipv6),
            microphone: self.microphone,
            camera: self.camera,
            simulcast: self.simulcast,
            adaptive: self.adaptive,
            audio_slots: self.audio_slots,
            video_slots: self.video_slots,
        }
    }

    /// The profile of a token.
    pub fn profile(&self, identity: &str) -> Profile {
        Profile {
            identity: Identity::from(identity),
            name: Text::from(identity),
            metadata: Text::default(),
            attributes: BTreeMap::new(),
            grants: self.grants.clone(),
        }
    }
}

fn private_address(index: usize, ipv6: bool) -> SocketAddr {
    let ip = match ipv6 {
        true => IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, index as u16 + 2)),
        false => IpAddr::V4(Ipv4Addr::new(192, 168, index as u8, 2)),
    };
    SocketAddr::new(ip, 5000)
}

/// The address the server sees. Every member has its own, so that an IP address names a member.
pub fn public_address(index: usize, ipv6: bool) -> SocketAddr {
    let ip = match ipv6 {
        true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, index as u16 + 2)),
        false => IpAddr::V4(Ipv4Addr::new(203, 0, 113, index as u8 + 2)),
    };
    SocketAddr::new(ip, 40_000)
}

/// Where the server sees a member that has gone over to a mobile network.
pub fn mobile_address(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, index as u8 + 2))
}
