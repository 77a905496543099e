//! OpenTelemetry traces, sent by OTLP over HTTP to a collector of the operator's; off unless configured.
//!
//! Only the spans made here are sent, so that nothing gets out that was meant for the log: names of routes, request ids,
//! statuses and times. A caller's span (`traceparent`, W3C Trace Context) is linked to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::config::{ConfigError, TracesConfig};

/// The target of spans that are sent, which the log leaves out.
pub const TARGET: &str = "traces";

/// What the server calls itself.
const SERVICE: &str = "stube";

/// How long a collector may take for a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last batch may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends spans until stopped.
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Whether traces can be sent as configured.
pub fn check(config: &TracesConfig) -> Result<(), ConfigError> {
    let wrong = |key: &str, problem: &str| ConfigError::Key { key: key.to_owned(), problem: problem.to_owned() };
    if !config.endpoint.is_empty() {
        let url = reqwest::Url::parse(&config.endpoint).ok();
        let fits = url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !fits {
            let problem = "expected http:// or https://, such as \"http://127.0.0.1:4318/v1/traces\"";
            return Err(wrong("traces.endpoint", problem));
        }
    }
    match (0.0..=1.0).contains(&config.ratio) {
        true => Ok(()),
        false => Err(wrong("traces.ratio", "expected 0.0 to 1.0")),
    }
}

/// Begins to send; None where none are wanted. Batches are sent on `runtime`.
pub fn start(config: &TracesConfig, runtime: &Handle) -> Result<Option<Traces>, ConfigError> {
    check(config)?;
    if config.endpoint.is_empty() {
        return Ok(None);
    }
    let wrong = |problem: String| ConfigError::Key {
        key: "traces.endpoint".to_owned(),
        problem: format!("cannot send: {problem}"),
    };
    let client = reqwest::Client::builder().timeout(EXPORT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|error| wrong(error.to_string()))?;
    let collector = Collector { client, runtime: runtime.clone(), failing: Arc::default() };
    let exporter = SpanExporter::builder().with_http().with_http_client(collector).with_endpoint(&config.endpoint);
    let exporter = exporter.build().map_err(|error| wrong(error.to_string()))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(SERVICE).with_attribute(version).build())
        // By ids of our own: each request begins a trace.
        .with_sampler(Sampler::TraceIdRatioBased(config.ratio))
        .with_batch_exporter(exporter)
        .build();
    Ok(Some(Traces { provider }))
}

impl Traces {
    /// Takes the spans to send out of all that are made.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.provider.tracer(SERVICE);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        // Where in our source and on which thread a span began helps nobody who looks at a service.
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
        layer.with_filter(filter_fn(|about| about.is_span() && about.target() == TARGET))
    }

    /// Sends what waits. What cannot be sent in time is lost.
    pub fn stop(&self) {
        // It has been said already that the collector does not answer.
        let _ = self.provider.shutdown_with_timeout(STOP_TIMEOUT);
    }
}

/// A request, with a link to the caller's span if there is a `traceparent`.
///
/// Not below it: the trace's id decides whether it is sent, and anybody could choose one that always is. And without
/// `tracestate`, which may say anything.
pub fn request(method: &'static str, route: &'static str, id: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        stube.request = id,
    );
    if !span.is_disabled() {
        let caller = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        let caller = caller.span().span_context().clone();
        if caller.is_valid() {
            let (trace, span_id, flags) = (caller.trace_id(), caller.span_id(), TraceFlags::default());
            span.add_link(SpanContext::new(trace, span_id, flags, true, TraceState::NONE));
        }
    }
    span
}

/// Notes what a request was answered with.
pub fn answered(request: &Span, status: StatusCode) {
    request.record("http.response.status_code", status.as_u16());
    // Of a server, a client's mistakes are no errors (OpenTelemetry's semantic conventions for HTTP spans).
    if status.is_server_error() {
        request.record("otel.status_code", "ERROR");
    }
}

/// A part of what a request or the server itself does.
pub fn step(name: &'static str) -> Span {
    // Around it is the log's span, and around that the request's, which the layer would not look for: it knows what was
    // entered, not what that is a part of.
    let request = Span::current().with_subscriber(|(id, dispatch)| {
        let mut around = dispatch.downcast_ref::<Registry>()?.span(id)?.scope();
        around.find(|span| span.metadata().target() == TARGET).map(|span| span.id())
    });
    info_span!(target: TARGET, parent: request.flatten(), "step", otel.name = name)
}

/// Carries batches to the collector. The exporter's thread has no runtime, so requests are made on the server's.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last batch could not be sent: said once, not for each.
    failing: Arc<AtomicBool>,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move { client.send_bytes(request).await });
        let result = sending.await.map_err(HttpError::from).flatten();
        let problem = match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status().as_u16())),
            Err(_) => Some("no answer".to_owned()),
        };
        let failed_before = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed_before => {
                tracing::warn!(problem, "traces cannot be sent to traces.endpoint; they are lost until it answers");
            }
            None if failed_before => tracing::info!("traces are sent again"),
            _ => {}
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_and_ratios_shares() {
        for (endpoint, ratio, key) in [
            ("", 1.0, None),
            ("http://127.0.0.1:4318/v1/traces", 0.0, None),
            ("https://collector.example.org", 0.5, None),
            ("127.0.0.1:4318", 1.0, Some("traces.endpoint")),
            ("grpc://127.0.0.1:4317", 1.0, Some("traces.endpoint")),
            ("", 1.5, Some("traces.ratio")),
            ("", f64::NAN, Some("traces.ratio")),
        ] {
            let result = check(&TracesConfig { endpoint: endpoint.to_owned(), ratio });
            let named = result.err().map(|error| error.to_string());
            assert_eq!(named.as_deref().and_then(|text| text.split(": ").next()), key, "{endpoint} {ratio}");
        }
    }
}
