//! Scenarios with names: each shows one thing on a network chosen for it.

use std::time::Duration;

use str0m::media::MediaKind;
use stube::command::EndReason;
use stube::media::meter::DropReason;

use crate::client::Outgoing;
use crate::dating::check_dating;
use crate::forwarding::{check_accounts, check_forwarding};
use crate::liveness::check_liveness;
use crate::member::Joiner;
use crate::net::{Burst, Conditions};
use crate::seal;
use crate::stamp::Stamp;
use crate::world::{DEPARTURE_TIMEOUT, SERVER_V4, World};

/// Plays a scenario with one room, lets everyone leave, and checks everything at the end.
fn scenario(seed: u64, play: impl FnOnce(&mut World) + Send + 'static) {
    seal::sealed(seed, move |start| {
        let mut world = World::new(seed, 1, start);
        play(&mut world);
        check_liveness(&mut world);
        for index in 0..world.members.len() {
            world.leave(index, index % 2 == 0, true);
        }
        world.run_for(DEPARTURE_TIMEOUT + Duration::from_secs(3));
        check_accounts(&mut world);
        check_forwarding(&mut world);
        check_dating(&mut world);
        world.check_empty();
        assert!(world.faults.is_empty(), "seed {seed}:{}", world.faults.report());
    });
}

fn join_all(world: &mut World, joiner: &Joiner, count: usize, conditions: Conditions) {
    for _ in 0..count {
        world.join(joiner, conditions, conditions);
        world.run_for(Duration::from_millis(300));
    }
}

/// Packets that came out of order or not at all, of all slots.
fn missing(world: &World) -> u64 {
    let slots = world.members.iter().flat_map(|member| &member.client.slots);
    slots.map(|slot| slot.log.keys().zip(slot.log.keys().skip(1)).map(|(a, b)| b - a - 1).sum::<u64>()).sum()
}

#[test]
fn four_talk_on_a_clean_network() {
    scenario(1, |world| {
        join_all(world, &Joiner::default(), 4, Conditions::CLEAN);
        world.run_until(Duration::from_secs(8));
        assert_eq!(missing(world), 0, "a clean network loses nothing, so nothing may be missing");
        let before = world.engine().stats();
        world.run_for(Duration::from_secs(2));
        let after = world.engine().stats();
        let sent = after.rtp_out.audio.packets - before.rtp_out.audio.packets;
        let received = after.rtp_in.audio.packets - before.rtp_in.audio.packets;
        assert_eq!(sent, 3 * received, "everyone hears the three others");
        assert_eq!(after.drops.total(), before.drops.total(), "{:?}", after.drops);
        assert_eq!(world.tap.forwarded, after.rtp_out.audio.packets + after.rtp_out.video.packets);
    });
}

#[test]
fn four_talk_on_a_lossy_network() {
    let burst = Some(Burst { enter_per_mille: 3, leave_per_mille: 300 });
    let conditions = Conditions {
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(25),
        loss_per_mille: 30,
        burst,
        duplicate_per_mille: 10,
        ..Conditions::CLEAN
    };
    scenario(2, move |world| {
        join_all(world, &Joiner::default(), 4, conditions);
        world.run_until(Duration::from_secs(12));
        for member in &world.members {
            world.net.set_conditions(member.host, Conditions::CLEAN, Conditions::CLEAN);
        }
        world.run_for(Duration::from_secs(8));
    });
}

/// Packets that came out of order or not at all where one of the others than `who` follows itself.
fn missing_but_of(who: usize, world: &World) -> u64 {
    let slots = world.members.iter().flat_map(|member| &member.client.slots);
    let gap = |((a, from), (b, to)): ((&u64, &Stamp), (&u64, &Stamp))| {
        let counts = from.track.client != who && to.track.client != who;
        if counts { b - a - 1 } else { 0 }
    };
    slots.map(|slot| slot.log.iter().zip(slot.log.iter().skip(1)).map(gap).sum::<u64>()).sum()
}

#[test]
fn who_floods_is_policed_and_disturbs_nobody() {
    seal::sealed(11, |start| {
        let mut world = World::new(11, 1, start);
        join_all(&mut world, &Joiner::default(), 4, Conditions::CLEAN);
        world.run_until(Duration::from_secs(5));
        // A second of 50,000 packets, ten times what is allowed, that no key has sealed.
        for _ in 0..1000 {
            world.with(0, |member, _, _| {
                let (source, destination) = (member.client.config.address, SERVER_V4.parse().expect("an address"));
                let flood = (0..50).map(|_| Outgoing { source, destination, contents: vec![0x80; 200] });
                member.client.outbox.extend(flood);
            });
            world.run_for(Duration::from_millis(1));
        }
        world.run_for(Duration::from_millis(100));
        let drops = world.engine().stats().drops;
        assert!(drops.of(DropReason::Policed) >= 42_000, "{drops:?}");
        assert!(drops.of(DropReason::NotAuthentic) <= 8_000, "{drops:?}");
        assert_eq!(missing_but_of(0, &world), 0, "the others hear and see each other as before");
        assert!(world.faults.is_empty(), "{}", world.faults.report());
    });
}

#[test]
fn people_come_and_go() {
    scenario(3, |world| {
        join_all(world, &Joiner::default(), 3, Conditions::CLEAN);
        world.run_until(Duration::from_secs(4));
        world.leave(0, true, false);
        world.run_for(Duration::from_secs(2));
        join_all(world, &Joiner::default(), 2, Conditions::CLEAN);
        world.leave(1, false, true);
        world.run_for(Duration::from_secs(5));
        assert!(world.members[0].ended.is_some() && world.members[1].ended.is_some());
    });
}

