//! Dead letters: what a subscriber's lanes hold and somebody must decide about, as operators see it and act on it.
//!
//! Works on what is stored, in any process that has the subscriber's store: also where it stands by, rests, or is
//! quarantined. Whoever is at work learns of a change by the store's revision, in this process at once. It never changes
//! an order, and never decides by itself.

mod dry_run;
mod retrying;
mod survey;
mod trial;
mod unreadable;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
pub use dry_run::{Change, DryRun, WouldApply};
pub use retrying::{PER_SECOND_MAX, RETRIES_MAX, Retried, RetryAll, SPREAD_MAX, Tried};
use sha2::{Digest, Sha256};
pub use survey::{Entry, Filter, GroupCount, Listed, Place, State};
pub use trial::Trial;
pub use unreadable::{SetAside, Unreadable};

use super::actor::present::Changed;
use super::batch::Handling;
use super::engine::may_end_processes;
use super::intervention::{self, InLog, Stream};
pub use super::intervention::{Decision, LetterId, NotALetterId, REASON_CHARS_MAX, Refused};
use crate::clock::{Clock, Timestamp};
use crate::event::{Envelope, EventId};
use crate::event_store::StoreError;
use crate::history::History;
use crate::inbox::{
    Committed, Discard, Failure, Hold, HoldState, Inbox, InboxError, Present, RecordedEffect, Row, RowWrite,
    Transaction, TransactionId, Which, Work,
};
use crate::order::{OrderId, Version};

/// Things behind a letter that are named with it; how many there are besides is a number.
pub const BEHIND_SHOWN_MAX: usize = 50;
/// How often a change is tried again that somebody was faster than.
const ATTEMPTS_MAX: u32 = 10;
/// How often a transaction is given to the store whose outcome it does not know.
const COMMITS_MAX: u32 = 5;
const COMMIT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// More effects of an order do not wait: beyond `effects_max` its events do.
const EFFECTS_READ_MAX: usize = 100_000;
/// Bytes of effects behind a letter that are read to name them: those of a few large ones are enough.
const BEHIND_BYTES_MAX: usize = 1 << 20;
/// How many more of them are read at once.
const BEHIND_READ: usize = 10;
/// Commits of an order that are asked for at once.
const COMMITS_READ: usize = 64;

/// The dead letters of one subscriber. Cheap to clone.
#[derive(Clone)]
pub struct Letters {
    name: &'static str,
    inbox: Arc<dyn Inbox>,
    history: Arc<dyn History>,
    clock: Arc<dyn Clock>,
    handling: Handling,
    told: Recipient<Changed>,
}

/// Something that is held: an event, or an effect that it asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// By which subscriber.
    pub subscriber: &'static str,
    /// What it is.
    pub id: LetterId,
    /// The event, where it is known.
    pub event: Option<EventId>,
    /// Its type as it was stored, where it is known.
    pub event_type: Option<String>,
    /// Why it is held, and what comes next.
    pub hold: Hold,
    /// How many of the order's events (or effects) wait behind it.
    pub waiting_behind: u64,
}

/// A letter with everything that is known of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The letter.
    pub letter: Letter,
    /// The event as it is stored, or what keeps us from seeing it. `None`: the log has none at that version.
    pub event: Result<Option<Arc<Envelope>>, StoreError>,
    /// What waits behind it, in order, at most [`BEHIND_SHOWN_MAX`] of it.
    pub behind: Vec<Behind>,
    /// For an effect: what is to be done.
    pub effect: Option<RecordedEffect>,
}

/// Something that waits behind a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The event's version.
    pub version: Version,
    /// The event.
    pub event: EventId,
    /// Its type, where it is known.
    pub event_type: Option<String>,
    /// The place of the effect among those of that event; `None`: it is the event.
    pub effect: Option<u32>,
}

/// What failures have in common: their kind, and the place in the code where they were made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

/// The text is no group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group has twelve hexadecimal digits")]
pub struct NotAGroup;

