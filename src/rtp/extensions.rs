//! RTP header extensions (RFC 8285): which we know, under which ids, what they say, and how they are written.
//!
//! Ids are negotiated per connection, so a publisher's block is never copied: what is worth passing on is read into
//! [`Values`] and written anew for every receiver, together with what is the receiver's [`Own`].

use std::time::Duration;

use super::header::Header;
use super::octets::{u16_at, u24_at, u64_at};

/// Profile of blocks whose elements have a one-byte header (RFC 8285 §4.2).
const ONE_BYTE_PROFILE: u16 = 0xbede;
/// Profile of blocks whose elements have a two-byte header; the low four bits are the application's (§4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;
const TWO_BYTE_PROFILE_MASK: u16 = 0xfff0;
/// Stands between elements and fills the last word, in both forms.
const FILLING: u8 = 0;
/// In the one-byte form this id ends the block (§4.2).
const STOP_ID: u8 = 15;
/// What the one-byte form can express.
const ONE_BYTE_MAX_ID: u8 = 14;
const ONE_BYTE_MAX_ELEMENT_BYTES: usize = 16;
/// Profile and length in front of the elements.
const PREFIX_BYTES: usize = 4;
const WORD_BYTES: usize = 4;

/// The longest mid, rid or repaired rid that is written: what the one-byte form carries. Ours are shorter.
pub const MAX_NAME_BYTES: usize = ONE_BYTE_MAX_ELEMENT_BYTES;
/// The longest dependency descriptor that is passed on. The template structure of L3T3, sent with keyframes, takes
/// about 80 bytes; a descriptor has no business to eat a tenth of a packet.
pub const MAX_DESCRIPTOR_BYTES: usize = 128;
/// What [`write()`] needs at most: everything there is, in two-byte form, and the filling.
pub const MAX_BLOCK_BYTES: usize = {
    let names = 3 * (2 + MAX_NAME_BYTES);
    let transport = (2 + 2) + (2 + 3);
    let values = (2 + 1) + (2 + 1) + (2 + 16) + (2 + 3) + (2 + 1);
    (PREFIX_BYTES + names + transport + values + 2 + MAX_DESCRIPTOR_BYTES).next_multiple_of(WORD_BYTES)
};

macro_rules! known {
    ($($name:ident $uri:literal $doc:literal;)*) => {
        /// A header extension that we understand.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Extension {
            $(#[doc = $doc] $name,)*
        }

        impl Extension {
            /// All of them, in the order of their discriminants.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// What SDP calls it (`a=extmap`).
            pub const fn uri(self) -> &'static str {
                match self {
                    $(Self::$name => $uri,)*
                }
            }

            /// The one that SDP calls so.
            pub fn from_uri(uri: &str) -> Option<Self> {
                match uri {
                    $($uri => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

known! {
    Mid "urn:ietf:params:rtp-hdrext:sdes:mid" "The media section (RFC 8843 §15).";
    Rid "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" "The simulcast layer (RFC 8852).";
    RepairedRid "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" "The layer that is retransmitted (RFC 8852).";
    TransportSequenceNumber "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
        "Numbers all packets of a connection, for congestion control.";
    AbsSendTime "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time" "When the packet left, 6.18 bits of seconds.";
    AudioLevel "urn:ietf:params:rtp-hdrext:ssrc-audio-level" "How loud (RFC 6464).";
    VideoOrientation "urn:3gpp:video-orientation" "How the camera was held (3GPP TS 26.114 §7.4.5).";
    AbsCaptureTime "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time" "When it was captured.";
    PlayoutDelay "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" "How long to buffer.";
    DependencyDescriptor "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
        "Which frames a frame needs.";
    VideoContentType "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type" "Camera or screen.";
    VideoLayersAllocation "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"
        "Which simulcast layers are sent at what rate.";
}

const KNOWN: usize = Extension::ALL.len();
/// Ids below this are found by index; browsers number from 1 and rarely get beyond 14.
const INDEXED_IDS: usize = 16;

/// The ids that one connection negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionIds {
    /// By discriminant; zero stands for none, being no valid id.
    ids: [u8; KNOWN],
    known: [Option<Extension>; INDEXED_IDS],
}

impl Default for ExtensionIds {
    fn default() -> Self {
        Self { ids: [0; KNOWN], known: [None; INDEXED_IDS] }
    }
}

impl ExtensionIds {
    /// An extension goes by this id from now on; zero takes its id away. An id means one thing, the last it was set to.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.ids.iter_mut().filter(|other| **other == id).for_each(|other| *other = 0);
        if let Some(mine) = self.ids.get_mut(extension as usize) {
            *mine = id;
        }
        self.known = [None; INDEXED_IDS];
        for extension in Extension::ALL {
            let id = self.id(extension).map(usize::from);
            if let Some(known) = id.and_then(|id| self.known.get_mut(id)) {
                *known = Some(extension);
            }
        }
    }

    /// The id of an extension.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        self.ids.get(extension as usize).copied().filter(|id| *id != 0)
    }

    /// The extension of an id.
    pub fn of(&self, id: u8) -> Option<Extension> {
        match self.known.get(usize::from(id)) {
            Some(known) => *known,
            None => Extension::ALL.into_iter().find(|extension| self.id(*extension) == Some(id)),
        }
    }
}

/// What a publisher says about its media that receivers are told too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values {
    /// Voice activity in the top bit, below it the level in −dBov (RFC 6464 §3).
    pub audio_level: Option<u8>,
    pub video_orientation: Option<u8>,
    pub video_content_type: Option<u8>,
    /// Two 12-bit numbers of 10 ms: least and most.
    pub playout_delay: Option<[u8; 3]>,
    /// Capture time as 32.32 NTP seconds, and the capturer's estimated clock offset in the same unit.
    pub abs_capture_time: Option<(u64, Option<i64>)>,
}

/// What a received packet's extensions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received<'a> {
    pub values: Values,
    pub mid: Option<&'a str>,
    pub rid: Option<&'a str>,
    pub repaired_rid: Option<&'a str>,
    pub transport_sequence_number: Option<u16>,
    /// 6.18 bits of seconds.
    pub abs_send_time: Option<u32>,
    /// Passed on if it is not longer than [`MAX_DESCRIPTOR_BYTES`].
    pub dependency_descriptor: Option<&'a [u8]>,
}

