//! RING 1 — the selective forwarding middlebox (RFC 7667 §3.7): who is in a room, which track goes to which slot, and
//! what every forwarded packet is called on its way out.
//!
//! INVARIANT: no str0m, tokio, socket, clock, entropy or `HashMap`; nothing here can fail, only drop with a reason.
//!
//! This file is the ring's contract. Order of calls on a [`Room`]: [`Room::handle`] or [`Room::handle_timeout`], then
//! [`Room::poll_output`] until `None`, then sleep until [`Room::poll_timeout`]. After [`Input::Packets`] the drained
//! [`Output::Forward`]s all mean those packets.

use std::time::Duration;

use crate::command::{
    EndReason, MediaKind, Notice, ParticipantChange, Profile, Purpose, RoomSettings, SessionUsage, Transport,
};
use crate::ids::{CallId, Identity, ParticipantId, SessionId, TrackId};
use crate::units::Bitrate;

mod allocation;
pub mod allocator;
mod audio;
mod budget;
pub mod clock;
pub mod duration;
mod economy;
mod fill;
mod forwarder;
mod keyframes;
mod ladder;
pub mod layers;
pub mod meter;
mod packet;
mod participant;
mod passing;
mod quality;
mod rates;
mod relocation;
mod requests;
mod room;
pub mod signal;
mod slots;
pub mod speakers;
mod subscription;
mod timers;
mod top_layer;
mod track;
#[cfg(test)]
mod tests;

pub use packet::{Codec, CodecSet, Frame, FrameNumbers, MAX_CHAINS, MAX_TARGETS, Packet, Scheme, Targets};
pub use quality::Observed;
pub use relocation::{Newcomer, Relocation, Settled};
pub use room::Room;
pub use timers::Timer;

/// The engine's handle for a participant's peer; a room only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u32);

/// A participant's place in a room: a dense index, re-used after they left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(pub u16);

/// A published track within its room: a dense index, re-used after it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackKey(pub u32);

/// The n-th receiving m-line of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotIndex(pub u16);

/// The n-th simulcast encoding of a track, lowest first; 0 where there is no simulcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EncodingIndex(pub u8);

/// What a [`Room`] is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Someone was admitted ([`Room::admit`] said so); their media is not connected yet.
    Join(Box<Join>),
    /// Their media is connected: others may see and hear them.
    Connected { seat: Seat, took: Duration, transport: Transport },
    /// Their data channel is open and can carry [`signal::Signal`]s.
    ChannelOpen(Seat),
    /// They are gone; whoever caused it has closed their peer.
    Leave { seat: Seat, reason: EndReason, usage: SessionUsage },
    /// A publishing m-line appeared.
    Publish { seat: Seat, track: NewTrack },
    /// The publisher took the m-line back.
    Unpublish { seat: Seat, track: TrackKey },
    /// All receiving m-lines, in order; slots only ever grow.
    Slots { seat: Seat, slots: Vec<NewSlot> },
    /// RTP packets of an encoding that came together. The hot path.
    Packets { track: TrackKey, encoding: EncodingIndex, packets: &'a [Packet] },
    /// A subscriber's decoder needs a keyframe (PLI or FIR).
    KeyframeWanted { seat: Seat, slot: SlotIndex },
    /// What was forwarded to a slot could not be sent: its decoder can follow only from a keyframe on.
    Starved { seat: Seat, slot: SlotIndex },
    /// What a subscriber's network takes, in all. `measured`: by feedback; else it is a first guess.
    Estimate { seat: Seat, estimate: Bitrate, measured: bool },
    /// So much of an encoding was lost on its way here that only a keyframe helps.
    Broken { track: TrackKey, encoding: EncodingIndex },
    /// A message from the data channel.
    Request { seat: Seat, request: signal::Request },
    /// Control changes someone.
    Change { seat: Seat, change: ParticipantChange },
    /// Control mutes or unmutes a track.
    Mute { seat: Seat, track: TrackId, muted: bool },
    /// Control sends a message; `to` empty means everyone.
    Message { topic: String, data: serde_json::Value, to: Vec<Identity> },
    /// Control changes the room.
    Settings(RoomSettings),
    /// Everyone leaves and the room ends.
    Close(EndReason),
}

