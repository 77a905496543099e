//! People who walk between rooms on different shards, with the session they joined with.

use std::time::{Duration, Instant};

use stube::command::{Command, Destination, EndReason, ShardIndex};
use stube::ids::Identity;

use crate::client::Change;
use crate::forwarding::check_accounts;
use crate::liveness::check_liveness;
use crate::member::Joiner;
use crate::net::{Burst, Conditions};
use crate::seal;
use crate::trace::Trace;
use crate::world::{DEPARTURE_TIMEOUT, World};

/// After a move everybody concerned sees and hears again within this long.
const SOON: Duration = Duration::from_millis(500);
/// Two in each of three rooms on three shards, and one who walks.
const WALKER: usize = 0;

/// Plays a scenario of three shards, lets everyone leave, and checks what is left and billed.
fn scenario(seed: u64, play: impl FnOnce(&mut World) + Send + 'static) -> Trace {
    seal::sealed(seed, move |start| {
        let mut world = World::with_shards(seed, 3, 3, start);
        play(&mut world);
        check_liveness(&mut world);
        let left_at = world.now;
        for index in 0..world.members.len() {
            world.leave(index, index % 2 == 0, true);
        }
        world.run_for(DEPARTURE_TIMEOUT + Duration::from_secs(3));
        check_accounts(&mut world);
        check_bills(&mut world, left_at);
        world.check_empty();
        assert!(world.faults.is_empty(), "seed {seed}:{}", world.faults.report());
        world.trace
    })
}

/// Each second and byte was billed once, however often somebody moved.
fn check_bills(world: &mut World, left_at: Instant) {
    for member in &world.members {
        let billed = world.bills.billed.get(&member.session).copied().unwrap_or_default();
        let sent = world.bills.sent.get(&member.session).copied().unwrap_or_default();
        let received = world.bills.received.get(&member.session).copied().unwrap_or_default();
        let faults = world.faults.about(format!("the bill of {}", member.name()));
        if billed.tx_bytes != sent {
            faults.add(format!("{} bytes for {sent} sent", billed.tx_bytes));
        }
        // What comes from an address before that is known is nobody's, and what comes after the end.
        if billed.rx_bytes > received || billed.rx_bytes * 100 < received * 80 {
            faults.add(format!("{} bytes for {received} received", billed.rx_bytes));
        }
        let (ended_at, reason) = member.ended.unwrap_or((left_at, EndReason::ClientLeft));
        // Of one who was lost it is not known when.
        let slack = if reason == EndReason::ConnectionLost { 40_000 } else { 700 };
        let there = member.client.connected_at.map_or(Duration::ZERO, |at| ended_at.min(left_at) - at);
        if billed.duration.abs_diff(there) > Duration::from_millis(slack) {
            faults.add(format!("{:?} for {there:?}", billed.duration));
        }
    }
}

fn join_rooms(world: &mut World, conditions: Conditions) {
    world.join(&Joiner::default(), conditions, conditions);
    for room in [0, 0, 1, 1, 2, 2] {
        world.join(&Joiner { room, ipv6: room == 1, ..Joiner::default() }, Conditions::CLEAN, Conditions::CLEAN);
        world.run_for(Duration::from_millis(200));
    }
    world.run_for(Duration::from_secs(6));
}

/// Whether a member has got something good of all tracks of another since.
fn sees(world: &World, viewer: usize, publisher: usize, since: Instant) -> bool {
    world.members[publisher].client.publications.iter().filter(|publication| publication.active).all(|publication| {
        let slots = &world.members[viewer].client.slots;
        slots.iter().any(|slot| slot.last_good.get(&publication.track).is_some_and(|at| *at > since))
    })
}

/// Moves the walker, and holds all to what they must see within so long.
fn walk(world: &mut World, room: usize, within: Duration) {
    // A publisher is asked for a keyframe once a second at most, by whomever.
    world.run_for(Duration::from_secs(1));
    let moved_at = world.now;
    world.relocate(WALKER, room);
    world.run_for(within);
    assert!(world.faults.is_empty(), "{}", world.faults.report());
    for other in [2 * room + 1, 2 * room + 2] {
        assert!(sees(world, WALKER, other, moved_at), "to {room}: the walker sees p{other} within {within:?}");
        assert!(sees(world, other, WALKER, moved_at), "to {room}: p{other} sees the walker within {within:?}");
    }
}

fn away(world: &World) -> u64 {
    world.stats().sessions_away
}

