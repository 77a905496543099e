//! `[http.tls]`: whether the public listener speaks TLS, and where its certificate comes from.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, wrong};

/// The most names of a certificate from ACME; Let's Encrypt takes no more.
const DOMAINS_MAX: usize = 100;
/// The longest name and the longest of its labels (RFC 1035 §2.3.4).
const DOMAIN_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;

/// TLS of the public listener; off unless files or domains are named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM: the certificate and those that lead to its root. Empty: none.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
    /// What to get a certificate for by ACME.
    pub domains: Vec<String>,
    pub acme_directory: String,
    /// An e-mail address; empty: none.
    pub acme_contact: String,
    /// PEM: a root to believe the ACME server by, besides the system's. Empty: none.
    pub acme_root: PathBuf,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            domains: Vec::new(),
            acme_directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            acme_contact: String::new(),
            acme_root: PathBuf::new(),
        }
    }
}

impl TlsConfig {
    /// Whether the public listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.has_files() || self.has_domains()
    }

    /// Whether the certificate is in files.
    pub fn has_files(&self) -> bool {
        self.certificate != Path::new("")
    }

    /// Whether the certificate comes by ACME.
    pub fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// What URLs of the public listener begin with.
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let has_key = self.key != Path::new("");
        if self.has_files() != has_key {
            let missing = if has_key { "http.tls.certificate" } else { "http.tls.key" };
            return Err(wrong(missing, "certificate and key go together: set both, or neither"));
        }
        if self.has_files() && self.has_domains() {
            return Err(wrong(
                "http.tls.domains",
                "the certificate is in files already; take either those or domains out",
            ));
        }
        if self.domains.len() > DOMAINS_MAX {
            return Err(wrong("http.tls.domains", format!("expected at most {DOMAINS_MAX}")));
        }
        if !self.domains.iter().all(|domain| is_domain(domain)) {
            let problem = "expected names such as \"sfu.example.org\", in lower case, without wildcards";
            return Err(wrong("http.tls.domains", problem));
        }
        if !self.acme_directory.starts_with("https://") {
            return Err(wrong("http.tls.acme_directory", "expected the https:// URL of an ACME server's directory"));
        }
        let is_address =
            |text: &str| text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && is_domain(host));
        if !self.acme_contact.is_empty() && !is_address(&self.acme_contact) {
            return Err(wrong("http.tls.acme_contact", "expected an e-mail address, or \"\" for none"));
        }
        Ok(())
    }
}

/// Whether this is a host's name, as certificates have it. One that ends in digits would be an IPv4 address.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        plain && (1..=LABEL_MAX_BYTES).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= DOMAIN_MAX_BYTES && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names_of_hosts() {
        let longest = format!("{}.org", ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(57)].join("."));
        for domain in ["sfu.example.org", "localhost", "xn--bcher-kva.example", "a-1.b", &longest] {
            assert!(is_domain(domain), "{domain}");
        }
        let too_long = format!("e{longest}");
        for not in [
            "",
            ".",
            "sfu.example.org.",
            "*.example.org",
            "Sfu.example.org",
            "bücher.example",
            "192.0.2.7",
            "-a.org",
            "a-.org",
            "a..org",
            "a_b.org",
            "https://a.org",
            "a.org:443",
            &"a".repeat(64),
            &too_long,
        ] {
            assert!(!is_domain(not), "{not}");
        }
    }
}
