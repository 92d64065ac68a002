//! `cargo xtask simulate`: a whole docket's logic on virtual time, from as many seeds as wanted; or one seed again, with all
//! that happens. The simulation itself is a test of `actors` (`actors/tests/simulation/`): CI runs some seeds of it.

use std::process::Command;

use clap::Args;

use crate::steps::{self, Failure};

/// The test that runs seeds.
const TEST: &str = "whatever_happens_everything_is_through_in_the_end_and_nothing_is_lost_or_done_twice";

/// Which seeds.
#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds to try: 10,000 unless one is named.
    #[arg(long)]
    seeds: Option<u64>,
    /// The seed to replay, printing what happens, in order; with --seeds the first of them.
    #[arg(long)]
    seed: Option<u64>,
}

/// Tries them. Each that fails is named with what was wrong.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut command = Command::new("cargo");
    command.args(["test", "--release", "--quiet", "--locked", "--package", "actors", "--test", "simulation"]);
    command.args(["--", "--exact", TEST, "--nocapture"]);
    let seeds = options.seeds.or_else(|| options.seed.is_none().then_some(10_000));
    let variables = [("DOCKET_SIMULATE_SEEDS", seeds), ("DOCKET_SIMULATE_SEED", options.seed)];
    for (name, number) in variables {
        command.env_remove(name);
        command.envs(number.map(|number| (name, number.to_string())));
    }
    steps::run("simulation", &mut command)
}
