//! The inbox port: a subscriber's own store. Its documents, one inbox row an order, the effects it has to perform and
//! its position in the log are written together, in transactions that are conditional on every row they touch.
//!
//! It is the only truth about how far a subscriber has come with an order. What is not in it has not happened; nothing
//! here reads the order service's store.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::commit::{CommitKey, Origin};
use crate::event::EventId;
use crate::log::Position;
use crate::order::{OrderId, Version};
use crate::randomness;

/// Longest error text that is kept, in characters.
pub const ERROR_CHARS_MAX: usize = 2_000;
/// Attempts of which a row keeps what became of them: the first one and the last ones.
pub const ATTEMPTS_KEPT_MAX: usize = 10;
/// Largest [`Body`] of a document or an effect, in bytes. The same on every store, well below what the strictest of them
/// takes (MongoDB, 16 MiB with everything beside it), so that a subscriber can move from any to any.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// Where a subscriber keeps what it knows. Adapters: `sqlite/inbox.rs`,
/// `mongo/inbox.rs`.
///
/// After a crash the store is as some transaction left it: documents, rows, effects and position always belong
/// together. Whether the newest transactions survive a power failure is the adapter's to say; the log brings again what
/// they held, because the position is lost with them.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Begins a new term and says what is stored. Transactions of earlier terms are refused from now on, also those
    /// that are still under way.
    ///
    /// Where several processes share the store, a term comes with a lease: [`InboxError::Held`] while another process
    /// holds it. This process is never in its own way.
    async fn begin(&self) -> Result<Begun, InboxError>;

    /// Holds on to the term for as long as another lease, also when the last one is over and nobody else has begun a
    /// term. Every transaction that is written does the same.
    async fn renew(&self, term: Term) -> Result<Renewed, InboxError>;

    /// Says that the term has ended in order, with nothing under way ([`Begun::unclean`]), and gives up the lease, so
    /// that another process can begin at once. The term goes on to be the present one until then; whoever writes in it,
    /// or renews it, takes all of that back.
    async fn release(&self, term: Term) -> Result<(), InboxError>;

    /// What holds now, whoever is at work.
    async fn present(&self) -> Result<Present, InboxError>;

    /// What the rows add up to.
    async fn totals(&self, generation: Generation) -> Result<Totals, InboxError>;

    /// The rows of these orders. An order without a row is not in the answer ([`Row::new`]).
    async fn rows(&self, generation: Generation, orders: Vec<OrderId>) -> Result<Vec<Row>, InboxError>;

    /// At most `limit` rows whose lane for `work` is not ready and is to be tried again at `until` or earlier, those
    /// that have waited longest first.
    async fn due(
        &self,
        generation: Generation,
        work: Work,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError>;

    /// When the first lane for `work` is to be tried again that is not to be tried at `after` or earlier.
    async fn next_due(
        &self,
        generation: Generation,
        work: Work,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, InboxError>;

    /// At most `limit` rows behind `after` whose lane for `work` is in one of these states, in the order of their ids. What
    /// is in other states is not looked through, however much that is.
    async fn held(
        &self,
        generation: Generation,
        work: Work,
        states: &[HoldState],
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<Row>, InboxError>;

    /// The documents under these keys, in their order; `None` where there is none.
    async fn documents(&self, generation: Generation, keys: Vec<DocumentKey>) -> Result<Vec<Option<Body>>, InboxError>;

    /// Writes everything in the transaction or nothing. The rows are compared with what they were when read; where one
    /// differs, nothing is written and the answer names the orders.
    ///
    /// After [`InboxError::Unknown`] (and after the future was dropped) the transaction may be stored, may come to be
    /// stored later, or may be lost: committing the same one again gives a definite answer, as [`Committed::Written`],
    /// or as [`Committed::Fenced`] with rows that carry this transaction's id.
    async fn commit(&self, transaction: Arc<Transaction>) -> Result<Committed, InboxError>;

    /// At most `limit` orders behind `after` that have effects without an outcome, in the order of their ids, without
    /// those whose lane for performing is held.
    async fn waiting(&self, after: Option<OrderId>, limit: usize) -> Result<Vec<OrderId>, InboxError>;

    /// At most `limit` effects of each of these orders, in order for each.
    async fn effects(
        &self,
        orders: Vec<OrderId>,
        which: Which,
        limit: usize,
    ) -> Result<Vec<RecordedEffect>, InboxError>;

    /// What operators decided about an order's events and effects, in the order in which their transactions were made.
    async fn discards(&self, order: OrderId) -> Result<Vec<Discard>, InboxError>;

    /// Whether the subscriber is to rest. Kept over restarts; obeyed at [`Inbox::begin`] and by whoever is told.
    async fn set_paused(&self, paused: bool) -> Result<(), InboxError>;
}

/// Which of two things a lane does, each with its own state: handling events, and performing what they asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Handling events: [`Row::applying`].
    Applying,
    /// Performing effects: [`Row::performing`].
    Performing,
}

/// Which effects of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those without an outcome.
    Waiting,
}

