//! `Idempotency-Key`: the same request sent again gets the first one's answer, for a day.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use bytes::Bytes;

use super::code::Code;
use super::problem::Problem;
use crate::ids::Tenant;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many answers are kept; beyond, the oldest go. At up to 6 KiB each this bounds the memory to 50 MiB.
const ENTRIES_MAX: usize = 8192;

/// The longest key, in bytes.
pub const KEY_MAX_BYTES: usize = 255;

type Key = (Tenant, String);

/// An answer to give again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// The answers of the last day.
#[derive(Default)]
pub struct Idempotency(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    by_key: BTreeMap<Key, Entry>,
    /// Keys with answers, oldest first.
    order: VecDeque<(Instant, Key)>,
}

struct Entry {
    request: [u8; 32],
    /// None while the first request is still being answered.
    answer: Option<Answer>,
}

/// What to do with a request.
pub enum Begun<'a> {
    /// Answer it, then [`Claim::finish`].
    First(Claim<'a>),
    /// Give this answer again.
    Again(Answer),
}

/// A key whose first request is being answered; given back when dropped without an answer.
pub struct Claim<'a> {
    answers: &'a Idempotency,
    key: Option<Key>,
}

impl Idempotency {
    /// Looks a key up and claims it if it is new. `body` tells whether the request is the same.
    pub fn begin(&self, tenant: &Tenant, key: &str, body: &[u8], now: Instant) -> Result<Begun<'_>, Problem> {
        if key.is_empty() || key.len() > KEY_MAX_BYTES {
            let detail = format!("an Idempotency-Key has 1 to {KEY_MAX_BYTES} bytes");
            return Err(Problem::new(Code::InvalidIdempotencyKey, detail));
        }
        let mut request = [0; 32];
        request.copy_from_slice(digest(&SHA256, body).as_ref());
        let key = (tenant.clone(), key.to_owned());
        let mut answers = self.answers();
        answers.expire(now);
        match answers.by_key.get(&key) {
            Some(entry) if entry.request != request => {
                let detail = "this Idempotency-Key was used with another body";
                Err(Problem::new(Code::IdempotencyKeyReused, detail))
            }
            Some(Entry { answer: Some(answer), .. }) => Ok(Begun::Again(answer.clone())),
            Some(_) => {
                let detail = "a request with this Idempotency-Key is being answered";
                Err(Problem::new(Code::IdempotencyKeyInUse, detail))
            }
            None => {
                answers.by_key.insert(key.clone(), Entry { request, answer: None });
                Ok(Begun::First(Claim { answers: self, key: Some(key) }))
            }
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    fn expire(&mut self, now: Instant) {
        while self.order.len() >= ENTRIES_MAX
            || self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= KEPT)
        {
            let Some((_, key)) = self.order.pop_front() else { return };
            self.by_key.remove(&key);
        }
    }
}

impl Claim<'_> {
    /// Keeps the answer.
    pub fn finish(mut self, answer: Answer, now: Instant) {
        let Some(key) = self.key.take() else { return };
        let mut answers = self.answers.answers();
        if let Some(entry) = answers.by_key.get_mut(&key) {
            entry.answer = Some(answer);
            answers.order.push_back((now, key));
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.answers.answers().by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::clock::Clock;

    fn answer() -> Answer {
        Answer { status: StatusCode::CREATED, body: Bytes::from_static(b"{}") }
    }

    /// What `begin` says, in a word.
    fn word(begun: Result<Begun<'_>, Problem>) -> &'static str {
        match begun {
            Ok(Begun::First(_)) => "first",
            Ok(Begun::Again(_)) => "again",
            Err(problem) => problem.code(),
        }
    }

    #[test]
    fn a_key_stands_for_one_request_of_one_tenant_for_a_day() {
        let answers = Idempotency::default();
        let now = Clock::start().now();
        let tenant = Tenant::from("a");
        let Ok(Begun::First(claim)) = answers.begin(&tenant, "k", b"1", now) else { panic!("a new key") };
        assert_eq!(word(answers.begin(&tenant, "k", b"1", now)), "idempotency_key_in_use");
        claim.finish(answer(), now);
        let later = now + KEPT - Duration::from_secs(1);
        assert_eq!(word(answers.begin(&tenant, "k", b"1", later)), "again");
        assert_eq!(word(answers.begin(&tenant, "k", b"2", later)), "idempotency_key_reused");
        assert_eq!(word(answers.begin(&Tenant::from("b"), "k", b"2", later)), "first");
        assert_eq!(word(answers.begin(&tenant, "k", b"2", now + KEPT)), "first");
        assert_eq!(word(answers.begin(&tenant, "", b"2", now)), "invalid_idempotency_key");
    }

    #[test]
    fn a_failed_request_gives_its_key_back() {
        let answers = Idempotency::default();
        let now = Clock::start().now();
        drop(answers.begin(&Tenant::from("a"), "k", b"1", now));
        assert_eq!(word(answers.begin(&Tenant::from("a"), "k", b"2", now)), "first");
    }

    #[test]
    fn memory_is_bounded() {
        let answers = Idempotency::default();
        let now = Clock::start().now();
        for number in 0..ENTRIES_MAX + 10 {
            let begun = answers.begin(&Tenant::from("a"), &number.to_string(), b"", now);
            let Ok(Begun::First(claim)) = begun else { panic!("a new key") };
            claim.finish(answer(), now);
        }
        assert_eq!(answers.answers().by_key.len(), ENTRIES_MAX);
        assert_eq!(answers.answers().order.len(), ENTRIES_MAX);
    }
}
