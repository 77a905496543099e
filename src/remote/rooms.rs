//! `stube rooms`: list, show, create, delete.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::server::{Failure, Server};
use super::{Access, json, number, text};
use crate::config::{Config, ConfigError};
use crate::table;

/// `stube rooms`
#[derive(Debug, Args)]
pub struct Rooms {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the rooms of an API key.
    List,
    /// Show one room.
    Show { room: String },
    /// Make a room; one that exists with the same settings is as good.
    Create(Create),
    /// End a room and its call.
    Delete { room: String },
}

#[derive(Debug, Args)]
struct Create {
    /// Its name; the server makes one up unless given.
    room: Option<String>,
    /// Participants it takes.
    #[arg(long)]
    max_participants: Option<u64>,
    /// Seconds it waits for its first participant.
    #[arg(long, value_name = "SECONDS")]
    empty_timeout: Option<u64>,
    /// Seconds it stays after its last participant left.
    #[arg(long, value_name = "SECONDS")]
    departure_timeout: Option<u64>,
    /// Seconds that one call may last.
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<u64>,
    /// A text that participants get.
    #[arg(long)]
    metadata: Option<String>,
}

impl Create {
    /// The body of the request: what was given.
    fn body(&self) -> Value {
        let members: [(&str, Option<Value>); 6] = [
            ("name", self.room.clone().map(Into::into)),
            ("max_participants", self.max_participants.map(Into::into)),
            ("empty_timeout_s", self.empty_timeout.map(Into::into)),
            ("departure_timeout_s", self.departure_timeout.map(Into::into)),
            ("max_duration_s", self.max_duration.map(Into::into)),
            ("metadata", self.metadata.clone().map(Into::into)),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

impl Rooms {
    pub(super) async fn run(self, config: Result<Config, ConfigError>) -> Result<String, Failure> {
        let server = Server::public(&self.access, config)?;
        let found = match &self.command {
            Command::List => server.list(&["v1", "rooms"], "rooms").await?,
            Command::Show { room } => server.get(&["v1", "rooms", room]).await?,
            Command::Create(create) => server.order(Method::POST, &["v1", "rooms"], Some(&create.body())).await?,
            Command::Delete { room } => {
                server.order(Method::DELETE, &["v1", "rooms", room], None).await?;
                // The API has no more to say.
                return Ok(if self.access.json {
                    String::new()
                } else {
                    format!("{} has ended\n", table::plain(room))
                });
            }
        };
        Ok(match self.command {
            _ if self.access.json => json(&found),
            Command::List => listed(&found),
            _ => shown(&found),
        })
    }
}

fn listed(found: &Value) -> String {
    let rooms = found["rooms"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rooms.is_empty() {
        return "no rooms\n".to_owned();
    }
    let head = ["room", "participants", "publishers", "call", "created"].map(str::to_owned).to_vec();
    let row = |room: &Value| {
        vec![
            text(room, "name").to_owned(),
            format!("{} of {}", number(room, "num_participants"), number(room, "max_participants")),
            number(room, "num_publishers").to_string(),
            call(room),
            text(room, "created_at").to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(rooms.iter().map(row)).collect();
    table::aligned(&rows, |column| matches!(column, 1..=3))
}

/// How long a room's call has lasted.
fn call(room: &Value) -> String {
    match room["call"]["duration_ms"].as_u64() {
        Some(duration) => table::duration(std::time::Duration::from_millis(duration)),
        None => table::NONE.to_owned(),
    }
}

fn shown(room: &Value) -> String {
    let seconds = |member: &str| match room[member].as_u64() {
        Some(seconds) => table::duration(std::time::Duration::from_secs(seconds)),
        None => "no limit".to_owned(),
    };
    let rows: Vec<Vec<String>> = [
        ("room", text(room, "name").to_owned()),
        ("id", text(room, "sid").to_owned()),
        ("participants", format!("{} of {}", number(room, "num_participants"), number(room, "max_participants"))),
        ("publishers", number(room, "num_publishers").to_string()),
        ("call", call(room)),
        ("created", text(room, "created_at").to_owned()),
        ("waits for the first", seconds("empty_timeout_s")),
        ("stays after the last", seconds("departure_timeout_s")),
        ("longest call", seconds("max_duration_s")),
        ("metadata", text(room, "metadata").to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    table::aligned(&rows, |_| false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_room_is_asked_for_with_what_was_given() {
        let create = Create {
            room: Some("hall".to_owned()),
            max_participants: Some(3),
            empty_timeout: None,
            departure_timeout: Some(0),
            max_duration: None,
            metadata: None,
        };
        assert_eq!(create.body(), json!({"name": "hall", "max_participants": 3, "departure_timeout_s": 0}));
    }

    #[test]
    fn rooms_are_a_table() {
        let call = json!({"duration_ms": 61_000});
        let room = |name: &str, call: &Value| {
            json!({"name": name, "num_participants": 2, "max_participants": 100, "num_publishers": 1, "call": call,
                "created_at": "2026-11-22T10:00:00.000Z"})
        };
        let text = listed(&json!({"rooms": [room("hall", &call), room("a\u{7}b", &Value::Null)]}));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "room  participants  publishers        call  created");
        assert_eq!(lines[1], "hall      2 of 100           1  1 min 01 s  2026-11-22T10:00:00.000Z");
        assert!(lines[2].starts_with("a\u{fffd}b ") && lines[2].contains("   -  2026"), "{text}");
        assert_eq!(listed(&json!({"rooms": []})), "no rooms\n");
    }
}
