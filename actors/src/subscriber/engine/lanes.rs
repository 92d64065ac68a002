//! Lanes that are tried again, and effects that are performed: what is due, as far as its dependencies and the store are
//! there.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::cycle::{LaneRead, Looked};
use super::{Action, Engine};
use crate::clock::Timestamp;
use crate::commit::Commit;
use crate::event::Envelope;
use crate::event_store::StoreError;
use crate::inbox::{InboxError, Row, Work};
use crate::order::{OrderId, Version};
use crate::subscriber::letters::SPREAD_MAX;

/// How far history was asked about a lane that is tried.
#[derive(Debug)]
pub(super) struct Reading {
    /// What was applied last, when it was asked.
    applied: Version,
    /// What the log has there, once that is known and only what is behind it is asked for.
    looked: Option<Looked>,
}

impl Engine {
    /// Whether what comes only raises *seen*.
    pub(super) fn is_resting(&self) -> bool {
        self.paused || self.dependency.is_down()
    }

    /// Whether what comes may show that the dependency is back. One at a time: not beside a lane that is
    /// tried, or what is handled aside.
    pub(super) fn may_probe(&self, now: Timestamp) -> bool {
        let alone = self.lanes_busy.is_empty() && self.asides.is_empty();
        !self.paused && self.dependency.is_down() && self.dependency.admits(now) && alone
    }

    fn lanes_at_once(&self) -> usize {
        if self.dependency.is_down() { 1 } else { self.settings.lanes_at_once_max }
    }

    pub(super) fn ask_for_lanes(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let at_once = self.lanes_at_once();
        if self.may_try_lanes(now)
            && self.lanes_busy.len() < at_once
            && !(self.dependency.is_down() && self.asides.are_waiting())
            && let Some(until) = self.due_applying.ask(now)
        {
            // Those that are at work are due as well: the limit leaves room for the others.
            let limit = at_once + self.lanes_busy.len() + self.asides.len();
            actions.push(Action::LoadDue { work: Work::Applying, until, limit });
        }
        if self.may_perform(now)
            && self.effects.room() > 0
            && let Some(until) = self.due_performing.ask(now)
        {
            let limit = self.settings.effects_loaded_max;
            self.effects.ask_for_due();
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

    pub(super) fn due(
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
        let wait_max = self.settings.backoff.max.max(self.settings.backoff.first).max(SPREAD_MAX);
        let (rows, last) = match answer {
            Ok((rows, next)) => {
                due.answered(next, now, wait_max);
                self.store_answers();
                (rows, next.is_none())
            }
            Err(error) => {
                due.answered(Some(now), now, wait_max);
                if work == Work::Performing {
                    self.effects.due_answered();
                }
                return self.store_away(&error, now);
            }
        };
        for row in &rows {
            // An operator may have written it since it was kept.
            self.rows.put(row.clone());
            self.held_since.met(row);
        }
        match work {
            Work::Applying => {
                let rows = self.not_aside(rows, actions);
                self.try_lanes(rows, last, now, actions);
            }
            Work::Performing => {
                if rows.is_empty() && last && self.effects.is_empty() {
                    self.performing.forget(self.name);
                }
                for row in self.with_effects(rows) {
                    let head = row.performing.hold().and_then(|hold| hold.head.as_ref());
                    if !self.effects.add_due(row.order, head) {
                        self.due_performing.add(now);
                    }
                }
                self.effects.due_answered();
            }
        }
    }

    fn try_lanes(&mut self, rows: Vec<Row>, last: bool, now: Timestamp, actions: &mut Vec<Action>) {
        if rows.is_empty()
            && last
            && self.lanes_busy.is_empty()
            && self.asides.is_empty()
            && self.dependency.admits(now)
        {
            // Nothing is left that could be tried to see whether the dependency is back.
            self.dependency.forget(self.name);
        }
        self.look_for_open_attempts(&rows);
        for row in rows {
            if self.lanes_busy.len() >= self.lanes_at_once() {
                self.due_applying.add(now);
                return;
            }
            if let Entry::Vacant(entry) = self.lanes_busy.entry(row.order) {
                entry.insert(Reading { applied: row.applied, looked: None });
                actions.push(self.read_history(row.order, row.applied.max(Version::NONE.next())));
            }
        }
    }

    fn read_history(&self, order: OrderId, from: Version) -> Action {
        Action::ReadHistory { order, from, limit: self.settings.history_commits_max }
    }

    /// What was applied last is read as well: the log must still have it. When that is all that came, history may have
    /// more, and is asked once more for what is behind it.
    pub(super) fn history(
        &mut self,
        order: OrderId,
        answer: Result<Vec<Arc<Commit>>, StoreError>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(reading) = self.lanes_busy.get_mut(&order) else { return };
        let commits = match answer {
            Ok(commits) => commits,
            Err(error) => {
                self.lanes_busy.remove(&order);
                self.due_applying.add(now);
                self.trouble = Some(error.to_string());
                return self.history.shut(now, &self.settings.backoff, &mut self.rng);
            }
        };
        self.history.clear();
        let applied = reading.applied;
        let events: Vec<Envelope> = commits.iter().flat_map(|commit| commit.envelopes()).collect();
        let found = events.iter().find(|event| event.version == applied).map(|event| event.id);
        let again =
            reading.looked.is_none() && !events.is_empty() && events.iter().all(|event| event.version <= applied);
        let looked = *reading.looked.get_or_insert(Looked { at: applied, found });
        if again {
            return actions.push(self.read_history(order, applied.next()));
        }
        let complete = commits.len() < self.settings.history_commits_max;
        let events = events.into_iter().filter(|event| event.version > applied).map(Arc::new).collect();
        self.lanes.push_back(LaneRead { order, looked: Some(looked), events, complete });
    }

    pub(super) fn go_on_with_effects(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.paused || self.leaving || !self.store.admits(now) {
            return;
        }
        if let Some((after, limit)) = self.effects.ask() {
            actions.push(Action::LoadWaiting { after, limit });
        }
        if let Some(orders) = self.effects.load() {
            actions.push(Action::LoadEffects(orders));
        }
        let at_once = match (self.performing.is_down(), self.performing.admits(now)) {
            _ if self.is_careful() && self.has_events_to_attempt(now) => 0,
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => self.settings.effects_at_once_max,
        };
        while let Some(effect) = self.effects.start(at_once, now) {
            actions.push(Action::Perform(Box::new(effect)));
        }
    }
}
