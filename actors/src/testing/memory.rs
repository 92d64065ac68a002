//! A store in memory: event store, log and snapshots. It knows no faults ([`super::faulty`] adds them) and no time.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::commit::{Commit, CommitId, CommitKey, StreamEnd};
use crate::event_store::{Appended, EventStore, Group, StoreError};
use crate::log::{Follow, From, Log, LogError, LogId, Position};
use crate::order::{OrderId, Version};
use crate::randomness;
use crate::snapshots::{Snapshot, Snapshots};

/// A store in memory. Clones are the same store; what is lost with the last of them is lost.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever there are more commits. It wakes those who wait in their order, as no watch does: with the same seed
    /// the same happens.
    more: Notify,
}

#[derive(Clone, Debug)]
struct State {
    log: LogId,
    by_key: BTreeMap<CommitKey, Arc<Commit>>,
    /// In the order in which they became visible.
    log_order: Vec<Arc<Commit>>,
    snapshots: HashMap<OrderId, Snapshot>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        let state = State {
            log: LogId(randomness::uuid_v7()),
            by_key: BTreeMap::new(),
            log_order: Vec::new(),
            snapshots: HashMap::new(),
        };
        Self::of(state)
    }

    /// Another store with the same contents, as a file that was copied: it even has the same log id.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self::of(self.state().clone())
    }

    /// Another store as this one was before its last so many commits.
    pub(super) fn without_last(&self, commits: usize) -> Self {
        let mut state = self.state().clone();
        let left = state.log_order.len().saturating_sub(commits);
        for commit in state.log_order.split_off(left) {
            state.by_key.remove(&commit.key());
        }
        Self::of(state)
    }

    /// Every commit, in the order of the log.
    pub fn commits(&self) -> Vec<Arc<Commit>> {
        self.state().log_order.clone()
    }

    /// The commit with that key.
    pub(super) fn at_key(&self, key: CommitKey) -> Option<Arc<Commit>> {
        self.state().by_key.get(&key).cloned()
    }

    /// As [`EventStore::append`], of one commit and at once.
    pub(super) fn append_now(&self, commit: &Arc<Commit>) -> Appended {
        let outcome = self.state().append(commit);
        self.0.more.notify_waiters();
        outcome
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), more: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn append(&mut self, commit: &Arc<Commit>) -> Appended {
        match self.by_key.get(&commit.key()) {
            Some(there) if there.id() == commit.id() => Appended::Written,
            Some(_) => Appended::Conflict,
            None => {
                self.by_key.insert(commit.key(), Arc::clone(commit));
                self.log_order.push(Arc::clone(commit));
                Appended::Written
            }
        }
    }

    fn read(&self, order: OrderId, from: Version, limit: usize) -> Vec<Arc<Commit>> {
        let key = |first| CommitKey { order, first };
        let holds_from = self.by_key.range(key(Version::NONE)..=key(from)).next_back();
        let first = holds_from.map_or(key(from), |(key, _)| *key);
        self.by_key.range(first..=key(Version(u32::MAX))).take(limit).map(|(_, commit)| Arc::clone(commit)).collect()
    }

    fn find(&self, position: &Position) -> Result<usize, LogError> {
        let absent = |why: &str| Err(LogError::NoPosition(why.to_owned()));
        let Ok(at) = position.token.parse::<usize>() else { return absent("not a number") };
        if position.log != self.log {
            return absent("another log");
        }
        if at > self.log_order.len() {
            return absent("beyond the end");
        }
        if self.last_before(at) != position.commit {
            return absent("another commit");
        }
        Ok(at)
    }

    fn last_before(&self, at: usize) -> Option<CommitId> {
        at.checked_sub(1).and_then(|last| self.log_order.get(last)).map(|commit| commit.id())
    }
}

#[async_trait]
impl EventStore for Memory {
    async fn append(&self, group: Group) -> Vec<Appended> {
        let mut state = self.state();
        let outcomes = group.commits().iter().map(|commit| state.append(commit)).collect();
        drop(state);
        self.0.more.notify_waiters();
        outcomes
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        Ok(self.state().read(order, from, limit))
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        let state = self.state();
        let last_key = CommitKey { order: end.order(), first: Version(u32::MAX) };
        Ok(state.by_key.range(end.next_key()..=last_key).next().is_none())
    }

    fn sole_writer(&self) -> bool {
        true
    }
}

#[async_trait]
impl Log for Memory {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        let state = self.state();
        let at = match from {
            From::Now => state.log_order.len(),
            From::Position(position) => state.find(&position)?,
        };
        Ok(Box::new(Follower { memory: self.clone(), at }))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        let state = self.state();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(state.by_key.range((after, Bound::Unbounded)).take(limit).map(|(_, commit)| Arc::clone(commit)).collect())
    }

    async fn ahead(&self, position: &Position) -> Option<u64> {
        let state = self.state();
        state.find(position).ok().map(|at| (state.log_order.len() - at) as u64)
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(self, order, from, limit).await
    }
}

struct Follower {
    memory: Memory,
    at: usize,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        loop {
            let more = self.memory.0.more.notified();
            let next: Vec<_> = self.memory.state().log_order.iter().skip(self.at).take(max.max(1)).cloned().collect();
            if !next.is_empty() {
                self.at += next.len();
                return Ok(next);
            }
            more.await;
        }
    }

    fn position(&self) -> Position {
        let state = self.memory.state();
        Position { log: state.log, token: self.at.to_string(), commit: state.last_before(self.at) }
    }
}

#[async_trait]
impl Snapshots for Memory {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.state().snapshots.get(&order).cloned())
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.state().snapshots.insert(snapshot.end.order(), snapshot);
        Ok(())
    }
}
