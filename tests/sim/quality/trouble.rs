//! Scenarios of links that are wide enough and do other harm: loss, jitter, feedback that does not come back.

use std::time::Duration;

use super::figures::{Expected, Figure, Limit, seen};
use super::links::{UPLINK, pair};
use super::stage::Stage;
use super::watch::Window;
use crate::encoding::Ladder;
use crate::loss::Loss;
use crate::seal;
use crate::shaper::{Capacity, Impairment, Link};

fn lossy(loss: Loss) -> Link {
    Link { loss, ..Link::of(Capacity::Fixed(5e6)) }
}

/// What retransmission repairs costs no layer.
pub fn loss_2_percent(stage: &mut Stage) -> Vec<Figure> {
    let (viewer, publisher) = pair(stage, Ladder::Vp8, lossy(Loss::Uniform { per_mille: 20 }), 40);
    let expected = Expected { rate: 27.0, switches: 1.0, ..Expected::BEST };
    seen(stage, viewer, publisher, expected)
}

/// Whatever layer, it goes on.
pub fn loss_10_percent(stage: &mut Stage) -> Vec<Figure> {
    let (viewer, publisher) = pair(stage, Ladder::Vp8, lossy(Loss::Uniform { per_mille: 100 }), 40);
    let expected = Expected { height: 180, gap: 1.0, rate: Expected::HALF_RATE, switches: 8.0, ..Expected::BEST };
    seen(stage, viewer, publisher, expected)
}

/// Bursts of four packets on average, 2 % in all.
pub fn loss_in_bursts(stage: &mut Stage) -> Vec<Figure> {
    let bursts = Loss::Bursts { enter_per_mille: 6, leave_per_mille: 250, good_per_mille: 1, bad_per_mille: 800 };
    let (viewer, publisher) = pair(stage, Ladder::Vp8, lossy(bursts), 40);
    let expected = Expected { height: 360, share: 90.0, gap: 1.0, rate: 24.0, switches: 4.0, ..Expected::BEST };
    seen(stage, viewer, publisher, expected)
}

const PUBLISHER_WINDOW: Window = Window::new(15.0, 40.0);

fn behind_uplink(stage: &mut Stage, up: Link) -> (usize, usize) {
    let publisher = stage.publisher(Ladder::Vp8, up);
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(3e6)), 1, 720);
    stage.run_until(Duration::from_secs(40));
    (viewer, publisher)
}

/// What is lost before the server says nothing about the links behind it.
pub fn publisher_loss(stage: &mut Stage) -> Vec<Figure> {
    let seed = stage.world.seed;
    let without = seal::sealed(seed, move |start| {
        let mut stage = Stage::new(seed, start);
        let (viewer, _) = behind_uplink(&mut stage, UPLINK);
        stage.estimate(viewer, PUBLISHER_WINDOW)
    });
    let (viewer, publisher) = behind_uplink(stage, Link { loss: Loss::Uniform { per_mille: 50 }, ..UPLINK });
    let expected = Expected { share: 90.0, gap: 1.0, rate: 24.0, switches: 2.0, ..Expected::BEST };
    let mut figures = seen(stage, viewer, publisher, expected);
    let with = stage.estimate(viewer, PUBLISHER_WINDOW);
    let change = with.zip(without).map_or(f64::NAN, |(with, without)| 100.0 * (with / without - 1.0).abs());
    figures.push(Figure::new("estimate off that without loss, %", change, Limit::AtMost(5.0)));
    figures
}

/// Nothing of it means that the link is full.
pub fn jitter(stage: &mut Stage) -> Vec<Figure> {
    let down = Link {
        jitter: Duration::from_millis(20),
        reorder_per_mille: 10,
        reorder_by: Duration::from_millis(30),
        duplicate_per_mille: 10,
        ..Link::of(Capacity::Fixed(4e6))
    };
    let (viewer, publisher) = pair(stage, Ladder::Vp8, down, 40);
    seen(stage, viewer, publisher, Expected { share: 90.0, switches: 2.0, ..Expected::BEST })
}

/// The viewer's reports are late and many never come; its downlink is well.
pub fn impaired_feedback(stage: &mut Stage) -> Vec<Figure> {
    let impairment = Impairment { loss_per_mille: 300, delay: Duration::from_millis(150) };
    let up = Link { feedback: Some(impairment), ..Link::CLEAN };
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    let viewer = stage.viewer_behind(Ladder::Vp8, up, Link::of(Capacity::Fixed(3e6)), 1, 720);
    stage.run_until(Duration::from_secs(40));
    let expected = Expected { height: 360, share: 90.0, gap: 1.0, rate: 25.0, switches: 4.0, ..Expected::BEST };
    seen(stage, viewer, publisher, expected)
}
