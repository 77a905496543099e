//! Tables, and random operations against a model that counts naively.

use std::sync::Mutex;

use time::OffsetDateTime;
use time::macros::datetime;

use super::*;

mod model;

/// A quiet day in the middle of a month.
const NOON: OffsetDateTime = datetime!(2026-03-17 12:00 UTC);

fn at(wall: OffsetDateTime, monotonic_ms: u64) -> Moment {
    Moment { monotonic_ms, unix_ms: wall.unix_timestamp() as u64 * 1000 }
}

/// Some ms after [`NOON`], by both clocks.
fn after_ms(ms: u64) -> Moment {
    Moment { monotonic_ms: 1_000_000 + ms, unix_ms: at(NOON, 0).unix_ms + ms }
}

fn limits(text: &str) -> LimitTable {
    toml::from_str(text).expect(text)
}

fn counters(text: &str) -> Counters {
    Counters::new(limits(text), after_ms(0))
}

fn tenant() -> Tenant {
    Tenant::from("a")
}

fn room(number: u128) -> RoomId {
    RoomId::from_bits(number)
}

fn address(number: u64) -> AddressKey {
    AddressKey::from_bits(number)
}

/// Crossings of one tenant in short.
fn told(counters: &mut Counters) -> Vec<(Quota, CrossingKind, u64, u64)> {
    let crossings = counters.crossings().into_iter();
    crossings.map(|crossing| (crossing.quota, crossing.kind, crossing.limit, crossing.used)).collect()
}

fn assert_nobody_is_there(counters: &Counters) {
    for in_use in counters.tenants.values() {
        assert_eq!((in_use.rooms, in_use.participants), (0, 0));
        assert!(in_use.by_room.is_empty() && in_use.by_address.is_empty());
    }
}

#[test]
fn each_quota_refuses_beyond_its_limit() {
    for (quota, takes, rooms, addresses) in [
        (Quota::MaxParticipants, 3, 9, 9),
        (Quota::MaxParticipantsPerRoom, 3, 1, 9),
        (Quota::SessionsPerIp, 3, 9, 1),
        (Quota::JoinsPerIpPerMinute, 3, 9, 1),
    ] {
        let mut counters = counters(&format!("[default]\n{} = {takes}", quota.as_str()));
        let mut join = |n: u64, now| {
            let (room, address) = (room(u128::from(n % rooms)), address(n % addresses));
            counters.take_participant(&tenant(), room, address, now)
        };
        for n in 0..takes {
            assert_eq!(join(n, after_ms(n)), Ok(()), "{quota:?} {n}");
        }
        let retry_after_s = if quota == Quota::JoinsPerIpPerMinute { 60 } else { RETRY_AFTER_S };
        let refused = Err(Exceeded { quota, limit: takes, used: takes, retry_after_s });
        assert_eq!(join(takes, after_ms(takes)), refused);
        assert_eq!(join(takes, after_ms(takes)), refused, "a refusal changes nothing");
    }
    let mut counters = counters("[default]\nmax_rooms = 2");
    let mut takes = || counters.take_room(&tenant(), after_ms(0));
    assert_eq!((takes(), takes()), (Ok(()), Ok(())));
    assert_eq!(takes(), Err(Exceeded { quota: Quota::MaxRooms, limit: 2, used: 2, retry_after_s: 5 }));
    counters.release_room(&tenant());
    assert_eq!(counters.take_room(&tenant(), after_ms(0)), Ok(()));
}

#[test]
fn without_limits_all_are_admitted() {
    let mut counters = counters("");
    for n in 0..1_000 {
        assert_eq!(counters.take_room(&tenant(), after_ms(0)), Ok(()));
        assert_eq!(counters.take_participant(&tenant(), room(1), address(n % 2), after_ms(0)), Ok(()));
    }
    assert!(counters.joins.is_empty(), "what has no limit is not remembered");
    assert!(counters.crossings().is_empty());
}

#[test]
fn tenants_do_not_share() {
    let mut counters = counters("[default]\nsessions_per_ip = 1\n[b]\nsessions_per_ip = 2");
    for (tenant, admitted) in [("a", true), ("a", false), ("b", true), ("b", true), ("b", false), ("c", true)] {
        let taken = counters.take_participant(&tenant.into(), room(1), address(1), after_ms(0));
        assert_eq!(taken.is_ok(), admitted, "{tenant}");
    }
}

