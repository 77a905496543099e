//! What is said of the public listener's certificate.

use prometheus::proto::MetricFamily;

use super::{by, counter, gauge};

/// The certificate now; counters since the start.
#[derive(Debug, Clone, Default)]
pub struct TlsSnapshot {
    /// Whether the public listener speaks TLS.
    pub enabled: bool,
    /// Seconds since 1970; 0 without a certificate.
    pub start_s: u64,
    pub expiry_s: u64,
    /// Orders by result.
    pub orders: Vec<(&'static str, u64)>,
}

pub(super) fn families(tls: &TlsSnapshot) -> Vec<MetricFamily> {
    let orders = tls.orders.iter().map(|(word, count)| (*count, *word));
    vec![
        gauge(
            "stube_tls_enabled",
            "Whether the public listener speaks TLS.",
            vec![(vec![], f64::from(u8::from(tls.enabled)))],
        ),
        gauge(
            "stube_tls_certificate_start_timestamp_seconds",
            "From when on the public listener's certificate is valid; 0 without one.",
            vec![(vec![], tls.start_s as f64)],
        ),
        gauge(
            "stube_tls_certificate_expiry_timestamp_seconds",
            "When the public listener's certificate expires; 0 without one.",
            vec![(vec![], tls.expiry_s as f64)],
        ),
        counter(
            "stube_acme_orders_total",
            "Certificates ordered of the ACME server, by result.",
            by("result", orders, |count| count),
        ),
    ]
}
