//! Operators in another process than the one at work, and what they leave behind.

use std::time::Instant;

use actors::clock::Timestamp;
use actors::inbox::{
    Attempt, Failure, FailureKind, Hold, HoldState, Lane, LaneCounts, Present, RowWrite, Totals, TransactionId,
};
use actors::order::Version;
use servers::{Proxy, Request};
use uuid::Uuid;

use super::*;

/// What an operator leaves open on the server ends after a minute by itself: nobody is to wait for that.
const SOON: Duration = Duration::from_secs(20);

fn is_commit(request: &Request) -> bool {
    request.command == "commitTransaction"
}

/// An operator's transaction that writes a row as it is.
async fn touches(inbox: &MongoInbox, before: &Row) -> Arc<Transaction> {
    let mut transaction = Transaction::of_operator(&inbox.present().await.expect("present"));
    let row = Row { written_by: Some(transaction.id), ..before.clone() };
    transaction.rows.push(RowWrite { was_written_by: before.written_by, row });
    Arc::new(transaction)
}

/// The process of an operator, which stops in the middle of a transaction: it was to be committed.
async fn stops(database: &Database, proxy: &Proxy, before: &Row) -> (MongoInbox, Arc<Transaction>) {
    let impatient = Settings { answer_within: Duration::from_secs(1), ..settings(&proxy.uri()) };
    let operator = open(&impatient, database.0.name(), "operator", SHORT).await;
    let transaction = touches(&operator, before).await;
    proxy.hold_requests(is_commit);
    let lost = operator.commit(transaction.clone()).await;
    assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
    (operator, transaction)
}

/// The transaction that it left open is ended by whoever is in its way; its commit, when it comes, is refused.
#[tokio::test]
async fn an_operator_that_is_gone_is_in_nobodys_way() {
    let database = Database::new();
    let inbox = database.inbox().await;
    let begun = inbox.begin().await.expect("begun");
    let order = OrderId::generate();
    let proxy = Proxy::before(database.address());
    let (operator, theirs) = stops(&database, &proxy, &Row::new(order)).await;
    let since = Instant::now();
    let ours = Arc::new(applies(&begun, &[Row::new(order)]));
    assert_eq!(settle(&inbox, &ours).await, Committed::Written);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    proxy.pass();
    assert_eq!(settle(&operator, &theirs).await, Committed::Fenced(vec![order]));
    let rows = inbox.rows(begun.present.generation, vec![order]).await.expect("rows");
    assert_eq!(rows, [ours.rows[0].row.clone()]);
    assert_eq!(inbox.present().await.expect("present").revision, 0);
}

/// So it is for another operator, and for who wants to begin.
#[tokio::test]
async fn an_operator_that_is_gone_is_in_no_operators_way_and_no_new_terms() {
    let database = Database::new();
    let proxy = Proxy::before(database.address());
    let impatient = Settings { answer_within: Duration::from_secs(1), ..settings(database.0.uri()) };
    let another = open(&impatient, database.0.name(), "another", SHORT).await;
    for begins in [false, true] {
        let order = OrderId::generate();
        let (operator, theirs) = stops(&database, &proxy, &Row::new(order)).await;
        let since = Instant::now();
        if begins {
            takes_over_when_it_can(&another).await;
        }
        let ours = touches(&another, &Row::new(order)).await;
        assert_eq!(settle(&another, &ours).await, Committed::Written);
        assert!(since.elapsed() < SOON, "begins: {begins}, {:?}", since.elapsed());
        proxy.pass();
        assert_eq!(settle(&operator, &theirs).await, Committed::Fenced(vec![order]));
    }
}

