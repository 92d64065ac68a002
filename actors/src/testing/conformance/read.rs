//! Reading an order from any version, and all orders from any key.

use std::sync::Arc;

use crate::commit::{Commit, StreamEnd};
use crate::event_store::EventStore;
use crate::order::{OrderId, Version};
use crate::testing::commits::{commit, first};
use crate::testing::conformance::{Adapter, Store, ids, stream, written};

/// An order with commits of one, two and three events, between two others.
async fn order(store: &dyn Store) -> Vec<Arc<Commit>> {
    written(store, &first(2)).await;
    let mut end = StreamEnd::nothing(OrderId::generate());
    let mut commits = Vec::new();
    for events in [1, 2, 3, 3, 2, 1, 1] {
        let next = commit(&end, events);
        written(store, &next).await;
        end = next.stored_end();
        commits.push(next);
    }
    written(store, &first(2)).await;
    commits
}

/// A read begins with the commit that holds the version, and goes on to the end.
///
/// # Panics
/// When the adapter does not conform.
pub async fn from_every_version<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let commits = order(&*store).await;
    for commit in &commits {
        for from in commit.first().0..=commit.last().0 {
            for limit in 1..=commits.len() {
                let read = EventStore::read(&*store, commit.order(), Version(from), limit).await.expect("read");
                let expected = commits.iter().skip_while(|first| first.id() != commit.id()).take(limit);
                assert_eq!(ids(&read), expected.map(|commit| commit.id()).collect::<Vec<_>>(), "{limit} from {from}");
            }
        }
    }
}

/// Before the first event a read begins with the first commit, behind the last with the last, and an order without
/// events has none.
///
/// # Panics
/// When the adapter does not conform.
pub async fn beyond_the_end_and_of_nobody<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let commits = order(&*store).await;
    let (first, last) = (&commits[0], &commits[commits.len() - 1]);
    let read = async |order, from, limit| {
        let by_store = EventStore::read(&*store, order, from, limit).await.expect("read");
        let by_log = crate::log::Log::read(&*store, order, from, limit).await.expect("read");
        assert_eq!(ids(&by_store), ids(&by_log));
        ids(&by_store)
    };
    assert_eq!(read(first.order(), Version::NONE, 1).await, [first.id()]);
    for beyond in [last.last().next(), Version(u32::MAX)] {
        assert_eq!(read(first.order(), beyond, 10).await, [last.id()]);
    }
    assert!(read(first.order(), Version::FIRST, 0).await.is_empty());
    for from in [Version::NONE, Version::FIRST, Version(u32::MAX)] {
        assert!(read(OrderId::generate(), from, 10).await.is_empty());
    }
}

/// Commits that are too large for one answer come in several, and none is missing.
///
/// # Panics
/// When the adapter does not conform.
pub async fn whole_streams_in_pages<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    let large = format!("\"{}\"", "x".repeat(900_000));
    let mut end = StreamEnd::nothing(OrderId::generate());
    let mut expected = Vec::new();
    // More than a server may put into one answer.
    for _ in 0..24 {
        let next = crate::testing::commits::commit_with(&end, 1, &large);
        written(&*store, &next).await;
        end = next.stored_end();
        expected.push(next.id());
    }
    let mut from = Version::FIRST;
    let mut read = Vec::new();
    while read.len() < expected.len() {
        let page = EventStore::read(&*store, end.order(), from, 100).await.expect("read");
        from = page.last().expect("a page is not empty").last().next();
        read.extend(ids(&page));
    }
    assert_eq!(read, expected);
    assert_eq!(ids(&stream(&*store, end.order()).await.expect("read")), expected);
}

/// A scan goes on behind any key with the next one, in the order of the keys.
///
/// # Panics
/// When the adapter does not conform.
pub async fn scanned_from_any_key<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    for _ in 0..3 {
        order(&*store).await;
    }
    let all = scan(&*store, 1_000).await;
    assert_eq!(all.len(), 3 * 9);
    assert!(all.is_sorted_by(|one, next| one.key() < next.key()), "order by order, version by version");
    for (place, commit) in all.iter().enumerate() {
        let rest = store.scan(Some(commit.key()), 1_000).await.expect("scan");
        assert_eq!(ids(&rest), ids(&all[place + 1..]));
    }
}

/// A scan meets everything, whatever the size of its pages.
///
/// # Panics
/// When the adapter does not conform.
pub async fn scanned_by_any_number<A: Adapter>() {
    let adapter = A::new().await;
    let store = adapter.open().await;
    assert!(scan(&*store, 10).await.is_empty());
    for _ in 0..3 {
        order(&*store).await;
    }
    let all = ids(&scan(&*store, 1_000).await);
    for limit in [1, 2, 3, 7, 26, 27, 28] {
        assert_eq!(ids(&scan(&*store, limit).await), all, "in pages of {limit}");
    }
}

async fn scan(store: &dyn Store, limit: usize) -> Vec<Arc<Commit>> {
    let mut commits: Vec<Arc<Commit>> = Vec::new();
    loop {
        let page = store.scan(commits.last().map(|last| last.key()), limit).await.expect("scan");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return commits;
        }
        commits.extend(page);
    }
}
