//! The operator's side: how the server does, reading its configuration anew, draining.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Server, answered, header, refused};

const SECRET: &str = "another-secret-another-secret-another";

/// The tests' configuration with another key, and more.
fn with_key(base: &str, sections: &str) -> String {
    base.replace("[http]", &format!("other = \"{SECRET}\"\n[http]")) + sections
}

#[tokio::test]
async fn the_node_says_how_it_does() {
    let server = Server::start().await;
    let node: Value = server.admin("/v1/node").await.json().await.expect("JSON");
    assert_eq!((&node["state"], &node["sessions"]), (&json!("running"), &json!(0)));
    assert_eq!(node["ledger"]["writable"], true);
    assert_eq!(node["shards"].as_array().map(Vec::len), Some(2), "{node}");
}

#[tokio::test]
async fn what_a_page_could_send_is_refused() {
    let server = Server::start().await;
    for path in ["/v1/node/reload", "/v1/node/drain"] {
        let plain = server.order(path).header("content-type", "text/plain").body("{}");
        refused(plain, 415, "unsupported_media_type", path).await;
        let rebound = server.order(path).header("origin", "http://stube.example").json(&json!({}));
        refused(rebound, 403, "forbidden", path).await;
    }
    assert_eq!(server.admin("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_reload_takes_over_what_it_can_and_names_the_rest() {
    let server = Server::start().await;
    let as_other = |method: &str| server.request(method, "/v1/rooms").basic_auth("other", Some(SECRET));
    refused(as_other("GET"), 401, "invalid_credentials", "unknown yet").await;
    let sections = "[rooms]\nmax_participants = 7\n[quota.other]\nmax_rooms = 1\n";
    server.write_config(|base| with_key(base, sections).replace("count = 2", "count = 9"));
    let said = answered(server.order("/v1/node/reload").json(&json!({})), 200, "reload").await;
    assert_eq!(said, json!({"changed": ["keys", "rooms", "quota"], "needs_restart": ["shard"]}));
    let room = answered(as_other("POST").json(&json!({"name": "a"})), 201, "known now").await;
    assert_eq!(room["max_participants"], 7);
    refused(as_other("POST").json(&json!({"name": "b"})), 429, "quota_exceeded", "one room").await;
    // And back again.
    server.write_config(str::to_owned);
    answered(server.order("/v1/node/reload").json(&json!({})), 200, "back").await;
    refused(as_other("GET"), 401, "invalid_credentials", "unknown again").await;
}

#[tokio::test]
async fn a_key_that_is_taken_away_reads_no_more_events() {
    let server = Server::start().await;
    server.write_config(|base| with_key(base, ""));
    answered(server.order("/v1/node/reload").json(&json!({})), 200, "with the key").await;
    let stream = server.request("GET", "/v1/events").basic_auth("other", Some(SECRET)).send();
    let mut stream = stream.await.expect("a stream");
    assert_eq!(stream.status(), 200);
    server.write_config(str::to_owned);
    answered(server.order("/v1/node/reload").json(&json!({})), 200, "without").await;
    let end = async { while stream.chunk().await.expect("what is sent").is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.expect("the stream has ended");
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_says_why() {
    let server = Server::start().await;
    for (sections, why) in [
        ("[rooms]\nmax_participants = -1", "rooms.max_participants"),
        ("[rooms\n", "not valid TOML"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[[webhook]]\nurl = \"ftp://a\"\nsecret = \"0123456789abcdef0123456789abcdef\"", "webhook[0].url"),
    ] {
        server.write_config(|base| with_key(base, sections));
        let said = refused(server.order("/v1/node/reload").json(&json!({})), 422, "invalid_config", sections).await;
        assert!(said["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{said}");
        let as_other = server.request("GET", "/v1/rooms").basic_auth("other", Some(SECRET));
        refused(as_other, 401, "invalid_credentials", "the key of an invalid file").await;
    }
}

#[tokio::test]
async fn a_drain_refuses_what_is_new_and_ends_with_the_last_call() {
    let server = Server::start().await;
    server.room("lobby").await;
    server.room("cellar").await;
    let drain = || server.order("/v1/node/drain");
    refused(drain().json(&json!({"deadline_s": 100_000})), 422, "invalid_request", "too late").await;
    server.join("lobby", "ada").await;
    let said = answered(drain().json(&json!({})), 202, "drain").await;
    assert_eq!(said, json!({"state": "draining", "sessions": 1}));
    let ready = server.admin("/readyz").await;
    assert_eq!((ready.status().as_u16(), ready.text().await.expect("a text")), (503, "draining\n".to_owned()));
    let new = server.call("POST", "/v1/rooms").json(&json!({"name": "attic"}));
    let answer = new.try_clone().expect("a request").send().await.expect("an answer");
    assert!(!header(&answer, "retry-after").is_empty());
    refused(new, 503, "unavailable", "a new room").await;
    let token = crate::client::join_token("cellar", "cyd");
    let into_empty = server.offer("/v1/sessions", &token, crate::client::PUBLISH_OFFER);
    refused(into_empty, 503, "unavailable", "a new call").await;
    // Who comes into a call that runs is let in.
    server.join("lobby", "bob").await;
    assert!(tokio::time::timeout(Duration::from_millis(300), server.drained()).await.is_err(), "a call runs");
    answered(drain().json(&json!({"deadline_s": 1})), 202, "hurry").await;
    tokio::time::timeout(Duration::from_secs(3), server.drained()).await.expect("the deadline has passed");
}
