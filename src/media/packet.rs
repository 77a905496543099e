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

    /// Whether it carries sound.
    pub fn is_audio(self) -> bool {
        self == Self::Opus
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
    /// Video: what is known of its frame.
    pub frame: Frame,
    /// Width and height in pixels, where a keyframe tells.
    pub size: Option<(u16, u16)>,
}

/// What the payload's descriptor or the Dependency Descriptor says of a packet's frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frame {
    /// The frame's first packet.
    pub starts: bool,
    /// The frame's last packet.
    pub ends: bool,
    /// The layer it belongs to.
    pub spatial: u8,
    pub temporal: u8,
    pub numbers: FrameNumbers,
    pub scheme: Scheme,
}

/// The numbers that a receiver expects to go on when the source changes. Those that a payload does not have are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameNumbers {
    /// VP8 (RFC 7741 §4.2) and VP9 (RFC 9628 §4.2): 7 or 15 bits.
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    /// VP8: 5 bits.
    pub key_index: u8,
    /// Of the Dependency Descriptor.
    pub frame_number: u16,
}

/// What is known of how frames depend on each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing: it is all or none of an encoding.
    #[default]
    Whole,
    /// VP8: temporal layers. `sync`: it depends on the lowest only (Y).
    Temporal { sync: bool },
    /// VP9 by its payload descriptor.
    Spatial {
        /// Later frames of higher temporal layers do not need those before it (U).
        sync: bool,
        /// No higher spatial layer of this picture needs it (Z).
        unneeded_above: bool,
    },
    /// The Dependency Descriptor.
    Targets(Targets),
}

/// Decode targets of a stream at most, and chains: three spatial by three temporal layers are nine, and three.
pub const MAX_TARGETS: usize = 16;
pub const MAX_CHAINS: usize = 4;

/// A frame as its Dependency Descriptor places it (AV1 RTP specification, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// How many decode targets there are.
    pub count: u8,
    /// What the frame is to each of them: two bits, the first target lowest.
    pub indications: u32,
    /// The targets the publisher still sends; one bit each.
    pub active: u16,
    /// By how much its number is above the last frame's of each chain before it; 0: the chain begins here.
    pub chain_diffs: [u8; MAX_CHAINS],
    /// Each target's layer and chain: spatial in bits 0 and 1, temporal in 2 to 4, chain in 5 and 6.
    pub layout: [u8; MAX_TARGETS],
}

/// What a frame is to a decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    NotPresent,
    Discardable,
    /// A receiver may begin with the target here.
    Switch,
    Required,
}

impl Targets {
    /// Packs a target's layer and chain.
    pub fn pack(spatial: u8, temporal: u8, chain: u8) -> u8 {
        (spatial & 3) | (temporal & 7) << 2 | (chain & 3) << 5
    }

    /// Spatial and temporal layer of a target.
    pub fn layer(&self, target: u8) -> (u8, u8) {
        let packed = self.layout.get(usize::from(target)).copied().unwrap_or(0);
        (packed & 3, packed >> 2 & 7)
    }

    /// The chain that protects a target, and how far back its last frame is.
    pub fn chain(&self, target: u8) -> (usize, u8) {
        let chain = usize::from(self.layout.get(usize::from(target)).copied().unwrap_or(0) >> 5 & 3);
        (chain, self.chain_diffs[chain])
    }

    /// What the frame is to a target.
    pub fn indication(&self, target: u8) -> Indication {
        match self.indications >> (2 * u32::from(target.min(15))) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    /// The best target that is sent and not above a layer; else the lowest.
    pub fn best(&self, spatial: u8, temporal: u8) -> u8 {
        let fits = |target: &u8| {
            let (s, t) = self.layer(*target);
            self.active & 1 << target != 0 && s <= spatial && t <= temporal
        };
        (0..self.count).filter(fits).max_by_key(|target| self.layer(*target)).unwrap_or(0)
    }

    /// The highest spatial layer that is sent.
    pub fn top_spatial(&self) -> u8 {
        self.layer(self.best(u8::MAX, u8::MAX)).0
    }

    /// One bit for each target that is not above a layer.
    pub fn mask(&self, spatial: u8, temporal: u8) -> u16 {
        let within = |target: &u8| {
            let (s, t) = self.layer(*target);
            s <= spatial && t <= temporal
        };
        (0..self.count).filter(within).fold(0, |mask, target| mask | 1 << target) & self.active
    }
}
