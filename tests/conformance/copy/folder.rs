//! A data folder with everything in it that a folder can have.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::clock::Timestamp;
use actors::commit::{Commit, CommitId, CommitKey, Origin};
use actors::event::EventId;
use actors::event_store::{Appended, EventStore};
use actors::inbox::{
    Attempt, Begun, Body, Committed, Discard, DocumentKey, DocumentWrite, EffectId, EffectOutcome, Failure, HeadOfLane,
    Hold, HoldState, Inbox, Lane, NewEffect, Outcome, OutcomeKind, Progress, RecordedEffect, Row, RowWrite, Totals,
    Transaction, Which,
};
use actors::log::{Log, LogId, Position};
use actors::order::{OrderId, Version};
use actors::testing::commits::{commit, group};
use docket::copy::{CopyError, Source};
use docket::sqlite::{DataDirectory, SqliteInbox, Store};
use tempfile::TempDir;
use uuid::Uuid;

/// The subscribers with a file: one that every docket has, and one that none has.
pub(super) const NAMES: [&str; 2] = ["notification", "nobody"];
/// The first key of every folder.
pub(super) const FIRST_KEY: &str = "00000000-0000-7000-8000-000000000000:0000000001";

/// What was put into a folder.
pub(super) struct Stored {
    pub(super) orders: Vec<OrderId>,
    pub(super) documents: Vec<DocumentKey>,
}

/// What the ports give.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) commits: Vec<(CommitKey, CommitId, String)>,
    paused: Vec<bool>,
    unclean: Vec<bool>,
    pub(super) totals: Vec<Totals>,
    rows: Vec<Vec<Row>>,
    documents: Vec<Vec<Option<Body>>>,
    effects: Vec<Vec<RecordedEffect>>,
    discards: Vec<Vec<Discard>>,
    /// The orders with effects that are to be performed, for each subscriber.
    waiting: Vec<Vec<OrderId>>,
}

impl Seen {
    pub(super) fn after(&self) -> Option<CommitKey> {
        self.commits.last().map(|(key, _, _)| *key)
    }

    /// What a subscriber's inbox gives.
    pub(super) async fn add(&mut self, inbox: &dyn Inbox, begun: &Begun, stored: &Stored) {
        self.paused.push(begun.present.paused);
        self.unclean.push(begun.unclean);
        self.totals.push(begun.totals);
        let mut rows = inbox.rows(begun.present.generation, stored.orders.clone()).await.expect("rows");
        rows.sort_by_key(|row| row.order);
        self.rows.push(rows);
        self.documents
            .push(inbox.documents(begun.present.generation, stored.documents.clone()).await.expect("documents"));
        // Read order by order, which takes long: of some, with all kinds among them.
        let some: Vec<OrderId> = stored.orders.iter().copied().step_by(7).collect();
        for order in &some {
            self.discards.push(inbox.discards(*order).await.expect("discards"));
        }
        let mut effects = inbox.effects(some, Which::All, 1_000).await.expect("effects");
        effects.sort_by_key(|effect| (effect.effect.order, effect.effect.version, effect.effect.id.index));
        self.effects.push(effects);
        self.waiting.push(inbox.waiting(None, 10_000).await.expect("orders"));
    }
}

/// The folder, once nobody else has it: threads of the last one may still be ending.
async fn locked(path: &Path) -> DataDirectory {
    soon(async || DataDirectory::lock(path).ok()).await
}

/// As [`locked`], to be copied.
pub(super) async fn opened(path: &Path) -> Source {
    soon(async || match Source::open(path).await {
        Err(CopyError::Directory(_)) => None,
        opened => Some(opened.expect("a source")),
    })
    .await
}

