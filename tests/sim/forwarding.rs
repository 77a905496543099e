//! The invariants of forwarding, checked when all is over, when every packet's fate is known.

use std::time::{Duration, Instant};

use str0m::media::MediaKind;

use crate::check::Faults;
use crate::decoder::{Got, Slot};
use crate::stamp::Stamp;
use crate::tap::Stream;
use crate::world::World;

/// Keyframe requests: least time between two, as the design sets it, and how far timers may be off.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_LOWEST: Duration = Duration::from_millis(500);
const TOLERANCE: Duration = Duration::from_millis(10);
/// How much faster than real time timestamps may run: as much as packets can be held up underway.
const HELD_UP_MS: i64 = 3000;

/// Checks everything that has been forwarded.
pub fn check_forwarding(world: &mut World) {
    let mut faults = std::mem::take(&mut world.faults);
    for index in 0..world.members.len() {
        let identity = world.members[index].identity.clone();
        faults.about(identity.as_str());
        check_keyframe_requests(world, index, &mut faults);
        let slots: Vec<_> = world.members[index].client.slots.iter().map(|slot| slot.ssrc).collect();
        for (place, ssrc) in slots.into_iter().enumerate() {
            let Some(ssrc) = ssrc else { continue };
            let mid = world.members[index].client.slots[place].mid;
            faults.about(format!("{identity}, slot {mid}"));
            let empty = Stream::default();
            let stream = world.tap.out.get(&(index, ssrc)).unwrap_or(&empty);
            check_timestamps(&world.members[index].client.slots[place], stream, &mut faults);
            check_isolation(world, index, place, stream, &mut faults);
            check_continuity(world, &world.members[index].client.slots[place], stream, &mut faults);
        }
    }
    world.faults = faults;
}

/// Timestamps never run backwards on a slot, whatever flows through it, nor far ahead of time.
fn check_timestamps(slot: &Slot, stream: &Stream, faults: &mut Faults) {
    let per_ms = if slot.kind == MediaKind::Audio { 48 } else { 90 };
    let mut last: Option<(u64, u32, Instant)> = None;
    for (sequence, emitted) in &stream.emitted {
        if let Some((before, timestamp, at)) = last {
            let step = i64::from(emitted.timestamp.wrapping_sub(timestamp) as i32);
            if step < 0 {
                faults.add(format!("the timestamp falls by {} from packet {before} to {sequence}", -step));
            }
            let elapsed = emitted.at.saturating_duration_since(at).as_millis() as i64;
            if step / per_ms > elapsed + HELD_UP_MS {
                faults.add(format!("in {elapsed} ms the timestamp rises by {} ms", step / per_ms));
            }
        }
        last = Some((*sequence, emitted.timestamp, emitted.at));
    }
}

/// Nothing crosses rooms; nobody hears themself, the muted, the unpermitted or the departed; slots tell the truth.
fn check_isolation(world: &World, index: usize, place: usize, stream: &Stream, faults: &mut Faults) {
    let member = &world.members[index];
    let slot = &member.client.slots[place];
    let told = member.client.channel.bound.get(&slot.mid.to_string());
    let told: Vec<_> = told.into_iter().flatten().filter_map(|sid| world.model.tracks.get(sid)).collect();
    for (sequence, got) in &slot.log {
        let track = got.stamp.track;
        let publisher = &world.members[track.client];
        if track.client == index || publisher.identity == member.identity {
            faults.add("hears themself");
        }
        if publisher.room != member.room {
            faults.add(format!("hears {} through the wall", publisher.identity));
        }
        if !member.grants.can_subscribe || !publisher.grants.can_publish {
            faults.add(format!("hears {} without permission", publisher.identity));
        }
        let Some(emitted) = stream.emitted.get(sequence) else {
            faults.add(format!("received packet {sequence}, which was never sent"));
            continue;
        };
        if let Some(why) = world.model.silent_because(track, emitted.at) {
            let at = emitted.at - world.start;
            faults.add(format!("hears {} ({}) at {at:?}, but {why}", publisher.identity, track.number));
        }
        if member.is_present() && !told.contains(&&track) {
            faults.add(format!("shows {} ({}), but was never told so", publisher.identity, track.number));
        }
    }
}