/// What the sender of a packet says for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own<'a> {
    pub mid: Option<&'a [u8]>,
    pub rid: Option<&'a [u8]>,
    pub repaired_rid: Option<&'a [u8]>,
    pub transport_sequence_number: Option<u16>,
    /// See [`abs_send_time`].
    pub abs_send_time: Option<u32>,
}

/// The low 24 bits of 6.18 fixed-point seconds, of a time since any epoch; it wraps every 64 s.
pub fn abs_send_time(since_epoch: Duration) -> u32 {
    let seconds = (since_epoch.as_secs() & 0x3f) << 18;
    let fraction = (u64::from(since_epoch.subsec_nanos()) << 18) / 1_000_000_000;
    (seconds | fraction) as u32
}

/// The elements of a block, with their ids; it ends where the block stops making sense.
struct Elements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Elements<'a> {
    fn of(header: &Header<'a>) -> Self {
        let two_byte = header.extension_profile & TWO_BYTE_PROFILE_MASK == TWO_BYTE_PROFILE;
        let readable = two_byte || header.extension_profile == ONE_BYTE_PROFILE;
        Self { rest: if readable { header.extension } else { &[] }, two_byte }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            if *first == FILLING {
                continue;
            }
            let (id, length) = if self.two_byte {
                let (length, rest) = self.rest.split_first()?;
                self.rest = rest;
                (*first, usize::from(*length))
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            // Filling with a length ends a block too (§4.2), as does an element that is cut off.
            let ends = !self.two_byte && matches!(id, FILLING | STOP_ID);
            let Some((element, rest)) = self.rest.split_at_checked(length).filter(|_| !ends) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            return Some((id, element));
        }
    }
}

/// Reads a header's extensions. Unknown ids and elements of an impossible length are passed over.
pub fn read<'a>(header: &Header<'a>, ids: &ExtensionIds) -> Received<'a> {
    let mut received = Received::default();
    let name = |element: &'a [u8]| std::str::from_utf8(element).ok().filter(|name| !name.is_empty());
    for (id, element) in Elements::of(header) {
        let Some(extension) = ids.of(id) else { continue };
        let values = &mut received.values;
        match extension {
            Extension::Mid => received.mid = name(element),
            Extension::Rid => received.rid = name(element),
            Extension::RepairedRid => received.repaired_rid = name(element),
            // Version 2 of the draft appends a feedback request, which we have no use for.
            Extension::TransportSequenceNumber => received.transport_sequence_number = u16_at(element, 0),
            Extension::AbsSendTime => received.abs_send_time = u24_at(element, 0),
            Extension::AudioLevel => values.audio_level = element.first().copied(),
            Extension::VideoOrientation => values.video_orientation = element.first().copied(),
            Extension::VideoContentType => values.video_content_type = element.first().copied(),
            Extension::PlayoutDelay => values.playout_delay = element.first_chunk().copied(),
            Extension::AbsCaptureTime => {
                let offset = u64_at(element, 8).map(|bits| bits as i64);
                values.abs_capture_time = u64_at(element, 0).map(|time| (time, offset));
            }
            Extension::DependencyDescriptor => {
                received.dependency_descriptor = Some(element).filter(|element| !element.is_empty());
            }
            // The server learns what a layer costs by counting.
            Extension::VideoLayersAllocation => {}
        }
    }
    received
}

