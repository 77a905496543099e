//! Numbers in network byte order out of bytes that may be too few.

/// Two bytes from `at` on.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

/// Three bytes from `at` on.
pub fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]))
}

/// Three bytes from `at` on, as a two's complement number.
pub fn i24_at(bytes: &[u8], at: usize) -> Option<i32> {
    // Shifted to the top and back, which extends the sign.
    u24_at(bytes, at).map(|value| (value << 8) as i32 >> 8)
}

/// Four bytes from `at` on.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// Eight bytes from `at` on.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_whole_or_not_at_all() {
        let bytes = [0x80, 0, 0, 1, 2, 3, 4, 5, 6];
        assert_eq!((u16_at(&bytes, 7), u16_at(&bytes, 8)), (Some(0x0506), None));
        assert_eq!((u24_at(&bytes, 6), u24_at(&bytes, 7)), (Some(0x04_0506), None));
        assert_eq!((i24_at(&bytes, 0), i24_at(&bytes, 3)), (Some(-0x80_0000), Some(0x01_0203)));
        assert_eq!((u32_at(&bytes, 5), u32_at(&bytes, usize::MAX)), (Some(0x0304_0506), None));
        assert_eq!((u64_at(&bytes, 1), u64_at(&bytes, 2)), (Some(0x0000_0102_0304_0506), None));
    }
}
