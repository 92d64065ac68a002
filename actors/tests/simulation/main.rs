//! A whole docket's logic on virtual time, from a seed: what goes wrong, when, and in which order is drawn, and the same
//! seed does the same again.
//!
//! Real actors, all of them, on one thread and tokio's paused clock: a seed takes some milliseconds, so nothing is gained by
//! driving their state machines without them. A process is killed by cutting its [`line::Line`], the one way to all of its
//! ports, at any call: nothing outside could tell more exactly when it died. Scenarios are small, for these find more
//! than large ones in the same time: a few orders and commands, batches and caches of a few rows.
//!
//! `cargo xtask simulate --seeds N` tries more of them; `--seed S` replays one and prints what happened, in order.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod book;
mod callers;
mod checked;
mod line;
mod plan;
mod process;
mod stage;
mod wired;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actors::mutant::Mutant;

/// Seeds that are tried when nobody asks for others.
const SEEDS: u64 = 3_000;
/// A mutant that so many seeds have found is found.
const FOUND_ENOUGH: usize = 5;

/// Runs seeds on as many threads as there are cores, each seed on one of them, until `enough` have failed. Gives how many
/// were tried, and those that failed with what was wrong.
fn try_seeds(mutant: Option<Mutant>, first: u64, count: u64, enough: usize) -> (u64, Vec<(u64, String)>) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, failed) = (AtomicU64::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().len() < enough {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let seed = first + number;
                    if let Some(wrong) = world::run(seed, mutant, false).wrong {
                        failed.lock().unwrap().push((seed, wrong));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    (next.into_inner().min(count), failed)
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_everything_is_through_in_the_end_and_nothing_is_lost_or_done_twice() {
    if let (Some(seed), None) = (asked("DOCKET_SIMULATE_SEED"), asked("DOCKET_SIMULATE_SEEDS")) {
        return replay(seed);
    }
    let first = asked("DOCKET_SIMULATE_SEED").unwrap_or(0);
    let count = asked("DOCKET_SIMULATE_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let (tried, failed) = try_seeds(None, first, count, 20);
    println!("{tried} seeds in {:.1} s", began.elapsed().as_secs_f64());
    for (seed, wrong) in &failed {
        println!("seed {seed}: {wrong}\n    cargo xtask simulate --seed {seed}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}

fn replay(seed: u64) {
    let run = world::run(seed, None, true);
    for line in &run.lines {
        println!("{line}");
    }
    if let Some(wrong) = run.wrong {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..100 {
        let (one, other) = (world::run(seed, None, true), world::run(seed, None, true));
        let differ = one.lines.iter().zip(&other.lines).position(|(one, other)| one != other);
        if let Some(differ) = differ {
            panic!("seed {seed}, line {differ}:\n{}\n{}", one.lines[differ], other.lines[differ]);
        }
        assert_eq!(one, other, "seed {seed}");
    }
}

/// Each bug that is put in on purpose is found by some of the seeds, so what finds nothing without them says something.
#[test]
fn every_mutant_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let (tried, failed) = try_seeds(Some(mutant), 0, SEEDS, FOUND_ENOUGH);
        let example = failed.first().map_or_else(String::new, |(seed, wrong)| format!(": seed {seed}, {wrong}"));
        println!("{mutant:?}: found by {} of {tried} seeds{example}", failed.len());
        if failed.is_empty() {
            missed.push(mutant);
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
