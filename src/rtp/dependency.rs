//! The dependency descriptor, a header extension that says which frames a frame needs and which qualities need it (RTP
//! Payload Format For AV1, appendix A). It comes with AV1, but tells nothing that depends on the codec, and stays
//! readable when the payload is not.
//!
//! A stream's first packet brings a [`Structure`]; those after it only name one of its templates, in three bytes.

mod structure;
mod rewrite;

#[cfg(test)]
pub(crate) mod encoder;
#[cfg(test)]
mod tests;

pub use rewrite::{rewrite, shift};
pub use structure::Structure;

use super::bits::{BitReader, BitWriter, TooShort};
use structure::{read_indications, target_shift};

/// Decode targets we keep; there may be 32. Streams with more are forwarded whole. Three spatial layers with three
/// temporal ones each have nine.
pub const MAX_TARGETS: usize = 16;
/// Chains we keep. There is usually one for each spatial layer.
pub const MAX_CHAINS: usize = 4;
/// Spatial layers we keep, with ids 0..=3; temporal ids are 0..=7.
pub const MAX_SPATIAL: usize = 4;

/// Start and end of the frame, template id, frame number.
const MANDATORY_BYTES: usize = 3;
const MANDATORY_BITS: usize = MANDATORY_BYTES * 8;
const STARTS_FRAME: u8 = 0x80;
const ENDS_FRAME: u8 = 0x40;
const TEMPLATE_ID_MASK: u8 = 0x3f;
const FRAME_NUMBER_AT: usize = 1;

/// How long a frame's own reference is comes before it, in units of four bits; zero ends the list.
const FRAME_DIFF_SIZE_BITS: usize = 2;
const FRAME_DIFF_UNIT_BITS: usize = 4;
/// A frame's own distance to the previous one of a chain; a template's has only four.
const CHAIN_DIFF_BITS: usize = 8;

/// Why a descriptor says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends within a field.
    TooShort,
    /// No structure has come, or the one that has is not this frame's.
    UnknownTemplate,
    /// Its structure is beyond [`MAX_TARGETS`], [`MAX_CHAINS`] or [`MAX_SPATIAL`].
    TooManyLayers,
    /// It contradicts itself.
    Malformed,
}

impl From<TooShort> for Fault {
    fn from(TooShort: TooShort) -> Self {
        Self::TooShort
    }
}

/// What a frame is to a decode target (table A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// No part of it.
    NotPresent,
    /// No other frame of it depends on this one.
    Discardable,
    /// Who can decode this frame can decode all later ones of it.
    Switch,
    /// Any other part of it.
    Required,
}

/// What a packet's descriptor says of its frame: the picture of one spatial layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// It begins with this packet.
    pub starts_frame: bool,
    /// It ends with this packet.
    pub ends_frame: bool,
    /// Counts the stream's frames in the order of decoding, and wraps.
    pub frame_number: u16,
    pub spatial: u8,
    pub temporal: u8,
    /// Two bits for each decode target, target 0 lowest; see [`Frame::indication`].
    pub indications: u32,
    /// How many frame numbers back the previous frame of each chain is; zero where a chain begins with this frame, and
    /// for chains that there are not.
    pub chain_diffs: [u8; MAX_CHAINS],
    /// The decode targets that there are from this packet on, bit 0 for target 0, if it tells. A new structure tells:
    /// all, unless it says otherwise.
    pub active_targets: Option<u32>,
    /// A new structure came with it: the first packet of a keyframe.
    pub has_structure: bool,
}

impl Frame {
    /// What the frame is to a decode target.
    pub fn indication(&self, target: usize) -> Indication {
        match target_shift(target).map_or(0, |shift| (self.indications >> shift) & 0b11) {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }
}

/// Which parts a descriptor of more than [`MANDATORY_BYTES`] has.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active: bool,
    custom_indications: bool,
    custom_frame_diffs: bool,
    custom_chain_diffs: bool,
}