#[test]
fn few_slots_are_all_used() {
    scenario(4, |world| {
        let joiner = Joiner { audio_slots: 2, video_slots: 1, ..Joiner::default() };
        join_all(world, &joiner, 4, Conditions::CLEAN);
        world.run_until(Duration::from_secs(8));
    });
}

#[test]
fn ipv6_and_ipv4_meet() {
    scenario(5, |world| {
        for ipv6 in [true, false, true] {
            world.join(&Joiner { ipv6, ..Joiner::default() }, Conditions::CLEAN, Conditions::CLEAN);
        }
        world.run_until(Duration::from_secs(6));
        let stats = world.engine().stats();
        assert_eq!((stats.addresses_ipv4, stats.addresses_ipv6), (1, 2));
    });
}

#[test]
fn simulcast_is_accepted_and_one_layer_forwarded() {
    scenario(6, |world| {
        let simulcast = Joiner { simulcast: true, ..Joiner::default() };
        world.join(&simulcast, Conditions::CLEAN, Conditions::CLEAN);
        join_all(world, &Joiner { camera: false, ..Joiner::default() }, 2, Conditions::CLEAN);
        world.run_until(Duration::from_secs(10));
        for layer in &world.members[0].client.publications[1].layers {
            assert!(layer.serial > 100, "layer {:?} sent {} packets", layer.rid, layer.serial);
        }
        for watcher in &world.members[1..] {
            let slot = watcher.client.slots.iter().find(|slot| !slot.log.is_empty() && slot.kind.is_video());
            let log = &slot.expect("a slot with video").log;
            let late = log.values().rev().take(20).map(|stamp| stamp.layer);
            assert_eq!(late.collect::<std::collections::BTreeSet<_>>().len(), 1, "one layer is forwarded");
        }
    });
}

#[test]
fn a_rebound_nat_is_followed_soon() {
    scenario(7, |world| {
        join_all(world, &Joiner::default(), 2, Conditions::CLEAN);
        world.run_until(Duration::from_secs(5));
        world.net.rebind(world.members[0].host);
        world.run_for(Duration::from_secs(6));
    });
}

#[test]
fn a_cut_heals_by_an_ice_restart() {
    scenario(8, |world| {
        join_all(world, &Joiner::default(), 2, Conditions::CLEAN);
        world.run_until(Duration::from_secs(5));
        world.partition(0, true);
        world.members[0].may_be_lost = true;
        world.run_for(Duration::from_secs(6));
        world.partition(0, false);
        world.run_for(Duration::from_secs(8));
        assert!(world.members[0].ice > 1, "the client has restarted ICE");
    });
}

#[test]
fn nothing_is_sent_to_one_who_is_not_heard_of() {
    scenario(10, |world| {
        join_all(world, &Joiner::default(), 2, Conditions::CLEAN);
        world.run_until(Duration::from_secs(5));
        world.partition(0, true);
        world.members[0].may_be_lost = true;
        let sent = |world: &World| world.engine().stats().rtp_out.audio.packets;
        // What the one who is cut off sends does not arrive: all that is sent is for them.
        let before = sent(world);
        world.run_for(Duration::from_secs(14));
        assert!(sent(world) > before + 600);
        world.run_for(Duration::from_secs(2));
        let before = sent(world);
        world.run_for(Duration::from_secs(3));
        assert_eq!(sent(world), before);
        world.partition(0, false);
        world.run_for(Duration::from_secs(10));
    });
}

#[test]
fn joining_again_replaces_the_older_session() {
    scenario(9, |world| {
        join_all(world, &Joiner::default(), 3, Conditions::CLEAN);
        // Cut off, the first one's peer lingers after its seat has become free: so the fourth takes that seat, but
        // another peer's place, and its second session gets a place before its first. That once hid the first.
        world.run_until(Duration::from_secs(2));
        world.partition(0, true);
        world.remove(0);
        world.run_for(Duration::from_millis(100));
        join_all(world, &Joiner::default(), 1, Conditions::CLEAN);
        world.run_for(Duration::from_secs(2));
        let again = Joiner { identity: Some("p3".to_owned()), ..Joiner::default() };
        world.join(&again, Conditions::CLEAN, Conditions::CLEAN);
        world.run_for(Duration::from_secs(5));
        let ended = world.members[3].ended.map(|(_, reason)| reason);
        assert_eq!(ended, Some(EndReason::DuplicateIdentity));
    });
}

#[test]
fn sound_and_picture_are_dated_by_the_publisher_s_clock() {
    let far = Conditions { delay: Duration::from_millis(80), jitter: Duration::from_millis(10), ..Conditions::CLEAN };
    scenario(9, move |world| {
        world.join(&Joiner::default(), far, far);
        // The picture takes a quarter of a second until it leaves; by its arrival it would be as much younger.
        for publication in &mut world.members[0].client.publications {
            if publication.kind == MediaKind::Video {
                publication.late = Duration::from_millis(250);
            }
        }
        join_all(world, &Joiner::default(), 2, Conditions::CLEAN);
        // One slot for each kind, which shows now this one, now that one.
        let narrow = Joiner { microphone: false, camera: false, audio_slots: 1, video_slots: 1, ..Joiner::default() };
        world.join(&narrow, far, far);
        world.run_until(Duration::from_secs(20));
        assert!(check_dating(world) >= 3 * 2, "everyone with slots enough sees and hears the two others");
    });
}
