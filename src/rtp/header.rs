//! The RTP header (RFC 3550 §5.1) and what tells RTCP from RTP on a shared port (RFC 5761 §4).

use super::octets::{u16_at, u32_at};

/// Up to and including the SSRC.
pub const FIXED_BYTES: usize = 12;
/// Profile word and length in front of a header extension's contents (RFC 3550 §5.3.1).
const EXTENSION_PREFIX_BYTES: usize = 4;
const CSRC_BYTES: usize = 4;
const WORD_BYTES: usize = 4;

/// The two bits that every RTP and RTCP packet begins with.
const VERSION_MASK: u8 = 0xc0;
const VERSION_2: u8 = 0x80;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;
const CSRC_COUNT_MASK: u8 = 0x0f;
const MARKER: u8 = 0x80;
const PAYLOAD_TYPE_MASK: u8 = 0x7f;

/// A received packet's header; what it borrows stays in the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence_number: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The payload, once decrypted, ends in [`padding_bytes`].
    pub padding: bool,
    /// Where the payload begins: after the CSRCs and the extension block.
    pub header_bytes: usize,
    /// The extension block's first word; zero without one.
    pub extension_profile: u16,
    /// The extension block's contents, behind profile and length; empty without one.
    pub extension: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header of a packet, encrypted or not. `None` for what is not RTP version 2 or lies about its length.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let [first, second, ..] = *packet.first_chunk::<FIXED_BYTES>()?;
        if first & VERSION_MASK != VERSION_2 {
            return None;
        }
        let csrc_bytes = usize::from(first & CSRC_COUNT_MASK) * CSRC_BYTES;
        let mut header_bytes = FIXED_BYTES + csrc_bytes;
        let mut extension_profile = 0;
        let mut extension: &[u8] = &[];
        if first & EXTENSION != 0 {
            extension_profile = u16_at(packet, header_bytes)?;
            let length_bytes = usize::from(u16_at(packet, header_bytes + 2)?) * WORD_BYTES;
            let start = header_bytes + EXTENSION_PREFIX_BYTES;
            header_bytes = start + length_bytes;
            extension = packet.get(start..header_bytes)?;
        }
        if packet.len() < header_bytes {
            return None;
        }
        Some(Self {
            payload_type: second & PAYLOAD_TYPE_MASK,
            marker: second & MARKER != 0,
            sequence_number: u16_at(packet, 2)?,
            timestamp: u32_at(packet, 4)?,
            ssrc: u32_at(packet, 8)?,
            padding: first & PADDING != 0,
            header_bytes,
            extension_profile,
            extension,
        })
    }
}

/// What a sender says in the fixed part; it never names contributing sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fixed {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence_number: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub padding: bool,
    /// An extension block follows.
    pub extension: bool,
}

impl Fixed {
    /// Writes the twelve bytes.
    pub fn write(&self, out: &mut [u8; FIXED_BYTES]) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let [number_high, number_low] = self.sequence_number.to_be_bytes();
        let [time_0, time_1, time_2, time_3] = self.timestamp.to_be_bytes();
        let [ssrc_0, ssrc_1, ssrc_2, ssrc_3] = self.ssrc.to_be_bytes();
        *out = [
            VERSION_2 | flag(self.padding, PADDING) | flag(self.extension, EXTENSION),
            flag(self.marker, MARKER) | (self.payload_type & PAYLOAD_TYPE_MASK),
            number_high,
            number_low,
            time_0,
            time_1,
            time_2,
            time_3,
            ssrc_0,
            ssrc_1,
            ssrc_2,
            ssrc_3,
        ];
    }
}

/// How many bytes at the end of a decrypted payload are padding, when the header says there is some. `None` if it lies:
/// the last byte counts itself, so zero is as wrong as more than there is.
pub fn padding_bytes(payload: &[u8]) -> Option<usize> {
    let count = usize::from(*payload.last()?);
    (1..=payload.len()).contains(&count).then_some(count)
}