/// Why something was not done, or not found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LetterError {
    /// Nothing of the kind is there to be acted on.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The subscriber has never met that order.
    #[error("nothing is known of order {0}")]
    Unknown(OrderId),
    /// Its store did not do it.
    #[error(transparent)]
    Store(#[from] InboxError),
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// Others were faster, again and again. Nothing was done.
    #[error("others were faster, again and again")]
    Contended,
    /// There are not as many as was said. Nothing was done.
    #[error("there are {present}")]
    CountDiffers {
        /// How many there are.
        present: u64,
    },
    /// So much is held that it was not looked through in time. Nothing was done.
    #[error("so much is held that it was not looked through in time")]
    TooManyHeld,
    /// There are more than are retried at once, or than the rate gets through in time. Nothing was done.
    #[error("that is too many at once: at most {most}")]
    TooMany {
        /// How many it can be.
        most: u64,
    },
}

/// Whether a transaction is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// Somebody was faster.
    No,
}

/// Tells the actor when it is dropped.
pub(super) struct Telling<'a>(&'a Recipient<Changed>);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        // A sender of its own has a place in the mailbox, whatever waits there, and nobody need wait until the message is
        // handled. An actor that is down reads the store when it begins.
        drop(self.0.clone().try_send(Changed));
    }
}

/// A row with what is at the head of one of its lanes.
struct Found {
    present: Present,
    row: Row,
    letter: Letter,
    /// For an effect: the first that waits.
    effect: Option<RecordedEffect>,
}

impl Group {
    /// The one that a failure belongs to.
    pub fn of(failure: &Failure) -> Self {
        Self::hashed(failure.kind.name(), failure.place.as_deref().unwrap_or_default())
    }

