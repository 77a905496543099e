//! The invariants: what is never allowed to happen, whatever the network and the participants do.

use std::fmt::Display;

/// What went wrong. Collected rather than panicked at once, so that one run tells all of it.
#[derive(Debug, Default)]
pub struct Faults {
    whose: String,
    found: Vec<String>,
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
        if self.found.len() < ENOUGH {
            self.found.push(format!("{}: {what}", self.whose));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn report(&self) -> String {
        self.found.join("\n  ")
    }
}
