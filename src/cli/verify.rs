//! `docket verify`: reads the whole log of a running docket, and says what this program cannot read of it. The log is
//! read over there and decoded here: run by a new build against the old one, it answers before an upgrade whether every
//! event can still be read. It changes nothing.
//!
//! One page is in memory at a time. A docket that is away for a while is waited for; a run that was cut off says where the
//! next one goes on.

mod findings;

use std::process::ExitCode;

use actors::commit::{Commit, CommitKey};
use actors::order::{OrderId, Version};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Server, block_on, patiently};
use super::{CommandError, Done, NOT_DONE, Printable, print, print_json, table, text};
use crate::history::RemoteLog;
use crate::history::wire::{self, PAGE_COMMITS_MAX};
use findings::{Findings, reading};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on behind that order, where an earlier run was cut off. Orders are read in the order of their ids.
    #[arg(long, value_name = "ORDER")]
    after: Option<OrderId>,
    #[command(flatten)]
    server: Server,
}

/// What a run comes to.
#[derive(Serialize)]
struct Report<'a> {
    /// The version of the program that read the log: this one.
    program: &'static str,
    /// Whether the whole log was read.
    complete: bool,
    /// Behind which order the next run is to go on, when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<OrderId>,
    #[serde(flatten)]
    findings: &'a Findings,
}

pub(super) fn run(args: &Args) -> Done {
    let docket = args.server.docket()?;
    let mut reader = Reader { after: args.after.map(behind), done: args.after, findings: Findings::default() };
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {human_pos} events {per_sec} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let read = block_on(async {
        let log = docket.log().await?;
        reader.read(&log, &bar).await
    });
    bar.finish_and_clear();
    let Reader { done, findings, .. } = reader;
    if let Err(error) = &read
        && findings.commits == 0
    {
        return Err(CommandError { message: error.to_string(), code: error.code });
    }
    if args.server.json {
        let (complete, after) = (read.is_ok(), done.filter(|_| read.is_err()));
        print_json(&Report { program: env!("CARGO_PKG_VERSION"), complete, after, findings: &findings })?;
    } else {
        show(&findings)?;
    }
    match (read, done) {
        (Ok(()), _) => Ok(if findings.are_none() { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) }),
        (Err(CommandError { message, code }), done) => {
            let again = done.map_or_else(String::new, |order| format!(" --after {order}"));
            let message = format!("{message}\nThat was not the whole log. Go on with: docket verify{again}");
            Err(CommandError { message, code })
        }
    }
}

/// Behind everything of that order.
fn behind(order: OrderId) -> CommitKey {
    CommitKey { order, first: Version(u32::MAX) }
}

/// Reads page by page.
struct Reader {
    after: Option<CommitKey>,
    /// The last order that was read whole.
    done: Option<OrderId>,
    findings: Findings,
}

/// As much of a commit as is needed to read on behind it.
#[derive(Deserialize)]
struct Place {
    order: OrderId,
    first: Version,
}

impl Reader {
    async fn read(&mut self, log: &RemoteLog, bar: &ProgressBar) -> Result<(), CommandError> {
        loop {
            let (after, waiting) = (self.after, |why: &str| bar.suspend(|| eprintln!("waiting: {}", Printable(why))));
            let page = patiently(async || log.scan_raw(after, PAGE_COMMITS_MAX).await, waiting).await?;
            if page.is_empty() {
                return Ok(());
            }
            for raw in page {
                self.take(&raw)?;
            }
            bar.set_position(self.findings.events);
            if !self.findings.are_none() {
                bar.set_message("with findings");
            }
        }
    }

    fn take(&mut self, raw: &RawValue) -> Result<(), CommandError> {
        let before = self.findings.last_order();
        let key = match wire::commit(raw) {
            Ok(commit) => self.take_commit(&commit),
            Err(error) => {
                let place: Place = serde_json::from_str(raw.get()).map_err(|_| {
                    let after = self.after.map_or_else(|| "the beginning".to_owned(), |key| key.to_string());
                    CommandError::not_done(format!("what lies behind {after} has no key that can be read: {error}"))
                })?;
                self.findings.take_damaged(place.order, place.first, error.to_string());
                CommitKey { order: place.order, first: place.first }
            }
        };
        if before.is_some_and(|order| order != key.order) {
            self.done = before;
        }
        self.after = Some(key);
        Ok(())
    }

    fn take_commit(&mut self, commit: &Commit) -> CommitKey {
        self.findings.take(commit);
        commit.key()
    }
}

fn show(findings: &Findings) -> Result<(), CommandError> {
    let mut types = table(&["type", "schema", "events", "read"]);
    for ((event_type, schema_version), events) in &findings.types {
        types.add_row([
            event_type.clone(),
            schema_version.to_string(),
            HumanCount(*events).to_string(),
            reading(event_type, *schema_version),
        ]);
    }
    if !findings.types.is_empty() {
        print(format_args!("{}\n", text(types)))?;
    }
    for ((event_type, schema_version, kind), trouble) in &findings.troubles {
        let what = if event_type.is_empty() { String::new() } else { format!("{event_type} {schema_version}: ") };
        print(format_args!("{what}{} {}", HumanCount(trouble.events), kind.in_words()))?;
        for example in &trouble.examples {
            print(format_args!("  {}.{}  {}", example.order, example.version, example.reason))?;
        }
    }
    let Findings { orders, commits: _, events, orders_failing, .. } = findings;
    let (orders, events) = (HumanCount(*orders), HumanCount(*events));
    match orders_failing {
        0 => print(format_args!("{events} events of {orders} orders: this program reads all of them.")),
        failing => {
            let failing = HumanCount(*failing);
            print(format_args!("\n{events} events of {orders} orders: this program cannot read {failing} orders."))
        }
    }
}
