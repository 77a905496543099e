//! The descriptor in front of every VP9 payload (RFC 9628 §4.2): picture, layer and structure of the packet.
//!
//! A picture is what one instant shows; it has a frame in each of its spatial layers. A forwarder that leaves out
//! pictures, or joins two streams into one, must renumber what the receiver counts: [`shift`] does it in place.

/// I, P, L, F, B, E, V and Z of the first byte.
const HAS_PICTURE_ID: u8 = 0x80;
const INTER_PICTURE: u8 = 0x40;
const HAS_LAYERS: u8 = 0x20;
const FLEXIBLE: u8 = 0x10;
const STARTS_FRAME: u8 = 0x08;
const ENDS_FRAME: u8 = 0x04;
const HAS_STRUCTURE: u8 = 0x02;
const NOT_A_REFERENCE_FOR_UPPER: u8 = 0x01;

/// M: the picture ID has 15 bits, not 7.
const WIDE: u8 = 0x80;
/// The picture ID stands directly behind the first byte.
const PICTURE_ID_AT: usize = 1;

/// TID, U, SID and D share a byte.
const TEMPORAL_SHIFT: u32 = 5;
const SWITCHING_UP: u8 = 0x10;
const SPATIAL_SHIFT: u32 = 1;
const SPATIAL_MASK: u8 = 0x07;
const INTER_LAYER: u8 = 0x01;

/// N of a reference in flexible mode: another one follows.
const MORE_REFERENCES: u8 = 0x01;
const MAX_REFERENCES: usize = 3;

/// N_S, Y and G of the scalability structure.
const SPATIAL_LAYERS_SHIFT: u32 = 5;
const HAS_RESOLUTIONS: u8 = 0x10;
const HAS_PICTURE_GROUP: u8 = 0x08;
/// R of a picture in the structure's group: how many bytes of references follow.
const REFERENCES_SHIFT: u32 = 2;
const REFERENCES_MASK: u8 = 0x03;
/// N_S has three bits.
pub const MAX_SPATIAL_LAYERS: usize = 8;

/// Number of a picture, which counts up and wraps in its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits, not 7.
    pub wide: bool,
}

/// Where the packet's frame stands in the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// TID, 0..=7.
    pub temporal: u8,
    /// U: the later pictures of higher temporal layers depend on none of theirs before this picture, so that a receiver
    /// can go up from here.
    pub switching_up: bool,
    /// SID, 0..=7.
    pub spatial: u8,
    /// D: depends on the spatial layer below in the same picture.
    pub inter_layer: bool,
}

/// What a stream consists of (RFC 9628 §4.2.1), from this picture on. The description of its group of pictures is
/// skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// 1..=8.
    pub spatial_layers: u8,
    /// Pixels, by spatial layer; zero if unknown.
    pub heights: [u16; MAX_SPATIAL_LAYERS],
    /// Pixels, by spatial layer; zero if unknown.
    pub widths: [u16; MAX_SPATIAL_LAYERS],
}

/// What the descriptor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    pub picture_id: Option<PictureId>,
    /// P: predicted from other pictures.
    pub inter_picture: bool,
    /// B: a layer's frame begins here.
    pub starts_frame: bool,
    /// E: a layer's frame ends here.
    pub ends_frame: bool,
    /// F: each picture names its references.
    pub flexible: bool,
    /// `None` means one layer.
    pub layers: Option<Layers>,
    /// TL0PICIDX: counts the pictures of temporal layer 0, 8 bits. Only with layers, and not in flexible mode.
    pub tl0_picture_index: Option<u8>,
    /// Z: no upper spatial layer depends on the frame.
    pub not_a_reference_for_upper: bool,
    pub structure: Option<Structure>,
    /// Length of the descriptor.
    pub bytes: usize,
}

