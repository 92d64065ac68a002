//! Whether something newer is stored, asked by many at once.

use std::sync::Arc;

use actors::commit::Commit;
use actors::event_store::EventStore;
use actors::testing::commits::{commit, first, group};
use actors::testing::conformance::{append, block_on};
use futures_util::future::join_all;
use servers::{MongoServer, Proxy};

use super::{Database, open};

/// Each asks about an order of its own or about one of many, while others write.
#[test]
fn a_thousand_askers_are_each_told_truly() {
    block_on(async {
        let database = Database::new();
        let (one, other) = (database.open().await, database.open().await);
        let last: Vec<Arc<Commit>> = (0..250).map(|_| first(1)).collect();
        one.append(group(last.clone())).await;
        let newer: Vec<Arc<Commit>> = last.iter().step_by(2).map(|last| commit(&last.stored_end(), 1)).collect();
        // Written through another process's pool, and acknowledged before anybody asks.
        other.append(group(newer)).await;
        let askers = (0..1_000).map(|asker| {
            let (one, place) = (&one, asker % last.len());
            let end = last[place].stored_end();
            async move { (place, one.is_newest(&end).await.expect("an answer")) }
        });
        for (place, newest) in join_all(askers).await {
            assert_eq!(newest, place % 2 == 1, "order {place}");
        }
    });
}

/// A read costs the server a write to a majority, so a crowd may not cost one for each of it.
#[test]
fn a_thousand_askers_share_a_few_reads() {
    block_on(async {
        let server = MongoServer::start().await;
        let proxy = Proxy::before(server.address());
        let store = open(&proxy.uri(), "docket").await;
        let last: Vec<Arc<Commit>> = (0..250).map(|_| first(1)).collect();
        store.append(group(last.clone())).await;
        let before = proxy.passed().requests;
        let askers = (0..1_000).map(|asker| {
            let (store, end) = (&store, last[asker % last.len()].stored_end());
            async move { store.is_newest(&end).await.expect("an answer") }
        });
        assert!(join_all(askers).await.into_iter().all(|newest| newest));
        // Some are the driver's own, which looks whether the server is there.
        let requests = proxy.passed().requests - before;
        assert!((1..100).contains(&requests), "{requests} requests");
    });
}

/// What was acknowledged to one is seen by everybody who asks from then on.
#[test]
fn what_was_acknowledged_elsewhere_is_seen_at_once() {
    block_on(async {
        let database = Database::new();
        let (one, other) = (database.open().await, database.open().await);
        let mut last = first(1);
        append(&one, &last).await;
        for _ in 0..50 {
            let (before, next) = (last.stored_end(), commit(&last.stored_end(), 1));
            assert!(other.is_newest(&before).await.expect("an answer"));
            append(&one, &next).await;
            assert!(!other.is_newest(&before).await.expect("an answer"));
            last = next;
        }
    });
}
