//! `docket subscribers`: how far each is, and what is wrong with it, at one glance; `pause` and `resume` let one rest and
//! go on, in whichever process it is active.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Server, block_on};
use super::{CommandError, Done, print, print_json, table, text};

/// The table is not wider than that, wherever it is read.
const WIDTH: u16 = 100;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    told: Option<Told>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Subcommand)]
enum Told {
    /// Let one rest: it sees what happens and handles none of it, until it is told to go on, also after a restart.
    Pause(One),
    /// Let one go on.
    Resume(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// Which subscriber.
    name: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Answer {
    subscribers: Vec<Subscriber>,
}

/// As `/api/subscribers` shows it. What nobody there knows is absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Subscriber {
    name: String,
    state: String,
    active_in: Option<String>,
    paused: Option<bool>,
    lag_events: Option<u64>,
    lag_is_approximate: bool,
    lag_ms: Option<u64>,
    applying: Option<Lanes>,
    performing: Option<Lanes>,
    effects_waiting: Option<u64>,
    dead_letters: Option<u64>,
    queue: Option<Queue>,
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Lanes {
    attempting: u64,
    retrying: u64,
    gap: u64,
    undecodable: u64,
    conflicting: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Queue {
    state: String,
    waiting: Option<u64>,
    unreadable: u64,
}

pub(super) fn run(args: Args) -> Done {
    match args.told {
        None => list(&args.server),
        Some(Told::Pause(one)) => tell(&one, "pause"),
        Some(Told::Resume(one)) => tell(&one, "resume"),
    }
}

fn list(server: &Server) -> Done {
    let answer: Value = block_on(server.docket()?.get("api/subscribers"))?;
    if server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Answer { subscribers } = read(answer)?;
    print(if subscribers.is_empty() { "No subscriber runs there.".to_owned() } else { shown(&subscribers) })?;
    Ok(ExitCode::SUCCESS)
}

fn tell(One { name, server }: &One, word: &str) -> Done {
    let path = format!("api/subscribers/{}/{word}", path_part(name));
    let answer: Value = block_on(server.docket()?.tell(&path, &json!({})))?;
    if server.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let subscriber: Subscriber = read(answer)?;
    print(subscriber.in_words())?;
    Ok(ExitCode::SUCCESS)
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, CommandError> {
    T::deserialize(answer).map_err(|error| CommandError::not_done(error.to_string()))
}

/// As one part of a path, whatever somebody typed.
fn path_part(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded =
        name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    encoded.collect()
}

/// A table of figures, and below it, in words, what somebody should look at.
fn shown(subscribers: &[Subscriber]) -> String {
    let with_queue = subscribers.iter().any(|one| one.queue.is_some());
    let mut header = vec!["name", "state", "behind", "lag", "retrying", "gaps", "dead", "effects"];
    if with_queue {
        header.push("queue");
    }
    let mut rows = table(&header);
    rows.set_width(WIDTH);
    for one in subscribers {
        let mut row = vec![
            one.name.clone(),
            one.state_shown(),
            one.behind_shown(),
            one.lag_ms.map(age).unwrap_or_default(),
            known(one.sum(|lanes| lanes.retrying + lanes.attempting)),
            known(one.sum(|lanes| lanes.gap)),
            known(one.dead_letters),
            known(one.effects_waiting),
        ];
        if with_queue {
            row.push(one.queue.as_ref().map(Queue::shown).unwrap_or_default());
        }
        rows.add_row(row);
    }
    let notes: Vec<_> = subscribers.iter().flat_map(Subscriber::notes).collect();
    let table = text(rows);
    if notes.is_empty() { table } else { format!("{table}\n\n{}", notes.join("\n")) }
}

impl Subscriber {
    /// `paused` wherever it is active: that is what somebody said of it.
    fn state_shown(&self) -> String {
        if self.paused == Some(true) { "paused".to_owned() } else { self.state.replace('_', " ") }
    }

    fn behind_shown(&self) -> String {
        let about = if self.lag_is_approximate { "~" } else { "" };
        self.lag_events.map(|events| format!("{about}{events}")).unwrap_or_default()
    }

    fn sum(&self, of: impl Fn(Lanes) -> u64) -> Option<u64> {
        Some(of(self.applying?) + of(self.performing?))
    }

    fn in_words(&self) -> String {
        let name = &self.name;
        let behind = self.lag_events.filter(|events| *events > 0).map(|_| self.behind_shown());
        let behind = behind.map(|events| format!("; {events} events wait")).unwrap_or_default();
        let there =
            self.active_in.as_ref().map(|there| format!(" It is active in {there}, which obeys within a second."));
        let there = there.unwrap_or_default();
        match self.paused {
            Some(true) => format!("{name} rests{behind}.{there}"),
            Some(false) => format!("{name} goes on{behind}.{there}"),
            None => format!("{name} was told, and its store does not say now whether it rests."),
        }
    }

    fn notes(&self) -> Vec<String> {
        let name = &self.name;
        let mut notes = Vec::new();
        if self.paused == Some(true) {
            notes.push(format!("{name} rests until: docket subscribers resume {name}"));
        }
        if let Some(there) = &self.active_in {
            notes.push(format!("{name} is active in {there}"));
        }
        if let Some(dead) = self.dead_letters.filter(|dead| *dead > 0) {
            let letters = if dead == 1 { "letter" } else { "letters" };
            notes.push(format!("{name} has {dead} dead {letters}: docket dead-letters list --subscriber {name}"));
        }
        if let Some(unreadable) = self.queue.as_ref().map(|queue| queue.unreadable).filter(|count| *count > 0) {
            notes.push(format!("{name} set {unreadable} messages aside that nobody can read, in orders.{name}.dead"));
        }
        if let Some(conflicting) = self.sum(|lanes| lanes.conflicting).filter(|count| *count > 0) {
            notes.push(format!(
                "{name}: {conflicting} orders go on otherwise in the log than it knows: was a backup restored?"
            ));
        }
        if let Some(undecodable) = self.sum(|lanes| lanes.undecodable).filter(|count| *count > 0) {
            notes.push(format!(
                "{name}: {undecodable} orders hold an event that a newer docket may read, and this one cannot"
            ));
        }
        if let Some(trouble) = &self.trouble {
            notes.push(format!("{name}: {trouble}"));
        }
        notes
    }
}

impl Queue {
    /// How much waits, or what is wrong with it.
    fn shown(&self) -> String {
        match (self.state.as_str(), self.waiting) {
            ("consuming", Some(waiting)) => waiting.to_string(),
            (state, _) => state.to_owned(),
        }
    }
}

/// A figure that nobody there knows is none.
fn known(figure: Option<u64>) -> String {
    figure.map(|figure| figure.to_string()).unwrap_or_default()
}

/// In the unit that a person would use.
fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(of: Value) -> Subscriber {
        read(of).expect("a subscriber")
    }

    fn busy() -> Subscriber {
        let lanes =
            json!({"attempting": 1, "retrying": 1_000_000, "gap": 9, "dead": 17, "undecodable": 3, "conflicting": 4});
        subscriber(json!({
            "name": "webhook.shop-1", "state": "dependency_down", "paused": false,
            "lag_events": 12_345_678, "lag_is_approximate": true, "lag_ms": 7_000_000, "applying": lanes,
            "performing": lanes, "effects_waiting": 1_234_567, "dead_letters": 34,
            "queue": {"state": "connecting", "waiting": null, "unreadable": 2}, "trouble": "the mail server is away",
        }))
    }

    #[test]
    fn the_table_fits_whatever_the_figures_are() {
        let shown = shown(&[busy(), Subscriber { name: "notification".to_owned(), ..Subscriber::default() }]);
        let table = shown.split("\n\n").next().expect("a table");
        assert!(table.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{table}");
        assert_eq!(table.lines().count(), 3, "one line each:\n{table}");
        for said in ["dependency down", "~12345678", "116 min", "2000002", "18", "34", "1234567", "connecting"] {
            assert!(table.contains(said), "{said}:\n{table}");
        }
    }

    #[test]
    fn below_it_stands_what_to_do_and_nothing_when_nothing_is_wrong() {
        let notes = busy().notes().join("\n");
        assert!(notes.contains("docket dead-letters list --subscriber webhook.shop-1"), "{notes}");
        assert!(notes.contains("orders.webhook.shop-1.dead"), "{notes}");
        assert!(notes.contains("the mail server is away"), "{notes}");
        let fine = json!({"name": "a", "state": "running", "paused": false, "lag_events": 0, "lag_ms": 0,
            "applying": {}, "performing": {}, "effects_waiting": 0, "dead_letters": 0, "trouble": null});
        assert_eq!(subscriber(fine).notes(), Vec::<String>::new());
        let standby = json!({"name": "a", "state": "standby", "paused": true, "active_in": "there"});
        let standby = subscriber(standby);
        assert_eq!(standby.state_shown(), "paused");
        assert_eq!(standby.notes(), ["a rests until: docket subscribers resume a", "a is active in there"]);
        assert_eq!(standby.in_words(), "a rests. It is active in there, which obeys within a second.");
    }

    #[test]
    fn a_name_stays_within_its_part_of_the_path() {
        assert_eq!(path_part("webhook.a-1"), "webhook.a-1");
        assert_eq!(path_part("../orders?x"), "..%2Forders%3Fx");
    }
}