/// Counts those who have worked on an inbox, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

/// Which edition of a subscriber's rows and documents: a rebuild makes the next one beside the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

/// Which transaction. Rows carry the id of the one that wrote them last, so that a writer recognises its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub Uuid);

impl TransactionId {
    /// A new one.
    pub fn generate() -> Self {
        Self(randomness::uuid_v7())
    }

    /// When it was made, by the clock of who made it; the beginning of 1970 for one that does not say.
    pub fn made_at(self) -> Timestamp {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |made_at| made_at.to_unix());
        let millis = seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000));
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

/// What [`Inbox::begin`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// The new term.
    pub term: Term,
    /// How long a lease lasts: the term is certainly this process's own for so long after it asked for what held the
    /// lease last, be it this call, a renewal or a transaction. `None` where no other process can begin one.
    pub lease: Option<Duration>,
    /// How long after the call the lease was held last: a call that takes long holds on to it meanwhile.
    pub held_after: Duration,
    /// What holds now.
    pub present: Present,
    /// Whether the last term did not end in order ([`Inbox::release`]): an event may have killed the process that
    /// handled it. False for a subscriber that has never begun.
    pub unclean: bool,
    /// How far the log was followed; `None` for a subscriber that has never begun.
    pub progress: Option<Progress>,
    /// What the rows add up to.
    pub totals: Totals,
}

/// What holds for a subscriber, whoever is at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The present generation.
    pub generation: Generation,
    /// Whether the subscriber is to rest.
    pub paused: bool,
    /// Counts the transactions of operators: another number means that rows were changed, and may be due.
    pub revision: u64,
}

/// What [`Inbox::renew`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It is the present term.
    Held {
        /// As [`Begun::lease`].
        lease: Option<Duration>,
        /// What holds now.
        present: Present,
    },
    /// Somebody began a later term.
    Superseded,
}

/// Sums over all rows of a generation, for the figures that operators see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events seen and not yet applied.
    pub behind: u64,
    /// Lanes whose applying is not ready, by their state.
    pub applying: LaneCounts,
    /// Lanes whose performing is not ready, by their state.
    pub performing: LaneCounts,
    /// Effects without an outcome.
    pub effects_waiting: u64,
}

/// How many lanes are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneCounts {
    /// [`HoldState::Attempting`].
    pub attempting: u64,
    /// [`HoldState::Retrying`].
    pub retrying: u64,
    /// [`HoldState::Gap`].
    pub gap: u64,
    /// [`HoldState::Dead`].
    pub dead: u64,
    /// [`HoldState::Undecodable`].
    pub undecodable: u64,
    /// [`HoldState::Conflicting`].
    pub conflicting: u64,
}

impl LaneCounts {
    /// All of them.
    pub fn all(&self) -> u64 {
        HoldState::ALL.into_iter().map(|state| self.of(state)).sum()
    }

    /// How many are in that state.
    pub fn of(&self, state: HoldState) -> u64 {
        match state {
            HoldState::Attempting => self.attempting,
            HoldState::Retrying => self.retrying,
            HoldState::Gap => self.gap,
            HoldState::Dead => self.dead,
            HoldState::Undecodable => self.undecodable,
            HoldState::Conflicting => self.conflicting,
        }
    }

    /// The figure of that state.
    pub fn of_mut(&mut self, state: HoldState) -> &mut u64 {
        match state {
            HoldState::Attempting => &mut self.attempting,
            HoldState::Retrying => &mut self.retrying,
            HoldState::Gap => &mut self.gap,
            HoldState::Dead => &mut self.dead,
            HoldState::Undecodable => &mut self.undecodable,
            HoldState::Conflicting => &mut self.conflicting,
        }
    }
}

