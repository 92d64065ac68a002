//! The walk through a cycle: each outcome, lane and item in its turn, by the rows as the walk has left them so far.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cycle::{Cycle, LaneRead, Settled};
use super::dependency::{Evidence, Failing};
use super::failing::{self, Rules, effect_head, event_head, is_first_attempt};
use super::queue::{Item, Source};
use super::verdict::{Meeting, Verdict, verdict};
use super::{EventResult, Performed};
use crate::clock::Timestamp;
use crate::event::{Envelope, EventId};
use crate::history::Head;
use crate::inbox::{
    Body, EffectId, EffectOutcome, Failure, HeadOfLane, Hold, HoldState, Lane, NewEffect, Outcome, RecordedEffect, Row,
    Work,
};
use crate::mutant::Mutant;
use crate::order::{OrderId, Version};

pub(super) struct Walk<'a, F> {
    cycle: &'a Cycle,
    rules: Rules<'a>,
    /// So many more events may be put aside.
    asides_max: usize,
    results: F,
    settled: Settled,
    /// Another event may be handled although what comes is only to be seen.
    probing: bool,
}

impl<'a, F: FnMut(&Arc<Envelope>) -> Option<EventResult>> Walk<'a, F> {
    pub(super) fn new(cycle: &'a Cycle, rules: Rules<'a>, asides_max: usize, results: F) -> Self {
        let (applying, performing) = (cycle.applying.clone(), cycle.performing.clone());
        let settled = Settled { applying, performing, ..Settled::default() };
        Self { cycle, rules, asides_max, results, settled, probing: cycle.probing }
    }

    pub(super) fn walk(mut self) -> Settled {
        for performed in &self.cycle.outcomes {
            self.performed(performed);
        }
        for &order in &self.cycle.nothing_to_perform {
            self.nothing_to_perform(order);
        }
        for ended in &self.cycle.asides {
            let events = VecDeque::from([ended.event.clone()]);
            // What is behind it was not looked for: history is asked.
            self.lane(&LaneRead { order: ended.event.order, looked: None, events, complete: false });
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

    // What comes.

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
            Item::End { order, last } => {
                self.end_of_stream(*order, *last);
                true
            }
            Item::Event { envelope, source } => {
                let verdict = self.verdict(envelope, false);
                if matches!(verdict, Verdict::Duplicate | Verdict::OfAnotherLog) && *source != Source::Scan {
                    self.settled.counts.duplicates += 1;
                }
                let reached = self.event(envelope, verdict).is_some();
                self.end_attempt(envelope);
                reached
            }
        }
    }

    /// A lane that was held only because the attempt was counted before it began is ready again when nothing else was seen:
    /// so says a row that nobody else has written since.
    fn end_attempt(&mut self, event: &Envelope) {
        let attempted = self.cycle.attempting == Some(event.id);
        let row = self.row(event.order);
        if attempted && row.applied == event.version && row.applied == row.seen {
            row.applying = Lane::Ready;
        }
    }

    /// What nobody has brought yet is read from history, as any gap.
    fn head(&mut self, head: &Head) {
        let now = self.rules.now;
        let row = self.row(head.order);
        let missed = head.last.0.saturating_sub(row.seen.0);
        if missed > 0 {
            row.seen = head.last;
            look(row, now);
            self.settled.counts.missed += u64::from(missed);
        }
    }

    /// A scan has met all of the order's events. Where more was applied than there is, the lane looks for it.
    fn end_of_stream(&mut self, order: OrderId, last: Version) {
        let now = self.rules.now;
        let row = self.row(order);
        if row.applied > last && row.applied_event.is_some() {
            look(row, now);
        }
    }

    // Lanes.

