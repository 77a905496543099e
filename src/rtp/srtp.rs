//! Sealing and opening SRTP and SRTCP: RFC 3711 (AES-CM with HMAC-SHA1) and RFC 7714 (AES-GCM).
//!
//! A context carries the keys of one direction, not the state of its streams: who sends knows each packet's extended
//! sequence number, who receives keeps a [`RolloverTracker`] for each SSRC. Only SRTCP, whose index is on the wire, is
//! counted and checked for replays here.
//!
//! The hot paths are [`Sealer::seal_rtp`] and [`Opener::open_rtp_into`]: under GCM they read the input once and write
//! the output once, so that forwarding copies no payload besides.

mod cipher;
mod kdf;
mod window;

#[cfg(test)]
mod tests;

pub use window::RolloverTracker;

use cipher::Cipher;
use kdf::{Kdf, Stream};
use window::RtcpWindows;

/// Fixed part of an RTP header (RFC 3550 §5.1); contributors and extensions follow it.
const RTP_HEADER_BYTES: usize = 12;
/// What stays clear of a compound RTCP packet: the first header and its sender's SSRC (RFC 3711 §3.4).
const RTCP_CLEAR_BYTES: usize = 8;
/// The word of E flag and index that SRTCP appends (RFC 3711 §3.4).
const RTCP_INDEX_BYTES: usize = 4;
/// Marks an SRTCP packet whose payload is encrypted.
const RTCP_ENCRYPTED: u32 = 1 << 31;
/// An SRTCP index has 31 bits; beyond that the keystream would repeat (RFC 3711 §9.2).
const RTCP_INDEX_MAX: u32 = (1 << 31) - 1;
/// An SRTP index has 48 bits: 32 of rollover count, 16 of sequence number.
const RTP_INDEX_MAX: u64 = (1 << 48) - 1;
/// No datagram is longer. AES-CM's block counter has 16 bits, and a longer packet could run into its neighbour's
/// keystream.
const PACKET_MAX_BYTES: usize = 65_535;

/// The SRTP protection profiles we speak (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    Aes128CmSha1_80,
}

impl Profile {
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => cipher::GCM_SALT_BYTES,
            Self::Aes128CmSha1_80 => cipher::CM_SALT_BYTES,
        }
    }

    /// What DTLS has to export: key and salt for each direction.
    pub fn keying_material_bytes(self) -> usize {
        2 * (self.key_bytes() + self.salt_bytes())
    }

    /// By how much SRTP lengthens a packet.
    pub fn rtp_tag_bytes(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => cipher::GCM_TAG_BYTES,
            Self::Aes128CmSha1_80 => cipher::CM_TAG_BYTES,
        }
    }

    /// By how much SRTCP lengthens a compound packet.
    pub fn rtcp_trailer_bytes(self) -> usize {
        self.rtp_tag_bytes() + RTCP_INDEX_BYTES
    }
}

/// Why a packet was not sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum SrtpError {
    #[error("the keying material has not the length of its profile")]
    BadKeyLength,
    #[error("the packet is too short for its header and its authentication tag")]
    TooShort,
    #[error("the packet is longer than a datagram")]
    TooLong,
    #[error("the packet's buffer is not exactly header, payload and authentication tag")]
    WrongRoom,
    #[error("the packet is not authentic")]
    NotAuthentic,
    #[error("the SRTCP packet was seen before, or is too old to tell")]
    Replayed,
    #[error("the SRTCP packet is not encrypted: its E flag is missing")]
    UnencryptedRtcp,
    #[error("the packet index is used up: these keys may not seal another packet")]
    IndexExhausted,
    #[error("the crypto library refused")]
    Crypto,
}

/// Both directions' master keys, as DTLS exports them (RFC 5764 §4.2): client key, server key, client salt, server salt.
pub struct KeyingMaterial {
    profile: Profile,
    exported: Vec<u8>,
}

impl KeyingMaterial {
    pub fn new(profile: Profile, exported: &[u8]) -> Result<Self, SrtpError> {
        if exported.len() != profile.keying_material_bytes() {
            return Err(SrtpError::BadKeyLength);
        }
        Ok(Self { profile, exported: exported.to_vec() })
    }

    /// The contexts of one end: what it sends with and what it receives with.
    pub fn contexts(&self, is_dtls_client: bool) -> Result<(Sealer, Opener), SrtpError> {
        let profile = self.profile;
        let (keys, salts) = self.exported.split_at(2 * profile.key_bytes());
        let (client_key, server_key) = keys.split_at(profile.key_bytes());
        let (client_salt, server_salt) = salts.split_at(profile.salt_bytes());
        let client = Kdf::new(client_key, client_salt)?;
        let server = Kdf::new(server_key, server_salt)?;
        let (ours, theirs) = if is_dtls_client { (client, server) } else { (server, client) };
        let sealer = Sealer {
            profile,
            rtp: ours.cipher(profile, Stream::Rtp)?,
            rtcp: ours.cipher(profile, Stream::Rtcp)?,
            next_rtcp_index: 0,
        };
        let opener = Opener {
            profile,
            rtp: theirs.cipher(profile, Stream::Rtp)?,
            rtcp: theirs.cipher(profile, Stream::Rtcp)?,
            rtcp_windows: RtcpWindows::default(),
        };
        Ok((sealer, opener))
    }
}

/// What one end sends with.
pub struct Sealer {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// One more than [`RTCP_INDEX_MAX`] when all are used.
    next_rtcp_index: u32,
}

