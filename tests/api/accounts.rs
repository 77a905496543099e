//! Quotas, usage, people's data and moves, as far as HTTP shows them without media.

use serde_json::{Value, json};

use crate::client::{
    OTHER_KEY, OTHER_SECRET, PUBLISH_OFFER, SECRET, Server, answered, header, join_token, refused, sign,
};

#[tokio::test(flavor = "multi_thread")]
async fn as_many_are_admitted_as_the_quota_says() {
    let server =
        Server::with(&[("STUBE__QUOTA__DEFAULT__MAX_PARTICIPANTS", "100"), ("STUBE__ROOMS__MAX_PARTICIPANTS", "1000")])
            .await;
    server.room("hall").await;
    let joins = (0..200).map(|number| {
        let token = join_token("hall", &format!("p-{number}"));
        tokio::spawn(server.offer("/v1/sessions", &token, PUBLISH_OFFER).send())
    });
    let (mut admitted, mut refused) = (0, 0);
    for join in joins.collect::<Vec<_>>() {
        match join.await.expect("no panic").expect("an answer").status().as_u16() {
            201 => admitted += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((admitted, refused), (100, 100));
    // Who is there may come back: the older session's place is theirs.
    server.join("hall", &first_identity(&server).await).await;
    server.stop().await;
}

async fn first_identity(server: &Server) -> String {
    let list = answered(server.call("GET", "/v1/rooms/hall/participants?limit=1"), 200, "the first").await;
    list["participants"][0]["identity"].as_str().expect("an identity").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_says_what_is_used_and_when_to_come_back() {
    let server = Server::with(&[
        ("STUBE__QUOTA__mapservice__MAX_ROOMS", "1"),
        ("STUBE__QUOTA__DEFAULT__JOINS_PER_IP_PER_MINUTE", "2"),
    ])
    .await;
    server.room("hall").await;
    let again = server.call("POST", "/v1/rooms").json(&json!({"name": "hall"}));
    answered(again, 200, "the room that is there takes no quota").await;
    let another = || server.call("POST", "/v1/rooms").json(&json!({"name": "attic"}));
    let problem = refused(another(), 429, "quota_exceeded", "a second room").await;
    assert_eq!((&problem["quota"], &problem["limit"], &problem["used"]), (&json!("max_rooms"), &json!(1), &json!(1)));
    let neighbour = server.request("POST", "/v1/rooms").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    answered(neighbour.json(&json!({"name": "attic"})), 201, "another tenant").await;
    for identity in ["ada", "bob"] {
        server.join("hall", identity).await;
    }
    let third =
        server.offer("/v1/sessions", &join_token("hall", "cyd"), PUBLISH_OFFER).send().await.expect("an answer");
    let wait: u64 = header(&third, "retry-after").parse().expect("seconds");
    assert_eq!(third.status(), 429);
    assert!((1..=60).contains(&wait), "{wait}");
    answered(server.call("DELETE", "/v1/rooms/hall"), 204, "gone").await;
    answered(another(), 201, "its place is free at once").await;
    let metrics = server.admin("/metrics").await.text().await.expect("text");
    for line in
        ["stube_quota_rejections_total{quota=\"max_rooms\"} 1", "stube_joins_total{result=\"quota_exceeded\"} 1"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_are_pseudonyms() {
    let server = Server::start().await;
    server.room("hall").await;
    let join = server.offer("/v1/sessions", &join_token("hall", "ada@example.org"), PUBLISH_OFFER);
    let problem = refused(join, 422, "personal_identity", "an e-mail address").await;
    assert!(!problem.to_string().contains("ada@"), "{problem}");
    let token = server.call("POST", "/v1/rooms/hall/tokens").json(&json!({"identity": "+49 170 1234567"}));
    let problem = refused(token, 422, "invalid_request", "a phone number").await;
    assert_eq!(problem["errors"][0]["pointer"], "/identity");
    server.stop().await;
    let open = Server::with(&[("STUBE__PRIVACY__ALLOW_PERSONAL_IDENTITIES", "true")]).await;
    open.room("hall").await;
    open.join("hall", "ada@example.org").await;
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_empty_before_anyone_connects_and_for_servers_alone() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    assert_eq!(
        answered(server.call("GET", "/v1/records"), 200, "records").await,
        json!({"records": [], "next_cursor": null})
    );
    assert_eq!(
        answered(server.call("GET", "/v1/calls"), 200, "calls").await,
        json!({"calls": [], "next_cursor": null})
    );
    let usage = answered(server.call("GET", "/v1/usage?group_by=room"), 200, "usage").await;
    assert_eq!((&usage["usage"], &usage["total"]["participant_ms"]), (&json!([]), &json!(0)));
    for (path, pointer) in [
        ("/v1/records?from=yesterday", "?from"),
        ("/v1/calls?to=2026-13-01", "?to"),
        ("/v1/calls?cursor=abc", "?cursor"),
        ("/v1/records?call=CA_1", "?call"),
        ("/v1/records?limit=0", "?limit"),
        ("/v1/usage?group_by=person", "?group_by"),
        ("/v1/usage?room=hall", "?room"),
    ] {
        let problem = refused(server.call("GET", path), 422, "invalid_request", path).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{path}");
    }
    let room_admin = sign(SECRET, json!({"video": {"roomAdmin": true, "room": "hall"}}));
    let admin = sign(SECRET, json!({"video": {"roomAdmin": true}}));
    for path in ["/v1/records", "/v1/calls", "/v1/usage", "/v1/subjects/ada", "/v1/events"] {
        refused(server.request("GET", path), 401, "missing_credentials", path).await;
        refused(server.request("GET", path).bearer_auth(&room_admin), 403, "forbidden", path).await;
        let allowed = server.request("GET", path).bearer_auth(&admin).send().await.expect("an answer");
        assert_eq!(allowed.status(), 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_exported_and_erased_and_a_second_time_nothing_is_left() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    let erased = answered(server.call("DELETE", "/v1/subjects/ada"), 200, "erase").await;
    assert_eq!(erased["sessions"], 1, "{erased}");
    refused(server.call("GET", "/v1/rooms/hall/participants/ada"), 404, "participant_not_found", "gone").await;
    let again = answered(server.call("DELETE", "/v1/subjects/ada"), 200, "erase again").await;
    assert_eq!(again, json!({"records": 0, "events": 0, "sessions": 0}));
    let batch = server.call("POST", "/v1/subjects/export").json(&json!({"identities": ["ada", "bob"]}));
    let export = answered(batch, 200, "export").await;
    assert_eq!((&export["records"], export["fields"].is_object()), (&json!([]), true));
    let nobody = server.call("POST", "/v1/subjects/erase").json(&json!({"identities": []}));
    refused(nobody, 422, "invalid_request", "nobody").await;
    let impossible = format!("/v1/subjects/{}", "a".repeat(129));
    for method in ["GET", "DELETE"] {
        refused(server.call(method, &impossible), 422, "invalid_request", "not an identity").await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_moved_between_rooms_of_their_tenant_alone() {
    let server = Server::with(&[("STUBE__SHARD__COUNT", "2")]).await;
    // With two shards, neighbours in this list are on different ones.
    for room in ["hall", "attic", "cellar"] {
        server.room(room).await;
    }
    let neighbour = server.request("POST", "/v1/rooms").basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    answered(neighbour.json(&json!({"name": "theirs"})), 201, "another tenant's room").await;
    let session = server.join("hall", "ada").await;
    let to = |from: &str, room: &str| {
        server.call("POST", &format!("/v1/rooms/{from}/participants/ada/move")).json(&json!({"room": room}))
    };
    refused(to("hall", "theirs"), 404, "room_not_found", "another tenant's").await;
    refused(to("attic", "hall"), 404, "participant_not_found", "not there").await;
    let before = answered(server.call("GET", "/v1/rooms/hall/participants/ada"), 200, "before").await;
    let mut from = "hall";
    for room in ["attic", "cellar", "hall", "hall"] {
        let moved = answered(to(from, room), 200, room).await;
        assert_eq!((&moved["identity"], &moved["tracks"]), (&before["identity"], &before["tracks"]), "{room}");
        let there = answered(server.call("GET", &format!("/v1/rooms/{room}")), 200, room).await;
        assert_eq!(there["num_participants"], 1, "{room}");
        if room != from {
            let left = answered(server.call("GET", &format!("/v1/rooms/{from}")), 200, from).await;
            assert_eq!(left["num_participants"], 0, "{from}");
        }
        for token in [&session.token, &join_token(room, "ada")] {
            let probe = server.request("GET", &session.url).bearer_auth(token);
            answered(probe, 204, "the token one came with, and one of the room one is in").await;
        }
        from = room;
    }
    let gone = server.request("DELETE", &session.url).send().await.expect("an answer");
    assert_eq!(gone.status(), 200, "the session's URL is still its own");
    let hall = answered(server.call("GET", "/v1/rooms/hall"), 200, "hall").await;
    assert_eq!(hall["num_participants"], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_and_go_on_where_a_reader_stopped() {
    let server = Server::start().await;
    server.room("hall").await;
    let read = async |after: &str, until: &str| {
        let request = server.call("GET", "/v1/events").header("last-event-id", after);
        let mut response = request.send().await.expect("an answer");
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        let mut text = String::new();
        while !text.contains(until) {
            let chunk = response.chunk().await.expect("a stream").expect("more");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    // An id that nobody knows reads all that is kept.
    let all = read("EV_0000000000000000000000", "room_started").await;
    let data = all.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let event: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(
        (&event["event"], &event["room"]["name"], &event["seq"]),
        (&json!("room_started"), &json!("hall"), &json!(1))
    );
    answered(server.call("DELETE", "/v1/rooms/hall"), 204, "end").await;
    let rest = read(event["id"].as_str().expect("an id"), "room_finished").await;
    assert!(!rest.contains("room_started"), "{rest}");
    let wrong = server.call("GET", "/v1/events").header("last-event-id", "7");
    refused(wrong, 400, "invalid_event_id", "not an id").await;
    server.stop().await;
}
