//! What a log comes to with the code of this program: which events it reads, which it does not, and which orders cannot be
//! made from theirs. A plain function of the commits, order by order: one order at a time is in memory, and of what is
//! found only the first examples.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actors::commit::Commit;
use actors::event::Envelope;
use actors::order::aggregate::evolve;
use actors::order::event::{EventKind, OrderEvent};
use actors::order::{Order, OrderId, Version};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Most examples of one kind of trouble.
const EXAMPLES_MAX: usize = 5;
/// Most types that are told apart, with their schema versions: anybody could have written any.
const TYPES_MAX: usize = 1_000;
/// In the place of the type of all others.
const OTHERS: &str = "(others)";

/// Everything that was found so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    /// Orders that were begun.
    pub(super) orders: u64,
    pub(super) commits: u64,
    pub(super) events: u64,
    /// Orders that cannot be made from their events.
    pub(super) orders_failing: u64,
    /// How many events there are of each type and schema version.
    #[serde(serialize_with = "types")]
    pub(super) types: BTreeMap<(String, u32), u64>,
    #[serde(serialize_with = "troubles")]
    pub(super) troubles: BTreeMap<(String, u32, Kind), Trouble>,
    #[serde(skip)]
    open: Option<Open>,
}

/// What is wrong with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A newer program wrote it: this one does not know its type, or its schema version.
    Ahead,
    /// It is not what its type and schema version promise.
    Unreadable,
    /// It can be read, and cannot follow on the events before it.
    DoesNotFollow,
    /// This program panics over it.
    Panics,
    /// Events before it are missing, or there twice.
    Gap,
    /// What is stored is no commit.
    NoCommit,
}

impl Kind {
    /// For people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Ahead => "of a newer schema",
            Self::Unreadable => "unreadable",
            Self::DoesNotFollow => "cannot follow",
            Self::Panics => "panics",
            Self::Gap => "out of order",
            Self::NoCommit => "no commit",
        }
    }
}

/// All trouble of one kind with one type and schema version.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) events: u64,
    /// The first of them.
    pub(super) examples: Vec<Example>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Example {
    pub(super) order: OrderId,
    pub(super) version: Version,
    pub(super) reason: String,
}

/// The order whose commits come now.
#[derive(Debug)]
struct Open {
    id: OrderId,
    /// As its events made it; none before the first, and none once it failed.
    order: Option<Order>,
    next: Version,
    failed: bool,
}

impl Findings {
    /// Whether there was no trouble.
    pub(super) fn are_none(&self) -> bool {
        self.troubles.is_empty()
    }

    /// The order whose commits came last, of which there may be more.
    pub(super) fn last_order(&self) -> Option<OrderId> {
        self.open.as_ref().map(|open| open.id)
    }

    /// Takes in the next commit. Those of an order come one after another.
    pub(super) fn take(&mut self, commit: &Commit) {
        self.commits += 1;
        let mut open = self.opened(commit.order());
        if commit.first() != open.next {
            let reason = match open.next {
                Version::FIRST => format!("the order begins with event {}", commit.first()),
                next => format!("event {} was to come", next),
            };
            let first = commit.envelopes().next();
            let (event_type, schema) =
                first.map_or_else(Default::default, |event| (event.event_type, event.schema_version));
            self.trouble(&mut open, (event_type, schema, Kind::Gap), commit.first(), reason);
        }
        for envelope in commit.envelopes() {
            self.event(&mut open, &envelope);
        }
        open.next = commit.last().next();
        self.open = Some(open);
    }

    /// Takes in what is in the place of a commit and cannot be read as one.
    pub(super) fn take_damaged(&mut self, order: OrderId, first: Version, reason: String) {
        self.commits += 1;
        let mut open = self.opened(order);
        self.trouble(&mut open, (String::new(), 0, Kind::NoCommit), first, reason);
        self.open = Some(open);
    }

    fn opened(&mut self, id: OrderId) -> Open {
        match self.open.take() {
            Some(open) if open.id == id => open,
            Some(_) | None => {
                self.orders += 1;
                Open { id, order: None, next: Version::FIRST, failed: false }
            }
        }
    }

