//! MongoDB: a database of its own for each test, on the server that `DOCKET_TEST_MONGODB_URI` names.

mod away;
mod groups;
mod ledger;
mod newest;

use std::time::Duration;

use docket::mongo::server::Settings;
use docket::mongo::{self, Server};

/// Which server.
const URI: &str = "DOCKET_TEST_MONGODB_URI";

/// A database that is gone at the end of its test.
struct Database {
    uri: String,
    name: String,
}

impl Database {
    fn new() -> Self {
        let uri = std::env::var(URI).unwrap_or_else(|_| panic!("{URI} names no server: `cargo xtask test` starts one"));
        Self { uri, name: format!("t_{}", uuid::Uuid::now_v7().simple()) }
    }

    /// As a process has it that was just started.
    async fn server(&self) -> Server {
        Server::new(&settings(&self.uri)).await.expect("a server")
    }

    /// The database, past the store.
    async fn past(&self) -> mongodb::Database {
        self.server().await.database(&self.name)
    }

    async fn open(&self) -> mongo::Store {
        mongo::Store::open(&self.server().await, &self.name).await.expect("a store")
    }
}

impl Drop for Database {
    /// In a runtime of its own: the test's may be at its end.
    fn drop(&mut self) {
        let drops = || {
            actors::testing::conformance::block_on(async {
                self.past().await.drop().await.expect("dropped");
            })
        };
        let dropped = std::thread::scope(|scope| scope.spawn(drops).join());
        assert!(dropped.is_ok() || std::thread::panicking(), "the database {} stays", self.name);
    }
}

/// Patient, since tests run beside one another.
fn settings(uri: &str) -> Settings {
    Settings { select_within: Duration::from_secs(10), answer_within: Duration::from_secs(20), ..Settings::new(uri) }
}
