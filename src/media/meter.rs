//! Counters and drop reasons: values that leave the inner rings, never log lines.

use std::time::{Duration, Instant};

use crate::command::MediaKind;

/// Why a received packet, or one copy of it, was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// Not STUN, DTLS, RTP or RTCP (RFC 7983), or too short to be.
    Malformed,
    /// From an address nobody has authenticated.
    UnknownSource,
    /// STUN whose USERNAME names no session.
    UnknownUfrag,
    /// The client sends more than anyone needs to.
    Policed,
    /// RTP or RTCP that failed SRTP's authentication, or RTCP that came twice (RFC 3711 §3.3).
    NotAuthentic,
    /// RTP of an m-line or encoding that is not published, or whose source the grants do not allow.
    UnpublishedTrack,
    /// The publisher's session is not connected or has been closed.
    NotConnected,
    /// The track is muted.
    Muted,
    /// The encoding or layer is not one that this subscription forwards.
    OtherLayer,
    /// The subscriber's network has no room for the track.
    NoBandwidth,
    /// Others are louder, or the microphone is silent.
    NotHeard,
    /// The subscription waits for a keyframe.
    AwaitingKeyframe,
    /// Belongs before the first packet this subscription forwarded from the source.
    BeforeSwitch,
    /// The subscriber has not negotiated the codec.
    CodecMismatch,
    /// The subscriber is not connected, or has not been heard of for long.
    SubscriberNotReady,
    /// Too much waits to be sent to the subscriber.
    SubscriberTooSlow,
    /// It waited to be sent for longer than packets are kept.
    Expired,
    /// Before it was sent, its track was muted or left the slot.
    SlotChanged,
    /// The session panicked and was ended.
    Internal,
}

impl DropReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::UnknownSource,
        Self::UnknownUfrag,
        Self::Policed,
        Self::NotAuthentic,
        Self::UnpublishedTrack,
        Self::NotConnected,
        Self::Muted,
        Self::OtherLayer,
        Self::NoBandwidth,
        Self::NotHeard,
        Self::AwaitingKeyframe,
        Self::BeforeSwitch,
        Self::CodecMismatch,
        Self::SubscriberNotReady,
        Self::SubscriberTooSlow,
        Self::Expired,
        Self::SlotChanged,
        Self::Internal,
    ];

    /// Whether one subscriber's copy was dropped, not the received packet:
    /// *copies due = RTP sent + waiting + Σ drops of copies*.
    pub fn is_of_a_copy(self) -> bool {
        matches!(
            self,
            Self::Muted
                | Self::OtherLayer
                | Self::NoBandwidth
                | Self::NotHeard
                | Self::AwaitingKeyframe
                | Self::BeforeSwitch
                | Self::CodecMismatch
                | Self::SubscriberNotReady
                | Self::SubscriberTooSlow
                | Self::Expired
                | Self::SlotChanged
        )
    }

    /// The value of the metric's `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownSource => "unknown_source",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::Policed => "policed",
            Self::NotAuthentic => "not_authentic",
            Self::UnpublishedTrack => "unpublished_track",
            Self::NotConnected => "not_connected",
            Self::Muted => "muted",
            Self::OtherLayer => "other_layer",
            Self::NoBandwidth => "no_bandwidth",
            Self::NotHeard => "not_heard",
            Self::AwaitingKeyframe => "awaiting_keyframe",
            Self::BeforeSwitch => "before_switch",
            Self::CodecMismatch => "codec_mismatch",
            Self::SubscriberNotReady => "subscriber_not_ready",
            Self::SubscriberTooSlow => "subscriber_too_slow",
            Self::Expired => "expired",
            Self::SlotChanged => "slot_changed",
            Self::Internal => "internal",
        }
    }
}

/// How many of each [`DropReason`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&mut self, reason: DropReason, how_many: u64) {
        self.0[reason as usize] += how_many;
    }

    /// How many were dropped for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// Packets and their payload bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    pub packets: u64,
    pub bytes: u64,
}

impl Volume {
    /// Counts one packet.
    pub fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// How values are spread: a count for each bound, one for what is above all bounds, and the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread<const BUCKETS: usize> {
    pub buckets: [u64; BUCKETS],
    pub sum: u64,
}

impl<const BUCKETS: usize> Default for Spread<BUCKETS> {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl<const BUCKETS: usize> Spread<BUCKETS> {
    /// Counts a value. There is one bound less than there are buckets.
    pub fn observe(&mut self, value: u64, bounds: &[u64]) {
        let place = bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += 1;
            self.sum += value;
        }
    }

    /// Adds another spread over the same bounds to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }
}

/// Bounds of [`Quality::keyframe_waits`], in microseconds.
pub const KEYFRAME_WAIT_BOUNDS_US: [u64; 7] = [50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];

/// What viewers notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    pub switches: Switches,
    /// From the first wish for a keyframe of an encoding until it came, in microseconds.
    pub keyframe_waits: Spread<8>,
    /// Pictures that stood still for lack of a keyframe.
    pub freezes: u64,
}

impl Quality {
    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Self) {
        self.switches.merge(&other.switches);
        self.keyframe_waits.merge(&other.keyframe_waits);
        self.freezes += other.freezes;
    }
}

/// Changes of the encoding or the spatial layer that flowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    pub up: u64,
    pub down: u64,
}

impl Switches {
    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Self) {
        self.up += other.up;
        self.down += other.down;
    }
}

/// One value for audio and one for video.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerKind<T> {
    pub audio: T,
    pub video: T,
}

impl PerKind<u64> {
    /// Adds another pair to this one.
    pub fn add(&mut self, other: &Self) {
        self.audio += other.audio;
        self.video += other.video;
    }
}

impl<T> PerKind<T> {
    /// The value of a kind.
    pub fn of(&self, kind: MediaKind) -> &T {
        match kind {
            MediaKind::Audio => &self.audio,
            MediaKind::Video => &self.video,
        }
    }

    /// The value of a kind, to change.
    pub fn of_mut(&mut self, kind: MediaKind) -> &mut T {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }
}

/// How long something was on, over all the times it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stopwatch {
    before: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    /// It is on from now on, or no longer.
    pub fn set(&mut self, is_on: bool, now: Instant) {
        match (self.since, is_on) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.before += now.saturating_duration_since(since);
                self.since = None;
            }
            _ => {}
        }
    }

    /// So long until now.
    pub fn read(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_its_bound() {
        let mut spread = Spread::<3>::default();
        [0, 10, 11, 20, 21, 900].into_iter().for_each(|value| spread.observe(value, &[10, 20]));
        assert_eq!(spread, Spread { buckets: [2, 2, 2], sum: 962 });
        spread.merge(&Spread { buckets: [1, 0, 0], sum: 5 });
        assert_eq!(spread, Spread { buckets: [3, 2, 2], sum: 967 });
    }

    #[test]
    fn a_stopwatch_adds_its_spans() {
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut watch = Stopwatch::default();
        for (is_on, when) in [(false, 1), (true, 2), (true, 3), (false, 5), (false, 6), (true, 10)] {
            watch.set(is_on, at(when));
        }
        assert_eq!(watch.read(at(11)), Duration::from_secs(4));
    }

    #[test]
    fn every_reason_has_its_place_and_word() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(DropReason::ALL.iter().all(|other| *other == reason || other.as_str() != reason.as_str()));
        }
    }
}
