//! `compose.yaml` and the manifests for Kubernetes, each against the schema of what reads it, without any of these
//! running. Whether docket takes what they say to it is a test of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{Failure, run};
use crate::tools::Tools;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const VALIDATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deployment/validate.py");
/// The oldest that has all of what the manifests use, and the newest of which the schema is known.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Checks them all.
pub(crate) fn check(tools: &Tools) -> Result<(), Failure> {
    let root = Path::new(ROOT);
    let compose = ["--builtin-schema", "vendor.compose-spec"];
    let mut check = Command::new(tools.deployment.join("check-jsonschema"));
    run("compose file", check.args(compose).arg(root.join("compose.yaml")))?;
    let manifests = manifests(&root.join("deploy/kubernetes"))?;
    for version in KUBERNETES {
        let mut validate = Command::new(tools.deployment.join("python"));
        run("manifests", validate.args([VALIDATE, version]).args(&manifests))?;
    }
    Ok(())
}

/// All but the kustomization, which is no resource of a cluster.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| Failure::new(folder.display().to_string(), error))?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml") && !file.ends_with("kustomization.yaml"));
    files.sort();
    Ok(files)
}
