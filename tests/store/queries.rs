//! What tenants ask for.

use stube::ids::{Identity, RoomName, Tenant};
use stube::ledger::record::{Batch, CallRow, Day, SessionRow, SumDelta, Usage};
use stube::ledger::store::{DayUsage, Filter, Place, RecordFilter, Store};

use crate::database::{Database, at, batch, call, ended, event, id, session, sum, tenant, used};

on_both! {
    records_are_filtered
    calls_are_filtered
    pages_neither_repeat_nor_skip
    days_add_up_and_keep_their_peaks
    rooms_are_summed_from_what_is_kept
    months_are_summed_for_all_tenants
    tenants_see_only_their_own
}

async fn found(store: &Store, filter: RecordFilter) -> Vec<u64> {
    let records = store.records(&tenant(), &filter, None, 100).await.unwrap();
    records.iter().map(|record| record.joined_at.0 - at(0).0).collect()
}

fn span(from: Option<u64>, to: Option<u64>) -> Filter {
    Filter { from: from.map(at), to: to.map(at), room: None }
}

async fn records_are_filtered(database: Database) {
    let store = database.store().await;
    let elsewhere = SessionRow { room_name: RoomName::from("attic"), call: id(99), ..session(4, "ada") };
    let sessions = vec![session(1, "ada"), ended(2, "bob"), session(3, "ada"), elsewhere];
    store.write(&Batch { sessions, ..batch(1) }).await.unwrap();
    let ada = Some(Identity::from("ada"));
    for (filter, expected) in [
        (RecordFilter::default(), vec![1, 2, 3, 4]),
        (RecordFilter { span: span(Some(2), Some(4)), ..RecordFilter::default() }, vec![2, 3]),
        (RecordFilter { span: span(Some(4), None), ..RecordFilter::default() }, vec![4]),
        (RecordFilter { identity: ada.clone(), ..RecordFilter::default() }, vec![1, 3, 4]),
        (RecordFilter { call: Some(id(99)), ..RecordFilter::default() }, vec![4]),
        (
            RecordFilter {
                span: Filter { room: Some(RoomName::from("hall")), ..span(None, Some(4)) },
                identity: ada,
                call: Some(id(7)),
            },
            vec![1, 3],
        ),
        (RecordFilter { identity: Some(Identity::from("nobody")), ..RecordFilter::default() }, vec![]),
    ] {
        assert_eq!(found(&store, filter).await, expected);
    }
}

async fn calls_are_filtered(database: Database) {
    let store = database.store().await;
    let attic = CallRow { room_name: RoomName::from("attic"), ..call(3) };
    store.write(&Batch { calls: vec![call(1), call(2), attic], ..batch(1) }).await.unwrap();
    for (filter, expected) in [
        (Filter::default(), vec![1, 2, 3]),
        (span(Some(2), Some(3)), vec![2]),
        (Filter { room: Some(RoomName::from("attic")), ..Filter::default() }, vec![3]),
    ] {
        let calls = store.calls(&tenant(), &filter, None, 100).await.unwrap();
        let starts: Vec<u64> = calls.iter().map(|call| call.started_at.0 - at(0).0).collect();
        assert_eq!(starts, expected);
    }
}

async fn pages_neither_repeat_nor_skip(database: Database) {
    let store = database.store().await;
    // Many join in the same millisecond, so that ids decide.
    let joined = |n: u64| SessionRow { joined_at: at(n / 25), ..session(n, "ada") };
    store.write(&Batch { sessions: (0..100).map(joined).collect(), ..batch(1) }).await.unwrap();
    let mut seen: Vec<SessionRow> = Vec::new();
    let mut place = None;
    let mut number = 1;
    loop {
        let page = store.records(&tenant(), &RecordFilter::default(), place.as_ref(), 7).await.unwrap();
        let Some(last) = page.last() else { break };
        place = Some(Place { start: last.joined_at, id: last.record.to_string() });
        seen.extend(page);
        // Others come before and after meanwhile.
        number += 1;
        let sessions = vec![joined(1000 + number), SessionRow { joined_at: at(0), ..session(2000 + number, "bob") }];
        if number < 12 {
            store.write(&Batch { sessions, ..batch(number) }).await.unwrap();
        }
    }
    assert!(
        seen.windows(2)
            .all(|pair| (pair[0].joined_at, pair[0].record.to_string())
                < (pair[1].joined_at, pair[1].record.to_string()))
    );
    let first_ones = (0..100).map(joined).filter(|row| seen.contains(row)).count();
    assert_eq!(first_ones, 100);
    // Those that came later, at the end.
    assert_eq!(seen.iter().filter(|row| row.joined_at >= at(40)).count(), 10);
}

