//! What shards tell by themselves, and why things end.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::TrackInfo;
use crate::ids::{CallId, ParticipantId, RoomId, SessionId, TrackId};

/// Why a session or a room ended. Its snake_case name is the wire's `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The client said so: DELETE, or a closed PeerConnection.
    ClientLeft,
    DuplicateIdentity,
    ParticipantRemoved,
    /// To another room.
    Moved,
    RoomDeleted,
    /// Nobody came within `empty_timeout_s`, or all left for `departure_timeout_s`.
    RoomEmpty,
    RoomDurationExceeded,
    ServerShutdown,
    /// ICE or DTLS did not finish in time.
    ConnectTimeout,
    /// The media path was lost and not restored.
    ConnectionLost,
    /// The client reads its data channel too slowly.
    SlowConsumer,
    /// The person withdrew their consent: their data was erased.
    ConsentWithdrawn,
    InternalError,
    /// What records and webhooks say, after the next start, of sessions that a crash cut off.
    ServerCrash,
}

impl EndReason {
    /// All of them, for metrics.
    pub const ALL: [Self; 14] = [
        Self::ClientLeft,
        Self::DuplicateIdentity,
        Self::ParticipantRemoved,
        Self::Moved,
        Self::RoomDeleted,
        Self::RoomEmpty,
        Self::RoomDurationExceeded,
        Self::ServerShutdown,
        Self::ConnectTimeout,
        Self::ConnectionLost,
        Self::SlowConsumer,
        Self::ConsentWithdrawn,
        Self::InternalError,
        Self::ServerCrash,
    ];

    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::ParticipantRemoved => "participant_removed",
            Self::Moved => "moved",
            Self::RoomDeleted => "room_deleted",
            Self::RoomEmpty => "room_empty",
            Self::RoomDurationExceeded => "room_duration_exceeded",
            Self::ServerShutdown => "server_shutdown",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::SlowConsumer => "slow_consumer",
            Self::ConsentWithdrawn => "consent_withdrawn",
            Self::InternalError => "internal_error",
            Self::ServerCrash => "server_crash",
        }
    }

    /// Whether a client should come back by itself: the wire's `action`.
    pub fn invites_back(self) -> bool {
        matches!(self, Self::ServerShutdown | Self::ConnectionLost | Self::SlowConsumer | Self::InternalError)
    }
}

/// What happened on a shard.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A call began: the first participant's media connected.
    CallStarted {
        room: RoomId,
        call: CallId,
        at: Instant,
    },
    CallEnded {
        room: RoomId,
        call: CallId,
        started_at: Instant,
        /// Why the room is closing; none where everyone has left of themselves.
        reason: Option<EndReason>,
        at: Instant,
    },
    /// The room is gone from the shard.
    RoomFinished {
        room: RoomId,
        reason: EndReason,
        at: Instant,
    },
    /// Media is connected, or the session came from another room.
    ParticipantJoined {
        room: RoomId,
        participant: ParticipantId,
        session: SessionId,
        at: Instant,
        /// From the admission on; none for a move.
        took: Option<Duration>,
        transport: Transport,
    },
    /// The session is gone from the shard; `joined_at` is none where media never connected.
    SessionEnded {
        room: RoomId,
        participant: ParticipantId,
        session: SessionId,
        reason: EndReason,
        joined_at: Option<Instant>,
        usage: SessionUsage,
        at: Instant,
    },
    /// The session has left the room for another one; [`Notice::ParticipantJoined`] there follows, never before this
    /// even if another shard says it, unless its media is still to connect.
    SessionMoved {
        room: RoomId,
        participant: ParticipantId,
        session: SessionId,
        joined_at: Option<Instant>,
        usage: SessionUsage,
        at: Instant,
    },
    TrackPublished {
        room: RoomId,
        participant: ParticipantId,
        track: TrackInfo,
        at: Instant,
    },
    TrackUnpublished {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
        at: Instant,
    },
}

impl Notice {
    /// When it happened.
    pub fn at(&self) -> Instant {
        match self {
            Self::CallStarted { at, .. }
            | Self::CallEnded { at, .. }
            | Self::RoomFinished { at, .. }
            | Self::ParticipantJoined { at, .. }
            | Self::SessionEnded { at, .. }
            | Self::SessionMoved { at, .. }
            | Self::TrackPublished { at, .. }
            | Self::TrackUnpublished { at, .. } => *at,
        }
    }
}

/// What a session has used since its media connected; bytes count from its first datagram on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionUsage {
    /// While the client was heard; a gap before the media path came back does not count.
    pub duration: Duration,
    /// UDP payloads, or frames over TCP, of all kinds.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// How long at least one unmuted track of the kind was published.
    pub audio_published: Duration,
    pub video_published: Duration,
    /// How the session's datagrams travel now; none before the first.
    pub transport: Option<Transport>,
}

/// How a session's datagrams travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The transport of a wire's word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp].into_iter().find(|transport| transport.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_written_as_serde_writes_them() {
        for reason in EndReason::ALL {
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        }
    }
}
