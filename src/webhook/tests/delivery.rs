//! Every event arrives, signed, and in the order of its room, whatever receivers do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::super::signature::SigningKeys;
use super::receiver::{Receiver, Reply, Request};
use super::store::Told;
use super::*;

/// Whether a request is signed by both schemes, now.
fn is_signed(request: &Request) -> bool {
    let timestamp = request.header("webhook-timestamp").parse::<u64>().unwrap_or_default();
    let keys = SigningKeys::read(&WEBHOOK_SECRET.into()).expect("a good secret");
    let standard = keys.sign(request.header("webhook-id"), timestamp, &request.body);
    let key = DecodingKey::from_secret(API_SECRET.as_bytes());
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&["a"]);
    validation.set_required_spec_claims(&["iss", "exp", "nbf"]);
    validation.validate_nbf = true;
    let token = jsonwebtoken::decode::<serde_json::Value>(request.header("authorization"), &key, &validation);
    let sha256 = STANDARD.encode(digest(&SHA256, request.body.as_bytes()));
    request.header("webhook-signature") == standard
        && token.is_ok_and(|token| token.claims["sha256"] == sha256.as_str())
        && (request.at_ms / 1000).abs_diff(timestamp) <= 3
        && request.header("content-type") == "application/webhook+json"
        && request.method == "POST"
}

/// A fault for some of the first attempts of each event.
fn moody(request: &Request, number: usize, earlier: usize) -> Reply {
    match (number * 7 + request.body.len() * 3 + earlier) % 11 {
        _ if earlier >= 3 => Reply::Status(204),
        0 => Reply::Status(500),
        1 => Reply::Reset,
        2 => Reply::With(429, "Retry-After", "0".to_owned()),
        3 => Reply::Hang,
        4 => Reply::With(308, "Location", "/elsewhere".to_owned()),
        5 => Reply::Garbage,
        _ => Reply::Status(200),
    }
}

/// Events that a receiver took, room by room in the order in which they came, repetitions left out.
fn taken(requests: &[Request]) -> BTreeMap<String, Vec<u64>> {
    let mut rooms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests.iter().filter(|request| matches!(request.reply, Reply::Status(200..=299) | Reply::Late(_)))
    {
        let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
        let room = rooms.entry(body["room"]["name"].as_str().unwrap_or_default().to_owned()).or_default();
        let seq = body["seq"].as_u64().unwrap_or_default();
        if !room.contains(&seq) {
            room.push(seq);
        }
    }
    rooms
}

#[tokio::test]
async fn every_event_arrives_signed_and_in_the_order_of_its_room() {
    const ROOMS: u64 = 5;
    const EVENTS: u64 = 6;
    let attempts = Arc::new(std::sync::Mutex::new(BTreeMap::<(String, String), usize>::new()));
    let receiver = Receiver::start(move |request, number| {
        let key = (request.path.clone(), request.header("webhook-id").to_owned());
        let mut attempts = attempts.lock().expect("not poisoned");
        let earlier = attempts.entry(key).or_default();
        *earlier += 1;
        moody(request, number, *earlier - 1)
    });
    let urls: Vec<String> = ["/one", "/two?token=t", "/three"].iter().map(|path| receiver.url(path)).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let store = Store::new(500);
    for seq in 1..=EVENTS {
        for room in 0..ROOMS {
            for url in &urls {
                store.add(url, "a", &format!("room {room}"), seq);
            }
        }
    }
    let running = start(&urls, store, LIMIT);
    let impatient = wake_often(&running);
    until("everything arrives", || running.store.waiting() == 0).await;
    let requests = receiver.requests();
    assert!(requests.iter().all(is_signed));
    for path in ["/one", "/two?token=t", "/three"] {
        let requests: Vec<_> = requests.iter().filter(|request| request.path == path).cloned().collect();
        let rooms = taken(&requests);
        assert_eq!(rooms.len() as u64, ROOMS);
        assert!(rooms.values().all(|seqs| seqs.iter().copied().eq(1..=EVENTS)), "{path}: {rooms:?}");
        // Not even a failed attempt overtakes: an event is sent only after those before it were taken.
        for room in rooms.keys() {
            let name = format!(r#""name":"{room}""#);
            let seqs = requests.iter().filter(|request| request.body.contains(&name)).map(seq);
            assert!(seqs.is_sorted(), "{path} {room}");
        }
    }
    let [delivered, failed, ..] = running.counts();
    assert_eq!(delivered, ROOMS * EVENTS * 3);
    assert!(delivered + failed >= requests.len() as u64, "each attempt is counted");
    assert!(failed > 30, "{failed}");
    println!("{delivered} events with {failed} failed attempts between");
    impatient.abort();
    running.stop().await;
}

/// Has the outbox asked all the time, for its waits are shorter than the sender's tick here.
fn wake_often(running: &Running) -> JoinHandle<()> {
    let wake = Arc::clone(&running.wake);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            wake.notify_one();
        }
    })
}

