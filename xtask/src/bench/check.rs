//! Whether every accepted order is where it must be: in the store once and in order, and in every subscriber. Asked of
//! the files themselves, with Debian's sqlite3, so that no code of docket answers for itself; what is in MongoDB is copied
//! into such files before.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{self, Profile, Server};
use crate::steps::{self, Failure};

const DRAIN_MAX: Duration = Duration::from_secs(600);

/// What must not be there, each with a query that counts it.
type Faults<'a> = &'a [(&'a str, &'a str)];

const STORE: Faults = &[
    ("acknowledged twice", "SELECT (SELECT count(*) FROM lines) - (SELECT count(*) FROM acknowledged)"),
    (
        "acknowledged and not stored",
        "SELECT count(*) FROM acknowledged WHERE id || ':0000000001' NOT IN (SELECT key FROM commits)",
    ),
    (
        "stored and not acknowledged",
        "SELECT count(*) FROM commits WHERE substr(key, 1, 36) NOT IN (SELECT id FROM acknowledged)",
    ),
    ("with another commit than the first", "SELECT count(*) FROM commits WHERE substr(key, 37) <> ':0000000001'"),
    (
        "created other than once",
        "SELECT count(*) FROM commits WHERE json_array_length(body, '$.commands') <> 1
         OR json_array_length(body, '$.commands[0].events') <> 1
         OR json_extract(body, '$.commands[0].events[0].type') <> 'order.created'",
    ),
];

/// Every acknowledged order is in the store, once, in order, and no other is.
pub(super) fn store(data: &Path, acknowledged: &Path) -> Result<(), Failure> {
    none_of("the store", &data.join("orders.db"), acknowledged, STORE)
}

const SUBSCRIBER: Faults = &[
    (
        "acknowledged and not applied",
        "SELECT count(*) FROM acknowledged WHERE replace(id, '-', '') NOT IN
         (SELECT lower(hex(order_id)) FROM inbox WHERE applied = 1)",
    ),
    (
        "applied and not acknowledged",
        "SELECT count(*) FROM inbox WHERE lower(hex(order_id)) NOT IN (SELECT replace(id, '-', '') FROM acknowledged)",
    ),
    (
        "behind or held",
        "SELECT count(*) FROM inbox WHERE seen <> applied OR effects_waiting <> 0
         OR applying_state IS NOT NULL OR performing_state IS NOT NULL",
    ),
    ("with an effect that was not performed", "SELECT count(DISTINCT order_id) FROM effects WHERE outcome IS NULL"),
];

/// Every acknowledged order is in every subscriber, as far as its events go.
pub(super) fn subscribers(data: &Path, acknowledged: &Path) -> Result<(), Failure> {
    for file in subscriber_files(data)? {
        none_of(&file.display().to_string(), &file, acknowledged, SUBSCRIBER)?;
    }
    Ok(())
}

/// Waits until every subscriber of a docket that has just begun says that it has applied and performed what the
/// acknowledged orders asked of it.
pub(super) fn drained(docket: &Server, acknowledged: &Path) -> Result<(), Failure> {
    let orders = super::lines(acknowledged)?;
    let until = Instant::now() + DRAIN_MAX;
    loop {
        let mut ask = server::built(Profile::Release, "docket")?;
        ask.args(["subscribers", "--json", "--url", &docket.ops]);
        let said = steps::said("subscribers", &mut ask)?;
        if have_done_with(orders, &said) {
            return Ok(());
        }
        if Instant::now() > until {
            let why = format!("not done with {orders} orders after {} s: {said}", DRAIN_MAX.as_secs());
            return Err(Failure::new("subscribers", why));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether subscribers that tell this of themselves have nothing left to do with so many orders of one event.
fn have_done_with(orders: usize, said: &str) -> bool {
    let said: String = said.split_whitespace().collect();
    let subscribers = said.matches("\"name\":").count();
    let all_say = |what: &str| said.matches(what).count() == subscribers;
    subscribers > 0
        && all_say(&format!("\"applied\":{orders},"))
        && all_say("\"behind\":0,")
        && all_say("\"effects_waiting\":0,")
}

/// Copies what is in MongoDB into files in `folder`.
pub(super) fn copy(mongodb_uri: &str, folder: &Path) -> Result<(), Failure> {
    let mut copy = server::built(Profile::Release, "examples/mongodb_tables")?;
    steps::run("copy of the databases", copy.args([mongodb_uri, "docket"]).arg(folder))
}

/// The files that are no subscriber's.
const OTHERS: [&str; 2] = ["orders.db", "node.db"];

/// Each subscriber's file.
fn subscriber_files(data: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failure = |error| Failure::new(data.display().to_string(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(data).map_err(failure)? {
        let path = entry.map_err(failure)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".db") && !OTHERS.contains(&&*name) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(data.display().to_string(), "no subscriber keeps anything here"));
    }
    Ok(files)
}

fn none_of(place: &str, file: &Path, acknowledged: &Path, faults: Faults) -> Result<(), Failure> {
    let mut script = format!(
        "CREATE TEMP TABLE lines (id TEXT);\n.import --schema temp '{}' lines\n\
         CREATE TEMP TABLE acknowledged (id TEXT PRIMARY KEY) WITHOUT ROWID;\n\
         INSERT INTO acknowledged SELECT DISTINCT id FROM lines;\n",
        acknowledged.display()
    );
    for (_, count) in faults {
        script.push_str(count);
        script.push_str(";\n");
    }
    let counts = sqlite(file, &script)?;
    let found: Vec<String> = faults
        .iter()
        .zip(counts.lines())
        .filter(|(_, count)| *count != "0")
        .map(|((fault, _), count)| format!("{count} orders {fault}"))
        .collect();
    if counts.lines().count() != faults.len() {
        return Err(Failure::new(place, format!("sqlite3 said: {counts}")));
    }
    if found.is_empty() { Ok(()) } else { Err(Failure::new(place, found.join(", "))) }
}

fn sqlite(file: &Path, script: &str) -> Result<String, Failure> {
    let failure = |why: &dyn std::fmt::Display| Failure::new(format!("sqlite3 {}", file.display()), why);
    let mut child = Command::new("sqlite3")
        .args(["-batch", "-bail", "-cmd", ".timeout 10000"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failure(&error))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).map_err(|error| failure(&error))?;
    }
    let output = child.wait_with_output().map_err(|error| failure(&error))?;
    if !output.status.success() {
        return Err(failure(&output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_have_done_when_each_says_so() {
        let one = |applied, waiting| {
            format!(
                "{{\n \"name\": \"n\", \"behind\": 0, \"effects_waiting\": {waiting}, \"applied\": {applied}, \"x\": 0}}"
            )
        };
        assert!(have_done_with(7, &one(7, 0)));
        assert!(have_done_with(7, &format!("[{},{}]", one(7, 0), one(7, 0))));
        for said in [String::new(), one(6, 0), one(7, 1), one(77, 0), format!("[{},{}]", one(7, 0), one(6, 0))] {
            assert!(!have_done_with(7, &said), "{said}");
        }
    }
}
