//! The subscriber engine: which event is handled when, what is written with it, and what comes after a failure. A state
//! machine, `(input, now) → actions`: it does nothing itself and never waits.
//!
//! One transaction is in flight at a time; what arrives meanwhile goes into the next one. Every decision about an order
//! is made from its row, and every row that is written is fenced by what it was, so a stale row costs a reload and
//! nothing else. Dropping an engine between any two actions loses nothing: a new one goes on from what is stored.

mod aside;
mod careful;
mod committing;
mod completeness;
mod cycle;
mod decided;
mod dependency;
mod effects;
mod failing;
mod lanes;
mod queue;
mod rows;
mod saying;
mod scan;
mod timing;
mod totals;
mod verdict;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustc_hash::{FxHashMap, FxHashSet};

use aside::Asides;
use completeness::{Completeness, Passed};
use cycle::{Candidates, Counts, Cycle, LaneRead, Settled};
use dependency::Dependency;
use effects::Effects;
use failing::Rules;
use lanes::Reading;
use queue::{Mark, Queue, Source};
use rows::Rows;
use scan::Scan;
use timing::{Due, Gate};
use totals::HeldSince;

use super::settings::Settings;
use super::status::{SubscriberState, SubscriberStatus};
use crate::clock::Timestamp;
use crate::commit::Commit;
use crate::event::{Envelope, EventId};
use crate::event_store::StoreError;
use crate::history::Head;
use crate::inbox::{
    Begun, Body, Committed, DocumentWrite, Failure, InboxError, Outcome, Present, Progress, RecordedEffect, Row,
    Totals, Transaction, Work,
};
use crate::log::Position;
use crate::mutant::Mutant;
use crate::order::{OrderId, Version};

pub use aside::{HandledAside, Run};
pub use effects::LOADED_PER_ORDER as EFFECTS_PER_ORDER_MAX;
pub(crate) use failing::may_end_processes;
pub use queue::{Receipt, Session};

/// Places in the log that heads have passed are stored that often when nothing else is written.
const POSITION_EVERY: Duration = Duration::from_millis(500);
/// Totals are counted anew no more often than that, however much operators do.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The log was opened at its end, at that place, because there was no position or it meant nothing any more: a scan
    /// of everything follows.
    Opened(Position),
    /// The log brought these commits, or none; the position is the one behind them.
    Delivered(Vec<Arc<Commit>>, Position),
    /// The broker brought these events, in its order, which means nothing; the receipt stands for them and for all that
    /// came before them in its session.
    Received(Vec<Arc<Envelope>>, Receipt),
    /// The log, of which only heads are read, brought these, or none; the position is the one behind them.
    Heads(Vec<Head>, Position),
    /// The broker had nothing more to bring.
    QueueSeenEmpty,
    /// The queue at the broker is consumed from now on; or it cannot be, because the broker is away or the queue is not as
    /// it must be.
    QueueConsumed(bool),
    /// The scan brought these commits.
    Scanned(Vec<Arc<Commit>>),
    /// The scan has met everything.
    ScanEnded,
    /// The answer to [`Action::Load`].
    Loaded(Result<Vec<Row>, InboxError>),
    /// The answer to [`Action::Handle`]; an error when the documents could not be read at all.
    Handled(Result<Handled, Failure>),
    /// The answer to [`Action::HandleAside`], for an event of that order; an error when the documents could not be read at
    /// all.
    HandledAside(Run, OrderId, Result<HandledAside, Failure>),
    /// The answer to [`Action::Commit`].
    Committed(Result<Committed, InboxError>),
    /// The answer to [`Action::LoadDue`]: the rows, and when the next lane is due (now, when there were as many as the
    /// limit).
    Due(Work, Result<(Vec<Row>, Option<Timestamp>), InboxError>),
    /// The answer to [`Action::ReadHistory`].
    History(OrderId, Result<Vec<Arc<Commit>>, StoreError>),
    /// The answer to [`Action::LoadWaiting`].
    Waiting(Result<Vec<OrderId>, InboxError>, usize),
    /// The answer to [`Action::LoadEffects`].
    EffectsLoaded(Result<Vec<RecordedEffect>, InboxError>),
    /// The answer to [`Action::Perform`].
    Performed(Performed),
    /// What holds in the store now: whether to rest, and whether operators have changed rows.
    Present(Present),
    /// The store holds the term on: it answers.
    Renewed,
    /// The answer to [`Action::CountTotals`].
    Totals(Result<Totals, InboxError>),
    /// The answer to [`Action::LookUpHeads`].
    HeadsLookedUp(Result<Vec<Row>, InboxError>),
    /// The process ends: what is under way is finished, and nothing else begun.
    Leave,
    /// Time has passed.
    Tick,
}

