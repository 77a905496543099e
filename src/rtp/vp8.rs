//! The descriptor in front of every VP8 payload (RFC 7741 §4.2): frame, layer and picture of the packet.
//!
//! A forwarder that leaves out frames, or joins two streams into one, must renumber what the receiver counts:
//! [`shift`] does it in place.

/// X: the second byte is there.
const EXTENDED: u8 = 0x80;
/// S: a partition begins with this packet.
const STARTS_PARTITION: u8 = 0x10;
/// PID. A frame begins with the first partition.
const PARTITION_MASK: u8 = 0x07;

/// I, L, T and K of the second byte: which fields follow.
const HAS_PICTURE_ID: u8 = 0x80;
const HAS_TL0_PICTURE_INDEX: u8 = 0x40;
const HAS_TEMPORAL: u8 = 0x20;
const HAS_KEY_INDEX: u8 = 0x10;
/// First and second byte.
const EXTENDED_BYTES: usize = 2;

/// M: the picture ID has 15 bits, not 7.
const WIDE: u8 = 0x80;
/// TID, Y and KEYIDX share a byte, which is there for T or K.
const TEMPORAL_SHIFT: u32 = 6;
const LAYER_SYNC: u8 = 0x20;
const KEY_INDEX_MASK: u8 = 0x1f;

/// P of the frame header behind the descriptor: predicted from other frames (RFC 7741 §4.3).
const PREDICTED: u8 = 0x01;

/// Number of a picture, which counts up and wraps in its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits, not 7.
    pub wide: bool,
}

/// What the descriptor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// S bit and partition 0: the frame begins here.
    pub starts_frame: bool,
    /// The frame begins here and is a keyframe. False, too, when the payload ends with the descriptor.
    pub keyframe: bool,
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts the frames of temporal layer 0, 8 bits.
    pub tl0_picture_index: Option<u8>,
    /// TID, 0..=3.
    pub temporal: Option<u8>,
    /// Y: the frame depends on nothing but temporal layer 0. False without a temporal layer.
    pub layer_sync: bool,
    /// KEYIDX: counts the keyframes, 5 bits.
    pub key_index: Option<u8>,
    /// Length of the descriptor.
    pub bytes: usize,
}

/// What to add to the fields. Each sum wraps in its field's width, so that a difference of two values that wrapped
/// around `u16` or `u8` does, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    pub key_index: u8,
}

/// Where the optional fields stand, all within the payload.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    picture_id: Option<usize>,
    tl0_picture_index: Option<usize>,
    temporal: Option<usize>,
    key_index: Option<usize>,
    bytes: usize,
}

/// Reads the descriptor of an RTP payload. `None` if the payload ends before it does.
pub fn parse(payload: &[u8]) -> Option<Descriptor> {
    let places = locate(payload)?;
    let byte = |place: Option<usize>| payload.get(place?).copied();
    let starts_frame = payload.first()? & (STARTS_PARTITION | PARTITION_MASK) == STARTS_PARTITION;
    Some(Descriptor {
        starts_frame,
        keyframe: starts_frame && payload.get(places.bytes).is_some_and(|header| header & PREDICTED == 0),
        picture_id: places.picture_id.and_then(|at| picture_id(payload.get(at..)?)),
        tl0_picture_index: byte(places.tl0_picture_index),
        temporal: byte(places.temporal).map(|layer| layer >> TEMPORAL_SHIFT),
        layer_sync: byte(places.temporal).is_some_and(|layer| layer & LAYER_SYNC != 0),
        key_index: byte(places.key_index).map(|layer| layer & KEY_INDEX_MASK),
        bytes: places.bytes,
    })
}

