//! The history port: what a subscriber may ask of the log, apart from following it. In the order service's own process
//! it is the log itself.

use std::sync::Arc;

use async_trait::async_trait;

use crate::commit::{Commit, CommitKey};
use crate::event_store::StoreError;
use crate::log::Log;
use crate::order::{OrderId, Version};

/// What happened, for subscribers: to fill a gap, to retry an event, to catch up.
#[async_trait]
pub trait History: Send + Sync {
    /// As [`Log::read`].
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;

    /// As [`Log::scan`].
    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;
}

#[async_trait]
impl<L: Log + ?Sized> History for L {
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::read(self, order, from, limit).await
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Log::scan(self, after, limit).await
    }
}
