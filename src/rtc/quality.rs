//! How well it goes in a room: what its peers know added to what the room knows.

use std::time::Instant;

use super::engine::Engine;
use crate::command::Reply;
use crate::command::quality::{NetworkQuality, ParticipantQuality};
use crate::media::{EncodingIndex, Observed, Room};

impl Engine {
    /// Answers [`DescribeQuality`](crate::command::Command::DescribeQuality).
    pub(super) fn describe_quality(&self, room: &Room, now: Instant) -> Reply {
        let participants = room.observe(now).into_iter().map(|observed| self.complete(observed)).collect();
        Reply::Quality { at: now, participants }
    }

    fn complete(&self, observed: Observed) -> ParticipantQuality {
        let Observed { peer, tracks, mut quality } = observed;
        let Some(peer) = self.peers.get(peer.0 as usize).and_then(Option::as_ref) else { return quality };
        let transport = peer.sends_to.map(|(transport, _)| transport);
        quality.network = NetworkQuality { transport, ..peer.egress.network() };
        for (track, published) in tracks.into_iter().zip(&mut quality.published) {
            for (index, encoding) in published.encodings.iter_mut().enumerate() {
                peer.ingress.describe(track, EncodingIndex(index as u8), encoding);
            }
        }
        for (slot, received) in quality.received.iter_mut().enumerate() {
            received.sent = peer.egress.sent(slot);
        }
        quality
    }
}