/// Hands out every element that there is something to say in, written.
fn each_element(
    own: &Own<'_>,
    values: &Values,
    dependency_descriptor: Option<&[u8]>,
    mut element: impl FnMut(Extension, &[u8]),
) {
    let names = [(Extension::Mid, own.mid), (Extension::Rid, own.rid), (Extension::RepairedRid, own.repaired_rid)];
    for (extension, name) in names {
        if let Some(name) = name.filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len())) {
            element(extension, name);
        }
    }
    if let Some(number) = own.transport_sequence_number {
        element(Extension::TransportSequenceNumber, &number.to_be_bytes());
    }
    if let Some(time) = own.abs_send_time {
        let [_, time @ ..] = time.to_be_bytes();
        element(Extension::AbsSendTime, &time);
    }
    let single = [
        (Extension::AudioLevel, values.audio_level),
        (Extension::VideoOrientation, values.video_orientation),
        (Extension::VideoContentType, values.video_content_type),
    ];
    for (extension, value) in single {
        if let Some(value) = value {
            element(extension, &[value]);
        }
    }
    if let Some(delay) = values.playout_delay {
        element(Extension::PlayoutDelay, &delay);
    }
    match values.abs_capture_time {
        Some((time, None)) => element(Extension::AbsCaptureTime, &time.to_be_bytes()),
        Some((time, Some(offset))) => {
            let both = (u128::from(time) << 64) | u128::from(offset as u64);
            element(Extension::AbsCaptureTime, &both.to_be_bytes());
        }
        None => {}
    }
    if let Some(bytes) = dependency_descriptor.filter(|bytes| (1..=MAX_DESCRIPTOR_BYTES).contains(&bytes.len())) {
        element(Extension::DependencyDescriptor, bytes);
    }
}

/// Writes an extension block, from its profile to its filling, to the front of `out`, and tells how long it is.
///
/// Zero if there is nothing to write, or no room ([`MAX_BLOCK_BYTES`] is always enough): leave the X bit clear then.
/// What the receiver has no id for is left out. The one-byte form is used wherever it can express everything.
pub fn write(
    out: &mut [u8],
    ids: &ExtensionIds,
    own: &Own<'_>,
    values: &Values,
    dependency_descriptor: Option<&[u8]>,
) -> usize {
    let (mut count, mut element_bytes, mut two_byte) = (0, 0, false);
    each_element(own, values, dependency_descriptor, |extension, element| {
        let Some(id) = ids.id(extension) else { return };
        count += 1;
        element_bytes += element.len();
        two_byte |= id > ONE_BYTE_MAX_ID || element.len() > ONE_BYTE_MAX_ELEMENT_BYTES;
    });
    let filled = element_bytes + count * if two_byte { 2 } else { 1 };
    let contents_bytes = filled.next_multiple_of(WORD_BYTES);
    let Some((prefix, contents)) = out.get_mut(..PREFIX_BYTES + contents_bytes).and_then(<[u8]>::split_first_chunk_mut)
    else {
        return 0;
    };
    if count == 0 {
        return 0;
    }
    let [profile_high, profile_low] = if two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE }.to_be_bytes();
    // At most MAX_BLOCK_BYTES, so the number of words fits a byte.
    *prefix = [profile_high, profile_low, 0, (contents_bytes / WORD_BYTES) as u8];
    contents.fill(FILLING);
    let mut rest = contents;
    each_element(own, values, dependency_descriptor, |extension, element| {
        let Some(id) = ids.id(extension) else { return };
        // Lengths are at least 1, and at most 16 in the one-byte form, 128 in the other.
        let length = element.len() as u8;
        let one_byte_head = [(id << 4) | (length.saturating_sub(1) & 0x0f)];
        let two_byte_head = [id, length];
        append(&mut rest, if two_byte { &two_byte_head } else { &one_byte_head });
        append(&mut rest, element);
    });
    PREFIX_BYTES + contents_bytes
}

/// Copies to the front of `rest` and moves it behind.
fn append(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((front, behind)) = std::mem::take(rest).split_at_mut_checked(bytes.len()) {
        front.copy_from_slice(bytes);
        *rest = behind;
    }
}

#[cfg(test)]
mod tests;
