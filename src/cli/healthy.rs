//! `docket healthy`: whether a docket answers, in a few seconds, for whoever looks after a container that has no curl.
//!
//! Never says more than `/healthz` and `/readyz` do, and needs no key.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Server, block_on};
use super::{Done, NOT_DONE, print, print_json};

/// Shorter than the patience of those who ask.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Which docket, and how much of it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// Ask whether it can do its work now, too.
    ///
    /// It cannot while a server that it needs is away. Restarting it for that helps nobody.
    #[arg(long)]
    ready: bool,
}

/// What `/readyz` answers.
#[derive(Deserialize, Serialize)]
struct Readiness {
    ready: bool,
    parts: Vec<Part>,
}

#[derive(Deserialize, Serialize)]
struct Part {
    name: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Health {
    status: String,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ready { "ready" } else { "not ready" })?;
        for part in self.parts.iter().filter(|part| !part.ready) {
            write!(f, "; {}: {}", part.name, part.detail.as_deref().unwrap_or("not ready"))?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &Args) -> Done {
    let docket = args.server.docket()?;
    if !args.ready {
        let health: Health = block_on(docket.look("healthz", ANSWER_WITHIN))?;
        if args.server.json {
            print_json(&health)?
        } else {
            print(health.status)?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let readiness: Readiness = block_on(docket.look("readyz", ANSWER_WITHIN))?;
    if args.server.json {
        print_json(&readiness)?
    } else {
        print(&readiness)?
    }
    Ok(if readiness.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}
