//! A test again, in a process of its own: one that may be killed, or that has another disk.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use actors::commit::CommitKey;
use actors::testing::conformance::{Store, killed};

/// The test of that name as a process: `before` is put before its command line, and the variable tells it that it is
/// the one.
pub(crate) fn this_test_again(before: &[&str], test: &str, variable: &str, value: &OsStr) -> Command {
    let executable = std::env::current_exe().expect("this program");
    let mut words = before.iter().map(OsStr::new).chain([executable.as_os_str()]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).args([test, "--exact", "--nocapture"]).env(variable, OsString::from(value));
    command
}

/// What processes said before they were killed.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) attempted: Vec<String>,
    pub(crate) acknowledged: Vec<CommitKey>,
}

/// Writes, and says what, until somebody kills the process.
pub(crate) async fn write_until_killed(store: &dyn Store) {
    let mut said = std::io::stdout();
    let mut acknowledged = std::io::stdout();
    // The test's own line has no end yet.
    drop(said.write_all(b"\n"));
    killed::write(
        store,
        |commit| writeln!(said, "attempt {commit}").expect("somebody listens"),
        |key| writeln!(acknowledged, "acknowledged {key}").expect("somebody listens"),
    )
    .await;
}

/// Kills the process once it has acknowledged so many more.
pub(crate) fn kill_after(count: usize, mut command: Command, said: &mut Said) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a process of its own");
    let mut lines = BufReader::new(child.stdout.take().expect("its output"));
    let enough = said.acknowledged.len() + count;
    let mut line = String::new();
    while lines.read_line(&mut line).expect("text") > 0 {
        // The last line may be cut off.
        if let Some(whole) = line.strip_suffix('\n') {
            if let Some(commit) = whole.strip_prefix("attempt ") {
                said.attempted.push(commit.to_owned());
            } else if let Some(key) = whole.strip_prefix("acknowledged ") {
                said.acknowledged.push(key.parse().expect("a key"));
            }
        }
        line.clear();
        if said.acknowledged.len() == enough {
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it ended");
    assert!(said.acknowledged.len() >= enough, "it ended by itself");
}
