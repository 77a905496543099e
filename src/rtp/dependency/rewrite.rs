//! A receiver's own copy of a descriptor: other frame numbers, other active decode targets.

use super::structure::{INDICATION_BITS, Structure};
use super::{CHAIN_DIFF_BITS, FRAME_NUMBER_AT, Flags, MANDATORY_BITS, MANDATORY_BYTES, MAX_TARGETS, skip_frame_diffs};
use crate::rtp::bits::{BitReader, BitWriter};

/// Adds to the frame number, which wraps at 2^16, in place. False, and nothing changed, if the descriptor is too short.
pub fn shift(bytes: &mut [u8], frame_number_offset: u16) -> bool {
    let field = bytes.get_mut(FRAME_NUMBER_AT..).and_then(<[u8]>::first_chunk_mut);
    let Some(number) = field else { return false };
    *number = u16::from_be_bytes(*number).wrapping_add(frame_number_offset).to_be_bytes();
    true
}

/// Writes a copy for a receiver: adds to the frame number, and replaces or inserts the set of active decode targets if
/// one is given (bit 0 for target 0). All else stays as it is.
///
/// `targets` is how many decode targets the structure in force has, unless the descriptor brings its own. Returns how
/// many bytes were written; `None` if `out` is too small, the descriptor ends too early or no such target is active:
/// [`shift`] still works then.
pub fn rewrite(
    bytes: &[u8],
    targets: usize,
    frame_number_offset: u16,
    active: Option<u32>,
    out: &mut [u8],
) -> Option<usize> {
    let written = match active {
        None => {
            out.get_mut(..bytes.len())?.copy_from_slice(bytes);
            bytes.len()
        }
        Some(active) => write_active(bytes, targets, active, out)?,
    };
    shift(out.get_mut(..written)?, frame_number_offset).then_some(written)
}

fn write_active(bytes: &[u8], mut targets: usize, active: u32, out: &mut [u8]) -> Option<usize> {
    let mut reader = BitReader::new(bytes, 0);
    let mut writer = BitWriter::new(out);
    writer.copy(&mut reader, MANDATORY_BITS)?;
    let flags = if bytes.len() > MANDATORY_BYTES { Flags::read(&mut reader).ok()? } else { Flags::default() };
    Flags { active: true, ..flags }.write(&mut writer)?;
    if flags.structure {
        let mut ahead = reader;
        targets = Structure::read(&mut ahead).ok()?.targets();
        let bits = ahead.position() - reader.position();
        writer.copy(&mut reader, bits)?;
    }
    if targets > MAX_TARGETS {
        return None;
    }
    let active = active & ((1 << targets) - 1);
    if active == 0 {
        return None;
    }
    if flags.active {
        reader.take(targets).ok()?;
    }
    writer.put(active, targets)?;
    let definition_bits = definition_bits(reader, flags, targets)?;
    writer.copy(&mut reader, definition_bits)?;
    Some(writer.bytes())
}

/// How long `frame_dependency_definition` is: what remains without the padding.
fn definition_bits(mut reader: BitReader<'_>, flags: Flags, targets: usize) -> Option<usize> {
    let start = reader.position();
    if flags.custom_indications {
        reader.take(targets * INDICATION_BITS).ok()?;
    }
    if flags.custom_frame_diffs {
        skip_frame_diffs(&mut reader).ok()?;
    }
    let mut bits = reader.position() - start;
    if flags.custom_chain_diffs {
        // Whole bytes, as many as there are chains; what remains of one is padding.
        bits += reader.remaining() / CHAIN_DIFF_BITS * CHAIN_DIFF_BITS;
    }
    Some(bits)
}
