//! `docket tree`: who supervises whom, and how each is; and which processes share the store.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Server, block_on};
use super::{Done, print, print_json, table, text};

#[derive(Deserialize)]
struct Node {
    name: String,
    kind: String,
    state: String,
    until: Option<String>,
    since: String,
    restarts: u32,
    restarts_max: Option<u32>,
    restarts_total: u64,
    live: Option<u64>,
    #[serde(default)]
    figures: BTreeMap<String, u64>,
    #[serde(default)]
    children: Vec<Node>,
}

/// Beside the tree: the processes.
#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    root: Node,
    /// A docket of an earlier version does not say.
    #[serde(default)]
    nodes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    name: String,
    http: String,
    ops: String,
    version: String,
    roles: Vec<String>,
    #[serde(default)]
    active: Vec<String>,
    alive: bool,
    silent_for_ms: u64,
}

pub(super) fn run(server: &Server) -> Done {
    let tree: Value = block_on(server.docket()?.get("api/tree"))?;
    if server.json {
        print_json(&tree)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Answer { root, nodes } =
        Answer::deserialize(&tree).map_err(|error| super::CommandError::not_done(error.to_string()))?;
    let mut rows = table(&["name", "kind", "state", "since", "restarts", "in all"]);
    add(&root, "", "", &mut rows);
    print(text(rows))?;
    if !nodes.is_empty() {
        print(format_args!("\n{}", text(processes(&nodes))))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn processes(nodes: &[Process]) -> comfy_table::Table {
    let mut rows = table(&["node", "seen", "version", "addresses", "runs (* active)"]);
    for node in nodes {
        let seen = if node.alive { "alive".to_owned() } else { format!("silent for {} s", node.silent_for_ms / 1_000) };
        let addresses = format!("http {}\nops {}", node.http, node.ops);
        let role = |role: &String| if node.active.contains(role) { format!("{role} *") } else { role.clone() };
        let roles: Vec<_> = node.roles.iter().map(role).collect();
        rows.add_row([node.name.clone(), seen, node.version.clone(), addresses, roles.join("\n")]);
    }
    rows
}

fn add(node: &Node, lead: &str, below: &str, rows: &mut comfy_table::Table) {
    let live = node.live.map(|live| format!(" ({live} live)")).unwrap_or_default();
    let until = node.until.as_ref().map(|until| format!(" until {}", seconds(until))).unwrap_or_default();
    let figures = node.figures.iter().filter(|(_, figure)| **figure > 0);
    let figures: String = figures.map(|(name, figure)| format!("\n{}: {figure}", name.replace('_', " "))).collect();
    let restarts = match node.restarts_max {
        // The root has none: what it cannot bear ends the process.
        Some(0) => String::new(),
        Some(max) => format!("{} of {max}", node.restarts),
        None => node.restarts.to_string(),
    };
    rows.add_row([
        format!("{lead}{}{live}", node.name),
        node.kind.clone(),
        format!("{}{until}{figures}", node.state.replace('_', " ")),
        seconds(&node.since),
        restarts,
        node.restarts_total.to_string(),
    ]);
    for (index, child) in node.children.iter().enumerate() {
        let last = index + 1 == node.children.len();
        let (fork, stem) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        add(child, &format!("{below}{fork}"), &format!("{below}{stem}"), rows);
    }
}

/// Without the milliseconds, so that the table fits into 80 columns.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}
