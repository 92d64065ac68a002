//! The defaults with a file and the environment laid over them, key by key.
//!
//! Every key remembers where its value came from, and every wrong one is said at once.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULTS, WrongKey};

const PREFIX: &str = "DOCKET__";

/// Keys whose values are not repeated when they are wrong: they hold passwords, or somebody may think that they do.
const SECRETS: &[&str] = &["auth.keys", "history.key", "mongodb.uri", "notification.smtp_url", "rabbitmq.uri"];

/// The defaults with what was laid over them, and where each overridden key came from.
pub(super) struct Layers {
    defaults: Table,
    merged: Table,
    origins: BTreeMap<String, String>,
    wrong: Vec<WrongKey>,
}

impl Layers {
    pub(super) fn new() -> Result<Self, ConfigError> {
        let defaults = parsed(Path::new("the built-in config.toml"), DEFAULTS)?;
        Ok(Self { merged: defaults.clone(), defaults, origins: BTreeMap::new(), wrong: Vec::new() })
    }

    pub(super) fn overlay_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let table = parsed(path, &text)?;
        let mut leaves = Vec::new();
        flatten("", &table, &mut leaves);
        for (key, value) in leaves {
            self.set(&key, path.display().to_string(), |_| Ok(value));
        }
        Ok(())
    }

    pub(super) fn overlay_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
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

    fn set(&mut self, key: &str, origin: String, value: impl FnOnce(&Value) -> Result<Value, NotA>) {
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
            Err(NotA { kind, got }) => {
                let got = if SECRETS.contains(&key) { String::new() } else { format!(", not {got}") };
                let reason = format!("must be {kind}{got}; the default is {default}");
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

    pub(super) fn finish(mut self) -> Result<Config, ConfigError> {
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

/// Without the line that is wrong: it may hold a password.
fn parsed(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax { path: path.to_owned(), line, reason: error.message().to_owned() }
    })
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

/// A value of another kind than its key has.
struct NotA {
    /// What would be right.
    kind: &'static str,
    got: String,
}

impl NotA {
    fn new(kind: &'static str, got: impl ToString) -> Self {
        Self { kind, got: got.to_string() }
    }
}

/// An environment variable's text, read as the kind of value that the key has.
fn from_text(default: &Value, text: &str) -> Result<Value, NotA> {
    let text = text.trim();
    match default {
        Value::String(_) | Value::Datetime(_) | Value::Table(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| NotA::new("a whole number", text)),
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| NotA::new("a number", text)),
        Value::Boolean(_) => text.parse().map(Value::Boolean).map_err(|_| NotA::new("true or false", text)),
        Value::Array(_) => {
            let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
    }
}

fn same_kind(default: &Value, value: Value) -> Result<Value, NotA> {
    match (default, value) {
        #[expect(clippy::cast_precision_loss, reason = "a factor is small")]
        (Value::Float(_), Value::Integer(number)) => Ok(Value::Float(number as f64)),
        (default, value) if default.same_type(&value) => Ok(value),
        (Value::String(_), value) => Err(NotA::new("text in quotes", value)),
        (Value::Integer(_), value) => Err(NotA::new("a whole number", value)),
        (Value::Float(_), value) => Err(NotA::new("a number", value)),
        (Value::Boolean(_), value) => Err(NotA::new("true or false", value)),
        (Value::Array(_), value) => Err(NotA::new("a list", value)),
        (Value::Datetime(_) | Value::Table(_), value) => Err(NotA::new("a section", value)),
    }
}
