//! A slot and what flows through it: which layer of which track, and how its packets are renumbered.

use std::collections::VecDeque;

use super::forwarder::{Forwarder, Numbers};
use super::layers::{Choice, Layer, LayerSelector};
use super::meter::{DropReason, Drops, Switches};
use super::packet::{CodecSet, Packet};
use super::quality::Freeze;
use super::signal::SlotInfo;
use super::{EncodingIndex, Forward, NewSlot, Output, Patch, PeerKey, SlotIndex, TrackKey};
use crate::command::MediaKind;

/// One receiving m-line of a participant.
#[derive(Debug)]
pub struct Slot {
    pub mid: String,
    pub kind: MediaKind,
    pub codecs: CodecSet,
    pub binding: Option<Binding>,
    /// How high it will be shown, in pixels; 0 if nobody said.
    pub height: u16,
    /// What is most important has the lowest: who is paid first.
    pub rank: u16,
    forwarder: Forwarder,
    layers: LayerSelector,
    pub switches: Switches,
    pub freeze: Freeze,
    pub keyframes_wanted: u64,
    /// What the client last heard of this slot.
    pub told: Option<SlotInfo>,
}

/// The track in a slot.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub track: TrackKey,
    /// What flows; `None` until a decoder can start.
    pub current: Option<EncodingIndex>,
    /// What shall flow. A keyframe of it makes it current; until then the old one goes on. `None`: the subscriber's
    /// network has no room for it.
    pub target: Option<Layer>,
    /// The target is still silent: until it comes, a lower encoding is better than nothing.
    pub interim: bool,
}

impl Binding {
    /// A track of which nothing flows yet.
    pub fn new(track: TrackKey, target: Option<Layer>) -> Self {
        Self { track, current: None, target, interim: false }
    }
}

/// How a packet is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    pub numbers: Numbers,
    mark: bool,
    active_targets: u16,
}

/// What became of packets that came together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Some were forwarded.
    pub sent: bool,
    /// One of them lets a decoder start.
    pub restarted: bool,
    /// Another source has begun that only a keyframe lets the receiver follow.
    pub lost_source: bool,
}

impl Slot {
    /// An empty slot.
    pub fn new(new: NewSlot) -> Self {
        let NewSlot { mid, kind, codecs, first_seq } = new;
        let (forwarder, layers) = (Forwarder::new(first_seq), LayerSelector::default());
        Self {
            mid,
            kind,
            codecs,
            binding: None,
            height: 0,
            rank: 0,
            forwarder,
            layers,
            switches: Switches::default(),
            freeze: Freeze::default(),
            keyframes_wanted: 0,
            told: None,
        }
    }

    /// Puts a track into the slot, or nothing.
    pub fn bind(&mut self, binding: Option<Binding>) {
        self.binding = binding;
        self.freeze.cancel();
        self.forwarder.switch();
    }

    /// Changes which layer shall flow. The encoding of which a keyframe is needed for that, if one is.
    pub fn aim(&mut self, target: Option<Layer>, interim: bool) -> Option<EncodingIndex> {
        let binding = self.binding.as_mut()?;
        binding.interim = interim;
        let before = std::mem::replace(&mut binding.target, target);
        let Some(layer) = target else {
            // Frames are missing from here on.
            binding.current = None;
            self.freeze.cancel();
            return None;
        };
        let changed = before != target || binding.current.is_none();
        (changed && self.needs_keyframe()).then_some(layer.encoding)
    }

    /// Whether the target cannot flow before a keyframe of it.
    pub fn needs_keyframe(&self) -> bool {
        let Some(Binding { current, target: Some(target), .. }) = self.binding else { return false };
        current != Some(target.encoding) || self.layers.needs_keyframe(target)
    }

    /// Whether what flows of this encoding cannot be cut down to the spatial layers up to `top` without a keyframe.
    pub fn is_stranded(&self, encoding: EncodingIndex, top: u8) -> bool {
        let flows = self.layer().filter(|layer| layer.encoding == encoding);
        flows.is_some_and(|layer| self.layers.needs_keyframe(Layer { spatial: layer.spatial.min(top), ..layer }))
    }

