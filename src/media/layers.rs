//! Which packets of an encoding flow to one subscriber: its spatial and temporal layers.
//!
//! A layer is taken up only where the subscriber's decoder can follow, and until then the old one flows. What decides is
//! the VP8 or VP9 payload descriptor or, for AV1 and whatever is encrypted end to end, the Dependency Descriptor.

use super::packet::{Indication, MAX_CHAINS, Packet, Scheme, Targets};
use super::{EncodingIndex, packet::Frame};

/// Stands for the highest layer there is.
const TOP: u8 = u8::MAX;
/// Frames of a stream with a Dependency Descriptor that are remembered: a chain refers back by one byte at most.
const FRAMES: u64 = 256;

/// A layer of a track: what an encoding is cut down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub encoding: EncodingIndex,
    /// The highest that flow.
    pub spatial: u8,
    pub temporal: u8,
}

impl Layer {
    /// All of an encoding.
    pub const fn whole(encoding: EncodingIndex) -> Self {
        Self { encoding, spatial: TOP, temporal: TOP }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Send {
        /// It ends the picture for this subscriber: higher layers are left out.
        mark: bool,
        /// The decode targets to announce; 0: as the publisher says.
        active_targets: u16,
    },
    /// Left out on purpose. `picture`: with it the whole picture.
    Skip { picture: bool },
}

const SEND: Choice = Choice::Send { mark: false, active_targets: 0 };

/// The layers of one encoding that flow to one subscriber.
#[derive(Debug, Default)]
pub struct LayerSelector {
    /// The highest that flow now.
    spatial: u8,
    temporal: u8,
    /// Timestamp of the picture that the last keyframe began.
    key_picture: Option<u32>,
    /// The highest spatial layer it had.
    key_top: u8,
    /// All frames below [`Self::spatial`] have been sent since the keyframe: it can be lowered at any picture.
    lower_intact: bool,
    /// Lower layers of a picture were left out, and nothing above them has come: so far it is left out whole.
    gap: bool,
    chains: Option<Box<Chains>>,
}

/// What a stream with a Dependency Descriptor has had left out.
#[derive(Debug)]
struct Chains {
    /// The target that flows.
    target: u8,
    /// The latest frame's number, extended.
    highest: u64,
    /// Whether a frame was left out, by its number modulo [`FRAMES`].
    left_out: [u64; (FRAMES / 64) as usize],
    /// Nothing of the chain has been left out.
    intact: [bool; MAX_CHAINS],
    latest: Targets,
}

impl LayerSelector {
    /// A keyframe begins: from here on all wanted layers can flow.
    pub fn begin(&mut self, packet: &Packet, target: Layer) {
        (self.spatial, self.temporal) = (target.spatial, target.temporal);
        (self.key_picture, self.key_top) = (Some(packet.timestamp), packet.frame.spatial);
        (self.lower_intact, self.gap) = (true, false);
        self.chains = match &packet.frame.scheme {
            Scheme::Targets(targets) => Some(Box::new(Chains::new(&packet.frame, targets, target))),
            _ => None,
        };
    }

    /// The layer that flows, as far as it is limited.
    pub fn layer(&self, encoding: EncodingIndex) -> Layer {
        let (spatial, temporal) = match &self.chains {
            Some(chains) => chains.latest.layer(chains.target),
            None => (self.spatial, self.temporal),
        };
        Layer { encoding, spatial, temporal }
    }

    /// Whether only a keyframe leads to another layer of this encoding.
    pub fn needs_keyframe(&self, target: Layer) -> bool {
        if let Some(chains) = &self.chains {
            let wanted = chains.latest.best(target.spatial, target.temporal);
            return wanted != chains.target && !chains.intact[chains.latest.chain(wanted).0];
        }
        let known = target.spatial != TOP && self.key_picture.is_some();
        known && (target.spatial > self.spatial || (target.spatial < self.spatial && !self.lower_intact))
    }

    /// Whether whole pictures have been left out since the last that was sent, because a layer that was to come above
    /// them did not.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    /// What becomes of a packet of the encoding that flows.
    pub fn choose(&mut self, packet: &Packet, target: Layer) -> Choice {
        let frame = &packet.frame;
        match &frame.scheme {
            Scheme::Whole => SEND,
            Scheme::Temporal { sync } => self.temporal(frame, *sync, target),
            Scheme::Spatial { sync, unneeded_above } => self.spatial(packet, (*sync, *unneeded_above), target),
            Scheme::Targets(targets) => {
                let chains = self.chains.get_or_insert_with(|| Box::new(Chains::new(frame, targets, target)));
                chains.choose(frame, targets, target)
            }
        }
    }

