//! DTLS and SRTP providers: one certificate and one validated DTLS configuration for all sessions.
//!
//! `dimpl::Config::build` re-validates its whole crypto provider, 0.7 ms of a join (`Rtc::build` 740 µs → 43 µs with
//! the configuration cached, 11 µs with the certificate shared as well), so both are made once.
//!
//! **The key tap.** str0m keeps the SRTP keys to itself, but takes its DTLS from us: a wrapper around each DTLS instance
//! sees the exported keying material (RFC 5764 §4.2) pass, and [`take_exported`] hands it to the peer just driven.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError as Str0mCryptoError, CryptoProvider};

use crate::rtp::srtp::{KeyingMaterial, Opener, Profile, Sealer};

/// Largest DTLS record we send, in bytes: str0m's default, safe under every common path MTU.
const DTLS_MTU_BYTES: usize = 1150;

/// The crypto an engine uses. Cheap to clone.
#[derive(Clone)]
pub struct Crypto {
    provider: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

/// The certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS certificate: the crypto library refused")]
pub struct CryptoError;

impl Crypto {
    /// AWS-LC with a fresh certificate. Draws entropy, so only ring 3 and tests call it.
    pub fn generate() -> Result<Self, CryptoError> {
        let provider = CryptoProvider { dtls_provider: &CachedDtls, ..str0m::crypto::from_feature_flags() };
        let certificate = provider.dtls_provider.generate_certificate().ok_or(CryptoError)?;
        Ok(Self::from_provider(provider, certificate))
    }

    /// Another provider and certificate; simulations bring a DTLS of their own.
    pub fn from_provider(provider: CryptoProvider, certificate: DtlsCert) -> Self {
        // str0m wants its providers `'static`. One is made for all engines of a process.
        let dtls_provider = Box::leak(Box::new(TappedProvider(provider.dtls_provider)));
        Self { provider: Arc::new(CryptoProvider { dtls_provider, ..provider }), certificate }
    }

    /// For an `Rtc` of its own: what it exports is found by [`take_exported`].
    pub fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// The certificate of all sessions.
    pub fn certificate(&self) -> DtlsCert {
        self.certificate.clone()
    }
}

thread_local! {
    // A provider is `'static` and shared, so an instance has no handle to its peer. But an engine drives one peer at a
    // time on one thread, and takes what this holds right after: it is a return value by another way.
    static EXPORTED: Cell<Option<(Sealer, Opener)>> = const { Cell::new(None) };
}

/// The SRTP contexts of the peer just driven, if its DTLS handshake has just exported keys.
pub fn take_exported() -> Option<(Sealer, Opener)> {
    EXPORTED.take()
}

fn export(material: &[u8], profile: SrtpProfile, is_dtls_client: bool) {
    let profile = match profile {
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
        _ => return,
    };
    // Keys that do not fit their profile leave the peer without contexts: nothing is sent to it, and it times out.
    let contexts = KeyingMaterial::new(profile, material).and_then(|keys| keys.contexts(is_dtls_client));
    EXPORTED.set(contexts.ok());
}

/// A DTLS provider whose instances show us the keys they export.
#[derive(Debug)]
struct TappedProvider(&'static dyn DtlsProvider);

impl DtlsProvider for TappedProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, Str0mCryptoError> {
        Ok(Box::new(Tapped(self.0.new_dtls(certificate, now, version, mtu)?)))
    }
}

#[derive(Debug)]
struct Tapped(Box<dyn DtlsInstance>);

impl DtlsInstance for Tapped {
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.0.is_active();
        let output = self.0.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            export(material, *profile, is_client);
        }
        output
    }

    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

/// dimpl with one configuration for all sessions.
#[derive(Debug)]
struct CachedDtls;

fn shared_config() -> Result<Arc<dimpl::Config>, Str0mCryptoError> {
    static CONFIG: OnceLock<Arc<dimpl::Config>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    // No HelloVerifyRequest: DTLS is only heard from addresses that ICE has authenticated.
    let built = dimpl::Config::builder().use_server_cookie(false).mtu(DTLS_MTU_BYTES).build();
    let built = built.map_err(|error| Str0mCryptoError::Other(format!("DTLS configuration: {error}")))?;
    Ok(CONFIG.get_or_init(|| Arc::new(built)).clone())
}

impl DtlsProvider for CachedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, Str0mCryptoError> {
        let dtls = dimpl::Dtls::new_12(shared_config()?, certificate.clone(), now);
        Ok(Box::new(Instance(dtls)))
    }
}

struct Instance(dimpl::Dtls);

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dtls")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buf)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
