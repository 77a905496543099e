//! Fake media that can be checked: every payload says who made it, which frame it belongs to, and whether it is whole.
//!
//! Video packets are valid VP8 on the outside (RFC 7741 descriptor, frame tag, key frame header), so that everything
//! between the clients takes them for real ones.

use crate::descriptor::{Described, Vp8, Vp9};
use crate::seal::split_mix;

const MAGIC: u32 = 0x57BE_5717;
const STAMP_BYTES: usize = 24;
/// A TOC byte of Opus: hybrid, 20 ms, mono.
const OPUS_TOC: u8 = 0x78;
const VP8_KEYFRAME_HEADER: usize = 10;
const VP8_FRAME_TAG: usize = 3;

/// Names a published track: the client's index and its m-line's place among its publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackKey {
    pub client: usize,
    pub number: usize,
}

/// A frame's place in the structure of its encoding: its layers, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub spatial: u8,
    pub temporal: u8,
    /// How many frames back those are that it refers to; 0 is none.
    pub references: [u8; 2],
    /// It refers to the spatial layer below, of the same picture.
    pub inter_layer: bool,
}

/// What a payload says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub track: TrackKey,
    /// Index of the simulcast layer.
    pub layer: usize,
    pub frame: u32,
    /// Which packet of the frame, and of how many.
    pub packet: u8,
    pub packets: u8,
    pub keyframe: bool,
    /// Counts the packets of a layer: a gap here is a gap in the source.
    pub serial: u32,
    pub place: Place,
}