async fn takes_over_when_it_can(inbox: &MongoInbox) {
    loop {
        match inbox.begin().await {
            Ok(_) => return,
            Err(InboxError::Held { .. } | InboxError::Away(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The answer to an operator's commit is lost: committed again, it is known by its rows, and counted once.
#[tokio::test]
async fn an_operators_commit_whose_answer_is_lost_is_known_by_its_rows() {
    let database = Database::new();
    let proxy = Proxy::before(database.address());
    let impatient = Settings { answer_within: Duration::from_secs(1), ..settings(&proxy.uri()) };
    let operator = open(&impatient, database.0.name(), "operator", SHORT).await;
    let order = OrderId::generate();
    let transaction = touches(&operator, &Row::new(order)).await;
    proxy.hold_answers(is_commit);
    let lost = operator.commit(transaction.clone()).await;
    assert!(matches!(lost, Err(InboxError::Unknown(_))), "{lost:?}");
    proxy.pass();
    assert_eq!(settle(&operator, &transaction).await, Committed::Fenced(vec![order]));
    let rows = operator.rows(transaction.generation, vec![order]).await.expect("rows");
    assert_eq!(rows[0].written_by, Some(transaction.id));
    assert_eq!(operator.present().await.expect("present").revision, 1);
}

/// Whoever is at work writes without a pause, and so does an operator elsewhere: each gets there.
#[tokio::test]
async fn whoever_is_at_work_all_the_time_keeps_no_operator_out() {
    let database = Database::new();
    let (inbox, operator) = (database.inbox().await, database.held_by("operator", LONG).await);
    let begun = inbox.begin().await.expect("begun");
    let (stop, stopped) = tokio::sync::watch::channel(());
    let works = async {
        let mut before: Vec<_> = (0..50).map(|_| Row::new(OrderId::generate())).collect();
        let mut count = 0;
        while !stopped.has_changed().expect("it is there") {
            let transaction = Arc::new(applies(&begun, &before));
            assert_eq!(inbox.commit(transaction.clone()).await.expect("a definite answer"), Committed::Written);
            before = transaction.rows.iter().map(|write| write.row.clone()).collect();
            count += 1;
        }
        count
    };
    let operates = async {
        let mut before = Row::new(OrderId::generate());
        for _ in 0..10 {
            let transaction = touches(&operator, &before).await;
            assert_eq!(operator.commit(transaction.clone()).await.expect("a definite answer"), Committed::Written);
            before = transaction.rows[0].row.clone();
        }
        stop.send_replace(());
    };
    let (count, ()) = tokio::join!(works, operates);
    assert!(count > 0, "nor is it kept out by them");
    assert_eq!(inbox.present().await.expect("present").revision, 10);
}

/// What an earlier docket has written is read with what it knew, and goes on.
#[tokio::test]
async fn what_an_earlier_docket_has_written_is_read() {
    let database = Database::new();
    let inbox = database.inbox().await;
    let server = Server::new(&settings(database.0.uri())).await.expect("a server");
    let own = server.database(&format!("{}_test", database.0.name()));
    own.collection::<Document>("discards").drop().await.expect("dropped");
    let written_by = TransactionId::generate();
    let id = mongodb::bson::Uuid::from_bytes(written_by.0.into_bytes());
    let (retrying, dead) = (OrderId::generate(), OrderId::generate());
    let next = DateTime::from_millis(1_795_000_000_000);
    let row = |order: OrderId, lane: &str, hold: Document| {
        doc! {
            "_id": format!("0/{order}"), "generation": 0_i64, "applied": 1_i64, "seen": 3_i64, "performed": 1_i64,
            "effects_waiting": 0_i64, lane: hold, "written_by": id,
        }
    };
    let failure = doc! { "kind": "permanent", "text": "so" };
    let rows = [
        row(
            retrying,
            "applying",
            doc! { "state": "retrying", "attempts": 2_i64, "next_attempt_at": next, "failure": failure },
        ),
        row(dead, "performing", doc! { "state": "dead", "attempts": 5_i64, "next_attempt_at": null, "failure": null }),
    ];
    own.collection::<Document>("inbox").insert_many(rows).await.expect("rows");
    let earlier = doc! { "$unset": { "revision": "", "unclean": "" }, "$set": { "term": 4_i64, "holder": "earlier" } };
    database.subscriber().await.update_one(doc! {}, earlier).await.expect("updated");

    let inbox = {
        drop(inbox);
        database.inbox().await
    };
    assert_eq!(inbox.present().await, Ok(Present::default()));
    let begun = inbox.begin().await.expect("begun");
    assert!(begun.unclean, "it did not give its lease up");
    let applying = LaneCounts { retrying: 1, ..LaneCounts::default() };
    let performing = LaneCounts { dead: 1, ..LaneCounts::default() };
    assert_eq!(begun.totals, Totals { behind: 2, applying, performing, effects_waiting: 0 });
    let read = inbox.rows(begun.present.generation, vec![retrying]).await.expect("rows").remove(0);
    let mut hold =
        Hold::new(HoldState::Retrying, written_by.made_at(), Some(Timestamp::from_millis(1_795_000_000_000)));
    hold.attempts = 2;
    let failure = Failure { kind: FailureKind::Permanent, text: "so".into(), place: None };
    hold.keep(Attempt { at: written_by.made_at(), failure });
    let expected = Row {
        applied: Version(1),
        seen: Version(3),
        performed: Version(1),
        applying: Lane::Held(Box::new(hold)),
        written_by: Some(written_by),
        ..Row::new(retrying)
    };
    assert_eq!(read, expected);
    assert_ne!(written_by.made_at(), TransactionId(Uuid::nil()).made_at());
    let transaction = touches(&inbox, &read).await;
    assert_eq!(inbox.commit(transaction.clone()).await, Ok(Committed::Written));
    let again = inbox.rows(begun.present.generation, vec![retrying]).await.expect("rows");
    assert_eq!(again, [transaction.rows[0].row.clone()]);
    assert_eq!(inbox.present().await.expect("present").revision, 1);
}
