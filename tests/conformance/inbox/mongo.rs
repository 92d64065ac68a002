//! What only MongoDB can show: several processes on one inbox, answers that do not come, a server that is killed.

mod killed;
mod operators;
mod unclear;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::inbox::{Begun, Committed, EffectId, Inbox, InboxError, NewEffect, Row, Transaction, Which};
use actors::order::OrderId;
use actors::testing::conformance::inbox::{self as suite, Another, applies};
use docket::mongo::server::Settings;
use docket::mongo::{MongoInbox, Server};
use mongodb::bson::{DateTime, Document, doc};
use servers::MongoDatabase;

/// A lease that does not end while a test is at work.
const LONG: Duration = Duration::from_secs(60);
/// One that a test waits for, and that is not over because the machine is busy.
const SHORT: Duration = Duration::from_secs(3);

/// A subscriber's database on the server that all tests share, gone at the end of the test.
pub(super) struct Database(MongoDatabase);

impl Database {
    pub(super) fn new() -> Self {
        Self(MongoDatabase::new())
    }

    /// As the only process has it.
    pub(super) async fn inbox(&self) -> MongoInbox {
        self.held_by("one", LONG).await
    }

    /// As two processes have it.
    pub(super) async fn shared_by_two(&self) -> (MongoInbox, Another) {
        let another = Another { inbox: Arc::new(self.held_by("another", SHORT).await), lease: SHORT };
        (self.held_by("one", SHORT).await, another)
    }

    async fn held_by(&self, holder: &str, lease: Duration) -> MongoInbox {
        // Patient, since tests run beside one another.
        let patient = Settings { answer_within: Duration::from_secs(20), ..settings(self.0.uri()) };
        open(&patient, self.0.name(), holder, lease).await
    }

    /// The server's address.
    fn address(&self) -> SocketAddr {
        let address = self.0.uri().trim_start_matches("mongodb://").split('/').next();
        address.and_then(|address| address.parse().ok()).expect("one server's address, in numbers")
    }

    /// The subscriber's document, past the inbox.
    async fn subscriber(&self) -> mongodb::Collection<Document> {
        let server = Server::new(&settings(self.0.uri())).await.expect("a server");
        server.database(&format!("{}_test", self.0.name())).collection("subscriber")
    }

    /// When the lease ends, by the server's clock.
    async fn until(&self) -> SystemTime {
        let subscriber = self.subscriber().await.find_one(doc! {}).await.expect("read").expect("a subscriber");
        subscriber.get_datetime("until").expect("a time").to_system_time()
    }
}

fn settings(uri: &str) -> Settings {
    Settings { select_within: Duration::from_secs(10), ..Settings::new(uri) }
}

/// As a process does that was just started.
async fn open(settings: &Settings, database: &str, holder: &str, lease: Duration) -> MongoInbox {
    let server = Server::new(settings).await.expect("a server");
    MongoInbox::open(&server, database, "test", holder, lease).await.expect("an inbox")
}

#[tokio::test]
async fn everything_is_there_after_opening_it_again() {
    let database = Database::new();
    let inbox = Arc::new(database.inbox().await);
    let reopen = async || Arc::new(database.inbox().await) as Arc<dyn Inbox>;
    suite::everything_is_there_after_reopening(inbox, reopen).await;
}

