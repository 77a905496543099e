//! Scenarios of spatial layers that a publisher stops, takes up again, or leaves frames out of.
//!
//! Where the layers refer to each other in key pictures only, a viewer of the top one has nothing to go on with.

use std::time::Duration;

use super::figures::{Expected, Figure, Limit, link, seen};
use super::links::UPLINK;
use super::stage::Stage;
use super::watch::Window;
use crate::encoding::{Encoding, Ladder};
use crate::loss::Loss;
use crate::shaper::{Capacity, Link};

/// When the top layer stops, at another moment between the server's looks with each seed, and for how long.
fn ceases(stage: &Stage) -> f64 {
    15.0 + (stage.world.seed % 20) as f64 * 0.05
}
const AWAY: f64 = 10.0;

/// Where layers stand alone: the next lower one is seen after the key frame that it needs.
pub fn ksvc_top_ceases(stage: &mut Stage) -> Vec<Figure> {
    top_ceases(stage, Ladder::Vp9, 500.0, 1.0)
}

/// Where the lower layers have been sent along: what comes of them is seen at once.
pub fn svc_top_ceases(stage: &mut Stage) -> Vec<Figure> {
    top_ceases(stage, Ladder::Vp9Full, 100.0, 0.0)
}

/// A publisher's browser stops the top layer without a key frame, as libvpx does when its bandwidth falls, and takes it
/// up again later.
fn play(stage: &mut Stage, ladder: Ladder, down: f64) -> (usize, usize) {
    let ceases = ceases(stage);
    let publisher = stage.publisher(ladder, UPLINK);
    let viewer = stage.viewer(ladder, Link::of(Capacity::Fixed(down)), 1, 720);
    stage.run_until(Duration::from_secs_f64(ceases));
    stage.encode(publisher, |encoding| encoding.set_layers(2));
    stage.run_until(Duration::from_secs_f64(ceases + AWAY));
    stage.encode(publisher, |encoding| encoding.set_layers(3));
    stage.run_until(Duration::from_secs(40));
    (viewer, publisher)
}

fn top_ceases(stage: &mut Stage, ladder: Ladder, gap_ms: f64, asked: f64) -> Vec<Figure> {
    let (viewer, publisher) = play(stage, ladder, 5e6);
    let (ceases, returns) = (ceases(stage), ceases(stage) + AWAY);
    let mut figures = seen(stage, viewer, publisher, Expected { window: Window::new(31.0, 40.0), ..Expected::BEST });
    let watch = stage.watch(viewer, publisher);
    let gap = |from: f64, to: f64| 1000.0 * watch.longest_gap(Window::new(from, to));
    let meanwhile = stage.asked_of(publisher, Window::new(ceases, returns));
    let back = watch.held(720, returns).map_or(f64::INFINITY, |at| at - returns);
    let share = 100.0 * watch.share(360, Window::new(ceases + 1.0, returns));
    figures.extend([
        Figure::new("gap where it ceases, ms", gap(ceases - 1.0, ceases + 5.0), Limit::AtMost(gap_ms)),
        Figure::new("meanwhile: share of 360, %", share, Limit::AtLeast(95.0)),
        Figure::new("meanwhile: asked of publisher", meanwhile as f64, Limit::AtMost(asked)),
        Figure::new("gap where it returns, ms", gap(returns, 40.0), Limit::AtMost(200.0)),
        Figure::new("720 again after, s", back, Limit::AtMost(2.0)),
    ]);
    figures
}

/// Whoever had no room for the top layer before has none when it returns, and notices nothing.
pub fn ksvc_top_ceases_narrow(stage: &mut Stage) -> Vec<Figure> {
    top_ceases_narrow(stage, Ladder::Vp9)
}

pub fn svc_top_ceases_narrow(stage: &mut Stage) -> Vec<Figure> {
    top_ceases_narrow(stage, Ladder::Vp9Full)
}

fn top_ceases_narrow(stage: &mut Stage, ladder: Ladder) -> Vec<Figure> {
    let (viewer, publisher) = play(stage, ladder, 1e6);
    seen(stage, viewer, publisher, Expected { height: 360, gap: 0.5, ..Expected::BEST })
}

/// The longest run of frames that encoders leave out of one layer: libaom 250 ms, libvpx two frames.
const LONGEST_DROP: u64 = 7;

/// Rate control leaves frames out of the top layer alone: it goes on by itself, and no key frame is needed.
pub fn ksvc_top_drops_frames(stage: &mut Stage) -> Vec<Figure> {
    let drops = |encoding: &mut Encoding| encoding.set_longest_drop(LONGEST_DROP);
    ksvc_unsteady(stage, UPLINK, drops, 0.0)
}

/// What is lost on the way from the publisher is sent again: the top layer has not ceased.
pub fn ksvc_publisher_loss(stage: &mut Stage) -> Vec<Figure> {
    ksvc_unsteady(stage, Link { loss: Loss::Uniform { per_mille: 50 }, ..UPLINK }, |_| (), 2.0)
}

fn ksvc_unsteady(stage: &mut Stage, up: Link, change: impl Fn(&mut Encoding), asked: f64) -> Vec<Figure> {
    let publisher = stage.publisher(Ladder::Vp9, up);
    let viewer = stage.viewer(Ladder::Vp9, Link::of(Capacity::Fixed(5e6)), 1, 720);
    stage.run_until(Duration::from_secs(10));
    stage.encode(publisher, change);
    stage.run_until(Duration::from_secs(40));
    let window = Window::new(10.0, 40.0);
    let watch = stage.watch(viewer, publisher);
    let mut figures = vec![
        Figure::new("usual height", f64::from(watch.usual_height(window)), Limit::AtLeast(720.0)),
        Figure::new("share of 720, %", 100.0 * watch.share(720, window), Limit::AtLeast(95.0)),
        Figure::new("pictures a second", watch.rate(window), Limit::AtLeast(Expected::HALF_RATE)),
        Figure::new("longest gap, ms", 1000.0 * watch.longest_gap(window), Limit::AtMost(500.0)),
        Figure::new("asked of publisher", stage.asked_of(publisher, window) as f64, Limit::AtMost(asked)),
    ];
    figures.extend(link(stage, viewer, window));
    figures
}
