//! The ledger that all nodes share.

use std::sync::Arc;

use actors::clock::Timestamp;
use actors::supervisor::ledger::{Cause, Decided, ENTRIES_MAX, Entry, LedgerStore};
use actors::testing::conformance::block_on;
use mongodb::bson::{Document, doc};

use super::Database;

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
        attempts_max: 5,
        within_ms: 60_000,
        decision: Decided::Restart,
        next_try_at: None,
    })
}

#[test]
fn every_node_sees_the_last_thousand_of_all_each_once() {
    block_on(async {
        let database = Database::new();
        let (one, other) = (database.open().await, database.open().await);
        for batch in 0..8 {
            let of = |node| (batch * 100..batch * 100 + 100).map(|seq| entry(node, seq)).collect::<Vec<_>>();
            LedgerStore::append(&one, &of("a")).await.expect("written");
            LedgerStore::append(&other, &of("b")).await.expect("written");
            // The same batch again, as after an unclear answer.
            LedgerStore::append(&other, &of("b")).await.expect("written");
        }
        let last: Vec<(u64, String)> =
            (300..800).flat_map(|seq| ["a", "b"].map(|node| (seq, node.to_owned()))).collect();
        assert_eq!(last.len(), ENTRIES_MAX);
        for store in [one, other, database.open().await] {
            let loaded = LedgerStore::load(&store).await.expect("read");
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
        let store = database.open().await;
        LedgerStore::append(&store, &[entry("a", 1), entry("a", 2)]).await.expect("written");
        let ledger = database.past().await.collection::<Document>("ledger");
        let spoilt = ledger.update_one(doc! { "_id": { "$regex": "01:a$" } }, doc! { "$set": { "entry": "{" } }).await;
        assert_eq!(spoilt.expect("spoilt").modified_count, 1);
        assert_eq!(LedgerStore::load(&store).await.expect("read"), [Entry::clone(&entry("a", 2))]);
    });
}
