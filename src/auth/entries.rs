//! `auth.keys` as a configuration has it: tables with `name`, `hash` and `scopes`, or lines of the same, `NAME HASH SCOPE …`,
//! which an environment variable can carry.
//!
//! What is wrong is said with the key's name. A text that may be a secret in the wrong place is not repeated.

use std::collections::BTreeSet;

use serde::de::Error;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use super::{Key, KeyHash, KeyName, Keys, NotAHash, NotAName, NotAScope, Scope};

/// Longest text of an entry that is repeated in an error: keys and hashes are longer.
const REPEATED_CHARS_MAX: usize = 32;

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<Value>::deserialize(deserializer)?;
        Self::of(&entries).map_err(|wrong| D::Error::custom(wrong.join("; ")))
    }
}

/// Names and scopes alone.
impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(Some(self.0.len()))?;
        for key in &self.0 {
            entries.serialize_element(&format!("{} {}", key.name, key.scopes_written()))?;
        }
        entries.end()
    }
}

impl Keys {
    fn of(entries: &[Value]) -> Result<Self, Vec<String>> {
        let (mut keys, mut wrong) = (Vec::<Key>::new(), Vec::new());
        for (number, entry) in (1..).zip(entries) {
            match key(entry) {
                Err(Wrong { name, reason }) => {
                    let name = name.map_or_else(|| format!("key {number}"), |name| format!("key {name}"));
                    wrong.push(format!("{name}: {reason}"));
                }
                Ok(key) => match keys.iter().find(|other| other.name == key.name || other.hash == key.hash) {
                    Some(other) if other.name == key.name => {
                        wrong.push(format!("key {}: there are two of that name", key.name));
                    }
                    Some(other) => wrong.push(format!("key {}: it is the key {} already", key.name, other.name)),
                    None => keys.push(key),
                },
            }
        }
        if wrong.is_empty() { Ok(Self(keys)) } else { Err(wrong) }
    }
}

/// What is wrong with an entry, and its name if that can be read.
struct Wrong {
    name: Option<KeyName>,
    reason: String,
}

/// An entry's texts.
struct Written<'a> {
    name: &'a str,
    hash: &'a str,
    scopes: Vec<&'a str>,
}

const FORM: &str = "must have name, hash and scopes, as docket key new prints it";

fn key(entry: &Value) -> Result<Key, Wrong> {
    let written = match entry {
        Value::Table(table) => of_table(table)?,
        Value::String(line) => of_line(line)?,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {
            return Err(Wrong { name: None, reason: FORM.to_owned() });
        }
    };
    let name: KeyName = written.name.parse().map_err(|error: NotAName| Wrong {
        name: None,
        reason: format!("{} is no name: {error}", repeated(written.name)),
    })?;
    let named = |reason: String| Wrong { name: Some(name.clone()), reason };
    let hash: KeyHash = written.hash.parse().map_err(|error: NotAHash| named(error.to_string()))?;
    let mut scopes = BTreeSet::new();
    for text in written.scopes {
        let scope: Scope =
            text.parse().map_err(|error: NotAScope| named(format!("{} is no scope: {error}", repeated(text))))?;
        scopes.insert(scope);
    }
    if scopes.is_empty() {
        return Err(named(format!("it has no scope: {NotAScope}")));
    }
    Ok(Key { name, scopes, hash })
}

fn of_table(table: &Table) -> Result<Written<'_>, Wrong> {
    let name = table.get("name").and_then(Value::as_str);
    let known = || name.and_then(|name| name.parse().ok());
    let wrong = |reason: String| Wrong { name: known(), reason };
    if let Some(unknown) = table.keys().find(|key| !["name", "hash", "scopes"].contains(&key.as_str())) {
        return Err(wrong(format!("{} is none of name, hash and scopes", repeated(unknown))));
    }
    let hash = table.get("hash").and_then(Value::as_str);
    let scopes = table.get("scopes").and_then(Value::as_array);
    let scopes = scopes.and_then(|scopes| scopes.iter().map(Value::as_str).collect());
    match (name, hash, scopes) {
        (Some(name), Some(hash), Some(scopes)) => Ok(Written { name, hash, scopes }),
        (None, _, _) | (_, None, _) | (_, _, None) => Err(wrong(FORM.to_owned())),
    }
}

fn of_line(line: &str) -> Result<Written<'_>, Wrong> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some(name), Some(hash)) => Ok(Written { name, hash, scopes: words.collect() }),
        (None, _) | (_, None) => {
            Err(Wrong { name: None, reason: "must be NAME HASH SCOPE …, as docket key new prints it".to_owned() })
        }
    }
}

