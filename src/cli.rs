//! The commands. `docket` alone serves; the others ask a running docket over HTTP, or, `check`, look around.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 not (all) done, 2 a wrong
//! command or configuration, 3 no docket answers, 4 it does not let us in.

mod check;
mod client;
mod copy;
mod dead_letters;
#[cfg(test)]
mod deployed;
mod events;
mod healthy;
mod import;
mod key;
mod order;
mod restarts;
mod subscribers;
mod tree;
mod trial;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::system::Only;
use crate::telemetry;

const NOT_DONE: u8 = 1;
/// The exit code of a wrong command or configuration.
pub const WRONG: u8 = 2;
const UNREACHABLE: u8 = 3;
/// The exit code of a key that is missing, unknown, or without the scope.
const NOT_LET_IN: u8 = 4;

/// An event-sourced order service made of supervised actors.
///
/// Without a command it serves: callers on http.bind, operators on ops.bind.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    /// The configuration; else config.toml in the working directory, if there is one.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Run only these parts, such as orders,notification.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether the configuration is right and this machine has what docket needs.
    Check {
        /// The configuration; else config.toml in the working directory, if there is one.
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
        /// Look at what these parts need, such as notification, where not all run.
        #[arg(long, value_name = "PART", value_delimiter = ',')]
        only: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say whether a docket answers, within seconds: for the health check of a container.
    Healthy(healthy::Args),
    /// Show an order, now or earlier.
    Order(order::Args),
    /// Show who supervises whom, and how each is.
    Tree(client::Server),
    /// Show what was restarted or quarantined, and why; the latest last.
    Restarts(client::Server),
    /// Show how far each subscriber is, and what holds it up; let one rest, or go on.
    Subscribers(subscribers::Args),
    /// What subscribers cannot handle: see it, try it again, let it go.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Print what happens to orders as it happens, or what happened.
    Events(events::Args),
    /// Read the whole log with the code of this program, and say which events and orders it cannot read.
    ///
    /// Before an upgrade, run the new program's verify against the docket that runs: --url says where. It changes nothing
    /// there.
    Verify(verify::Args),
    /// Let a subscriber's handler run for an event of an order, and say what it would do; nothing is written.
    ///
    /// For example: docket try notification --order 0199f3a0-7c1e-7000-8000-000000000000
    Try(trial::Args),
    /// Take over orders of the older shape, one JSON object a line.
    ///
    /// What is there already is recognised: an import that was cut off is simply run again.
    Import(import::Args),
    /// Take everything from the data folder to MongoDB, with docket stopped: the way out of one machine.
    ///
    /// What was brought is read back and compared. A copy that was cut off is simply run again: it goes on where it
    /// stopped.
    Copy(copy::Args),
    /// Keys that let other machines in.
    #[command(subcommand)]
    Key(key::Key),
}

/// Runs the command of this process's arguments. `serve` runs a docket until it is told to stop.
pub fn run(serve: impl FnOnce(Config, Only) -> ExitCode) -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        None => match configured(args.config.as_deref()) {
            Ok(config) => return serve(config, Only::named(args.only)),
            Err(error) => Err(error),
        },
        Some(Command::Check { config, only, json }) => check::run(config.as_deref(), &Only::named(only), json),
        Some(Command::Healthy(args)) => healthy::run(&args),
        Some(Command::Order(args)) => order::run(args),
        Some(Command::Tree(server)) => tree::run(&server),
        Some(Command::Restarts(server)) => restarts::run(&server),
        Some(Command::Subscribers(args)) => subscribers::run(args),
        Some(Command::DeadLetters(command)) => dead_letters::run(command),
        Some(Command::Events(args)) => events::run(&args),
        Some(Command::Verify(args)) => verify::run(&args),
        Some(Command::Try(args)) => trial::run(&args),
        Some(Command::Import(args)) => import::run(args),
        Some(Command::Copy(args)) => copy::run(args),
        Some(Command::Key(key)) => key::run(key),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("docket: {}", Printable(&error));
            ExitCode::from(error.code)
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT, and at the second. Both listen from now on.
///
/// # Errors
/// When the operating system does not let us listen.
pub fn signals() -> io::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (said, heard) = watch::channel(0_u32);
    let listener = actix_rt::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            said.send_modify(|count| *count += 1);
        }
    });
    drop(listener);
    let reached = |least: u32, mut heard: watch::Receiver<u32>| async move {
        // The listener ends with the process only.
        drop(heard.wait_for(|count| *count >= least).await);
    };
    Ok((reached(1, heard.clone()), reached(2, heard)))
}

/// The configuration, with its log lines begun.
fn configured(path: Option<&Path>) -> Result<Config, CommandError> {
    let config = load(path)?;
    telemetry::start(&config.log).map_err(|error| CommandError::wrong(error.to_string()))?;
    Ok(config)
}

fn load(path: Option<&Path>) -> Result<Config, CommandError> {
    Config::load(path, environment())
        .map_err(|error: ConfigError| CommandError::wrong(format!("the configuration is wrong\n{error}")))
}

/// The environment, without what is not text: none of our variables is.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
}

/// Why a command could not be done.
#[derive(Debug)]
struct CommandError {
    message: String,
    code: u8,
}

impl CommandError {
    fn not_done(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: NOT_DONE }
    }

    fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: WRONG }
    }

    fn not_let_in(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: NOT_LET_IN }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: UNREACHABLE }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a command gives back to `main`.
type Done = Result<ExitCode, CommandError>;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// A table without what would only widen it: blanks at both ends of a line.
fn text(mut table: Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.trim_fmt()
}

/// Text for a terminal, whoever wrote it: what would steer the terminal (errors, messages and panics can say anything) is
/// written out instead. Lines stay lines.
struct Printable<T>(T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_fmt(&mut Escaping(f), format_args!("{}", self.0))
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(steers) {
            let (plain, steering) = match piece.chars().next_back().filter(|last| steers(*last)) {
                Some(last) => (&piece[..piece.len() - last.len_utf8()], Some(last)),
                None => (piece, None),
            };
            self.0.write_str(plain)?;
            if let Some(steering) = steering {
                // As in JSON, which this leaves what it is.
                write!(self.0, "\\u{:04x}", u32::from(steering))?;
            }
        }
        Ok(())
    }
}

/// Control characters, and those that turn the direction of what is behind them.
fn steers(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && character != '\n' && character != '\t')
}

/// Writes a result. Whoever reads it may have read enough (`docket tree | head`): that is no failure.
fn print(text: impl fmt::Display) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", Printable(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::not_done(format!("cannot write the result: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), CommandError> {
    print(serde_json::to_string_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_else_wrote_steers_the_terminal() {
        let evil = "a\u{1b}]0;owned\u{7}b\rc\u{9b}2Jd\u{7f}e\u{202e}f\u{0}";
        let shown = format!("{}", Printable(format_args!("{evil}\n\tü🧾")));
        let expected = r"a\u001b]0;owned\u0007b\u000dc\u009b2Jd\u007fe\u202ef\u0000";
        assert_eq!(shown, format!("{expected}\n\tü🧾"));
        let json = serde_json::to_string(evil).expect("JSON");
        let shown = Printable(&json).to_string();
        assert_eq!(serde_json::from_str::<String>(&shown).expect("still JSON"), evil);
    }
}
