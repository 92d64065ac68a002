//! The log port and the history port over HTTP.

use std::sync::Arc;

use actors::commit::{Commit, CommitKey};
use actors::event_store::StoreError;
use actors::history::{FollowHeads, History};
use actors::log::{Follow, From, Log, LogError};
use actors::order::{OrderId, Version};
use async_trait::async_trait;
use serde_json::value::RawValue;

use super::client::Client;
use super::follow::{Events, Heads, Stream};
use super::wire::{self, Page};

/// The log of an order service in another process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemoteLog {
    client: Client,
}

/// Its history: the same, but followed without the events, which travel another way.
#[derive(Clone, Debug)]
pub struct RemoteHistory {
    client: Client,
}

impl RemoteLog {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// As [`Log::scan`], each commit as it came: for whoever looks also at what cannot be read.
    ///
    /// # Errors
    /// When the order service does not answer, or cannot read its store.
    pub async fn scan_raw(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Box<RawValue>>, StoreError> {
        scan(&self.client, after, limit).await
    }
}

impl RemoteHistory {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Log for RemoteLog {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        Ok(Box::new(Events(Stream::open(&self.client, from, true).await?)))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read_all(scan(&self.client, after, limit).await?)
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read(&self.client, order, from, limit).await
    }
}

#[async_trait]
impl History for RemoteHistory {
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read(&self.client, order, from, limit).await
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read_all(scan(&self.client, after, limit).await?)
    }

    async fn follow(&self, from: From) -> Result<Box<dyn FollowHeads>, LogError> {
        Ok(Box::new(Heads(Stream::open(&self.client, from, false).await?)))
    }
}

async fn scan(client: &Client, after: Option<CommitKey>, limit: usize) -> Result<Vec<Box<RawValue>>, StoreError> {
    let after = after.map(|key| key.to_string());
    commits(client, "history/commits", after.as_deref().map(|key| ("after", key)), limit).await
}

async fn read(client: &Client, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
    let path = format!("history/orders/{order}");
    read_all(commits(client, &path, Some(("from", &from.to_string())), limit).await?)
}

async fn commits(
    client: &Client,
    path: &str,
    from: Option<(&str, &str)>,
    limit: usize,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let limit = limit.min(wire::PAGE_COMMITS_MAX).to_string();
    let query: Vec<_> = from.into_iter().chain([("limit", limit.as_str())]).collect();
    let body = client.page(client.get(path, &query)).await?;
    let unreadable = |_| client.away("it sent a page that cannot be read");
    let page: Page<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
    Ok(page.commits.into_iter().map(RawValue::to_owned).collect())
}

fn read_all(commits: Vec<Box<RawValue>>) -> Result<Vec<Arc<Commit>>, StoreError> {
    let commit =
        |raw: Box<RawValue>| wire::commit(&raw).map(Arc::new).map_err(|error| StoreError::Damaged(error.to_string()));
    commits.into_iter().map(commit).collect()
}
