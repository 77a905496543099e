//! The facts about one RTP packet that forwarding decisions need. The payload stays where it is.

use std::time::Instant;

/// A codec stubs are negotiated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Codec {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Opus, Self::Vp8, Self::Vp9, Self::H264, Self::Av1];

    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::H264 => "h264",
            Self::Av1 => "av1",
        }
    }

    /// RTP clock rate in Hz: RFC 7587 §4.1 for Opus, 90 kHz for all video.
    pub fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => 90_000,
        }
    }
}

/// A set of codecs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodecSet(u8);

impl CodecSet {
    /// Adds one.
    pub fn insert(&mut self, codec: Codec) {
        self.0 |= 1 << codec as u8;
    }

    /// Whether it holds `codec`.
    pub fn contains(self, codec: Codec) -> bool {
        self.0 & (1 << codec as u8) != 0
    }
}

impl FromIterator<Codec> for CodecSet {
    fn from_iter<I: IntoIterator<Item = Codec>>(codecs: I) -> Self {
        let mut set = Self::default();
        codecs.into_iter().for_each(|codec| set.insert(codec));
        set
    }
}

/// One received RTP packet, in facts.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// The publisher's SSRC; a change of it restarts the sequence numbering.
    pub ssrc: u32,
    /// Extended sequence number (RFC 3550 A.1).
    pub seq: u64,
    pub timestamp: u32,
    pub codec: Codec,
    /// Payload bytes.
    pub bytes: usize,
    /// First packet of a keyframe; a decoder can start here. True for all audio.
    pub keyframe: bool,
    /// RFC 6464 level in −dBov: 0 loudest, 127 silence.
    pub level: Option<u8>,
    /// When it was captured, on this host's clock ([`super::clock`]).
    pub captured_at: Instant,
}
