//! Rows that say something else than was written: named, never skipped, never a panic.

use std::sync::Arc;

use actors::commit::Commit;
use actors::event_store::{Appended, EventStore, StoreError};
use actors::log::{From, Log, LogError};
use actors::order::Version;
use actors::testing::commits::{commit, first, group};
use actors::testing::conformance::{block_on, ids, next};
use docket::sqlite;

use super::{file, folder, open};

/// Damages the second of three commits with that statement and asserts that everybody who meets it says so.
fn damaged_by(statement: &str) {
    let folder = folder();
    block_on(async {
        let store = open(folder.path());
        let start = store.follow(From::Now).await.expect("the end").position();
        let commits: Vec<_> = (0..3).map(|_| first(2)).collect();
        for commit in &commits {
            store.append(group([Arc::clone(commit)])).await;
        }
        store.close().await;
        drop(store);
        let file = file(folder.path());
        assert_eq!(file.execute(statement, []).expect("it is damaged"), 1);
        drop(file);

        let store = open(folder.path());
        assert_read(&store, &commits).await;
        let scanned = store.scan(None, 10).await.expect("what lies before it");
        assert_eq!(ids(&scanned), ids(&commits[..1]));
        let error = store.scan(Some(commits[0].key()), 10).await.expect_err("it is damaged");
        assert_names(&error, &commits[1]);

        let mut follow = store.follow(From::Position(start)).await.expect("it can be followed");
        assert_eq!(ids(&next(&mut follow, 1, 10).await), ids(&commits[..1]));
        for _ in 0..2 {
            match follow.next(10).await {
                Err(LogError::Store(error)) => assert_names(&error, &commits[1]),
                other => panic!("{other:?}"),
            }
        }
        // Nobody else is kept from writing.
        let behind = commits.iter().map(|one| commit(&one.stored_end(), 1));
        let outcomes = store.append(group(behind.chain([first(1)]))).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Written)), "{outcomes:?}");
    });
}

async fn assert_read(store: &sqlite::Store, commits: &[Arc<Commit>]) {
    let error = EventStore::read(store, commits[1].order(), Version::FIRST, 10).await.expect_err("it is damaged");
    assert_names(&error, &commits[1]);
    for whole in [&commits[0], &commits[2]] {
        let read = EventStore::read(store, whole.order(), Version::FIRST, 10).await.expect("it is whole");
        assert_eq!(ids(&read), [whole.id()]);
    }
}

fn assert_names(error: &StoreError, commit: &Commit) {
    let StoreError::Damaged(text) = error else { panic!("{error}") };
    assert!(text.contains(&format!("{} at 2", commit.key())), "{text}");
}

#[test]
fn a_body_that_is_no_json() {
    damaged_by("UPDATE commits SET body = substr(body, 10) WHERE position = 2");
}

#[test]
fn a_body_without_events() {
    damaged_by("UPDATE commits SET body = json_set(body, '$.commands', json('[]')) WHERE position = 2");
}

#[test]
fn a_version_that_no_event_has() {
    damaged_by("UPDATE commits SET body = json_set(body, '$.first', 0) WHERE position = 2");
}

#[test]
fn a_version_beyond_all_others() {
    damaged_by("UPDATE commits SET body = json_set(body, '$.first', 4294967295) WHERE position = 2");
}

#[test]
fn the_body_of_another_commit() {
    damaged_by("UPDATE commits SET body = (SELECT body FROM commits WHERE position = 1) WHERE position = 2");
}

#[test]
fn another_id() {
    damaged_by("UPDATE commits SET id = zeroblob(16) WHERE position = 2");
}

#[test]
fn an_id_that_is_none() {
    damaged_by("UPDATE commits SET id = zeroblob(3) WHERE position = 2");
}
