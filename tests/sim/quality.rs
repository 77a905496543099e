//! Adaptive quality: named scenarios on shaped links, many seeds each, what was seen measured and held to limits.
//!
//! `SIM_QUALITY=all cargo test --test sim quality_figures -- --nocapture` plays every scenario and prints the table;
//! in place of `all`, a part of a name plays the scenarios with that name. `SIM_SEEDS=5` plays fewer seeds, `SIM_SEED=7`
//! only that one, and tells what every viewer saw in each second.

mod diary;
mod figures;
mod layers;
mod links;
mod rooms;
mod stage;
mod table;
mod trouble;
mod watch;

use std::time::Duration;

use crate::encoding::Ladder;
use crate::from_environment;
use crate::seal;
use crate::shaper::Link;
use figures::Figure;
use stage::Stage;
use watch::Window;

/// Seeds of an ordinary run of the table.
const SEEDS: u64 = 20;

/// One row of the table: plays a course of events and says what came of it.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(&mut Stage) -> Vec<Figure>,
}

const fn row(name: &'static str, play: fn(&mut Stage) -> Vec<Figure>) -> Scenario {
    Scenario { name, play }
}

/// The table.
const SCENARIOS: [Scenario; 29] = [
    row("steady_300k", links::steady_300k),
    row("steady_300k_bucket", links::steady_300k_bucket),
    row("steady_1m", links::steady_1m),
    row("steady_3m", links::steady_3m),
    row("unlimited", links::unlimited),
    row("unlimited_svc", links::unlimited_svc),
    row("steady_1m_svc", links::steady_1m_svc),
    row("step_2m_150k_2m", links::step),
    row("ramp_300k_3m", links::ramp),
    row("sawtooth", links::sawtooth),
    row("loss_2_percent", trouble::loss_2_percent),
    row("loss_10_percent", trouble::loss_10_percent),
    row("loss_in_bursts", trouble::loss_in_bursts),
    row("publisher_loss_5_percent", trouble::publisher_loss),
    row("jitter_reordering_copies", trouble::jitter),
    row("impaired_feedback", trouble::impaired_feedback),
    row("one_narrow_of_eight", rooms::one_narrow_of_eight),
    row("nobody_starves", rooms::nobody_starves),
    row("fresh_joiner", rooms::fresh_joiner),
    row("wifi_to_mobile", rooms::wifi_to_mobile),
    row("tile_grows", rooms::tile_grows),
    row("priorities", rooms::priorities),
    row("encoding_ceases", rooms::encoding_ceases),
    row("ksvc_top_ceases", layers::ksvc_top_ceases),
    row("ksvc_top_ceases_narrow", layers::ksvc_top_ceases_narrow),
    row("svc_top_ceases", layers::svc_top_ceases),
    row("svc_top_ceases_narrow", layers::svc_top_ceases_narrow),
    row("ksvc_top_drops_frames", layers::ksvc_top_drops_frames),
    row("ksvc_publisher_loss", layers::ksvc_publisher_loss),
];

/// Plays one scenario with one seed on a thread of its own.
pub fn play(scenario: Scenario, seed: u64) -> table::Run {
    seal::sealed(seed, move |start| {
        let mut stage = Stage::new(seed, start);
        let figures = (scenario.play)(&mut stage);
        let mut run = table::Run::of(&stage, figures);
        if from_environment("SIM_SEED").is_some() {
            run.diary = diary::diary(&stage);
        }
        run
    })
}

fn seeds() -> Vec<u64> {
    match from_environment("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_environment("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn quality_figures() {
    let Ok(wanted) = std::env::var("SIM_QUALITY") else { return };
    let matches = |scenario: &&Scenario| wanted == "all" || scenario.name.contains(&wanted);
    let scenarios: Vec<Scenario> = SCENARIOS.iter().filter(matches).copied().collect();
    assert!(!scenarios.is_empty(), "no scenario's name has {wanted:?} in it");
    println!("{}", table::measure(&scenarios, &seeds()).text);
}

/// Seeds of each scenario that CI plays.
const CI_SEEDS: usize = 8;

/// The table holds: every figure of every seed keeps to its limit.
#[test]
fn quality_holds() {
    let mut seeds = seeds();
    if std::env::var_os("CI").is_some() {
        // CI machines are slow and have 40 minutes for everything; scripts/test plays all seeds elsewhere.
        seeds.truncate(CI_SEEDS);
    }
    let measured = table::measure(&SCENARIOS, &seeds);
    println!("{}", measured.text);
    assert!(measured.failures.is_empty(), "{}\n{:#?}", measured.text, measured.failures);
}

/// The equipment itself, on links that ask nothing of the server: the best layer is seen, whole and without a break.
#[test]
fn quality_equipment_works() {
    for ladder in [Ladder::Vp8, Ladder::Vp9, Ladder::Vp9Full] {
        let run = |seed| {
            seal::sealed(seed, move |start| {
                let mut stage = Stage::new(seed, start);
                let publisher = stage.publisher(ladder, Link::CLEAN);
                let viewer = stage.viewer(ladder, Link::CLEAN, 1, 720);
                stage.run_until(Duration::from_secs(12));
                let watch = stage.watch(viewer, publisher);
                let window = Window::new(6.0, 12.0);
                assert!(watch.share(720, window) > 0.99, "seed {seed}: {ladder:?}: {:?}", watch.heights(window));
                assert!(watch.longest_gap(window) < 0.1, "seed {seed}: {ladder:?}: {} s", watch.longest_gap(window));
                assert!((29.0..31.0).contains(&watch.rate(window)), "seed {seed}: {ladder:?}: {}", watch.rate(window));
                assert!(stage.world.faults.is_empty(), "seed {seed}:{}", stage.world.faults.report());
                stage.world.trace
            })
        };
        assert_eq!(run(5), run(5), "seed 5 gives two traces");
    }
}

/// The limits of narrow links ask for nothing that such links cannot carry.
#[test]
fn quality_limits_can_be_held() {
    for seed in 0..3 {
        for narrow in [true, false] {
            seal::sealed(seed, move |start| {
                let mut stage = Stage::new(seed, start);
                for figure in links::chosen_well(&mut stage, narrow) {
                    assert!(figure.holds(), "seed {seed}, narrow: {narrow}: {figure:?}\n{}", diary::diary(&stage));
                }
            });
        }
    }
}
