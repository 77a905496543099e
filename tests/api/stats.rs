//! How well it goes in a room, through the API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::client::{OTHER_KEY, OTHER_SECRET, PLAY_OFFER, SECRET, Server, answered, join_token, refused, sign};

const STATS: &str = "/v1/rooms/hall/stats";

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_room_has_no_participants() {
    let server = Server::start().await;
    let room = server.room("hall").await;
    let stats = answered(server.call("GET", STATS), 200, STATS).await;
    assert_eq!((&stats["name"], &stats["sid"], &stats["participants"]), (&json!("hall"), &room["sid"], &json!([])));
    assert!(stats["at"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert_eq!(stats.as_object().map(serde_json::Map::len), Some(4));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_administers_the_room_may_look() {
    let server = Server::start().await;
    server.room("hall").await;
    refused(server.request("GET", STATS), 401, "missing_credentials", "nobody").await;
    refused(server.request("GET", STATS).bearer_auth(join_token("hall", "ada")), 403, "forbidden", "a guest").await;
    let other_room = sign(SECRET, json!({"video": {"roomAdmin": true, "room": "cellar"}}));
    refused(server.request("GET", STATS).bearer_auth(other_room), 403, "forbidden", "another room's").await;
    let stranger = server.request("GET", STATS).basic_auth(OTHER_KEY, Some(OTHER_SECRET));
    refused(stranger, 404, "room_not_found", "another tenant").await;
    refused(server.call("GET", "/v1/rooms/cellar/stats"), 404, "room_not_found", "no room").await;
    let admin = sign(SECRET, json!({"video": {"roomAdmin": true, "room": "hall"}}));
    answered(server.request("GET", STATS).bearer_auth(admin), 200, "its administrator").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_tell_what_they_publish_and_receive() {
    let server = Server::start().await;
    server.room("hall").await;
    let claims = json!({
        "sub": "ada", "name": "Countess", "metadata": "secret", "attributes": {"hat": "purple-felt"},
        "video": {"room": "hall", "roomJoin": true},
    });
    let offer = crate::client::PUBLISH_OFFER;
    let joined = server.offer("/v1/sessions", &sign(SECRET, claims), offer).send().await.expect("an answer");
    assert_eq!(joined.status(), 201);
    let bob = server.offer("/v1/sessions", &join_token("hall", "bob"), PLAY_OFFER).send().await.expect("an answer");
    assert_eq!(bob.status(), 201);

    let stats = answered(server.call("GET", STATS), 200, STATS).await;
    let [ada, bob] = stats["participants"].as_array().expect("a list").as_slice() else { panic!("{stats}") };
    assert_eq!((&ada["identity"], &ada["state"], &bob["identity"]), (&json!("ada"), &json!("joining"), &json!("bob")));
    assert!(ada["sid"].as_str().is_some_and(|sid| sid.starts_with("PA_")));
    assert!(ada["session"].as_str().is_some_and(|session| !session.is_empty()));
    for unknown in ["transport", "round_trip_ms", "estimate_bps", "loss_ratio"] {
        assert_eq!(ada.get(unknown), None, "nothing has been sent: {ada}");
    }
    assert_eq!((&ada["nacks"], &ada["limited"]), (&json!(0), &json!(false)));
    assert!(ada["demand_bps"].is_u64() && ada["spent_bps"].is_u64());

    let video = published(ada, "video");
    assert!(video["track"].as_str().is_some_and(|sid| sid.starts_with("TR_")));
    assert_eq!((&video["source"], &video["codec"], &video["muted"]), (&json!("camera"), &json!("vp8"), &json!(false)));
    let silent = json!({"rid": "", "active": false, "frames": 0, "keyframe_requests": 0, "packets": 0, "bytes": 0});
    assert_eq!(video["encodings"], json!([silent]));
    assert_eq!(bob["published"], json!([]));
    let slots = bob["received"].as_array().expect("slots");
    assert!(!slots.is_empty());
    for slot in slots {
        let empty = json!({
            "mid": slot["mid"], "kind": slot["kind"], "state": "empty", "switches_up": 0, "switches_down": 0,
            "packets": 0, "bytes": 0, "retransmitted": 0, "keyframe_requests": 0,
        });
        assert_eq!(*slot, empty);
    }
    let text = stats.to_string();
    for personal in ["Countess", "secret", "purple-felt", "127.0.0.1", ":null"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_flows_is_told_with_its_rates() {
    let server = Server::start().await;
    server.room("hall").await;
    let ada = Caller::join(&server, "hall", "ada", 1, false).await;
    let bob = Caller::join(&server, "hall", "bob", 2, false).await;
    ada.hears(&bob, "before").await;
    bob.hears(&ada, "before").await;
    // Rates are of whole seconds, and the round trip waits for the first receiver report.
    let deadline = Instant::now() + Duration::from_secs(15);
    let of_ada = loop {
        let stats = answered(server.call("GET", STATS), 200, STATS).await;
        let of_ada =
            stats["participants"].as_array().into_iter().flatten().find(|one| one["identity"] == "ada").cloned();
        let of_ada = of_ada.expect("she is there");
        let video = &published(&of_ada, "video")["encodings"][0];
        if video["bitrate_bps"].as_u64().is_some_and(|rate| rate > 0) && of_ada["round_trip_ms"].is_number() {
            break of_ada;
        }
        assert!(Instant::now() < deadline, "{stats}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&of_ada["state"], &of_ada["transport"]), (&json!("active"), &json!("udp")));
    // Fifty pictures of 200 bytes a second, and what is around them on the wire; the machine may be slow.
    let video = &published(&of_ada, "video")["encodings"][0];
    let rate = video["bitrate_bps"].as_u64().unwrap_or_default();
    assert!((20_000..=130_000).contains(&rate), "{video}");
    // What it sends while the machine is busy may come in leaps, which count as lost.
    assert!(video["active"] == true && video["lost"].is_u64(), "{video}");
    assert!(video["frames"].as_u64() > Some(0) && video["packets"].as_u64() > Some(0), "{video}");
    let slots = of_ada["received"].as_array().expect("slots");
    for kind in ["audio", "video"] {
        let live = slots.iter().find(|slot| slot["kind"] == kind && slot["state"] == "live").expect("one of bob");
        assert!(live["packets"].as_u64() > Some(0) && live["bytes"].as_u64() > Some(0), "{live}");
        assert!(live["track"].as_str().is_some_and(|sid| sid.starts_with("TR_")), "{live}");
    }
    ada.leave(&server).await;
    bob.leave(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_track_is_muted() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    let before = answered(server.call("GET", STATS), 200, STATS).await;
    let track = published(&before["participants"][0], "video")["track"].as_str().expect("a track").to_owned();
    let path = format!("/v1/rooms/hall/participants/ada/tracks/{track}/muted");
    answered(server.call("PUT", &path).json(&json!({"muted": true})), 200, "mute").await;
    let after = answered(server.call("GET", STATS), 200, STATS).await;
    assert_eq!(published(&after["participants"][0], "video")["muted"], true);
    server.stop().await;
}

/// What someone publishes of a kind, the first.
fn published<'a>(participant: &'a Value, kind: &str) -> &'a Value {
    let tracks = participant["published"].as_array().expect("tracks");
    tracks.iter().find(|track| track["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {participant}"))
}