/// Something to do. Every action but [`Action::Acknowledge`], [`Action::GiveUpAside`], [`Action::WakeAt`] and
/// [`Action::End`] has one answer.
#[derive(Debug)]
pub enum Action {
    /// Read the rows of these orders.
    Load(Vec<OrderId>),
    /// Let the subscriber handle these events.
    Handle(Batch),
    /// Let the subscriber handle this event by itself, beside everything else, with all the time that it may take.
    HandleAside(Run, Arc<Envelope>),
    /// Nobody wants to know what becomes of it: it may be ended.
    GiveUpAside(Run),
    /// Write this.
    Commit(Arc<Transaction>),
    /// Read the rows of lanes that are to be tried again.
    LoadDue {
        /// At what.
        work: Work,
        /// At that time or earlier.
        until: Timestamp,
        /// At most so many.
        limit: usize,
    },
    /// Read an order's commits.
    ReadHistory {
        /// Which order.
        order: OrderId,
        /// From the commit that holds this version.
        from: Version,
        /// At most so many commits.
        limit: usize,
    },
    /// Find orders with effects to perform.
    LoadWaiting {
        /// Behind this order.
        after: Option<OrderId>,
        /// At most so many.
        limit: usize,
    },
    /// Read the first waiting effects of these orders, at most [`EFFECTS_PER_ORDER_MAX`] of each.
    LoadEffects(Vec<OrderId>),
    /// Perform this effect.
    Perform(Box<RecordedEffect>),
    /// Count anew what all rows add up to: nothing is written meanwhile.
    CountTotals,
    /// Read the rows of these orders, of which only is asked how far they are seen.
    LookUpHeads(Vec<OrderId>),
    /// Tell the broker that it need not bring these deliveries again: each is handled, or its row says that it is seen, and
    /// that is stored.
    Acknowledge(Receipt),
    /// Give [`Input::Tick`] at that time. Replaces an earlier one.
    WakeAt(Timestamp),
    /// Somebody else began a later term: everything of this engine's is to be dropped.
    End,
}

/// Events to be handled for one transaction.
#[derive(Debug)]
pub struct Batch {
    /// The events, in order, each on an overlay of what is stored and what those before it changed.
    pub events: Vec<Arc<Envelope>>,
    /// Those that may take as long as a handler may: the others are left out when their patience is over.
    pub unhurried: FxHashSet<EventId>,
    /// What events that were handled aside have changed: as if they came first in the batch.
    pub written_first: Vec<DocumentWrite>,
}

