//! `stube rooms`, `stube participants` and `stube node`: daily work on a running server, through its HTTP API.
//!
//! Each command makes its requests ([`server`]), and writes what came as a table for people or as the API's own JSON.

mod node;
mod participants;
mod rooms;
pub mod server;
mod target;

use clap::Args;

use crate::config::{Config, ConfigError};
use crate::table;

pub use node::Node;
pub use participants::Participants;
pub use rooms::Rooms;
pub use server::Failure;
pub use target::Target;

/// The server, and who asks it.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// The server's HTTP API, such as `https://sfu.example.org`; `http.listen` of the configuration unless given. Another
    /// server than the configuration's is told no secret of it: that takes `--key` and `STUBE_SECRET`.
    #[arg(long, global = true, env = "STUBE_URL")]
    url: Option<String>,
    /// The API key whose rooms these are; the first one of the configuration unless given. Its secret stands in the
    /// configuration, or in the variable `STUBE_SECRET`.
    #[arg(long, global = true)]
    key: Option<String>,
    /// Print the API's answer as JSON, all pages of a list in one.
    #[arg(long, global = true)]
    json: bool,
}

/// What to do.
#[derive(Debug)]
pub enum Order {
    Rooms(Rooms),
    Participants(Participants),
    Node(Node),
}

/// Does it; what there is to print. The configuration need not be there if the command line says all of it.
pub async fn run(order: Order, config: Result<Config, ConfigError>) -> Result<String, Failure> {
    match order {
        Order::Rooms(rooms) => rooms.run(config).await,
        Order::Participants(participants) => participants.run(config).await,
        Order::Node(node) => node.run(config).await,
    }
}

/// An answer of the API as text.
fn json(value: &serde_json::Value) -> String {
    table::plain_json(&format!("{value:#}\n"))
}

/// A member of an answer as text; empty if it has none.
fn text<'a>(value: &'a serde_json::Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// A member of an answer as a number.
fn number(value: &serde_json::Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_default()
}
