//! Snapshots: kept, replaced, and known to be wrong when they are.

use crate::commit::StreamEnd;
use crate::event_store::EventStore;
use crate::order::OrderId;
use crate::snapshots::Snapshot;
use crate::testing::commits::{commit, first};
use crate::testing::conformance::{Adapter, written};

fn snapshot(end: StreamEnd, state: &str) -> Snapshot {
    Snapshot { end, schema: 3, state: state.to_owned() }
}

/// The last one that was saved is loaded as it was, also by the next process.
///
/// # Panics
/// When the adapter does not conform.
pub async fn saved_and_replaced<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let one = first(2);
    let two = commit(&one.stored_end(), 1);
    written(&*store, &one).await;
    written(&*store, &two).await;
    for (stored, state) in [(&one, "{\"a\":\"\u{0}ü\"}"), (&two, "second"), (&two, "second, in another shape")] {
        store.save(snapshot(stored.stored_end(), state)).await.expect("saved");
        let loaded = store.load(one.order()).await.expect("loaded").expect("there is one");
        assert_eq!((loaded.end, loaded.schema, loaded.state.as_str()), (stored.stored_end(), 3, state));
    }
    adapter.close(store).await;
    let loaded = adapter.open().await.load(one.order()).await.expect("loaded").expect("there is one");
    assert_eq!(loaded.state, "second, in another shape");
}

/// An order without one has none.
///
/// # Panics
/// When the adapter does not conform.
pub async fn of_nobody<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let there = first(1);
    store.save(snapshot(there.stored_end(), "state")).await.expect("saved");
    assert!(store.load(OrderId::generate()).await.expect("loaded").is_none());
}

/// Whether a snapshot's commit is stored is seen from the first commit of a read from its version.
///
/// # Panics
/// When the adapter does not conform.
pub async fn at_a_commit_that_is_not_there<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let one = first(2);
    let stored = commit(&one.stored_end(), 2);
    let refused = commit(&one.stored_end(), 2);
    let longer = commit(&stored.stored_end(), 1);
    written(&*store, &one).await;
    written(&*store, &stored).await;
    let cases = [
        (&one, true),
        (&stored, true),
        (&refused, false),
        (&longer, false),
        (&commit(&refused.stored_end(), 4), false),
    ];
    for (taken_at, good) in cases {
        store.save(snapshot(taken_at.stored_end(), "state")).await.expect("saved");
        let loaded = store.load(one.order()).await.expect("loaded").expect("there is one");
        let read = EventStore::read(&*store, one.order(), loaded.end.version(), 10).await.expect("read");
        assert_eq!(loaded.is_at_end_of(&read[0]), good, "{taken_at:?}");
    }
}

/// Many at once are each saved or given up, never mixed up.
///
/// # Panics
/// When the adapter does not conform.
pub async fn many<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let commits: Vec<_> = (0..500).map(|_| first(1)).collect();
    let saves = commits.iter().map(|one| store.save(snapshot(one.stored_end(), &one.order().to_string())));
    let saved = futures_util::future::join_all(saves).await;
    assert!(saved.iter().any(Result::is_ok), "{:?}", saved[0]);
    for (one, saved) in commits.iter().zip(saved) {
        match store.load(one.order()).await.expect("loaded") {
            Some(loaded) => assert_eq!(loaded.state, one.order().to_string()),
            None => assert!(saved.is_err(), "it was saved and is not there"),
        }
    }
}