#[test]
fn two_hundred_at_once_get_a_hundred_places() {
    let counters = Mutex::new(counters("[default]\nmax_participants = 100"));
    let take = |n: u64| {
        let mut counters = counters.lock().expect("no test panics while holding it");
        counters.take_participant(&tenant(), room(u128::from(n % 7)), address(n), after_ms(n)).is_ok()
    };
    let admitted = std::thread::scope(|scope| {
        let joins: Vec<_> = (0..200).map(|n| scope.spawn(move || take(n))).collect();
        joins.into_iter().filter_map(|join| join.join().ok()).filter(|admitted| *admitted).count()
    });
    assert_eq!(admitted, 100);
    let counters = counters.into_inner().expect("no test panics while holding it");
    assert_eq!(counters.tenants[&tenant()].participants, 100);
}

#[test]
fn joins_slide_over_a_minute() {
    let mut counters = counters("[default]\njoins_per_ip_per_minute = 2\nmax_participants_per_room = 1");
    for (ms, room_number, expected) in [
        (0, 1, Ok(())),
        // The room is full, and the join counts.
        (20_000, 1, Err((Quota::MaxParticipantsPerRoom, 5))),
        // Refused by this very quota, the join does not count.
        (30_001, 2, Err((Quota::JoinsPerIpPerMinute, 30))),
        (59_999, 2, Err((Quota::JoinsPerIpPerMinute, 1))),
        (60_000, 2, Ok(())),
        (60_000, 3, Err((Quota::JoinsPerIpPerMinute, 20))),
        (80_000, 3, Ok(())),
        // A clock read before the lock was waited for.
        (79_000, 4, Err((Quota::JoinsPerIpPerMinute, 40))),
    ] {
        let taken = counters.take_participant(&tenant(), room(room_number), address(1), after_ms(ms));
        assert_eq!(taken.map_err(|e| (e.quota, e.retry_after_s)), expected, "{ms}");
    }
    counters.release_participant(&tenant(), room(1), address(1));
    counters.take_room(&tenant(), after_ms(140_000)).expect("no limit");
    assert!(counters.joins.is_empty(), "who is idle is forgotten");
}

#[test]
fn who_waits_as_told_is_admitted() {
    let mut counters = counters("[default]\njoins_per_ip_per_minute = 5");
    let (mut now_ms, mut admitted) = (0, 0);
    for n in 0..100 {
        match counters.take_participant(&tenant(), room(n), address(1), after_ms(now_ms)) {
            Ok(()) => (admitted, now_ms) = (admitted + 1, now_ms + 137),
            Err(exceeded) => {
                now_ms += exceeded.retry_after_s * 1000;
                let taken = counters.take_participant(&tenant(), room(n), address(1), after_ms(now_ms));
                assert_eq!(taken, Ok(()), "after {exceeded}");
            }
        }
    }
    assert!(admitted > 50);
}

#[test]
fn a_replaced_session_is_not_held_against_its_participant() {
    for quota in ["max_participants", "max_participants_per_room", "sessions_per_ip"] {
        let mut counters = counters(&format!("[default]\n{quota} = 2"));
        for _ in 0..2 {
            counters.take_participant(&tenant(), room(1), address(1), after_ms(0)).expect("below the limit");
        }
        assert!(counters.take_participant(&tenant(), room(1), address(1), after_ms(0)).is_err());
        assert_eq!(counters.replace_participant(&tenant(), room(1), address(1), after_ms(0)), Ok(()));
        assert!(counters.replace_participant(&tenant(), room(1), address(1), after_ms(0)).is_err());
        counters.release_participant(&tenant(), room(1), address(1));
        assert!(counters.take_participant(&tenant(), room(1), address(1), after_ms(0)).is_err());
        for _ in 0..2 {
            counters.release_participant(&tenant(), room(1), address(1));
        }
        assert_nobody_is_there(&counters);
    }
}

#[test]
fn a_move_asks_the_room_it_goes_to() {
    let mut counters = counters("[default]\nmax_participants = 3\nmax_participants_per_room = 2\nsessions_per_ip = 2");
    for (room_number, address_number) in [(1, 1), (1, 1), (2, 2)] {
        let taken = counters.take_participant(&tenant(), room(room_number), address(address_number), after_ms(0));
        taken.expect("below the limits");
    }
    for (from, to, admitted) in [(2, 1, false), (1, 1, true), (1, 2, true), (1, 2, false), (9, 2, true), (1, 3, true)] {
        let moved = counters.move_participant(&tenant(), room(from), room(to), after_ms(0));
        assert_eq!(moved.is_ok(), admitted, "{from} to {to}");
    }
    let in_use = &counters.tenants[&tenant()];
    assert_eq!(in_use.by_room, BTreeMap::from([(room(2), 2), (room(3), 1)]));
    assert_eq!(in_use.participants, 3);
    for (room_number, address_number) in [(2, 1), (3, 1), (2, 2)] {
        counters.release_participant(&tenant(), room(room_number), address(address_number));
    }
    assert_nobody_is_there(&counters);
}