impl Stamp {
    /// How many packets of the same encoding further `later` is; `None` if it is of another.
    pub fn distance(&self, later: &Self) -> Option<i64> {
        let same = (self.track, self.layer) == (later.track, later.layer);
        same.then(|| i64::from(later.serial) - i64::from(self.serial))
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&(self.track.client as u16).to_be_bytes());
        bytes[6] = self.track.number as u8;
        bytes[7] = self.layer as u8;
        bytes[8..12].copy_from_slice(&self.frame.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.serial.to_be_bytes());
        bytes[16] = self.packet;
        bytes[17] = self.packets;
        bytes[18] = u8::from(self.keyframe);
        bytes[19] = (self.place.spatial << 4) | self.place.temporal;
        bytes[20..22].copy_from_slice(&self.place.references);
        bytes[22] = u8::from(self.place.inter_layer);
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (word(0) == MAGIC).then(|| Self {
            track: TrackKey {
                client: usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
                number: usize::from(bytes[6]),
            },
            layer: usize::from(bytes[7]),
            frame: word(8),
            serial: word(12),
            packet: bytes[16],
            packets: bytes[17],
            keyframe: bytes[18] == 1,
            place: Place {
                spatial: bytes[19] >> 4,
                temporal: bytes[19] & 15,
                references: [bytes[20], bytes[21]],
                inter_layer: bytes[22] == 1,
            },
        })
    }

    /// Bytes that only this packet has, to fill it up to its size.
    fn filler(self, length: usize) -> Vec<u8> {
        let mut state = (u64::from(self.serial) << 24)
            ^ ((self.track.client as u64) << 12)
            ^ ((self.track.number as u64) << 6)
            ^ self.layer as u64;
        let mut filler = Vec::with_capacity(length + 8);
        while filler.len() < length {
            let (next, value) = split_mix(state);
            state = next;
            filler.extend_from_slice(&value.to_le_bytes());
        }
        filler.truncate(length);
        filler
    }

    fn stamped(self, mut payload: Vec<u8>, size: usize) -> Vec<u8> {
        payload.extend_from_slice(&self.to_bytes());
        let rest = size.saturating_sub(payload.len());
        payload.extend(self.filler(rest));
        payload
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (stamp, filler) = bytes.split_first_chunk().ok_or("too short for a stamp")?;
        let stamp = Self::from_bytes(stamp).ok_or("not stamped")?;
        if stamp.filler(filler.len()) != filler {
            return Err("the payload has been damaged");
        }
        Ok(stamp)
    }

    /// An Opus payload of about `size` bytes.
    pub fn opus(self, size: usize) -> Vec<u8> {
        self.stamped(vec![OPUS_TOC], size)
    }

    /// Reads what [`Stamp::opus`] wrote.
    pub fn parse_opus(payload: &[u8]) -> Result<Self, &'static str> {
        match payload.split_first() {
            Some((&OPUS_TOC, rest)) => Self::parse(rest),
            _ => Err("not the Opus that was sent"),
        }
    }

    /// A VP8 payload of about `size` bytes.
    pub fn vp8(self, picture_id: u16, tl0_pic_idx: u8, size: usize) -> Vec<u8> {
        let first = self.packet == 0;
        let picture = 0x8000 | (picture_id & 0x7fff);
        // X and maybe S; then I, L and T; the picture id; the base layer's index; layer 0, not a sync point.
        let mut payload = vec![0x80 | if first { 0x10 } else { 0 }, 0xe0];
        payload.extend_from_slice(&picture.to_be_bytes());
        payload.extend_from_slice(&[tl0_pic_idx, 0]);
        self.stamped(self.vp8_header(payload, (640, 360)), size)
    }

    fn vp8_header(self, mut payload: Vec<u8>, (width, height): (u16, u16)) -> Vec<u8> {
        if self.packet == 0 {
            // Frame tag: the lowest bit is clear in key frames; "show frame".
            payload.extend_from_slice(&[0x10 | u8::from(!self.keyframe), 0, 0]);
            if self.keyframe {
                // Start code, then the size.
                payload.extend_from_slice(&[0x9d, 0x01, 0x2a]);
                payload.extend_from_slice(&width.to_le_bytes());
                payload.extend_from_slice(&height.to_le_bytes());
            }
        }
        payload
    }

    /// A VP8 payload with a descriptor that has all its fields.
    pub fn vp8_layered(self, descriptor: Vp8, resolution: (u16, u16), size: usize) -> Vec<u8> {
        self.stamped(self.vp8_header(descriptor.write(), resolution), size)
    }

    /// A VP9 payload. A frame begins with the first byte of its header: marker, profile 0, shown, and whether it is key.
    pub fn vp9(self, descriptor: Vp9, size: usize) -> Vec<u8> {
        let mut payload = descriptor.write();
        if descriptor.starts {
            payload.push(if self.keyframe { 0x82 } else { 0x86 });
        }
        self.stamped(payload, size)
    }

    /// Reads what [`Stamp::vp8_layered`] or [`Stamp::vp9`] wrote, and the descriptor as it is now.
    pub fn parse_layered(payload: &[u8]) -> Result<(Self, Described), &'static str> {
        if let Some((vp9, length)) = Vp9::parse(payload) {
            let rest = payload.get(length + usize::from(vp9.starts)..).ok_or("a VP9 payload cut short")?;
            if let Ok(stamp) = Self::parse(rest) {
                return Ok((stamp, vp9.described()));
            }
        }
        let (vp8, _) = Vp8::parse(payload).ok_or("a VP8 descriptor that lacks fields")?;
        Ok((Self::parse_vp8(payload)?, vp8.described()))
    }

    /// Reads what [`Stamp::vp8`] wrote, whatever became of the descriptor.
    pub fn parse_vp8(payload: &[u8]) -> Result<Self, &'static str> {
        let descriptor = vp8_descriptor_bytes(payload).ok_or("no VP8 descriptor")?;
        let first = payload[0] & 0x17 == 0x10;
        let body = payload.get(descriptor..).ok_or("no VP8 payload")?;
        let keyframe = first && body.first().is_some_and(|byte| byte & 1 == 0);
        let header = match (first, keyframe) {
            (false, _) => 0,
            (true, false) => VP8_FRAME_TAG,
            (true, true) => VP8_KEYFRAME_HEADER,
        };
        let stamp = Self::parse(body.get(header..).ok_or("a VP8 header cut short")?)?;
        if first != (stamp.packet == 0) || (first && keyframe != stamp.keyframe) {
            return Err("the VP8 header does not fit the payload");
        }
        Ok(stamp)
    }
}

/// The length of the VP8 payload descriptor (RFC 7741 §4.2).
fn vp8_descriptor_bytes(payload: &[u8]) -> Option<usize> {
    if payload.first()? & 0x80 == 0 {
        return Some(1);
    }
    let extension = *payload.get(1)?;
    let mut length = 2;
    if extension & 0x80 != 0 {
        length += if payload.get(length)? & 0x80 == 0 { 1 } else { 2 };
    }
    length += usize::from(extension & 0x40 != 0);
    length += usize::from(extension & 0x30 != 0);
    Some(length)
}

#[test]
fn a_stamp_reads_back_and_damage_shows() {
    for packet in [0, 1] {
        for keyframe in [false, true] {
            let track = TrackKey { client: 3, number: 1 };
            let place = Place { spatial: 2, temporal: 1, references: [4, 2], inter_layer: true };
            let stamp = Stamp { track, layer: 2, frame: 70_000, packet, packets: 2, keyframe, serial: 99, place };
            let mut payload = stamp.vp8(0x7fff, 5, 300);
            assert_eq!(payload.len(), 300);
            assert_eq!(Stamp::parse_vp8(&payload), Ok(stamp));
            assert_eq!(str0m::format::detect_vp8_keyframe(&payload), keyframe && packet == 0);
            payload[250] ^= 1;
            assert!(Stamp::parse_vp8(&payload).is_err());
            assert_eq!(Stamp::parse_opus(&stamp.opus(80)), Ok(stamp));
        }
    }
}
