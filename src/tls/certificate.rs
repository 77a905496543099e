//! A certificate and its key: read from PEM, held against each other, and what the certificate says of itself.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::provider;
use crate::config::{Config, ConfigError};
use crate::ledger::record::UnixMs;

/// A certificate that can be shown.
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    /// From when to when it is valid, in seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
    /// The names of hosts that it is for.
    pub names: Vec<String>,
}

/// What is wrong with a certificate or its key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("no certificate in it: expected PEM with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    #[error("not a certificate: {0}")]
    BadCertificate(String),
    #[error("no private key in it: expected PEM with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    #[error("not a key that can be used: {0}")]
    BadKey(String),
    #[error("this key belongs to another certificate")]
    Mismatch,
}

impl Flaw {
    /// Whether the key is at fault.
    fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::BadKey(_) | Self::Mismatch)
    }
}

impl Certificate {
    /// From PEM: the certificate, then those that lead to its root; and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Flaw::BadCertificate(error.to_string()))?;
        let first = chain.first().ok_or(Flaw::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| Flaw::BadCertificate(error.to_string()))?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let (not_before, not_after) = (seconds(parsed.validity.not_before), seconds(parsed.validity.not_after));
        let names = names(&parsed);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => Flaw::NoKey,
            error => Flaw::BadKey(error.to_string()),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Flaw::Mismatch,
            error @ Error::InvalidCertificate(_) => Flaw::BadCertificate(error.to_string()),
            error => Flaw::BadKey(error.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified), not_before, not_after, names })
    }

    /// What handshakes are made with.
    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Whether the other is this one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// Whether it is for each of these names.
    pub fn covers(&self, domains: &[String]) -> bool {
        domains.iter().all(|domain| self.names.contains(domain))
    }

    /// Whether clients take it at this time, in seconds since 1970.
    pub fn is_valid(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// The DNS names of a certificate.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.map(|names| names.value.general_names.iter().filter_map(dns).collect()).unwrap_or_default()
}

/// The certificate in the files of a configuration, if it names any. It may have expired: at a start clients could do no
/// less without the server, and a machine's clock may be wrong until it has asked.
pub fn read(config: &Config) -> Result<Option<Certificate>, ConfigError> {
    let tls = &config.http.tls;
    if !tls.has_files() {
        return Ok(None);
    }
    let bytes = |path: &Path, of_key| {
        std::fs::read(config.path(path)).map_err(|error| wrong(config, of_key, &error.to_string()))
    };
    let (chain, key) = (bytes(&tls.certificate, false)?, bytes(&tls.key, true)?);
    let certificate = Certificate::from_pem(&chain, &key);
    certificate.map(Some).map_err(|flaw| wrong(config, flaw.is_of_key(), &flaw.to_string()))
}

/// Refuses a certificate of these files that clients do not take at this time, in seconds since 1970.
pub fn check_dates(config: &Config, certificate: &Certificate, now: u64) -> Result<(), ConfigError> {
    let Certificate { not_before, not_after, .. } = *certificate;
    if now > not_after {
        let end = UnixMs(not_after * 1000);
        return Err(wrong(config, false, &format!("the certificate has expired: it was valid until {end}")));
    }
    if now < not_before {
        let begin = UnixMs(not_before * 1000);
        return Err(wrong(config, false, &format!("the certificate is not valid yet, but from {begin} on")));
    }
    Ok(())
}

/// What is wrong with one of the files, by its key in the configuration and its path.
fn wrong(config: &Config, of_key: bool, problem: &str) -> ConfigError {
    let tls = &config.http.tls;
    let (key, path) = if of_key { ("http.tls.key", &tls.key) } else { ("http.tls.certificate", &tls.certificate) };
    ConfigError::Key { key: key.to_owned(), problem: format!("{}: {problem}", config.path(path).display()) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_says_until_when_and_for_whom() {
        let (chain, key) = made(&["sfu.example.org", "localhost"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("valid");
        assert_eq!((certificate.not_before, certificate.not_after), (1_767_225_600, 1_775_001_600));
        assert_eq!(certificate.names, ["sfu.example.org", "localhost"]);
        assert!(certificate.covers(&["localhost".to_owned()]));
        assert!(!certificate.covers(&["localhost".to_owned(), "example.org".to_owned()]));
        for (now, valid) in
            [(1_767_225_599, false), (1_767_225_600, true), (1_775_001_600, true), (1_775_001_601, false)]
        {
            assert_eq!(certificate.is_valid(now), valid, "{now}");
        }
    }

    #[test]
    fn each_flaw_is_told() {
        let ((chain, key), (_, other)) = (made(&["a.example.org"]), made(&["a.example.org"]));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let flaw = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert_eq!(flaw(&chain, &key), None);
        assert_eq!(flaw("", &key), Some(Flaw::NoCertificate));
        assert_eq!(flaw(&key, &key), Some(Flaw::NoCertificate));
        assert_eq!(flaw(&chain, ""), Some(Flaw::NoKey));
        assert_eq!(flaw(&chain, &chain), Some(Flaw::NoKey));
        assert_eq!(flaw(&chain, &other), Some(Flaw::Mismatch));
        assert!(matches!(flaw(garbage, &key), Some(Flaw::BadCertificate(_))));
        assert!(matches!(flaw(&chain, bad_key), Some(Flaw::BadKey(_))));
    }
}
