//! `docket dead-letters`: what subscribers hold and somebody must decide about; look at it, let it be tried again, let it
//! go. What is done to many is done only when it is exactly as many as was said.

mod retry;
mod show;

use std::process::ExitCode;

use clap::Subcommand;
use comfy_table::{ColumnConstraint, Table};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

pub(super) use retry::would;

use super::client::{Server, block_on};
use super::{CommandError, Done, NOT_DONE, Printable, print, print_json, table, text};

/// Columns of a terminal that tables keep to.
const WIDTH: u16 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// List what is held, the latest last, and what went wrong with all of it.
    ///
    /// For example: docket dead-letters list --subscriber notification --type order.paid
    List(List),
    /// Show one: its event as stored and as handlers get it, every attempt, and what waits behind it.
    ///
    /// For example: docket dead-letters show notification 0199f3a0-7c1e-7000-8000-000000000000.3
    Show(One),
    /// Let one be tried again, or all that went wrong in the same way.
    ///
    /// For example: docket dead-letters retry notification 0199f3a0-7c1e-7000-8000-000000000000.3 --dry-run
    /// or: docket dead-letters retry --group 4be1f0a2c9d7 --count 120 --per-second 50
    #[command(verbatim_doc_comment)]
    Retry(retry::Retry),
    /// Let one go: the order's later events, or effects, go on without it. The reason is kept.
    ///
    /// For example: docket dead-letters discard notification 0199f3a0-7c1e-7000-8000-000000000000.3 --reason "sent by hand"
    Discard(Discard),
}

/// Which letters.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Only this subscriber's.
    #[arg(long, value_name = "NAME")]
    subscriber: Option<String>,
    /// Only events of this type, such as order.paid.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only what went wrong in this way: a group of the list.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only in these states; else dead,undecodable,conflicting,unreadable. There are also retrying, gap and attempting.
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only what is held since that moment or later, RFC 3339, such as 2026-11-23T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<actors::clock::Timestamp>,
    /// Only what is held since before that moment.
    #[arg(long, value_name = "TIME")]
    to: Option<actors::clock::Timestamp>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// The next page: the cursor that the last one ended with.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// Whose: the subscriber's name.
    subscriber: String,
    /// Which: ORDER.VERSION, and ORDER.VERSION.INDEX for an effect.
    id: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Discard {
    #[command(flatten)]
    one: One,
    /// Why: 1 to 500 characters, kept with your key's name and the time.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) fn run(command: DeadLetters) -> Done {
    match command {
        DeadLetters::List(args) => list(&args),
        DeadLetters::Show(one) => show::run(&one),
        DeadLetters::Retry(args) => retry::run(&args),
        DeadLetters::Discard(args) => discard(&args),
    }
}

impl Filter {
    /// What was given, by the names of the parameters.
    fn given(&self) -> Vec<(&'static str, String)> {
        let time = |time: Option<actors::clock::Timestamp>| time.map(|time| time.to_string());
        let values = [
            ("subscriber", self.subscriber.clone()),
            ("type", self.r#type.clone()),
            ("group", self.group.clone()),
            ("state", self.state.clone()),
            ("from", time(self.from)),
            ("to", time(self.to)),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn path(&self, limit: u32, cursor: Option<&str>) -> String {
        let path = "api/dead-letters?".to_owned();
        let start = path.len();
        let mut query = form_urlencoded::Serializer::for_suffix(path, start);
        query.extend_pairs(self.given()).append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        query.finish()
    }
}

impl One {
    fn path(&self) -> String {
        Self::path_of(&self.subscriber, &self.id)
    }

    fn path_of(subscriber: &str, id: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        format!("api/dead-letters/{}/{}", encoded(subscriber), encoded(id))
    }
}

/// A page of the list, as much of it as is printed.
#[derive(Deserialize)]
struct Listed {
    dead_letters: Vec<Letter>,
    next_cursor: Option<String>,
    groups: Vec<Group>,
    count: u64,
    retryable: u64,
    subscribers: Vec<String>,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Letter {
    id: String,
    subscriber: String,
    event_type: Option<String>,
    state: String,
    group: Option<String>,
    waiting_behind: u64,
}

#[derive(Deserialize)]
struct Group {
    group: String,
    kind: String,
    place: Option<String>,
    example: String,
    count: u64,
}

fn list(args: &List) -> Done {
    let answer: Value = block_on(args.server.docket()?.get(&args.filter.path(args.limit, args.cursor.as_deref())))?;
    if args.server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed: Listed = read(&answer)?;
    if let Some(trouble) = &listed.trouble {
        eprintln!("docket: what nobody can read is not listed: {}", Printable(trouble));
    }
    if listed.subscribers.is_empty() {
        print("No subscriber runs there: ask a docket that runs one, with --url.")?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.count == 0 {
        print(format_args!("Nothing of that is held by {}.", listed.subscribers.join(", ")))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(text(letters(&listed.dead_letters)))?;
    if !listed.groups.is_empty() {
        print(format_args!("\n{}", text(groups(&listed.groups))))?;
    }
    let shown = listed.dead_letters.len();
    match &listed.next_cursor {
        Some(cursor) => print(format_args!("\n{shown} of {}; earlier ones: --cursor '{cursor}'", listed.count))?,
        None if shown as u64 == listed.count => print(format_args!("\n{shown} in all."))?,
        None => print(format_args!("\n{shown} of {}.", listed.count))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn letters(letters: &[Letter]) -> Table {
    let mut rows = table(&["dead letter", "subscriber", "event", "state", "group", "behind"]);
    for letter in letters.iter().rev() {
        rows.add_row([
            letter.id.clone(),
            letter.subscriber.clone(),
            letter.event_type.clone().unwrap_or_default(),
            letter.state.clone(),
            letter.group.clone().unwrap_or_default(),
            letter.waiting_behind.to_string(),
        ]);
    }
    // What is to be copied stays in one piece.
    in_one_piece(rows, &[0, 4])
}

fn groups(groups: &[Group]) -> Table {
    let mut rows = table(&["group", "count", "kind", "place", "such as"]);
    for Group { group, kind, place, example, count } in groups {
        rows.add_row([
            group.clone(),
            count.to_string(),
            kind.replace('_', " "),
            place.clone().unwrap_or_default(),
            first_line(example),
        ]);
    }
    in_one_piece(rows, &[0, 1])
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn in_one_piece(mut rows: Table, columns: &[usize]) -> Table {
    rows.set_width(WIDTH);
    for column in columns {
        if let Some(column) = rows.column_mut(*column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    rows
}

/// What a decision came to.
#[derive(Deserialize)]
struct Discarded {
    order: String,
    version: u64,
    effect: Option<u64>,
    by: String,
    at: String,
    next: String,
}

fn discard(args: &Discard) -> Done {
    let path = format!("{}/discard", args.one.path());
    let answer: Value = block_on(args.one.server.docket()?.tell(&path, &json!({"reason": args.reason})))?;
    if args.one.server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Discarded { order, version, effect, by, at, next } = read(&answer)?;
    let what = effect.map(|effect| format!("effect {effect} of ")).unwrap_or_default();
    print(format_args!("Discarded {what}event {version} of order {order}: by {by}, at {at}. {next}"))?;
    Ok(ExitCode::SUCCESS)
}

fn read<'de, T: Deserialize<'de>>(answer: &'de Value) -> Result<T, CommandError> {
    T::deserialize(answer)
        .map_err(|error| CommandError::not_done(format!("the answer cannot be read: {error}: is this docket older?")))
}

fn not_all_done() -> ExitCode {
    ExitCode::from(NOT_DONE)
}
