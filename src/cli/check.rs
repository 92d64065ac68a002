//! `docket check`: whether the configuration is right, this machine has what docket needs, and the servers keep what it
//! relies on. Changes nothing that stays, except that the data folder is made.

mod embedded;
mod history;
mod mongodb;
mod rabbitmq;
mod smtp;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::client::block_on;
use super::{CommandError, Done, NOT_DONE, load, print, print_json};
use crate::config::Config;
use crate::system::Only;

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    /// It works, and somebody should know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warning: bool,
    detail: String,
}

pub(super) fn run(path: Option<&Path>, only: &Only, json: bool) -> Done {
    let findings = match load(path) {
        Ok(config) => look_around(&config, only)?,
        Err(error) => vec![bad("configuration", error.to_string())],
    };
    if json {
        print_json(&findings)?;
    } else {
        for finding in &findings {
            print(format_args!("{}  {}: {}", finding.verdict(), finding.what, finding.detail))?;
        }
    }
    let ok = findings.iter().all(|finding| finding.ok);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

impl Finding {
    fn verdict(&self) -> &'static str {
        match (self.ok, self.warning) {
            (false, _) => "WRONG",
            (true, true) => "WARN ",
            (true, false) => "ok   ",
        }
    }
}

/// Looks at what those parts need.
fn look_around(config: &Config, only: &Only) -> Result<Vec<Finding>, CommandError> {
    let mut findings = vec![good("configuration", "every key is right".to_owned())];
    if config.mongodb.uri.is_empty() {
        findings.extend(embedded::look(config));
    } else {
        findings.extend(block_on(async { Ok(mongodb::look(&config.mongodb, only.without_orders()).await) })?);
        if config.notification.smtp_url.is_empty() {
            // For the mails.
            findings.push(embedded::disk(&config.data.directory));
        }
    }
    if !config.notification.smtp_url.is_empty() {
        findings.push(block_on(async { Ok(smtp::look(config).await) })?);
    }
    if !config.rabbitmq.uri.is_empty() {
        findings.extend(block_on(async { Ok(rabbitmq::look(config).await) })?);
    }
    if !only.orders() {
        findings.push(block_on(async { Ok(history::look(config).await) })?);
    }
    findings.push(free("http.bind", config.http.bind));
    findings.push(free("ops.bind", config.ops.bind));
    if !config.auth.keys.is_empty() {
        let keys: Vec<_> =
            config.auth.keys.iter().map(|key| format!("{} ({})", key.name, key.scopes_written())).collect();
        findings.push(good("auth.keys", keys.join("; ")));
    }
    if config.auth.open {
        findings.push(good("auth.open", "whoever reaches the addresses may do everything".to_owned()));
    }
    Ok(findings)
}

fn free(what: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => good(what, format!("{address} is free")),
        Err(error) => bad(what, format!("{address}: {error}")),
    }
}

fn good(what: &'static str, detail: String) -> Finding {
    Finding { what, ok: true, warning: false, detail }
}

fn warning(what: &'static str, detail: String) -> Finding {
    Finding { what, ok: true, warning: true, detail }
}

fn bad(what: &'static str, detail: String) -> Finding {
    Finding { what, ok: false, warning: false, detail }
}