/// Adds to the fields in place; the length stays, and what is absent stays absent. False, and nothing changed, if the
/// payload ends before the descriptor does.
pub fn shift(payload: &mut [u8], offsets: Offsets) -> bool {
    let Some(places) = locate(payload) else { return false };
    match places.picture_id.and_then(|at| payload.get_mut(at..)) {
        Some([high, low, ..]) if *high & WIDE != 0 => {
            let sum = u16::from_be_bytes([*high, *low]).wrapping_add(offsets.picture_id);
            [*high, *low] = sum.to_be_bytes();
            // The sum may have run into the bit above the number.
            *high |= WIDE;
        }
        // The offset modulo the width.
        Some([narrow, ..]) => *narrow = narrow.wrapping_add(offsets.picture_id as u8) & !WIDE,
        _ => {}
    }
    if let Some(index) = places.tl0_picture_index.and_then(|at| payload.get_mut(at)) {
        *index = index.wrapping_add(offsets.tl0_picture_index);
    }
    if let Some(layer) = places.key_index.and_then(|at| payload.get_mut(at)) {
        let sum = layer.wrapping_add(offsets.key_index) & KEY_INDEX_MASK;
        *layer = *layer & !KEY_INDEX_MASK | sum;
    }
    true
}

fn locate(payload: &[u8]) -> Option<Places> {
    let mut places = Places { bytes: 1, ..Places::default() };
    if payload.first()? & EXTENDED != 0 {
        let present = *payload.get(1)?;
        let mut end = EXTENDED_BYTES;
        if present & HAS_PICTURE_ID != 0 {
            places.picture_id = Some(end);
            end += if payload.get(end)? & WIDE != 0 { 2 } else { 1 };
        }
        if present & HAS_TL0_PICTURE_INDEX != 0 {
            places.tl0_picture_index = Some(end);
            end += 1;
        }
        if present & (HAS_TEMPORAL | HAS_KEY_INDEX) != 0 {
            places.temporal = (present & HAS_TEMPORAL != 0).then_some(end);
            places.key_index = (present & HAS_KEY_INDEX != 0).then_some(end);
            end += 1;
        }
        places.bytes = end;
    }
    (places.bytes <= payload.len()).then_some(places)
}

