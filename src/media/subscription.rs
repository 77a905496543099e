//! A slot and what flows through it: which encoding, and how its packets are renumbered.

use std::collections::VecDeque;

use super::forwarder::Forwarder;
use super::meter::{DropReason, Drops};
use super::packet::{CodecSet, Packet};
use super::signal::SlotInfo;
use super::{EncodingIndex, Forward, NewSlot, Output, PeerKey, SlotIndex, TrackKey};
use crate::command::MediaKind;

/// One receiving m-line of a participant.
#[derive(Debug)]
pub struct Slot {
    pub mid: String,
    pub kind: MediaKind,
    pub codecs: CodecSet,
    pub binding: Option<Binding>,
    forwarder: Forwarder,
    /// What the client last heard of this slot.
    pub told: Option<SlotInfo>,
}

/// The track in a slot.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub track: TrackKey,
    /// What flows; `None` until a decoder can start.
    pub current: Option<EncodingIndex>,
    /// What shall flow. A keyframe of it makes it current; until then the old one goes on.
    pub target: EncodingIndex,
}

impl Slot {
    /// An empty slot.
    pub fn new(new: NewSlot) -> Self {
        let NewSlot { mid, kind, codecs, first_seq } = new;
        Self { mid, kind, codecs, binding: None, forwarder: Forwarder::new(first_seq), told: None }
    }

    /// Puts a track into the slot, or nothing.
    pub fn bind(&mut self, binding: Option<Binding>) {
        self.binding = binding;
        self.forwarder.switch();
    }

    /// Changes which encoding shall flow. Whether a keyframe of it is needed.
    pub fn aim(&mut self, target: EncodingIndex) -> bool {
        match &mut self.binding {
            Some(binding) if binding.target != target => {
                binding.target = target;
                binding.current != Some(target)
            }
            _ => false,
        }
    }

    /// Whether the slot waits for a keyframe of this encoding.
    pub fn awaits(&self, encoding: EncodingIndex) -> bool {
        self.binding.is_some_and(|binding| binding.target == encoding && binding.current != Some(encoding))
    }

    /// The outgoing number and timestamp of a packet of the bound track, or why it is not sent. `start`: a decoder that
    /// has seen nothing before can start with it.
    pub fn forward(&mut self, encoding: EncodingIndex, packet: &Packet, start: bool) -> Result<(u64, u32), DropReason> {
        let binding = self.binding.as_mut().ok_or(DropReason::OtherLayer)?;
        if !self.codecs.contains(packet.codec) {
            return Err(DropReason::CodecMismatch);
        }
        if binding.current != Some(encoding) {
            if binding.target != encoding {
                return Err(DropReason::OtherLayer);
            }
            if !start {
                return Err(DropReason::AwaitingKeyframe);
            }
            binding.current = Some(encoding);
            self.forwarder.switch();
        } else if !start && self.forwarder.is_foreign(packet) {
            // A publisher that began anew, or a straggler from before it did.
            return Err(DropReason::AwaitingKeyframe);
        }
        self.forwarder.forward(packet).ok_or(DropReason::BeforeSwitch)
    }

    /// Forwards packets that came together, each with whether a decoder can start there: neighbours as one output.
    /// Whether another source has begun that only a keyframe lets the receiver follow.
    pub fn forward_all(
        &mut self,
        (to, slot): (PeerKey, SlotIndex),
        encoding: EncodingIndex,
        (packets, starts): (&[Packet], &[bool]),
        drops: &mut Drops,
        outputs: &mut VecDeque<Output>,
    ) -> bool {
        let mut run: Option<Forward> = None;
        let mut lost_source = false;
        for (index, (packet, start)) in packets.iter().zip(starts).enumerate() {
            let (seq, timestamp) = match self.forward(encoding, packet, *start) {
                Ok(numbers) => numbers,
                Err(reason) => {
                    drops.count(reason);
                    lost_source |= reason == DropReason::AwaitingKeyframe && !self.awaits(encoding);
                    continue;
                }
            };
            let copy = Forward {
                to,
                slot,
                first: index as u16,
                count: 1,
                seq_offset: seq.wrapping_sub(packet.seq),
                timestamp_offset: timestamp.wrapping_sub(packet.timestamp),
            };
            if !run.as_mut().is_some_and(|run| run.extend(&copy)) {
                outputs.extend(run.replace(copy).map(Output::Forward));
            }
        }
        outputs.extend(run.map(Output::Forward));
        lost_source
    }

