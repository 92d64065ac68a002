//! A subscriber that fails on purpose, to see what docket does then: `moods` in the working directory says for which
//! orders and how. That file is read at each event, so what is held can be mended, and retried, without a restart.
//!
//! A line is `WORD[@VERSION] [performing] MOOD`: orders whose reference begins with the word (`*`: all), their event of
//! that version alone, their effects instead of their events. The moods are in [`Mood`]. `MOODS` in the environment has
//! such lines as well, separated by commas; the first that fits holds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use actors::inbox::DocumentKey;
use actors::money::Amount;
use actors::order::{OrderEvent, OrderId, Version};
use actors::subscriber::{Cause, Documents, Event, Failure, Outcome, OutcomeKind, Registered, Subscriber, registry};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What it is in the mood for.
const MOODS: &str = "moods";
/// What it did outside: a line an effect, `ORDER VERSION REFERENCE`.
const RECEIPTS: &str = "receipts";
/// Between two looks at whether it may go on.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    docket::run(|parts| {
        let mut subscribers = registry::all(parts);
        subscribers.push(Registered::new(Moody));
        subscribers
    })
}

struct Moody;

/// A document an order: the versions that were handled, in the order in which they were.
const ORDERS: &str = "orders";
/// A document an event type, which all orders share: how many there were, and what they came to.
const SUMS: &str = "sums";

#[derive(Default, Serialize, Deserialize)]
struct Order {
    reference: String,
    versions: Vec<Version>,
}

#[derive(Default, Serialize, Deserialize)]
struct Sum {
    events: u64,
    amount: Amount,
}

/// Whoever has paid gets one.
#[derive(Serialize, Deserialize)]
struct Receipt {
    reference: String,
}

#[async_trait]
impl Subscriber for Moody {
    const NAME: &'static str = "moody";

    type Effect = Receipt;

    fn reads(&self, event: &Event<'_>) -> Vec<DocumentKey> {
        vec![
            DocumentKey { collection: ORDERS.into(), id: event.order().to_string() },
            DocumentKey { collection: SUMS.into(), id: event.envelope.event_type.clone() },
        ]
    }

    async fn handle(&self, event: &Event<'_>, documents: &mut Documents<'_>) -> Result<Vec<Receipt>, Failure> {
        let mut order: Order = documents.get(ORDERS, event.order()).await?.unwrap_or_default();
        if let OrderEvent::Created(created) = event.event {
            order.reference = created.reference.clone().unwrap_or_default();
        }
        let reference = order.reference.clone();
        order.versions.push(event.version());
        documents.put(ORDERS, event.order(), &order)?;

        let event_type = event.envelope.event_type.as_str();
        let mut sum: Sum = documents.get(SUMS, event_type).await?.unwrap_or_default();
        sum.events += 1;
        sum.amount = sum.amount.checked_add(amount(event.event)).ok_or_else(|| Failure::permanent("too much"))?;
        documents.put(SUMS, event_type, &sum)?;

        // At the end: whatever it has done so far must leave nothing behind.
        give_way_to(&Task { reference: &reference, version: event.version(), performing: false }).await?;
        let is_paid = matches!(event.event, OrderEvent::Paid(_));
        Ok(is_paid.then_some(Receipt { reference }).into_iter().collect())
    }

    async fn perform(&self, effect: &Receipt, cause: &Cause) -> Result<Outcome, Failure> {
        let Receipt { reference } = effect;
        give_way_to(&Task { reference, version: cause.version, performing: true }).await?;
        write_receipt(cause.order, cause.version, reference).map_err(|error| Failure::transient(error.to_string()))?;
        Ok(Outcome { kind: OutcomeKind::Performed, detail: RECEIPTS.to_owned() })
    }
}

fn amount(event: &OrderEvent) -> Amount {
    match event {
        OrderEvent::Created(created) => created.total,
        OrderEvent::Paid(paid) => paid.amount,
        OrderEvent::Refunded(refunded) => refunded.amount,
        OrderEvent::ItemAdded(_)
        | OrderEvent::ItemRemoved(_)
        | OrderEvent::Shipped(_)
        | OrderEvent::Delivered(_)
        | OrderEvent::Cancelled(_) => Amount::ZERO,
    }
}

fn write_receipt(order: OrderId, version: Version, reference: &str) -> io::Result<()> {
    let mut receipts = File::options().append(true).create(true).open(RECEIPTS)?;
    // In one write, so that two are never mixed.
    receipts.write_all(format!("{order} {version} {reference}\n").as_bytes())
}

/// How it fails.
#[derive(Clone, Copy)]
enum Mood {
    /// `permanent`: it says that it will always fail.
    Permanent,
    /// `transient`: it says that it may succeed another time.
    Transient,
    /// `dependency_down`: it says that something is away that all need.
    DependencyDown,
    /// `panic`.
    Panic,
    /// `hang`: it does not end for as long as it is in this mood.
    Hang,
    /// `abort`: it ends the process.
    Abort,
    /// `overflow`: it ends the process as well, by calling itself until the stack is full.
    Overflow,
}

impl Mood {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "permanent" => Some(Self::Permanent),
            "transient" => Some(Self::Transient),
            "dependency_down" => Some(Self::DependencyDown),
            "panic" => Some(Self::Panic),
            "hang" => Some(Self::Hang),
            "abort" => Some(Self::Abort),
            "overflow" => Some(Self::Overflow),
            _ => None,
        }
    }
}

/// What it is about to do.
struct Task<'a> {
    reference: &'a str,
    version: Version,
    performing: bool,
}

impl Task<'_> {
    /// What the line makes of it, when it is about this.
    fn mood(&self, line: &str) -> Option<Mood> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (which, performing, mood) = match words[..] {
            [which, mood] => (which, false, mood),
            [which, "performing", mood] => (which, true, mood),
            _ => return None,
        };
        let (word, version) = which.split_once('@').unwrap_or((which, ""));
        let is_meant = (word == "*" || self.reference.starts_with(word))
            && (version.is_empty() || version == self.version.to_string())
            && performing == self.performing;
        is_meant.then(|| Mood::from_name(mood))?
    }
}

fn mood_for(task: &Task<'_>) -> Option<Mood> {
    let always = std::env::var("MOODS").unwrap_or_default();
    // None is a good mood.
    let now = fs::read_to_string(MOODS).unwrap_or_default();
    always.split(',').chain(now.lines()).find_map(|line| task.mood(line))
}

/// Gives way to the mood that it is in.
async fn give_way_to(task: &Task<'_>) -> Result<(), Failure> {
    match mood_for(task) {
        None => Ok(()),
        Some(Mood::Permanent) => Err(Failure::permanent("not in the mood, and never will be")),
        Some(Mood::Transient) => Err(Failure::transient("not in the mood just now")),
        Some(Mood::DependencyDown) => Err(Failure::dependency_down("what it needs is away")),
        Some(Mood::Panic) => panic!("in a panic over {}", task.reference),
        Some(Mood::Hang) => {
            while matches!(mood_for(task), Some(Mood::Hang)) {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        }
        Some(Mood::Abort) => std::process::abort(),
        Some(Mood::Overflow) => Err(Failure::permanent(format!("the stack has room for {}", deeper(0)))),
    }
}

/// Fills the stack.
fn deeper(depth: usize) -> usize {
    let room = std::hint::black_box([depth; 1024]);
    if depth == usize::MAX { 0 } else { deeper(depth + 1).wrapping_add(room[depth % room.len()]) }
}
