//! Scenarios of one publisher and one viewer, whose downlink has a capacity.

use std::time::Duration;

use super::figures::{Expected, Figure, Limit, seen};
use super::stage::Stage;
use super::watch::Window;
use crate::encoding::Ladder;
use crate::shaper::{Capacity, Link};

/// What a camera's owner has: enough for all encodings, and key frames leave it spaced as from a pacer.
pub const UPLINK: Link = Link::of(Capacity::Fixed(10e6));

/// One publishes, one watches in a large tile, for so many seconds.
pub fn pair(stage: &mut Stage, ladder: Ladder, down: Link, seconds: u64) -> (usize, usize) {
    let publisher = stage.publisher(ladder, UPLINK);
    let viewer = stage.viewer(ladder, down, 1, 720);
    stage.run_until(Duration::from_secs(seconds));
    (viewer, publisher)
}

fn steady(stage: &mut Stage, ladder: Ladder, link: Link, expected: Expected) -> Vec<Figure> {
    let (viewer, publisher) = pair(stage, ladder, link, 40);
    let mut figures = seen(stage, viewer, publisher, expected);
    if link.capacity != Capacity::Unlimited {
        let shares = (10..40).map(|second| share_of_capacity(stage, viewer, link.capacity, second));
        let (least, most) =
            shares.fold((f64::INFINITY, 0.0), |(least, most), share| (share.min(least), share.max(most)));
        figures.extend([
            Figure::new("estimate, least of capacity, %", least, Limit::AtLeast(75.0)),
            Figure::new("estimate, most of capacity, %", most, Limit::AtMost(110.0)),
        ]);
    }
    figures
}

/// The estimate in a second, in per cent of the capacity; without an estimate, nothing.
fn share_of_capacity(stage: &Stage, viewer: usize, capacity: Capacity, second: u32) -> f64 {
    let from = f64::from(second);
    let estimate = stage.estimate(viewer, Window::new(from, from + 1.0)).unwrap_or(0.0);
    capacity.at(from).map_or(0.0, |capacity| 100.0 * estimate / capacity)
}

const AT_300K: Expected = Expected { height: 180, gap: 1.0, rate: 20.0, switches: 2.0, ..Expected::BEST };
const AT_1M: Expected = Expected { height: 360, share: 90.0, rate: 25.0, switches: 2.0, ..Expected::BEST };

/// Only the lowest encoding fits.
pub fn steady_300k(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp8, Link::of(Capacity::Fixed(300e3)), AT_300K)
}

/// The same behind a shaper with a bucket of tokens, through which a short probe passes whole.
pub fn steady_300k_bucket(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp8, Link { bucket_bytes: 3_000, ..Link::of(Capacity::Fixed(300e3)) }, AT_300K)
}

/// The middle encoding fits, the highest does not.
pub fn steady_1m(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp8, Link::of(Capacity::Fixed(1e6)), AT_1M)
}

/// The same without any choice: the publisher sends what fits and nothing higher. So a server that chooses well can
/// hold the limits.
pub fn chosen_well(stage: &mut Stage, narrow: bool) -> Vec<Figure> {
    let (capacity, expected, above) = if narrow { (300e3, AT_300K, &["h", "f"][..]) } else { (1e6, AT_1M, &["f"][..]) };
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    above.iter().for_each(|rid| stage.set_sending(publisher, rid, false));
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(capacity)), 1, 720);
    stage.run_until(Duration::from_secs(40));
    seen(stage, viewer, publisher, expected)
}

/// Everything fits, without much to spare.
pub fn steady_3m(stage: &mut Stage) -> Vec<Figure> {
    let expected = Expected { share: 90.0, switches: 1.0, ..Expected::BEST };
    steady(stage, Ladder::Vp8, Link::of(Capacity::Fixed(3e6)), expected)
}

pub fn unlimited(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp8, Link::of(Capacity::Unlimited), Expected { gap: 0.2, ..Expected::BEST })
}

pub fn unlimited_svc(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp9, Link::of(Capacity::Unlimited), Expected { gap: 0.2, ..Expected::BEST })
}

/// The two lower spatial layers fit.
pub fn steady_1m_svc(stage: &mut Stage) -> Vec<Figure> {
    steady(stage, Ladder::Vp9, Link::of(Capacity::Fixed(1e6)), AT_1M)
}

/// From 2 Mbit/s to hardly anything for 15 s, and back.
pub fn step(stage: &mut Stage) -> Vec<Figure> {
    const STEPS: &[(f64, f64)] = &[(0.0, 2e6), (20.0, 150e3), (35.0, 2e6)];
    let (viewer, publisher) = pair(stage, Ladder::Vp8, Link::of(Capacity::Steps(STEPS)), 55);
    let expected = Expected {
        window: Window::new(10.0, 20.0),
        height: 360,
        share: 90.0,
        rate: Expected::HALF_RATE,
        switches: 6.0,
        ..Expected::BEST
    };
    let mut figures = seen(stage, viewer, publisher, expected);
    let watch = stage.watch(viewer, publisher);
    let gap = |from, to| 1000.0 * watch.longest_gap(Window::new(from, to));
    let recovery = |height| watch.held(height, 35.0).map_or(f64::INFINITY, |at| at - 35.0);
    figures.extend([
        Figure::new("gap at the fall, ms", gap(20.0, 24.0), Limit::AtMost(3000.0)),
        Figure::new("gap while narrow, ms", gap(24.0, 35.0), Limit::AtMost(2000.0)),
        Figure::new("recovery of 360 and more, s", recovery(360), Limit::AtMost(10.0)),
        Figure::new("recovery of 720, s", recovery(720), Limit::None),
        Figure::new("gap after the return, ms", gap(36.0, 55.0), Limit::AtMost(1000.0)),
    ]);
    figures
}

/// From the lowest encoding's capacity to the highest's.
pub fn ramp(stage: &mut Stage) -> Vec<Figure> {
    let capacity = Capacity::Ramp { from: 300e3, to: 3e6, start: 10.0, end: 40.0 };
    let (viewer, publisher) = pair(stage, Ladder::Vp8, Link::of(capacity), 55);
    let expected =
        Expected { window: Window::new(8.0, 55.0), height: 180, share: 97.0, gap: 1.0, rate: 22.0, switches: 4.0 };
    let mut figures = seen(stage, viewer, publisher, expected);
    let watch = stage.watch(viewer, publisher);
    let share = 100.0 * watch.share(720, Window::new(45.0, 55.0));
    figures.push(Figure::new("share of 720 at the end, %", share, Limit::AtLeast(90.0)));
    let (_, down) = watch.switches(Window::new(10.0, 55.0));
    figures.push(Figure::new("switches down on the way up", down as f64, Limit::AtMost(2.0)));
    figures
}

/// Rises slowly and falls at once, again and again.
pub fn sawtooth(stage: &mut Stage) -> Vec<Figure> {
    let capacity = Capacity::Sawtooth { low: 500e3, high: 2.5e6, period: 10.0 };
    let expected = Expected {
        window: Window::new(10.0, 50.0),
        height: 180,
        gap: 1.5,
        rate: Expected::HALF_RATE,
        switches: 12.0,
        ..Expected::BEST
    };
    let (viewer, publisher) = pair(stage, Ladder::Vp8, Link::of(capacity), 50);
    seen(stage, viewer, publisher, expected)
}
