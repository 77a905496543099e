//! A participant: who they are, what they publish, what they wish to see.

use std::time::Instant;

use super::allocation::Means;
use super::meter::{PerKind, Stopwatch};
use super::signal::{WantedAudio, WantedVideo};
use super::subscription::Slot;
use super::{Join, PeerKey, TrackKey};
use crate::command::{ParticipantChange, ParticipantInfo, ParticipantState, Profile, Purpose, TrackInfo};
use crate::ids::{CallId, Identity, ParticipantId, SessionId, TrackId};

/// One identity in a room.
#[derive(Debug)]
pub struct Participant {
    pub peer: PeerKey,
    pub sid: ParticipantId,
    pub session: SessionId,
    pub profile: Profile,
    pub state: ParticipantState,
    pub admitted_at: Instant,
    pub connected_at: Option<Instant>,
    /// The id of the call, should they begin one.
    pub call: CallId,
    /// Signals can be sent.
    pub channel_open: bool,
    pub wish: Wish,
    pub tracks: Vec<TrackKey>,
    pub slots: Vec<Slot>,
    /// What their network takes.
    pub means: Means,
    /// How long they have published unmuted tracks.
    pub published: PerKind<Stopwatch>,
}

/// What a participant wishes to receive.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Nothing was said: all sound, and cameras in last-spoken order.
    Default,
    /// The last `want`.
    Explicit {
        /// With the height each will be shown at, the most important first.
        video: Vec<(TrackId, u16)>,
        audio: Option<Vec<TrackId>>,
    },
    /// Everything of one participant (WHEP).
    Play(Identity),
    /// Sound and camera of whoever spoke last (WHEP).
    PlayActiveSpeaker,
}

impl Wish {
    /// Whether the sound was named that shall be heard, however many others are louder.
    pub fn pins_audio(&self) -> bool {
        matches!(self, Self::Explicit { audio: Some(_), .. } | Self::Play(_))
    }

    /// A `want` message as a wish: videos by falling priority, ties in their order.
    pub fn explicit(mut video: Vec<WantedVideo>, audio: WantedAudio) -> Self {
        video.sort_by_key(|want| std::cmp::Reverse(want.priority));
        let audio = match audio {
            WantedAudio::Auto | WantedAudio::Word(_) => None,
            WantedAudio::Tracks(tracks) => Some(tracks),
        };
        Self::Explicit { video: video.into_iter().map(|want| (want.track, want.height)).collect(), audio }
    }
}

impl Participant {
    /// Someone admitted, not connected yet.
    pub fn new(join: Join, now: Instant) -> Self {
        let wish = match join.purpose {
            Purpose::Call => Wish::Default,
            Purpose::Play(identity) => Wish::Play(identity),
            Purpose::PlayActiveSpeaker => Wish::PlayActiveSpeaker,
        };
        Self {
            peer: join.peer,
            sid: join.participant,
            session: join.session,
            profile: join.profile,
            state: ParticipantState::Joining,
            admitted_at: now,
            connected_at: None,
            call: join.call,
            channel_open: false,
            wish,
            tracks: Vec::new(),
            slots: Vec::new(),
            means: Means::new(now),
            published: PerKind::default(),
        }
    }

    /// Whether others may know of them.
    pub fn is_visible(&self) -> bool {
        self.state == ParticipantState::Active && !self.profile.grants.hidden
    }

    /// As others see them.
    pub fn info(&self, tracks: Vec<TrackInfo>) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid,
            identity: self.profile.identity.clone(),
            name: self.profile.name.clone(),
            metadata: self.profile.metadata.clone(),
            attributes: self.profile.attributes.clone(),
            tracks,
            state: self.state,
            joined_at: self.connected_at.unwrap_or(self.admitted_at),
            grants: self.profile.grants.clone(),
        }
    }

    /// Applies a live change.
    pub fn change(&mut self, change: ParticipantChange) {
        let profile = &mut self.profile;
        if let Some(name) = change.name {
            profile.name = name;
        }
        if let Some(metadata) = change.metadata {
            profile.metadata = metadata;
        }
        if let Some(grants) = change.grants {
            profile.grants = grants;
        }
        for (key, value) in change.attributes.into_iter().flatten() {
            if value.as_str().is_empty() {
                profile.attributes.remove(&key);
            } else {
                profile.attributes.insert(key, value);
            }
        }
    }
}
