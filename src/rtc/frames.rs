//! What a packet says of its frame, in the room's words.
//!
//! The Dependency Descriptor goes before the payload's own descriptor, for it can be read where the payload is encrypted
//! end to end. VP8 is the exception: its picture numbers must stay without gaps, so its layers are chosen by them.

use super::codec;
use crate::media::{Codec, Frame, FrameNumbers, Scheme, Targets};
use crate::rtp::dependency::{self, Structure};
use crate::rtp::{h264, vp8, vp9};

/// A VP8 keyframe's header: frame tag, start code, and twice 14 bits of size behind them (RFC 6386 §9.1).
const VP8_START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
const VP8_SIZE_MASK: u16 = 0x3fff;

/// What a stream's packets need to know of those before.
#[derive(Default)]
pub struct FrameReader {
    dependency: Option<Box<Structure>>,
    /// The decode targets that are sent, if not all.
    active: Option<u32>,
    vp9: Option<Box<vp9::Structure>>,
}

/// A packet, described.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Described {
    pub frame: Frame,
    /// A decoder that has seen nothing can start here.
    pub keyframe: bool,
    pub size: Option<(u16, u16)>,
}

/// A packet before it is described.
pub struct Undescribed<'a> {
    pub codec: Codec,
    pub payload: &'a [u8],
    pub marker: bool,
    pub descriptor: Option<&'a [u8]>,
    /// Later packets have come already.
    pub late: bool,
}

impl FrameReader {
    /// Describes a packet of the stream.
    pub fn read(&mut self, packet: &Undescribed<'_>) -> Described {
        let by_payload = match packet.codec {
            Codec::Opus => return Described { keyframe: true, ..Described::default() },
            Codec::Vp8 => read_vp8(packet),
            Codec::Vp9 => self.read_vp9(packet),
            Codec::H264 | Codec::Av1 => None,
        };
        let described = by_payload.unwrap_or_else(|| Described {
            frame: Frame { ends: packet.marker, ..Frame::default() },
            keyframe: codec::starts_keyframe(packet.codec, packet.payload),
            size: if packet.codec == Codec::H264 && !packet.late { h264::size(packet.payload) } else { None },
        });
        self.read_descriptor(packet, described).unwrap_or(described)
    }

    fn read_vp9(&mut self, packet: &Undescribed<'_>) -> Option<Described> {
        let found = vp9::parse(packet.payload)?;
        if let Some(structure) = found.structure.filter(|_| !packet.late) {
            self.vp9 = Some(Box::new(structure));
        }
        let layers = found.layers;
        let (spatial, temporal) = layers.map_or((0, 0), |layers| (layers.spatial, layers.temporal));
        let numbers = FrameNumbers {
            picture_id: found.picture_id.map_or(0, |id| id.value),
            tl0_picture_index: found.tl0_picture_index.unwrap_or(0),
            ..FrameNumbers::default()
        };
        let scheme = match layers {
            // Without temporal layers or others there is nothing to choose, but it is harmless.
            Some(layers) => {
                Scheme::Spatial { sync: layers.switching_up, unneeded_above: found.not_a_reference_for_upper }
            }
            None => Scheme::Whole,
        };
        let (starts, ends) = (found.starts_frame, found.ends_frame);
        let size = self.vp9.as_ref().filter(|_| starts).and_then(|structure| {
            let (width, height) =
                (structure.widths.get(usize::from(spatial))?, structure.heights.get(usize::from(spatial))?);
            (*height > 0).then_some((*width, *height))
        });
        let frame = Frame { starts, ends, spatial, temporal, numbers, scheme };
        Some(Described { frame, keyframe: found.starts_keyframe(), size })
    }

