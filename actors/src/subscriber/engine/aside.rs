//! Events whose handlers were not done within their patience: each is handled by itself, beside the batches, and only its
//! own order waits for it. Kept here: which they are, how many run at once, and which documents were written since each
//! of them began, so that no result is stored that rests on something older.
//!
//! Nothing of it is durable. Their lanes are held in the store and due: whoever begins anew finds them there.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::cycle::Settled;
use super::{Action, Engine, EventResult, Phase};
use crate::clock::Timestamp;
use crate::event::{Envelope, EventId};
use crate::inbox::{DocumentKey, DocumentWrite, Failure, Row};
use crate::order::{OrderId, Version};

/// So often an event is handled aside in vain, because others wrote meanwhile what it read or wrote. Then it is handled
/// within a batch, where nobody does.
const ROUNDS_MAX: u32 = 3;
/// Events that may wait here for each one that may run. Further ones wait in the store.
const WAITING_PER_PLACE: usize = 16;
/// Documents of which it is remembered that they were written.
const WRITTEN_MAX: usize = 1 << 18;
/// Orders of which it is remembered that their next event takes long.
const KNOWN_MAX: usize = 4_096;

/// One run of a handler aside: never the number of another one of the same engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(u64);

/// What became of an event that was handled aside.
#[derive(Debug)]
pub struct HandledAside {
    /// What became of it: never [`EventResult::Slow`].
    pub result: EventResult,
    /// What changed, when it was applied.
    pub documents: Vec<DocumentWrite>,
    /// Every document that it read or changed: what the result rests on. None for one that took too long, which is so
    /// whatever is in the documents.
    pub keys: Vec<DocumentKey>,
}

/// How an event is handled that is the next one of its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// In the batch, as long as the patience lasts.
    Brisk,
    /// Aside, without trying: it was slow before.
    Aside,
    /// In the batch, with the whole time-out: it was aside often enough.
    Unhurried,
}

/// How events are handled that are the next ones of their orders.
#[derive(Clone, Copy)]
pub(super) struct Paces<'a> {
    asides: &'a Asides,
    careful: bool,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) event: Arc<Envelope>,
    pub(super) handled: HandledAside,
    /// After that many transactions it began.
    since: u64,
}

/// The events that are handled aside.
#[derive(Debug)]
pub(super) struct Asides {
    at_once_max: usize,
    lanes: FxHashMap<OrderId, Aside>,
    waiting: VecDeque<OrderId>,
    ended: VecDeque<OrderId>,
    running: usize,
    runs: u64,
    known: FxHashMap<OrderId, Known>,
    written: Written,
}

#[derive(Debug)]
struct Aside {
    event: Arc<Envelope>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Running {
        run: Run,
        since: u64,
    },
    Ended {
        handled: HandledAside,
        since: u64,
    },
    /// Its result is in the present cycle.
    Taken {
        since: u64,
    },
}

/// An event that is known to take long.
#[derive(Debug)]
struct Known {
    event: EventId,
    version: Version,
    rounds: u32,
}

/// Which documents were written after how many transactions. Keys are kept as hashes: of two that are alike one counts as
/// written that was not, and its event is handled once more.
#[derive(Debug, Default)]
struct Written {
    transactions: u64,
    /// Of what was written before that many transactions nothing is known.
    forgotten: u64,
    at: FxHashMap<u64, u64>,
}

impl Engine {
    pub(super) fn handled_aside(
        &mut self,
        run: Run,
        order: OrderId,
        handled: Result<HandledAside, Failure>,
        now: Timestamp,
    ) {
        match handled {
            Ok(handled) => self.asides.ended(run, order, handled),
            Err(failure) => {
                self.asides.not_handled(run, order);
                self.trouble = Some(failure.text.into_owned());
                self.store.shut(now, &self.settings.backoff, &mut self.rng);
            }
        }
    }

    /// Begins what waits, between two transactions. While the subscriber is to rest, or runs one event at a time, nothing
    /// is aside: it is due in the store.
    pub(super) fn go_on_aside(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        if (self.paused || self.is_careful()) && !self.asides.is_empty() {
            actions.extend(self.asides.give_up().into_iter().map(Action::GiveUpAside));
            self.due_applying.add(now);
        }
        if self.paused || self.leaving || !self.store.admits(now) || !self.dependency.admits(now) {
            return;
        }
        let at_once = if self.dependency.is_down() { 1 } else { self.settings.lanes_at_once_max };
        while let Some((run, event)) = self.asides.start(at_once) {
            actions.push(Action::HandleAside(run, event));
        }
    }

