//! Payload formats by number, so that a packet's payload type is translated between two peers by two array look-ups.

use str0m::format::CodecConfig;
use str0m::format::PayloadParams;
use str0m::media::Pt;

use super::codec;
use crate::media::Codec;

/// Payload types are 7 bits (RFC 3550 §5.1).
const PAYLOAD_TYPES: usize = 128;

/// A codec with its parameters, as some publisher sends it; the same for all peers of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatKey(u16);

/// All formats an engine has met. Codecs are few and their parameters limited by what we negotiate, so this stays
/// small.
#[derive(Default)]
pub struct Formats(Vec<PayloadParams>);

impl Formats {
    fn intern(&mut self, params: PayloadParams) -> FormatKey {
        let known = self.0.iter().position(|other| other.spec() == params.spec());
        let index = known.unwrap_or_else(|| {
            self.0.push(params);
            self.0.len() - 1
        });
        FormatKey(index as u16)
    }
}

/// What a publisher's payload type means.
#[derive(Debug, Clone, Copy)]
pub struct Meaning {
    pub codec: Codec,
    pub format: FormatKey,
    /// It carries retransmissions of that codec (RFC 4588).
    pub is_rtx: bool,
    /// The codec's packets can be asked for again.
    pub has_rtx: bool,
}

/// What a publisher's payload types mean; filled as they are met, forgotten with each negotiation.
#[derive(Default)]
pub struct Incoming(Vec<(u8, Option<Meaning>)>);

impl Incoming {
    /// What a payload type means.
    pub fn of(&mut self, pt: u8, config: &CodecConfig, formats: &mut Formats) -> Option<Meaning> {
        // A publisher uses three or four of them.
        if let Some((_, known)) = self.0.iter().find(|(known, _)| *known == pt) {
            return *known;
        }
        let meaning = Self::look_up(pt.into(), config, formats);
        if self.0.len() < PAYLOAD_TYPES {
            self.0.push((pt, meaning));
        }
        meaning
    }

    fn look_up(pt: Pt, config: &CodecConfig, formats: &mut Formats) -> Option<Meaning> {
        let params = config.find(|params| params.pt() == pt || params.resend() == Some(pt))?;
        let codec = codec::codec_of(params.spec().codec)?;
        let has_rtx = params.resend().is_some();
        Some(Meaning { codec, format: formats.intern(*params), is_rtx: params.pt() != pt, has_rtx })
    }
}

/// Which payload type a subscriber takes a format by; filled as needed, forgotten with each negotiation.
#[derive(Default)]
pub struct Outgoing(Vec<Option<Option<PayloadTypes>>>);

/// How a subscriber takes a format, and retransmissions of it.
#[derive(Debug, Clone, Copy)]
pub struct PayloadTypes {
    pub media: u8,
    pub rtx: Option<u8>,
}

impl Outgoing {
    /// The payload types of a format, if the subscriber has negotiated it.
    pub fn of(&mut self, key: FormatKey, config: &CodecConfig, formats: &Formats) -> Option<PayloadTypes> {
        let index = usize::from(key.0);
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        *self.0[index].get_or_insert_with(|| {
            let wanted = formats.0.get(index)?;
            let params = config.match_params(*wanted)?;
            Some(PayloadTypes { media: *params.pt(), rtx: params.resend().map(|pt| *pt) })
        })
    }
}
