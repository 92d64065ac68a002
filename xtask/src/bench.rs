//! `cargo xtask bench`: how many orders a second, each figure beside the most that this machine can do, measured in the
//! same minute. Rounds of docket and of the ceiling alternate, so that whatever else the machine does hits both; the
//! median of each counts. A figure is printed only when every accepted order is in the store, once, in order, and in
//! every subscriber. All of it on SQLite, and once more on MongoDB.

mod check;
mod load;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::server::{Folder, Profile, Server};
use crate::services::Mongodb;
use crate::steps::{self, Failure, Steps};
use crate::tools;
use load::{Load, Round};

/// Before the first round: caches filled, threads started.
const WARM_UP: Duration = Duration::from_millis(500);
/// Orders that are read: enough that no cache of the processor holds them all, few enough to stay live.
const LIVE: usize = 1_000;

/// How long to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Three short rounds of each instead of seven long ones.
    #[arg(long)]
    quick: bool,
    /// The figures as JSON on the last line.
    #[arg(long)]
    json: bool,
}

/// Measures, checks, prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut steps = Steps::begin();
    steps.step("tools", || {
        tools::debian(&["wrk"], || steps::succeeds(Command::new("which").arg("wrk")))?;
        tools::debian(&["sqlite3"], || steps::succeeds(Command::new("sqlite3").arg("--version")))
    })?;
    let mongodb = steps.step("MongoDB", tools::mongodb)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "--bin", "docket"]);
    build.args(["--example", "empty_handler", "--example", "mongodb_tables"]);
    steps.command("build", &mut build)?;
    let load = if options.quick {
        Load { rounds: 3, round: Duration::from_secs(2) }
    } else {
        Load { rounds: 7, round: Duration::from_secs(8) }
    };
    let mut rows = Vec::new();
    for program in [None, Some(&*mongodb)] {
        let on = if program.is_some() { ", MongoDB" } else { "" };
        let site = || Site::new(on, program);
        rows.extend(steps.step(&format!("orders alone{on}"), || orders_alone(&load, &site()?))?);
        rows.push(steps.step(&format!("with all subscribers{on}"), || with_subscribers(&load, &site()?))?);
    }
    print(&rows);
    if options.json {
        println!("{}", json(&rows));
    }
    Ok(())
}

/// Where a docket is measured: an empty folder, and an empty MongoDB or none.
struct Site {
    /// What it adds to a name.
    on: &'static str,
    mongodb: Option<Mongodb>,
    folder: Folder,
}

impl Site {
    fn new(on: &'static str, mongodb: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self { on, mongodb: mongodb.map(Mongodb::start).transpose()?, folder: Folder::new("bench")? })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn docket(&self, arguments: &[&str]) -> Result<Server, Failure> {
        let uri = self.mongodb.as_ref().map(Mongodb::uri);
        Server::docket(self.path(), Profile::Release, arguments, uri.as_deref())
    }

    /// A folder with files of all that is stored.
    fn stored(&self) -> Result<PathBuf, Failure> {
        let Some(mongodb) = &self.mongodb else { return Ok(self.path().join("data")) };
        let tables = self.path().join("tables");
        check::copy(&mongodb.uri(), &tables)?;
        Ok(tables)
    }
}

/// A line of the table.
struct Row {
    name: String,
    docket: Vec<Round>,
    ceiling: Vec<Round>,
    drain: Option<Drain>,
}

impl Row {
    fn new(what: &str, site: &Site) -> Self {
        Self { name: format!("{what}{}", site.on), docket: Vec::new(), ceiling: Vec::new(), drain: None }
    }

    fn ratio(&self) -> f64 {
        median(&self.docket, Round::per_second) / median(&self.ceiling, Round::per_second)
    }
}

/// How long the subscribers needed after the last accepted order.
struct Drain {
    orders: usize,
    accepting: Duration,
    after: Duration,
}

/// Accepted orders a second, and reads of live ones, while nobody listens to their events.
fn orders_alone(load: &Load, at: &Site) -> Result<[Row; 2], Failure> {
    let (acknowledged, nowhere) = (at.path().join("acknowledged"), at.path().join("nowhere"));
    let ceiling = Server::empty_handler(at.path())?;
    let docket = at.docket(&["--only", "orders"])?;

    let mut place = Row::new("POST /orders, orders alone", at);
    load::place(&ceiling, WARM_UP, &nowhere)?;
    load::place(&docket, WARM_UP, &acknowledged)?;
    for _ in 0..load.rounds {
        place.ceiling.push(load::place(&ceiling, load.round, &nowhere)?);
        place.docket.push(load::place(&docket, load.round, &acknowledged)?);
    }

    let live = at.path().join("live");
    last_lines(&acknowledged, LIVE, &live)?;
    let mut read = Row::new("GET of a live order", at);
    load::read(&ceiling, WARM_UP, &live)?;
    load::read(&docket, WARM_UP, &live)?;
    for _ in 0..load.rounds {
        read.ceiling.push(load::read(&ceiling, load.round, &live)?);
        read.docket.push(load::read(&docket, load.round, &live)?);
    }

    ceiling.stop()?;
    docket.stop()?;
    check::store(&at.stored()?, &acknowledged)?;
    Ok([place, read])
}

