//! `docket subscribers`: how far each is, and what holds it up.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Server, block_on};
use super::{CommandError, Done, print, print_json, table, text};

#[derive(Deserialize)]
struct Answer {
    subscribers: Vec<Subscriber>,
}

#[derive(Deserialize)]
struct Subscriber {
    name: String,
    state: String,
    active_in: Option<String>,
    behind: Option<u64>,
    lanes_held: Option<u64>,
    effects_waiting: Option<u64>,
    applied: u64,
    retries: u64,
    trouble: Option<String>,
}

pub(super) fn run(server: &Server) -> Done {
    let answer: Value = block_on(server.docket()?.get("api/subscribers"))?;
    if server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Answer { subscribers } =
        Answer::deserialize(answer).map_err(|error| CommandError::not_done(error.to_string()))?;
    if subscribers.is_empty() {
        print("No subscriber runs there.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["name", "state", "active in", "behind", "held", "effects", "applied", "retries", "trouble"]);
    for one in subscribers {
        rows.add_row([
            one.name,
            one.state.replace('_', " "),
            one.active_in.unwrap_or_default(),
            known(one.behind),
            known(one.lanes_held),
            known(one.effects_waiting),
            one.applied.to_string(),
            one.retries.to_string(),
            one.trouble.unwrap_or_default(),
        ]);
    }
    print(text(rows))?;
    Ok(ExitCode::SUCCESS)
}

/// A figure that nobody there knows is none.
fn known(figure: Option<u64>) -> String {
    figure.map(|figure| figure.to_string()).unwrap_or_default()
}