    fn hashed(kind: &str, place: &str) -> Self {
        let digest = Sha256::digest(format!("{kind}\n{place}"));
        Self(digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Group {
    type Err = NotAGroup;

    fn from_str(text: &str) -> Result<Self, NotAGroup> {
        let right = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        right.then(|| Self(text.to_owned())).ok_or(NotAGroup)
    }
}

impl Letter {
    /// What is at the head of the row's lane for `work`; `None` while that is ready. `first` is the order's first effect
    /// that waits.
    fn of(subscriber: &'static str, row: &Row, work: Work, first: Option<&RecordedEffect>) -> Option<Self> {
        let hold = work.lane(row).hold()?.clone();
        let first = first.map(|first| &first.effect);
        let id = LetterId::of(row, work).or_else(|| first.map(LetterId::of_effect))?;
        let head = intervention::head_at(&hold, id);
        let of_effect = first.filter(|first| LetterId::of_effect(first) == id).map(|first| first.id.event);
        let event = head.map(|head| head.event).or(of_effect);
        let event_type = head.and_then(intervention::known_type);
        let waiting_behind = match work {
            Work::Applying => u64::from(row.seen.0.saturating_sub(id.version.0)),
            Work::Performing => u64::from(row.effects_waiting.saturating_sub(1)),
        };
        Some(Self { subscriber, id, event, event_type, hold, waiting_behind })
    }

    /// How it failed last.
    pub fn failure(&self) -> Option<&Failure> {
        self.hold.failure()
    }

    /// What it has in common with others; `None` while nothing has failed.
    pub fn group(&self) -> Option<Group> {
        self.failure().map(Group::of)
    }

    /// When it was tried last.
    pub fn last_attempt_at(&self) -> Option<Timestamp> {
        self.hold.tried.last().map(|attempt| attempt.at)
    }

    /// Whether there is an event in the log that it is about. At a gap there is none, or another.
    fn is_of_event_in_log(&self) -> bool {
        match self.hold.state {
            HoldState::Attempting | HoldState::Retrying | HoldState::Dead | HoldState::Undecodable => true,
            HoldState::Gap | HoldState::Conflicting => false,
        }
    }

    /// Whether an attempt at it ended the process, or may have: then the handler does not run for it only to see.
    pub fn may_end_processes(&self) -> bool {
        may_end_processes(&self.hold)
    }

    /// Whether it may be tried again: not while an attempt is under way. It can be discarded all the same.
    pub fn is_at_rest(&self) -> bool {
        self.hold.state != HoldState::Attempting
    }
}

impl Letters {
    /// Those of the subscriber that `handling` is about; `told` is its actor.
    pub(super) fn new(
        name: &'static str,
        history: Arc<dyn History>,
        clock: Arc<dyn Clock>,
        handling: Handling,
        told: Recipient<Changed>,
    ) -> Self {
        Self { name, inbox: Arc::clone(&handling.inbox), history, clock, handling, told }
    }

    /// The subscriber.
    pub fn subscriber(&self) -> &'static str {
        self.name
    }

    /// The time, by which decisions are kept.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A letter with everything that is known of it. That the log does not answer does not keep it from being shown.
    ///
    /// # Errors
    /// When that is not held, or the store did not answer.
    pub async fn show(&self, id: LetterId) -> Result<Shown, LetterError> {
        let found = self.find(id).await?;
        let stream = self.read(id.order, id.version, BEHIND_SHOWN_MAX + 1).await;
        let events = stream.as_deref().unwrap_or_default();
        let behind: Vec<_> = match id.work() {
            Work::Applying => {
                let behind = events.iter().filter(|event| event.version > id.version).take(BEHIND_SHOWN_MAX);
                behind.map(|event| Behind::of_event(event)).collect()
            }
            Work::Performing => {
                let waiting = self.waiting_behind(id.order).await?;
                waiting.iter().skip(1).map(|effect| Behind::of_effect(effect, events)).collect()
            }
        };
        let at_version = |events: Vec<Arc<Envelope>>| events.into_iter().find(|event| event.version == id.version);
        let event = stream.map(at_version);
        let mut letter = found.letter;
        if let Ok(Some(event)) = &event {
            letter.event.get_or_insert(event.id);
            letter.event_type.get_or_insert_with(|| event.event_type.clone());
        }
        letter.waiting_behind = letter.waiting_behind.max(behind.len() as u64);
        Ok(Shown { letter, event, behind, effect: found.effect })
    }

    /// Lets it be tried again now, with all its attempts. What waits behind it follows by itself when it succeeds.
    ///
    /// # Errors
    /// When that is not held. After [`InboxError::Unknown`] it may be done.
    pub async fn retry(&self, id: LetterId) -> Result<Letter, LetterError> {
        let at = self.clock.now();
        let mut letter = None;
        self.change(id, async |found, transaction| {
            let row = intervention::retry(&found.row, id, at)?;
            letter = Letter::of(self.name, &row, id.work(), found.effect.as_ref());
            transaction.rows.push(write(transaction.id, &found.row, row));
            Ok(())
        })
        .await?;
        tracing::info!(subscriber = self.name, letter = %id, "an operator lets it be tried again");
        letter.ok_or(LetterError::Refused(Refused::NotHeld(id)))
    }

    /// Lets it go: the event counts as handled, or the effect as done with, and what waits behind it goes on. The decision
    /// is kept.
    ///
    /// # Errors
    /// When that is not held; when the log did not answer, for an event. After [`InboxError::Unknown`] it may be done.
    pub async fn discard(&self, id: LetterId, decision: &Decision) -> Result<Discard, LetterError> {
        let mut discarded = None;
        self.change(id, async |found, transaction| {
            let (row, discard) = match &found.effect {
                Some(effect) => {
                    let (row, outcome, discard) =
                        intervention::discard_effect(&found.row, &effect.effect, decision.clone())?;
                    transaction.outcomes.push(outcome);
                    (row, discard)
                }
                None => {
                    let stream = self.stream(id).await?;
                    let waiting = match found.letter.hold.state {
                        // All of them: what is not in the log any more is not performed either.
                        HoldState::Conflicting => {
                            self.inbox.effects(vec![id.order], Which::Waiting, EFFECTS_READ_MAX).await?
                        }
                        HoldState::Attempting
                        | HoldState::Retrying
                        | HoldState::Gap
                        | HoldState::Dead
                        | HoldState::Undecodable => Vec::new(),
                    };
                    let (row, outcomes, discard) =
                        intervention::discard_event(&found.row, id, &stream, &waiting, decision.clone())?;
                    transaction.outcomes.extend(outcomes);
                    (row, discard)
                }
            };
            transaction.rows.push(write(transaction.id, &found.row, row));
            transaction.discards.push(discard.clone());
            discarded = Some(discard);
            Ok(())
        })
        .await?;
        let Decision { by, reason, .. } = decision;
        tracing::warn!(subscriber = self.name, letter = %id, by, reason, "an operator has discarded it");
        discarded.ok_or(LetterError::Refused(Refused::NotHeld(id)))
    }

    /// What is held under that id.
    async fn find(&self, id: LetterId) -> Result<Found, LetterError> {
        let present = self.inbox.present().await?;
        let rows = self.inbox.rows(present.generation, vec![id.order]).await?;
        let row = rows.into_iter().next().ok_or(LetterError::Unknown(id.order))?;
        let effect = match id.work() {
            Work::Performing if !row.performing.is_ready() => self.first_effect(id.order).await?,
            Work::Performing | Work::Applying => None,
        };
        let row = match &effect {
            Some(first) => intervention::held_for(row, &first.effect),
            None => row,
        };
        let letter = Letter::of(self.name, &row, id.work(), effect.as_ref()).ok_or(Refused::NotHeld(id))?;
        if letter.id != id {
            return Err(Refused::AnotherHeld(id, letter.id).into());
        }
        // What is at the head of the lane is the first one that waits; anything else is about to change.
        let is_it = |effect: &RecordedEffect| LetterId::of_effect(&effect.effect) == id;
        if id.work() == Work::Performing && !effect.as_ref().is_some_and(is_it) {
            return Err(Refused::NotHeld(id).into());
        }
        Ok(Found { present, row, letter, effect })
    }

    /// The order's first effects that wait: as many as are shown behind a letter, or fewer where they are large.
    async fn waiting_behind(&self, order: OrderId) -> Result<Vec<RecordedEffect>, InboxError> {
        let mut limit = 1 + BEHIND_READ;
        loop {
            let waiting = self.inbox.effects(vec![order], Which::Waiting, limit).await?;
            let bytes: usize = waiting.iter().map(|effect| effect.effect.body.len()).sum();
            if waiting.len() < limit || limit > BEHIND_SHOWN_MAX || bytes > BEHIND_BYTES_MAX {
                return Ok(waiting);
            }
            limit += BEHIND_READ;
        }
    }

    async fn first_effect(&self, order: OrderId) -> Result<Option<RecordedEffect>, InboxError> {
        Ok(self.inbox.effects(vec![order], Which::Waiting, 1).await?.into_iter().next())
    }

    /// Writes what `change` makes of what is held under that id, unless that changes meanwhile.
    async fn change(
        &self,
        id: LetterId,
        mut change: impl AsyncFnMut(&Found, &mut Transaction) -> Result<(), LetterError>,
    ) -> Result<(), LetterError> {
        let _telling = self.telling();
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find(id).await?;
            let mut transaction = Transaction::of_operator(&found.present);
            change(&found, &mut transaction).await?;
            if self.commit(transaction).await? == Written::Yes {
                return Ok(());
            }
        }
        Err(LetterError::Contended)
    }

    /// Commits it, unless somebody was faster.
    ///
    /// # Errors
    /// [`InboxError::Unknown`] when it may be written; after any other error it certainly is not.
    async fn commit(&self, transaction: Transaction) -> Result<Written, InboxError> {
        let transaction = Arc::new(transaction);
        let mut unknown = None;
        for nth in 0..COMMITS_MAX {
            if nth > 0 {
                tokio::time::sleep(COMMIT_AGAIN_AFTER).await;
            }
            match (self.inbox.commit(Arc::clone(&transaction)).await, unknown.take()) {
                (Ok(Committed::Written), _) => return Ok(Written::Yes),
                // Superseded: another generation is the present one.
                (Ok(Committed::Fenced(_) | Committed::Superseded), None) => return Ok(Written::No),
                (Ok(Committed::Fenced(_) | Committed::Superseded), Some(unknown)) => {
                    return self.was_written(&transaction).await.ok_or(unknown);
                }
                (Err(error @ InboxError::Unknown(_)), _) => unknown = Some(error),
                // This time it certainly was not, but before it may have been.
                (Err(_), Some(before)) => unknown = Some(before),
                (Err(error), None) => return Err(error),
            }
        }
        Err(unknown.unwrap_or_else(|| InboxError::Unknown("it was not asked".to_owned())))
    }

    /// Whether a transaction of unknown outcome that is refused now was stored before. `None`: nobody knows.
    async fn was_written(&self, transaction: &Transaction) -> Option<Written> {
        let orders = transaction.rows.iter().map(|write| write.row.order).collect();
        let rows = self.inbox.rows(transaction.generation, orders).await.ok()?;
        if rows.iter().any(|row| row.written_by == Some(transaction.id)) {
            return Some(Written::Yes);
        }
        // Somebody has written the row since, or instead. A decision stays where it is.
        let decided = transaction.discards.first()?;
        let kept = self.inbox.discards(decided.order).await.ok()?;
        Some(if kept.contains(decided) { Written::Yes } else { Written::No })
    }

    /// Tells the actor of this process to look at its store, at the end of whatever begins now: also when that has failed or
    /// was given up, for it may be done all the same. In other processes it is seen.
    pub(super) fn telling(&self) -> Telling<'_> {
        Telling(&self.told)
    }

