//! What must be so once the network is well again: everyone hears, sees and knows what they should.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use str0m::media::MediaKind;

use crate::check::Faults;
use crate::member::{Life, Member};
use crate::shards::LOUDEST;
use crate::stamp::TrackKey;
use crate::world::World;

/// A track flows if it was good to hear or see so recently.
const RECENT: Duration = Duration::from_secs(1);

/// Checks what every member hears, sees and has been told, now.
pub fn check_liveness(world: &mut World) {
    let mut faults = std::mem::take(&mut world.faults);
    for index in 0..world.members.len() {
        let member = &world.members[index];
        faults.about(member.name());
        if member.life == Life::Asking && member.ended.is_none() {
            faults.add("is still waiting for an answer");
        }
        if !member.is_in() {
            continue;
        }
        if member.client.closed || member.joined_at.is_none() || member.client.connected_at.is_none() {
            faults.add("is not connected");
            continue;
        }
        check_flow(world, index, MediaKind::Audio, &mut faults);
        check_flow(world, index, MediaKind::Video, &mut faults);
        check_roster(world, index, &mut faults);
        check_slots(world, index, &mut faults);
    }
    check_messages(world, &mut faults);
    world.faults = faults;
}

/// Those whom the server may still take for present, though they are not.
fn has_ghosts(world: &World, room: usize) -> bool {
    ghosts(world, room).next().is_some()
}

fn ghosts(world: &World, room: usize) -> impl Iterator<Item = &Member> {
    world.members.iter().filter(move |member| member.room == room && member.is_ghost())
}

/// How much sound those have published that others could still be sent.
fn ghost_sounds(world: &World, room: usize) -> usize {
    let sounds = ghosts(world, room).flat_map(|ghost| &ghost.client.publications);
    sounds.filter(|sound| sound.kind == MediaKind::Audio && !sound.muted).count()
}

fn others(world: &World, index: usize) -> impl Iterator<Item = &Member> {
    let me = &world.members[index];
    let room = me.room;
    world.members.iter().enumerate().filter(move |(other, m)| *other != index && m.room == room).map(|(_, m)| m)
}

/// The tracks a member could get, that carry media now.
fn offered(world: &World, index: usize, kind: MediaKind) -> Vec<(TrackKey, String, &'static str)> {
    let mut offered = Vec::new();
    for other in others(world, index).filter(|other| other.is_present()) {
        for (number, publication) in other.client.publications.iter().enumerate() {
            let sid = world.model.published.get(&publication.track);
            if publication.kind == kind
                && publication.active
                && !publication.muted
                && let Some(sid) = sid
            {
                offered.push((publication.track, sid.clone(), other.client.source_of(number)));
            }
        }
    }
    offered
}

/// Whether there are more tracks, muted or not, than slots.
fn crowded(world: &World, index: usize, kind: MediaKind) -> bool {
    let slots = world.members[index].client.slots.iter().filter(|slot| slot.kind == kind).count();
    let there = others(world, index).filter(|other| other.ended.is_none()).flat_map(|other| &other.client.publications);
    there.filter(|publication| publication.kind == kind).count() > slots
}

/// Every wanted track flows, or every slot is full.
fn check_flow(world: &World, index: usize, kind: MediaKind, faults: &mut Faults) {
    let member = &world.members[index];
    let mut wanted = offered(world, index, kind);
    let explicit = match (&member.want, kind) {
        (Some(want), MediaKind::Video) => Some(&want.video),
        (Some(want), MediaKind::Audio) => want.audio.as_ref(),
        (None, _) => None,
    };
    match explicit {
        Some(sids) => wanted.retain(|(_, sid, _)| sids.contains(sid)),
        // Unasked, screens get the slots that all the cameras leave, the muted ones too.
        None if crowded(world, index, kind) => wanted.retain(|(_, _, source)| *source != "screen_share"),
        None => {}
    }
    if !member.grants.can_subscribe {
        wanted.clear();
    }
    let slots: Vec<_> = member.client.slots.iter().filter(|slot| slot.kind == kind).collect();
    let good = |track: &TrackKey| {
        slots.iter().any(|slot| slot.last_good.get(track).is_some_and(|last| *last + RECENT > world.now))
    };
    let flowing = wanted.iter().filter(|(track, _, _)| good(track)).count();
    let mut due = wanted.len().min(slots.len());
    if kind == MediaKind::Audio && explicit.is_none() {
        // No more are heard at once, and who is gone without a word may keep a place until someone else speaks.
        due = due.min(LOUDEST.saturating_sub(ghost_sounds(world, member.room)));
    }
    // Dead tracks may hold slots that living ones would get, and so may muted ones that were asked for by name.
    let contested = crowded(world, index, kind) && (explicit.is_some() || has_ghosts(world, member.room));
    if flowing < due && !contested {
        let missing: Vec<_> = wanted.iter().filter(|(track, _, _)| !good(track)).map(|(track, _, _)| track).collect();
        let told = slots.iter().filter_map(|slot| member.client.channel.slots.get(&slot.mid.to_string()));
        let shown: Vec<_> = told.filter_map(|slot| Some((slot.track.as_ref()?, &slot.state))).collect();
        faults.add(format!("{kind:?}: {flowing} of {due} wanted tracks flow, not {missing:?}; slots: {shown:?}"));
    }
}

