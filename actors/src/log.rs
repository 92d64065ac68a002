//! The log port: every commit of every order, for those who follow along.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commit::{Commit, CommitId, CommitKey};
use crate::event_store::StoreError;
use crate::order::{OrderId, Version};

/// The stored commits of all orders. Adapters: `sqlite/log.rs`, `mongo/log.rs`.
#[async_trait]
pub trait Log: Send + Sync {
    /// Opens the log at a position, or at its present end.
    ///
    /// What was committed before the call and lies behind the position is delivered, and so is all that is committed
    /// later, each commit once, the commits of an order in version order, and none is ever skipped, however late it
    /// becomes visible.
    ///
    /// # Errors
    /// [`LogError::NoPosition`] when the position means nothing here: another log (a store that was restored or
    /// copied), or its commit is absent or elsewhere. The follower must [`Log::scan`].
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError>;

    /// Commits, order by order, with a key greater than `after` (all: `None`), at most `limit` of them; fewer when they
    /// are large: only an empty answer is the end. Every commit that was stored when the scan began is met; one stored
    /// meanwhile may or may not be.
    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;

    /// About how many commits lie behind that place, where the store knows it without counting; for figures only.
    async fn ahead(&self, position: &Position) -> Option<u64> {
        let _ = position;
        None
    }

    /// As [`crate::event_store::EventStore::read`].
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;
}

/// Where to begin to follow.
#[derive(Clone, Debug)]
pub enum From {
    /// Behind what is there now: the first commit delivered is one that is not stored yet.
    Now,
    /// Behind that position.
    Position(Position),
}

/// A place in a log, to be stored with the state that it belongs to. What is inside is the adapter's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Which log: a store that was restored from a copy or copied has another id.
    pub log: LogId,
    /// The adapter's own mark.
    pub token: String,
    /// The last commit before this place, when there is one: it must still be there.
    pub commit: Option<CommitId>,
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Uuid);

/// An open log.
#[async_trait]
pub trait Follow: Send {
    /// The next commits, at most `max`; waits until there is one, or until [`Follow::position`] has moved without one:
    /// then there are none. Whoever stores positions stores this one, too, for a store forgets old places, also when
    /// nothing is committed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// After one the log has to be opened again, from the last position.
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError>;

    /// The place behind what [`Follow::next`] gave: the last commit, or a later place with no commit between them.
    fn position(&self) -> Position;
}

/// Why the log cannot be followed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The position means nothing here. Worth an alert.
    #[error("the position cannot be found in the log: {0}")]
    NoPosition(String),
    /// The store did not answer; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
