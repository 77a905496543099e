//! The end of a call that lasts as long as its room allows.

use std::time::{Duration, Instant};

use serde_json::Value;
use stube::command::{EndReason, RoomSettings};
use stube::media::duration::TOPIC;
use stube::media::signal::Signal;
use stube::media::{Input, Output, PeerKey};

use crate::{World, come_in, room_of, settings};

/// Plays the room's timers until `elapsed` has passed since `start`; tells who was warned of what and when, and when the
/// room was closed, all in seconds since then.
fn warnings(world: &mut World, start: Instant, elapsed: u64) -> Vec<(u64, Option<u32>, Value)> {
    let mut seen = Vec::new();
    loop {
        let second = (world.now - start).as_secs();
        while let Some(output) = world.room.poll_output() {
            match output {
                Output::Tell { peer: PeerKey(who), signal } => {
                    if let Signal::Message { from: None, topic, data } = &*signal {
                        assert_eq!(topic, TOPIC);
                        assert_eq!(data["reason"], "room_duration_exceeded");
                        seen.push((second, Some(who), data["ends_in_s"].clone()));
                    }
                }
                Output::Close { reason, .. } => {
                    assert_eq!(reason, EndReason::RoomDurationExceeded);
                    seen.push((second, None, Value::Null));
                }
                _ => {}
            }
        }
        let end = start + Duration::from_secs(elapsed);
        let Some((due, _)) = world.room.poll_timeout().filter(|(due, _)| *due <= end) else {
            world.now = end;
            return seen;
        };
        world.now = world.now.max(due);
        world.room.handle_timeout(world.now);
    }
}

#[test]
fn a_call_is_warned_before_it_has_lasted_long_enough() {
    // The limit, and when people are told.
    for (max_s, told_s) in [(600, 540), (120, 60), (40, 20)] {
        let mut world = World::new(1);
        let max_duration = Some(Duration::from_secs(max_s));
        world.room.handle(Input::Settings(RoomSettings { max_duration, ..settings() }), world.now);
        let start = world.now;
        room_of(&mut world, 2);
        let left = Value::from(max_s - told_s);
        let told = [(told_s, Some(0), left.clone()), (told_s, Some(1), left)];
        assert_eq!(warnings(&mut world, start, told_s + 10), told, "of {max_s} s");
        come_in(&mut world, 2);
        let late = (told_s + 10, Some(2), Value::from(max_s - told_s - 10));
        let closed = (max_s, None, Value::Null);
        assert_eq!(warnings(&mut world, start, max_s), [late, closed.clone(), closed.clone(), closed], "of {max_s} s");
    }
}

#[test]
fn the_limit_of_a_running_call_can_be_changed() {
    let mut world = World::new(1);
    let start = world.now;
    room_of(&mut world, 1);
    assert_eq!(warnings(&mut world, start, 1_000), []);
    let limit = |world: &mut World, max_s: Option<u64>| {
        let max_duration = max_s.map(Duration::from_secs);
        world.room.handle(Input::Settings(RoomSettings { max_duration, ..settings() }), world.now);
    };
    limit(&mut world, Some(1_030));
    assert_eq!(warnings(&mut world, start, 1_010), [(1_000, Some(0), Value::from(30))], "at once, if it is near");
    limit(&mut world, Some(2_000));
    assert_eq!(warnings(&mut world, start, 1_990), [(1_940, Some(0), Value::from(60))]);
    limit(&mut world, None);
    assert_eq!(warnings(&mut world, start, 5_000), []);
    limit(&mut world, Some(60));
    assert_eq!(warnings(&mut world, start, 5_001).last(), Some(&(5_000, None, Value::Null)), "it has lasted longer");
}
