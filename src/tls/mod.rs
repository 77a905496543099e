//! RING 3 — TLS of the public listener: its certificate, from files or by ACME.
//!
//! [`Certificate`] is read and looked at; [`Tls`] shows the one in force to clients, and to ACME servers the answers to
//! their challenges. [`acme`] orders one, [`schedule`] says when, [`keeping`] where it is kept.

pub mod acme;
mod certificate;
mod challenges;
mod directory;
pub mod keeping;
pub mod schedule;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

pub use certificate::{Certificate, check_dates, read};
use challenges::Challenges;

/// What clients speak within TLS.
const HTTP: &[u8] = b"http/1.1";
/// What ACME servers say when they look for the answer to a challenge (RFC 8737 §4).
pub const CHALLENGE: &[u8] = b"acme-tls/1";

/// The public listener's TLS.
pub struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    orders: [AtomicU64; OrderResult::ALL.len()],
    /// Told when the configuration may say something else of the certificate.
    pub changed: Notify,
}

/// How an order of a certificate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderResult {
    Issued,
    Failed,
}

impl OrderResult {
    pub const ALL: [Self; 2] = [Self::Issued, Self::Failed];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Failed => "failed",
        }
    }
}

/// What is shown to whom.
#[derive(Default)]
struct Shown {
    certificate: RwLock<Option<Arc<Certificate>>>,
    challenges: Challenges,
}

impl Tls {
    /// Without a certificate: until there is one, handshakes fail. A self-signed one instead would only teach people to
    /// click warnings away.
    pub fn new() -> Result<Arc<Self>, rustls::Error> {
        let shown = Arc::new(Shown::default());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        config.alpn_protocols = vec![HTTP.to_vec(), CHALLENGE.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self { acceptor, shown, orders: Default::default(), changed: Notify::new() }))
    }

    /// Shakes hands with clients.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The certificate in force.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.shown.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another certificate from the next handshake on. Returns whether it is another.
    pub fn show(&self, certificate: Certificate) -> bool {
        let mut shown = self.shown.certificate.write().unwrap_or_else(PoisonError::into_inner);
        let differs = shown.as_ref().is_none_or(|shown| !shown.is_same(&certificate));
        *shown = Some(Arc::new(certificate));
        differs
    }

    /// Counts an order that ended.
    pub fn count_order(&self, result: OrderResult) {
        self.orders[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many orders ended like this.
    pub fn orders(&self, result: OrderResult) -> u64 {
        self.orders[result as usize].load(Ordering::Relaxed)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_challenge = hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == CHALLENGE));
        if is_challenge {
            return self.challenges.answer(hello.server_name()?);
        }
        let certificate = self.certificate.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(certificate.as_ref()?.certified()))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// The cryptography of everything else here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
