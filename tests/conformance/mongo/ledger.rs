//! The ledger that all nodes share.

use std::sync::Arc;

use actors::clock::Timestamp;
use actors::supervisor::ledger::{Cause, Decided, ENTRIES_MAX, Entry, LedgerStore};
use actors::testing::conformance::block_on;
use docket::mongo::MongoLedger;
use mongodb::bson::{Document, doc};

use super::{Database, server};

fn entry(node: &str, seq: usize) -> Arc<Entry> {
    Arc::new(Entry {
        seq: seq as u64,
        at: Timestamp::from_millis(1),
        node: node.into(),
        path: "docket/journal".into(),
        kind: "journal".into(),
        cause: Cause::Stop,
        message: None,
        attempt: 1,
        attempts_max: Some(5),
        within_ms: 60_000,
        decision: Decided::Restart,
        next_try_at: None,
    })
}

/// As a process does that was just started.
async fn opened(database: &Database) -> MongoLedger {
    MongoLedger::new(&server(database.0.uri()).await, database.0.name())
}

#[test]
fn every_node_sees_the_last_thousand_of_all_each_once() {
    block_on(async {
        let database = Database::new();
        let (one, other) = (opened(&database).await, opened(&database).await);
        for batch in 0..8 {
            let of = |node| (batch * 100..batch * 100 + 100).map(|seq| entry(node, seq)).collect::<Vec<_>>();
            one.append(&of("a")).await.expect("written");
            other.append(&of("b")).await.expect("written");
            // The same batch again, as after an unclear answer.
            other.append(&of("b")).await.expect("written");
        }
        let last: Vec<(u64, String)> =
            (300..800).flat_map(|seq| ["a", "b"].map(|node| (seq, node.to_owned()))).collect();
        assert_eq!(last.len(), ENTRIES_MAX);
        for store in [one, other, opened(&database).await] {
            let loaded = store.load().await.expect("read");
            let names: Vec<_> = loaded.iter().map(|entry| (entry.seq, entry.node.to_string())).collect();
            assert_eq!(names, last);
        }
        let kept = database.past().await.collection::<Document>("ledger").count_documents(doc! {}).await;
        assert!(kept.expect("counted") <= ENTRIES_MAX as u64 + 1);
    });
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() {
    block_on(async {
        let database = Database::new();
        let store = opened(&database).await;
        store.append(&[entry("a", 1), entry("a", 2)]).await.expect("written");
        let ledger = database.past().await.collection::<Document>("ledger");
        let spoilt = ledger.update_one(doc! { "_id": { "$regex": "01:a$" } }, doc! { "$set": { "entry": "{" } }).await;
        assert_eq!(spoilt.expect("spoilt").modified_count, 1);
        assert_eq!(store.load().await.expect("read"), [Entry::clone(&entry("a", 2))]);
    });
}
