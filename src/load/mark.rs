//! What a simulated packet's payload holds: a head that looks like the codec's, and a mark by which its receiver knows it.

/// Bytes that no padding and no other payload begins a mark with.
const MAGIC: [u8; 4] = *b"StLd";
/// Magic, publisher, stream, flags, frame, packet, packets, time.
pub const MARK_BYTES: usize = 4 + 4 + 1 + 1 + 4 + 2 + 2 + 8;
/// A VP8 payload descriptor with a 15-bit picture id (RFC 7741 §4.2).
const VP8_DESCRIPTOR_BYTES: usize = 4;
/// A keyframe's header: frame tag, start code, width and height (RFC 6386 §9.1). Other packets keep the room.
const VP8_HEADER_BYTES: usize = 10;
/// In front of the mark of a video packet.
pub const VIDEO_HEAD_BYTES: usize = VP8_DESCRIPTOR_BYTES + VP8_HEADER_BYTES;
/// In front of the mark of an audio packet: Opus' table of contents (RFC 6716 §3.1).
pub const AUDIO_HEAD_BYTES: usize = 1;
/// The X and I bits of the descriptor, and S for the first packet of a partition.
const DESCRIPTOR_EXTENDED: u8 = 0x80;
const DESCRIPTOR_START: u8 = 0x10;
const PICTURE_ID_PRESENT: u8 = 0x80;
const PICTURE_ID_LONG: u16 = 0x8000;
/// The lowest bit of a VP8 frame tag is 0 for keyframes (RFC 6386 §9.1); bit 4 shows the frame.
const TAG_KEYFRAME: u8 = 0x10;
const TAG_INTERFRAME: u8 = 0x11;
const VP8_START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
/// Opus: CELT, 20 ms, mono, one frame.
const OPUS_HEAD: u8 = 0xf8;
/// Set in the flags of a packet of discontinuous transmission.
const SILENT: u8 = 1;

/// What a packet says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The participant who sent it.
    pub publisher: u32,
    /// 0 for audio, for video one more than the layer's number, the smallest first.
    pub stream: u8,
    /// Nobody speaks: a packet of discontinuous transmission.
    pub silent: bool,
    pub frame: u32,
    /// Its number within the frame.
    pub packet: u16,
    /// How many packets the frame has.
    pub packets: u16,
    /// Nanoseconds since 1970, just before the frame was sealed.
    pub sent_ns: u64,
}

impl Mark {
    /// Writes the mark.
    fn write(&self, out: &mut [u8; MARK_BYTES]) {
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            if let Some((front, behind)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
                front.copy_from_slice(bytes);
                rest = behind;
            }
        };
        put(&MAGIC);
        put(&self.publisher.to_be_bytes());
        put(&[self.stream, if self.silent { SILENT } else { 0 }]);
        put(&self.frame.to_be_bytes());
        put(&self.packet.to_be_bytes());
        put(&self.packets.to_be_bytes());
        put(&self.sent_ns.to_be_bytes());
    }

    /// Reads a mark that stands at the front.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        if *magic != MAGIC {
            return None;
        }
        let (publisher, rest) = rest.split_first_chunk()?;
        let ([stream, flags], rest) = rest.split_first_chunk()?;
        let (frame, rest) = rest.split_first_chunk()?;
        let (packet, rest) = rest.split_first_chunk()?;
        let (packets, rest) = rest.split_first_chunk()?;
        Some(Self {
            publisher: u32::from_be_bytes(*publisher),
            stream: *stream,
            silent: flags & SILENT != 0,
            frame: u32::from_be_bytes(*frame),
            packet: u16::from_be_bytes(*packet),
            packets: u16::from_be_bytes(*packets),
            sent_ns: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }

    /// Writes the front of a video payload, which has room for it.
    pub fn write_video(&self, keyframe: bool, payload: &mut [u8]) {
        let Some((head, rest)) = payload.split_first_chunk_mut::<VIDEO_HEAD_BYTES>() else { return };
        let first = self.packet == 0;
        let [picture_high, picture_low] = (PICTURE_ID_LONG | (self.frame as u16 & !PICTURE_ID_LONG)).to_be_bytes();
        let start = if first { DESCRIPTOR_START } else { 0 };
        let tag = if keyframe { TAG_KEYFRAME } else { TAG_INTERFRAME };
        let [code_0, code_1, code_2] = VP8_START_CODE;
        // 640 × 360, as a keyframe says it: little endian.
        let (width, height) = ([0x80, 0x02], [0x68, 0x01]);
        *head = [
            DESCRIPTOR_EXTENDED | start,
            PICTURE_ID_PRESENT,
            picture_high,
            picture_low,
            tag,
            0,
            0,
            code_0,
            code_1,
            code_2,
            width[0],
            width[1],
            height[0],
            height[1],
        ];
        if let Some(mark) = rest.first_chunk_mut() {
            self.write(mark);
        }
    }

    /// Writes the front of an audio payload, which has room for it.
    pub fn write_audio(&self, payload: &mut [u8]) {
        let Some((head, rest)) = payload.split_first_chunk_mut::<AUDIO_HEAD_BYTES>() else { return };
        *head = [OPUS_HEAD];
        if let Some(mark) = rest.first_chunk_mut() {
            self.write(mark);
        }
    }

    /// Reads the mark of a video payload.
    pub fn read_video(payload: &[u8]) -> Option<Self> {
        Self::read(payload.get(VIDEO_HEAD_BYTES..)?)
    }

    /// Reads the mark of an audio payload.
    pub fn read_audio(payload: &[u8]) -> Option<Self> {
        Self::read(payload.get(AUDIO_HEAD_BYTES..)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        publisher: 0x0102_0304,
        stream: 3,
        silent: true,
        frame: 0xfedc_ba98,
        packet: 0,
        packets: 300,
        sent_ns: 0x1122_3344_5566_7788,
    };

    #[test]
    fn what_is_written_reads_back() {
        let mut payload = [0; 100];
        MARK.write_video(true, &mut payload);
        assert_eq!(Mark::read_video(&payload), Some(MARK));
        assert_eq!(Mark::read_audio(&payload), None, "not where audio has it");
        MARK.write_audio(&mut payload);
        assert_eq!(Mark::read_audio(&payload), Some(MARK));
        for length in 0..AUDIO_HEAD_BYTES + MARK_BYTES {
            assert_eq!(Mark::read_audio(&payload[..length]), None, "{length}");
        }
        MARK.write_video(true, &mut payload[..20]);
    }

    #[test]
    fn the_server_sees_keyframes_and_their_starts() {
        let seen = str0m::format::detect_vp8_keyframe;
        let mut payload = [0; 100];
        MARK.write_video(true, &mut payload);
        assert!(seen(&payload));
        MARK.write_video(false, &mut payload);
        assert!(!seen(&payload));
        Mark { packet: 1, ..MARK }.write_video(true, &mut payload);
        assert!(!seen(&payload), "not the first packet of the frame");
    }
}
