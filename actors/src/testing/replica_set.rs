//! A store in memory that behaves as a replica set does when its members disagree, which one node cannot show: elections,
//! writes that are rolled back, and a primary that was deposed and does not know it.
//!
//! What it never does: roll back what was said to be written, or answer [`EventStore::is_newest`] from an older state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::memory::Memory;
use crate::commit::{Commit, CommitKey, StreamEnd};
use crate::event_store::{Appended, EventStore, Group, StoreError};
use crate::log::{Follow, From, Log, LogError, Position};
use crate::order::{OrderId, Version};
use crate::snapshots::{Snapshot, Snapshots};

/// Longest time that a write takes to reach a majority.
const REPLICATION_MAX: Duration = Duration::from_millis(10);
/// How long a linearizable read waits for what is not on a majority yet.
const LINEARIZABLE_WITHIN: Duration = Duration::from_millis(100);

/// The replica set. Clones are the same.
#[derive(Clone)]
pub struct ReplicaSet(Arc<Shared>);

struct Shared {
    /// What a majority has.
    memory: Memory,
    members: Mutex<Members>,
    /// Counts the elections.
    elections: watch::Sender<u64>,
}

struct Members {
    rng: StdRng,
    /// What the primary has and no majority: nobody can read it, and it is in the way of others.
    unreplicated: BTreeMap<CommitKey, Arc<Commit>>,
    /// There is no primary until then.
    electing_until: Option<Instant>,
}

/// One process's connection.
#[derive(Clone)]
pub struct Client {
    set: ReplicaSet,
    /// What a deposed primary has, as long as this process talks to it.
    deposed: watch::Sender<Option<Memory>>,
}

impl ReplicaSet {
    /// One whose majority has that.
    pub fn new(memory: Memory, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let members = Mutex::new(Members { rng, unreplicated: BTreeMap::new(), electing_until: None });
        Self(Arc::new(Shared { memory, members, elections: watch::Sender::new(0) }))
    }

    /// A process's connection to it.
    pub fn client(&self) -> Client {
        Client { set: self.clone(), deposed: watch::Sender::new(None) }
    }

    /// The primary is gone and another one is elected: for so long there is none. Of the writes that were under way the
    /// new one has some, and the others are rolled back; those who wrote do not know.
    pub fn elect(&self, lasts: Duration) {
        let mut members = self.members();
        members.electing_until = Some(Instant::now() + lasts);
        let under_way = std::mem::take(&mut members.unreplicated);
        for commit in under_way.into_values() {
            if members.rng.random_bool(0.5) {
                self.0.memory.append_now(&commit);
            }
        }
        self.0.elections.send_modify(|elections| *elections += 1);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn primary(&self) -> Result<MutexGuard<'_, Members>, StoreError> {
        let mut members = self.members();
        members.electing_until.take_if(|until| *until <= Instant::now());
        if members.electing_until.is_some() { Err(away("there is no primary")) } else { Ok(members) }
    }

    fn elections(&self) -> u64 {
        *self.0.elections.borrow()
    }

    async fn replicates(&self) {
        let takes = REPLICATION_MAX.mul_f64(self.members().rng.random());
        sleep(takes).await;
    }

    /// What the primary makes of a write: `None`, it goes to the other members now.
    fn insert(&self, members: &mut Members, commit: &Arc<Commit>) -> Option<Appended> {
        let key = commit.key();
        if let Some(there) = self.0.memory.at_key(key) {
            let ours = there.id() == commit.id();
            return Some(if ours { Appended::Written } else { Appended::Conflict });
        }
        if members.unreplicated.contains_key(&key) {
            return Some(Appended::Unknown(away("another write has the key, and cannot be read yet")));
        }
        members.unreplicated.insert(key, Arc::clone(commit));
        None
    }

    /// A majority has it, unless there was an election meanwhile.
    fn acknowledge(&self, commit: &Arc<Commit>, before: u64) -> Appended {
        let mut members = self.members();
        if self.elections() != before {
            return Appended::Unknown(away("the primary stepped down"));
        }
        members.unreplicated.remove(&commit.key());
        self.0.memory.append_now(commit)
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        let deadline = Instant::now() + LINEARIZABLE_WITHIN;
        let before = self.elections();
        loop {
            self.replicates().await;
            let waits = self.primary()?.unreplicated.contains_key(&end.next_key());
            if self.elections() != before {
                return Err(away("the primary stepped down"));
            }
            if !waits {
                return self.0.memory.is_newest(end).await;
            }
            if Instant::now() >= deadline {
                return Err(away("no majority answers"));
            }
        }
    }
}

impl Client {
    /// From now on this process talks to a primary that was deposed: it does not hear of anything new, and nothing that it
    /// takes reaches a majority.
    pub fn depose(&self) {
        self.deposed.send_replace(Some(self.set.0.memory.copied()));
    }

    /// It talks to the real primary again.
    pub fn reconnect(&self) {
        self.deposed.send_replace(None);
    }

    /// What a read at majority sees.
    fn visible(&self) -> Result<Memory, StoreError> {
        if let Some(memory) = &*self.deposed.borrow() {
            return Ok(memory.clone());
        }
        self.set.primary()?;
        Ok(self.set.0.memory.clone())
    }

