//! What a codec is called, and what a payload of it says.

use str0m::format::{
    Codec as Str0mCodec, detect_av1_keyframe, detect_h264_keyframe, detect_h264_nalu, detect_vp8_keyframe,
    detect_vp9_keyframe,
};

use crate::media::Codec;

/// Our name for str0m's codec; `None` for what we do not forward.
pub fn codec_of(codec: Str0mCodec) -> Option<Codec> {
    match codec {
        Str0mCodec::Opus => Some(Codec::Opus),
        Str0mCodec::Vp8 => Some(Codec::Vp8),
        Str0mCodec::Vp9 => Some(Codec::Vp9),
        Str0mCodec::H264 => Some(Codec::H264),
        Str0mCodec::Av1 => Some(Codec::Av1),
        _ => None,
    }
}

/// H.264 sequence parameter set (RFC 6184 table 1, ITU-T H.264 table 7-1).
const H264_SPS: u8 = 7;

/// Whether a decoder can start with this payload.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => detect_vp8_keyframe(payload),
        Codec::Vp9 => detect_vp9_keyframe(payload),
        // Browsers send SPS and PPS in a packet before the IDR slice; a decoder needs them first.
        Codec::H264 => detect_h264_nalu(payload, H264_SPS) || detect_h264_keyframe(payload),
        Codec::Av1 => detect_av1_keyframe(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_are_known_by_their_first_bytes() {
        // VP8: descriptor with S=1, partition 0, then a frame header whose lowest bit is 0 for a keyframe.
        assert!(starts_keyframe(Codec::Vp8, &[0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a]));
        assert!(!starts_keyframe(Codec::Vp8, &[0x10, 0x01, 0, 0]));
        assert!(!starts_keyframe(Codec::Vp8, &[]));
        // AV1: the N bit of the aggregation header begins a coded video sequence.
        assert!(starts_keyframe(Codec::Av1, &[0x18, 0x0a]) && !starts_keyframe(Codec::Av1, &[0x10, 0x0a]));
        // H.264: an IDR slice, or the SPS in a STAP-A before it.
        assert!(starts_keyframe(Codec::H264, &[0x78, 0x00, 0x04, 0x67, 0x42, 0xe0, 0x1f]));
        assert!(!starts_keyframe(Codec::H264, &[0x41, 0x9a]));
    }
}
