//! What one transaction is made of: events as they came, lanes that are tried again, and outcomes of effects. Walking
//! through it decides about each event by its order's row; it is walked twice, once to find what has to be handled, and
//! once more with the results.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;

use super::queue::{Item, Mark, Source, first_event};
use super::timing::wait;
use super::{EventResult, Performed};
use crate::clock::Timestamp;
use crate::event::{Envelope, EventId};
use crate::history::Head;
use crate::inbox::{
    Attempt, EffectId, EffectOutcome, Failure, FailureKind, Hold, HoldState, Lane, NewEffect, RecordedEffect, Row,
};
use crate::order::{OrderId, Version};
use crate::subscriber::settings::Backoff;

/// What history says about a lane that is not ready.
#[derive(Clone, Debug)]
pub(super) struct LaneRead {
    pub(super) order: OrderId,
    pub(super) events: VecDeque<Arc<Envelope>>,
    /// Whether there was nothing behind these events.
    pub(super) complete: bool,
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    pub(super) lanes: VecDeque<LaneRead>,
    pub(super) items: VecDeque<Item>,
    pub(super) outcomes: Vec<Performed>,
    /// The rows as they are stored.
    pub(super) rows: HashMap<OrderId, Row>,
    /// Whether what comes only raises *seen*.
    pub(super) resting: bool,
}

/// How lanes are held.
pub(super) struct Rules<'a> {
    pub(super) now: Timestamp,
    pub(super) backoff: &'a Backoff,
    pub(super) effects_max: u32,
    pub(super) rng: &'a mut StdRng,
}

/// What became of a cycle.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The rows that were met, as they shall be.
    pub(super) rows: HashMap<OrderId, Row>,
    pub(super) effects: Vec<NewEffect>,
    pub(super) outcomes: Vec<EffectOutcome>,
    pub(super) marks: Vec<Mark>,
    /// Lanes that were tried, whatever came of it.
    pub(super) lanes_tried: Vec<OrderId>,
    /// Orders whose effects were performed, or failed.
    pub(super) performed: Vec<OrderId>,
    /// What was not reached: it has to be walked again.
    pub(super) lanes_left: VecDeque<LaneRead>,
    pub(super) items_left: VecDeque<Item>,
    pub(super) counts: Counts,
    /// Handlers said that something all of them need is away.
    pub(super) dependency_down: Option<Failure>,
    /// Effects said so.
    pub(super) performing_down: Option<Failure>,
    /// At least one event went through its handler.
    pub(super) handled: bool,
    /// At least one effect got its outcome.
    pub(super) outcome: bool,
}

/// What there was to count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) gaps: u64,
    pub(super) missed: u64,
    pub(super) retries: u64,
    pub(super) conflicts: u64,
}

/// What an event is to its lane.
enum Verdict {
    Duplicate,
    Conflict,
    Gap,
    Waits,
    Crowded,
    Next,
}

impl Cycle {
    /// The orders that are touched.
    pub(super) fn orders(&self) -> HashSet<OrderId> {
        let items = self.items.iter().filter_map(|item| match item {
            Item::Event { envelope, .. } => Some(envelope.order),
            Item::Head(head) => Some(head.order),
            Item::Mark(_) => None,
        });
        let lanes = self.lanes.iter().map(|lane| lane.order);
        let outcomes = self.outcomes.iter().map(|performed| performed.effect.effect.order);
        items.chain(lanes).chain(outcomes).collect()
    }

    /// How many events of the queue it holds.
    pub(super) fn queued_events(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Event { .. })).count()
    }

    /// When the first event of the queue that it holds was recorded.
    pub(super) fn waits_since(&self) -> Option<Timestamp> {
        first_event(&self.items)
    }

    /// How many events it holds.
    pub(super) fn events(&self) -> usize {
        self.queued_events() + self.lanes.iter().map(|lane| lane.events.len()).sum::<usize>()
    }

    /// The events to be handled, in order, if all of them succeed.
    pub(super) fn candidates(&self, rules: Rules<'_>) -> Vec<Arc<Envelope>> {
        let mut candidates = Vec::new();
        let results = |event: &Arc<Envelope>| {
            candidates.push(event.clone());
            Some(EventResult::Applied { effects: Vec::new() })
        };
        Walk::new(self, rules, results).walk();
        candidates
    }

    /// What the transaction writes, given what became of the candidates. Those without a result are left for the next.
    pub(super) fn settle(&self, rules: Rules<'_>, mut results: HashMap<EventId, EventResult>) -> Settled {
        Walk::new(self, rules, |event: &Arc<Envelope>| results.remove(&event.id)).walk()
    }
}

