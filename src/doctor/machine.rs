//! Judges the machine itself: files, clock, disk.

use super::finding::Finding;
use super::observe::{Clocks, Disk, Observations, OpenFiles};

/// Every HTTP connection (4,096), ICE-TCP connection and webhook is a file. The unit allows 65,536.
const FILES_WANTED: u64 = 8192;
/// Enough where all clients are on this machine, as on a developer's.
const FILES_WANTED_LOCALLY: u64 = 1024;
/// Too few for a meeting over TCP.
const FILES_LEAST: u64 = 512;

/// How far a clock may be behind what was written by it, in milliseconds: other machines build binaries, and a clock
/// is set now and then.
const CLOCK_LEEWAY_MS: u64 = 5 * 60 * 1000;

/// Two busy weeks of records, and too little for a write-ahead log; in bytes.
const DISK_WANTED: u64 = 512 * MIB;
const DISK_LEAST: u64 = 32 * MIB;
const MIB: u64 = 1024 * 1024;

/// Whether enough files may be open.
pub fn open_files(seen: &Observations) -> Vec<Finding> {
    const ADVICE: &str = "each connection is a file: allow 65536, by LimitNOFILE= in the unit or by `ulimit -n` where the server is started";
    let Some(OpenFiles { limit, of_server }) = seen.open_files else { return Vec::new() };
    let whose = if of_server { "the server" } else { "whoever starts a server from here" };
    let text = match limit {
        u64::MAX => format!("{whose} may open any number of files"),
        limit => format!("{whose} may open {limit} files"),
    };
    let public = seen.addresses.as_ref().is_none_or(|addresses| addresses.public);
    let wanted = if public { FILES_WANTED } else { FILES_WANTED_LOCALLY };
    vec![match limit {
        0..FILES_LEAST => Finding::fail(text, ADVICE),
        limit if limit < wanted => Finding::warn(text, ADVICE),
        _ => Finding::ok(text),
    }]
}

/// Whether the clock can be right.
pub fn clock(seen: &Observations) -> Vec<Finding> {
    const ADVICE: &str =
        "synchronise the clock (systemd-timesyncd or chrony): tokens, certificates and records go by it";
    let Some(Clocks { now, built, ledger, synchronised }) = seen.clock else { return Vec::new() };
    let behind = |written: Option<crate::ledger::record::UnixMs>| {
        written.filter(|written| now.0.saturating_add(CLOCK_LEEWAY_MS) < written.0)
    };
    let late = [("this program was written", built), ("the ledger was written", ledger)];
    if let Some((what, at)) = late.into_iter().find_map(|(what, at)| Some((what, behind(at)?))) {
        return vec![Finding::fail(format!("it is {now}, but {what} at {at}"), ADVICE)];
    }
    vec![match synchronised {
        Some(true) => Finding::ok(format!("it is {now}, synchronised")),
        Some(false) => Finding::warn(format!("it is {now}, not synchronised"), ADVICE),
        None => Finding::ok(format!("it is {now}; whether synchronised cannot be seen here")),
    }]
}

/// Whether there is room for the ledger.
pub fn disk(seen: &Observations) -> Vec<Finding> {
    const ADVICE: &str = "make room: a full disk keeps the ledger from being written";
    let Some(Disk { directory, free_bytes }) = &seen.disk else { return Vec::new() };
    let text = format!("{} MiB are free in {}", free_bytes / MIB, directory.display());
    vec![match *free_bytes {
        0..DISK_LEAST => Finding::fail(text, ADVICE),
        DISK_LEAST..DISK_WANTED => Finding::warn(text, ADVICE),
        _ => Finding::ok(text),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{Fail, Ok as Fine, Warn};
    use crate::doctor::observe::Addresses;
    use crate::ledger::record::UnixMs;

    #[test]
    fn files_and_disk_have_limits() {
        for (limit, expected) in [(0, Fail), (511, Fail), (1024, Warn), (8192, Fine), (u64::MAX, Fine)] {
            let open_files = Some(OpenFiles { limit, of_server: false });
            let seen = Observations { open_files, ..Observations::default() };
            assert_eq!(super::open_files(&seen)[0].verdict, expected, "{limit}");
        }
        let open_files = Some(OpenFiles { limit: 1024, of_server: false });
        let seen = Observations { open_files, addresses: Some(Addresses::default()), ..Observations::default() };
        assert_eq!(super::open_files(&seen)[0].verdict, Fine, "for this machine alone");
        for (free_bytes, expected) in [(0, Fail), (32 * MIB, Warn), (512 * MIB, Fine)] {
            let disk = Some(Disk { directory: "/var/lib/stube".into(), free_bytes });
            let seen = Observations { disk, ..Observations::default() };
            assert_eq!(super::disk(&seen)[0].verdict, expected, "{free_bytes}");
        }
    }

    #[test]
    fn a_clock_is_not_behind_what_was_written_by_it() {
        let minutes = |minutes: u64| UnixMs(1_800_000_000_000 + minutes * 60_000);
        let now = minutes(0);
        for (built, ledger, synchronised, expected) in [
            (None, None, None, Fine),
            (Some(minutes(4)), None, Some(true), Fine),
            (None, None, Some(false), Warn),
            (Some(minutes(6)), None, Some(true), Fail),
            (None, Some(minutes(6)), None, Fail),
        ] {
            let clock = Some(Clocks { now, built, ledger, synchronised });
            let seen = Observations { clock, ..Observations::default() };
            assert_eq!(super::clock(&seen)[0].verdict, expected, "{clock:?}");
        }
    }
}
