//! The two transforms with one set of session keys: AES-GCM (RFC 7714) and AES-CM with HMAC-SHA1 (RFC 3711).
//!
//! Key schedules are made once, here; a packet costs its own bytes. The callers have checked all lengths.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::kdf::{apply_keystream, counter_mode_key};
use super::{Profile, RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTCP_INDEX_BYTES, SrtpError};

/// RFC 7714 §12.
pub(super) const GCM_SALT_BYTES: usize = 12;
pub(super) const GCM_TAG_BYTES: usize = 16;
/// RFC 3711 §8.2; the tag is HMAC-SHA1's first 80 bits, for SRTCP as well.
pub(super) const CM_SALT_BYTES: usize = 14;
pub(super) const CM_TAG_BYTES: usize = 10;
/// SRTCP's associated data under GCM: the clear part and the index word (RFC 7714 §9.2).
const RTCP_AAD_BYTES: usize = RTCP_CLEAR_BYTES + RTCP_INDEX_BYTES;

pub(super) enum Cipher {
    Gcm(Gcm),
    /// Boxed: it is 40 times as large as GCM's, which most peers use.
    Cm(Box<Cm>),
}

pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; GCM_SALT_BYTES],
}

pub(super) struct Cm {
    key: EncryptingKey,
    salt: [u8; CM_SALT_BYTES],
    authentication: hmac::Key,
}

