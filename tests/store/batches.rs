//! Writing batches, and recovering from a crash.

use std::collections::BTreeMap;

use stube::ids::{Identity, RecordId};
use stube::ledger::record::{Batch, CallRow, Day, RoomRow, SessionRow, UnixMs, Usage};
use stube::ledger::store::{Filter, Mourners, Place, RecordFilter, Recovered, Store};

use crate::database::{Database, at, batch, call, ended, event, id, mourners, room, session, sum, tenant, used};

on_both! {
    rows_read_back_as_they_were_written
    a_session_is_replaced_but_for_who_it_was
    a_person_goes_with_a_batch_that_has_none
    a_batch_counts_once
    a_batch_of_another_run_counts
    a_batch_under_way_is_waited_for
    a_row_may_come_twice_in_a_batch
    a_batch_is_written_whole_or_not_at_all
    an_abandoned_batch_is_undone
    ten_thousand_sessions_are_one_batch
    open_rows_end_at_their_last_checkpoint
    recovery_leaves_other_nodes_and_this_run_alone
    no_text_blocks_the_ledger
    rooms_are_there_again_until_they_end
    a_crash_is_told_once_and_in_order
    a_tenants_own_events_go_on_counting
}

async fn records(store: &Store) -> Vec<SessionRow> {
    store.records(&tenant(), &RecordFilter::default(), None, 100_000).await.unwrap()
}

async fn rows_read_back_as_they_were_written(database: Database) {
    let store = database.store().await;
    let huge = Usage { rx_bytes: i64::MAX as u64, tx_bytes: i64::MAX as u64, ..used(3) };
    let written = Batch {
        sessions: vec![
            session(1, "ada"),
            SessionRow { person: None, ..ended(2, "") },
            SessionRow { usage: huge, ..ended(3, "Grüße 👋") },
        ],
        calls: vec![call(5), call(7)],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    assert!(records(&store).await == written.sessions);
    assert!(store.calls(&tenant(), &Filter::default(), None, 10).await.unwrap() == written.calls);
    store.close().await;
    let store = database.open("node", 2).await;
    assert!(records(&store).await == written.sessions);
}

async fn a_session_is_replaced_but_for_who_it_was(database: Database) {
    let store = database.store().await;
    store.write(&Batch { sessions: vec![session(1, "ada")], calls: vec![call(7)], ..batch(1) }).await.unwrap();
    let later = SessionRow {
        usage: used(900),
        ended_at: Some(at(901)),
        end_reason: Some("client_left".into()),
        joined_at: at(500),
        ..session(1, "eve")
    };
    let call_later = CallRow { ended_at: Some(at(950)), participants: 9, ..call(7) };
    store.write(&Batch { sessions: vec![later.clone()], calls: vec![call_later.clone()], ..batch(2) }).await.unwrap();
    let expected = SessionRow { person: session(1, "ada").person, joined_at: at(1), ..later };
    assert!(records(&store).await == [expected]);
    assert!(store.calls(&tenant(), &Filter::default(), None, 10).await.unwrap() == [call_later]);
}

async fn a_person_goes_with_a_batch_that_has_none(database: Database) {
    let store = database.store().await;
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(1) }).await.unwrap();
    let nobody = SessionRow { person: None, ..session(1, "") };
    store.write(&Batch { sessions: vec![nobody.clone()], ..batch(2) }).await.unwrap();
    assert!(records(&store).await == [nobody.clone()]);
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(3) }).await.unwrap();
    assert!(records(&store).await == [nobody]);
}

async fn used_ms(store: &Store) -> Vec<u64> {
    let days = store.usage_by_day(&tenant(), None, None).await.unwrap();
    days.iter().map(|day| day.participant_ms).collect()
}

async fn a_batch_counts_once(database: Database) {
    let store = database.store().await;
    // Probing before the first batch must not count as one.
    store.ping().await.unwrap();
    for number in [0, 0, 1, 1, 0, 2] {
        store.write(&Batch { sums: vec![sum(5, 10)], ..batch(number) }).await.unwrap();
    }
    assert_eq!(used_ms(&store).await, [30]);
    // One that is not new writes nothing at all.
    store.write(&Batch { sessions: vec![session(1, "ada")], ..batch(2) }).await.unwrap();
    assert!(records(&store).await.is_empty());
}

async fn a_batch_of_another_run_counts(database: Database) {
    for (node, boot) in [("a", 1), ("a", 2), ("b", 1)] {
        let store = database.open(node, boot).await;
        store.write(&Batch { sums: vec![sum(5, 10)], ..batch(1) }).await.unwrap();
        store.close().await;
    }
    assert_eq!(used_ms(&database.store().await).await, [30]);
}