impl Descriptor {
    /// Whether a decoder that knows nothing can start with this packet: the beginning of a picture that is predicted
    /// from no other one.
    pub fn starts_keyframe(&self) -> bool {
        !self.inter_picture && self.starts_frame && self.layers.is_none_or(|layers| layers.spatial == 0)
    }
}

/// What to add to the fields. Each sum wraps in its field's width, so that a difference of two values that wrapped
/// around `u16` or `u8` does, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    pub picture_id: u16,
    pub tl0_picture_index: u8,
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

/// Reads the descriptor of an RTP payload. `None` if the payload ends before it does, or a picture has more than three
/// references.
pub fn parse(payload: &[u8]) -> Option<Descriptor> {
    let mut rest = Rest(payload);
    let first = rest.byte()?;
    let mut descriptor = Descriptor {
        inter_picture: first & INTER_PICTURE != 0,
        starts_frame: first & STARTS_FRAME != 0,
        ends_frame: first & ENDS_FRAME != 0,
        flexible: first & FLEXIBLE != 0,
        not_a_reference_for_upper: first & NOT_A_REFERENCE_FOR_UPPER != 0,
        ..Descriptor::default()
    };
    if first & HAS_PICTURE_ID != 0 {
        descriptor.picture_id = Some(picture_id(&mut rest)?);
    }
    if first & HAS_LAYERS != 0 {
        descriptor.layers = Some(layers(rest.byte()?));
        if !descriptor.flexible {
            descriptor.tl0_picture_index = Some(rest.byte()?);
        }
    }
    if descriptor.flexible && descriptor.inter_picture {
        skip_references(&mut rest)?;
    }
    if first & HAS_STRUCTURE != 0 {
        descriptor.structure = Some(structure(&mut rest)?);
    }
    descriptor.bytes = payload.len() - rest.0.len();
    Some(descriptor)
}

/// Adds to the fields in place; the length stays, and what is absent stays absent. False, and nothing changed, if
/// [`parse`] finds no descriptor. References to other pictures are differences of picture IDs and stay right.
pub fn shift(payload: &mut [u8], offsets: Offsets) -> bool {
    let Some(descriptor) = parse(payload) else { return false };
    let mut end = PICTURE_ID_AT;
    match (descriptor.picture_id, payload.get_mut(PICTURE_ID_AT..)) {
        (Some(PictureId { wide: true, .. }), Some([high, low, ..])) => {
            let sum = u16::from_be_bytes([*high, *low]).wrapping_add(offsets.picture_id);
            [*high, *low] = sum.to_be_bytes();
            // The sum may have run into the bit above the number.
            *high |= WIDE;
            end += 2;
        }
        (Some(_), Some([narrow, ..])) => {
            // The offset modulo the width.
            *narrow = narrow.wrapping_add(offsets.picture_id as u8) & !WIDE;
            end += 1;
        }
        _ => {}
    }
    // It stands behind the byte of the layers.
    if let Some(index) = payload.get_mut(end + 1).filter(|_| descriptor.tl0_picture_index.is_some()) {
        *index = index.wrapping_add(offsets.tl0_picture_index);
    }
    true
}

fn picture_id(rest: &mut Rest<'_>) -> Option<PictureId> {
    let first = rest.byte()?;
    if first & WIDE == 0 {
        return Some(PictureId { value: first.into(), wide: false });
    }
    Some(PictureId { value: u16::from_be_bytes([first & !WIDE, rest.byte()?]), wide: true })
}

fn layers(byte: u8) -> Layers {
    Layers {
        temporal: byte >> TEMPORAL_SHIFT,
        switching_up: byte & SWITCHING_UP != 0,
        spatial: (byte >> SPATIAL_SHIFT) & SPATIAL_MASK,
        inter_layer: byte & INTER_LAYER != 0,
    }
}

fn skip_references(rest: &mut Rest<'_>) -> Option<()> {
    for _ in 0..MAX_REFERENCES {
        if rest.byte()? & MORE_REFERENCES == 0 {
            return Some(());
        }
    }
    None
}

