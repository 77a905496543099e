//! OpenTelemetry traces: from the real binary to a collector, which sees what a request did and nobody's name.

use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;

use crate::binary::Process;
use crate::client::{KEY, SECRET};

/// A trace of the map service's own.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What came, and what is answered.
type Received = &'static Mutex<(Vec<Bytes>, StatusCode)>;

/// Takes batches; gives back its URL and what it took.
async fn collector() -> (String, Received) {
    let received: Received = Box::leak(Box::new(Mutex::new((Vec::new(), StatusCode::OK))));
    let take = |State(received): State<Received>, body: Bytes| async move {
        let mut received = received.lock().expect("no panic while held");
        received.0.push(body);
        received.1
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
    let router = Router::new().route("/v1/traces", axum::routing::post(take)).with_state(received);
    tokio::spawn(async move { axum_serve(listener, router).await });
    (url, received)
}

/// As `axum::serve`, whose feature the server does not use.
async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let stream = hyper_util::rt::TokioIo::new(stream);
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
        });
    }
}

fn spans(received: Received) -> Vec<Span> {
    let received = received.lock().expect("no panic while held");
    let batches = received.0.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).expect("a batch"));
    batches.flat_map(|batch| batch.resource_spans).flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_requests_and_their_parts_and_nobodys_name() {
    let (url, received) = collector().await;
    let process = Process::start("traces", &[("STUBE__TRACES__ENDPOINT", &url)]);
    let http = reqwest::Client::new();
    let create = http.post(format!("{}/v1/rooms", process.base)).basic_auth(KEY, Some(SECRET));
    let create = create.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).header("tracestate", "who=canary");
    let create = create.json(&json!({"name": "canary-room"}));
    assert_eq!(create.send().await.expect("an answer").status(), 201);
    let lost = http.get(format!("{}/v1/rooms/canary-other", process.base)).basic_auth(KEY, Some(SECRET));
    let lost: serde_json::Value = lost.send().await.expect("an answer").json().await.expect("a problem");
    process.signal("TERM");
    let (status, _, log) = tokio::task::spawn_blocking(|| process.end()).await.expect("ended");
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("otel."), "what is for the collector is not for the log: {log}");
    let spans = spans(received);
    let named =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {spans:?}"));
    let created = named("POST /v1/rooms");
    let [caller] = created.links.as_slice() else { panic!("one link in {created:?}") };
    assert_eq!((hex(&caller.trace_id), hex(&caller.span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(
        (caller.trace_state.as_str(), created.trace_state.as_str()),
        ("", ""),
        "what it may hold is not passed on"
    );
    assert!(hex(&created.trace_id) != TRACE && created.parent_span_id.is_empty(), "{created:?}");
    assert_eq!(created.kind(), SpanKind::Server);
    assert_eq!(text(&created.attributes, "http.response.status_code"), "201");
    assert_eq!(text(&created.attributes, "http.route"), "/v1/rooms");
    let part = spans.iter().find(|span| span.parent_span_id == created.span_id).expect("a part of it");
    assert_eq!((part.name.as_str(), &part.trace_id), ("shard", &created.trace_id));
    let refused = named("GET /v1/rooms/{name}");
    assert_eq!(text(&refused.attributes, "http.response.status_code"), "404");
    // The same id as in the answer, and in the log.
    let request = text(&refused.attributes, "stube.request");
    assert!(lost["instance"].as_str().is_some_and(|instance| instance.contains(&request)), "{lost}");
    named("ledger");
    let batches = received.lock().expect("no panic while held").0.concat();
    let everything = String::from_utf8_lossy(&batches);
    for private in ["canary", "127.0.0.1", KEY, SECRET] {
        assert!(!everything.contains(private), "{private}");
    }
    assert!(everything.contains("service.version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_is_told_of_once_and_holds_nothing_up() {
    let (url, received) = collector().await;
    received.lock().expect("no panic while held").1 = StatusCode::SERVICE_UNAVAILABLE;
    // Batches go every five seconds unless told otherwise.
    let environment = [("STUBE__TRACES__ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let process = Process::start("traces-fail", &environment);
    let page = format!("{}/", process.base);
    let ask = async || assert_eq!(reqwest::get(&page).await.expect("an answer").status(), 200);
    let count = || received.lock().expect("no panic while held").0.len();
    let batches = async |more: usize| {
        for _ in 0..100 {
            if count() >= more {
                return;
            }
            ask().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} of {more} batches came", count());
    };
    batches(3).await;
    received.lock().expect("no panic while held").1 = StatusCode::OK;
    batches(count() + 2).await;
    process.signal("TERM");
    let (status, took, log) = tokio::task::spawn_blocking(|| process.end()).await.expect("ended");
    assert_eq!(status, Some(0), "{log}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
    assert_eq!(log.matches("traces are sent again").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_no_say_in_what_is_traced() {
    let (url, received) = collector().await;
    // One in a million.
    let environment = [("STUBE__TRACES__ENDPOINT", url.as_str()), ("STUBE__TRACES__RATIO", "0.000001")];
    let process = Process::start("traces-rare", &environment);
    // An id below any ratio's bound, and the wish to be traced.
    for trace in [TRACE, "00000000000000000000000000000001"] {
        for flags in ["00", "01"] {
            let request = reqwest::Client::new().get(format!("{}/", process.base));
            let request = request.header("traceparent", format!("00-{trace}-{PARENT}-{flags}"));
            assert_eq!(request.send().await.expect("an answer").status(), 200);
        }
    }
    process.signal("TERM");
    let (status, _, log) = tokio::task::spawn_blocking(|| process.end()).await.expect("ended");
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(spans(received), []);
}
