//! `stube usage` and `stube audit verify`: the ledger read on the command line, beside a server or without one.

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::config::Config;
use crate::control::usage::UsageView;
use crate::ids::Tenant;
use crate::ledger::record::{Day, UnixMs};
use crate::ledger::servers_directory;
use crate::ledger::store::{self, Examined, SCHEMA_VERSION, Store};
use crate::table;

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

const FIGURES: [&str; 7] = [
    "participant_ms",
    "rounded_up_minutes",
    "peak_participants",
    "calls",
    "egress_bytes",
    "ingress_bytes",
    "distinct_addresses",
];

/// What a line is of.
fn label(line: &UsageView) -> String {
    let day = line.day.map(|day| day.to_string());
    day.or_else(|| line.room.clone()).unwrap_or_default()
}

fn figures(line: &UsageView) -> [String; FIGURES.len()] {
    [
        line.participant_ms.to_string(),
        line.rounded_up_minutes.to_string(),
        line.peak_participants.to_string(),
        line.calls.to_string(),
        line.egress_bytes.to_string(),
        line.ingress_bytes.to_string(),
        line.distinct_addresses.map_or(String::new(), |count| count.to_string()),
    ]
}

/// The store of the configuration, opened for reading beside a server. None is made, and none brought up to date: that is the
/// server's to do.
async fn open(config: &Config) -> anyhow::Result<Store> {
    let (url, directory) = (config.ledger.url.as_str(), servers_directory());
    match store::examine(url, &directory).await? {
        Examined::Present { schema } if schema == SCHEMA_VERSION => {}
        Examined::Present { schema } => bail!(
            "the ledger's schema is version {schema}, and this program reads {SCHEMA_VERSION}: start the server of this \
             version once, which brings it up to date"
        ),
        Examined::Absent => {
            let file = store::file(url, &directory).unwrap_or_default();
            bail!("there is no ledger at {}: STATE_DIRECTORY names the folder that it lies in", file.display())
        }
    }
    // It writes nothing of its own, so it needs no name among the nodes.
    Ok(Store::open(url, &directory, "statement", 0).await?)
}

/// The usage of a tenant, as text.
pub async fn usage(config: &Config, options: &Options) -> anyhow::Result<String> {
    let (key, _) = config.key_or_first(options.key.as_deref())?;
    let tenant = Tenant::from(key);
    let (from, to) = (day("--from", options.from.as_deref())?, day("--to", options.to.as_deref())?);
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        bail!("--to: expected a day after --from; it is the day after the last");
    }
    let store = open(config).await?;
    let lines: Vec<UsageView> = match options.group_by {
        By::Day => {
            let last = to.map(|to| Day(to.0.saturating_sub(1)));
            store.usage_by_day(&tenant, from, last).await?.into_iter().map(UsageView::of_day).collect()
        }
        By::Room => {
            let rooms = store.usage_by_room(&tenant, from.map(Day::start), to.map(Day::start)).await?;
            rooms.into_iter().map(UsageView::of_room).collect()
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

fn write(lines: &[UsageView], by: By, format: Format) -> anyhow::Result<String> {
    let first = if by == By::Day { "day" } else { "room" };
    let head = [first].into_iter().chain(FIGURES).map(str::to_owned);
    let rows = lines.iter().map(|line| [label(line)].into_iter().chain(figures(line)).collect());
    let rows: Vec<Vec<String>> = [head.collect()].into_iter().chain(rows).collect();
    Ok(match format {
        Format::Csv => {
            rows.iter().map(|row| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n").collect()
        }
        Format::Table => table::aligned(&rows, |column| column > 0),
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

    fn line(room: &str) -> UsageView {
        UsageView {
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