impl Sealer {
    pub fn profile(&self) -> Profile {
        self.profile
    }

    pub fn rtp_tag_bytes(&self) -> usize {
        self.profile.rtp_tag_bytes()
    }

    /// Seals `payload` into `packet` in one pass. `packet` is the header (already written, `header_bytes` long), room
    /// for the payload and room for the tag, exactly. `index` is the extended sequence number: rollover count << 16 |
    /// sequence number, and with `ssrc` what the header says; the same pair must never seal two different packets.
    pub fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_bytes: usize,
        payload: &[u8],
    ) -> Result<(), SrtpError> {
        let body_bytes = rtp_body_bytes(self.profile, index, packet.len(), header_bytes)?;
        if body_bytes != payload.len() {
            return Err(SrtpError::WrongRoom);
        }
        self.rtp.seal_rtp(ssrc, index, packet, header_bytes, payload)
    }

    /// The same with the plaintext already in its place in `packet`.
    pub fn seal_rtp_in_place(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_bytes: usize,
    ) -> Result<(), SrtpError> {
        rtp_body_bytes(self.profile, index, packet.len(), header_bytes)?;
        self.rtp.seal_rtp_in_place(ssrc, index, packet, header_bytes)
    }

    /// Seals the compound RTCP packet at `buffer[start..]` and appends tag and index. After an error the buffer's end
    /// must not be sent.
    pub fn seal_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let packet = buffer.get_mut(start..).unwrap_or_default();
        let ssrc = rtcp_ssrc(packet)?;
        if packet.len() + self.profile.rtcp_trailer_bytes() > PACKET_MAX_BYTES {
            return Err(SrtpError::TooLong);
        }
        let index = self.next_rtcp_index;
        if index > RTCP_INDEX_MAX {
            return Err(SrtpError::IndexExhausted);
        }
        // Spent even if sealing fails: an index is a nonce, and a nonce is used once.
        self.next_rtcp_index += 1;
        self.rtcp.seal_rtcp(ssrc, index, buffer, start)
    }
}

/// What one end receives with.
pub struct Opener {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_windows: RtcpWindows,
}

impl Opener {
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens in place and returns the payload's length: `packet[header_bytes..][..length]` is plaintext. After an error
    /// the payload's bytes are unspecified. Replays are the caller's to refuse ([`RolloverTracker`]).
    pub fn open_rtp(&self, ssrc: u32, index: u64, packet: &mut [u8], header_bytes: usize) -> Result<usize, SrtpError> {
        let body_bytes = rtp_body_bytes(self.profile, index, packet.len(), header_bytes)?;
        self.rtp.open_rtp(ssrc, index, packet, header_bytes)?;
        Ok(body_bytes)
    }

    /// Opens in one pass from `packet` into `out`, which then is the payload, or empty after an error.
    pub fn open_rtp_into(
        &self,
        ssrc: u32,
        index: u64,
        packet: &[u8],
        header_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        out.clear();
        let body_bytes = rtp_body_bytes(self.profile, index, packet.len(), header_bytes)?;
        out.resize(body_bytes, 0);
        // What GCM wrote before it saw the tag is not to be read.
        self.rtp.open_rtp_into(ssrc, index, packet, header_bytes, out).inspect_err(|_| out.clear())
    }

    /// Opens an SRTCP packet into `out`, which then is the compound packet, or empty after an error. Refuses replays.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), SrtpError> {
        out.clear();
        let ssrc = rtcp_ssrc(packet)?;
        let Some(body_bytes) = packet.len().checked_sub(RTCP_CLEAR_BYTES + self.profile.rtcp_trailer_bytes()) else {
            return Err(SrtpError::TooShort);
        };
        if packet.len() > PACKET_MAX_BYTES {
            return Err(SrtpError::TooLong);
        }
        let word = self.rtcp.rtcp_index_word(packet)?;
        if word & RTCP_ENCRYPTED == 0 {
            return Err(SrtpError::UnencryptedRtcp);
        }
        let index = word & !RTCP_ENCRYPTED;
        if self.rtcp_windows.is_replay(ssrc, index) {
            return Err(SrtpError::Replayed);
        }
        let (clear, _) = packet.split_at(RTCP_CLEAR_BYTES);
        out.extend_from_slice(clear);
        out.resize(RTCP_CLEAR_BYTES + body_bytes, 0);
        let body = out.get_mut(RTCP_CLEAR_BYTES..).unwrap_or_default();
        self.rtcp.open_rtcp(ssrc, index, packet, body).inspect_err(|_| out.clear())?;
        self.rtcp_windows.accept(ssrc, index);
        Ok(())
    }
}

/// How long the payload of an SRTP packet is. Everything that the ciphers index by is checked here.
fn rtp_body_bytes(profile: Profile, index: u64, packet_bytes: usize, header_bytes: usize) -> Result<usize, SrtpError> {
    if index > RTP_INDEX_MAX {
        return Err(SrtpError::IndexExhausted);
    }
    if packet_bytes > PACKET_MAX_BYTES {
        return Err(SrtpError::TooLong);
    }
    if header_bytes < RTP_HEADER_BYTES {
        return Err(SrtpError::TooShort);
    }
    let after_header = packet_bytes.checked_sub(header_bytes).ok_or(SrtpError::TooShort)?;
    after_header.checked_sub(profile.rtp_tag_bytes()).ok_or(SrtpError::TooShort)
}

/// The sender's SSRC in the first header of a compound packet, clear or sealed.
fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet {
        [_, _, _, _, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(SrtpError::TooShort),
    }
}
