//! What control and the shards say to each other: plain data, no I/O types.
//!
//! Control sends a [`Command`] and gets one `Result<Reply, Refusal>`; a shard sends [`Notice`]s of what happened by
//! itself. Times are monotonic `Instant`s; control alone turns them into wall time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod notice;
pub mod quality;

pub use notice::{EndReason, Notice, SessionUsage, Transport};

use self::quality::ParticipantQuality;
use crate::ids::{CallId, Identity, ParticipantId, RoomId, SessionId, Text, TrackId};

/// Which shard: 0 .. count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardIndex(pub usize);

/// An order from control to the shard that holds the room or session it names. A session that has been moved is found
/// by the shard it was on, too.
#[derive(Debug)]
pub enum Command {
    /// Makes a room ready for participants. Answered [`Reply::Done`].
    OpenRoom { room: RoomId, settings: RoomSettings },
    /// Replaces a room's settings. Answered [`Reply::Done`].
    ChangeRoom { room: RoomId, settings: RoomSettings },
    /// Ends a room; its participants get `leave`. Answered [`Reply::Done`].
    CloseRoom { room: RoomId, reason: EndReason },
    /// Answered [`Reply::Rooms`], rooms unknown to the shard left out.
    DescribeRooms { rooms: Vec<RoomId> },
    /// Answered [`Reply::Participants`], in order of joining.
    ListParticipants { room: RoomId },
    /// Answered [`Reply::Participants`] with one entry.
    DescribeParticipant { room: RoomId, identity: Identity },
    /// Answered [`Reply::Quality`], in order of joining.
    DescribeQuality { room: RoomId },
    /// Removes someone (reason `participant_removed`). Answered [`Reply::Done`].
    RemoveParticipant { room: RoomId, identity: Identity, reason: EndReason },
    /// Changes someone's grants, name, metadata or attributes live. Answered [`Reply::Participants`] with one entry.
    ChangeParticipant { room: RoomId, identity: Identity, change: ParticipantChange },
    /// Whether someone may come into a room. Answered [`Reply::Done`].
    AskAdmission { room: RoomId, identity: Identity },
    /// Moves someone to another room, where they are `participant`. Answered [`Reply::Participants`] with one entry, by
    /// the shard of that room.
    MoveParticipant { room: RoomId, identity: Identity, to: Destination },
    /// Mutes or unmutes someone's track. Answered [`Reply::Done`].
    MuteTrack { room: RoomId, identity: Identity, track: TrackId, muted: bool },
    /// Sends a message from the server; `to` empty means everyone. Answered [`Reply::Done`].
    SendMessage { room: RoomId, topic: String, data: serde_json::Value, to: Vec<Identity> },
    /// Joins a room with an SDP offer. Answered [`Reply::Answer`].
    OpenSession(Box<OpenSession>),
    /// A further SDP offer on an open session. Answered [`Reply::Answer`].
    Offer { session: SessionId, offer: String, expected: IceTag },
    /// An SDP fragment (RFC 8840): candidates, or new ICE credentials, which restart ICE.
    /// Answered [`Reply::Done`] for candidates and [`Reply::Fragment`] for a restart.
    Fragment { session: SessionId, fragment: String, expected: Option<IceTag> },
    /// Ends a session at its client's wish. Answered [`Reply::Done`].
    CloseSession { session: SessionId },
    /// Answered [`Reply::Usage`]: everyone whose media has connected.
    DescribeUsage,
    /// Ends every session and room (reason `server_shutdown`, action `reconnect`). Answered [`Reply::Done`].
    Shutdown,
}

impl Command {
    /// The session it is about, if it names one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Offer { session, .. } | Self::Fragment { session, .. } | Self::CloseSession { session } => {
                Some(*session)
            }
            _ => None,
        }
    }
}

/// Where someone is moved to, and who they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub shard: ShardIndex,
    pub room: RoomId,
    pub participant: ParticipantId,
}

/// Who joins which room, and with what offer.
#[derive(Debug)]
pub struct OpenSession {
    pub room: RoomId,
    pub session: SessionId,
    pub participant: ParticipantId,
    pub profile: Profile,
    pub purpose: Purpose,
    /// A complete SDP offer.
    pub offer: String,
}

/// What a session is for; decides how its slots are filled when it says nothing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A member of the call (`/v1/sessions`, `/whip`).
    Call,
    /// A WHEP player of one participant.
    Play(Identity),
    /// A WHEP player of whoever speaks.
    PlayActiveSpeaker,
}

/// Which ICE session of a session a request means; HTTP's `ETag` and `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceTag {
    /// `If-Match: *`.
    Any,
    /// The n-th ICE session since the join, from 1.
    Number(u32),
}

/// What a shard answers to a [`Command`].
#[derive(Debug)]
pub enum Reply {
    Done,
    Rooms(Vec<RoomState>),
    Participants(Vec<ParticipantInfo>),
    /// As of that instant.
    Quality {
        at: Instant,
        participants: Vec<ParticipantQuality>,
    },
    /// By participant, not by session: what was counted before a move must not be taken for what came after it.
    Usage(Vec<(ParticipantId, SessionUsage)>),
    /// An SDP answer, and the number of the ICE session it belongs to.
    Answer {
        sdp: String,
        ice: u32,
    },
    /// The server's fragment after an ICE restart.
    Fragment {
        fragment: String,
        ice: u32,
    },
}