/// How far a subscriber has followed the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Everything before this place is applied, or its row says that it is seen.
    pub position: Position,
    /// The scan that brings what was before the position when that was taken; `None` when all of it is seen.
    pub catching_up: Option<CatchingUp>,
}

/// A scan under way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CatchingUp {
    /// Everything up to this key is seen; `None`: nothing yet.
    pub after: Option<CommitKey>,
}

/// The whole truth about an order's lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The order.
    pub order: OrderId,
    /// The version of the last event that is in the documents.
    pub applied: Version,
    /// The id of that event: another event at that version means that somebody restored a backup.
    pub applied_event: Option<EventId>,
    /// The highest version that this subscriber knows to exist. Equal to `applied` when `applying` is ready.
    pub seen: Version,
    /// Every effect of the events up to this version has its outcome.
    pub performed: Version,
    /// Effects without an outcome.
    pub effects_waiting: u32,
    /// The lane's state for handling events.
    pub applying: Lane,
    /// The lane's state for performing effects.
    pub performing: Lane,
    /// The transaction that wrote the row last; `None` while it is not stored.
    pub written_by: Option<TransactionId>,
}

impl Row {
    /// The row of an order that this subscriber has not met.
    pub fn new(order: OrderId) -> Self {
        Self {
            order,
            applied: Version::NONE,
            applied_event: None,
            seen: Version::NONE,
            performed: Version::NONE,
            effects_waiting: 0,
            applying: Lane::Ready,
            performing: Lane::Ready,
            written_by: None,
        }
    }

    /// Events seen and not yet applied.
    pub fn behind(&self) -> u64 {
        u64::from(self.seen.0.saturating_sub(self.applied.0))
    }
}

/// Whether a lane takes the next thing as it comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Lane {
    /// It does.
    Ready,
    /// It does not: what comes only raises *seen* (or waits among the recorded effects), so that nothing overtakes.
    Held(Box<Hold>),
}

impl Lane {
    /// Whether it takes the next thing as it comes.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Ready => true,
            Self::Held(_) => false,
        }
    }

    /// Why it is held, when it is.
    pub fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Ready => None,
            Self::Held(hold) => Some(hold),
        }
    }
}

/// Why a lane is not ready, and what comes next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub state: HoldState,
    /// Since when it is not ready.
    pub since: Timestamp,
    /// How often the thing at its head was tried in vain, as far as it is to blame.
    pub attempts: u32,
    /// When it is tried again; `None`: not by itself.
    pub next_attempt_at: Option<Timestamp>,
    /// What is at its head, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadOfLane>,
    /// What became of the attempts at it, oldest first: at most [`ATTEMPTS_KEPT_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Attempt>,
}

impl Hold {
    /// A lane that is not ready from now on, at whose head nothing was tried so far.
    pub fn new(state: HoldState, since: Timestamp, next_attempt_at: Option<Timestamp>) -> Self {
        Self { state, since, attempts: 0, next_attempt_at, head: None, tried: Vec::new() }
    }

    /// How it failed last.
    pub fn failure(&self) -> Option<&Failure> {
        self.tried.last().map(|attempt| &attempt.failure)
    }

    /// Keeps what became of an attempt: the first one and the last ones stay.
    pub fn keep(&mut self, attempt: Attempt) {
        if self.tried.len() >= ATTEMPTS_KEPT_MAX {
            self.tried.remove(1);
        }
        self.tried.push(attempt);
    }
}

/// What a lane waits for: an event, or an effect that it asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadOfLane {
    /// The event's version.
    pub version: Version,
    /// The event.
    pub event: EventId,
    /// Its type, as it was stored.
    pub event_type: String,
    /// The place of the effect among those of that event; `None`: it is the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<u32>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it failed (or began, while the lane is [`HoldState::Attempting`]).
    pub at: Timestamp,
    /// How.
    pub failure: Failure,
}

