//! The inbox in a SQLite file, in MongoDB and in memory: the conformance suite, and what only a file can show.

mod earlier;
mod mongo;

use std::sync::Arc;

use actors::inbox::{Inbox, InboxError};
use actors::testing::conformance::inbox::{self as suite, extremes, holds, operators};
use actors::testing::inbox::MemoryInbox;
use docket::sqlite::DataDirectory;
use docket::sqlite::inbox::SqliteInbox;

macro_rules! conformance {
    ($($suite:ident::$test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().expect("a folder");
                let directory = super::DataDirectory::lock(folder.path()).expect("a data folder");
                let inbox = super::SqliteInbox::open(&directory, "test").expect("an inbox");
                super::$suite::$test(&inbox).await;
            })*
        }
        mod mongodb {
            $(#[tokio::test]
            async fn $test() {
                let database = super::mongo::Database::new();
                super::$suite::$test(&database.inbox().await).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$suite::$test(&super::MemoryInbox::default()).await;
            })*
        }
    };
}

conformance!(
    suite::a_transaction_comes_back_as_it_was,
    suite::a_row_that_changed_fences_the_whole_transaction,
    suite::a_transaction_recognises_itself,
    suite::an_earlier_term_writes_nothing,
    suite::due_lanes_come_oldest_first,
    suite::effects_wait_for_their_outcome,
    suite::documents_are_replaced_and_deleted,
    suite::rest_is_kept,
    suite::a_term_ends_in_order_when_it_is_given_up,
    holds::a_hold_comes_back_with_everything,
    holds::every_kind_of_failure_comes_back,
    holds::held_lanes_come_in_pages,
    holds::totals_are_what_the_rows_add_up_to,
    operators::an_operator_writes_in_any_term,
    operators::a_row_that_changed_fences_an_operator,
    operators::an_operator_fences_whoever_is_at_work,
    operators::an_operator_writes_the_present_generation,
    operators::an_operators_transaction_recognises_itself,
    operators::discards_are_kept_once_in_their_order,
    operators::an_effect_is_discarded_for_good,
    operators::another_event_of_a_version_asks_for_effects_of_its_own,
    operators::an_event_that_comes_again_asks_for_its_effects_again,
    extremes::documents_of_any_size_under_any_id,
    extremes::thousands_of_rows_and_many_bytes_at_once,
    extremes::the_same_transaction_twice_at_once,
    extremes::a_commit_given_up_at_any_point,
);

/// Those about leases, which are short here but longer than a test process is ever kept waiting.
macro_rules! leases {
    ($($test:ident),* $(,)?) => {
        mod leases {
            $(#[tokio::test]
            async fn $test() {
                let database = super::mongo::Database::new();
                let (inbox, another) = database.shared_by_two().await;
                super::suite::$test(&inbox, Some(another)).await;
            })*
        }
    };
}

actors::inbox_leases!(leases);

#[tokio::test]
async fn everything_is_there_after_reopening_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let open = || Arc::new(SqliteInbox::open(&directory, "test").expect("an inbox"));
    // Nothing was closed in order: the next one recovers the write-ahead log.
    suite::everything_is_there_after_reopening(open(), async || open() as Arc<dyn Inbox>).await;
}

#[tokio::test]
async fn a_file_of_another_subscriber_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    SqliteInbox::open(&directory, "one").expect("an inbox").close().await;
    std::fs::copy(directory.file("one.db"), directory.file("two.db")).expect("a copy");
    let Err(InboxError::Damaged(why)) = SqliteInbox::open(&directory, "two") else { panic!("it is not two's") };
    assert!(why.contains("one"), "{why}");
}

#[tokio::test]
async fn a_closed_inbox_opens_itself_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = DataDirectory::lock(folder.path()).expect("a data folder");
    let inbox = SqliteInbox::open(&directory, "test").expect("an inbox");
    let before = inbox.begin().await.expect("begun").term;
    inbox.close().await;
    assert!(inbox.begin().await.expect("begun").term > before);
}
