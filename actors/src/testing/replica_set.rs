//! A store in memory that behaves as a replica set does when its members disagree, which one node cannot show: elections,
//! writes that are rolled back, and a primary that was deposed and does not know it.
//!
//! What it never does: roll back what was said to be written, or answer [`EventStore::is_newest`] or [`Log::scan`] from an
//! older state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
    to: watch::Sender<To>,
    linearizable_reads: Arc<AtomicU64>,
}

/// Whom a process talks to.
#[derive(Clone, Debug)]
enum To {
    Primary,
    /// A primary that was deposed and does not know, and what it has.
    Deposed(Memory),
    /// The primary, but for its reads at majority, which a deposed one answers.
    Both(Memory),
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
        Client { set: self.clone(), to: watch::Sender::new(To::Primary), linearizable_reads: Arc::default() }
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

    /// The primary takes a write: true, it goes to the other members now; false, its key is taken.
    fn insert(&self, members: &mut Members, commit: &Arc<Commit>) -> bool {
        let key = commit.key();
        let free = self.0.memory.at_key(key).is_none() && !members.unreplicated.contains_key(&key);
        if free {
            members.unreplicated.insert(key, Arc::clone(commit));
        }
        free
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

    /// What has the key, once a majority has it.
    async fn look_up(&self, commit: &Commit) -> Appended {
        match self.replicated(commit.key()).await.map(|()| self.0.memory.at_key(commit.key())) {
            Ok(Some(there)) if there.id() == commit.id() => Appended::Written,
            Ok(Some(_)) => Appended::Conflict,
            Ok(None) => Appended::Unknown(away("what had the key was rolled back")),
            Err(error) => Appended::Unknown(error),
        }
    }

    /// Waits until a majority has what the primary has under that key.
    async fn replicated(&self, key: CommitKey) -> Result<(), StoreError> {
        let deadline = Instant::now() + LINEARIZABLE_WITHIN;
        let before = self.elections();
        loop {
            self.replicates().await;
            let waits = self.primary()?.unreplicated.contains_key(&key);
            if self.elections() != before {
                return Err(away("the primary stepped down"));
            }
            if !waits {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(away("no majority answers"));
            }
        }
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        self.replicated(end.next_key()).await?;
        self.0.memory.is_newest(end).await
    }
}

impl Client {
    /// From now on this process talks to a primary that was deposed: it does not hear of anything new, and nothing that it
    /// takes reaches a majority.
    pub fn depose(&self) {
        self.to.send_replace(To::Deposed(self.set.0.memory.copied()));
    }

    /// From now on its reads, but for linearizable ones, are answered by a primary that was deposed before the last so many
    /// commits.
    pub fn read_behind(&self, commits: usize) {
        self.to.send_replace(To::Both(self.set.0.memory.without_last(commits)));
    }

    /// It talks to the real primary again.
    pub fn reconnect(&self) {
        self.to.send_replace(To::Primary);
    }

    /// How often something linearizable was asked.
    pub fn linearizable_reads(&self) -> u64 {
        self.linearizable_reads.load(Ordering::Relaxed)
    }

    /// What a read at majority sees.
    fn visible(&self) -> Result<Memory, StoreError> {
        match &*self.to.borrow() {
            To::Deposed(memory) | To::Both(memory) => Ok(memory.clone()),
            To::Primary => self.set.primary().map(|_| self.set.0.memory.clone()),
        }
    }

    fn is_deposed(&self) -> bool {
        matches!(&*self.to.borrow(), To::Deposed(_))
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
        let taken: Vec<bool> = match self.set.primary() {
            Ok(mut members) => group.commits().iter().map(|commit| self.set.insert(&mut members, commit)).collect(),
            Err(error) => return group.commits().iter().map(|_| Appended::NotDone(error.clone())).collect(),
        };
        self.set.replicates().await;
        let mut outcomes = Vec::new();
        for (commit, taken) in group.commits().iter().zip(&taken) {
            outcomes.push(if *taken { Some(self.set.acknowledge(commit, before)) } else { None });
        }
        for (commit, outcome) in group.commits().iter().zip(&mut outcomes) {
            if outcome.is_none() {
                *outcome = Some(self.set.look_up(commit).await);
            }
        }
        outcomes.into_iter().flatten().collect()
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(&self.visible()?, order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        self.linearizable_reads.fetch_add(1, Ordering::Relaxed);
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
        drop(self.set.primary()?);
        let inner = self.set.0.memory.follow(from).await?;
        let (elections, to) = (self.set.0.elections.subscribe(), self.to.subscribe());
        Ok(Box::new(Follower { inner, elections, to }))
    }

    /// Never from an older state, as the port says: what is missing in a scan would be missing for ever. An adapter reads
    /// behind something that it wrote itself, which a deposed primary does not have.
    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        match &*self.to.borrow() {
            To::Deposed(_) | To::Both(_) => return Err(away("it has not come that far")),
            To::Primary => drop(self.set.primary()?),
        }
        self.set.0.memory.scan(after, limit).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        EventStore::read(self, order, from, limit).await
    }
}

struct Follower {
    inner: Box<dyn Follow>,
    elections: watch::Receiver<u64>,
    to: watch::Receiver<To>,
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        let Self { inner, elections, to } = self;
        tokio::select! {
            biased;
            _ = elections.changed() => Err(away("the primary stepped down").into()),
            _ = to.changed() => Err(away("the connection was cut").into()),
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
        drop(self.set.primary()?);
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
    async fn what_no_majority_has_is_readable_by_nobody_and_what_is_in_its_way_waits_for_it() {
        let set = ReplicaSet::new(Memory::new(), 1);
        let (one, other) = (set.client(), set.client());
        let ours = first(1);
        let theirs = commit(&StreamEnd::nothing(ours.order()), 1);
        let (written, (seen, refused)) =
            tokio::join!(append(&one, &ours), async { (sees(&other, &ours).await, append(&other, &theirs).await) });
        assert!(matches!(written, Appended::Written));
        assert!(!seen && matches!(refused, Appended::Conflict), "{refused:?}");
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
        other.scan(None, 10).await.expect_err("what it has is not all");
        assert!(matches!(append(&other, &first(1)).await, Appended::Unknown(_)));
        EventStore::is_newest(&other, &before.stored_end()).await.expect_err("nobody knows");
        other.reconnect();
        assert!(sees(&other, &after).await);
    }
}
