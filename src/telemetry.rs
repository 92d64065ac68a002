//! Log lines: text for people or JSON for machines, on standard error, and what is said at the start.
//!
//! Fields have the same names everywhere: `order.id`, `correlation.id`, `authid`, `subscriber`. A failure is logged
//! once, where it is handled: `error` is for the person on call, `warn` for what repaired itself, `debug` for each
//! request.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::{Log, LogFormat};

/// The filter of `log.level`: a level, or directives such as `info,docket::http=debug`. The web server's own lines are
/// left out: it calls a caller's broken request an error, and errors are for the person on call. So are those of the
/// broker's driver: it shows whole messages, and whatever it finds it also answers.
///
/// # Errors
/// When the text is neither.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // A mistyped level would pass as the name of a module, and leave out everything else.
        if !directive.contains(['=', '[']) {
            LevelFilter::from_str(directive)?;
        }
    }
    EnvFilter::builder().parse(format!("actix_server=warn,actix_http=off,lapin=off,{level}"))
}

/// Begins to write log lines. To be called once, before anything is started.
///
/// # Errors
/// When `log.level` is wrong, or somebody began already.
pub fn start(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    }
}

/// What a docket says about itself once it serves.
#[derive(Clone, Debug)]
pub struct StartUp {
    /// How this process is called in the ledger and among its replicas.
    pub node: String,
    /// Where events are kept, such as `SQLite in data/orders.db, on disk at each commit`.
    pub store: String,
    /// How events travel, such as `none: subscribers follow the log`.
    pub broker: String,
    /// Their names.
    pub subscribers: Vec<String>,
    /// Where mails go, in a process that sends any.
    pub mails: Option<String>,
    /// Where callers are served, with the real port.
    pub http: SocketAddr,
    /// Where operators are served, with the real port.
    pub ops: SocketAddr,
    /// Whoever reaches the addresses may do everything.
    pub open: bool,
}

impl StartUp {
    /// Writes the lines. The one with the message `serving` comes last and has the addresses as `http.address` and
    /// `ops.address`: whoever started a docket on port 0 reads them there.
    pub fn log(&self) {
        tracing::info!("node: {}", self.node);
        tracing::info!("store: {}", self.store);
        tracing::info!("broker: {}", self.broker);
        tracing::info!("subscribers: {}", or_none(&self.subscribers));
        if let Some(mails) = &self.mails {
            tracing::info!("mails: {mails}");
        }
        if self.open {
            tracing::warn!("auth.open = true: whoever reaches {} or {} may do everything", self.http, self.ops);
        }
        tracing::info!(
            http.address = %self.http,
            ops.address = %self.ops,
            "serving"
        );
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