impl Flags {
    fn read(reader: &mut BitReader<'_>) -> Result<Self, Fault> {
        Ok(Self {
            structure: reader.flag()?,
            active: reader.flag()?,
            custom_indications: reader.flag()?,
            custom_frame_diffs: reader.flag()?,
            custom_chain_diffs: reader.flag()?,
        })
    }

    fn write(self, writer: &mut BitWriter<'_>) -> Option<()> {
        let frame = [self.custom_indications, self.custom_frame_diffs, self.custom_chain_diffs];
        [self.structure, self.active].into_iter().chain(frame).try_for_each(|flag| writer.put(flag.into(), 1))
    }
}

/// Reads the descriptor of one packet with the structure in force, which one in the descriptor replaces. A caller whom
/// packets reach out of order must not let an older structure replace a newer one.
///
/// On a fault the structure stays as it was; only [`Fault::TooManyLayers`] leaves none, for the frames that follow are
/// not of the old one, and each is a [`Fault::UnknownTemplate`].
pub fn read(bytes: &[u8], structure: &mut Option<Box<Structure>>) -> Result<Frame, Fault> {
    let mandatory = bytes.first_chunk().ok_or(Fault::TooShort)?;
    let mut reader = BitReader::new(bytes, MANDATORY_BITS);
    let flags = if bytes.len() > MANDATORY_BYTES { Flags::read(&mut reader)? } else { Flags::default() };
    if !flags.structure {
        let in_force = structure.as_deref().ok_or(Fault::UnknownTemplate)?;
        return read_frame(mandatory, flags, &mut reader, in_force);
    }
    let fresh = Structure::read(&mut reader).inspect_err(|fault| {
        if *fault == Fault::TooManyLayers {
            *structure = None;
        }
    })?;
    let frame = read_frame(mandatory, flags, &mut reader, &fresh).map_err(|fault| match fault {
        // It has no other.
        Fault::UnknownTemplate => Fault::Malformed,
        other => other,
    })?;
    *structure = Some(Box::new(fresh));
    Ok(frame)
}

/// Reads what stands behind the structure.
fn read_frame(
    &[first, number @ ..]: &[u8; MANDATORY_BYTES],
    flags: Flags,
    reader: &mut BitReader<'_>,
    structure: &Structure,
) -> Result<Frame, Fault> {
    let targets = structure.targets();
    let active_targets = match (flags.active, flags.structure) {
        (true, _) => Some(reader.take(targets)?),
        // At most [`MAX_TARGETS`] bits.
        (false, true) => Some((1 << targets) - 1),
        (false, false) => None,
    };
    let template = structure.template(first & TEMPLATE_ID_MASK).ok_or(Fault::UnknownTemplate)?;
    let mut indications = template.indications;
    if flags.custom_indications {
        indications = read_indications(reader, targets)?;
    }
    if flags.custom_frame_diffs {
        skip_frame_diffs(reader)?;
    }
    let mut chain_diffs = template.chain_diffs;
    if flags.custom_chain_diffs {
        for diff in chain_diffs.iter_mut().take(structure.chains()) {
            *diff = reader.take(CHAIN_DIFF_BITS)? as u8;
        }
    }
    Ok(Frame {
        starts_frame: first & STARTS_FRAME != 0,
        ends_frame: first & ENDS_FRAME != 0,
        frame_number: u16::from_be_bytes(number),
        spatial: template.spatial,
        temporal: template.temporal,
        indications,
        chain_diffs,
        active_targets,
        has_structure: flags.structure,
    })
}

/// `frame_fdiffs`: references are for decoders; who forwards goes by indications and chains.
fn skip_frame_diffs(reader: &mut BitReader<'_>) -> Result<(), Fault> {
    loop {
        match reader.take(FRAME_DIFF_SIZE_BITS)? as usize {
            0 => return Ok(()),
            size => reader.take(size * FRAME_DIFF_UNIT_BITS)?,
        };
    }
}