    /// The order's events from the commit on that holds a version (or its last one): more than `count` behind that
    /// version, or all there are.
    async fn read(&self, order: OrderId, from: Version, count: usize) -> Result<Vec<Arc<Envelope>>, StoreError> {
        let mut events: Vec<Arc<Envelope>> = Vec::new();
        loop {
            let last = events.last().map(|event| event.version);
            let next = last.map_or(from, Version::next);
            let commits = self.history.read(order, next, COMMITS_READ).await?;
            let read = commits.iter().flat_map(|commit| commit.envelopes()).map(Arc::new);
            let read: Vec<_> = read.filter(|event| last.is_none_or(|last| event.version > last)).collect();
            if read.is_empty() {
                return Ok(events);
            }
            events.extend(read);
            if events.iter().filter(|event| event.version > from).count() >= count {
                return Ok(events);
            }
        }
    }

    async fn stream(&self, id: LetterId) -> Result<Stream, StoreError> {
        let events = self.read(id.order, id.version, usize::MAX).await?;
        let nearest = events.iter().rfind(|event| event.version <= id.version).map(|event| InLog {
            version: event.version,
            event: event.id,
            event_type: event.event_type.clone(),
        });
        Ok(Stream { nearest, end: events.last().map_or(Version::NONE, |event| event.version) })
    }
}

fn write(transaction: TransactionId, before: &Row, after: Row) -> RowWrite {
    RowWrite { was_written_by: before.written_by, row: Row { written_by: Some(transaction), ..after } }
}

impl Behind {
    fn of_event(event: &Envelope) -> Self {
        let (version, event, event_type) = (event.version, event.id, Some(event.event_type.clone()));
        Self { version, event, event_type, effect: None }
    }

    fn of_effect(RecordedEffect { effect, .. }: &RecordedEffect, events: &[Arc<Envelope>]) -> Self {
        let asked = events.iter().find(|event| event.id == effect.id.event);
        Self {
            version: effect.version,
            event: effect.id.event,
            event_type: asked.map(|event| event.event_type.clone()),
            effect: Some(effect.id.index),
        }
    }
}