    pub(super) fn take_asides(&mut self) -> Vec<Ended> {
        if self.leaving {
            return Vec::new();
        }
        self.asides.take(self.settings.batch_documents_max, self.settings.batch_bytes_max)
    }

    /// Leaves those results in the cycle that still hold.
    pub(super) fn sift_asides(&mut self, now: Timestamp) {
        let rows = &self.cycle.rows;
        let is_done_with = |event: &Envelope| rows.get(&event.order).is_some_and(|row| row.applied >= event.version);
        let taken = std::mem::take(&mut self.cycle.asides);
        // Since the results were taken an operator may have decided, or an attempt been found that nobody saw end.
        let careful = self.careful_events > 0;
        let (done_with, taken): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|ended| careful || is_done_with(&ended.event));
        for ended in &done_with {
            self.asides.remove(ended.event.order);
        }
        let (holding, released) = self.asides.sift(taken);
        self.cycle.asides = holding;
        if !(released.is_empty() && done_with.is_empty()) {
            self.due_applying.add(now);
        }
    }

    /// Drops the results of all other events: their orders are no longer where they were, and go on from there.
    pub(super) fn drop_asides_unless(&mut self, reached: &FxHashSet<EventId>, now: Timestamp) {
        let asides = &mut self.asides;
        let taken = self.cycle.asides.len();
        self.cycle.asides.retain(|ended| {
            let keep = reached.contains(&ended.event.id);
            if !keep {
                asides.remove(ended.event.order);
            }
            keep
        });
        if self.cycle.asides.len() < taken {
            self.due_applying.add(now);
        }
    }

    /// It is stored what became of the lanes that were tried, and which events go on aside.
    pub(super) fn stored_aside(&mut self, settled: &mut Settled) {
        for row in settled.lanes_tried.iter().filter_map(|order| settled.rows.get(order)) {
            self.asides.tried(row);
        }
        for event in settled.slow.drain(..) {
            self.asides.put(event);
        }
    }

    /// The rows whose lanes do not wait for an event that is handled aside.
    pub(super) fn not_aside(&mut self, rows: Vec<Row>, actions: &mut Vec<Action>) -> Vec<Row> {
        let asides = &mut self.asides;
        let mut is_free = |row: &Row| match asides.holds(row) {
            Holds::No => true,
            Holds::Yes => false,
            Holds::Overtaken(run) => {
                actions.extend(run.map(Action::GiveUpAside));
                true
            }
        };
        rows.into_iter().filter(|row| is_free(row)).collect()
    }
}

impl Asides {
    /// None. At most so many run at once.
    pub(super) fn new(at_once_max: usize) -> Self {
        Self {
            at_once_max: at_once_max.max(1),
            lanes: FxHashMap::default(),
            waiting: VecDeque::new(),
            ended: VecDeque::new(),
            running: 0,
            runs: 0,
            known: FxHashMap::default(),
            written: Written::default(),
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        (self.at_once_max * (1 + WAITING_PER_PLACE)).saturating_sub(self.lanes.len())
    }

    /// Whether there are results to be stored.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Whether there are some that wait for their turn.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How events are to be handled; `careful`: one at a time.
    pub(super) fn view(&self, careful: bool) -> Paces<'_> {
        Paces { asides: self, careful }
    }

    fn pace(&self, event: &Envelope) -> Pace {
        match self.known.get(&event.order) {
            Some(known) if known.event == event.id && known.rounds >= ROUNDS_MAX => Pace::Unhurried,
            Some(known) if known.event == event.id => Pace::Aside,
            Some(_) | None => Pace::Brisk,
        }
    }

    /// The event takes long, and it is stored that its lane is held for it. There must be room.
    pub(super) fn put(&mut self, event: Arc<Envelope>) {
        if self.known.len() >= KNOWN_MAX {
            // Forgetting costs each of them its patience once more.
            self.known.clear();
        }
        let (order, id, version) = (event.order, event.id, event.version);
        self.known
            .entry(order)
            .and_modify(|known| {
                if known.event != id {
                    *known = Known { event: id, version, rounds: 0 };
                }
            })
            .or_insert(Known { event: id, version, rounds: 0 });
        self.remove(order);
        self.lanes.insert(order, Aside { event, stage: Stage::Waiting });
        self.waiting.push_back(order);
    }

