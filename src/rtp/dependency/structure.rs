//! What the frames of a stream have in common (AV1 RTP, A.8.2, `template_dependency_structure`).

use super::{Fault, MAX_CHAINS, MAX_SPATIAL, MAX_TARGETS};
use crate::rtp::bits::BitReader;

/// Template ids have six bits and go round.
const TEMPLATE_IDS: u8 = 64;
const TEMPLATE_ID_BITS: usize = 6;
const TARGET_COUNT_BITS: usize = 5;
const MAX_TEMPORAL_ID: u8 = 7;
/// One indication, in a descriptor as in [`Frame::indications`](super::Frame::indications).
pub(super) const INDICATION_BITS: usize = 2;
const FRAME_DIFF_BITS: usize = 4;
const CHAIN_DIFF_BITS: usize = 4;
const SIDE_BITS: usize = 16;

/// Where the next template stands in the layers (table A.2).
const NEXT_BITS: usize = 2;
const NEXT_TEMPORAL: u32 = 1;
const NEXT_SPATIAL: u32 = 2;
const NO_MORE: u32 = 3;

/// A stream's decode targets, the chains that protect them, and the templates its frames refer to.
///
/// A decode target is a quality that a receiver can be sent: some frames of the stream, enough to decode. A chain is
/// those of them without which it cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// Id of the first template.
    first_id: u8,
    templates: Vec<Template>,
    targets: usize,
    chains: usize,
    /// By target; as many as there are targets, if there are chains.
    protected_by: [u8; MAX_TARGETS],
    /// Width and height in pixels, by spatial id.
    resolutions: [Option<(u16, u16)>; MAX_SPATIAL],
}

/// What a frame says by naming it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) spatial: u8,
    pub(super) temporal: u8,
    /// Two bits for each target, target 0 lowest.
    pub(super) indications: u32,
    /// How many frames back those are that it needs, each 1..=16.
    pub(super) frame_diffs: Vec<u8>,
    pub(super) chain_diffs: [u8; MAX_CHAINS],
}

impl Structure {
    /// How many decode targets there are, at most [`MAX_TARGETS`].
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// How many chains there are, at most [`MAX_CHAINS`]; zero if the stream uses none.
    pub fn chains(&self) -> usize {
        self.chains
    }

    /// The highest spatial and the highest temporal id of the templates in which a target is present; `None` without
    /// any.
    pub fn layer_of(&self, target: usize) -> Option<(u8, u8)> {
        let shift = target_shift(target).filter(|_| target < self.targets)?;
        let present = self.templates.iter().filter(|template| (template.indications >> shift) & 0b11 != 0);
        let layers = present.map(|template| (template.spatial, template.temporal));
        layers.reduce(|highest, layer| (highest.0.max(layer.0), highest.1.max(layer.1)))
    }

    /// The chain that protects a target; `None` if the stream uses none.
    pub fn protected_by(&self, target: usize) -> Option<u8> {
        self.protected_by.get(target).copied().filter(|_| target < self.targets && self.chains > 0)
    }

    /// Width and height of a spatial layer in pixels, if the stream tells.
    pub fn resolution_of(&self, spatial: u8) -> Option<(u16, u16)> {
        self.resolutions.get(usize::from(spatial)).copied().flatten()
    }

    /// Height of a spatial layer in pixels, if the stream tells.
    pub fn height_of(&self, spatial: u8) -> Option<u16> {
        self.resolution_of(spatial).map(|(_, height)| height)
    }

    /// The template of an id that came with a frame.
    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        let index = id.wrapping_sub(self.first_id) % TEMPLATE_IDS;
        self.templates.get(usize::from(index))
    }

    /// `template_dependency_structure`.
    pub(super) fn read(reader: &mut BitReader<'_>) -> Result<Self, Fault> {
        // No more than six bits.
        let first_id = reader.take(TEMPLATE_ID_BITS)? as u8;
        let targets = reader.take(TARGET_COUNT_BITS)? as usize + 1;
        if targets > MAX_TARGETS {
            return Err(Fault::TooManyLayers);
        }
        let mut templates = read_layers(reader)?;
        for template in &mut templates {
            template.indications = read_indications(reader, targets)?;
        }
        for template in &mut templates {
            while reader.flag()? {
                template.frame_diffs.push(reader.take(FRAME_DIFF_BITS)? as u8 + 1);
            }
        }
        let mut structure = Self {
            first_id,
            templates,
            targets,
            chains: 0,
            protected_by: [0; MAX_TARGETS],
            resolutions: [None; MAX_SPATIAL],
        };
        structure.read_chains(reader)?;
        structure.read_resolutions(reader)?;
        Ok(structure)
    }

    fn read_chains(&mut self, reader: &mut BitReader<'_>) -> Result<(), Fault> {
        // Both are at most 16 and 17.
        let chains = reader.below(self.targets as u32 + 1)?;
        self.chains = chains as usize;
        if self.chains > MAX_CHAINS {
            return Err(Fault::TooManyLayers);
        }
        if self.chains == 0 {
            return Ok(());
        }
        for chain in self.protected_by.iter_mut().take(self.targets) {
            *chain = reader.below(chains)? as u8;
        }
        for template in &mut self.templates {
            for diff in template.chain_diffs.iter_mut().take(self.chains) {
                *diff = reader.take(CHAIN_DIFF_BITS)? as u8;
            }
        }
        Ok(())
    }

    fn read_resolutions(&mut self, reader: &mut BitReader<'_>) -> Result<(), Fault> {
        if !reader.flag()? {
            return Ok(());
        }
        // Templates come in the order of layers.
        let layers = self.templates.last().map_or(0, |template| usize::from(template.spatial) + 1);
        for resolution in self.resolutions.iter_mut().take(layers) {
            let (width, height) = (read_side(reader)?, read_side(reader)?);
            *resolution = Some((width, height));
        }
        Ok(())
    }
}

/// `frame_dtis`, or those of one template: two bits for each target, target 0 first and lowest.
pub(super) fn read_indications(reader: &mut BitReader<'_>, targets: usize) -> Result<u32, Fault> {
    let mut indications = 0;
    for shift in (0..targets).filter_map(target_shift) {
        indications |= reader.take(INDICATION_BITS)? << shift;
    }
    Ok(indications)
}

/// Where a target's two bits stand; `None` for targets that we do not keep.
pub(super) fn target_shift(target: usize) -> Option<usize> {
    (target < MAX_TARGETS).then(|| target * INDICATION_BITS)
}

/// `template_layers`.
fn read_layers(reader: &mut BitReader<'_>) -> Result<Vec<Template>, Fault> {
    let mut templates = Vec::new();
    let (mut spatial, mut temporal) = (0, 0);
    loop {
        if templates.len() >= usize::from(TEMPLATE_IDS) {
            return Err(Fault::Malformed);
        }
        templates.push(Template { spatial, temporal, ..Template::default() });
        match reader.take(NEXT_BITS)? {
            NEXT_TEMPORAL => temporal += 1,
            NEXT_SPATIAL => (spatial, temporal) = (spatial + 1, 0),
            NO_MORE => return Ok(templates),
            // The same layer.
            _ => {}
        }
        if usize::from(spatial) >= MAX_SPATIAL || temporal > MAX_TEMPORAL_ID {
            return Err(Fault::TooManyLayers);
        }
    }
}

/// A width or height, written less one.
fn read_side(reader: &mut BitReader<'_>) -> Result<u16, Fault> {
    // No more than sixteen bits.
    Ok((reader.take(SIDE_BITS)? as u16).saturating_add(1))
}
