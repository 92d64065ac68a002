//! Faults on purpose, around any adapter: errors, delays that reorder what is concurrent, unknown outcomes that land
//! later or never, snapshots that are lost. Every decision is drawn from a seed, so on one thread with tokio's clock
//! paused a run can be repeated.

mod checkpoints;
mod clock;
mod inbox;
mod mailer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::commit::{Commit, CommitKey, StreamEnd};
use crate::event_store::{Appended, EventStore, Group, StoreError};
use crate::log::{Follow, From, Log, LogError, Position};
use crate::order::{OrderId, Version};
use crate::snapshots::{Snapshot, Snapshots};

/// How often what goes wrong. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// That a call fails, certainly without having done anything.
    pub error: f64,
    /// That a write's outcome is unknown. A third of these were done, a third are done later, a third never.
    pub unknown: f64,
    /// Longest delay of a call.
    pub delay_max: Duration,
    /// Longest time until a write whose outcome is unknown is done.
    pub late_max: Duration,
}

/// Draws what goes wrong. Shared by all the ports of a run; what goes wrong can be changed while it runs.
#[derive(Debug)]
pub struct Fate {
    drawn: Mutex<(StdRng, Faults)>,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is done, and said to be.
    Done,
    /// It is not done, and said not to be.
    NotDone,
    /// It is done, and nobody knows.
    DoneUnheard,
    /// It will be done after that time, and nobody knows.
    DoneLater(Duration),
    /// It is not done, and nobody knows.
    Lost,
}

impl Fate {
    /// Of a seed.
    pub fn new(seed: u64, faults: Faults) -> Arc<Self> {
        Arc::new(Self { drawn: Mutex::new((StdRng::seed_from_u64(seed), faults)) })
    }

    /// From now on that goes wrong. [`Faults::default`] is nothing.
    pub fn set(&self, faults: Faults) {
        self.lock().1 = faults;
    }

    /// Waits for as long as fate wants.
    pub async fn delay(&self) {
        let delay = self.up_to(|faults| faults.delay_max);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Whether a call fails.
    pub fn error(&self) -> bool {
        let (rng, faults) = &mut *self.lock();
        rng.random_bool(faults.error)
    }

    /// What becomes of a write.
    pub fn write(&self) -> Write {
        let late = self.up_to(|faults| faults.late_max);
        let (rng, faults) = &mut *self.lock();
        if rng.random_bool(faults.error) {
            Write::NotDone
        } else if rng.random_bool(faults.unknown) {
            match rng.random_range(0..3) {
                0 => Write::DoneUnheard,
                1 => Write::DoneLater(late),
                _ => Write::Lost,
            }
        } else {
            Write::Done
        }
    }

    /// Delays a call, or fails it.
    async fn call(&self) -> Result<(), StoreError> {
        self.delay().await;
        if self.error() { Err(StoreError::Away("a fault on purpose".to_owned())) } else { Ok(()) }
    }

    fn up_to(&self, longest: impl Fn(&Faults) -> Duration) -> Duration {
        let (rng, faults) = &mut *self.lock();
        longest(faults).mul_f64(rng.random_range(0.0..=1.0))
    }

    fn between(&self, least: i64, most: i64) -> i64 {
        self.lock().0.random_range(least..=most)
    }

    fn lock(&self) -> MutexGuard<'_, (StdRng, Faults)> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An adapter of any of the ports, with faults. Clones share adapter and fate.
#[derive(Debug)]
pub struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    fate: Arc<Fate>,
}

impl<P: ?Sized> Faulty<P> {
    /// Faults around `inner`.
    pub fn new(inner: Arc<P>, fate: Arc<Fate>) -> Self {
        Self { inner, fate }
    }
}

impl<P: ?Sized> Clone for Faulty<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), fate: Arc::clone(&self.fate) }
    }
}

fn away() -> StoreError {
    StoreError::Away("a fault on purpose".to_owned())
}

