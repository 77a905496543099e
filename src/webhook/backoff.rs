//! What an attempt's answer means: done, again and when, or never again.
//!
//! After Standard Webhooks 1.0, "Deliverability and reliability": 2xx is success, anything else a failure, a redirect
//! too; 410 ends the webhook; 429 and 503 say by `Retry-After` when to come back.

use std::time::Duration;

use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// How long to wait after the first failed attempt, the second, and so on; then always [`DELAY_LAST`].
const DELAYS: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(60 * 60),
];
const DELAY_LAST: Duration = Duration::from_secs(2 * 60 * 60);

/// How much a delay differs from the table at most, either way: receivers that come back must not be met by all rooms
/// at once.
const JITTER_PERMILLE: u32 = 100;

/// The longest time that a `Retry-After` is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// The shortest: who says 0 all the time must not be asked all the time.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// How long an event is tried, from its creation.
pub const AGE_MAX: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// `IMF-fixdate` (RFC 9110 §5.6.7), the only form of a date that senders may make.
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response.
    Status {
        code: u16,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// None: the reason in a few words.
    Silence(&'static str),
    /// Nothing was sent, because it must not be: the reason in a few words.
    Refused(&'static str),
}

/// What follows from an [`Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// Try this event again.
    Again { after: Duration },
    /// Try this event again, and send nothing else to this URL before.
    Rest { after: Duration },
    /// The receiver wants nothing any more.
    Gone,
    /// It failed too long: give it up.
    Expired,
}

/// What to do after `answer`, the answer to attempt number `attempts` (from 1), of an event created at
/// `created_at_ms`. `random` is any 32 random bits; times are in milliseconds since 1970.
pub fn decide(answer: Answer, attempts: u32, created_at_ms: u64, random: u32, now_ms: u64) -> Outcome {
    let (after, rest) = match answer {
        Answer::Status { code: 200..=299, .. } => return Outcome::Delivered,
        Answer::Status { code: 410, .. } => return Outcome::Gone,
        Answer::Status { code: 429 | 503, retry_after: Some(asked) } => {
            // Only later than asked, never sooner.
            (spread(asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX), 0, JITTER_PERMILLE, random), true)
        }
        Answer::Status { .. } | Answer::Silence(_) | Answer::Refused(_) => (delay(attempts, random), false),
    };
    let age = Duration::from_millis(now_ms.saturating_sub(created_at_ms));
    match rest {
        _ if age + after >= AGE_MAX => Outcome::Expired,
        true => Outcome::Rest { after },
        false => Outcome::Again { after },
    }
}

/// How long to wait after `attempts` failed attempts.
pub fn delay(attempts: u32, random: u32) -> Duration {
    let Some(failed_before) = attempts.checked_sub(1) else { return Duration::ZERO };
    let delay = DELAYS.get(failed_before as usize).copied().unwrap_or(DELAY_LAST);
    spread(delay, JITTER_PERMILLE, JITTER_PERMILLE, random)
}

/// `delay`, up to so many thousandths shorter or longer.
fn spread(delay: Duration, shorter_permille: u32, longer_permille: u32, random: u32) -> Duration {
    delay * (1000 - shorter_permille + random % (shorter_permille + longer_permille + 1)) / 1000
}

