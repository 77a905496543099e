//! `stube participants`: list, remove, mute, unmute, move.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::{Failure, Server};
use super::{Access, json, text};
use crate::config::{Config, ConfigError};
use crate::control::clock::Clock;
use crate::ids::TrackId;
use crate::ledger::record::UnixMs;
use crate::table;

/// The tracks that `mute` means unless told otherwise.
const MICROPHONE: &str = "microphone";
/// All tracks of a participant.
const ALL: &str = "all";

/// `stube participants`
#[derive(Debug, Args)]
pub struct Participants {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List who is in a room.
    List { room: String },
    /// Remove somebody from a room; their token lets them come back while it is valid.
    Remove { room: String, identity: String },
    /// Mute what somebody publishes.
    Mute(Tracks),
    /// Unmute it, where `rooms.allow_remote_unmute` allows that.
    Unmute(Tracks),
    /// Move somebody to another room, with the same session.
    Move {
        room: String,
        identity: String,
        /// The other room.
        to: String,
    },
}

#[derive(Debug, Args)]
struct Tracks {
    room: String,
    identity: String,
    /// microphone, camera, screen_share, screen_share_audio, unknown, all, or the id of a track (TR_…).
    #[arg(default_value = MICROPHONE)]
    track: String,
}

impl Participants {
    pub(super) async fn run(self, config: Result<Config, ConfigError>) -> Result<String, Failure> {
        let server = Server::public(&self.access, config)?;
        let as_json = self.access.json;
        let (found, said) = match self.command {
            Command::List { room } => {
                let found = server.list(&["v1", "rooms", &room, "participants"], "participants").await?;
                let now = UnixMs(Clock::start().unix_seconds() * 1000);
                let said = listed(&found, now);
                (found, said)
            }
            Command::Remove { room, identity } => {
                let found = server.order(Method::DELETE, &path(&room, &identity), None).await?;
                (found, line(&format!("{identity} is removed from {room}")))
            }
            Command::Move { room, identity, to } => {
                let path = ["v1", "rooms", &room, "participants", &identity, "move"];
                let found = server.order(Method::POST, &path, Some(&json!({"room": to}))).await?;
                (found, line(&format!("{identity} is in {to} now")))
            }
            Command::Mute(tracks) => tracks.mute(&server, true).await?,
            Command::Unmute(tracks) => tracks.mute(&server, false).await?,
        };
        Ok(match as_json {
            // What the API has nothing to say about.
            true if found.is_null() => String::new(),
            true => json(&found),
            false => said,
        })
    }
}

/// What was done.
fn line(said: &str) -> String {
    table::plain(said) + "\n"
}

/// The resource of a participant.
fn path<'a>(room: &'a str, identity: &'a str) -> [&'a str; 5] {
    ["v1", "rooms", room, "participants", identity]
}

impl Tracks {
    async fn mute(self, server: &Server, muted: bool) -> Result<(Value, String), Failure> {
        let Self { room, identity, track } = &self;
        let mut participant = Value::Null;
        let wanted = match track.parse::<TrackId>() {
            Ok(_) => vec![track.clone()],
            Err(_) => {
                participant = server.get(&path(room, identity)).await?;
                chosen(&participant, track)
            }
        };
        if wanted.is_empty() {
            let published = sources(&participant);
            let has = if published.is_empty() { "nothing".to_owned() } else { published.join(", ") };
            let said = table::plain(&format!("{identity} publishes no {track}, but {has}"));
            return Err(Failure::Unexpected(said));
        }
        for sid in wanted {
            let path = [&path(room, identity)[..], &["tracks", &sid, "muted"]].concat();
            participant = server.order(Method::PUT, &path, Some(&json!({"muted": muted}))).await?;
        }
        let word = if muted { "muted" } else { "unmuted" };
        Ok((participant, line(&format!("{track} of {identity} in {room}: {word}"))))
    }
}

/// The ids of the tracks that a word of the command line means.
fn chosen(participant: &Value, word: &str) -> Vec<String> {
    let tracks = participant["tracks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let means = |track: &&Value| word == ALL || text(track, "source") == word;
    tracks.iter().filter(means).map(|track| text(track, "sid").to_owned()).collect()
}

/// What somebody publishes, in words.
fn sources(participant: &Value) -> Vec<String> {
    let tracks = participant["tracks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |track: &Value| match track["muted"].as_bool() {
        Some(true) => format!("{} (muted)", text(track, "source")),
        _ => text(track, "source").to_owned(),
    };
    tracks.iter().map(word).collect()
}

fn listed(found: &Value, now: UnixMs) -> String {
    let participants = found["participants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if participants.is_empty() {
        return "nobody is in the room\n".to_owned();
    }
    let head = ["identity", "name", "state", "for", "publishes"].map(str::to_owned).to_vec();
    let row = |participant: &Value| {
        let since = UnixMs::parse(text(participant, "joined_at")).map_or(0, |joined| now.0.saturating_sub(joined.0));
        let publishes = sources(participant);
        vec![
            text(participant, "identity").to_owned(),
            text(participant, "name").to_owned(),
            text(participant, "state").to_owned(),
            table::duration(Duration::from_millis(since)),
            if publishes.is_empty() { table::NONE.to_owned() } else { publishes.join(", ") },
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(participants.iter().map(row)).collect();
    table::aligned(&rows, |column| column == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Value {
        json!({"identity": "ada", "name": "Ada", "state": "active", "joined_at": "2026-11-22T10:00:00.000Z", "tracks": [
            {"sid": "TR_1", "source": "microphone", "muted": true}, {"sid": "TR_2", "source": "camera", "muted": false}]})
    }

    #[test]
    fn tracks_are_chosen_by_source_or_all() {
        for (word, ids) in [("microphone", &["TR_1"][..]), ("all", &["TR_1", "TR_2"]), ("screen_share", &[])] {
            assert_eq!(chosen(&ada(), word), ids, "{word}");
        }
    }

    #[test]
    fn participants_are_a_table() {
        let now = UnixMs::parse("2026-11-22T11:01:00Z").expect("a time");
        let text = listed(&json!({"participants": [ada()]}), now);
        assert_eq!(
            text.lines().nth(1),
            Some("ada       Ada   active  1 h 01 min  microphone (muted), camera"),
            "{text}"
        );
        assert_eq!(listed(&json!({"participants": []}), now), "nobody is in the room\n");
    }
}
