//! The journal groups concurrent appends into one write, and settles what a write left open.
//!
//! A state machine: what comes in is a call with the present moment, what is to be done comes out as [`Action`]s;
//! [`actor`] carries them out. One write is under way at a time, and what arrives meanwhile is the next group. A commit
//! whose outcome is unknown is appended again until the outcome is definite; nothing else can tell (see
//! [`crate::event_store::Appended::Unknown`]). While the store fails, or is slow, appends are refused at once instead of
//! waiting for it, but for the one group that finds out whether it is back.

pub mod actor;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::commit::{Commit, CommitId};
use crate::event_store::{Appended, Group, StoreError};

/// The journal's bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most commits of a group.
    pub group_commits_max: usize,
    /// Most bytes of a group, but for one commit that is larger by itself.
    pub group_bytes_max: usize,
    /// Most commits that wait for the next group.
    pub waiting_max: usize,
    /// Longest time a commit waits to be written; then it is withdrawn, certainly not done.
    pub wait_max: Duration,
    /// After this time without an answer of the store, a write's outcome is taken to be unknown.
    pub write_max: Duration,
    /// How long the store is left alone after the first failure; doubled for each one more, up to the next limit.
    pub away_first: Duration,
    /// Longest time the store is left alone.
    pub away_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            group_commits_max: 256,
            group_bytes_max: 4 << 20,
            waiting_max: 4_096,
            wait_max: Duration::from_secs(2),
            write_max: Duration::from_secs(2),
            away_first: Duration::from_millis(20),
            away_max: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// How long something is left alone that failed so often before.
    fn pause(&self, failures: u32) -> Duration {
        self.away_first.saturating_mul(1 << failures.min(16)).min(self.away_max)
    }
}

/// What became of a commit, as its order learns it. After `Unknown` a second word follows: `Written` or `Conflict`.
#[derive(Clone, Debug)]
pub enum Said {
    /// Durable.
    Written,
    /// Another commit has its key.
    Conflict,
    /// Certainly not stored, and not tried again.
    NotDone(Why),
    /// May be stored, now or later. The journal goes on until it knows.
    Unknown,
}

/// Why a commit was not written.
#[derive(Clone, Debug)]
pub enum Why {
    /// More commits wait than are admitted.
    Overloaded,
    /// The store does not take writes now; worth trying again after that time.
    StoreAway(Duration),
}

/// What the journal wants done.
#[derive(Debug)]
pub enum Action<R> {
    /// Write the group, then call [`Journal::wrote`].
    Write(Group),
    /// Tell an order.
    Tell(R, CommitId, Said),
}

/// The journal's state. `R` is where an order is told.
#[derive(Debug)]
pub struct Journal<R> {
    limits: Limits,
    waiting: VecDeque<Entry<R>>,
    writing: Option<Writing<R>>,
    /// Outcome unknown, told so; to be appended again.
    unsettled: Vec<Entry<R>>,
    again: Option<Again>,
    away: Option<Away>,
    counts: Counts,
}

/// When the unsettled are written again: they are left alone for longer each time that some of them stay so.
#[derive(Clone, Copy, Debug)]
struct Again {
    failures: u32,
    at: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    groups: u64,
    written: u64,
    conflicts: u64,
    unknown: u64,
    settled: u64,
}

#[derive(Clone, Debug)]
struct Entry<R> {
    commit: Arc<Commit>,
    tell: R,
    since: Instant,
    told_unknown: bool,
}

#[derive(Debug)]
struct Writing<R> {
    entries: Vec<Entry<R>>,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Away {
    failures: u32,
    until: Instant,
    reason: String,
}

/// What operators see of the journal. Counters count since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// Why the store is away, when it is: until a write succeeds.
    pub away: Option<String>,
    /// Whether what comes now is refused unread, because the store is left alone. Afterwards the next write finds out
    /// whether it is back.
    pub refusing: bool,
    /// Commits that wait to be written.
    pub waiting: usize,
    /// Commits whose outcome is unknown now: written again until it is known.
    pub unsettled: usize,
    /// Groups that were given to the store.
    pub groups: u64,
    /// Commits that the store has taken.
    pub written: u64,
    /// Commits whose key another writer had.
    pub conflicts: u64,
    /// Commits whose outcome was unknown for a while: those settled, and those unsettled.
    pub unknown: u64,
    /// Of these, those whose outcome became known.
    pub settled: u64,
}

