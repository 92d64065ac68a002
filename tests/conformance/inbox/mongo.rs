//! What only MongoDB can show: several processes on one inbox, and answers that do not come.

use std::time::Duration;

use actors::inbox::{Inbox, InboxError};
use actors::testing::conformance::inbox as suite;
use docket::mongo::server::Settings;
use docket::mongo::{MongoInbox, Server};
use servers::MongoDatabase;

/// A lease that does not end while a test is at work.
const LONG: Duration = Duration::from_secs(60);

/// A subscriber's database on the server that all tests share, gone at the end of the test.
pub(super) struct Database(MongoDatabase);

impl Database {
    pub(super) fn new() -> Self {
        Self(MongoDatabase::new())
    }

    /// As a process has it that nobody shares it with.
    pub(super) async fn inbox(&self) -> MongoInbox {
        self.held_by("one", LONG).await
    }

    async fn held_by(&self, holder: &str, lease: Duration) -> MongoInbox {
        MongoInbox::open(&server(self.0.uri()).await, self.0.name(), "test", holder, lease).await.expect("an inbox")
    }
}

/// As a process has it that was just started; patient, since tests run beside one another.
async fn server(uri: &str) -> Server {
    let patient = Settings {
        select_within: Duration::from_secs(10),
        answer_within: Duration::from_secs(20),
        ..Settings::new(uri)
    };
    Server::new(&patient).await.expect("a server")
}

#[tokio::test]
async fn everything_is_there_after_opening_it_again() {
    let database = Database::new();
    let inbox = std::sync::Arc::new(database.inbox().await);
    let reopen = async || std::sync::Arc::new(database.inbox().await) as std::sync::Arc<dyn Inbox>;
    suite::everything_is_there_after_reopening(inbox, reopen).await;
}

#[tokio::test]
async fn a_database_of_another_subscriber_is_refused() {
    let database = Database::new();
    drop(database.inbox().await);
    let server = server(database.0.uri()).await;
    let subscribers = server.database(&format!("{}_test", database.0.name())).collection("subscriber");
    let renamed = mongodb::bson::doc! { "$set": { "name": "another" } };
    subscribers.update_one(mongodb::bson::doc! {}, renamed).await.expect("updated");
    let _: mongodb::Collection<mongodb::bson::Document> = subscribers;
    let opened = MongoInbox::open(&server, database.0.name(), "test", "one", LONG).await;
    let Err(InboxError::Damaged(why)) = opened else { panic!("it is not test's") };
    assert!(why.contains("another"), "{why}");
}
