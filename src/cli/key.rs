//! `docket key new`: makes a key for another machine and prints it, this once, with the entry that lets it in.
//!
//! Asks no docket and writes no file: a key takes effect when its entry is in the configuration and docket is started.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::{CommandError, Done, print, print_json};
use crate::auth::{KeyHash, KeyName, Scope, Secret};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key, and print it with its entry of the configuration. It is shown only this once.
    New(New),
}

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// How it is called in events and log lines: 1 to 64 of A-Z a-z 0-9 . _ -
    name: KeyName,
    /// What it allows: orders:read, orders:write, ops:read or ops:write; several with commas, or said again.
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A key that nobody has yet.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    key: &'a str,
    hash: String,
    scopes: Vec<&'static str>,
    /// What to add to the file.
    config: String,
    /// What to add to `DOCKET__AUTH__KEYS` instead.
    environment: String,
}

pub(super) fn run(key: Key) -> Done {
    let Key::New(New { name, scopes, json }) = key;
    let key = Secret::new_key().map_err(|error| CommandError::not_done(format!("no randomness: {error}")))?;
    let made = Made::of(&name, &scopes.into_iter().collect(), &key);
    if json {
        print_json(&made)?;
    } else {
        print(format_args!(
            "{}\n\nThis is the key of {name}: give it to nobody else, it is not shown again. For docket's configuration:\n\n\
             {}\n\nor by environment, beside other keys after a comma or on a line of its own:\n\n\
             DOCKET__AUTH__KEYS=\"{}\"",
            made.key, made.config, made.environment
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Made<'a> {
    fn of(name: &'a KeyName, scopes: &BTreeSet<Scope>, key: &'a Secret) -> Self {
        let hash = KeyHash::of(key.expose()).written();
        let scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
        let config =
            format!("[[auth.keys]]\nname = \"{name}\"\nhash = \"{hash}\"\nscopes = [\"{}\"]", scopes.join("\", \""));
        let environment = format!("{name} {hash} {}", scopes.join(" "));
        Self { name: name.as_str(), key: key.expose(), hash, scopes, config, environment }
    }
}
