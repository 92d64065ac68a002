//! The event store port: the truth about every order.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::commit::{Commit, StreamEnd};
use crate::order::{OrderId, Version};

/// Where commits are written and orders are read. Adapters: `sqlite/event_store.rs`,
/// `mongo/event_store.rs`.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Writes the commits of a group, each on its own: one that is refused does not keep another from being written.
    /// The outcomes stand in the order of the group.
    ///
    /// `Written` is durable: it is there after a crash of this process, of the store and of the machine. Writing the same
    /// commit again is harmless and says `Written` again. Once the future is dropped the outcomes are unknown.
    async fn append(&self, group: Group) -> Vec<Appended>;

    /// Commits of an order, in version order, whole, at most `limit` of them; fewer when they are large: only an empty
    /// answer says that there is none. The first is the one with the greatest key that is not beyond version `from`: it
    /// holds that version, or is the order's last. Only what is durable is seen.
    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError>;

    /// Whether nothing newer than `end` is stored. Linearizable: a commit that was acknowledged before the call to
    /// anybody anywhere is seen.
    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError>;

    /// Whether this process alone can write to the store while it holds it, so that what it remembers of an order is
    /// the newest without asking ([`EventStore::is_newest`]).
    fn sole_writer(&self) -> bool;
}

/// What became of one commit of a group.
#[derive(Clone, Debug)]
pub enum Appended {
    /// It is stored and durable.
    Written,
    /// Another commit has its key. This one is not stored and never will be.
    Conflict,
    /// This append did not store it and never will. What an earlier append of the same commit left unknown stays unknown.
    NotDone(StoreError),
    /// Nobody knows: it may be stored, may come to be stored later, or may be lost. Reading cannot tell (absence is a
    /// guess); only appending the same commit until the answer is another one can.
    Unknown(StoreError),
}

/// Why the store did not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or does not answer in time.
    #[error("the store is away: {0}")]
    Away(String),
    /// It has no room.
    #[error("the store is full: {0}")]
    Full(String),
    /// It holds something that it cannot have been given.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Commits that are written together, at most one of each order: of two, the first could be refused and the second
/// accepted, which would number an event twice.
#[derive(Clone, Debug, Default)]
pub struct Group {
    commits: Vec<Arc<Commit>>,
    orders: HashSet<OrderId>,
    bytes: usize,
}

impl Group {
    /// Adds a commit, or gives it back when the group has one of its order.
    pub fn push(&mut self, commit: Arc<Commit>) -> Result<(), Arc<Commit>> {
        if !self.orders.insert(commit.order()) {
            return Err(commit);
        }
        self.bytes += commit.encoded().len();
        self.commits.push(commit);
        Ok(())
    }

    /// The commits, in the order of the outcomes.
    pub fn commits(&self) -> &[Arc<Commit>] {
        &self.commits
    }

    /// The commits, without the group.
    pub fn into_commits(self) -> Vec<Arc<Commit>> {
        self.commits
    }

    /// How many bytes they are together, as stored.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }
}
