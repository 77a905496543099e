//! Tables, durations and amounts for people at a terminal.

use std::time::Duration;

/// What stands where there is nothing.
pub const NONE: &str = "-";

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// Columns as wide as their widest cell, those of which `right` says so with their figures to the right. Each row has as
/// many cells as the first.
pub fn aligned(rows: &[Vec<String>], right: impl Fn(usize) -> bool) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let shown: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |column: usize| shown.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &shown {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match right(column) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What somebody else wrote, without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// The same JSON, without what a terminal would obey: it is escaped, for it can only stand within strings.
pub fn plain_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c != '\n' && is_obeyed(c) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    text
}

/// Whether a terminal does something at it: a control character, or one that turns the direction of what follows
/// (embeddings, overrides and isolates of UAX #9).
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A span of time in its two largest units.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (large, small) = match seconds {
        0..MINUTE_S => return format!("{seconds} s"),
        MINUTE_S..HOUR_S => ((MINUTE_S, "min"), (1, "s")),
        HOUR_S..DAY_S => ((HOUR_S, "h"), (MINUTE_S, "min")),
        _ => ((DAY_S, "d"), (HOUR_S, "h")),
    };
    let whole = format!("{} {}", seconds / large.0, large.1);
    match seconds % large.0 / small.0 {
        0 => whole,
        rest => format!("{whole} {rest:02} {}", small.1),
    }
}

/// So many of something, with the right form of its name.
pub fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [["room", "people"], ["Küche", "3"], ["h\u{1b}[2J", "12"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows, |column| column == 1), "room   people\nKüche       3\nh\u{fffd}[2J      12\n");
        assert_eq!(aligned(&[], |_| true), "");
    }

    #[test]
    fn a_terminal_is_told_nothing_by_others() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}b\u{2066}c\u{2069}é\u{200f}";
        assert_eq!(plain(hostile), "a\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}é\u{200f}");
        let value = serde_json::json!({ "name": hostile });
        let json = plain_json(&format!("{value:#}\n"));
        let escaped = "{\n  \"name\": \"a\\u001b[2J\\u009b31m\\u007f\\u202eb\\u2066c\\u2069é\u{200f}\"\n}\n";
        assert_eq!(json, escaped);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).ok(), Some(value));
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (300, "5 min"), (7_260, "2 h 01 min"), (180_000, "2 d 02 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!((count(1, "room", "rooms"), count(0, "room", "rooms")), ("1 room".into(), "0 rooms".into()));
    }
}
