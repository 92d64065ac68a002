//! The order service of another process: whether its history can be read from here, with this key, by this version.

use super::{Finding, bad, good};
use crate::config::Config;
use crate::history::Client;
use crate::history::wire::FORMAT;

/// Looks there. Needed only where orders do not run.
pub(super) async fn look(config: &Config) -> Finding {
    let (url, key) = (&config.history.url, config.history.key.expose());
    if url.is_empty() {
        return bad(
            "history.url",
            "is empty: without orders it must say where the order service's operators are".to_owned(),
        );
    }
    let client = match Client::new(url, key) {
        Ok(client) => client,
        Err(why) => return bad("history.url", why),
    };
    match client.about().await {
        Ok(about) if about.format == FORMAT => good(
            "history.url",
            format!("{} gives its history{}; version {}", client.address(), by_whom(key), about.version),
        ),
        Ok(about) => bad(
            "history.url",
            format!(
                "{} is of version {} and gives its history in another form ({}; this one reads {FORMAT}): run versions that fit",
                client.address(),
                about.version,
                about.format
            ),
        ),
        Err(error) => bad("history.url", error.to_string()),
    }
}

fn by_whom(key: &str) -> &'static str {
    if key.is_empty() { " to everybody, for history.key is empty" } else { " to history.key" }
}
