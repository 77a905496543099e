//! What an operator wants to know of the quality in a room. No names, no addresses.

use schemars::JsonSchema;
use serde::Serialize;

use super::{MediaKind, ParticipantState, Source, Transport};
use crate::ids::{Identity, ParticipantId, SessionId, TrackId};
use crate::units::Bitrate;

/// One participant's quality. What is unknown is left out.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ParticipantQuality {
    pub identity: Identity,
    pub sid: ParticipantId,
    pub session: SessionId,
    pub state: ParticipantState,
    #[serde(flatten)]
    pub network: NetworkQuality,
    /// What all they wish for would cost, and what they are granted.
    pub demand_bps: Bitrate,
    pub spent_bps: Bitrate,
    /// Something they wish for is withheld because of their network.
    pub limited: bool,
    pub published: Vec<PublishedQuality>,
    pub received: Vec<ReceivedQuality>,
}

/// The way to one client.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct NetworkQuality {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_bps: Option<Bitrate>,
    /// The share of our packets that was lost lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_ratio: Option<f64>,
    /// Packets that their NACKs named.
    pub nacks: u64,
}

/// A publishing m-line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PublishedQuality {
    pub track: TrackId,
    pub kind: MediaKind,
    pub source: Source,
    pub codec: &'static str,
    pub muted: bool,
    pub encodings: Vec<EncodingQuality>,
}

/// What has come of one encoding.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct EncodingQuality {
    /// Empty without simulcast.
    pub rid: String,
    /// Packets of it come now.
    pub active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_bps: Option<Bitrate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
    /// Video: pictures, whatever layers they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// Packets lost on the way, repaired or not, of the SSRC it has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// How often its publisher was asked for a keyframe.
    pub keyframe_requests: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// A receiving m-line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReceivedQuality {
    pub mid: String,
    pub kind: MediaKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
    pub state: SlotState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<SlotLayer>,
    /// Changes of the encoding or the spatial layer while it flowed.
    pub switches_up: u64,
    pub switches_down: u64,
    #[serde(flatten)]
    pub sent: SentQuality,
    /// How often its decoder asked for a keyframe.
    pub keyframe_requests: u64,
}

/// What was sent on one m-line since the join.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SentQuality {
    pub packets: u64,
    pub bytes: u64,
    /// Packets sent again on request.
    pub retransmitted: u64,
}

/// How a receiving m-line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    Live,
    /// A track is bound, but nothing flows: it is muted, or the receiver's network has no room for it.
    Paused,
    Empty,
}

/// Which layer of the track flows, as far as there is a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SlotLayer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spatial: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporal: Option<u8>,
}
