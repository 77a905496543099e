//! A DTLS provider that shows the keys it hands to str0m, for media here does not pass through str0m.
//!
//! A key is left in a cell of the thread that drives the connection, and taken from it right after. The configuration is
//! built once (see `rtc::crypto`).

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::rtp::srtp::{KeyingMaterial, Opener, Profile, Sealer};

const DTLS_MTU_BYTES: usize = 1150;

thread_local! {
    static TAPPED: RefCell<Option<(Sealer, Opener)>> = const { RefCell::new(None) };
}

/// The contexts of the connection that was driven last on this thread, if it has just finished its handshake.
pub fn take() -> Option<(Sealer, Opener)> {
    TAPPED.take()
}

/// A provider with the tap, and a certificate for all clients.
pub fn provider() -> anyhow::Result<(Arc<CryptoProvider>, DtlsCert)> {
    let provider = CryptoProvider { dtls_provider: &TappedDtls, ..str0m::crypto::from_feature_flags() };
    let certificate = provider.dtls_provider.generate_certificate();
    let certificate = certificate.ok_or_else(|| anyhow::anyhow!("cannot make a DTLS certificate"))?;
    Ok((Arc::new(provider), certificate))
}

#[derive(Debug)]
struct TappedDtls;

impl DtlsProvider for TappedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        static CONFIG: OnceLock<Arc<dimpl::Config>> = OnceLock::new();
        let config = match CONFIG.get() {
            Some(config) => Arc::clone(config),
            None => {
                let built = dimpl::Config::builder().mtu(DTLS_MTU_BYTES).build();
                let built = built.map_err(|error| CryptoError::Other(format!("DTLS configuration: {error}")))?;
                Arc::clone(CONFIG.get_or_init(|| Arc::new(built)))
            }
        };
        Ok(Box::new(Instance(dimpl::Dtls::new_12(config, certificate.clone(), now))))
    }
}

struct Instance(dimpl::Dtls);

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dtls")
    }
}

fn profile_of(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        _ => None,
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
        let is_client = self.0.is_active();
        let output = self.0.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(exported, profile) = &output {
            let material = profile_of(*profile).and_then(|profile| KeyingMaterial::new(profile, exported).ok());
            TAPPED.set(material.and_then(|material| material.contexts(is_client).ok()));
        }
        output
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