impl Cipher {
    /// From session keys. GCM authenticates by itself and leaves `authentication` alone.
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8], authentication: &[u8]) -> Result<Self, SrtpError> {
        let algorithm = match profile {
            Profile::AeadAes128Gcm => &AES_128_GCM,
            Profile::AeadAes256Gcm => &AES_256_GCM,
            Profile::Aes128CmSha1_80 => {
                let salt = salt.try_into().map_err(|_| SrtpError::BadKeyLength)?;
                let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication);
                return Ok(Self::Cm(Box::new(Cm { key: counter_mode_key(key)?, salt, authentication })));
            }
        };
        let salt = salt.try_into().map_err(|_| SrtpError::BadKeyLength)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::BadKeyLength)?;
        Ok(Self::Gcm(Gcm { key: LessSafeKey::new(key), salt }))
    }

    pub(super) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_bytes: usize,
        payload: &[u8],
    ) -> Result<(), SrtpError> {
        let (header, rest) = packet.split_at_mut(header_bytes);
        let (body, tag) = rest.split_at_mut(payload.len());
        match self {
            Self::Gcm(gcm) => gcm
                .key
                .seal_out_of_place_scatter(gcm.nonce(ssrc, index), Aad::from(&*header), payload, body, &[], tag)
                .map_err(|_| SrtpError::Crypto),
            Self::Cm(_) => {
                body.copy_from_slice(payload);
                self.seal_rtp_in_place(ssrc, index, packet, header_bytes)
            }
        }
    }

    pub(super) fn seal_rtp_in_place(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_bytes: usize,
    ) -> Result<(), SrtpError> {
        match self {
            Self::Gcm(gcm) => {
                let (header, rest) = packet.split_at_mut(header_bytes);
                let (body, tag) = rest.split_at_mut(rest.len() - GCM_TAG_BYTES);
                let (nonce, aad) = (gcm.nonce(ssrc, index), Aad::from(&*header));
                gcm.key.seal_in_place_scatter(nonce, aad, body, &[], tag).map_err(|_| SrtpError::Crypto)
            }
            Self::Cm(cm) => {
                let (sealed, tag) = packet.split_at_mut(packet.len() - CM_TAG_BYTES);
                let (_, body) = sealed.split_at_mut(header_bytes);
                cm.apply(ssrc, index, body)?;
                tag.copy_from_slice(&cm.tag(sealed, rollover_count(index)));
                Ok(())
            }
        }
    }

    pub(super) fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header_bytes: usize,
    ) -> Result<(), SrtpError> {
        match self {
            Self::Gcm(gcm) => {
                let (header, body_and_tag) = packet.split_at_mut(header_bytes);
                let opened = gcm.key.open_in_place(gcm.nonce(ssrc, index), Aad::from(&*header), body_and_tag);
                opened.map(|_| ()).map_err(|_| SrtpError::NotAuthentic)
            }
            Self::Cm(cm) => {
                let (sealed, tag) = packet.split_at_mut(packet.len() - CM_TAG_BYTES);
                cm.verify(sealed, rollover_count(index), tag)?;
                let (_, body) = sealed.split_at_mut(header_bytes);
                cm.apply(ssrc, index, body)
            }
        }
    }

    /// `out` has the body's length.
    pub(super) fn open_rtp_into(
        &self,
        ssrc: u32,
        index: u64,
        packet: &[u8],
        header_bytes: usize,
        out: &mut [u8],
    ) -> Result<(), SrtpError> {
        let (sealed, tag) = packet.split_at(header_bytes + out.len());
        let (header, body) = sealed.split_at(header_bytes);
        match self {
            Self::Gcm(gcm) => gcm
                .key
                .open_separate_gather(gcm.nonce(ssrc, index), Aad::from(header), body, tag, out)
                .map_err(|_| SrtpError::NotAuthentic),
            Self::Cm(cm) => {
                cm.verify(sealed, rollover_count(index), tag)?;
                out.copy_from_slice(body);
                cm.apply(ssrc, index, out)
            }
        }
    }

    /// Seals `buffer[start..]` and appends the trailer: tag and index word under GCM, the other way round under CM.
    pub(super) fn seal_rtcp(&self, ssrc: u32, index: u32, buffer: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let word = (index | RTCP_ENCRYPTED).to_be_bytes();
        let (clear, body) = buffer.split_at_mut(start).1.split_at_mut(RTCP_CLEAR_BYTES);
        match self {
            Self::Gcm(gcm) => {
                let (nonce, aad) = (gcm.nonce(ssrc, index.into()), Aad::from(rtcp_aad(clear, word)));
                let tag = gcm.key.seal_in_place_separate_tag(nonce, aad, body).map_err(|_| SrtpError::Crypto)?;
                buffer.extend_from_slice(tag.as_ref());
                buffer.extend_from_slice(&word);
            }
            Self::Cm(cm) => {
                cm.apply(ssrc, index.into(), body)?;
                let tag = cm.tag(buffer.split_at(start).1, word);
                buffer.extend_from_slice(&word);
                buffer.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// The word of E flag and index in a sealed packet.
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> Result<u32, SrtpError> {
        let until = match self {
            Self::Gcm(_) => Some(packet.len()),
            Self::Cm(_) => packet.len().checked_sub(CM_TAG_BYTES),
        };
        let word = until.and_then(|until| packet.get(..until)?.last_chunk()).ok_or(SrtpError::TooShort)?;
        Ok(u32::from_be_bytes(*word))
    }

    /// `body` gets the plaintext that follows the clear part, and has its length.
    pub(super) fn open_rtcp(&self, ssrc: u32, index: u32, packet: &[u8], body: &mut [u8]) -> Result<(), SrtpError> {
        let word = (index | RTCP_ENCRYPTED).to_be_bytes();
        let (sealed, trailer) = packet.split_at(RTCP_CLEAR_BYTES + body.len());
        let (clear, ciphertext) = sealed.split_at(RTCP_CLEAR_BYTES);
        match self {
            Self::Gcm(gcm) => {
                let (tag, _) = trailer.split_at(GCM_TAG_BYTES);
                let (nonce, aad) = (gcm.nonce(ssrc, index.into()), Aad::from(rtcp_aad(clear, word)));
                let opened = gcm.key.open_separate_gather(nonce, aad, ciphertext, tag, body);
                opened.map_err(|_| SrtpError::NotAuthentic)
            }
            Self::Cm(cm) => {
                let (_, tag) = trailer.split_at(RTCP_INDEX_BYTES);
                cm.verify(sealed, word, tag)?;
                body.copy_from_slice(ciphertext);
                cm.apply(ssrc, index.into(), body)
            }
        }
    }
}

impl Gcm {
    /// RFC 7714 §8.1 and §9.1: for SRTP the index is rollover count and sequence number, for SRTCP two zero bytes and
    /// the index; as numbers of 48 bits they stand in the same place.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = self.salt;
        mix(&mut nonce[2..], ssrc, index);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Cm {
    /// RFC 3711 §4.1.1.
    fn apply(&self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), SrtpError> {
        let mut start = self.salt;
        mix(&mut start[4..], ssrc, index);
        apply_keystream(&self.key, &start, data)
    }

    /// RFC 3711 §4.2: over the packet, then the rollover count (SRTP) or the index word (SRTCP).
    fn tag(&self, sealed: &[u8], suffix: [u8; 4]) -> [u8; CM_TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(sealed);
        context.update(&suffix);
        let full = context.sign();
        let mut tag = [0; CM_TAG_BYTES];
        tag.iter_mut().zip(full.as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }

    fn verify(&self, sealed: &[u8], suffix: [u8; 4], tag: &[u8]) -> Result<(), SrtpError> {
        verify_slices_are_equal(&self.tag(sealed, suffix), tag).map_err(|_| SrtpError::NotAuthentic)
    }
}

/// Mixes SSRC and 48 bits of index into the 10 bytes of salt that they cover.
fn mix(salt: &mut [u8], ssrc: u32, index: u64) {
    let [_, _, index @ ..] = index.to_be_bytes();
    salt.iter_mut().zip(ssrc.to_be_bytes().into_iter().chain(index)).for_each(|(byte, by)| *byte ^= by);
}

fn rollover_count(index: u64) -> [u8; 4] {
    let [_, _, count @ .., _, _] = index.to_be_bytes();
    count
}

fn rtcp_aad(clear: &[u8], word: [u8; RTCP_INDEX_BYTES]) -> [u8; RTCP_AAD_BYTES] {
    let mut aad = [0; RTCP_AAD_BYTES];
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(clear);
    aad[RTCP_CLEAR_BYTES..].copy_from_slice(&word);
    aad
}
