//! What is said of the public listener's certificate.

use prometheus::proto::MetricFamily;

use super::{by, counter, gauge};

/// The certificate now; counters since the start.
#[derive(Debug, Clone, Default)]
pub struct TlsSnapshot {
    /// Seconds since 1970; 0 without a certificate.
    pub expiry_s: u64,
    /// Orders by result.
    pub orders: Vec<(&'static str, u64)>,
}

pub(super) fn families(tls: &TlsSnapshot) -> Vec<MetricFamily> {
    let orders = tls.orders.iter().map(|(word, count)| (*count, *word));
    vec![
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