    /// Whether spatial layers up to `top` come of the encoding that flows, and only a keyframe leads to those wanted.
    pub fn lags(&self, encoding: EncodingIndex, top: u8) -> bool {
        let Some(Binding { current: Some(current), target: Some(target), .. }) = self.binding else { return false };
        let flows = current == encoding && target.encoding == encoding;
        flows && target.spatial <= top && self.layers.needs_keyframe(target)
    }

    /// Whether the slot waits for a keyframe of this encoding.
    pub fn awaits(&self, encoding: EncodingIndex) -> bool {
        self.binding.is_some_and(|binding| {
            binding.target.is_some_and(|target| target.encoding == encoding) && binding.current != Some(encoding)
        })
    }

    /// The layer that flows.
    pub fn layer(&self) -> Option<Layer> {
        self.binding?.current.map(|encoding| self.layers.layer(encoding))
    }

    /// How a packet of the bound track is passed on, or why it is not. `start`: a decoder that has seen nothing before
    /// can start with it.
    pub fn forward(&mut self, encoding: EncodingIndex, packet: &Packet, start: bool) -> Result<Passage, DropReason> {
        let binding = self.binding.as_mut().ok_or(DropReason::OtherLayer)?;
        if !self.codecs.contains(packet.codec) {
            return Err(DropReason::CodecMismatch);
        }
        let target = binding.target.ok_or(DropReason::NoBandwidth)?;
        let flows = binding.current == Some(encoding);
        if !flows {
            let instead = binding.interim && encoding < target.encoding && binding.current.is_none_or(|c| c < encoding);
            if target.encoding != encoding && !instead {
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
        if packet.codec.is_audio() {
            return self.pass(packet, false, 0);
        }
        let goal = match target.encoding == encoding {
            true => target,
            false if flows => self.layers.layer(encoding),
            false => Layer::whole(encoding),
        };
        if start {
            if flows && self.layers.has_gap() {
                // A keyframe needs no picture before it, so the numbers need not tell of those left out.
                self.forwarder.switch();
            }
            self.layers.begin(packet, goal);
        }
        match self.layers.choose(packet, goal) {
            Choice::Send { mark, active_targets } => self.pass(packet, mark, active_targets),
            Choice::Skip { picture } => {
                self.forwarder.skip(packet, picture);
                Err(DropReason::OtherLayer)
            }
        }
    }

    fn pass(&mut self, packet: &Packet, mark: bool, active_targets: u16) -> Result<Passage, DropReason> {
        let numbers = self.forwarder.forward(packet).ok_or(DropReason::BeforeSwitch)?;
        Ok(Passage { numbers, mark, active_targets })
    }

    /// Leaves packets of the bound track out, with no gap where they were.
    pub fn leave_out(&mut self, packets: &[Packet]) {
        packets.iter().for_each(|packet| self.forwarder.skip(packet, false));
    }

    /// Forwards packets that came together, each with whether a decoder can start there: neighbours as one output.
    pub fn forward_all(
        &mut self,
        (to, slot): (PeerKey, SlotIndex),
        encoding: EncodingIndex,
        (packets, starts): (&[Packet], &[bool]),
        drops: &mut Drops,
        outputs: &mut VecDeque<Output>,
    ) -> Passed {
        let mut run: Option<Forward> = None;
        let mut passed = Passed::default();
        for (index, (packet, start)) in packets.iter().zip(starts).enumerate() {
            let passage = match self.forward(encoding, packet, *start) {
                Ok(passage) => passage,
                Err(reason) => {
                    drops.count(reason);
                    passed.lost_source |= reason == DropReason::AwaitingKeyframe && !self.awaits(encoding);
                    continue;
                }
            };
            passed.sent = true;
            passed.restarted |= *start;
            let Passage { numbers, mark, active_targets } = passage;
            let copy = Forward {
                to,
                slot,
                first: index as u16,
                count: 1,
                seq_offset: numbers.seq.wrapping_sub(packet.seq),
                timestamp_offset: numbers.timestamp.wrapping_sub(packet.timestamp),
                patch: Patch { frame: numbers.frame, mark, active_targets },
            };
            if !run.as_mut().is_some_and(|run| run.extend(&copy)) {
                outputs.extend(run.replace(copy).map(Output::Forward));
            }
        }
        outputs.extend(run.map(Output::Forward));
        passed
    }

    /// The pause is over: only a keyframe lets the decoder follow again.
    pub fn restart(&mut self) {
        self.freeze.cancel();
        if let Some(binding) = &mut self.binding {
            binding.current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::{Codec, Frame};

    fn slot() -> Slot {
        let codecs = [Codec::Vp8].into_iter().collect();
        Slot::new(NewSlot { mid: "3".into(), kind: MediaKind::Video, codecs, first_seq: 10 })
    }

    fn packet(ssrc: u32, seq: u64, keyframe: bool) -> Packet {
        let (captured_at, codec, frame) = (Instant::now(), Codec::Vp8, Frame::default());
        Packet { ssrc, seq, timestamp: 0, codec, bytes: 1, keyframe, level: None, captured_at, frame, size: None }
    }

    fn bound_to(encoding: EncodingIndex) -> Option<Binding> {
        Some(Binding::new(TrackKey(0), Some(Layer::whole(encoding))))
    }

    fn sent(slot: &mut Slot, encoding: EncodingIndex, packet: &Packet) -> Result<u64, DropReason> {
        slot.forward(encoding, packet, packet.keyframe).map(|passage| passage.numbers.seq)
    }

    #[test]
    fn nothing_flows_before_a_keyframe() {
        let mut slot = slot();
        slot.bind(bound_to(EncodingIndex(0)));
        assert_eq!(sent(&mut slot, EncodingIndex(0), &packet(1, 1, false)), Err(DropReason::AwaitingKeyframe));
        assert_eq!(sent(&mut slot, EncodingIndex(0), &packet(1, 2, true)), Ok(10));
        assert_eq!(sent(&mut slot, EncodingIndex(0), &packet(1, 3, false)), Ok(11));
        assert_eq!(sent(&mut slot, EncodingIndex(0), &packet(1, 1, false)), Err(DropReason::BeforeSwitch));
    }

    #[test]
    fn the_old_encoding_flows_until_the_new_one_can_be_decoded() {
        let (low, high) = (EncodingIndex(0), EncodingIndex(1));
        let mut slot = slot();
        slot.bind(bound_to(low));
        assert!(sent(&mut slot, low, &packet(1, 1, true)).is_ok());
        assert_eq!(slot.aim(Some(Layer::whole(high)), false), Some(high));
        assert!(slot.awaits(high));
        assert_eq!(sent(&mut slot, high, &packet(2, 70, false)), Err(DropReason::AwaitingKeyframe));
        assert!(sent(&mut slot, low, &packet(1, 2, false)).is_ok());
        assert_eq!(sent(&mut slot, high, &packet(2, 71, true)), Ok(12));
        assert_eq!(sent(&mut slot, low, &packet(1, 3, false)), Err(DropReason::OtherLayer));
    }

    #[test]
    fn another_source_of_the_same_encoding_begins_with_a_keyframe() {
        let low = EncodingIndex(0);
        let mut slot = slot();
        slot.bind(bound_to(low));
        assert!(sent(&mut slot, low, &packet(1, 1, true)).is_ok());
        let straggler = packet(9, 700, false);
        assert_eq!(sent(&mut slot, low, &straggler), Err(DropReason::AwaitingKeyframe));
        assert_eq!(sent(&mut slot, low, &packet(1, 2, false)), Ok(11));
        assert_eq!(sent(&mut slot, low, &packet(1, 40_000, false)), Err(DropReason::AwaitingKeyframe));
        assert_eq!(sent(&mut slot, low, &packet(2, 5, true)), Ok(12));
    }

    #[test]
    fn a_codec_the_receiver_lacks_is_dropped_with_that_reason() {
        let mut slot = slot();
        slot.bind(bound_to(EncodingIndex(0)));
        let foreign = Packet { codec: Codec::Av1, ..packet(1, 1, true) };
        assert_eq!(sent(&mut slot, EncodingIndex(0), &foreign), Err(DropReason::CodecMismatch));
    }
}