#[test]
fn a_walk_over_all_shards_and_back() {
    let walk_all = |world: &mut World| {
        join_rooms(world, Conditions::CLEAN);
        for (room, is_away) in [(1, 1), (0, 0), (2, 1), (1, 1), (2, 1), (0, 0)] {
            walk(world, room, SOON);
            assert_eq!(away(world), is_away);
            world.run_for(Duration::from_secs(2));
        }
        assert!(world.stats().datagrams_relayed > 500, "{}", world.stats().datagrams_relayed);
    };
    let trace = scenario(31, walk_all);
    assert_eq!(scenario(31, walk_all), trace, "one seed, one course");
}

#[test]
fn a_walk_on_a_lossy_network_between_busy_shards() {
    for seed in 0..6 {
        scenario(40 + seed, |world| {
            world.busy = true;
            let lossy = Conditions {
                delay: Duration::from_millis(20),
                loss_per_mille: 20,
                burst: Some(Burst { enter_per_mille: 2, leave_per_mille: 300 }),
                duplicate_per_mille: 5,
                ..Conditions::CLEAN
            };
            join_rooms(world, lossy);
            for room in [1, 0, 2, 1] {
                // A keyframe whose packets or whose request are lost comes a second later.
                walk(world, room, SOON + Duration::from_millis(1500));
                world.run_for(Duration::from_secs(3));
            }
            let host = world.members[WALKER].host;
            world.net.set_conditions(host, Conditions::CLEAN, Conditions::CLEAN);
            world.run_for(Duration::from_secs(5));
        });
    }
}

#[test]
fn a_nat_that_rebinds_during_a_move_is_followed() {
    scenario(32, |world| {
        join_rooms(world, Conditions::CLEAN);
        for room in [1, 2, 0] {
            world.relocate(WALKER, room);
            world.net.rebind(world.members[WALKER].host);
            world.run_for(Duration::from_secs(6));
            walk(world, (room + 1) % 3, SOON);
            world.run_for(Duration::from_secs(1));
        }
    });
}

#[test]
fn ice_restarts_and_further_offers_find_who_has_moved() {
    scenario(33, |world| {
        join_rooms(world, Conditions::CLEAN);
        walk(world, 1, SOON);
        let restart = |world: &mut World| {
            let before = world.members[WALKER].ice;
            assert!(world.offer(WALKER, Change::IceRestart));
            // Under way while its session goes on to the next shard.
            world.run_for(Duration::from_millis(20));
            before
        };
        let before = restart(world);
        walk(world, 2, SOON);
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.members[WALKER].ice, before + 1);
        // The network changes as well: only the new credentials are of use.
        world.net.rebind(world.members[WALKER].host);
        restart(world);
        world.run_for(Duration::from_secs(5));
        walk(world, 0, SOON);
        let screen = world.offer(WALKER, Change::PublishScreen);
        assert!(screen);
        world.run_for(Duration::from_secs(5));
        walk(world, 1, SOON + SOON);
    });
}

#[test]
fn who_has_moved_is_removed_lost_or_replaced_like_others() {
    scenario(34, |world| {
        join_rooms(world, Conditions::CLEAN);
        // One is removed, one crashes, and one leaves by HTTP, all away from home.
        for (member, room) in [(WALKER, 1), (3, 2), (5, 0)] {
            world.relocate(member, room);
        }
        world.run_for(Duration::from_secs(2));
        assert_eq!(away(world), 3);
        world.remove(WALKER);
        world.crash(3);
        world.leave(5, false, true);
        world.run_for(Duration::from_secs(40));
        let reasons = [WALKER, 3, 5].map(|member| world.members[member].ended.map(|(_, reason)| reason));
        let expected = [EndReason::ParticipantRemoved, EndReason::ConnectionLost, EndReason::ClientLeft];
        assert_eq!(reasons, expected.map(Some));
        assert_eq!(away(world), 0);
    });
}

#[test]
fn a_room_that_is_gone_sends_the_mover_back() {
    scenario(35, |world| {
        join_rooms(world, Conditions::CLEAN);
        let nowhere = world.id();
        let participant = world.id();
        let to = Destination { shard: ShardIndex(1), room: nowhere, participant };
        let (room, identity) = (world.rooms[0], Identity::from(world.members[WALKER].identity.as_str()));
        let moved_at = world.now;
        // Put back, they are another participant of their room, whose name only the server knows.
        world.expect_refusal(Command::MoveParticipant { room, identity, to }, WALKER);
        world.run_for(SOON);
        assert!(sees(world, WALKER, 1, moved_at) && sees(world, 2, WALKER, moved_at), "all goes on as before");
        walk(world, 2, SOON);
    });
}
