//! Allocating, reading, changing and ending rooms; tokens; messages.

use serde_json::{Value, json};

use crate::client::{KEY, PUBLISH_OFFER, Server, answered, header, now, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_allocated_read_changed_and_ended() {
    let server = Server::start().await;
    let settings = json!({
        "name": "Küche / unten", "max_participants": 5, "empty_timeout_s": 60, "departure_timeout_s": 0,
        "max_duration_s": 3600, "metadata": "{\"floor\":1}",
    });
    let room = answered(server.call("POST", "/v1/rooms").json(&settings), 201, "allocate").await;
    for (field, value) in settings.as_object().expect("an object") {
        assert_eq!(&room[field], value, "{field}");
    }
    let sid = room["sid"].as_str().expect("sid");
    assert!(sid.starts_with("RM_") && sid.len() >= 15, "{sid}");
    let created_at = room["created_at"].as_str().expect("created_at");
    assert!(created_at.len() == 24 && created_at.ends_with('Z') && created_at.as_bytes()[19] == b'.', "{created_at}");
    assert_eq!(room["num_participants"], 0);
    assert_eq!(room["num_publishers"], 0);
    assert_eq!(room["call"], Value::Null);
    assert_eq!(room["ice_servers"], json!([]));
    assert_eq!(room["session_url"], server.url("/v1/sessions"));
    assert_eq!(room["whip_url"], server.url("/whip"));
    assert_eq!(room["whep_url"], server.url("/whep"));

    let path = "/v1/rooms/K%C3%BCche%20%2F%20unten";
    assert_eq!(answered(server.call("GET", path), 200, "read").await, room);
    assert_eq!(answered(server.call("POST", "/v1/rooms").json(&settings), 200, "again").await, room);
    let other = json!({"name": "Küche / unten"});
    refused(server.call("POST", "/v1/rooms").json(&other), 409, "room_exists", "other settings").await;

    let change = json!({"metadata": "new", "max_participants": 6, "max_duration_s": null});
    let changed = answered(server.call("PATCH", path).json(&change), 200, "change").await;
    assert_eq!((&changed["metadata"], &changed["max_participants"]), (&json!("new"), &json!(6)));
    assert_eq!((&changed["max_duration_s"], &changed["empty_timeout_s"]), (&Value::Null, &json!(60)));
    assert_eq!(answered(server.call("GET", path), 200, "read").await, changed);

    answered(server.call("DELETE", path), 204, "end").await;
    refused(server.call("DELETE", path), 404, "room_not_found", "ended").await;
    refused(server.call("GET", path), 404, "room_not_found", "ended").await;
    refused(server.call("PATCH", path).json(&change), 404, "room_not_found", "ended").await;
    let again = answered(server.call("POST", "/v1/rooms").json(&settings), 201, "anew").await;
    assert_ne!(again["sid"], room["sid"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_room_has_a_default() {
    let server = Server::with(&[("STUBE__HTTP__PUBLIC_URL", "https://sfu.example.org/")]).await;
    let room = answered(server.call("POST", "/v1/rooms"), 201, "no body").await;
    assert_eq!(room["name"].as_str().map(str::is_empty), Some(false));
    assert_eq!(room["max_participants"], 100);
    assert_eq!(room["empty_timeout_s"], 300);
    assert_eq!(room["departure_timeout_s"], 20);
    assert_eq!(room["max_duration_s"], Value::Null);
    assert_eq!(room["metadata"], "");
    assert_eq!(room["session_url"], "https://sfu.example.org/v1/sessions");
    let second = answered(server.call("POST", "/v1/rooms").json(&json!({})), 201, "empty object").await;
    assert_ne!(second["name"], room["name"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_pointed_at() {
    let server = Server::start().await;
    server.room("hall").await;
    let cases = [
        ("/v1/rooms", json!({"name": ""}), "/name"),
        ("/v1/rooms", json!({"name": "a".repeat(129)}), "/name"),
        ("/v1/rooms", json!({"name": "a\u{7}"}), "/name"),
        ("/v1/rooms", json!({"name": ".."}), "/name"),
        ("/v1/rooms", json!({"name": 5}), "/name"),
        ("/v1/rooms", json!({"max_participants": 0}), "/max_participants"),
        ("/v1/rooms", json!({"max_participants": -1}), "/max_participants"),
        ("/v1/rooms", json!({"max_participants": "5"}), "/max_participants"),
        ("/v1/rooms", json!({"empty_timeout_s": 0}), "/empty_timeout_s"),
        ("/v1/rooms", json!({"departure_timeout_s": 604_801}), "/departure_timeout_s"),
        ("/v1/rooms", json!({"max_duration_s": 0}), "/max_duration_s"),
        ("/v1/rooms", json!({"metadata": "a".repeat(4097)}), "/metadata"),
        ("/v1/rooms", json!({"max_participant": 5}), "/max_participant"),
        ("/v1/rooms/hall/tokens", json!({"identity": ""}), "/identity"),
        ("/v1/rooms/hall/tokens", json!({"identity": "a", "ttl_s": 0}), "/ttl_s"),
        ("/v1/rooms/hall/tokens", json!({"identity": "a", "attributes": {"k": 1}}), "/attributes/k"),
        ("/v1/rooms/hall/tokens", json!({"identity": "a", "grants": {"canPublsh": false}}), "/grants"),
        ("/v1/rooms/hall/tokens", json!({"identity": "a", "grants": {"canPublishSources": ["x"]}}), "/grants"),
        ("/v1/rooms/hall/messages", json!({"topic": "a".repeat(129), "data": 1}), "/topic"),
        ("/v1/rooms/hall/messages", json!({"topic": "t", "data": "a".repeat(16_000)}), "/data"),
    ];
    for (path, body, pointer) in cases {
        let what = format!("{path} {pointer}");
        let problem = refused(server.call("POST", path).json(&body), 422, "invalid_request", &what).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{what}: {problem}");
        assert!(problem["errors"][0]["detail"].is_string(), "{what}: {problem}");
    }
    let two = json!({"name": "", "max_participants": 0});
    let problem = refused(server.call("POST", "/v1/rooms").json(&two), 422, "invalid_request", "two").await;
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2));
    for (body, what) in [("{", "cut off"), ("{\"name\":}", "no value"), ("\u{0}", "no JSON"), ("{} {}", "two")] {
        let request = server.call("POST", "/v1/rooms").header("content-type", "application/json").body(body);
        refused(request, 400, "invalid_json", what).await;
    }
    let array = server.call("POST", "/v1/rooms").json(&json!([1]));
    refused(array, 422, "invalid_request", "an array").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_json_and_small() {
    let server = Server::start().await;
    for media_type in ["text/plain", "application/sdp", ""] {
        let request = server.call("POST", "/v1/rooms").header("content-type", media_type).body("{}");
        refused(request, 415, "unsupported_media_type", media_type).await;
    }
    let with_parameter = server.call("POST", "/v1/rooms").header("content-type", "Application/JSON; charset=utf-8");
    answered(with_parameter.body("{}"), 201, "parameters").await;
    let large = json!({"metadata": "a".repeat(65 * 1024)});
    refused(server.call("POST", "/v1/rooms").json(&large), 413, "body_too_large", "65 KiB").await;
    let huge = server.call("POST", "/v1/rooms").header("content-type", "application/json").body("a".repeat(3 << 20));
    // The server need not read 3 MiB to refuse them, so the client may see a reset instead of the answer.
    if let Ok(response) = huge.send().await {
        assert_eq!(response.status(), 413);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_given_again_has_credentials_that_hold() {
    let section = "[[ice_server]]\nurls = [\"turn:turn.example.org\"]\nsecret = \"north\"\nttl_s = 60\n";
    let server = Server::configured(section, &[]).await;
    let post = || server.call("POST", "/v1/rooms").header("idempotency-key", "k1").json(&json!({"name": "hall"}));
    let (mut first, mut again) = (answered(post(), 201, "first").await, answered(post(), 201, "again").await);
    let servers = [&mut first, &mut again].map(|room| room["ice_servers"].take());
    assert_eq!(first, again, "the same answer");
    assert_eq!(servers[0][0]["urls"], json!(["turn:turn.example.org"]));
    let [one, other] = servers.each_ref().map(|servers| servers[0]["username"].as_str().unwrap_or_default());
    assert!(one != other && !one.is_empty() && !other.is_empty(), "{one} {other}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_allocates_once() {
    let server = Server::start().await;
    let post = |key: &str, body: Value| server.call("POST", "/v1/rooms").header("idempotency-key", key).json(&body);
    let first = answered(post("k1", json!({})), 201, "first").await;
    assert_eq!(answered(post("k1", json!({})), 201, "again").await, first);
    assert_ne!(answered(post("k2", json!({})), 201, "another key").await["name"], first["name"]);
    refused(post("k1", json!({"name": "x"})), 422, "idempotency_key_reused", "another body").await;
    refused(post("", json!({})), 400, "invalid_idempotency_key", "empty").await;
    refused(post(&"k".repeat(256), json!({})), 400, "invalid_idempotency_key", "long").await;
    // A refused request leaves its key free.
    refused(post("k3", json!({"name": ""})), 422, "invalid_request", "refused").await;
    answered(post("k3", json!({"name": "fine"})), 201, "corrected").await;
    let theirs =
        server.request("POST", "/v1/rooms").basic_auth(crate::client::OTHER_KEY, Some(crate::client::OTHER_SECRET));
    let theirs = answered(theirs.header("idempotency-key", "k1").json(&json!({})), 201, "other tenant").await;
    assert_ne!(theirs["sid"], first["sid"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_for_one_name_make_one_room() {
    let server = Server::start().await;
    let post = || answered_status(server.call("POST", "/v1/rooms").json(&json!({"name": "hall"})));
    let (a, b, c, d) = tokio::join!(post(), post(), post(), post());
    let mut statuses = [a, b, c, d];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    server.stop().await;
}

async fn answered_status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_by_cursor() {
    let server = Server::start().await;
    for number in 0..7 {
        server.room(&format!("room {number}")).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/rooms?limit=3".to_owned();
    let mut pages = 0;
    loop {
        let page = answered(server.call("GET", &path), 200, &path).await;
        pages += 1;
        names.extend(page["rooms"].as_array().expect("rooms").iter().map(|room| room["name"].to_string()));
        if pages == 1 {
            // An entry before the cursor moves nothing.
            server.room("room 0a").await;
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/rooms?limit=3&cursor={cursor}");
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..7).map(|number| format!("\"room {number}\"")).collect::<Vec<_>>());
    let all = answered(server.call("GET", "/v1/rooms"), 200, "all").await;
    assert_eq!((all["rooms"].as_array().map(Vec::len), &all["next_cursor"]), (Some(8), &Value::Null));
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=%00"] {
        let problem = refused(server.call("GET", &format!("/v1/rooms?{query}")), 422, "invalid_request", query).await;
        assert!(query.starts_with(problem["errors"][0]["pointer"].as_str().expect("pointer").trim_start_matches('?')));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_api_say_what_was_asked_and_join() {
    let server = Server::start().await;
    server.room("hall").await;
    let body = json!({
        "identity": "ada", "name": "Ada", "metadata": "m", "attributes": {"hat": "red"},
        "grants": {"canPublishData": false, "canPublishSources": ["camera"]}, "ttl_s": 120,
    });
    let response = server.call("POST", "/v1/rooms/hall/tokens").json(&body).send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    assert_eq!(header(&response, "cache-control"), "no-store");
    let answer: Value = response.json().await.expect("JSON");
    assert!(answer["expires_at"].as_str().is_some_and(|at| at.ends_with(".000Z")));
    let token = answer["token"].as_str().expect("a token");
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token).expect("claims");
    assert_eq!((&claims["iss"], &claims["sub"], &claims["name"]), (&json!(KEY), &json!("ada"), &json!("Ada")));
    assert_eq!(claims["attributes"], json!({"hat": "red"}));
    let video = json!({
        "room": "hall", "roomJoin": true, "canPublish": true, "canSubscribe": true, "canPublishData": false,
        "canPublishSources": ["camera"], "hidden": false,
    });
    assert_eq!(claims["video"], video);
    let lifetime = claims["exp"].as_i64().expect("exp") - now();
    assert!((115..=120).contains(&lifetime), "{lifetime}");

    let joined = server.offer("/v1/sessions", token, PUBLISH_OFFER).send().await.expect("an answer");
    assert_eq!(joined.status(), 201);
    let path = "/v1/rooms/hall/participants/ada";
    let participant = answered(server.call("GET", path), 200, path).await;
    assert_eq!((&participant["name"], &participant["metadata"]), (&json!("Ada"), &json!("m")));
    assert_eq!(participant["grants"]["canPublishSources"], json!(["camera"]));
    refused(
        server.call("POST", "/v1/rooms/cellar/tokens").json(&json!({"identity": "ada"})),
        404,
        "room_not_found",
        "no room",
    )
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_to_a_room_that_exists() {
    let server = Server::start().await;
    server.room("hall").await;
    let body = json!({"topic": "news", "data": {"any": ["thing", 1]}, "to": ["ada", "bob"]});
    answered(server.call("POST", "/v1/rooms/hall/messages").json(&body), 204, "sent").await;
    let path = "/v1/rooms/cellar/messages";
    refused(server.call("POST", path).json(&body), 404, "room_not_found", path).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_refuses_and_an_automatic_one_comes_to_be() {
    let server = Server::with(&[("STUBE__ROOMS__AUTO_CREATE", "true"), ("STUBE__ROOMS__MAX_PARTICIPANTS", "1")]).await;
    server.join("lounge", "ada").await;
    let room = answered(server.call("GET", "/v1/rooms/lounge"), 200, "made by the join").await;
    assert_eq!((&room["max_participants"], &room["num_participants"]), (&json!(1), &json!(1)));
    let token = crate::client::join_token("lounge", "bob");
    refused(server.offer("/v1/sessions", &token, PUBLISH_OFFER), 409, "room_full", "second").await;
    // The same identity takes its own place.
    server.join("lounge", "ada").await;
    answered(server.call("POST", "/v1/rooms/nowhere/tokens").json(&json!({"identity": "a"})), 201, "token").await;
    server.stop().await;
}
