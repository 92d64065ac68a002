//! How far the subscribers of the docket that was asked are with an order, below the order itself.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::client::{Docket, block_on};
use crate::cli::{CommandError, print, table, text};

/// As `/api/orders/{id}/subscribers` shows it.
#[derive(Deserialize)]
struct Subscriber {
    name: String,
    applied: u32,
    seen: u32,
    performed: u32,
    applying: Lane,
    performing: Lane,
    effects: Vec<Effect>,
    discards: Vec<Discard>,
}

#[derive(Deserialize)]
struct Lane {
    state: String,
    #[serde(default)]
    attempts: u32,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Effect {
    version: u32,
    outcome: String,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Discard {
    version: u32,
    event_type: Option<String>,
    effect: Option<u32>,
    reason: String,
    by: String,
    at: String,
}

/// The subscribers, as the docket shows them.
pub(super) fn of(docket: &Docket, order: Uuid) -> Result<Value, CommandError> {
    let mut answer: Value = block_on(docket.get(&format!("api/orders/{order}/subscribers")))?;
    Ok(answer.get_mut("subscribers").map(Value::take).unwrap_or_default())
}

pub(super) fn show(subscribers: &Value) -> Result<(), CommandError> {
    let Ok(subscribers) = Vec::<Subscriber>::deserialize(subscribers) else { return Ok(()) };
    if subscribers.is_empty() {
        return Ok(());
    }
    let mut rows = table(&["subscriber", "handled", "of", "performed", "state"]);
    for one in &subscribers {
        let Subscriber { name, applied, seen, performed, .. } = one;
        rows.add_row([name.clone(), applied.to_string(), seen.to_string(), performed.to_string(), one.state()]);
    }
    print(format_args!("\n{}", text(rows)))?;
    let mut lines = table(&[]);
    for one in &subscribers {
        for row in one.lines() {
            lines.add_row(row);
        }
    }
    if lines.is_empty() { Ok(()) } else { print(format_args!("\n{}", text(lines))) }
}

impl Subscriber {
    /// What holds it up, or that nothing does.
    fn state(&self) -> String {
        match (self.applying.held("handling"), self.performing.held("performing")) {
            (None, None) => "ready".to_owned(),
            (Some(held), None) | (None, Some(held)) => held,
            (Some(applying), Some(performing)) => format!("{applying}; {performing}"),
        }
    }

    /// What became of each effect, and what was discarded, in the order of the events.
    fn lines(&self) -> Vec<[String; 4]> {
        let effects = self.effects.iter().map(|effect| {
            let detail = effect.detail.clone().unwrap_or_default();
            (effect.version, [self.name.clone(), format!("version {}", effect.version), effect.outcome.clone(), detail])
        });
        let discards = self.discards.iter().map(|discard| (discard.version, discard.line(&self.name)));
        let mut lines: Vec<_> = effects.chain(discards).collect();
        lines.sort_by_key(|(version, _)| *version);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

impl Lane {
    fn held(&self, doing: &str) -> Option<String> {
        if self.state == "ready" {
            return None;
        }
        let attempts = if self.attempts > 0 { format!(" after {} attempts", self.attempts) } else { String::new() };
        let error = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!("{doing} is {}{attempts}{error}", self.state))
    }
}

impl Discard {
    fn line(&self, subscriber: &str) -> [String; 4] {
        let what = match (self.effect, &self.event_type) {
            (Some(_), _) => "effect".to_owned(),
            (None, Some(event_type)) => event_type.clone(),
            (None, None) => "event".to_owned(),
        };
        let Self { version, reason, by, at, .. } = self;
        [
            subscriber.to_owned(),
            format!("version {version}"),
            format!("{what} discarded"),
            format!("{reason} ({by}, {at})"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_holds_an_order_up_is_said_and_a_discard_stands_among_the_effects() {
        let ready = json!({"state": "ready"});
        let held = json!({"state": "dead", "since": "t", "attempts": 5, "next_attempt_at": null, "error": "no",
            "error_kind": "transient"});
        let effect = |version: u32, outcome: &str| json!({"version": version, "index": 0, "outcome": outcome});
        let discard = json!({"version": 2, "event_id": null, "event_type": "order.paid", "effect": null,
            "reason": "a test", "by": "ana", "at": "2026-11-23T08:00:00.000Z", "attempts": 5});
        let subscriber = |applying: &Value, discards: Value| -> Subscriber {
            Subscriber::deserialize(json!({"name": "a", "applied": 2, "seen": 4, "performed": 1, "applying": applying,
                "performing": &ready, "effects": [effect(1, "performed"), effect(3, "waiting")], "discards": discards}))
            .expect("a subscriber")
        };
        assert_eq!(subscriber(&held, json!([])).state(), "handling is dead after 5 attempts: no");
        let discarded = subscriber(&ready, json!([discard]));
        assert_eq!(discarded.state(), "ready");
        let lines: Vec<_> = discarded.lines().into_iter().map(|line| line.join(" | ")).collect();
        assert_eq!(
            lines,
            [
                "a | version 1 | performed | ",
                "a | version 2 | order.paid discarded | a test (ana, 2026-11-23T08:00:00.000Z)",
                "a | version 3 | waiting | ",
            ]
        );
    }
}
