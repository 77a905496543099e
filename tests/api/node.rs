//! The operator's side: how the server does, reading its configuration anew, draining.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{OTHER_KEY, OTHER_SECRET, Server, answered, header, refused};

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
        let other = server.order(path).header("origin", server.url("")).json(&json!({}));
        refused(other, 403, "forbidden", "the demo page's origin").await;
    }
    assert_eq!(server.admin("/readyz").await.status(), 200);
}

#[tokio::test]
async fn its_own_page_operates_the_server_by_its_address_alone() {
    let server = Server::start().await;
    let own = server.order("/v1/node/reload").header("origin", server.admin_url("")).json(&json!({}));
    answered(own, 200, "our page").await;
    // A name of somebody's that leads here for a moment.
    let rebound = server.order("/v1/node/drain").header("host", "stube.example");
    let rebound = rebound.header("origin", "http://stube.example").json(&json!({}));
    refused(rebound, 403, "forbidden", "a rebound name").await;
    let own = server.order("/v1/node/drain").header("origin", server.admin_url("")).json(&json!({"deadline_s": 60}));
    assert_eq!(answered(own, 202, "our page").await["state"], "draining");
    server.stop().await;
}

#[tokio::test]
async fn the_page_is_served_closed_in() {
    let server = Server::start().await;
    for (path, kind) in
        [("/", "text/html"), ("/admin.js", "text/javascript"), ("/admin.css", "text/css"), ("/icon.svg", "image/svg")]
    {
        let page = server.admin(path).await;
        assert!(page.status() == 200 && header(&page, "content-type").starts_with(kind), "{path}");
        let policy = header(&page, "content-security-policy");
        for closed in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(closed), "{policy}");
        }
    }
    // The public listener has nothing of it.
    for path in ["/admin.html", "/admin.js", "/v1/node", "/v1/node/rooms", "/v1/node/quotas"] {
        assert_eq!(server.request("GET", path).send().await.expect("an answer").status(), 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_operator_sees_rooms_people_and_quotas_of_all_tenants() {
    let server = Server::configured("[quota.mapservice]\nmax_rooms = 4\n", &[]).await;
    for name in ["hall", "attic", "Cellar"] {
        server.room(name).await;
    }
    let theirs = server.request("POST", "/v1/rooms").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    answered(theirs.json(&json!({"name": "hall"})), 201, "their hall").await;
    let session = server.join("attic", "ada").await;

    let rooms = |query: &str| answered(server.ask_admin(&format!("/v1/node/rooms{query}")), 200, "rooms");
    let all = rooms("").await;
    assert_eq!(all["total"], 4);
    assert_eq!((&all["rooms"][0]["name"], &all["rooms"][0]["num_participants"]), (&json!("attic"), &json!(1)));
    assert_eq!((&all["rooms"][0]["key"], &all["rooms"][0]["max_participants"]), (&json!("mapservice"), &json!(100)));
    let halls = rooms("?search=hall").await;
    let keys: Vec<_> = halls["rooms"].as_array().expect("rooms").iter().map(|room| room["key"].clone()).collect();
    assert_eq!(keys, ["mapservice", "neighbour"]);
    assert_eq!(rooms("?search=cellar").await["total"], 1);
    refused(server.ask_admin("/v1/node/rooms?search=a&search=b"), 400, "bad_request", "two searches").await;

    let path = format!("/v1/node/rooms/{}", all["rooms"][0]["sid"].as_str().expect("an id"));
    let room = answered(server.ask_admin(&path), 200, "a room").await;
    let ada = &room["participants"][0];
    assert_eq!((&room["name"], &ada["identity"], &ada["state"]), (&json!("attic"), &json!("ada"), &json!("joining")));
    assert!(ada["duration_ms"].is_u64() && ada["published"].is_array(), "{ada}");
    // Whoever knows a session's id may end it.
    let session = session.url.rsplit('/').next().expect("an id");
    assert!(ada.get("session").is_none() && !room.to_string().contains(session), "{room}");
    refused(server.ask_admin("/v1/node/rooms/RM_0000000000000000000000"), 404, "room_not_found", "none").await;
    refused(server.ask_admin("/v1/node/rooms/hall"), 404, "room_not_found", "no id").await;

    let quotas = answered(server.ask_admin("/v1/node/quotas"), 200, "quotas").await;
    let ours = &quotas["keys"][0];
    assert_eq!(
        (&ours["key"], &ours["quotas"][0]),
        (&json!("mapservice"), &json!({"quota": "max_rooms", "used": 3, "limit": 4}))
    );
    assert_eq!(quotas["keys"][1]["quotas"][1], json!({"quota": "max_participants", "used": 0, "limit": null}));
    // A page to which a name leads that its owner made lead here.
    for path in ["/v1/node/rooms", path.as_str(), "/v1/node/quotas"] {
        let rebound = server.ask_admin(path).header("host", "stube.example:6789");
        refused(rebound, 403, "forbidden", path).await;
    }
    server.stop().await;
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
