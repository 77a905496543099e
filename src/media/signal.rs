//! The messages of the data channel `stube`, as values. `rtc/channel.rs` turns them into JSON and back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::command::quality::{SlotLayer, SlotState};
use crate::command::{EndReason, MediaKind, ParticipantInfo, Source, TrackInfo};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId, Text, TrackId};

/// Server to client.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Signal {
    Welcome(Box<Welcome>),
    /// As `welcome`, of the room one was moved to.
    Moved(Box<Welcome>),
    Participant {
        event: ParticipantEvent,
        participant: ParticipantInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<EndReason>,
    },
    Track {
        event: TrackEvent,
        participant: ParticipantId,
        track: TrackInfo,
    },
    Slots {
        slots: Vec<SlotInfo>,
    },
    Speakers {
        speakers: Vec<SpeakerInfo>,
    },
    /// Which encodings of the receiver's own track anyone needs.
    Publish {
        track: TrackId,
        layers: Vec<PublishLayer>,
    },
    Message {
        from: Option<Identity>,
        topic: String,
        data: Value,
    },
    Leave {
        reason: EndReason,
        action: LeaveAction,
    },
    Error {
        code: &'static str,
        message: &'static str,
        /// The type of the message it answers.
        re: &'static str,
    },
    Pong {
        at: Value,
    },
}

impl Signal {
    /// The last message of a session.
    pub fn leave(reason: EndReason) -> Self {
        let action = if reason.invites_back() { LeaveAction::Reconnect } else { LeaveAction::Disconnect };
        Self::Leave { reason, action }
    }
}

/// Everything a newcomer needs to know.
#[derive(Debug, Clone, Serialize)]
pub struct Welcome {
    pub session: SessionId,
    pub room: RoomInfo,
    pub participant: ParticipantInfo,
    /// The others.
    pub participants: Vec<ParticipantInfo>,
}

/// A room as its participants see it.
#[derive(Debug, Clone, Serialize)]
pub struct RoomInfo {
    pub sid: RoomId,
    pub name: Text,
    pub metadata: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantEvent {
    Joined,
    Updated,
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackEvent {
    Published,
    Updated,
    Unpublished,
}

/// What a client should do after `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveAction {
    Disconnect,
    Reconnect,
}

/// What flows through one receiving m-line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotInfo {
    pub mid: String,
    pub kind: MediaKind,
    pub track: Option<TrackId>,
    pub participant: Option<ParticipantId>,
    pub state: SlotState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<SlotLayer>,
}

/// Whether an encoding is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishLayer {
    /// Empty for a track without simulcast.
    pub rid: String,
    pub active: bool,
}

/// Someone who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpeakerInfo {
    pub participant: ParticipantId,
    /// 0 to 1.
    pub level: f32,
}

/// Client to server.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    Want {
        #[serde(default)]
        video: Vec<WantedVideo>,
        #[serde(default)]
        audio: WantedAudio,
    },
    Mute {
        track: TrackId,
        muted: bool,
    },
    Tracks {
        tracks: Vec<TrackSource>,
    },
    Message {
        topic: String,
        #[serde(default)]
        data: Value,
        #[serde(default)]
        to: Vec<Identity>,
    },
    Ping {
        #[serde(default)]
        at: Value,
    },
}

/// One wished video track.
#[derive(Debug, Clone, Deserialize)]
pub struct WantedVideo {
    pub track: TrackId,
    /// The height it will be shown at, in pixels; 0 asks for the highest layer.
    #[serde(default)]
    pub height: u16,
    /// Lower comes later; the order of the list breaks ties.
    #[serde(default)]
    pub priority: i32,
}

/// Which sound is wished.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(untagged)]
pub enum WantedAudio {
    /// The server chooses.
    #[default]
    #[serde(skip)]
    Auto,
    Word(AutoWord),
    Tracks(Vec<TrackId>),
}

/// The only word `audio` may be.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoWord {
    Auto,
}

/// The true source of a publishing m-line.
#[derive(Debug, Clone, Deserialize)]
pub struct TrackSource {
    pub mid: String,
    pub source: Source,
}
