//! What one member has seen of one camera, and the figures that follow from it.

use std::collections::BTreeMap;

use crate::viewer::Shown;

/// A picture that stands longer is frozen, and its layer no longer counts as shown.
const FROZEN: f64 = 0.5;
/// How long a layer has to hold to count as reached, and how much of that time it has to be shown.
const HOLD: f64 = 2.0;
const HELD_SHARE: f64 = 0.9;

/// Part of a run, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: f64,
    pub to: f64,
}

impl Window {
    pub const fn new(from: f64, to: f64) -> Self {
        Self { from, to }
    }

    pub fn seconds(self) -> f64 {
        self.to - self.from
    }
}

/// The pictures of one camera that one member has seen, by second.
#[derive(Debug)]
pub struct Watch {
    pub shown: Vec<(f64, Shown)>,
}

impl Watch {
    /// What was shown in a window.
    pub fn within(&self, window: Window) -> impl Iterator<Item = &(f64, Shown)> {
        self.shown.iter().filter(move |(at, _)| (window.from..window.to).contains(at))
    }

    /// How long each height stood in a window, in seconds; 0 is nothing.
    pub fn heights(&self, window: Window) -> BTreeMap<u16, f64> {
        let mut heights = BTreeMap::new();
        let mut rest = window.seconds();
        for (index, (at, shown)) in self.shown.iter().enumerate() {
            let next = self.shown.get(index + 1).map_or(f64::INFINITY, |(next, _)| *next).min(at + FROZEN);
            let stood = next.min(window.to) - at.max(window.from);
            if stood > 0.0 {
                *heights.entry(shown.height()).or_default() += stood;
                rest -= stood;
            }
        }
        heights.insert(0, rest.max(0.0));
        heights
    }

    /// The share of a window in which at least this height stood.
    pub fn share(&self, height: u16, window: Window) -> f64 {
        self.heights(window).range(height..).fold(0.0, |sum, (_, seconds)| sum + seconds) / window.seconds()
    }

    /// The height that stood longest in a window.
    pub fn usual_height(&self, window: Window) -> u16 {
        let heights = self.heights(window).into_iter();
        heights.max_by(|one, other| one.1.total_cmp(&other.1)).map_or(0, |(height, _)| height)
    }

    /// Pictures a second.
    pub fn rate(&self, window: Window) -> f64 {
        self.within(window).count() as f64 / window.seconds()
    }

    /// The longest time in a window without a new picture.
    pub fn longest_gap(&self, window: Window) -> f64 {
        let times = self.within(window).map(|(at, _)| *at);
        longest_gap(times, window)
    }

    /// Switches to a higher and to a lower layer in a window.
    pub fn switches(&self, window: Window) -> (usize, usize) {
        let steps: Vec<usize> = self.within(window).map(|(_, shown)| shown.step).collect();
        let count = |turns: fn(&[usize]) -> bool| steps.windows(2).filter(|pair| turns(pair)).count();
        (count(|pair| pair[0] < pair[1]), count(|pair| pair[0] > pair[1]))
    }

    /// The first second from `from` on in which at least this height stands, however short.
    pub fn first(&self, height: u16, from: f64) -> Option<f64> {
        self.shown.iter().find(|(at, shown)| *at >= from && shown.height() >= height).map(|(at, _)| *at)
    }

    /// The first second from `from` on from which at least this height holds.
    pub fn held(&self, height: u16, from: f64) -> Option<f64> {
        let candidates = self.shown.iter().filter(|(at, shown)| *at >= from && shown.height() >= height);
        let mut times = candidates.map(|(at, _)| *at);
        times.find(|at| self.share(height, Window::new(*at, at + HOLD)) >= HELD_SHARE)
    }
}

/// The longest time in a window without one of these, which are in order.
pub fn longest_gap(times: impl Iterator<Item = f64>, window: Window) -> f64 {
    let mut last = window.from;
    let mut longest: f64 = 0.0;
    for time in times.chain([window.to]) {
        longest = longest.max(time - last);
        last = time;
    }
    longest
}