/// What handlers made of a batch.
#[derive(Debug)]
pub struct Handled {
    /// One result an event, in order. Fewer than events: the limits of a transaction were reached.
    pub results: Vec<EventResult>,
    /// What changed, all of it by events whose result is [`EventResult::Applied`], or written first.
    pub documents: Vec<DocumentWrite>,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum EventResult {
    /// It was handled.
    Applied {
        /// What it asks for.
        effects: Vec<Body>,
    },
    /// Nobody here knows its type: it only moves its lane on.
    Passed,
    /// Its handler was not done within its patience, or that of an earlier event of its order: nothing is known of it.
    Slow,
    /// Its handler failed, or an earlier event of its order did.
    Failed(Failure),
    /// It cannot be read by this docket.
    Undecodable(Failure),
}

/// What became of one attempt to perform an effect.
#[derive(Clone, Debug)]
pub struct Performed {
    /// The effect.
    pub effect: RecordedEffect,
    /// Its final answer, or why there is none.
    pub result: Result<Outcome, Failure>,
    /// When.
    pub at: Timestamp,
}

/// What is being done with the present cycle.
#[derive(Debug)]
enum Phase {
    Idle,
    /// Rows are being read.
    Loading,
    /// Events are being handled.
    Handling {
        candidates: Vec<Arc<Envelope>>,
    },
    /// The transaction is under way.
    Committing(Box<Commitment>),
    /// The transaction was fenced: perhaps by itself, after an unknown outcome. Its rows are being read.
    Recognising(Box<Commitment>),
    /// The store is away: the transaction is committed again, or the rows are read again.
    WaitingForStore(Option<Box<Commitment>>),
    /// Totals are counted, with nothing under way.
    Counting,
    /// A later term has begun.
    Ended,
}

#[derive(Debug)]
struct Commitment {
    transaction: Arc<Transaction>,
    then: Then,
}

/// What follows a transaction that is stored.
#[derive(Debug)]
enum Then {
    /// The cycle is through.
    Finish(Box<Settled>),
    /// The attempt that it has counted begins.
    Attempt(Arc<Envelope>),
}

/// The engine of one subscriber. See the module.
#[derive(Debug)]
pub struct Engine {
    name: &'static str,
    settings: Settings,
    begun: Begun,
    rng: StdRng,
    queue: Queue,
    scan: Scan,
    completeness: Completeness,
    /// When the place that heads have passed is stored although nothing else is written.
    position_due: Option<Timestamp>,
    lanes: VecDeque<LaneRead>,
    lanes_busy: FxHashMap<OrderId, Reading>,
    outcomes: Vec<Performed>,
    nothing_to_perform: Vec<OrderId>,
    effects: Effects,
    asides: Asides,
    rows: Rows,
    phase: Phase,
    cycle: Cycle,
    fences_in_a_row: u32,
    due_applying: Due,
    due_performing: Due,
    store: Gate,
    history: Gate,
    dependency: Dependency,
    performing: Dependency,
    paused: bool,
    leaving: bool,
    /// Events that still run one at a time.
    careful_events: usize,
    /// The event whose attempt was counted last, until that ends.
    attempt_open: Option<EventId>,
    progress: Option<Progress>,
    totals: Totals,
    /// What operators have changed is not counted in the totals: they are to be counted anew then.
    count_due: Option<Timestamp>,
    counted_at: Timestamp,
    held_since: HeldSince,
    counts: Counts,
    fenced: u64,
    trouble: Option<String>,
}

impl Engine {
    /// An engine that goes on from what [`crate::inbox::Inbox::begin`] found. `seed` only spreads waits.
    pub fn new(name: &'static str, settings: Settings, begun: Begun, seed: u64) -> Self {
        let unclean = begun.unclean;
        let mut engine = Self {
            name,
            scan: Scan::resumed(begun.progress.as_ref()),
            rows: Rows::new(settings.rows_cached_max),
            effects: Effects::new(settings.effects_loaded_max, settings.effects_at_once_max),
            asides: Asides::new(settings.lanes_at_once_max),
            settings,
            rng: StdRng::seed_from_u64(seed),
            queue: Queue::default(),
            completeness: Completeness::default(),
            position_due: None,
            lanes: VecDeque::new(),
            lanes_busy: FxHashMap::default(),
            outcomes: Vec::new(),
            nothing_to_perform: Vec::new(),
            phase: Phase::Idle,
            cycle: Cycle::default(),
            fences_in_a_row: 0,
            due_applying: Due::at_once(),
            due_performing: Due::at_once(),
            store: Gate::default(),
            history: Gate::default(),
            dependency: Dependency::new("handling events"),
            performing: Dependency::new("performing effects"),
            paused: begun.present.paused,
            leaving: false,
            careful_events: 0,
            attempt_open: None,
            progress: begun.progress.clone(),
            totals: begun.totals,
            count_due: None,
            counted_at: Timestamp::EPOCH,
            held_since: HeldSince::default(),
            counts: Counts::default(),
            fenced: 0,
            trouble: None,
            begun,
        };
        if unclean {
            engine.be_careful();
        }
        engine
    }