    fn temporal(&mut self, frame: &Frame, sync: bool, target: Layer) -> Choice {
        self.adapt_temporal(frame, sync, target);
        if frame.temporal <= self.temporal { SEND } else { Choice::Skip { picture: frame.starts } }
    }

    fn adapt_temporal(&mut self, frame: &Frame, sync: bool, target: Layer) {
        // A frame is sent whole or not at all.
        if !frame.starts {
            return;
        }
        if target.temporal < self.temporal {
            self.temporal = target.temporal;
        } else if sync && frame.temporal <= target.temporal && frame.temporal > self.temporal {
            self.temporal = frame.temporal;
        }
    }

    fn spatial(&mut self, packet: &Packet, (sync, unneeded_above): (bool, bool), target: Layer) -> Choice {
        let frame = &packet.frame;
        let in_key_picture = self.key_picture == Some(packet.timestamp);
        if in_key_picture {
            self.key_top = self.key_top.max(frame.spatial);
        } else if frame.starts && frame.spatial == 0 {
            // What the keyframe did not have cannot be decoded after it.
            self.spatial = self.spatial.min(self.key_top);
            if target.spatial < self.spatial && self.lower_intact {
                self.spatial = target.spatial;
            }
        }
        let lower = self.temporal;
        // A picture is sent or left out with all its layers.
        if frame.spatial == 0 {
            self.adapt_temporal(frame, sync, target);
        }
        if frame.temporal > self.temporal {
            return Choice::Skip { picture: frame.starts && frame.spatial == 0 };
        }
        // RFC 9628 §4.2, U: what comes later does not need the higher temporal layers before it.
        if sync && frame.starts && frame.temporal <= lower && self.temporal < target.temporal {
            self.temporal = target.temporal;
        }
        if frame.spatial > self.spatial {
            return Choice::Skip { picture: false };
        }
        if unneeded_above && !in_key_picture && frame.spatial < self.spatial {
            (self.lower_intact, self.gap) = (false, true);
            return Choice::Skip { picture: false };
        }
        self.gap = false;
        Choice::Send { mark: frame.ends && frame.spatial == self.spatial, active_targets: 0 }
    }
}

impl Chains {
    fn new(frame: &Frame, targets: &Targets, target: Layer) -> Self {
        Self {
            target: targets.best(target.spatial, target.temporal),
            // Far enough from zero for frames that come late.
            highest: u64::from(frame.numbers.frame_number) + 2 * FRAMES,
            left_out: [0; (FRAMES / 64) as usize],
            intact: [true; MAX_CHAINS],
            latest: *targets,
        }
    }

    fn choose(&mut self, frame: &Frame, targets: &Targets, target: Layer) -> Choice {
        // The difference as signed: it may come late.
        let ahead = frame.numbers.frame_number.wrapping_sub(self.highest.wrapping_sub(2 * FRAMES) as u16) as i16;
        let number = self.highest.saturating_add_signed(i64::from(ahead));
        let sent = if ahead > 0 {
            self.note(number, targets, target);
            targets.indication(self.target) != Indication::NotPresent
        } else {
            targets.indication(self.target) != Indication::NotPresent && !self.was_left_out(number)
        };
        if !sent {
            self.left_out[place(number)] |= bit(number);
            return Choice::Skip { picture: false };
        }
        let (spatial, temporal) = targets.layer(self.target);
        let mask = targets.mask(spatial, temporal);
        let active_targets = if mask == targets.active { 0 } else { mask };
        Choice::Send { mark: frame.ends && frame.spatial == spatial, active_targets }
    }

    /// A new frame: which chains it finds intact, and whether another target can begin with it.
    fn note(&mut self, number: u64, targets: &Targets, target: Layer) {
        for skipped in (self.highest + 1).max(number.saturating_sub(FRAMES))..=number {
            self.left_out[place(skipped)] &= !bit(skipped);
        }
        self.highest = number;
        self.latest = *targets;
        for (chain, diff) in targets.chain_diffs.into_iter().enumerate() {
            self.intact[chain] = match diff {
                0 => true,
                // What was lost may still come again; what was left out does not.
                _ => self.intact[chain] && !self.was_left_out(number - u64::from(diff)),
            };
        }
        let wanted = targets.best(target.spatial, target.temporal);
        let can_begin = targets.indication(wanted) == Indication::Switch && self.intact[targets.chain(wanted).0];
        if wanted != self.target && can_begin {
            self.target = wanted;
        }
    }

    fn was_left_out(&self, number: u64) -> bool {
        self.highest.saturating_sub(number) < FRAMES && self.left_out[place(number)] & bit(number) != 0
    }
}

fn place(number: u64) -> usize {
    (number % FRAMES / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests;
