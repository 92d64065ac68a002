//! What is large, oddly named, done twice at once or given up in the middle.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::{applies, commit, rows};
use crate::inbox::{Body, Committed, DocumentKey, DocumentWrite, Inbox, InboxError, Row, Transaction, Which};
use crate::order::{OrderId, Version};

/// A document may be large, and its id any text; ids that look alike are different.
pub async fn documents_of_any_size_under_any_id(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let ids =
        ["", ".", "a.b", "a", "$a", "$set", "a/b", "a%2Fb", "A", " a", "ä", "a\u{308}", "\u{0}", "🧾", "'\"\\", "a\nb"];
    let long = "x".repeat(2_000);
    let mut transaction = Transaction::empty(&begun);
    for (n, id) in ids.into_iter().chain([&*long]).enumerate() {
        let large = "ö".repeat(if n == 0 { 5 << 19 } else { 10 });
        let body = Some(format!("{{\"n\":{n},\"text\":\"{large}\"}}").into());
        let key = DocumentKey { collection: "any".into(), id: id.to_owned() };
        transaction.documents.push(DocumentWrite { key, body });
    }
    let (transaction, committed) = commit(inbox, transaction).await;
    assert_eq!(committed, Committed::Written);
    let keys: Vec<_> = transaction.documents.iter().map(|write| write.key.clone()).collect();
    let bodies: Vec<Option<Body>> = transaction.documents.iter().map(|write| write.body.clone()).collect();
    let read = inbox.documents(begun.present.generation, keys.clone()).await.expect("documents");
    assert!(read == bodies, "they come back as they were, in the order of their keys");
    let elsewhere = keys.into_iter().map(|key| DocumentKey { collection: "elsewhere".into(), ..key }).collect();
    let read = inbox.documents(begun.present.generation, elsewhere).await.expect("documents");
    assert!(read.iter().all(Option::is_none), "a collection has its own ids");
}

/// A transaction may have thousands of rows, and more bytes than one command takes; it is written whole or not at all.
pub async fn thousands_of_rows_and_many_bytes_at_once(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let orders: Vec<_> = (0..5_000).map(|_| OrderId::generate()).collect();
    let mut before: Vec<_> = orders.iter().map(|order| Row::new(*order)).collect();
    for version in [1, 2] {
        let mut transaction = applies(&begun, &before);
        for write in transaction.documents.iter_mut().take(20) {
            write.body = Some(format!("\"{}\"", "x".repeat(500_000)).into());
        }
        let (transaction, committed) = commit(inbox, transaction).await;
        assert_eq!(committed, Committed::Written);
        before = transaction.rows.iter().map(|write| write.row.clone()).collect();
        let mut stored = rows(inbox, &begun, &orders).await;
        assert_eq!(stored.len(), orders.len());
        stored.sort_by_key(|row| row.order);
        before.sort_by_key(|row| row.order);
        assert!(stored == before, "version {version}");
    }
    let (_, committed) = commit(inbox, applies(&begun, &before[2_500..2_501])).await;
    assert_eq!(committed, Committed::Written);
    let (_, committed) = commit(inbox, applies(&begun, &before)).await;
    assert_eq!(committed, Committed::Fenced(vec![before[2_500].order]));
    let mut stored = rows(inbox, &begun, &orders).await;
    stored.retain(|row| row.applied != Version(2));
    assert_eq!(stored.iter().map(|row| row.order).collect::<Vec<_>>(), [before[2_500].order]);
}

/// The same transaction twice at once is written once; the other call is fenced by it.
pub async fn the_same_transaction_twice_at_once(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    for _ in 0..10 {
        let order = OrderId::generate();
        let transaction = Arc::new(applies(&begun, &[Row::new(order)]));
        let (one, other) = tokio::join!(inbox.commit(transaction.clone()), inbox.commit(transaction.clone()));
        let answers = [one.expect("a definite answer"), other.expect("a definite answer")];
        assert!(answers.contains(&Committed::Written), "{answers:?}");
        assert!(answers.contains(&Committed::Fenced(vec![order])), "{answers:?}");
        is_written_once(inbox, &transaction).await;
    }
}

/// Whoever goes away in the middle of a commit and commits the same transaction again learns what became of it; it is
/// there once.
pub async fn a_commit_given_up_at_any_point(inbox: &dyn Inbox) {
    let begun = inbox.begin().await.expect("begun");
    let mut before = Row::new(OrderId::generate());
    for polls in 0..200 {
        let transaction = Arc::new(applies(&begun, &[before]));
        let completed = give_up_after(polls, inbox.commit(transaction.clone())).await;
        let again = match inbox.commit(transaction.clone()).await {
            // What was left of the first one was in the way.
            Err(InboxError::Away(_)) => inbox.commit(transaction.clone()).await,
            again => again,
        };
        match again.expect("a definite answer") {
            Committed::Written => assert_eq!(completed, None, "it was written twice"),
            Committed::Fenced(orders) => assert_eq!(orders, [transaction.rows[0].row.order]),
            Committed::Superseded => panic!("nobody began a term"),
        }
        is_written_once(inbox, &transaction).await;
        before = transaction.rows[0].row.clone();
        if completed.is_some() {
            return;
        }
    }
    panic!("a commit takes more than 200 turns");
}

/// Polls so often, then drops it.
async fn give_up_after<T>(polls: u32, future: impl Future<Output = Result<T, InboxError>>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(|answer| Some(answer.expect("a definite answer")))
    })
    .await
}

/// Its rows carry its id, its documents are there, its effects are recorded once.
async fn is_written_once(inbox: &dyn Inbox, transaction: &Transaction) {
    let orders: Vec<_> = transaction.rows.iter().map(|write| write.row.order).collect();
    let stored = inbox.rows(transaction.generation, orders.clone()).await.expect("rows");
    assert_eq!(stored, transaction.rows.iter().map(|write| write.row.clone()).collect::<Vec<_>>());
    let keys = transaction.documents.iter().map(|write| write.key.clone()).collect();
    let documents = inbox.documents(transaction.generation, keys).await.expect("documents");
    assert!(documents.iter().all(Option::is_some));
    let effects = inbox.effects(orders, Which::Waiting, usize::MAX).await.expect("effects");
    let ids: HashSet<_> = effects.iter().map(|effect| effect.effect.id).collect();
    assert_eq!(ids.len(), effects.len());
    assert!(transaction.effects.iter().all(|effect| ids.contains(&effect.id)));
    let versions: u32 = transaction.rows.iter().map(|write| write.row.applied.0).sum();
    assert_eq!(ids.len(), usize::try_from(versions).expect("few"), "one effect a version");
}