impl<R: Clone> Journal<R> {
    /// An idle journal.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            writing: None,
            unsettled: Vec::new(),
            again: None,
            away: None,
            counts: Counts::default(),
        }
    }

    /// A commit that its order's actor had under way when it failed, and asks for again.
    pub fn append_again(&mut self, commit: Arc<Commit>, tell: R, now: Instant) -> Vec<Action<R>> {
        if let Some(entry) = self.known(commit.id()) {
            entry.tell = tell;
            return Vec::new();
        }
        // Its answer may have been lost with the actor, so nothing but the store knows.
        self.counts.unknown += 1;
        self.unsettled.push(Entry { commit, tell, since: now, told_unknown: true });
        self.write_next(now).into_iter().collect()
    }

    /// A commit to be written. `tell` learns what became of it.
    pub fn append(&mut self, commit: Arc<Commit>, tell: R, now: Instant) -> Vec<Action<R>> {
        let refused = if self.waiting.len() >= self.limits.waiting_max {
            Some(Why::Overloaded)
        } else {
            self.away_for(now).map(Why::StoreAway)
        };
        if let Some(why) = refused {
            return vec![Action::Tell(tell, commit.id(), Said::NotDone(why))];
        }
        self.waiting.push_back(Entry { commit, tell, since: now, told_unknown: false });
        self.write_next(now).into_iter().collect()
    }

    /// What the store said of the group that was being written, in the group's order.
    pub fn wrote(&mut self, outcomes: Vec<Appended>, now: Instant) -> Vec<Action<R>> {
        let Some(writing) = self.writing.take() else { return Vec::new() };
        let mut actions = Vec::new();
        let mut failure: Option<StoreError> = None;
        let mut answered = false;
        let unanswered = std::iter::repeat_with(|| Appended::Unknown(StoreError::Away("no outcome".to_owned())));
        for (entry, outcome) in writing.entries.into_iter().zip(outcomes.into_iter().chain(unanswered)) {
            answered |= matches!(outcome, Appended::Written | Appended::Conflict);
            match outcome {
                Appended::Written => actions.push(self.definite(entry, Said::Written)),
                Appended::Conflict => actions.push(self.definite(entry, Said::Conflict)),
                // What was unknown once stays so: an earlier attempt may still land, whatever became of this one.
                Appended::NotDone(error) if entry.told_unknown => {
                    self.unsettled.push(entry);
                    failure = Some(error);
                }
                Appended::NotDone(error) => {
                    let why = Why::StoreAway(self.limits.away_first);
                    actions.push(Action::Tell(entry.tell, entry.commit.id(), Said::NotDone(why)));
                    failure = Some(error);
                }
                Appended::Unknown(error) => {
                    actions.extend(self.unsettle(entry));
                    failure = Some(error);
                }
            }
        }
        self.pace_unsettled(failure.is_some(), now);
        match failure {
            Some(error) if !answered => actions.extend(self.store_failed(&error, now)),
            // A store that gives one commit of a group a definite answer is there; the others are their own affair.
            Some(_) | None => self.away = None,
        }
        actions.extend(self.write_next(now));
        actions
    }

    /// Time has passed: withdraws what waited too long, gives up on a write that takes too long, tries again what is
    /// unsettled. To be called at [`Journal::wake_at`].
    pub fn tick(&mut self, now: Instant) -> Vec<Action<R>> {
        let mut actions = Vec::new();
        if let Some(writing) = &mut self.writing
            && now.duration_since(writing.since) >= self.limits.write_max
        {
            for entry in writing.entries.iter_mut().filter(|entry| !entry.told_unknown) {
                entry.told_unknown = true;
                self.counts.unknown += 1;
                actions.push(Action::Tell(entry.tell.clone(), entry.commit.id(), Said::Unknown));
            }
            let reason = format!("a write takes longer than {:?}", self.limits.write_max);
            actions.extend(self.store_failed(&StoreError::Away(reason), now));
        }
        while let Some(entry) =
            self.waiting.pop_front_if(|entry| now.duration_since(entry.since) >= self.limits.wait_max)
        {
            let why = Why::StoreAway(self.limits.away_first);
            actions.push(Action::Tell(entry.tell, entry.commit.id(), Said::NotDone(why)));
        }
        actions.extend(self.write_next(now));
        actions
    }

    /// When [`Journal::tick`] has something to do, or [`Journal::health`] has changed; `None` while nothing waits.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let withdrawal = self.waiting.front().map(|entry| entry.since + self.limits.wait_max);
        let slow = self.writing.as_ref().and_then(|writing| {
            let open = writing.entries.iter().any(|entry| !entry.told_unknown);
            open.then_some(writing.since + self.limits.write_max)
        });
        let again = (self.writing.is_none() && !self.unsettled.is_empty()).then(|| {
            let left_alone = [self.away.as_ref().map(|away| away.until), self.again.map(|again| again.at)];
            left_alone.into_iter().flatten().max().unwrap_or(now)
        });
        let not_refusing = self.away.as_ref().map(|away| away.until).filter(|until| *until > now);
        [withdrawal, slow, again, not_refusing].into_iter().flatten().min()
    }

    /// The journal's actor failed in the middle of a write: its outcome is unknown.
    pub fn lost_write(&mut self, now: Instant) -> Vec<Action<R>> {
        self.wrote(Vec::new(), now)
    }

    /// For operators.
    pub fn health(&self, now: Instant) -> Health {
        let writing_unknown =
            self.writing.iter().flat_map(|writing| &writing.entries).filter(|e| e.told_unknown).count();
        Health {
            away: self.away.as_ref().map(|away| away.reason.clone()),
            refusing: self.away_for(now).is_some(),
            waiting: self.waiting.len(),
            unsettled: self.unsettled.len() + writing_unknown,
            groups: self.counts.groups,
            written: self.counts.written,
            conflicts: self.counts.conflicts,
            unknown: self.counts.unknown,
            settled: self.counts.settled,
        }
    }

    fn known(&mut self, commit: CommitId) -> Option<&mut Entry<R>> {
        let writing = self.writing.iter_mut().flat_map(|writing| &mut writing.entries);
        let waiting = self.waiting.iter_mut();
        writing.chain(&mut self.unsettled).chain(waiting).find(|entry| entry.commit.id() == commit)
    }

    fn away_for(&self, now: Instant) -> Option<Duration> {
        let away = self.away.as_ref()?;
        let slow_write = self.writing.as_ref().is_some_and(|w| now.duration_since(w.since) >= self.limits.write_max);
        let left = away.until.saturating_duration_since(now);
        (slow_write || !left.is_zero()).then(|| left.max(self.limits.away_first))
    }

    fn definite(&mut self, entry: Entry<R>, said: Said) -> Action<R> {
        self.counts.settled += u64::from(entry.told_unknown);
        match said {
            Said::Written => self.counts.written += 1,
            Said::Conflict => self.counts.conflicts += 1,
            Said::NotDone(_) | Said::Unknown => {}
        }
        Action::Tell(entry.tell, entry.commit.id(), said)
    }

    fn unsettle(&mut self, mut entry: Entry<R>) -> Option<Action<R>> {
        let told_before = std::mem::replace(&mut entry.told_unknown, true);
        self.counts.unknown += u64::from(!told_before);
        let tell = (!told_before).then(|| Action::Tell(entry.tell.clone(), entry.commit.id(), Said::Unknown));
        self.unsettled.push(entry);
        tell
    }

    /// Who is unsettled is left alone for a while after a failure. What failed may have been others, which does no harm.
    fn pace_unsettled(&mut self, failed: bool, now: Instant) {
        if self.unsettled.is_empty() {
            self.again = None;
        } else if failed {
            let failures = self.again.map_or(0, |again| again.failures);
            self.again = Some(Again { failures: failures.saturating_add(1), at: now + self.limits.pause(failures) });
        }
    }

    /// Leaves the store alone for a while, and answers at once everything that would wait for it.
    fn store_failed(&mut self, error: &StoreError, now: Instant) -> Vec<Action<R>> {
        let failures = self.away.as_ref().map_or(0, |away| away.failures);
        let pause = self.limits.pause(failures);
        self.away = Some(Away { failures: failures + 1, until: now + pause, reason: error.to_string() });
        let refuse =
            |entry: Entry<R>| Action::Tell(entry.tell, entry.commit.id(), Said::NotDone(Why::StoreAway(pause)));
        self.waiting.drain(..).map(refuse).collect()
    }

    fn write_next(&mut self, now: Instant) -> Option<Action<R>> {
        if self.writing.is_some() || self.away.as_ref().is_some_and(|away| now < away.until) {
            return None;
        }
        let mut group = Group::default();
        let mut entries = Vec::new();
        let mut left = Vec::new();
        let limits = &self.limits;
        let mut take = |entry: Entry<R>| {
            let full = group.len() >= limits.group_commits_max
                || (!group.is_empty() && group.bytes() + entry.commit.encoded().len() > limits.group_bytes_max);
            if full || group.push(Arc::clone(&entry.commit)).is_err() {
                return Some(entry);
            }
            entries.push(entry);
            None
        };
        if self.again.is_none_or(|again| now >= again.at) {
            for entry in std::mem::take(&mut self.unsettled) {
                left.extend(take(entry));
            }
        } else {
            left = std::mem::take(&mut self.unsettled);
        }
        while let Some(entry) = self.waiting.pop_front() {
            if let Some(entry) = take(entry) {
                self.waiting.push_front(entry);
                break;
            }
        }
        self.unsettled = left;
        if group.is_empty() {
            return None;
        }
        self.counts.groups += 1;
        self.writing = Some(Writing { entries, since: now });
        Some(Action::Write(group))
    }
}

#[cfg(test)]
mod tests;
