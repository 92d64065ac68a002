//! MongoDB: a database of its own for each test, on the server that `DOCKET_TEST_MONGODB_URI` names.

mod away;
mod crowd;
mod faults;
mod groups;
mod killed;
mod ledger;
mod log;
mod newest;
mod nodes;
mod opened;
mod suite;

use std::time::Duration;

use docket::mongo::server::Settings;
use docket::mongo::{Server, Store};
use servers::MongoDatabase;

/// A database that is gone at the end of its test.
struct Database(MongoDatabase);

impl Database {
    fn new() -> Self {
        Self(MongoDatabase::new())
    }

    /// The database, past the store.
    async fn past(&self) -> mongodb::Database {
        server(self.0.uri()).await.database(self.0.name())
    }

    /// As a process does that was just started.
    async fn open(&self) -> Store {
        open(self.0.uri(), self.0.name()).await
    }
}

async fn open(uri: &str, database: &str) -> Store {
    Store::open(&server(uri).await, database).await.expect("a store")
}

/// A patient one, since tests run beside one another.
async fn server(uri: &str) -> Server {
    let settings = Settings {
        select_within: Duration::from_secs(10),
        answer_within: Duration::from_secs(20),
        ..Settings::new(uri)
    };
    Server::new(&settings).await.expect("a server")
}
