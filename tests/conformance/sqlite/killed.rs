//! A process that is killed in the middle of writing groups.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use actors::commit::CommitKey;
use actors::testing::conformance::{block_on, killed};

use super::{assert_whole, folder, open, this_test_again};

const FOLDER: &str = "DOCKET_TEST_KILLED";
const NAME: &str = "sqlite::killed::what_was_acknowledged_is_there";

/// What the processes said before they were killed.
#[derive(Default)]
struct Said {
    attempted: Vec<String>,
    acknowledged: Vec<CommitKey>,
}

#[test]
fn what_was_acknowledged_is_there() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_until_killed(Path::new(&folder));
    }
    let folder = folder();
    let mut said = Said::default();
    for acknowledged in [1, 50, 333, 1_000, 2_500] {
        kill_after(acknowledged, folder.path(), &mut said);
        let store = open(folder.path());
        block_on(async {
            killed::verify(&store, &said.attempted, &said.acknowledged).await;
            store.close().await;
        });
        assert_whole(folder.path());
    }
}

fn write_until_killed(folder: &Path) {
    let mut out = std::io::stdout().lock();
    let mut said = std::io::stdout();
    drop(out.write_all(b"\n"));
    drop(out);
    let mut acknowledged = std::io::stdout();
    block_on(killed::write(
        &open(folder),
        |commit| writeln!(said, "attempt {commit}").expect("somebody listens"),
        |key| writeln!(acknowledged, "acknowledged {key}").expect("somebody listens"),
    ));
}

fn kill_after(count: usize, folder: &Path, said: &mut Said) {
    let mut child =
        this_test_again(&[], NAME, FOLDER, folder).stdout(Stdio::piped()).spawn().expect("a process of its own");
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
