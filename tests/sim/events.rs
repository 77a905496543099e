//! What the world makes of the engine's notices, and what members do by themselves.

use std::time::Duration;

use stube::command::{Command, EndReason, IceTag, Notice};
use stube::ids::Identity;

use crate::client::Change;
use crate::member::Life;
use crate::stamp::TrackKey;
use crate::world::{What, World};

/// A client that hears nothing for so long restarts ICE, as the client module does.
const SILENCE: Duration = Duration::from_secs(4);
const RESTART_INTERVAL: Duration = Duration::from_secs(5);

impl World {
    /// The engine says what happened by itself.
    pub fn notice(&mut self, notice: Notice) {
        self.trace.event(self.now - self.start, 0, &format!("{notice:?}"));
        match notice {
            Notice::ParticipantJoined { session, participant, .. } => {
                if let Some(member) = self.members.iter_mut().find(|member| member.session == session) {
                    if self.renamed.take_if(|index| *index == member.client.config.index).is_some() {
                        member.participant = participant;
                    }
                    if member.joined_at.replace(self.now).is_some() {
                        self.faults.about(member.name()).add("joined where it had not left yet");
                    }
                }
            }
            Notice::SessionEnded { session, reason, usage, .. } => {
                self.bills.add(session, &usage);
                let Some(index) = self.members.iter().position(|member| member.session == session) else {
                    return self.faults.about("engine").add("an unknown session has ended");
                };
                self.check_end(index, reason);
                let member = &mut self.members[index];
                if let Some(fault) = self.bills.fault(session) {
                    self.faults.about(member.name()).add(fault);
                }
                if member.ended.replace((self.now, reason)).is_some() {
                    self.faults.about(member.name()).add("its session has ended twice");
                }
                for publication in &member.client.publications {
                    self.model.silence(publication.track, "its publisher has left", self.now);
                    self.model.published.remove(&publication.track);
                }
            }
            Notice::TrackPublished { participant, track, .. } => {
                let Some(index) = self.members.iter().position(|member| member.participant == participant) else {
                    return self.faults.about("engine").add("an unknown participant publishes");
                };
                let source = serde_json::to_value(track.source).ok();
                let source = source.as_ref().and_then(|source| source.as_str()).unwrap_or_default().to_owned();
                let Some(number) = self.members[index].publication_of(&source) else {
                    return self.faults.about("engine").add(format!("{source} is published by nobody"));
                };
                let key = TrackKey { client: index, number };
                self.members[index].mute_known.insert(number, track.muted);
                self.model.end_doubt(key, self.now);
                self.model.tracks.insert(track.sid.to_string(), key);
                self.model.published.insert(key, track.sid.to_string());
            }
            Notice::TrackUnpublished { track, .. } => {
                let sid = track.to_string();
                if let Some(key) = self.model.tracks.get(&sid).copied() {
                    self.model.published.retain(|_, published| *published != sid);
                    self.model.doubt(key, self.now);
                    self.model.silence(key, "it is not published", self.now);
                }
            }
            Notice::SessionMoved { session, usage, .. } => {
                self.bills.add(session, &usage);
                self.bills.moved.insert(session);
                if let Some(member) = self.members.iter_mut().find(|member| member.session == session) {
                    // Known of it again when it has come to the other room.
                    member.joined_at = None;
                }
            }
            Notice::CallStarted { .. } | Notice::CallEnded { .. } | Notice::RoomFinished { .. } => {}
        }
    }

    /// Somebody has been told that a track is muted or not: so the server knows.
    pub fn mute_seen(&mut self, sid: &str, muted: bool) {
        let Some(key) = self.model.tracks.get(sid).copied() else { return };
        let member = &mut self.members[key.client];
        if member.client.publications[key.number].muted != muted {
            return;
        }
        member.mute_known.insert(key.number, muted);
        if muted {
            self.model.silence(key, "it is muted", self.now);
        } else {
            self.model.end_doubt(key, self.now);
        }
    }

    /// Mutes or unmutes, if the server is known to know the last change.
    pub fn mute(&mut self, index: usize, number: usize, muted: bool) -> bool {
        let member = &self.members[index];
        let publication = &member.client.publications[number];
        if publication.muted == muted || !publication.active || member.mute_known.get(&number) == Some(&muted) {
            return false;
        }
        let track = publication.track;
        if !self.with(index, |member, now, faults| member.client.mute(number, muted, now, faults)) {
            return false;
        }
        if muted {
            self.model.doubt(track, self.now);
        } else {
            self.model.end_silence(track, "it is muted", self.now);
        }
        true
    }

    /// Makes a further offer over HTTP, if none is underway.
    pub fn offer(&mut self, index: usize, change: Change) -> bool {
        if !self.members[index].is_in() {
            return false;
        }
        let Some(offer) = self.with(index, |member, now, _| member.client.further_offer(change, now)) else {
            return false;
        };
        if let Change::Republish(mid) = change {
            let publications = &self.members[index].client.publications;
            let track = publications.iter().find(|publication| publication.mid == mid).map(|found| found.track);
            self.model.end_silence(track.expect("it was published once"), "it is not published", self.now);
        }
        let member = &self.members[index];
        let (session, expected) = (member.session, IceTag::Number(member.ice));
        self.order(index, What::Offer(change), Command::Offer { session, offer, expected });
        true
    }

    /// Restarts ICE where a client has heard nothing for long.
    pub fn watch_path(&mut self, index: usize) {
        let member = &self.members[index];
        let silent = member.client.last_received.is_some_and(|last| self.now > last + SILENCE);
        let again = member.restarted_at.is_none_or(|last| self.now > last + RESTART_INTERVAL);
        if member.is_present() && silent && again && self.offer(index, Change::IceRestart) {
            self.members[index].restarted_at = Some(self.now);
        }
    }

    /// Leaves: by closing the connection, by an HTTP request, or by both, as browsers do.
    pub fn leave(&mut self, index: usize, closes: bool, asks: bool) {
        let member = &mut self.members[index];
        if !member.is_in() {
            return;
        }
        member.life = Life::Leaving;
        let session = member.session;
        if closes {
            self.with(index, |member, now, faults| member.client.close(now, faults));
        }
        if asks {
            self.order(index, What::Close, Command::CloseSession { session });
        }
    }

    /// Control removes a member.
    pub fn remove(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.removed = true;
        let (room, identity) = (self.rooms[member.room], Identity::from(member.identity.as_str()));
        self.control(Command::RemoveParticipant { room, identity, reason: EndReason::ParticipantRemoved });
    }

    /// Stops without a word.
    pub fn crash(&mut self, index: usize) {
        if matches!(self.members[index].life, Life::In | Life::Asking) {
            self.members[index].life = Life::Crashed;
        }
    }

    /// Cuts a member off the network, or ends that.
    pub fn partition(&mut self, index: usize, cut: bool) {
        let member = &mut self.members[index];
        member.partitioned = cut;
        self.net.set_partitioned(member.host, cut);
    }
}