struct Walk<'a, F> {
    cycle: &'a Cycle,
    rules: Rules<'a>,
    results: F,
    settled: Settled,
}

impl<'a, F: FnMut(&Arc<Envelope>) -> Option<EventResult>> Walk<'a, F> {
    fn new(cycle: &'a Cycle, rules: Rules<'a>, results: F) -> Self {
        Self { cycle, rules, results, settled: Settled::default() }
    }

    fn walk(mut self) -> Settled {
        for performed in &self.cycle.outcomes {
            self.outcome(performed);
        }
        let mut lanes = self.cycle.lanes.iter();
        let mut items = self.cycle.items.iter();
        let mut reached_end = true;
        for lane in lanes.by_ref() {
            if let Some(left) = self.lane(lane) {
                self.settled.lanes_left.push_back(left);
                reached_end = false;
                break;
            }
        }
        self.settled.lanes_left.extend(lanes.cloned());
        while reached_end && let Some(item) = items.next() {
            reached_end = self.item(item);
            if !reached_end {
                self.settled.items_left.push_back(item.clone());
            }
        }
        self.settled.items_left.extend(items.cloned());
        self.settled
    }

    /// Whether the item was reached, so that the walk can go on.
    fn item(&mut self, item: &Item) -> bool {
        match item {
            Item::Mark(mark) => {
                self.settled.marks.push(mark.clone());
                true
            }
            Item::Head(head) => {
                self.head(head);
                true
            }
            Item::Event { envelope, source } => {
                let verdict = self.verdict(envelope, false);
                if matches!(verdict, Verdict::Duplicate) && *source != Source::Scan {
                    self.settled.counts.duplicates += 1;
                }
                self.event(envelope, verdict).is_some()
            }
        }
    }

    /// The rest of the lane, when the results ended within it.
    fn lane(&mut self, lane: &LaneRead) -> Option<LaneRead> {
        if self.row(lane.order).applying.is_ready() {
            self.settled.lanes_tried.push(lane.order);
            return None;
        }
        for (index, event) in lane.events.iter().enumerate() {
            let verdict = self.verdict(event, true);
            match self.event(event, verdict) {
                Some(true) => {}
                Some(false) => {
                    self.seen_to_the_end(lane);
                    self.settled.lanes_tried.push(lane.order);
                    return None;
                }
                None => {
                    let events = lane.events.iter().skip(index).cloned().collect();
                    return Some(LaneRead { order: lane.order, events, complete: lane.complete });
                }
            }
        }
        self.lane_end(lane);
        self.settled.lanes_tried.push(lane.order);
        None
    }

    /// The lane is ready when nothing was behind what was read, and nothing else was seen. While each read brings it on
    /// the next follows at once: history may give less than it has, and more may have been seen since it was read.
    fn lane_end(&mut self, lane: &LaneRead) {
        let now = self.rules.now;
        let before = self.cycle.rows.get(&lane.order).map_or(Version::NONE, |row| row.applied);
        let row = self.row(lane.order);
        let brought_on = row.applied > before;
        if brought_on && !(lane.complete && row.applied == row.seen) {
            hold_for_gap(row, now, now);
        } else if row.applied == row.seen {
            row.applying = Lane::Ready;
        } else {
            let missing = format!("event {} is not in the log, though {} was seen", row.applied.next(), row.seen);
            self.hold(lane.order, HoldState::Gap, Failure::transient(missing));
        }
    }

    fn seen_to_the_end(&mut self, lane: &LaneRead) {
        let row = self.row(lane.order);
        let last = lane.events.back().map_or(row.seen, |event| event.version);
        row.seen = row.seen.max(last);
    }

