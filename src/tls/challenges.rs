//! Answers to TLS-ALPN-01 challenges (RFC 8737): certificates that say nothing but what an ACME server wants to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::provider;

/// By the name that is to be proven.
#[derive(Default)]
pub(super) struct Challenges {
    answers: Mutex<BTreeMap<String, Arc<CertifiedKey>>>,
}

/// An answer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Key(#[from] tokio_rustls::rustls::Error),
}

impl Challenges {
    /// Answers from now on for `domain`. `digest` is the SHA-256 of the key authorization.
    pub(super) fn add(&self, domain: &str, digest: &[u8; 32]) -> Result<(), AnswerError> {
        let mut params = CertificateParams::new([domain.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // Not `from_der`, which holds the two against each other and refuses the critical extension.
        let key = provider().key_provider.load_private_key(key)?;
        let answer = CertifiedKey::new(vec![certificate.der().clone()], key);
        self.answers().insert(domain.to_owned(), Arc::new(answer));
        Ok(())
    }

    /// The answer for this name, while it is waited for.
    pub(super) fn answer(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.answers().get(domain).cloned()
    }

    /// Nobody waits any more.
    pub(super) fn clear(&self) {
        self.answers().clear();
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<CertifiedKey>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_the_digest_and_the_name() {
        let challenges = Challenges::default();
        challenges.add("a.example.org", &[7; 32]).expect("an answer");
        let answer = challenges.answer("a.example.org").expect("it");
        let der = answer.cert.first().expect("one");
        let within = |wanted: &[u8]| der.windows(wanted.len()).any(|part| part == wanted);
        // id-pe-acmeIdentifier, critical, an OCTET STRING in an OCTET STRING.
        assert!(within(&[0x2b, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff, 4, 34, 4, 32, 7, 7]));
        assert!(within(b"a.example.org"));
        assert!(challenges.answer("b.example.org").is_none());
        challenges.clear();
        assert!(challenges.answer("a.example.org").is_none());
    }
}
