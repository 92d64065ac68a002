//! `docket dead-letters retry`: one, or all that a filter names, when somebody said how many those are.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::client::{Docket, Server, block_on};
use super::super::{CommandError, Done, Printable, print, print_json, text};
use super::{Filter, Group, Listed, One, groups, not_all_done, read};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Retry {
    /// Whose: the subscriber's name, for one.
    #[arg(requires = "id", value_name = "SUBSCRIBER", conflicts_with_all = ["subscriber", "type", "group", "state", "from", "to"])]
    of: Option<String>,
    /// Which: ORDER.VERSION, and ORDER.VERSION.INDEX for an effect.
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many they are, for many: what was shown is what is done. On a terminal it is asked for.
    #[arg(long, value_name = "N", conflicts_with = "id")]
    count: Option<u64>,
    /// For many: how many begin in a second.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: u32,
    /// Let the handlers run on what is stored and say what would come of it; write nothing, perform nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
}

pub(super) fn run(args: &Retry) -> Done {
    match (&args.of, &args.id) {
        (Some(subscriber), Some(id)) => one(args, subscriber, id),
        (Some(_) | None, _) => many(args),
    }
}

/// What became of one.
#[derive(Deserialize)]
struct Again {
    subscriber: String,
    waiting_behind: u64,
}

