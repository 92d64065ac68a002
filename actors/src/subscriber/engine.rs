//! The subscriber engine: which event is handled when, what is written with it, and what comes after a failure. A state
//! machine, `(input, now) → actions`: it does nothing itself and never waits.
//!
//! One transaction is in flight at a time; what arrives meanwhile goes into the next one. Every decision about an order
//! is made from its row, and every row that is written is fenced by what it was, so a stale row costs a reload and
//! nothing else. Dropping an engine between any two actions loses nothing: a new one goes on from what is stored.

mod cycle;
mod effects;
mod rows;
mod timing;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use cycle::{Counts, Cycle, Item, LaneRead, Rules, Settled};
use effects::Effects;
use rows::Rows;
use timing::{Due, Gate};

use super::settings::Settings;
use super::status::{SubscriberState, SubscriberStatus};
use crate::clock::Timestamp;
use crate::commit::{Commit, CommitKey};
use crate::event::Envelope;
use crate::event_store::StoreError;
use crate::inbox::{
    Begun, Body, CatchingUp, Committed, DocumentWrite, Failure, InboxError, Lane, Outcome, Progress, RecordedEffect,
    Row, RowWrite, Totals, Transaction, TransactionId, Work,
};
use crate::log::Position;
use crate::order::{OrderId, Version};

pub use effects::LOADED_PER_ORDER as EFFECTS_PER_ORDER_MAX;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The log was opened at its end, at that place, because there was no position or it meant nothing any more: a scan
    /// of everything follows.
    Opened(Position),
    /// The log brought these commits, or none; the position is the one behind them.
    Delivered(Vec<Arc<Commit>>, Position),
    /// The scan brought these commits.
    Scanned(Vec<Arc<Commit>>),
    /// The scan has met everything.
    ScanEnded,
    /// The answer to [`Action::Load`].
    Loaded(Result<Vec<Row>, InboxError>),
    /// The answer to [`Action::Handle`]; an error when the documents could not be read at all.
    Handled(Result<Handled, Failure>),
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
    /// Somebody told the subscriber to rest, or to go on.
    Pause(bool),
    /// The store holds the term on: it answers. What it says of rest, unless that is older than the last word.
    Renewed(Option<bool>),
    /// The process ends: what is under way is finished, and nothing else begun.
    Leave,
    /// Time has passed.
    Tick,
}

/// Something to do. Every action but [`Action::WakeAt`] and [`Action::End`] has one answer.
#[derive(Debug)]
pub enum Action {
    /// Read the rows of these orders.
    Load(Vec<OrderId>),
    /// Let the subscriber handle these events, in order, on an overlay of the stored documents.
    Handle(Vec<Arc<Envelope>>),
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
    /// Give [`Input::Tick`] at that time. Replaces an earlier one.
    WakeAt(Timestamp),
    /// Somebody else began a later term: everything of this engine's is to be dropped.
    End,
}

/// What handlers made of a batch.
#[derive(Debug)]
pub struct Handled {
    /// One result an event, in order. Fewer than events: the limits of a transaction were reached.
    pub results: Vec<EventResult>,
    /// What changed, all of it by events whose result is [`EventResult::Applied`].
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

/// A place in the queue that is worth storing once everything in front of it is.
#[derive(Clone, Debug)]
enum Mark {
    Opened(Position),
    Followed(Position),
    Scanned(CommitKey),
    ScanEnded,
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
    /// A later term has begun.
    Ended,
}

#[derive(Debug)]
struct Commitment {
    transaction: Arc<Transaction>,
    settled: Settled,
}

/// The engine of one subscriber. See the module.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    begun: Begun,
    rng: StdRng,
    queue: VecDeque<Item>,
    queued_events: usize,
    lanes: VecDeque<LaneRead>,
    lanes_busy: HashSet<OrderId>,
    outcomes: Vec<Performed>,
    effects: Effects,
    rows: Rows,
    phase: Phase,
    cycle: Cycle,
    fences_in_a_row: u32,
    due_applying: Due,
    due_performing: Due,
    store: Gate,
    history: Gate,
    dependency: Gate,
    performing: Gate,
    paused: bool,
    leaving: bool,
    progress: Option<Progress>,
    totals: Totals,
    counts: Counts,
    fenced: u64,
    trouble: Option<String>,
}

