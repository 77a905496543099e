//! Takes numbers and byte strings off the front of an input.

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// As many bytes as two bytes in front of them say, or all that are left.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?).min(self.0.len());
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(string)
    }
}
