//! The write-ahead log stays small however much is read and written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::event_store::{Appended, EventStore};
use actors::log::Log;
use actors::testing::commits::{first_of_bytes, group};
use actors::testing::conformance::block_on;
use docket::sqlite;

use super::{folder, open};

const COMMIT_BYTES: usize = 100_000;
const GROUPS: usize = 80;
const COMMITS_OF_A_GROUP: usize = 25;
/// The limit from which on readers have to wait, and what is written until they do.
const LOG_BYTES_MAX: u64 = (64 + 48) << 20;

#[test]
fn it_does_not_grow_under_constant_reading_and_writing() {
    let folder = folder();
    block_on(async {
        let store = open(folder.path());
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4).map(|_| tokio::spawn(read_until(store.clone(), Arc::clone(&stop)))).collect();
        let mut largest = 0;
        for _ in 0..GROUPS {
            let outcomes = store.append(group((0..COMMITS_OF_A_GROUP).map(|_| first_of_bytes(COMMIT_BYTES)))).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Written)), "{outcomes:?}");
            let log = std::fs::metadata(folder.path().join("orders.db-wal")).expect("the write-ahead log");
            largest = largest.max(log.len());
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(reader.await.expect("no panic") > 0, "it read");
        }
        assert!(largest < LOG_BYTES_MAX, "{} MiB", largest >> 20);
        store.close().await;
        let left = std::fs::metadata(folder.path().join("orders.db-wal")).map_or(0, |log| log.len());
        assert_eq!(left, 0, "a clean end leaves nothing to be recovered");
    });
}

async fn read_until(store: sqlite::Store, stop: Arc<AtomicBool>) -> usize {
    let mut read = 0;
    let mut after = None;
    while !stop.load(Ordering::SeqCst) {
        let page = store.scan(after, 100).await.expect("readers only have to wait");
        after = page.last().map(|last| last.key());
        read += page.len();
    }
    read
}
