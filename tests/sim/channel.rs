//! The client's side of the data channel `stube`: what it has been told, checked as it comes in.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::check::Faults;
use crate::client::RIDS;

/// The types of the contract; a client ignores others.
const KNOWN: [&str; 11] =
    ["welcome", "participant", "track", "slots", "speakers", "publish", "message", "moved", "leave", "error", "pong"];

/// Another participant, as told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub identity: String,
    pub tracks: BTreeMap<String, ToldTrack>,
}

/// A track, as told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldTrack {
    pub kind: String,
    pub source: String,
    pub muted: bool,
}

/// What a slot shows, as told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldSlot {
    pub track: Option<String>,
    pub participant: Option<String>,
    pub state: String,
    /// Place of the layer that flows: of its encoding, or the spatial layer.
    pub step: Option<usize>,
}

/// A chat message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub from: Option<String>,
    pub topic: String,
    pub data: Value,
}

/// Everything the channel has said so far.
#[derive(Debug, Default)]
pub struct Channel {
    pub welcomed_at: Option<Instant>,
    /// The client itself: its sid and its own tracks.
    pub own_sid: String,
    pub own_tracks: BTreeMap<String, ToldTrack>,
    /// The others, by sid.
    pub others: BTreeMap<String, Told>,
    /// By mid.
    pub slots: BTreeMap<String, ToldSlot>,
    /// Every track that was ever bound to a slot, by mid.
    pub bound: BTreeMap<String, Vec<String>>,
    pub messages: Vec<Heard>,
    pub errors: Vec<String>,
    pub pongs: Vec<Value>,
    /// Reason and action of `leave`.
    pub left: Option<(String, String)>,
    /// Tracks somebody's mute state of which has just been told: `(track, muted)`, for the model.
    pub mutes_told: Vec<(String, bool)>,
    /// Own encodings that the server has just said are needed or not: `(track, rid, active)`.
    pub needs_told: Vec<(String, String, bool)>,
    seq: Option<u64>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn parse_track(value: &Value) -> (String, ToldTrack) {
    let track = ToldTrack {
        kind: text(&value["kind"]),
        source: text(&value["source"]),
        muted: value["muted"].as_bool().unwrap_or_default(),
    };
    (text(&value["sid"]), track)
}

fn parse_tracks(value: &Value) -> BTreeMap<String, ToldTrack> {
    value.as_array().into_iter().flatten().map(parse_track).collect()
}

fn parse_step(layer: &Value) -> Option<usize> {
    let encoding = layer["rid"].as_str().and_then(|rid| RIDS.iter().position(|known| *known == rid));
    encoding.or_else(|| layer["spatial"].as_u64().map(|spatial| spatial as usize))
}

impl Channel {
    /// Takes one frame.
    pub fn receive(&mut self, data: &[u8], now: Instant, faults: &mut Faults) {
        let Ok(message) = serde_json::from_slice::<Value>(data) else {
            return faults.add("a frame on the data channel is not JSON");
        };
        if data.len() > 16 * 1024 {
            faults.add("a frame on the data channel is longer than 16 KiB");
        }
        let seq = message["seq"].as_u64();
        if seq.is_none() || self.seq.is_some_and(|last| seq != Some(last + 1)) {
            faults.add(format!("seq {seq:?} follows {:?}", self.seq));
        }
        self.seq = seq;
        let kind = text(&message["type"]);
        if self.left.is_some() {
            faults.add(format!("{kind} comes after leave, which is the last message"));
        }
        if (self.welcomed_at.is_none()) != (kind == "welcome") && kind != "leave" {
            faults.add(format!("welcome is the first message and comes once, not so {kind}"));
        }
        if !KNOWN.contains(&kind.as_str()) {
            faults.add(format!("the contract does not know the message {kind}"));
        }
        self.take(&kind, &message, now, faults);
    }

    fn take(&mut self, kind: &str, message: &Value, now: Instant, faults: &mut Faults) {
        match kind {
            // As a welcome, of another room.
            "welcome" | "moved" => {
                self.others.clear();
                self.welcome(message, now, faults);
            }
            "participant" => self.participant(message, faults),
            "track" => self.track(message, faults),
            "slots" => self.slots(message, faults),
            "publish" => self.publish(message, faults),
            "message" => self.messages.push(Heard {
                from: message["from"].as_str().map(str::to_owned),
                topic: text(&message["topic"]),
                data: message["data"].clone(),
            }),
            "error" => self.errors.push(text(&message["code"])),
            "pong" => self.pongs.push(message["at"].clone()),
            "leave" => {
                let (reason, action) = (text(&message["reason"]), text(&message["action"]));
                if reason.is_empty() || !["disconnect", "reconnect"].contains(&action.as_str()) {
                    faults.add(format!("leave lacks a reason or an action: {message}"));
                }
                self.left = Some((reason, action));
            }
            _ => {}
        }
    }

