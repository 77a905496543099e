//! Sessions, WHIP and WHEP over HTTP: status codes, headers, preconditions. No media flows here.

use reqwest::Response;
use serde_json::json;

use crate::client::{
    KEY, OTHER_KEY, OTHER_SECRET, PLAY_OFFER, PUBLISH_OFFER, SECRET, Server, Session, answered, header, join_token,
    now, refused, sign,
};

const FRAGMENT_TYPE: &str = "application/trickle-ice-sdpfrag";

/// A candidate of the ICE session that [`PUBLISH_OFFER`] begins.
fn trickle() -> String {
    let credential = |name: &str| PUBLISH_OFFER.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    format!(
        "{}\r\n{}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2113937151 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n",
        credential("a=ice-ufrag:"),
        credential("a=ice-pwd:"),
    )
}

/// A restart with the n-th new credentials.
fn restart(n: u32) -> String {
    format!("a=ice-ufrag:new{n}\r\na=ice-pwd:abcdefghijklmnopqrstuv{n}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n")
}

async fn patch(server: &Server, session: &Session, media_type: &str, if_match: Option<&str>, body: &str) -> Response {
    let mut request = server.request("PATCH", &session.url).header("content-type", media_type).body(body.to_owned());
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_answered_with_sdp_location_and_etag() {
    let server = Server::start().await;
    server.room("hall").await;
    for (path, identity, offer) in [
        ("/v1/sessions", "ada", PUBLISH_OFFER),
        ("/whip", "bob", PUBLISH_OFFER),
        ("/whep?participant=ada", "eve", PLAY_OFFER),
        ("/whep", "kim", PLAY_OFFER),
    ] {
        let token = join_token("hall", identity);
        let request = server.request("POST", path).bearer_auth(&token).body(offer);
        let response =
            request.header("content-type", "Application/SDP; charset=utf-8").send().await.expect("an answer");
        assert_eq!(response.status(), 201, "{path}: {}", response.text().await.unwrap_or_default());
        assert_eq!(header(&response, "content-type"), "application/sdp", "{path}");
        assert_eq!(header(&response, "cache-control"), "no-store", "{path}");
        let location = header(&response, "location");
        let id = location.strip_prefix("/v1/sessions/SE_").unwrap_or_else(|| panic!("{path}: {location}"));
        assert!(id.len() >= 22 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{path}: {location}");
        let etag = header(&response, "etag");
        assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{path}: {etag}");
        assert!(response.headers().get("link").is_none(), "{path}: no ICE servers are configured");
        let answer = response.text().await.expect("text");
        assert!(answer.starts_with("v=0\r\n") && answer.contains("a=candidate:"), "{path}: {answer}");
        assert!(answer.contains("a=group:BUNDLE"), "{path}: {answer}");
        answered(server.request("GET", &location), 204, "GET on a session").await;
        answered(server.request("DELETE", &location), 200, "DELETE").await;
        refused(server.request("GET", &location), 404, "session_not_found", "GET afterwards").await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_that_cannot_work_are_refused_and_the_server_carries_on() {
    let server = Server::start().await;
    server.room("hall").await;
    let token = join_token("hall", "ada");
    let without = |needle: &str| {
        let kept: Vec<&str> = PUBLISH_OFFER.lines().filter(|line| !line.starts_with(needle)).collect();
        kept.join("\r\n") + "\r\n"
    };
    let cases = [
        ("empty", String::new(), 400, "invalid_sdp"),
        ("no SDP", "hello".to_owned(), 400, "invalid_sdp"),
        ("JSON", "{\"type\":\"offer\"}".to_owned(), 400, "invalid_sdp"),
        ("no BUNDLE", without("a=group:BUNDLE"), 422, "offer_not_acceptable"),
        ("no ICE ufrag", without("a=ice-ufrag"), 422, "offer_not_acceptable"),
        ("no ICE password", without("a=ice-pwd"), 422, "offer_not_acceptable"),
        ("no fingerprint", without("a=fingerprint"), 422, "offer_not_acceptable"),
        ("no rtcp-mux", without("a=rtcp-mux"), 422, "offer_not_acceptable"),
    ];
    for path in ["/v1/sessions", "/whip"] {
        for (what, offer, status, code) in &cases {
            let problem = refused(server.offer(path, &token, offer), *status, code, what).await;
            for private in ["cm9c", "MrpCjcdSwQLaF1FX", "BE:52:C0", "127.0.0.1", "57b735fe"] {
                assert!(!problem.to_string().contains(private), "{what}: {problem}");
            }
        }
        let binary = server.offer(path, &token, "").body(vec![0xff, 0xfe, 0x00]);
        refused(binary, 400, "invalid_sdp", "not UTF-8").await;
        let large = PUBLISH_OFFER.to_owned() + &"a=x:y\r\n".repeat(40_000);
        refused(server.offer(path, &token, &large), 413, "body_too_large", "273 KiB").await;
        for media_type in ["application/json", "text/plain", FRAGMENT_TYPE, ""] {
            let request = server.request("POST", path).bearer_auth(&token).header("content-type", media_type);
            let response = request.body(PUBLISH_OFFER).send().await.expect("an answer");
            assert_eq!(response.status(), 415, "{path} {media_type}");
            assert_eq!(header(&response, "accept-post"), "application/sdp", "{path} {media_type}");
        }
    }
    let room = answered(server.call("GET", "/v1/rooms/hall"), 200, "room").await;
    assert_eq!(room["num_participants"], 0, "nobody came in by a refused offer");
    server.join("hall", "ada").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trickling_needs_no_precondition_and_restarts_do() {
    let server = Server::start().await;
    server.room("hall").await;
    let session = server.join("hall", "ada").await;
    for tag in [None, Some("*"), Some(session.etag.as_str())] {
        let response = patch(&server, &session, FRAGMENT_TYPE, tag, &trickle()).await;
        assert_eq!(response.status(), 204, "{tag:?}: {}", response.text().await.unwrap_or_default());
        assert!(response.headers().get("etag").is_none());
    }
    let missing = patch(&server, &session, FRAGMENT_TYPE, None, &restart(0)).await;
    assert_eq!(missing.status(), 428);
    for stale in ["\"ice-99\"", "\"other\"", "W/\"ice-1\""] {
        let response = patch(&server, &session, FRAGMENT_TYPE, Some(stale), &restart(0)).await;
        assert_eq!(response.status(), 412, "{stale}");
    }
    let mut etags = vec![session.etag.clone()];
    for (n, any) in [(1, None), (2, Some("*")), (3, Some("\"*\""))] {
        let current = etags.last().cloned().unwrap_or_default();
        let tag = any.unwrap_or(&current);
        let response = patch(&server, &session, FRAGMENT_TYPE, Some(tag), &restart(n)).await;
        assert_eq!(response.status(), 200, "{tag}: {}", response.text().await.unwrap_or_default());
        assert_eq!(header(&response, "content-type"), FRAGMENT_TYPE);
        let etag = header(&response, "etag");
        assert!(!etags.contains(&etag), "{etag} is used already");
        etags.push(etag);
        let fragment = response.text().await.expect("text");
        assert!(fragment.contains("a=ice-ufrag:") && fragment.contains("a=ice-pwd:"), "{fragment}");
        assert!(fragment.contains("a=candidate:") && fragment.contains("\r\n"), "{fragment}");
    }
    let old = patch(&server, &session, FRAGMENT_TYPE, Some(&session.etag), &restart(4)).await;
    assert_eq!(old.status(), 412);
    let garbage = patch(&server, &session, FRAGMENT_TYPE, Some("*"), "hello").await;
    assert_eq!(garbage.status(), 400, "a failed restart");
    answered(server.request("GET", &session.url), 204, "a failed restart ends nothing").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_offer_is_answered_under_a_precondition() {
    let server = Server::start().await;
    server.room("hall").await;
    let session = server.join("hall", "ada").await;
    let sdp = "application/sdp";
    assert_eq!(patch(&server, &session, sdp, None, PUBLISH_OFFER).await.status(), 428);
    assert_eq!(patch(&server, &session, sdp, Some("\"ice-99\""), PUBLISH_OFFER).await.status(), 412);
    let response = patch(&server, &session, sdp, Some(&session.etag), PUBLISH_OFFER).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
    assert_eq!(header(&response, "content-type"), sdp);
    assert!(header(&response, "etag").starts_with('"'));
    assert!(response.text().await.expect("text").starts_with("v=0\r\n"));
    assert_eq!(patch(&server, &session, sdp, Some("*"), "hello").await.status(), 400);
    let large = "a=x:y\r\n".repeat(40_000);
    assert_eq!(patch(&server, &session, sdp, Some("*"), &large).await.status(), 413);
    for media_type in ["application/json", "text/plain", ""] {
        let response = patch(&server, &session, media_type, Some("*"), PUBLISH_OFFER).await;
        assert_eq!(response.status(), 415, "{media_type}");
        assert_eq!(header(&response, "accept-patch"), "application/trickle-ice-sdpfrag, application/sdp");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_on_a_session_must_be_its_participants() {
    let server = Server::start().await;
    server.room("hall").await;
    server.room("cellar").await;
    let session = server.join("hall", "ada").await;
    let own = |extra: &str, value: serde_json::Value| {
        let mut claims = json!({"sub": "ada", "video": {"room": "hall", "roomJoin": true}});
        claims[extra] = value;
        claims
    };
    let foreign = sign(OTHER_SECRET, own("iss", json!(OTHER_KEY)));
    let cases = [
        ("expired", sign(SECRET, own("exp", json!(now() - 60))), 401, "token_expired"),
        ("wrong signature", sign(OTHER_SECRET, own("name", json!("x"))), 401, "invalid_token"),
        ("garbage", "x".to_owned(), 401, "invalid_token"),
        ("another participant", join_token("hall", "bob"), 403, "forbidden"),
        ("another room", join_token("cellar", "ada"), 403, "forbidden"),
        ("another tenant", foreign, 404, "session_not_found"),
    ];
    for (what, token, status, code) in cases {
        let patch = server.request("PATCH", &session.url).header("content-type", FRAGMENT_TYPE).body(trickle());
        refused(patch.bearer_auth(&token), status, code, &format!("PATCH, {what}")).await;
        refused(server.request("DELETE", &session.url).bearer_auth(&token), status, code, &format!("DELETE, {what}"))
            .await;
    }
    let by_key = server.request("DELETE", &session.url).basic_auth(KEY, Some(SECRET));
    refused(by_key, 403, "forbidden", "an API key").await;
    let patch = server.request("PATCH", &session.url).header("content-type", FRAGMENT_TYPE).body(trickle());
    answered(patch.bearer_auth(&session.token), 204, "own token").await;
    answered(server.request("DELETE", &session.url).bearer_auth(&session.token), 200, "own token").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_and_unknown_sessions_are_not_found() {
    let server = Server::start().await;
    server.room("hall").await;
    let session = server.join("hall", "ada").await;
    let tag = server.request("DELETE", &session.url).header("if-match", "\"ice-99\"");
    answered(tag, 200, "DELETE ignores If-Match").await;
    for url in [&session.url, "/v1/sessions/SE_0000000000000000000000", "/v1/sessions/x", "/v1/sessions/%ff"] {
        for method in ["GET", "DELETE", "PATCH"] {
            let request = server.request(method, url).header("content-type", FRAGMENT_TYPE);
            let response = request.header("if-match", "*").body(trickle()).send().await.expect("an answer");
            let expected = if url.ends_with("%ff") { 400 } else { 404 };
            assert_eq!(response.status(), expected, "{method} {url}");
        }
    }
    // A replaced session, and the sessions of an ended room.
    let old = server.join("hall", "ada").await;
    let new = server.join("hall", "ada").await;
    assert_ne!(old.url, new.url);
    until_gone(&server, &old).await;
    answered(server.request("GET", &new.url), 204, "the newer session").await;
    answered(server.call("DELETE", "/v1/rooms/hall"), 204, "end the room").await;
    until_gone(&server, &new).await;
    server.stop().await;
}

/// Waits until the server has forgotten a session; shards tell control a moment after they answered.
async fn until_gone(server: &Server, session: &Session) {
    for _ in 0..100 {
        let status = server.request("DELETE", &session.url).send().await.expect("an answer").status();
        if status == 404 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} lives on", session.url);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_publish_cannot() {
    let server = Server::start().await;
    server.room("hall").await;
    let token = |grants: serde_json::Value| {
        let mut video = json!({"room": "hall", "roomJoin": true});
        video.as_object_mut().expect("an object").extend(grants.as_object().expect("an object").clone());
        sign(SECRET, json!({"sub": "ada", "video": video}))
    };
    let listener = token(json!({"canPublish": false}));
    refused(server.offer("/v1/sessions", &listener, PUBLISH_OFFER), 403, "publish_forbidden", "publish").await;
    let plays = server.offer("/v1/sessions", &listener, PLAY_OFFER).send().await.expect("an answer");
    assert_eq!(plays.status(), 201);
    server.stop().await;
}
