//! Payload formats by number, so that a packet's payload type is translated between two peers by two array look-ups.

use str0m::format::CodecConfig;
use str0m::format::PayloadParams;
use str0m::media::Pt;

use super::answer::Red;
use super::codec;
use crate::media::Codec;
use crate::rtp::red;

/// Payload types are 7 bits (RFC 3550 §5.1).
const PAYLOAD_TYPES: usize = 128;

/// A codec with its parameters, as some publisher sends it; the same for all peers of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatKey {
    index: u16,
    /// It comes as RED (RFC 2198), whose primary blocks have this payload type.
    pub primary: Option<u8>,
}

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
        FormatKey { index: index as u16, primary: None }
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

impl Meaning {
    /// Where the primary block of RED begins; 0 without RED. `None` if it is not there, or not what was negotiated.
    pub fn primary_at(&self, payload: &[u8]) -> Option<u16> {
        let Some(wanted) = self.format.primary else { return Some(0) };
        let found = red::primary(payload).filter(|found| found.payload_type == wanted)?;
        u16::try_from(found.offset).ok()
    }
}

/// What a publisher's payload types mean; filled as they are met, forgotten with each negotiation.
#[derive(Default)]
pub struct Incoming {
    met: Vec<(u8, Option<Meaning>)>,
    red: Vec<Red>,
}

impl Incoming {
    /// Nothing met yet. An m-line may have RED, which str0m's configuration does not tell.
    pub fn new(red: Vec<Red>) -> Self {
        Self { met: Vec::new(), red }
    }

    /// The payload type of RED of this one.
    pub fn red_of(&self, primary: u8) -> Option<u8> {
        self.red.iter().find(|red| red.primary == primary).map(|red| red.payload_type)
    }

    /// Formats have other numbers from now on; what was negotiated stays.
    pub fn forget_formats(&mut self) {
        self.met.clear();
    }

    /// What a payload type means.
    pub fn of(&mut self, pt: u8, config: &CodecConfig, formats: &mut Formats) -> Option<Meaning> {
        // A publisher uses three or four of them.
        if let Some((_, known)) = self.met.iter().find(|(known, _)| *known == pt) {
            return *known;
        }
        let primary = self.red.iter().find(|red| red.payload_type == pt).map(|red| red.primary);
        let meaning = Self::look_up(primary.unwrap_or(pt).into(), config, formats);
        let meaning = meaning.map(|meaning| {
            let format = FormatKey { primary, ..meaning.format };
            Meaning { format, ..meaning }
        });
        if self.met.len() < PAYLOAD_TYPES {
            self.met.push((pt, meaning));
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
        let index = usize::from(key.index);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CodecConfig {
        let mut config = CodecConfig::empty();
        config.enable_opus(true, false);
        config.enable_vp8(true);
        config
    }

    #[test]
    fn red_is_opus_in_blocks() {
        let mut formats = Formats::default();
        let mut incoming = Incoming::new(vec![Red { payload_type: 63, primary: 111 }]);
        let mut meaning = |pt| incoming.of(pt, &config(), &mut formats);
        let (red, opus) = (meaning(63).unwrap(), meaning(111).unwrap());
        assert_eq!((red.codec, red.format.index, red.format.primary), (Codec::Opus, opus.format.index, Some(111)));
        assert_eq!((opus.codec, opus.format.primary), (Codec::Opus, None));
        assert!(!red.is_rtx && !red.has_rtx);
        assert!(meaning(96).is_some_and(|vp8| vp8.format.primary.is_none()) && meaning(62).is_none());
        assert!(Incoming::default().of(63, &config(), &mut formats).is_none(), "not negotiated");
        assert_eq!((incoming.red_of(111), incoming.red_of(96)), (Some(63), None));
    }

    #[test]
    fn red_of_anything_but_the_negotiated_opus_is_malformed() {
        let format = FormatKey { index: 0, primary: None };
        let opus = Meaning { codec: Codec::Opus, format, is_rtx: false, has_rtx: false };
        let red = Meaning { format: FormatKey { primary: Some(111), ..opus.format }, ..opus };
        // One redundant block of two bytes, then the primary.
        let mut payload = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3, 4];
        assert_eq!((red.primary_at(&payload), opus.primary_at(&payload)), (Some(7), Some(0)));
        assert_eq!(red.primary_at(&[111, 9]), Some(1));
        for broken in [&payload[..7], &payload[..3], &[]] {
            assert_eq!(red.primary_at(broken), None, "cut off");
        }
        payload[4] = 110;
        assert_eq!(red.primary_at(&payload), None, "the primary is of another payload type");
        payload[4] |= 0x80;
        assert_eq!(red.primary_at(&payload), None, "headers without an end");
    }
}
