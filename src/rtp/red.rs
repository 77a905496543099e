//! Redundant audio (RFC 2198): earlier frames repeated in front of the newest one.
//!
//! Who does not understand it is sent the newest alone, the primary block.

/// F: another block header follows this one; only the primary's, the last, has it not.
const MORE: u8 = 0x80;
const PAYLOAD_TYPE_MASK: u8 = 0x7f;
/// F and payload type, 14 bits of timestamp offset, 10 bits of length (RFC 2198 §3).
const REDUNDANT_HEADER_BYTES: usize = 4;
/// F and payload type. Its length is what remains.
const PRIMARY_HEADER_BYTES: usize = 1;
const LENGTH_BITS: u32 = 10;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const TIMESTAMP_OFFSET_MASK: u32 = (1 << 14) - 1;

/// The newest block: what the packet would hold without redundancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primary {
    pub payload_type: u8,
    /// Where it begins in the payload, which it fills to the end.
    pub offset: usize,
}

/// One encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    pub payload_type: u8,
    /// How much earlier than the packet's timestamp it begins, in the same units; 14 bits, zero for the primary.
    pub timestamp_offset: u16,
    pub bytes: &'a [u8],
}

/// Finds the primary block. `None` if the redundant ones claim all there is, or more.
pub fn primary(payload: &[u8]) -> Option<Primary> {
    let spans = measure(payload)?;
    Some(Primary { payload_type: spans.primary_type, offset: spans.headers_bytes + spans.redundant_bytes })
}

/// All blocks in the order of the packet, the primary last; none if there is no [`primary`].
pub fn blocks(payload: &[u8]) -> impl Iterator<Item = Block<'_>> {
    // Without a primary both lie behind the payload's end.
    let (mut header, mut start) =
        measure(payload).map_or((payload.len(), payload.len()), |spans| (0, spans.headers_bytes));
    std::iter::from_fn(move || {
        let first = *payload.get(header).filter(|_| start < payload.len())?;
        if first & MORE == 0 {
            let bytes = payload.get(start..)?;
            start = payload.len();
            return Some(Block { payload_type: first, timestamp_offset: 0, bytes });
        }
        let fields = redundant_header(payload, header)?;
        let end = start + length(fields);
        let bytes = payload.get(start..end)?;
        (header, start) = (header + REDUNDANT_HEADER_BYTES, end);
        let timestamp_offset = ((fields >> LENGTH_BITS) & TIMESTAMP_OFFSET_MASK) as u16;
        Some(Block { payload_type: first & PAYLOAD_TYPE_MASK, timestamp_offset, bytes })
    })
}

/// How a payload divides.
struct Spans {
    headers_bytes: usize,
    redundant_bytes: usize,
    primary_type: u8,
}

/// `None` unless something remains for the primary.
fn measure(payload: &[u8]) -> Option<Spans> {
    let mut header = 0;
    let mut redundant_bytes = 0;
    loop {
        let first = *payload.get(header)?;
        if first & MORE == 0 {
            let headers_bytes = header + PRIMARY_HEADER_BYTES;
            let remains = headers_bytes + redundant_bytes < payload.len();
            return remains.then_some(Spans { headers_bytes, redundant_bytes, primary_type: first });
        }
        redundant_bytes += length(redundant_header(payload, header)?);
        header += REDUNDANT_HEADER_BYTES;
    }
}

fn redundant_header(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..)?.first_chunk::<REDUNDANT_HEADER_BYTES>().map(|header| u32::from_be_bytes(*header))
}

fn length(redundant_header: u32) -> usize {
    (redundant_header & LENGTH_MASK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 960 and 480 units ago, three bytes and none, and a primary of two.
    const PAYLOAD: [u8; 14] = [0xef, 0x0f, 0x00, 0x03, 0xee, 0x07, 0x80, 0x00, 0x6f, 1, 2, 3, 4, 5];

    fn found(payload: &[u8]) -> Vec<Block<'_>> {
        blocks(payload).collect()
    }

    #[test]
    fn the_primary_follows_all_others() {
        assert_eq!(primary(&PAYLOAD), Some(Primary { payload_type: 111, offset: 12 }));
        let expected = [
            Block { payload_type: 111, timestamp_offset: 960, bytes: &[1, 2, 3][..] },
            Block { payload_type: 110, timestamp_offset: 480, bytes: &[] },
            Block { payload_type: 111, timestamp_offset: 0, bytes: &[4, 5] },
        ];
        assert_eq!(found(&PAYLOAD), expected);
    }

    #[test]
    fn the_primary_can_be_alone() {
        assert_eq!(primary(&[0x6f, 9]), Some(Primary { payload_type: 111, offset: 1 }));
        assert_eq!(found(&[0x6f, 9]), [Block { payload_type: 111, timestamp_offset: 0, bytes: &[9] }]);
    }

    #[test]
    fn fields_have_all_their_bits() {
        let mut payload = vec![0xff, 0xff, 0xff, 0xff, 0x7f];
        payload.resize(5 + 1023, 0);
        assert_eq!(primary(&payload), None, "nothing is left for the primary");
        payload.push(7);
        assert_eq!(primary(&payload), Some(Primary { payload_type: 127, offset: 5 + 1023 }));
        let first = found(&payload)[0];
        assert_eq!((first.payload_type, first.timestamp_offset, first.bytes.len()), (127, 0x3fff, 1023));
    }

    #[test]
    fn a_truncated_payload_has_no_primary() {
        for length in 0..=12 {
            assert_eq!(primary(&PAYLOAD[..length]), None, "{length}");
            assert!(found(&PAYLOAD[..length]).is_empty());
        }
        assert_eq!(primary(&PAYLOAD[..13]), Some(Primary { payload_type: 111, offset: 12 }));
        assert_eq!(primary(&[0x80; 9]), None, "headers to the end");
    }

    #[test]
    fn in_any_bytes_the_blocks_end_in_the_primary() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut several = 0;
        for _ in 0..100_000 {
            let mut payload = [0u8; 32];
            for chunk in payload.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_be_bytes());
            }
            // Short blocks, or hardly any payload would hold them.
            payload[2] &= 0xfc;
            payload[3] &= 0x0f;
            payload[6] &= 0xfc;
            payload[7] &= 0x0f;
            let payload = &payload[..(state % 33) as usize];
            let (primary, blocks) = (primary(payload), found(payload));
            assert_eq!(primary.is_some(), !blocks.is_empty());
            let (Some(primary), Some(last)) = (primary, blocks.last()) else { continue };
            several += usize::from(blocks.len() > 2);
            assert_eq!((last.payload_type, last.bytes), (primary.payload_type, &payload[primary.offset..]));
            let headers = (blocks.len() - 1) * REDUNDANT_HEADER_BYTES + PRIMARY_HEADER_BYTES;
            assert_eq!(headers + blocks.iter().map(|block| block.bytes.len()).sum::<usize>(), payload.len());
        }
        assert!(several > 1000, "{several}");
    }
}
