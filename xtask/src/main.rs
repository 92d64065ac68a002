//! The project's own commands: `cargo xtask test`, `cargo xtask simulate`, `cargo xtask services`, `cargo xtask bench`. They
//! say what they do, install what is missing, and end with the command that repeats whatever failed. Nothing of docket
//! depends on them, nor they on its code: they use what is built from outside, as everybody else does.

mod api;
mod bench;
mod deployment;
#[path = "../../tests/servers/src/mongod.rs"]
mod mongod;
#[path = "../../tests/servers/src/port.rs"]
mod port;
#[path = "../../tests/servers/src/rabbitmq_node.rs"]
mod rabbitmq_node;
mod server;
mod services;
mod simulate;
mod steps;
mod test;
mod tools;

use std::process::ExitCode;

use clap::Parser;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Everything that must hold: format, lints, licences, tests, the API against its description.
    Test(test::Options),
    /// A whole docket's logic on virtual time, from seeds: faults, crashes and everything late, and the same seed does the
    /// same again.
    Simulate(simulate::Options),
    /// The servers that tests need, until Ctrl-C: for tests run by hand.
    Services,
    /// How fast, as a ratio to what the machine could do at most, and whether everything accepted is there.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse() {
        Xtask::Test(options) => test::run(&options),
        Xtask::Simulate(options) => simulate::run(&options),
        Xtask::Services => services::run(),
        Xtask::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\n{failure}");
            ExitCode::FAILURE
        }
    }
}
