//! What one bad answer leads to.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::super::backoff::AGE_MAX;
use super::receiver::{Receiver, Reply};
use super::store::{Told, now_ms};
use super::*;

/// How long a receiver has here: long enough for a busy machine to answer at once.
const LONG_LIMIT: Duration = Duration::from_secs(3);

/// Sends one event to a receiver that always does the same; gives the first thing that the outbox is told.
async fn first_told(reply: Reply, created_at_ms: u64) -> Told {
    let receiver = Receiver::start(move |_, _| reply.clone());
    let url = receiver.url("/");
    let store = Store::new(1);
    store.add_old(&url, "a", "room", 1, created_at_ms);
    let running = start(&[&url], store, LONG_LIMIT);
    until("an attempt ends", || !running.store.told().is_empty()).await;
    let told = running.store.told().remove(0);
    running.stop().await;
    told
}

#[tokio::test]
async fn an_answer_decides_what_becomes_of_an_event() {
    // As the outbox sees them, a moment later.
    let table_ms = 3_500..=5_500;
    for (reply, wait_ms) in [
        (Reply::Status(500), table_ms.clone()),
        (Reply::Status(400), table_ms.clone()),
        (Reply::With(301, "Location", "http://127.0.0.1:9/".to_owned()), table_ms.clone()),
        (Reply::With(500, "Retry-After", "60".to_owned()), table_ms.clone()),
        (Reply::With(429, "Retry-After", "soon".to_owned()), table_ms.clone()),
        (Reply::With(429, "Retry-After", "60".to_owned()), 59_000..=66_000),
        (Reply::With(503, "Retry-After", "0".to_owned()), 0..=1_100),
        (Reply::With(503, "Retry-After", "86400".to_owned()), 3_590_000..=3_960_000),
        (Reply::Reset, table_ms.clone()),
        (Reply::Hang, table_ms.clone()),
        (Reply::Garbage, table_ms.clone()),
        (Reply::Late(LONG_LIMIT * 2), table_ms),
    ] {
        match first_told(reply.clone(), now_ms()).await {
            Told::Failed(1, 1, waits_ms) => assert!(wait_ms.contains(&waits_ms), "{reply:?}: {waits_ms}"),
            told => panic!("{reply:?}: {told:?}"),
        }
    }
    for reply in [Reply::Status(204), Reply::EndlessBody, Reply::SlowBody, Reply::Late(LONG_LIMIT / 4)] {
        assert_eq!(first_told(reply.clone(), now_ms()).await, Told::Delivered(1), "{reply:?}");
    }
    let old_ms = now_ms() - u64::try_from(AGE_MAX.as_millis()).expect("days");
    assert_eq!(first_told(Reply::Status(500), old_ms).await, Told::Expired(1));
    assert_eq!(first_told(Reply::Status(200), old_ms).await, Told::Delivered(1));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for code in [301, 302, 303, 307, 308] {
        let receiver = Receiver::start(move |request, _| match request.path.as_str() {
            "/" => Reply::With(code, "Location", "/elsewhere".to_owned()),
            _ => Reply::Status(200),
        });
        let url = receiver.url("/");
        let store = Store::new(1);
        store.add(&url, "a", "room", 1);
        let running = start(&[&url], store, LIMIT);
        until("the attempt ends", || running.counts() == [0, 1, 0, 0]).await;
        assert_eq!(receiver.requests().len(), 1, "{code}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_body_without_end_costs_four_kilobytes_or_a_second() {
    for (reply, most_ms) in [(Reply::EndlessBody, 900), (Reply::SlowBody, 5000)] {
        let before = Instant::now();
        first_told(reply.clone(), now_ms()).await;
        assert!(before.elapsed().as_millis() < most_ms, "{reply:?}: {:?}", before.elapsed());
    }
}

#[tokio::test]
async fn an_event_in_flight_is_not_sent_again() {
    let receiver = Receiver::start(|_, number| match number {
        0 => Reply::Status(200),
        _ => Reply::Late(Duration::from_millis(2500)),
    });
    let url = receiver.url("/");
    let store = Store::new(1);
    store.add(&url, "a", "room", 1);
    store.add(&url, "a", "room", 2);
    let running = start(&[&url], store, TIME_LIMIT);
    until("both arrive", || running.store.waiting() == 0).await;
    assert_eq!(receiver.requests().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn after_410_nothing_comes() {
    let receiver = Receiver::start(|request, _| Reply::Status(if request.path == "/gone" { 410 } else { 200 }));
    let (gone, other) = (receiver.url("/gone"), receiver.url("/"));
    let store = Store::new(1);
    for room in 0..20 {
        store.add(&gone, "a", &format!("room {room}"), 1);
        store.add(&other, "a", &format!("room {room}"), 1);
    }
    let running = start(&[&gone, &other], store, LIMIT);
    until("all is settled", || running.store.waiting() == 0).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(running.counts(), [20, 0, 1, 0]);
    assert_eq!(running.store.told().iter().filter(|told| **told == Told::Gone(gone.clone())).count(), 1);
    // An outbox that takes in more for it is told again, and the receiver hears nothing of it.
    running.store.add(&gone, "a", "room 1", 2);
    until("that is settled", || running.store.waiting() == 0 && running.counts() == [20, 0, 1, 1]).await;
    assert_eq!(receiver.requests().iter().filter(|request| request.path == "/gone").count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_rest_gets_it() {
    let receiver = Receiver::start(|_, number| match number {
        0 => Reply::With(429, "Retry-After", "2".to_owned()),
        _ => Reply::Status(200),
    });
    let url = receiver.url("/");
    let store = Store::new(1);
    for room in 0..20 {
        store.add(&url, "a", &format!("room {room}"), 1);
    }
    let running = start(&[&url], store, LIMIT);
    until("all is settled", || running.store.waiting() == 0).await;
    let requests = receiver.requests();
    let rest = requests[1].at - requests[0].at;
    println!("rest after Retry-After: 2: {rest:?}");
    assert!(rest >= Duration::from_secs(2) && rest < Duration::from_secs(10), "{rest:?}");
    assert_eq!(requests.len(), 21);
    running.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight_but_not_for_ever() {
    for (reply, settled, least_ms, most_ms) in
        [(Reply::Late(Duration::from_secs(1)), 1, 500, 1900), (Reply::Hang, 0, 1900, 5000)]
    {
        let receiver = Receiver::start(move |_, _| reply.clone());
        let url = receiver.url("/");
        let store = Store::new(1);
        store.add(&url, "a", "room", 1);
        store.add(&url, "a", "room", 2);
        let running = start(&[&url], store, TIME_LIMIT);
        until("it arrives", || !receiver.requests().is_empty()).await;
        let store = Arc::clone(&running.store);
        let took = running.stop().await.as_millis();
        assert!((least_ms..=most_ms).contains(&took), "{took} ms");
        assert_eq!(store.told().len(), settled);
        assert_eq!(receiver.requests().len(), 1, "nothing starts after the stop");
    }
}

#[tokio::test]
async fn an_outbox_that_fails_is_asked_again_and_not_all_the_time() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let url = receiver.url("/");
    let store = Store::new(1);
    store.set_broken(true);
    store.add(&url, "a", "room", 1);
    let running = start(&[&url], store, LIMIT);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(running.store.asked() <= 4, "{}", running.store.asked());
    running.store.set_broken(false);
    until("it arrives", || running.store.waiting() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn an_outbox_that_keeps_nothing_repeats_an_event_once_a_second() {
    for (code, told) in [(200, Told::Delivered(1)), (500, Told::Failed(1, 1, 0))] {
        let receiver = Receiver::start(move |_, _| Reply::Status(code));
        let url = receiver.url("/");
        let store = Store::new(1);
        store.set_forgetful();
        store.add(&url, "a", "room", 1);
        let running = start(&[&url], store, LIMIT);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let requests = receiver.requests().len();
        assert!((1..=3).contains(&requests), "{told:?}: {requests}");
        running.stop().await;
    }
}

#[tokio::test]
async fn an_attempt_that_panics_gives_its_place_back() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let url = receiver.url("/");
    let store = Store::new(1);
    store.panic_once();
    for room in 0..3 {
        store.add(&url, "a", &format!("room {room}"), 1);
    }
    let running = start(&[&url], store, LIMIT);
    until("all arrives", || running.store.waiting() == 0).await;
    assert_eq!(receiver.requests().len(), 4);
    running.stop().await;
}

/// A resolver that gives one list of addresses after the other, for every name.
struct Rebinding(std::sync::Mutex<Vec<Vec<IpAddr>>>);

impl Resolve for Rebinding {
    fn resolve(&self, _: Name) -> Resolving {
        let mut answers = self.0.lock().expect("not poisoned");
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let found: Vec<_> = answer.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
        Box::pin(std::future::ready(Ok(Box::new(found.into_iter()) as Addrs)))
    }
}

#[tokio::test]
async fn a_name_that_comes_to_mean_a_private_address_gets_nothing() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let loopback = receiver.address.ip();
    let url = format!("http://localhost:{}/", receiver.address.port());
    let foreign = format!("https://rebinding.example:{}/", receiver.address.port());
    let elsewhere: IpAddr = [192, 168, 7, 7].into();
    let store = Store::new(500);
    store.add(&url, "a", "room", 1);
    store.add(&foreign, "a", "room", 1);
    // First what neither name may mean, then this machine, which only localhost may mean.
    let names = Rebinding(std::sync::Mutex::new(vec![vec![elsewhere], vec![elsewhere], vec![loopback]]));
    let guard = Guard::over(Arc::new(names), false);
    let running = start_guarded(endpoints(&[&url, &foreign], false), guard, store, LIMIT);
    until("localhost gets its event", || running.store.waiting_for(&url) == 0).await;
    until("more attempts", || running.counts()[3] >= 5).await;
    let [delivered, failed, _, _] = running.counts();
    assert_eq!((delivered, failed, receiver.requests().len()), (1, 0, 1));
    running.stop().await;
}