    /// What the Dependency Descriptor says, on top of what the payload does.
    fn read_descriptor(&mut self, packet: &Undescribed<'_>, below: Described) -> Option<Described> {
        let bytes = packet.descriptor?;
        let found = if packet.late {
            // A structure that comes late must not replace a newer one.
            dependency::read(bytes, &mut self.dependency.clone())
        } else {
            dependency::read(bytes, &mut self.dependency)
        };
        let found = found.ok()?;
        let numbers = FrameNumbers { frame_number: found.frame_number, ..below.frame.numbers };
        let frame = Frame { numbers, ..below.frame };
        if matches!(frame.scheme, Scheme::Temporal { .. }) {
            return Some(Described { frame, keyframe: found.has_structure && found.starts_frame, ..below });
        }
        // Said once, it holds until the next time; a new structure begins with all.
        if !packet.late && (found.active_targets.is_some() || found.has_structure) {
            self.active = found.active_targets;
        }
        let structure = self.dependency.as_ref()?;
        let targets = pack(structure, &found, self.active);
        let frame = Frame {
            starts: found.starts_frame,
            ends: found.ends_frame,
            spatial: found.spatial,
            temporal: found.temporal,
            numbers,
            scheme: Scheme::Targets(targets),
        };
        let size = structure.resolution_of(found.spatial).filter(|_| found.starts_frame).or(below.size);
        Some(Described { frame, keyframe: found.has_structure && found.starts_frame, size })
    }
}

/// A frame's place among its structure's decode targets. `active`: one bit for each that the publisher still sends, if
/// it said so.
fn pack(structure: &Structure, found: &dependency::Frame, active: Option<u32>) -> Targets {
    let count = structure.targets().min(crate::media::MAX_TARGETS);
    let mut layout = [0; crate::media::MAX_TARGETS];
    for (target, packed) in layout.iter_mut().enumerate().take(count) {
        let (spatial, temporal) = structure.layer_of(target).unwrap_or((0, 0));
        *packed = Targets::pack(spatial, temporal, structure.protected_by(target).unwrap_or(0));
    }
    let all = ((1u32 << count) - 1) as u16;
    Targets {
        count: count as u8,
        indications: found.indications,
        active: active.map_or(all, |mask| mask as u16 & all),
        chain_diffs: found.chain_diffs,
        layout,
    }
}

fn read_vp8(packet: &Undescribed<'_>) -> Option<Described> {
    let found = vp8::parse(packet.payload)?;
    let scheme = match found.temporal {
        Some(_) => Scheme::Temporal { sync: found.layer_sync },
        None => Scheme::Whole,
    };
    let frame = Frame {
        starts: found.starts_frame,
        ends: packet.marker,
        spatial: 0,
        temporal: found.temporal.unwrap_or(0),
        numbers: FrameNumbers {
            picture_id: found.picture_id.map_or(0, |id| id.value),
            tl0_picture_index: found.tl0_picture_index.unwrap_or(0),
            key_index: found.key_index.unwrap_or(0),
            frame_number: 0,
        },
        scheme,
    };
    let size = packet.payload.get(found.bytes..).filter(|_| found.keyframe).and_then(vp8_size);
    Some(Described { frame, keyframe: found.keyframe, size })
}

fn vp8_size(header: &[u8]) -> Option<(u16, u16)> {
    let (code, size) = header.get(3..)?.split_first_chunk::<3>()?;
    let (size, _) = size.split_first_chunk::<4>().filter(|_| *code == VP8_START_CODE)?;
    let [w0, w1, h0, h1] = *size;
    let at = |low, high| u16::from_le_bytes([low, high]) & VP8_SIZE_MASK;
    let (width, height) = (at(w0, w1), at(h0, h1));
    (width > 0 && height > 0).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vp8(payload: &[u8]) -> Described {
        let packet = Undescribed { codec: Codec::Vp8, payload, marker: true, descriptor: None, late: false };
        FrameReader::default().read(&packet)
    }

    #[test]
    fn a_vp8_keyframe_tells_its_size_and_layer() {
        // X, S; I, L, T; picture id 0x1234; TL0PICIDX 7; TID 0, Y; then 1280 by 720.
        let payload = [0x90, 0xe0, 0x92, 0x34, 7, 0x20, 0, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02, 1, 2];
        let described = vp8(&payload);
        assert_eq!((described.keyframe, described.size), (true, Some((1280, 720))));
        assert_eq!(described.frame.scheme, Scheme::Temporal { sync: true });
        assert_eq!((described.frame.numbers.picture_id, described.frame.numbers.tl0_picture_index), (0x1234, 7));
        for length in 0..payload.len() {
            let _ = vp8(&payload[..length]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_one_whole() {
        let packet =
            Undescribed { codec: Codec::Av1, payload: &[0x10, 1], marker: true, descriptor: Some(&[1]), late: false };
        let described = FrameReader::default().read(&packet);
        assert_eq!((described.frame.scheme, described.frame.ends, described.keyframe), (Scheme::Whole, true, false));
    }
}
