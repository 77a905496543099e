//! What is measured of a run, and the limits it is held to.

use super::stage::Stage;
use super::watch::{Window, longest_gap};

/// How long a message about a layer may come before or after it, in seconds.
const MOMENT: f64 = 0.7;

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Only printed.
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// One measured figure. What could not be measured is NaN, and holds no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub limit: Limit,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, limit: Limit) -> Self {
        Self { name: name.into(), value, limit }
    }

    /// Whether it keeps to its limit. What is not known keeps to none.
    pub fn holds(&self) -> bool {
        match self.limit {
            Limit::None => true,
            Limit::AtMost(most) => self.value <= most,
            Limit::AtLeast(least) => self.value >= least,
        }
    }
}

/// What is expected of what somebody sees.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub window: Window,
    /// At least this height stands for this share of the window, in per cent.
    pub height: u16,
    pub share: f64,
    /// Longest time without a picture, in seconds.
    pub gap: f64,
    /// Pictures a second.
    pub rate: f64,
    /// Switches of the layer, up and down together, in 30 s.
    pub switches: f64,
}

impl Expected {
    /// Pictures a second where an encoding may come without its highest temporal layer: that goes before the encoding
    /// does, whatever costs less.
    pub const HALF_RATE: f64 = 14.0;
    /// As good as it gets, from 10 s to 40 s.
    pub const BEST: Self =
        Self { window: Window::new(10.0, 40.0), height: 720, share: 95.0, gap: 0.5, rate: 28.0, switches: 0.0 };
}

/// What a viewer sees of a camera, against what is expected.
pub fn seen(stage: &Stage, viewer: usize, publisher: usize, expected: Expected) -> Vec<Figure> {
    let Expected { window, height, share, gap, rate, switches } = expected;
    let watch = stage.watch(viewer, publisher);
    let (up, down) = watch.switches(window);
    let per_30_s = (up + down) as f64 * 30.0 / window.seconds();
    let mut figures = vec![
        Figure::new("usual height", f64::from(watch.usual_height(window)), Limit::AtLeast(f64::from(height))),
        Figure::new(
            format!("share of {height} and more, %"),
            100.0 * watch.share(height, window),
            Limit::AtLeast(share),
        ),
        Figure::new("pictures a second", watch.rate(window), Limit::AtLeast(rate)),
        Figure::new("longest gap, ms", 1000.0 * watch.longest_gap(window), Limit::AtMost(1000.0 * gap)),
        Figure::new("switches in 30 s", per_30_s, Limit::AtMost(switches)),
        Figure::new("of them up", up as f64 * 30.0 / window.seconds(), Limit::None),
        first_picture(stage, viewer, publisher),
        told_wrongly(stage, viewer, publisher, window),
    ];
    figures.extend(link(stage, viewer, window));
    figures.extend(soundness(stage, viewer, window));
    figures
}

/// How long it took from being connected to the first picture.
pub fn first_picture(stage: &Stage, viewer: usize, publisher: usize) -> Figure {
    let connected = stage.world.members[viewer].client.connected_at;
    let connected = connected.map(|at| (at - stage.world.start).as_secs_f64());
    let first = stage.watch(viewer, publisher).first(0, 0.0);
    let after = connected.zip(first).map_or(f64::INFINITY, |(connected, first)| first - connected);
    Figure::new("first picture after, s", after, Limit::AtMost(3.0))
}

/// How often the slot said that another layer flows than could be seen within a moment. While the link's queue overflows,
/// what flows is not what can be seen: a key frame that lost packets shows nothing.
fn told_wrongly(stage: &Stage, viewer: usize, publisher: usize, window: Window) -> Figure {
    let key = (viewer, stage.camera(publisher));
    let watch = stage.watch(viewer, publisher);
    let looks = stage.looks.iter().filter(|look| (window.from..window.to).contains(&look.at));
    let told: Vec<(f64, usize)> = looks.filter_map(|look| Some((look.at, *look.told.get(&key)?))).collect();
    let wrong = told.iter().filter(|(at, step)| {
        let around = Window::new(at - MOMENT, at + MOMENT);
        let mut seen = watch.within(around).map(|(_, shown)| shown.step).peekable();
        let overflows = stage.carried(viewer, around).overflowed > 0;
        !overflows && seen.peek().is_some() && seen.all(|seen| seen != *step)
    });
    let share = if told.is_empty() { f64::NAN } else { 100.0 * wrong.count() as f64 / told.len() as f64 };
    Figure::new("told another layer, %", share, Limit::AtMost(5.0))
}

/// What a viewer's link carried, and what the server thought of it.
pub fn link(stage: &Stage, viewer: usize, window: Window) -> Vec<Figure> {
    let carried = stage.carried(viewer, window);
    let estimate = stage.estimate(viewer, window).map_or(f64::NAN, |bps| bps / 1000.0);
    let offered = (carried.packets + carried.overflowed).max(1) as f64;
    vec![
        Figure::new("estimate, kbit/s", estimate, Limit::None),
        Figure::new("received, kbit/s", received(stage, viewer, window), Limit::None),
        Figure::new("queue at most, ms", carried.longest_wait.as_secs_f64() * 1000.0, Limit::None),
        Figure::new("overflowed, %", 100.0 * carried.overflowed as f64 / offered, Limit::None),
    ]
}

/// What a viewer's link carried, in kbit/s.
pub fn received(stage: &Stage, viewer: usize, window: Window) -> f64 {
    stage.carried(viewer, window).bytes as f64 * 8.0 / 1000.0 / window.seconds()
}

/// What must hold on any link: sound comes first, and what is shown is one stream.
pub fn soundness(stage: &Stage, viewer: usize, window: Window) -> Vec<Figure> {
    let heard = stage.heard(viewer);
    let silence = longest_gap(heard.into_iter().filter(|at| (window.from..window.to).contains(at)), window);
    let requests: usize = stage.viewers(viewer, true).map(|viewer| viewer.keyframe_requests.len()).sum();
    let cut: u64 = stage.viewers(viewer, true).map(|viewer| viewer.cut_short).sum();
    let breaks: u64 = stage.viewers(viewer, true).flat_map(|viewer| viewer.continuity.breaks.values()).sum();
    vec![
        Figure::new("longest silence, ms", 1000.0 * silence, Limit::AtMost(400.0)),
        Figure::new("key frames asked for", requests as f64, Limit::None),
        Figure::new("frames cut short", cut as f64, Limit::None),
        Figure::new("breaks in numbering", breaks as f64, Limit::AtMost(0.0)),
    ]
}