    /// Whether the log may be read further, or scanned further. When not, the commits that were read are kept until it is.
    pub fn wants_commits(&self) -> bool {
        self.queue.events_of_log() < self.settings.queue_events_max && !self.leaving
    }

    /// Whether heads of the log may be read further.
    pub fn wants_heads(&self) -> bool {
        self.completeness.has_room(self.queue.heads()) && !self.leaving
    }

    /// Whether the broker may bring more. It has room of its own: neither it nor a scan waits for the other.
    pub fn wants_messages(&self) -> bool {
        self.queue.events_of_broker() < self.settings.queue_events_max && !self.leaving
    }

    /// Whether nothing is under way any more, after [`Input::Leave`]: effects have their outcome, and those are stored,
    /// or the store is away.
    pub fn has_left(&self) -> bool {
        let at_rest = match self.phase {
            Phase::Idle => self.outcomes.is_empty() && !self.effects.is_performing(),
            Phase::WaitingForStore(_) | Phase::Ended => true,
            Phase::Loading
            | Phase::Handling { .. }
            | Phase::Committing(_)
            | Phase::Recognising(_)
            | Phase::Counting => false,
        };
        self.leaving && at_rest
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(self.phase, Phase::Ended) {
            return actions;
        }
        self.take(input, now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// The figures.
    pub fn status(&self) -> SubscriberStatus {
        let waits = (self.queue.events() + self.cycle.queued_events()) as u64;
        let waits_since = self.cycle.waits_since().or_else(|| self.queue.waits_since());
        let status = SubscriberStatus {
            state: self.state(),
            position: self.progress.as_ref().map(|progress| progress.position.clone()),
            waits_since: waits_since.into_iter().chain(self.held_since.oldest()).min(),
            applied: self.counts.applied,
            duplicates: self.counts.duplicates,
            gaps: self.counts.gaps,
            missed: self.counts.missed,
            retries: self.counts.retries,
            fenced: self.fenced,
            conflicts: self.counts.conflicts,
            trouble: self.trouble(),
            ..SubscriberStatus::starting(self.name)
        };
        status.with_totals(&Totals { behind: self.totals.behind + waits, ..self.totals })
    }

    fn trouble(&self) -> Option<String> {
        let dependencies = [&self.dependency, &self.performing].into_iter().find_map(Dependency::trouble);
        self.trouble.clone().or_else(|| dependencies.map(str::to_owned))
    }

    fn state(&self) -> SubscriberState {
        // What the broker brings is handled without it.
        let log_away = self.history.is_shut() && !self.completeness.is_consumed();
        let catching_up = self.progress.as_ref().is_none_or(|progress| progress.catching_up.is_some());
        if matches!(self.phase, Phase::Ended) {
            SubscriberState::Stopped
        } else if self.paused {
            SubscriberState::Paused
        } else if self.store.is_shut() || log_away {
            SubscriberState::StoreAway
        } else if self.dependency.is_down() || self.performing.is_down() {
            SubscriberState::DependencyDown
        } else if catching_up {
            SubscriberState::CatchingUp
        } else {
            SubscriberState::Running
        }
    }

    fn take(&mut self, input: Input, now: Timestamp, actions: &mut Vec<Action>) {
        match input {
            Input::Opened(position) => {
                self.completeness.forget();
                self.scan = Scan::default();
                self.queue.mark(Mark::Opened(position));
            }
            Input::Delivered(commits, position) => {
                self.queue.push_commits(&commits, Source::Log);
                self.queue.mark_followed(position);
            }
            Input::Received(events, receipt) => {
                if self.settings.mutant == Some(Mutant::AcknowledgesEarly) {
                    actions.push(Action::Acknowledge(receipt));
                }
                self.received(events, receipt, now);
            }
            Input::Heads(heads, position) => self.completeness.hold(heads, position, now),
            Input::QueueSeenEmpty => self.completeness.seen_empty(now),
            Input::QueueConsumed(consumed) => self.completeness.consumed(consumed, now),
            Input::Scanned(commits) => self.scan.brought(&commits, &mut self.queue),
            Input::ScanEnded => self.scan.ended(&mut self.queue),
            Input::Loaded(rows) => self.loaded(rows, now, actions),
            Input::Handled(handled) => self.handled(handled, now, actions),
            Input::HandledAside(run, order, handled) => self.handled_aside(run, order, handled, now),
            Input::Committed(answer) => self.answered(answer, now, actions),
            Input::Due(work, answer) => self.due(work, answer, now, actions),
            Input::History(order, answer) => self.history(order, answer, now, actions),
            Input::Waiting(answer, limit) => match answer {
                Ok(orders) => {
                    self.store_answers();
                    self.effects.listed(&orders, limit);
                }
                Err(error) => {
                    self.effects.not_listed();
                    self.store_away(&error, now);
                }
            },
            Input::EffectsLoaded(answer) => match answer {
                Ok(effects) => {
                    self.store_answers();
                    self.effects.loaded(effects);
                }
                Err(error) => {
                    self.effects.not_loaded();
                    self.store_away(&error, now);
                }
            },
            Input::Performed(performed) => {
                self.effects.performed(performed.effect.effect.order);
                self.outcomes.push(performed);
            }
            Input::Present(present) => self.present(present, now, actions),
            Input::Renewed => self.store_answers(),
            Input::Totals(answer) => self.counted(answer, now),
            Input::HeadsLookedUp(answer) => match answer {
                Ok(rows) => {
                    self.store_answers();
                    self.completeness.looked_up(&rows);
                }
                Err(error) => {
                    self.completeness.looked_up(&[]);
                    self.store_away(&error, now);
                }
            },
            Input::Leave => self.leaving = true,
            Input::Tick => {}
        }
    }

    fn received(&mut self, events: Vec<Arc<Envelope>>, receipt: Receipt, now: Timestamp) {
        let newest = events.iter().map(|event| event.recorded_at).max();
        self.completeness.received(events.len(), newest, now);
        self.queue.push_received(events, receipt);
    }

    fn present(&mut self, present: Present, now: Timestamp, actions: &mut Vec<Action>) {
        if present.generation != self.begun.present.generation {
            self.phase = Phase::Ended;
            return actions.push(Action::End);
        }
        self.paused = present.paused;
        if present.revision != self.begun.present.revision {
            self.begun.present.revision = present.revision;
            self.look_again(now);
        }
    }

    /// Somebody else has written rows: lanes may be due, and effects be waiting, of which nobody here knows.
    fn look_again(&mut self, now: Timestamp) {
        self.due_applying.add(now);
        self.due_performing.add(now);
        self.effects.ask_again();
        self.count_due = Some(now.max(self.counted_at.after(COUNT_EVERY)));
    }

    fn count_totals(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let due = self.count_due.is_some_and(|due| due <= now);
        if due && matches!(self.phase, Phase::Idle) && self.store.admits(now) && !self.leaving {
            self.count_due = None;
            self.counted_at = now;
            self.phase = Phase::Counting;
            actions.push(Action::CountTotals);
        }
    }

    fn counted(&mut self, answer: Result<Totals, InboxError>, now: Timestamp) {
        if !matches!(self.phase, Phase::Counting) {
            return;
        }
        self.phase = Phase::Idle;
        match answer {
            Ok(totals) => {
                self.store_answers();
                self.totals = totals;
            }
            Err(error) => {
                self.count_due = Some(now);
                self.store_away(&error, now);
            }
        }
    }

    /// Heads that are held back no longer go behind what came before them.
    fn let_heads_pass(&mut self, now: Timestamp) {
        let rows = &self.rows;
        let is_seen = |head: &Head| rows.get(head.order).is_some_and(|row| row.seen >= head.last);
        while let Some(passed) = self.completeness.pass(now, is_seen) {
            match passed {
                Passed::Head(head) => self.queue.push_head(head),
                Passed::Position(position) => {
                    self.queue.mark_followed(position);
                    self.position_due.get_or_insert(now.after(POSITION_EVERY));
                }
            }
        }
    }

    /// A head that is held back although its row may say that it is seen: the row is only not in memory.
    fn look_heads_up(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle) || !self.store.admits(now) || self.leaving {
            return;
        }
        let rows = &self.rows;
        let orders = self.completeness.look_up(now, |order| rows.get(order).is_some());
        if !orders.is_empty() {
            actions.push(Action::LookUpHeads(orders));
        }
    }

    /// Begins whatever can be begun.
    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Phase::WaitingForStore(_) = self.phase
            && self.store.admits(now)
        {
            self.again(now, actions);
        }
        self.let_heads_pass(now);
        self.count_totals(now, actions);
        while matches!(self.phase, Phase::Idle) && self.store.admits(now) && self.has_work(now) {
            self.begin_cycle(now, actions);
        }
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.look_heads_up(now, actions);
        self.go_on_aside(now, actions);
        self.ask_for_lanes(now, actions);
        self.go_on_with_effects(now, actions);
        if let Some(at) = self.wake(now) {
            actions.push(Action::WakeAt(at));
        }
    }

