//! `docket restarts`: what was restarted or quarantined, and why.

use std::process::ExitCode;

use actors::supervisor::ledger::Entry;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Server, block_on};
use super::{CommandError, Done, print, print_json, table, text};

#[derive(Deserialize)]
struct Restarts {
    restarts: Vec<Entry>,
}

pub(super) fn run(server: &Server) -> Done {
    let answer: Value = block_on(server.docket()?.get("api/restarts"))?;
    if server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Restarts { restarts } =
        Restarts::deserialize(answer).map_err(|error| CommandError::not_done(error.to_string()))?;
    if restarts.is_empty() {
        print("Nothing was restarted.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["when", "node", "who", "why", "on", "attempt", "what followed", "next try"]);
    for entry in restarts.iter().rev() {
        rows.add_row([
            entry.at.to_string(),
            entry.node.to_string(),
            entry.path.to_string(),
            entry.cause.to_string(),
            entry.message.as_ref().map(|message| message.name.clone()).unwrap_or_default(),
            match entry.attempts_max {
                Some(max) => format!("{} of {max}", entry.attempt),
                None => entry.attempt.to_string(),
            },
            entry.decision.name().to_owned(),
            entry.next_try_at.map(|at| at.to_string()).unwrap_or_default(),
        ]);
    }
    print(text(rows))?;
    Ok(ExitCode::SUCCESS)
}
