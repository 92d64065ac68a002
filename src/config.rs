//! The configuration: what `config.toml` documents, overridden by a file, overridden by the environment.
//!
//! The `config.toml` of this project is compiled in and is the default of every key, so it is complete and true by
//! construction. A key that is not in it, or a value that cannot be right, stops the start with the key's name, where it
//! came from and what would be right. Nothing here reads the clock, opens a store or binds an address.

mod checks;
mod layers;
mod sections;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::checks::is_database;
use self::layers::Layers;
pub use self::sections::{
    Auth, Data, History, Http, Journal, Log, LogFormat, Mongodb, Node, Notification, Ops, Orders, Rabbitmq, Shutdown,
    Subscriber, Supervisor, Telemetry,
};

/// Every key with its default, as text: what `config.toml` of the project says.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// The file that is read without `--config`, if there is one.
pub const FILE_NAME: &str = "config.toml";

/// The whole configuration. `config.toml` says what each key means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml documents every key; a second text beside it would drift")]
pub struct Config {
    pub http: Http,
    pub ops: Ops,
    pub auth: Auth,
    pub data: Data,
    pub node: Node,
    pub mongodb: Mongodb,
    pub rabbitmq: Rabbitmq,
    pub history: History,
    pub orders: Orders,
    pub journal: Journal,
    pub subscriber: Subscriber,
    /// Only those that override something; [`Config::subscriber`] answers for every name.
    #[serde(default)]
    pub subscribers: BTreeMap<String, Subscriber>,
    pub notification: Notification,
    pub supervisor: Supervisor,
    pub shutdown: Shutdown,
    pub log: Log,
    pub telemetry: Telemetry,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: line {line}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Why, without the line's text.
        reason: String,
    },
    /// Keys that cannot be taken; at least one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Keys(Vec<WrongKey>),
}

/// A key that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongKey {
    /// Such as `orders.live_max`.
    pub key: String,
    /// The file, or the environment variable.
    pub origin: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {}): {}", self.key, self.origin, self.reason)
    }
}

impl Config {
    /// The defaults, overridden by the file, overridden by the environment. `path` is the file of `--config`; without
    /// it [`FILE_NAME`] in the working directory if it is there. `environment` is what [`std::env::vars`] gives.
    ///
    /// # Errors
    /// Every key that is unknown, of the wrong kind, out of range, or not in this version.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new()?;
        match path {
            Some(path) => layers.overlay_file(path)?,
            None if Path::new(FILE_NAME).exists() => layers.overlay_file(Path::new(FILE_NAME))?,
            None => {}
        }
        layers.overlay_environment(environment);
        layers.finish()
    }

    /// What holds for that subscriber.
    pub fn subscriber(&self, name: &str) -> &Subscriber {
        self.subscribers.get(name).unwrap_or(&self.subscriber)
    }
}

/// A number of milliseconds as a duration.
pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
