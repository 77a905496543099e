//! `stube usage` and `stube audit verify`: the ledger read on the command line, beside a server or without one.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::config::{Config, ConfigError};
use crate::ids::Tenant;
use crate::ledger::record::{Day, UnixMs};
use crate::ledger::store::Store;

/// Which sums, and how they are written.
#[derive(Debug, Args)]
pub struct Options {
    /// The API key whose usage it is; the first one unless given.
    #[arg(long)]
    key: Option<String>,
    /// The first day, such as 2026-11-01 (UTC); all that is kept unless given.
    #[arg(long)]
    from: Option<String>,
    /// The day after the last.
    #[arg(long)]
    to: Option<String>,
    /// What each line is of.
    #[arg(long, value_enum, default_value_t = By::Day)]
    group_by: By,
    /// A table for people, CSV, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Day,
    Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Jsonl,
}

/// One line of a statement.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    participant_ms: u64,
    rounded_up_minutes: u64,
    peak_participants: u64,
    calls: u64,
    egress_bytes: u64,
    ingress_bytes: u64,
    distinct_addresses: Option<u64>,
}

const FIGURES: [&str; 7] = [
    "participant_ms",
    "rounded_up_minutes",
    "peak_participants",
    "calls",
    "egress_bytes",
    "ingress_bytes",
    "distinct_addresses",
];

impl Line {
    fn label(&self) -> &str {
        self.day.as_deref().or(self.room.as_deref()).unwrap_or_default()
    }

    fn figures(&self) -> [String; FIGURES.len()] {
        [
            self.participant_ms.to_string(),
            self.rounded_up_minutes.to_string(),
            self.peak_participants.to_string(),
            self.calls.to_string(),
            self.egress_bytes.to_string(),
            self.ingress_bytes.to_string(),
            self.distinct_addresses.map_or(String::new(), |count| count.to_string()),
        ]
    }
}

/// The store of the configuration, opened for reading beside a server.
async fn open(config: &Config) -> anyhow::Result<Store> {
    let directory = std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("."), PathBuf::from);
    // It writes nothing of its own, so it needs no name among the nodes.
    Ok(Store::open(config.ledger.url.as_str(), &directory, "statement", 0).await?)
}

/// The usage of a tenant, as text.
pub async fn usage(config: &Config, options: &Options) -> anyhow::Result<String> {
    let no_such_key = |key: &str| ConfigError::Key { key: format!("keys.{key}"), problem: "no such key".to_owned() };
    let key = match &options.key {
        Some(key) => config.keys.get_key_value(key).ok_or_else(|| no_such_key(key))?.0,
        None => config.keys.first_key_value().ok_or_else(|| no_such_key("*"))?.0,
    };
    let tenant = Tenant::from(key.as_str());
    let (from, to) = (day("--from", options.from.as_deref())?, day("--to", options.to.as_deref())?);
    let store = open(config).await?;
    let lines: Vec<Line> = match options.group_by {
        By::Day => {
            let last = to.map(|to| Day(to.0.saturating_sub(1)));
            let days = store.usage_by_day(&tenant, from, last).await?;
            days.into_iter()
                .map(|usage| Line {
                    day: Some(usage.day.to_string()),
                    room: None,
                    participant_ms: usage.participant_ms,
                    rounded_up_minutes: usage.rounded_up_minutes,
                    peak_participants: usage.peak_participants,
                    calls: usage.calls,
                    egress_bytes: usage.egress_bytes,
                    ingress_bytes: usage.ingress_bytes,
                    distinct_addresses: Some(usage.distinct_addresses),
                })
                .collect()
        }
        By::Room => {
            let rooms = store.usage_by_room(&tenant, from.map(Day::start), to.map(Day::start)).await?;
            rooms
                .into_iter()
                .map(|usage| Line {
                    day: None,
                    room: Some(usage.room_name.as_str().to_owned()),
                    participant_ms: usage.participant_ms,
                    rounded_up_minutes: usage.rounded_up_minutes,
                    peak_participants: usage.peak_participants,
                    calls: usage.calls,
                    egress_bytes: usage.egress_bytes,
                    ingress_bytes: usage.ingress_bytes,
                    distinct_addresses: None,
                })
                .collect()
        }
    };
    store.close().await;
    write(&lines, options.group_by, options.format)
}

fn day(argument: &str, text: Option<&str>) -> anyhow::Result<Option<Day>> {
    let Some(text) = text else { return Ok(None) };
    let day = UnixMs::parse(&format!("{text}T00:00:00Z")).map(UnixMs::day);
    Ok(Some(day.with_context(|| format!("{argument}: expected a day, such as 2026-11-22"))?))
}

fn write(lines: &[Line], by: By, format: Format) -> anyhow::Result<String> {
    let label = if by == By::Day { "day" } else { "room" };
    let head = [label].into_iter().chain(FIGURES).map(str::to_owned);
    let rows = lines.iter().map(|line| [line.label().to_owned()].into_iter().chain(line.figures()).collect());
    let rows: Vec<Vec<String>> = [head.collect()].into_iter().chain(rows).collect();
    Ok(match format {
        Format::Csv => {
            rows.iter().map(|row| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n").collect()
        }
        Format::Table => table(&rows),
        Format::Jsonl => {
            let mut text = String::new();
            for line in lines {
                text.push_str(&serde_json::to_string(line)?);
                text.push('\n');
            }
            text
        }
    })
}

/// A cell by RFC 4180. One that a spreadsheet would take for a formula is made text.
fn quoted(cell: &str) -> String {
    let cell = if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell.to_owned() };
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    }
}

/// Columns as wide as their widest cell; figures to the right.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=FIGURES.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Whether the audit log is as it was written, as text; an error if not.
pub async fn verify_audit(config: &Config) -> anyhow::Result<String> {
    let store = open(config).await?;
    let verdict = store.verify_audit().await;
    store.close().await;
    match verdict {
        Ok(chain) if chain.entries == 0 => Ok("the audit log is empty\n".to_owned()),
        Ok(chain) => Ok(format!("{} entries, {} to {}: unbroken\n", chain.entries, chain.first, chain.last)),
        Err(error) => bail!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(room: &str) -> Line {
        Line {
            day: None,
            room: Some(room.to_owned()),
            participant_ms: 61_000,
            rounded_up_minutes: 2,
            peak_participants: 1,
            calls: 1,
            egress_bytes: 10,
            ingress_bytes: 20,
            distinct_addresses: None,
        }
    }

    #[test]
    fn a_statement_is_a_table_csv_or_json() {
        let lines = [line("hall"), line("=1+1, \"x\"")];
        let csv = write(&lines, By::Room, Format::Csv).expect("text");
        assert_eq!(csv.lines().nth(1), Some("hall,61000,2,1,1,10,20,"));
        assert_eq!(csv.lines().nth(2), Some("\"'=1+1, \"\"x\"\"\",61000,2,1,1,10,20,"));
        let table = write(&lines[..1], By::Room, Format::Table).expect("text");
        assert!(table.starts_with("room  participant_ms  rounded_up_minutes"), "{table}");
        assert!(table.lines().nth(1).is_some_and(|row| row.starts_with("hall           61000")), "{table}");
        let json = write(&lines[..1], By::Room, Format::Jsonl).expect("text");
        assert!(json.starts_with("{\"room\":\"hall\",\"participant_ms\":61000,"), "{json}");
    }

    #[test]
    fn days_are_days() {
        assert_eq!(day("--from", Some("1970-01-03")).expect("a day"), Some(Day(2)));
        assert!(day("--from", Some("03.01.1970")).is_err());
    }
}