async fn soon<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(Instant::now() < until, "the folder is never free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the ports give of a folder.
pub(super) async fn seen(path: &Path, stored: &Stored) -> Seen {
    let directory = locked(path).await;
    let store = Store::open(&directory).expect("a store");
    let mut seen = Seen::default();
    while let page @ [_, ..] = &store.scan(seen.after(), 100).await.expect("commits")[..] {
        seen.commits.extend(page.iter().map(|commit| (commit.key(), commit.id(), commit.encoded().to_owned())));
    }
    for name in NAMES {
        let inbox = SqliteInbox::open(&directory, name).expect("an inbox");
        let begun = inbox.begin().await.expect("begun");
        seen.add(&inbox, &begun, stored).await;
        if !begun.unclean {
            inbox.release(begun.term).await.expect("as it was");
        }
    }
    seen
}

fn order(number: usize) -> OrderId {
    OrderId::from(Uuid::from_u128(0x7000_8000_0000_0000_0000 + number as u128))
}

/// A folder with so many orders, of one to four commits each; for each a row in one of all states, documents, and
/// effects with and without an outcome.
pub(super) async fn full(orders: usize) -> (TempDir, Stored) {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let store = Store::open(&directory).expect("a store");
    let orders: Vec<OrderId> = (0..orders).map(order).collect();
    append(&store, &orders).await;
    let mut stored = Stored { orders, documents: Vec::new() };
    for name in NAMES {
        let inbox = SqliteInbox::open(&directory, name).expect("an inbox");
        fill(&inbox, &mut stored, 0).await;
        inbox.set_paused(name == "nobody").await.expect("kept");
        operate(&inbox, &stored.orders).await;
        if name == NAMES[0] {
            let begun = inbox.begin().await.expect("begun");
            inbox.release(begun.term).await.expect("it has ended in order");
        }
        inbox.close().await;
    }
    store.close().await;
    let other = rusqlite::Connection::open(directory.file("other.db")).expect("a file");
    other.execute_batch("CREATE TABLE t (a INTEGER)").expect("a table");
    (folder, stored)
}

/// As if docket had run on the folder once more.
pub(super) async fn go_on(path: &Path, stored: &mut Stored) {
    let directory = locked(path).await;
    let store = Store::open(&directory).expect("a store");
    let next = stored.orders.len();
    let more: Vec<OrderId> = (next..next + 7).map(order).collect();
    append(&store, &more).await;
    stored.orders.extend(more);
    let inbox = SqliteInbox::open(&directory, NAMES[0]).expect("an inbox");
    let mut more = Stored { orders: stored.orders[next..].to_vec(), documents: Vec::new() };
    fill(&inbox, &mut more, next).await;
    // And one that was there is gone, and one is another one.
    let begun = inbox.begin().await.expect("begun");
    let mut transaction = Transaction::empty(&begun);
    transaction.documents = vec![
        DocumentWrite { key: stored.documents[0].clone(), body: None },
        DocumentWrite { key: stored.documents[1].clone(), body: Some("{\"changed\":true}".into()) },
    ];
    assert_eq!(inbox.commit(Arc::new(transaction)).await, Ok(Committed::Written));
    stored.documents.extend(more.documents);
}

async fn append(store: &Store, orders: &[OrderId]) {
    let mut ends: Vec<_> = orders.iter().map(|order| actors::commit::StreamEnd::nothing(*order)).collect();
    for round in 0..4 {
        let which = (0..orders.len()).filter(|number| round <= number % 4);
        let commits: Vec<(usize, Arc<Commit>)> =
            which.map(|number| (number, commit(&ends[number], 1 + (number + round) % 3))).collect();
        for some in commits.chunks(256) {
            let outcomes = store.append(group(some.iter().map(|(_, commit)| Arc::clone(commit)))).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Written)), "{outcomes:?}");
        }
        for (number, commit) in commits {
            ends[number] = commit.stored_end();
        }
    }
}

async fn fill(inbox: &SqliteInbox, stored: &mut Stored, first: usize) {
    let begun = inbox.begin().await.expect("begun");
    let orders = stored.orders.clone();
    for (page, some) in orders.chunks(500).enumerate() {
        let mut transaction = Transaction::empty(&begun);
        for (number, order) in some.iter().enumerate() {
            put(&mut transaction, &mut stored.documents, first + page * 500 + number, *order);
        }
        let position = Position { log: LogId(Uuid::from_u128(1)), token: "7".to_owned(), commit: None };
        transaction.progress = Some(Progress { position, catching_up: None });
        assert_eq!(inbox.commit(Arc::new(transaction)).await, Ok(Committed::Written));
    }
}

/// How many discards there are of so many orders.
pub(super) fn discards(orders: u64) -> u64 {
    orders.div_ceil(7) + orders.div_ceil(8)
}

