//! The inbox in a SQLite file and in memory: the conformance suite, and what only a file can show.

use std::sync::Arc;

use actors::inbox::{Inbox, InboxError};
use actors::testing::conformance::inbox as suite;
use actors::testing::inbox::MemoryInbox;
use docket::sqlite::DataDirectory;
use docket::sqlite::inbox::SqliteInbox;

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().expect("a folder");
                let directory = super::DataDirectory::lock(folder.path()).expect("a data folder");
                let inbox = super::SqliteInbox::open(&directory, "test").expect("an inbox");
                super::suite::$test(&inbox).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::suite::$test(&super::MemoryInbox::default()).await;
            })*
        }
    };
}

conformance!(
    a_transaction_comes_back_as_it_was,
    a_row_that_changed_fences_the_whole_transaction,
    a_transaction_recognises_itself,
    an_earlier_term_writes_nothing,
    due_lanes_come_oldest_first,
    effects_wait_for_their_outcome,
    documents_are_replaced_and_deleted,
    rest_is_kept,
);

/// Of a file there is no second process: the folder's lock keeps it out. In memory there is one.
macro_rules! leases {
    ($($test:ident),* $(,)?) => {
        mod leases_in_memory {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                let lease = std::time::Duration::from_secs(5);
                let inbox = super::MemoryInbox::default();
                let another = super::Arc::new(inbox.of_process("another", lease));
                let another = super::suite::Another { inbox: another, lease };
                super::suite::$test(&inbox.of_process("one", lease), Some(another)).await;
            })*
        }
    };
}

leases!(
    while_it_is_held_nobody_else_begins,
    a_lease_lasts_while_it_is_renewed_or_written_under,
    when_it_is_over_another_takes_it_and_the_earlier_term_writes_nothing,
    given_back_it_is_taken_at_once,
    renewed_late_it_is_held_again,
    of_many_who_begin_at_once_one_does,
    whoever_is_at_work_learns_of_rest_from_any_process,
    effects_are_read_through_any_process,
);

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
