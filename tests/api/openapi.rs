//! The document as it is served, against the server as it is.

use serde_json::{Value, json};
use stube::control::openapi;

use crate::client::{Server, answered, header, join_token};
use crate::described;

const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

#[tokio::test(flavor = "multi_thread")]
async fn the_server_describes_itself() {
    let server = Server::start().await;
    let response = server.request("GET", "/v1/openapi.json").send().await.expect("an answer");
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-cache");
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    let served = answered(server.request("GET", "/v1/openapi.json"), 200, "the document").await;
    assert_eq!(served, openapi::document().expect("a document"));
    assert_eq!((&served["openapi"], &served["info"]["version"]), (&"3.1.0".into(), &env!("CARGO_PKG_VERSION").into()));
    let text = served.to_string();
    let urls = text.match_indices("http").filter_map(|(at, _)| text[at..].split(['"', '`']).next());
    let foreign: Vec<_> = urls.filter(|url| url.contains("://") && !url.contains(".example.org")).collect();
    assert!(foreign.iter().all(|url| url.starts_with("http://127.0.0.1:7880/")), "{foreign:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_offers_and_rooms_work() {
    let server = Server::start().await;
    let document = openapi::document().expect("a document");
    let example = |path: &str, media_type: &str| {
        let content = &document["paths"][path]["post"]["requestBody"]["content"][media_type];
        content["example"].clone()
    };
    let room = example("/v1/rooms", "application/json");
    answered(server.call("POST", "/v1/rooms").json(&room), 201, "a room").await;
    let token = example("/v1/rooms/{name}/tokens", "application/json");
    answered(server.call("POST", "/v1/rooms/lobby/tokens").json(&token), 201, "a token").await;
    let message = example("/v1/rooms/{name}/messages", "application/json");
    answered(server.call("POST", "/v1/rooms/lobby/messages").json(&message), 204, "a message").await;
    for path in ["/v1/sessions", "/whip"] {
        let offer = example(path, "application/sdp");
        let offer = server.offer(path, &join_token("lobby", "ada"), offer.as_str().expect("SDP"));
        answered(offer, 201, path).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_method_is_there_and_no_other() {
    let server = Server::start().await;
    let document = openapi::document().expect("a document");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{id}", "SE_0000000000000000000000");
        let path = path.replace(['{', '}'], "");
        for method in METHODS {
            let documented = methods.get(method).is_some() || method == "head" && methods.get("get").is_some();
            let request = server.request(&method.to_uppercase(), &path);
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status() != 405, documented, "{method} {path}: {}", response.status());
            let problem: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
            // Only with the shipped key is there something at the demo page's path.
            assert!(problem["code"] != "not_found" || path == "/demo/token", "{method} {path}");
        }
    }
    server.stop().await;
}

#[test]
#[should_panic(expected = "status not documented")]
fn an_undocumented_status_is_noticed() {
    described::check("GET", "/v1/rooms/hall", 418, "application/problem+json", "{}");
}

#[test]
#[should_panic(expected = "media type not documented")]
fn an_undocumented_media_type_is_noticed() {
    described::check("GET", "/v1/rooms/hall", 200, "text/plain", "hall");
}

#[test]
#[should_panic(expected = "required property")]
fn an_undocumented_body_is_noticed() {
    described::check("GET", "/v1/rooms/hall", 200, "application/json", "{}");
}

#[test]
#[should_panic(expected = "track_not_found")]
fn an_undocumented_code_is_noticed() {
    let code = "track_not_found";
    let problem = json!({"type": "t", "title": "t", "status": 404, "detail": "d", "code": code, "instance": "i"});
    described::check("GET", "/v1/rooms/hall", 404, "application/problem+json", &problem.to_string());
}