    // One transaction after another.

    fn has_work(&self, now: Timestamp) -> bool {
        if self.leaving {
            return !self.outcomes.is_empty();
        }
        let position_waits = self.queue.is_lone_position() && self.position_due.is_some_and(|due| now < due);
        let queue_rests = self.queue.is_empty() || position_waits;
        let nothing_ended = self.outcomes.is_empty() && !self.asides.has_ended();
        !(queue_rests && self.lanes.is_empty() && nothing_ended && self.nothing_to_perform.is_empty())
    }

    fn begin_cycle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.cycle = Cycle {
            asides: self.take_asides(),
            lanes: if self.leaving { VecDeque::new() } else { self.take_lanes(now) },
            outcomes: std::mem::take(&mut self.outcomes),
            nothing_to_perform: self.take_nothing_to_perform(),
            unclean: self.begun.unclean,
            resting: self.is_resting(),
            probing: self.may_probe(now),
            applying: self.dependency.evidence(),
            performing: self.performing.evidence(),
            ..Cycle::default()
        };
        if !self.leaving {
            self.cycle.items = self.queue.take(self.room_for_items());
            self.position_due = None;
        }
        self.load_rows(now, actions);
    }

    /// Lanes take half of a batch, and the last of them may go beyond it: not at the cost of what comes.
    fn room_for_items(&self) -> usize {
        if self.is_careful() {
            return usize::from(self.cycle.lanes.is_empty());
        }
        let share = (self.settings.batch_events_max / 2).max(1);
        self.settings.batch_events_max.saturating_sub(self.cycle.events()).max(share)
    }

