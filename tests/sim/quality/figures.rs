//! What is measured of a run, and the limits it is held to.

use super::stage::{Stage, Window};

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

    /// Whether it keeps to its limit. What is not known yet is not held against anybody.
    pub fn holds(&self) -> bool {
        match self.limit {
            _ if self.value.is_nan() => true,
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
        Figure::new("usual height", f64::from(watch.usual_height(window)), Limit::None),
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
    ];
    figures.extend(link(stage, viewer, window));
    figures.extend(soundness(stage, viewer));
    figures
}

fn first_picture(stage: &Stage, viewer: usize, publisher: usize) -> Figure {
    let connected = stage.world.members[viewer].client.connected_at;
    let connected = connected.map(|at| (at - stage.world.start).as_secs_f64());
    let first = stage.watch(viewer, publisher).first(0, 0.0);
    let after = connected.zip(first).map_or(f64::INFINITY, |(connected, first)| first - connected);
    Figure::new("first picture after, s", after, Limit::AtMost(3.0))
}

/// What a viewer's link carried, and what the server thought of it.
fn link(stage: &Stage, viewer: usize, window: Window) -> Vec<Figure> {
    let carried = stage.world.net.carried_down(stage.world.members[viewer].host);
    let estimate = stage.estimate(viewer, window).map_or(f64::NAN, |bps| bps / 1000.0);
    let offered = (carried.packets + carried.overflowed).max(1) as f64;
    vec![
        Figure::new("estimate, kbit/s", estimate, Limit::None),
        Figure::new("queue at most, ms", carried.longest_wait.as_secs_f64() * 1000.0, Limit::None),
        Figure::new("overflowed, %", 100.0 * carried.overflowed as f64 / offered, Limit::None),
    ]
}

/// What must hold on any link: sound comes first, and what is shown is one stream.
pub fn soundness(stage: &Stage, viewer: usize) -> Vec<Figure> {
    let silence = stage.viewers(viewer, false).map(|viewer| viewer.longest_silence).max().unwrap_or_default();
    let requests: usize = stage.viewers(viewer, true).map(|viewer| viewer.keyframe_requests.len()).sum();
    let breaks: u64 = stage.viewers(viewer, true).flat_map(|viewer| viewer.continuity.breaks.values()).sum();
    vec![
        Figure::new("longest silence, ms", silence.as_secs_f64() * 1000.0, Limit::None),
        Figure::new("key frames asked for", requests as f64, Limit::None),
        Figure::new("breaks in numbering", breaks as f64, Limit::AtMost(0.0)),
    ]
}
