//! The page, and the tokens it gets while the shipped key is configured.

use serde_json::{Value, json};

use crate::client::{PUBLISH_OFFER, Server, answered, header, refused};

const DEV: [(&str, &str); 1] = [("STUBE__KEYS__devkey", "devsecret-devsecret-devsecret-dev")];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_under_a_strict_policy() {
    let server = Server::start().await;
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/stube.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let response = server.request("GET", path).send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(header(&response, "content-type"), media_type, "{path}");
        assert_eq!(header(&response, "cache-control"), "no-cache", "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(!response.text().await.expect("text").is_empty(), "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_key_gives_tokens_to_the_page() {
    let server = Server::with(&DEV).await;
    let ask = |room: &str, name: &str| server.request("POST", "/demo/token").json(&json!({"room": room, "name": name}));
    let first = answered(ask("lobby", "Ada"), 200, "first").await;
    let second = answered(ask("lobby", "Ada"), 200, "second").await;
    assert_eq!((&first["room"], &first["session_url"]), (&json!("lobby"), &json!(server.url("/v1/sessions"))));
    assert_ne!(first["identity"], second["identity"], "two people may have one name");
    for answer in [&first, &second] {
        let token = answer["token"].as_str().expect("a token");
        let joined = server.offer("/v1/sessions", token, PUBLISH_OFFER).send().await.expect("an answer");
        assert_eq!(joined.status(), 201);
    }
    let people = server.request("GET", "/v1/rooms/lobby/participants").basic_auth("devkey", Some(DEV[0].1));
    let people = answered(people, 200, "participants").await;
    assert_eq!(people["participants"].as_array().map(Vec::len), Some(2));
    assert_eq!(people["participants"][0]["name"], "Ada");
    for (body, pointer) in [
        (json!({"room": "", "name": "Ada"}), "/room"),
        (json!({"room": "r", "name": "a".repeat(257)}), "/name"),
        (json!({"room": 1, "name": "Ada"}), "/room"),
    ] {
        let request = server.request("POST", "/demo/token").json(&body);
        let problem: Value = refused(request, 422, "invalid_request", pointer).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_shipped_key_there_are_no_tokens() {
    let server = Server::start().await;
    let request = server.request("POST", "/demo/token").json(&json!({"room": "lobby", "name": "Ada"}));
    refused(request, 404, "not_found", "own keys only").await;
    server.stop().await;
}