impl Engine {
    /// An engine that goes on from what [`crate::inbox::Inbox::begin`] found. `seed` only spreads waits.
    pub fn new(settings: Settings, begun: Begun, seed: u64) -> Self {
        Self {
            rows: Rows::new(settings.rows_cached_max),
            effects: Effects::new(settings.effects_loaded_max, settings.effects_at_once_max),
            settings,
            rng: StdRng::seed_from_u64(seed),
            queue: VecDeque::new(),
            queued_events: 0,
            lanes: VecDeque::new(),
            lanes_busy: HashSet::new(),
            outcomes: Vec::new(),
            phase: Phase::Idle,
            cycle: Cycle::default(),
            fences_in_a_row: 0,
            due_applying: Due::at_once(),
            due_performing: Due::at_once(),
            store: Gate::default(),
            history: Gate::default(),
            dependency: Gate::default(),
            performing: Gate::default(),
            paused: begun.paused,
            leaving: false,
            progress: begun.progress.clone(),
            totals: begun.totals,
            counts: Counts::default(),
            fenced: 0,
            trouble: None,
            begun,
        }
    }

    /// Whether the log may be read further. When not, the commits that were read are kept until it is.
    pub fn wants_deliveries(&self) -> bool {
        self.queued_events < self.settings.queue_events_max && !self.leaving
    }

    /// Whether nothing is under way any more, after [`Input::Leave`]: effects have their outcome, and those are stored,
    /// or the store is away.
    pub fn has_left(&self) -> bool {
        let at_rest = match self.phase {
            Phase::Idle => self.outcomes.is_empty() && !self.effects.is_performing(),
            Phase::WaitingForStore(_) | Phase::Ended => true,
            Phase::Loading | Phase::Handling { .. } | Phase::Committing(_) | Phase::Recognising(_) => false,
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

    /// The figures, but for the name.
    pub fn status(&self, name: &'static str) -> SubscriberStatus {
        SubscriberStatus {
            name,
            state: self.state(),
            active_in: None,
            position: self.progress.as_ref().map(|progress| progress.position.clone()),
            behind: Some(self.totals.behind + (self.queued_events + self.cycle.queued_events()) as u64),
            lanes_held: Some(self.totals.lanes_held),
            effects_waiting: Some(self.totals.effects_waiting),
            applied: self.counts.applied,
            duplicates: self.counts.duplicates,
            gaps: self.counts.gaps,
            retries: self.counts.retries,
            fenced: self.fenced,
            conflicts: self.counts.conflicts,
            trouble: self.trouble.clone(),
        }
    }

    fn state(&self) -> SubscriberState {
        let catching_up = self.progress.as_ref().is_none_or(|progress| progress.catching_up.is_some());
        if matches!(self.phase, Phase::Ended) {
            SubscriberState::Stopped
        } else if self.paused {
            SubscriberState::Paused
        } else if self.store.is_shut() || self.history.is_shut() {
            SubscriberState::StoreAway
        } else if self.dependency.is_shut() || self.performing.is_shut() {
            SubscriberState::DependencyDown
        } else if catching_up {
            SubscriberState::CatchingUp
        } else {
            SubscriberState::Running
        }
    }

    fn take(&mut self, input: Input, now: Timestamp, actions: &mut Vec<Action>) {
        match input {
            Input::Opened(position) => self.queue.push_back(Item::Mark(Mark::Opened(position))),
            Input::Delivered(commits, position) => self.delivered(&commits, position),
            Input::Scanned(commits) => {
                self.enqueue(&commits, true);
                if let Some(last) = commits.last() {
                    self.queue.push_back(Item::Mark(Mark::Scanned(last.key())));
                }
            }
            Input::ScanEnded => self.queue.push_back(Item::Mark(Mark::ScanEnded)),
            Input::Loaded(rows) => self.loaded(rows, now, actions),
            Input::Handled(handled) => self.handled(handled, now, actions),
            Input::Committed(answer) => self.answered(answer, now, actions),
            Input::Due(work, answer) => self.due(work, answer, now, actions),
            Input::History(order, answer) => self.history(order, answer, now),
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
                self.effects.performed();
                self.outcomes.push(performed);
            }
            Input::Pause(paused) => self.paused = paused,
            Input::Renewed(paused) => {
                self.store_answers();
                self.paused = paused.unwrap_or(self.paused);
            }
            Input::Leave => self.leaving = true,
            Input::Tick => {}
        }
    }

    /// Of positions with nothing between them only the last is kept: there may be many while the store is away.
    fn delivered(&mut self, commits: &[Arc<Commit>], position: Position) {
        self.enqueue(commits, false);
        if let Some(Item::Mark(Mark::Followed(last))) = self.queue.back_mut() {
            *last = position;
        } else {
            self.queue.push_back(Item::Mark(Mark::Followed(position)));
        }
    }

    fn enqueue(&mut self, commits: &[Arc<Commit>], scanned: bool) {
        for envelope in commits.iter().flat_map(|commit| commit.envelopes()) {
            self.queued_events += 1;
            self.queue.push_back(Item::Event { envelope: Arc::new(envelope), scanned });
        }
    }

    /// Begins whatever can be begun.
    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Phase::WaitingForStore(_) = self.phase
            && self.store.admits(now)
        {
            self.again(now, actions);
        }
        while matches!(self.phase, Phase::Idle) && self.store.admits(now) && self.has_work() {
            self.begin_cycle(now, actions);
        }
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.ask_for_lanes(now, actions);
        self.go_on_with_effects(now, actions);
        if let Some(at) = self.wake(now) {
            actions.push(Action::WakeAt(at));
        }
    }