/// Why a lane is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// An attempt at what is at its head was counted before it began, and nobody knows its end: whoever finds this after a
    /// crash knows what may have caused it.
    Attempting,
    /// What is at its head failed, and is tried again.
    Retrying,
    /// Something was seen beyond the next event: the log is asked for what is between.
    Gap,
    /// What is at its head failed too often: somebody must decide.
    Dead,
    /// What is at its head cannot be read by this docket: a newer one may.
    Undecodable,
    /// The log contradicts what was applied: somebody restored a backup of the event store.
    Conflicting,
}

impl HoldState {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Attempting, Self::Retrying, Self::Gap, Self::Dead, Self::Undecodable, Self::Conflicting];

    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attempting => "attempting",
            Self::Retrying => "retrying",
            Self::Gap => "gap",
            Self::Dead => "dead",
            Self::Undecodable => "undecodable",
            Self::Conflicting => "conflicting",
        }
    }

    /// The state with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// How a handler or an effect failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind of failure: decides what happens next.
    pub kind: FailureKind,
    /// For the operator: never shown to a REST caller. At most [`ERROR_CHARS_MAX`] characters.
    pub text: Cow<'static, str>,
    /// Where in the code it was made, or where the panic was: `FILE:LINE`. Failures of one kind from one place are a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Cow<'static, str>>,
}

/// What to expect of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It may succeed.
    Transient,
    /// It will fail as long as handler and event are what they are.
    Permanent,
    /// Nothing will succeed until something that all orders need is back: the subscriber waits and probes.
    DependencyDown,
}

impl FailureKind {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::DependencyDown => "dependency_down",
        }
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Transient, Self::Permanent, Self::DependencyDown].into_iter().find(|kind| kind.name() == name)
    }
}

impl Failure {
    /// Another attempt may succeed.
    #[track_caller]
    pub fn transient(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(FailureKind::Transient, text, place_of(Location::caller()))
    }

    /// Another attempt will fail as well.
    #[track_caller]
    pub fn permanent(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(FailureKind::Permanent, text, place_of(Location::caller()))
    }

    /// Something that every order needs is away.
    #[track_caller]
    pub fn dependency_down(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(FailureKind::DependencyDown, text, place_of(Location::caller()))
    }

    /// A handler or an effect panicked, there.
    pub fn panicked(text: &str, place: &str) -> Self {
        Self::of(FailureKind::Transient, format!("panic: {text} at {place}"), place.to_owned().into())
    }

    fn of(kind: FailureKind, text: impl Into<Cow<'static, str>>, place: Cow<'static, str>) -> Self {
        let text = text.into();
        let text = match text.char_indices().nth(ERROR_CHARS_MAX) {
            None => text,
            Some((end, _)) => Cow::Owned(text[..end].to_owned()),
        };
        Self { kind, text, place: Some(place) }
    }
}

fn place_of(location: &Location<'_>) -> Cow<'static, str> {
    format!("{}:{}", location.file(), location.line()).into()
}

/// Where a document is kept: a collection of the subscriber's own, and an id in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// Which collection: a permanent name.
    pub collection: Cow<'static, str>,
    /// Which document in it.
    pub id: String,
}

/// A document as stored: JSON.
pub type Body = Arc<str>;

/// What a transaction does with a document.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentWrite {
    /// Which document.
    pub key: DocumentKey,
    /// What it is afterwards; `None`: it is deleted.
    pub body: Option<Body>,
}

/// A row as it was read and as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct RowWrite {
    /// The transaction that had written the row when it was read: the fence. `None`: there must be none.
    pub was_written_by: Option<TransactionId>,
    /// The row as it shall be, `written_by` being this transaction.
    pub row: Row,
}

/// Everything a subscriber writes at once.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Which one.
    pub id: TransactionId,
    /// Refused as [`Committed::Superseded`] unless it is the present term. `None`: an operator's, of no term, that counts
    /// [`Present::revision`] on.
    pub term: Option<Term>,
    /// The generation that rows and documents belong to: refused likewise unless it is one that is being written.
    pub generation: Generation,
    /// The rows, each order at most once.
    pub rows: Vec<RowWrite>,
    /// The documents, each key at most once.
    pub documents: Vec<DocumentWrite>,
    /// Effects to be performed after it; one that is there already, with whatever outcome, is to be performed once more.
    pub effects: Vec<NewEffect>,
    /// Effects that were performed before it.
    pub outcomes: Vec<EffectOutcome>,
    /// What an operator decided.
    pub discards: Vec<Discard>,
    /// How far the log is followed afterwards; `None`: as before.
    pub progress: Option<Progress>,
}