#[tokio::test]
async fn a_database_of_another_subscriber_is_refused() {
    let database = Database::new();
    drop(database.inbox().await);
    for (change, said) in [(doc! { "name": "another" }, "another"), (doc! { "schema": 2_i64 }, "shape 2")] {
        database.subscriber().await.update_one(doc! {}, doc! { "$set": change }).await.expect("updated");
        let server = Server::new(&settings(database.0.uri())).await.expect("a server");
        let opened = MongoInbox::open(&server, database.0.name(), "test", "one", LONG).await;
        let Err(InboxError::Damaged(why)) = opened else { panic!("it is not test's") };
        assert!(why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn many_open_it_for_the_first_time_at_once() {
    let database = Database::new();
    let opened = futures_util::future::join_all((0..8).map(|n| {
        let database = &database;
        async move { database.held_by(&format!("process {n}"), LONG).await }
    }));
    let begun = futures_util::future::join_all(opened.await.iter().map(|inbox| inbox.begin())).await;
    let (begun, held): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert!(held.iter().all(|held| matches!(held, Err(InboxError::Held { .. }))), "{held:?}");
}

#[tokio::test]
async fn a_dropped_database_begins_from_nothing() {
    let database = Database::new();
    let inbox = database.inbox().await;
    let begun = inbox.begin().await.expect("begun");
    let transaction = Arc::new(applies(&begun, &[Row::new(OrderId::generate())]));
    let server = Server::new(&settings(database.0.uri())).await.expect("a server");
    server.database(&format!("{}_test", database.0.name())).drop().await.expect("dropped");
    let committed = inbox.commit(transaction).await.expect("a definite answer");
    assert_eq!(committed, Committed::Superseded, "nobody has that term");
    let begun = inbox.begin().await.expect("begun");
    assert_eq!(begun.progress, None);
    let transaction = applies(&begun, &[Row::new(OrderId::generate())]);
    assert_eq!(inbox.commit(Arc::new(transaction)).await.expect("a definite answer"), Committed::Written);
}

/// Whoever takes over while the other one writes: the transaction is stored before the term begins, or never.
#[tokio::test]
async fn of_a_transaction_and_a_later_term_one_is_first() {
    let database = Database::new();
    // Always over.
    let lease = Duration::from_millis(1);
    let (one, another) = (database.held_by("one", lease).await, database.held_by("another", lease).await);
    let (mut written, mut superseded) = (0, 0);
    for round in 0..40 {
        // Now the one is given a start, now the other, and more and more of it.
        let start = Duration::from_micros(500 * round);
        let (to_write, to_take_over) = if round % 2 == 0 { (Duration::ZERO, start) } else { (start, Duration::ZERO) };
        let begun = one.begin().await.expect("begun");
        let order = OrderId::generate();
        let transaction = Arc::new(applies(&begun, &[Row::new(order)]));
        let takes_over = async {
            tokio::time::sleep(to_take_over).await;
            let begun = takes_over(&another).await;
            another.rows(begun.present.generation, vec![order]).await.expect("rows")
        };
        let writes = async {
            tokio::time::sleep(to_write).await;
            settle(&one, &transaction).await
        };
        let (committed, rows) = tokio::join!(writes, takes_over);
        match committed {
            Committed::Written => written += 1,
            Committed::Superseded => superseded += 1,
            Committed::Fenced(_) => panic!("nobody wrote the row"),
        }
        let there = rows.iter().any(|row| row.written_by == Some(transaction.id));
        assert_eq!(there, committed == Committed::Written, "round {round}: {rows:?}");
        let later = another.rows(begun.present.generation, vec![order]).await.expect("rows");
        assert_eq!(later, rows, "nothing came after the term began");
    }
    assert!(written > 0 && superseded > 0, "{written} were written, {superseded} were not: both were to be seen");
}

/// Begins as soon as it is let.
async fn takes_over(inbox: &MongoInbox) -> Begun {
    loop {
        match inbox.begin().await {
            Ok(begun) => return begun,
            Err(InboxError::Held { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// However many wait, the first ones of each order come, in order.
#[tokio::test]
async fn of_orders_with_many_effects_the_first_ones_are_loaded() {
    let database = Database::new();
    let inbox = database.inbox().await;
    let begun = inbox.begin().await.expect("begun");
    let orders: Vec<_> = (0..20).map(|_| OrderId::generate()).collect();
    let rows: Vec<_> = orders.iter().map(|order| Row::new(*order)).collect();
    let mut transaction = applies(&begun, &rows);
    // Some have one, some have forty, and these are stored last first.
    for effect in transaction.effects.clone().into_iter().step_by(3) {
        let id = |index| EffectId { index, ..effect.id };
        transaction.effects.extend((1..40).rev().map(|index| NewEffect { id: id(index), ..effect.clone() }));
    }
    let transaction = Arc::new(transaction);
    assert_eq!(inbox.commit(transaction.clone()).await.expect("a definite answer"), Committed::Written);
    for limit in [1, 8, 100] {
        let loaded = inbox.effects(orders.clone(), Which::Waiting, limit).await.expect("effects");
        let loaded: Vec<_> = loaded.into_iter().map(|effect| effect.effect).collect();
        let first = orders.iter().flat_map(|order| {
            let mut of_order: Vec<_> = transaction.effects.iter().filter(|effect| effect.order == *order).collect();
            of_order.sort_by_key(|effect| effect.id.index);
            of_order.into_iter().take(limit).cloned()
        });
        assert_eq!(loaded, first.collect::<Vec<_>>(), "at most {limit}");
    }
}

/// The server whose clock was an hour ahead is gone, and so is the holder.
#[tokio::test]
async fn a_lease_by_a_clock_that_was_ahead_is_over_when_nobody_holds_on_to_it() {
    let database = Database::new();
    let (inbox, another) = (database.held_by("one", SHORT).await, database.held_by("another", SHORT).await);
    inbox.begin().await.expect("begun");
    let ahead = DateTime::from_system_time(database.until().await + Duration::from_secs(3_600));
    let set = database.subscriber().await.update_one(doc! {}, doc! { "$set": { "until": ahead } }).await;
    assert_eq!(set.expect("set").modified_count, 1);
    let since = tokio::time::Instant::now();
    takes_over(&another).await;
    assert!(since.elapsed() >= SHORT, "its holder may have been there: {:?}", since.elapsed());
    assert!(since.elapsed() < SHORT * 4, "{:?}", since.elapsed());
}

/// Commits it until the answer is definite.
async fn settle(inbox: &MongoInbox, transaction: &Arc<Transaction>) -> Committed {
    loop {
        match inbox.commit(transaction.clone()).await {
            Ok(committed) => return committed,
            Err(InboxError::Away(_) | InboxError::Unknown(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}
