//! The README's walk through, pasted as it stands: every shell block in its order, on ports of its own.

use std::net::TcpListener;
use std::process::Command;

const README: &str = include_str!("../../README.md");

/// What the README calls by names of its own.
const PRELUDE: &str = r#"
set -euo pipefail
wait_until() { for _ in $(seq 600); do if "$@"; then return; fi; sleep 0.1; done; echo "in vain: $*" >&2; return 1; }
ready() { curl -sf "localhost:$HTTP/readyz" > ready; }
# A killed one holds its folder until it is gone.
start() { wait; "$DOCKET" 2>> log & wait_until ready; }
docket() { "$DOCKET" "$@" --url "http://localhost:$OPS"; }
mails() { [ "$(ls data/mail | grep -c '\.eml$')" = 3 ]; }
trap 'kill -9 $(jobs -p) 2> ended || true' EXIT
"#;

/// What it shows on the way, in this order.
const SHOWN: [&str; 14] = [
    "HTTP/1.1 201 Created",
    "\"total\":11240",
    "idempotent-replayed: true",
    "\"status\":\"paid\"",
    "\"status\":\"shipped\"",
    "/problems/not-allowed",
    "\"status\":\"placed\"",
    "order.shipped",
    "To: ana@example.com",
    "Total: 112.40 EUR",
    "shipped",
    "notification",
    "\"status\":\"shipped\"",
    "\"version\":3",
];

/// The README's shell blocks as one script.
fn script() -> String {
    let mut script = PRELUDE.to_owned();
    for block in README.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").expect("an end of the block");
        if block.contains("data/mail") {
            script.push_str("wait_until mails\n");
        }
        script.push_str(
            &block
                .replace("cargo run --release", "start")
                .replace("target/release/docket", "docket")
                .replace("localhost:8080", "localhost:$HTTP"),
        );
    }
    script
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port().to_string()
}

#[test]
fn the_walk_through_works_as_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (http, ops) = (free_port(), free_port());
    std::os::unix::fs::symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), folder.path().join("examples"))
        .expect("a link");
    let output = Command::new("bash")
        .args(["-c", &script()])
        .current_dir(folder.path())
        .env_remove("MONGODB_URI")
        .env("DOCKET", env!("CARGO_BIN_EXE_docket"))
        .env("DOCKET__HTTP__BIND", format!("127.0.0.1:{http}"))
        .env("DOCKET__OPS__BIND", format!("127.0.0.1:{ops}"))
        .env("HTTP", http)
        .env("OPS", ops)
        .output()
        .expect("bash, curl and coreutils");
    let (shown, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{shown}\n{complaints}\n{log}", output.status);

    let mut rest = &*shown;
    for expected in SHOWN {
        match rest.split_once(expected) {
            Some((_, after)) => rest = after,
            None => panic!("{expected} is missing in what is left:\n{rest}\nof all:\n{shown}\n{complaints}"),
        }
    }
}