/// Accepted orders a second while every subscriber is on, each round's events handled before the next begins.
fn with_subscribers(load: &Load, at: &Site) -> Result<Row, Failure> {
    let (acknowledged, nowhere) = (at.path().join("acknowledged"), at.path().join("nowhere"));
    let ceiling = Server::empty_handler(at.path())?;
    let docket = at.docket(&[])?;

    let mut row = Row::new("POST /orders, all subscribers", at);
    load::place(&docket, WARM_UP, &acknowledged)?;
    check::drained(&docket, &acknowledged)?;
    let (mut accepting, mut after, warm) = (Duration::ZERO, Duration::ZERO, lines(&acknowledged)?);
    for _ in 0..load.rounds {
        row.ceiling.push(load::place(&ceiling, load.round, &nowhere)?);
        let round = load::place(&docket, load.round, &acknowledged)?;
        let ended = Instant::now();
        check::drained(&docket, &acknowledged)?;
        after += ended.elapsed();
        accepting += round.took;
        row.docket.push(round);
    }
    row.drain = Some(Drain { orders: lines(&acknowledged)? - warm, accepting, after });

    ceiling.stop()?;
    docket.stop()?;
    let stored = at.stored()?;
    check::store(&stored, &acknowledged)?;
    check::subscribers(&stored, &acknowledged)?;
    Ok(row)
}

fn lines(file: &Path) -> Result<usize, Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::new(file.display().to_string(), error))?;
    Ok(text.lines().count())
}

/// Copies the last `count` lines of a file: the orders used last, which are still live.
fn last_lines(file: &Path, count: usize, into: &Path) -> Result<(), Failure> {
    let failure = |error| Failure::new(file.display().to_string(), error);
    let text = fs::read_to_string(file).map_err(failure)?;
    let mut last: Vec<&str> = text.lines().rev().take(count).collect();
    last.push("");
    fs::write(into, last.join("\n")).map_err(failure)
}

fn print(rows: &[Row]) {
    println!("\n{:<40}{:>12}{:>12}{:>8}{:>10}{:>10}", "", "docket/s", "ceiling/s", "ratio", "p50 ms", "p99 ms");
    for row in rows {
        println!(
            "{:<40}{:>12.0}{:>12.0}{:>8.2}{:>10.2}{:>10.2}",
            row.name,
            median(&row.docket, Round::per_second),
            median(&row.ceiling, Round::per_second),
            row.ratio(),
            median(&row.docket, |round| round.p50_ms),
            median(&row.docket, |round| round.p99_ms),
        );
        if let Some(drain) = &row.drain {
            println!(
                "  {} orders in {:.1} s; the subscribers had done with them {:.1} s later",
                drain.orders,
                drain.accepting.as_secs_f64(),
                drain.after.as_secs_f64()
            );
        }
    }
    println!("\n64 connections, medians of {} rounds; every accepted order checked", rows[0].docket.len());
}

fn json(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let drain = row.drain.as_ref().map_or_else(String::new, |drain| {
            format!(
                ",\"drain\":{{\"orders\":{},\"accepting_s\":{:.3},\"after_s\":{:.3}}}",
                drain.orders,
                drain.accepting.as_secs_f64(),
                drain.after.as_secs_f64()
            )
        });
        format!(
            "{{\"name\":\"{}\",\"docket_per_s\":{:.0},\"ceiling_per_s\":{:.0},\"ratio\":{:.3},\"p50_ms\":{:.3},\"p99_ms\":{:.3}{drain}}}",
            row.name,
            median(&row.docket, Round::per_second),
            median(&row.ceiling, Round::per_second),
            row.ratio(),
            median(&row.docket, |round| round.p50_ms),
            median(&row.docket, |round| round.p99_ms),
        )
    };
    format!("{{\"rows\":[{}]}}", rows.iter().map(row).collect::<Vec<_>>().join(","))
}

/// The one in the middle: what one disturbed round cannot move.
fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