async fn a_batch_under_way_is_waited_for(database: Database) {
    use sqlx::Executor;
    let store = database.store().await;
    store.write(&batch(1)).await.unwrap();
    // As a server sees it whose connection broke during COMMIT: the old transaction is still at it.
    let mut broken = database.connect().await;
    let begin = if database.url.starts_with("sqlite") { "BEGIN IMMEDIATE" } else { "BEGIN" };
    broken.execute(begin).await.unwrap();
    broken.execute("UPDATE runs SET batch = 2").await.unwrap();
    let again = tokio::spawn({
        let store = store.clone();
        async move { store.write(&Batch { sums: vec![sum(5, 10)], ..batch(2) }).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!again.is_finished());
    broken.execute("COMMIT").await.unwrap();
    again.await.unwrap().unwrap();
    assert!(used_ms(&store).await.is_empty());
}

async fn a_row_may_come_twice_in_a_batch(database: Database) {
    let store = database.store().await;
    let written = Batch {
        sessions: vec![session(1, "ada"), session(2, "bob"), SessionRow { usage: used(50), ..session(1, "ada") }],
        calls: vec![call(7), CallRow { participants: 5, ..call(7) }],
        sums: vec![sum(5, 1), sum(5, 2), sum(6, 4)],
        events: vec![event(1, Some(id(8)), 1, "ada"), event(1, Some(id(8)), 1, "ada")],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    assert!(records(&store).await == [SessionRow { usage: used(50), ..session(1, "ada") }, session(2, "bob")]);
    assert_eq!(store.calls(&tenant(), &Filter::default(), None, 10).await.unwrap()[0].participants, 5);
    assert_eq!(used_ms(&store).await, [3, 4]);
    assert_eq!(store.backlog().await.unwrap().rows, 1);
}

async fn a_batch_is_written_whole_or_not_at_all(database: Database) {
    let store = database.store().await;
    database.run("DROP TABLE lines").await;
    let written = Batch {
        sessions: vec![session(1, "ada")],
        sums: vec![sum(5, 1)],
        events: vec![event(1, None, 1, "ada")],
        ..batch(1)
    };
    assert!(!store.write(&written).await.unwrap_err().is_temporary());
    assert!(records(&store).await.is_empty() && used_ms(&store).await.is_empty());
    // The number was not taken either.
    store.write(&Batch { sums: vec![sum(5, 1)], ..batch(1) }).await.unwrap();
    assert_eq!(used_ms(&store).await, [1]);
}

async fn an_abandoned_batch_is_undone(database: Database) {
    let store = database.store().await;
    let many = Batch { sessions: (1..=5000).map(|n| session(n, "ada")).collect(), ..batch(1) };
    // Given up at ever later moments.
    for micros in [0, 100, 1000, 3000, 10_000, 20_000, 40_000] {
        let limit = std::time::Duration::from_micros(micros);
        let in_time = tokio::time::timeout(limit, store.write(&many)).await.is_ok();
        let found = records(&store).await.len();
        assert!(found == 5000 || (found == 0 && !in_time), "{found} rows after {micros} µs");
    }
    store.write(&many).await.unwrap();
    assert_eq!(records(&store).await.len(), 5000);
}

async fn ten_thousand_sessions_are_one_batch(database: Database) {
    let store = database.store().await;
    let mut sessions: Vec<SessionRow> = (1..=10_000).map(|n| session(n, &format!("person {n}"))).collect();
    store.write(&Batch { sessions: sessions.clone(), ..batch(1) }).await.unwrap();
    for session in &mut sessions {
        session.usage = used(session.usage.duration_ms + 10_000);
    }
    store.write(&Batch { sessions: sessions.clone(), ..batch(2) }).await.unwrap();
    assert!(records(&store).await == sessions);
}

async fn open_rows_end_at_their_last_checkpoint(database: Database) {
    let crashed = database.open("node", 1).await;
    let written =
        Batch { sessions: vec![session(1000, "ada"), ended(2000, "bob")], calls: vec![call(1000)], ..batch(1) };
    crashed.write(&written).await.unwrap();
    let store = database.open("node", 2).await;
    assert_eq!(store.recover(at(9999), &mourners()).await.unwrap(), Recovered { sessions: 1, calls: 1 });
    let closed =
        SessionRow { ended_at: Some(at(2000)), end_reason: Some("server_crash".into()), ..session(1000, "ada") };
    assert!(records(&store).await == [closed, ended(2000, "bob")]);
    let calls = store.calls(&tenant(), &Filter::default(), None, 10).await.unwrap();
    assert_eq!((calls[0].ended_at, calls[0].end_reason.as_deref()), (Some(at(2000)), Some("server_crash")));
    assert_eq!(store.recover(at(99_999), &mourners()).await.unwrap(), Recovered::default());
}

async fn recovery_leaves_other_nodes_and_this_run_alone(database: Database) {
    let other = database.open("other", 1).await;
    other.write(&Batch { sessions: vec![session(1, "ada")], calls: vec![call(1)], ..batch(1) }).await.unwrap();
    let store = database.open("node", 2).await;
    store.write(&Batch { sessions: vec![session(2, "bob")], ..batch(1) }).await.unwrap();
    assert_eq!(store.recover(at(1), &mourners()).await.unwrap(), Recovered::default());
    assert!(records(&store).await == [session(1, "ada"), session(2, "bob")]);
    // The other node's batches still count once.
    other.write(&Batch { sums: vec![sum(5, 1)], ..batch(1) }).await.unwrap();
    assert!(used_ms(&store).await.is_empty());
}

async fn no_text_blocks_the_ledger(database: Database) {
    let store = database.store().await;
    let odd = "a\0'\"\\%_;--\u{202e}\u{10ffff}";
    store.write(&Batch { sessions: vec![session(1, odd)], ..batch(1) }).await.unwrap();
    let asked = RecordFilter { identity: Some(Identity::from(odd)), ..RecordFilter::default() };
    let found = store.records(&tenant(), &asked, None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    let record: RecordId = id(1);
    let last = Place { start: UnixMs(at(1).0), id: record.to_string() };
    assert!(store.records(&tenant(), &asked, Some(&last), 10).await.unwrap().is_empty());
    assert!(store.usage_by_day(&tenant(), Some(Day(0)), Some(Day(u32::MAX))).await.unwrap().is_empty());
}

async fn rooms_are_there_again_until_they_end(database: Database) {
    let store = database.store().await;
    let rooms = vec![room(1, "hall"), room(2, "attic"), room(3, "cellar")];
    store.write(&Batch { rooms: rooms.clone(), ..batch(1) }).await.unwrap();
    let mut changed = room(2, "attic");
    changed.settings.max_participants = 99;
    changed.seq = 77;
    let again = vec![room(2, "attic"), changed.clone()];
    store.write(&Batch { rooms: again, ended_rooms: vec![id(3), id(4)], ..batch(2) }).await.unwrap();
    let next = database.open("node", 2).await;
    assert!(next.rooms().await.unwrap() == [room(1, "hall"), changed]);
    assert!(database.open("other", 1).await.rooms().await.unwrap().is_empty());
}

async fn a_crash_is_told_once_and_in_order(database: Database) {
    let crashed = database.open("node", 1).await;
    let hall = RoomRow { seq: 41, ..room(8, "hall") };
    let old = SessionRow { participant: None, ..session(3, "carl") };
    let written = Batch {
        rooms: vec![hall],
        sessions: vec![session(2, "bob"), session(1, "ada"), old, ended(4, "dora")],
        calls: vec![CallRow { call: id(7), ..call(5) }],
        ..batch(1)
    };
    crashed.write(&written).await.unwrap();
    let store = database.open("node", 2).await;
    let webhooks = BTreeMap::from([(tenant(), vec!["https://map.example/hook".to_owned()])]);
    let mourners = Mourners { webhooks: &webhooks, seed: [7; 32] };
    for _ in 0..2 {
        store.recover(at(9999), &mourners).await.unwrap();
    }
    let told = store.events_after(&tenant(), None, 9).await.unwrap();
    let bodies: Vec<serde_json::Value> = told.iter().map(|event| serde_json::from_str(&event.body).unwrap()).collect();
    let of =
        |body: &serde_json::Value| (body["seq"].as_u64(), body["participant"]["identity"].as_str().map(str::to_owned));
    let seen: Vec<_> = bodies.iter().map(of).collect();
    assert_eq!(seen, [(Some(42), Some("ada".to_owned())), (Some(43), Some("bob".to_owned()))]);
    for (body, number) in bodies.iter().zip([1, 2]) {
        assert_eq!(body["event"], "participant_left");
        assert_eq!(body["participant"]["reason"], "server_crash");
        assert_eq!(body["participant"]["duration_ms"], number);
        assert_eq!(body["call"]["started_at"], at(5).to_string());
    }
    assert_eq!(store.rooms().await.unwrap()[0].seq, 43);
    assert_eq!(store.due(at(99_999), 9).await.unwrap().len(), 1);
}

async fn a_tenants_own_events_go_on_counting(database: Database) {
    let store = database.store().await;
    let events = vec![event(1, None, 4, "ada"), event(2, Some(id(8)), 9, "ada"), event(3, None, 3, "ada")];
    store.write(&Batch { events, ..batch(1) }).await.unwrap();
    assert_eq!(database.open("node", 2).await.told().await.unwrap(), BTreeMap::from([(tenant(), 4)]));
}
