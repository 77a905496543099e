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

/// What a publisher's payload types mean; filled as they are met, forgotten with each negotiation.
pub struct Incoming(Box<[Option<(Codec, FormatKey)>; PAYLOAD_TYPES]>);

impl Default for Incoming {
    fn default() -> Self {
        Self(Box::new([None; PAYLOAD_TYPES]))
    }
}

impl Incoming {
    /// The codec and format of a payload type.
    pub fn of(&mut self, pt: Pt, config: &CodecConfig, formats: &mut Formats) -> Option<(Codec, FormatKey)> {
        let slot = self.0.get_mut(usize::from(*pt))?;
        if slot.is_none() {
            let params = config.find(|params| params.pt() == pt)?;
            *slot = Some((codec::codec_of(params.spec().codec)?, formats.intern(*params)));
        }
        *slot
    }
}

/// Which payload type a subscriber takes a format by; filled as needed, forgotten with each negotiation.
#[derive(Default)]
pub struct Outgoing(Vec<Option<Option<Pt>>>);

impl Outgoing {
    /// The payload type of a format, if the subscriber has negotiated it.
    pub fn of(&mut self, key: FormatKey, config: &CodecConfig, formats: &Formats) -> Option<Pt> {
        let index = usize::from(key.0);
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        *self.0[index].get_or_insert_with(|| {
            let wanted = formats.0.get(index)?;
            config.match_params(*wanted).map(PayloadParams::pt)
        })
    }
}