/// Why a shard did not do what it was told. Texts hold no address, token or SDP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the room does not exist or has ended")]
    RoomNotFound,
    #[error("the room already has {max} participants")]
    RoomFull { max: u32 },
    #[error("no participant of that identity is in the room")]
    ParticipantNotFound,
    #[error("the participant has no such track")]
    TrackNotFound,
    #[error("the session does not exist or has ended")]
    SessionNotFound,
    #[error("the SDP cannot be read: {0}")]
    InvalidSdp(String),
    #[error("the offer cannot be accepted: {0}")]
    NotAcceptable(String),
    #[error("If-Match does not name the current ICE session")]
    StaleIce,
    #[error("If-Match is required to restart ICE")]
    IceTagMissing,
    #[error("the token does not allow to publish; offer recvonly media only")]
    PublishForbidden,
    #[error("only a participant can unmute their own track unless rooms.allow_remote_unmute is on")]
    UnmuteForbidden,
    #[error("the session failed inside the server; join again")]
    Internal,
    #[error("the server is overloaded or shutting down; try again later")]
    Unavailable,
}

/// What a room may and must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSettings {
    pub name: Text,
    pub metadata: Text,
    pub max_participants: u32,
    /// How long a room waits for its first participant.
    pub empty_timeout: Duration,
    /// How long a room stays after its last participant left.
    pub departure_timeout: Duration,
    /// How long one call may last.
    pub max_duration: Option<Duration>,
}

/// A room as it is now.
#[derive(Debug, Clone)]
pub struct RoomState {
    pub room: RoomId,
    pub num_participants: u32,
    pub num_publishers: u32,
    pub call: Option<CallState>,
}

/// The call that runs in a room.
#[derive(Debug, Clone, Copy)]
pub struct CallState {
    pub call: CallId,
    pub started_at: Instant,
    pub duration: Duration,
}

/// Who a participant is and what they may do, as their token says.
#[derive(Debug, Clone)]
pub struct Profile {
    pub identity: Identity,
    pub name: Text,
    pub metadata: Text,
    pub attributes: BTreeMap<String, Text>,
    pub grants: Grants,
}

/// What a participant may do in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    pub can_publish: bool,
    pub can_subscribe: bool,
    pub can_publish_data: bool,
    /// `None` allows every source.
    pub can_publish_sources: Option<BTreeSet<Source>>,
    /// Invisible to the other participants.
    pub hidden: bool,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_publish_sources: None,
            hidden: false,
        }
    }
}

impl Grants {
    /// Whether a track of this source may be published.
    pub fn allows(&self, source: Source) -> bool {
        self.can_publish && self.can_publish_sources.as_ref().is_none_or(|sources| sources.contains(&source))
    }
}

/// A live change of a participant; `None` leaves things as they are.
#[derive(Debug, Clone, Default)]
pub struct ParticipantChange {
    pub grants: Option<Grants>,
    pub name: Option<Text>,
    pub metadata: Option<Text>,
    /// Merged into the attributes; an empty value removes its key.
    pub attributes: Option<BTreeMap<String, Text>>,
}

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Audio,
    Video,
}

/// What a track shows or lets hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Microphone,
    ScreenShareAudio,
    Camera,
    ScreenShare,
    /// A third or later track of a kind, which the client has not named.
    Unknown,
}

impl Source {
    /// Whether a track of `kind` can have this source.
    pub fn fits(self, kind: MediaKind) -> bool {
        match self {
            Self::Microphone | Self::ScreenShareAudio => kind == MediaKind::Audio,
            Self::Camera | Self::ScreenShare => kind == MediaKind::Video,
            Self::Unknown => true,
        }
    }

    /// The source of the n-th (from 0) publishing m-line of `kind`, unless the client says otherwise.
    pub fn by_position(kind: MediaKind, position: usize) -> Self {
        match (kind, position) {
            (MediaKind::Audio, 0) => Self::Microphone,
            (MediaKind::Audio, 1) => Self::ScreenShareAudio,
            (MediaKind::Video, 0) => Self::Camera,
            (MediaKind::Video, 1) => Self::ScreenShare,
            _ => Self::Unknown,
        }
    }
}

/// A participant as other participants and the API see them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ParticipantInfo {
    pub sid: ParticipantId,
    pub identity: Identity,
    pub name: Text,
    pub metadata: Text,
    pub attributes: BTreeMap<String, Text>,
    pub tracks: Vec<TrackInfo>,
    /// For the API only; clients see connected participants alone.
    #[serde(skip)]
    pub state: ParticipantState,
    #[serde(skip)]
    pub joined_at: Instant,
    #[serde(skip)]
    pub grants: Grants,
}

/// How far a participant's session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantState {
    /// Admitted; media not connected yet.
    Joining,
    Active,
}

/// A track as other participants and the API see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TrackInfo {
    pub sid: TrackId,
    pub kind: MediaKind,
    pub source: Source,
    pub muted: bool,
    pub codec: &'static str,
    pub layers: Vec<LayerInfo>,
}

/// One simulcast encoding; a track without simulcast has one with an empty `rid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LayerInfo {
    pub rid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_positions_and_kinds() {
        assert_eq!(Source::by_position(MediaKind::Video, 1), Source::ScreenShare);
        assert!(!Source::Camera.fits(MediaKind::Audio));
        let only_mic = Grants { can_publish_sources: Some([Source::Microphone].into()), ..Grants::default() };
        assert!(only_mic.allows(Source::Microphone) && !only_mic.allows(Source::Camera));
    }
}
