//! Scenarios of several people, and of people who come and move.

use std::time::Duration;

use super::figures::{Expected, Figure, Limit, first_picture, link, received, seen, soundness};
use super::links::UPLINK;
use super::stage::Stage;
use super::watch::{Watch, Window, longest_gap};
use crate::encoding::Ladder;
use crate::shaper::{Capacity, Link};

/// Two publish, five watch on good links and one on a narrow one: the five notice nothing of it.
pub fn one_narrow_of_eight(stage: &mut Stage) -> Vec<Figure> {
    let publishers = [0, 1].map(|_| stage.publisher(Ladder::Vp8, UPLINK));
    let narrow = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(300e3)), 1, 720);
    let others = [0; 5].map(|_| stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(10e6)), 1, 720));
    stage.run_until(Duration::from_secs(30));
    let window = Window::new(10.0, 30.0);
    // One slot and two who talk in turns: which camera is in the slot is the server's choice.
    let camera_of = |member: usize| {
        let pictures = |publisher: &usize| stage.watch(member, *publisher).shown.len();
        publishers.into_iter().max_by_key(pictures).unwrap_or(publishers[0])
    };
    let narrowly = Expected { window, height: 180, gap: 1.0, rate: 20.0, switches: 2.0, ..Expected::BEST };
    let mut figures = seen(stage, narrow, camera_of(narrow), narrowly);
    // The other one may have been in the slot before.
    let first = publishers.map(|publisher| first_picture(stage, narrow, publisher));
    if let Some(first) = first.into_iter().min_by(|one, other| one.value.total_cmp(&other.value)) {
        figures.retain(|figure| figure.name != first.name);
        figures.push(first);
    }
    let watches: Vec<_> = others.iter().map(|other| stage.watch(*other, camera_of(*other))).collect();
    let worst = |of: fn(f64, f64) -> f64, figure: &dyn Fn(&Watch) -> f64| {
        watches.iter().map(figure).reduce(of).unwrap_or(f64::NAN)
    };
    let share = worst(f64::min, &|watch| 100.0 * watch.share(720, window));
    let gap = worst(f64::max, &|watch| 1000.0 * watch.longest_gap(window));
    let switches = worst(f64::max, &|watch| (watch.switches(window).0 + watch.switches(window).1) as f64);
    figures.extend([
        Figure::new("others: least share of 720, %", share, Limit::AtLeast(95.0)),
        Figure::new("others: longest gap, ms", gap, Limit::AtMost(200.0)),
        Figure::new("others: most switches", switches, Limit::AtMost(0.0)),
    ]);
    figures
}

/// Five cameras on a link that carries hardly the lowest encoding of each: whoever is wanted is seen, or the viewer is
/// told of the pause.
pub fn nobody_starves(stage: &mut Stage) -> Vec<Figure> {
    let publishers = [0; 5].map(|_| stage.publisher(Ladder::Vp8, UPLINK));
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(800e3)), 5, 360);
    stage.run_until(Duration::from_secs(60));
    let window = Window::new(10.0, 60.0);
    let starved = |publisher: &usize| {
        let track = stage.camera(*publisher);
        let watch = stage.watch(viewer, *publisher);
        let pictures = watch.shown.iter().map(|(at, _)| *at);
        let paused = stage.looks.iter().filter(|look| look.paused.contains(&(viewer, track))).map(|look| look.at);
        let mut times: Vec<f64> = pictures.chain(paused).filter(|at| (window.from..window.to).contains(at)).collect();
        times.sort_by(f64::total_cmp);
        longest_gap(times.into_iter(), window)
    };
    let starved = publishers.iter().map(starved).fold(0.0, f64::max);
    let rates: Vec<f64> = publishers.iter().map(|publisher| stage.watch(viewer, *publisher).rate(window)).collect();
    let mut figures = vec![
        Figure::new("longest unexplained gap, s", starved, Limit::AtMost(3.0)),
        Figure::new("cameras seen", rates.iter().filter(|rate| **rate > 1.0).count() as f64, Limit::AtLeast(5.0)),
        Figure::new("pictures a second, all", rates.iter().sum(), Limit::AtLeast(30.0)),
    ];
    figures.extend(link(stage, viewer, window));
    figures.extend(soundness(stage, viewer, window));
    figures
}

/// Someone joins a call that goes on, with a good link.
pub fn fresh_joiner(stage: &mut Stage) -> Vec<Figure> {
    const JOINS: f64 = 8.0;
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    stage.viewer(Ladder::Vp8, Link::CLEAN, 1, 720);
    stage.run_until(Duration::from_secs_f64(JOINS));
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(5e6)), 1, 720);
    stage.run_until(Duration::from_secs(30));
    let window = Window::new(JOINS + 7.0, 30.0);
    let mut figures = seen(stage, viewer, publisher, Expected { window, ..Expected::BEST });
    let watch = stage.watch(viewer, publisher);
    let after = |at: Option<f64>| at.map_or(f64::INFINITY, |at| at - JOINS);
    figures.extend([
        Figure::new("first picture after joining, s", after(watch.first(0, JOINS)), Limit::AtMost(2.0)),
        Figure::new("720 after joining, s", after(watch.held(720, JOINS)), Limit::AtMost(6.0)),
    ]);
    figures
}