    /// An event to handle aside now, at most `at_once` together. To be asked when no transaction is under way: what one
    /// writes that was begun earlier would count against it.
    pub(super) fn start(&mut self, at_once: usize) -> Option<(Run, Arc<Envelope>)> {
        if self.running >= at_once.min(self.at_once_max) {
            return None;
        }
        let order = self.waiting.pop_front()?;
        let aside = self.lanes.get_mut(&order)?;
        self.runs += 1;
        self.running += 1;
        let run = Run(self.runs);
        aside.stage = Stage::Running { run, since: self.written.transactions };
        Some((run, aside.event.clone()))
    }

    /// A run has ended. Of one that was given up nobody wants to know.
    pub(super) fn ended(&mut self, run: Run, order: OrderId, handled: HandledAside) {
        let Some(since) = self.stop(run, order) else { return };
        if let Some(aside) = self.lanes.get_mut(&order) {
            aside.stage = Stage::Ended { handled, since };
            self.ended.push_back(order);
        }
    }

    /// A run could not even read what it needs: it begins again, and nothing is counted.
    pub(super) fn not_handled(&mut self, run: Run, order: OrderId) {
        if self.stop(run, order).is_some() {
            self.waiting.push_front(order);
        }
    }

    /// The run's place is free. `None`: it was given up before.
    fn stop(&mut self, run: Run, order: OrderId) -> Option<u64> {
        let aside = self.lanes.get_mut(&order)?;
        let Stage::Running { run: running, since } = aside.stage else { return None };
        if running != run {
            return None;
        }
        aside.stage = Stage::Waiting;
        self.running -= 1;
        Some(since)
    }

    /// Results for the next transaction, up to the limits of one; at least one, if there is any.
    pub(super) fn take(&mut self, documents_max: usize, bytes_max: usize) -> Vec<Ended> {
        let (mut documents, mut bytes) = (0, 0);
        let mut taken = Vec::new();
        while documents < documents_max
            && bytes < bytes_max
            && let Some(order) = self.ended.pop_front()
        {
            let Some(aside) = self.lanes.get_mut(&order) else { continue };
            match std::mem::replace(&mut aside.stage, Stage::Waiting) {
                Stage::Ended { handled, since } => {
                    aside.stage = Stage::Taken { since };
                    documents += handled.documents.len();
                    bytes += handled.size();
                    taken.push(Ended { event: aside.event.clone(), handled, since });
                }
                stage @ (Stage::Waiting | Stage::Running { .. } | Stage::Taken { .. }) => aside.stage = stage,
            }
        }
        taken
    }

    /// The results among these that hold, each also after those before it. The others begin again; of those that did so
    /// often enough the orders are named, whose lanes are to be tried within a batch.
    pub(super) fn sift(&mut self, taken: Vec<Ended>) -> (Vec<Ended>, Vec<OrderId>) {
        let mut written_by_others = FxHashSet::default();
        let (mut holding, mut released) = (Vec::new(), Vec::new());
        for ended in taken {
            let fresh = self.written.has_none_of(&ended.handled.keys, ended.since)
                && ended.handled.keys.iter().all(|key| !written_by_others.contains(key));
            if fresh {
                written_by_others.extend(ended.handled.documents.iter().map(|write| write.key.clone()));
                holding.push(ended);
            } else if self.again(ended.event.order) {
                released.push(ended.event.order);
            }
        }
        (holding, released)
    }

    /// Whether it was aside often enough: then it no longer is.
    fn again(&mut self, order: OrderId) -> bool {
        let Some(aside) = self.lanes.get_mut(&order) else { return true };
        aside.stage = Stage::Waiting;
        let rounds = self.known.get_mut(&order).map_or(ROUNDS_MAX, |known| {
            known.rounds += 1;
            known.rounds
        });
        if rounds < ROUNDS_MAX {
            self.waiting.push_front(order);
            return false;
        }
        self.lanes.remove(&order);
        true
    }

    /// A transaction is stored, or may be, that writes these documents. To be said before another one begins.
    pub(super) fn wrote(&mut self, documents: &[DocumentWrite]) {
        let begun = self.lanes.values().filter_map(|aside| aside.stage.since()).min();
        self.written.add(documents, begun);
    }

