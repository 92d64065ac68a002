//! Opening a store again, and positions that mean nothing in it.

use crate::commit::CommitId;
use crate::event_store::EventStore;
use crate::log::{From, Log, LogError, LogId, Position};
use crate::order::Version;
use crate::testing::commits::{commit, first};
use crate::testing::conformance::{Adapter, Store, ids, next, written};

/// What was written is there when the store is opened again, and is continued where it ended.
///
/// # Panics
/// When the adapter does not conform.
pub async fn everything_is_there<A: Adapter>() {
    let adapter = A::new().await;
    let mut last = first(1);
    for round in 1..=3 {
        let store = adapter.open().await;
        written(&*store, &last).await;
        let read = EventStore::read(&*store, last.order(), Version::FIRST, 10).await.expect("read");
        assert_eq!(read.len(), round);
        assert!(store.is_newest(&last.stored_end()).await.expect("answers"));
        last = commit(&last.stored_end(), round);
        adapter.close(store).await;
    }
}

/// A position is good in the next process, too, whatever was written in between.
///
/// # Panics
/// When the adapter does not conform.
pub async fn positions_stay<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let commits: Vec<_> = (0..3).map(|_| first(1)).collect();
    let mut follow = store.follow(From::Now).await.expect("the end");
    let before = follow.position();
    for commit in &commits {
        written(&*store, commit).await;
    }
    next(&mut follow, 2, 2).await;
    let between = follow.position();
    drop(follow);
    adapter.close(store).await;

    let store = adapter.open().await;
    let mut follow = store.follow(From::Position(between)).await.expect("it is known");
    assert_eq!(ids(&next(&mut follow, 1, 10).await), [commits[2].id()]);
    let mut follow = store.follow(From::Position(before)).await.expect("it is known");
    assert_eq!(ids(&next(&mut follow, 3, 10).await), ids(&commits));
}

/// A position of another log is refused, also one at the beginning.
///
/// # Panics
/// When the adapter does not conform.
pub async fn another_log<A: Adapter>() {
    let (one, another) = (A::new().await, A::new().await);
    let (store, other) = (one.open().await, another.open().await);
    let beginning = other.follow(From::Now).await.expect("the end").position();
    assert_no_position(&*store, beginning).await;
    for store in [&store, &other] {
        written(&**store, &first(1)).await;
    }
    let later = other.follow(From::Now).await.expect("the end").position();
    assert_no_position(&*store, later).await;
}

/// In a store that was restored from an older copy a newer position is refused, whatever was written there since.
///
/// # Panics
/// When the adapter does not conform.
pub async fn a_restored_copy<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    written(&*store, &first(1)).await;
    adapter.close(store).await;
    adapter.back_up().await;

    let store = adapter.open().await;
    let lost = first(1);
    written(&*store, &lost).await;
    let position = store.follow(From::Now).await.expect("the end").position();
    adapter.close(store).await;
    adapter.restore().await;

    let store = adapter.open().await;
    assert_no_position(&*store, position.clone()).await;
    for _ in 0..3 {
        written(&*store, &first(1)).await;
        assert_no_position(&*store, position.clone()).await;
    }
    assert!(EventStore::read(&*store, lost.order(), Version::FIRST, 1).await.expect("read").is_empty());
}

/// A position that nobody can have been given is refused, not guessed.
///
/// # Panics
/// When the adapter does not conform.
pub async fn nonsense<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    written(&*store, &first(1)).await;
    written(&*store, &first(1)).await;
    let good = store.follow(From::Now).await.expect("the end").position();
    let wrong = [
        Position { token: String::new(), ..good.clone() },
        Position { token: "nonsense".to_owned(), ..good.clone() },
        Position { token: "-1".to_owned(), ..good.clone() },
        Position { token: "99999999999999999999999".to_owned(), ..good.clone() },
        Position { commit: Some(CommitId::generate()), ..good.clone() },
        Position { commit: None, ..good.clone() },
        Position { log: LogId(uuid::Uuid::now_v7()), ..good.clone() },
    ];
    for position in wrong {
        assert_no_position(&*store, position).await;
    }
    store.follow(From::Position(good)).await.expect("it is known");
}

async fn assert_no_position(store: &dyn Store, position: Position) {
    match Log::follow(store, From::Position(position.clone())).await {
        Err(LogError::NoPosition(_)) => {}
        Err(error @ LogError::Store(_)) => panic!("{error} for {position:?}"),
        Ok(_) => panic!("{position:?} was found"),
    }
}
