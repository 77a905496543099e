//! RFC 4571 framing of datagrams over TCP: a 16-bit length, then the datagram. Pure.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;

/// The length before each frame.
const HEADER_BYTES: usize = 2;
/// The most that waits for a slow peer; at 2.5 Mbit/s most of a second, after which media is late anyway.
const OUTBOUND_BYTES_MAX: usize = 256 * 1024;

/// A frame is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame exceeds its limit")]
pub(crate) struct Oversize;

/// Cuts a byte stream into frames.
pub(crate) struct Deframer {
    /// Its length is the capacity: room for one frame of the limit.
    buffer: Vec<u8>,
    filled: Range<usize>,
}

impl Deframer {
    /// A deframer for frames of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: vec![0; HEADER_BYTES + limit], filled: 0..0 }
    }

    /// Raises the limit; what has been read stays.
    pub(crate) fn raise_limit(&mut self, limit: usize) {
        let wanted = HEADER_BYTES + limit;
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
    }

    /// Reads once. Zero means that the peer has closed; call only after [`Deframer::next`] gave `None`.
    pub(crate) fn fill(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        let read = reader.read(&mut self.buffer[self.filled.end..])?;
        self.filled.end += read;
        Ok(read)
    }

    /// The next complete frame, which stays where it is.
    pub(crate) fn peek(&self) -> Result<Option<&[u8]>, Oversize> {
        let unread = &self.buffer[self.filled.clone()];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*header));
        if HEADER_BYTES + length > self.buffer.len() {
            return Err(Oversize);
        }
        Ok(rest.get(..length))
    }

    /// Takes the next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Oversize> {
        let Some(length) = self.peek()?.map(<[u8]>::len) else { return Ok(None) };
        let begin = self.filled.start + HEADER_BYTES;
        self.filled.start = begin + length;
        Ok(Some(&self.buffer[begin..begin + length]))
    }
}

/// What waits to be written to one peer, in frames; bounded, so that a slow peer costs memory only to a limit.
#[derive(Default)]
pub(crate) struct Outbound {
    bytes: VecDeque<u8>,
}

impl Outbound {
    /// Queues a frame as a whole, or refuses it as a whole.
    #[must_use]
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(length) = u16::try_from(frame.len()) else { return false };
        if self.bytes.len() + HEADER_BYTES + frame.len() > OUTBOUND_BYTES_MAX {
            return false;
        }
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(frame);
        true
    }

    /// Writes as much as the peer takes now; what is left waits for the next call.
    pub(crate) fn write_to(&mut self, writer: &mut impl Write) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match writer.write(self.bytes.as_slices().0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.bytes.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend((frame.len() as u16).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    /// Gives at most `step` bytes a read, then `WouldBlock`.
    struct Dripping<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = self.step.min(self.bytes.len()).min(buffer.len());
            let (now, later) = self.bytes.split_at(taken);
            buffer[..taken].copy_from_slice(now);
            self.bytes = later;
            Ok(taken)
        }
    }

    #[test]
    fn frames_survive_any_partial_reads() {
        let frames: [&[u8]; 5] = [b"first", b"", &[7; 40], b"x", &[9; 39]];
        for step in 1..50 {
            let bytes = framed(&frames);
            let mut reader = Dripping { bytes: &bytes, step };
            let mut deframer = Deframer::new(40);
            let mut got: Vec<Vec<u8>> = Vec::new();
            while deframer.fill(&mut reader).is_ok() {
                while let Some(frame) = deframer.next().expect("within the limit") {
                    got.push(frame.to_vec());
                }
            }
            assert_eq!(got, frames, "steps of {step}");
        }
    }

    #[test]
    fn too_long_a_frame_is_known_from_its_header() {
        let mut deframer = Deframer::new(10);
        let bytes = framed(&[&[0; 11]]);
        assert!(deframer.fill(&mut &bytes[..2]).is_ok());
        assert_eq!(deframer.peek(), Err(Oversize));
        deframer.raise_limit(11);
        assert_eq!(deframer.next(), Ok(None));
        assert!(deframer.fill(&mut &bytes[2..]).is_ok());
        assert_eq!(deframer.next(), Ok(Some(&[0; 11][..])));
    }

    #[test]
    fn peeking_takes_nothing() {
        let mut deframer = Deframer::new(10);
        assert!(deframer.fill(&mut &framed(&[b"abc"])[..]).is_ok());
        assert_eq!(deframer.peek(), Ok(Some(&b"abc"[..])));
        assert_eq!(deframer.next(), Ok(Some(&b"abc"[..])));
        assert_eq!(deframer.peek(), Ok(None));
    }

    /// Takes `room` bytes, then `WouldBlock`.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.room).min(7);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_peer_gets_whole_frames_or_none() {
        let mut outbound = Outbound::default();
        let frame = [5; 1000];
        let accepted = (0..1000).filter(|_| outbound.push(&frame)).count();
        assert_eq!(accepted, OUTBOUND_BYTES_MAX / 1002);
        let mut writer = Narrow { taken: Vec::new(), room: 0 };
        while !outbound.is_empty() {
            writer.room = 1234;
            assert!(outbound.write_to(&mut writer).is_ok());
        }
        assert_eq!(writer.taken, framed(&vec![&frame[..]; accepted]));
        assert!(!outbound.push(&[0; 65_536]), "no length for it");
    }
}