fn picture_id(field: &[u8]) -> Option<PictureId> {
    match *field {
        [high, low, ..] if high & WIDE != 0 => {
            Some(PictureId { value: u16::from_be_bytes([high & !WIDE, low]), wide: true })
        }
        [narrow, ..] => Some(PictureId { value: narrow.into(), wide: false }),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X R N S R PID, I L T K, M and 15 bits, TL0PICIDX, TID Y KEYIDX, then a keyframe's header.
    const FULL: [u8; 7] = [0x90, 0xf0, 0x81, 0x02, 0x7f, 0xa5, 0x10];

    fn narrow(value: u16) -> Option<PictureId> {
        Some(PictureId { value, wide: false })
    }

    fn wide(value: u16) -> Option<PictureId> {
        Some(PictureId { value, wide: true })
    }

    #[test]
    fn a_full_descriptor_is_read() {
        let expected = Descriptor {
            starts_frame: true,
            keyframe: true,
            picture_id: wide(0x0102),
            tl0_picture_index: Some(0x7f),
            temporal: Some(2),
            layer_sync: true,
            key_index: Some(5),
            bytes: 6,
        };
        assert_eq!(parse(&FULL), Some(expected));
        assert_eq!(parse(&FULL[..6]), Some(Descriptor { keyframe: false, ..expected }));
    }

    #[test]
    fn a_short_descriptor_is_read() {
        let frame = Descriptor { starts_frame: true, bytes: 1, ..Descriptor::default() };
        assert_eq!(parse(&[0x10, 0x00]), Some(Descriptor { keyframe: true, ..frame }));
        assert_eq!(parse(&[0x10, 0x01]), Some(frame), "a predicted frame");
        assert_eq!(parse(&[0x10]), Some(frame));
        let middle = Descriptor { bytes: 1, ..Descriptor::default() };
        assert_eq!(parse(&[0x00, 0x00]), Some(middle), "the middle of a partition");
        assert_eq!(parse(&[0x11, 0x00]), Some(middle), "another partition of the frame");
        assert_eq!(parse(&[0x80, 0x00]), Some(Descriptor { bytes: 2, ..middle }));
    }

    #[test]
    fn every_field_can_stand_alone() {
        let none = Descriptor { bytes: 3, ..Descriptor::default() };
        assert_eq!(parse(&[0x80, 0x80, 0x7f]), Some(Descriptor { picture_id: narrow(0x7f), ..none }));
        assert_eq!(parse(&[0x80, 0x80, 0xff, 0xff]), Some(Descriptor { picture_id: wide(0x7fff), bytes: 4, ..none }));
        // RFC 7741 wants T with L; some senders leave it out.
        assert_eq!(parse(&[0x80, 0x40, 0x09]), Some(Descriptor { tl0_picture_index: Some(9), ..none }));
        let temporal = Descriptor { temporal: Some(3), layer_sync: true, ..none };
        assert_eq!(parse(&[0x80, 0x20, 0xff]), Some(temporal));
        assert_eq!(parse(&[0x80, 0x20, 0xdf]), Some(Descriptor { layer_sync: false, ..temporal }));
        assert_eq!(parse(&[0x80, 0x10, 0xff]), Some(Descriptor { key_index: Some(31), ..none }));
    }

    #[test]
    fn sums_wrap_in_their_width() {
        let offsets = Offsets { picture_id: 0x7f00, tl0_picture_index: 0x82, key_index: 30 };
        let mut payload = FULL;
        assert!(shift(&mut payload, offsets));
        assert_eq!(payload, [0x90, 0xf0, 0x80, 0x02, 0x01, 0xa3, 0x10]);
        let mut payload = [0x80, 0x90, 0x7f, 0xff];
        assert!(shift(&mut payload, Offsets { picture_id: 2, tl0_picture_index: 9, key_index: 255 }));
        assert_eq!(payload, [0x80, 0x90, 0x01, 0xfe]);
        let mut payload = [0x80, 0x80, 0xff, 0xff];
        assert!(shift(&mut payload, Offsets { picture_id: 0xffff, ..Offsets::default() }));
        assert_eq!(payload, [0x80, 0x80, 0xff, 0xfe], "minus one");
    }

    #[test]
    fn what_is_absent_stays_absent() {
        let offsets = Offsets { picture_id: 1, tl0_picture_index: 1, key_index: 1 };
        for payload in [&[0x10, 0x00, 0x01, 0x02][..], &[0x80, 0x00, 0x33], &[0x90, 0x20, 0xff, 0x00]] {
            let mut copy = payload.to_vec();
            assert!(shift(&mut copy, offsets));
            assert_eq!(copy, payload);
        }
    }

    #[test]
    fn a_truncated_descriptor_is_none_and_stays() {
        for length in 0..6 {
            let mut payload = FULL[..length].to_vec();
            assert_eq!(parse(&payload), None, "{length}");
            assert!(!shift(&mut payload, Offsets { picture_id: 1, tl0_picture_index: 1, key_index: 1 }));
            assert_eq!(payload, FULL[..length]);
        }
    }

    #[test]
    fn any_bytes_shift_there_and_back() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..100_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let payload = state.to_be_bytes()[..(state % 9) as usize].to_vec();
            let offsets = Offsets {
                picture_id: (state >> 20) as u16,
                tl0_picture_index: (state >> 40) as u8,
                key_index: (state >> 50) as u8,
            };
            let mut copy = payload.clone();
            assert_eq!(shift(&mut copy, offsets), parse(&payload).is_some());
            let (Some(before), Some(after)) = (parse(&payload), parse(&copy)) else { continue };
            assert!(before.bytes <= payload.len());
            let moved = before.picture_id.map(|id| PictureId {
                value: id.value.wrapping_add(offsets.picture_id) & if id.wide { 0x7fff } else { 0x7f },
                ..id
            });
            let tl0_picture_index = before.tl0_picture_index.map(|index| index.wrapping_add(offsets.tl0_picture_index));
            let key_index = before.key_index.map(|index| index.wrapping_add(offsets.key_index) % 32);
            assert_eq!(after, Descriptor { picture_id: moved, tl0_picture_index, key_index, ..before });
            let back = Offsets {
                picture_id: offsets.picture_id.wrapping_neg(),
                tl0_picture_index: offsets.tl0_picture_index.wrapping_neg(),
                key_index: offsets.key_index.wrapping_neg(),
            };
            assert!(shift(&mut copy, back));
            assert_eq!(copy, payload);
        }
    }
}