#[test]
fn nothing_is_given_back_that_was_not_taken() {
    let mut counters = counters("");
    counters.release_room(&tenant());
    counters.release_participant(&tenant(), room(1), address(1));
    counters.take_participant(&tenant(), room(1), address(1), after_ms(0)).expect("no limit");
    counters.release_room(&tenant());
    counters.release_participant(&tenant(), room(2), address(1));
    counters.release_participant(&tenant(), room(1), address(2));
    counters.release_participant(&"b".into(), room(1), address(1));
    let in_use = &counters.tenants[&tenant()];
    assert_eq!((in_use.rooms, in_use.participants), (0, 1));
    counters.release_participant(&tenant(), room(1), address(1));
    counters.release_participant(&tenant(), room(1), address(1));
    assert_nobody_is_there(&counters);
}

#[test]
fn months_are_asked_at_joins_and_allocations() {
    let text = "[default]\nparticipant_minutes_per_month = 10\negress_bytes_per_month = 1_000";
    for (participant_ms, egress_bytes, refused) in [
        (599_999, 999, None),
        (600_000, 0, Some((Quota::ParticipantMinutesPerMonth, 10, 10))),
        (u64::MAX, 0, Some((Quota::ParticipantMinutesPerMonth, 10, u64::MAX / 60_000))),
        (0, 1_000, Some((Quota::EgressBytesPerMonth, 1_000, 1_000))),
        (0, 5_000, Some((Quota::EgressBytesPerMonth, 1_000, 5_000))),
    ] {
        let mut counters = counters(text);
        counters.take_participant(&tenant(), room(1), address(1), after_ms(0)).expect("nothing used");
        counters.use_up(&tenant(), participant_ms / 2, egress_bytes / 2, after_ms(1));
        counters.use_up(&tenant(), participant_ms.div_ceil(2), egress_bytes.div_ceil(2), after_ms(2));
        let refused =
            refused.map(|(quota, limit, used)| Exceeded { quota, limit, used, retry_after_s: RETRY_AFTER_MAX_S });
        assert_eq!(counters.take_room(&tenant(), after_ms(3)).err(), refused);
        assert_eq!(counters.take_participant(&tenant(), room(1), address(1), after_ms(3)).err(), refused);
        assert_eq!(counters.move_participant(&tenant(), room(1), room(2), after_ms(3)), Ok(()), "calls go on");
        counters.use_up(&tenant(), u64::MAX, u64::MAX, after_ms(4));
        assert_eq!(counters.tenants[&tenant()].month.egress_bytes, u64::MAX);
    }
}

#[test]
fn a_new_month_begins_at_nothing() {
    let mut counters = counters("[default]\negress_bytes_per_month = 10");
    let march = at(datetime!(2026-03-31 23:59:50 UTC), 0);
    counters.begin_month(Month::of(march.unix_ms), [(tenant(), MonthToDate { participant_ms: 0, egress_bytes: 10 })]);
    assert!(counters.crossings().is_empty(), "it was told before the restart");
    for (wall, admitted) in [
        (datetime!(2026-03-31 23:59:50 UTC), false),
        (datetime!(2026-04-01 0:00 UTC), true),
        // The clock is set back by an hour: still April.
        (datetime!(2026-03-31 23:00 UTC), true),
        (datetime!(2026-04-01 0:00 UTC), true),
    ] {
        let taken = counters.take_room(&tenant(), at(wall, 0));
        assert_eq!(taken.map_err(|e| e.retry_after_s), if admitted { Ok(()) } else { Err(10) }, "{wall}");
    }
    counters.use_up(&tenant(), 0, 10, at(datetime!(2026-03-31 23:30 UTC), 0));
    assert!(counters.take_room(&tenant(), at(datetime!(2026-04-02 0:00 UTC), 0)).is_err());
    // A clock that was a year ahead is set right.
    assert!(counters.take_room(&tenant(), at(datetime!(2027-04-02 0:00 UTC), 0)).is_ok());
    assert_eq!(counters.month, Month::of(at(datetime!(2027-04-02 0:00 UTC), 0).unix_ms));
    assert!(counters.take_room(&tenant(), at(datetime!(2026-04-02 0:00 UTC), 0)).is_ok());
    assert_eq!(counters.month, Month::of(at(datetime!(2026-04-02 0:00 UTC), 0).unix_ms));
}