/// A client has been told of everyone who is there, of nobody else, and of all their tracks.
fn check_roster(world: &World, index: usize, faults: &mut Faults) {
    let member = &world.members[index];
    if member.client.channel.welcomed_at.is_none() {
        return faults.add("was never welcomed");
    }
    let ghosts: BTreeSet<_> =
        others(world, index).filter(|other| other.is_ghost()).map(|other| other.participant.to_string()).collect();
    let tracks_of = |other: &Member| -> BTreeMap<String, (String, bool)> {
        let publications = other.client.publications.iter().enumerate();
        let published = publications.filter_map(|(number, publication)| {
            let sid = world.model.published.get(&publication.track)?;
            Some((sid.clone(), (other.client.source_of(number).to_owned(), publication.muted)))
        });
        published.collect()
    };
    let truth: BTreeMap<_, _> = others(world, index)
        .filter(|other| other.is_present() && !other.grants.hidden)
        .map(|other| (other.participant.to_string(), tracks_of(other)))
        .collect();
    let told: BTreeMap<_, BTreeMap<_, _>> = member
        .client
        .channel
        .others
        .iter()
        .filter(|(sid, _)| !ghosts.contains(*sid))
        .map(|(sid, told)| {
            let tracks = told.tracks.iter().map(|(sid, track)| (sid.clone(), (track.source.clone(), track.muted)));
            (sid.clone(), tracks.collect())
        })
        .collect();
    let sids: BTreeSet<_> = told.keys().chain(truth.keys()).collect();
    for sid in sids.into_iter().filter(|sid| told.get(*sid) != truth.get(*sid)) {
        let name =
            world.members.iter().find(|other| other.participant.to_string() == *sid).map(|other| &other.identity);
        faults.add(format!("was told of {name:?} {:?}, but it is {:?}", told.get(sid), truth.get(sid)));
    }
    for (number, publication) in member.client.publications.iter().enumerate() {
        if publication.active && member.client.own_track(number).is_none() {
            faults.add(format!("was never told the name of its own {}", member.client.source_of(number)));
        }
    }
}

/// The slots a client was told of are its own, and say what they show.
fn check_slots(world: &World, index: usize, faults: &mut Faults) {
    let member = &world.members[index];
    let mids: BTreeSet<_> = member.client.slots.iter().map(|slot| slot.mid.to_string()).collect();
    for (mid, slot) in &member.client.channel.slots {
        if !mids.contains(mid) {
            faults.add(format!("was told of {mid}, which is not a slot"));
        }
        let Some(track) = slot.track.as_ref().and_then(|sid| world.model.tracks.get(sid)) else { continue };
        let publication = &world.members[track.client].client.publications[track.number];
        if publication.muted != (slot.state == "paused") && world.members[track.client].is_present() {
            faults.add(format!("slot {mid} is told {}, but the track's mute is {}", slot.state, publication.muted));
        }
    }
}

/// What was said reached everyone it was meant for, once, in order, and nobody else.
fn check_messages(world: &World, faults: &mut Faults) {
    for (index, listener) in world.members.iter().enumerate() {
        let Some(welcomed) = listener.client.channel.welcomed_at else { continue };
        faults.about(listener.name());
        for (other, speaker) in world.members.iter().enumerate() {
            let from_speaker = |heard: &&crate::channel::Heard| {
                heard.from.as_deref() == Some(&speaker.identity) && heard.data["member"] == other
            };
            let heard: Vec<u64> = listener
                .client
                .channel
                .messages
                .iter()
                .filter(from_speaker)
                .filter_map(|heard| heard.data["number"].as_u64())
                .collect();
            let meant = speaker.said.iter().filter(|said| {
                other != index
                    && speaker.room == listener.room
                    && (said.to.is_empty() || said.to.contains(&listener.identity))
            });
            let meant: Vec<(u64, bool)> = meant.map(|said| (said.number, said.at > welcomed)).collect();
            if heard.windows(2).any(|pair| pair[0] >= pair[1]) {
                faults.add(format!("heard messages of {} out of order: {heard:?}", speaker.identity));
            }
            if heard.iter().any(|number| meant.iter().all(|(meant, _)| meant != number)) {
                faults.add(format!("heard a message of {} that was not meant for it", speaker.identity));
            }
            // Of one who went, or stood behind a cut, the last words may be lost.
            let settled = speaker.is_present() && listener.is_present();
            if settled && meant.iter().any(|(number, due)| *due && !heard.contains(number)) {
                faults.add(format!("heard {heard:?} of {}, who said {meant:?}", speaker.identity));
            }
        }
    }
}
