//! The event store port on `orders.db`: appends go to the writing thread, reads to the readers.

use std::sync::Arc;

use actors::commit::{Commit, CommitKey, StreamEnd};
use actors::event_store::{Appended, EventStore, Group, StoreError};
use actors::order::{OrderId, Version};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};
use tokio::sync::oneshot;

use super::readers::{ROWS_MAX, page};
use super::store::Store;
use super::writer::Job;

#[async_trait]
impl EventStore for Store {
    async fn append(&self, group: Group) -> Vec<Appended> {
        let count = group.len();
        let deaths = self.shared.deaths.borrow().clone();
        if deaths.dead {
            return vec![Appended::NotDone(writer_died(deaths.last_words())); count];
        }
        tokio::select! {
            biased;
            outcomes = self.hand_over(group) => {
                outcomes.unwrap_or_else(|closed| vec![Appended::NotDone(closed); count])
            }
            // It may still be in the queue, for the next writing thread.
            said = self.writer_died_after(&deaths) => vec![Appended::Unknown(writer_died(&said)); count],
        }
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        read(self, order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        let next = end.next_key();
        let newer = self.shared.readers.run(move |connection| {
            let mut select =
                connection.prepare_cached("SELECT 1 FROM commits WHERE key >= ?1 AND key <= ?2 LIMIT 1")?;
            Ok(select.query_row(params![next.to_string(), last_key(next.order)], |_| Ok(())).optional()?)
        });
        Ok(newer.await?.is_none())
    }

    fn sole_writer(&self) -> bool {
        true
    }
}

impl Store {
    async fn hand_over(&self, group: Group) -> Result<Vec<Appended>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Away("the store is closed".to_owned());
        self.jobs.send(Job::Append(group, answer)).await.map_err(|_| closed())?;
        match answered.await {
            Ok(outcomes) => Ok(outcomes),
            // The thread dropped it in dying, which is about to be known.
            Err(_) => std::future::pending().await,
        }
    }
}

fn writer_died(said: &str) -> StoreError {
    StoreError::Away(format!("the writing thread died: {said}"))
}

/// As both ports have it.
pub(super) async fn read(
    store: &Store,
    order: OrderId,
    from: Version,
    limit: usize,
) -> Result<Vec<Arc<Commit>>, StoreError> {
    let read = store.shared.readers.run(move |connection| {
        let first = CommitKey { order, first: Version::NONE }.to_string();
        let from = CommitKey { order, first: from }.to_string();
        page(
            connection,
            "SELECT position, key, id, body FROM commits
             WHERE key >= ifnull((SELECT max(key) FROM commits WHERE key >= ?1 AND key <= ?2), ?2) AND key <= ?3
             ORDER BY key LIMIT ?4",
            params![first, from, last_key(order), rows(limit)],
        )
    });
    Ok(read.await?.into_iter().map(|(_, commit)| commit).collect())
}

/// The greatest key that a commit of the order can have.
fn last_key(order: OrderId) -> String {
    CommitKey { order, first: Version(u32::MAX) }.to_string()
}

/// How many rows a statement may give.
pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit.min(ROWS_MAX)).unwrap_or(i64::MAX)
}