/// What an operator has decided about some of the orders, about some of them twice.
async fn operate(inbox: &SqliteInbox, orders: &[OrderId]) {
    for round in 0..2 {
        let mut transaction = Transaction::of_operator(&inbox.present().await.expect("present"));
        for (number, order) in orders.iter().enumerate().filter(|(number, _)| number % (7 + round) == 0) {
            transaction.discards.push(Discard {
                order: *order,
                version: Version(2),
                event: (!number.is_multiple_of(3)).then(EventId::generate),
                event_type: (!number.is_multiple_of(3)).then(|| "order.paid".to_owned()),
                effect: number.is_multiple_of(4).then_some(0),
                reason: format!("it's \"{number}\""),
                by: "ana".to_owned(),
                at: at(number),
                hold: hold(HoldState::Dead, number),
            });
        }
        assert_eq!(inbox.commit(Arc::new(transaction)).await, Ok(Committed::Written));
    }
}

/// What the order with that number has: all kinds of everything come up.
fn put(transaction: &mut Transaction, documents: &mut Vec<DocumentKey>, number: usize, order: OrderId) {
    let event = EventId::generate();
    let row = Row {
        order,
        applied: Version(2),
        applied_event: (!number.is_multiple_of(5)).then_some(event),
        seen: Version(2 + u32::from(!number.is_multiple_of(7))),
        performed: Version(1),
        effects_waiting: 1,
        applying: lane(number % 7, number),
        performing: lane(number / 7 % 7, number),
        written_by: Some(transaction.id),
    };
    transaction.rows.push(RowWrite { was_written_by: None, row });
    let id = match number % 4 {
        0 => order.to_string(),
        1 => format!("a/b%{number}"),
        2 => format!("ä✓\u{0}{number}"),
        _ => format!("{number}!"),
    };
    let collection = ["orders", "orders!", "or/ders"][number % 3];
    let key = DocumentKey { collection: collection.into(), id };
    let body = format!("{{\"number\": {number}, \"text\": \"{}\"}}", "ü".repeat(number % 40));
    transaction.documents.push(DocumentWrite { key: key.clone(), body: Some(body.into()) });
    documents.push(key);
    for index in 0..if number.is_multiple_of(100) { 12 } else { 2 } {
        effect(transaction, order, EffectId { event, index }, number);
    }
}

fn effect(transaction: &mut Transaction, order: OrderId, id: EffectId, number: usize) {
    let at = at(number);
    transaction.effects.push(NewEffect {
        id,
        order,
        version: Version(2),
        last_of_event: id.index == 1,
        recorded_at: at,
        origin: Origin::anonymous(format!("c-{number}"), number.is_multiple_of(2).then(|| "00-trace".to_owned())),
        body: format!("{{\"mail\": \"{number}\"}}").into(),
    });
    let kinds = [OutcomeKind::Performed, OutcomeKind::Skipped, OutcomeKind::Undeliverable];
    if id.index == 0 && !number.is_multiple_of(4) {
        let outcome = Outcome { kind: kinds[number % 3], detail: format!("<{number}@docket>") };
        transaction.outcomes.push(EffectOutcome { order, id, outcome, at });
    }
}

fn lane(which: usize, number: usize) -> Lane {
    let Some(state) = which.checked_sub(1).map(|which| HoldState::ALL[which]) else { return Lane::Ready };
    Lane::Held(Box::new(hold(state, number)))
}

fn hold(state: HoldState, number: usize) -> Hold {
    let next_attempt_at = number.is_multiple_of(2).then(|| at(0));
    let mut hold = Hold::new(state, at(number), next_attempt_at);
    hold.attempts = number as u32 % 9;
    hold.head = (!number.is_multiple_of(3)).then(|| HeadOfLane {
        version: Version(3),
        event: EventId::generate(),
        event_type: "order.paid".to_owned(),
        effect: number.is_multiple_of(5).then_some(1),
    });
    for tried in 0..number % 4 {
        let failure = match tried {
            0 => Failure::transient("it's \"so\""),
            1 => Failure::permanent("\u{0}\n"),
            _ => Failure { place: None, ..Failure::dependency_down(String::new()) },
        };
        hold.keep(Attempt { at: at(number + tried), failure });
    }
    hold
}

fn at(number: usize) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + number as i64)
}