#[async_trait]
impl<P: EventStore + ?Sized + 'static> EventStore for Faulty<P> {
    /// Each commit has its own fate, as in an unordered insert that breaks off.
    async fn append(&self, group: Group) -> Vec<Appended> {
        self.fate.delay().await;
        let fates: Vec<(Arc<Commit>, Write)> =
            group.into_commits().into_iter().map(|commit| (commit, self.fate.write())).collect();
        let mut now = Group::default();
        for (commit, write) in &fates {
            match write {
                // A group takes any commit whose order it has not got, and these come from one.
                Write::Done | Write::DoneUnheard => drop(now.push(Arc::clone(commit))),
                Write::DoneLater(after) => self.append_later(Arc::clone(commit), *after),
                Write::NotDone | Write::Lost => {}
            }
        }
        let mut done = if now.is_empty() { Vec::new() } else { self.inner.append(now).await }.into_iter();
        self.fate.delay().await;
        let outcome = |(_, write)| match write {
            Write::Done => done.next().unwrap_or_else(|| Appended::Unknown(away())),
            Write::DoneUnheard => {
                done.next();
                Appended::Unknown(away())
            }
            Write::NotDone => Appended::NotDone(away()),
            Write::DoneLater(_) | Write::Lost => Appended::Unknown(away()),
        };
        fates.into_iter().map(outcome).collect()
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.fate.call().await?;
        self.inner.read(order, from, limit).await
    }

    async fn is_newest(&self, end: &StreamEnd) -> Result<bool, StoreError> {
        self.fate.call().await?;
        self.inner.is_newest(end).await
    }

    fn sole_writer(&self) -> bool {
        self.inner.sole_writer()
    }
}

impl<P: EventStore + ?Sized + 'static> Faulty<P> {
    fn append_later(&self, commit: Arc<Commit>, after: Duration) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut group = Group::default();
            drop(group.push(commit));
            inner.append(group).await
        });
    }
}

#[async_trait]
impl<P: Log + ?Sized + 'static> Log for Faulty<P> {
    async fn follow(&self, from: From) -> Result<Box<dyn Follow>, LogError> {
        self.fate.call().await?;
        let inner = self.inner.follow(from).await?;
        Ok(Box::new(Follower { inner, fate: Arc::clone(&self.fate), broken: false }))
    }

    async fn scan(&self, after: Option<CommitKey>, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.fate.call().await?;
        self.inner.scan(after, limit).await
    }

    async fn ahead(&self, position: &Position) -> Option<u64> {
        self.fate.call().await.ok()?;
        self.inner.ahead(position).await
    }

    async fn read(&self, order: OrderId, from: Version, limit: usize) -> Result<Vec<Arc<Commit>>, StoreError> {
        self.fate.call().await?;
        self.inner.read(order, from, limit).await
    }
}

struct Follower {
    inner: Box<dyn Follow>,
    fate: Arc<Fate>,
    broken: bool,
}

#[async_trait]
impl Follow for Follower {
    /// Fails before it takes anything, so that the position is that of what was given.
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Commit>>, LogError> {
        self.fate.delay().await;
        self.broken |= self.fate.error();
        if self.broken {
            return Err(away().into());
        }
        self.inner.next(max).await
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}

#[async_trait]
impl<P: Snapshots + ?Sized + 'static> Snapshots for Faulty<P> {
    async fn load(&self, order: OrderId) -> Result<Option<Snapshot>, StoreError> {
        self.fate.call().await?;
        self.inner.load(order).await
    }

    /// Fails, or is lost without anybody knowing, or overtakes another.
    async fn save(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.fate.delay().await;
        match self.fate.write() {
            Write::Done | Write::DoneUnheard => self.inner.save(snapshot).await,
            Write::NotDone => Err(away()),
            Write::DoneLater(after) => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    inner.save(snapshot).await
                });
                Ok(())
            }
            Write::Lost => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::commits::{first, group};
    use crate::testing::memory::Memory;

    const FAULTS: Faults =
        Faults { error: 0.2, unknown: 0.4, delay_max: Duration::from_millis(10), late_max: Duration::from_millis(500) };

    /// What a run with that seed says, and which of its commits are there at last.
    async fn run(seed: u64) -> (Vec<&'static str>, Vec<bool>) {
        let memory = Memory::new();
        let store = Faulty::new(Arc::new(memory.clone()), Fate::new(seed, FAULTS));
        let commits: Vec<_> = (0..50).map(|_| first(1)).collect();
        let outcomes = store.append(group(commits.clone())).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let said = outcomes.iter().map(|outcome| match outcome {
            Appended::Written => "written",
            Appended::Conflict => "conflict",
            Appended::NotDone(_) => "not done",
            Appended::Unknown(_) => "unknown",
        });
        let there = memory.commits();
        let is_there = |commit: &Arc<Commit>| there.iter().any(|stored| stored.id() == commit.id());
        (said.collect(), commits.iter().map(is_there).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_definite_is_true_and_the_unknown_may_be_either() {
        let (said, there) = run(1).await;
        let mut unknown = Vec::new();
        for (said, there) in said.into_iter().zip(there) {
            match said {
                "written" => assert!(there),
                "not done" => assert!(!there),
                "unknown" => unknown.push(there),
                other => panic!("{other}"),
            }
        }
        assert!(unknown.contains(&true) && unknown.contains(&false), "{unknown:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_is_a_run() {
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }
}
