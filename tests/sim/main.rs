//! The engine and real str0m clients on a virtual network in virtual time: one seed, one course of events.
//!
//! `SIM_SEED=7 cargo test --test sim replay` runs one seed of the sweep again, and tells every event with `SIM_LOG=1`;
//! `SIM_SEEDS=1000` makes the sweep longer.

mod channel;
mod check;
mod client;
mod continuity;
mod dating;
mod decoder;
mod descriptor;
mod encoding;
mod events;
mod forwarding;
mod harness;
mod liveness;
mod loss;
mod member;
mod model;
mod moves;
mod net;
mod plan;
mod quality;
mod red;
mod rng;
mod scenarios;
mod seal;
mod shaper;
mod shards;
mod source;
mod stamp;
mod tap;
mod toy_dtls;
mod trace;
mod viewer;
mod world;

use plan::Plan;
use trace::Trace;
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 24;
/// Seeds beyond them that once found something: an older session that a rejoin did not replace.
const FOUND: [u64; 2] = [58, 73];

/// Plays one seed of the sweep; panics with all that went wrong.
fn play(seed: u64) -> Trace {
    seal::sealed(seed, move |start| {
        let mut plan = Plan::new(World::new(seed, 2, start));
        plan.play();
        let world = plan.world;
        assert!(world.faults.is_empty(), "SIM_SEED={seed}{}", world.faults.report());
        world.trace
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn sweep() {
    let seeds = from_environment("SIM_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> =
        (0..seeds).chain(FOUND).filter(|seed| std::panic::catch_unwind(|| play(*seed)).is_err()).collect();
    assert!(failed.is_empty(), "replay with SIM_SEED=…: these seeds fail: {failed:?}");
}

#[test]
fn replay() {
    if let Some(seed) = from_environment("SIM_SEED") {
        println!("{:?}", play(seed));
    }
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in [3, 4] {
        assert_eq!(play(seed), play(seed), "SIM_SEED={seed} gives two traces");
    }
}