/// Whether a packet of RTP's version is RTCP, by its second byte: RTP does not use payload types 64 to 95 where both
/// share a port (RFC 5761 §4).
pub fn is_rtcp(second_byte: u8) -> bool {
    matches!(second_byte & PAYLOAD_TYPE_MASK, 64..=95)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;

    /// V=2, X, one CSRC; marker, PT 96; one word of one-byte extensions; payload of two bytes.
    const PACKET: [u8; 26] =
        [0x91, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 0xbe, 0xde, 0, 1, 0x10, b'a', 0, 0, 0xab, 0xcd];

    #[test]
    fn a_header_with_everything_is_read() {
        let header = Header::parse(&PACKET).unwrap();
        let expected = Header {
            payload_type: 96,
            marker: true,
            sequence_number: 0x1234,
            timestamp: 0x0102_0304,
            ssrc: 0x0506_0708,
            padding: false,
            header_bytes: 24,
            extension_profile: 0xbede,
            extension: &[0x10, b'a', 0, 0],
        };
        assert_eq!(header, expected);
        assert_eq!(Header::parse(&PACKET[..24]).unwrap(), expected, "an empty payload is one");
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_refused() {
        for length in 0..24 {
            assert_eq!(Header::parse(&PACKET[..length]), None, "{length}");
        }
        for version in [0x00, 0x40, 0xc0] {
            let mut packet = PACKET;
            packet[0] = version | 0x11;
            assert_eq!(Header::parse(&packet), None);
        }
        let mut packet = PACKET;
        packet[19] = 3;
        assert_eq!(Header::parse(&packet), None, "the extension block ends behind the packet");
    }

    #[test]
    fn what_is_written_reads_back() {
        for bits in 0..8u8 {
            let fixed = Fixed {
                payload_type: 127,
                marker: bits & 1 != 0,
                sequence_number: 0xfedc,
                timestamp: 0x8765_4321,
                ssrc: 0xdead_beef,
                padding: bits & 2 != 0,
                extension: bits & 4 != 0,
            };
            let mut packet = [0; FIXED_BYTES + EXTENSION_PREFIX_BYTES];
            fixed.write(packet.first_chunk_mut().unwrap());
            let header = Header::parse(&packet).unwrap();
            assert_eq!((header.payload_type, header.marker), (127, fixed.marker));
            assert_eq!((header.sequence_number, header.timestamp, header.ssrc), (0xfedc, 0x8765_4321, 0xdead_beef));
            assert_eq!(header.padding, fixed.padding);
            assert_eq!(header.header_bytes, if fixed.extension { 16 } else { 12 });
        }
    }

    #[test]
    fn padding_counts_itself_and_stays_inside() {
        assert_eq!(padding_bytes(&[7, 7, 0, 2]), Some(2));
        assert_eq!(padding_bytes(&[0, 0, 0, 4]), Some(4), "all of it");
        assert_eq!(padding_bytes(&[7, 7, 0, 5]), None);
        assert_eq!(padding_bytes(&[7, 7, 0, 0]), None);
        assert_eq!(padding_bytes(&[]), None);
    }

    #[test]
    fn rtcp_types_are_told_from_payload_types() {
        for packet_type in 192..=223 {
            assert!(is_rtcp(packet_type));
        }
        for payload_type in (0..64).chain(96..128) {
            assert!(!is_rtcp(payload_type) && !is_rtcp(payload_type | MARKER));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = IdSource::from_seed([1; 32]);
        for _ in 0..100_000 {
            let length = rng.bits() as usize % 48;
            let mut packet = [0u8; 48];
            packet.iter_mut().for_each(|byte| *byte = rng.bits() as u8);
            packet[0] = 0x80 | (packet[0] & 0x3f);
            packet[14] &= packet[15] & 0x07;
            if let Some(header) = Header::parse(&packet[..length]) {
                assert!(header.header_bytes <= length);
            }
        }
    }
}