fn seq(request: &Request) -> u64 {
    serde_json::from_str::<serde_json::Value>(&request.body).ok().and_then(|body| body["seq"].as_u64()).unwrap_or(0)
}

#[tokio::test]
async fn the_next_event_of_a_room_goes_at_once() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let url = receiver.url("/");
    let store = Store::new(1);
    for seq in 1..=300 {
        store.add(&url, "a", "room", seq);
    }
    let running = start(&[&url], store, LIMIT);
    let took = until("everything arrives", || running.store.waiting() == 0).await;
    println!("300 events of one room, one after the other: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    // And a new one when the sender is woken, not at the next tick, which comes once a second.
    let before = Instant::now();
    for seq in 301..=320 {
        running.store.add(&url, "a", "room", seq);
        running.wake.notify_one();
        until("it arrives", || running.store.waiting() == 0).await;
    }
    println!("20 new events, each after a wake: {:?}", before.elapsed());
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn receivers_that_hang_delay_no_other() {
    let silent = Receiver::start(|_, _| Reply::Hang);
    let good = Receiver::start(|_, _| Reply::Status(200));
    let silent_urls: Vec<String> = (0..11).map(|number| silent.url(&format!("/{number}"))).collect();
    let good_url = good.url("/");
    let urls: Vec<&str> = silent_urls.iter().map(String::as_str).chain([good_url.as_str()]).collect();
    let store = Store::new(1);
    for room in 0..20 {
        for url in &silent_urls {
            store.add(url, "a", &format!("room {room}"), 1);
        }
        for seq in 1..=5 {
            store.add(&good_url, "a", &format!("room {room}"), seq);
        }
    }
    let running = start(&urls, store, TIME_LIMIT);
    let took = until("the good one gets its events", || running.store.waiting_for(&good_url) == 0).await;
    println!("100 events of 20 rooms beside eleven silent receivers with 220: {took:?}");
    assert!(took < TIME_LIMIT * 8 / 10, "{took:?}");
    assert!(silent.requests().len() <= 11);
    running.store.add(&good_url, "a", "room 1", 6);
    running.wake.notify_one();
    let took = until("it arrives", || running.store.waiting_for(&good_url) == 0).await;
    assert!(took < TIME_LIMIT / 2, "{took:?}");
    assert!(running.stop().await < TIME_LIMIT / 2);
}

#[tokio::test]
async fn a_receiver_that_restarts_misses_nothing() {
    let script: receiver::Script = Arc::new(|_: &Request, _| Reply::Status(200));
    let first = Receiver::start_at(([127, 0, 0, 1], 0).into(), Arc::clone(&script));
    let (address, url) = (first.address, first.url("/"));
    let store = Store::new(20);
    for seq in 1..=20 {
        for room in 0..20 {
            store.add(&url, "a", &format!("room {room}"), seq);
        }
    }
    let running = start(&[&url], store, LIMIT);
    until("half of it arrives", || running.store.waiting() <= 200).await;
    let before = first.log();
    drop(first);
    until("it fails", || running.counts()[1] > 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = Receiver::start_at(address, script);
    until("the rest arrives", || running.store.waiting() == 0).await;
    // What the first took and could not answer for comes twice; both count.
    let before = before.lock().expect("not poisoned").clone();
    let requests: Vec<_> = before.into_iter().chain(second.requests()).collect();
    let rooms = taken(&requests);
    assert!(rooms.len() == 20 && rooms.values().all(|seqs| seqs.iter().copied().eq(1..=20)), "{rooms:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_tenant_s_events_are_signed_with_its_secret_and_no_other() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let (url, removed) = (receiver.url("/"), receiver.url("/removed"));
    let store = Store::new(1);
    for (tenant, url) in [("a", &url), ("c", &url), ("a", &removed)] {
        store.add(url, tenant, &format!("room of {tenant} at {url}"), 1);
    }
    let running = start(&[&url], store, LIMIT);
    until("three attempts", || running.counts().iter().sum::<u64>() == 3).await;
    assert_eq!(running.counts(), [1, 0, 0, 2]);
    assert_eq!(receiver.requests().len(), 1);
    let told = running.store.told();
    let kept: BTreeSet<u64> =
        told.iter().filter_map(|told| if let Told::Failed(id, 1, _) = told { Some(*id) } else { None }).collect();
    assert_eq!(kept, BTreeSet::from([2, 3]), "what cannot be signed or has no webhook is kept and tried again");
    running.stop().await;
}
