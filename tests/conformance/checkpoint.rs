//! The relay's checkpoint in a SQLite file, in MongoDB and in memory.

use std::time::Duration;

use ::mongodb::bson::{Document, doc};
use actors::checkpoint::Checkpoints;
use actors::testing::checkpoints::MemoryCheckpoints;
use actors::testing::conformance::checkpoint as suite;
use docket::mongo::server::Settings;
use docket::mongo::{MongoCheckpoints, Server};
use docket::sqlite::{DataDirectory, Store};
use rusqlite::Connection;
use servers::MongoDatabase;

/// A lease that does not end while a test is at work.
const LONG: Duration = Duration::from_secs(60);
/// One that a test waits for, and that is not over because the machine is busy.
const SHORT: Duration = Duration::from_secs(3);

async fn server(database: &MongoDatabase) -> Server {
    // Patient, since tests run beside one another.
    let (select_within, answer_within) = (Duration::from_secs(10), Duration::from_secs(20));
    let settings = Settings { select_within, answer_within, ..Settings::new(database.uri()) };
    Server::new(&settings).await.expect("a server")
}

async fn of_process(database: &MongoDatabase, holder: &str, lease: Duration) -> MongoCheckpoints {
    MongoCheckpoints::new(&server(database).await, database.name(), holder, lease)
}

fn store() -> (tempfile::TempDir, DataDirectory, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let store = Store::open(&directory).expect("a store");
    (folder, directory, store)
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                let (_folder, _, store) = super::store();
                super::suite::$test(&store).await;
                store.close().await;
            })*
        }
        mod mongodb {
            $(#[tokio::test]
            async fn $test() {
                let database = super::MongoDatabase::new();
                super::suite::$test(&super::of_process(&database, "one", super::LONG).await).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::suite::$test(&super::MemoryCheckpoints::default()).await;
            })*
        }
    };
}

conformance!(what_was_stored_last_is_found, an_earlier_term_stores_nothing, of_several_terms_at_once_one_is_the_last);

macro_rules! leases {
    ($($test:ident),* $(,)?) => {
        mod leases {
            mod mongodb {
                use super::super::{MongoDatabase, SHORT, of_process, suite};

                $(#[tokio::test]
                async fn $test() {
                    let database = MongoDatabase::new();
                    let one = of_process(&database, "one", SHORT).await;
                    suite::$test(&one, &of_process(&database, "other", SHORT).await).await;
                })*
            }
            mod memory {
                use super::super::{MemoryCheckpoints, SHORT, suite};

                $(#[tokio::test(start_paused = true)]
                async fn $test() {
                    let checkpoints = MemoryCheckpoints::default();
                    let (one, other) = (checkpoints.of_process("one", SHORT), checkpoints.of_process("other", SHORT));
                    suite::$test(&one, &other).await;
                })*
            }
        }
    };
}

leases!(a_lease_keeps_others_out, a_lease_ends, a_lease_that_is_over_can_be_held_again);

#[tokio::test]
async fn a_file_that_is_opened_again_has_it() {
    let (_folder, directory, store) = store();
    let begun = store.begin().await.expect("begun");
    assert!(Checkpoints::save(&store, begun.term, Some(suite::checkpoint(1))).await.expect("stored"));
    store.close().await;
    let again = Store::open(&directory).expect("a store").begin().await.expect("begun");
    assert_eq!(again.checkpoint, Some(suite::checkpoint(1)));
    assert!(again.term > begun.term);
}

#[tokio::test]
async fn a_file_that_was_closed_stores_nothing() {
    let (_folder, _, store) = store();
    let begun = store.begin().await.expect("begun");
    store.close().await;
    store.begin().await.expect_err("the writing thread is gone");
    Checkpoints::save(&store, begun.term, None).await.expect_err("the writing thread is gone");
}

/// The relay begins at the end of the log then, and the log completes what subscribers miss.
#[tokio::test]
async fn what_cannot_be_read_is_as_good_as_none() {
    let (_folder, directory, store) = store();
    let begun = store.begin().await.expect("begun");
    assert!(Checkpoints::save(&store, begun.term, Some(suite::checkpoint(1))).await.expect("stored"));
    let past = Connection::open(directory.file(docket::sqlite::store::FILE_NAME)).expect("the file");
    assert_eq!(past.execute("UPDATE relay SET checkpoint = '{'", []).expect("spoilt"), 1);
    assert_eq!(store.begin().await.expect("begun").checkpoint, None);

    let database = MongoDatabase::new();
    let checkpoints = of_process(&database, "one", LONG).await;
    let begun = checkpoints.begin().await.expect("begun");
    assert!(checkpoints.save(begun.term, Some(suite::checkpoint(1))).await.expect("stored"));
    let past = server(&database).await.database(database.name()).collection::<Document>("relay");
    past.update_one(doc! {}, doc! { "$set": { "checkpoint": "{" } }).await.expect("spoilt");
    assert_eq!(checkpoints.begin().await.expect("begun").checkpoint, None);
}

#[tokio::test]
async fn many_begin_for_the_first_time_at_once() {
    let database = MongoDatabase::new();
    let holders: Vec<_> = (0..8).map(|number| format!("process {number}")).collect();
    let all = futures_util::future::join_all(holders.iter().map(|holder| of_process(&database, holder, LONG))).await;
    let begun = futures_util::future::join_all(all.iter().map(|checkpoints| checkpoints.begin())).await;
    assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 1, "{begun:?}");
}