/// Reads a `Retry-After` (RFC 9110 §10.2.3): seconds or a date. `now_s` is in seconds since 1970.
pub fn retry_after(value: &str, now_s: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits are a long time too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = PrimitiveDateTime::parse(value, HTTP_DATE).ok()?.assume_utc().unix_timestamp();
    Some(Duration::from_secs(u64::try_from(at).unwrap_or(0).saturating_sub(now_s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    /// Random bits that change no delay of the table.
    const MIDDLE: u32 = JITTER_PERMILLE;

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    #[test]
    fn waits_grow_from_seconds_to_two_hours() {
        let waits: Vec<u64> = (0..11).map(|attempts| delay(attempts, MIDDLE).as_secs()).collect();
        assert_eq!(waits, [0, 5, 30, 120, 300, 900, 1800, 3600, 7200, 7200, 7200]);
        assert_eq!(delay(u32::MAX, MIDDLE), DELAY_LAST);
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let waits: Vec<_> = (0..1000).map(|random| delay(2, random)).collect();
        assert_eq!(waits.iter().min(), Some(&Duration::from_secs(27)));
        assert_eq!(waits.iter().max(), Some(&Duration::from_secs(33)));
        assert!(delay(2, u32::MAX) >= 27 * SECOND && delay(2, u32::MAX) <= 33 * SECOND);
    }

    #[test]
    fn an_answer_has_one_outcome() {
        let again = Outcome::Again { after: 5 * SECOND };
        for (answer, outcome) in [
            (status(200), Outcome::Delivered),
            (status(204), Outcome::Delivered),
            (status(299), Outcome::Delivered),
            (status(199), again),
            (status(301), again),
            (status(308), again),
            (status(400), again),
            (status(401), again),
            (status(404), again),
            (status(410), Outcome::Gone),
            (status(429), again),
            (status(500), again),
            (status(502), again),
            (status(503), again),
            (Answer::Silence("timed out"), again),
            (Answer::Refused("private address"), again),
        ] {
            assert_eq!(decide(answer, 1, 0, MIDDLE, 0), outcome, "{answer:?}");
        }
    }

    #[test]
    fn retry_after_is_believed_of_429_and_503_up_to_an_hour() {
        for (code, seconds, random, after) in [
            (429, 60, 0, Outcome::Rest { after: 60 * SECOND }),
            (503, 60, 0, Outcome::Rest { after: 60 * SECOND }),
            (429, 60, MIDDLE, Outcome::Rest { after: 66 * SECOND }),
            (429, 0, 0, Outcome::Rest { after: SECOND }),
            (429, u64::MAX, 0, Outcome::Rest { after: HOUR }),
            (500, 60, MIDDLE, Outcome::Again { after: 30 * SECOND }),
            (200, 60, 0, Outcome::Delivered),
            (410, 60, 0, Outcome::Gone),
        ] {
            let answer = Answer::Status { code, retry_after: Some(Duration::from_secs(seconds)) };
            assert_eq!(decide(answer, 2, 0, random, 0), after, "{answer:?}");
        }
    }

    #[test]
    fn an_event_is_given_up_after_four_days() {
        let age = |age: Duration| decide(status(500), 50, 1000, MIDDLE, 1000 + age.as_millis() as u64);
        let again = Outcome::Again { after: DELAY_LAST };
        assert_eq!(age(AGE_MAX - DELAY_LAST - SECOND), again);
        assert_eq!(age(AGE_MAX - DELAY_LAST), Outcome::Expired);
        assert_eq!(age(2 * AGE_MAX), Outcome::Expired);
        assert_eq!(decide(status(200), 50, 0, 0, u64::MAX), Outcome::Delivered);
        // A clock that was set back makes nothing old.
        assert_eq!(decide(status(500), 50, 1000, MIDDLE, 0), again);
        let asked = Answer::Status { code: 429, retry_after: Some(HOUR) };
        assert_eq!(decide(asked, 1, 0, 0, (AGE_MAX - HOUR).as_millis() as u64), Outcome::Expired);
    }

    #[test]
    fn all_attempts_fit_into_four_days() {
        let (mut now_ms, mut attempts) = (0, 1);
        while let Outcome::Again { after } = decide(status(500), attempts, 0, MIDDLE, now_ms) {
            now_ms += after.as_millis() as u64;
            attempts += 1;
        }
        assert_eq!(attempts, 55);
        assert!(now_ms < AGE_MAX.as_millis() as u64);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now_s = 784_111_770; // Sun, 06 Nov 1994 08:49:30 GMT
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:23 GMT", Some(0)),
            ("Tue, 01 Jan 1901 00:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
        ] {
            assert_eq!(retry_after(value, now_s), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
