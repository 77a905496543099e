//! The invariants: what is never allowed to happen, whatever the network and the participants do.

use std::fmt::Display;

/// What went wrong. Collected rather than panicked at once, so that one run tells all of it.
#[derive(Debug, Default)]
pub struct Faults {
    whose: String,
    /// Each fault, and how often it was found.
    found: Vec<(String, u64)>,
}

/// More than this of one run says nothing new.
const ENOUGH: usize = 12;

impl Faults {
    /// Says who the following faults are about.
    pub fn about(&mut self, whose: impl Into<String>) -> &mut Self {
        self.whose = whose.into();
        self
    }

    pub fn add(&mut self, what: impl Display) {
        let fault = format!("{}: {what}", self.whose);
        if let Some((_, times)) = self.found.iter_mut().find(|(known, _)| *known == fault) {
            *times += 1;
        } else if self.found.len() < ENOUGH {
            self.found.push((fault, 1));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn report(&self) -> String {
        let lines = self.found.iter().map(|(fault, times)| format!("\n  {fault} ({times} ×)"));
        lines.collect()
    }
}