    fn take_lanes(&mut self, now: Timestamp) -> VecDeque<LaneRead> {
        let mut events = 0;
        let mut lanes = VecDeque::new();
        if self.paused {
            // They stay due in the store.
            for lane in std::mem::take(&mut self.lanes) {
                self.lanes_busy.remove(&lane.order);
            }
            self.due_applying.add(now);
            return lanes;
        }
        let most = if self.is_careful() { 1 } else { (self.settings.batch_events_max / 2).max(1) };
        while events < most
            && let Some(lane) = self.lanes.pop_front()
        {
            events += lane.events.len().max(1);
            lanes.push_back(lane);
        }
        lanes
    }

    fn load_rows(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut missing = Vec::new();
        for order in self.cycle.orders() {
            if self.cycle.rows.contains_key(&order) {
                continue;
            }
            match self.rows.get(order) {
                Some(row) => drop(self.cycle.rows.insert(order, row.clone())),
                None => missing.push(order),
            }
        }
        if missing.is_empty() {
            self.handle(now, actions);
        } else {
            self.phase = Phase::Loading;
            actions.push(Action::Load(missing));
        }
    }

    fn loaded(&mut self, rows: Result<Vec<Row>, InboxError>, now: Timestamp, actions: &mut Vec<Action>) {
        match (std::mem::replace(&mut self.phase, Phase::Idle), rows) {
            (Phase::Loading, Ok(rows)) => {
                self.store_answers();
                self.take_rows(rows);
                self.handle(now, actions);
            }
            (Phase::Loading, Err(error)) => {
                self.store_away(&error, now);
                self.phase = Phase::WaitingForStore(None);
            }
            (Phase::Recognising(commitment), Ok(rows)) => {
                self.store_answers();
                self.recognise(*commitment, rows, now, actions);
            }
            (Phase::Recognising(commitment), Err(error)) => {
                self.store_away(&error, now);
                self.phase = Phase::WaitingForStore(Some(commitment));
            }
            (
                phase @ (Phase::Idle
                | Phase::Handling { .. }
                | Phase::Committing(_)
                | Phase::WaitingForStore(_)
                | Phase::Counting
                | Phase::Ended),
                _,
            ) => self.phase = phase,
        }
    }

