//! The API against its own description: schemathesis reads `/openapi.json` of a running docket and makes up requests,
//! good ones and bad ones. No answer may be a 5xx or other than described.

use std::fs;
use std::process::Command;

use crate::server::{Folder, Profile, Server};
use crate::steps::{self, Failure};
use crate::tools::Tools;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schemathesis.toml");
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/hooks.py");

/// A key of these dockets and of no other ones.
const KEY: &str = "docket_abababababababababababababababababababababababababababababababab";
/// They know it by the SHA-256 of it.
const KEYS: &str = r#"
[[auth.keys]]
name = "schemathesis"
hash = "sha256:959bde479194b26aed39658bd2a7af3f779055f3809dd30cd3fd266c1e8293fa"
scopes = ["orders:read", "orders:write"]
"#;

/// Runs it, and a shorter one with keys: the same requests each time, or with `long` many others.
pub(crate) fn check(tools: &Tools, long: bool) -> Result<(), Failure> {
    let examples = if long { ["--max-examples", "500"] } else { ["--max-examples=50", "--seed=1"] };
    against("", "API", tools, &examples)?;
    let key = format!("Authorization: Bearer {KEY}");
    against(KEYS, "API with keys", tools, &["--seed=1", "--phases=examples,coverage", "--header", &key])
}

/// Against a docket with that configuration.
fn against(config: &str, step: &str, tools: &Tools, arguments: &[&str]) -> Result<(), Failure> {
    let folder = Folder::new("api")?;
    fs::write(folder.path().join("config.toml"), config).map_err(|error| Failure::new(step, error))?;
    let docket = Server::docket(folder.path(), Profile::Dev, &[], None)?;
    let mut command = Command::new(&tools.schemathesis);
    command
        .args(["--config-file", CONFIG, "run", &format!("{}/openapi.json", docket.url)])
        .args(["--no-color", "--warnings", "off", "--generation-database", "none"])
        .args(arguments)
        .env("SCHEMATHESIS_HOOKS", HOOKS)
        .current_dir(folder.path());
    let outcome = steps::run(step, &mut command);
    if outcome.is_err() {
        println!("docket's log:\n{}", docket.log());
    }
    outcome?;
    docket.stop()
}
