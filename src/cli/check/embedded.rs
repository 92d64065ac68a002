//! The data folder of a docket on SQLite: whether it is free, takes what is written, and holds a store that can be read.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Finding, bad, good};
use crate::config::Config;
use crate::sqlite::directory::DataDirectory;
use crate::sqlite::store::FILE_NAME;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let directory = &config.data.directory;
    let locked = match DataDirectory::lock(directory) {
        Ok(locked) => locked,
        Err(error) => return vec![bad("data.directory", error.to_string())],
    };
    let mut findings =
        vec![good("data.directory", format!("{} is there and no other docket uses it", directory.display()))];
    findings.push(disk(locked.path()));
    let store = directory.join(FILE_NAME);
    if store.exists() {
        findings.push(match opened(&store) {
            Ok(()) => good("store", format!("{} can be read", store.display())),
            Err(error) => bad("store", format!("{} cannot be read: {error}", store.display())),
        });
    }
    findings
}

/// Whether a folder takes files; also one that other processes use.
pub(super) fn disk(directory: &Path) -> Finding {
    match written_through(directory) {
        Ok(()) => good("disk", format!("{} takes and keeps what is written", directory.display())),
        Err(error) => bad("disk", format!("cannot write in {}: {error}", directory.display())),
    }
}

fn written_through(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!(".check-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let written = file.write_all(b"docket check").and_then(|()| file.sync_all());
    std::fs::remove_file(&path)?;
    written
}

/// Without changing it.
fn opened(store: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))
}