/// Who joins.
#[derive(Debug)]
pub struct Join {
    pub peer: PeerKey,
    pub participant: ParticipantId,
    pub session: SessionId,
    pub profile: Profile,
    pub purpose: Purpose,
    /// The id of the call, should this participant begin one.
    pub call: CallId,
}

/// A publishing m-line.
#[derive(Debug)]
pub struct NewTrack {
    pub sid: TrackId,
    pub mid: String,
    pub kind: MediaKind,
    /// How many publishing m-lines of this kind stand before it; gives the default source.
    pub position: usize,
    pub codec: Codec,
    /// RIDs of the simulcast encodings, lowest first; empty without simulcast.
    pub rids: Vec<String>,
}

/// A receiving m-line.
#[derive(Debug)]
pub struct NewSlot {
    pub mid: String,
    pub kind: MediaKind,
    pub codecs: CodecSet,
    /// The slot's first outgoing sequence number; below 2^15, so that receivers start with rollover count 0.
    pub first_seq: u16,
}

/// What a [`Room`] wants done.
#[derive(Debug)]
pub enum Output {
    /// Send copies of the packets just handled.
    Forward(Forward),
    /// Send nothing more of what was forwarded to this slot and still waits.
    Discard {
        peer: PeerKey,
        slot: SlotIndex,
    },
    /// Ask the publisher for a keyframe of this encoding.
    RequestKeyframe {
        peer: PeerKey,
        track: TrackKey,
        encoding: EncodingIndex,
    },
    /// Send this over the data channel.
    Tell {
        peer: PeerKey,
        signal: std::sync::Arc<signal::Signal>,
    },
    /// The room has ended this participant's stay: send `leave`, then close the peer.
    Close {
        peer: PeerKey,
        reason: EndReason,
    },
    /// What would be sent to a subscriber if the network allowed.
    Demand {
        peer: PeerKey,
        demand: Bitrate,
    },
    Notice(Box<Notice>),
    /// The room is over and empty; drop it.
    Finished(EndReason),
}

/// Copies of neighbouring packets for one slot, renumbered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub to: PeerKey,
    pub slot: SlotIndex,
    /// Which of the packets: the first, and how many.
    pub first: u16,
    pub count: u16,
    /// What to add to a packet's number for the extended number on the slot's SSRC, and to its timestamp; both wrap.
    pub seq_offset: u64,
    pub timestamp_offset: u32,
    pub patch: Patch,
}

/// What a copy says otherwise than the packet did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patch {
    /// What to add to the numbers of its frame; all wrap.
    pub frame: FrameNumbers,
    /// It ends the picture for this subscriber (RTP's marker).
    pub mark: bool,
    /// The decode targets to announce, one bit each; 0: as the publisher says.
    pub active_targets: u16,
}

impl Forward {
    /// The packets meant, of those handled.
    pub fn packets<'a>(&self, handled: &'a [Packet]) -> &'a [Packet] {
        let first = usize::from(self.first);
        handled.get(first..first + usize::from(self.count)).unwrap_or_default()
    }

    /// The copy's extended sequence number and timestamp.
    pub fn numbers(&self, packet: &Packet) -> (u64, u32) {
        (packet.seq.wrapping_add(self.seq_offset), packet.timestamp.wrapping_add(self.timestamp_offset))
    }

    /// Whether the copy of the next packet is numbered alike; if so it is one of these.
    fn extend(&mut self, next: &Self) -> bool {
        let alike = (self.to, self.slot, self.seq_offset, self.timestamp_offset, self.patch)
            == (next.to, next.slot, next.seq_offset, next.timestamp_offset, next.patch);
        let joined = alike && self.first + self.count == next.first;
        if joined {
            self.count += next.count;
        }
        joined
    }
}