/// Gaps out are only gaps in, and a decoder is never left without knowing: see [`check_pair`].
fn check_continuity(world: &World, slot: &Slot, stream: &Stream, faults: &mut Faults) {
    let first = slot.log.first_key_value();
    if let Some((sequence, got)) = first
        && stream.emitted.first_key_value().is_some_and(|(emitted, _)| emitted == sequence)
        && !starts_decoding(slot, &got.stamp)
    {
        faults.add("the first packet is not the start of a key frame");
    }
    for ((before, earlier), (after, later)) in slot.log.iter().zip(slot.log.iter().skip(1)) {
        check_pair(world, slot, stream, (*before, earlier), (*after, later), faults);
    }
}

fn starts_decoding(slot: &Slot, stamp: &Stamp) -> bool {
    slot.kind == MediaKind::Audio || (stamp.keyframe && stamp.packet == 0)
}

/// Two packets that were received one after the other, by sequence number.
fn check_pair(
    world: &World,
    slot: &Slot,
    stream: &Stream,
    (before, earlier): (u64, &Got),
    (after, later): (u64, &Got),
    faults: &mut Faults,
) {
    let gap_out = after - before;
    let same = (earlier.stamp.track, earlier.stamp.layer) == (later.stamp.track, later.stamp.layer);
    let gap_in = i64::from(later.stamp.serial) - i64::from(earlier.stamp.serial);
    if same && gap_in < gap_out as i64 {
        return faults.add(format!("{before} to {after}: {gap_out} packets out of {gap_in} packets in"));
    }
    let unbroken = same && gap_in == gap_out as i64;
    if unbroken {
        // The same distance on both sides: whatever is missing in between must have been missing before.
        for missing in before + 1..after {
            let serial = earlier.stamp.serial + (missing - before) as u32;
            if !stream.emitted.contains_key(&missing) && was_delivered(world, earlier.stamp, serial) {
                faults.add(format!("packet {missing} is left out, though the server received it"));
            }
        }
        return;
    }
    // Something was left out, or another source begins. Only where nothing is lost in between is this pair the seam.
    let lost = stream.emitted.range(before + 1..after).next().is_some();
    if !lost && !starts_decoding(slot, &later.stamp) {
        faults.add(format!(
            "{before} to {after}: goes on without a key frame; {:?} then {:?}",
            earlier.stamp, later.stamp
        ));
    }
}

/// Whether a source packet reached the engine in the ordinary way.
fn was_delivered(world: &World, stamp: Stamp, serial: u32) -> bool {
    let publication = &world.members[stamp.track.client].client.publications[stamp.track.number];
    let layer = &publication.layers[stamp.layer];
    let sequence = (layer.first_sequence + u64::from(serial)) as u16;
    let delivered = layer.ssrc.and_then(|ssrc| world.tap.delivered.get(&(stamp.track.client, ssrc)));
    delivered.is_some_and(|delivered| delivered.contains(&sequence))
}

/// At most one keyframe request an encoding and interval goes upstream, however many ask.
fn check_keyframe_requests(world: &World, index: usize, faults: &mut Faults) {
    let client = &world.members[index].client;
    for publication in &client.publications {
        for (place, layer) in publication.layers.iter().enumerate() {
            let interval = if place == 0 && publication.layers.len() > 1 { INTERVAL_LOWEST } else { INTERVAL };
            let of_layer = |asked: &&crate::client::Asked| asked.mid == publication.mid && asked.rid == layer.rid;
            let mut times: Vec<_> = client.asked.iter().filter(of_layer).map(|asked| asked.sent_at).collect();
            times.sort();
            for pair in times.windows(2) {
                if pair[1] - pair[0] + TOLERANCE < interval {
                    faults.add(format!("asked for key frames twice within {:?}", pair[1] - pair[0]));
                }
            }
        }
    }
}

/// Every copy that was due was sent, or dropped for a reason; and what counts as sent was sent.
pub fn check_accounts(world: &mut World) {
    let stats = world.engine.stats();
    let sent = stats.rtp_out.audio.packets + stats.rtp_out.video.packets;
    let reasons = stube::media::meter::DropReason::ALL.into_iter().filter(|reason| reason.is_of_a_copy());
    let dropped: u64 = reasons.map(|reason| stats.drops.of(reason)).sum();
    let faults = world.faults.about("accounts");
    if stats.copies_due != sent + dropped {
        faults
            .add(format!("{} copies due, but {sent} sent and {dropped} dropped: {:?}", stats.copies_due, stats.drops));
    }
    if world.tap.forwarded > sent {
        faults.add(format!("{} packets left, but only {sent} are counted", world.tap.forwarded));
    }
}
