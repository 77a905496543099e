//! Moves between rooms on different shards, with real clients over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::client::{Server, answered, header};

const TCP: (&str, &str) = ("STUBE__MEDIA__TCP_LISTEN", "127.0.0.1:0");

async fn relocate(server: &Server, identity: &str, from: &str, to: &str) {
    let path = format!("/v1/rooms/{from}/participants/{identity}/move");
    let moved = answered(server.call("POST", &path).json(&json!({"room": to})), 200, &path).await;
    assert_eq!((&moved["identity"], moved["tracks"].as_array().map(Vec::len)), (&json!(identity), Some(2)), "{path}");
}

/// The value of a metric, summed over its labels.
async fn metric(server: &Server, name: &str) -> u64 {
    let text = server.admin("/metrics").await.text().await.expect("metrics");
    let own = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with([' ', '{']));
    own.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Waits until a metric, which shards tell once a second, has this value.
async fn metric_becomes(server: &Server, name: &str, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let value = metric(server, name).await;
        if value == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {value}, not {expected}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn records_of(server: &Server, identity: &str) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let path = format!("/v1/records?identity={identity}");
        let page = answered(server.call("GET", &path), 200, &path).await;
        let records = page["records"].as_array().cloned().unwrap_or_default();
        if !records.is_empty() && records.iter().all(|record| record["final"] == true) {
            return records;
        }
        assert!(Instant::now() < deadline, "{path}: {page}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One in each of two rooms on two shards, and one who goes to and fro.
async fn walk(over_tcp: bool) {
    let server = Server::with(&[("STUBE__SHARD__COUNT", "2"), TCP]).await;
    for room in ["hall", "attic"] {
        server.room(room).await;
    }
    let bob = Caller::join(&server, "hall", "bob", 2, over_tcp).await;
    let cara = Caller::join(&server, "attic", "cara", 3, over_tcp).await;
    let ada = Caller::join(&server, "hall", "ada", 1, over_tcp).await;
    ada.hears(&bob, "at first").await;
    bob.hears(&ada, "at first").await;
    let mut from = "hall";
    for to in ["attic", "hall", "attic"] {
        let other = if to == "attic" { &cara } else { &bob };
        relocate(&server, "ada", from, to).await;
        let moved_at = Instant::now();
        ada.hears(other, to).await;
        other.hears(&ada, to).await;
        println!(
            "over {}: {:?} until both have sound and picture",
            if over_tcp { "TCP" } else { "UDP" },
            moved_at.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(1500)).await;
        ada.hears(other, "a second later").await;
        from = to;
    }
    metric_becomes(&server, "stube_sessions_away", 1).await;
    let relayed = metric(&server, "stube_relayed_datagrams_total").await;
    assert_eq!(relayed > 100, !over_tcp, "{relayed} datagrams: a TCP connection goes along, and nothing is passed on");
    assert_eq!(metric(&server, "stube_participants").await, 3);
    // Both lead to where it is now: the session's own URL, and its place in the room.
    let probe = server.request("GET", &ada.session.url).bearer_auth(&ada.session.token);
    answered(probe, 204, "the session's URL").await;
    let attic = answered(server.call("GET", "/v1/rooms/attic/participants/ada"), 200, "in the attic").await;
    let microphone = attic["tracks"].as_array().and_then(|tracks| tracks.iter().find(|t| t["kind"] == "audio"));
    let track = microphone.and_then(|track| track["sid"].as_str()).expect("a microphone").to_owned();
    let mute = server.call("PUT", &format!("/v1/rooms/attic/participants/ada/tracks/{track}/muted"));
    answered(mute.json(&json!({"muted": true})), 200, "muted where she is").await;
    ada.leave(&server).await;
    for (room, others) in [("hall", 1), ("attic", 1)] {
        let path = format!("/v1/rooms/{room}");
        assert_eq!(answered(server.call("GET", &path), 200, &path).await["num_participants"], others, "{room}");
    }
    let records = records_of(&server, "ada").await;
    let count = |reason: &str| records.iter().filter(|record| record["end_reason"] == reason).count();
    assert_eq!((records.len(), count("moved"), count("client_left")), (4, 3, 1), "{records:?}");
    assert!(
        records.iter().all(|record| record["tx_bytes"].as_u64() > Some(0) && record["rx_bytes"].as_u64() > Some(0))
    );
    bob.leave(&server).await;
    cara.leave(&server).await;
    for gauge in ["stube_sessions_away", "stube_sessions", "stube_participants", "stube_tracks"] {
        metric_becomes(&server, gauge, 0).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_walks_between_shards_is_seen_and_heard_all_the_time() {
    walk(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_walks_between_shards_takes_their_tcp_connection_along() {
    walk(true).await;
}

/// Everyone is in the room they were last moved to, and nowhere else.
async fn check_rosters(server: &Server, rooms: usize, people: &BTreeMap<usize, (Caller, usize)>) {
    for room in 0..rooms {
        let path = format!("/v1/rooms/r{room}/participants");
        let listed = answered(server.call("GET", &path), 200, &path).await;
        let listed = listed["participants"].as_array().into_iter().flatten().filter_map(|p| p["identity"].as_str());
        let there = people.values().filter(|(_, place)| *place == room);
        let (listed, there): (BTreeSet<_>, BTreeSet<_>) =
            (listed.collect(), there.map(|(caller, _)| caller.identity.as_str()).collect());
        assert_eq!(listed, there, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_walks_about_while_others_come_and_go() {
    const ROOMS: usize = 6;
    const PEOPLE: usize = 8;
    let server = Server::with(&[("STUBE__SHARD__COUNT", "3"), TCP]).await;
    for room in 0..ROOMS {
        server.room(&format!("r{room}")).await;
    }
    let mut draw = {
        let mut state = 12345_u64;
        move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    };
    let mut people: BTreeMap<usize, (Caller, usize)> = BTreeMap::new();
    for person in 0..PEOPLE {
        let room = person % ROOMS;
        let caller =
            Caller::join(&server, &format!("r{room}"), &format!("p{person}"), person as u8, person % 4 == 3).await;
        people.insert(person, (caller, room));
    }
    let mut next = PEOPLE;
    for step in 0..50 {
        let places: Vec<usize> = people.keys().copied().collect();
        let (person, room) = (places[draw(places.len())], draw(ROOMS));
        let (caller, from) = people.get_mut(&person).expect("somebody");
        let path = format!("/v1/rooms/r{from}/participants/{}/move", caller.identity);
        let moving = server.call("POST", &path).json(&json!({"room": format!("r{room}")})).send();
        // Every fifth leaves while being moved, and somebody else comes.
        if step % 5 == 4 {
            let leaving = server.request("DELETE", &caller.session.url).send();
            let (moved, left) = tokio::join!(moving, leaving);
            let statuses = [moved, left].map(|answer| answer.expect("an answer").status().as_u16());
            assert!(matches!(statuses[0], 200 | 404) && statuses[1] == 200, "step {step}: {statuses:?}");
            people.remove(&person);
            let caller =
                Caller::join(&server, &format!("r{room}"), &format!("p{next}"), next as u8, next % 4 == 3).await;
            people.insert(next, (caller, room));
            next += 1;
        } else {
            let moved = moving.await.expect("an answer");
            assert_eq!(moved.status(), 200, "step {step}: {}", header(&moved, "content-type"));
            *from = room;
        }
    }
    check_rosters(&server, ROOMS, &people).await;
    metric_becomes(&server, "stube_participants", PEOPLE as u64).await;
    metric_becomes(&server, "stube_sessions", PEOPLE as u64).await;
    assert_eq!(metric(&server, "stube_notices_lost_total").await, 0);
    for (caller, room) in people.values() {
        for (other, _) in people.values().filter(|(other, place)| place == room && other.number != caller.number) {
            caller.hears(other, "in the end").await;
        }
    }
    for (caller, _) in std::mem::take(&mut people).into_values() {
        caller.leave(&server).await;
    }
    for gauge in ["stube_sessions_away", "stube_sessions", "stube_participants", "stube_tracks"] {
        metric_becomes(&server, gauge, 0).await;
    }
    server.stop().await;
}
