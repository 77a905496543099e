//! Session keys from master keys: the AES-CM pseudo-random function (RFC 3711 §4.3, RFC 6188 for 256 bits).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::cipher::{CM_SALT_BYTES, Cipher};
use super::{Profile, SrtpError};

/// HMAC-SHA1's session key (RFC 3711 §5.2).
pub(super) const AUTHENTICATION_KEY_BYTES: usize = 20;
/// Where the label falls into the salt: above the 48 bits of index, which is 0 as we never derive anew.
const LABEL_AT: usize = 7;
/// RFC 3711 §4.3.2.
const LABEL_RTP_KEY: u8 = 0;
const LABEL_RTP_AUTHENTICATION: u8 = 1;
const LABEL_RTP_SALT: u8 = 2;
/// The labels of SRTCP follow those of SRTP in the same order.
const LABEL_RTCP_OFFSET: u8 = 3;

/// Which of a direction's two session key sets.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Rtp,
    Rtcp,
}

/// One direction's master key and salt.
pub(super) struct Kdf {
    key: EncryptingKey,
    salt: [u8; CM_SALT_BYTES],
}

impl Kdf {
    pub(super) fn new(master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        // GCM's shorter salt is padded with zeros at its end (RFC 7714 §11).
        let mut salt = [0; CM_SALT_BYTES];
        salt.get_mut(..master_salt.len()).ok_or(SrtpError::BadKeyLength)?.copy_from_slice(master_salt);
        Ok(Self { key: counter_mode_key(master_key)?, salt })
    }

    pub(super) fn cipher(&self, profile: Profile, stream: Stream) -> Result<Cipher, SrtpError> {
        let offset = match stream {
            Stream::Rtp => 0,
            Stream::Rtcp => LABEL_RTCP_OFFSET,
        };
        let key = self.derive(offset + LABEL_RTP_KEY, profile.key_bytes())?;
        let salt = self.derive(offset + LABEL_RTP_SALT, profile.salt_bytes())?;
        let authentication = self.derive(offset + LABEL_RTP_AUTHENTICATION, AUTHENTICATION_KEY_BYTES)?;
        Cipher::new(profile, &key, &salt, &authentication)
    }

    pub(super) fn derive(&self, label: u8, bytes: usize) -> Result<Vec<u8>, SrtpError> {
        let mut salt = self.salt;
        salt[LABEL_AT] ^= label;
        let mut derived = vec![0; bytes];
        apply_keystream(&self.key, &salt, &mut derived)?;
        Ok(derived)
    }
}

/// AES in counter mode, its key schedule done; 128 or 256 bits by the key's length.
pub(super) fn counter_mode_key(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return Err(SrtpError::BadKeyLength),
    };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| SrtpError::Crypto)?;
    EncryptingKey::ctr(key).map_err(|_| SrtpError::Crypto)
}

/// Encrypts or decrypts with the keystream that starts at `start << 16`: the low 16 bits count its blocks.
pub(super) fn apply_keystream(
    key: &EncryptingKey,
    start: &[u8; CM_SALT_BYTES],
    data: &mut [u8],
) -> Result<(), SrtpError> {
    let mut counter = [0; CM_SALT_BYTES + 2];
    counter[..CM_SALT_BYTES].copy_from_slice(start);
    let context = EncryptionContext::Iv128(FixedLength::from(counter));
    key.less_safe_encrypt(data, context).map(|_| ()).map_err(|_| SrtpError::Crypto)
}
