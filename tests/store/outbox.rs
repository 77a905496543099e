//! Events: their deliveries and their stream.

use std::collections::BTreeSet;

use stube::ids::{EventId, RoomId, Tenant};
use stube::ledger::record::{Batch, EventRow, UnixMs};
use stube::ledger::store::{Backlog, Delivery, Store};

use crate::database::{Database, at, batch, event, id, mourners, tenant};

on_both! {
    only_the_first_of_a_line_is_due
    a_failure_holds_up_its_own_line_only
    urls_and_rooms_do_not_wait_for_each_other
    what_is_handed_out_is_held
    a_crash_lets_go_of_what_was_held
    a_url_that_is_gone_loses_its_deliveries
    what_is_too_old_is_given_up
    an_event_is_written_once
    a_stream_goes_on_where_its_reader_left
    two_nodes_never_deliver_the_same
    a_line_is_never_forgotten
}

const OTHER_HOOK: &str = "https://other.example/hook";

fn room(number: u64) -> Option<RoomId> {
    Some(id(100 + number))
}

async fn put(store: &Store, number: u64, events: Vec<EventRow>) {
    store.write(&Batch { events, ..batch(number) }).await.unwrap();
}

async fn due(store: &Store, now: UnixMs) -> Vec<Delivery> {
    let mut due = store.due(now, 100).await.unwrap();
    due.sort_by_key(|delivery| delivery.created_at);
    due
}

fn names(due: &[Delivery]) -> Vec<EventId> {
    due.iter().map(|delivery| delivery.event).collect()
}

async fn only_the_first_of_a_line_is_due(database: Database) {
    let store = database.store().await;
    // Written in another order than numbered.
    put(&store, 1, vec![event(3, room(1), 3, "a"), event(1, room(1), 1, "a"), event(2, room(1), 2, "a")]).await;
    for number in 1..=3 {
        let now = due(&store, at(10)).await;
        assert_eq!(names(&now), [id(number)]);
        assert_eq!((now[0].url.as_str(), now[0].attempts), ("https://map.example/hook", 0));
        assert!(now[0].created_at == at(number) && now[0].tenant == tenant());
        assert!(store.delivered(&now[0].id).await.unwrap());
        assert!(!store.delivered(&now[0].id).await.unwrap());
    }
    assert!(due(&store, at(1_000_000)).await.is_empty());
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}

async fn a_failure_holds_up_its_own_line_only(database: Database) {
    let store = database.store().await;
    // A tenant's own events form a line too, by the order they were written in.
    put(&store, 1, vec![event(1, room(1), 1, "a"), event(2, None, 1, "a"), event(3, None, 1, "a")]).await;
    let now = due(&store, at(10)).await;
    assert_eq!(names(&now), [id(1), id(2)]);
    assert!(store.failed(&now[1].id, 1, at(5000)).await.unwrap());
    assert!(store.delivered(&now[0].id).await.unwrap());
    assert!(due(&store, at(4999)).await.is_empty());
    let now = due(&store, at(5000)).await;
    assert_eq!((names(&now), now[0].attempts), (vec![id(2)], 1));
    store.delivered(&now[0].id).await.unwrap();
    // The next begins anew.
    let now = due(&store, at(5000)).await;
    assert_eq!((names(&now), now[0].attempts), (vec![id(3)], 0));
    assert!(!store.failed(&store_id(&store, &now).await, 2, at(1)).await.unwrap());
}

/// The id of a delivery that has arrived.
async fn store_id(store: &Store, due: &[Delivery]) -> stube::ledger::store::DeliveryId {
    store.delivered(&due[0].id).await.unwrap();
    due[0].id.clone()
}

