//! What Linux says about a process: the time it took, the memory it holds.

use std::fs;

/// `/proc` counts in hundredths of a second (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// What a process has used up to a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// By the scheduler, of all threads that live.
    pub cpu_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    pub resident_kib: u64,
    pub switches: u64,
}

/// What a process has used so far; nothing if there is no such process.
pub fn usage(pid: &str) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (user_ns, system_ns) = read_stat(&stat)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let (mut cpu_ns, mut switches) = (0, 0);
    for task in tasks.flatten() {
        let (ns, runs) = read_schedstat(&fs::read_to_string(task.path().join("schedstat")).unwrap_or_default());
        cpu_ns += ns;
        switches += runs;
    }
    Some(Usage { cpu_ns, user_ns, system_ns, resident_kib: read_resident(&status)?, switches })
}

/// CPU time of this thread, by the scheduler.
pub fn thread_cpu_ns() -> u64 {
    read_schedstat(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default()).0
}

/// Datagrams that found no room in a socket, of the whole machine.
pub fn receive_buffer_errors() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let place = names.split(' ').position(|name| name == "RcvbufErrors");
    place.and_then(|place| values.split(' ').nth(place)?.parse().ok()).unwrap_or(0)
}

/// User and system time: fields 14 and 15; the second, in parentheses, may hold anything.
fn read_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some((fields.next()?? * TICK_NS, fields.next()?? * TICK_NS))
}

/// Time on a processor, and how often it got one.
fn read_schedstat(text: &str) -> (u64, u64) {
    let mut fields = text.split_whitespace().map(|field| field.parse().unwrap_or(0));
    let ns = fields.next().unwrap_or(0);
    (ns, fields.nth(1).unwrap_or(0))
}

fn read_resident(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 3 0 1 1 1";
        assert_eq!(read_stat(stat), Some((120_000_000, 340_000_000)));
        assert_eq!(read_schedstat("5000 77 9\n"), (5000, 9));
        assert_eq!(read_resident("Name:\tx\nVmRSS:\t   1234 kB\n"), Some(1234));
        assert!(usage("self").is_some_and(|usage| usage.resident_kib > 0));
        assert_eq!(usage("no such process"), None);
    }
}