    fn event(&mut self, open: &mut Open, envelope: &Envelope) {
        self.events += 1;
        let mut key = (envelope.event_type.clone(), envelope.schema_version);
        if self.types.len() >= TYPES_MAX && !self.types.contains_key(&key) {
            key = (OTHERS.to_owned(), 0);
        }
        *self.types.entry(key.clone()).or_default() += 1;
        let before = open.order.take();
        let looked = catch_unwind(AssertUnwindSafe(|| look(before, open.failed, envelope)));
        match looked.unwrap_or_else(|panic| Err((Kind::Panics, panicked(&*panic)))) {
            Ok(order) => open.order = order,
            Err((kind, reason)) => self.trouble(open, (key.0, key.1, kind), envelope.version, reason),
        }
    }

    fn trouble(&mut self, open: &mut Open, key: (String, u32, Kind), version: Version, reason: String) {
        if !open.failed {
            open.failed = true;
            self.orders_failing += 1;
        }
        let trouble = self.troubles.entry(key).or_default();
        trouble.events += 1;
        if trouble.examples.len() < EXAMPLES_MAX {
            trouble.examples.push(Example { order: open.id, version, reason });
        }
    }
}

/// The order after that event. Of an order that failed already its later events are read and no more.
fn look(before: Option<Order>, failed: bool, envelope: &Envelope) -> Result<Option<Order>, (Kind, String)> {
    let event: OrderEvent = envelope.decode().map_err(|error| {
        let kind = if error.is_ahead() { Kind::Ahead } else { Kind::Unreadable };
        (kind, error.to_string())
    })?;
    if failed {
        return Ok(None);
    }
    let after = evolve(before, envelope.order, &event, envelope.recorded_at);
    let after = after.map_err(|error| (Kind::DoesNotFollow, error.to_string()))?;
    Ok(Some(after))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").to_owned()
}

/// What becomes of the data of such an event before anybody handles it.
pub(super) fn reading(event_type: &str, schema_version: u32) -> String {
    match EventKind::of_type(event_type).map(EventKind::newest_schema) {
        Some(newest) if newest == schema_version => "as it is".to_owned(),
        Some(newest) if newest > schema_version => format!("as version {newest}"),
        Some(_) | None => "not".to_owned(),
    }
}

fn types<S: Serializer>(types: &BTreeMap<(String, u32), u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(types.iter().map(|((event_type, schema_version), events)| {
        serde_json::json!({"type": event_type, "schema_version": schema_version, "events": events})
    }))
}

fn troubles<S: Serializer>(all: &BTreeMap<(String, u32, Kind), Trouble>, serializer: S) -> Result<S::Ok, S::Error> {
    let one = |((event_type, schema_version, kind), trouble): (&(String, u32, Kind), &Trouble)| -> Value {
        serde_json::json!({
            "type": event_type, "schema_version": schema_version, "trouble": kind, "events": trouble.events,
            "examples": trouble.examples,
        })
    };
    serializer.collect_seq(all.iter().map(one))
}

#[cfg(test)]
mod tests {
    use actors::clock::Timestamp;
    use actors::commit::{Origin, Part, StoredEvent, StreamEnd};
    use actors::event::EventId;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;

    fn part(events: &[(&str, u32, Value)]) -> Vec<Part> {
        let events = events.iter().map(|(event_type, schema_version, data)| StoredEvent {
            id: EventId::generate(),
            event_type: (*event_type).to_owned(),
            schema_version: *schema_version,
            data: to_raw_value(data).expect("JSON"),
        });
        vec![Part { key: None, origin: Origin::anonymous("c".to_owned(), None), events: events.collect() }]
    }

    fn commit(end: &StreamEnd, events: &[(&str, u32, Value)]) -> Commit {
        Commit::new(end, Timestamp::EPOCH, part(events)).expect("a commit")
    }

    fn created() -> (&'static str, u32, Value) {
        ("order.created", 1, json!({"orderId": "o", "userId": "u", "total": "1.50"}))
    }

