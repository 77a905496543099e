//! `stube node`: how the server does, draining it, and having it read its configuration anew.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::{Failure, Server};
use super::{json, number, text};
use crate::config::{Config, ConfigError};
use crate::table::{self, count};

/// `stube node`
#[derive(Debug, Args)]
pub struct Node {
    /// The server's admin listener, such as http://127.0.0.1:6789; `admin.listen` of the configuration unless given.
    #[arg(long, global = true, env = "STUBE_ADMIN_URL", value_name = "URL")]
    admin_url: Option<String>,
    /// Print the API's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say how the server does.
    Status,
    /// Let calls end by themselves, take no new ones, and then stop the server.
    ///
    /// Where stube-http.socket is on, `systemctl stop stube-http.socket` first: else the next request starts the server
    /// again, undrained.
    Drain {
        /// Seconds after which calls are ended that have not by themselves; never unless given.
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
    },
    /// Have the server read its configuration anew.
    Reload,
}

impl Node {
    pub(super) async fn run(self, config: Result<Config, ConfigError>) -> Result<String, Failure> {
        let server = Server::admin(self.admin_url.as_deref(), config)?;
        let (found, said) = match self.command {
            Command::Status => {
                let found = server.get(&["v1", "node"]).await?;
                let said = status(&found, server.url());
                (found, said)
            }
            Command::Drain { deadline } => {
                let body = match deadline {
                    Some(seconds) => json!({"deadline_s": seconds}),
                    None => json!({}),
                };
                let found = server.order(Method::POST, &["v1", "node", "drain"], Some(&body)).await?;
                let sessions = count(number(&found, "sessions"), "session goes", "sessions go");
                let state = table::plain(text(&found, "state"));
                let said = format!("{state}: {sessions} on; then the server stops\n");
                (found, said)
            }
            Command::Reload => {
                let found = server.order(Method::POST, &["v1", "node", "reload"], Some(&json!({}))).await?;
                let said = reloaded(&found);
                (found, said)
            }
        };
        Ok(if self.json { json(&found) } else { said })
    }
}

fn words(value: &Value) -> String {
    let words = value.as_array().map(Vec::as_slice).unwrap_or_default();
    table::plain(&words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
}

fn reloaded(found: &Value) -> String {
    let (changed, later) = (words(&found["changed"]), words(&found["needs_restart"]));
    let path = found["path"].as_str().map(|path| format!(" in {}", table::plain(path))).unwrap_or_default();
    let mut said = match changed.as_str() {
        "" => format!("nothing has changed{path}\n"),
        changed => format!("changed{path}: {changed}\n"),
    };
    // systemd's copy of the file: only it makes another.
    if found["path"].as_str().is_some_and(|path| path.starts_with("/run/")) {
        said.push_str("that is the unit's copy; `systemctl reload stube` hands the file over as it is now\n");
    }
    if !later.is_empty() {
        said.push_str(&format!("waits for a restart: {later}\n"));
    }
    said
}

fn status(node: &Value, url: &str) -> String {
    let uptime = table::duration(Duration::from_secs(number(node, "uptime_s")));
    let (version, state) = (table::plain(text(node, "version")), table::plain(text(node, "state")));
    let mut said = format!("Stube {version}, {state}, up for {uptime}\n");
    let figures = [("room", "rooms"), ("participant", "participants"), ("session", "sessions")]
        .map(|(one, several)| count(number(node, several), one, several));
    said.push_str(&format!("{}\n", figures.join(", ")));
    let ledger = &node["ledger"];
    let age = table::duration(Duration::from_millis(number(ledger, "checkpoint_age_ms")));
    let waiting = count(number(ledger, "rows_waiting"), "row waits", "rows wait");
    said.push_str(&match ledger["writable"].as_bool() {
        Some(false) => format!("LEDGER CANNOT BE WRITTEN, the last time {age} ago; {waiting}\n"),
        _ => format!("ledger written {age} ago, {waiting}\n"),
    });
    let shards = node["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
    let head = ["shard", "busy", "rooms", "participants", ""].map(str::to_owned).to_vec();
    let row = |(index, shard): (usize, &Value)| {
        let busy = shard["busy_ratio"].as_f64().unwrap_or_default() * 100.0;
        let saturated = if shard["saturated"] == true { "saturated" } else { "" };
        let (rooms, participants) = (number(shard, "rooms").to_string(), number(shard, "participants").to_string());
        vec![index.to_string(), format!("{busy:.0} %"), rooms, participants, saturated.to_owned()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(shards.iter().enumerate().map(row)).collect();
    said.push_str(&table::aligned(&rows, |column| column < 4));
    said.push_str(&format!("page  {url}\n"));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_at_a_glance() {
        let node = json!({
            "version": "0.1.0", "state": "running", "uptime_s": 7_260, "rooms": 1, "participants": 2, "sessions": 2,
            "shards": [{"busy_ratio": 0.123, "saturated": false, "rooms": 1, "participants": 2},
                       {"busy_ratio": 0.97, "saturated": true, "rooms": 0, "participants": 0}],
            "ledger": {"writable": true, "checkpoint_age_ms": 3_200, "rows_waiting": 1}});
        assert_eq!(
            status(&node, "http://127.0.0.1:6789/"),
            "Stube 0.1.0, running, up for 2 h 01 min\n1 room, 2 participants, 2 sessions\n\
             ledger written 3 s ago, 1 row waits\nshard  busy  rooms  participants\n    0  12 %      1             2\n    \
             1  97 %      0             0  saturated\npage  http://127.0.0.1:6789/\n"
        );
        let mut failing = node;
        failing["ledger"]["writable"] = false.into();
        assert!(status(&failing, "").contains("CANNOT BE WRITTEN"));
        failing["version"] = "\u{9b}2J".into();
        assert!(status(&failing, "").starts_with("Stube \u{fffd}2J, running"));
    }

    #[test]
    fn a_reload_says_what_it_took_over() {
        let said = reloaded(&json!({"changed": ["keys", "quota"], "needs_restart": ["media"]}));
        assert_eq!(said, "changed: keys, quota\nwaits for a restart: media\n");
        assert_eq!(reloaded(&json!({"changed": [], "needs_restart": []})), "nothing has changed\n");
        let said =
            reloaded(&json!({"changed": [], "needs_restart": [], "path": "/run/credentials/stube.service/a.toml"}));
        assert!(
            said.starts_with("nothing has changed in /run/cred") && said.contains("systemctl reload stube"),
            "{said}"
        );
        let said = reloaded(&json!({"changed": ["log"], "needs_restart": [], "path": "/etc/stube/config.toml"}));
        assert_eq!(said, "changed in /etc/stube/config.toml: log\n");
        assert_eq!(reloaded(&json!({"changed": ["\u{1b}c"], "needs_restart": []})), "changed: \u{fffd}c\n");
    }
}
