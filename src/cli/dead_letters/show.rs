//! `docket dead-letters show`: everything that is known of one.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::super::client::block_on;
use super::super::{CommandError, Done, print, print_json, table, text};
use super::{One, WIDTH, in_one_piece, read};

#[derive(Deserialize)]
struct Shown {
    id: String,
    subscriber: String,
    event_id: Option<String>,
    event_type: Option<String>,
    effect: Option<u64>,
    state: String,
    group: Option<String>,
    attempts: u64,
    since: Option<String>,
    next_attempt_at: Option<String>,
    waiting_behind: u64,
    next: String,
    actions: Vec<String>,
    error: Option<String>,
    to_do: Option<Value>,
    message: Option<Message>,
    event: Option<Event>,
    event_trouble: Option<String>,
    tried: Vec<Attempt>,
    behind: Vec<Behind>,
    behind_more: u64,
}

#[derive(Deserialize)]
struct Message {
    message_id: Option<String>,
    bytes: u64,
    excerpt: String,
}

#[derive(Deserialize)]
struct Event {
    stored: Value,
    upcast: Option<Upcast>,
    unreadable: Option<String>,
}

#[derive(Deserialize)]
struct Upcast {
    schema_version: u64,
    data: Value,
}

#[derive(Deserialize)]
struct Attempt {
    at: String,
    kind: String,
    place: Option<String>,
    error: String,
}

#[derive(Deserialize)]
struct Behind {
    version: u64,
    event_id: String,
    event_type: Option<String>,
    effect: Option<u64>,
}

pub(super) fn run(one: &One) -> Done {
    let answer: Value = block_on(one.server.docket()?.get(&one.path()))?;
    if one.server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Shown = read(&answer)?;
    print(head(&shown))?;
    if !shown.tried.is_empty() {
        print(format_args!("\nattempts\n{}", tried(&shown.tried)))?;
    }
    if !shown.behind.is_empty() {
        print(format_args!("\nbehind it\n{}", behind(&shown)))?;
    }
    the_thing(&shown)?;
    print(format_args!("\n{}{}", shown.next, commands(&shown)))?;
    Ok(ExitCode::SUCCESS)
}

fn head(shown: &Shown) -> String {
    let mut fields = table(&[]);
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.add_row([name.to_owned(), value]);
        }
    };
    field("dead letter", Some(shown.id.clone()));
    field("subscriber", Some(shown.subscriber.clone()));
    field("event", shown.event_type.clone());
    field("event id", shown.event_id.clone());
    field("effect", shown.effect.map(|effect| format!("{effect} of that event, from 0")));
    field("state", Some(shown.state.clone()));
    field("group", shown.group.clone());
    field("attempts", Some(shown.attempts.to_string()));
    field("held since", shown.since.clone());
    field("next attempt", shown.next_attempt_at.clone());
    field("behind it", Some(shown.waiting_behind.to_string()));
    field("error", shown.error.clone());
    text(in_one_piece(fields, &[0]))
}

fn tried(attempts: &[Attempt]) -> String {
    let mut rows = table(&["at", "kind", "place", "error"]);
    for Attempt { at, kind, place, error } in attempts {
        rows.add_row([at.clone(), kind.replace('_', " "), place.clone().unwrap_or_default(), error.clone()]);
    }
    text(in_one_piece(rows, &[0]))
}

fn behind(shown: &Shown) -> String {
    let mut rows = table(&["version", "event", "id"]);
    for Behind { version, event_id, event_type, effect } in &shown.behind {
        let effect = effect.map(|effect| format!(".{effect}")).unwrap_or_default();
        rows.add_row([format!("{version}{effect}"), event_type.clone().unwrap_or_default(), event_id.clone()]);
    }
    rows.set_width(WIDTH);
    let rows = text(rows);
    if shown.behind_more == 0 { rows } else { format!("{rows}\nand {} more", shown.behind_more) }
}

/// The event, the effect or the message itself.
fn the_thing(shown: &Shown) -> Result<(), CommandError> {
    if let Some(to_do) = &shown.to_do {
        print(format_args!("\nto be done\n{}", pretty(to_do)))?;
    }
    if let Some(Message { message_id, bytes, excerpt }) = &shown.message {
        let id = message_id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
        print(format_args!("\nmessage of {bytes} bytes{id}\n{excerpt}"))?;
    }
    if let Some(Event { stored, upcast, unreadable }) = &shown.event {
        print(format_args!("\nthe event as stored\n{}", pretty(stored)))?;
        if let Some(Upcast { schema_version, data }) = upcast {
            print(format_args!("\nits data as handlers get it, schema version {schema_version}\n{}", pretty(data)))?;
        }
        if let Some(why) = unreadable {
            print(format_args!("\nHandlers do not get it: {why}."))?;
        }
    }
    match &shown.event_trouble {
        Some(trouble) => print(format_args!("\nThe event is not shown: {trouble}")),
        None => Ok(()),
    }
}

/// What can be done, each as it is typed.
fn commands(shown: &Shown) -> String {
    let which = format!("{} {}", shown.subscriber, shown.id);
    let typed = [
        ("dry_run", format!("retry {which} --dry-run")),
        ("retry", format!("retry {which}")),
        ("discard", format!("discard {which} --reason '…'")),
    ];
    let can_be_done = typed.iter().filter(|(action, _)| shown.actions.iter().any(|can| can == action));
    can_be_done.map(|(_, words)| format!("\n  docket dead-letters {words}")).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