fn repeated(text: &str) -> String {
    let short = text.chars().count() <= REPEATED_CHARS_MAX;
    if short { format!("{text:?}") } else { "a text that is not repeated here".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;

    fn keys(entries: &str) -> Result<Keys, String> {
        let table: Table = format!("keys = {entries}").parse().expect("TOML");
        Keys::of(table["keys"].as_array().expect("a list")).map_err(|wrong| wrong.join("\n"))
    }

    fn hash(of: &str) -> String {
        KeyHash::of(of).written()
    }

    #[track_caller]
    fn refused(entries: &str, words: &[&str]) {
        let said = keys(entries).expect_err("wrong");
        for word in words {
            assert!(said.contains(word), "{said:?} does not say {word:?}");
        }
    }

    #[test]
    fn tables_and_lines_say_the_same() {
        let (one, two) = (hash("1"), hash("2"));
        let tables = format!(
            r#"[{{name = "shop", hash = "{one}", scopes = ["orders:write", "orders:read"]}},
               {{name = "ops", hash = "{two}", scopes = ["ops:read"]}}]"#
        );
        let lines = format!(r#"["shop {one} orders:read orders:write", "  ops   {two} ops:read "]"#);
        let read = keys(&tables).expect("right");
        assert_eq!(read, keys(&lines).expect("right"));
        let shown: Vec<_> = read.iter().map(|key| format!("{} ({})", key.name, key.scopes_written())).collect();
        assert_eq!(shown, ["shop (orders:read, orders:write)", "ops (ops:read)"]);
    }

    #[test]
    fn a_key_is_found_by_its_text_alone() {
        let texts: Vec<_> = (0..4).map(|_| Secret::new_key().expect("a key")).collect();
        let line = |(n, text): (usize, &Secret)| format!("\"k{n} {} ops:read\"", hash(text.expose()));
        let lines: Vec<_> = texts.iter().take(3).enumerate().map(line).collect();
        let keys = keys(&format!("[{}]", lines.join(","))).expect("right");
        let found: Vec<_> = texts.iter().map(|text| keys.find(text.expose()).map(|key| key.name.to_string())).collect();
        assert_eq!(found, [Some("k0".to_owned()), Some("k1".to_owned()), Some("k2".to_owned()), None]);
        for wrong in ["", "docket_", "k0", &hash(texts[0].expose()), &texts[0].expose()[..70]] {
            assert_eq!(keys.find(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_weak_text_opens_nothing_though_its_hash_is_there() {
        let keys = keys(&format!(r#"["shop {} ops:read"]"#, hash("password"))).expect("right");
        assert_eq!(keys.find("password"), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_key() {
        let hash = hash("1");
        refused(&format!(r#"["shop {hash} orders:reed"]"#), &["key shop", "orders:reed", "orders:write"]);
        refused(&format!(r#"["shop {hash}"]"#), &["key shop", "no scope"]);
        refused(r#"["shop sha256:12 ops:read"]"#, &["key shop", "64 hexadecimal"]);
        refused(r#"[{name = "shop", scopes = ["ops:read"]}]"#, &["key shop", "hash"]);
        refused(&format!(r#"[{{name = "shop", hash = "{hash}", scope = "ops:read"}}]"#), &["key shop", "\"scope\""]);
        refused(&format!(r#"["alone", "sh$op {hash} ops:read", 7]"#), &["key 1", "key 2", "sh$op", "key 3"]);
        refused(&format!(r#"["a {hash} ops:read", "a {} ops:read"]"#, self::hash("2")), &["key a", "two of that name"]);
        refused(&format!(r#"["a {hash} ops:read", "b {hash} ops:read"]"#), &["key b", "the key a already"]);
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        let key = Secret::new_key().expect("a key");
        let (key, hash) = (key.expose(), hash(key.expose()));
        for wrong in [
            format!(r#"["{key}"]"#),
            format!(r#"["shop {key} ops:read"]"#),
            format!(r#"["{key} {hash} ops:read"]"#),
            format!(r#"["shop {hash} {key}"]"#),
            format!(r#"[{{name = "shop", key = "{key}", scopes = ["ops:read"]}}]"#),
            format!(r#"[{{name = "shop", {key} = "{hash}", scopes = ["ops:read"]}}]"#),
            format!(r#"[{{name = "shop", hash = "{hash}", scopes = "{key}"}}]"#),
            format!(r#"[["{key}"]]"#),
        ] {
            let said = keys(&wrong).expect_err("wrong");
            assert!(!said.contains(&key[8..]) && !said.contains(&hash[8..]) && said.len() > 20, "{said}");
        }
        let right = keys(&format!(r#"["shop {hash} ops:read"]"#)).expect("right");
        let shown = format!("{right:?} {}", serde_json::to_string(&right).expect("JSON"));
        assert!(shown.contains("shop") && !shown.contains(&hash[8..]), "{shown}");
    }
}
