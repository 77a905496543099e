//! What every path has in common: OPTIONS, CORS, 405, unknown paths, limits, metrics, health.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::client::{Server, answered, header, refused};

/// Every path and the methods it has.
const PATHS: [(&str, &[&str]); 14] = [
    ("/", &["GET"]),
    ("/demo/token", &["POST"]),
    ("/v1/rooms", &["GET", "POST"]),
    ("/v1/rooms/hall", &["GET", "PATCH", "DELETE"]),
    ("/v1/rooms/hall/tokens", &["POST"]),
    ("/v1/rooms/hall/messages", &["POST"]),
    ("/v1/rooms/hall/stats", &["GET"]),
    ("/v1/rooms/hall/participants", &["GET"]),
    ("/v1/rooms/hall/participants/ada", &["GET", "PATCH", "DELETE"]),
    ("/v1/rooms/hall/participants/ada/tracks/TR_x/muted", &["PUT"]),
    ("/v1/sessions", &["POST"]),
    ("/v1/sessions/SE_0000000000000000000000", &["GET", "PATCH", "DELETE"]),
    ("/whip", &["GET", "POST"]),
    ("/whep", &["GET", "POST"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_path_answers_preflights_without_credentials() {
    let server = Server::start().await;
    for (path, methods) in PATHS {
        let request = server
            .request("OPTIONS", path)
            .header("origin", "https://app.example.org")
            .header("access-control-request-method", methods[0])
            .header("access-control-request-headers", "authorization,content-type,if-match,idempotency-key");
        let response = request.send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        assert_eq!(header(&response, "access-control-allow-origin"), "*", "{path}");
        let allowed = header(&response, "access-control-allow-methods").to_uppercase();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert!(allowed.contains(method), "{path}: {allowed}");
        }
        let headers = header(&response, "access-control-allow-headers").to_lowercase();
        for name in ["authorization", "content-type", "if-match", "idempotency-key"] {
            assert!(headers.contains(name), "{path}: {headers}");
        }
        for method in methods {
            assert!(path == "/" || header(&response, "allow").contains(method), "{path}: Allow lacks {method}");
        }
        assert!(response.headers().get("link").is_none(), "{path}");
        let accept_post = header(&response, "accept-post");
        let takes_offers = matches!(path, "/v1/sessions" | "/whip" | "/whep");
        assert_eq!(accept_post == "application/sdp", takes_offers, "{path}: {accept_post}");
        assert_eq!(!header(&response, "accept-patch").is_empty(), path.starts_with("/v1/sessions/"), "{path}");
        let plain = server.request("OPTIONS", path).send().await.expect("an answer");
        assert!(plain.status().is_success(), "{path} without Origin");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_may_read_the_answers() {
    let server = Server::start().await;
    let request = server.request("POST", "/whip").header("origin", "https://a.example.org");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 401);
    assert_eq!(header(&response, "access-control-allow-origin"), "*", "errors too");
    let exposed = header(&response, "access-control-expose-headers").to_lowercase();
    for name in ["location", "etag", "link"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    server.stop().await;

    let server = Server::with(&[("STUBE__HTTP__CORS_ORIGINS", "https://a.example.org")]).await;
    for (origin, allowed) in [("https://a.example.org", true), ("https://b.example.org", false)] {
        let response = server.request("OPTIONS", "/whip").header("origin", origin).send().await.expect("an answer");
        let expected = if allowed { origin } else { "" };
        assert_eq!(header(&response, "access-control-allow-origin"), expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_405_with_allow() {
    let server = Server::start().await;
    for (path, methods) in PATHS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            if methods.contains(&method) {
                continue;
            }
            let response = server.request(method, path).send().await.expect("an answer");
            let allow = header(&response, "allow");
            for own in methods {
                assert!(allow.contains(own), "{method} {path}: {allow}");
            }
            assert!(allow.contains("OPTIONS") && !allow.contains(method), "{method} {path}: {allow}");
            refused(server.request(method, path), 405, "method_not_allowed", &format!("{method} {path}")).await;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whip_and_whep_are_there_for_get_and_head() {
    let server = Server::start().await;
    for path in ["/whip", "/whep"] {
        let response = server.request("GET", path).send().await.expect("an answer");
        assert_eq!(response.status(), 204, "{path}");
    }
    let whep = server.request("HEAD", "/whep").send().await.expect("an answer");
    assert_eq!((whep.status().as_u16(), header(&whep, "content-type").as_str()), (200, "application/sdp"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_problems_too() {
    let server = Server::start().await;
    for path in ["/v1", "/v1/rooms/", "/nope", "/v1/rooms/a/b", "/v1/nope", "/metrics"] {
        for method in ["GET", "POST"] {
            refused(server.call(method, path), 404, "not_found", &format!("{method} {path}")).await;
        }
    }
    refused(server.call("GET", "/v1/rooms/%ff"), 400, "bad_request", "not UTF-8").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_neither_cached_nor_sniffed() {
    let server = Server::start().await;
    for (method, path) in [("GET", "/v1/rooms"), ("GET", "/nope"), ("OPTIONS", "/whip"), ("GET", "/")] {
        let response = server.call(method, path).send().await.expect("an answer");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
        let expected = if path == "/" { "no-cache" } else { "no-store" };
        assert_eq!(header(&response, "cache-control"), expected, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_and_too_large_headers_are_refused() {
    let server = Server::start().await;
    let mut many = server.call("GET", "/v1/rooms");
    for number in 0..150 {
        many = many.header(format!("x-{number}"), "y");
    }
    let large = server.call("GET", "/v1/rooms").header("x-large", "y".repeat(64 * 1024));
    for (what, request) in [("many", many), ("large", large)] {
        // The server may close before the client has sent everything.
        if let Ok(response) = request.send().await {
            assert_eq!(response.status(), 431, "{what}");
        }
    }
    answered(server.call("GET", "/v1/rooms"), 200, "afterwards").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_ends_its_connection_alone() {
    let server = Server::start().await;
    let address = server.url("").trim_start_matches("http://").to_owned();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        stream.write_all(garbage).expect("sent");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(12))).expect("a timeout");
        let mut answer = Vec::new();
        // An answer or none, but an end.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    answered(server.call("GET", "/v1/rooms"), 200, "afterwards").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_health_and_metrics() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    refused(server.request("GET", "/nope/hall"), 404, "not_found", "unknown").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.admin(path).await.status(), 200, "{path}");
    }
    assert_eq!(server.admin("/v1/rooms").await.status(), 404, "the API is not on the admin listener");
    let response = server.admin("/metrics").await;
    assert!(header(&response, "content-type").starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.expect("text");
    for line in [
        "stube_http_requests_total{method=\"POST\",route=\"/v1/rooms\",status_class=\"2xx\"} 1",
        "stube_http_requests_total{method=\"POST\",route=\"/v1/sessions\",status_class=\"2xx\"} 1",
        "stube_http_requests_total{method=\"GET\",route=\"unmatched\",status_class=\"4xx\"} 1",
        "stube_http_requests_total{method=\"PATCH\",route=\"/v1/sessions/{id}\",status_class=\"2xx\"} 0",
        "stube_packets_dropped_total{reason=\"malformed\"} 0",
        "stube_joins_total{result=\"connected\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    for metric in ["stube_shard_busy_ratio{shard=\"1\"}", "stube_build_info{version=", "process_cpu_seconds_total"] {
        assert!(text.contains(metric), "{metric} in {text}");
    }
    for private in ["hall", "ada", "mapservice", "127.0.0.1"] {
        assert!(!text.contains(private), "{private} in {text}");
    }
    server.stop().await;
}
