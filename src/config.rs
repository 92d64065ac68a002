//! The configuration: what `config.toml` documents, overridden by a file, overridden by the environment.
//!
//! The `config.toml` of this project is compiled in and is the default of every key, so it is complete and true by
//! construction. A key that is not in it, or a value that cannot be right, stops the start with the key's name, where it
//! came from and what would be right. Nothing here reads the clock, opens a store or binds an address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::mongo::server::Settings;
use crate::mongo::uri::redacted;
use crate::mongo::{GROUP_BYTES_MAX, GROUP_COMMITS_MAX, Uri};

/// Every key with its default, as text: what `config.toml` of the project says.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// The file that is read without `--config`, if there is one.
pub const FILE_NAME: &str = "config.toml";

const PREFIX: &str = "DOCKET__";

/// The default of `subscriber.attempts_max`, which a later version acts on.
const ATTEMPTS_MAX: u32 = 5;

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

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "config.toml documents every key; a second text beside it would drift")]
        pub struct $name { $(pub $key: $kind),+ }
    )+};
}

sections! {
    /// `[http]`
    Http {
        bind: SocketAddr,
        hosts: Vec<String>,
        workers: u32,
        connections_max: u32,
        head_timeout_ms: u64,
        body_timeout_ms: u64,
        keep_alive_ms: u64,
        answer_timeout_ms: u64,
    }
    /// `[ops]`
    Ops { bind: SocketAddr, hosts: Vec<String> }
    /// `[auth]`
    Auth { open: bool, keys: Vec<Value> }
    /// `[data]`
    Data { directory: PathBuf }
    /// `[node]`
    Node { name: String, heartbeat_ms: u64 }
    /// `[mongodb]`
    Mongodb { uri: Uri, database: String, pool_max: u32, selection_timeout_ms: u64, answer_timeout_ms: u64 }
    /// `[rabbitmq]`
    Rabbitmq {
        uri: String,
        publish_max: u32,
        prefetch: u16,
        queue_messages_max: u64,
        answer_timeout_ms: u64,
        heartbeat_s: u16,
        retry_max_ms: u64,
        lease_ms: u64,
    }
    /// `[history]`
    History { url: String, key: String }
    /// `[orders]`
    Orders {
        passivate_after_ms: u64,
        live_max: u32,
        shards: u32,
        waiting_max: u32,
        waiting_per_order_max: u32,
        loading_max: u32,
        conflicts_max: u32,
        snapshot_every_events: u32,
    }
    /// `[journal]`
    Journal {
        group_commits_max: u32,
        group_bytes_max: u64,
        waiting_commits_max: u32,
        wait_max_ms: u64,
        write_max_ms: u64,
        retry_first_ms: u64,
        retry_max_ms: u64,
    }
    /// `[subscriber]`, and `[subscribers.NAME]` with the rest taken from it.
    Subscriber {
        attempts_max: u32,
        backoff_first_ms: u64,
        backoff_factor: f64,
        backoff_max_ms: u64,
        batch_events_max: u32,
        batch_documents_max: u32,
        batch_bytes_max: u64,
        queue_events_max: u32,
        rows_cached_max: u32,
        lanes_at_once_max: u32,
        history_commits_max: u32,
        effects_loaded_max: u32,
        effects_at_once_max: u32,
        effects_max: u32,
        handler_timeout_ms: u64,
        partitions: u16,
        lease_ms: u64,
    }
    /// `[notification]`
    Notification { smtp_url: String, from: String, smtp_connections_max: u32, smtp_timeout_ms: u64 }
    /// `[supervisor]`
    Supervisor {
        restarts_max: u32,
        window_ms: u64,
        backoff_first_ms: u64,
        backoff_factor: f64,
        backoff_max_ms: u64,
        backoff_reset_ms: u64,
        quarantine_first_ms: u64,
        quarantine_max_ms: u64,
        stuck_after_ms: u64,
    }
    /// `[shutdown]`
    Shutdown { deadline_ms: u64 }
    /// `[log]`
    Log { format: LogFormat, level: String }
    /// `[telemetry]`
    Telemetry { otlp_endpoint: String }
}

