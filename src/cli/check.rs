//! `docket check`: whether the configuration is right and this machine has what docket needs. Changes nothing, except
//! that the data folder is made.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::{Done, NOT_DONE, load, print, print_json};
use crate::config::Config;
use crate::sqlite::directory::DataDirectory;
use crate::sqlite::store::FILE_NAME;

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    detail: String,
}

pub(super) fn run(path: Option<&Path>, json: bool) -> Done {
    let findings = match load(path) {
        Ok(config) => look_around(&config),
        Err(error) => vec![Finding { what: "configuration", ok: false, detail: error.to_string() }],
    };
    if json {
        print_json(&findings)?;
    } else {
        for Finding { what, ok, detail } in &findings {
            print(format_args!("{}  {what}: {detail}", if *ok { "ok   " } else { "WRONG" }))?;
        }
    }
    let ok = findings.iter().all(|finding| finding.ok);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

fn look_around(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding { what: "configuration", ok: true, detail: "every key is right".to_owned() }];
    let directory = &config.data.directory;
    let locked = DataDirectory::lock(directory);
    findings.push(match &locked {
        Ok(_) => good("data.directory", format!("{} is there and no other docket uses it", directory.display())),
        Err(error) => bad("data.directory", error.to_string()),
    });
    if locked.is_ok() {
        findings.push(match written_through(directory) {
            Ok(()) => good("disk", "takes and keeps what is written".to_owned()),
            Err(error) => bad("disk", format!("cannot write in {}: {error}", directory.display())),
        });
        let store = directory.join(FILE_NAME);
        if store.exists() {
            findings.push(match opened(&store) {
                Ok(()) => good("store", format!("{} can be read", store.display())),
                Err(error) => bad("store", format!("{} cannot be read: {error}", store.display())),
            });
        }
    }
    findings.push(free("http.bind", config.http.bind));
    findings.push(free("ops.bind", config.ops.bind));
    if config.auth.open {
        findings.push(good("auth.open", "whoever reaches the addresses may do everything".to_owned()));
    }
    findings
}

fn written_through(directory: &Path) -> io::Result<()> {
    let path = directory.join(".check");
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

fn free(what: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => good(what, format!("{address} is free")),
        Err(error) => bad(what, format!("{address}: {error}")),
    }
}

fn good(what: &'static str, detail: String) -> Finding {
    Finding { what, ok: true, detail }
}

fn bad(what: &'static str, detail: String) -> Finding {
    Finding { what, ok: false, detail }
}
