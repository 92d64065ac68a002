//! The log port on `orders.db`: rows in the order of their numbers. There is one writer, so that is the order in which
//! they became visible, and none appears behind one that was read. Who keeps up is served from memory.

use std::collections::VecDeque;
use std::sync::Arc;

use actors::commit::{Commit, CommitId, CommitKey};
use actors::event_store::StoreError;
use actors::log::{Follow, From, Log, LogError, Position};
use actors::order::{OrderId, Version};
use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;
use uuid::Uuid;

use super::event_store::{self, rows};
use super::readers::{ROWS_MAX, ReadError, Stored, page};
use super::store::{Head, Shared, Store};

#[async_trait]
impl Log for Store {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        let head = self.shared.head.subscribe();
        let at = match from {
            From::Now => *head.borrow(),
            From::Position(position) => self.find(position).await?,
        };
        Ok(Box::new(Follower { shared: Arc::clone(&self.shared), head, at, read: VecDeque::new(), reading: None }))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        // The empty text is less than any key.
        let after = after.map(|key| key.to_string()).unwrap_or_default();
        let read = self.shared.readers.run(move |connection| {
            page(
                connection,
                "SELECT position, key, id, body FROM commits WHERE key > ?1 ORDER BY key LIMIT ?2",
                params![after, rows(limit)],
            )
        });
        Ok(read.await?.into_iter().map(|(_, commit)| commit).collect())
    }

    async fn ahead(&self, position: &Position) -> Option<u64> {
        let at: i64 = position.token.parse().ok().filter(|_| position.log == self.shared.log)?;
        u64::try_from(self.shared.head.borrow().position.saturating_sub(at)).ok()
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        event_store::read(self, order, from, limit).await
    }
}

impl Store {
    /// The place that a position names, when it is one of this log.
    async fn find(&self, position: Position) -> Result<Head, LogError> {
        let absent = |why: String| Err(LogError::NoPosition(why));
        if position.log != self.shared.log {
            return absent(format!("it is of log {}, this is log {}", position.log.0, self.shared.log.0));
        }
        let Ok(row) = position.token.parse::<i64>() else {
            return absent(format!("{:?} is not the number of a row", position.token));
        };
        let at = Head { position: row, commit: position.commit };
        if at == Head::default() || at == *self.shared.head.borrow() {
            return Ok(at);
        }
        let there = self.shared.readers.run(move |connection| id_at(connection, row)).await?;
        match (there, position.commit) {
            (Some(there), Some(expected)) if there == expected => Ok(at),
            (Some(there), _) => absent(format!("row {row} holds another commit, {}", there.0)),
            (None, _) => absent(format!("row {row} does not exist")),
        }
    }
}

fn id_at(connection: &Connection, row: i64) -> Result<Option<CommitId>, ReadError> {
    let mut select = connection.prepare_cached("SELECT id FROM commits WHERE position = ?1")?;
    let id = select.query_row([row], |row| row.get(0)).optional()?;
    Ok(id.map(|id| CommitId(Uuid::from_bytes(id))))
}

struct Follower {
    shared: Arc<Shared>,
    head: watch::Receiver<Head>,
    /// Behind the last commit given.
    at: Head,
    /// Read ahead and not yet given.
    read: VecDeque<Stored>,
    /// A page that is being read. Kept here so that it goes on when [`Follow::next`] is dropped and called again.
    reading: Option<BoxFuture<'static, Result<Vec<Stored>, StoreError>>>,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        let max = max.max(1);
        loop {
            if !self.read.is_empty() {
                let count = self.read.len().min(max);
                let given = self.read.drain(..count).collect();
                return Ok(self.give(given));
            }
            let head = self.head.borrow_and_update().position;
            if head <= self.at.position {
                let closed = |_| StoreError::Away("the store is closed".to_owned());
                self.head.changed().await.map_err(closed)?;
                continue;
            }
            let from_memory = self.shared.ring().behind_position(self.at.position, max);
            match from_memory {
                Some(commits) if !commits.is_empty() => return Ok(self.give(commits)),
                // Not in memory any more, or the log was opened anew this moment.
                Some(_) | None => self.read_ahead(head).await?,
            }
        }
    }

    fn position(&self) -> Position {
        Position { log: self.shared.log, token: self.at.position.to_string(), commit: self.at.commit }
    }
}

impl Follower {
    fn give(&mut self, commits: Vec<Stored>) -> Vec<Arc<Commit>> {
        if let Some((position, commit)) = commits.last() {
            self.at = Head { position: *position, commit: Some(commit.id()) };
        }
        commits.into_iter().map(|(_, commit)| commit).collect()
    }

    /// Reads the next page, nothing behind `head`: what lies there may not be durable yet.
    async fn read_ahead(&mut self, head: i64) -> Result<(), StoreError> {
        let (shared, at) = (Arc::clone(&self.shared), self.at.position);
        let reading = self.reading.get_or_insert_with(|| read_page(shared, at, head).boxed());
        let page = reading.await;
        self.reading = None;
        self.read = page?.into();
        Ok(())
    }
}

async fn read_page(shared: Arc<Shared>, after: i64, head: i64) -> Result<Vec<Stored>, StoreError> {
    let read = shared.readers.run(move |connection| {
        page(
            connection,
            "SELECT position, key, id, body FROM commits
             WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3",
            params![after, head, rows(ROWS_MAX)],
        )
    });
    read.await
}