    /// The pause is over: only a keyframe lets the decoder follow again.
    pub fn restart(&mut self) {
        if let Some(binding) = &mut self.binding {
            binding.current = None;
        }
    }
}

/// A binding that starts with this encoding.
pub fn bind_to(track: TrackKey, target: EncodingIndex) -> Option<Binding> {
    Some(Binding { track, current: None, target })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::Codec;

    fn slot() -> Slot {
        let codecs = [Codec::Vp8].into_iter().collect();
        Slot::new(NewSlot { mid: "3".into(), kind: MediaKind::Video, codecs, first_seq: 10 })
    }

    fn packet(ssrc: u32, seq: u64, keyframe: bool) -> Packet {
        let captured_at = Instant::now();
        Packet { ssrc, seq, timestamp: 0, codec: Codec::Vp8, bytes: 1, keyframe, level: None, captured_at }
    }

    #[test]
    fn nothing_flows_before_a_keyframe() {
        let mut slot = slot();
        slot.bind(bind_to(TrackKey(0), EncodingIndex(0)));
        assert_eq!(slot.forward(EncodingIndex(0), &packet(1, 1, false), false), Err(DropReason::AwaitingKeyframe));
        assert_eq!(slot.forward(EncodingIndex(0), &packet(1, 2, true), true).map(|(seq, _)| seq), Ok(10));
        assert_eq!(slot.forward(EncodingIndex(0), &packet(1, 3, false), false).map(|(seq, _)| seq), Ok(11));
        assert_eq!(slot.forward(EncodingIndex(0), &packet(1, 1, false), false), Err(DropReason::BeforeSwitch));
    }

    #[test]
    fn the_old_encoding_flows_until_the_new_one_can_be_decoded() {
        let (low, high) = (EncodingIndex(0), EncodingIndex(1));
        let mut slot = slot();
        slot.bind(bind_to(TrackKey(0), low));
        assert!(slot.forward(low, &packet(1, 1, true), true).is_ok());
        assert!(slot.aim(high) && slot.awaits(high));
        assert_eq!(slot.forward(high, &packet(2, 70, false), false), Err(DropReason::AwaitingKeyframe));
        assert!(slot.forward(low, &packet(1, 2, false), false).is_ok());
        assert_eq!(slot.forward(high, &packet(2, 71, true), true).map(|(seq, _)| seq), Ok(12));
        assert_eq!(slot.forward(low, &packet(1, 3, false), false), Err(DropReason::OtherLayer));
    }

    #[test]
    fn another_source_of_the_same_encoding_begins_with_a_keyframe() {
        let low = EncodingIndex(0);
        let mut slot = slot();
        slot.bind(bind_to(TrackKey(0), low));
        assert!(slot.forward(low, &packet(1, 1, true), true).is_ok());
        let straggler = packet(9, 700, false);
        assert_eq!(slot.forward(low, &straggler, false), Err(DropReason::AwaitingKeyframe));
        assert_eq!(slot.forward(low, &packet(1, 2, false), false).map(|(seq, _)| seq), Ok(11));
        assert_eq!(slot.forward(low, &packet(1, 40_000, false), false), Err(DropReason::AwaitingKeyframe));
        assert_eq!(slot.forward(low, &packet(2, 5, true), true).map(|(seq, _)| seq), Ok(12));
    }

    #[test]
    fn a_codec_the_receiver_lacks_is_dropped_with_that_reason() {
        let mut slot = slot();
        slot.bind(bind_to(TrackKey(0), EncodingIndex(0)));
        let foreign = Packet { codec: Codec::Av1, ..packet(1, 1, true) };
        assert_eq!(slot.forward(EncodingIndex(0), &foreign, true), Err(DropReason::CodecMismatch));
    }
}