async fn urls_and_rooms_do_not_wait_for_each_other(database: Database) {
    let store = database.store().await;
    let both = |number, room, seq| EventRow {
        urls: vec!["https://map.example/hook".into(), OTHER_HOOK.into()],
        ..event(number, room, seq, "a")
    };
    let other_tenant = EventRow { tenant: Tenant::from("other"), ..event(5, None, 1, "a") };
    put(&store, 1, vec![both(1, room(1), 1), both(2, room(1), 2), event(3, room(2), 1, "a"), other_tenant]).await;
    put(&store, 2, vec![event(6, None, 1, "a")]).await;
    let now = due(&store, at(10)).await;
    assert_eq!(names(&now), [id(1), id(1), id(3), id(5), id(6)]);
    let other = now.iter().find(|delivery| delivery.url == OTHER_HOOK).unwrap();
    store.delivered(&other.id).await.unwrap();
    let next = due(&store, at(10)).await;
    assert_eq!((names(&next), next[0].url.as_str()), (vec![id(2)], OTHER_HOOK));
    assert_eq!(store.due(at(10), 100).await.unwrap().len(), 0);
}

async fn what_is_handed_out_is_held(database: Database) {
    let store = database.store().await;
    let events = (1..=5).map(|n| event(n, room(n), 1, "a")).collect();
    put(&store, 1, events).await;
    let first = store.due(at(10), 2).await.unwrap();
    // The longest waiting first.
    assert_eq!(first.iter().map(|delivery| delivery.event).collect::<BTreeSet<_>>(), [id(1), id(2)].into());
    assert_eq!(store.due(at(10), 100).await.unwrap().len(), 3);
    assert!(store.due(at(10), 100).await.unwrap().is_empty());
    assert!(store.due(at(120_009), 100).await.unwrap().is_empty());
    // Nobody said what became of it.
    assert_eq!(store.due(at(120_010), 100).await.unwrap().len(), 5);
}

async fn a_crash_lets_go_of_what_was_held(database: Database) {
    let store = database.open("node", 1).await;
    put(&store, 1, vec![event(1, room(1), 1, "a"), event(2, room(2), 1, "a")]).await;
    assert_eq!(store.due(at(10), 1).await.unwrap().len(), 1);
    let other = database.open("other", 1).await;
    assert_eq!(other.due(at(10), 1).await.unwrap().len(), 1);
    let store = database.open("node", 2).await;
    store.recover(at(20), &mourners()).await.unwrap();
    assert_eq!(names(&due(&store, at(20)).await).len(), 1);
}

async fn a_url_that_is_gone_loses_its_deliveries(database: Database) {
    let store = database.store().await;
    let other = |number, seq| EventRow { urls: vec![OTHER_HOOK.into()], ..event(number, room(1), seq, "a") };
    put(&store, 1, vec![other(1, 1), other(2, 2), event(3, room(1), 3, "a")]).await;
    let held = store.due(at(10), 100).await.unwrap();
    assert_eq!(store.drop_url(OTHER_HOOK).await.unwrap(), 2);
    let gone = held.iter().find(|delivery| delivery.url == OTHER_HOOK).unwrap();
    assert!(!store.delivered(&gone.id).await.unwrap());
    assert!(!store.failed(&gone.id, 1, at(0)).await.unwrap());
    assert_eq!(store.drop_url(OTHER_HOOK).await.unwrap(), 0);
    assert_eq!(names(&due(&store, at(1_000_000)).await), [id(3)]);
    // The stream still has them.
    assert_eq!(store.events_after(&tenant(), None, 10).await.unwrap().len(), 3);
}

async fn what_is_too_old_is_given_up(database: Database) {
    let store = database.store().await;
    put(&store, 1, vec![event(1, room(1), 1, "a"), event(50, room(1), 2, "a"), event(2, room(2), 1, "a")]).await;
    let now = due(&store, at(60)).await;
    store.failed(&now[0].id, 9, at(100)).await.unwrap();
    assert_eq!(store.backlog().await.unwrap(), Backlog { rows: 3, oldest: Some(at(1)) });
    assert_eq!(store.expire(at(50)).await.unwrap(), 2);
    assert_eq!(store.backlog().await.unwrap(), Backlog { rows: 1, oldest: Some(at(50)) });
    let now = due(&store, at(1_000_000)).await;
    assert_eq!((names(&now), now[0].attempts), (vec![id(50)], 0));
    assert_eq!(store.expire(at(50)).await.unwrap(), 0);
}