/// What one would come to.
#[derive(Deserialize)]
struct DryRun {
    outcome: String,
    says: String,
    failure: Option<Failure>,
    documents: Option<Vec<Document>>,
    effects: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Failure {
    kind: String,
    place: Option<String>,
    error: String,
}

#[derive(Deserialize)]
struct Document {
    collection: String,
    id: String,
    change: String,
    before: Value,
    after: Value,
}

fn one(args: &Retry, subscriber: &str, id: &str) -> Done {
    let path = format!("{}/retry", One::path_of(subscriber, id));
    let answer: Value = block_on(args.server.docket()?.tell(&path, &json!({"dry_run": args.dry_run})))?;
    if args.server.json {
        print_json(&answer)?;
    }
    if args.dry_run {
        return would(&answer, args.server.json);
    }
    if !args.server.json {
        let Again { subscriber, waiting_behind } = read(&answer)?;
        let behind = match waiting_behind {
            0 => String::new(),
            1 => " The one behind it follows by itself.".to_owned(),
            many => format!(" The {many} behind it follow by themselves."),
        };
        print(format_args!("{subscriber} tries {id} again.{behind}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a dry run came to, unless it was printed as JSON already.
pub(in crate::cli) fn would(answer: &Value, printed: bool) -> Done {
    let run: DryRun = read(answer)?;
    if !printed {
        say(&run)?;
    }
    let succeeds = matches!(run.outcome.as_str(), "would_apply" | "would_perform");
    Ok(if succeeds { ExitCode::SUCCESS } else { not_all_done() })
}

fn say(run: &DryRun) -> Result<(), CommandError> {
    print(&run.says)?;
    if let Some(Failure { kind, place, error }) = &run.failure {
        let place = place.as_ref().map(|place| format!(", at {place}")).unwrap_or_default();
        print(format_args!("{error}\n({}{place})", kind.replace('_', " ")))?;
    }
    for Document { collection, id, change, before, after } in run.documents.iter().flatten() {
        print(format_args!("\ndocument {collection}/{id} would be {change}"))?;
        for (sign, body) in [('-', before), ('+', after)] {
            if !body.is_null() {
                print(format_args!("{sign} {body}"))?;
            }
        }
    }
    for effect in run.effects.iter().flatten() {
        print(format_args!("\neffect: {effect}"))?;
    }
    Ok(())
}

/// What became of many.
#[derive(Deserialize)]
struct Retried {
    retried: u64,
    changed: u64,
    left: u64,
    last_at: Option<String>,
    trouble: Option<String>,
    next: String,
}

/// What many would come to.
#[derive(Deserialize)]
struct Tried {
    tried: u64,
    would_apply: u64,
    would_perform: u64,
    would_fail: u64,
    changed: u64,
    left: u64,
    groups: Vec<Group>,
}

fn many(args: &Retry) -> Done {
    if args.filter.given().is_empty() {
        return Err(CommandError::wrong("say which: SUBSCRIBER and ID, or --group, --subscriber, --type or --state"));
    }
    let docket = args.server.docket()?;
    let count = match args.count {
        Some(count) => count,
        None => match counted(args, &docket)? {
            0 => return Err(CommandError::not_done("nothing of that is held, or can be retried")),
            count => count,
        },
    };
    let mut body: Map<String, Value> =
        args.filter.given().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    body.insert("count".to_owned(), count.into());
    body.insert("per_second".to_owned(), args.per_second.into());
    body.insert("dry_run".to_owned(), args.dry_run.into());
    let answer: Value = block_on(docket.tell("api/dead-letters/retry", &body.into()))?;
    if args.server.json {
        print_json(&answer)?;
    }
    if args.dry_run { tried(args, &answer) } else { retried(args, &answer) }
}

/// How many there are, confirmed by whoever sits there, unless nothing is changed.
fn counted(args: &Retry, docket: &Docket) -> Result<u64, CommandError> {
    let answer: Value = block_on(docket.get(&args.filter.path(1, None)))?;
    let listed: Listed = read(&answer)?;
    let count = listed.retryable;
    if args.dry_run || count == 0 {
        return Ok(count);
    }
    eprintln!("{}\n", Printable(text(groups(&listed.groups))));
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CommandError::wrong(format!("there are {count}: say --count {count} to retry all of them")));
    }
    confirmed(count, &mut io::stderr(), &mut io::stdin().lock())
}

/// That number, once it was typed.
fn confirmed(count: u64, says: &mut dyn Write, types: &mut dyn BufRead) -> Result<u64, CommandError> {
    let mut typed = String::new();
    let asked = write!(says, "There are {count}. Type {count} to retry all of them: ").and_then(|()| says.flush());
    match asked.and_then(|()| types.read_line(&mut typed)) {
        Ok(_) if typed.trim() == count.to_string() => Ok(count),
        Ok(_) => Err(CommandError::not_done("not confirmed: nothing was retried")),
        Err(error) => Err(CommandError::not_done(format!("cannot read what was typed: {error}"))),
    }
}

fn retried(args: &Retry, answer: &Value) -> Done {
    let Retried { retried, changed, left, last_at, trouble, next } = read(answer)?;
    if !args.server.json {
        let until = last_at.map(|at| format!(", the last one at {at}")).unwrap_or_default();
        print(format_args!("{retried} are tried again{until}."))?;
        if changed > 0 {
            print(format_args!("{changed} were handled or changed meanwhile."))?;
        }
        if left > 0 {
            let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            print(format_args!("{left} are left{trouble}."))?;
        }
        print(next)?;
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { not_all_done() })
}

fn tried(args: &Retry, answer: &Value) -> Done {
    let Tried { tried, would_apply, would_perform, would_fail, changed, left, groups: failures } = read(answer)?;
    if !args.server.json {
        print(format_args!(
            "Of {tried}, {would_apply} would be handled, {would_perform} would be performed, {would_fail} would fail."
        ))?;
        if changed > 0 {
            print(format_args!("{changed} were handled or changed meanwhile."))?;
        }
        if left > 0 {
            print(format_args!("{left} were not tried: the time for one request was over."))?;
        }
        if !failures.is_empty() {
            print(format_args!("\n{}", text(groups(&failures))))?;
        }
    }
    Ok(if would_fail == 0 && left == 0 { ExitCode::SUCCESS } else { not_all_done() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_retried_only_by_whoever_types_their_number() {
        let answer = |typed: &str| {
            let mut said = Vec::new();
            let confirmed = confirmed(3, &mut said, &mut typed.as_bytes());
            assert_eq!(String::from_utf8_lossy(&said), "There are 3. Type 3 to retry all of them: ");
            confirmed.map_err(|error| error.to_string())
        };
        for right in ["3\n", " 3 \n", "3"] {
            assert_eq!(answer(right), Ok(3), "{right:?}");
        }
        for wrong in ["2\n", "y\n", "\n", "", "33\n", "\n3\n"] {
            assert_eq!(answer(wrong), Err("not confirmed: nothing was retried".to_owned()), "{wrong:?}");
        }
    }
}
