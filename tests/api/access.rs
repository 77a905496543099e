//! Every route × no, wrong, expired, foreign and insufficient credentials.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::client::{
    KEY, OTHER_KEY, OTHER_SECRET, PUBLISH_OFFER, SECRET, Server, answered, header, join_token, now, refused, sign,
};

/// Every route for servers: method, path, body, and the grants that are enough.
fn server_routes() -> Vec<(&'static str, &'static str, Value, Vec<Value>)> {
    let create = || json!({"roomCreate": true});
    let list = || json!({"roomList": true});
    let admin = || json!({"roomAdmin": true, "room": "hall"});
    let admin_of_all = || json!({"roomAdmin": true});
    let both = || vec![admin(), admin_of_all()];
    vec![
        ("POST", "/v1/rooms", json!({"name": "hall"}), vec![create()]),
        ("GET", "/v1/rooms", Value::Null, vec![list()]),
        ("GET", "/v1/rooms/hall", Value::Null, vec![create(), list(), admin(), admin_of_all()]),
        ("PATCH", "/v1/rooms/hall", json!({}), vec![create(), admin(), admin_of_all()]),
        ("POST", "/v1/rooms/hall/tokens", json!({"identity": "ada"}), both()),
        ("POST", "/v1/rooms/hall/messages", json!({"topic": "t", "data": 1}), both()),
        ("GET", "/v1/rooms/hall/stats", Value::Null, both()),
        ("GET", "/v1/rooms/hall/participants", Value::Null, both()),
        ("GET", "/v1/rooms/hall/participants/ada", Value::Null, both()),
        ("PATCH", "/v1/rooms/hall/participants/ada", json!({}), both()),
        ("DELETE", "/v1/rooms/hall/participants/ada", Value::Null, both()),
        ("PUT", "/v1/rooms/hall/participants/ada/tracks/TR_x/muted", json!({"muted": true}), both()),
        ("DELETE", "/v1/rooms/hall", Value::Null, vec![create(), admin(), admin_of_all()]),
    ]
}