async fn an_event_is_written_once(database: Database) {
    let store = database.store().await;
    put(&store, 1, vec![event(1, room(1), 1, "a")]).await;
    let now = due(&store, at(10)).await;
    store.delivered(&now[0].id).await.unwrap();
    // In another batch, with another body: neither replaced nor delivered again.
    put(&store, 2, vec![EventRow { body: "{}".into(), ..event(1, room(1), 1, "a") }, event(2, room(1), 2, "a")]).await;
    assert_eq!(names(&due(&store, at(1_000_000)).await), [id(2)]);
    let events = store.events_after(&tenant(), None, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0].body.contains("participant_joined"));
}

async fn a_stream_goes_on_where_its_reader_left(database: Database) {
    let store = database.store().await;
    assert_eq!(store.last_position(&tenant()).await.unwrap(), 0);
    let others = EventRow { tenant: Tenant::from("other"), ..event(99, None, 1, "a") };
    put(&store, 1, vec![event(1, room(1), 1, "a"), others, event(2, room(2), 1, "a")]).await;
    put(&store, 2, (3..=20).map(|n| event(n, room(n % 3), n, "a")).collect()).await;
    let all = store.events_after(&tenant(), None, 100).await.unwrap();
    assert_eq!(all.iter().map(|event| event.event).collect::<Vec<_>>(), (1..=20).map(id).collect::<Vec<_>>());
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(all[0].kind.as_deref(), Some("participant_joined"));
    assert_eq!(store.last_position(&tenant()).await.unwrap(), all[19].position);
    let seen = store.event_position(&tenant(), id(7)).await.unwrap();
    assert_eq!(seen, Some(all[6].position));
    let rest = store.events_after(&tenant(), seen, 5).await.unwrap();
    assert_eq!(rest.iter().map(|event| event.event).collect::<Vec<_>>(), (8..=12).map(id).collect::<Vec<_>>());
    assert_eq!(store.event_position(&tenant(), id(1000)).await.unwrap(), None);
}

async fn two_nodes_never_deliver_the_same(database: Database) {
    let (first, second) = (database.open("first", 1).await, database.open("second", 1).await);
    let events = (1..=200).map(|n| event(n, room(n % 20), n, "a")).collect();
    put(&first, 1, events).await;
    let drain = |store: Store| {
        tokio::spawn(async move {
            let mut sent = Vec::new();
            loop {
                let due = store.due(at(1000), 5).await.unwrap();
                if due.is_empty() && store.backlog().await.unwrap().rows == 0 {
                    return sent;
                }
                for delivery in due {
                    store.delivered(&delivery.id).await.unwrap();
                    sent.push(delivery.event);
                }
            }
        })
    };
    let (a, b) = (drain(first), drain(second));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    let together: BTreeSet<EventId> = a.iter().chain(&b).copied().collect();
    assert_eq!((together.len(), a.len() + b.len()), (200, 200));
}

async fn a_line_is_never_forgotten(database: Database) {
    // One node empties lines while another fills them.
    let (filler, drainer) = (database.open("filler", 1).await, database.open("drainer", 1).await);
    let filling = tokio::spawn(async move {
        for n in 1..=150 {
            put(&filler, n, vec![event(n, room(1), n, "a"), event(1000 + n, None, n, "a")]).await;
        }
    });
    let mut sent = Vec::new();
    while sent.len() < 300 {
        let full = filling.is_finished();
        let due = drainer.due(at(10_000_000), 10).await.unwrap();
        assert!(!full || !due.is_empty(), "{} arrived, the others are stuck", sent.len());
        for delivery in due {
            drainer.delivered(&delivery.id).await.unwrap();
            sent.push(delivery.event);
        }
    }
    let in_room: Vec<EventId> = sent.iter().copied().filter(|event| (1..=150).any(|n| *event == id(n))).collect();
    assert_eq!(in_room, (1..=150).map(id).collect::<Vec<_>>());
    filling.await.unwrap();
}