#[test]
fn a_tenant_is_told_once_a_day() {
    use CrossingKind::{Exceeded, Threshold};
    let mut counters = counters("[default]\nmax_rooms = 5");
    let quota = Quota::MaxRooms;
    for (wall, releases, takes, expected) in [
        (NOON, 0, 3, vec![]),
        (NOON, 0, 1, vec![(quota, Threshold, 5, 4)]),
        (NOON, 1, 1, vec![]),
        (NOON, 0, 3, vec![(quota, Exceeded, 5, 5)]),
        (NOON, 5, 9, vec![]),
        (datetime!(2026-03-18 0:00 UTC), 5, 6, vec![(quota, Threshold, 5, 4), (quota, Exceeded, 5, 5)]),
        // The clock is set back over midnight.
        (datetime!(2026-03-17 23:30 UTC), 5, 6, vec![]),
        (datetime!(2026-03-18 0:30 UTC), 5, 6, vec![]),
        // Refused first: that it is near is no news.
        (datetime!(2026-03-19 0:00 UTC), 0, 1, vec![(quota, Exceeded, 5, 5)]),
        (datetime!(2026-03-19 0:00 UTC), 1, 1, vec![]),
    ] {
        (0..releases).for_each(|_| counters.release_room(&tenant()));
        let results = (0..takes).map(|_| counters.take_room(&tenant(), at(wall, 0)).is_ok());
        let admitted = results.filter(|admitted| *admitted).count();
        assert!(admitted <= 5);
        assert_eq!(told(&mut counters), expected, "{wall}");
    }
}

#[test]
fn a_tenant_is_told_once_a_month() {
    use CrossingKind::{Exceeded, Threshold};
    let quota = Quota::ParticipantMinutesPerMonth;
    let mut counters = counters("[default]\nparticipant_minutes_per_month = 10");
    for (wall, minutes, expected) in [
        (datetime!(2026-03-01 0:00 UTC), 7, vec![]),
        (datetime!(2026-03-02 0:00 UTC), 1, vec![(quota, Threshold, 10, 8)]),
        (datetime!(2026-03-03 0:00 UTC), 1, vec![]),
        (datetime!(2026-03-04 0:00 UTC), 1, vec![(quota, Exceeded, 10, 10)]),
        (datetime!(2026-03-05 0:00 UTC), 1, vec![]),
        (datetime!(2026-04-01 0:00 UTC), 11, vec![(quota, Threshold, 10, 11), (quota, Exceeded, 10, 11)]),
    ] {
        counters.use_up(&tenant(), minutes * MINUTE_MS, 0, at(wall, 0));
        assert_eq!(told(&mut counters), expected, "{wall}");
        let refused = counters.take_room(&tenant(), at(wall, 0)).is_err();
        assert_eq!(refused, counters.tenants[&tenant()].month.participant_ms >= 10 * MINUTE_MS);
        assert_eq!(told(&mut counters), [], "a refusal after the sum's own notice is no news");
    }
}

#[test]
fn limits_change_live() {
    use CrossingKind::{Exceeded, Threshold};
    let mut counters = counters("[default]\nmax_rooms = 2\njoins_per_ip_per_minute = 4");
    for n in 0..4 {
        let _ = counters.take_room(&tenant(), after_ms(n));
        counters.take_participant(&tenant(), room(1), address(1), after_ms(n * 1000)).expect("below the limit");
    }
    counters.crossings();
    counters.set_limits(limits("[default]\nmax_rooms = 1\njoins_per_ip_per_minute = 2\n[b]\nmax_rooms = 7"));
    let refused = |quota, limit, used, retry_after_s| Err(super::Exceeded { quota, limit, used, retry_after_s });
    assert_eq!(counters.take_room(&tenant(), after_ms(4_000)), refused(Quota::MaxRooms, 1, 2, 5));
    // The third of four has to leave, at 62 s.
    let taken = counters.take_participant(&tenant(), room(1), address(1), after_ms(4_000));
    assert_eq!(taken, refused(Quota::JoinsPerIpPerMinute, 2, 4, 58));
    let expected = [(Quota::MaxRooms, Exceeded, 1, 2), (Quota::JoinsPerIpPerMinute, Exceeded, 2, 4)];
    assert_eq!(told(&mut counters), expected);
    counters.set_limits(limits("[default]\nmax_rooms = 3\njoins_per_ip_per_minute = 2"));
    assert_eq!(counters.take_room(&tenant(), after_ms(5_000)), Ok(()));
    assert!(counters.take_participant(&tenant(), room(1), address(1), after_ms(5_000)).is_err());
    assert_eq!(told(&mut counters), [(Quota::MaxRooms, Threshold, 3, 3)], "the other limit has not changed");
}