fn structure(rest: &mut Rest<'_>) -> Option<Structure> {
    let first = rest.byte()?;
    let spatial_layers = (first >> SPATIAL_LAYERS_SHIFT) + 1;
    let mut structure = Structure { spatial_layers, heights: [0; MAX_SPATIAL_LAYERS], widths: [0; MAX_SPATIAL_LAYERS] };
    if first & HAS_RESOLUTIONS != 0 {
        let layers = structure.widths.iter_mut().zip(&mut structure.heights);
        for (width, height) in layers.take(spatial_layers.into()) {
            *width = rest.u16()?;
            *height = rest.u16()?;
        }
    }
    if first & HAS_PICTURE_GROUP != 0 {
        let pictures = rest.byte()?;
        for _ in 0..pictures {
            let references = (rest.byte()? >> REFERENCES_SHIFT) & REFERENCES_MASK;
            rest.skip(references.into())?;
        }
    }
    Some(structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I L B E V; 15 bits; TID 1 U SID 0; TL0PICIDX; three layers with resolutions and a group of two pictures.
    const KEY: [u8; 23] = [
        0xae, 0x81, 0x02, 0x30, 0xff, // up to TL0PICIDX
        0x58, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x05, 0x00, 0x02, 0xd0, // N_S, Y, G and resolutions
        0x02, 0x00, 0x28, 0x01, 0x02, // N_G, and R of none and of two
    ];
    /// I P L F E Z; 7 bits; TID 2 SID 3 D; references 1, 2 and 3 back.
    const FLEXIBLE_MODE: [u8; 6] = [0xf5, 0x7f, 0x47, 0x03, 0x05, 0x06];
    const OFFSETS: Offsets = Offsets { picture_id: 0x7f00, tl0_picture_index: 2 };

    #[test]
    fn a_keyframe_brings_the_structure() {
        let heights = [180, 360, 720, 0, 0, 0, 0, 0];
        let structure = Structure { spatial_layers: 3, heights, widths: [320, 640, 1280, 0, 0, 0, 0, 0] };
        let expected = Descriptor {
            picture_id: Some(PictureId { value: 0x0102, wide: true }),
            starts_frame: true,
            ends_frame: true,
            layers: Some(Layers { temporal: 1, switching_up: true, spatial: 0, inter_layer: false }),
            tl0_picture_index: Some(255),
            structure: Some(structure),
            bytes: KEY.len(),
            ..Descriptor::default()
        };
        assert_eq!(parse(&KEY), Some(expected));
        assert_eq!(parse(&[&KEY[..], &[1, 2]].concat()), Some(expected));
        assert!(expected.starts_keyframe());
    }

    #[test]
    fn flexible_mode_names_up_to_three_references() {
        let expected = Descriptor {
            picture_id: Some(PictureId { value: 0x7f, wide: false }),
            inter_picture: true,
            ends_frame: true,
            flexible: true,
            layers: Some(Layers { temporal: 2, switching_up: false, spatial: 3, inter_layer: true }),
            not_a_reference_for_upper: true,
            bytes: FLEXIBLE_MODE.len(),
            ..Descriptor::default()
        };
        assert_eq!(parse(&FLEXIBLE_MODE), Some(expected));
        assert_eq!(parse(&[0xf5, 0x7f, 0x47, 0x02]), Some(Descriptor { bytes: 4, ..expected }));
        assert_eq!(parse(&[0xf5, 0x7f, 0x47, 0x03, 0x05, 0x07, 0x02]), None, "four");
        let key = Descriptor { inter_picture: false, bytes: 3, ..expected };
        assert_eq!(parse(&[0xb5, 0x7f, 0x47]), Some(key), "and a keyframe none");
    }

    #[test]
    fn a_structure_can_say_little() {
        let structure = |payload: &[u8]| parse(payload).and_then(|descriptor| descriptor.structure);
        let unknown = Structure { spatial_layers: 8, heights: [0; 8], widths: [0; 8] };
        assert_eq!(structure(&[0x02, 0xe0]), Some(unknown));
        assert_eq!(structure(&[0x02, 0x08, 0x00]), Some(Structure { spatial_layers: 1, ..unknown }), "an empty group");
        let full = [&[0x02, 0xf0][..], &[0xff; 32]].concat();
        assert_eq!(structure(&full), Some(Structure { spatial_layers: 8, heights: [0xffff; 8], widths: [0xffff; 8] }));
    }

    #[test]
    fn a_keyframe_starts_with_the_lowest_layer_of_an_unpredicted_picture() {
        let starts = |payload: &[u8]| parse(payload).unwrap().starts_keyframe();
        assert!(starts(&[0x08]), "one layer");
        assert!(!starts(&[0x04]), "its last packet");
        assert!(!starts(&[0x48]), "predicted");
        assert!(starts(&[0x28, 0x00, 0x00]) && !starts(&[0x28, 0x03, 0x00]), "the upper layer needs the lower one");
    }

    #[test]
    fn sums_wrap_in_their_width() {
        let mut payload = KEY;
        assert!(shift(&mut payload, OFFSETS));
        assert_eq!(payload[..5], [0xae, 0x80, 0x02, 0x30, 0x01]);
        assert_eq!(payload[5..], KEY[5..]);
        let mut payload = FLEXIBLE_MODE;
        assert!(shift(&mut payload, Offsets { picture_id: 0x102, tl0_picture_index: 9 }));
        assert_eq!(payload, [0xf5, 0x01, 0x47, 0x03, 0x05, 0x06], "there is no TL0PICIDX");
        let mut payload = [0x20, 0x00, 0x07, 0xff];
        assert!(shift(&mut payload, OFFSETS));
        assert_eq!(payload, [0x20, 0x00, 0x09, 0xff], "there is no picture ID");
        let mut payload = [0x08, 0x01, 0x02, 0x03];
        assert!(shift(&mut payload, OFFSETS));
        assert_eq!(payload, [0x08, 0x01, 0x02, 0x03]);
    }

    #[test]
    fn a_truncated_descriptor_is_none_and_stays() {
        for payload in [&KEY[..], &FLEXIBLE_MODE] {
            for length in 0..payload.len() {
                let mut cut = payload[..length].to_vec();
                assert_eq!(parse(&cut), None, "{length}");
                assert!(!shift(&mut cut, OFFSETS));
                assert_eq!(cut, payload[..length]);
            }
        }
    }

    #[test]
    fn any_bytes_shift_there_and_back() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..100_000 {
            let mut payload = [0u8; 64];
            for chunk in payload.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_be_bytes());
            }
            let payload = &payload[..(state % 65) as usize];
            let offsets = Offsets { picture_id: (state >> 20) as u16, tl0_picture_index: (state >> 40) as u8 };
            let mut copy = payload.to_vec();
            assert_eq!(shift(&mut copy, offsets), parse(payload).is_some());
            let (Some(before), Some(after)) = (parse(payload), parse(&copy)) else { continue };
            assert!(before.bytes <= payload.len());
            let picture_id = before.picture_id.map(|id| PictureId {
                value: id.value.wrapping_add(offsets.picture_id) & if id.wide { 0x7fff } else { 0x7f },
                ..id
            });
            let tl0_picture_index = before.tl0_picture_index.map(|index| index.wrapping_add(offsets.tl0_picture_index));
            assert_eq!(after, Descriptor { picture_id, tl0_picture_index, ..before });
            let back = Offsets {
                picture_id: offsets.picture_id.wrapping_neg(),
                tl0_picture_index: offsets.tl0_picture_index.wrapping_neg(),
            };
            assert!(shift(&mut copy, back));
            assert_eq!(copy, payload);
        }
    }
}
