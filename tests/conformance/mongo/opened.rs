//! Opening a database that is new, by several processes at once.

use std::collections::HashSet;
use std::time::Duration;

use actors::testing::conformance::block_on;
use docket::mongo::MongoInbox;
use futures_util::future::join_all;

use super::{Database, server};

#[test]
fn processes_that_start_at_once_share_one_log() {
    block_on(async {
        for _ in 0..5 {
            let database = Database::new();
            let stores = join_all((0..8).map(|_| database.open())).await;
            let logs: HashSet<_> = stores.iter().map(|store| store.log_id().0).collect();
            assert_eq!(logs.len(), 1);
        }
    });
}

#[test]
fn processes_that_start_at_once_share_one_inbox() {
    block_on(async {
        let database = Database::new();
        let server = server(database.0.uri()).await;
        let holders: Vec<String> = (0..8).map(|holder| holder.to_string()).collect();
        let open = |holder| MongoInbox::open(&server, database.0.name(), "test", holder, Duration::from_secs(5));
        let opened = join_all(holders.iter().map(|holder| open(holder))).await;
        for opened in opened {
            opened.expect("an inbox");
        }
    });
}