    fn is_deposed(&self) -> bool {
        self.deposed.borrow().is_some()
    }
}

fn away(why: &str) -> StoreError {
    StoreError::Away(why.to_owned())
}

#[async_trait]
impl EventStore for Client {
    async fn append(&self, group: Group) -> Vec<Appended> {
        if self.is_deposed() {
            self.set.replicates().await;
            return group.commits().iter().map(|_| Appended::Unknown(away("no majority answers"))).collect();
        }
        let before = self.set.elections();
        let taken: Vec<Option<Appended>> = match self.set.primary() {
            Ok(mut members) => group.commits().iter().map(|commit| self.set.insert(&mut members, commit)).collect(),
            Err(error) => return group.commits().iter().map(|_| Appended::NotDone(error.clone())).collect(),
        };
        self.set.replicates().await;
        let acknowledge = |(taken, commit): (Option<Appended>, &Arc<Commit>)| {
            taken.unwrap_or_else(|| self.set.acknowledge(commit, before))
        };
        taken.into_iter().zip(group.commits()).map(acknowledge).collect()
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(&self.visible()?, order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        if self.is_deposed() {
            sleep(LINEARIZABLE_WITHIN).await;
            return Err(away("no majority answers"));
        }
        self.set.is_newest(end).await
    }

    fn sole_writer(&self) -> bool {
        false
    }
}

#[async_trait]
impl Log for Client {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        if self.is_deposed() {
            return Err(away("it has not come that far").into());
        }
        let inner = self.visible()?.follow(from).await?;
        let (elections, deposed) = (self.set.0.elections.subscribe(), self.deposed.subscribe());
        Ok(Box::new(Follower { inner, elections, deposed }))
    }

    /// A deposed primary gives what it has.
    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.visible()?.scan(after, limit).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(self, order, from, limit).await
    }
}

struct Follower {
    inner: Box<dyn Follow>,
    elections: watch::Receiver<u64>,
    deposed: watch::Receiver<Option<Memory>>,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        let Self { inner, elections, deposed } = self;
        tokio::select! {
            biased;
            _ = elections.changed() => Err(away("the primary stepped down").into()),
            _ = deposed.changed() => Err(away("the connection was cut").into()),
            next = inner.next(max) => next,
        }
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}

#[async_trait]
impl Snapshots for Client {
    /// Read from whichever member answers: it may be newer than what [`EventStore::read`] sees.
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        self.set.0.memory.load(order).await
    }

    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.visible()?;
        self.set.0.memory.save(snapshot).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::commits::{commit, first, group};

    async fn append(client: &Client, commit: &Arc<Commit>) -> Appended {
        client.append(group([Arc::clone(commit)])).await.remove(0)
    }

    async fn sees(client: &Client, commit: &Commit) -> bool {
        !EventStore::read(client, commit.order(), Version::FIRST, 1).await.expect("read").is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn an_election_keeps_some_of_what_was_under_way_and_all_that_was_acknowledged() {
        let set = ReplicaSet::new(Memory::new(), 1);
        let client = set.client();
        let acknowledged = first(1);
        assert!(matches!(append(&client, &acknowledged).await, Appended::Written));
        let under_way: Vec<_> = (0..20).map(|_| first(1)).collect();
        let (outcomes, ()) = tokio::join!(client.append(group(under_way.clone())), async {
            tokio::task::yield_now().await;
            set.elect(Duration::from_secs(1));
        });
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Unknown(_))), "{outcomes:?}");
        assert!(matches!(append(&client, &first(1)).await, Appended::NotDone(_)));
        sleep(Duration::from_secs(1)).await;
        assert!(sees(&client, &acknowledged).await);
        let mut landed = 0;
        for commit in &under_way {
            landed += u32::from(sees(&client, commit).await);
            assert!(matches!(append(&client, commit).await, Appended::Written));
        }
        assert!((1..20).contains(&landed), "{landed} of 20");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_majority_has_is_readable_by_nobody_and_in_the_way_of_others() {
        let set = ReplicaSet::new(Memory::new(), 1);
        let (one, other) = (set.client(), set.client());
        let ours = first(1);
        let theirs = commit(&StreamEnd::nothing(ours.order()), 1);
        let (written, (seen, refused)) =
            tokio::join!(append(&one, &ours), async { (sees(&other, &ours).await, append(&other, &theirs).await) });
        assert!(matches!(written, Appended::Written));
        assert!(!seen && matches!(refused, Appended::Unknown(_)), "{refused:?}");
        assert!(matches!(append(&other, &theirs).await, Appended::Conflict));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deposed_primary_answers_from_an_older_state_and_never_that_it_is_the_newest() {
        let set = ReplicaSet::new(Memory::new(), 1);
        let (one, other) = (set.client(), set.client());
        let (before, after) = (first(1), first(1));
        append(&one, &before).await;
        other.depose();
        append(&one, &after).await;
        assert!(sees(&other, &before).await && !sees(&other, &after).await);
        assert_eq!(other.scan(None, 10).await.expect("scanned").len(), 1);
        assert!(matches!(append(&other, &first(1)).await, Appended::Unknown(_)));
        EventStore::is_newest(&other, &before.stored_end()).await.expect_err("nobody knows");
        other.reconnect();
        assert!(sees(&other, &after).await);
    }
}