    // One transaction after another.

    fn has_work(&self) -> bool {
        if self.leaving {
            return !self.outcomes.is_empty();
        }
        !(self.queue.is_empty() && self.lanes.is_empty() && self.outcomes.is_empty())
    }

    fn begin_cycle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.cycle = Cycle {
            lanes: if self.leaving { VecDeque::new() } else { self.take_lanes(now) },
            outcomes: std::mem::take(&mut self.outcomes),
            resting: self.is_resting(),
            ..Cycle::default()
        };
        if self.leaving {
            return self.load_rows(now, actions);
        }
        // Lanes take half of a batch, and the last of them may go beyond it: not at the cost of what comes.
        let share = (self.settings.batch_events_max / 2).max(1);
        self.cycle.items =
            self.take_items(self.settings.batch_events_max.saturating_sub(self.cycle.events()).max(share));
        self.load_rows(now, actions);
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
        while events < self.settings.batch_events_max / 2
            && let Some(lane) = self.lanes.pop_front()
        {
            events += lane.events.len();
            lanes.push_back(lane);
        }
        lanes
    }

    fn take_items(&mut self, events_max: usize) -> VecDeque<Item> {
        let mut events = 0;
        let mut items = VecDeque::new();
        while let Some(item) = self.queue.front() {
            if let Item::Event { .. } = item {
                if events == events_max {
                    break;
                }
                events += 1;
            }
            items.extend(self.queue.pop_front());
        }
        self.queued_events -= events;
        items
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
                | Phase::Ended),
                _,
            ) => self.phase = phase,
        }
    }

    fn take_rows(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.rows.put(row.clone());
            self.cycle.rows.insert(row.order, row);
        }
        for order in self.cycle.orders() {
            self.cycle.rows.entry(order).or_insert_with(|| Row::new(order));
        }
    }

    fn handle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let candidates = self.cycle.candidates(Rules {
            now,
            backoff: &self.settings.backoff,
            effects_max: self.settings.effects_max,
            rng: &mut self.rng,
        });
        if candidates.is_empty() {
            return self.commit(Vec::new(), Handled { results: Vec::new(), documents: Vec::new() }, now, actions);
        }
        actions.push(Action::Handle(candidates.clone()));
        self.phase = Phase::Handling { candidates };
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
                | Phase::Ended),
                _,
            ) => self.phase = phase,
        }
    }

    fn commit(&mut self, candidates: Vec<Arc<Envelope>>, handled: Handled, now: Timestamp, actions: &mut Vec<Action>) {
        let results = candidates.iter().map(|event| event.id).zip(handled.results).collect();
        let rules =
            Rules { now, backoff: &self.settings.backoff, effects_max: self.settings.effects_max, rng: &mut self.rng };
        let mut settled = self.cycle.settle(rules, results);
        let transaction = self.transaction(&mut settled, handled.documents);
        let commitment = Box::new(Commitment { transaction, settled });
        if commitment.transaction.is_empty() {
            return self.finish(*commitment, now);
        }
        actions.push(Action::Commit(commitment.transaction.clone()));
        self.phase = Phase::Committing(commitment);
    }

    fn transaction(&self, settled: &mut Settled, documents: Vec<DocumentWrite>) -> Arc<Transaction> {
        let id = TransactionId::generate();
        let mut rows = Vec::new();
        for row in settled.rows.values_mut() {
            let before = self.cycle.rows.get(&row.order);
            if before.is_some_and(|before| before == row) {
                continue;
            }
            let was_written_by = row.written_by.replace(id);
            rows.push(RowWrite { was_written_by, row: row.clone() });
        }
        Arc::new(Transaction {
            id,
            term: self.begun.term,
            generation: self.begun.generation,
            rows,
            documents,
            effects: std::mem::take(&mut settled.effects),
            outcomes: std::mem::take(&mut settled.outcomes),
            progress: self.progress_after(&settled.marks),
        })
    }

    /// The last place in the queue that everything before it has passed.
    fn progress_after(&self, marks: &[Mark]) -> Option<Progress> {
        let mut progress = self.progress.clone();
        for mark in marks {
            match (mark, &mut progress) {
                (Mark::Opened(position), _) => {
                    let position = position.clone();
                    progress = Some(Progress { position, catching_up: Some(CatchingUp::default()) });
                }
                (Mark::Followed(position), Some(progress)) => progress.position = position.clone(),
                (Mark::Scanned(key), Some(progress)) => {
                    progress.catching_up = Some(CatchingUp { after: Some(*key) });
                }
                (Mark::ScanEnded, Some(progress)) => progress.catching_up = None,
                (Mark::Followed(_) | Mark::Scanned(_) | Mark::ScanEnded, None) => {}
            }
        }
        progress.filter(|progress| self.progress.as_ref() != Some(progress))
    }

    fn answered(&mut self, answer: Result<Committed, InboxError>, now: Timestamp, actions: &mut Vec<Action>) {
        let commitment = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Committing(commitment) => commitment,
            phase @ (Phase::Idle
            | Phase::Loading
            | Phase::Handling { .. }
            | Phase::Recognising(_)
            | Phase::WaitingForStore(_)
            | Phase::Ended) => {
                self.phase = phase;
                return;
            }
        };
        match answer {
            Ok(Committed::Written) => {
                self.store_answers();
                self.finish(*commitment, now);
            }
            Ok(Committed::Fenced(orders)) => {
                tracing::info!(
                    orders = orders.len(),
                    "rows were written by somebody else, or by this very transaction"
                );
                let orders = commitment.transaction.rows.iter().map(|write| write.row.order).collect();
                actions.push(Action::Load(orders));
                self.phase = Phase::Recognising(commitment);
            }
            Ok(Committed::Superseded) => {
                self.phase = Phase::Ended;
                actions.push(Action::End);
            }
            Err(error) => {
                self.store_away(&error, now);
                self.phase = Phase::WaitingForStore(Some(commitment));
            }
        }
    }

    /// Rows that carry the transaction's id were written by it: its outcome was unknown and is known now. Otherwise they
    /// are another's, and the cycle is gone through again from what is stored.
    fn recognise(&mut self, commitment: Commitment, rows: Vec<Row>, now: Timestamp, actions: &mut Vec<Action>) {
        let ours = rows.iter().filter(|row| row.written_by == Some(commitment.transaction.id)).count();
        if ours == commitment.transaction.rows.len() {
            return self.finish(commitment, now);
        }
        self.fenced += 1;
        self.fences_in_a_row = self.fences_in_a_row.saturating_add(1);
        let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.order, row)).collect();
        for write in &commitment.transaction.rows {
            rows.entry(write.row.order).or_insert_with(|| Row::new(write.row.order));
        }
        self.forget_changed_outcomes(&rows);
        for row in rows.into_values() {
            self.row_written(&row);
            // The transaction may have been stored before somebody else wrote the row, with effects that nobody here
            // knows of.
            if row.effects_waiting > 0 && row.performing.is_ready() {
                self.effects.add(row.order);
            }
            self.will_be_due(&row, now);
            self.cycle.rows.insert(row.order, row);
        }
        if self.fences_in_a_row > 1 {
            self.store.shut(now, &self.settings.backoff, &mut self.rng);
            self.phase = Phase::WaitingForStore(None);
        } else {
            self.load_rows(now, actions);
        }
    }

    /// Somebody else wrote the row: perhaps the outcome, too. What still waits is performed again, under the same id.
    fn forget_changed_outcomes(&mut self, rows: &HashMap<OrderId, Row>) {
        for row in rows.values() {
            let changed = self.cycle.rows.get(&row.order).is_some_and(|before| before.written_by != row.written_by);
            let outcomes = self.cycle.outcomes.len();
            self.cycle.outcomes.retain(|performed| !changed || performed.effect.effect.order != row.order);
            if self.cycle.outcomes.len() < outcomes {
                self.effects.drop_order(row.order);
                self.effects.add(row.order);
            }
        }
    }

    /// The transaction is stored.
    fn finish(&mut self, commitment: Commitment, now: Timestamp) {
        let Commitment { transaction, settled } = commitment;
        self.fences_in_a_row = 0;
        if let Some(progress) = &transaction.progress {
            self.progress = Some(progress.clone());
        }
        self.count(&settled.counts);
        self.judge_dependencies(&settled, now);
        for write in &transaction.rows {
            self.row_written(&write.row);
        }
        for row in settled.rows.values() {
            self.will_be_due(row, now);
        }
        for effect in &transaction.effects {
            if settled.rows.get(&effect.order).is_some_and(|row| row.performing.is_ready()) {
                self.effects.add(effect.order);
            }
        }
        self.performed_stored(&settled);
        for order in &settled.lanes_tried {
            self.lanes_busy.remove(order);
        }
        self.put_back(settled);
        self.cycle = Cycle::default();
        self.phase = Phase::Idle;
        let away = [&self.store, &self.history, &self.dependency, &self.performing];
        if !away.into_iter().any(Gate::is_shut) {
            self.trouble = None;
        }
    }

    fn row_written(&mut self, row: &Row) {
        let new = Row::new(row.order);
        let before = self.cycle.rows.get(&row.order).unwrap_or(&new);
        let totals = &mut self.totals;
        totals.behind = (totals.behind + row.behind()).saturating_sub(before.behind());
        totals.lanes_held = (totals.lanes_held + u64::from(!row.applying.is_ready()))
            .saturating_sub(u64::from(!before.applying.is_ready()));
        totals.effects_waiting =
            (totals.effects_waiting + u64::from(row.effects_waiting)).saturating_sub(u64::from(before.effects_waiting));
        self.rows.put(row.clone());
    }

    /// Also for a row that is as it was: its lane may have been tried in vain.
    fn will_be_due(&mut self, row: &Row, now: Timestamp) {
        let next = |lane: &Lane| lane.hold().and_then(|hold| hold.next_attempt_at);
        if let Some(at) = next(&row.applying) {
            self.due_applying.add(at.max(now));
        }
        if let Some(at) = next(&row.performing) {
            self.due_performing.add(at.max(now));
        }
    }

    fn performed_stored(&mut self, settled: &Settled) {
        for order in &settled.performed {
            let Some(row) = settled.rows.get(order) else { continue };
            if !row.performing.is_ready() {
                self.effects.drop_order(*order);
            } else if !self.effects.stored(*order) && row.effects_waiting > 0 {
                self.effects.add(*order);
            }
        }
    }

    fn put_back(&mut self, settled: Settled) {
        for lane in settled.lanes_left.into_iter().rev() {
            self.lanes.push_front(lane);
        }
        for item in settled.items_left.into_iter().rev() {
            self.queued_events += usize::from(matches!(item, Item::Event { .. }));
            self.queue.push_front(item);
        }
    }

    fn judge_dependencies(&mut self, settled: &Settled, now: Timestamp) {
        if let Some(failure) = &settled.dependency_down {
            self.trouble = Some(failure.text.clone().into_owned());
            self.dependency.shut(now, &self.settings.backoff, &mut self.rng);
        } else if settled.handled || (!settled.lanes_tried.is_empty() && !self.paused) {
            self.dependency.clear();
        }
        if let Some(failure) = &settled.performing_down {
            self.trouble = Some(failure.text.clone().into_owned());
            self.performing.shut(now, &self.settings.backoff, &mut self.rng);
        } else if !settled.performed.is_empty() {
            self.performing.clear();
        }
    }

    fn count(&mut self, counts: &Counts) {
        self.counts.applied += counts.applied;
        self.counts.duplicates += counts.duplicates;
        self.counts.gaps += counts.gaps;
        self.counts.retries += counts.retries;
        self.counts.conflicts += counts.conflicts;
    }

    /// The store answers again, perhaps.
    fn again(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Phase::WaitingForStore(commitment) = std::mem::replace(&mut self.phase, Phase::Idle) {
            match commitment {
                Some(commitment) => {
                    actions.push(Action::Commit(commitment.transaction.clone()));
                    self.phase = Phase::Committing(commitment);
                }
                None => self.load_rows(now, actions),
            }
        }
    }

    fn store_answers(&mut self) {
        self.store.clear();
    }

    fn store_away(&mut self, error: &InboxError, now: Timestamp) {
        self.trouble = Some(error.to_string());
        self.store.shut(now, &self.settings.backoff, &mut self.rng);
    }

    // Lanes that are tried again.

    /// Whether what comes only raises *seen*.
    fn is_resting(&self) -> bool {
        self.paused || self.dependency.is_shut()
    }

    fn ask_for_lanes(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let at_once = if self.dependency.is_shut() { 1 } else { self.settings.lanes_at_once_max };
        if self.may_try_lanes(now)
            && self.lanes_busy.len() < at_once
            && let Some(until) = self.due_applying.ask(now)
        {
            let limit = at_once + self.lanes_busy.len();
            actions.push(Action::LoadDue { work: Work::Applying, until, limit });
        }
        if self.may_perform(now)
            && self.effects.room() > 0
            && let Some(until) = self.due_performing.ask(now)
        {
            // Those that are at work are due as well: the limit leaves room for the others.
            let limit = self.settings.effects_loaded_max;
            actions.push(Action::LoadDue { work: Work::Performing, until, limit });
        }
    }

    fn may_perform(&self, now: Timestamp) -> bool {
        !self.paused && !self.leaving && self.store.admits(now) && self.performing.admits(now)
    }

    fn may_try_lanes(&self, now: Timestamp) -> bool {
        !self.paused
            && !self.leaving
            && self.store.admits(now)
            && self.history.admits(now)
            && self.dependency.admits(now)
    }

    fn due(
        &mut self,
        work: Work,
        answer: Result<(Vec<Row>, Option<Timestamp>), InboxError>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let due = match work {
            Work::Applying => &mut self.due_applying,
            Work::Performing => &mut self.due_performing,
        };
        let wait_max = self.settings.backoff.max.max(self.settings.backoff.first);
        let rows = match answer {
            Ok((rows, next)) => {
                due.answered(next, now, wait_max);
                self.store_answers();
                rows
            }
            Err(error) => {
                due.answered(Some(now), now, wait_max);
                return self.store_away(&error, now);
            }
        };
        match work {
            Work::Applying => self.try_lanes(rows, now, actions),
            Work::Performing => {
                if !rows.iter().all(|row| self.effects.add_due(row.order)) {
                    self.due_performing.add(now);
                }
            }
        }
    }

    fn try_lanes(&mut self, rows: Vec<Row>, now: Timestamp, actions: &mut Vec<Action>) {
        if rows.is_empty() && self.dependency.admits(now) {
            // Nothing is left that could be tried to see whether the dependency is back.
            self.dependency.clear();
        }
        for row in rows {
            if self.lanes_busy.len() >= self.settings.lanes_at_once_max {
                self.due_applying.add(now);
                return;
            }
            if self.lanes_busy.insert(row.order) {
                actions.push(Action::ReadHistory {
                    order: row.order,
                    from: row.applied.next(),
                    limit: self.settings.history_commits_max,
                });
            }
        }
    }

    fn history(&mut self, order: OrderId, answer: Result<Vec<Arc<Commit>>, StoreError>, now: Timestamp) {
        match answer {
            Ok(commits) => {
                self.history.clear();
                let complete = commits.len() < self.settings.history_commits_max;
                let events = commits.iter().flat_map(|commit| commit.envelopes()).map(Arc::new).collect();
                self.lanes.push_back(LaneRead { order, events, complete });
            }
            Err(error) => {
                self.lanes_busy.remove(&order);
                self.due_applying.add(now);
                self.trouble = Some(error.to_string());
                self.history.shut(now, &self.settings.backoff, &mut self.rng);
            }
        }
    }

    // Effects.

    fn go_on_with_effects(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.paused || self.leaving || !self.store.admits(now) {
            return;
        }
        if let Some((after, limit)) = self.effects.ask() {
            actions.push(Action::LoadWaiting { after, limit });
        }
        if let Some(orders) = self.effects.load() {
            actions.push(Action::LoadEffects(orders));
        }
        let at_once = match (self.performing.is_shut(), self.performing.admits(now)) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => self.settings.effects_at_once_max,
        };
        while let Some(effect) = self.effects.start(at_once) {
            actions.push(Action::Perform(Box::new(effect)));
        }
    }

    // Time.

    fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        let gates = [&self.store, &self.history, &self.dependency, &self.performing];
        let gates = gates.into_iter().filter_map(|gate| gate.wake(now));
        let lanes = self.due_applying.wake().filter(|_| !self.paused);
        let effects = self.due_performing.wake().filter(|_| !self.paused);
        // What is due and not asked for waits for a gate or for room, and either comes with an input of its own.
        let due = lanes.into_iter().chain(effects).filter(|at| *at > now);
        gates.chain(due).min()
    }
}