impl Mongodb {
    /// How the deployment is spoken to.
    pub fn settings(&self) -> Settings {
        Settings {
            pool_max: self.pool_max,
            select_within: millis(self.selection_timeout_ms),
            answer_within: millis(self.answer_timeout_ms),
            ..Settings::new(self.uri.expose())
        }
    }
}

impl Subscriber {
    /// Its limits, each 1 or more.
    fn positive(&self) -> [(&'static str, u64); 16] {
        [
            ("attempts_max", self.attempts_max.into()),
            ("backoff_first_ms", self.backoff_first_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("batch_events_max", self.batch_events_max.into()),
            ("batch_documents_max", self.batch_documents_max.into()),
            ("batch_bytes_max", self.batch_bytes_max),
            ("queue_events_max", self.queue_events_max.into()),
            ("rows_cached_max", self.rows_cached_max.into()),
            ("lanes_at_once_max", self.lanes_at_once_max.into()),
            ("history_commits_max", self.history_commits_max.into()),
            ("effects_loaded_max", self.effects_loaded_max.into()),
            ("effects_at_once_max", self.effects_at_once_max.into()),
            ("handler_timeout_ms", self.handler_timeout_ms),
            ("lease_ms", self.lease_ms),
            ("partitions", self.partitions.into()),
            ("effects_max", self.effects_max.into()),
        ]
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
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
    #[error("{} is not TOML: {}", path.display(), redacted(&error.to_string()))]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: toml::de::Error,
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

    /// Keys with a value that no docket can run on.
    fn out_of_range(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (key, value) in self.positive() {
            if value == 0 {
                wrong.push((key.to_owned(), "must be 1 or more".to_owned()));
            }
        }
        let factors = [
            ("subscriber.backoff_factor".to_owned(), self.subscriber.backoff_factor),
            ("supervisor.backoff_factor".to_owned(), self.supervisor.backoff_factor),
        ];
        let overridden = self.subscribers.iter().map(|(name, s)| {
            let key = format!("subscribers.{name}.backoff_factor");
            (key, s.backoff_factor)
        });
        for (key, factor) in factors.into_iter().chain(overridden) {
            if !(1.0..=100.0).contains(&factor) {
                wrong.push((key, "must be from 1 to 100".to_owned()));
            }
        }
        let overridden = self.subscribers.iter().map(|(name, limits)| (format!("subscribers.{name}"), limits));
        for (section, subscriber) in overridden.chain([("subscriber".to_owned(), &self.subscriber)]) {
            let zero = subscriber.positive().into_iter().filter(|(_, value)| *value == 0);
            wrong.extend(zero.map(|(key, _)| (format!("{section}.{key}"), "must be 1 or more".to_owned())));
        }
        if let Err(error) = crate::telemetry::filter(&self.log.level) {
            wrong.push(("log.level".to_owned(), format!("must be error, warn, info, debug or trace: {error}")));
        }
        for (key, bind) in [("http.bind", self.http.bind), ("ops.bind", self.ops.bind)] {
            if !bind.ip().is_loopback() && !self.auth.open {
                let reason = format!(
                    "{bind} can be reached from other machines, and this version has no keys yet: bind 127.0.0.1, or set \
                     auth.open = true to let everybody in who reaches it"
                );
                wrong.push((key.to_owned(), reason));
            }
        }
        wrong.extend(self.leases_wrong());
        let sizes = [
            ("journal.group_commits_max", self.journal.group_commits_max.into(), GROUP_COMMITS_MAX.into()),
            ("journal.group_bytes_max", self.journal.group_bytes_max, GROUP_BYTES_MAX),
        ];
        for (key, value, most) in sizes {
            if value > most {
                wrong.push((key.to_owned(), format!("must be at most {most}: MongoDB takes one write in one message")));
            }
        }
        wrong.extend(self.mongodb_wrong().map(|(key, reason)| (format!("mongodb.{key}"), reason)));
        if self.http.bind == self.ops.bind && self.http.bind.port() != 0 {
            wrong.push(("ops.bind".to_owned(), format!("{} is http.bind already", self.ops.bind)));
        }
        wrong
    }

    /// Leases that end while their holder may be in a transaction: its statements, and its commit.
    fn leases_wrong(&self) -> Vec<(String, String)> {
        let answer = self.mongodb.answer_timeout_ms;
        let transaction = answer.saturating_mul(2);
        let overridden = self.subscribers.iter().map(|(name, limits)| (format!("subscribers.{name}"), limits));
        let sections = overridden.chain([("subscriber".to_owned(), &self.subscriber)]);
        let short = sections.filter(|(_, limits)| !self.mongodb.uri.is_empty() && limits.lease_ms < transaction);
        let reason = format!(
            "must be {transaction} or more, twice mongodb.answer_timeout_ms ({answer}): else a lease ends while its holder \
             is in a transaction"
        );
        short.map(|(section, _)| (format!("{section}.lease_ms"), reason.clone())).collect()
    }

    fn mongodb_wrong(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Mongodb { uri, database, pool_max, selection_timeout_ms, .. } = &self.mongodb;
        let address = (!uri.is_empty()).then(|| uri.check(database).err()).flatten();
        let name = (!is_database(database)).then(|| {
            "must be a name such as docket: 1 to 38 of A-Z a-z 0-9 _ -, and not admin, local or config".to_owned()
        });
        let write = self.journal.write_max_ms;
        let selection = (*selection_timeout_ms >= write).then(|| {
            format!("must be shorter than journal.write_max_ms ({write}): else a write that never left has an unknown outcome")
        });
        let pool = (1..POOL_LEAST).contains(pool_max).then(|| {
            format!("must be {POOL_LEAST} or more: reads take half, the journal, leases and subscribers the rest")
        });
        [("uri", address), ("database", name), ("pool_max", pool), ("selection_timeout_ms", selection)]
            .into_iter()
            .filter_map(|(key, wrong)| Some((key, wrong?)))
    }

    fn positive(&self) -> [(&'static str, u64); 38] {
        [
            ("http.connections_max", self.http.connections_max.into()),
            ("http.head_timeout_ms", self.http.head_timeout_ms),
            ("http.body_timeout_ms", self.http.body_timeout_ms),
            ("http.answer_timeout_ms", self.http.answer_timeout_ms),
            ("node.heartbeat_ms", self.node.heartbeat_ms),
            ("mongodb.pool_max", self.mongodb.pool_max.into()),
            ("mongodb.selection_timeout_ms", self.mongodb.selection_timeout_ms),
            ("mongodb.answer_timeout_ms", self.mongodb.answer_timeout_ms),
            ("rabbitmq.publish_max", self.rabbitmq.publish_max.into()),
            ("rabbitmq.prefetch", self.rabbitmq.prefetch.into()),
            ("rabbitmq.queue_messages_max", self.rabbitmq.queue_messages_max),
            ("rabbitmq.answer_timeout_ms", self.rabbitmq.answer_timeout_ms),
            ("rabbitmq.heartbeat_s", self.rabbitmq.heartbeat_s.into()),
            ("rabbitmq.retry_max_ms", self.rabbitmq.retry_max_ms),
            ("rabbitmq.lease_ms", self.rabbitmq.lease_ms),
            ("notification.smtp_connections_max", self.notification.smtp_connections_max.into()),
            ("notification.smtp_timeout_ms", self.notification.smtp_timeout_ms),
            ("orders.passivate_after_ms", self.orders.passivate_after_ms),
            ("orders.live_max", self.orders.live_max.into()),
            ("orders.waiting_max", self.orders.waiting_max.into()),
            ("orders.waiting_per_order_max", self.orders.waiting_per_order_max.into()),
            ("orders.loading_max", self.orders.loading_max.into()),
            ("orders.conflicts_max", self.orders.conflicts_max.into()),
            ("orders.snapshot_every_events", self.orders.snapshot_every_events.into()),
            ("journal.group_commits_max", self.journal.group_commits_max.into()),
            ("journal.group_bytes_max", self.journal.group_bytes_max),
            ("journal.waiting_commits_max", self.journal.waiting_commits_max.into()),
            ("journal.wait_max_ms", self.journal.wait_max_ms),
            ("journal.write_max_ms", self.journal.write_max_ms),
            ("journal.retry_first_ms", self.journal.retry_first_ms),
            ("journal.retry_max_ms", self.journal.retry_max_ms),
            ("supervisor.restarts_max", self.supervisor.restarts_max.into()),
            ("supervisor.window_ms", self.supervisor.window_ms),
            ("supervisor.backoff_first_ms", self.supervisor.backoff_first_ms),
            ("supervisor.backoff_max_ms", self.supervisor.backoff_max_ms),
            ("supervisor.quarantine_first_ms", self.supervisor.quarantine_first_ms),
            ("supervisor.quarantine_max_ms", self.supervisor.quarantine_max_ms),
            ("supervisor.stuck_after_ms", self.supervisor.stuck_after_ms),
        ]
    }

    /// Keys that a later version acts on. Taken silently, somebody would believe that they hold.
    fn not_yet(&self) -> Vec<(String, String)> {
        let keys = [
            ("rabbitmq.uri", !self.rabbitmq.uri.is_empty(), "cannot send events through RabbitMQ"),
            ("history.url", !self.history.url.is_empty(), "cannot read another process's history"),
            ("history.key", !self.history.key.is_empty(), "cannot read another process's history"),
            ("notification.smtp_url", !self.notification.smtp_url.is_empty(), "cannot send mail by SMTP"),
            ("telemetry.otlp_endpoint", !self.telemetry.otlp_endpoint.is_empty(), "cannot send traces"),
            ("auth.keys", !self.auth.keys.is_empty(), "has no keys"),
        ];
        let set = keys.into_iter().filter(|(_, set, _)| *set);
        let set = set.map(|(key, _, what)| (key.to_owned(), format!("this version {what} yet: leave it empty")));
        let overridden = self.subscribers.iter().map(|(name, limits)| (format!("subscribers.{name}"), limits));
        let sections = overridden.chain([("subscriber".to_owned(), &self.subscriber)]);
        let attempts = sections.filter(|(_, limits)| limits.attempts_max != ATTEMPTS_MAX).map(|(section, _)| {
            let reason = format!("this version tries for ever and has no dead letters yet: leave it at {ATTEMPTS_MAX}");
            (format!("{section}.attempts_max"), reason)
        });
        set.chain(attempts).collect()
    }
}

/// Least connections that docket can live on.
const POOL_LEAST: u32 = 8;

/// Whether a database can have that name, with room for `_` and a subscriber's name behind it.
pub(crate) fn is_database(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    plain && (1..=38).contains(&name.len()) && !["admin", "local", "config"].contains(&name)
}

/// A number of milliseconds as a duration.
pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The defaults with what was laid over them, and where each overridden key came from.
struct Layers {
    defaults: Table,
    merged: Table,
    origins: BTreeMap<String, String>,
    wrong: Vec<WrongKey>,
}

impl Layers {
    fn new() -> Result<Self, ConfigError> {
        let defaults: Table = DEFAULTS
            .parse()
            .map_err(|error| ConfigError::Syntax { path: PathBuf::from("the built-in config.toml"), error })?;
        Ok(Self { merged: defaults.clone(), defaults, origins: BTreeMap::new(), wrong: Vec::new() })
    }

    fn overlay_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let table: Table = text.parse().map_err(|error| ConfigError::Syntax { path: path.to_owned(), error })?;
        let mut leaves = Vec::new();
        flatten("", &table, &mut leaves);
        for (key, value) in leaves {
            self.set(&key, path.display().to_string(), |_| Ok(value));
        }
        Ok(())
    }

    fn overlay_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut named = Vec::new();
        let mut short = Vec::new();
        for (name, text) in environment {
            match name.as_str() {
                "MONGODB_URI" => short.push(("mongodb.uri".to_owned(), name, text)),
                "RABBITMQ_URL" => short.push(("rabbitmq.uri".to_owned(), name, text)),
                _ => {
                    if let Some(rest) = name.strip_prefix(PREFIX) {
                        named.push((rest.to_lowercase().replace("__", "."), name, text));
                    }
                }
            }
        }
        // The longer name is the more exact one: it wins.
        for (key, name, text) in short.into_iter().chain(named) {
            self.set(&key, format!("the environment variable {name}"), |default| from_text(default, &text));
        }
    }

    fn set(&mut self, key: &str, origin: String, value: impl FnOnce(&Value) -> Result<Value, String>) {
        let Some(default) = self.default_of(key) else {
            let reason = self.unknown(key);
            self.wrong.push(WrongKey { key: key.to_owned(), origin, reason });
            return;
        };
        match value(&default).and_then(|value| same_kind(&default, value)) {
            Ok(value) => {
                put(&mut self.merged, key, value);
                self.origins.insert(key.to_owned(), origin);
            }
            Err(reason) => {
                let reason = format!("{reason}; the default is {default}");
                self.wrong.push(WrongKey { key: key.to_owned(), origin, reason });
            }
        }
    }

    fn default_of(&self, key: &str) -> Option<Value> {
        let parts: Vec<&str> = key.split('.').collect();
        match parts.as_slice() {
            ["subscribers", name, key] if !name.is_empty() => self.defaults.get("subscriber")?.get(key).cloned(),
            [section, key] => self.defaults.get(*section)?.get(key).cloned(),
            _ => None,
        }
    }

    fn unknown(&self, key: &str) -> String {
        let mut known = Vec::new();
        flatten("", &self.defaults, &mut known);
        let overrides = key.strip_prefix("subscribers.").and_then(|rest| rest.split_once('.'));
        let candidates: Vec<String> = match overrides {
            Some((name, _)) => known
                .iter()
                .filter_map(|(key, _)| key.strip_prefix("subscriber."))
                .map(|key| format!("subscribers.{name}.{key}"))
                .collect(),
            None => known.into_iter().map(|(key, _)| key).collect(),
        };
        let nearest = candidates
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
            .min()
            .filter(|(distance, _)| *distance <= 2 + key.len() / 4);
        match nearest {
            Some((_, nearest)) => format!("there is no such key; did you mean {nearest}?"),
            None => "there is no such key; config.toml of the project lists them all".to_owned(),
        }
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        self.fill_overrides();
        if !self.wrong.is_empty() {
            return Err(ConfigError::Keys(self.wrong));
        }
        let config: Config = match serde_path_to_error::deserialize(Value::Table(self.merged.clone())) {
            Ok(config) => config,
            Err(error) => {
                let key = error.path().to_string();
                let reason = error.into_inner().message().to_owned();
                let reason = match self.default_of(&key) {
                    Some(default) => format!("{reason}; the default is {default}"),
                    None => reason,
                };
                return Err(ConfigError::Keys(vec![self.wrong_key(key, reason)]));
            }
        };
        let wrong: Vec<_> = config.out_of_range().into_iter().chain(config.not_yet()).collect();
        if wrong.is_empty() {
            return Ok(config);
        }
        Err(ConfigError::Keys(wrong.into_iter().map(|(key, reason)| self.wrong_key(key, reason)).collect()))
    }

    /// What `[subscribers.NAME]` leaves out it takes from `[subscriber]`.
    fn fill_overrides(&mut self) {
        let Some(Value::Table(common)) = self.merged.get("subscriber").cloned() else { return };
        let Some(Value::Table(overrides)) = self.merged.get_mut("subscribers") else { return };
        for (_, value) in overrides.iter_mut() {
            if let Value::Table(own) = value {
                let mut whole = common.clone();
                whole.extend(std::mem::take(own));
                *own = whole;
            }
        }
    }

    fn wrong_key(&self, key: String, reason: String) -> WrongKey {
        let origin = self.origins.get(&key).cloned();
        let origin = origin.unwrap_or_else(|| "the defaults, together with the other keys".to_owned());
        WrongKey { key, origin, reason }
    }
}

/// Every leaf with its dotted key. An empty table has none, so `[orders]` alone in a file changes nothing.
fn flatten(prefix: &str, table: &Table, into: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) => flatten(&key, table, into),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => into.push((key, value.clone())),
        }
    }
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// An environment variable's text, read as the kind of value that the key has.
fn from_text(default: &Value, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match default {
        Value::String(_) | Value::Datetime(_) | Value::Table(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| not_a("whole number", text)),
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| not_a("number", text)),
        Value::Boolean(_) => text.parse().map(Value::Boolean).map_err(|_| not_a("true or false", text)),
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
    }
}