    fn take_rows(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.effects.met(&row);
            self.rows.put(row.clone());
            self.cycle.rows.insert(row.order, row);
        }
        for order in self.cycle.orders() {
            self.cycle.rows.entry(order).or_insert_with(|| Row::new(order));
        }
    }

    fn handle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.sift_asides(now);
        self.sift_outcomes(now);
        self.go_on_with_open_attempt();
        let rules = Rules { now, settings: &self.settings, rng: &mut self.rng };
        let asides = self.asides.view(self.careful_events > 0);
        let Candidates { mut events, unhurried, asides } = self.cycle.candidates(rules, asides);
        self.drop_asides_unless(&asides, now);
        if self.is_careful() {
            events.truncate(1);
        }
        let written_first = self.cycle.written_aside();
        let first_is_counted = events.first().is_some_and(|event| self.cycle.attempting == Some(event.id));
        match events.first() {
            None => self.commit(Vec::new(), Handled { results: Vec::new(), documents: written_first }, now, actions),
            Some(event) if self.is_careful() && !first_is_counted => {
                let event = event.clone();
                self.count_attempt(&event, now, actions);
            }
            Some(_) => {
                actions.push(Action::Handle(Batch { events: events.clone(), unhurried, written_first }));
                self.phase = Phase::Handling { candidates: events };
            }
        }
    }

    fn handled(&mut self, handled: Result<Handled, Failure>, now: Timestamp, actions: &mut Vec<Action>) {
        match (std::mem::replace(&mut self.phase, Phase::Idle), handled) {
            (Phase::Handling { candidates }, Ok(handled)) => self.commit(candidates, handled, now, actions),
            (Phase::Handling { .. }, Err(failure)) => {
                self.trouble = Some(failure.text.into_owned());
                self.store.shut(now, &self.settings.backoff, &mut self.rng);
                self.phase = Phase::WaitingForStore(None);
            }
            (
                phase @ (Phase::Idle
                | Phase::Loading
                | Phase::Committing(_)
                | Phase::Recognising(_)
                | Phase::WaitingForStore(_)
                | Phase::Counting
                | Phase::Ended),
                _,
            ) => self.phase = phase,
        }
    }

    // Time.

    fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        let gates = [&self.store, &self.history].into_iter().filter_map(|gate| gate.wake(now));
        let dependencies = [&self.dependency, &self.performing].into_iter().filter_map(|one| one.wake(now));
        let lanes = self.due_applying.wake().filter(|_| !self.paused);
        let effects = self.due_performing.wake().filter(|_| !self.paused);
        let heads = [self.completeness.wake(), self.completeness.looked_up_next()].into_iter().flatten();
        // What is due and not asked for waits for a gate or for room, and either comes with an input of its own.
        let effects = effects.into_iter().chain(self.effects.wake(now));
        let due = lanes.into_iter().chain(effects).chain(heads).chain(self.position_due).chain(self.count_due);
        gates.chain(dependencies).chain(due.filter(|at| *at > now)).min()
    }
}
