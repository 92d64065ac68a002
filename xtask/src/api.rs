//! The API against its own description: schemathesis reads `/openapi.json` of a running docket and makes up requests,
//! good ones and bad ones. No answer may be a 5xx or other than described.

use std::process::Command;

use crate::server::{Folder, Profile, Server};
use crate::steps::{self, Failure};
use crate::tools::Tools;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schemathesis.toml");
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/hooks.py");

/// Runs it: the same requests each time, or with `long` many others.
pub(crate) fn check(tools: &Tools, long: bool) -> Result<(), Failure> {
    let folder = Folder::new("api")?;
    let docket = Server::docket(folder.path(), Profile::Dev, &[], None)?;
    let mut command = Command::new(&tools.schemathesis);
    command
        .args(["--config-file", CONFIG, "run", &format!("{}/openapi.json", docket.url)])
        .args(["--no-color", "--warnings", "off", "--generation-database", "none"])
        .args(if long { &["--max-examples", "500"][..] } else { &["--max-examples", "50", "--seed", "1"] })
        .env("SCHEMATHESIS_HOOKS", HOOKS)
        .current_dir(folder.path());
    let outcome = steps::run("API", &mut command);
    if outcome.is_err() {
        println!("docket's log:\n{}", docket.log());
    }
    outcome?;
    docket.stop()
}