    fn paid(amount: i64) -> (&'static str, u32, Value) {
        ("order.paid", 1, json!({"amount": amount, "payment_reference": "p"}))
    }

    /// The kinds of trouble, each with how many events and the first example.
    fn told(findings: &Findings) -> Vec<(&str, u32, Kind, u64, u32)> {
        let troubles = findings.troubles.iter();
        troubles
            .map(|((of, schema, kind), it)| (of.as_str(), *schema, *kind, it.events, it.examples[0].version.0))
            .collect()
    }

    #[test]
    fn what_can_be_read_and_follows_is_counted_by_type_and_schema_version() {
        let mut findings = Findings::default();
        for _ in 0..3 {
            let first = commit(&StreamEnd::nothing(OrderId::generate()), &[created(), paid(150)]);
            findings.take(&first);
            let shipped = json!({"carrier": "DHL", "tracking_number": "1"});
            findings.take(&commit(&first.stored_end(), &[("order.shipped", 1, shipped)]));
        }
        assert!(findings.are_none(), "{findings:?}");
        assert_eq!((findings.orders, findings.commits, findings.events), (3, 6, 9));
        let types = serde_json::to_value(&findings).expect("JSON")["types"].clone();
        assert_eq!(types[2], json!({"type": "order.shipped", "schema_version": 1, "events": 3}));
    }

    #[test]
    fn each_trouble_is_counted_once_an_event_and_an_order_that_failed_is_not_blamed_again() {
        let mut findings = Findings::default();
        let end = StreamEnd::nothing(OrderId::generate());
        let first = commit(&end, &[created(), ("order.gift_wrapped", 1, json!({}))]);
        findings.take(&first);
        // Would not follow, either: nobody knows on what.
        findings
            .take(&commit(&first.stored_end(), &[("order.delivered", 1, json!({})), ("order.paid", 99, json!({}))]));
        let end = StreamEnd::nothing(OrderId::generate());
        findings.take(&commit(&end, &[created(), paid(151)]));
        let end = StreamEnd::nothing(OrderId::generate());
        findings.take(&commit(&end, &[created(), ("order.paid", 1, json!({"amount": 1}))]));
        assert_eq!(
            told(&findings),
            [
                ("order.gift_wrapped", 1, Kind::Ahead, 1, 2),
                ("order.paid", 1, Kind::Unreadable, 1, 2),
                ("order.paid", 1, Kind::DoesNotFollow, 1, 2),
                ("order.paid", 99, Kind::Ahead, 1, 4),
            ]
        );
        assert_eq!((findings.orders, findings.orders_failing), (3, 3));
    }

    #[test]
    fn a_commit_that_is_missing_and_what_is_none_are_found() {
        let mut findings = Findings::default();
        let first = commit(&StreamEnd::nothing(OrderId::generate()), &[created()]);
        let second = commit(&first.stored_end(), &[paid(150)]);
        findings.take(&first);
        findings.take(&commit(&second.stored_end(), &[("order.delivered", 1, json!({}))]));
        findings.take(&second);
        findings.take_damaged(OrderId::generate(), Version(7), "nonsense".to_owned());
        assert_eq!(
            told(&findings),
            [
                ("", 0, Kind::NoCommit, 1, 7),
                ("order.delivered", 1, Kind::Gap, 1, 3),
                ("order.paid", 1, Kind::Gap, 1, 2)
            ]
        );
        assert_eq!(findings.orders_failing, 2);
    }

    #[test]
    fn examples_and_types_are_bounded_however_much_is_wrong() {
        let mut findings = Findings::default();
        for n in 0..TYPES_MAX + 100 {
            let end = StreamEnd::nothing(OrderId::generate());
            findings.take(&commit(&end, &[(&format!("order.x{n}"), 1, json!({}))]));
        }
        assert_eq!(findings.types.len(), TYPES_MAX + 1);
        assert_eq!(findings.types[&(OTHERS.to_owned(), 0)], 100);
        let others = &findings.troubles[&(OTHERS.to_owned(), 0, Kind::Ahead)];
        assert_eq!((others.events, others.examples.len()), (100, EXAMPLES_MAX));
    }
}