/// A viewer leaves the Wi-Fi: another address, and a link that is narrower and longer.
pub fn wifi_to_mobile(stage: &mut Stage) -> Vec<Figure> {
    const MOVES: f64 = 15.0;
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(5e6)), 1, 720);
    stage.run_until(Duration::from_secs_f64(MOVES));
    let mobile = Link {
        delay: Duration::from_millis(45),
        jitter: Duration::from_millis(10),
        ..Link::of(Capacity::Fixed(1.2e6))
    };
    stage.go_mobile(viewer, Link { capacity: Capacity::Unlimited, ..mobile }, mobile);
    stage.run_until(Duration::from_secs(53));
    let expected = Expected {
        window: Window::new(MOVES + 8.0, 53.0),
        height: 360,
        share: 90.0,
        rate: Expected::HALF_RATE,
        switches: 3.0,
        ..Expected::BEST
    };
    let mut figures = seen(stage, viewer, publisher, expected);
    let watch = stage.watch(viewer, publisher);
    // What was underway still arrives within the first tenth.
    let back = watch.first(0, MOVES + 0.1).map_or(f64::INFINITY, |at| at - MOVES);
    let sound = stage.heard(viewer).into_iter().find(|at| *at >= MOVES + 0.1).map_or(f64::INFINITY, |at| at - MOVES);
    figures.extend([
        Figure::new("picture back after, s", back, Limit::AtMost(2.0)),
        Figure::new("sound back after, s", sound, Limit::AtMost(2.0)),
    ]);
    figures
}

/// A small tile that grows and shrinks again: what is not needed is not sent.
pub fn tile_grows(stage: &mut Stage) -> Vec<Figure> {
    const GROWS: f64 = 15.0;
    const SHRINKS: f64 = 30.0;
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(10e6)), 1, 180);
    stage.run_until(Duration::from_secs_f64(GROWS));
    stage.resize(viewer, 720);
    stage.run_until(Duration::from_secs_f64(SHRINKS));
    stage.resize(viewer, 180);
    stage.run_until(Duration::from_secs(45));
    let grown = Window::new(GROWS + 5.0, SHRINKS);
    let mut figures = seen(stage, viewer, publisher, Expected { window: grown, ..Expected::BEST });
    let watch = stage.watch(viewer, publisher);
    let grew = watch.held(720, GROWS).map_or(f64::INFINITY, |at| at - GROWS);
    let sent = |from: f64, to: f64| {
        let at = |second: f64| {
            let look = stage.looks.iter().rev().find(|look| look.at <= second);
            look.and_then(|look| look.sent.get(&stage.camera(publisher))?.last().copied()).unwrap_or(0)
        };
        f64::from(at(to) - at(from)) / (to - from)
    };
    figures.extend([
        Figure::new("while small: kbit/s", received(stage, viewer, Window::new(8.0, GROWS)), Limit::AtMost(400.0)),
        Figure::new("while small: packets/s sent in 720", sent(8.0, GROWS), Limit::None),
        Figure::new("720 after growing, s", grew, Limit::AtMost(1.0)),
        Figure::new("small again: kbit/s", received(stage, viewer, Window::new(35.0, 45.0)), Limit::AtMost(400.0)),
        Figure::new("longest gap of all, ms", 1000.0 * watch.longest_gap(Window::new(5.0, 45.0)), Limit::AtMost(500.0)),
    ]);
    figures
}

/// One in a large tile, one in a small one, and not enough for both at their best: the large one comes first, and the
/// small one is seen all the same.
pub fn priorities(stage: &mut Stage) -> Vec<Figure> {
    let publishers = [0, 1].map(|_| stage.publisher(Ladder::Vp8, UPLINK));
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(1.2e6)), 2, 180);
    stage.favour(viewer, publishers[1]);
    stage.run_until(Duration::from_secs(40));
    let expected = Expected { height: 360, share: 85.0, rate: 24.0, switches: 3.0, ..Expected::BEST };
    let mut figures = seen(stage, viewer, publishers[1], expected);
    let small = stage.watch(viewer, publishers[0]);
    figures.extend([
        Figure::new("the small: share seen, %", 100.0 * small.share(180, expected.window), Limit::AtLeast(90.0)),
        Figure::new("the small: longest gap, ms", 1000.0 * small.longest_gap(expected.window), Limit::AtMost(2000.0)),
    ]);
    figures
}

/// A publisher's browser stops the highest encoding for a while: its viewer goes down with it, and up again.
pub fn encoding_ceases(stage: &mut Stage) -> Vec<Figure> {
    const CEASES: f64 = 15.0;
    const RETURNS: f64 = 25.0;
    let publisher = stage.publisher(Ladder::Vp8, UPLINK);
    let viewer = stage.viewer(Ladder::Vp8, Link::of(Capacity::Fixed(5e6)), 1, 720);
    stage.run_until(Duration::from_secs_f64(CEASES));
    stage.set_sending(publisher, "f", false);
    stage.run_until(Duration::from_secs_f64(RETURNS));
    stage.set_sending(publisher, "f", true);
    stage.run_until(Duration::from_secs(40));
    let window = Window::new(RETURNS + 6.0, 40.0);
    let mut figures = seen(stage, viewer, publisher, Expected { window, ..Expected::BEST });
    let watch = stage.watch(viewer, publisher);
    let back = watch.held(720, RETURNS).map_or(f64::INFINITY, |at| at - RETURNS);
    let without = Window::new(CEASES + 4.0, RETURNS);
    figures.extend([
        Figure::new(
            "gap where it ceases, ms",
            1000.0 * watch.longest_gap(Window::new(14.0, 20.0)),
            Limit::AtMost(1500.0),
        ),
        Figure::new("meanwhile: share of 360, %", 100.0 * watch.share(360, without), Limit::AtLeast(95.0)),
        Figure::new("720 again after, s", back, Limit::AtMost(5.0)),
    ]);
    figures
}