    /// An order's lane was tried, with this row as what came of it, which is stored.
    pub(super) fn tried(&mut self, row: &Row) {
        if let Some(Stage::Taken { .. }) = self.lanes.get(&row.order).map(|aside| &aside.stage) {
            self.lanes.remove(&row.order);
        }
        let Some(known) = self.known.get_mut(&row.order) else { return };
        if row.applied >= known.version {
            self.known.remove(&row.order);
        } else if known.rounds >= ROUNDS_MAX {
            // It failed within a batch, and the next attempt is another one.
            known.rounds = 0;
        }
    }

    /// Whether the order waits for an event that is handled aside. When its row says that the event is done with, by an
    /// operator's decision, it no longer does: the run, if there is one, is to be given up.
    pub(super) fn holds(&mut self, row: &Row) -> Holds {
        let Some(aside) = self.lanes.get(&row.order) else { return Holds::No };
        // One that is in the present cycle is judged there.
        let taken = matches!(aside.stage, Stage::Taken { .. });
        if taken || row.applied < aside.event.version {
            return Holds::Yes;
        }
        Holds::Overtaken(self.remove(row.order))
    }

    /// The order no longer waits for it. The run to give up, if there is one.
    pub(super) fn remove(&mut self, order: OrderId) -> Option<Run> {
        let aside = self.lanes.remove(&order)?;
        match aside.stage {
            Stage::Waiting => self.waiting.retain(|other| *other != order),
            Stage::Ended { .. } => self.ended.retain(|other| *other != order),
            Stage::Taken { .. } => {}
            Stage::Running { run, .. } => {
                self.running -= 1;
                return Some(run);
            }
        }
        None
    }

    /// Gives all of them up but those in the present cycle; the runs among them. Their lanes are due in the store.
    pub(super) fn give_up(&mut self) -> Vec<Run> {
        self.waiting.clear();
        self.ended.clear();
        self.running = 0;
        let mut runs = Vec::new();
        self.lanes.retain(|_, aside| match aside.stage {
            Stage::Waiting | Stage::Ended { .. } => false,
            Stage::Taken { .. } => true,
            Stage::Running { run, .. } => {
                runs.push(run);
                false
            }
        });
        runs.sort_unstable();
        runs
    }
}

impl Paces<'_> {
    /// How that one is. Nothing goes on beside an event that is handled with care.
    pub(super) fn of(&self, event: &Envelope) -> Pace {
        if self.careful { Pace::Unhurried } else { self.asides.pace(event) }
    }

    /// How many more may be put aside.
    pub(super) fn room(&self) -> usize {
        self.asides.room()
    }
}

/// Whether an order waits for an event that is handled aside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holds {
    No,
    Yes,
    /// It did. The run to give up, if there is one.
    Overtaken(Option<Run>),
}

impl Stage {
    fn since(&self) -> Option<u64> {
        match self {
            Self::Waiting => None,
            Self::Running { since, .. } | Self::Ended { since, .. } | Self::Taken { since } => Some(*since),
        }
    }
}

impl HandledAside {
    fn size(&self) -> usize {
        let documents = self.documents.iter().filter_map(|write| write.body.as_ref()).map(|body| body.len());
        match &self.result {
            EventResult::Applied { effects } => documents.chain(effects.iter().map(|effect| effect.len())).sum(),
            EventResult::Passed | EventResult::Slow | EventResult::Failed(_) | EventResult::Undecodable(_) => {
                documents.sum()
            }
        }
    }
}

impl Written {
    /// Another transaction writes them; `begun` says after how many transactions the first one of those began that want
    /// to know, if there are any.
    fn add(&mut self, documents: &[DocumentWrite], begun: Option<u64>) {
        self.transactions += 1;
        let Some(begun) = begun else {
            self.at.clear();
            return;
        };
        self.at.extend(documents.iter().map(|write| (hash(&write.key), self.transactions)));
        if self.at.len() <= WRITTEN_MAX {
            return;
        }
        self.at.retain(|_, transactions| *transactions > begun);
        if self.at.len() > WRITTEN_MAX / 2 {
            // Else the next transactions would look through all of it again.
            self.at.clear();
            self.forgotten = self.transactions;
        }
    }

    /// Whether none of these was written after that many transactions.
    fn has_none_of(&self, keys: &[DocumentKey], since: u64) -> bool {
        let is_older = |key| self.at.get(&hash(key)).is_none_or(|transactions| *transactions <= since);
        keys.is_empty() || (since >= self.forgotten && keys.iter().all(is_older))
    }
}

fn hash(key: &DocumentKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
