//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest. CI runs nothing else.

use std::process::Command;

use clap::Args;

use crate::api;
use crate::deployment;
use crate::services::Services;
use crate::steps::{self, Failure, Steps};
use crate::tools::{self, Tools};

/// How thorough to be.
#[derive(Args)]
pub(crate) struct Options {
    /// Repeat what depends on chance many times (sets DOCKET_TEST_LONG=1 for the tests): for a night, not for a commit.
    #[arg(long)]
    long: bool,
}

/// Runs it all; the first failure ends it.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut steps = Steps::begin();
    steps.step("toolchain", tools::check_toolchain)?;
    steps.command("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    steps.command("lints", &mut lints())?;
    steps.command("documentation", &mut documentation())?;
    let tools = steps.step("tools", Tools::install)?;
    steps.command("licences, bans, sources", &mut deny(&tools))?;
    steps.step("deployment files", || deployment::check(&tools))?;
    // They start while others compile.
    let services = Services::begin(&tools.servers)?;
    // As the tests need it: built alone, docket would have half of its dependencies compiled with other features.
    steps.command("build", &mut cargo(&["test", "--locked", "--workspace", "--no-run"]))?;
    steps.step("API as described", || api::check(&tools, options.long))?;
    steps.step("servers for the tests", || services.wait())?;
    let tally = steps.step("tests", || run_tests(options, &services))?;
    drop(services);
    steps.print_summary();
    println!("\n{} passed, 0 failed", tally.passed);
    Ok(())
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words);
    command
}

fn lints() -> Command {
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

fn documentation() -> Command {
    let mut command = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command
}

fn deny(tools: &Tools) -> Command {
    let mut command = Command::new(&tools.cargo_deny);
    command.args(["--locked", "--workspace", "check", "licenses", "bans", "sources"]);
    command
}

/// How many tests there were.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u32,
}

impl Tally {
    /// Adds what a line such as `test result: ok. 3 passed; 0 failed; …` says.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let passed = counts.split(['.', ';']).find_map(|count| count.trim().strip_suffix(" passed"));
        self.passed += passed.and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
    }
}

fn run_tests(options: &Options, services: &Services) -> Result<Tally, Failure> {
    let mut command = cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.envs(services.variables());
    if options.long {
        command.env("DOCKET_TEST_LONG", "1");
    }
    let mut tally = Tally::default();
    let outcome = steps::run_watched("tests", &mut command, |line| tally.add(line));
    // Tests that lost a server fail for that reason alone.
    services.check()?;
    if outcome.is_err() {
        println!("to repeat it, have `cargo xtask services` run in another terminal, and set what that prints");
    }
    outcome?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_adds_up_what_cargo_test_says() {
        let mut tally = Tally::default();
        for line in [
            "running 2 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a ... ok",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 42 });
    }
}