fn same_kind(default: &Value, value: Value) -> Result<Value, String> {
    match (default, value) {
        #[expect(clippy::cast_precision_loss, reason = "a factor is small")]
        (Value::Float(_), Value::Integer(number)) => Ok(Value::Float(number as f64)),
        (default, value) if default.same_type(&value) => Ok(value),
        (Value::String(_), value) => Err(not_a("text in quotes", &value.to_string())),
        (Value::Integer(_), value) => Err(not_a("whole number", &value.to_string())),
        (Value::Float(_), value) => Err(not_a("number", &value.to_string())),
        (Value::Boolean(_), value) => Err(not_a("true or false", &value.to_string())),
        (Value::Array(_), value) => Err(not_a("list", &value.to_string())),
        (Value::Datetime(_) | Value::Table(_), value) => Err(not_a("section", &value.to_string())),
    }
}

fn not_a(kind: &str, got: &str) -> String {
    format!("must be a {kind}, not {got}").replace("a true or false", "true or false").replace("a text", "text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docket.toml");
        std::fs::write(&path, file).expect("a file");
        let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::load(Some(&path), environment).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(file: &str, environment: &[(&str, &str)], words: &[&str]) {
        let message = load(file, environment).expect_err("a wrong configuration");
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    }

    #[test]
    fn the_contract_holds_without_any_file() {
        let config = load("", &[]).expect("the defaults");
        assert_eq!(config.http.bind, "127.0.0.1:8080".parse().expect("an address"));
        assert_eq!(config.ops.bind, "127.0.0.1:8081".parse().expect("an address"));
        assert_eq!(config.data.directory, PathBuf::from("data"));
        assert_eq!((config.orders.passivate_after_ms, config.orders.live_max), (120_000, 100_000));
        let subscriber = config.subscriber("notification");
        assert_eq!((subscriber.attempts_max, subscriber.backoff_first_ms), (5, 1_000));
        assert_eq!((subscriber.backoff_factor, subscriber.backoff_max_ms), (2.0, 60_000));
        assert_eq!(config.notification.from, "orders@localhost");
        assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Text, "info"));
        assert_eq!(config.mongodb.database, "docket");
    }

    #[test]
    fn every_key_of_the_file_is_a_field_and_every_field_is_in_the_file() {
        let config = load("", &[]).expect("the defaults");
        let mut written = Table::try_from(&config).expect("a table");
        written.remove("subscribers");
        assert_eq!(written, DEFAULTS.parse::<Table>().expect("TOML"));
    }

    #[test]
    fn every_key_of_the_file_says_what_it_means() {
        for line in DEFAULTS.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            assert!(line.contains(" # "), "{line} has no comment");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "[orders]\nlive_max = 10\n[http]\nhosts = [\"a.example\"]",
            &[
                ("DOCKET__ORDERS__LIVE_MAX", "20"),
                ("DOCKET__HTTP__BIND", "127.0.0.1:0"),
                ("DOCKET__OPS__HOSTS", "b.example, c.example"),
                ("DOCKET__LOG__LEVEL", "debug"),
                ("PATH", "/bin"),
                ("DOCKET_TEST_MONGODB_URI", "mongodb://localhost"),
            ],
        )
        .expect("right");
        assert_eq!(config.orders.live_max, 20);
        assert_eq!(config.http.hosts, ["a.example"]);
        assert_eq!(config.ops.hosts, ["b.example", "c.example"]);
        assert_eq!(config.http.bind.port(), 0);
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn a_subscriber_overrides_what_it_names_and_keeps_the_rest() {
        let config = load(
            "[subscriber]\nbackoff_first_ms = 5\n[subscribers.notification]\neffects_max = 7\nbackoff_factor = 3",
            &[("DOCKET__SUBSCRIBERS__ANALYTICS__BATCH_EVENTS_MAX", "9")],
        )
        .expect("right");
        let notification = config.subscriber("notification");
        assert_eq!((notification.effects_max, notification.backoff_first_ms), (7, 5));
        assert_eq!(notification.backoff_factor, 3.0);
        assert_eq!(config.subscriber("analytics").batch_events_max, 9);
        assert_eq!(config.subscriber("analytics").effects_max, 100);
        assert_eq!(config.subscriber("another"), &config.subscriber);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_origin_and_the_nearest_known_one() {
        refused("[orders]\nlive_maxx = 1", &[], &["orders.live_maxx", "docket.toml", "did you mean orders.live_max?"]);
        refused("[order]\nlive_max = 1", &[], &["order.live_max", "orders.live_max?"]);
        refused("verbose = true", &[], &["verbose", "no such key"]);
        refused("[subscribers.notification]\nattempts = 1", &[], &["subscribers.notification.attempts_max?"]);
        refused("", &[("DOCKET__HTTP__BNID", "x")], &["DOCKET__HTTP__BNID", "http.bnid", "http.bind?"]);
        refused("", &[("DOCKET__HTTP", "x")], &["DOCKET__HTTP", "no such key"]);
    }

    #[test]
    fn attempts_are_refused_as_long_as_nothing_counts_them() {
        refused("[subscriber]\nattempts_max = 7", &[], &["subscriber.attempts_max", "leave it at 5"]);
        let (key, value) = ("DOCKET__SUBSCRIBERS__NOTIFICATION__ATTEMPTS_MAX", "7");
        refused("", &[(key, value)], &["subscribers.notification.attempts_max", "leave it at 5"]);
    }

    #[test]
    fn every_wrong_key_is_said_at_once() {
        refused(
            "[orders]\nlive_maxx = 1\nshards = \"two\"",
            &[("DOCKET__LOG__LEVLE", "x")],
            &["orders.live_maxx", "orders.shards", "DOCKET__LOG__LEVLE"],
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_what_would_be_right() {
        refused("[orders]\nlive_max = \"many\"", &[], &["orders.live_max", "whole number", "100000"]);
        refused("[orders]\nlive_max = 1.5", &[], &["orders.live_max", "whole number"]);
        refused("[orders]\nlive_max = -1", &[], &["orders.live_max", "docket.toml", "-1"]);
        refused("[orders]\nlive_max = 0", &[], &["orders.live_max", "docket.toml", "1 or more"]);
        refused("[auth]\nopen = \"yes\"", &[], &["auth.open", "true or false"]);
        refused("[http]\nbind = \"localhost\"", &[], &["http.bind", "docket.toml", "127.0.0.1:8080"]);
        refused("[log]\nformat = \"xml\"", &[], &["log.format", "xml", "`text`"]);
        refused("[log]\nlevel = \"=loud=\"", &[], &["log.level", "debug"]);
        refused("[log]\nlevel = \"inof\"", &[], &["log.level", "debug"]);
        refused("[subscriber]\nbackoff_factor = 0.5", &[], &["subscriber.backoff_factor", "1 to 100"]);
        refused("", &[("DOCKET__ORDERS__LIVE_MAX", "many")], &["DOCKET__ORDERS__LIVE_MAX", "whole number", "many"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/docket.toml")), []).expect_err("no file");
        assert!(error.to_string().contains("/nowhere/docket.toml"));
        refused("[orders", &[], &["docket.toml", "not TOML"]);
    }

    #[test]
    fn anything_but_loopback_needs_the_open_door_to_be_asked_for() {
        refused("[http]\nbind = \"0.0.0.0:8080\"", &[], &["http.bind", "auth.open = true"]);
        refused("", &[("DOCKET__OPS__BIND", "[::]:8081")], &["ops.bind", "DOCKET__OPS__BIND"]);
        load("[http]\nbind = \"0.0.0.0:8080\"\n[auth]\nopen = true", &[]).expect("asked for");
        refused("[http]\nbind = \"127.0.0.1:8081\"", &[], &["ops.bind", "already"]);
    }

    #[test]
    fn what_this_version_cannot_do_is_never_taken_silently() {
        refused("", &[("RABBITMQ_URL", "amqp://localhost")], &["rabbitmq.uri", "RABBITMQ_URL"]);
        refused("[history]\nurl = \"http://a\"", &[], &["history.url", "this version"]);
        refused("[notification]\nsmtp_url = \"smtp://a\"", &[], &["notification.smtp_url", "this version"]);
        refused("[telemetry]\notlp_endpoint = \"http://a\"", &[], &["telemetry.otlp_endpoint", "this version"]);
        refused("[[auth.keys]]\nname = \"a\"", &[], &["auth.keys", "this version"]);
    }

    #[test]
    fn a_deployment_is_named_by_its_own_variable_and_refused_without_its_password() {
        let uri = "mongodb://docket:s3cret@db1:27017/?replicaSet=rs0";
        let config = load("", &[("MONGODB_URI", uri)]).expect("right");
        assert_eq!(config.mongodb.uri.expose(), uri);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(load("", &[("MONGODB_URI", "")]).expect("not set").mongodb.uri.is_empty());

        refused("", &[("MONGODB_URI", "localhost")], &["mongodb.uri", "MONGODB_URI", "mongodb://"]);
        for wrong in
            ["mongodb://docket:s3cret@db1/?w=1", "mongodb://docket:s3/cret@db1", "mongodb://docket:s3cret@db1/shop"]
        {
            let said = load("", &[("MONGODB_URI", wrong)]).expect_err("wrong");
            assert!(said.contains("mongodb.uri") && !said.contains("cret"), "{said}");
        }
        let said = load("[mongodb]\nuri = \"mongodb://docket:s3cret@db1", &[]).expect_err("no end");
        assert!(said.contains("not TOML") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn what_mongodb_cannot_take_is_refused() {
        for wrong in ["", "a/b", "admin", "a.b", "a_name_that_is_much_too_long_for_two_of_them"] {
            refused("", &[("DOCKET__MONGODB__DATABASE", wrong)], &["mongodb.database", "docket"]);
        }
        refused(
            "[mongodb]\nselection_timeout_ms = 2000",
            &[],
            &["mongodb.selection_timeout_ms", "journal.write_max_ms"],
        );
        refused("[journal]\nwrite_max_ms = 1000", &[], &["mongodb.selection_timeout_ms", "journal.write_max_ms"]);
        refused("[mongodb]\npool_max = 0", &[], &["mongodb.pool_max", "1 or more"]);
        let short = "[mongodb]\nuri = \"mongodb://127.0.0.1\"\n[subscriber]\nlease_ms = 5999";
        refused(short, &[], &["subscriber.lease_ms", "6000 or more", "mongodb.answer_timeout_ms"]);
        refused("[mongodb]\npool_max = 7", &[], &["mongodb.pool_max", "8 or more"]);
        load("[mongodb]\npool_max = 8", &[]).expect("enough");
    }

    #[test]
    fn a_group_that_would_need_two_messages_is_refused() {
        refused("[journal]\ngroup_bytes_max = 33554433", &[], &["journal.group_bytes_max", "33554432", "one message"]);
        refused("[journal]\ngroup_commits_max = 100001", &[], &["journal.group_commits_max", "100000"]);
        load("[journal]\ngroup_bytes_max = 33554432\ngroup_commits_max = 100000", &[]).expect("one message");
    }
}
