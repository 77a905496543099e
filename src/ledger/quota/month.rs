//! Months of UTC, in which the larger quotas are counted.

use time::{Date, Duration, OffsetDateTime};

const MONTHS_A_YEAR: i32 = 12;

/// A month of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    /// Months since January of the year 0.
    number: i32,
}

impl Month {
    /// The month that `unix_ms` (milliseconds since 1970-01-01T00:00:00Z) lies in.
    pub fn of(unix_ms: u64) -> Self {
        let since = Duration::milliseconds(i64::try_from(unix_ms).unwrap_or(i64::MAX));
        let date = OffsetDateTime::UNIX_EPOCH.saturating_add(since).date();
        Self { number: date.year() * MONTHS_A_YEAR + i32::from(u8::from(date.month())) - 1 }
    }

    /// The month after it.
    pub fn next(self) -> Self {
        Self { number: self.number + 1 }
    }

    /// Its first moment, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn start_unix_ms(self) -> u64 {
        let (year, month) = (self.number.div_euclid(MONTHS_A_YEAR), self.number.rem_euclid(MONTHS_A_YEAR) + 1);
        let first = u8::try_from(month).ok().and_then(|month| time::Month::try_from(month).ok());
        let first = first.and_then(|month| Date::from_calendar_date(year, month, 1).ok());
        let seconds = first.map_or(0, |first| first.midnight().assume_utc().unix_timestamp());
        u64::try_from(seconds).unwrap_or(0) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn months_begin_on_their_first_day() {
        for (start, next) in [
            (datetime!(1970-01-01 0:00 UTC), datetime!(1970-02-01 0:00 UTC)),
            (datetime!(2024-02-01 0:00 UTC), datetime!(2024-03-01 0:00 UTC)),
            (datetime!(2025-12-01 0:00 UTC), datetime!(2026-01-01 0:00 UTC)),
            (datetime!(2100-02-01 0:00 UTC), datetime!(2100-03-01 0:00 UTC)),
        ] {
            let [start_ms, next_ms] = [start, next].map(|at| at.unix_timestamp() as u64 * 1000);
            let month = Month::of(start_ms);
            assert_eq!(month.start_unix_ms(), start_ms);
            assert_eq!(Month::of(next_ms - 1), month);
            assert_eq!(Month::of(next_ms), month.next());
            assert_eq!(month.next().start_unix_ms(), next_ms);
            assert!(month < month.next());
        }
    }

    #[test]
    fn no_time_is_too_late() {
        let last = Month::of(u64::MAX);
        assert!(last >= Month::of(datetime!(9999-12-31 0:00 UTC).unix_timestamp() as u64 * 1000));
        assert_eq!(last.next().start_unix_ms(), 0);
    }
}
