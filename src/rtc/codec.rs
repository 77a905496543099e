//! What a received packet's payload and header extensions say about it.

use std::time::Instant;

use str0m::format::{
    Codec as Str0mCodec, detect_av1_keyframe, detect_h264_keyframe, detect_h264_nalu, detect_vp8_keyframe,
    detect_vp9_keyframe,
};
use str0m::rtp::{ExtensionValues, RtpPacket};

use crate::media::{Codec, Packet};

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
fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => detect_vp8_keyframe(payload),
        Codec::Vp9 => detect_vp9_keyframe(payload),
        // Browsers send SPS and PPS in a packet before the IDR slice; a decoder needs them first.
        Codec::H264 => detect_h264_nalu(payload, H264_SPS) || detect_h264_keyframe(payload),
        Codec::Av1 => detect_av1_keyframe(payload),
    }
}

/// The facts about a packet that rooms decide on.
pub fn facts(packet: &RtpPacket, codec: Codec, captured_at: Instant) -> Packet {
    let level = packet.header.ext_vals.audio_level;
    Packet {
        ssrc: *packet.header.ssrc,
        seq: *packet.seq_no,
        timestamp: packet.header.timestamp,
        codec,
        bytes: packet.payload.len(),
        keyframe: starts_keyframe(codec, &packet.payload),
        // str0m hands out the level as negative decibels.
        level: level.map(|level| level.unsigned_abs().min(127)),
        captured_at,
    }
}

/// The header extensions a receiver gets. Always fresh values: a copied publisher's MID or RID would go out verbatim
/// and misroute the packet at the receiver; transport-wide numbers and send times are set anew by the sender.
pub fn forwarded_extensions(from: &ExtensionValues) -> ExtensionValues {
    ExtensionValues {
        audio_level: from.audio_level,
        voice_activity: from.voice_activity,
        video_orientation: from.video_orientation,
        video_content_type: from.video_content_type,
        play_delay_min: from.play_delay_min,
        play_delay_max: from.play_delay_max,
        ..ExtensionValues::default()
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

    #[test]
    fn no_personal_or_per_leg_extension_is_passed_on() {
        let from = ExtensionValues {
            audio_level: Some(-30),
            mid: Some("7".into()),
            rid: Some("h".into()),
            transport_cc: Some(9),
            ..ExtensionValues::default()
        };
        let to = forwarded_extensions(&from);
        assert_eq!(to.audio_level, Some(-30));
        assert!(to.mid.is_none() && to.rid.is_none() && to.transport_cc.is_none());
    }
}