fn with_body(request: RequestBuilder, body: &Value) -> RequestBuilder {
    if body.is_null() { request } else { request.json(body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_routes_want_a_servers_credentials() {
    let server = Server::start().await;
    server.room("hall").await;
    let all_rights = json!({"roomCreate": true, "roomList": true, "roomAdmin": true});
    let claims = |video: &Value| json!({"video": video});
    let dated = |at: &str, when: i64| json!({"video": all_rights, at: when});
    let unauthorized: Vec<(&str, Option<String>, &str)> = vec![
        ("none", None, "missing_credentials"),
        ("unknown scheme", Some("Digest x".to_owned()), "invalid_credentials"),
        ("no Basic at all", Some("Basic !".to_owned()), "invalid_credentials"),
        ("no token at all", Some("Bearer x".to_owned()), "invalid_token"),
        ("empty token", Some("Bearer ".to_owned()), "invalid_token"),
        ("wrong signature", Some(bearer(&sign(OTHER_SECRET, claims(&all_rights)))), "invalid_token"),
        ("expired", Some(bearer(&sign(SECRET, dated("exp", now() - 60)))), "token_expired"),
        ("not yet", Some(bearer(&sign(SECRET, dated("nbf", now() + 60)))), "invalid_token"),
    ];
    for (method, path, body, enough) in server_routes() {
        for (what, credentials, code) in &unauthorized {
            let what = format!("{method} {path}: {what}");
            let mut request = with_body(server.request(method, path), &body);
            if let Some(credentials) = credentials {
                request = request.header("authorization", credentials);
            }
            refused(request, 401, code, &what).await;
        }
        for (key, secret) in [(KEY, OTHER_SECRET), ("nobody", SECRET), (KEY, ""), ("", "")] {
            let request = with_body(server.request(method, path), &body).basic_auth(key, Some(secret));
            refused(request, 401, "invalid_credentials", &format!("{method} {path}: wrong Basic")).await;
        }
        let insufficient = [
            json!({}),
            json!({"roomJoin": true, "room": "hall"}),
            json!({"roomAdmin": true, "room": "cellar"}),
            json!({"roomAdmin": false, "room": "hall", "roomCreate": false, "roomList": false}),
        ];
        let grants =
            [json!({"roomCreate": true}), json!({"roomList": true}), json!({"roomAdmin": true, "room": "hall"})];
        for video in insufficient.iter().chain(grants.iter().filter(|grant| !enough.contains(grant))) {
            let request = with_body(server.request(method, path), &body).bearer_auth(sign(SECRET, claims(video)));
            refused(request, 403, "forbidden", &format!("{method} {path}: {video}")).await;
        }
        for video in &enough {
            let request = with_body(server.request(method, path), &body).bearer_auth(sign(SECRET, claims(video)));
            let status = request.send().await.expect("an answer").status().as_u16();
            assert!(!matches!(status, 401 | 403) && status < 500, "{method} {path}: {video}: {status}");
            if (method, path) == ("DELETE", "/v1/rooms/hall") {
                server.room("hall").await;
            }
        }
    }
    server.stop().await;
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_rooms_do_not_exist() {
    let server = Server::start().await;
    server.room("hall").await;
    let admin = json!({"iss": OTHER_KEY, "video": {"roomCreate": true, "roomList": true, "roomAdmin": true}});
    for (method, path, body, _) in server_routes() {
        let request = || with_body(server.request(method, path), &body);
        if path == "/v1/rooms" {
            continue;
        }
        let by_key = request().basic_auth(OTHER_KEY, Some(OTHER_SECRET));
        let by_token = request().bearer_auth(sign(OTHER_SECRET, admin.clone()));
        refused(by_key, 404, "room_not_found", &format!("{method} {path}")).await;
        refused(by_token, 404, "room_not_found", &format!("{method} {path}")).await;
    }
    let list = server.request("GET", "/v1/rooms").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    assert_eq!(answered(list, 200, "list").await["rooms"], json!([]));
    // The same name is free for the other tenant, and ending theirs leaves ours.
    let own = || server.request("POST", "/v1/rooms").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    answered(own().json(&json!({"name": "hall", "max_participants": 3})), 201, "theirs").await;
    let end = server.request("DELETE", "/v1/rooms/hall").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    answered(end, 204, "theirs ends").await;
    assert_eq!(answered(server.call("GET", "/v1/rooms/hall"), 200, "ours").await["max_participants"], 100);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_wants_a_participants_token() {
    let server = Server::start().await;
    server.room("hall").await;
    let video = json!({"room": "hall", "roomJoin": true});
    let claims = |extra: Value| {
        let mut claims = json!({"sub": "ada", "video": video});
        claims.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        claims
    };
    let cases = [
        ("wrong signature", sign(OTHER_SECRET, claims(json!({}))), 401, "invalid_token"),
        ("unknown key", sign(SECRET, claims(json!({"iss": "nobody"}))), 401, "invalid_token"),
        ("expired", sign(SECRET, claims(json!({"exp": now() - 60}))), 401, "token_expired"),
        ("no sub", sign(SECRET, json!({"video": video})), 401, "invalid_token"),
        ("sub too long", sign(SECRET, claims(json!({"sub": "a".repeat(129)}))), 401, "invalid_token"),
        ("metadata too long", sign(SECRET, claims(json!({"metadata": "a".repeat(4097)}))), 401, "invalid_token"),
        ("no roomJoin", sign(SECRET, claims(json!({"video": {"room": "hall"}}))), 403, "forbidden"),
        ("no room", sign(SECRET, claims(json!({"video": {"roomJoin": true}}))), 403, "forbidden"),
        ("a server's", sign(SECRET, claims(json!({"video": {"roomAdmin": true, "room": "hall"}}))), 403, "forbidden"),
        ("foreign", sign(OTHER_SECRET, claims(json!({"iss": OTHER_KEY}))), 404, "room_not_found"),
        ("no such room", join_token("cellar", "ada"), 404, "room_not_found"),
    ];
    for path in ["/v1/sessions", "/whip", "/whep", "/whep?participant=bob"] {
        for (what, token, status, code) in &cases {
            let request = server.offer(path, token, PUBLISH_OFFER);
            refused(request, *status, code, &format!("{path}: {what}")).await;
        }
        let bare = || server.request("POST", path).header("content-type", "application/sdp").body(PUBLISH_OFFER);
        let response = bare().send().await.expect("an answer");
        // A browser that is offered Basic asks its user for a password.
        assert_eq!(header(&response, "www-authenticate"), "Bearer realm=\"stube\"", "{path}");
        refused(bare(), 401, "missing_credentials", path).await;
        refused(bare().basic_auth(KEY, Some(SECRET)), 403, "forbidden", path).await;
        refused(bare().basic_auth(KEY, Some("wrong")), 401, "invalid_credentials", path).await;
    }
    let joins = server.admin("/metrics").await.text().await.expect("text");
    for (result, count) in [("unauthorized", 4 * 9), ("forbidden", 4 * 4), ("room_not_found", 4 * 2)] {
        let line = format!("stube_joins_total{{result=\"{result}\"}} {count}");
        assert!(joins.lines().any(|found| found == line), "{line} in {joins}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_offered_both_schemes() {
    let server = Server::start().await;
    let response = server.request("GET", "/v1/rooms").send().await.expect("an answer");
    let offered: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(offered, ["Bearer realm=\"stube\"", "Basic realm=\"stube\", charset=\"UTF-8\""]);
    server.stop().await;
}