    fn verdict(&mut self, event: &Envelope, in_lane: bool) -> Verdict {
        let resting = self.cycle.resting && !in_lane;
        let effects_before = self.cycle.rows.get(&event.order).map_or(0, |row| row.effects_waiting);
        let crowded = effects_before >= self.rules.effects_max;
        let row = self.row(event.order);
        if event.version == row.applied && row.applied_event.is_some_and(|applied| applied != event.id) {
            Verdict::Conflict
        } else if event.version <= row.applied {
            Verdict::Duplicate
        } else if resting || !(in_lane || row.applying.is_ready()) {
            Verdict::Waits
        } else if crowded {
            Verdict::Crowded
        } else if event.version == row.applied.next() {
            Verdict::Next
        } else {
            Verdict::Gap
        }
    }

    /// Carries the verdict out. `None`: there is no result for the event; else whether its lane can go on.
    fn event(&mut self, event: &Arc<Envelope>, verdict: Verdict) -> Option<bool> {
        match verdict {
            Verdict::Duplicate => Some(true),
            Verdict::Conflict => {
                self.conflict(event);
                Some(false)
            }
            Verdict::Waits => {
                self.wait_behind(event, self.rules.now);
                Some(false)
            }
            Verdict::Crowded => {
                let until = self.rules.now.after(self.rules.backoff.first);
                self.wait_behind(event, until);
                if let Lane::Held(hold) = &mut self.row(event.order).applying {
                    hold.next_attempt_at = Some(until);
                }
                Some(false)
            }
            Verdict::Gap => {
                self.gap(event);
                Some(false)
            }
            Verdict::Next => (self.results)(event).map(|result| self.result(event, result)),
        }
    }

    fn result(&mut self, event: &Envelope, result: EventResult) -> bool {
        match result {
            EventResult::Applied { effects } => {
                self.settled.handled = true;
                self.apply(event, effects);
                true
            }
            EventResult::Passed => {
                self.apply(event, Vec::new());
                true
            }
            EventResult::Failed(failure) => {
                if failure.kind == FailureKind::DependencyDown {
                    self.settled.dependency_down = Some(failure.clone());
                }
                self.fail(event, HoldState::Retrying, failure);
                false
            }
            EventResult::Undecodable(failure) => {
                self.fail(event, HoldState::Undecodable, failure);
                false
            }
        }
    }

    fn apply(&mut self, event: &Envelope, effects: Vec<crate::inbox::Body>) {
        self.settled.counts.applied += 1;
        let count = u32::try_from(effects.len()).unwrap_or(u32::MAX);
        let row = self.row(event.order);
        row.applied = event.version;
        row.applied_event = Some(event.id);
        row.seen = row.seen.max(event.version);
        row.effects_waiting = row.effects_waiting.saturating_add(count);
        if row.effects_waiting == 0 {
            row.performed = row.applied;
        }
        if let Lane::Held(hold) = &mut row.applying {
            // What had failed is through.
            **hold = Hold::new(HoldState::Gap, hold.since, hold.next_attempt_at);
        }
        let effects = effects.into_iter().zip(0..).map(|(body, index)| NewEffect {
            id: EffectId { event: event.id, index },
            order: event.order,
            version: event.version,
            last_of_event: index + 1 == count,
            recorded_at: event.recorded_at,
            origin: event.origin.clone(),
            body,
        });
        self.settled.effects.extend(effects);
    }

    fn fail(&mut self, event: &Envelope, state: HoldState, failure: Failure) {
        let row = self.row(event.order);
        row.seen = row.seen.max(event.version);
        self.hold(event.order, state, failure);
    }

    fn hold(&mut self, order: OrderId, state: HoldState, failure: Failure) {
        self.settled.counts.retries += 1;
        let Entry::Occupied(mut row) = self.settled.rows.entry(order) else { return };
        let row = row.get_mut();
        row.applying = held(&row.applying, state, failure, &mut self.rules);
    }

    fn wait_behind(&mut self, event: &Envelope, until: Timestamp) {
        let now = self.rules.now;
        let row = self.row(event.order);
        row.seen = row.seen.max(event.version);
        if row.applying.is_ready() {
            hold_for_gap(row, now, until);
        }
    }