impl Transaction {
    /// A new one in that term, with nothing to write.
    pub fn empty(begun: &Begun) -> Self {
        Self::new(Some(begun.term), begun.present.generation)
    }

    /// An operator's, with nothing to write.
    pub fn of_operator(present: &Present) -> Self {
        Self::new(None, present.generation)
    }

    fn new(term: Option<Term>, generation: Generation) -> Self {
        Self {
            id: TransactionId::generate(),
            term,
            generation,
            rows: Vec::new(),
            documents: Vec::new(),
            effects: Vec::new(),
            outcomes: Vec::new(),
            discards: Vec::new(),
            progress: None,
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.documents.is_empty()
            && self.effects.is_empty()
            && self.outcomes.is_empty()
            && self.discards.is_empty()
            && self.progress.is_none()
    }
}

/// A definite answer to [`Inbox::commit`].
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// Everything is stored.
    Written,
    /// Nothing was stored by this call: the rows of these orders are not as they were read.
    Fenced(Vec<OrderId>),
    /// Nothing was stored: somebody else began a later term, or the generation is not being written.
    Superseded,
}

/// Which effect, for ever: the same when it is performed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EffectId {
    /// The event that asked for it.
    pub event: EventId,
    /// Its place among the effects of that event, from 0.
    pub index: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event, self.index)
    }
}

/// Something to do in the outside world.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEffect {
    /// Which one.
    pub id: EffectId,
    /// Of which order.
    pub order: OrderId,
    /// The version of the event that asked for it.
    pub version: Version,
    /// Whether it is the last one of its event.
    pub last_of_event: bool,
    /// When that event was recorded.
    pub recorded_at: Timestamp,
    /// Who caused that event.
    pub origin: Origin,
    /// What to do: JSON of the subscriber's own.
    pub body: Body,
}

/// An effect as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEffect {
    /// What it is.
    pub effect: NewEffect,
    /// What became of it; `None` while it waits.
    pub outcome: Option<(Outcome, Timestamp)>,
}

/// What became of an effect, for a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectOutcome {
    /// Of which order.
    pub order: OrderId,
    /// Which one.
    pub id: EffectId,
    /// What became of it.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

/// The final answer to an effect. A failure is none: it is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which answer.
    pub kind: OutcomeKind,
    /// What an operator wants to know besides: under which id, or why.
    pub detail: String,
}

/// Which final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// It was done.
    Performed,
    /// There was nothing to do.
    Skipped,
    /// The other side said no, for good.
    Undeliverable,
    /// An operator decided that it is not done.
    Discarded,
}

impl OutcomeKind {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Performed => "performed",
            Self::Skipped => "skipped",
            Self::Undeliverable => "undeliverable",
            Self::Discarded => "discarded",
        }
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Performed, Self::Skipped, Self::Undeliverable, Self::Discarded]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// An operator's decision that an event is not handled, or an effect not performed: a fact of the subscriber, that
/// changes nothing of the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discard {
    /// Of which order.
    pub order: OrderId,
    /// The event's version.
    pub version: Version,
    /// The event; `None`: it was not in the log either.
    pub event: Option<EventId>,
    /// Its type, where that is known.
    pub event_type: Option<String>,
    /// The place of the effect among those of that event; `None`: it is the event.
    pub effect: Option<u32>,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who: the name of a key, or `anonymous`.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What the lane was when it was decided: its attempts, and how they failed.
    pub hold: Hold,
}

/// Why the inbox did not do something.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InboxError {
    /// Another process holds the lease. Nothing was written.
    #[error("it is active in {by}")]
    Held {
        /// Which process.
        by: String,
        /// When the lease ends if it is not renewed.
        ends_in: Duration,
    },
    /// It cannot be reached. Nothing was written.
    #[error("the subscriber's store is away: {0}")]
    Away(String),
    /// It has no room. Nothing was written.
    #[error("the subscriber's store is full: {0}")]
    Full(String),
    /// Nobody knows whether the transaction is stored: see [`Inbox::commit`].
    #[error("it is unknown whether the subscriber's store took a transaction: {0}")]
    Unknown(String),
    /// It holds something that it cannot have been given.
    #[error("the subscriber's store is damaged: {0}")]
    Damaged(String),
}
