//! The history port: what a subscriber may ask of the log, apart from following it. In the order service's own process
//! it is the log itself.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::commit::{Commit, CommitKey};
use crate::event_store::StoreError;
use crate::log::{Follow, From, Log, LogError, Position};
use crate::order::{OrderId, Version};

/// What happened, for subscribers: to fill a gap, to retry an event, to catch up.
#[async_trait]
pub trait History: Send + Sync {
    /// As [`Log::read`].
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;

    /// As [`Log::scan`].
    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;

    /// As [`Log::follow`], without the events: for those who get these in another way, and want to know of each that it
    /// exists.
    async fn follow(&self, from: From) -> Result<Box<dyn FollowHeads>, LogError>;
}

/// How far an order's stream reached with one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The order.
    pub order: OrderId,
    /// The version of the commit's last event.
    pub last: Version,
    /// When the commit was recorded.
    pub recorded_at: Timestamp,
}

/// An open log, of which only heads are read.
#[async_trait]
pub trait FollowHeads: Send {
    /// As [`Follow::next`].
    async fn next(&mut self, max: usize) -> Result<Vec<Head>, LogError>;

    /// As [`Follow::position`].
    fn position(&self) -> Position;
}

/// The heads of an open log.
struct Heads(Box<dyn Follow>);

#[async_trait]
impl FollowHeads for Heads {
    async fn next(&mut self, max: usize) -> Result<Vec<Head>, LogError> {
        let commits = self.0.next(max).await?;
        let head = |commit: &Arc<Commit>| Head {
            order: commit.order(),
            last: commit.last(),
            recorded_at: commit.recorded_at(),
        };
        Ok(commits.iter().map(head).collect())
    }

    fn position(&self) -> Position {
        self.0.position()
    }
}

#[async_trait]
impl<L: Log + ?Sized> History for L {
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::read(self, order, from, limit).await
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::scan(self, after, limit).await
    }

    async fn follow(&self, from: From) -> Result<Box<dyn FollowHeads>, LogError> {
        Ok(Box::new(Heads(Log::follow(self, from).await?)))
    }
}
