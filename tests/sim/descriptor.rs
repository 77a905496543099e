//! What stands before the frame in a packet, for servers and receivers to read: payload descriptors of VP8 (RFC 7741
//! §4.2) and of VP9 in non-flexible mode (RFC 9628 §4.2).

/// A VP8 descriptor with all its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8 {
    /// S: the packet begins the frame.
    pub starts: bool,
    /// 15 bits.
    pub picture_id: u16,
    pub tl0_pic_idx: u8,
    pub temporal: u8,
    /// Y: refers to the base layer's frame of its TL0PICIDX alone.
    pub sync: bool,
    /// 5 bits.
    pub key_idx: u8,
}

/// A VP9 descriptor, non-flexible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9 {
    /// 15 bits.
    pub picture_id: u16,
    pub tl0_pic_idx: u8,
    pub temporal: u8,
    pub spatial: u8,
    /// U: one may go up to this temporal layer here.
    pub switch_up: bool,
    /// P: predicted from an earlier picture.
    pub inter_picture: bool,
    /// D: predicted from the spatial layer below.
    pub inter_layer: bool,
    /// B and E: the packet begins, ends the layer's frame.
    pub starts: bool,
    pub ends: bool,
    /// Z: no higher spatial layer refers to it.
    pub top: bool,
    /// Widths and heights of the spatial layers, lowest first: the scalability structure.
    pub structure: Option<[(u16, u16); 3]>,
}

/// What a receiver goes by, of either codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    pub picture_id: u16,
    pub tl0_pic_idx: u8,
    pub temporal: u8,
}

/// The pattern of temporal layers 0-2-1-2, as the structure says it: layer, and how far back the reference is.
const PICTURES: [(u8, u8); 4] = [(0, 4), (2, 1), (1, 2), (2, 1)];

impl Vp8 {
    pub fn write(&self) -> Vec<u8> {
        // X and maybe S; then I, L, T and K.
        let mut bytes = vec![0x80 | if self.starts { 0x10 } else { 0 }, 0xf0];
        bytes.extend_from_slice(&(0x8000 | (self.picture_id & 0x7fff)).to_be_bytes());
        let layer = (self.temporal << 6) | (u8::from(self.sync) << 5) | (self.key_idx & 0x1f);
        bytes.extend_from_slice(&[self.tl0_pic_idx, layer]);
        bytes
    }

    /// The descriptor and its length; `None` unless it has all the fields, as a server has to keep them.
    pub fn parse(payload: &[u8]) -> Option<(Self, usize)> {
        let bytes: &[u8; 6] = payload.first_chunk()?;
        let complete = bytes[0] & 0x80 != 0 && bytes[1] & 0xf0 == 0xf0 && bytes[2] & 0x80 != 0;
        complete.then(|| {
            let descriptor = Self {
                starts: bytes[0] & 0x17 == 0x10,
                picture_id: u16::from_be_bytes([bytes[2], bytes[3]]) & 0x7fff,
                tl0_pic_idx: bytes[4],
                temporal: bytes[5] >> 6,
                sync: bytes[5] & 0x20 != 0,
                key_idx: bytes[5] & 0x1f,
            };
            (descriptor, 6)
        })
    }

    pub fn described(&self) -> Described {
        Described { picture_id: self.picture_id, tl0_pic_idx: self.tl0_pic_idx, temporal: self.temporal }
    }
}

impl Vp9 {
    pub fn write(&self) -> Vec<u8> {
        let flags = [true, self.inter_picture, true, false, self.starts, self.ends, self.structure.is_some(), self.top];
        let first = flags.into_iter().fold(0, |byte, flag| (byte << 1) | u8::from(flag));
        let mut bytes = vec![first];
        bytes.extend_from_slice(&(0x8000 | (self.picture_id & 0x7fff)).to_be_bytes());
        let switch_up = u8::from(self.switch_up) << 4;
        bytes.push((self.temporal << 5) | switch_up | (self.spatial << 1) | u8::from(self.inter_layer));
        bytes.push(self.tl0_pic_idx);
        if let Some(sizes) = self.structure {
            // Three spatial layers, with sizes (Y) and a description of pictures (G).
            bytes.push((2 << 5) | 0x18);
            for (width, height) in sizes {
                bytes.extend_from_slice(&width.to_be_bytes());
                bytes.extend_from_slice(&height.to_be_bytes());
            }
            bytes.push(PICTURES.len() as u8);
            for (temporal, back) in PICTURES {
                bytes.extend_from_slice(&[(temporal << 5) | 0x10 | (1 << 2), back]);
            }
        }
        bytes
    }

    /// The descriptor and its length; `None` unless it is of the kind that [`Self::write`] writes.
    pub fn parse(payload: &[u8]) -> Option<(Self, usize)> {
        let bytes: &[u8; 5] = payload.first_chunk()?;
        let flag = |bit: u8| bytes[0] & bit != 0;
        if !flag(0x80) || !flag(0x20) || flag(0x10) || bytes[1] & 0x80 == 0 {
            return None;
        }
        let mut length = 5;
        let mut structure = None;
        if flag(0x02) {
            let sizes: &[u8; 12] = payload.get(6..)?.first_chunk()?;
            let word = |at: usize| u16::from_be_bytes([sizes[at], sizes[at + 1]]);
            structure = Some([0, 4, 8].map(|at| (word(at), word(at + 2))));
            length += 1 + 12 + 1 + 2 * PICTURES.len();
        }
        let descriptor = Self {
            picture_id: u16::from_be_bytes([bytes[1], bytes[2]]) & 0x7fff,
            tl0_pic_idx: bytes[4],
            temporal: bytes[3] >> 5,
            spatial: (bytes[3] >> 1) & 7,
            switch_up: bytes[3] & 0x10 != 0,
            inter_picture: flag(0x40),
            inter_layer: bytes[3] & 1 != 0,
            starts: flag(0x08),
            ends: flag(0x04),
            top: flag(0x01),
            structure,
        };
        Some((descriptor, length))
    }

    pub fn described(&self) -> Described {
        Described { picture_id: self.picture_id, tl0_pic_idx: self.tl0_pic_idx, temporal: self.temporal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_reads_back() {
        let descriptor =
            Vp8 { starts: true, picture_id: 0x7ffe, tl0_pic_idx: 255, temporal: 2, sync: true, key_idx: 31 };
        assert_eq!(descriptor.write(), [0x90, 0xf0, 0xff, 0xfe, 0xff, 0xbf]);
        assert_eq!(Vp8::parse(&descriptor.write()), Some((descriptor, 6)));
        assert_eq!(Vp8::parse(&[0x10, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn vp9_reads_back() {
        let plain = Vp9 {
            picture_id: 0x1234,
            tl0_pic_idx: 7,
            temporal: 2,
            spatial: 1,
            switch_up: true,
            inter_picture: true,
            inter_layer: false,
            starts: true,
            ends: false,
            top: true,
            structure: None,
        };
        assert_eq!(plain.write(), [0xe9, 0x92, 0x34, 0x52, 7]);
        let sizes = Some([(320, 180), (640, 360), (1280, 720)]);
        for descriptor in [plain, Vp9 { structure: sizes, inter_picture: false, ..plain }] {
            let bytes = descriptor.write();
            assert_eq!(Vp9::parse(&bytes), Some((descriptor, bytes.len())));
            assert_eq!(str0m::format::detect_vp9_keyframe(&bytes), !descriptor.inter_picture);
        }
    }
}
