//! When to order a certificate, and when to try again. Pure.

use std::time::Duration;

/// How long to wait after the first failed order; after each further one twice as long, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(4 * 3600);
/// How much shorter or longer a pause may be, in thousandths: servers that failed together must not come back together.
const JITTER_PERMILLE: u32 = 250;
/// The longest time that a `Retry-After` is believed; rate limits look back a week.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between two certificates at least, in seconds, however short they live.
const RENEWAL_MIN_S: u64 = 10;

/// When a certificate that is valid from when to when is renewed: two thirds into its time, as Let's Encrypt advises. All
/// are in seconds since 1970.
pub fn renewal(not_before: u64, not_after: u64) -> u64 {
    let lifetime = not_after.saturating_sub(not_before);
    not_before.saturating_add((lifetime - lifetime / 3).max(RENEWAL_MIN_S))
}

/// How long after a certificate was issued no other is ordered, whatever the clock says: one that is years ahead would take
/// each new one for old, and rate limits count those that were issued.
pub fn rest(not_before: u64, not_after: u64) -> Duration {
    Duration::from_secs((not_after.saturating_sub(not_before) / 3).max(RENEWAL_MIN_S))
}

/// How long to wait after so many failed orders in a row. The server may have asked for a certain time. `random` is any 32
/// random bits.
pub fn pause(failures: u32, asked: Option<Duration>, random: u32) -> Duration {
    let Some(before) = failures.checked_sub(1) else { return Duration::ZERO };
    let doubled = 1_u32.checked_shl(before).and_then(|times| PAUSE_FIRST.checked_mul(times));
    let pause = doubled.unwrap_or(PAUSE_MAX).min(PAUSE_MAX);
    let own = pause * (1000 - JITTER_PERMILLE + random % (2 * JITTER_PERMILLE + 1)) / 1000;
    own.max(asked.map(believed).unwrap_or_default())
}

/// For how long a server is left alone that asks for it.
pub fn believed(asked: Duration) -> Duration {
    asked.min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_time() {
        for (not_before, not_after, wanted) in [
            (0, 90 * DAY, 60 * DAY),
            (1000, 1000 + 90 * DAY, 1000 + 60 * DAY),
            (0, 6 * DAY, 4 * DAY),
            (100, 160, 140),
            // Absurd ones do not make a flood.
            (100, 101, 110),
            (100, 100, 110),
            (100, 0, 110),
            (u64::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!(renewal(not_before, not_after), wanted, "{not_before} to {not_after}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_flood_of_orders() {
        for (not_before, not_after, wanted) in [(0, 90 * DAY, 30 * DAY), (100, 160, 20), (100, 101, 10), (100, 0, 10)] {
            assert_eq!(rest(not_before, not_after), Duration::from_secs(wanted), "{not_before} to {not_after}");
            let due_after = renewal(not_before, not_after) - not_before;
            assert!(wanted <= due_after, "it delays no renewal that is due");
        }
    }

    #[test]
    fn pauses_double_from_a_minute_to_four_hours() {
        let minutes: Vec<u64> = (0..12).map(|failures| pause(failures, None, JITTER_PERMILLE).as_secs() / 60).collect();
        assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240]);
        assert_eq!(pause(u32::MAX, None, JITTER_PERMILLE), PAUSE_MAX);
    }

    #[test]
    fn jitter_is_a_quarter_either_way() {
        let pauses = (0..1000).map(|random| pause(1, None, random));
        assert_eq!(
            (pauses.clone().min(), pauses.max()),
            (Some(Duration::from_secs(45)), Some(Duration::from_secs(75)))
        );
        assert!(pause(1, None, u32::MAX) <= Duration::from_secs(75));
    }

    #[test]
    fn the_server_may_ask_for_more_patience_but_not_for_ever() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (asked, wanted) in [
            (Duration::ZERO, Duration::from_secs(60)),
            (Duration::from_secs(10), Duration::from_secs(60)),
            (hours(5), hours(5)),
            (hours(24 * 365), RETRY_AFTER_MAX),
            (Duration::MAX, RETRY_AFTER_MAX),
        ] {
            assert_eq!(pause(1, Some(asked), JITTER_PERMILLE), wanted, "{asked:?}");
        }
    }
}