    /// The rest of the lane, when the results ended within it.
    fn lane(&mut self, lane: &LaneRead) -> Option<LaneRead> {
        let waits_for_somebody = |hold: &Hold| hold.next_attempt_at.is_none();
        if self.row(lane.order).applying.hold().is_none_or(waits_for_somebody) {
            self.settled.lanes_tried.push(lane.order);
            return None;
        }
        let agrees = self.agrees(lane);
        let events = if agrees { &lane.events } else { &VecDeque::new() };
        for (index, event) in events.iter().enumerate() {
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
                    return Some(LaneRead { events, looked: None, ..lane.clone() });
                }
            }
        }
        if agrees {
            self.lane_end(lane);
        } else {
            self.seen_to_the_end(lane);
        }
        self.settled.lanes_tried.push(lane.order);
        None
    }

    /// Whether the log still has what was applied last. Where the row was written since it was read, the next try will say.
    fn agrees(&mut self, lane: &LaneRead) -> bool {
        let row = self.row(lane.order);
        let Some((looked, applied)) = lane.looked.zip(row.applied_event) else { return true };
        match looked.found {
            _ if looked.at != row.applied => true,
            Some(found) if found == applied => true,
            Some(found) => {
                self.contradict(lane.order, found);
                false
            }
            None => {
                let text = format!("event {} is not in the log, though it was applied as {applied}", row.applied);
                self.settled.counts.retries += 1;
                self.hold(lane.order, |before, rules| failing::absent(before, Failure::transient(text), rules));
                if self.state(lane.order) == Some(HoldState::Conflicting) {
                    self.settled.counts.conflicts += 1;
                }
                false
            }
        }
    }

    /// The lane is ready when nothing was behind what was read, and nothing else was seen. While each read brings it on
    /// the next follows at once: history may give less than it has, and more may have been seen since it was read.
    fn lane_end(&mut self, lane: &LaneRead) {
        let (now, mutant) = (self.rules.now, self.rules.settings.mutant);
        let before = self.cycle.rows.get(&lane.order).map_or(Version::NONE, |row| row.applied);
        let row = self.row(lane.order);
        let brought_on = row.applied > before;
        if brought_on && mutant == Some(Mutant::ReadyWithoutLooking) {
            row.applying = Lane::Ready;
        } else if brought_on && !(lane.complete && row.applied == row.seen) {
            hold_for_gap(row, now, now);
        } else if row.applied == row.seen {
            row.applying = Lane::Ready;
        } else {
            let missing = format!("event {} is not in the log, though {} was seen", row.applied.next(), row.seen);
            self.missing(lane.order, Failure::transient(missing));
        }
    }

    fn seen_to_the_end(&mut self, lane: &LaneRead) {
        let row = self.row(lane.order);
        let last = lane.events.back().map_or(row.seen, |event| event.version);
        row.seen = row.seen.max(last);
    }

    // Events.

    fn verdict(&mut self, event: &Envelope, in_lane: bool) -> Verdict {
        let effects_before = self.cycle.rows.get(&event.order).map_or(0, |row| row.effects_waiting);
        let meeting = Meeting {
            in_lane,
            resting: self.cycle.resting && !self.probing,
            crowded: effects_before >= self.rules.settings.effects_max,
            attempted: self.cycle.attempting == Some(event.id),
            unclean: self.cycle.unclean,
            attempts_max: self.rules.settings.attempts_max,
        };
        let verdict = verdict(event, self.row(event.order), meeting);
        self.probing &= in_lane || verdict != Verdict::Next;
        verdict
    }

    /// Carries the verdict out. `None`: there is no result for the event; else whether its lane can go on.
    fn event(&mut self, event: &Arc<Envelope>, verdict: Verdict) -> Option<bool> {
        let now = self.rules.now;
        match verdict {
            Verdict::Duplicate => return Some(true),
            Verdict::OfAnotherLog => {
                look(self.row(event.order), now);
                return Some(true);
            }
            Verdict::Conflict => {
                let row = self.row(event.order);
                row.seen = row.seen.max(event.version);
                self.contradict(event.order, event.id);
            }
            Verdict::Waits if self.retries_out_of_order(event) => {
                return (self.results)(event).map(|result| self.result(event, result));
            }
            Verdict::Waits => self.wait_behind(event, now),
            Verdict::Crowded => self.crowded(event),
            Verdict::Gap => self.gap(event),
            Verdict::EndsProcesses => {
                self.hold(event.order, |before, rules| failing::ended_processes(before, event_head(event), rules.now));
            }
            Verdict::Next => return (self.results)(event).map(|result| self.result(event, result)),
        }
        Some(false)
    }

    fn result(&mut self, event: &Arc<Envelope>, result: EventResult) -> bool {
        match result {
            EventResult::Applied { effects } => {
                self.settled.applying.succeeded();
                self.apply(event, effects);
                true
            }
            EventResult::Passed => {
                self.apply(event, Vec::new());
                true
            }
            EventResult::Slow => {
                self.put_aside(event);
                false
            }
            EventResult::Failed(failure) => {
                self.seen(event);
                self.failed((event.order, Work::Applying), event_head(event), failure);
                false
            }
            EventResult::Undecodable(failure) => {
                self.seen(event);
                self.settled.counts.retries += 1;
                let head = event_head(event);
                self.hold(event.order, |before, rules| failing::undecodable(before, head, failure, rules));
                false
            }
        }
    }

    fn apply(&mut self, event: &Envelope, effects: Vec<Body>) {
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
            // What held it is through.
            **hold = Hold::new(HoldState::Gap, hold.since, hold.next_attempt_at);
        }
        self.settled.effects.extend(recorded(event, effects, count));
    }

    /// Its order waits for it. When too many are aside it is tried again as others are, only not at once.
    fn put_aside(&mut self, event: &Arc<Envelope>) {
        self.seen(event);
        let has_room = self.settled.slow.len() < self.asides_max;
        let now = self.rules.now;
        let until = if has_room { now } else { now.after(self.rules.settings.backoff.first) };
        self.hold(event.order, |before, rules| failing::put_aside(before, event_head(event), until, rules.now));
        if has_room {
            self.settled.slow.push(event.clone());
        }
    }

    fn seen(&mut self, event: &Envelope) {
        let row = self.row(event.order);
        row.seen = row.seen.max(event.version);
    }

    /// Never, but for a bug put in on purpose.
    fn retries_out_of_order(&mut self, event: &Envelope) -> bool {
        let is_mutant = self.rules.settings.mutant == Some(Mutant::RetriesOutOfOrder);
        is_mutant && self.row(event.order).applying.hold().is_some_and(|hold| hold.state == HoldState::Retrying)
    }

    fn wait_behind(&mut self, event: &Envelope, until: Timestamp) {
        let (now, mutant) = (self.rules.now, self.rules.settings.mutant);
        let row = self.row(event.order);
        row.seen = match mutant {
            Some(Mutant::OverwritesSeen) => event.version,
            Some(_) | None => row.seen.max(event.version),
        };
        if row.applying.is_ready() {
            hold_for_gap(row, now, until);
        }
    }

    /// Too many effects wait; [`Walk::outcome`] says when there is room again.
    fn crowded(&mut self, event: &Envelope) {
        let backoff = &self.rules.settings.backoff;
        let wait = if self.row(event.order).performing.is_ready() { backoff.first } else { backoff.max };
        let until = self.rules.now.after(wait);
        self.wait_behind(event, until);
        if let Lane::Held(hold) = &mut self.row(event.order).applying {
            hold.next_attempt_at = Some(until);
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
            self.missing(event.order, Failure::transient(missing));
        }
    }

    fn missing(&mut self, order: OrderId, failure: Failure) {
        self.settled.counts.retries += 1;
        self.hold(order, |before, rules| failing::missing(before, failure, rules));
    }

    /// The log has that event in the place of the one that was applied last.
    fn contradict(&mut self, order: OrderId, found: EventId) {
        if self.state(order) == Some(HoldState::Conflicting) {
            return;
        }
        let row = self.row(order);
        let applied = row.applied_event.map(|id| id.to_string()).unwrap_or_default();
        let text = format!("event {} is {found} in the log, and {applied} was applied", row.applied);
        self.settled.counts.conflicts += 1;
        self.hold(order, |before, rules| failing::contradicted(before, Failure::permanent(text), rules.now));
    }

    // Effects.

    fn performed(&mut self, performed: &Performed) {
        let RecordedEffect { effect, .. } = &performed.effect;
        self.settled.performed.push(effect.order);
        match &performed.result {
            Ok(outcome) => self.outcome(effect, outcome, performed.at),
            Err(failure) => self.failed((effect.order, Work::Performing), effect_head(effect), failure.clone()),
        }
    }

    fn outcome(&mut self, effect: &NewEffect, outcome: &Outcome, at: Timestamp) {
        self.settled.performing.succeeded();
        let (now, effects_max) = (self.rules.now, self.rules.settings.effects_max);
        let row = self.row(effect.order);
        row.performing = Lane::Ready;
        if let Lane::Held(hold) = &mut row.applying
            && hold.state == HoldState::Gap
            && hold.attempts == 0
            && row.effects_waiting <= effects_max
        {
            // Its events wait for room, and there is some now.
            hold.next_attempt_at = Some(now);
        }
        row.effects_waiting = row.effects_waiting.saturating_sub(1);
        row.performed = row.performed.max(performed_up_to(row, effect));
        let outcome = outcome.clone();
        self.settled.outcomes.push(EffectOutcome { order: effect.order, id: effect.id, outcome, at });
    }

    /// Never held for what nobody waits for.
    fn nothing_to_perform(&mut self, order: OrderId) {
        let row = self.row(order);
        if row.effects_waiting == 0 {
            row.performing = Lane::Ready;
        }
    }

    // Failures of both.

    fn failed(&mut self, (order, work): (OrderId, Work), head: HeadOfLane, failure: Failure) {
        self.settled.counts.retries += 1;
        let orders_max = self.rules.settings.failing_orders_max;
        let before = lane(self.row(order), work).clone();
        let first = is_first_attempt(&before, &head);
        let failing = Failing { order, head: head.clone() };
        let blame = self.evidence(work).failed(failing, &failure, first, orders_max);
        *lane(self.row(order), work) = failing::failed(&before, head, failure, blame, &mut self.rules);
        let now = self.rules.now;
        for Failing { order, head } in self.evidence(work).given_back() {
            failing::give_back(lane(self.row(order), work), &head, now);
        }
    }

    fn evidence(&mut self, work: Work) -> &mut Evidence {
        match work {
            Work::Applying => &mut self.settled.applying,
            Work::Performing => &mut self.settled.performing,
        }
    }

    fn hold(&mut self, order: OrderId, held: impl FnOnce(&Lane, &mut Rules<'_>) -> Lane) {
        let before = self.row(order).applying.clone();
        let after = held(&before, &mut self.rules);
        self.row(order).applying = after;
    }

    fn state(&mut self, order: OrderId) -> Option<HoldState> {
        self.row(order).applying.hold().map(|hold| hold.state)
    }

    fn row(&mut self, order: OrderId) -> &mut Row {
        let stored = &self.cycle.rows;
        let row = || stored.get(&order).cloned().unwrap_or_else(|| Row::new(order));
        self.settled.rows.entry(order).or_insert_with(row)
    }
}

fn lane(row: &mut Row, work: Work) -> &mut Lane {
    match work {
        Work::Applying => &mut row.applying,
        Work::Performing => &mut row.performing,
    }
}

/// The log is asked about a lane that is ready.
fn look(row: &mut Row, now: Timestamp) {
    if row.applying.is_ready() {
        hold_for_gap(row, now, now);
    }
}

fn hold_for_gap(row: &mut Row, now: Timestamp, until: Timestamp) {
    let since = row.applying.hold().map_or(now, |hold| hold.since);
    row.applying = Lane::Held(Box::new(Hold::new(HoldState::Gap, since, Some(until))));
}

fn recorded(event: &Envelope, effects: Vec<Body>, count: u32) -> impl Iterator<Item = NewEffect> {
    effects.into_iter().zip(0..).map(move |(body, index)| NewEffect {
        id: EffectId { event: event.id, index },
        order: event.order,
        version: event.version,
        last_of_event: index + 1 == count,
        recorded_at: event.recorded_at,
        origin: event.origin.clone(),
        body,
    })
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
