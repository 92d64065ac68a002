//! The log when things go wrong: positions that mean nothing any more, servers that forget, are killed or restored, and
//! followers that stop reading. What is lost is said; nothing is skipped in silence.

mod lost;
mod replaced;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use actors::commit::{Commit, CommitId};
use actors::event_store::EventStore;
use actors::log::{Follow, From, Log, LogError, Position};
use actors::testing::commits::{first, group};
use actors::testing::conformance::{PATIENCE, ids, next, written};
use docket::mongo::server::Settings;
use docket::mongo::{Server, Store};

const DATABASE: &str = "docket";

/// A process that ends every silence of the log after that time.
async fn open_talkative(uri: &str, quiet_max: Duration) -> Store {
    let settings = Settings { answer_within: Duration::from_secs(10), quiet_max, ..Settings::new(uri) };
    let server = Server::new(&settings).await.expect("an address");
    Store::open(&server, DATABASE).await.expect("a store")
}

/// The store as a process has it that was just started.
async fn open(uri: &str) -> Store {
    open_in(uri, DATABASE).await
}

async fn open_in(uri: &str, database: &str) -> Store {
    let settings = Settings { answer_within: Duration::from_secs(10), ..Settings::new(uri) };
    let server = Server::new(&settings).await.expect("an address");
    Store::open(&server, database).await.expect("a store")
}

async fn follow_now(store: &Store) -> Box<dyn Follow> {
    store.follow(From::Now).await.expect("the log can be followed")
}

/// Once the server is back.
async fn follow_soon(store: &Store, from: From) -> Box<dyn Follow> {
    let follows = async {
        loop {
            match store.follow(from.clone()).await {
                Ok(follow) => return follow,
                Err(error) => assert!(matches!(error, LogError::Store(_)), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, follows).await.expect("the log can be followed")
}

async fn follow_from(store: &Store, position: &Position) -> Box<dyn Follow> {
    store.follow(From::Position(position.clone())).await.expect("the position is known")
}

/// Why a position is refused.
async fn refused(store: &Store, position: &Position) -> String {
    match store.follow(From::Position(position.clone())).await {
        Err(LogError::NoPosition(why)) => why,
        Err(error @ LogError::Store(_)) => panic!("{error} for {position:?}"),
        Ok(_) => panic!("{position:?} was found"),
    }
}

/// Commits of so many new orders, written in groups.
async fn write(store: &Store, count: usize) -> Vec<CommitId> {
    const GROUP: usize = 100;
    let mut all = Vec::new();
    while all.len() < count {
        let commits: Vec<Arc<Commit>> = (0..GROUP.min(count - all.len())).map(|_| first(1)).collect();
        let outcomes = store.append(group(commits.iter().cloned())).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, actors::event_store::Appended::Written)));
        all.extend(ids(&commits));
    }
    all
}

/// What a follower is told in place of commits.
async fn fails(follow: &mut Box<dyn Follow>) -> LogError {
    let fails = async {
        loop {
            if let Err(error) = follow.next(100).await {
                return error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, fails).await.expect("it fails")
}

async fn one(store: &Store) -> CommitId {
    let commit = first(1);
    written(store, &commit).await;
    commit.id()
}

/// The next `count` commits.
async fn given(follow: &mut Box<dyn Follow>, count: usize) -> Vec<CommitId> {
    ids(&next(follow, count, 1_000).await)
}

fn sorted(mut ids: Vec<CommitId>) -> Vec<CommitId> {
    ids.sort_unstable_by_key(|id| id.0);
    ids
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{what}"));
}