    fn welcome(&mut self, message: &Value, now: Instant, faults: &mut Faults) {
        self.welcomed_at = Some(now);
        self.own_sid = text(&message["participant"]["sid"]);
        if self.own_sid.is_empty() || message["session"].as_str().is_none() || !message["room"].is_object() {
            faults.add(format!("welcome lacks a field: {message}"));
        }
        self.own_tracks = parse_tracks(&message["participant"]["tracks"]);
        for entry in message["participants"].as_array().into_iter().flatten() {
            let sid = text(&entry["sid"]);
            if sid != self.own_sid {
                let told = Told { identity: text(&entry["identity"]), tracks: parse_tracks(&entry["tracks"]) };
                self.mutes_told.extend(told.tracks.iter().map(|(sid, track)| (sid.clone(), track.muted)));
                self.others.insert(sid, told);
            }
        }
    }

    fn participant(&mut self, message: &Value, faults: &mut Faults) {
        let participant = &message["participant"];
        let sid = text(&participant["sid"]);
        if sid == self.own_sid {
            return;
        }
        let known = self.others.contains_key(&sid);
        match message["event"].as_str() {
            Some("joined") if !known => {
                let told =
                    Told { identity: text(&participant["identity"]), tracks: parse_tracks(&participant["tracks"]) };
                self.others.insert(sid, told);
            }
            Some("left") if known => {
                self.others.remove(&sid);
            }
            Some("updated") if known => {}
            other => faults.add(format!("participant event {other:?} of one who is {known} known")),
        }
    }

    fn track(&mut self, message: &Value, faults: &mut Faults) {
        let owner = text(&message["participant"]);
        let (sid, track) = parse_track(&message["track"]);
        let tracks = if owner == self.own_sid {
            &mut self.own_tracks
        } else {
            match self.others.get_mut(&owner) {
                Some(told) => &mut told.tracks,
                None => return faults.add("a track event of a participant who is not there"),
            }
        };
        let known = tracks.contains_key(&sid);
        match message["event"].as_str() {
            // A client hears of its own first tracks in `welcome`, and perhaps once more here.
            Some("published") if !known || owner == self.own_sid => {
                tracks.insert(sid, track);
            }
            Some("updated") if known => {
                self.mutes_told.push((sid.clone(), track.muted));
                tracks.insert(sid, track);
            }
            Some("unpublished") if known => {
                tracks.remove(&sid);
            }
            other => faults.add(format!("track event {other:?} of a track that is {known} known")),
        }
    }

    fn publish(&mut self, message: &Value, faults: &mut Faults) {
        let track = text(&message["track"]);
        if !self.own_tracks.contains_key(&track) {
            faults.add(format!("publish names a track that is not the client's own: {message}"));
        }
        for layer in message["layers"].as_array().into_iter().flatten() {
            match (layer["rid"].as_str(), layer["active"].as_bool()) {
                (Some(rid), Some(active)) => self.needs_told.push((track.clone(), rid.to_owned(), active)),
                _ => faults.add(format!("publish lacks a field: {message}")),
            }
        }
    }

    fn slots(&mut self, message: &Value, faults: &mut Faults) {
        for entry in message["slots"].as_array().into_iter().flatten() {
            let told = ToldSlot {
                track: entry["track"].as_str().map(str::to_owned),
                participant: entry["participant"].as_str().map(str::to_owned),
                state: text(&entry["state"]),
                step: parse_step(&entry["layer"]),
            };
            let consistent = match told.state.as_str() {
                "live" | "paused" => told.track.is_some() && told.participant.is_some(),
                "empty" => told.track.is_none() && told.participant.is_none(),
                _ => false,
            };
            if !consistent {
                faults.add(format!("a slot contradicts itself: {entry}"));
            }
            if told.participant.as_ref() == Some(&self.own_sid) {
                faults.add("a slot shows the client its own track");
            }
            let mid = text(&entry["mid"]);
            if let Some(track) = &told.track {
                self.bound.entry(mid.clone()).or_default().push(track.clone());
            }
            self.slots.insert(mid, told);
        }
        let mut shown: Vec<_> = self.slots.values().filter_map(|slot| slot.track.as_ref()).collect();
        shown.sort();
        if shown.windows(2).any(|pair| pair[0] == pair[1]) {
            faults.add("one track is in two slots");
        }
    }
}

#[test]
fn publish_says_which_encodings_are_needed() {
    let track = serde_json::json!({"sid": "TR_1", "kind": "video", "source": "camera", "muted": false});
    let mut channel = Channel { own_tracks: [parse_track(&track)].into(), ..Channel::default() };
    let mut faults = Faults::default();
    let layers = serde_json::json!([{"rid": "q", "active": true}, {"rid": "f", "active": false}]);
    channel.publish(&serde_json::json!({"track": "TR_1", "layers": layers}), &mut faults);
    let told = |rid: &str, active| ("TR_1".to_owned(), rid.to_owned(), active);
    assert_eq!(channel.needs_told, [told("q", true), told("f", false)]);
    assert!(faults.is_empty());
    channel.publish(&serde_json::json!({"track": "TR_2", "layers": []}), &mut faults);
    assert!(!faults.is_empty(), "it is not the client's own");
}
