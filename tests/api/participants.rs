//! Participants through the API: list, read, change, remove, mute.

use serde_json::{Value, json};

use crate::client::{PUBLISH_OFFER, SECRET, Server, answered, refused, sign};

const HALL: &str = "/v1/rooms/hall/participants";

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_listed_in_order_of_joining_and_paged() {
    let server = Server::start().await;
    server.room("hall").await;
    assert_eq!(answered(server.call("GET", HALL), 200, HALL).await, json!({"participants": [], "next_cursor": null}));
    for identity in ["zoe", "ada", "bob"] {
        server.join("hall", identity).await;
    }
    let identities = |page: &Value| {
        let list = page["participants"].as_array().expect("participants").clone();
        list.iter().map(|one| one["identity"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let all = answered(server.call("GET", HALL), 200, HALL).await;
    assert_eq!(identities(&all), ["zoe", "ada", "bob"]);
    let first = answered(server.call("GET", &format!("{HALL}?limit=2")), 200, "page 1").await;
    assert_eq!(identities(&first), ["zoe", "ada"]);
    answered(server.call("DELETE", &format!("{HALL}/ada")), 204, "the cursor's own participant leaves").await;
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = answered(server.call("GET", &format!("{HALL}?limit=2&cursor={cursor}")), 200, "page 2").await;
    assert_eq!((identities(&second), &second["next_cursor"]), (vec!["bob".to_owned()], &Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_is_read_changed_and_removed() {
    let server = Server::start().await;
    server.room("hall").await;
    let claims = json!({
        "sub": "ada/1", "name": "Ada", "metadata": "m", "attributes": {"hat": "red", "mood": "good"},
        "unknown": "ignored", "video": {"room": "hall", "roomJoin": true, "canSubscribe": false},
    });
    let response = server.offer("/v1/sessions", &sign(SECRET, claims), PUBLISH_OFFER).send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    let path = format!("{HALL}/ada%2F1");
    let ada = answered(server.call("GET", &path), 200, "read").await;
    assert!(ada["sid"].as_str().is_some_and(|sid| sid.starts_with("PA_")));
    assert_eq!((&ada["identity"], &ada["name"], &ada["metadata"]), (&json!("ada/1"), &json!("Ada"), &json!("m")));
    assert_eq!(ada["attributes"], json!({"hat": "red", "mood": "good"}));
    assert_eq!(ada["state"], "joining");
    assert!(ada["joined_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert!(ada["tracks"].is_array());
    let grants = |publish, subscribe| json!({"canPublish": publish, "canSubscribe": subscribe, "canPublishData": true, "hidden": false});
    assert_eq!(ada["grants"], grants(true, false));

    let change =
        json!({"name": "Countess", "attributes": {"hat": "", "shoe": "blue"}, "grants": {"canPublish": false}});
    let changed = answered(server.call("PATCH", &path).json(&change), 200, "change").await;
    assert_eq!((&changed["name"], &changed["metadata"]), (&json!("Countess"), &json!("m")));
    assert_eq!(changed["attributes"], json!({"mood": "good", "shoe": "blue"}));
    // What the change left out is as it was, not as it is by default.
    assert_eq!(changed["grants"], grants(false, false));
    for (body, pointer) in [
        (json!({"name": "a".repeat(257)}), "/name"),
        (json!({"grants": {"canFly": true}}), "/grants"),
        (json!({"attributes": {"": "x"}}), "/attributes"),
        (json!({"identity": "eve"}), "/identity"),
    ] {
        let problem = refused(server.call("PATCH", &path).json(&body), 422, "invalid_request", pointer).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }

    answered(server.call("DELETE", &path), 204, "remove").await;
    for (method, body) in [("GET", Value::Null), ("DELETE", Value::Null), ("PATCH", change)] {
        let request = if body.is_null() { server.call(method, &path) } else { server.call(method, &path).json(&body) };
        refused(request, 404, "participant_not_found", method).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn muting_needs_a_track_and_unmuting_a_permission() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    let muted = |track: &str| format!("{HALL}/ada/tracks/{track}/muted");
    let put = |track: &str, muted_now: Value| server.call("PUT", &muted(track)).json(&json!({"muted": muted_now}));
    let unknown = "TR_0000000000000000000000";
    refused(put(unknown, json!(true)), 404, "track_not_found", "unknown track").await;
    refused(put("garbage", json!(true)), 404, "track_not_found", "no track id").await;
    refused(put(unknown, json!(false)), 403, "unmute_forbidden", "unmute").await;
    refused(put(unknown, json!("yes")), 422, "invalid_request", "no boolean").await;
    let path = format!("{HALL}/eve/tracks/{unknown}/muted");
    let nobody = server.call("PUT", &path).json(&json!({"muted": true}));
    refused(nobody, 404, "participant_not_found", "nobody").await;

    let ada = answered(server.call("GET", &format!("{HALL}/ada")), 200, "read").await;
    if let Some(track) = ada["tracks"][0]["sid"].as_str() {
        let after = answered(put(track, json!(true)), 200, "mute").await;
        assert_eq!(after["tracks"][0]["muted"], true);
    }
    server.stop().await;
}
