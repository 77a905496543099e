//! The invariants of forwarding, checked when all is over, when every packet's fate is known.

use std::time::{Duration, Instant};

use str0m::media::MediaKind;
use stube::media::meter::DropReason;

use crate::check::Faults;
use crate::decoder::Slot;
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
    let mut left_out = Vec::new();
    for index in 0..world.members.len() {
        let name = world.members[index].name();
        faults.about(name.as_str());
        check_keyframe_requests(world, index, &mut faults);
        let slots: Vec<_> = world.members[index].client.slots.iter().map(|slot| slot.ssrc).collect();
        for (place, ssrc) in slots.into_iter().enumerate() {
            let Some(ssrc) = ssrc else { continue };
            let mid = world.members[index].client.slots[place].mid;
            faults.about(format!("{name}, slot {mid}"));
            let empty = Stream::default();
            let stream = world.tap.out.get(&(index, ssrc)).unwrap_or(&empty);
            check_timestamps(&world.members[index].client.slots[place], stream, &mut faults);
            check_isolation(world, index, place, stream, &mut faults);
            check_continuity(world, &world.members[index].client.slots[place], stream, &mut left_out, &mut faults);
        }
    }
    check_left_out(world, &left_out, &mut faults);
    world.faults = faults;
}

/// What the engine left out it must have counted: too slow a network, a slot that changed before the packet left, or
/// a client not heard of.
fn check_left_out(world: &World, left_out: &[String], faults: &mut Faults) {
    let drops = world.stats().drops;
    use DropReason::*;
    let counted = [SubscriberTooSlow, Expired, SlotChanged, SubscriberNotReady];
    let counted: u64 = counted.into_iter().map(|reason| drops.of(reason)).sum();
    if left_out.len() as u64 > counted {
        faults.about(format!("{} left out, {counted} counted", left_out.len()));
        left_out.iter().for_each(|one| faults.add(one));
    }
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
    for (sequence, stamp) in &slot.log {
        let track = stamp.track;
        let publisher = &world.members[track.client];
        if track.client == index || publisher.identity == member.identity {
            faults.add("hears themself");
        }
        if publisher.room != member.room {
            faults.add(format!("hears {} through the wall", publisher.name()));
        }
        if !member.grants.can_subscribe || !publisher.grants.can_publish {
            faults.add(format!("hears {} without permission", publisher.name()));
        }
        let Some(emitted) = stream.emitted.get(sequence) else {
            faults.add(format!("received packet {sequence}, which was never sent"));
            continue;
        };
        if let Some((why, since)) = world.model.silent_because(track, emitted.at) {
            let (at, since) = (emitted.at - world.start, since - world.start);
            faults.add(format!("hears {} ({}) at {at:?}, but {why} since {since:?}", publisher.name(), track.number));
        }
        if member.is_present() && !told.contains(&&track) {
            faults.add(format!("shows {} ({}), but was never told so", publisher.name(), track.number));
        }
    }
}

/// Gaps out are only gaps in, and a decoder is never left without knowing.
fn check_continuity(world: &World, slot: &Slot, stream: &Stream, left_out: &mut Vec<String>, faults: &mut Faults) {
    let log: Vec<(u64, Stamp)> = slot.log.iter().map(|(sequence, stamp)| (*sequence, *stamp)).collect();
    let keeps_distance = |(before, earlier): &(u64, Stamp), (after, later): &(u64, Stamp)| {
        earlier.distance(later) == Some((after - before) as i64)
    };
    let mut last: Option<&(u64, Stamp)> = None;
    for run in log.chunk_by(keeps_distance) {
        let [first, ..] = run else { continue };
        // Whether the engine has sent nothing between the last run and this one, so that they truly meet here.
        let unseen = last.map_or(0, |(sequence, _)| sequence + 1);
        let meets = stream.emitted.range(unseen..first.0).next().is_none();
        if meets {
            check_seam(slot, last, first, faults);
        }
        check_run(world, stream, run, meets, left_out);
        last = run.last();
    }
}

fn left_at(stream: &Stream, sequence: u64) -> Option<Instant> {
    stream.emitted.get(&sequence).map(|emitted| emitted.at)
}

/// Within a run, packets of one source whose numbers keep their distance, what was left out must have been missing
/// before.
fn check_run(world: &World, stream: &Stream, run: &[(u64, Stamp)], from_start: bool, left_out: &mut Vec<String>) {
    let ((first, _), (last, _)) = (run[0], run[run.len() - 1]);
    let (started, ended) = (left_at(stream, first).filter(|_| from_start), left_at(stream, last));
    for pair in run.windows(2) {
        let [(before, stamp), (after, _)] = pair else { continue };
        for missing in (before + 1..*after).filter(|missing| !stream.emitted.contains_key(missing)) {
            let serial = stamp.serial + (missing - before) as u32;
            let Some(at) = delivered_at(world, *stamp, serial) else { continue };
            // The rest of a key frame may overtake its first packet, which the slot waits for: at the start of a run,
            // and wherever a slot goes on after its track was muted.
            let waited_until = if stamp.keyframe || before + 1 < missing { left_at(stream, missing - 1) } else { None };
            let too_early =
                started.is_none_or(|started| at <= started) || waited_until.is_some_and(|until| at <= until);
            let too_late = ended.is_none_or(|ended| at > ended) || world.model.may_be_silent(stamp.track, at);
            if !too_early && !too_late {
                let (track, at) = (stamp.track, at - world.start);
                left_out.push(format!("{missing} is left out, though packet {serial} of {track:?} came at {at:?}"));
            }
        }
    }
}

/// Where a source begins, or goes on after something was left out, only a key frame lets a decoder follow.
fn check_seam(slot: &Slot, last: Option<&(u64, Stamp)>, first: &(u64, Stamp), faults: &mut Faults) {
    let (sequence, stamp) = first;
    let starts_decoding = slot.kind == MediaKind::Audio || (stamp.keyframe && stamp.packet == 0);
    if !starts_decoding {
        faults.add(format!("{sequence} goes on without a key frame: {stamp:?} after {last:?}"));
    }
    let Some((before, earlier)) = last else { return };
    let gap_out = (sequence - before) as i64;
    if let Some(gap_in) = earlier.distance(stamp).filter(|gap_in| *gap_in < gap_out) {
        faults.add(format!("{before} to {sequence}: {gap_out} packets out of {gap_in} packets in"));
    }
}

/// When a source packet reached the engine in the ordinary way, if it did.
fn delivered_at(world: &World, stamp: Stamp, serial: u32) -> Option<Instant> {
    let publication = &world.members[stamp.track.client].client.publications[stamp.track.number];
    let layer = &publication.layers[stamp.layer];
    let sequence = (layer.first_sequence + u64::from(serial)) as u16;
    world.tap.delivered.get(&(stamp.track.client, layer.ssrc?))?.get(&sequence).copied()
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
                let same = !publication.republished.iter().any(|again| (pair[0]..=pair[1]).contains(again));
                if same && pair[1] - pair[0] + TOLERANCE < interval {
                    faults.add(format!("asked for key frames twice within {:?}", pair[1] - pair[0]));
                }
            }
        }
    }
}

/// Every copy that was due was sent, or dropped for a reason; and what counts as sent was sent.
pub fn check_accounts(world: &mut World) {
    let stats = world.stats();
    let sent = stats.rtp_out.audio.packets + stats.rtp_out.video.packets;
    let reasons = DropReason::ALL.into_iter().filter(|reason| reason.is_of_a_copy());
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
