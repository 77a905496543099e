//! Packets of one stream that came together, forwarded together.
//!
//! A frame's packets arrive in one turn of the loop. Handing them on one by one would visit every subscriber once for
//! each, with cold caches every time; so they are gathered, and each subscriber is visited once.

use std::time::Instant;

use super::formats::FormatKey;
use super::ingress::Received;
use super::store::{PacketStore, RingKey, Stored};
use crate::command::MediaKind;
use crate::media::{EncodingIndex, Packet, PeerKey, TrackKey};

/// Packets gathered at most; as many as one GSO run takes.
const PACKETS_MAX: usize = 60;

/// Whose packets they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    pub from: PeerKey,
    pub track: TrackKey,
    pub kind: MediaKind,
    pub encoding: EncodingIndex,
    pub format: FormatKey,
    pub ring: RingKey,
}

/// Packets of one stream, in order of arrival.
#[derive(Default)]
pub struct Burst {
    stream: Option<Stream>,
    /// What the room decides by.
    pub facts: Vec<Packet>,
    /// What subscribers may get; moves to the store with the first copy.
    stored: Vec<Stored>,
}

impl Burst {
    /// Whether a packet of this stream may follow what is there.
    pub fn takes(&self, stream: &Stream) -> bool {
        self.stream.is_none_or(|own| own == *stream) && self.facts.len() < PACKETS_MAX
    }

    /// Adds a packet that it [takes](Self::takes).
    pub fn push(&mut self, stream: Stream, received: Received) {
        self.stream = Some(stream);
        self.facts.push(received.facts);
        self.stored.push(received.stored);
    }

    /// Whose packets there are, if any.
    pub fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// Whether a frame has begun of which more is to come. The marker ends a frame in every video format.
    pub fn is_unfinished(&self) -> bool {
        self.stream.is_some_and(|stream| stream.kind == MediaKind::Video)
            && self.stored.last().is_some_and(|stored| !stored.marker)
    }

    /// Keeps the packets for those who get copies; to be called with the first. What nobody gets is not kept.
    pub fn keep(&mut self, store: &mut PacketStore, now: Instant) {
        let Some(Stream { ring, .. }) = self.stream else { return };
        for (facts, stored) in self.facts.iter().zip(self.stored.drain(..)) {
            store.put(ring, facts.seq, stored, now);
        }
    }

    /// Forgets the packets.
    pub fn clear(&mut self) {
        self.stream = None;
        self.facts.clear();
        self.stored.clear();
    }
}
