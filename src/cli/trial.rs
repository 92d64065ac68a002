//! `docket try NAME --order ID`: what a subscriber would make of an event, found out by its handler on what is stored now.
//! Nothing is written and nothing performed.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Server, block_on};
use super::dead_letters::would;
use super::{CommandError, Done, print, print_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose handler: the subscriber's name.
    subscriber: String,
    /// Of which order the event is.
    #[arg(long, value_name = "ORDER")]
    order: Uuid,
    /// Which event; else the next one that the subscriber has not handled. One that it has handled meets the documents as
    /// they are now, not as they were then.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    #[command(flatten)]
    server: Server,
}

/// Which event it was, and what the subscriber knows.
#[derive(Deserialize)]
struct Trial {
    version: u32,
    event_type: Option<String>,
    applied: u32,
}

pub(super) fn run(args: &Args) -> Done {
    let subscriber = utf8_percent_encode(&args.subscriber, NON_ALPHANUMERIC);
    let path = format!("api/subscribers/{subscriber}/try/{}", args.order);
    let body = args.version.map_or_else(|| json!({}), |version| json!({"version": version}));
    let answer: Value = block_on(args.server.docket()?.tell(&path, &body))?;
    if args.server.json {
        print_json(&answer)?;
    } else {
        let trial = Trial::deserialize(&answer).map_err(|error| CommandError::not_done(error.to_string()))?;
        let what = trial.event_type.as_deref().unwrap_or("unknown");
        print(format_args!("{}.{}: {what}{}", args.order, trial.version, place(&trial)))?;
    }
    would(&answer, args.server.json)
}

/// How the event stands to what the documents hold.
fn place(Trial { version, applied, .. }: &Trial) -> String {
    match *version {
        handled if handled <= *applied => format!(" (handled already: the documents are as event {applied} left them)"),
        next if next == applied + 1 => String::new(),
        _ => format!(" (not the next one: the documents are as event {applied} left them)"),
    }
}