async fn days_add_up_and_keep_their_peaks(database: Database) {
    let store = database.store().await;
    let delta = SumDelta {
        tenant: tenant(),
        day: Day(5),
        participant_ms: 1,
        rounded_up_minutes: 2,
        calls: 3,
        egress_bytes: 4,
        ingress_bytes: 5,
        peak_participants: 6,
        distinct_addresses: 7,
    };
    let less = SumDelta { peak_participants: 2, distinct_addresses: 1, ..delta.clone() };
    store.write(&Batch { sums: vec![delta, sum(6, 1), sum(7, 1)], ..batch(1) }).await.unwrap();
    store.write(&Batch { sums: vec![less], ..batch(2) }).await.unwrap();
    let days = store.usage_by_day(&tenant(), Some(Day(5)), Some(Day(7))).await.unwrap();
    assert_eq!(days.len(), 2);
    let expected = DayUsage {
        day: Day(5),
        participant_ms: 2,
        rounded_up_minutes: 4,
        calls: 6,
        egress_bytes: 8,
        ingress_bytes: 10,
        peak_participants: 6,
        distinct_addresses: 7,
    };
    assert_eq!(days[0], expected);
}

async fn rooms_are_summed_from_what_is_kept(database: Database) {
    let store = database.store().await;
    let lasting = |number: u64, duration_ms: u64, room: &str| SessionRow {
        usage: Usage { duration_ms, ..used(10) },
        room_name: RoomName::from(room),
        ..session(number, "ada")
    };
    let sessions = vec![
        lasting(1, 0, "hall"),
        lasting(2, 1, "hall"),
        lasting(3, 60_000, "hall"),
        lasting(4, 60_001, "hall"),
        lasting(5, 5, "attic"),
        lasting(600, 5, "hall"),
    ];
    let calls = vec![call(1), CallRow { peak_participants: 5, ..call(2) }, call(600)];
    store.write(&Batch { sessions, calls, ..batch(1) }).await.unwrap();
    let rooms = store.usage_by_room(&tenant(), Some(at(1)), Some(at(600))).await.unwrap();
    let names: Vec<&str> = rooms.iter().map(|room| room.room_name.as_str()).collect();
    assert_eq!(names, ["attic", "hall"]);
    let hall = &rooms[1];
    assert_eq!((hall.participant_ms, hall.rounded_up_minutes), (120_002, 4));
    assert_eq!((hall.peak_participants, hall.calls), (5, 2));
    assert_eq!((hall.ingress_bytes, hall.egress_bytes), (44, 48));
    assert_eq!((rooms[0].rounded_up_minutes, rooms[0].calls, rooms[0].peak_participants), (1, 0, 0));
    assert_eq!(store.usage_by_room(&tenant(), None, None).await.unwrap()[1].calls, 3);
}

async fn months_are_summed_for_all_tenants(database: Database) {
    let store = database.store().await;
    let other = SumDelta { egress_bytes: 9, ..SumDelta::nothing(Tenant::from("other"), Day(11)) };
    store.write(&Batch { sums: vec![sum(9, 1), sum(10, 2), sum(11, 4), other], ..batch(1) }).await.unwrap();
    let months = store.month_to_date(Day(10)).await.unwrap();
    let found: Vec<_> = months.iter().map(|m| (m.tenant.key(), m.participant_ms, m.egress_bytes)).collect();
    assert_eq!(found, [("other", 0, 9), ("tenant", 6, 0)]);
}

async fn tenants_see_only_their_own(database: Database) {
    let store = database.store().await;
    let written = Batch {
        sessions: vec![session(1, "ada")],
        calls: vec![call(7)],
        sums: vec![sum(5, 1)],
        events: vec![event(1, Some(id(8)), 1, "ada")],
        ..batch(1)
    };
    store.write(&written).await.unwrap();
    let (eve, ada) = (Tenant::from("eve"), Identity::from("ada"));
    assert!(store.records(&eve, &RecordFilter::default(), None, 10).await.unwrap().is_empty());
    let asked = RecordFilter { identity: Some(ada.clone()), call: Some(id(7)), ..RecordFilter::default() };
    assert!(store.records(&eve, &asked, None, 10).await.unwrap().is_empty());
    assert!(store.calls(&eve, &Filter::default(), None, 10).await.unwrap().is_empty());
    assert!(store.usage_by_day(&eve, None, None).await.unwrap().is_empty());
    assert!(store.usage_by_room(&eve, None, None).await.unwrap().is_empty());
    assert!(store.events_after(&eve, None, 10).await.unwrap().is_empty());
    assert_eq!(store.event_position(&eve, id(1)).await.unwrap(), None);
    assert_eq!(store.last_position(&eve).await.unwrap(), 0);
    let export = store.export(&eve, std::slice::from_ref(&ada)).await.unwrap();
    assert!(export.records.is_empty() && export.events.is_empty());
    let erased = store.erase(&eve, std::slice::from_ref(&ada)).await.unwrap();
    assert_eq!((erased.records, erased.events), (0, 0));
    assert!(store.export(&tenant(), &[ada]).await.unwrap().records.len() == 1);
}
