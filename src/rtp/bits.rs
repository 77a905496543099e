//! Fields of any number of bits, high to low: f(n) and ns(n) of AV1 RTP, A.8.2; u(n) and ue(v) of ITU-T H.264, 7.2 and 9.1.

/// It ends within a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooShort;

const BYTE_BITS: usize = 8;
/// Leading zeros of an Exp-Golomb code of 32 bits at most (H.264, 9.1).
const MAX_ZEROS: usize = 31;

/// Reads one field after the other.
#[derive(Debug, Clone, Copy)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Begins behind so many bits.
    pub fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// How many bits are read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many bits remain.
    pub fn remaining(&self) -> usize {
        (self.bytes.len() * BYTE_BITS).saturating_sub(self.position)
    }

    /// f(n), n at most 32.
    pub fn take(&mut self, bits: usize) -> Result<u32, TooShort> {
        let mut value = 0;
        let mut wanted = bits;
        while wanted > 0 {
            let byte = *self.bytes.get(self.position / BYTE_BITS).ok_or(TooShort)?;
            let unread = BYTE_BITS - self.position % BYTE_BITS;
            let taken = wanted.min(unread);
            let part = (u32::from(byte) >> (unread - taken)) & ((1 << taken) - 1);
            value = (value << taken) | part;
            wanted -= taken;
            self.position += taken;
        }
        Ok(value)
    }

    /// One bit.
    pub fn flag(&mut self) -> Result<bool, TooShort> {
        Ok(self.take(1)? == 1)
    }

    /// ns(n): a number below `limit` (1..=64), in one bit less where that is unambiguous.
    pub fn below(&mut self, limit: u32) -> Result<u32, TooShort> {
        let width = limit.checked_ilog2().map_or(0, |log| log + 1);
        let short = (1 << width) - limit;
        let value = self.take(width.saturating_sub(1) as usize)?;
        if value < short { Ok(value) } else { Ok((value << 1) - short + self.take(1)?) }
    }

    /// ue(v): an Exp-Golomb code; one of more than 32 bits ends nowhere.
    pub fn exp_golomb(&mut self) -> Result<u32, TooShort> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > MAX_ZEROS {
                return Err(TooShort);
            }
        }
        Ok((1 << zeros) - 1 + self.take(zeros)?)
    }
}

/// Writes one field after the other; what is left of the last byte is zero.
#[derive(Debug)]
pub struct BitWriter<'a> {
    out: &'a mut [u8],
    position: usize,
}

impl<'a> BitWriter<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, position: 0 }
    }

    /// The lowest `bits` (at most 32) of a value. `None` if there is no room.
    pub fn put(&mut self, value: u32, bits: usize) -> Option<()> {
        let mut left = bits;
        while left > 0 {
            let byte = self.out.get_mut(self.position / BYTE_BITS)?;
            let used = self.position % BYTE_BITS;
            if used == 0 {
                *byte = 0;
            }
            let put = left.min(BYTE_BITS - used);
            let part = (value >> (left - put)) & ((1 << put) - 1);
            // At most eight bits, moved to where the byte is free.
            *byte |= (part << (BYTE_BITS - used - put)) as u8;
            left -= put;
            self.position += put;
        }
        Some(())
    }

    /// So many bits of another descriptor. `None` if there is no room, or there are not so many.
    pub fn copy(&mut self, from: &mut BitReader<'_>, bits: usize) -> Option<()> {
        let mut left = bits;
        while left > 0 {
            let some = left.min(BYTE_BITS);
            self.put(from.take(some).ok()?, some)?;
            left -= some;
        }
        Some(())
    }

    /// Bytes written, the last one perhaps in part.
    pub fn bytes(&self) -> usize {
        self.position.div_ceil(BYTE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_can_be_taken() {
        let mut out = [0xff; 8];
        let mut writer = BitWriter::new(&mut out);
        for bits in [1, 5, 16, 3, 32, 0, 6] {
            writer.put(0xa5a5_a5a5, bits).unwrap();
        }
        assert_eq!((writer.bytes(), writer.put(0, 2)), (8, None));
        let mut reader = BitReader::new(&out, 0);
        for bits in [1, 5, 16, 3, 32, 0, 6] {
            assert_eq!(u64::from(reader.take(bits).unwrap()), 0xa5a5_a5a5 & ((1u64 << bits) - 1));
        }
        assert_eq!((reader.position(), reader.remaining(), reader.take(2)), (63, 1, Err(TooShort)));
    }

    #[test]
    fn numbers_below_five_are_those_of_the_specification() {
        let value = |byte: u8| {
            let mut reader = BitReader::new(std::slice::from_ref(&byte), 0);
            (reader.below(5).unwrap(), reader.position())
        };
        assert_eq!([0x00, 0x40, 0x80, 0xc0, 0xe0].map(value), [(0, 2), (1, 2), (2, 2), (3, 3), (4, 3)]);
    }

    #[test]
    fn exp_golomb_codes_are_those_of_table_9_2() {
        let value = |byte: u8| BitReader::new(std::slice::from_ref(&byte), 0).exp_golomb();
        assert_eq!([0x80, 0x40, 0x60, 0x20, 0x38].map(value), [Ok(0), Ok(1), Ok(2), Ok(3), Ok(6)]);
        assert_eq!(value(0), Err(TooShort));
        assert_eq!(BitReader::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe], 0).exp_golomb(), Ok(u32::MAX - 1));
        assert_eq!(BitReader::new(&[0, 0, 0, 0, 0x80, 0, 0, 0, 0], 0).exp_golomb(), Err(TooShort));
    }

    #[test]
    fn a_number_below_one_has_no_bits() {
        assert_eq!(BitReader::new(&[], 0).below(1), Ok(0));
    }

    #[test]
    fn a_copy_goes_over_the_edges_of_bytes() {
        let mut out = [0; 3];
        let mut writer = BitWriter::new(&mut out);
        writer.put(1, 1).unwrap();
        assert_eq!(writer.copy(&mut BitReader::new(&[0x12, 0x34, 0x56], 4), 17), Some(()));
        assert_eq!(writer.copy(&mut BitReader::new(&[0x12], 4), 5), None);
        assert_eq!(out, [0x91, 0xa2, 0x80]);
    }
}