    fn gap(&mut self, event: &Envelope) {
        self.settled.counts.gaps += 1;
        let now = self.rules.now;
        let row = self.row(event.order);
        row.seen = row.seen.max(event.version);
        if row.applying.is_ready() {
            hold_for_gap(row, now, now);
        } else {
            let missing = format!("event {} is not in the log, though {} is", row.applied.next(), event.version);
            self.hold(event.order, HoldState::Gap, Failure::transient(missing));
        }
    }

    /// What nobody has brought yet is read from history, as any gap.
    fn head(&mut self, head: &Head) {
        let now = self.rules.now;
        let row = self.row(head.order);
        let missed = head.last.0.saturating_sub(row.seen.0);
        if missed > 0 {
            row.seen = head.last;
            if row.applying.is_ready() {
                hold_for_gap(row, now, now);
            }
            self.settled.counts.missed += u64::from(missed);
        }
    }

    fn conflict(&mut self, event: &Envelope) {
        let now = self.rules.now;
        let row = self.row(event.order);
        row.seen = row.seen.max(event.version);
        if row.applying.hold().is_some_and(|hold| hold.state == HoldState::Conflicting) {
            return;
        }
        let applied = row.applied_event.map(|id| id.to_string()).unwrap_or_default();
        let text = format!("event {} is {} in the log, and {applied} was applied", event.version, event.id);
        let mut hold = Hold::new(HoldState::Conflicting, now, None);
        hold.keep(Attempt { at: now, failure: Failure::permanent(text) });
        row.applying = Lane::Held(Box::new(hold));
        self.settled.counts.conflicts += 1;
    }

    fn outcome(&mut self, performed: &Performed) {
        let RecordedEffect { effect, .. } = &performed.effect;
        self.settled.performed.push(effect.order);
        match &performed.result {
            Ok(outcome) => {
                self.settled.outcome = true;
                let row = self.row(effect.order);
                row.performing = Lane::Ready;
                row.effects_waiting = row.effects_waiting.saturating_sub(1);
                row.performed = row.performed.max(performed_up_to(row, effect));
                self.settled.outcomes.push(EffectOutcome {
                    order: effect.order,
                    id: effect.id,
                    outcome: outcome.clone(),
                    at: performed.at,
                });
            }
            Err(failure) => {
                self.settled.counts.retries += 1;
                if failure.kind == FailureKind::DependencyDown {
                    self.settled.performing_down = Some(failure.clone());
                }
                self.row(effect.order);
                let Entry::Occupied(mut row) = self.settled.rows.entry(effect.order) else { return };
                let row = row.get_mut();
                row.performing = held(&row.performing, HoldState::Retrying, failure.clone(), &mut self.rules);
            }
        }
    }

    fn row(&mut self, order: OrderId) -> &mut Row {
        let stored = &self.cycle.rows;
        let row = || stored.get(&order).cloned().unwrap_or_else(|| Row::new(order));
        self.settled.rows.entry(order).or_insert_with(row)
    }
}

fn performed_up_to(row: &Row, effect: &NewEffect) -> Version {
    if row.effects_waiting == 0 {
        row.applied
    } else if effect.last_of_event {
        effect.version
    } else {
        Version(effect.version.0.saturating_sub(1))
    }
}

fn hold_for_gap(row: &mut Row, now: Timestamp, until: Timestamp) {
    let since = row.applying.hold().map_or(now, |hold| hold.since);
    row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, since, Some(until))));
}

/// The lane after another failure. While a dependency is down attempts are not counted: they say nothing about the
/// event.
fn held(before: &Lane, state: HoldState, failure: Failure, rules: &mut Rules<'_>) -> Lane {
    let mut hold = before.hold().cloned().unwrap_or_else(|| Hold::new(state, rules.now, None));
    let so_far = hold.attempts;
    let (attempts, next) = if failure.kind == FailureKind::DependencyDown {
        (so_far, rules.now)
    } else {
        let attempts = so_far.saturating_add(1);
        (attempts, rules.now.after(wait(rules.backoff, attempts, rules.rng)))
    };
    (hold.state, hold.attempts, hold.next_attempt_at) = (state, attempts, Some(next));
    hold.keep(Attempt { at: rules.now, failure });
    Lane::Held(Box::new(hold))
}
