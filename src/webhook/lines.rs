//! How many events may be in flight, in all and to each URL.
//!
//! A URL earns its places: it has one until it answers well, then [`URL_AT_ONCE`], and one again when it fails. And the
//! URLs that have not answered well never take all places, so that those that do never wait for them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::backoff::Outcome;

/// Events in flight in all.
pub const AT_ONCE: usize = 16;

/// Events in flight to one URL.
pub const URL_AT_ONCE: usize = 4;

/// Events in flight to all those URLs together whose last answer was not good. The other places are for the good ones.
const DOUBTFUL_AT_ONCE: usize = 12;

/// What becomes known of a URL by an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It fails now and did not before.
    Fails,
    /// It works again.
    Recovered,
    /// It answered 410.
    Gone,
}

/// How a URL did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Health {
    #[default]
    Unknown,
    Good,
    Failing,
    Gone,
}

#[derive(Default)]
struct Line {
    in_flight: usize,
    health: Health,
    /// It asked not to be asked before.
    rest_until: Option<Instant>,
}

/// The state of every URL that something was sent to. Bounded by the URLs of the outbox.
#[derive(Default)]
pub struct Lines(BTreeMap<String, Line>);

impl Lines {
    /// How many events may start, whatever their URL.
    pub fn free(&self) -> usize {
        AT_ONCE.saturating_sub(self.0.values().map(|line| line.in_flight).sum())
    }

    /// Whether one more event may start to `url`.
    pub fn may_start(&self, url: &str, now: Instant) -> bool {
        let (in_flight, health, rests) = self.0.get(url).map_or((0, Health::Unknown, false), |line| {
            (line.in_flight, line.health, line.rest_until.is_some_and(|until| now < until))
        });
        let places = match health {
            Health::Good => URL_AT_ONCE,
            Health::Unknown | Health::Failing | Health::Gone => usize::from(self.doubtful() < DOUBTFUL_AT_ONCE),
        };
        !rests && in_flight < places && self.free() > 0
    }

    /// Whether `url` has answered 410. It gets nothing more while the server runs.
    pub fn is_gone(&self, url: &str) -> bool {
        self.0.get(url).is_some_and(|line| line.health == Health::Gone)
    }

    fn doubtful(&self) -> usize {
        self.0.values().filter(|line| line.health != Health::Good).map(|line| line.in_flight).sum()
    }

    /// Takes a place for `url`.
    pub fn start(&mut self, url: &str) {
        self.0.entry(url.to_owned()).or_default().in_flight += 1;
    }

    /// Gives the place back; `outcome` is None when the attempt came to no end.
    pub fn finish(&mut self, url: &str, outcome: Option<Outcome>, now: Instant) -> Option<Change> {
        let line = self.0.get_mut(url)?;
        line.in_flight = line.in_flight.saturating_sub(1);
        let health = match outcome? {
            Outcome::Delivered => Health::Good,
            Outcome::Gone => Health::Gone,
            Outcome::Again { .. } | Outcome::Rest { .. } | Outcome::Expired => Health::Failing,
        };
        if let Some(Outcome::Rest { after }) = outcome {
            line.rest_until = Some(now + after);
        }
        if line.health == Health::Gone {
            return None;
        }
        match (std::mem::replace(&mut line.health, health), health) {
            (_, Health::Gone) => Some(Change::Gone),
            (Health::Unknown | Health::Good, Health::Failing) => Some(Change::Fails),
            (Health::Failing, Health::Good) => Some(Change::Recovered),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGAIN: Option<Outcome> = Some(Outcome::Again { after: Duration::ZERO });
    const DELIVERED: Option<Outcome> = Some(Outcome::Delivered);

    /// Starts what may start to `url` and says how many that were.
    fn fill(lines: &mut Lines, url: &str, now: Instant) -> usize {
        let mut started = 0;
        while lines.may_start(url, now) {
            lines.start(url);
            started += 1;
        }
        started
    }

    /// A URL that has answered well.
    fn good(lines: &mut Lines, url: &str, now: Instant) {
        lines.start(url);
        lines.finish(url, DELIVERED, now);
    }

    #[test]
    fn a_url_has_one_place_until_it_answers_well_and_then_four() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        assert_eq!(fill(&mut lines, "a", now), 1);
        lines.finish("a", DELIVERED, now);
        assert_eq!(fill(&mut lines, "a", now), URL_AT_ONCE);
        for _ in 0..URL_AT_ONCE {
            lines.finish("a", AGAIN, now);
        }
        assert_eq!(fill(&mut lines, "a", now), 1);
        lines.finish("a", None, now);
        assert_eq!(fill(&mut lines, "a", now), 1, "a place comes back without an outcome too");
    }

    #[test]
    fn urls_that_fail_leave_places_to_those_that_work() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        good(&mut lines, "good", now);
        let silent: usize = (0..100).map(|number| fill(&mut lines, &format!("silent {number}"), now)).sum();
        assert_eq!(silent, DOUBTFUL_AT_ONCE);
        assert_eq!(fill(&mut lines, "good", now), URL_AT_ONCE);
        assert_eq!(lines.free(), 0);
    }

    #[test]
    fn all_places_together_are_sixteen() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let urls = ["a", "b", "c", "d", "e"];
        urls.iter().for_each(|url| good(&mut lines, url, now));
        let started: Vec<usize> = urls.iter().map(|url| fill(&mut lines, url, now)).collect();
        assert_eq!(started, [4, 4, 4, 4, 0]);
    }

    #[test]
    fn a_url_that_asks_for_rest_gets_it() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let minute = Duration::from_secs(60);
        lines.start("a");
        lines.finish("a", Some(Outcome::Rest { after: minute }), now);
        assert!(!lines.may_start("a", now + minute / 2) && lines.may_start("b", now));
        assert!(lines.may_start("a", now + minute));
    }

    #[test]
    fn changes_are_told_once() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let gone = Some(Outcome::Gone);
        for (outcome, change) in [
            (DELIVERED, None),
            (AGAIN, Some(Change::Fails)),
            (AGAIN, None),
            (Some(Outcome::Expired), None),
            (DELIVERED, Some(Change::Recovered)),
            (DELIVERED, None),
            (gone, Some(Change::Gone)),
            (gone, None),
            (DELIVERED, None),
        ] {
            lines.start("a");
            assert_eq!(lines.finish("a", outcome, now), change, "{outcome:?}");
        }
        assert!(lines.is_gone("a") && !lines.is_gone("b"), "what still comes after a 410 changes nothing");
    }
}
